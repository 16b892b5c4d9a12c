"""A table is named by a path, by a file: URI, or by the URI of another file system, which only Spark reads."""

import json
from datetime import UTC, datetime

import pytest

from recsys.cli import run_verb
from recsys.config import config_for_log
from recsys.data.reading.read import read_tables
from recsys.errors import InputError, RunFolderError
from recsys.locations import is_remote, local_path
from recsys.runfolder import RunFolder

LOG = "user_id,item_id\na,x\nb,y\n"


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("logs/clicks.csv", "logs/clicks.csv"),
        ("file:///logs/a b%20.csv", "/logs/a b%20.csv"),
        ("file://localhost/logs", "/logs"),
        ("FILE:/logs", "/logs"),
        ("file:x.csv", "file:x.csv"),
    ],
)
def test_a_path_and_a_file_uri_are_on_this_machine(location, path):
    assert not is_remote(location)
    assert str(local_path(location)) == path


@pytest.mark.parametrize("location", ["hdfs://host/x", "hdfs:///x", "s3a://bucket/x", "file://host/x"])
def test_the_uri_of_another_file_system_is_refused_here_as_it_was_given(location):
    with pytest.raises(InputError, match=f'^{location}: only Spark reads .* set engine = "spark"'):
        read_tables(location)


def test_all_tables_are_read_by_file_uris(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1.csv").write_text(LOG)
    (tmp_path / "items.csv").write_text("item_id,title\nx,X\n")
    (tmp_path / "users.csv").write_text("user_id,country\na,DE\n")
    tables = read_tables(*(f"file://{tmp_path}/{name}" for name in ("log", "items.csv", "users.csv")))
    assert tables.events["user_id"].tolist() == ["a", "b"]
    assert (tables.items["title"].tolist(), tables.users["country"].tolist()) == (["X"], ["DE"])


@pytest.mark.slow
def test_a_run_and_check_take_a_uri_and_keep_it(tmp_path, world_files):
    uri = f"file://{world_files['events']}"
    assert run_verb(["check", uri, "--items", f"file://{world_files['items']}"]) == 0
    assert run_verb(["run", uri, "--set", f"out={tmp_path}/run", "--set", "models={popular={}}"]) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"][uri].startswith("sha256:")
    assert f'events = "{uri}"' in (tmp_path / "run" / "config.toml").read_text()


def test_a_verb_names_the_uri_that_it_cannot_read_with_all_its_slashes(capsys):
    assert run_verb(["check", "hdfs://host/clicks.csv"]) == 2
    assert "hdfs://host/clicks.csv: only Spark reads" in capsys.readouterr().err
    assert config_for_log("hdfs://host/clicks.csv").data.events == "hdfs://host/clicks.csv"


def test_a_run_folder_with_a_source_on_another_file_system_is_replaced(tmp_path):
    with RunFolder.writing(tmp_path / "run") as folder:
        folder.write_manifest(seed=0, inputs={"hdfs://host/x": "not computed"}, hops=[], started=datetime.now(UTC))
    RunFolder.require_writable(tmp_path / "run", "run", ["hdfs://host/x"])
    with pytest.raises(RunFolderError, match="is read from this folder"):
        RunFolder.require_writable(tmp_path / "run", "run", [f"file://{tmp_path}/run/x"])
