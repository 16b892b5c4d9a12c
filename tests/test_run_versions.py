"""A run at a URI: readers find a whole old or a whole new run, and nothing that is not ours is touched."""

import dataclasses
import json
from datetime import UTC, datetime

import pandas as pd
import pytest
from object_store import Folder, Killed, Store, copy_run

from recsys import storage
from recsys.errors import RunFolderError
from recsys.locations import Uri
from recsys.run_versions import ABANDONED_DAYS
from recsys.runfolder import RunFolder

URI = "s3a://bucket/runs/first"
TEXTS = {"metrics.json", "report.html", "config.toml", "tables/1-models.csv"}


@pytest.fixture
def store(monkeypatch):
    """An empty object store, which holds every URI."""
    store = Store()
    monkeypatch.setattr(storage, "_spark_opener", store.open)
    return store


def write(text, target=URI, sources=()):
    """Write a run in which every file has this text; executors write the lists."""
    with RunFolder.writing(target, "run", sources) as folder:
        fill(folder, text)


def fill(folder, text):
    for name in sorted(TEXTS):
        folder.write_text(name, text)
    folder.write_table("per_user.parquet", pd.DataFrame({"user_id": [text]}))
    part = str(folder.uri_of("topk/als.parquet/part-0.parquet"))
    content = pd.DataFrame({"user_id": [text]}).to_parquet()
    if folder.version is None:
        folder.write_text("topk/als.parquet/part-0.parquet", "")
        (folder.path / "topk/als.parquet/part-0.parquet").write_bytes(content)
    else:
        folder.version.folder.store.put(part, content)
        folder.version.folder.store.put(str(folder.uri_of(".work/lists/part-0.parquet")), b"x")
    folder.write_manifest(seed=0, inputs={}, hops=[], started=datetime.now(UTC))


def read(uri=URI):
    """Return the one text that all files of a run have."""
    folder = RunFolder.open(uri)
    texts = {folder.local(name).read_text() for name in TEXTS}
    for name in ("per_user.parquet", "topk/als.parquet"):
        texts |= set(folder.read_table(name)["user_id"])
    (text,) = texts
    return text


def test_a_run_at_a_uri_has_the_files_of_a_run_on_a_disk(store, tmp_path):
    write("new", tmp_path / "run")
    write("new")
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert set(RunFolder.open(URI).version.files) == files
    assert read() == read(tmp_path / "run") == "new"
    assert RunFolder.open(URI).read_manifest()["kind"] == "run"


def test_a_writer_that_dies_at_any_step_leaves_a_whole_run(store):
    write("old")
    after_old = dict(store.objects)
    texts = []
    for changes in range(100):
        store.objects, store.changes, store.killed_after = dict(after_old), 0, changes
        try:
            write("new")
        except Killed:
            texts.append(read())
        else:
            break
    store.killed_after = None
    # Nine files, the scratch table, _SUCCESS and current.json are written, and the scratch table is removed.
    assert texts == ["old"] * 11
    assert read() == "new"
    # The next run replaces what a dead writer left.
    store.objects = dict(after_old)
    store.changes, store.killed_after = 0, 5
    with pytest.raises(Killed):
        write("new")
    store.killed_after = None
    write("newest")
    assert read() == "newest"


def test_a_first_run_that_dies_is_no_run_and_is_no_obstacle(store):
    store.killed_after = 4
    with pytest.raises(Killed):
        write("first")
    with pytest.raises(RunFolderError, match="not a whole run"):
        RunFolder.open(URI)
    store.killed_after = None
    write("second")
    assert read() == "second"


def test_a_run_that_fails_leaves_nothing(store):
    write("old")
    before = dict(store.objects)

    def fail():
        with RunFolder.writing(URI) as folder:
            fill(folder, "new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.objects == before


def test_of_two_writers_the_last_one_wins_and_readers_see_whole_runs(store):
    write("old")
    with RunFolder.writing(URI) as first:
        fill(first, "first")
        with RunFolder.writing(URI) as second:
            fill(second, "second")
            assert read() == "old"
        assert read() == "second"
    assert read() == "first"


def test_a_reader_of_a_replaced_run_reads_on_until_it_is_replaced_twice(store):
    write("one")
    early, late = RunFolder.open(URI), RunFolder.open(URI)
    write("two")
    assert early.read_table("per_user.parquet")["user_id"].tolist() == ["one"]
    write("three")
    assert early.read_table("per_user.parquet")["user_id"].tolist() == ["one"]
    with pytest.raises(RunFolderError, match=r"metrics.json is gone: newer runs have replaced this one"):
        late.read_json("metrics.json")


def test_only_the_previous_version_and_fresh_ones_are_kept(store):
    write("one")
    abandoned = f"{URI}/run-20260101T000000Z-{'a' * 16}/metrics.json"
    running = f"{URI}/run-20260101T000000Z-{'b' * 16}/.work/lists/part-0"
    store.put(abandoned, b"x")
    store.clock += ABANDONED_DAYS * 86_400 - 100
    store.put(running, b"x")
    write("two")
    assert abandoned in store.objects
    store.clock += 100
    write("three")
    versions = {key.removeprefix(f"{URI}/").partition("/")[0] for key in store.objects}
    current = json.loads(store.objects[f"{URI}/current.json"][0])
    assert versions == {"current.json", current["version"], current["previous"], f"run-20260101T000000Z-{'b' * 16}"}


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "sub/events.csv", "run-20260101T000000Z-0123456789abcdef/notes.txt", "current.json", "_SUCCESS"],
)
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_with_a_file_of_the_user_is_left_alone(store, name, is_replaced):
    if is_replaced:
        write("old")
    store.put(f"{URI}/{name}", b"mine")
    before = dict(store.objects)
    with pytest.raises(RunFolderError, match=f"holds .*{name.rpartition('/')[2]}, which no run has"):
        write("new")
    assert store.objects == before


def test_a_file_that_comes_while_the_run_is_written_is_kept(store):
    write("old")
    writing = RunFolder.writing(URI)
    fill(writing.__enter__(), "new")
    store.put(f"{URI}/notes.txt", b"mine")
    with pytest.raises(RunFolderError, match=r"notes\.txt"):
        writing.__exit__(None, None, None)
    assert store.objects[f"{URI}/notes.txt"][0] == b"mine"
    del store.objects[f"{URI}/notes.txt"]
    assert read() == "old"


def test_a_file_a_source_and_the_inside_of_a_run_are_refused(store, tmp_path):
    store.put(URI, b"mine")
    with pytest.raises(RunFolderError, match="a file is where the run folder should go"):
        write("new")
    del store.objects[URI]
    write("old")
    with pytest.raises(RunFolderError, match=f"{URI}/split/train.parquet is read from this folder"):
        write("new", sources=[f"{URI}/split/train.parquet"])
    write("new", sources=[f"{URI}-events"])
    with pytest.raises(RunFolderError, match=f"{URI} is a run or a bundle"):
        write("inner", f"{URI}/inner/run")
    write("copied", tmp_path / "run")
    copy_run(tmp_path / "run", store, "s3a://bucket/copies/run")
    with pytest.raises(RunFolderError, match="s3a://bucket/copies/run is a run or a bundle"):
        write("inner", "s3a://bucket/copies/run/inner")


@pytest.mark.parametrize("file", ["per_user.parquet", "topk/als.parquet/part-0.parquet", "_SUCCESS"])
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_half_copied_run_is_not_read_and_not_replaced(store, file, is_cut):
    write("old")
    version = json.loads(store.objects[f"{URI}/current.json"][0])["version"]
    key = f"{URI}/{version}/{file}"
    if is_cut:
        store.objects[key] = (store.objects[key][0] + b"x", store.objects[key][1])
    else:
        del store.objects[key]
    with pytest.raises(RunFolderError, match=f"not a whole run: {file} is missing or was cut short"):
        RunFolder.open(URI)
    before = dict(store.objects)
    with pytest.raises(RunFolderError, match="so it is left alone"):
        write("new")
    assert store.objects == before


def test_a_file_that_is_cut_after_the_run_was_opened_is_not_read(store):
    write("old")
    folder = RunFolder.open(URI)
    key = str(folder.uri_of("per_user.parquet"))
    store.objects[key] = (store.objects[key][0][:-1], 0.0)
    with pytest.raises(RunFolderError, match=r"per_user\.parquet was cut short or changed"):
        folder.read_table("per_user.parquet")


def test_a_run_is_not_published_while_the_store_does_not_list_it(store):
    write("old")
    store.lag = True
    with pytest.raises(RunFolderError, match=r"does not list .* What was there is unchanged"):
        write("new")
    store.lag = False
    store.unlisted.clear()
    assert read() == "old"


def test_a_run_that_was_copied_from_a_disk_is_read(store, tmp_path):
    write("copied", tmp_path / "run")
    copy_run(tmp_path / "run", store, "s3a://bucket/copies/run")
    assert read("s3a://bucket/copies/run") == "copied"
    with pytest.raises(RunFolderError, match="no such run folder"):
        RunFolder.open("s3a://bucket/copies/none")
    del store.objects["s3a://bucket/copies/run/_SUCCESS"]
    with pytest.raises(RunFolderError, match="not a whole run"):
        RunFolder.open("s3a://bucket/copies/run")


def test_a_report_that_is_written_again_leaves_the_run_whole(store):
    write("old")
    folder = RunFolder.open(URI)
    before = dict(store.objects)
    folder.write_texts({"report.html": "longer than before"}, ["tables/1-models.csv"])
    changed = {key for key in before if store.objects.get(key) != before[key]}
    assert changed == {str(folder.uri_of(name)) for name in ("report.html", "tables/1-models.csv")}
    again = RunFolder.open(URI)
    assert again.local("report.html").read_text() == "longer than before"
    assert not again.has("tables")
    write("new")
    assert read() == "new"


def test_a_store_that_refuses_is_one_line(store, monkeypatch):
    def refuse(self, *arguments):
        raise PermissionError("access denied")

    monkeypatch.setattr(Folder, "list_files", refuse)
    with pytest.raises(RunFolderError, match=f"{URI}: cannot be read: access denied"):
        RunFolder.open(URI)
    with pytest.raises(RunFolderError, match=f"{URI}: the run folder cannot be written: access denied"):
        write("new")


def test_a_uri_keeps_its_slashes():
    assert str(Uri("hdfs:///runs/first/") / "a.json") == "hdfs:///runs/first/a.json"
    assert Uri("hdfs:///runs/first").name == "first"
    assert dataclasses.astuple(Uri("hdfs:///runs/first").with_name("x")) == ("hdfs:///runs/x",)
