"""Users with few likes get the fallback on Spark as on the local engine."""

import json

import numpy as np
import pandas as pd
import pytest
from builders import run_locally, run_on_spark
from scipy.sparse import csr_array

from recsys.runfolder import RunFolder
from recsys.saved.bundle import bundle_run
from recsys.saved.open_model import open_model

pytestmark = pytest.mark.spark
MIN_HISTORY = 12


def lists_of(run):
    table = pd.read_parquet(run / "topk" / "als.parquet")
    return table.sort_values(["user_id", "rank"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def runs(spark, world_files, tmp_path_factory):
    """Return (a run on Spark, the same on the local engine) that hand over users with under 12 likes."""
    folder = tmp_path_factory.mktemp("short")
    arguments = (world_files, {"als": {"rank": 4, "iterations": 3}})
    sections = {"split": {"rule": "time", "test": 0.2}, "recommend": {"k": 5, "min_history": MIN_HISTORY}}
    on_spark = run_on_spark(spark, folder / "spark", *arguments, **sections)
    return on_spark, run_locally(folder / "local", *arguments, **sections)


def test_both_engines_hand_over_the_same_users(runs):
    on_spark, local = (lists_of(run) for run in runs)
    source_of = [table.groupby("user_id")["source"].first() for table in (on_spark, local)]
    pd.testing.assert_series_equal(*source_of)
    assert set(source_of[0]) == {"als", "popular"}
    history = RunFolder.open(runs[0]).read_table("split/history.parquet")
    likes = history[history["value"] > 0].groupby("user_id").size().reindex(source_of[0].index, fill_value=0)
    assert source_of[0].eq("popular").tolist() == likes.lt(MIN_HISTORY).tolist()
    assert likes[likes > 0].lt(MIN_HISTORY).any()
    columns = ["user_id", "rank", "item_id"]
    short = [table[table["source"] == "popular"][columns].reset_index(drop=True) for table in (on_spark, local)]
    pd.testing.assert_frame_equal(*short)
    assert json.loads((runs[0] / "model" / "als" / "params.json").read_text())["min_history"] == MIN_HISTORY


def test_a_saved_spark_run_and_its_bundle_hand_over_the_same_users(spark, runs, tmp_path):
    from recsys.spark.saved import ListRequest, open_spark_run, recommend

    expected = lists_of(runs[0])
    users = expected[["user_id"]].drop_duplicates()
    lists, _ = recommend(open_spark_run(spark, runs[0]), ListRequest(5), users=spark.createDataFrame(users))
    again = lists.toPandas().sort_values(["user_id", "rank"]).reset_index(drop=True)
    columns = ["user_id", "rank", "item_id", "source"]
    pd.testing.assert_frame_equal(again[columns], expected[columns], check_dtype=False)
    bundle_run(runs[0], tmp_path / "bundle")
    for folder in (runs[0], tmp_path / "bundle"):
        saved = open_model(folder)
        members = saved.recommender(users).member_of(saved.histories(users["user_id"]))
        source = expected.groupby("user_id")["source"].first()[users["user_id"]]
        assert members.tolist() == [int(name == "popular") for name in source]


def test_validation_users_choose_where_popular_items_serve_short_histories_better():
    from recsys.spark.training.parameters import SparkALSParameters
    from recsys.spark.training.training_curve import ValidationUsers

    # Factors know the two blocks of items; each user's hidden item is in the block of what they like, or is a hit.
    items = np.zeros((30, 2), dtype=np.float32)
    items[:10, 0] = 1
    items[10:20, 1] = 1
    items[20:] = 0.01
    pair_counts = np.where(np.arange(30) >= 20, 100, 5)
    seen = np.zeros((80, 30))
    hidden = np.zeros((80, 30))
    for user in range(80):
        is_short = user < 40
        seen[user, : 1 if is_short else 6] = 1
        hidden[user, 20 + user % 10 if is_short else 6 + user % 4] = 1
    params = SparkALSParameters(rank=2)
    users = ValidationUsers(csr_array(seen), csr_array(hidden), params)
    choice = users.compare_with_popular(items, pair_counts)
    # Nobody has 2 to 4 likes: that group follows the longer one, in which the factors are better.
    assert choice["min_history"] == 2
    assert [group["users"] for group in choice["groups"]] == [40, 0, 40, 0]
    better = ValidationUsers(csr_array(seen[40:]), csr_array(hidden[40:]), params)
    assert better.compare_with_popular(items, pair_counts)["min_history"] == 0
    explicit = ValidationUsers(csr_array(seen), csr_array(hidden), SparkALSParameters(rank=2, implicit=False))
    assert explicit.compare_with_popular(items, pair_counts) is None
