"""Count likes per item on Spark. They are the scores of the models ``popular`` and ``recent``."""

from __future__ import annotations

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.schema import TIME, VALUE
from recsys.spark.data.split import order_statistic


def count_likes(train: DataFrame, candidates: int) -> np.ndarray:
    """Return the number of users who like each candidate, float32[candidates]."""
    counts = train.where(F.col(VALUE) > 0).groupBy("item").count().toPandas()
    likes = np.zeros(candidates, dtype=np.float32)
    likes[counts["item"].to_numpy(dtype=np.int64)] = counts["count"]
    return likes


def count_recent_likes(train: DataFrame, candidates: int, share: float = 0.1) -> np.ndarray:
    """Return the number of likes of each candidate among the newest ``share`` of all likes,
    float32[candidates]."""
    liked = train.where(F.col(VALUE) > 0)
    since = order_statistic(liked, TIME, lambda likes: likes - int(np.ceil(share * likes)))
    return count_likes(liked.where(F.col(TIME) >= since), candidates)
