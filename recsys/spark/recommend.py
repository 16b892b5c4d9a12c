"""Top-N for everyone: item scores broadcast once, users streamed past them in batches, seen items removed inside.

Each executor multiplies a block of user factors with the item factors and selects with the kernel that ``rank`` uses.
Memory is one block of scores a task; the driver holds the catalogue, whatever the number of users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.broadcast import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys import kernels
from recsys.data.hashing import combine, unit
from recsys.schema import RANK, SCORE, SOURCE, TIME, VALUE
from recsys.spark.split import order_statistic

LISTS = f"user int, item int, {RANK} int, {SCORE} float, {SOURCE} string"


@dataclass(frozen=True)
class Scorer:
    """Who speaks for a user. ``factors``: float32[items, rank] for users with features, or None.
    ``same``: float32[items] for everyone else, or None. ``seed``: random scores for everyone, or None.
    """

    name: str
    factors: np.ndarray | None = None
    fallback: str = ""
    same: np.ndarray | None = None
    seed: int | None = None


def histories(history: DataFrame, users: DataFrame) -> DataFrame:
    """Return (user, seen array<int> ascending) of every user of ``users`` (user); empty without history."""
    seen = history.groupBy("user").agg(F.sort_array(F.collect_list("item")).alias("seen"))
    empty = F.array().cast("array<int>")
    return users.join(seen, "user", "left").withColumn("seen", F.coalesce("seen", empty))


def top_k(
    users: DataFrame, scorer: Scorer, k: int, *, items: int, exclude_seen: bool = True, memory_mb: int = 512
) -> DataFrame:
    """Return (user, item, rank from 1, score, source), best first; a user on whom nobody speaks has no row.

    Args:
        users: (user, seen), and ``features`` (array<float>, null = no opinion) for a scorer with factors.
        items: number of candidates; rows 0 … items-1.
        memory_mb: bound on the scores of one block, in each task.

    Ties go to the lower item row. Seen items are removed before the selection, so the list is as long as it can be.
    """
    context = users.sparkSession.sparkContext
    shared: Broadcast[Scorer] = context.broadcast(scorer)
    block = max(1, int(memory_mb * 2**20 / (12 * max(1, items))))
    frame = users if "features" in users.columns else users.withColumn("features", F.lit(None).cast("array<float>"))
    return frame.select("user", "seen", "features").mapInArrow(_Select(shared, k, items, exclude_seen, block), LISTS)


def _Select(
    shared: Broadcast[Scorer], k: int, items: int, exclude_seen: bool, block: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that executors run."""

    def select(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import numba

        numba.set_num_threads(1)  # Spark runs one task a core
        scorer = shared.value
        for batch in batches:
            for start in range(0, batch.num_rows, block):
                yield _lists(batch.slice(start, block), scorer, k, items, exclude_seen)

    return select


def _lists(batch: pa.RecordBatch, scorer: Scorer, k: int, items: int, exclude_seen: bool) -> pa.RecordBatch:
    user = batch.column("user").to_numpy(zero_copy_only=False)
    scores, speaks = _scores(batch, user, scorer, items)
    seen = batch.column("seen")
    indptr = seen.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64).cumsum()
    indptr = np.concatenate([[0], indptr]) if exclude_seen else np.zeros(len(user) + 1, dtype=np.int64)
    chosen, score = kernels.select_top_k(scores, indptr, seen.flatten().to_numpy(zero_copy_only=False), k)
    row, place = np.nonzero(chosen >= 0)
    source = np.where(speaks, scorer.name, scorer.fallback or scorer.name).astype(object)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(user[row], pa.int32()),
            pa.array(chosen[row, place], pa.int32()),
            pa.array(place + 1, pa.int32()),
            pa.array(score[row, place], pa.float32()),
            pa.array(source[row], pa.string()),
        ],
        names=["user", "item", RANK, SCORE, SOURCE],
    )


def _scores(batch: pa.RecordBatch, user: np.ndarray, scorer: Scorer, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[m, items], and bool[m]: the scorer itself speaks, not its fallback."""
    if scorer.seed is not None:
        bits = combine(scorer.seed, user[:, None], np.arange(items)[None, :])
        return unit(bits).astype(np.float32), np.ones(len(user), dtype=bool)
    if scorer.factors is None and scorer.same is not None:
        return np.tile(scorer.same, (len(user), 1)), np.ones(len(user), dtype=bool)
    features = batch.column("features")
    known = features.is_valid().to_numpy(zero_copy_only=False)
    scores = np.full((len(user), items), np.nan, dtype=np.float32)
    if known.any() and scorer.factors is not None:
        own = features.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(known.sum(), -1)
        scores[known] = own.astype(np.float32) @ scorer.factors.T
    if scorer.same is not None:
        scores[~known] = scorer.same
    return scores, known


def popular(train: DataFrame, candidates: int) -> np.ndarray:
    """Return float32[candidates]: users who like each item, as the local ``popular``."""
    counts = train.where(F.col(VALUE) > 0).groupBy("item").count().toPandas()
    likes = np.zeros(candidates, dtype=np.float32)
    likes[counts["item"].to_numpy(dtype=np.int64)] = counts["count"]
    return likes


def recent(train: DataFrame, candidates: int, share: float = 0.1) -> np.ndarray:
    """Return float32[candidates]: likes among the newest ``share`` of all likes, as the local ``recent``."""
    liked = train.where(F.col(VALUE) > 0)
    total = liked.count()
    since = order_statistic(liked, TIME, total - int(np.ceil(share * total))) if total else 0
    return popular(liked.where(F.col(TIME) >= since), candidates)
