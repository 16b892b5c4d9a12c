"""The parts of a squared error (bias², variance, noise), and the learning curve, from repeated fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.evaluation.rating_summary import error_and_influence


@dataclass(frozen=True)
class ErrorParts:
    """The mean squared error of repeated fits, as a sum of its parts.

    All parts are means over pairs, in squared units of the ratings.

    Attributes:
        error: the mean squared error, over fits and pairs.
        variance: the variance of the predictions of one pair between fits.
        remainder: ``error`` − ``variance``, an estimate of bias² + noise. A log with one rating per
            pair cannot separate these two.
        bias2: the squared difference between the mean prediction and the expected rating. NaN if
            the expected ratings are unknown.
        noise: the squared difference between the given and the expected rating. NaN if the expected
            ratings are unknown.
    """

    error: float
    variance: float
    remainder: float
    bias2: float
    noise: float


def decompose_error(predicted: np.ndarray, rating: np.ndarray, expected: np.ndarray | None = None) -> ErrorParts:
    """Return the parts of the squared error of models that were fitted on independent train parts.

    The train parts must not share ratings. Otherwise the variance is too small: if each fit is on a
    random half of the same table, it is half of the true one. The variance has the denominator n −
    1 for n fits, and ``bias2`` is corrected for the variance of the mean of n fits. So
    ``remainder`` and ``bias2`` may be slightly negative.

    Source: Geman, Bienenstock and Doursat, Neural Computation 1992.

    Args:
        predicted: float64[fits, pairs], at least two fits.
        rating: float64[pairs], the given ratings.
        expected: float64[pairs], the expected rating of each pair, where it is known.
    """
    error = float(((predicted - rating) ** 2).mean())
    variances = predicted.var(axis=0, ddof=1)
    variance = float(variances.mean())
    if expected is None:
        return ErrorParts(error, variance, error - variance, np.nan, np.nan)
    # The mean of n fits differs from its expectation by a share of 1 / n of the variance.
    squared = (predicted.mean(axis=0) - expected) ** 2 - variances / len(predicted)
    return ErrorParts(
        error,
        variance,
        error - variance,
        float(squared.mean()),
        float(((rating - expected) ** 2).mean()),
    )


def describe_refits(refits: Mapping[float, np.ndarray], predicted: np.ndarray, rating: np.ndarray) -> dict[str, Any]:
    """Return the learning curve of a model, and the parts of its error with half of train, as a dict.

    Its keys:

    * ``rmse``: share of train as text -> the RMSE over all fits on such a share; "1" is all of
      train.
    * ``variance``, ``remainder``: the parts of the error of fits on half of train
      (:func:`decompose_error`). They are computed from the two fits of each division, whose halves
      share no rating, and averaged over divisions. So the variance is the mean of (f₁ − f₂)² / 2,
      where f₁ and f₂ are the predictions of the two fits.

    Args:
        refits: share of train -> float64[divisions, 2, pairs]. For each division of train, these
            are the predictions of the fits on two parts of this size that share no rating. The
            share 0.5 must be one of the keys.
        predicted: float64[pairs], the predictions of the fit on all of train.
        rating: float64[pairs], the given ratings.
    """
    curve = {f"{share:g}": float(np.sqrt(((of_share - rating) ** 2).mean())) for share, of_share in refits.items()}
    curve["1"] = error_and_influence("rmse", predicted - rating)[0]
    parts = [decompose_error(halves, rating) for halves in refits[0.5]]
    return {
        "rmse": curve,
        "variance": float(np.mean([of_division.variance for of_division in parts])),
        "remainder": float(np.mean([of_division.remainder for of_division in parts])),
    }
