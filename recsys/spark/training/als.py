"""ALS on Spark behind the parameters of the local model: trained by our own kernels or by MLlib, factors as arrays.

Implicit feedback: the objective of ``models.als``, users solved last. Explicit: squared error over stored values, the
penalty λ(n + β·others)^ν with n the row's number of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys import linalg
from recsys.errors import ConfigError, InputError, suggest_nearest
from recsys.schema import VALUE
from recsys.spark.training import trainer
from recsys.spark.training.training_curve import Curve


class Params(BaseModel):
    """Parameters of an ALS on Spark; names, meaning and defaults are those of the local ``als``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str] = "als"

    rank: int = Field(64, ge=1)
    iterations: int = Field(15, ge=1)
    alpha: float = Field(10.0, ge=0, description="confidence of a stored pair: 1 + alpha·|value|; implicit only")
    reg: float = Field(0.05, gt=0, description="λ, multiplied by each row's number of pairs")
    nu: float = Field(1.0, ge=0, description="ν: λ is multiplied by (pairs + beta·others)^nu; MLlib knows only 1")
    beta: float = Field(0.0, ge=0, description="β; MLlib knows only 0")
    implicit: bool = Field(True, description="False: predict the values themselves (ratings)")
    trainer: Literal["recsys", "mllib"] = Field(
        "recsys", description="'mllib': where item factors outgrow the memory of a task, or must be ≥ 0"
    )
    nonnegative: bool = Field(False, description="factors ≥ 0; MLlib only")
    blocks: int | None = Field(None, ge=1, description="MLlib's user and item blocks; unset: one a core, at least 10")
    checkpoint_every: int = Field(10, ge=1, description="MLlib's iterations between checkpoints, which cut the lineage")
    seed: int = Field(0, ge=0)

    @classmethod
    def parse(cls, params: dict[str, Any]) -> Self:
        """Check a mapping; the nearest name stands in the ConfigError of an unknown one."""
        known = list(cls.model_fields)
        if unknown := [key for key in params if key not in known]:
            hints = " ".join(f"unknown parameter '{key}'.{suggest_nearest(key, known)}" for key in unknown)
            raise ConfigError(f"model '{cls.kind}' on Spark: {hints}")
        try:
            found = cls(**params)
        except ValidationError as error:
            problems = "; ".join(f"{p['loc'][0]}: {p['msg']} (it is {p['input']!r})" for p in error.errors())
            raise ConfigError(f"model '{cls.kind}' on Spark: {problems}") from None
        if found.trainer == "mllib" and (found.nu, found.beta) != (1, 0):
            raise ConfigError(f"model '{cls.kind}' on Spark: trainer = 'mllib' knows only nu = 1 and beta = 0.")
        if found.trainer != "mllib" and found.nonnegative:
            raise ConfigError(f"model '{cls.kind}' on Spark: nonnegative needs trainer = 'mllib'.")
        return found

    def penalty(self, n: np.ndarray, others: int) -> np.ndarray:
        """Return float64[rows]: what multiplies each row's squared norm; ``n``: its pairs that teach."""
        return self.reg * (n + self.beta * others) ** self.nu

    def taught(self, values: np.ndarray) -> np.ndarray:
        """Return bool[n]: the pairs that teach, and count in the penalty."""
        return values > 0 if self.implicit else np.ones(len(values), dtype=bool)

    def lengths(self, indptr: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return int64[rows]: pairs of each row that teach."""
        return np.diff(np.append(0, np.cumsum(self.taught(values)))[indptr])

    def solve(self, matrix: linalg.CSR, fixed: np.ndarray, axes: linalg.Axes | None) -> np.ndarray:
        """Return [rows, rank] in the dtype of ``fixed``: each row's factors given the other side's, exactly.

        Args:
            matrix: indptr, columns and values of whole histories. fixed: [columns, rank], 0 = never taught.
            axes: ``linalg.principal_axes(fixed)`` for implicit feedback, else None.
        """
        penalty = self.penalty(self.lengths(matrix[0], matrix[2]), len(fixed))
        if self.implicit:
            return linalg.implicit_rows(matrix, fixed, self.alpha, penalty, axes)
        return linalg.explicit_rows(matrix, fixed, penalty)


@dataclass(frozen=True)
class Model:
    """``users``: DataFrame (user, features array<float>), which stays on the executors. ``items``:
    float32[candidates, rank], NaN rows where training knows nothing of the item. ``curve``: None from MLlib.
    """

    users: DataFrame
    items: np.ndarray
    curve: Curve | None = None


def fit(train: DataFrame, candidates: int, params: Params, work: Path) -> Model:
    """Train on prepared pairs (user, item, value), and write the user factors under ``work``.

    A user or item without a liked pair has no factor: zero would be an opinion.

    Raises:
        InputError: a factor is not finite.
    """
    place = work / "user_factors"
    if params.trainer == "recsys":
        model = Model(*trainer.train(train, candidates, params, place))
    else:
        model = _fit_mllib(train, candidates, params, work)
    bad = model.users.where(F.exists("features", lambda x: F.isnan(x) | (F.abs(x) == float("inf")))).count()
    known = ~np.isnan(model.items).all(axis=1)
    if bad or not np.isfinite(model.items[known]).all():
        raise InputError(
            f"ALS diverged: {bad:,} users have factors that are not finite."
            " Raise reg, lower alpha, or scale the values down."
        )
    return model


def _fit_mllib(train: DataFrame, candidates: int, params: Params, work: Path) -> Model:
    spark = train.sparkSession
    if spark.sparkContext.getCheckpointDir() is None:  # without one MLlib's checkpoint interval does nothing
        spark.sparkContext.setCheckpointDir(str(work / "checkpoints"))
    cores = spark.sparkContext.defaultParallelism
    blocks = params.blocks or max(10, cores)
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
    fitted = library.fit(train)
    taught = train.where(F.col(VALUE) > 0) if params.implicit else train
    users = fitted.userFactors.join(taught.select(F.col("user").alias("id")).distinct(), "id", "left_semi")
    users.select(F.col("id").alias("user"), "features").write.parquet(str(work / "user_factors"))
    items = item_factors(fitted.itemFactors, taught, candidates, params.rank)
    return Model(spark.read.parquet(str(work / "user_factors")), items)


def item_factors(factors: DataFrame, taught: DataFrame, candidates: int, rank: int) -> np.ndarray:
    """Return float32[candidates, rank] of (id, features); the driver holds the catalogue once, never the users."""
    known = factors.join(taught.select(F.col("item").alias("id")).distinct(), "id", "left_semi").toPandas()
    items = np.full((candidates, rank), np.nan, dtype=np.float32)
    if len(known):
        items[known["id"].to_numpy()] = np.stack(known["features"].to_numpy())
    return items


def fold_in(history: DataFrame, items: np.ndarray, params: Params) -> DataFrame:
    """Return (user, features array<float>) of every user of ``history``: what ALS would give, these item factors fixed.

    For a user of the training data that is the trained factor, because the users are solved last. Null for a user
    without a liked item that the model knows.

    Args:
        history: (user: a row or an id of any kind, item: row, value), one row a pair.
        items: float32[candidates, rank], NaN rows where training knows nothing of the item.
    """
    own = F.collect_list(F.struct("item", F.col(VALUE).cast("float").alias(VALUE)))
    grouped = history.groupBy("user").agg(F.array_sort(own).alias("own"))
    shared = history.sparkSession.sparkContext.broadcast(np.ascontiguousarray(items))
    kind = history.schema["user"].dataType.simpleString()
    return grouped.mapInArrow(_FoldIn(shared, params), f"user {kind}, features array<float>")


def _FoldIn(shared: Any, params: Params) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that executors run."""

    def fold(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import numba

        numba.set_num_threads(1)  # Spark runs one task a core
        known = ~np.isnan(shared.value[:, 0])
        fixed = np.where(known[:, None], shared.value, 0).astype(np.float64)
        axes = linalg.principal_axes(fixed) if params.implicit else None
        for batch in batches:
            own = batch.column("own")
            pairs = own.flatten()
            item, value = (pairs.field(place).to_numpy(zero_copy_only=False) for place in (0, 1))
            indptr = np.append(0, own.value_lengths().to_numpy(zero_copy_only=False).cumsum()).astype(np.int64)
            row = np.repeat(np.arange(batch.num_rows), np.diff(indptr))
            speaks = np.bincount(row[params.taught(value) & known[item]], minlength=batch.num_rows) > 0
            x = params.solve((indptr, item, value), fixed, axes)
            yield pa.RecordBatch.from_arrays([batch.column("user"), _features(x, speaks)], names=["user", "features"])

    return fold


def _features(x: np.ndarray, speaks: np.ndarray) -> pa.Array:
    """Return float32 lists, null where nobody speaks."""
    offsets = np.append(0, np.cumsum(speaks * x.shape[1])).astype(np.int32)
    values = pa.array(x[speaks].astype(np.float32).ravel())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~speaks))
