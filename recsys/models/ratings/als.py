"""The model ``rating_als``: factors and biases of users and items by alternating least squares on ratings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.als.solvers import als_half_step
from recsys.linalg import one_blas_thread
from recsys.logging import log_phase
from recsys.parameters import STRICT
from recsys.rating_model import ITEM_PART, MATCH_PART, MEAN_PART, USER_PART, RatingExplanation, RatingModel
from recsys.types import Features, Interactions


@dataclass(config=STRICT)
class RatingALS(RatingModel):
    """Matrix factorization of the ratings with biases, by alternating least squares.

    Choose it where a fit must be fast and one best fit is enough; ``bpmf`` has smaller errors. It
    minimises

        Σ_ui (r_ui − μ − b_u − c_i − x_u·y_i)²  +  reg [ Σ_u |x_u|² + Σ_i |y_i|² ]
                                                +  bias_reg [ Σ_u b_u² + Σ_i c_i² ]

    r_ui is the rating of user u for item i, and μ the mean of all ratings. b_u and c_i are the
    biases of the user and of the item, x_u and y_i their factors. The bias and the factor of a user
    are solved for together, and so are those of an item. The prediction is NaN for a user or an
    item without ratings.

    Reference: Koren, Bell and Volinsky, IEEE Computer 2009.
    """

    STATE: ClassVar = {
        "mean_": "float64[1]",
        "user_factors_": "float64[users, numbers]",
        "item_factors_": "float64[items, numbers]",
        "known_users_": "bool[users]",
        "known_items_": "bool[items]",
    }

    rank: Annotated[int, Field(ge=1, le=512, description="number of latent factors per user and per item")] = 8
    iterations: Annotated[int, Field(ge=1, description="sweeps of alternating least squares")] = 15
    reg: Annotated[
        float,
        Field(gt=0, description="regularization of the factors; higher values keep them smaller"),
    ] = 12.0
    bias_reg: Annotated[float, Field(gt=0, description="regularization of the biases")] = 5.0
    seed: Annotated[int, Field(ge=0, description="seed of the random start")] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn the biases and factors by alternating least squares, and return the model.

        Every call starts again from ``seed``. ``features`` is not used.
        """
        with log_phase("rating_als", users=len(train.users), items=len(train.items), rank=self.rank):
            self._alternate(train)
        return self

    def _alternate(self, train: Interactions) -> None:
        rng = np.random.default_rng(self.seed)
        rating = train.value.astype(np.float64)
        mean = rating.mean()
        deviation = rating - mean
        users = len(train.users)
        items = len(train.items)
        by_item = np.argsort(train.item, kind="stable")
        user_indptr = np.append(0, np.cumsum(np.bincount(train.user, minlength=users)))
        item_indptr = np.append(0, np.cumsum(np.bincount(train.item, minlength=items)))
        user_of_item = train.user[by_item]
        weight = np.ones(len(rating))
        x = rng.normal(0.0, 0.1, (users, self.rank + 1))
        x[:, 0] = 0.0
        y = np.zeros((items, self.rank + 1))
        with one_blas_thread():
            for _ in range(self.iterations):
                target = (deviation - x[train.user, 0])[by_item]
                y = self._half_step(item_indptr, user_of_item, weight, target, x)
                target = deviation - y[train.item, 0]
                x = self._half_step(user_indptr, train.item, weight, target, y)
        self.mean_ = np.array([mean])
        self.user_factors_ = x
        self.item_factors_ = y
        self.known_users_ = np.diff(user_indptr) > 0
        self.known_items_ = np.diff(item_indptr) > 0

    def _half_step(
        self,
        indptr: np.ndarray,
        indices: np.ndarray,
        weight: np.ndarray,
        target: np.ndarray,
        fixed: np.ndarray,
    ) -> np.ndarray:
        """Return the bias (number 0) and the factor of each row, for fixed factors of the other side."""
        # Its square root scales the constant beside the bias, so that one penalty regularizes both.
        scale = np.sqrt(self.reg / self.bias_reg)
        features = fixed.copy()
        features[:, 0] = scale
        penalty = np.full(len(indptr) - 1, self.reg)
        solution = als_half_step(indptr, indices, weight, target, features, np.zeros(features.shape[1]), penalty)
        solution[:, 0] *= scale
        return solution

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the predicted rating μ + b_u + c_i + x_u·y_i of each pair, float64[m].

        It is NaN for a user or an item without ratings in train.

        Args:
            users, items: int[m], rows of the users and of the items of train, -1 where unknown.
        """
        predicted = np.full(len(users), np.nan)
        is_known = (users >= 0) & (items >= 0)
        is_known[is_known] = self.known_users_[users[is_known]] & self.known_items_[items[is_known]]
        x = self.user_factors_[users[is_known]]
        y = self.item_factors_[items[is_known]]
        predicted[is_known] = self.mean_[0] + x[:, 0] + y[:, 0] + np.einsum("pf,pf->p", x[:, 1:], y[:, 1:])
        return predicted

    def explain(self, user: int, item: int) -> RatingExplanation:
        """Return the parts of one prediction: the mean, the two biases, and the product of the factors."""
        if np.isnan(self.predict(np.array([user]), np.array([item]))[0]):
            return RatingExplanation({})
        x = self.user_factors_[user]
        y = self.item_factors_[item]
        return RatingExplanation(
            {
                MEAN_PART: float(self.mean_[0]),
                USER_PART: float(x[0]),
                ITEM_PART: float(y[0]),
                MATCH_PART: float(x[1:] @ y[1:]),
            }
        )
