"""Count likes per item on Spark. They are the scores of the models ``popular`` and ``recent``."""

from __future__ import annotations

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.schema import TIME, VALUE
from recsys.spark.data.split import order_statistic


def count_likes(train: DataFrame, candidates: int) -> np.ndarray:
    """Return the number of users who like each candidate, float32[candidates].

    Args:
        train: columns (user, item, value), one row per pair; ``item`` is a row number. A like has a
            value above 0.
        candidates: the number of candidates. All rows of items are below it.
    """
    counts = train.where(F.col(VALUE) > 0).groupBy("item").count().toPandas()
    likes = np.zeros(candidates, dtype=np.float32)
    likes[counts["item"].to_numpy(dtype=np.int64)] = counts["count"]
    return likes


def count_recent_likes(train: DataFrame, candidates: int, share: float = 0.1) -> np.ndarray:
    """Return the number of recent likes of each candidate, float32[candidates].

    Of n likes, the newest ``ceil(share · n)`` are recent. Likes at the same time as the oldest of
    these are recent too.

    Args:
        train: columns (user, item, value, timestamp), one row per pair; ``item`` is a row number.
        candidates: the number of candidates.
        share: in (0, 1].
    """
    liked = train.where(F.col(VALUE) > 0)
    since = order_statistic(liked, TIME, lambda likes: likes - int(np.ceil(share * likes)))
    return count_likes(liked.where(F.col(TIME) >= since), candidates)
