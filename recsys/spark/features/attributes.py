"""Cold items on Spark: once ALS is trained, an item without likes gets the factor that its attributes predict.

The local ``attributes``, with Spark's factors under it: the driver, which holds the catalogue, solves the same ridge
regression, and executors fold the users in anew, for there are more items now that they have not liked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from recsys.features.encoding import encode_features
from recsys.features.terms import Scheme, add_constant_column, predict_cold_factors, require_features, weigh_terms
from recsys.schema import ITEM
from recsys.spark.training import als
from recsys.types import IdMap


class Params(als.Params):
    """Parameters of ``attributes``: those of ALS on Spark, and the local model's own."""

    kind: ClassVar[str] = "attributes"

    ridge: float = Field(3.0, gt=0, description="how much the regression from attributes to factors is held back")
    scheme: Scheme = Field("tfidf", description="how values and words are weighted")
    fields: dict[str, float] = Field({}, description="field -> weight; 1 unless named")


def parse(kind: str, params: dict[str, Any]) -> als.Params:
    """Check the parameters of a model that Spark knows: ``als`` or ``attributes``."""
    return (Params if kind == Params.kind else als.Params).parse(params)


def require_items(wanted: Iterable[als.Params], items: pd.DataFrame | None) -> None:
    """Raise ConfigError if a model needs attributes and there is no items table: before anything long begins."""
    if items is None and any(isinstance(params, Params) for params in wanted):
        require_features(None, Params.kind)


def terms(items: pd.DataFrame, params: Params) -> csr_array:
    """Return csr (items, terms + 1) of the candidates ``items``: what the regression learns from.

    Raises:
        ConfigError: no attributes, or a weight for a field that they do not have.
    """
    known = encode_features(items, ITEM, IdMap.of(items[ITEM]))
    return add_constant_column(weigh_terms(require_features(known, Params.kind), params.scheme, params.fields))


def place_cold(
    model: als.Model, train: DataFrame, own: csr_array, liked_by: np.ndarray, params: Params, work: Path
) -> als.Model:
    """Return the model with factors for cold items that have a term; those of warm items stay. Written under ``work``.

    Args:
        train: (user, item, value), what ``model`` was trained on.
        own: the candidates' :func:`terms`.
        liked_by: [candidates] users who like each.

    On implicit feedback the users are what their histories say under *all* these items, as in the local model; explicit
    ones do not depend on items they have no value of. With ``nonnegative`` users stay as trained, and what is predicted
    below 0 becomes 0.
    """
    warm = np.isfinite(model.items[:, 0])
    if not warm.any():
        return model
    support = np.maximum(liked_by, 1)  # of ratings, an item may be known without being liked
    found, known = predict_cold_factors(own, model.items, warm, support, params.ridge)
    found = np.maximum(found, 0) if params.nonnegative else found
    items = np.where(known[:, None], found, np.float32(np.nan))
    if not params.implicit or params.nonnegative:
        return replace(model, items=items)
    place = str(work / "users_of_all_items")
    als.fold_in(train, items, params).where(F.col("features").isNotNull()).write.parquet(place)
    return replace(model, users=train.sparkSession.read.parquet(place), items=items)
