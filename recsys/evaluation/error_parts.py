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

    ``error`` is the mean over fits and pairs. ``variance`` is how far the predictions of single fits
    are from those of the mean of all fits. ``remainder`` = ``error`` − ``variance`` is bias² + noise,
    which a log with one rating per pair does not tell apart. If the expected ratings are known, they
    are ``bias2`` and ``noise``; otherwise both are NaN.
    """

    error: float
    variance: float
    remainder: float
    bias2: float
    noise: float


def decompose_error(predicted: np.ndarray, rating: np.ndarray, expected: np.ndarray | None = None) -> ErrorParts:
    """Return the parts of the squared error of models that were fitted on independent train parts.

    Train parts that share ratings would give too small a variance: for a mean of random halves of one
    table, half of it. The variance is corrected for the number of fits (n − 1), and so are the other
    parts. So a part may be slightly negative. Source: Geman, Bienenstock and Doursat, Neural Computation 1992.

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
    """Return the learning curve of a model, and the parts of its error with half of train.

    ``rmse`` has share of train -> RMSE of the fits on such shares (the root of the mean over fits).
    ``variance`` and ``remainder`` are the means over divisions of those that :func:`decompose_error`
    gives for the two halves of a division, which share no rating. So the variance is the mean of
    (f₁ − f₂)² / 2, where f₁ and f₂ are the predictions of the fits on the two halves.

    Args:
        refits: share of train -> float64[divisions, 2, pairs], predictions of fits on two parts of
            this size that share no rating, for each division of train. It has the share 0.5.
        predicted: float64[pairs], the predictions of the fit on all of train.
        rating: float64[pairs].
    """
    curve = {f"{share:g}": float(np.sqrt(((of_share - rating) ** 2).mean())) for share, of_share in refits.items()}
    curve["1"] = error_and_influence("rmse", predicted - rating)[0]
    parts = [decompose_error(halves, rating) for halves in refits[0.5]]
    return {
        "rmse": curve,
        "variance": float(np.mean([of_division.variance for of_division in parts])),
        "remainder": float(np.mean([of_division.remainder for of_division in parts])),
    }
