"""A run folder is whole or is not there; what stood before survives a failure."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest

from recsys.atomic_writing import remove_leftovers
from recsys.errors import RunFolderError
from recsys.fingerprint import fingerprint, fingerprint_in_background
from recsys.meter import Meter, memory_mb
from recsys.replacing import MANIFEST_KEYS, is_unfinished
from recsys.runfolder import RunFolder, to_plain_json


def make(place, note="one"):
    with RunFolder.writing(place) as run:
        run.write_json("data.json", note)
        run.write_table("per_user.parquet", pd.DataFrame({"a": [1]}))
        run.write_manifest(seed=1, inputs={}, hops=[], started=datetime.now(UTC))


def interrupt(place):
    with RunFolder.writing(place) as run:
        run.write_json("data.json", "two")
        raise KeyboardInterrupt


def test_a_whole_run_is_read_back(tmp_path):
    make(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert run.read_json("data.json") == "one"
    assert run.read_table("per_user.parquet")["a"].tolist() == [1]
    assert os.listdir(tmp_path) == ["run"]


def test_a_failed_run_leaves_the_previous_one(tmp_path):
    make(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "run")
    assert RunFolder.open(tmp_path / "run").read_json("data.json") == "one"
    assert os.listdir(tmp_path) == ["run"]


def test_a_second_run_replaces_the_first(tmp_path):
    make(tmp_path / "run")
    (tmp_path / "run" / "coldstart.json").touch()
    make(tmp_path / "run", "two")
    assert RunFolder.open(tmp_path / "run").read_json("data.json") == "two"
    assert not (tmp_path / "run" / "coldstart.json").exists()


@pytest.mark.subprocess
def test_a_killed_run_leaves_nothing_whole_and_the_next_one_cleans_up(tmp_path):
    code = (
        "import os, sys\nfrom recsys.runfolder import RunFolder\n"
        "with RunFolder.writing(sys.argv[1]) as run:\n    run.write_json('data.json', 1)\n    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert {name.rpartition(".")[2] for name in os.listdir(tmp_path)} == {"part", "lock"}
    with pytest.raises(RunFolderError, match="no such run folder"):
        RunFolder.open(tmp_path / "run")
    make(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="not a folder that recsys wrote"):
        make(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


FOREIGN_MANIFESTS = {
    "empty": "{}",
    "no object": "[]",
    "no JSON": "manifest",
    "web app": '{"name": "app", "icons": []}',
    "the marker alone": '{"kind": "run"}',
    "another kind": json.dumps(dict.fromkeys(MANIFEST_KEYS) | {"kind": "site"}),
    "0.1.0 and more": json.dumps(dict.fromkeys(MANIFEST_KEYS) | {"icons": []}),
    "0.1.0 but less": json.dumps(dict.fromkeys(MANIFEST_KEYS - {"hops"})),
}


@pytest.mark.parametrize("manifest", FOREIGN_MANIFESTS.values(), ids=FOREIGN_MANIFESTS)
def test_a_manifest_of_another_program_does_not_make_a_run_folder(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(RunFolderError, match="not a folder that recsys wrote"):
        make(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == manifest


def test_a_run_without_success_is_not_replaced(tmp_path):
    make(tmp_path / "run")
    (tmp_path / "run" / "_SUCCESS").unlink()
    with pytest.raises(RunFolderError, match="not a folder that recsys wrote"):
        make(tmp_path / "run")


@pytest.mark.parametrize(
    "name",
    [
        "thesis.txt",
        ".git/config",
        "study.log",
        "tables/mine.csv",
        "topk/notes.md",
        "model/als/weights.npy",
        "split/extra.parquet",
        "per_user.parquet/mine.parquet",
        "bundle.json",
        ".work/checked",
    ],
)
def test_a_run_that_holds_other_files_is_left_alone(tmp_path, name):
    make(tmp_path / "run")
    other = tmp_path / "run" / name
    if not other.parent.is_dir():
        other.parent.unlink(missing_ok=True)
        other.parent.mkdir(parents=True)
    other.write_text("years of work")
    with pytest.raises(RunFolderError, match=rf"holds {name}, which no run has.*Move them"):
        make(tmp_path / "run", "two")
    assert other.read_text() == "years of work"
    assert os.listdir(tmp_path) == ["run"]


def test_a_file_that_comes_while_a_run_is_written_is_kept(tmp_path):
    def run_and_save():
        with RunFolder.writing(tmp_path / "run"):
            (tmp_path / "run" / "thesis.txt").write_text("years of work")

    make(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"thesis\.txt"):
        run_and_save()
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"
    assert RunFolder.open(tmp_path / "run").read_json("data.json") == "one"


RUN_NAMES = """_SUCCESS config.toml refused.csv report.md report.html data.json split.json rules.json
metrics.json coldstart.json training.json watched.json per_user.parquet split/items.parquet split/train.parquet
split/history.parquet split/test.parquet topk/als.parquet topk/m-$1$.parquet segment/segments.json segment/scores.npy
segment/users.parquet tables/01-means.csv tables/01-means.tex model/als/model.json model/als/als/known_.npy
model/als/als/item_factors_.npy model/knn/train_.npz""".split()
SPARK_PARTS = (
    "_SUCCESS",
    "._SUCCESS.crc",
    "part-00000-1f-c000.snappy.parquet",
    ".part-00000-1f-c000.snappy.parquet.crc",
)
SPARK_NAMES = ["model/als/params.json", "split/items.parquet"] + [
    f"{table}.parquet/{part}"
    for table in ("per_user", "split/train", "topk/als", "model/als/user_factors", "model/als/item_factors")
    for part in SPARK_PARTS
]


@pytest.mark.parametrize("names", [RUN_NAMES, SPARK_NAMES], ids=["local", "spark"])
@pytest.mark.parametrize("marked", [True, False], ids=["now", "0.1.0"])
def test_whole_runs_of_both_engines_are_replaced(tmp_path, names, marked):
    place = tmp_path / "run"
    for name in [*names, "_SUCCESS"]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    marker = {"kind": "run"} if marked else {}
    (place / "manifest.json").write_text(json.dumps(dict.fromkeys(MANIFEST_KEYS) | marker))
    make(place, "new")
    assert sorted(os.listdir(place)) == ["_SUCCESS", "data.json", "manifest.json", "per_user.parquet"]


def test_a_run_and_a_bundle_do_not_replace_each_other(tmp_path):
    def bundle(place):
        with RunFolder.writing(place, "bundle") as folder:
            folder.write_json("bundle.json", {})
            folder.write_json("manifest.json", dict.fromkeys(MANIFEST_KEYS) | {"kind": "bundle"})

    make(tmp_path / "run")
    with pytest.raises(RunFolderError, match="this is a run, and a bundle replaces only a bundle"):
        bundle(tmp_path / "run")
    bundle(tmp_path / "bundle")
    bundle(tmp_path / "bundle")
    with pytest.raises(RunFolderError, match="this is a bundle, and a run replaces only a run"):
        make(tmp_path / "bundle")
    manifest = json.dumps(dict.fromkeys(MANIFEST_KEYS))  # of 0.1.0: that of the run
    (tmp_path / "bundle" / "manifest.json").write_text(manifest)
    with pytest.raises(RunFolderError, match="this is a bundle, and a run replaces only a run"):
        make(tmp_path / "bundle")
    bundle(tmp_path / "bundle")
    assert RunFolder.open(tmp_path / "bundle").read_json("manifest.json")["kind"] == "bundle"


def test_a_run_does_not_replace_what_it_reads(tmp_path):
    def read_and_replace(source):
        with RunFolder.writing(tmp_path / "run", "run", [source]) as run:
            run.write_manifest(seed=1, inputs={}, hops=[], started=datetime.now(UTC))

    make(tmp_path / "run")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "run" / "per_user.parquet")
    for source in (tmp_path / "run" / "per_user.parquet", tmp_path / "link.parquet"):
        with pytest.raises(RunFolderError, match="is read from this folder"):
            read_and_replace(source)
    assert RunFolder.open(tmp_path / "run").read_json("data.json") == "one"
    read_and_replace(tmp_path / "runs.csv")
    assert sorted(os.listdir(tmp_path / "run")) == ["_SUCCESS", "manifest.json"]


TOKEN = "recsys-0123456789abcdef"
"""The part of a scratch name that a process makes up; no lock file says that this one lives."""


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("als", f".als.v2.{TOKEN}.old"),
        ("als", f".als.v2.{TOKEN}.part"),
        ("[ab]", f".a.{TOKEN}.part"),
        ("r?n", f".run.{TOKEN}.old"),
        ("a.b", f".axb.{TOKEN}.part"),
        ("als", f".als.x{TOKEN}.part"),
        ("als", f".als.{TOKEN}.parts"),
        ("als", f".als.{TOKEN}0.part"),
        ("als", ".als.123.part"),
        ("als", ".als.123.old"),
    ],
)
def test_leftovers_of_other_folders_are_left_alone(tmp_path, name, other):
    make(tmp_path / other)
    make(tmp_path / name)
    assert RunFolder.open(tmp_path / other).read_json("data.json") == "one"


@pytest.mark.parametrize("name", [".run.2019.old", f".run.{TOKEN}.part"])
def test_a_hidden_folder_of_the_user_is_not_a_leftover(tmp_path, name):
    kept = tmp_path / name
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work")
    make(tmp_path / "run")
    assert (kept / "thesis.txt").read_text() == "years of work"
    assert sorted(os.listdir(tmp_path)) == [kept.name, "run"]


@pytest.mark.parametrize("name", ["run", "[ab]", "a.b"])
def test_leftovers_of_killed_runs_are_put_back_or_removed(tmp_path, name):
    old, part = (tmp_path / f".{name}.{TOKEN}.{end}" for end in ("old", "part"))
    make(old)
    for left in (
        ".work/checked/part-0",
        "topk/als.parquet/_temporary/0/.part-0.crc",
        f".data.json.{TOKEN}.part/data.json",
        f".data.json.{TOKEN}.lock",
    ):
        (part / left).parent.mkdir(parents=True, exist_ok=True)
        (part / left).touch()
    (tmp_path / f".{name}.{TOKEN}.lock").touch()
    remove_leftovers(tmp_path / name, is_unfinished)
    assert os.listdir(tmp_path) == [name]
    assert RunFolder.open(tmp_path / name).read_json("data.json") == "one"
    make(old, "older")
    remove_leftovers(tmp_path / name, is_unfinished)
    assert os.listdir(tmp_path) == [name]
    assert RunFolder.open(tmp_path / name).read_json("data.json") == "one"


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match=r"file/run.*Choose another"):
        make(tmp_path / "file" / "run")
    with pytest.raises(RunFolderError, match="a file is where"):
        make(tmp_path / "file")


def test_a_folder_without_success_is_not_whole(tmp_path):
    make(tmp_path / "run")
    (tmp_path / "run" / "_SUCCESS").unlink()
    with pytest.raises(RunFolderError, match="not a whole run"):
        RunFolder.open(tmp_path / "run")


def test_damaged_files_are_named(tmp_path):
    make(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text("{")
    (tmp_path / "run" / "per_user.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match=r"data\.json"):
        run.read_json("data.json")
    with pytest.raises(RunFolderError, match=r"per_user\.parquet"):
        run.read_table("per_user.parquet")


def test_json_is_strict():
    value = to_plain_json({1: np.float32("nan"), "a": np.array([1.5, np.inf]), "b": (np.int8(3), None, True)})
    assert json.dumps(value) == '{"1": null, "a": [1.5, null], "b": [3, null, true]}'


def test_fingerprints_follow_contents(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    before = fingerprint(tmp_path)
    (tmp_path / "b").write_text("y")
    assert fingerprint(tmp_path) != before


def test_the_meter_sees_memory_come_and_go():
    with Meter(interval=0.01) as meter:
        with meter.hop("big"):
            block = np.ones(60 * 2**17)  # 60 MiB
        del block
        with meter.hop("small"):
            pass
    big, small = (hop["peak_mb"]["python"] for hop in meter.hops)
    assert 40 < big - small < 80
    assert memory_mb()["total"] >= memory_mb()["python"] > 10


@pytest.mark.subprocess
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


def test_a_table_without_rows_keeps_text_as_the_type_of_its_ids(tmp_path):
    with RunFolder.writing(tmp_path / "run") as run:
        run.write_manifest(seed=1, inputs={}, hops=[], started=datetime.now(UTC))
        run.write_table(
            "t.parquet", pd.DataFrame({"user_id": np.empty(0, dtype=object), "rank": np.empty(0, np.int32)})
        )
        table = run.read_table("t.parquet", row_filter=ds.field("user_id").isin(["a"]))
    assert (len(table), table["rank"].dtype) == (0, np.int32)


def test_tables_are_fingerprinted_while_a_run_goes_on(tmp_path):
    table = tmp_path / "events.csv"
    table.write_text("user_id,item_id\na,x\n")
    missing = str(tmp_path / "missing.csv")
    result = fingerprint_in_background([str(table), missing, "hdfs://host/x"]).result(timeout=60)
    digest = hashlib.sha256(b"user_id,item_id\na,x\n").hexdigest()
    assert result.pop(str(table)) == f"sha256:{digest}"
    assert result.pop(missing).startswith("not computed: ")
    assert result == {"hdfs://host/x": "not computed: on another file system"}
