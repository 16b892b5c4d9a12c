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
from scipy.sparse import csr_array

from recsys import kernels
from recsys.data.hashing import random_scores
from recsys.ranking import rank
from recsys.schema import RANK, SCORE, SOURCE, TIME, VALUE
from recsys.spark.data.split import order_statistic

BLOCK = 64 * 2**20
"""Bytes of scores at a time, also where more memory is allowed: what was multiplied is selected while it is warm."""


@dataclass(frozen=True)
class Scorer:
    """Who speaks for a user. ``factors``: float32[items, rank] for users with features, or None.
    ``groups``: for users without: float32[segments, items] and who speaks for each segment, or None.
    ``same``: float32[items] for everyone else, or None. ``seed``: random scores for everyone, or None.
    ``keep``: bool[items], the items that random scores are for; None: all. ``quotas``: at most so many items of a kind
    in a list.
    """

    name: str
    factors: np.ndarray | None = None
    fallback: str = ""
    same: np.ndarray | None = None
    seed: int | None = None
    keep: np.ndarray | None = None
    quotas: tuple[rank.Quota, ...] = ()
    groups: tuple[np.ndarray, tuple[str, ...]] | None = None


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
        users: (user, seen), and ``features`` (array<float>, null = no opinion) for a scorer with factors, ``segment``
            (int, null or -1 = none) for one with groups; ``user`` is a row, or an id of any kind.
        items: number of candidates; rows 0 … items-1.
        memory_mb: bound on the scores of one block, in each task.

    Ties go to the lower item row. Seen items are removed before the selection, so the list is as long as it can be.
    """
    context = users.sparkSession.sparkContext
    shared: Broadcast[Scorer] = context.broadcast(scorer)
    block = max(1, int(min(memory_mb * 2**20 / 3, BLOCK) / (4 * max(1, items))))
    frame = with_opinions(users)
    kind = frame.schema["user"].dataType.simpleString()
    lists = f"user {kind}, item int, {RANK} int, {SCORE} float, {SOURCE} string"
    return frame.mapInArrow(_Select(shared, k, items, exclude_seen, block), lists)


def with_opinions(users: DataFrame) -> DataFrame:
    """Return (user, seen, features, segment), null where ``users`` has no such column."""
    for name, missing in (("features", "array<float>"), ("segment", "int")):
        if name not in users.columns:
            users = users.withColumn(name, F.lit(None).cast(missing))
    return users.select("user", "seen", "features", "segment")


def _Select(
    shared: Broadcast[Scorer], k: int, items: int, exclude_seen: bool, block: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that executors run."""

    def select(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import numba

        numba.set_num_threads(1)  # Spark runs one task a core
        scorer = shared.value
        space = np.empty(
            (block, items), dtype=np.float32
        )  # one for all blocks: fresh memory costs as much as the product
        for batch in batches:
            for start in range(0, batch.num_rows, block):
                yield _lists(batch.slice(start, block), scorer, k, space, exclude_seen)

    return select


def _lists(batch: pa.RecordBatch, scorer: Scorer, k: int, space: np.ndarray, exclude_seen: bool) -> pa.RecordBatch:
    m = batch.num_rows
    scores = space[:m]
    speaks = _fill(scores, batch, scorer)
    seen = batch.column("seen")
    indptr = np.zeros(m + 1, dtype=np.int64)
    if exclude_seen:
        indptr[1:] = seen.value_lengths().to_numpy(zero_copy_only=False).cumsum()
    skip = seen.flatten().to_numpy(zero_copy_only=False)
    if scorer.quotas:
        skipped = csr_array((np.ones(indptr[-1]), skip[: indptr[-1]], indptr), shape=scores.shape)
        chosen, score = rank.within_quotas(scores, skipped, scorer.quotas, k)
    else:
        chosen, score = kernels.select_top_k(scores, indptr, skip, k)
    row, place = np.nonzero(chosen >= 0)
    names = pa.array([scorer.fallback or scorer.name, scorer.name, *(scorer.groups[1] if scorer.groups else ())])
    return pa.RecordBatch.from_arrays(
        [
            batch.column("user").take(pa.array(row)),
            pa.array(chosen[row, place]),
            pa.array((place + 1).astype(np.int32)),
            pa.array(score[row, place]),
            names.take(pa.array(speaks[row])),
        ],
        names=["user", "item", RANK, SCORE, SOURCE],
    )


def _fill(scores: np.ndarray, batch: pa.RecordBatch, scorer: Scorer) -> np.ndarray:
    """Write float32[m, items]; return int[m], who speaks: 0 the fallback, 1 the scorer itself, 2 + s segment s."""
    everyone = np.ones(len(scores), dtype=np.int64)
    if scorer.seed is not None:
        user = batch.column("user").to_numpy(zero_copy_only=False)
        scores[:] = random_scores(scorer.seed, user, scores.shape[1])
        if scorer.keep is not None:
            scores[:, ~scorer.keep] = np.nan
        return everyone
    if scorer.factors is None and scorer.same is not None:
        scores[:] = scorer.same
        return everyone
    features = batch.column("features")
    known = features.is_valid().to_numpy(zero_copy_only=False)
    if scorer.factors is not None and known.any():
        own = features.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(known.sum(), -1)
        if known.all():
            np.matmul(own, scorer.factors.T, out=scores)
        else:
            scores[known] = own @ scorer.factors.T
    scores[~known] = np.nan if scorer.same is None else scorer.same
    speaks = known.astype(np.int64)
    if scorer.groups is not None:
        segment = batch.column("segment").fill_null(-1).to_numpy(zero_copy_only=False)
        grouped = ~known & (segment >= 0)
        scores[grouped] = scorer.groups[0][segment[grouped]]
        speaks[grouped] = 2 + segment[grouped]
    return speaks


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
