"""Errors of predicted ratings: RMSE and MAE over pairs that have both a prediction and a rating."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.errors import InputError
from recsys.evaluation.topk_tables import TRUTH, codes
from recsys.schema import ITEM, SCORE, USER, VALUE, TableSchema
from recsys.types import Evaluation

PREDICTIONS = TableSchema("predictions", (USER, ITEM, SCORE))
RATINGS = TableSchema("truth", (*TRUTH.required, VALUE))


def rmse(predicted: Any, actual: Any) -> float:
    """Return the root of the mean squared error, ≥ 0; larger errors weigh more than in :func:`mae`.

    Args:
        predicted, actual: numbers of one length, at least one, all finite.

    >>> rmse([3.0, 5.0], [4.0, 3.0]).__round__(4)
    1.5811
    """
    return float(np.sqrt(np.mean(_errors(predicted, actual) ** 2)))


def mae(predicted: Any, actual: Any) -> float:
    """Return the mean absolute error, ≥ 0; arguments as in :func:`rmse`.

    >>> mae([3.0, 5.0], [4.0, 3.0])
    1.5
    """
    return float(np.mean(np.abs(_errors(predicted, actual))))


def evaluate_ratings(predictions: pd.DataFrame, truth: pd.DataFrame, *, name: str = "predictions") -> Evaluation:
    """Judge predicted ratings (user_id, item_id, score) against ratings (user_id, item_id, value).

    Ratings without a prediction are counted, not guessed; predictions of other pairs are counted and left out.

    Returns:
        per_user: user_id, n_rated (with a prediction), rmse, mae; NaN for a user without any. The mean of per-user
        errors is not the error over all pairs, which stands in ``about["pooled"]``.

    Raises:
        InputError: a missing column, a pair twice, a number that is not finite, or no pair in common.
    """
    PREDICTIONS.require(predictions.columns, name)
    RATINGS.require(truth.columns)
    users, (rater, asked) = codes(truth[USER], predictions[USER])
    items, (rated, guessed) = codes(truth[ITEM], predictions[ITEM])
    wanted, found = rater.astype(np.int64) * len(items) + rated, asked.astype(np.int64) * len(items) + guessed
    for where, key in (("truth", wanted), (name, found)):
        if repeated := len(key) - len(np.unique(key)):
            raise InputError(f"{where}: {repeated:,} rows repeat a (user, item) pair: keep one of each")
    both, mine, theirs = np.intersect1d(found, wanted, assume_unique=True, return_indices=True)
    if not len(both):
        raise InputError(f"{name}: no (user, item) pair has both a prediction and a rating: check the ids")
    predicted = predictions[SCORE].to_numpy(dtype=np.float64)[mine]
    actual = truth[VALUE].to_numpy(dtype=np.float64)[theirs]
    error = _errors(predicted, actual)
    m, owner = int(rater.max()) + 1, rater[theirs]
    n = np.bincount(owner, minlength=m)
    each = np.where(n > 0, n, np.nan)
    per_user = pd.DataFrame(
        {
            USER: users[:m],
            "n_rated": n,
            "rmse": np.sqrt(np.bincount(owner, weights=error**2, minlength=m) / each),
            "mae": np.bincount(owner, weights=np.abs(error), minlength=m) / each,
        }
    ).sort_values(USER, ignore_index=True)
    about = {
        "definitions": {"rmse": "Root of the mean squared error of the user's ratings.", "mae": "Mean absolute error."},
        "counts": {
            "pairs": len(both),
            "ratings_without_prediction": len(wanted) - len(both),
            "predictions_without_rating": len(found) - len(both),
        },
        "pooled": {"rmse": rmse(predicted, actual), "mae": mae(predicted, actual)},
    }
    return Evaluation(name, per_user, about)


def _errors(predicted: Any, actual: Any) -> np.ndarray:
    """Return float64[n] differences, after the checks."""
    found = np.asarray(predicted, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if found[0].ndim != 1 or found[0].shape != found[1].shape:
        raise InputError(
            f"ratings: {found[0].shape} predictions against {found[1].shape} ratings: give one of each a pair"
        )
    if not len(found[0]):
        raise InputError("ratings: no pairs, so there is no error to average")
    for what, numbers in zip(("predictions", "ratings"), found, strict=True):
        if not np.isfinite(numbers).all():
            raise InputError(f"{what}: {int((~np.isfinite(numbers)).sum()):,} of {len(numbers):,} are no finite number")
    return found[0] - found[1]
