"""The blocks of a log while ALS is trained: on the executors, or all of them on the driver.

Both classes have the same methods, so the sweeps are written once (:mod:`recsys.spark.training.trainer`).
A function that works on blocks is one of :mod:`recsys.spark.training.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any, NamedTuple

import numba
import numpy as np
from pyspark import RDD, Broadcast, StorageLevel

from recsys.linalg import one_blas_thread
from recsys.spark.tasks import prepare_task

MAX_DIRECT_SUMS = 16
"""Largest number of partial sums that the driver adds up by itself.

More of them are first added up in groups on the executors.
"""

Sums = tuple[np.ndarray, ...]


class ExecutorBlocks:
    """Blocks on the executors. Each result that the driver needs is one Spark job."""

    def __init__(self, rdd: RDD[Any]) -> None:
        self.rdd = rdd

    def share(self, value: Any) -> Broadcast[Any]:
        """Send a value to all executors. Its ``destroy()`` releases it."""
        return self.rdd.context.broadcast(value)

    def map(self, work: Callable[[Any], Any]) -> ExecutorBlocks:
        """Return new blocks: the result of ``work`` for each block.

        They are computed when they are first needed, and kept until :meth:`release`.
        """

        def prepared_work(block: Any) -> Any:
            prepare_task()
            return work(block)

        return ExecutorBlocks(self.rdd.map(prepared_work).persist(StorageLevel.MEMORY_AND_DISK))

    def collect(self, work: Callable[[Any], Any]) -> list[Any]:
        """Return the result of ``work`` for each block, as a list on the driver."""
        return self.rdd.map(work).collect()

    def sum(self, work: Callable[[Iterator[Any]], Iterator[Sums]]) -> Sums:
        """Return the sum of the tuples of arrays that ``work`` yields for the blocks of each partition."""
        return sum_partitions(self.rdd.mapPartitions(work))

    def release(self) -> None:
        """Release the memory of the results of :meth:`map`."""
        self.rdd.unpersist()


class LocalValue(NamedTuple):
    """A value of this process, with the two members of a broadcast that are used here."""

    value: Any

    def destroy(self) -> None:
        """Do nothing: no executor has the value."""


class DriverBlocks:
    """Blocks in the memory of the driver, where no step needs a Spark job."""

    def __init__(self, blocks: list[Any]) -> None:
        self.blocks = blocks

    def share(self, value: Any) -> LocalValue:
        """Return the value in the form of a broadcast."""
        return LocalValue(value)

    def map(self, work: Callable[[Any], Any]) -> DriverBlocks:
        """Return new blocks: the result of ``work`` for each block."""
        return DriverBlocks(self.collect(work))

    def collect(self, work: Callable[[Any], Any]) -> list[Any]:
        """Return the result of ``work`` for each block, as a list."""
        return [work(block) for block in self.blocks]

    def sum(self, work: Callable[[Iterator[Any]], Iterator[Sums]]) -> Sums:
        """Return the sum of the tuples of arrays that ``work`` yields for each block, on all cores.

        The order of the additions is that of the blocks, so the result does not depend on the number of
        cores.
        """
        with one_blas_thread(), ThreadPoolExecutor(numba.get_num_threads()) as threads:
            return _sum_tuples(threads.map(lambda block: _sum_tuples(work(iter([block]))), self.blocks))

    def release(self) -> None:
        """Do nothing: the blocks are released when this object is."""


def sum_partitions(partial_sums: RDD[Sums]) -> Sums:
    """Add up the tuples of arrays that the partitions hold, one tuple per partition.

    The result is one tuple. The order of the additions is always that of the partitions, so the
    result is the same in every run.
    """
    n = partial_sums.getNumPartitions()
    if n > MAX_DIRECT_SUMS:
        group_size = int(np.ceil(np.sqrt(n)))
        numbered = partial_sums.mapPartitionsWithIndex(lambda index, rows: ((index, row) for row in rows))
        groups = numbered.repartitionAndSortWithinPartitions(-(-n // group_size), lambda index: index // group_size)
        partial_sums = groups.mapPartitions(lambda rows: iter([_sum_tuples(row for _, row in rows)]))
    return _sum_tuples(partial_sums.collect())


def _sum_tuples(rows: Iterable[Sums]) -> Sums:
    return reduce(lambda total, row: tuple(a + b for a, b in zip(total, row, strict=True)), rows)
