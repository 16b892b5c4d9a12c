"""The log packed into blocks of whole users, and what executors do with them while ALS is trained (``trainer``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import Broadcast

from recsys import linalg
from recsys.data.hashing import hash_words

if TYPE_CHECKING:
    from recsys.spark.training.als import Params


class Block(NamedTuple):
    """Histories of whole users as CSR, users in an order that looks random and is always the same.

    ``users``: int32[m]. ``indptr``: int64[m + 1]. ``items``: int32[n], ascending within a user. ``values``: float32[n].
    """

    users: np.ndarray
    indptr: np.ndarray
    items: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, users: np.ndarray, items: np.ndarray, values: np.ndarray, seed: int) -> Block:
        """Return the block of pairs in any order."""
        order = np.lexsort((items, users, hash_words(seed, users)))
        users, items, values = users[order], items[order], values[order]
        starts = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
        indptr = np.append(starts, len(users)).astype(np.int64)
        return cls(users[starts], indptr, items, values)

    def pack(self) -> bytes:
        """Return it as bytes, for :meth:`unpack`."""
        sizes = np.array([len(self.users), len(self.items)], dtype=np.int64)
        return b"".join(part.tobytes() for part in (sizes, self.indptr, self.users, self.items, self.values))

    @classmethod
    def unpack(cls, raw: bytes) -> Block:
        """Return views of packed bytes; nothing is copied."""
        m, n = np.frombuffer(raw, np.int64, 2).tolist()
        place = 16
        parts = []
        for kind, size in ((np.int64, m + 1), (np.int32, m), (np.int32, n), (np.float32, n)):
            parts.append(np.frombuffer(raw, kind, size, place))
            place += parts[-1].nbytes
        indptr, users, items, values = parts
        return cls(users, indptr, items, values)

    def divide(self, seed: int, every: int) -> tuple[Block, Block]:
        """Return (who is watched, who teaches): one user in ``every`` is watched, none for 0."""
        cut = int(np.searchsorted(hash_words(seed, self.users), np.uint64(2**64 // every))) if every else 0
        return self._rows(0, cut), self._rows(cut, len(self.users))

    def _rows(self, start: int, stop: int) -> Block:
        indptr = self.indptr[start : stop + 1]
        inside = slice(indptr[0], indptr[-1])
        return Block(self.users[start:stop], indptr - indptr[0], self.items[inside], self.values[inside])

    def targets(self, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """Return float32[n] twice, weight and target of each pair, as ``linalg.als_half_step`` takes them."""
        if not params.implicit:
            return np.ones_like(self.values), self.values
        weight = np.float32(params.alpha) * np.abs(self.values)
        return weight, np.where(self.values > 0, 1 + weight, np.float32(0))


Blocks = Iterator[bytes]
Solved = Iterator[tuple[bytes, np.ndarray]]
Parts = Iterator[tuple[np.ndarray, ...]]


def _one_thread() -> None:
    import numba

    numba.set_num_threads(1)  # Spark runs one task a core


def pack(seed: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what makes one block of a partition of (user, item, value)."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        own = [[column.to_numpy() for column in batch.columns] for batch in batches if batch.num_rows]
        if own:
            users, items, values = (np.concatenate(column) for column in zip(*own, strict=True))
            block = Block.of(users, items, values, seed)
            yield pa.RecordBatch.from_arrays([pa.array([block.pack()], pa.binary())], names=["block"])

    return work


def count(items: int, params: Params, every: int) -> Callable[[Blocks], Parts]:
    """Return what counts the pairs that teach each item, int64[items], and the users who teach, int64[1]."""

    def work(blocks: Blocks) -> Parts:
        taught, users = np.zeros(items, dtype=np.int64), 0
        for raw in blocks:
            _, block = Block.unpack(raw).divide(params.seed, every)
            taught += np.bincount(block.items[params.taught(block.values)], minlength=items)
            users += len(block.users)
        yield taught, np.array([users])

    return work


def solve_teachers(shared: Broadcast[Any], params: Params, every: int) -> Callable[[bytes], tuple[bytes, np.ndarray]]:
    """Return what solves the users who teach against the items and axes of ``shared``: (block, float32[m, rank])."""

    def work(raw: bytes) -> tuple[bytes, np.ndarray]:
        _one_thread()
        items, axes = shared.value
        _, block = Block.unpack(raw).divide(params.seed, every)
        return raw, params.solve((block.indptr, block.items, block.values), items, axes)

    return work


def sum_up(shared: Broadcast[Any], params: Params, every: int) -> Callable[[Solved], Parts]:
    """Return what adds up, over users x solved for items y: float32[items, rank], Σ (target − weight·x·y) x of each
    item's pairs; float64[rank, rank], Σ x xᵀ; float64[1], the users' part of the objective.
    """

    def work(solved: Solved) -> Parts:
        items, _ = shared.value
        left, gram, loss = np.zeros_like(items), np.zeros((params.rank, params.rank)), 0.0
        for raw, x in solved:
            _, block = Block.unpack(raw).divide(params.seed, every)
            weight, target = block.targets(params)
            known = float((target if params.implicit else target.astype(np.float64) ** 2).sum(dtype=np.float64))
            loss += known + linalg.add_left_over(block.indptr, block.items, weight, target, x, items, left)
            wide = x.astype(np.float64)
            penalty = params.penalty(params.lengths(block.indptr, block.values), len(items))
            loss += float(penalty @ (wide**2).sum(axis=1))
            gram += wide.T @ wide
        yield left, gram, np.array([loss])

    return work


def turn(shared: Broadcast[np.ndarray], params: Params, every: int) -> Callable[[Solved], Parts]:
    """Return what adds up −Σ weight·(x·p) x of each item's pairs, float32[items, rank], for the p of ``shared``."""

    def work(solved: Solved) -> Parts:
        p = shared.value
        left = np.zeros_like(p)
        for raw, x in solved:
            _, block = Block.unpack(raw).divide(params.seed, every)
            weight, target = block.targets(params)
            linalg.add_left_over(block.indptr, block.items, weight, np.zeros_like(target), x, p, left)
        yield (left,)

    return work


def solve_everyone(
    shared: Broadcast[np.ndarray], params: Params
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what solves all users of a block in float64: (user, features), of those with a pair that teaches."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _one_thread()
        items = shared.value.astype(np.float64)
        axes = linalg.principal_axes(items) if params.implicit else None
        for batch in batches:
            for raw in batch.column(0):
                block = Block.unpack(raw.as_py())
                x = params.solve((block.indptr, block.items, block.values), items, axes).astype(np.float32)
                speaks = params.lengths(block.indptr, block.values) > 0
                x = x[speaks]
                offsets = pa.array(np.arange(len(x) + 1, dtype=np.int32) * params.rank)
                features = pa.ListArray.from_arrays(offsets, pa.array(x.ravel()))
                yield pa.RecordBatch.from_arrays([pa.array(block.users[speaks]), features], ["user", "features"])

    return work
