"""Compute ``metrics.json`` of a run with ``[judge] task = "ratings"`` from its predictions.

RMSE and MAE are over all predicted pairs. Each has two intervals. That over users takes the users
as drawn at random, and the ratings of a user as dependent. That over pairs takes each rating as
drawn by itself, as most papers do; it is narrower where the errors of a user are alike. Both are
linearised (delta method): near its value, an error measure is a mean over the pairs, and the
interval is that of this mean, with quantiles of Student's t distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from recsys.evaluation.groups import HISTORY, history_codes
from recsys.evaluation.settings import RATING_BASELINES, RATING_METRICS, RunEvaluationSettings
from recsys.evaluation.testing.pick import models_by_quality
from recsys.evaluation.testing.significance import holm_adjust
from recsys.schema import USER

DEFINITIONS = {
    "rmse": "Root of the mean squared error over all predicted pairs; the lower, the better.",
    "mae": "Mean absolute error over all predicted pairs; the lower, the better.",
}

ITEM_SUPPORT = "item ratings"
"""The name of the groups of pairs by the number of ratings that the item has in train."""

BINS = 10
"""Number of groups of equal size by the predicted rating, for the calibration."""

COVERED = (0.5, 0.9)
"""The probabilities of the intervals around predictions that are checked."""


@dataclass(frozen=True, eq=False)
class RatedPairs:
    """The pairs whose ratings are predicted, the same for all models.

    Attributes:
        user: int[n], a number of the user of each pair, 0 … users - 1.
        user_ids: the id of each user.
        item, item_ids: the same for the items.
        rating: float64[n], the ratings that the users gave.
        user_ratings, item_ratings: int[n], the number of train ratings of the user and of the item.
        fold: int[n], the fold of each pair, 1 if there is only one.
    """

    user: np.ndarray
    user_ids: np.ndarray
    item: np.ndarray
    item_ids: np.ndarray
    rating: np.ndarray
    user_ratings: np.ndarray
    item_ratings: np.ndarray
    fold: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """Name of a grouping -> int[n], the level of each pair in ``HISTORY.levels``."""
        return {
            HISTORY.name: history_codes(self.user_ratings),
            ITEM_SUPPORT: history_codes(self.item_ratings),
        }


@dataclass(frozen=True, eq=False)
class PredictedRatings:
    """The predictions of one model for the pairs of a :class:`RatedPairs`.

    Attributes:
        predicted: float64[n], finite, clipped to the scale.
        is_fallback: bool[n], whether the model had no opinion, so that the biases predicted the
        pair. is_clipped: bool[n], whether the prediction was outside the scale.
        spread: float64[n], the standard deviation of the rating around the prediction, NaN where
            there is none. None if the model has no spread.
    """

    predicted: np.ndarray
    is_fallback: np.ndarray
    is_clipped: np.ndarray
    spread: np.ndarray | None = None


def error_and_influence(metric: str, errors: np.ndarray) -> tuple[float, np.ndarray]:
    """Return RMSE or MAE of some errors, and the influence of each error on it, float64[n].

    The influences sum to 0. The measure of a resample is about the measure plus the mean of the
    influences of its pairs.
    """
    if metric == "mae":
        absolute = np.abs(errors)
        mean = float(absolute.mean())
        return mean, absolute - mean
    squared = errors**2
    mean_square = squared.mean()
    root = float(np.sqrt(mean_square))
    if not root:
        return 0.0, np.zeros(len(errors))
    return root, (squared - mean_square) / (2 * root)


def error_of_mean(influence: np.ndarray, user: np.ndarray | None = None) -> tuple[float, int]:
    """Return the standard error of a measure, and the number of independent units.

    Args:
        influence: float64[n], the influence of each pair on the measure.
        user: int[n], the user of each pair, if users are the units. None: pairs are the units.

    >>> error_of_mean(np.array([-1.0, 1.0, -1.0, 1.0]))[0].__round__(4)
    0.5774
    """
    n = len(influence)
    totals = influence
    if user is not None:
        counts = np.bincount(user)
        totals = np.bincount(user, weights=influence)[counts > 0]
    units = len(totals)
    if units < 2:
        return np.nan, units
    return float(np.sqrt(units / (units - 1) * (totals**2).sum()) / n), units


def error_cell(value: float, influence: np.ndarray, user: np.ndarray) -> dict[str, Any]:
    """Return an entry of metrics.json: a measure, or a difference of two, with its intervals.

    The keys are ``mean`` (the measure), ``ci95`` (over users), ``ci95_pairs`` (over pairs),
    ``users`` and ``pairs``. With fewer than two units an interval is NaN.

    Args:
        influence: float64[n], the influence of each pair on the measure.
        user: int[n], the user of each pair.
    """
    if not len(influence):
        return {
            "mean": np.nan,
            "ci95": [np.nan] * 2,
            "ci95_pairs": [np.nan] * 2,
            "users": 0,
            "pairs": 0,
        }
    by_user, users = error_of_mean(influence, user)
    by_pair, pairs = error_of_mean(influence)
    return {
        "mean": value,
        "ci95": _interval(value, by_user, users),
        "ci95_pairs": _interval(value, by_pair, pairs),
        "users": users,
        "pairs": pairs,
    }


def _interval(value: float, standard_error: float, units: int) -> list[float]:
    if units < 2:
        return [np.nan, np.nan]
    half_width = special.stdtrit(units - 1, 0.975) * standard_error
    return [float(value - half_width), float(value + half_width)]


def paired_difference(metric: str, errors: np.ndarray, other_errors: np.ndarray, user: np.ndarray) -> dict[str, Any]:
    """Return the measure of a model minus that of another one on the same pairs.

    The result is that of :func:`error_cell` and ``p``, the p-value of the paired t-test over users.

    Args:
        errors, other_errors: float64[n], predicted minus given.
        user: int[n], the user of each pair.
    """
    if not len(errors):
        return error_cell(np.nan, errors, user) | {"p": np.nan}
    value, influence = error_and_influence(metric, errors)
    other_value, other_influence = error_and_influence(metric, other_errors)
    difference = influence - other_influence
    cell = error_cell(value - other_value, difference, user)
    standard_error, users = error_of_mean(difference, user)
    p = np.nan
    if users >= 2 and standard_error > 0:
        p = float(2 * stats.t.sf(abs(value - other_value) / standard_error, users - 1))
    elif users >= 2:
        p = 1.0
    return cell | {"p": p}


def summarise_ratings(
    pairs: RatedPairs,
    predictions: Mapping[str, PredictedRatings],
    judging: RunEvaluationSettings,
    scale: tuple[float, float],
) -> dict[str, Any]:
    """Return the content of metrics.json.

    Args:
        predictions: name of the model -> its predictions.
        scale: the smallest and the largest rating, to which predictions are clipped.
    """
    errors = {name: model.predicted - pairs.rating for name, model in predictions.items()}
    metrics = judging.metrics
    primary = metrics[0]
    baseline = judging.baseline if judging.baseline in predictions else None
    all_pairs = np.ones(len(pairs), dtype=bool)
    models = {name: _cells(metrics, errors[name], pairs, all_pairs) for name in predictions}
    differences = {}
    if baseline is not None:
        differences = {
            name: {metric: paired_difference(metric, errors[name], errors[baseline], pairs.user) for metric in metrics}
            for name in predictions
            if name != baseline
        }
        _adjust(differences)
    segments: dict[str, Any] = {}
    segment_differences: dict[str, Any] = {}
    for grouping, codes in pairs.groups.items():
        members = {level: codes == number for number, level in enumerate(HISTORY.levels)}
        segments[grouping] = {
            level: {name: _cells(metrics, errors[name], pairs, rows) for name in predictions}
            for level, rows in members.items()
        }
        if baseline is not None:
            segment_differences[grouping] = {
                level: {
                    name: {primary: _difference_in(primary, errors[name], errors[baseline], pairs, rows)}
                    for name in differences
                }
                for level, rows in members.items()
            }
    ranked = models_by_quality({name: cells[primary]["mean"] for name, cells in models.items()}, is_error=True)
    return {
        "models": models,
        "differences": differences,
        "about": {
            "engine": "local",
            "task": "ratings",
            "lower_is_better": True,
            "primary": primary,
            "baseline": baseline,
            "scale": list(scale),
            "baseline_differences": {
                name: _differences_from(name, primary, errors, pairs) for name in _baselines(predictions, baseline)
            },
            "leads": {
                name: paired_difference(primary, errors[name], errors[following], pairs.user)
                for name, following in pairwise(ranked)
            },
            "definitions": {metric: DEFINITIONS[metric] for metric in metrics},
            "counts": {
                name: {
                    "pairs": len(pairs),
                    "no_opinion": int(model.is_fallback.sum()),
                    "clipped": int(model.is_clipped.sum()),
                }
                for name, model in predictions.items()
            },
            "segments": segments,
            "segment_differences": segment_differences,
            "folds": _folds(pairs, errors, metrics),
            "calibration": {name: calibration(model.predicted, pairs.rating) for name, model in predictions.items()},
            "spread": {
                name: spread_coverage(model.predicted, model.spread, pairs.rating)
                for name, model in predictions.items()
                if model.spread is not None
            },
        },
    }


def _cells(metrics: tuple[str, ...], errors: np.ndarray, pairs: RatedPairs, rows: np.ndarray) -> dict[str, Any]:
    """Return metric -> cell over some of the pairs, bool[n]."""
    cells = {}
    for metric in metrics:
        value, influence = np.nan, errors[rows]
        if rows.any():
            value, influence = error_and_influence(metric, errors[rows])
        cells[metric] = error_cell(value, influence, pairs.user[rows])
    return cells


def _difference_in(
    metric: str, errors: np.ndarray, other_errors: np.ndarray, pairs: RatedPairs, rows: np.ndarray
) -> dict[str, Any]:
    return paired_difference(metric, errors[rows], other_errors[rows], pairs.user[rows])


def _baselines(predictions: Mapping[str, PredictedRatings], baseline: str | None) -> list[str]:
    """Return the models that others should beat, in the order of the run."""
    return [name for name in predictions if name in RATING_BASELINES or name == baseline]


def _differences_from(
    baseline: str, metric: str, errors: Mapping[str, np.ndarray], pairs: RatedPairs
) -> dict[str, Any]:
    """Return the differences of all models from a baseline: over all pairs, and by support."""
    codes = pairs.groups[HISTORY.name]
    names = [name for name in errors if name != baseline]
    return {
        "all": {name: paired_difference(metric, errors[name], errors[baseline], pairs.user) for name in names},
        HISTORY.name: {
            level: {
                name: _difference_in(metric, errors[name], errors[baseline], pairs, codes == number) for name in names
            }
            for number, level in enumerate(HISTORY.levels)
        },
    }


def _adjust(differences: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Add the p-values adjusted by Holm for all differences together, ``p_holm``."""
    cells = [cell for by_metric in differences.values() for cell in by_metric.values()]
    for cell, p in zip(cells, holm_adjust(np.array([cell["p"] for cell in cells])), strict=True):
        cell["p_holm"] = float(p)


def _folds(pairs: RatedPairs, errors: Mapping[str, np.ndarray], metrics: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the measures of every model in each fold; empty with one fold."""
    numbers = np.unique(pairs.fold)
    if len(numbers) < 2:
        return []
    return [
        {
            "fold": int(number),
            "pairs": int((pairs.fold == number).sum()),
            "models": {
                name: {metric: error_and_influence(metric, of_model[pairs.fold == number])[0] for metric in metrics}
                for name, of_model in errors.items()
            },
        }
        for number in numbers
    ]


def calibration(predicted: np.ndarray, rating: np.ndarray) -> dict[str, Any]:
    """Return how given ratings follow predicted ones.

    ``slope`` and ``intercept`` are those of the least squares line of given on predicted ratings:
    1 and 0 for a calibrated model. A slope below 1 means that predictions differ too much from
    each other. Both are NaN if all predictions are equal. ``bins`` are up to :data:`BINS` groups
    of pairs of about equal size by the predicted rating, with its mean, the mean of the given
    ratings, and the number of pairs.

    Args:
        predicted, rating: float64[n].
    """
    centred = predicted - predicted.mean()
    square = (centred**2).sum()
    slope = np.nan
    if square > 1e-12 * len(predicted):
        slope = float((centred * rating).sum() / square)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, BINS + 1)[1:-1]))
    bin_of_pair = np.searchsorted(edges, predicted, side="right")
    bins = [
        {
            "predicted": float(predicted[bin_of_pair == number].mean()),
            "given": float(rating[bin_of_pair == number].mean()),
            "pairs": int((bin_of_pair == number).sum()),
        }
        for number in np.unique(bin_of_pair)
    ]
    return {
        "slope": slope,
        "intercept": float(rating.mean() - slope * predicted.mean()),
        "bins": bins,
    }


def spread_coverage(predicted: np.ndarray, spread: np.ndarray, rating: np.ndarray) -> dict[str, Any]:
    """Return how many ratings are in the intervals that the spread of a model gives.

    ``covered`` has probability -> share of the ratings in the normal interval of this probability
    around the prediction, and ``pairs`` the number of pairs with a spread.

    Args:
        predicted, spread, rating: float64[n]; the spread is NaN where there is none.
    """
    has_spread = np.isfinite(spread)
    distance = np.abs(rating - predicted)[has_spread] / spread[has_spread]
    quantiles = {probability: special.ndtri((1 + probability) / 2) for probability in COVERED}
    covered = {f"{p:g}": float((distance <= q).mean()) if len(distance) else np.nan for p, q in quantiles.items()}
    return {
        "pairs": int(has_spread.sum()),
        "mean": float(spread[has_spread].mean()) if has_spread.any() else np.nan,
        "covered": covered,
    }


def errors_per_user(pairs: RatedPairs, predictions: Mapping[str, PredictedRatings]) -> pd.DataFrame:
    """Return one row per user and model: user_id, n_history, n_rated, rmse, mae and model.

    ``n_history`` is the largest number of train ratings of the user in a fold, ``n_rated`` the
    number of predicted pairs. The errors are those of the user's pairs.
    """
    users = len(pairs.user_ids)
    n_rated = np.bincount(pairs.user, minlength=users)
    n_history = np.zeros(users, dtype=np.int64)
    np.maximum.at(n_history, pairs.user, pairs.user_ratings)
    tables = []
    for name, model in predictions.items():
        error = model.predicted - pairs.rating
        table = {
            USER: pairs.user_ids,
            "n_history": n_history,
            "n_rated": n_rated,
            RATING_METRICS[0]: np.sqrt(np.bincount(pairs.user, error**2, users) / n_rated),
            RATING_METRICS[1]: np.bincount(pairs.user, np.abs(error), users) / n_rated,
        }
        tables.append(pd.DataFrame(table).assign(model=name))
    return pd.concat(tables, ignore_index=True)
