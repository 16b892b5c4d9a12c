"""ALS on Spark: training by the project's own kernels or by MLlib, and fold-in of users.

With implicit feedback the objective is that of :mod:`recsys.als.definition`. With explicit feedback
it is the squared error over the stored values, plus a penalty for each user and each item. The
penalty is λ(n + β·m)^ν times the squared norm of the factor. Here n is the number of values of the
user or item, and m is the number of items for a user, and of users for an item. Users are solved
last in both cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys import linalg
from recsys.als import solvers
from recsys.als.definition import Objective
from recsys.config import ItemBlockMB
from recsys.locations import Location
from recsys.logging import logger
from recsys.schema import VALUE
from recsys.spark.item_blocks import FactorBlocks, FactorTable, describe_layout, items_per_block, write_factors
from recsys.spark.tasks import prepare_task
from recsys.spark.training import blocked_trainer, trainer
from recsys.spark.training.parameters import SparkALSParameters, TrainingData
from recsys.spark.training.trainer import FittedALS

PARAMETERS = SparkALSParameters
"""The class of the parameters of ``als`` on Spark."""


def fit_model(parameters: SparkALSParameters, data: TrainingData) -> FittedALS:
    """Train a model of the kind ``als``, and return the factors of users and items.

    It is :func:`fit_als_once` under the name that every kind of model has.

    Args:
        parameters: the parameters of the model.
        data: the training pairs, and the factors that other models of the run have trained.

    Raises:
        InputError: a value is too large for the objective, or a factor is not finite.
    """
    return fit_als_once(parameters, data)


def fit_als_once(parameters: SparkALSParameters, data: TrainingData) -> FittedALS:
    """Return the factors of ALS, trained only once for all models with the same ALS parameters.

    The factors of each training are kept in ``data.trained``. For example, the models ``als`` and
    ``attributes`` of a run share one training if they have the same rank, alpha and so on. The
    parameters that ``attributes`` has in addition are not compared.

    Raises:
        InputError: a value is too large for the objective, or a factor is not finite.
    """
    names = (field.name for field in fields(SparkALSParameters))
    key = tuple(getattr(parameters, name) for name in names)
    if key not in data.trained:
        data.trained[key] = fit_als(data.train, data.candidates, parameters, data.work, data.item_block_mb)
    return data.trained[key]


def fit_als(
    train: DataFrame,
    candidates: int,
    params: SparkALSParameters,
    work: Location,
    item_block_mb: ItemBlockMB = "auto",
) -> FittedALS:
    """Train ALS on pairs, and return the factors of users and items.

    The user factors are written below the folder ``work``, and the item factors if they are in
    blocks. A user or item without a training pair has no factor. A training pair has a value above
    0; with explicit feedback it is any pair.

    Args:
        train: columns (user, item, value), one row per pair. ``user`` and ``item`` are row numbers.
        candidates: the number of items. All item rows are below it.
        params: the parameters of the training.
        work: a folder that the executors see under the same path.
        item_block_mb: the setting ``[spark] item_block_mb``, which chooses the layout of the item
            factors (:mod:`recsys.spark.item_blocks`).

    Raises:
        InputError: a value is too large for the objective, or a factor is not finite.
    """
    rows = items_per_block(candidates, params.rank, item_block_mb)
    logger.info("als: %s", describe_layout(candidates, params.rank, item_block_mb))
    n_pairs, largest = train.agg(F.count(F.lit(1)), F.max(F.abs(VALUE))).collect()[0]
    if params.implicit:
        Objective(alpha=params.alpha).require_usable(float(largest or 0))
    if params.trainer == "mllib":
        return _train_mllib(train, candidates, rows, params, work)
    if rows is not None:
        return blocked_trainer.train(train, (candidates, rows), params, work, n_pairs)
    if n_pairs <= params.driver_pairs:
        logger.info(
            "als: %s pairs, at most %s (driver_pairs): the driver trains", f"{n_pairs:,}", f"{params.driver_pairs:,}"
        )
    return trainer.train(train, candidates, params, work / "user_factors", n_pairs)


def _train_mllib(
    train: DataFrame, candidates: int, rows: int | None, params: SparkALSParameters, work: Location
) -> FittedALS:
    spark = train.sparkSession
    if spark.sparkContext.getCheckpointDir() is None:  # without one MLlib's checkpoint interval does nothing
        spark.sparkContext.setCheckpointDir(str(work / "checkpoints"))
    blocks = params.blocks or max(10, spark.sparkContext.defaultParallelism)
    library = ALS(
        userCol="user",
        itemCol="item",
        ratingCol=VALUE,
        rank=params.rank,
        maxIter=params.iterations,
        regParam=params.reg,
        alpha=params.alpha,
        implicitPrefs=params.implicit,
        nonnegative=params.nonnegative,
        checkpointInterval=params.checkpoint_every,
        numUserBlocks=blocks,
        numItemBlocks=blocks,
        seed=params.seed,
    )
    model = library.fit(train)
    training_pairs = train.where(F.col(VALUE) > 0) if params.implicit else train
    training_users = training_pairs.select(F.col("user").alias("id")).distinct()
    # MLlib also gives a factor, of zeros, to a user with nothing but dislikes.
    users = model.userFactors.join(training_users, "id", "left_semi")
    written = write_factors(users.select(F.col("id").alias("user"), "features"), work / "user_factors")
    training_items = training_pairs.select(F.col("item").alias("id")).distinct()
    item_factors = model.itemFactors.join(training_items, "id", "left_semi")
    items: np.ndarray | FactorTable
    if rows is None:
        items = collect_item_factors(item_factors, candidates, params.rank)
        trainer.require_finite(items[~np.isnan(items).all(axis=1)])
    else:
        by_item = item_factors.withColumnRenamed("id", "item")
        items = FactorTable.write(by_item, (candidates, params.rank, rows), work / "item_factors")
    return FittedALS(written, items)


def collect_item_factors(factors: DataFrame, candidates: int, rank: int) -> np.ndarray:
    """Collect item factors from Spark, and return them as float32[candidates, rank].

    The row of an item that is not in the table is NaN.

    Args:
        factors: columns (id, features), where ``id`` is the row of an item.
        candidates: the number of items.
        rank: the length of a factor.
    """
    table = factors.toPandas()
    items = np.full((candidates, rank), np.nan, dtype=np.float32)
    if len(table):
        items[table["id"].to_numpy()] = np.stack(table["features"].to_numpy())
    return items


def fold_in(history: DataFrame, items: np.ndarray | FactorTable, params: SparkALSParameters) -> DataFrame:
    """Compute the factor of each user for fixed item factors, as columns (user, features).

    The column ``features``, array<float>, has the factor. If the history of a user is that of
    training, it is the trained factor up to rounding, because training solves the users last. The
    exception is MLlib with ``nonnegative``, whose constraint does not hold here. The factor is null
    for a user whose history has no training pair on an item with a factor. A training pair has a
    value above 0; with explicit feedback it is any pair. A user without rows in ``history`` is not
    in the result.

    Args:
        history: columns (user, item, value), one row per (user, item) pair. ``user`` may have any
            type, and ``item`` is the row of the item.
        items: float32[candidates, rank], NaN rows for items without a factor; or the table of the
            factors in blocks.
        params: the parameters with which the items were trained.
    """
    pair = F.struct("item", F.col(VALUE).cast("float").alias(VALUE))
    grouped = history.groupBy("user").agg(F.array_sort(F.collect_list(pair)).alias("pairs"))
    context = history.sparkSession.sparkContext
    user_type = history.schema["user"].dataType.simpleString()
    schema = f"user {user_type}, features array<float>"
    if isinstance(items, np.ndarray):
        return grouped.mapInArrow(_fold_in_batches(context.broadcast(np.ascontiguousarray(items)), params), schema)
    blocks, has_factor = items.share()
    axes = _axes_of_blocks(blocks) if params.implicit else None
    return grouped.mapInArrow(_fold_in_by_blocks(blocks, context.broadcast(has_factor), axes, params), schema)


def _axes_of_blocks(blocks: FactorBlocks) -> solvers.Axes:
    """Return the principal axes of item factors in blocks, as :func:`solvers.principal_axes` does."""
    with linalg.one_blas_thread():
        gram = sum(linalg.gram(np.nan_to_num(factors.astype(np.float64))) for _, factors in blocks)
        values, vectors = np.linalg.eigh(gram)
    return np.maximum(values, 0), vectors


def _fold_in_batches(
    shared: Any, params: SparkALSParameters
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function with which executors compute the factors of batches of users.

    Args:
        shared: the broadcast of the item factors.
    """

    def fold_in_each(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task()
        has_factor = ~np.isnan(shared.value[:, 0])
        fixed = np.where(has_factor[:, None], shared.value, 0).astype(np.float64)
        axes = solvers.principal_axes(fixed) if params.implicit else None
        for batch in batches:
            matrix = _pairs_of_batch(batch)
            factors = params.solve_rows(matrix, fixed, axes)
            yield _factors_of_batch(batch, factors, _are_scorable(matrix, has_factor, params))

    return fold_in_each


def _fold_in_by_blocks(
    blocks: FactorBlocks, shared: Broadcast[np.ndarray], axes: solvers.Axes | None, params: SparkALSParameters
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that does what :func:`_fold_in_batches` does, for item factors in blocks.

    Every batch reads all blocks, and keeps the factors of the items in the histories of the batch.

    Args:
        shared: the broadcast of bool[items], the items with a factor.
        axes: the principal axes of the item factors, for implicit feedback.
    """

    def fold_in_each(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task()
        for batch in batches:
            indptr, items, values = _pairs_of_batch(batch)
            distinct, positions = np.unique(items, return_inverse=True)
            fixed = np.zeros((len(distinct), params.rank))
            for start, factors in blocks:
                in_block = (distinct >= start) & (distinct < start + len(factors))
                fixed[in_block] = np.nan_to_num(factors[distinct[in_block] - start])
            matrix = (indptr, positions.astype(np.int32), values)
            x = params.solve_rows(matrix, fixed, axes, blocks.n_items)
            yield _factors_of_batch(batch, x, _are_scorable(matrix, shared.value[distinct], params))

    return fold_in_each


def _pairs_of_batch(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the column ``pairs`` of a batch as indptr, items and values of a CSR matrix."""
    column = batch.column("pairs")
    pairs = column.flatten()
    items, values = (pairs.field(number).to_numpy(zero_copy_only=False) for number in (0, 1))
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return np.append(0, lengths.cumsum()).astype(np.int64), items, values


def _are_scorable(
    matrix: tuple[np.ndarray, np.ndarray, np.ndarray], has_factor: np.ndarray, params: SparkALSParameters
) -> np.ndarray:
    """Return bool[users]: whether each user has a training pair on an item with a factor.

    Args:
        matrix: the pairs of the users as indptr, items and values.
        has_factor: bool[items], the items with a factor.
    """
    indptr, items, values = matrix
    n_users = len(indptr) - 1
    user_of_pair = np.repeat(np.arange(n_users), np.diff(indptr))
    counts = params.is_training_pair(values) & has_factor[items]
    return np.bincount(user_of_pair[counts], minlength=n_users) > 0


def _factors_of_batch(batch: pa.RecordBatch, factors: np.ndarray, scorable: np.ndarray) -> pa.RecordBatch:
    columns = [batch.column("user"), _factor_column(factors, scorable)]
    return pa.RecordBatch.from_arrays(columns, names=["user", "features"])


def _factor_column(factors: np.ndarray, scorable: np.ndarray) -> pa.Array:
    """Return the rows of ``factors`` as lists of float32, null where ``scorable``, bool[m], is
    False.
    """
    offsets = np.append(0, np.cumsum(scorable * factors.shape[1])).astype(np.int32)
    values = pa.array(factors[scorable].astype(np.float32).ravel())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~scorable))
