"""A split that comes as files: read as one log, divided as the files say, audited as every other rule."""

import json

import numpy as np
import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.config import parse_config
from recsys.data.reading.read import read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByFiles, ByTime, HeldOutUsers, assign_sides
from recsys.data.weigh import FilterSettings, WeightSettings, interactions_to_table
from recsys.errors import ConfigError, InputError
from recsys.runfolder import RunFolder

RULE = ByFiles(train="train", test="test", history="history")
SIDES = ("train", "history", "test")


def log(n=400, seed=0):
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in draw.integers(0, 30, n)],
            "item_id": draw.integers(0, 20, n),
            "value": draw.choice([-1.0, 0.0, 0.1, 2.0], n),
            "timestamp": 1_600_000_000.0 + draw.integers(0, 300, n) * 86_400,
            "event": draw.choice(["view", "buy"], n),
        }
    )


def write_parts(folder, events, side):
    """Write each side of a log to its file, and return part -> path."""
    paths = {}
    for code, name in enumerate(SIDES):
        if (side == code).any():
            paths[name] = str(folder / f"{name}.csv")
            events[side == code].to_csv(paths[name], index=False)
    return paths


def test_the_parts_are_one_log_in_which_every_event_has_its_side(tmp_path):
    (tmp_path / "train.csv").write_text("user_id,item_id,timestamp\n1,x,5\n2,y,2021-01-01\n")
    (tmp_path / "test.csv").write_text("item_id,user_id,timestamp\nz,a,6\ny,1,7\n")
    parts = {name: tmp_path / f"{name}.csv" for name in ("test", "train")}
    with pytest.raises(InputError, match=r"train\.csv: 1 of 2 rows are bad"):
        read_tables(parts)
    (tmp_path / "train.csv").write_text("user_id,item_id,timestamp\n1,x,5\n2,y,7\n")
    events = read_tables(parts).events.sort_values("timestamp", ignore_index=True)
    # One user id is text, so all of them are.
    assert events["user_id"].tolist() == ["1", "a", "1", "2"]
    assert events["item_id"].tolist() == ["x", "z", "y", "y"]
    assert assign_sides(events, ByFiles(train="a", test="b")).tolist() == [0, 2, 2, 0]


def test_integers_of_two_widths_and_texts_of_integers_are_one_type(tmp_path):
    frames = {
        "train": pd.DataFrame({"user_id": np.array([3, 1], dtype=np.int32), "item_id": ["7", "9"]}),
        "test": pd.DataFrame({"user_id": np.array([2], dtype=np.int64), "item_id": [8]}),
    }
    events = read_tables(frames).events
    assert events[["user_id", "item_id", "side"]].to_numpy().tolist() == [[3, 7, 0], [1, 9, 0], [2, 8, 2]]


@pytest.mark.parametrize("rule", [ByTime(test=0.3), HeldOutUsers(share=0.4, history=0.5, seed=2)], ids=lambda r: r.rule)
def test_the_files_of_another_rule_give_its_split(tmp_path, rule):
    """Written to files and read again, the sides of any rule give the same parts and the same audit."""
    events = log()
    parts = write_parts(tmp_path, events, assign_sides(events, rule))
    weighting = WeightSettings(events={"view": 1, "buy": -3}, half_life_days=20, session_minutes=2000)
    filters = FilterSettings(min_item_events=3)
    items = pd.DataFrame({"item_id": range(15, 25)})
    expected = split(events, rule, weighting=weighting, filters=filters, items=items)
    actual = split(read_tables(parts).events, ByFiles(**parts), weighting=weighting, filters=filters, items=items)
    for name in SIDES:
        pd.testing.assert_frame_equal(*(interactions_to_table(getattr(of, name)) for of in (actual, expected)))
    same = [key for key in expected.about if key not in ("rule", "parameters", "cut", "warnings")]
    assert {key: actual.about[key] for key in same} == {key: expected.about[key] for key in same}
    assert actual.about["parameters"] == {"history": None} | parts


def test_the_audit_counts_shared_pairs_and_new_users_and_items(tmp_path):
    train = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [1.0, 2.0, 9.0]})
    test = pd.DataFrame({"user_id": [1, 1, 3], "item_id": [1, 2, 7], "timestamp": [1.0, 5.0, 6.0]})
    about = split(read_tables({"train": train, "test": test}).events, ByFiles(train="a", test="b")).about
    assert (about["shared_rows"], about["repeated_pairs"]) == (1, 2)
    assert about["test_users"] == {"warm": 1, "cold": 1}
    assert about["test_items"] == {"warm": 2, "cold": 1}
    assert about["warnings"] == [
        "1 rows are in both history and test: the split leaks.",
        "rule = 'files' leaks the future: 100% of test rows are earlier than the latest train row, so models learn"
        " from events that were not known yet.",
    ]


def test_parts_with_other_columns_are_named(tmp_path):
    frames = {"train": log(20), "test": log(20).drop(columns="timestamp")}
    with pytest.raises(InputError, match=r"\[split\] test has no column 'timestamp', which train has\."):
        read_tables(frames)


def test_a_log_without_sides_is_refused():
    with pytest.raises(InputError, match="rule = 'files' needs events with their part"):
        split(log(), RULE)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"split": {"rule": "files", "train": "a"}}, r"\[split\] test: missing; add it"),
        ({"split": {"rule": "files", "train": "a", "test": "a"}}, "are the same file"),
        (
            {"split": {"rule": "files", "train": "a", "test": "b", "tset": "c"}},
            "tset: unknown key. Did you mean 'test'",
        ),
        (
            {"data": {"events": "e"}, "split": {"rule": "files", "train": "a", "test": "b"}},
            r"\[data\] events: remove it, for with \[split\] rule = 'files'",
        ),
        ({"split": {"rule": "time"}}, r"\[data\] events: missing; add it"),
        ({}, r"\[data\] events: missing; add it"),
    ],
)
def test_a_config_names_either_events_or_the_parts(raw, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(raw)


@pytest.mark.slow
def test_a_run_and_check_by_files(tmp_path, world, world_files, capsys):
    events = world.events
    parts = write_parts(tmp_path, events, assign_sides(events, HeldOutUsers(share=0.5)))
    config = tmp_path / "own.toml"
    lines = [f'out = "{tmp_path}/run"', f'data.items = "{world_files["items"]}"', "models.popular = {}"]
    lines += ['split.rule = "files"', *(f'split.{name} = "{path}"' for name, path in parts.items())]
    config.write_text("\n".join(lines))
    assert run_verb(["run", str(config), "--set", "engine=local"]) == 0
    run = RunFolder.open(tmp_path / "run")
    assert run.read_json("data.json")["events"] == len(events)
    assert set(run.read_manifest()["data"]) == {*parts.values(), str(world_files["items"])}
    assert "Rule: files (train = " in (tmp_path / "run" / "report.md").read_text()
    capsys.readouterr()
    code = run_verb(["check", str(config), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["events"] == len(events)
    assert facts["split"]["about"]["train"]["rows"] == run.read_json("split.json")["train"]["rows"]
    leaks = {leak["leak"] for leak in facts["split"]["leaks"]}
    # Train users go on after the first test event, as they do with this rule.
    assert code == 3
    assert "future events" in leaks
    assert run_verb(["route", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"]["events"] == len(events)
