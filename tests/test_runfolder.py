"""A run folder is whole or is not there; what stood before survives a failure."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.errors import RunFolderError
from recsys.meter import Meter, memory_mb
from recsys.runfolder import RunFolder, fingerprint, plain


def make(place, note="one"):
    with RunFolder.writing(place) as run:
        run.write_json("note.json", note)
        run.write_table("t.parquet", pd.DataFrame({"a": [1]}))
        run.write_manifest(seed=1, inputs=[], hops=[], started=datetime.now(UTC))


def interrupt(place):
    with RunFolder.writing(place) as run:
        run.write_json("note.json", "two")
        raise KeyboardInterrupt


def test_a_whole_run_is_read_back(tmp_path):
    make(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert run.read_json("note.json") == "one"
    assert run.read_table("t.parquet")["a"].tolist() == [1]
    assert os.listdir(tmp_path) == ["run"]


def test_a_failed_run_leaves_the_previous_one(tmp_path):
    make(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "run")
    assert RunFolder.open(tmp_path / "run").read_json("note.json") == "one"
    assert os.listdir(tmp_path) == ["run"]


def test_a_second_run_replaces_the_first(tmp_path):
    make(tmp_path / "run")
    (tmp_path / "run" / "stale").touch()
    make(tmp_path / "run", "two")
    assert RunFolder.open(tmp_path / "run").read_json("note.json") == "two"
    assert not (tmp_path / "run" / "stale").exists()


def test_a_killed_run_leaves_nothing_whole_and_the_next_one_cleans_up(tmp_path):
    code = (
        "import os, sys\nfrom recsys.runfolder import RunFolder\n"
        "with RunFolder.writing(sys.argv[1]) as run:\n    run.write_json('note.json', 1)\n    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with pytest.raises(RunFolderError, match="no such run folder"):
        RunFolder.open(tmp_path / "run")
    make(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="not a run folder"):
        make(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match=r"file/run.*Choose another"):
        make(tmp_path / "file" / "run")
    with pytest.raises(RunFolderError, match="a file stands"):
        make(tmp_path / "file")


def test_a_folder_without_success_is_not_whole(tmp_path):
    make(tmp_path / "run")
    (tmp_path / "run" / "_SUCCESS").unlink()
    with pytest.raises(RunFolderError, match="not a whole run"):
        RunFolder.open(tmp_path / "run")


def test_damaged_files_are_named(tmp_path):
    make(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    (tmp_path / "run" / "note.json").write_text("{")
    (tmp_path / "run" / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match=r"note\.json"):
        run.read_json("note.json")
    with pytest.raises(RunFolderError, match=r"t\.parquet"):
        run.read_table("t.parquet")


def test_json_is_strict():
    value = plain({1: np.float32("nan"), "a": np.array([1.5, np.inf]), "b": (np.int8(3), None, True)})
    assert json.dumps(value) == '{"1": null, "a": [1.5, null], "b": [3, null, true]}'


def test_fingerprints_follow_contents(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    before = fingerprint(tmp_path)
    (tmp_path / "b").write_text("y")
    assert fingerprint(tmp_path) != before


def test_the_meter_sees_memory_come_and_go():
    begun = []
    with Meter(interval=0.01) as meter:
        meter.announce = begun.append
        with meter.hop("big"):
            block = np.ones(60 * 2**17)  # 60 MiB
        del block
        with meter.hop("small"):
            pass
    big, small = (hop["peak_mb"]["python"] for hop in meter.hops)
    assert 40 < big - small < 80
    assert begun == ["big", "small"]
    assert memory_mb()["total"] >= memory_mb()["python"] > 10


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_a_fork_counts_once_it_is_something_of_its_own():
    """In a process of its own, without other threads: it holds 64 MiB and forks; the child then maps 256 MiB more."""
    text = """
import mmap, os, sys
from recsys.meter import memory_mb
held = bytearray(os.urandom(1024)) * (64 * 1024)
up, down = os.pipe(), os.pipe()
child = os.fork()
if not child:
    os.read(down[0], 1)
    more = mmap.mmap(-1, 256 * 2**20)
    more[:] = bytes(256 * 2**20)
    os.write(up[1], b"x")
    os.read(down[0], 1)
    os._exit(0)
before = memory_mb().get("workers", 0)
os.write(down[1], b"x")
os.read(up[0], 1)
after = memory_mb().get("workers", 0)
os.write(down[1], b"x")
os.waitpid(child, 0)
print(before, after)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before == 0
    assert after > 256
