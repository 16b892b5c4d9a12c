"""Fit models from sums over users: executors compute the sums, and the driver solves for the model.

The model (:class:`recsys.recommender.FitsFromSums`) is that of the local engine. Each task sums
over the users of one partition, and cuts the sums into blocks of rows. The blocks are added up in
the order of the partitions. So a cluster with the same number of cores gives the same result, bit
for bit.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.broadcast import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array, issparse, load_npz, save_npz, vstack

from recsys.recommender import FitsFromSums
from recsys.spark.ranking.recommend import group_histories
from recsys.spark.ranking.scorers import HISTORY_COLUMNS, histories_of_batch
from recsys.spark.tasks import prepare_task
from recsys.types import Histories

BLOCK_BYTES = 4 * 2**20
"""Size in bytes of a dense block of rows.

A task that adds blocks has one block of each partition in memory.
"""

PASS_ENTRIES = 2**22
"""Approximate number of history entries over which a task sums at a time."""

SUMS_SCHEMA = "name string, start int, part int, rows binary"
"""Columns of a block of a sum: its name, its first row, the partition it is from, and its rows."""

Sums = dict[str, np.ndarray | csr_array]
"""Name -> a sum over users, a dense or sparse matrix."""


def fit_from_sums(
    model: FitsFromSums,
    train: DataFrame,
    likes: np.ndarray,
    *,
    timed: bool,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Fit a model in place, from sums over the users of train.

    The result is that of ``model.fit`` on the same pairs, up to rounding.

    Args:
        model: the unfitted model, which this function changes.
        train: columns (user, item: row, value, timestamp), one row per (user, item) pair.
        likes: [candidates], the number of users who like each item.
        timed: whether any event has a known time.
        block_bytes: size in bytes of a dense block of rows.

    Raises:
        InputError: the model needs more memory than it may use, or it needs times and the log has
            none.
    """
    model.prepare_sums(likes.astype(np.int64))
    nobody = Histories(csr_array((0, len(likes)), dtype=np.float32))
    if timed:
        nobody = Histories(nobody.values, np.empty(0, dtype=np.int64))
    # The sums over nobody have the names and the shapes of all sums; they also refuse what the
    # model cannot learn from, before a job starts.
    totals = model.sum_users(nobody)
    shared = train.sparkSession.sparkContext.broadcast((model, len(likes), timed, block_bytes))
    # One partition per core, because a task sends sums of the size of the result.
    cores = train.sparkSession.sparkContext.defaultParallelism
    users = group_histories(train.repartition(cores, "user")).sortWithinPartitions("user")
    columns = [F.col("entries")[name].alias(name) for name in HISTORY_COLUMNS]
    parts = users.select(*columns).mapInArrow(_sum_partition(shared), SUMS_SCHEMA)
    added = parts.groupBy("name", "start").applyInArrow(_add_blocks, SUMS_SCHEMA)
    blocks: dict[str, dict[int, Any]] = {name: {} for name in totals}
    for row in added.toLocalIterator():
        blocks[row["name"]][row["start"]] = _from_bytes(row["rows"])
    model.fit_sums({name: _assemble(blocks[name], total) for name, total in totals.items()})


def _sum_partition(
    shared: Broadcast[tuple[FitsFromSums, int, bool, int]],
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function with which executors sum over the users of a partition.

    Args:
        shared: the broadcast of (model, number of items, whether events have times, bytes of a
            block).
    """

    def sum_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task()
        model, n_items, timed, block_bytes = shared.value
        totals: Sums = {}
        for group in _groups_of_batches(batches):
            sums = model.sum_users(histories_of_batch(group, n_items, timed))
            for name, part in sums.items():
                # Sparse sums are kept in float64: they have few entries, of very different sizes.
                term = part.astype(np.float64) if issparse(part) else part
                totals[name] = totals[name] + term if name in totals else term
        context = TaskContext.get()
        partition = 0 if context is None else context.partitionId()
        for name, total in totals.items():
            for start, rows in _cut(total, block_bytes):
                columns = [[name], [start], [partition], [_to_bytes(rows)]]
                types = [pa.string(), pa.int32(), pa.int32(), pa.binary()]
                arrays = [pa.array(*column) for column in zip(columns, types, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, names=["name", "start", "part", "rows"])

    return sum_batches


def _groups_of_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches of users to batches of about :data:`PASS_ENTRIES` history entries each."""
    group: list[pa.RecordBatch] = []
    n_entries = 0
    for batch in batches:
        group.append(batch)
        n_entries += len(batch.column("items").flatten())
        if n_entries >= PASS_ENTRIES:
            yield pa.concat_batches(group)
            group = []
            n_entries = 0
    if group:
        yield pa.concat_batches(group)


def _cut(total: np.ndarray | csr_array, block_bytes: int) -> Iterator[tuple[int, np.ndarray | csr_array]]:
    """Cut a matrix into blocks of rows, and yield (number of the first row, the rows) for each.

    A sparse block without entries is left out.
    """
    height = max(1, block_bytes // (4 * max(1, total.shape[1])))
    for start in range(0, total.shape[0], height):
        rows = total[start : start + height]
        if isinstance(rows, np.ndarray) or rows.nnz:
            yield start, rows


def _add_blocks(table: pa.Table) -> pa.Table:
    """Add the blocks of all partitions for the same rows, and return a table of one row. Executors
    run it.
    """
    ordered = table.sort_by("part")
    total = reduce(add, (_from_bytes(rows.as_py()) for rows in ordered["rows"]))
    first = ordered.slice(0, 1)
    rows = pa.chunked_array([pa.array([_to_bytes(total)], type=pa.binary())])
    return first.set_column(first.schema.get_field_index("rows"), "rows", rows)


def _assemble(blocks: dict[int, Any], empty: np.ndarray | csr_array) -> np.ndarray | csr_array:
    """Join blocks of rows to the whole matrix, in the shape and dtype of ``empty``.

    Args:
        blocks: number of the first row -> the rows.
        empty: the sum over no users. Rows that are in no block are taken from it.
    """
    if isinstance(empty, np.ndarray):
        for start, rows in blocks.items():
            empty[start : start + len(rows)] = rows
        return empty
    parts = []
    n_rows = 0
    for start in sorted(blocks):
        parts += [empty[n_rows:start], blocks[start]]
        n_rows = start + blocks[start].shape[0]
    parts.append(empty[n_rows:])
    matrix = csr_array(vstack(parts, format="csr"))
    matrix.sort_indices()
    return matrix.astype(empty.dtype)


def _to_bytes(rows: np.ndarray | csr_array) -> bytes:
    buffer = io.BytesIO()
    if issparse(rows):
        save_npz(buffer, rows, compressed=False)
    else:
        np.save(buffer, rows, allow_pickle=False)
    return buffer.getvalue()


def _from_bytes(data: bytes) -> np.ndarray | csr_array:
    buffer = io.BytesIO(data)
    # A file of several arrays is a zip archive, and begins with its letters.
    if data[:2] == b"PK":
        return csr_array(load_npz(buffer))
    array: np.ndarray = np.load(buffer, allow_pickle=False)
    return array
