"""Count likes per item on Spark. They are the scores of the models ``popular`` and ``recent``."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.schema import TIME, VALUE
from recsys.spark.data.split import LEVELS, order_statistic


def count_likes(train: DataFrame, candidates: int) -> np.ndarray:
    """Return the number of users who like each candidate, float32[candidates].

    Args:
        train: columns (user, item, value), one row per pair; ``item`` is a row number. A like has a
            value above 0.
        candidates: the number of candidates. All rows of items are below it.
    """
    return _likes_of_items(train.where(F.col(VALUE) > 0).groupBy("item").count().toPandas(), candidates)


def count_likes_and_days(train: DataFrame, candidates: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Return what :func:`count_likes` returns, and the likes by day, from one pass.

    The likes by day are the argument ``days`` of :func:`count_recent_likes`.

    Args:
        train: columns (user, item, value, timestamp), one row per pair; ``item`` is a row number.
        candidates: the number of candidates.
    """
    liked = train.where(F.col(VALUE) > 0).withColumn("bucket", LEVELS[0](F.col(TIME)))
    counts = (
        liked.groupingSets([["item"], ["bucket"]], "item", "bucket")
        .agg(F.count(F.lit(1)).alias("count"), F.min(TIME).alias("low"), F.max(TIME).alias("high"))
        .toPandas()
    )
    is_item = counts["bucket"].isna()
    days = counts[~is_item].drop(columns="item").astype({"bucket": np.int64}).sort_values("bucket")
    return _likes_of_items(counts[is_item], candidates), days


def count_recent_likes(
    train: DataFrame, candidates: int, share: float = 0.1, days: pd.DataFrame | None = None
) -> np.ndarray:
    """Return the number of recent likes of each candidate, float32[candidates].

    Of n likes, the newest ``ceil(share · n)`` are recent. Likes at the same time as the oldest of
    these are recent too.

    Args:
        train: columns (user, item, value, timestamp), one row per pair; ``item`` is a row number.
        candidates: the number of candidates.
        share: in (0, 1].
        days: the likes by day (:func:`count_likes_and_days`). None: they are counted.
    """
    liked = train.where(F.col(VALUE) > 0)
    since = order_statistic(liked, TIME, lambda likes: likes - int(np.ceil(share * likes)), days)
    return count_likes(liked.where(F.col(TIME) >= since), candidates)


def _likes_of_items(counts: pd.DataFrame, candidates: int) -> np.ndarray:
    """Convert a table (item, count) to an array with the count of each candidate, float32."""
    likes = np.zeros(candidates, dtype=np.float32)
    likes[counts["item"].to_numpy(dtype=np.int64)] = counts["count"]
    return likes
