"""The model ``rating_knn``: what the user gave to similar items, beside the biases."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.models.ratings.biases import Biases
from recsys.models.ratings.common_raters import predict_deviations
from recsys.parameters import STRICT
from recsys.rating_model import ITEM_PART, MEAN_PART, SIMILAR_PART, USER_PART, RatingExplanation, RatingModel
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

    def explain(self, user: int, item: int) -> RatingExplanation:
        """Return the parts of one prediction: the mean, the two biases, and the user's ratings of similar items.

        The last part is the sum over the similar items j that count of s_ij · e_uj / (damping + Σ_j s_ij), with
        the similarities s and the deviations e of :func:`predict_deviations`.
        """
        similar, deviation, similarity = self._similar_rated_items(user, item)
        if not len(similar):
            return RatingExplanation({})
        added = similarity * deviation / (self.damping + similarity.sum())
        parts = {
            MEAN_PART: float(self.mean_[0]),
            USER_PART: float(self.user_bias_[user]),
            ITEM_PART: float(self.item_bias_[item]),
            SIMILAR_PART: float(added.sum()),
        }
        return RatingExplanation(parts, dict(zip(similar.tolist(), added.tolist(), strict=True)))

    def _similar_rated_items(self, user: int, item: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the items of the user that count for a prediction: rows, deviations and similarities, best first."""
        deviation_of = np.full(len(self.user_bias_), np.nan)
        is_of_item = self.item_ == item
        deviation_of[self.user_[is_of_item]] = self.deviation_[is_of_item]
        rated = np.flatnonzero((self.user_ == user) & (self.item_ != item))
        similarity = np.array([self._similarity(deviation_of, int(self.item_[entry])) for entry in rated])
        best_first = np.lexsort((self.item_[rated], -similarity))[: self.neighbours]
        counts = best_first[similarity[best_first] > 0]
        return self.item_[rated[counts]], self.deviation_[rated[counts]], similarity[counts]

    def _similarity(self, deviation_of: np.ndarray, item: int) -> float:
        """Return the similarity of an item to another one.

        Args:
            deviation_of: float64[users], the deviation of each user's rating of the other item, NaN without one.
            item: the row of the item.
        """
        entries = np.flatnonzero(self.item_ == item)
        entries = entries[~np.isnan(deviation_of[self.user_[entries]])]
        e_i = deviation_of[self.user_[entries]]
        e_j = self.deviation_[entries]
        product = float(e_i @ e_j)
        if not product > 0:
            return 0.0
        n = len(entries)
        return n / (n + self.shrink) * product / float(np.sqrt((e_i @ e_i) * (e_j @ e_j)))
