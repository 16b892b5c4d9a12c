"""MLlib's ALS behind the parameters of the local model, and its factors as arrays.

Implicit feedback: the objective of ``models.als`` with ν = 1 and β = 0, users solved last. Explicit: squared error
over stored values, λ multiplied by the row's number of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.errors import ConfigError, InputError, nearest
from recsys.schema import VALUE


class Params(BaseModel):
    """Parameters of an ALS on Spark; names, meaning and defaults are those of the local ``als``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(64, ge=1)
    iterations: int = Field(15, ge=1)
    alpha: float = Field(10.0, ge=0, description="confidence of a stored pair: 1 + alpha·|value|; implicit only")
    reg: float = Field(0.05, gt=0, description="λ, multiplied by each row's number of pairs")
    nu: float = Field(1.0, ge=1, le=1, description="MLlib knows no other")
    beta: float = Field(0.0, ge=0, le=0, description="MLlib knows no other")
    implicit: bool = Field(True, description="False: predict the values themselves (ratings)")
    nonnegative: bool = Field(False, description="factors ≥ 0")
    blocks: int | None = Field(None, ge=1, description="user and item blocks; unset: one a core, at least 10")
    checkpoint_every: int = Field(10, ge=1, description="iterations between checkpoints, which cut the lineage")
    seed: int = Field(0, ge=0)

    @classmethod
    def parse(cls, params: dict[str, Any]) -> Params:
        """Check a mapping; the nearest name stands in the ConfigError of an unknown one."""
        known = list(cls.model_fields)
        if unknown := [key for key in params if key not in known]:
            hints = " ".join(f"unknown parameter '{key}'.{nearest(key, known)}" for key in unknown)
            raise ConfigError(f"model 'als' on Spark: {hints}")
        try:
            return cls(**params)
        except ValidationError as error:
            problems = "; ".join(f"{p['loc'][0]}: {p['msg']} (it is {p['input']!r})" for p in error.errors())
            raise ConfigError(f"model 'als' on Spark: {problems}") from None


@dataclass(frozen=True)
class Model:
    """``users``: DataFrame (user, features array<float>), which stays on the executors. ``items``:
    float32[candidates, rank], NaN rows where training knows nothing of the item.
    """

    users: DataFrame
    items: np.ndarray


def fit(train: DataFrame, candidates: int, params: Params, work: Path) -> Model:
    """Train on prepared pairs (user, item, value), and write the user factors under ``work``.

    A user or item without a liked pair has no factor: MLlib's would be zero, which is no opinion.

    Raises:
        InputError: a factor is not finite.
    """
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
    users = spark.read.parquet(str(work / "user_factors"))
    items = item_factors(fitted.itemFactors, taught, candidates, params.rank)
    bad = users.where(F.exists("features", lambda x: F.isnan(x) | (F.abs(x) == float("inf")))).count()
    known = ~np.isnan(items).all(axis=1)
    if bad or not np.isfinite(items[known]).all():
        raise InputError(
            f"ALS diverged: {bad:,} users have factors that are not finite."
            " Raise reg, lower alpha, or scale the values down."
        )
    return Model(users, items)


def item_factors(factors: DataFrame, taught: DataFrame, candidates: int, rank: int) -> np.ndarray:
    """Return float32[candidates, rank] of (id, features); the driver holds the catalogue once, never the users."""
    known = factors.join(taught.select(F.col("item").alias("id")).distinct(), "id", "left_semi").toPandas()
    items = np.full((candidates, rank), np.nan, dtype=np.float32)
    if len(known):
        items[known["id"].to_numpy()] = np.stack(known["features"].to_numpy())
    return items
