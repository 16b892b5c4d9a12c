"""A rolling backtest is the run itself, repeated on earlier windows of time."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys.cli import run_verb
from recsys.config import parse_config
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByTime, fold_starts
from recsys.errors import ConfigError, InputError
from recsys.evaluation.testing.pick import pick_model
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
    assert hops[-3:] == ["fold 1", "fold 2", "pool folds"]
    # A second run may replace the first one with all that it wrote.
    RunFolder.require_writable(out)


@pytest.mark.slow
def test_the_difference_over_all_folds(tmp_path, world, world_files, capsys):
    out = tmp_path / "run"
    metrics = run(parse_config(config_of(out, world_files, folds=2)))
    first, last = fold_starts(world.events, ByTime(test=0.2, folds=2))
    run(parse_config(config_of(tmp_path / "alone", world_files, at=first, until=last)))
    values = {}
    for folder in (tmp_path / "alone", out):
        wide = pd.read_parquet(folder / "per_user.parquet").pivot(index="user_id", columns="model", values="ndcg@5")
        for user, difference in (wide["itemknn"] - wide["popular"]).dropna().items():
            values.setdefault(user, []).append(difference)
    means = [sum(of_user) / len(of_user) for of_user in values.values()]
    assert any(len(of_user) == 2 for of_user in values.values())
    cell = metrics["backtest"]["differences"]["itemknn"]["ndcg@5"]
    assert cell["mean"] == pytest.approx(np.mean(means), abs=1e-12)
    assert cell["users"] == len(means)
    assert cell["p"] == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    stored = json.loads((out / "metrics.json").read_text())["backtest"]
    assert stored == to_plain_json(metrics["backtest"])
    report = (out / "report.md").read_text()
    assert "Over all 2 folds: " in report
    low, high = cell["ci95"]
    row = next(line for line in report.splitlines() if "| itemknn" in line and "of 2" in line)
    assert f"{cell['mean']:+.4f} [{low:+.4f}, {high:+.4f}]" in row.replace("\\", "")
    assert row.endswith(f"{cell['users']:,} |")
    capsys.readouterr()
    assert run_verb(["compare", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["differences_over_folds"]
    pair = {"popular", "itemknn"}
    (found,) = [row for row in rows if {row["model"], row["against"]} == pair and row["metric"] == "ndcg@5"]
    sign = 1 if found["model"] == "itemknn" else -1
    assert sign * found["difference"] == pytest.approx(np.mean(means), abs=1e-12)
    assert found["users"] == len(means)
    assert "This is the last fold alone. Over all 2 folds: " in report
    # One of these gates fires, whatever the sign of the difference.
    gates = ["--fail-if", "ndcg@5 rises 0", "--fail-if", "ndcg@5 within 0"]
    assert run_verb(["compare", str(out), "--json", *gates]) == 3
    (fired,) = json.loads(capsys.readouterr().out)["fired"]
    pooled = pd.read_parquet(out / "backtest_per_user.parquet").pivot(index="user_id", columns="model", values="ndcg@5")
    baseline = pick_model(metrics).baseline
    assert f"itemknn - {baseline} = {(pooled['itemknn'] - pooled[baseline]).mean():+.4f} [" in fired
    assert run_verb(["compare", str(out)]) == 0
    assert "Differences over all folds, by user" in capsys.readouterr().out


@pytest.mark.slow
def test_two_backtests_are_compared_over_the_same_windows_alone(tmp_path, world_files, capsys):
    for name, rule in (("a", {"folds": 2}), ("b", {"folds": 2}), ("c", {"folds": 3}), ("d", {})):
        raw = config_of(tmp_path / name, world_files, **rule)
        raw["models"] = {"itemknn": {"neighbours": 2 if name == "b" else 9}}
        run(parse_config(raw))
    capsys.readouterr()

    def compared(other):
        words = ["compare", str(tmp_path / "a"), str(tmp_path / other), "--model", "itemknn", "--json"]
        assert run_verb(words) == 0
        printed = capsys.readouterr()
        return json.loads(printed.out), printed.err

    tables = {name: pd.read_parquet(tmp_path / name / "backtest_per_user.parquet") for name in "ab"}
    means = {name: table[table["model"] == "itemknn"]["ndcg@5"].mean() for name, table in tables.items()}
    (row,) = [row for row in compared("b")[0]["differences_over_folds"] if row["metric"] == "ndcg@5"]
    assert row["difference"] == pytest.approx(means["b"] - means["a"], abs=1e-12)
    assert f"{row['difference']:+.4f}" in " ".join(compared("b")[0]["reasons"])
    record, printed = compared("c")
    assert "differences_over_folds" not in record
    assert "have other windows of time" in printed
    record, printed = compared("d")
    assert "differences_over_folds" not in record


@pytest.mark.slow
def test_without_folds_there_is_no_backtest(tmp_path, world_files):
    assert "backtest" not in run(parse_config(config_of(tmp_path / "run", world_files)))
    assert not (tmp_path / "run" / "backtest.json").exists()
    assert "## Backtest" not in (tmp_path / "run" / "report.md").read_text()
