"""The baselines of ratings: the mean of all ratings, and the biases of users and items."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.parameters import STRICT
from recsys.rating_model import ITEM_PART, MEAN_PART, USER_PART, RatingExplanation, RatingModel
from recsys.types import Features, Interactions


@dataclass(config=STRICT)
class Mean(RatingModel):
    """Predicts the mean of all ratings of train, for every pair."""

    STATE: ClassVar = {"mean_": "float64[1]"}

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the mean of all ratings, and return the model. ``features`` is not used."""
        self.mean_ = np.array([train.value.mean(dtype=np.float64)])
        return self

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the mean of all ratings for every pair, float64[m].

        Args:
            users, items: int[m], of which only the length is used.
        """
        return np.full(len(users), self.mean_[0])

    def explain(self, user: int, item: int) -> RatingExplanation:
        """Return the one part of the prediction: the mean of all ratings."""
        return RatingExplanation({MEAN_PART: float(self.mean_[0])})


@dataclass(config=STRICT)
class Biases(RatingModel):
    """The mean of all ratings plus a bias of the user and one of the item, both drawn towards 0.

    It is the baseline that many published models hardly beat, and the fallback of every other
    model. The biases minimise

        Σ_ui (r_ui − μ − b_u − b_i)²  +  user_shrink Σ_u b_u²  +  item_shrink Σ_i b_i²

    where μ is the mean of all ratings. They are computed by alternating least squares, first the
    items, then the users. The bias of an unknown user or item is 0, so every pair has a prediction.

    Reference: Koren, ACM TKDD 2010, section 2.1, which is also ``BaselineOnly`` of Surprise.
    """

    STATE: ClassVar = {
        "mean_": "float64[1]",
        "user_bias_": "float64[users]",
        "item_bias_": "float64[items]",
    }

    user_shrink: Annotated[float, Field(ge=0, description="pseudo-ratings without a bias, per user")] = 15.0
    item_shrink: Annotated[float, Field(ge=0, description="pseudo-ratings without a bias, per item")] = 10.0
    iterations: Annotated[int, Field(ge=1, description="sweeps of alternating least squares")] = 10

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the mean, and the biases by alternating least squares, and return the model.

        ``features`` is not used.
        """
        self._fit_biases(train, np.zeros(len(train.items)))
        return self

    def _fit_biases(self, train: Interactions, item_prior: np.ndarray) -> None:
        """Compute the mean and the biases, those of items drawn towards ``item_prior`` instead of 0.

        Args:
            item_prior: float64[items], by the row of the item.
        """
        rating = train.value.astype(np.float64)
        users = len(train.users)
        items = len(train.items)
        mean = rating.mean()
        deviation = rating - mean - item_prior[train.item]
        user_divisor = np.maximum(np.bincount(train.user, minlength=users) + self.user_shrink, 1e-300)
        item_divisor = np.maximum(np.bincount(train.item, minlength=items) + self.item_shrink, 1e-300)
        user_bias = np.zeros(users)
        item_bias = np.zeros(items)
        for _ in range(self.iterations):
            item_bias = np.bincount(train.item, deviation - user_bias[train.user], items) / item_divisor
            user_bias = np.bincount(train.user, deviation - item_bias[train.item], users) / user_divisor
        self.mean_ = np.array([mean])
        self.user_bias_ = user_bias
        self.item_bias_ = item_prior + item_bias

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the mean plus the biases of the user and of the item for each pair, float64[m].

        The bias of an unknown user or item is 0, so no prediction is NaN.

        Args:
            users, items: int[m], rows of the users and of the items of train, -1 where unknown.
        """
        # The last entry is for row -1.
        return self.mean_[0] + np.append(self.user_bias_, 0.0)[users] + np.append(self.item_bias_, 0.0)[items]

    def explain(self, user: int, item: int) -> RatingExplanation:
        """Return the parts of one prediction: the mean and the two biases."""
        return RatingExplanation(
            {
                MEAN_PART: float(self.mean_[0]),
                USER_PART: float(np.append(self.user_bias_, 0.0)[user]),
                ITEM_PART: float(np.append(self.item_bias_, 0.0)[item]),
            }
        )
