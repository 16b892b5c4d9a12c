"""The same log, prepared by both engines: equal row for row, in ids, values, times and every count of the audit."""

import numpy as np
import pandas as pd
import pytest

from recsys.config import DataSettings
from recsys.data import weigh
from recsys.data.reading.read import read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByFiles, ByTime, ColdItems, Fraction, HeldOutUsers, LastN, cut_time
from recsys.data.weigh import FilterSettings, WeightSettings

pytestmark = pytest.mark.spark

RULES = [ByTime(test=0.25), LastN(n=2), Fraction(test=0.3, seed=5), HeldOutUsers(share=0.3), ColdItems(share=0.2)]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log with everything in it: repeats, equal times, types, dislikes, zeros, bad rows, an items table."""
    rng = np.random.default_rng(7)
    n = 600
    frame = pd.DataFrame(
        {
            "user_id": [f"u{u}" for u in rng.integers(0, 40, n)],
            "item_id": [f"{i:03d}" for i in rng.integers(0, 25, n)],
            "value": rng.choice([-1.5, 0.0, 0.1, 0.2, 1.0, 3.0], n),
            "timestamp": 1_500_000_000 + rng.integers(0, 400, n) * 86.4,
            "event": rng.choice(["view", "buy", "return"], n),
        }
    )
    folder = tmp_path_factory.mktemp("log")
    lines = frame.to_csv(index=False).splitlines()
    lines[5:5] = ["u1,,1,1500000000,view", "u1,003,NaN,1500000000,view", "u1,003,x,1500000000,view", "u1,003,1"]
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    pd.DataFrame({"item_id": [f"{i:03d}" for i in range(20, 30)]}).to_csv(folder / "items.csv", index=False)
    return {"events": str(folder / "events.csv"), "items": str(folder / "items.csv")}


def by_spark(spark, log, work, rule, **settings):
    from recsys.spark.data.read import read_tables as read_on_spark
    from recsys.spark.data.split import split as split_on_spark

    tables = read_on_spark(spark, DataSettings(**log), work)
    found = split_on_spark(tables.events, rule, items=tables.items, work=work, **settings)
    users, items = (frame.toPandas() for frame in (found.users, found.items))
    user_id = users.set_index("row")["user_id"]
    item_id = items.set_index("row")["item_id"]
    parts = {}
    for name in ("train", "history", "test"):
        part = getattr(found, name).toPandas()
        part = part.assign(user_id=part["user"].map(user_id), item_id=part["item"].map(item_id))
        parts[name] = part.sort_values(["user_id", "item_id"], ignore_index=True)
    return found, parts, tables.refusals


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
def test_both_engines_prepare_the_same_rows(spark, log, tmp_path, rule):
    weighting = WeightSettings(events={"view": 1, "buy": 4, "return": -3}, half_life_days=0.2, session_minutes=90)
    filters = FilterSettings(min_item_events=3, min_user_events=2)
    tables = read_tables(log["events"], log["items"])
    local = split(tables.events, rule, weighting=weighting, filters=filters, items=tables.items)
    found, parts, refusals = by_spark(spark, log, tmp_path, rule, weighting=weighting, filters=filters)
    for name in ("train", "history", "test"):
        expected = weigh.interactions_to_table(getattr(local, name))
        columns = ["user_id", "item_id", "value", "timestamp"]
        pd.testing.assert_frame_equal(parts[name][columns], expected[columns], check_exact=True, check_dtype=False)
    assert found.about == local.about
    assert local.about["filters"]["session_minutes"]["rows"] > 0
    assert found.candidates == len(local.train.items)
    assert (refusals.total, refusals.counts) == (tables.refusals.total, tables.refusals.counts)


def test_both_engines_prepare_the_same_rows_of_files(spark, log, tmp_path):
    """The parts have ids of two types, and one is a folder of Parquet."""
    from recsys.spark.data.read import read_tables as read_on_spark
    from recsys.spark.data.split import split as split_on_spark

    events = read_tables(log["events"]).events
    events["user_id"] = events["user_id"].str[1:].astype(np.int64)
    events["item_id"] = events["item_id"].astype(np.int64)
    side = np.random.default_rng(1).integers(0, 3, len(events))
    rule = ByFiles(**{name: str(tmp_path / name) for name in ("train", "history", "test")})
    (tmp_path / "train").mkdir()
    events[side == 0].to_parquet(tmp_path / "train" / "a.parquet")
    for code, name in ((1, "history"), (2, "test")):
        (tmp_path / name).mkdir()
        events[side == code].to_csv(tmp_path / name / "a.csv", index=False)
    with (tmp_path / "test" / "a.csv").open("a") as file:
        file.write("7,,1,1,buy\n7,cold,2,1500000000,buy\n")
    settings = {"weighting": WeightSettings(events={"view": 1, "buy": 4, "return": -3}, half_life_days=0.2)}
    settings["filters"] = FilterSettings(min_item_events=3)
    tables = read_tables(rule.files)
    local = split(tables.events, rule, **settings)
    large = read_on_spark(spark, DataSettings(), tmp_path / "work", rule.files)
    found = split_on_spark(large.events, rule, items=None, work=tmp_path / "work", **settings)
    for name in ("train", "history", "test"):
        expected = weigh.interactions_to_table(getattr(local, name))
        actual = found.by_id[name].toPandas().sort_values(["user_id", "item_id"], ignore_index=True)
        pd.testing.assert_frame_equal(actual, expected[actual.columns], check_exact=True, check_dtype=False)
    assert found.about == local.about
    assert (large.refusals.total, large.refusals.counts) == (len(events) + 2, {"missing item id": 1})
    assert (tables.refusals.total, tables.refusals.counts) == (len(events) + 2, {"missing item id": 1})


@pytest.mark.parametrize("how", ["sum", "last", "max", "count"])
def test_both_engines_aggregate_alike(spark, log, tmp_path, how):
    tables = read_tables(log["events"])
    weighting = WeightSettings(aggregate=how)
    local = split(tables.events, Fraction(test=0.2), weighting=weighting)
    _, parts, _ = by_spark(
        spark, {"events": log["events"]}, tmp_path, Fraction(test=0.2), weighting=weighting, filters=FilterSettings()
    )
    assert parts["train"]["value"].tolist() == weigh.interactions_to_table(local.train)["value"].tolist()


def test_the_split_survives_a_repartition(spark, log):
    from recsys.spark.data.split import assign_sides

    events = spark.createDataFrame(read_tables(log["events"]).events)
    once, _ = assign_sides(events, Fraction(test=0.2))
    again, _ = assign_sides(events.repartition(7, "item_id").sortWithinPartitions("value"), Fraction(test=0.2))
    order = ["user_id", "item_id", "timestamp", "value", "event", "side"]
    first, second = (frame.toPandas().sort_values(order, ignore_index=True) for frame in (once, again))
    pd.testing.assert_frame_equal(first[order], second[order])


@pytest.mark.parametrize("test", [0.001, 0.1, 0.5, 0.99])
def test_the_cut_is_exact(spark, test):
    from recsys.spark.data.split import cut_time as cut_on_spark

    times = np.random.default_rng(0).integers(0, 200_000, 400) / 2.0
    times[:150] = times.max()
    frame = spark.createDataFrame(pd.DataFrame({"timestamp": times}))
    assert cut_on_spark(frame, test) == cut_time(times, test)


def test_both_engines_find_the_same_core(spark, log, tmp_path):
    filters = FilterSettings(min_item_events=10, min_user_events=9, repeat=True)
    tables = read_tables(log["events"])
    local = split(tables.events, Fraction(test=0.3), filters=filters)
    found, parts, _ = by_spark(
        spark, {"events": log["events"]}, tmp_path, Fraction(test=0.3), weighting=WeightSettings(), filters=filters
    )
    once = split(tables.events, Fraction(test=0.3), filters=filters.model_copy(update={"repeat": False}))
    assert 0 < len(local.train) < len(once.train), "the log must need more than one round"
    assert found.about["filters"] == local.about["filters"]
    expected = weigh.interactions_to_table(local.train)
    for column in ("user_id", "item_id", "value"):
        assert parts["train"][column].tolist() == expected[column].tolist()
