"""The file of JSON lines that a run adds its steps to."""

import json

import pytest

from recsys.errors import ConfigError, InputError
from recsys.hop_log import HopLog
from recsys.meter import Meter


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_step_is_a_line_also_one_that_fails(tmp_path):
    path = tmp_path / "hops.jsonl"
    with Meter(log=HopLog.open(str(path), "runs/a")) as meter:
        with meter.hop("read"):
            pass
        assert [line["name"] for line in lines_of(path)] == ["read"], "a line is written when its step ends"
        with pytest.raises(InputError), meter.hop("fit als"):
            raise InputError("no likes:\nadvice")
    with Meter(log=HopLog.open(str(path), "runs/b")) as meter, meter.hop("read"):
        pass
    lines = lines_of(path)
    assert [(line["run"], line["name"]) for line in lines] == [
        ("runs/a", "read"),
        ("runs/a", "fit als"),
        ("runs/b", "read"),
    ]
    assert [line.get("error") for line in lines] == [None, "InputError: no likes:", None]
    assert lines[2] == {"time": lines[2]["time"], "run": "runs/b"} | meter.hops[0]
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert lines[0]["time"].endswith("+00:00")


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
    path = tmp_path / "hops.jsonl"
    HopLog.open(str(path), "runs/a").add({"name": "read", "seconds": 1.0})
    with path.open("a") as file:
        file.write('{"time": "20')
    HopLog.open(str(path), "runs/a").add({"name": "split", "seconds": 1.0})
    first, cut_off, last = path.read_text().splitlines()
    assert (json.loads(first)["name"], cut_off, json.loads(last)["name"]) == ("read", '{"time": "20', "split")


@pytest.mark.parametrize("content", ["user_id,item_id\na,b\n", '{"time": 1, "run": 2}\n', "\n", "[1]"])
def test_a_file_of_the_users_is_refused_and_unchanged(tmp_path, content):
    path = tmp_path / "events.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"hop_log '.*events\.csv': it has something other than steps"):
        HopLog.open(str(path), "runs/a")
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("hdfs://host/hops.jsonl", "only a file on this machine"),
        ("run/hops.jsonl", "inside the run folder"),
        ("absent/hops.jsonl", "no line can be added to it: No such file"),
        (".", "no line can be added to it: Is a directory"),
    ],
)
def test_a_place_where_no_line_can_stay_is_refused(tmp_path, monkeypatch, location, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        HopLog.open(location, "run")
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_refused_before_a_run_reads_anything(tmp_path):
    from recsys.config import parse_config
    from recsys.flow import run

    raw = {"out": str(tmp_path / "run"), "hop_log": str(tmp_path / "no" / "hops"), "data": {"events": "absent.csv"}}
    with pytest.raises(ConfigError, match="hop_log"):
        run(parse_config(raw))
