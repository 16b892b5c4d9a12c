"""Counts of likes per item on Spark: the scores of the local models ``popular`` and ``recent``."""

from __future__ import annotations

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.schema import TIME, VALUE
from recsys.spark.data.split import order_statistic


def count_likes(train: DataFrame, candidates: int) -> np.ndarray:
    """Return float32[candidates]: users who like each item."""
    counts = train.where(F.col(VALUE) > 0).groupBy("item").count().toPandas()
    likes = np.zeros(candidates, dtype=np.float32)
    likes[counts["item"].to_numpy(dtype=np.int64)] = counts["count"]
    return likes


def count_recent_likes(train: DataFrame, candidates: int, share: float = 0.1) -> np.ndarray:
    """Return float32[candidates]: likes of each item among the newest ``share`` of all likes."""
    liked = train.where(F.col(VALUE) > 0)
    since = order_statistic(liked, TIME, lambda likes: likes - int(np.ceil(share * likes)))
    return count_likes(liked.where(F.col(TIME) >= since), candidates)
