"""Make lists on Spark: a scorer is broadcast once, and executors score batches of users.

Each executor scores a block of users, removes seen items, and selects the best with the kernel of
:mod:`recsys.ranking.rank`. A task needs the memory of one block of scores. The driver has the
catalogue in memory, but not the users.

If item factors are in blocks (:mod:`recsys.spark.item_blocks`), a task scores all users of a batch
on the items of one block, keeps the best k of each user, and goes on to the next block. Blocks are
taken in ascending order of the items, so that of equal scores the lower item is first, as in the
other layout. Scores are the same up to rounding: a product of other shapes may add in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from pyspark.broadcast import Broadcast
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from recsys.ranking import rank
from recsys.schema import RANK, SCORE, SOURCE, TIME, VALUE
from recsys.spark.item_blocks import FactorBlocks
from recsys.spark.ranking.scorers import HISTORY_COLUMNS, BlockedFactorScorer, Scorer
from recsys.spark.tasks import prepare_task
from recsys.types import Selection

BLOCK_BYTES = 64 * 2**20
"""Largest size of a block of scores in bytes, even if more memory is allowed.

A block of this size stays in the CPU cache until the best items are selected.
"""


@dataclass(frozen=True)
class ListSettings:
    """The settings of all lists of a call.

    Attributes:
        k: the length of the lists.
        exclude_seen: whether to leave out the items of the column ``seen``.
        memory_mb: largest memory for the scores of one block and their copies in each task, in
            MiB. The scores alone get a third of it, and at most 64 MiB.
        quotas: limits on the number of items with one value in a list
            (:func:`recsys.ranking.rank.within_quotas`).
    """

    k: int
    exclude_seen: bool = True
    memory_mb: int = 512
    quotas: tuple[rank.Quota, ...] = ()

    def users_per_block(self, n_items: int) -> int:
        """Return the number of users whose scores are in memory at a time, at least 1.

        Args:
            n_items: the number of candidates.
        """
        return max(1, int(min(self.memory_mb * 2**20 / 3, BLOCK_BYTES) / (4 * max(1, n_items))))


def collect_seen_items(history: DataFrame, users: DataFrame) -> DataFrame:
    """Return ``users`` with the column ``seen``: the items that each user has seen, as an ascending array<int>.

    The array is empty for a user without a history.

    Args:
        history: columns (user, item), one row per pair.
        users: columns (user, …), the users of the result.
    """
    seen = history.groupBy("user").agg(F.sort_array(F.collect_list("item")).alias("seen"))
    return users.join(seen, "user", "left").withColumn("seen", F.coalesce("seen", F.array().cast("array<int>")))


def keep_long_histories(factors: DataFrame, history: DataFrame, min_history: int) -> DataFrame:
    """Return the factors of only those users who have at least ``min_history`` liked items.

    A liked item has a value above 0 in the history. Users without a factor get the list of their
    segment or of the fallback.

    Args:
        factors: columns (user, features). The result has the same columns.
        history: columns (user, item, value), one row per pair.
        min_history: the smallest number. 0: ``factors`` is returned unchanged.
    """
    if not min_history:
        return factors
    likes = history.where(F.col(VALUE) > 0).groupBy("user").count()
    return factors.join(likes.where(F.col("count") >= min_history).select("user"), "user", "left_semi")


def add_histories(users: DataFrame, history: DataFrame, names: Container[str]) -> DataFrame:
    """Return ``users`` with further columns that hold their histories, as arrays.

    An array has one entry per pair of the user, in ascending order of the items. The arrays of a
    user without a history are empty. The column ``times`` is null if ``history`` has no timestamps.

    Args:
        users: columns (user, …).
        history: columns (user, item, value), one row per pair, and ``timestamp`` if events have
            times.
        names: the columns to add. Names that are not in :data:`HISTORY_COLUMNS` are not used; if
            none is, ``users`` is returned unchanged.
    """
    columns = [name for name in HISTORY_COLUMNS if name in names]
    if not columns:
        return users
    joined = users.join(group_histories(history), "user", "left")
    for name in columns:
        empty = F.array().cast(HISTORY_COLUMNS[name])
        column = F.coalesce(F.col("entries")[name], empty)
        if name == "times" and TIME not in history.columns:
            column = F.lit(None).cast(HISTORY_COLUMNS[name])
        joined = joined.withColumn(name, column)
    return joined.drop("entries")


def group_histories(history: DataFrame) -> DataFrame:
    """Return the columns (user, entries): the history of each user as an array of structs.

    A struct has the fields ``items``, ``values`` and ``times``. The structs are in ascending order
    of the items. The field ``times`` is null if ``history`` has no timestamps.

    Args:
        history: columns (user, item, value), one row per pair, and ``timestamp`` if events have
            times.
    """
    times = F.col(TIME) if TIME in history.columns else F.lit(None)
    entry = F.struct(
        F.col("item").alias("items"),
        F.col(VALUE).cast("float").alias("values"),
        times.cast("bigint").alias("times"),
    )
    # A list of structs sorts by the first field, so that values and times follow their item.
    entries = F.sort_array(F.collect_list(entry)).alias("entries")
    return history.groupBy("user").agg(entries)


def top_k(users: DataFrame, scorer: Scorer, settings: ListSettings) -> DataFrame:
    """Return the lists of users as a DataFrame with one row per listed item.

    The columns are user, item (a row number), rank (1 is the best), score and source. A user
    without scores has no row. Of equal scores, the lower item row is first. Seen items are removed
    before the selection, so that lists are as long as possible.

    Args:
        users: columns (user, seen) and the scorer's columns. ``user`` is a row, or an id of any
            kind.
        scorer: computes the scores; it is sent to all executors.
        settings: the length of lists, seen items, memory and quotas.
    """
    shared: Broadcast[Scorer] = users.sparkSession.sparkContext.broadcast(scorer)
    frame = select_columns(users, scorer)
    user_type = frame.schema["user"].dataType.simpleString()
    schema = f"user {user_type}, item int, {RANK} int, {SCORE} float, {SOURCE} string"
    blocks = scorer.blocks if isinstance(scorer, BlockedFactorScorer) else None
    return frame.mapInArrow(_select_batches(shared, blocks, settings), schema)


def select_columns(users: DataFrame, scorer: Scorer) -> DataFrame:
    """Return a table with only ``user``, ``seen`` and the columns that a scorer reads.

    A column of the scorer that ``users`` does not have is null in the result.
    """
    columns: list[Column] = []
    for name, kind in scorer.columns.items():
        column = F.col(name) if name in users.columns else F.lit(None).cast(kind)
        columns.append(column.alias(name))
    return users.select("user", "seen", *columns)


def _select_batches(
    shared: Broadcast[Scorer], blocks: FactorBlocks | None, settings: ListSettings
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function with which executors make the lists of batches of users.

    Args:
        shared: the broadcast of the scorer.
        blocks: the item factors of the scorer, if they are in blocks.
    """

    def select(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task()
        scorer = shared.value
        if isinstance(scorer, BlockedFactorScorer):
            scorer = replace(scorer, blocks=blocks)
            # Whether an item keeps a quota depends on items of all blocks, so quotas need all scores.
            if not settings.quotas:
                for batch in batches:
                    yield _lists_by_item_blocks(batch, scorer, settings)
                return
        for batch in batches:
            yield _lists_of_batch(batch, scorer, settings)

    return select


def _lists_of_batch(users: pa.RecordBatch, scorer: Scorer, settings: ListSettings) -> pa.RecordBatch:
    """Return the lists of a batch of users."""
    excluded = _excluded_items(users, scorer.n_items, settings)
    n_users = settings.users_per_block(scorer.n_items)
    if not settings.quotas:
        return _as_rows(users, scorer, *scorer.top_k(users, Selection(settings.k, excluded), n_users))
    items = np.empty((users.num_rows, settings.k), dtype=np.int32)
    list_scores = np.empty((users.num_rows, settings.k), dtype=np.float32)
    scores = np.empty((min(n_users, users.num_rows), scorer.n_items), dtype=np.float32)
    for start in range(0, users.num_rows, n_users):
        block = users.slice(start, n_users)
        rows = slice(start, start + block.num_rows)
        scorer.fill(scores[: block.num_rows], block)
        lists = rank.within_quotas(scores[: block.num_rows], excluded[rows], settings.quotas, settings.k)
        items[rows], list_scores[rows] = lists
    return _as_rows(users, scorer, items, list_scores)


def _lists_by_item_blocks(users: pa.RecordBatch, scorer: BlockedFactorScorer, settings: ListSettings) -> pa.RecordBatch:
    """Return the lists of a batch of users, without quotas. Each block of items is read once."""
    excluded = _excluded_items(users, scorer.n_items, settings)
    items = np.full((users.num_rows, settings.k), -1, dtype=np.int32)
    list_scores = np.full((users.num_rows, settings.k), np.nan, dtype=np.float32)
    for first_item, block_scorer in scorer.scorers_of_blocks():
        n_items = block_scorer.n_items
        selection = Selection(settings.k, excluded[:, first_item : first_item + n_items])
        block_lists = block_scorer.top_k(users, selection, settings.users_per_block(n_items))
        items, list_scores = merge_lists((items, list_scores), block_lists, first_item)
    return _as_rows(users, scorer, items, list_scores)


def merge_lists(
    lists: tuple[np.ndarray, np.ndarray], block_lists: tuple[np.ndarray, np.ndarray], first_item: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best k items of lists and of the lists of a later block of items, and their scores.

    Lists are a pair of arrays: the items, int32[m, k], with -1 after the last, and their scores,
    float32[m, k], NaN where the item is -1. Of equal scores, the lower item is first.

    Args:
        lists: lists of items before ``first_item``.
        block_lists: lists of items of the block, counted from 0.
        first_item: the first item of the block.
    """
    k = lists[0].shape[1]
    block_items = np.where(block_lists[0] < 0, np.int32(-1), block_lists[0] + np.int32(first_item))
    items = np.hstack([lists[0], block_items])
    scores = np.hstack([lists[1], block_lists[1]])
    # The sort is stable, and items of the block come after all lower items; NaN comes last.
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _excluded_items(users: pa.RecordBatch, n_items: int, settings: ListSettings) -> csr_array:
    """Return csr (users, n_items), an entry for each item that the list of a user leaves out."""
    seen = users.column("seen")
    indptr = np.zeros(users.num_rows + 1, dtype=np.int64)
    if settings.exclude_seen:
        indptr[1:] = seen.value_lengths().to_numpy(zero_copy_only=False).cumsum()
    items = seen.flatten().to_numpy(zero_copy_only=False)[: indptr[-1]]
    return csr_array((np.ones(len(items), dtype=np.int8), items, indptr), shape=(users.num_rows, n_items))


def _as_rows(users: pa.RecordBatch, scorer: Scorer, items: np.ndarray, list_scores: np.ndarray) -> pa.RecordBatch:
    """Return the lists of a batch of users as one row per listed item.

    Args:
        items, list_scores: [users, k], the items with -1 after the last one, and their scores.
    """
    row, position = np.nonzero(items >= 0)
    sources = pa.array(scorer.sources)
    return pa.RecordBatch.from_arrays(
        [
            users.column("user").take(pa.array(row)),
            pa.array(items[row, position]),
            pa.array((position + 1).astype(np.int32)),
            pa.array(list_scores[row, position]),
            sources.take(pa.array(scorer.kinds(users)[row])),
        ],
        names=["user", "item", RANK, SCORE, SOURCE],
    )
