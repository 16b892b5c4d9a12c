"""Popularity by user segment on Spark.

The executors count likes. The driver has the users table and the scores of all segments in memory.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from recsys.config import RecommendSettings
from recsys.features import segment_popularity
from recsys.features.segment_popularity import Segments
from recsys.schema import USER, VALUE
from recsys.spark.data.split import SparkSplit


def fit_segments(split: SparkSplit, users: pd.DataFrame | None, settings: RecommendSettings) -> Segments | None:
    """Count the likes of each segment of users in train, and return the Segments.

    The result is equal to that of the local engine on the same pairs.

    Args:
        split: the split of the run.
        users: the users table, with the columns of the segments as text. None if the run has no
            segments; the result is then None.
        settings: the section ``[recommend]``: the columns of the segments, the prior, the memory.

    Raises:
        ConfigError: the scores of all segments need more memory than ``settings.memory_mb``.
    """
    if users is None:
        return None
    n_items = split.candidates
    keys, codes = segment_popularity.group_users(users, settings.segment, n_items, settings.memory_mb)
    likes = split.train.where(F.col(VALUE) > 0).select("user", "item")
    user_groups = _values_of_users(split, users, codes, "group").fillna(-1, ["group"])
    like_counts = likes.join(user_groups, "user").groupBy("group", "item").agg(F.count(F.lit(1)).alias("n")).toPandas()
    likers = likes.select("user").distinct().join(user_groups, "user").groupBy("group").count().toPandas()
    n, group, item = (like_counts[name].to_numpy(dtype=np.int64) for name in ("n", "group", "item"))
    # Row 0 counts the users without a group, -1; they are part of everyone, but of no segment.
    likes_of_group = csr_array((n, (group + 1, item)), shape=(len(keys) + 1, n_items))
    users_of_group = np.zeros(len(keys) + 1, dtype=np.int64)
    users_of_group[likers["group"].to_numpy(dtype=np.int64) + 1] = likers["count"]
    share = likes_of_group.sum(axis=0) / max(1, users_of_group.sum())
    counts = (users_of_group[1:], likes_of_group[1:])
    return segment_popularity.segments_from_counts(users, settings.segment, keys, counts, share, settings.segment_prior)


def segments_of_users(split: SparkSplit, segments: Segments) -> DataFrame:
    """Return the columns (user, segment): the row number and the segment of every user of a split.

    ``segment`` is a row of ``segments``, or -1 for a user who belongs to none. It is null for a
    user who is not in the users table.
    """
    return _values_of_users(split, segments.users, segments.rows(segments.users), "segment")


def assign_segments(users: DataFrame, segments: Segments) -> DataFrame:
    """Return ``users`` with a further column ``segment``, the number of the segment of each user.

    The segment is looked up by the values of those columns of ``users`` that define segments. It is
    -1 for a user who belongs to no segment, and null for all users if ``users`` has no such column.
    The driver reads each combination of values once.
    """
    columns = [name for name in segments.columns if name in users.columns]
    if not columns:
        return users.withColumn("segment", F.lit(None).cast("int"))
    values = users.select(columns).distinct().toPandas()
    rows = pd.DataFrame({"segment": segments.rows(values).astype(np.int32)})
    for name in columns:
        rows[f"of {name}"] = values[name]
    types = [
        "segment int",
        *(f"`of {name}` {users.schema[name].dataType.simpleString()}" for name in columns),
    ]
    table = F.broadcast(users.sparkSession.createDataFrame(rows, ", ".join(types)))
    equal_values = [F.col(f"`{name}`").eqNullSafe(F.col(f"`of {name}`")) for name in columns]
    return users.join(table, equal_values, "left").drop(*(f"of {name}" for name in columns))


def _values_of_users(split: SparkSplit, users: pd.DataFrame, values: np.ndarray, name: str) -> DataFrame:
    """Return (user, ``name``), the row number and a value of every user of the split.

    The value is null for a user who is not in the users table.

    Args:
        users: the users table.
        values: one integer per row of ``users``.
        name: the name of the column of values.
    """
    frame = pd.DataFrame({"key": users[USER], name: values.astype(np.int32)})
    table = split.users.sparkSession.createDataFrame(frame, f"key string, {name} int")
    rows = split.users.select(F.col("row").alias("user"), F.col(USER).cast("string").alias("key"))
    return rows.join(table, "key", "left").drop("key")
