"""Cold items on Spark: an item without likes gets the factor that its attributes predict.

This is the local model ``attributes`` with Spark's factors. The driver, which holds the catalogue,
solves the same ridge regression. Executors then fold all users in again, because there are more
items now that they have not liked.
"""

from __future__ import annotations

from collections.abc import Iterable

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
from recsys.locations import Location
from recsys.schema import ITEM
from recsys.spark.item_blocks import FactorTable, factors_frame, pack_rows, write_factors
from recsys.spark.training.als import fit_als_once, fold_in
from recsys.spark.training.parameters import SparkALSParameters, SparkAttributesParameters, TrainingData
from recsys.spark.training.trainer import FittedALS
from recsys.types import IdMap

PARAMETERS = SparkAttributesParameters
"""The class of the parameters of ``attributes`` on Spark."""


def fit_model(parameters: SparkAttributesParameters, data: TrainingData) -> FittedALS:
    """Train a model of the kind ``attributes``, and return the factors of users and items.

    First ALS is trained. Then cold items get the factors that their attributes predict, and the
    factors of users are computed again where they depend on them (:func:`predict_cold_items`).

    Args:
        parameters: the parameters of the model.
        data: the training pairs, and the candidates with their attributes.

    Raises:
        ConfigError: the items have no attributes, or a weight is set for a field that they lack.
        InputError: the name of a field contains ``=``.
    """
    # A field that the items lack is refused before the training.
    terms = item_terms(data.items, parameters)
    als = fit_als_once(parameters, data)
    return predict_cold_items(als, data.train, terms, data.liked_by, parameters, data.work)


def require_items(parameters: Iterable[SparkALSParameters], items: pd.DataFrame | None) -> None:
    """Raise ConfigError if a model needs attributes and there is no items table.

    Args:
        parameters: the parameters of all models of the run.
        items: the items table, or None.
    """
    if items is None and any(isinstance(params, SparkAttributesParameters) for params in parameters):
        require_features(None, SparkAttributesParameters.kind)


def item_terms(items: pd.DataFrame, params: SparkAttributesParameters) -> csr_array:
    """Return the inputs of the regression for each candidate, csr (candidates, terms + 1).

    They are the weighted terms of the item's attributes, and a last column that is 1 everywhere. A
    term is a value of an attribute, such as a genre, or a word.

    Args:
        items: the candidates in row order, with the columns of the items table.
        params: the weighting scheme and the weights of the fields.

    Raises:
        ConfigError: the items have no attributes, or a weight is set for a field that they lack.
    """
    encoded = encode_features(items, ITEM, IdMap.from_ids(items[ITEM]))
    return add_constant_column(weigh_terms(require_features(encoded, params.kind), params.scheme, params.fields))


def predict_cold_items(
    fitted: FittedALS,
    train: DataFrame,
    terms: csr_array,
    liked_by: np.ndarray,
    params: SparkAttributesParameters,
    work: Location,
) -> FittedALS:
    """Give a factor to each cold item that has a term, and return the new model.

    A cold item is one without a factor. Its factor is the one that its attributes predict. The
    factors of the other items do not change. With implicit feedback the factors of all users are
    computed again, because they depend on all items with a factor; they are written to the folder
    ``work``. With explicit feedback, or with ``nonnegative``, the factors of users do not change.
    With ``nonnegative``, predictions below 0 become 0. The driver holds the factors of
    all items, also if they are in blocks everywhere else.

    Args:
        fitted: the trained ALS.
        train: columns (user, item, value), the pairs on which ``fitted`` was trained.
        terms: the result of :func:`item_terms` for the candidates.
        liked_by: int[candidates], the number of users who like each item.
        params: the parameters of the model.
        work: the folder for the new factors of users.

    Raises:
        InputError: a new factor is not finite.
    """
    trained = fitted.items.collect() if isinstance(fitted.items, FactorTable) else fitted.items
    warm = np.isfinite(trained[:, 0])
    if not warm.any():
        return fitted
    # With ratings an item can have a factor although nobody likes it.
    support = np.maximum(liked_by, 1)
    factors, has_factor = predict_cold_factors(terms, trained, warm, support, params.ridge)
    if params.nonnegative:
        factors = np.maximum(factors, 0)
    items: np.ndarray | FactorTable = np.where(has_factor[:, None], factors, np.float32(np.nan))
    if isinstance(fitted.items, FactorTable):
        rows = np.flatnonzero(has_factor)
        packed = pack_rows(rows, factors[rows])
        frame = factors_frame(packed, train.sparkSession, params.rank, "item")
        shape = (fitted.items.n_items, params.rank, fitted.items.rows)
        items = FactorTable.write(frame, shape, work / "all_item_factors")
    if not params.implicit or params.nonnegative:
        return fitted._replace(items=items)
    users = fold_in(train, items, params).where(F.col("features").isNotNull())
    return fitted._replace(users=write_factors(users, work / "users_of_all_items"), items=items)
