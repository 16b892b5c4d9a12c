"""Train ALS on Spark by the project's own kernels.

The log is packed once into blocks, each with all pairs of some users. Histories stay on the
executors. Item factors are sent to the executors, and sums over users come back. A sweep is one
half-step for each side:

* items: three conjugate gradient steps, which start from the factors of the previous sweep. The
  preconditioner is the part of the linear systems that all items share. Each step needs one sum
  over all blocks, as large as the item factors. The rank × rank matrix of an item is never
  computed.
* users: for each block, the linear systems of its users are solved exactly for the new item
  factors.

A task has one block and twice the item factors in memory. In each step tasks × items × rank numbers
are sent over the network, for any number of users. The driver has the item factors. If a block is
lost, it is packed and solved again, without any other block. So no checkpoint is needed.

Each step on the executors is a Spark job, four per sweep. A job moves the factors of users and items
between processes, which takes longer than the step itself unless many executors share it. So a log of
at most ``driver_pairs`` pairs is packed into blocks on the driver, and the driver computes the same
steps by the same functions.

References: Hu, Koren and Volinsky, ICDM 2008 (the objective); Takács, Pilászy and Tikk, RecSys 2011
(conjugate gradients inside ALS).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from pyspark import SparkContext, StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys import linalg
from recsys.als import definition, solvers
from recsys.errors import InputError
from recsys.locations import Location
from recsys.schema import VALUE
from recsys.spark.item_blocks import FactorTable, factors_frame, pack_rows, write_factors
from recsys.spark.training import blocks, training_curve
from recsys.spark.training.block_sets import DriverBlocks, ExecutorBlocks
from recsys.spark.training.parameters import SparkALSParameters
from recsys.spark.training.training_curve import TrainingCurve, ValidationUsers

BLOCK_PAIRS = 2**19
"""Approximate number of pairs in a block."""

MAX_BLOCKS_PER_TASK = 64
"""Largest number of blocks of one task. With more blocks there are more tasks than cores."""

Blocks = ExecutorBlocks | DriverBlocks


class FittedALS(NamedTuple):
    """The factors of a trained ALS model.

    Attributes:
        users: columns (user, features array<float>), the factors of the users with a training pair.
        items: float32[candidates, rank], with NaN in the rows of items without a factor; or the
            table of the factors in blocks.
        curve: the loss and the quality after each sweep. None for MLlib, which does not report
            them.
    """

    users: DataFrame
    items: np.ndarray | FactorTable
    curve: TrainingCurve | None = None


def train(pairs: DataFrame, candidates: int, params: SparkALSParameters, path: Location, n_pairs: int) -> FittedALS:
    """Train ALS on the pairs of a log, and return the factors of users and items.

    The user factors are computed last, in float64, from the final item factors and all pairs of
    each user, and written to ``path``. If there are enough users, some are held out for validation
    while the sweeps run (:mod:`recsys.spark.training.training_curve`). After the sweeps the item
    factors are updated once more, with the pairs of all users.

    The same data and parameters give the same factors, bit for bit; on the executors, also the
    number of cores must be the same.

    Args:
        pairs: columns (user, item, value), one row per pair. ``user`` and ``item`` are row numbers.
        candidates: number of items; all item rows are below it.
        params: the parameters of ALS.
        path: folder for the table of user factors.
        n_pairs: the number of rows of ``pairs``.

    Raises:
        InputError: a factor is not finite.
    """
    context = pairs.sparkSession.sparkContext
    hop = context.getLocalProperty("spark.job.description") or "fit"
    rows = pairs.select("user", "item", F.col(VALUE).cast("float").alias(VALUE))
    try:
        if n_pairs <= params.driver_pairs:
            return _train_on_driver(rows, candidates, params, path)
        # Several blocks per core, so that all cores finish at about the same time.
        n_blocks = max(4 * context.defaultParallelism, -(-n_pairs // BLOCK_PAIRS))
        return _train_on_executors(rows, candidates, params, path, n_blocks)
    finally:
        context.setJobDescription(hop)


def _train_on_driver(rows: DataFrame, candidates: int, params: SparkALSParameters, path: Location) -> FittedALS:
    """Train ALS on rows (user, item, value), which fit into the memory of the driver."""
    spark = rows.sparkSession
    packed = blocks.pack_blocks(params.seed)(iter(rows.toArrow().to_batches()))
    histories = [blocks.HistoryBlock.from_bytes(block.as_py()) for batch in packed for block in batch.column(0)]
    log = [part.to_bytes() for history_block in histories for part in history_block.divide(BLOCK_PAIRS)]
    del histories
    fitter = _Fitter(DriverBlocks(log), candidates, params, spark.sparkContext)
    items = fitter.fit()
    fixed = items.astype(np.float64)
    axes = solvers.principal_axes(fixed) if params.implicit else None
    solved = (pack_rows(*blocks.solve_all_users(block, fixed, axes, params)) for block in log)
    users = factors_frame(chain.from_iterable(solved), spark, params.rank, "user")
    fitter.describe_jobs("write users")
    return FittedALS(write_factors(users, path), fitter.only_trained(items), fitter.curve)


def _train_on_executors(
    rows: DataFrame, candidates: int, params: SparkALSParameters, path: Location, n_blocks: int
) -> FittedALS:
    """Train ALS on rows (user, item, value), which are packed into blocks on the executors."""
    context = rows.sparkSession.sparkContext
    packed = (
        rows.repartition(n_blocks, "user")
        .mapInArrow(blocks.pack_blocks(params.seed), "block binary")
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    # Each task sends one partial sum per step, so few tasks send less.
    tasks = max(context.defaultParallelism, n_blocks // MAX_BLOCKS_PER_TASK)
    # Rows are coalesced before they are given to Python: afterwards each step would need one more
    # Python process, which does nothing but pass the blocks on.
    log = packed.coalesce(tasks).rdd.map(lambda row: bytes(row[0]))
    try:
        fitter = _Fitter(ExecutorBlocks(log), candidates, params, context)
        items = fitter.fit()
        fitter.describe_jobs("write users")
        shared = context.broadcast(items)
        users = packed.mapInArrow(blocks.solve_users_in_batches(shared, params), "user int, features array<float>")
        written = write_factors(users, path)
        shared.destroy()
    finally:
        packed.unpersist()
    return FittedALS(written, fitter.only_trained(items), fitter.curve)


class _Sums(NamedTuple):
    """The arrays of :func:`blocks.residual_gram_loss`, summed over all blocks."""

    residual: np.ndarray
    gram: np.ndarray
    loss: np.ndarray


class _State(NamedTuple):
    """The item factors at one moment of the training, and the user factors computed from them.

    Attributes:
        items: float32[items, rank].
        solved: pairs (packed block of users, float32[m, rank] of their factors).
        shared: the broadcast of ``items`` from which ``solved`` is computed.
        sums: the sums over all blocks that the next update of the items needs.
    """

    items: np.ndarray
    solved: Blocks
    shared: Any
    sums: _Sums

    def release(self) -> None:
        self.solved.release()
        self.shared.destroy()


class _Fitter:
    """Runs the sweeps of one training from the driver.

    Attributes:
        pair_counts: int64[items], the number of training pairs of each item.
        n_users: the number of users that have a training pair and are not held out.
    """

    def __init__(self, log: Blocks, candidates: int, params: SparkALSParameters, context: SparkContext) -> None:
        self.log = log
        self.params = params
        self.context = context
        self.hop = context.getLocalProperty("spark.job.description") or "fit"
        self.shape = (candidates, params.rank)
        self.curve = TrainingCurve()
        self.holdout_interval = 0

    def fit(self) -> np.ndarray:
        """Run all sweeps, and return the item factors, float32[items, rank].

        The factors of an item without a training pair are zeros.
        """
        self.describe_jobs("count")
        counts, (n_users,) = self.log.sum(blocks.count_training_pairs(self.shape[0], self.params))
        self.pair_counts = counts
        self.n_users = int(n_users)
        validation = self._hold_out_users()
        start = definition.start(*self.shape, self.params.seed)
        start = np.where(self.pair_counts[:, None] > 0, start, 0).astype(np.float32)
        state = self._solve_users(start, "start")
        for sweep in range(1, self.params.iterations + 1):
            name = f"sweep {sweep}"
            state = self._solve_users(self._step_items(state, name), name, state)
            self.curve.losses.append(self._objective(state))
            if validation:
                self.curve.quality.append(validation.evaluate(state.items))
        items = state.items
        if validation:
            self.curve.measure = validation.measure
            self.curve.validation_users = validation.n_users
            # The pairs of the validation users are not counted here, so popularity has not seen them.
            self.curve.short_histories = validation.compare_with_popular(items, self.pair_counts)
            self.holdout_interval = 0
            self.pair_counts = counts
            self.n_users = int(n_users)
            state = self._solve_users(items, "all users", state)
            items = self._step_items(state, "all users")
        state.release()
        require_finite(items)
        return items

    def _hold_out_users(self) -> ValidationUsers | None:
        """Choose the validation users, and take held-out users and their pairs out of the counts.

        The result is None if there are too few users.
        """
        interval = training_curve.holdout_interval(self.n_users)
        if not interval:
            return None
        self.describe_jobs("hold out users")
        seed = self.params.seed
        held_out = self.log.collect(lambda raw: blocks.HistoryBlock.from_bytes(raw).split_users(seed, interval)[0])
        histories = [(block.users, (block.indptr, block.items, block.values)) for block in held_out]
        validation = ValidationUsers.draw(histories, self.shape[0], self.params)
        if validation is not None:
            self.holdout_interval = interval
            packed = (block.to_bytes() for block in held_out)
            (held_out_counts,) = blocks.count_training_pairs(self.shape[0], self.params)(packed)
            self.pair_counts = self.pair_counts - held_out_counts[0]
            self.n_users -= int(held_out_counts[1][0])
        return validation

    def _solve_users(self, items: np.ndarray, name: str, previous: _State | None = None) -> _State:
        """Compute all user factors from the item factors ``items``, and return the new state.

        The new state includes the residuals of the items, summed over all users. The ``previous``
        state is released from memory.

        Args:
            name: the name of the sweep, for the job descriptions of Spark.

        Raises:
            InputError: a factor in ``items`` is not finite.
        """
        require_finite(items)
        self.describe_jobs(f"{name}: users")
        axes = solvers.principal_axes(items) if self.params.implicit else None
        shared = self.log.share((items, axes))
        solved = self.log.map(blocks.solve_training_users(shared, self.params, self.holdout_interval))
        sums = _Sums(*solved.sum(blocks.residual_gram_loss(shared, self.params, self.holdout_interval)))
        if previous:
            previous.release()
        return _State(items, solved, shared, sums)

    def _step_items(self, state: _State, name: str) -> np.ndarray:
        """Return float32[items, rank], the item factors after ``CG_STEPS`` conjugate gradient steps.

        The steps start from the item factors of ``state``, and the user factors are fixed.
        """
        penalty = self.params.penalty(self.pair_counts, self.n_users)[:, None]
        gram = state.sums.gram if self.params.implicit else np.zeros_like(state.sums.gram)
        residual = state.sums.residual - state.items @ gram - penalty * state.items
        step = linalg.conjugate_gradients(
            self._hessian(state, gram, penalty, name),
            residual.T,
            solvers.CG_STEPS,
            self._preconditioner(state.sums.gram, penalty),
        )
        return (state.items + step.T).astype(np.float32)

    def _hessian(
        self, state: _State, gram: np.ndarray, penalty: np.ndarray, name: str
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function that multiplies each item's matrix A by the direction of the item.

        A is the matrix of the item's linear system A y = b. The function takes the directions as
        [rank, items], one column per item, and returns the products in the same shape. On the
        executors each call runs one Spark job.
        """
        step = 0

        def multiply(directions: np.ndarray) -> np.ndarray:
            nonlocal step
            step += 1
            self.describe_jobs(f"{name}: items, step {step}")
            direction = np.ascontiguousarray(directions.T, dtype=np.float32)
            shared = self.log.share(direction)
            (minus_product,) = state.solved.sum(blocks.hessian_product(shared, self.params, self.holdout_interval))
            shared.destroy()
            return (direction @ gram + penalty * direction - minus_product).T

        return multiply

    def _preconditioner(self, gram: np.ndarray, penalty: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function that solves an approximation of the linear system of each item.

        With implicit feedback the approximation leaves out the pairs of the item. With explicit
        feedback it takes the Gram matrix of all users, multiplied by the share of users with the
        item. The function takes and returns [rank, items].
        """
        eigenvalues, axes = np.linalg.eigh(gram)
        share = 1.0 if self.params.implicit else self.pair_counts[:, None] / self.n_users
        diagonal = np.maximum(eigenvalues, 0) * share + penalty
        # The residual of these items is zero; any divisor but zero keeps it so.
        diagonal[self.pair_counts == 0] = 1
        return lambda residual: ((residual.T @ axes) / diagonal @ axes.T).T

    def _objective(self, state: _State) -> float:
        items = state.items.astype(np.float64)
        unstored = float((items.T @ items * state.sums.gram).sum()) if self.params.implicit else 0.0
        penalty = self.params.penalty(self.pair_counts, self.n_users) @ (items**2).sum(axis=1)
        return float(state.sums.loss[0] + unstored + penalty)

    def only_trained(self, items: np.ndarray) -> np.ndarray:
        """Return the item factors with NaN in the rows of items without a training pair."""
        return np.where(self.pair_counts[:, None] > 0, items, np.float32(np.nan))

    def describe_jobs(self, text: str) -> None:
        """Set the description of the Spark jobs that follow."""
        self.context.setJobDescription(f"{self.hop}: {text}")


def require_finite(items: np.ndarray) -> None:
    """Raise InputError if an item factor is not finite."""
    if not np.isfinite(items).all():
        raise InputError("ALS diverged: item factors are not finite. Raise reg, or scale the values down.")
