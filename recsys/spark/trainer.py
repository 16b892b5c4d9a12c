"""ALS by the project's own kernels on Spark: histories stay where they are, item factors travel.

The log is packed once into blocks of whole users. A sweep is one half step each:

* items: three conjugate gradient steps from the factors of the sweep before, preconditioned by what all items share.
  Each needs one sum over all blocks, the size of the item factors, so that no rank × rank system of an item ever
  exists, and nothing of a user travels.
* users: each block solves its users' systems exactly, against the item factors it is sent.

A task holds a block and twice the item factors; tasks × items × rank numbers travel a step, whatever the number of
users. The item factors live on the driver, so a lost block is packed and solved again by itself: there is no lineage to
cut, and no checkpoint.

References: Hu, Koren and Volinsky, ICDM 2008 (the objective); Takács, Pilászy and Tikk, RecSys 2011 (conjugate
gradients inside ALS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import RDD, Broadcast, StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys import linalg
from recsys.data.hashing import combine
from recsys.errors import InputError
from recsys.schema import VALUE
from recsys.spark import watch
from recsys.spark.watch import Curve

if TYPE_CHECKING:
    from recsys.spark.als import Params

PAIRS = 2**19
"""Pairs of a block, about."""
BLOCKS = 64
"""Blocks of a task at most, where there are more than cores to share them."""
STEPS = 3
"""Conjugate gradient steps of an item half step."""
FEW = 16
"""So many partial sums the driver adds by itself; more are added in groups on the executors first."""


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
        order = np.lexsort((items, users, combine(seed, users)))
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
        cut = int(np.searchsorted(combine(seed, self.users), np.uint64(2**64 // every))) if every else 0
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


class Trained(NamedTuple):
    """``users``: DataFrame (user, features array<float>), of users with a pair that teaches. ``items``:
    float32[candidates, rank], NaN rows of items without one.
    """

    users: DataFrame
    items: np.ndarray
    curve: Curve


def train(pairs: DataFrame, candidates: int, params: Params, place: Path) -> Trained:
    """Train on prepared pairs (user: row, item: row below ``candidates``, value), one row a pair.

    Users are solved last, from all their pairs, in float64, and written to ``place``. Where there are enough users some
    are watched (``recsys.spark.watch``): they teach nothing until the sweeps are over, when one more half step of the
    items learns from everyone.

    The same data, parameters and number of cores give the same factors, bit for bit.

    Raises:
        InputError: a factor is not finite.
    """
    spark = pairs.sparkSession
    context = spark.sparkContext
    hop = context.getLocalProperty("spark.job.description") or "fit"
    cores = context.defaultParallelism
    many = max(4 * cores, -(-pairs.count() // PAIRS))  # several a core, so that cores have alike much to do
    packed = (
        pairs.select("user", "item", F.col(VALUE).cast("float").alias(VALUE))
        .repartition(many, "user")
        .mapInArrow(_pack(params.seed), "block binary")
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    tasks = max(cores, many // BLOCKS)  # one sum a core and step
    blocks = packed.rdd.map(lambda row: bytes(row[0])).coalesce(tasks)
    try:
        fitter = _Fitter(blocks, candidates, params, hop)
        items = fitter.fit()
        context.setJobDescription(hop)
        shared = context.broadcast(items)
        users = packed.mapInArrow(_solve_everyone(shared, params), "user int, features array<float>")
        users.write.parquet(str(place))
        shared.destroy()
    finally:
        context.setJobDescription(hop)
        packed.unpersist()
    items = np.where(fitter.taught[:, None] > 0, items, np.float32(np.nan))
    return Trained(spark.read.parquet(str(place)), items, fitter.curve)


class _Sums(NamedTuple):
    """Sums over users x that were solved for items y. ``left``: float32[items, rank], Σ (target − weight·x·y) x of each
    item's pairs. ``gram``: float64[rank, rank], Σ x xᵀ. ``loss``: float64[1], the users' part of the objective.
    """

    left: np.ndarray
    gram: np.ndarray
    loss: np.ndarray


class _State(NamedTuple):
    """Users solved against ``items``: ``solved`` holds (packed block, float32[m, rank]), kept by the executors."""

    items: np.ndarray
    solved: RDD[tuple[bytes, np.ndarray]]
    shared: Broadcast[Any]
    sums: _Sums

    def drop(self) -> None:
        self.solved.unpersist()
        self.shared.destroy()


class _Fitter:
    """The driver's side of the sweeps. ``taught``: int64[items], pairs that teach. ``users``: how many teach."""

    def __init__(self, blocks: RDD[bytes], candidates: int, params: Params, hop: str) -> None:
        self.blocks, self.params, self.hop = blocks, params, hop
        self.context = blocks.context
        self.shape = (candidates, params.rank)
        self.curve = Curve()
        self.every = 0

    def fit(self) -> np.ndarray:
        """Return float32[items, rank]; zeros for an item that nobody taught."""
        params, sweeps = self.params, self.params.iterations
        self._count("count")
        self.every = watch.one_in(self.users)
        watched = self._watched() if self.every else None
        if watched:
            self._count("count who teaches")
        else:
            self.every = 0
        normal = np.random.default_rng(params.seed).normal(0.0, 0.1 / np.sqrt(params.rank), self.shape)
        state = self._users(np.where(self.taught[:, None] > 0, normal, 0).astype(np.float32), "start")
        for sweep in range(1, sweeps + 1):
            state = self._sweep(state, f"sweep {sweep}")
            self.curve.losses.append(self._loss(state))
            if watched:
                self.curve.quality.append(watched.judge(state.items))
        items = state.items
        if watched:
            self.curve.measure, self.curve.watched = watched.measure, watched.users
            self.every = 0
            self._count("count")
            state = self._users(items, "everyone", state)
            items = self._items(state, "everyone")
        state.drop()
        return items

    def _sweep(self, state: _State, name: str) -> _State:
        return self._users(self._items(state, name), name, state)

    def _users(self, items: np.ndarray, name: str, before: _State | None = None) -> _State:
        """Solve all users against ``items``, add up what the items' equations leave over, and forget ``before``."""
        if not np.isfinite(items).all():
            raise InputError("ALS diverged: item factors are not finite. Raise reg, or scale the values down.")
        self._say(f"{name}: users")
        shared = self.context.broadcast((items, linalg.principal_axes(items) if self.params.implicit else None))
        solved = self.blocks.map(_solve_teachers(shared, self.params, self.every))
        solved = solved.persist(StorageLevel.MEMORY_AND_DISK)
        sums = _Sums(*_added(solved.mapPartitions(_sum_up(shared, self.params, self.every))))
        if before:
            before.drop()
        return _State(items, solved, shared, sums)

    def _items(self, state: _State, name: str) -> np.ndarray:
        """Return the items after conjugate gradient steps from where they are."""
        penalty = self.params.penalty(self.taught, self.users)[:, None]
        gram = state.sums.gram if self.params.implicit else np.zeros_like(state.sums.gram)
        step = 0

        def apply(toward: np.ndarray) -> np.ndarray:
            """Return A·p of all items, whose equations are A y = b; a column each."""
            nonlocal step
            step += 1
            self._say(f"{name}: items, step {step}")
            p = np.ascontiguousarray(toward.T, dtype=np.float32)
            shared = self.context.broadcast(p)
            (minus,) = _added(state.solved.mapPartitions(_turn(shared, self.params, self.every)))
            shared.destroy()
            return (p @ gram + penalty * p - minus).T

        values, axes = np.linalg.eigh(state.sums.gram)
        share = 1.0 if self.params.implicit else self.taught[:, None] / self.users
        alike = np.maximum(values, 0) * share + penalty
        alike[self.taught == 0] = 1  # nothing is left over there

        def near(left: np.ndarray) -> np.ndarray:
            """Return what would solve the equations but for an item's own pairs, or with users like all others."""
            return ((left.T @ axes) / alike @ axes.T).T

        left = state.sums.left - state.items @ gram - penalty * state.items
        return (state.items + linalg.conjugate_gradients(apply, left.T, STEPS, near).T).astype(np.float32)

    def _loss(self, state: _State) -> float:
        y = state.items.astype(np.float64)
        unseen = float((y.T @ y * state.sums.gram).sum()) if self.params.implicit else 0.0
        return (
            float(state.sums.loss[0])
            + unseen
            + float(self.params.penalty(self.taught, self.users) @ (y**2).sum(axis=1))
        )

    def _count(self, name: str) -> None:
        self._say(name)
        self.taught, users = _added(self.blocks.mapPartitions(_count(self.shape[0], self.params, self.every)))
        self.users = int(users[0])

    def _watched(self) -> watch.Watched | None:
        self._say("who is watched")
        seed, every = self.params.seed, self.every
        found = self.blocks.map(lambda raw: Block.unpack(raw).divide(seed, every)[0]).collect()
        matrices = [(block.indptr, block.items, block.values) for block in found]
        return watch.Watched.draw(matrices, self.shape[0], self.params)

    def _say(self, what: str) -> None:
        self.context.setJobDescription(f"{self.hop}: {what}")


# --- What executors run ------------------------------------------------------------------------------------

Blocks = Iterator[bytes]
Solved = Iterator[tuple[bytes, np.ndarray]]
Parts = Iterator[tuple[np.ndarray, ...]]


def _one_thread() -> None:
    import numba

    numba.set_num_threads(1)  # Spark runs one task a core


def _pack(seed: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def pack(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        own = [[column.to_numpy() for column in batch.columns] for batch in batches if batch.num_rows]
        if own:
            users, items, values = (np.concatenate(column) for column in zip(*own, strict=True))
            block = Block.of(users, items, values, seed)
            yield pa.RecordBatch.from_arrays([pa.array([block.pack()], pa.binary())], names=["block"])

    return pack


def _count(items: int, params: Params, every: int) -> Callable[[Blocks], Parts]:
    def count(blocks: Blocks) -> Parts:
        taught, users = np.zeros(items, dtype=np.int64), 0
        for raw in blocks:
            _, block = Block.unpack(raw).divide(params.seed, every)
            taught += np.bincount(block.items[params.taught(block.values)], minlength=items)
            users += len(block.users)
        yield taught, np.array([users])

    return count


def _solve_teachers(shared: Broadcast[Any], params: Params, every: int) -> Callable[[bytes], tuple[bytes, np.ndarray]]:
    def solve_teachers(raw: bytes) -> tuple[bytes, np.ndarray]:
        _one_thread()
        items, axes = shared.value
        _, block = Block.unpack(raw).divide(params.seed, every)
        return raw, params.solve((block.indptr, block.items, block.values), items, axes)

    return solve_teachers


def _sum_up(shared: Broadcast[Any], params: Params, every: int) -> Callable[[Solved], Parts]:
    def sum_up(solved: Solved) -> Parts:
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

    return sum_up


def _turn(shared: Broadcast[np.ndarray], params: Params, every: int) -> Callable[[Solved], Parts]:
    def turn(solved: Solved) -> Parts:
        p = shared.value
        left = np.zeros_like(p)
        for raw, x in solved:
            _, block = Block.unpack(raw).divide(params.seed, every)
            weight, target = block.targets(params)
            linalg.add_left_over(block.indptr, block.items, weight, np.zeros_like(target), x, p, left)
        yield (left,)

    return turn


def _solve_everyone(
    shared: Broadcast[np.ndarray], params: Params
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def solve_everyone(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
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

    return solve_everyone


# --- Sums ----------------------------------------------------------------------------------------------------


def _added(parts: RDD[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Return the sum of one tuple of arrays a partition, always added in the order of partitions."""
    n = parts.getNumPartitions()
    if n > FEW:
        together = int(np.ceil(np.sqrt(n)))
        placed = parts.mapPartitionsWithIndex(lambda place, own: ((place, one) for one in own))
        groups = placed.repartitionAndSortWithinPartitions(-(-n // together), lambda place: place // together)
        parts = groups.mapPartitions(lambda own: iter([_add(one for _, one in own)]))
    return _add(parts.collect())


def _add(parts: Iterable[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return reduce(lambda total, part: tuple(a + b for a, b in zip(total, part, strict=True)), parts)
