"""Popular by segment on Spark: executors count, the driver keeps the users table and the scores."""

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
from recsys.spark.data.split import Split


def fit_segments(parts: Split, users: pd.DataFrame | None, wanted: RecommendSettings) -> Segments | None:
    """Return the segments of train, None where none are wanted.

    They equal those of ``features.segment_popularity.fit_segments`` on the same pairs.

    Args:
        users: the users table as ``features.segment_popularity.describe_users`` gives it.

    Raises:
        ConfigError: as of ``features.segment_popularity.group_users``.
    """
    if users is None:
        return None
    items = parts.candidates
    keys, codes = segment_popularity.group_users(users, wanted.segment, items, wanted.memory_mb)
    liked = parts.train.where(F.col(VALUE) > 0).select("user", "item")
    group = _by_row(parts, users, codes, "group").fillna(-1, ["group"])
    both = liked.join(group, "user").groupBy("group", "item").agg(F.count(F.lit(1)).alias("n")).toPandas()
    likers = liked.select("user").distinct().join(group, "user").groupBy("group").count().toPandas()
    cells = tuple(both[name].to_numpy(dtype=np.int64) for name in ("n", "group", "item"))
    counts = csr_array((cells[0], (cells[1] + 1, cells[2])), shape=(len(keys) + 1, items))
    n = np.zeros(len(keys) + 1, dtype=np.int64)
    n[likers["group"].to_numpy(dtype=np.int64) + 1] = likers["count"]
    share = counts.sum(axis=0) / max(1, n.sum())
    return segment_popularity.segments_from_counts(
        users, wanted.segment, keys, (n[1:], counts[1:]), share, wanted.segment_prior
    )


def members(parts: Split, segments: Segments) -> DataFrame:
    """Return (user: row, segment: of ``segments``, or null) of every user of the split."""
    return _by_row(parts, segments.users, segments.rows(segments.users), "segment")


def assigned(people: DataFrame, segments: Segments) -> DataFrame:
    """Return ``people`` with a column ``segment``: by its own columns of the segments' names, null or -1 for none.

    The driver sees each combination of values once.
    """
    own = [name for name in segments.columns if name in people.columns]
    if not own:
        return people.withColumn("segment", F.lit(None).cast("int"))
    distinct = people.select(own).distinct()
    found = distinct.toPandas()
    rows = pd.DataFrame({"segment": segments.rows(found).astype(np.int32)})
    for name in own:
        rows[f"of {name}"] = found[name]
    kinds = ", ".join(["segment int", *(f"`of {name}` {people.schema[name].dataType.simpleString()}" for name in own)])
    table = F.broadcast(people.sparkSession.createDataFrame(rows, kinds))
    same = [F.col(f"`{name}`").eqNullSafe(F.col(f"`of {name}`")) for name in own]
    return people.join(table, same, "left").drop(*(f"of {name}" for name in own))


def _by_row(parts: Split, users: pd.DataFrame, values: np.ndarray, name: str) -> DataFrame:
    """Return (user: row, value) of every user of the split, null where the users table does not have him."""
    frame = pd.DataFrame({"key": users[USER], name: values.astype(np.int32)})
    told = parts.users.sparkSession.createDataFrame(frame, f"key string, {name} int")
    rows = parts.users.select(F.col("row").alias("user"), F.col(USER).cast("string").alias("key"))
    return rows.join(told, "key", "left").drop("key")
