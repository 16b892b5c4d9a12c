"""Train ALS on Spark with item factors in blocks, which no process holds as a whole.

The sweeps, the equations and the parameters are those of :mod:`recsys.spark.training.trainer`: users
are solved exactly, and items move by three conjugate gradient steps. Only the place of the items
differs. The layout is that of the classical blocked ALS: users are divided into blocks with all
their pairs, items into blocks of consecutive rows, and blocks send each other rows of factors.

* A user block knows its distinct items. From the blocks of these items it receives the rows that it
  needs, and no others: the factors once in a sweep, and the direction of each of the three steps. It
  solves its users, and sends back one partial sum for each of these rows.
* An item block adds up the partial sums in the order of the user blocks, and takes its own step of
  conjugate gradients: the steps of two items have nothing in common but the Gram matrix of the users.
* The driver adds up matrices [rank, rank] and numbers. It holds no array with a row or an entry per
  item. It draws the initial factors once, block by block, and keeps the state of the generator at
  the start of each block, so executors draw the same numbers as in the other layout.

All messages are sorted by receiver and sender in the shuffle, and are read as a stream. So a task
holds one block: for a user block of n pairs about six times 4·rank·min(n, items) bytes, for an item
block about twelve times the size of its factors. Sums are taken in the same order in every run, so
the same data, parameters and number of cores give the same factors, bit for bit. The other layout
adds up in another order: its factors are the same up to rounding, a test allows 1e-5 of the largest number.

A sweep sends 8·4·rank bytes for each distinct item of each user block: four times to the user block,
and four times back. Every ``checkpoint_every`` sweeps the item factors are written to the checkpoint
folder, so that a lost block is computed again from there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from pyspark import RDD, StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys import linalg
from recsys.als import definition, solvers
from recsys.errors import InputError
from recsys.locations import Location
from recsys.schema import VALUE
from recsys.spark.item_blocks import FactorTable, PackedRows, factors_frame, pack_rows, write_factors
from recsys.spark.tasks import prepare_task
from recsys.spark.training import blocks, training_curve
from recsys.spark.training.block_sets import sum_partitions
from recsys.spark.training.blocked_validation import BlockedValidation
from recsys.spark.training.blocks import Key, UserBlock
from recsys.spark.training.parameters import SparkALSParameters
from recsys.spark.training.trainer import BLOCK_PAIRS, FittedALS
from recsys.spark.training.training_curve import TrainingCurve

Elements = Iterable[tuple[Key, Any]]
"""A partition: first what the block keeps, then its messages in the order of their senders."""

MESSAGE_BYTES = 2**20
"""Largest size in bytes of a message. PySpark looks at its memory after every hundred of them."""

receiver = operator.itemgetter(0)
"""The partition of a key. Spark knows that two RDDs are partitioned alike by this one object."""


class SolvedBlock(NamedTuple):
    """A user block after its users were solved: m training users, who have pairs with n items.

    Attributes:
        block: the pairs of all users of the block.
        x: float32[m, rank], the factors of the training users.
        residual: float32[n, rank], what these users add to the residual of each item of the block.
        gram: float64[rank, rank], Σ x xᵀ over the training users.
        loss: the sum of the terms of the objective that belong to these users or their pairs.
    """

    block: UserBlock
    x: np.ndarray
    residual: np.ndarray
    gram: np.ndarray
    loss: float


class Descent(NamedTuple):
    """The state of the conjugate gradient steps of an item block with m items.

    Each item has its own linear system A y = b. M is the preconditioner.

    Attributes:
        y: float64[m, rank], the factors.
        residual: float64[m, rank], r = b − A y.
        direction: float64[m, rank], the direction of the next step.
        residual_norm: float64[m], rᵀM⁻¹r, the squared norm of the preconditioned residual.
    """

    y: np.ndarray
    residual: np.ndarray
    direction: np.ndarray
    residual_norm: np.ndarray


class ItemSystem(NamedTuple):
    """The part of the linear systems that all items share.

    Attributes:
        gram: float64[rank, rank], Σ x xᵀ over all users.
        eigenvalues, axes: the eigenvalues of ``gram``, and its eigenvectors as columns.
        n_users: the number of users.
        params: the parameters of ALS.
    """

    gram: np.ndarray
    eigenvalues: np.ndarray
    axes: np.ndarray
    n_users: int
    params: SparkALSParameters

    def penalty(self, pair_counts: np.ndarray) -> np.ndarray:
        """Return the penalty of each item, float64[m, 1], from its number of training pairs, int[m]."""
        return self.params.penalty(pair_counts, self.n_users)[:, None]

    def product(self, vectors: np.ndarray, pair_counts: np.ndarray) -> np.ndarray:
        """Multiply one vector per item by the part of the item's matrix that is not due to its pairs.

        The result is float64[m, rank]. This part is the penalty, plus ``gram`` with implicit
        feedback.

        Args:
            vectors: float64[m, rank], the vector of each item.
            pair_counts: int[m], the number of training pairs of each item.
        """
        product = self.penalty(pair_counts) * vectors
        return product + vectors @ self.gram if self.params.implicit else product

    def precondition(self, residual: np.ndarray, pair_counts: np.ndarray) -> np.ndarray:
        """Apply the preconditioner M⁻¹ to the residual of each item, and return float64[m, rank].

        The layout with broadcast factors uses the same preconditioner. The arguments are as for
        :meth:`product`.
        """
        share = 1.0 if self.params.implicit else pair_counts[:, None] / self.n_users
        diagonal = self.eigenvalues * share + self.penalty(pair_counts)
        # The residual of these items is zero; any divisor but zero keeps it so.
        diagonal[pair_counts == 0] = 1
        return residual @ self.axes / diagonal @ self.axes.T


def train(
    pairs: DataFrame, shape: tuple[int, int], params: SparkALSParameters, path: Location, n_pairs: int
) -> FittedALS:
    """Train ALS on the pairs of a log with item factors in blocks, and return the factors.

    The result is that of :func:`recsys.spark.training.trainer.train` up to rounding, but ``items``
    is a :class:`FactorTable`.

    Args:
        pairs: columns (user, item, value), one row per pair. ``user`` and ``item`` are row numbers.
        shape: the number of items, all of whose rows are below it, and the number in a block.
        params: the parameters of ALS.
        path: folder for the tables of user factors and of item factors.
        n_pairs: the number of rows of ``pairs``.

    Raises:
        InputError: a factor is not finite.
    """
    spark = pairs.sparkSession
    context = spark.sparkContext
    hop = context.getLocalProperty("spark.job.description") or "fit"
    if context.getCheckpointDir() is None:
        context.setCheckpointDir(str(path / "checkpoints"))
    n_blocks = max(4 * context.defaultParallelism, -(-n_pairs // BLOCK_PAIRS))
    packed = (
        pairs.select("user", "item", F.col(VALUE).cast("float").alias(VALUE))
        .repartition(n_blocks, "user")
        .mapInArrow(blocks.pack_blocks(params.seed), "block binary")
    )
    log = packed.rdd.mapPartitionsWithIndex(
        lambda number, rows: (((number, -1, 0), UserBlock.from_histories(bytes(row[0]))) for row in rows)
    )
    fitter = _BlockedFitter(log, n_blocks, shape, params, hop)
    try:
        items = fitter.fit()
        user_rows = fitter.all_users(items)
        context.setJobDescription(f"{hop}: write factors")
        users = write_factors(factors_frame(user_rows, spark, params.rank, "user"), path / "user_factors")
        item_rows = fitter.items_with_factor(items)
        item_factors = write_factors(factors_frame(item_rows, spark, params.rank, "item"), path / "item_factors")
    finally:
        context.setJobDescription(hop)
        fitter.release()
    n_items, rows_per_block = shape
    return FittedALS(users, FactorTable(item_factors, n_items, params.rank, rows_per_block), fitter.curve)


class _BlockedFitter:
    """Runs the sweeps of one training from the driver.

    An RDD of user blocks has one partition per user block, and one of item blocks one per item
    block. All keys are :data:`Key`.

    Attributes:
        pair_counts: int64[m] for each item block, the number of training pairs of its items.
        n_users: the number of users that have a training pair and are not held out.
    """

    pair_counts: RDD[tuple[Key, np.ndarray]]

    def __init__(
        self, log: RDD[Any], n_user_blocks: int, shape: tuple[int, int], params: SparkALSParameters, hop: str
    ) -> None:
        self.n_items, self.rows = shape
        self.n_user_blocks = n_user_blocks
        self.n_item_blocks = -(-self.n_items // self.rows)
        self.params = params
        self.hop = hop
        self.context = log.context
        self.curve = TrainingCurve()
        self.holdout_interval = 0
        self.persisted: list[RDD[Any]] = []
        self.log = self._keep(_deliver(log, n_user_blocks))
        rows = self.rows
        self.most = most = max(1, MESSAGE_BYTES // (4 * params.rank))
        routes = self.log.flatMap(
            lambda block: (
                ((number, block[0][0], message), local) for number, message, _, local in block[1].cut(rows, most)
            )
        )
        self.routes = self._keep(_deliver(routes, self.n_item_blocks))

    def fit(self) -> RDD[tuple[Key, np.ndarray]]:
        """Run all sweeps, and return the factors of each item block, float32[m, rank].

        The factors of an item without a training pair are zeros.
        """
        n_users = self._count_users()
        validation = self._hold_out_users(n_users)
        self.n_users = n_users - (validation.n_held_out if validation else 0)
        self.pair_counts = self._count_training_pairs()
        items = self._keep(self._initial_items())
        gram, penalty = self._measure_items(items, "start")
        solved, sums = self._solve_users(items, gram, "start")
        for sweep in range(1, self.params.iterations + 1):
            name = f"sweep {sweep}"
            previous = self._persisted_for_sweep()
            items = self._step_items(items, solved, sums)
            if sweep % self.params.checkpoint_every == 0:
                items.checkpoint()
            gram, penalty = self._measure_items(items, f"{name}: items")
            self._forget(previous)
            solved, sums = self._solve_users(items, gram, f"{name}: users")
            unstored = float((gram * sums[0]).sum()) if self.params.implicit else 0.0
            self.curve.losses.append(float(sums[1][0]) + unstored + penalty)
            if validation:
                self.curve.quality.append(validation.evaluate(items, _axes(gram, self.params)))
        if validation:
            self.curve.measure = validation.users.measure
            self.curve.validation_users = validation.users.n_users
            # The pairs of the validation users are not counted yet, so popularity has not seen them.
            axes = _axes(gram, self.params)
            self.curve.short_histories = validation.compare_with_popular(items, axes, self.pair_counts)
            self.holdout_interval = 0
            self.n_users = n_users
            self.pair_counts = self._count_training_pairs()
            solved, sums = self._solve_users(items, gram, "all users")
            items = self._step_items(items, solved, sums)
        return items

    def _hold_out_users(self, n_users: int) -> BlockedValidation | None:
        """Choose the validation users. The result is None if there are too few users."""
        interval = training_curve.holdout_interval(n_users)
        if not interval:
            return None
        self._describe_jobs("hold out users")
        validation = BlockedValidation.draw(self.log, interval, (self.n_items, self.rows), self.params)
        if validation:
            self.holdout_interval = interval
        return validation

    def all_users(self, items: RDD[tuple[Key, np.ndarray]]) -> RDD[PackedRows]:
        """Return the factors of all users with a training pair, computed in float64.

        A row has the rows of some users, int32[m], and their factors, float32[m, rank], as bytes.
        """
        gram, _ = self._measure_items(items, "all users")
        return self._with_messages(self._ship(items), _solve_all(self.params, _axes(gram, self.params), self.n_items))

    def items_with_factor(self, items: RDD[tuple[Key, np.ndarray]]) -> RDD[PackedRows]:
        """Return the factors of all items with a training pair, in the form of :meth:`all_users`."""
        rows = self.rows

        def work(elements: Elements) -> Iterator[PackedRows]:
            (((number, _, _), pair_counts), (_, y)) = elements
            local = np.flatnonzero(pair_counts)
            yield from pack_rows(local + number * rows, y[local])

        return self.pair_counts.union(items).mapPartitions(work)

    def release(self) -> None:
        """Release all that is persisted."""
        self._forget(list(self.persisted))

    def _initial_items(self) -> RDD[tuple[Key, np.ndarray]]:
        """Draw the initial item factors, which are those of the other layout."""
        deviation = definition.start_deviation(self.params.rank)
        rank = self.params.rank
        generator = np.random.default_rng(self.params.seed)
        states = []
        for start in range(0, self.n_items, self.rows):
            states.append(((start // self.rows, -1, 0), generator.bit_generator.state))
            # The numbers are drawn to move the generator on, and are drawn again by an executor.
            generator.normal(0.0, deviation, (min(self.rows, self.n_items - start), rank))

        def draw(elements: Elements) -> Iterator[tuple[Key, np.ndarray]]:
            ((key, pair_counts), (_, state)) = elements
            generator = np.random.default_rng()
            generator.bit_generator.state = state
            y = generator.normal(0.0, deviation, (len(pair_counts), rank))
            yield key, np.where(pair_counts[:, None] > 0, y, 0).astype(np.float32)

        shipped = _deliver(self.context.parallelize(states, 1), self.n_item_blocks)
        return self.pair_counts.union(shipped).mapPartitions(draw, preservesPartitioning=True)

    def _measure_items(self, items: RDD[tuple[Key, np.ndarray]], name: str) -> tuple[np.ndarray, float]:
        """Compute the item factors, and return their Gram matrix and the sum of their penalties.

        Raises:
            InputError: a factor is not finite.
        """
        self._describe_jobs(name)
        params, n_users = self.params, self.n_users

        def measure(elements: Elements) -> Iterator[tuple[np.ndarray, ...]]:
            ((_, pair_counts), (_, y)) = elements
            squared_norms = (y.astype(np.float64) ** 2).sum(axis=1)
            with linalg.one_blas_thread():
                gram = linalg.gram(y.astype(np.float64))
            yield gram, np.array([params.penalty(pair_counts, n_users) @ squared_norms])

        gram, penalty = sum_partitions(self.pair_counts.union(items).mapPartitions(measure))
        if not np.isfinite(gram).all():
            raise InputError("ALS diverged: item factors are not finite. Raise reg, or scale the values down.")
        return gram, float(penalty[0])

    def _solve_users(
        self, items: RDD[tuple[Key, np.ndarray]], gram: np.ndarray, name: str
    ) -> tuple[RDD[tuple[Key, SolvedBlock]], tuple[np.ndarray, ...]]:
        """Compute the factors of the training users, and return the user blocks and their sums.

        The sums are the Gram matrix of the users, float64[rank, rank], and the loss, float64[1].

        Args:
            gram: the Gram matrix of ``items``.
            name: the name of the step, for the job descriptions of Spark.
        """
        self._describe_jobs(name)
        work = solve_users(self.params, self.holdout_interval, _axes(gram, self.params), self.n_items)
        solved = self._keep(self._with_messages(self._ship(items), work))
        rank = self.params.rank

        def sums(elements: Elements) -> Iterator[tuple[np.ndarray, ...]]:
            total, loss = np.zeros((rank, rank)), np.zeros(1)
            for _, block in elements:
                total += block.gram
                loss += block.loss
            yield total, loss

        return solved, sum_partitions(solved.mapPartitions(sums))

    def _step_items(
        self,
        items: RDD[tuple[Key, np.ndarray]],
        solved: RDD[tuple[Key, SolvedBlock]],
        sums: tuple[np.ndarray, ...],
    ) -> RDD[tuple[Key, np.ndarray]]:
        """Return the item factors after ``CG_STEPS`` conjugate gradient steps. Nothing is computed yet."""
        eigenvalues, axes = np.linalg.eigh(sums[0])
        system = ItemSystem(sums[0], np.maximum(eigenvalues, 0), axes, self.n_users, self.params)
        descent = self._at_items(items, self._send(solved, _residual_of), _start(system))
        for _ in range(solvers.CG_STEPS):
            descent = self._keep(descent)
            directions = self._ship(descent.mapValues(lambda state: state.direction.astype(np.float32)))
            products = solved.union(directions).mapPartitions(
                _multiply(self.params, self.holdout_interval), preservesPartitioning=True
            )
            descent = self._at_items(descent, self._send(products, _product_of), take_step(system))
        return self._keep(descent.mapValues(lambda state: state.y.astype(np.float32)))

    # --- Messages ---------------------------------------------------------------------------------

    def _ship(self, rows_of_items: RDD[tuple[Key, np.ndarray]]) -> RDD[tuple[Key, np.ndarray]]:
        """Send each user block the rows of its items.

        Args:
            rows_of_items: for each item block, float32[m, rank].
        """

        def work(elements: Elements) -> Iterator[tuple[Key, np.ndarray]]:
            stream = iter(elements)
            _, rows = next(stream)
            for (number, user_block, message), local in stream:
                yield (user_block, number, message), rows[local]

        return _deliver(rows_of_items.union(self.routes).mapPartitions(work), self.n_user_blocks)

    def _send(
        self, user_blocks: RDD[tuple[Key, Any]], part: Callable[[Any], tuple[UserBlock, np.ndarray]]
    ) -> RDD[tuple[Key, tuple[np.ndarray, np.ndarray]]]:
        """Send each item block the partial sums of a user block: rows of the block, and their sums.

        Args:
            part: returns of an element its user block and the sum for each of its items.
        """
        rows, most = self.rows, self.most

        def work(element: tuple[Key, Any]) -> Iterator[tuple[Key, tuple[np.ndarray, np.ndarray]]]:
            (user_block, *_), value = element
            block, sums = part(value)
            for number, message, positions, local in block.cut(rows, most):
                yield (number, user_block, message), (local, sums[positions])

        return _deliver(user_blocks.flatMap(work), self.n_item_blocks)

    def _with_messages(self, messages: RDD[Any], work: Callable[[Elements], Iterator[Any]]) -> RDD[Any]:
        """Return what ``work`` makes of each user block and its messages."""
        return self.log.union(messages).mapPartitions(work, preservesPartitioning=True)

    def _at_items(self, state: RDD[Any], messages: RDD[Any], work: Callable[[Elements], Iterator[Any]]) -> RDD[Any]:
        """Return what ``work`` makes of the pair counts, the state and the messages of each item block."""
        return self.pair_counts.union(state).union(messages).mapPartitions(work, preservesPartitioning=True)

    # --- Counts -----------------------------------------------------------------------------------

    def _count_users(self) -> int:
        """Return the number of users in all blocks."""
        self._describe_jobs("count")

        def count(elements: Elements) -> Iterator[tuple[np.ndarray, ...]]:
            users = [len(blocks.HistoryBlock.from_bytes(block.packed).users) for _, block in elements]
            yield (np.array([sum(users)]),)

        (n_users,) = sum_partitions(self.log.mapPartitions(count))
        return int(n_users[0])

    def _count_training_pairs(self) -> RDD[tuple[Key, np.ndarray]]:
        """Return the number of training pairs of each item, without held-out users. Nothing is computed yet."""
        params, interval, rows, n_items = self.params, self.holdout_interval, self.rows, self.n_items

        def count(block: UserBlock) -> tuple[UserBlock, np.ndarray]:
            histories = _training_users(block, params, interval)
            positions = histories.items[params.is_training_pair(histories.values)]
            return block, np.bincount(positions, minlength=len(block.items))

        def add(number: int, elements: Elements) -> Iterator[tuple[Key, np.ndarray]]:
            pair_counts = np.zeros(min(rows, n_items - number * rows), dtype=np.int64)
            for _, (local, counts) in elements:
                pair_counts[local] += counts
            yield (number, -1, 0), pair_counts

        counted = self._send(self.log, count).mapPartitionsWithIndex(add, preservesPartitioning=True)
        return self._keep(counted)

    # --- Spark ------------------------------------------------------------------------------------

    def _keep(self, rdd: RDD[Any]) -> RDD[Any]:
        """Persist an RDD until :meth:`_forget` or :meth:`release`, and return it."""
        self.persisted.append(rdd.persist(StorageLevel.MEMORY_AND_DISK))
        return rdd

    def _persisted_for_sweep(self) -> list[RDD[Any]]:
        """Return all that is persisted but the log, its routes and the pair counts."""
        lasting = (self.log, self.routes, self.pair_counts)
        return [rdd for rdd in self.persisted if all(rdd is not one for one in lasting)]

    def _forget(self, rdds: list[RDD[Any]]) -> None:
        for rdd in rdds:
            rdd.unpersist()
        self.persisted = [one for one in self.persisted if all(one is not rdd for rdd in rdds)]

    def _describe_jobs(self, text: str) -> None:
        self.context.setJobDescription(f"{self.hop}: {text}")


# --- What executors do --------------------------------------------------------------------------------------


def solve_users(
    params: SparkALSParameters, holdout_interval: int, axes: solvers.Axes | None, n_items: int
) -> Callable[[Elements], Iterator[tuple[Key, SolvedBlock]]]:
    """Return the function that solves the training users of a user block and adds up their sums.

    The function takes a partition: first the user block, then the messages with the factors of its
    items.

    Args:
        params: the parameters of ALS.
        holdout_interval: about one user in this number is held out. 0: none.
        axes: the principal axes of the item factors. None for explicit feedback.
        n_items: the number of all items.
    """

    def work(elements: Elements) -> Iterator[tuple[Key, SolvedBlock]]:
        prepare_task()
        stream = iter(elements)
        for key, block in stream:
            items = np.concatenate([rows for _, rows in stream])
            histories = _training_users(block, params, holdout_interval)
            x = params.solve_rows((histories.indptr, histories.items, histories.values), items, axes, n_items)
            residual = np.zeros_like(items)
            gram, loss = blocks.add_sums_of_users(histories, x, items, residual, params, n_items)
            yield key, SolvedBlock(block, x, residual, gram, loss)

    return work


def _multiply(
    params: SparkALSParameters, holdout_interval: int
) -> Callable[[Elements], Iterator[tuple[Key, tuple[UserBlock, np.ndarray]]]]:
    """Return the function that multiplies the pairs' part of each item's matrix by its direction.

    The state is a solved block, and the messages are the directions of its items. The sign of the
    product is that of a residual.
    """

    def work(elements: Elements) -> Iterator[tuple[Key, tuple[UserBlock, np.ndarray]]]:
        stream = iter(elements)
        for key, solved in stream:
            direction = np.concatenate([rows for _, rows in stream])
            product = np.zeros_like(direction)
            histories = _training_users(solved.block, params, holdout_interval)
            blocks.add_product_of_users(histories, solved.x, direction, product, params)
            yield key, (solved.block, product)

    return work


def _solve_all(
    params: SparkALSParameters, axes: solvers.Axes | None, n_items: int
) -> Callable[[Elements], Iterator[PackedRows]]:
    """Return the function that solves all users of a block in float64, for a table."""

    def work(elements: Elements) -> Iterator[PackedRows]:
        prepare_task()
        stream = iter(elements)
        for _, block in stream:
            items = np.concatenate([rows for _, rows in stream]).astype(np.float64)
            histories = blocks.HistoryBlock.from_bytes(block.packed)
            matrix = (histories.indptr, histories.items, histories.values)
            x = params.solve_rows(matrix, items, axes, n_items)
            has_pairs = params.count_training_pairs(histories.indptr, histories.values) > 0
            yield from pack_rows(histories.users[has_pairs], x[has_pairs])

    return work


def _start(system: ItemSystem) -> Callable[[Elements], Iterator[tuple[Key, Descent]]]:
    """Return the function that starts the conjugate gradient steps of an item block.

    The state is the factors, and the messages are parts of the sum of residuals over all pairs.
    """

    def work(elements: Elements) -> Iterator[tuple[Key, Descent]]:
        stream = iter(elements)
        _, pair_counts = next(stream)
        key, y = next(stream)
        with linalg.one_blas_thread():
            residual = _add_up(y.shape, stream) - system.product(y.astype(np.float64), pair_counts)
            direction = system.precondition(residual, pair_counts)
        residual_norm = (residual * direction).sum(axis=1)
        yield key, Descent(y.astype(np.float64), residual, direction, residual_norm)

    return work


def take_step(system: ItemSystem) -> Callable[[Elements], Iterator[tuple[Key, Descent]]]:
    """Return the function that takes one conjugate gradient step for the items of an item block.

    It is the step of :func:`recsys.linalg.conjugate_gradients`. The function takes a partition: the
    number of training pairs of each item, the :class:`Descent` before the step, and the messages of
    the user blocks. A message has the part of −A·direction that is due to the pairs of one user
    block.

    Args:
        system: the part of the linear systems that all items share.
    """

    def work(elements: Elements) -> Iterator[tuple[Key, Descent]]:
        stream = iter(elements)
        _, pair_counts = next(stream)
        key, (y, residual, direction, residual_norm) = next(stream)
        with linalg.one_blas_thread():
            # Users have multiplied the direction in float32.
            rounded = direction.astype(np.float32).astype(np.float64)
            A_direction = system.product(rounded, pair_counts) - _add_up(y.shape, stream)
            curvature = (direction * A_direction).sum(axis=1)
            # No step for an item where rounding has left no curvature.
            length = np.divide(residual_norm, curvature, out=np.zeros_like(residual_norm), where=curvature > 0)
            y += length[:, None] * direction
            residual -= length[:, None] * A_direction
            preconditioned = system.precondition(residual, pair_counts)
        new_norm = (residual * preconditioned).sum(axis=1)
        ratio = new_norm / np.maximum(residual_norm, 1e-300)
        yield key, Descent(y, residual, preconditioned + ratio[:, None] * direction, new_norm)

    return work


def _add_up(shape: tuple[int, ...], messages: Elements) -> np.ndarray:
    """Add up partial sums for rows of an item block, float32 of this shape, in their order."""
    total = np.zeros(shape, dtype=np.float32)
    for _, (local, sums) in messages:
        # The rows of one message are distinct.
        total[local] += sums
    return total


def _residual_of(solved: SolvedBlock) -> tuple[UserBlock, np.ndarray]:
    return solved.block, solved.residual


def _product_of(multiplied: tuple[UserBlock, np.ndarray]) -> tuple[UserBlock, np.ndarray]:
    return multiplied


def _training_users(block: UserBlock, params: SparkALSParameters, holdout_interval: int) -> blocks.HistoryBlock:
    """Return the histories of the users of a block who are not held out; items are positions."""
    return blocks.HistoryBlock.from_bytes(block.packed).split_users(params.seed, holdout_interval)[1]


def _axes(gram: np.ndarray, params: SparkALSParameters) -> solvers.Axes | None:
    """Return the principal axes of item factors with this Gram matrix; None for explicit feedback."""
    if not params.implicit:
        return None
    eigenvalues, axes = np.linalg.eigh(gram)
    return np.maximum(eigenvalues, 0), axes


def _deliver(messages: RDD[tuple[Key, Any]], n_receivers: int) -> RDD[tuple[Key, Any]]:
    """Bring each message to the partition of its receiver, sorted by sender."""
    return messages.repartitionAndSortWithinPartitions(n_receivers, receiver)
