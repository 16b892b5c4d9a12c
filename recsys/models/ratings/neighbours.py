"""The model ``rating_knn``: what the user gave to similar items, beside the biases."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.models.ratings.biases import Biases
from recsys.models.ratings.common_raters import predict_deviations
from recsys.parameters import STRICT
from recsys.rating_model import RatingModel
from recsys.types import Features, Interactions


@dataclass(config=STRICT)
class RatingKNN(RatingModel):
    """The biases plus the mean deviation of the user's ratings of similar items, weighted by similarity.

    Choose it where users rate many items, and where a prediction must be explained by ratings. The
    deviation of a rating is what the biases (``biases`` with its defaults) do not explain. Two
    items are similar if the users who rated both deviate alike: the correlation of the deviations,
    drawn towards 0 by ``shrink`` pseudo-users. Only items with a positive similarity count, at
    most ``neighbours`` of them, and ``damping`` draws the mean towards 0 where their similarities
    are small.

    The prediction is NaN for an unknown user or item, and if the user rated no similar item.

    Reference: Koren, ACM TKDD 2010, section 2.2.
    """

    STATE: ClassVar = {
        "mean_": "float64[1]",
        "user_bias_": "float64[users]",
        "item_bias_": "float64[items]",
        "user_": "int32[ratings]",
        "item_": "int32[ratings]",
        "deviation_": "float64[ratings]",
    }

    neighbours: Annotated[int, Field(ge=1, description="largest number of similar items that count")] = 40
    shrink: Annotated[float, Field(ge=0, description="pseudo-users of similarity 0 for each pair of items")] = 50.0
    damping: Annotated[float, Field(ge=0, description="pseudo-neighbour without a deviation, as its similarity")] = 0.5

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the biases, store the deviation of each rating from them, and return the model.

        ``features`` is not used.
        """
        biases = Biases().fit(train)
        self.mean_ = biases.mean_
        self.user_bias_ = biases.user_bias_
        self.item_bias_ = biases.item_bias_
        self.user_ = train.user.astype(np.int32)
        self.item_ = train.item.astype(np.int32)
        self.deviation_ = train.value.astype(np.float64) - biases.predict(train.user, train.item)
        return self

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the predicted rating of each pair, float64[m].

        It is the prediction of the biases plus the weighted mean deviation of the user's ratings of
        similar items. It is NaN for an unknown user or item, and if the user rated no similar item.

        Args:
            users, items: int[m], rows of the users and of the items of train, -1 where unknown.
        """
        predicted = np.full(len(users), np.nan)
        rows = np.flatnonzero((users >= 0) & (items >= 0))
        rows = rows[np.argsort(items[rows], kind="stable")]
        by_item = np.argsort(self.item_, kind="stable")
        pair_users = users[rows].astype(np.int64)
        pair_items = items[rows].astype(np.int64)
        deviation = predict_deviations(
            np.append(0, np.cumsum(np.bincount(self.user_, minlength=len(self.user_bias_)))),
            self.item_,
            self.deviation_,
            np.append(0, np.cumsum(np.bincount(self.item_, minlength=len(self.item_bias_)))),
            self.user_[by_item],
            self.deviation_[by_item],
            pair_users,
            pair_items,
            self.neighbours,
            self.shrink,
            self.damping,
        )
        predicted[rows] = self.mean_[0] + self.user_bias_[pair_users] + self.item_bias_[pair_items] + deviation
        return predicted
