"""A rolling backtest is the run itself, repeated on earlier windows of time."""

import json

import numpy as np
import pandas as pd
import pytest

from recsys.config import parse_config
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByTime, fold_starts
from recsys.errors import ConfigError, InputError
from recsys.flow import run
from recsys.runfolder import RunFolder, to_plain_json


def events(times):
    return pd.DataFrame({"user_id": 1, "item_id": range(len(times)), "value": 1.0, "timestamp": np.array(times, float)})


def test_the_windows_have_the_share_of_the_test():
    assert fold_starts(events(range(10)), ByTime(test=0.2, folds=3)) == [4.0, 6.0, 8.0]
    assert fold_starts(events(range(10)), ByTime(test=0.2)) == []
    # The events before `until` alone count.
    assert fold_starts(events(range(100)), ByTime(test=0.2, folds=3, until=10)) == [4.0, 6.0, 8.0]


def test_the_windows_last_as_long_as_the_test():
    assert fold_starts(events([0, 1, 2, 5, 7, 8, 9, 10]), ByTime(at=8, folds=4)) == [2.0, 4.0, 6.0, 8.0]
    assert fold_starts(events([0, 1, 4, 5, 6, 8, 9, 10]), ByTime(at=7, folds=2)) == [4.0, 7.0]


@pytest.mark.parametrize(
    ("times", "rule", "message"),
    [
        ([6, 7, 8, 9, 10], ByTime(at=8, folds=3), "fold 1 of 3 has nothing to train on"),
        # Events of one time stay together, so two windows begin at 6.
        ([5, 5, 5, 6, 7], ByTime(test=0.3, folds=3), "fold 1 of 3 has no test events"),
        ([0, 1, 4, 8, 9, 10], ByTime(at=8, folds=3), "fold 2 of 3 has no test events"),
    ],
)
def test_an_empty_part_is_refused_before_the_work(times, rule, message):
    with pytest.raises(InputError, match=message):
        fold_starts(events(times), rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [({"test": 0.25, "folds": 4}, "leave nothing to train on"), ({"at": 5, "until": 5}, "ends before it begins")],
)
def test_impossible_windows_are_refused_with_the_config(rule, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"data": {"events": "e"}, "split": {"rule": "time"} | rule})


def test_events_from_the_end_of_the_test_on_are_left_out():
    parts = split(events(range(10)), ByTime(at=4, until="1970-01-01T00:00:07"))
    assert (parts.about["train"]["rows"], parts.about["test"]["rows"]) == (4, 3)
    assert parts.about["parameters"] == {"at": 4.0, "until": 7.0}


def config_of(out, world_files, **rule):
    data = {"events": str(world_files["events"]), "items": str(world_files["items"])}
    return {
        "out": str(out),
        "data": data,
        "split": {"rule": "time", "test": 0.2} | rule,
        "models": {"itemknn": {"neighbours": 9}},
        "recommend": {"min_history": 0},
        "judge": {"metrics": ["ndcg@5", "recall@5"], "cold_start": []},
    }


@pytest.mark.slow
def test_each_fold_is_the_run_of_its_window(tmp_path, world, world_files):
    out = tmp_path / "run"
    metrics = run(parse_config(config_of(out, world_files, folds=3)))
    folds = json.loads((out / "backtest.json").read_text())["folds"]
    starts = fold_starts(world.events, ByTime(test=0.2, folds=3))
    assert len(folds) == len(starts) == 3
    window = {"at": starts[0], "until": starts[1]}
    alone = run(parse_config(config_of(tmp_path / "alone", world_files, **window)))
    assert folds[0]["models"] == to_plain_json(alone["models"])
    assert folds[0]["differences"] == to_plain_json(alone["differences"])
    assert folds[2]["models"] == to_plain_json(metrics["models"])
    train_rows = [int((world.events["timestamp"] < start).sum()) for start in starts]
    assert [fold["train_rows"] for fold in folds] == train_rows
    assert [fold["test_rows"] for fold in folds] == np.diff([*train_rows, len(world.events)]).tolist()
    report = (out / "report.md").read_text()
    assert "## Backtest" in report
    assert "ndcg@5 minus that of popular, by fold" in report
    assert not list(out.glob(".*"))
    hops = [hop["name"] for hop in json.loads((out / "manifest.json").read_text())["hops"]]
    assert hops[-2:] == ["fold 1", "fold 2"]
    # A second run may replace the first one with all that it wrote.
    RunFolder.require_writable(out)


@pytest.mark.slow
def test_without_folds_there_is_no_backtest(tmp_path, world_files):
    run(parse_config(config_of(tmp_path / "run", world_files)))
    assert not (tmp_path / "run" / "backtest.json").exists()
    assert "## Backtest" not in (tmp_path / "run" / "report.md").read_text()
