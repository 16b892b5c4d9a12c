"""A file or a folder gets its name when all of it is written; a living writer is never taken for a dead one."""

import errno
import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from recsys import atomic_writing
from recsys.atomic_writing import (
    SCRATCH_NAME,
    is_running,
    mark_as_running,
    new_file,
    new_folder,
    remove_leftovers,
    replace_folder,
    scratch_folder,
    write_text,
    write_texts,
)

ROOT = Path(__file__).resolve().parent.parent


def fill(folder, text):
    folder.mkdir()
    (folder / "data").write_text(text)


def write_folder(target, text):
    with new_folder(target, lambda folder: None) as folder:
        (folder / "data").write_text(text)


def stop_while_writing(write, *arguments):
    def start():
        with write(*arguments) as part:
            if part.is_dir():
                (part / "data").write_text("new")
            else:
                part.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start()


def test_a_file_is_replaced_whole_and_keeps_its_permissions(tmp_path):
    target = tmp_path / "lists.csv"
    target.write_text("old")
    target.chmod(0o640)
    stop_while_writing(new_file, target)
    assert target.read_text() == "old"
    write_text(target, "new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["lists.csv"]


def test_who_reads_a_file_while_it_is_replaced_reads_the_old_one_to_its_end(tmp_path):
    target = tmp_path / "lists.csv"
    target.write_text("old " * 10_000)
    with target.open() as reader:
        begin = reader.read(4)
        with new_file(target) as part:
            part.write_text("new")
        assert begin + reader.read() == "old " * 10_000
    assert target.read_text() == "new"


def test_a_link_still_leads_to_the_file(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "lists.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "disk" / "lists.csv")
    write_text(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "disk" / "lists.csv").read_text() == "new"


def test_a_pipe_is_written_and_not_replaced(tmp_path):
    """As /dev/stdout and /dev/null are: a device that is replaced by a file is lost for all programs."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_of_several_files_none_is_replaced_if_one_cannot_be_written(tmp_path):
    write_texts(tmp_path, {"a": "old", "tables/b": "old"})
    with pytest.raises(UnicodeEncodeError):
        write_texts(tmp_path, {"a": "new", "tables/b": "\udcff"})
    assert (tmp_path / "a").read_text() == (tmp_path / "tables" / "b").read_text() == "old"
    write_texts(tmp_path, {"a": "new", "tables/b": "new"})
    assert (tmp_path / "a").read_text() == (tmp_path / "tables" / "b").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["a", "tables"]


@pytest.mark.parametrize("moment", range(1, 6))
def test_new_files_never_stand_beside_older_ones(tmp_path, monkeypatch, moment):
    """Stopped between any two steps: three older files are removed, then two new ones get their names."""
    write_texts(tmp_path, {"a": "old", "b": "old", "c": "old"})
    unlink, replace = Path.unlink, os.replace
    steps = []

    def stop_before(step):
        def stopping(*arguments, **options):
            steps.append(step)
            if len(steps) == moment:
                raise KeyboardInterrupt
            return step(*arguments, **options)

        return stopping

    monkeypatch.setattr(Path, "unlink", stop_before(unlink))
    monkeypatch.setattr(os, "replace", stop_before(replace))
    with suppress(KeyboardInterrupt):
        write_texts(tmp_path, {"a": "new", "b": "new"}, obsolete=["c"])
    assert len({file.read_text() for file in tmp_path.iterdir() if file.suffix == ""}) <= 1


def test_a_folder_in_the_way_of_several_files_leaves_them_as_they_were(tmp_path):
    write_texts(tmp_path, {"a": "old", "b": "old"})
    (tmp_path / "c").mkdir()
    with pytest.raises(IsADirectoryError):
        write_texts(tmp_path, {"a": "new", "b": "new", "c": "new"})
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "old"


def test_one_writer_at_a_time_replaces_several_files(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    rename, unlink = os.rename, Path.unlink
    has_lock = []

    def check_lock(step):
        def checking(*arguments, **options):
            descriptor = os.open(tmp_path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                has_lock.append(False)
            except BlockingIOError:
                has_lock.append(True)
            finally:
                os.close(descriptor)
            return step(*arguments, **options)

        return checking

    monkeypatch.setattr(os, "rename", check_lock(rename))
    monkeypatch.setattr(Path, "unlink", check_lock(unlink))
    write_texts(tmp_path, {"a": "new", "tables/b": "new"})
    # The last step removes the lock of the scratch folder, when all is done.
    assert has_lock == [True, True, True, True, False]


def test_missing_parents_are_removed_again_after_a_failure(tmp_path):
    stop_while_writing(scratch_folder, tmp_path / "runs" / "new" / "run")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_whole(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(atomic_writing, "_exchange", refuse_to_exchange)
    target = tmp_path / "run"
    for text in ("first", "second", "third"):
        write_folder(target, text)
        assert (target / "data").read_text() == text
        assert os.listdir(tmp_path) == ["run"]
    stop_while_writing(new_folder, target, lambda folder: None)
    assert (target / "data").read_text() == "third"
    assert os.listdir(tmp_path) == ["run"]


def refuse_to_exchange(a, b):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize("moment", ["after", "instead"])
def test_another_writer_between_the_two_steps_does_no_harm(tmp_path, monkeypatch, moment):
    """Without an exchange, the other one moves the target aside, or its folder in, at the worst moment."""
    target = tmp_path / "run"
    write_folder(target, "old")
    rename = os.rename
    moved_aside = tmp_path / "other"
    steps = []

    def rename_with_another_writer(source, destination):
        is_move_in = Path(destination) == target and not target.exists()
        if is_move_in and not steps and moment == "instead":
            steps.append("put in")
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "data").write_text("of the other writer")
            rename(tmp_path / "new", target)
        rename(source, destination)
        if is_move_in and not steps and moment == "after":
            steps.append("moved aside")
            rename(target, moved_aside)

    monkeypatch.setattr(atomic_writing, "_exchange", refuse_to_exchange)
    monkeypatch.setattr(atomic_writing.os, "rename", rename_with_another_writer)
    write_folder(target, "new")
    assert steps
    if moment == "after":
        assert not target.exists()
        assert (moved_aside / "data").read_text() == "new"
        assert os.listdir(tmp_path) == ["other"]
    else:
        assert (target / "data").read_text() == "new"
        assert os.listdir(tmp_path) == ["run"]


def test_there_is_a_folder_at_every_moment(tmp_path):
    target = tmp_path / "run"
    write_folder(target, "0")
    looks = []
    stop = threading.Event()

    def look():
        while not stop.is_set():
            looks.append(target.is_dir())

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(300):
        write_folder(target, str(number))
    stop.set()
    reader.join()
    assert all(looks)


WRITER = """
import sys
from contextlib import ExitStack
from pathlib import Path
from recsys import atomic_writing

def refuse(a, b):
    raise OSError(22, "Invalid argument")

if sys.argv[2] == "fallback":
    atomic_writing._exchange = refuse
sys.stdin.readline()
for number in range(60):
    with atomic_writing.new_folder(Path(sys.argv[1]), lambda folder: None) as part:
        for name in ("a", "b", "c"):
            (part / name).write_text(f"{sys.argv[3]} {number}")
"""


@pytest.mark.subprocess
@pytest.mark.parametrize("way", ["exchange", "fallback"])
def test_writers_at_the_same_time_all_succeed_and_the_last_one_wins(tmp_path, way):
    target = tmp_path / "run"
    write_folder(target, "0")
    command = [sys.executable, "-c", WRITER, str(target), way]
    options = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    with ExitStack() as stack:
        writers = [stack.enter_context(subprocess.Popen([*command, str(number)], **options)) for number in range(3)]
        for writer in writers:
            writer.stdin.write("\n")
            writer.stdin.flush()
        messages = [writer.communicate(timeout=120)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], messages
    assert sorted(os.listdir(target)) == ["a", "b", "c"]
    assert len({path.read_text() for path in target.iterdir()}) == 1
    assert os.listdir(tmp_path) == ["run"]


def test_a_file_that_comes_in_the_last_moment_is_kept(tmp_path):
    """It appears after the last look at the folder, just before the two folders change places."""
    target = tmp_path / "run"
    write_folder(target, "old")

    def require_only_data(folder):
        if folder.exists() and os.listdir(folder) != ["data"]:
            raise ValueError(f"{folder.name}: other files")
        looks.append(folder)
        if len(looks) == 2:
            (target / "thesis.txt").write_text("years of work")

    looks = []
    with pytest.raises(ValueError, match="run: other files"), new_folder(target, require_only_data) as part:
        (part / "data").write_text("new")
    assert (target / "data").read_text() == "old"
    assert (target / "thesis.txt").read_text() == "years of work"
    assert os.listdir(tmp_path) == ["run"]


HOLDER = """
import os, sys
from contextlib import ExitStack
from pathlib import Path
from recsys.atomic_writing import scratch_folder
with scratch_folder(Path(sys.argv[1])) as part:
    (part / "data").write_text("hours of work")
    print(part, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.subprocess
def test_a_living_writer_is_left_alone_and_a_dead_one_is_cleaned_up(tmp_path):
    """Whatever the process ids: no /proc is read, so that containers that share a disk do not matter either."""
    target = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, str(target)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    part = Path(holder.stdout.readline().strip())
    write_folder(target, "whole")
    remove_leftovers(target)
    assert (part / "data").read_text() == "hours of work"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert len(os.listdir(tmp_path)) == 3
    write_folder(target, "newer")
    assert os.listdir(tmp_path) == ["run"]
    assert (target / "data").read_text() == "newer"


def test_names_differ_although_the_process_is_the_same(tmp_path):
    with scratch_folder(tmp_path / "run") as one, scratch_folder(tmp_path / "run") as other:
        assert one != other
        assert one.is_dir()
        assert other.is_dir()
        assert all(SCRATCH_NAME.fullmatch(name) for name in os.listdir(tmp_path))
    assert os.listdir(tmp_path) == []


def test_without_locks_nothing_is_taken_for_dead(tmp_path, monkeypatch):
    """As on a network disk without them: a leftover stays, but nothing of another process is removed."""

    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(atomic_writing.fcntl, "flock", no_locks)
    with scratch_folder(tmp_path / "run") as living:
        write_folder(tmp_path / "run", "whole")
        assert living.is_dir()
    assert os.listdir(tmp_path) == ["run"]


def test_the_old_folder_of_a_killed_swap_is_put_back(tmp_path):
    fill(tmp_path / ".run.recsys-0123456789abcdef.old", "old")
    fill(tmp_path / ".run.recsys-0123456789abcdef.part", "new")
    remove_leftovers(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]
    assert (tmp_path / "run" / "data").read_text() == "old"


def test_replacing_says_what_it_cannot_do(tmp_path):
    fill(tmp_path / "part", "new")
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(NotADirectoryError):
        replace_folder(tmp_path / "part", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "years of work"


def test_a_mark_lives_as_long_as_its_block(tmp_path):
    with mark_as_running(tmp_path / "trial") as name:
        assert is_running(tmp_path, name)
        assert not is_running(tmp_path, name.replace("recsys-", "recsys-0")[: len(name)])
    assert not is_running(tmp_path, name)
    assert not is_running(tmp_path, "somehost 123")
    assert not is_running(tmp_path, "../../etc/passwd")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.subprocess
def test_verbs_leave_the_whole_old_or_the_whole_new(tmp_path):
    """Killed, interrupted, on a full disk; tests/interruptions.py does so with more verbs and at more moments."""
    verbs = ["run", "recommend --out", "data make"]
    script = [sys.executable, str(ROOT / "tests" / "interruptions.py"), str(tmp_path / "place"), "2", *verbs]
    done = subprocess.run(script, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(.*): 0 complaints of ", done.stderr, re.M) == verbs


@pytest.mark.parametrize("moment", range(1, 7))
def test_several_files_are_the_older_ones_again_after_an_interruption(tmp_path, monkeypatch, moment):
    older = {"a": "old", "b": "old", "d": "old"}
    for name, text in older.items():
        (tmp_path / name).write_text(text)
    rename = os.rename
    moves = []

    def interrupt(*paths):
        moves.append(paths)
        if len(moves) == moment:
            raise KeyboardInterrupt
        rename(*paths)

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_texts(tmp_path, {"a": "new", "b": "new", "c": "new"}, obsolete=["d"])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == older
