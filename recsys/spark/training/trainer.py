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

from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pyspark import RDD, Broadcast, StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys import linalg
from recsys.errors import InputError
from recsys.schema import VALUE
from recsys.spark.training import blocks, training_curve
from recsys.spark.training.training_curve import Curve

if TYPE_CHECKING:
    from recsys.spark.training.als import Params

PAIRS = 2**19
"""Pairs of a block, about."""
BLOCKS = 64
"""Blocks of a task at most, where there are more than cores to share them."""
FEW = 16
"""So many partial sums the driver adds by itself; more are added in groups on the executors first."""


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
    are watched (``training_curve``): they teach nothing until the sweeps are over, when one more half step of the
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
        .mapInArrow(blocks.pack(params.seed), "block binary")
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    tasks = max(cores, many // BLOCKS)  # one sum a core and step
    log = packed.rdd.map(lambda row: bytes(row[0])).coalesce(tasks)
    try:
        fitter = _Fitter(log, candidates, params, hop)
        items = fitter.fit()
        context.setJobDescription(hop)
        shared = context.broadcast(items)
        users = packed.mapInArrow(blocks.solve_everyone(shared, params), "user int, features array<float>")
        users.write.parquet(str(place))
        shared.destroy()
    finally:
        context.setJobDescription(hop)
        packed.unpersist()
    items = np.where(fitter.taught[:, None] > 0, items, np.float32(np.nan))
    return Trained(spark.read.parquet(str(place)), items, fitter.curve)


class _Sums(NamedTuple):
    """What :func:`blocks.sum_up` gives."""

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

    def __init__(self, log: RDD[bytes], candidates: int, params: Params, hop: str) -> None:
        self.log, self.params, self.hop = log, params, hop
        self.context = log.context
        self.shape = (candidates, params.rank)
        self.curve = Curve()
        self.every = 0

    def fit(self) -> np.ndarray:
        """Return float32[items, rank]; zeros for an item that nobody taught."""
        params, sweeps = self.params, self.params.iterations
        self._count("count")
        self.every = training_curve.one_in(self.users)
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
        solved = self.log.map(blocks.solve_teachers(shared, self.params, self.every))
        solved = solved.persist(StorageLevel.MEMORY_AND_DISK)
        sums = _Sums(*_added(solved.mapPartitions(blocks.sum_up(shared, self.params, self.every))))
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
            (minus,) = _added(state.solved.mapPartitions(blocks.turn(shared, self.params, self.every)))
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
        return (state.items + linalg.conjugate_gradients(apply, left.T, linalg.STEPS, near).T).astype(np.float32)

    def _loss(self, state: _State) -> float:
        y = state.items.astype(np.float64)
        unseen = float((y.T @ y * state.sums.gram).sum()) if self.params.implicit else 0.0
        shrunk = self.params.penalty(self.taught, self.users) @ (y**2).sum(axis=1)
        return float(state.sums.loss[0] + unseen + shrunk)

    def _count(self, name: str) -> None:
        self._say(name)
        self.taught, users = _added(self.log.mapPartitions(blocks.count(self.shape[0], self.params, self.every)))
        self.users = int(users[0])

    def _watched(self) -> training_curve.Watched | None:
        self._say("who is watched")
        seed, every = self.params.seed, self.every
        found = self.log.map(lambda raw: blocks.Block.unpack(raw).divide(seed, every)[0]).collect()
        matrices = [(block.indptr, block.items, block.values) for block in found]
        return training_curve.Watched.draw(matrices, self.shape[0], self.params)

    def _say(self, what: str) -> None:
        self.context.setJobDescription(f"{self.hop}: {what}")


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
