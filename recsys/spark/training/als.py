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
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.als import solvers
from recsys.als.definition import Objective
from recsys.errors import InputError
from recsys.locations import Location
from recsys.schema import VALUE
from recsys.spark.training import trainer
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
        data.trained[key] = fit_als(data.train, data.candidates, parameters, data.work)
    return data.trained[key]


def fit_als(train: DataFrame, candidates: int, params: SparkALSParameters, work: Location) -> FittedALS:
    """Train ALS on pairs, and return the factors of users and items.

    The user factors are written below the folder ``work``. A user or item without a training pair
    has no factor. A training pair has a value above 0; with explicit feedback it is any pair.

    Args:
        train: columns (user, item, value), one row per pair. ``user`` and ``item`` are row numbers.
        candidates: the number of items. All item rows are below it.
        params: the parameters of the training.
        work: a folder that the executors see under the same path.

    Raises:
        InputError: a value is too large for the objective, or a factor is not finite.
    """
    if params.implicit:
        row = train.agg(F.max(F.abs(VALUE))).first()
        Objective(alpha=params.alpha).require_usable(float((row and row[0]) or 0))
    if params.trainer == "recsys":
        fitted = trainer.train(train, candidates, params, work / "user_factors")
    else:
        fitted = _train_mllib(train, candidates, params, work)
    is_bad = F.exists("features", lambda number: F.isnan(number) | (F.abs(number) == float("inf")))
    bad_users = fitted.users.where(is_bad).count()
    has_factor = ~np.isnan(fitted.items).all(axis=1)
    if bad_users or not np.isfinite(fitted.items[has_factor]).all():
        raise InputError(
            f"ALS diverged: {bad_users:,} users have factors that are not finite."
            " Raise reg, lower alpha, or scale the values down."
        )
    return fitted


def _train_mllib(train: DataFrame, candidates: int, params: SparkALSParameters, work: Location) -> FittedALS:
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
    path = str(work / "user_factors")
    users.select(F.col("id").alias("user"), "features").write.parquet(path)
    items = collect_item_factors(model.itemFactors, training_pairs, candidates, params.rank)
    return FittedALS(spark.read.parquet(path), items)


def collect_item_factors(factors: DataFrame, training_pairs: DataFrame, candidates: int, rank: int) -> np.ndarray:
    """Collect item factors from Spark, and return them as float32[candidates, rank].

    The row of an item without a training pair is NaN.

    Args:
        factors: columns (id, features), where ``id`` is the row of an item.
        training_pairs: the pairs that were trained on, with the column ``item``.
        candidates: the number of items.
        rank: the length of a factor.
    """
    training_items = training_pairs.select(F.col("item").alias("id")).distinct()
    table = factors.join(training_items, "id", "left_semi").toPandas()
    items = np.full((candidates, rank), np.nan, dtype=np.float32)
    if len(table):
        items[table["id"].to_numpy()] = np.stack(table["features"].to_numpy())
    return items


def fold_in(history: DataFrame, items: np.ndarray, params: SparkALSParameters) -> DataFrame:
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
        items: float32[candidates, rank], NaN rows for items without a factor.
        params: the parameters with which the items were trained.
    """
    pair = F.struct("item", F.col(VALUE).cast("float").alias(VALUE))
    grouped = history.groupBy("user").agg(F.array_sort(F.collect_list(pair)).alias("pairs"))
    shared = history.sparkSession.sparkContext.broadcast(np.ascontiguousarray(items))
    user_type = history.schema["user"].dataType.simpleString()
    return grouped.mapInArrow(_fold_in_batches(shared, params), f"user {user_type}, features array<float>")


def _fold_in_batches(
    shared: Any, params: SparkALSParameters
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function with which executors compute the factors of batches of users.

    Args:
        shared: the broadcast of the item factors.
    """

    def fold_in_each(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import numba

        numba.set_num_threads(1)  # Spark runs one task per core
        has_factor = ~np.isnan(shared.value[:, 0])
        fixed = np.where(has_factor[:, None], shared.value, 0).astype(np.float64)
        axes = solvers.principal_axes(fixed) if params.implicit else None
        for batch in batches:
            column = batch.column("pairs")
            pairs = column.flatten()
            items = pairs.field(0).to_numpy(zero_copy_only=False)
            values = pairs.field(1).to_numpy(zero_copy_only=False)
            lengths = column.value_lengths().to_numpy(zero_copy_only=False)
            indptr = np.append(0, lengths.cumsum()).astype(np.int64)
            user_of_pair = np.repeat(np.arange(batch.num_rows), lengths)
            counts = params.is_training_pair(values) & has_factor[items]
            scorable = np.bincount(user_of_pair[counts], minlength=batch.num_rows) > 0
            factors = params.solve_rows((indptr, items, values), fixed, axes)
            columns = [batch.column("user"), _factor_column(factors, scorable)]
            yield pa.RecordBatch.from_arrays(columns, names=["user", "features"])

    return fold_in_each


def _factor_column(factors: np.ndarray, scorable: np.ndarray) -> pa.Array:
    """Return the rows of ``factors`` as lists of float32, null where ``scorable``, bool[m], is
    False.
    """
    offsets = np.append(0, np.cumsum(scorable * factors.shape[1])).astype(np.int32)
    values = pa.array(factors[scorable].astype(np.float32).ravel())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~scorable))
