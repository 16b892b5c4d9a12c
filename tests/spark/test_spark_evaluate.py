"""One topk table judged here and on the executors: the same number for every user and metric."""

import numpy as np
import pandas as pd
import pytest

from recsys.errors import ConfigError
from recsys.evaluation.evaluate import evaluate_tables, item_propensities
from recsys.evaluation.settings import EvaluationSettings

pytestmark = pytest.mark.spark
NAMES = (
    "precision@3",
    "recall@5",
    "capped_recall@5",
    "hit_rate@2",
    "ndcg@5",
    "ndcg[gain=exp]@4",
    "map@5",
    "mrr",
    "r_precision",
    "rbp@5",
)


def tables(users=300, items=40, k=6):
    """Text ids, tied scores, short lists, users without a list, without truth, with nothing relevant."""
    rng = np.random.default_rng(11)
    recs, truth = [], []
    for user in range(users):
        listed = rng.permutation(items)[: rng.integers(0, k, endpoint=True)]
        falling = np.sort(rng.integers(0, 3, size=len(listed)))[::-1] / 2
        recs += [
            (f"u{user}", f"i{item}", place + 1, score)
            for place, (item, score) in enumerate(zip(listed, falling, strict=True))
        ]
        chosen = rng.permutation(items)[: rng.integers(0, 8)]
        truth += [
            (f"u{user}", f"i{item}", float(value))
            for item, value in zip(chosen, rng.integers(0, 5, size=len(chosen)), strict=True)
        ]
    recs = pd.DataFrame(recs, columns=["user_id", "item_id", "rank", "score"])
    return recs, pd.DataFrame(truth, columns=["user_id", "item_id", "value"])


def on_spark(spark, recs, truth, judging, k):
    from recsys.spark.evaluation import evaluate
    from recsys.spark.evaluation.truth import Truth

    lists, test = (
        spark.createDataFrame(frame.rename(columns={"user_id": "user", "item_id": "item"})) for frame in (recs, truth)
    )
    frame = evaluate.per_user(lists, Truth.from_pairs(test, test.limit(0), judging), k).toPandas()
    return frame.sort_values("user", ignore_index=True)


@pytest.mark.parametrize(
    "settings", [{}, {"ties": "average", "relevant": 2.0}, {"ties": "pessimistic", "missing_users": "skip"}]
)
def test_every_user_and_metric(spark, settings):
    recs, truth = tables()
    judging = EvaluationSettings(metrics=NAMES, **settings)
    here = evaluate_tables(recs, truth, judging).per_user
    there = on_spark(spark, recs, truth, judging, int(recs["rank"].max()))
    assert there["user"].tolist() == here["user_id"].tolist()
    assert there["n_relevant"].tolist() == here["n_relevant"].tolist()
    for name in judging.metrics:
        np.testing.assert_allclose(there[name].astype(float), here[name], rtol=0, atol=1e-12, err_msg=name)


def test_debiased_metrics_weigh_by_the_popularity_of_train(spark):
    from recsys.spark.evaluation import evaluate

    recs, truth = tables(users=40)
    train, _ = tables(users=60)
    train = train.iloc[::3].assign(value=lambda t: np.arange(len(t)) % 3)  # a third are no likes
    judging = EvaluationSettings(metrics=("recall[ips=0.5]@5", "ndcg[ips=0.5]@5", "precision[ips=1]@3"))
    here = evaluate_tables(recs, truth, judging, propensity=item_propensities(train, truth.item_id)).per_user
    frames = [spark.createDataFrame(frame) for frame in (recs, truth, train)]
    with pytest.raises(ConfigError, match="popularity"):
        evaluate.evaluate_tables(*frames[:2], judging)
    found, _ = evaluate.evaluate_tables(*frames[:2], judging, train=frames[2])
    there = found.toPandas().sort_values("user_id")
    for name in judging.metrics:
        np.testing.assert_allclose(there[name].astype(float), here[name], rtol=0, atol=1e-12, err_msg=name)


def test_decimals_reach_their_threshold_and_values_that_are_no_numbers_are_refused(spark):
    """Float 0.7 is below double 0.7; nan is above every number on Spark, and relevant for nobody here."""
    from recsys.spark.evaluation import evaluate

    recs = pd.DataFrame({"user_id": ["a", "b", "c"], "item_id": "x", "rank": 1})
    truth = pd.DataFrame(
        [("a", "x", 0.7), ("a", "y", 0.3), ("b", "x", np.nan), ("b", "y", 1.0), ("c", "x", None)],
        columns=["user_id", "item_id", "value"],
    )
    judging = EvaluationSettings(metrics=("recall@1", "ndcg@5"), relevant=0.7)
    here = evaluate_tables(recs, truth, judging)
    for kind in ("float", "double"):
        frame = spark.createDataFrame(truth, "user_id string, item_id string, value double")
        frame = frame.withColumn("value", frame["value"].cast(kind))
        found, result = evaluate.evaluate_tables(spark.createDataFrame(recs), frame, judging)
        values = {row.user_id: row["recall@1"] for row in found.collect()}
        assert values == {"a": 1.0, "b": 0.0}
        counts = result["about"]["counts"]["recs"]
        assert counts["refused_truth"] == here.about["counts"]["refused_truth"] == 2
        assert counts["short"] == here.about["counts"]["short"] == 2
    assert here.per_user["recall@1"].tolist() == [1.0, 0.0]


def test_no_id_in_common_is_said_in_the_same_words(spark):
    from recsys.spark.evaluation import evaluate

    recs = pd.DataFrame({"user_id": ["1.0"], "item_id": ["x"], "rank": [1]})
    truth = pd.DataFrame({"user_id": ["1"], "item_id": ["x"], "value": [1.0]})
    here = evaluate_tables(recs, truth)
    _, there = evaluate.evaluate_tables(*map(spark.createDataFrame, (recs, truth)), EvaluationSettings())
    assert there["about"]["warnings"] == here.about["warnings"]
    assert len(here.about["warnings"]) == 1
