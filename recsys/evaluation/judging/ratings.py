"""Errors of predicted ratings: RMSE and MAE over pairs that have both a prediction and a rating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from recsys.errors import ConfigError, InputError
from recsys.evaluation.topk_tables import TRUTH, codes
from recsys.schema import EVENT, ITEM, RANK, SCORE, SOURCE, TIME, USER, VALUE, TableSchema
from recsys.types import Evaluation

PREDICTIONS = TableSchema("predictions", (USER, ITEM, SCORE), (RANK, SOURCE))
"""The columns of a table of predicted ratings."""
RATINGS = TableSchema("truth", (*TRUTH.required, VALUE), (TIME, EVENT))
"""The columns of a table of given ratings."""
DEFINITIONS = {
    "rmse": "Root of the mean squared error of the user's ratings.",
    "mae": "Mean absolute error.",
}
"""Name of an error of predicted ratings -> its definition."""


def rmse(predicted: Any, actual: Any) -> float:
    """Return the root of the mean squared error, ≥ 0; larger errors weigh more than in :func:`mae`.

    Args:
        predicted, actual: one number per rating; sequences of the same length, at least 1.

    Raises:
        InputError: the lengths differ, there are no numbers, or a number is not finite.

    >>> rmse([3.0, 5.0], [4.0, 3.0]).__round__(4)
    1.5811
    """
    return float(np.sqrt(np.mean(_errors(predicted, actual) ** 2)))


def mae(predicted: Any, actual: Any) -> float:
    """Return the mean absolute error, ≥ 0; arguments and errors raised as in :func:`rmse`.

    >>> mae([3.0, 5.0], [4.0, 3.0])
    1.5
    """
    return float(np.mean(np.abs(_errors(predicted, actual))))


def error_metrics(requested: Sequence[str]) -> list[str]:
    """Return the names in ``requested`` that are errors of predicted ratings (:data:`DEFINITIONS`).

    So the result is empty if all names are those of metrics of lists.

    Args:
        requested: the names of metrics.

    Raises:
        ConfigError: some names are errors of predicted ratings and others are not.
    """
    errors = [name for name in requested if name in DEFINITIONS]
    if errors and len(errors) < len(requested):
        raise ConfigError(
            f"{' and '.join(errors)} judge predicted values, the other metrics judge lists: ask for them apart."
        )
    return errors


def evaluate_ratings(predictions: pd.DataFrame, truth: pd.DataFrame, *, name: str = "predictions") -> Evaluation:
    """Compute RMSE and MAE of predicted ratings, for each user and over all pairs.

    Only (user, item) pairs that have both a prediction and a rating are used. The other predictions
    and ratings are counted in ``about["counts"]``.

    Args:
        predictions: a pandas table of user_id, item_id, and score (the predicted rating).
        truth: a pandas table of user_id, item_id, and value (the given rating).
        name: the name of the result, also used in error messages.

    Returns:
        An Evaluation. Its ``per_user`` has one row per user of ``truth``, sorted by id, with the
        columns user_id, n_rated (the number of the user's pairs that are used), rmse and mae. Both
        errors are NaN if n_rated is 0. ``about["pooled"]`` has ``rmse`` and ``mae`` over all pairs
        that are used. These differ from the means of the errors of the users.

    Raises:
        InputError: a column is missing, a pair occurs twice in a table, no pair is in both tables,
            or a score or value of a pair that is used is not finite.
    """
    PREDICTIONS.require(predictions.columns, name)
    RATINGS.require(truth.columns)
    users, (truth_user, predicted_user) = codes(truth[USER], predictions[USER])
    items, (truth_item, predicted_item) = codes(truth[ITEM], predictions[ITEM])
    truth_key = truth_user.astype(np.int64) * len(items) + truth_item
    predicted_key = predicted_user.astype(np.int64) * len(items) + predicted_item
    for label, key in (("truth", truth_key), (name, predicted_key)):
        if repeated := len(key) - len(np.unique(key)):
            raise InputError(f"{label}: {repeated:,} rows repeat a (user, item) pair: keep one of each")
    common, predicted_row, truth_row = np.intersect1d(predicted_key, truth_key, assume_unique=True, return_indices=True)
    if not len(common):
        raise InputError(f"{name}: no (user, item) pair has both a prediction and a rating: check the ids")
    predicted = predictions[SCORE].to_numpy(dtype=np.float64)[predicted_row]
    actual = truth[VALUE].to_numpy(dtype=np.float64)[truth_row]
    error = _errors(predicted, actual)
    m = int(truth_user.max()) + 1
    user = truth_user[truth_row]
    n_rated = np.bincount(user, minlength=m)
    divisor = np.where(n_rated > 0, n_rated, np.nan)
    per_user = pd.DataFrame(
        {
            USER: users[:m],
            "n_rated": n_rated,
            "rmse": np.sqrt(np.bincount(user, weights=error**2, minlength=m) / divisor),
            "mae": np.bincount(user, weights=np.abs(error), minlength=m) / divisor,
        }
    ).sort_values(USER, ignore_index=True)
    about = {
        "definitions": dict(DEFINITIONS),
        "counts": {
            "pairs": len(common),
            "ratings_without_prediction": len(truth_key) - len(common),
            "predictions_without_rating": len(predicted_key) - len(common),
        },
        "pooled": {"rmse": rmse(predicted, actual), "mae": mae(predicted, actual)},
    }
    return Evaluation(name, per_user, about)


def _errors(predicted: Any, actual: Any) -> np.ndarray:
    """Return predicted − actual, float64[n].

    Raises:
        InputError: the lengths differ, there are no pairs, or a number is not finite.
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    actual = np.asarray(actual, dtype=np.float64)
    if predicted.ndim != 1 or predicted.shape != actual.shape:
        raise InputError(
            f"ratings: {predicted.shape} predictions against {actual.shape} ratings: give one of each per pair"
        )
    if not len(predicted):
        raise InputError("ratings: no pairs, so there is no error to average")
    for label, numbers in (("predictions", predicted), ("ratings", actual)):
        if not np.isfinite(numbers).all():
            infinite = int((~np.isfinite(numbers)).sum())
            raise InputError(f"{label}: {infinite:,} of {len(numbers):,} are not finite numbers")
    return predicted - actual
