"""Cold items on Spark: once ALS is trained, an item without likes gets the factor that its
attributes predict.

This is the local model ``attributes`` with Spark's factors. The driver, which holds the catalogue,
solves the same ridge regression. Executors then fold all users in again, because there are more
items now that they have not liked.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from recsys.features.encoding import encode_features
from recsys.features.terms import (
    add_constant_column,
    predict_cold_factors,
    require_features,
    weigh_terms,
)
from recsys.schema import ITEM
from recsys.spark.training.als import fit_als_once, fold_in
from recsys.spark.training.parameters import SparkALSParameters, SparkAttributesParameters, TrainingData
from recsys.spark.training.trainer import FittedALS
from recsys.types import IdMap

PARAMETERS = SparkAttributesParameters


def fit_model(parameters: SparkAttributesParameters, data: TrainingData) -> FittedALS:
    """Train the kind ``attributes``: ALS, then factors of cold items from their attributes."""
    # A field that the items lack is refused before the training.
    terms = item_terms(data.items, parameters)
    als = fit_als_once(parameters, data)
    return predict_cold_items(als, data.train, terms, data.liked_by, parameters, data.work)


def require_items(parameters: Iterable[SparkALSParameters], items: pd.DataFrame | None) -> None:
    """Raise ConfigError if a model needs attributes and there is no items table."""
    if items is None and any(isinstance(params, SparkAttributesParameters) for params in parameters):
        require_features(None, SparkAttributesParameters.kind)


def item_terms(items: pd.DataFrame, params: SparkAttributesParameters) -> csr_array:
    """Return csr (items, terms + 1) of the candidates ``items``: the inputs of the regression.

    Raises:
        ConfigError: no attributes, or a weight for a field that they do not have.
    """
    encoded = encode_features(items, ITEM, IdMap.of(items[ITEM]))
    return add_constant_column(weigh_terms(require_features(encoded, params.kind), params.scheme, params.fields))


def predict_cold_items(
    fitted: FittedALS,
    train: DataFrame,
    terms: csr_array,
    liked_by: np.ndarray,
    params: SparkAttributesParameters,
    work: Path,
) -> FittedALS:
    """Return the model with factors for cold items that have a term; the factors of warm items
    stay.

    With implicit feedback the users are folded in under *all* these items, as in the local model,
    and written under ``work``. With explicit feedback they do not depend on items for which they
    have no value. With ``nonnegative`` users stay as trained, and predictions below 0 become 0.

    Args:
        train: (user, item, value), the pairs on which the model was trained.
        terms: :func:`item_terms` of the candidates.
        liked_by: [candidates], users who like each item.
    """
    warm = np.isfinite(fitted.items[:, 0])
    if not warm.any():
        return fitted
    # With ratings an item can have a factor although nobody likes it.
    support = np.maximum(liked_by, 1)
    factors, has_factor = predict_cold_factors(terms, fitted.items, warm, support, params.ridge)
    if params.nonnegative:
        factors = np.maximum(factors, 0)
    items = np.where(has_factor[:, None], factors, np.float32(np.nan))
    if not params.implicit or params.nonnegative:
        return fitted._replace(items=items)
    path = str(work / "users_of_all_items")
    fold_in(train, items, params).where(F.col("features").isNotNull()).write.parquet(path)
    return fitted._replace(users=train.sparkSession.read.parquet(path), items=items)
