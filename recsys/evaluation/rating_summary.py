"""Compute ``metrics.json`` of a run with ``[judge] task = "ratings"`` from its predictions.

RMSE and MAE are computed over all predicted (user, item) pairs. Each has two intervals. The
interval over users assumes that users are drawn at random, so the ratings of one user may depend on
each other. The interval over pairs assumes that each rating is drawn independently, as most papers
do. It is narrower if the errors of a user are alike. Both use the delta method: a small change of
an error measure is about the mean of one number per pair (its *influence*). The interval is that of
this mean, with quantiles of Student's t distribution.
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
"""Name of a metric of predicted ratings -> its definition."""

ITEM_SUPPORT = "item ratings"
"""The name of the grouping of pairs by the number of ratings that the item has in train."""

BINS = 10
"""Largest number of groups into which :func:`describe_calibration` divides the pairs."""

COVERED = (0.5, 0.9)
"""The probabilities of the intervals around predictions that :func:`spread_coverage` checks."""


@dataclass(frozen=True, eq=False)
class RatedPairs:
    """The n (user, item) pairs whose ratings are predicted, the same for all models.

    Attributes:
        user: int[n], the user of each pair, as a position in ``user_ids``.
        user_ids: the ids of the users.
        item: int[n], the item of each pair, as a position in ``item_ids``.
        item_ids: the ids of the items.
        rating: float64[n], the ratings that the users gave.
        user_ratings, item_ratings: int[n], the number of train ratings of the user and of the item
            of each pair.
        fold: int[n], the fold in which each pair is tested, from 1; 1 if there is only one.
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
        """The groups of each pair, as a dict: name of a grouping -> int[n].

        The groupings are by the number of train ratings of the user and of the item. The numbers
        are positions in ``HISTORY.levels``: none, 1 to 4, 5 to 19, 20 or more ratings.
        """
        return {
            HISTORY.name: history_codes(self.user_ratings),
            ITEM_SUPPORT: history_codes(self.item_ratings),
        }


@dataclass(frozen=True, eq=False)
class PredictedRatings:
    """The predictions of one model for the pairs of a :class:`RatedPairs`.

    Attributes:
        predicted: float64[n], the predicted ratings, finite, clipped to the scale of the ratings.
        is_fallback: bool[n], whether the model could not predict the pair, so that the fallback
            predicted it (``biases``, or ``text_score`` in a run with reviews).
        is_clipped: bool[n], whether the prediction was outside the scale before it was clipped.
        spread: float64[n], the standard deviation of the rating around the prediction, NaN where
            there is none. None if the model does not estimate it.
    """

    predicted: np.ndarray
    is_fallback: np.ndarray
    is_clipped: np.ndarray
    spread: np.ndarray | None = None


def error_and_influence(metric: str, errors: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the RMSE or the MAE of n errors, and the influence of each error on it, float64[n].

    The influences sum to 0. They approximate how the measure changes with the sample: the measure
    of a resample of the errors is about the measure plus the mean influence of the drawn errors.

    Args:
        metric: "rmse" or "mae".
        errors: float64[n], predicted minus given ratings, at least one.

    >>> error_and_influence("mae", np.array([-1.0, 3.0]))
    (2.0, array([-1.,  1.]))
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

    The units are users or pairs. With fewer than two units, the standard error is NaN.

    Args:
        influence: float64[n], the influence of each pair on the measure
            (:func:`error_and_influence`).
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

    The result is a dict. ``mean`` is the measure. ``ci95`` is its 95 % interval if users are drawn
    at random, ``ci95_pairs`` its 95 % interval if pairs are. ``users`` and ``pairs`` are their
    numbers. An interval of fewer than two users or pairs is [NaN, NaN]. Without pairs, ``mean`` is
    NaN too.

    Args:
        value: the measure.
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

    The result is that of :func:`error_cell` with one more key: ``p``, the p-value of the paired
    t-test over users. It is NaN for fewer than two users, and 1 if the standard error is 0.

    Args:
        metric: "rmse" or "mae".
        errors, other_errors: float64[n], predicted minus given ratings of the two models.
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
        # All users have the same difference.
        p = 1.0 if value == other_value else 0.0
    return cell | {"p": p}


def summarise_ratings(
    pairs: RatedPairs,
    predictions: Mapping[str, PredictedRatings],
    judging: RunEvaluationSettings,
    scale: tuple[float, float],
) -> dict[str, Any]:
    """Return the content of metrics.json of a run that predicts ratings.

    It has the entries ``models``, ``differences`` and ``about``, as that of a run with lists
    (:func:`.summary.document`). A mean with its interval is a result of :func:`error_cell`, and a
    difference one of :func:`paired_difference`.

    Args:
        pairs: the pairs whose ratings are predicted.
        predictions: name of the model -> its predictions.
        judging: the settings of the evaluation, with the metrics and the baseline.
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
    baselines = _baselines(predictions, baseline)
    baseline_differences = {name: _differences_from(name, primary, errors, pairs) for name in baselines}
    tests = _adjust(differences, baseline_differences, baseline, primary)
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
            "baseline_differences": baseline_differences,
            "tests": tests,
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
            "calibration": {
                name: describe_calibration(model.predicted, pairs.rating) for name, model in predictions.items()
            },
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


def _adjust(
    differences: dict[str, dict[str, dict[str, Any]]],
    baseline_differences: dict[str, Any],
    baseline: str | None,
    primary: str,
) -> int:
    """Add the p-values adjusted by Holm for all tests together, ``p_holm``, and return the number of tests.

    The tests are those of a run with lists: the differences from ``baseline`` in every metric, and
    those of each model from each further baseline in the primary metric.
    """
    cells = [cell for by_metric in differences.values() for cell in by_metric.values()]
    for subtracted, of_baseline in baseline_differences.items():
        if subtracted != baseline:
            cells += [cell for name, cell in of_baseline["all"].items() if name not in baseline_differences]
    p = np.array([cell["p"] for cell in cells])
    for cell, adjusted in zip(cells, holm_adjust(p), strict=True):
        cell["p_holm"] = float(adjusted)
    if baseline is not None:
        baseline_differences[baseline]["all"] = {name: cells[primary] for name, cells in differences.items()}
    return int((~np.isnan(p)).sum())


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


def describe_calibration(predicted: np.ndarray, rating: np.ndarray) -> dict[str, Any]:
    """Return how well given ratings agree with predicted ones, on average, as a dict.

    ``slope`` and ``intercept`` are those of the least squares line of given on predicted ratings:
    1 and 0 for a calibrated model. A slope below 1 means that predictions differ too much from
    each other. Both are NaN if the predictions hardly differ: if their
    standard deviation is at most a hundredth of that of the ratings. ``bins`` is a list of at most
    :data:`BINS` groups of pairs with similar predictions, of about equal size. Each is a dict:
    ``predicted`` and ``given``, the mean predicted and given rating, and ``pairs``, their number.

    Args:
        predicted, rating: float64[n], the predicted and the given ratings, at least one.
    """
    centred = predicted - predicted.mean()
    square = (centred**2).sum()
    slope = np.nan
    # Folds give the mean of all ratings slightly other values, whose line means nothing.
    if square > 1e-4 * ((rating - rating.mean()) ** 2).sum():
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
    """Return how many ratings are in the intervals that the spread of a model gives, as a dict.

    The spread is the standard deviation of the rating around its prediction. ``covered`` is
    probability as text -> share of the ratings in the central normal interval of this probability,
    for each of :data:`COVERED`. ``pairs`` is the number of pairs with a spread, ``mean`` the mean
    spread. Without such pairs, the shares and the mean are NaN.

    Args:
        predicted, spread, rating: float64[n], the predicted ratings, their spreads (NaN where there
            is none), and the given ratings.
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
    """Return a table of user_id, n_history, n_rated, rmse, mae and model.

    It has one row per model and user. ``n_history`` is the number of train ratings of the user, the
    largest one of all folds. ``n_rated`` is the number of the user's predicted pairs, from which
    ``rmse`` and ``mae`` are computed.

    Args:
        pairs: the pairs whose ratings are predicted. Every user has at least one.
        predictions: name of the model -> its predictions.
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
