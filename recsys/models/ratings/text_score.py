"""The model ``text_score``: biases of items are drawn towards a value predicted from reviews."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic.dataclasses import dataclass

from recsys.errors import InputError
from recsys.features.reviews import text_scores
from recsys.models.ratings.biases import Biases
from recsys.parameters import STRICT
from recsys.types import Features, Interactions, Reviews

WORDS = 10
"""Number of words that raise a score, and of words that lower it, that ``record`` names."""


@dataclass(config=STRICT)
class TextScore(Biases):
    """Like ``biases``, but the bias of an item is drawn towards a value that its reviews predict.

    Choose it for new items that people have written about; it needs ``[data] reviews``. The score
    of a text is predicted from its words. The weights of these words are learned from the reviews
    of other items. The text score s_i of an item is the mean over its reviews, drawn towards the
    mean of all items (:func:`recsys.features.reviews.score_items`). The bias of an item is drawn
    towards

        m_i = β max(0, 1 − σ²/β²) (s_i − s̄)

    instead of 0; m_i is 0 for an item without a text score. β ≥ 0 is the slope of a regression over
    items: it predicts the mean of r_ui − μ − b_u over the n_i ratings of an item from s_i. μ and
    b_u are those of ``biases``. The weight of an item is n_i / (n_i + item_shrink). s̄ is the mean
    of s_i with these weights, and σ is the standard error of β. Because no word weight was learned
    from the item's own reviews, the same slope holds for new items. If reviews do not predict
    ratings, the slope is 0 or close to 0, and the predictions are those of ``biases``. After m_i is
    computed, the biases are fitted on r_ui − m_i.

    Reference: the factor on β is that of James and Stein, Berkeley Symposium 1961, for one number.
    """

    STATE: ClassVar = Biases.STATE
    NEEDS_REVIEWS: ClassVar = True

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the priors of the items and the biases, and return the model.

        ``record`` then has the numbers of :class:`ReviewScores` on held-out items, the number of
        ``items`` with a text score, the ``slope`` that is used, the estimated slope with its
        ``slope_error``, and the words that ``raise`` and ``lower`` a score most.

        Raises:
            InputError: there are no reviews, or too few with a score.
        """
        if features is None or features.reviews is None:
            raise InputError("text_score learns from reviews: give [data] reviews a table, or remove the model.")
        super().fit(train)
        item_prior = self._item_prior(train, features, features.reviews)
        self._fit_biases(train, item_prior)
        return self

    def _item_prior(self, train: Interactions, features: Features, reviews: Reviews) -> np.ndarray:
        """Return the prior of the bias of each item, float64[items], and set ``record``."""
        scores, text_score = text_scores(features, train.items)
        rows = _given_entries(train, reviews)
        user, item = train.user[rows], train.item[rows]
        residual = train.value[rows] - self.mean_[0] - self.user_bias_[user]
        count = np.bincount(item, minlength=len(train.items))
        is_usable = (count > 0) & np.isfinite(text_score)
        n = count[is_usable]
        mean_residual = np.bincount(item, residual, len(train.items))[is_usable] / n
        weights = n / (n + max(self.item_shrink, 1e-9))
        centre, slope, error = weighted_slope(text_score[is_usable], mean_residual, weights)
        shrunken = slope * max(0.0, 1 - (error / slope) ** 2) if slope > 0 else 0.0
        raising, lowering = scores.strongest_words(WORDS)
        self.record = scores.record | {
            "items": int(np.isfinite(text_score).sum()),
            "slope": shrunken,
            "estimated_slope": slope,
            "slope_error": error,
            "raise": raising,
            "lower": lowering,
        }
        return np.nan_to_num(shrunken * (text_score - centre), nan=0.0)


def weighted_slope(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Return the weighted mean of x, and the weighted least-squares slope of y on x with its standard error.

    With fewer than three points, or if all x are equal, the slope and its error are 0.

    Args:
        x, y, weights: float64[n]; weights are positive, and the variance of y is proportional to
            their inverse.
    """
    if len(x) < 3:
        return (float(np.average(x, weights=weights)) if len(x) else 0.0), 0.0, 0.0
    centre = float(np.average(x, weights=weights))
    dx = x - centre
    dy = y - np.average(y, weights=weights)
    squares = float(weights @ dx**2)
    if squares <= 1e-12 * float(weights.sum()) * max(centre**2, 1.0):
        return centre, 0.0, 0.0
    slope = float(weights @ (dx * dy)) / squares
    variance = float(weights @ (dy - slope * dx) ** 2) / (len(x) - 2)
    return centre, slope, float(np.sqrt(variance / squares))


def _given_entries(train: Interactions, reviews: Reviews) -> np.ndarray:
    """Return the positions of the entries of train whose ratings were given, and not filled in from a text."""
    if not reviews.is_filled.any():
        return np.arange(len(train))
    key = train.user.astype(np.int64) * len(train.items) + train.item
    filled = reviews.user[reviews.is_filled] * len(train.items) + reviews.item[reviews.is_filled]
    return np.flatnonzero(~np.isin(key, filled))
