"""Errors of predicted ratings on the executors, as ``recsys.evaluation.judging.ratings`` defines them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.errors import InputError
from recsys.evaluation.judging.ratings import DEFINITIONS
from recsys.evaluation.summary import Facts, Layout, document
from recsys.schema import ITEM, SCORE, USER, VALUE
from recsys.spark.evaluation.evaluate import drop_refused_values, require_unique, sums

NAME = "predictions"
"""The name of the predictions in metrics.json."""


def evaluate_ratings(
    predictions: DataFrame,
    truth: DataFrame,
    metrics: Sequence[str] = tuple(DEFINITIONS),
    *,
    resamples: int = 1000,
    keep: Callable[[DataFrame], None] | None = None,
) -> dict[str, Any]:
    """Compute RMSE and MAE of predicted ratings, and return the content of metrics.json.

    Only pairs that have both a prediction and a rating are used; the others are counted.
    ``about["pooled"]`` has the errors over all pairs.

    Args:
        predictions: columns (user_id, item_id, score).
        truth: columns (user_id, item_id, value). Rows whose value is not a finite number are left
            out and counted.
        metrics: ``rmse``, ``mae`` or both.
        resamples: the number of bootstrap resamples for the intervals.
        keep: a function that is called once with one row per user of ``truth`` (``user_id``,
            ``n_rated``, ``rmse`` and ``mae``, NaN where ``n_rated`` is 0) while it is in memory.

    Raises:
        InputError: a pair occurs twice, a score is not a finite number, or no pair is in both
            tables.
    """
    truth, n_refused = drop_refused_values(truth)
    for table, label in ((predictions, "the predictions"), (truth, "the truth")):
        require_unique(table.withColumnsRenamed({USER: "user", ITEM: "item"}), "item", label)
    is_bad = F.col(SCORE).isNull() | F.isnan(SCORE) | (F.abs(SCORE) == math.inf)
    row = predictions.agg(F.count("*").alias("rows"), F.count_if(is_bad).alias("bad")).collect()[0]
    if row["bad"]:
        raise InputError(f"predictions: {row['bad']:,} of {row['rows']:,} are not finite numbers")
    scores = predictions.select(USER, ITEM, F.col(SCORE).cast("double").alias(SCORE))
    error = F.col(SCORE) - F.col(VALUE).cast("double")
    is_rated = F.col(SCORE).isNotNull()
    pairs = truth.join(scores, [USER, ITEM], "left").withColumn("error", error)
    errors_of_user = {
        "n_ratings": F.count("*"),
        "n_rated": F.count_if(is_rated),
        "squares": F.sum(F.col("error") * F.col("error")),
        "absolute": F.sum(F.abs("error")),
    }
    per_user = pairs.groupBy(USER).agg(*(column.alias(name) for name, column in errors_of_user.items())).cache()
    try:
        total = per_user.agg(*(F.sum(name).alias(name) for name in errors_of_user)).collect()[0]
        n_pairs = int(total["n_rated"] or 0)
        if not n_pairs:
            raise InputError("predictions: no (user, item) pair has both a prediction and a rating: check the ids")
        undefined = F.lit(math.nan)
        mean_square = F.when(F.col("n_rated") > 0, F.col("squares") / F.col("n_rated")).otherwise(undefined)
        mean_absolute = F.when(F.col("n_rated") > 0, F.col("absolute") / F.col("n_rated")).otherwise(undefined)
        judged = per_user.select(USER, "n_rated", F.sqrt(mean_square).alias("rmse"), mean_absolute.alias("mae"))
        layout = Layout((NAME,), tuple(metrics), baseline="")
        # The length of a history is unknown here, so no group of users has a number.
        user_sums = sums({NAME: judged.withColumn("n_history", F.lit(-1))}, layout, resamples=resamples, seed=0)
        counts = {
            "pairs": n_pairs,
            "ratings_without_prediction": int(total["n_ratings"]) - n_pairs,
            "predictions_without_rating": int(row["rows"]) - n_pairs,
            "refused_truth": n_refused,
        }
        definitions = {name: DEFINITIONS[name] for name in metrics}
        result = document(layout, user_sums, Facts("spark", definitions, {NAME: counts}))
        pooled = {"rmse": math.sqrt(total["squares"] / n_pairs), "mae": total["absolute"] / n_pairs}
        result["about"] |= {"warnings": [], "pooled": {name: pooled[name] for name in metrics}}
        if keep is not None:
            keep(judged)
    finally:
        per_user.unpersist()
    return result
