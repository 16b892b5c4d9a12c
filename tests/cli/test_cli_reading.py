"""The verbs that read a log take the same options and configs, and `check` always shows its card."""

import json

import pandas as pd
import pytest

from recsys.cli import run_verb

GOOD = "".join(f"u{n % 7}::i{n % 5}::{n % 4 + 1}\n" for n in range(60))
OPTIONS = ["--delimiter", "::", "--column", "user_id=0", "--column", "item_id=1", "--column", "value=2"]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.dat"
    path.write_text(GOOD + "::i0::1\n" * 20)
    return path


def test_check_shows_its_card_and_the_refused_rows_before_it_stops(log, tmp_path, capsys):
    refused = tmp_path / "refused.csv"
    assert run_verb(["check", str(log), *OPTIONS, "--refused", str(refused), "--json"]) == 2
    said = capsys.readouterr()
    card = json.loads(said.out)
    assert card["events"] == 60
    assert card["refused"] == {"total": 20, "by_reason": {"missing user id": 20}}
    assert "a run would stop here" in " ".join(said.err.split())
    assert "20 of 80 rows are bad" in " ".join(said.err.split())
    table = pd.read_csv(refused)
    assert (len(table), table["line"].iloc[0], table["text"].iloc[0]) == (20, 61, "::i0::1")


def test_check_names_what_is_repeated_and_who_is_busy(tmp_path, capsys):
    people = "".join(f"u{n},i{n % 5},{n % 4 + 1}\n" for n in range(60))
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,value\n" + people + "u1,i1,2\n")
    assert run_verb(["check", str(path)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "equal rows  1" in lines
    assert "merged side rows  none" in lines
    path.write_text("user_id,item_id,value\n" + people + people)
    assert run_verb(["check", str(path)]) == 0
    assert "busiest users  none above 2 events" in [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_check_of_a_log_without_one_good_row(tmp_path, capsys):
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id\n,x\n,y\n")
    assert run_verb(["check", str(path), "--refused", str(tmp_path / "r.csv"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "events": 0,
        "refused": {"total": 2, "by_reason": {"missing user id": 2}},
    }
    assert len(pd.read_csv(tmp_path / "r.csv")) == 2


def test_check_reads_a_config_as_a_run_does(log, tmp_path, capsys):
    items = tmp_path / "items.csv"
    items.write_text("sku,name\ni0,A\ni0,B\ni1,C\n")
    config = tmp_path / "c.toml"
    config.write_text(
        f"[data]\nevents = '{log}'\nitems = '{items}'\ndelimiter = '::'\nmax_refused_share = 0.3\n"
        "columns = {user_id = '0', item_id = '1', value = '2'}\n"
    )
    overrides = ["--set", "data.duplicates=first", "--set", "data.item_columns.item_id=sku"]
    items.write_text("sku::name\ni0::A\ni0::B\ni1::C\n")
    assert run_verb(["check", str(config), *overrides, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["tables"] == {"items": 2}
    assert card["duplicates"] == {"items": 1}
    assert card["values"] == {
        "smallest": 1.0, "mean": 2.5, "largest": 4.0, "skew": 0.0, "negative": 0, "zero": 0,
    }  # fmt: skip


def test_route_takes_the_options_and_leaves_out_refused_rows(log, capsys):
    assert run_verb(["route", str(log), *OPTIONS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"]["events"] == 60


@pytest.mark.slow
def test_run_takes_the_options(log, tmp_path):
    log.write_text(GOOD)
    words = ["run", str(log), *OPTIONS, "--set", f"out={tmp_path / 'run'}", "--set", "models={popular={}}"]
    assert run_verb([*words, "--set", "engine=local", "--set", "split.rule=fraction"]) == 0
    assert json.loads((tmp_path / "run" / "data.json").read_text())["events"] == 60


def test_evaluate_takes_the_options_and_names_the_line(tmp_path, capsys):
    recs, truth = tmp_path / "r.csv", tmp_path / "t.jsonl"
    recs.write_text("uid;item_id;rank\na;x;1\na;y;2\n")
    truth.write_text('{"user_id": "a", "item_id": "y"}\n')
    words = ["evaluate", str(recs), str(truth), "--delimiter", ";", "--column", "user_id=uid", "-m", "mrr@2", "--json"]
    assert run_verb(words) == 0
    assert json.loads(capsys.readouterr().out)["models"]["r"]["mrr@2"]["mean"] == 0.5
    recs.write_text("uid;item_id;rank\na;x;1\na;y;second\n")
    assert run_verb(words) == 2
    assert "r.csv, line 3: rank is not a finite number: 'a;y;second'" in " ".join(capsys.readouterr().err.split())
    recs.write_text("uid;item_id;rank\na;x;1\na;y\n")
    assert run_verb(words) == 2
    assert "r.csv, line 3: wrong column count: 'a;y'" in " ".join(capsys.readouterr().err.split())
    assert run_verb(["evaluate", str(recs), str(truth)]) == 2
    assert "It looks separated by ';'" in capsys.readouterr().err


def test_a_column_option_without_an_equals_sign(log, capsys):
    assert run_verb(["check", str(log), "--column", "user_id"]) == 2
    assert "OURS=THEIRS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--time-unit", "dd/mm/yyyy"], "--time-unit: must be 's', 'ms'"),
        (["--encoding", "zork"], "--encoding: unknown text encoding"),
        (["--format", "xls"], "--format: unknown format 'xls'"),
        (["--column", "usr_id=a"], "--column: 'usr_id' is not a column of events. Did you mean 'user_id'?"),
        (["--column", "user_id.a=b"], "--column: 'user_id.a' is not a column of events"),
        (["--delimiter", '"'], "--delimiter: a delimiter is any text without quotes"),
    ],
)
def test_a_wrong_value_is_blamed_on_the_option_that_was_typed(log, words, message, capsys):
    assert run_verb(["check", str(log), *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_all_wrong_options_are_named(log, capsys):
    assert run_verb(["check", str(log), "--time-unit", "days", "--encoding", "zork"]) == 2
    encoding, time_unit = capsys.readouterr().err.splitlines()
    assert "--encoding: " in encoding
    assert "--time-unit: " in time_unit
