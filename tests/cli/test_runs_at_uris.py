"""The verbs that read a run take its URI, and say what they say of the same run on a disk."""

import shutil

import pytest
from s3_server import s3_server

from recsys import storage
from recsys.cli import run_verb
from recsys.config import parse_config
from recsys.locations import Uri
from recsys.run_versions import new_version
from recsys.runfolder import RunFolder
from recsys.storage import ArrowFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local(tmp_path_factory, world_files):
    """A run of the local engine on a disk."""
    out = tmp_path_factory.mktemp("uris") / "run"
    tables = [str(world_files["events"]), "--items", str(world_files["items"])]
    settings = ["engine=local", "models={als={rank=4, iterations=2}}", "judge.resamples=100", f"out={out}"]
    assert run_verb(["run", *tables, *(word for setting in settings for word in ("--set", setting))]) == 0
    return out


@pytest.fixture
def uri(local, monkeypatch):
    """The URI of the same run on an S3 server."""
    # A session of another test in this process would be asked first, and has no library for S3.
    monkeypatch.setattr(storage, "_spark_opener", None)
    with s3_server() as (url, objects):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with new_version(Uri("s3://bucket/runs/run"), []) as (scratch, _):
            shutil.copytree(local, scratch, dirs_exist_ok=True)
        assert "bucket/runs/run/current.json" in objects
        yield "s3a://bucket/runs/run"


def printed(capsys, *words):
    capsys.readouterr()
    assert run_verb([str(word) for word in words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("recommend", "RUN", "--user", "u001", "--user", "nobody", "-k", "5"),
        ("similar", "RUN", "f01", "-k", "3"),
        ("explain", "RUN", "--user", "u001", "--item", "f02"),
        ("compare", "RUN", "--json"),
    ],
    ids=lambda words: words[0],
)
def test_a_verb_prints_the_same(local, uri, capsys, words):
    results = []
    for run in (local, uri):
        results.append(printed(capsys, *(run if word == "RUN" else word for word in words)))
    assert results[0] == results[1]


def test_two_runs_are_compared(local, uri, capsys):
    copy = "s3://bucket/runs/copy"
    with new_version(Uri(copy), []) as (scratch, _):
        shutil.copytree(local, scratch, dirs_exist_ok=True)
    text = printed(capsys, "compare", uri, copy, "--fail-if", "ndcg@10 drops 0.0001")
    assert "run" in text
    assert "copy" in text


def test_a_bundle_of_a_run_at_a_uri_is_that_of_the_run_on_a_disk(local, uri, tmp_path, capsys):
    printed(capsys, "bundle", uri, tmp_path / "b")
    printed(capsys, "bundle", local, tmp_path / "a")
    files = [{path.relative_to(tmp_path / name): path for path in (tmp_path / name).rglob("*")} for name in "ab"]
    assert files[0].keys() == files[1].keys()
    for name, path in files[0].items():
        if path.is_file():
            assert path.read_bytes() == files[1][name].read_bytes(), name


def test_the_report_is_written_again_where_the_run_is(local, uri, capsys):
    before = RunFolder.open(uri)
    text = printed(capsys, "report", uri)
    assert f"report: {uri}/report.html" in text
    after = RunFolder.open(uri)
    assert before.version.folder.uri == after.version.folder.uri
    assert after.local("report.md").read_text() == (local / "report.md").read_text()


def test_a_uri_without_a_run_is_one_line(uri, capsys):
    assert run_verb(["recommend", "s3://bucket/runs/none", "--user", "a"]) == 2
    assert "error: s3://bucket/runs/none: no such run folder." in capsys.readouterr().err
    assert run_verb(["bundle", uri, "s3://bucket/bundle"]) == 2
    assert "s3:/bucket/bundle: this is a URI" in capsys.readouterr().err


def test_config_and_rules_are_read_from_a_uri(uri, world_files, tmp_path, capsys):
    folder = ArrowFolder.open(Uri("s3://bucket/settings"))
    folder.write_text("rules.toml", 'deny = ["f01"]\n')
    settings = {"models": {"popular": {}}, "recommend": {"rules": "s3://bucket/settings/rules.toml"}}
    config = parse_config({"out": f"{tmp_path}/run", "data": {"events": str(world_files["events"])}, **settings}, "x")
    folder.write_text("run.toml", config.to_toml())
    printed(capsys, "run", "s3://bucket/settings/run.toml", "--set", "judge.resamples=100")
    assert "f01" not in RunFolder.open(tmp_path / "run").read_table("topk/popular.parquet")["item_id"].tolist()
    assert run_verb(["run", "s3://bucket/settings/none.toml"]) == 2
    assert "s3://bucket/settings/none.toml: no such config file" in capsys.readouterr().err
