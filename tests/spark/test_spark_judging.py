"""Both engines judge the same lists: every number of metrics.json agrees."""

import json
import math

import pandas as pd
import pytest
from builders import ENGINES

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def both(spark, world_files, tmp_path_factory):
    place = tmp_path_factory.mktemp("engines")
    raw = {
        "data": {name: str(world_files[name]) for name in ("events", "items", "users")},
        "split": {"rule": "fraction", "test": 0.3},
        "models": {"popular": {}, "recent": {}},
        "recommend": {"k": 7},
        "judge": {"metrics": ["ndcg@5", "recall@7", "ndcg[gain=linear]@7"], "resamples": 100, "segments": SEGMENTS},
    }
    for engine, run in ENGINES.items():
        run(raw | {"out": str(place / engine)})
    return {engine: place / engine for engine in ("local", "spark")}


SEGMENTS = ["age_group", "genres"]


def numbers(value, path=()):
    if isinstance(value, dict):
        return [found for key, below in value.items() for found in numbers(below, (*path, key))]
    if isinstance(value, list):
        return [found for place, below in enumerate(value) for found in numbers(below, (*path, place))]
    return [(path, value)]


def test_every_number_of_the_summary_agrees(both):
    found = {name: json.loads((folder / "metrics.json").read_text()) for name, folder in both.items()}
    about = found["spark"]["about"]
    assert set(SEGMENTS) <= set(about["segments"])
    assert {"coverage", "personalisation", "serendipity", "diversity", "calibration"} <= set(about["beyond"]["popular"])
    for document in found.values():
        for part in ("engine", "counts", "ties", "convention"):
            document["about"].pop(part, None)
    local, spark = (dict(numbers(found[name])) for name in ("local", "spark"))
    assert local.keys() == spark.keys()
    checked = 0
    for path, value in local.items():
        if isinstance(value, float) and math.isfinite(value):
            assert spark[path] == pytest.approx(value, abs=1e-9), path
            checked += 1
        else:
            assert spark[path] == value, path
    assert checked > 400


def test_every_user_agrees(both):
    local, spark = (pd.read_parquet(both[name] / "per_user.parquet") for name in ("local", "spark"))
    tables = [table.sort_values(["model", "user_id"], ignore_index=True) for table in (local, spark)]
    assert set(tables[0].columns) == set(tables[1].columns)
    for column in tables[0].columns.drop("shortfall"):
        pd.testing.assert_series_equal(tables[0][column], tables[1][column], rtol=0, atol=1e-12, check_dtype=False)


@pytest.mark.long
def test_new_items_are_ranked_among_new_items_on_both(spark, world_files, tmp_path):
    raw = {
        "data": {name: str(world_files[name]) for name in ("events", "items")},
        "split": {"rule": "items", "share": 0.3},
        "models": {"als": {"rank": 4, "iterations": 2}, "popular": {}},
        "recommend": {"k": 7, "fallback": "none", "min_history": 0},
        "judge": {"metrics": ["ndcg@5", "recall@7"], "resamples": 100},
    }
    for engine, run in ENGINES.items():
        run(raw | {"out": str(tmp_path / engine)})
    local, large = (tmp_path / engine for engine in ("local", "spark"))
    cards = [json.loads((folder / "split.json").read_text()) for folder in (local, large)]
    assert cards[0] == cards[1]
    assert cards[0]["ranked"]["candidates"] == "cold"
    documents = [json.loads((folder / "metrics.json").read_text()) for folder in (local, large)]
    for model in ("popular", "als"):
        counts = [document["about"]["counts"][model] for document in documents]
        assert {key: counts[1][key] for key in counts[0] if key in counts[1]} == {
            key: value for key, value in counts[0].items() if key in counts[1]
        }
        assert "warm_pairs_removed" in counts[0].keys() & counts[1].keys()
        lists = [pd.read_parquet(folder / "topk" / f"{model}.parquet") for folder in (local, large)]
        lists = [table.sort_values(["user_id", "rank"], ignore_index=True) for table in lists]
        assert lists[0]["item_id"].tolist() == lists[1]["item_id"].tolist()
        values = [
            pd.read_parquet(folder / "per_user.parquet").query(f"model == '{model}'").sort_values("user_id")
            for folder in (local, large)
        ]
        for column in ("ndcg@5", "recall@7", "shortfall", "n_relevant"):
            assert values[0][column].fillna(-1).tolist() == values[1][column].fillna(-1).tolist(), column
        beyond = [document["about"]["beyond"][model]["coverage"]["value"] for document in documents]
        assert beyond[0] == beyond[1]
    assert not len(lists[0]), "ALS has no factors for new items"


def test_the_truth_counts_alike_for_each_choice_of_candidates(spark, world_files, tmp_path):
    from recsys.config import DataSettings
    from recsys.data.reading.read import read_tables
    from recsys.data.splitting.split import split
    from recsys.data.splitting.strategies import ByTime
    from recsys.data.weigh import FilterSettings, WeightSettings
    from recsys.evaluation.settings import EvaluationSettings
    from recsys.evaluation.truth import Truth
    from recsys.spark.data.read import read_tables as read_on_spark
    from recsys.spark.data.split import split as split_on_spark
    from recsys.spark.evaluation.truth import Truth as SparkTruth

    data = DataSettings(events=str(world_files["events"]), items=str(world_files["items"]))
    settings = {"weighting": WeightSettings(), "filters": FilterSettings(min_item_events=40)}
    tables = read_tables(data.events, data.items)
    local = split(tables.events, ByTime(), items=tables.items, **settings)
    large_tables = read_on_spark(spark, data, tmp_path / "split")
    large = split_on_spark(large_tables.events, ByTime(), items=large_tables.items, work=tmp_path / "split", **settings)
    seen = {}
    for candidates in ("items", "train", "cold"):
        judging = EvaluationSettings(candidates=candidates)
        expected = Truth.from_split(local, judging)
        actual = SparkTruth.from_split(large, judging, exclude_seen=True, work=tmp_path / candidates)
        assert actual.counts == expected.counts
        assert (actual.ranked_items is None) == (expected.ranked_items is None)
        if expected.ranked_items is not None:
            assert actual.ranked_items.tolist() == expected.ranked_items.tolist()
        seen[candidates] = expected.counts
    assert seen["train"]["relevant_outside_candidates"] > seen["items"]["relevant_outside_candidates"]
    assert seen["cold"]["warm_pairs_removed"] > 0


def test_a_backtest_has_the_same_folds_on_both(spark, world_files, tmp_path):
    raw = {
        "data": {"events": str(world_files["events"])},
        "split": {"rule": "time", "test": 0.2, "folds": 2},
        "models": {"popular": {}},
        "judge": {"metrics": ["ndcg@5", "recall@5"], "resamples": 100},
    }
    for engine, run in ENGINES.items():
        run(raw | {"out": str(tmp_path / engine)})
    local, large = (json.loads((tmp_path / name / "backtest.json").read_text())["folds"] for name in ("local", "spark"))
    assert len(local) == len(large) == 2
    for expected, actual in zip(local, large, strict=True):
        for part in ("models", "differences"):
            assert expected[part].keys() == actual[part].keys()
            for model in expected[part]:
                values = (dict(numbers(fold[part][model])) for fold in (expected, actual))
                assert next(values) == pytest.approx(next(values), abs=1e-9)
        for key in ("cut", "to", "train_rows", "test_rows"):
            assert actual[key] == expected[key]
    pooled = [json.loads((tmp_path / name / "metrics.json").read_text())["backtest"] for name in ("local", "spark")]
    for part in ("models", "differences"):
        assert pooled[0][part].keys() == pooled[1][part].keys()
        for model in pooled[0][part]:
            values = [dict(numbers(of_engine[part][model])) for of_engine in pooled]
            assert values[1] == pytest.approx(values[0], abs=1e-9)
    assert not list((tmp_path / "spark").glob(".*"))
