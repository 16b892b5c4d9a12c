"""Item factors in blocks of consecutive items, for catalogues that no process can hold as a whole.

There are two layouts of item factors. Where they are small, they are *broadcast*: the driver and
every task hold all of them. Where they are large, they are a table on disk (:class:`FactorTable`),
and a process holds one *block* of them at a time. :func:`items_per_block` chooses the layout.

To make lists or to fold users in, the driver sends each block to the executors as a separate
broadcast (:class:`FactorBlocks`). A task then reads one block after the other from the disk of its
executor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark import RDD, Broadcast
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from recsys.config import ItemBlockMB
from recsys.errors import InputError
from recsys.locations import Location

BROADCAST_MB = 1024
"""Largest size in MiB of item factors that are broadcast with ``item_block_mb = "auto"``.

A task holds them three times.
"""

BLOCK_MB = 32
"""Size of a block in MiB with ``item_block_mb = "auto"``."""

MAX_BROADCAST_MB = 2047
"""Largest size in MiB of item factors that can be broadcast.

PySpark writes the length of a value as a signed 32-bit number.
"""

MAX_BLOCK_MB = 256
"""Largest size of a block in MiB. In training, one value that is sent can be six times as large."""


def items_per_block(n_items: int, rank: int, item_block_mb: ItemBlockMB) -> int | None:
    """Return the number of items in a block, or None if all item factors are to be broadcast.

    Args:
        n_items: the number of items.
        rank: the length of a factor.
        item_block_mb: the setting ``[spark] item_block_mb``. A number is the largest size in MiB of
            item factors that are broadcast, and of a block (at most :data:`MAX_BLOCK_MB`).

    Factors of 2 GiB and more are never broadcast.

    >>> items_per_block(1_000_000, 64, "auto") is None, items_per_block(10_000_000, 128, "auto")
    (True, 65536)
    """
    limit = _broadcast_limit(item_block_mb)
    block = BLOCK_MB if item_block_mb == "auto" else min(item_block_mb, MAX_BLOCK_MB)
    if 4 * rank * n_items <= limit * 2**20:
        return None
    return max(1, int(block * 2**20 / (4 * rank)))


def _broadcast_limit(item_block_mb: ItemBlockMB) -> float:
    """Return the largest size in MiB of item factors that are broadcast."""
    return BROADCAST_MB if item_block_mb == "auto" else min(item_block_mb, MAX_BROADCAST_MB)


def describe_layout(n_items: int, rank: int, item_block_mb: ItemBlockMB) -> str:
    """Return one sentence: which layout :func:`items_per_block` chooses, and why.

    Args:
        n_items, rank, item_block_mb: as for :func:`items_per_block`.

    >>> describe_layout(1000, 8, "auto")
    'item factors are broadcast: 0.03 MiB, at most 1024 (item_block_mb = auto)'
    """
    limit = _broadcast_limit(item_block_mb)
    size = 4 * rank * n_items / 2**20
    rows = items_per_block(n_items, rank, item_block_mb)
    if rows is None:
        return f"item factors are broadcast: {size:,.2f} MiB, at most {limit:g} (item_block_mb = {item_block_mb})"
    return (
        f"item factors are in {-(-n_items // rows):,} blocks of {rows:,} items:"
        f" {size:,.2f} MiB, above {limit:g} (item_block_mb = {item_block_mb})"
    )


PART_BYTES = 4 * 2**20
"""Approximate size in bytes of the factors in one packed row."""


class FactorBlocks:
    """Item factors on the disks of the executors, which are read block by block.

    It can be sent to executors inside a function, but not inside another broadcast.

    Attributes:
        n_items: the number of items.
        rows: the number of items in each block but the last.
        parts: the broadcast of each block, float32[rows, rank], NaN in the rows of items without a
            factor.
    """

    def __init__(self, n_items: int, rows: int, parts: list[Broadcast[np.ndarray]]) -> None:
        self.n_items = n_items
        self.rows = rows
        self.parts = parts

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first item of each block, and its factors, one block in memory at a time."""
        for number, part in enumerate(self.parts):
            factors = part.value
            if getattr(part, "_path", None) is not None:
                # PySpark would keep each value that it has read until the end of the task. With
                # encryption there is no file to read it from again.
                vars(part).pop("_value", None)
            yield number * self.rows, factors


@dataclass(frozen=True)
class FactorTable:
    """Item factors as a table, of which the driver reads one block at a time.

    Attributes:
        table: columns (item int, features array<float>), one row per item with a factor.
        n_items: the number of items, with and without a factor.
        rank: the length of a factor.
        rows: the number of items in a block.
    """

    table: DataFrame
    n_items: int
    rank: int
    rows: int

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the factors of each block, float32[rows, rank], NaN for items without a factor."""
        for start in range(0, self.n_items, self.rows):
            stop = min(start + self.rows, self.n_items)
            item = F.col("item")
            packed = self.table.where((item >= start) & (item < stop)).mapInArrow(
                pack_features, "keys binary, features binary"
            )
            factors = np.full((stop - start, self.rank), np.nan, dtype=np.float32)
            for keys, features in packed.collect():
                items = np.frombuffer(keys, dtype=np.int32)
                factors[items - start] = np.frombuffer(features, dtype=np.float32).reshape(-1, self.rank)
            yield factors

    @classmethod
    def write(cls, frame: DataFrame, shape: tuple[int, int, int], path: Location) -> FactorTable:
        """Write factors to a folder, sorted by item, and return their table.

        Args:
            frame: columns (item int, features array<float>), in any order.
            shape: the number of items, the rank, and the number of items in a block.
            path: the folder.

        Raises:
            InputError: a factor is not finite.
        """
        n_items, _, rows = shape
        # A block is in few files, so that who reads it reads little else.
        by_item = frame.repartitionByRange(-(-n_items // rows), "item").sortWithinPartitions("item")
        return cls(write_factors(by_item, path), *shape)

    def share(self) -> tuple[FactorBlocks, np.ndarray]:
        """Broadcast each block, and return the blocks and bool[n_items]: which items have a factor."""
        context = self.table.sparkSession.sparkContext
        parts = []
        has_factor = []
        for factors in self.blocks():
            parts.append(context.broadcast(factors))
            has_factor.append(np.isfinite(factors[:, 0]))
        return FactorBlocks(self.n_items, self.rows, parts), np.concatenate(has_factor)

    def collect(self) -> np.ndarray:
        """Return all item factors, float32[n_items, rank], which must fit in the memory of the driver."""
        return np.concatenate(list(self.blocks()))


def pack_features(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pack each Arrow batch of rows (id int, features array<float>) into one row of two byte strings.

    The column ``keys`` has the ids, int32[m], and ``features`` the factors, float32[m, rank].
    """
    for batch in batches:
        if batch.num_rows:
            keys = batch.column(0).to_numpy(zero_copy_only=False).astype(np.int32)
            features = batch.column(1).flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            columns = [pa.array([keys.tobytes()], pa.binary()), pa.array([features.tobytes()], pa.binary())]
            yield pa.RecordBatch.from_arrays(columns, names=["keys", "features"])


PackedRows = tuple[bytearray, bytearray]
"""Rows of a table of factors as bytes: their keys, int32[m], and their factors, float32[m, rank]."""


def pack_rows(keys: np.ndarray, factors: np.ndarray) -> Iterator[PackedRows]:
    """Yield the rows of a table of factors, in parts of about :data:`PART_BYTES`.

    Args:
        keys: int[n], the row of the user or item of each factor.
        factors: float[n, rank].
    """
    size = max(1, PART_BYTES // (4 * factors.shape[1]))
    for start in range(0, len(keys), size):
        part = slice(start, start + size)
        yield bytearray(keys[part].astype(np.int32)), bytearray(factors[part].astype(np.float32))


def factors_frame(rows: RDD[PackedRows] | Iterable[PackedRows], spark: SparkSession, rank: int, key: str) -> DataFrame:
    """Return the rows of :func:`pack_rows` as a DataFrame with the columns ``key`` and ``features``.

    Args:
        rows: the rows, on the executors or on the driver.
        spark: the session.
        rank: the length of a factor.
        key: the name of the column of the keys.
    """
    if not isinstance(rows, RDD):
        # Spark's tables of local data would be sent with every task.
        rows = spark.sparkContext.parallelize(list(rows))
    packed = spark.createDataFrame(rows, "keys binary, features binary", verifySchema=False)
    return packed.mapInArrow(_unpack_features(rank, key), f"{key} int, features array<float>")


def write_factors(factors: DataFrame, path: Location) -> DataFrame:
    """Write a table of factors, and return the written table.

    Spark looks for factors that are not finite while it writes them.

    Args:
        factors: columns (user or item, features array<float>).
        path: the folder.

    Raises:
        InputError: a factor is not finite.
    """
    is_bad = F.exists("features", lambda number: F.isnan(number) | (F.abs(number) == float("inf")))
    observed = Observation()
    factors.observe(observed, F.count_if(is_bad).alias("bad")).write.parquet(str(path))
    bad = observed.get["bad"]
    if bad:
        raise InputError(
            f"ALS diverged: {bad:,} {factors.columns[0]}s have factors that are not finite."
            " Raise reg, lower alpha, or scale the values down."
        )
    # With the schema no job is needed to find it in the files.
    return factors.sparkSession.read.schema(factors.schema).parquet(str(path))


def _unpack_features(rank: int, key: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that makes rows (key, features) of :data:`PackedRows`."""

    def unpack(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for keys, features in zip(batch.column(0), batch.column(1), strict=True):
                ids = np.frombuffer(keys.as_py(), dtype=np.int32)
                offsets = np.arange(len(ids) + 1, dtype=np.int32) * rank
                values = np.frombuffer(features.as_py(), dtype=np.float32)
                lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
                yield pa.RecordBatch.from_arrays([pa.array(ids), lists], names=[key, "features"])

    return unpack
