"""The interface of a model that predicts ratings: the value that a user gives to an item.

A model of :mod:`recsys.recommender` orders items for a list. A model of ratings answers another
question: it learns from the values alone, and is judged by the size of its errors
(``[judge] task = "ratings"``, docs/ratings.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from recsys.errors import InputError
from recsys.types import Features, Interactions

MEAN_PART = "mean of all ratings"
USER_PART = "bias of the user"
ITEM_PART = "bias of the item"
MATCH_PART = "product of the factors of user and item"
SIMILAR_PART = "the user's ratings of similar items"
"""Names of parts in the explanations of several models."""


@dataclass(frozen=True)
class RatingExplanation:
    """The parts that add up to one predicted rating.

    Attributes:
        parts: name -> what this part adds. Their sum is the prediction, up to rounding. Empty if the
            model has no opinion on the pair, or cannot explain its prediction.
        ratings: row of an item -> what the user's own rating of this item adds. Their sum is the
            last of the ``parts``. Empty if the model does not compare items.
    """

    parts: dict[str, float]
    ratings: dict[int, float] = field(default_factory=dict)


class RatingModel(ABC):
    """A model that is fitted on ratings and then predicts the rating of any (user, item) pair.

    Users and items are given by their rows in ``train.users`` and ``train.items``. Row -1 is a user
    or an item that train does not have. A prediction of NaN means that the model has *no opinion*
    on the pair. Predictions may lie outside the scale of the ratings; callers clip them. A second
    call of ``fit`` forgets the first.
    """

    STATE: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Name -> description of each array that ``fit`` sets, as in ``Recommender.STATE``."""

    HAS_SPREAD: ClassVar[bool] = False
    """Whether :meth:`spread` returns numbers."""

    NEEDS_REVIEWS: ClassVar[bool] = False
    """Whether ``fit`` needs ``features.reviews``."""

    members: Mapping[str, RatingModel] = MappingProxyType({})
    """Name -> model, for the models that this model combines. It is empty for most models."""

    record: dict[str, Any] | None = None
    """How the model chose its own settings, as a dict for JSON. None if the model chose nothing."""

    @property
    def uses_features(self) -> bool:
        """Whether ``fit`` uses the attributes of items, with the parameters of this model. False by default."""
        return False

    @abstractmethod
    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn from the values of ``train``, and return the fitted model itself.

        Args:
            train: the ratings, one per (user, item) pair.
            features: the features of the items, with one row per item of ``train.items``. None if
                there are none.
        """

    @abstractmethod
    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the predicted rating of each pair, float64[m].

        NaN means that the model has no opinion on the pair.

        Args:
            users, items: int[m], the rows of the users and of the items in train, -1 if it does not
                have them.
        """

    def spread(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the standard deviation of the rating around its prediction, float64[m].

        It includes both the uncertainty of the model and the noise of a single rating. It is NaN
        where the model has no opinion on the pair, and everywhere if ``HAS_SPREAD`` is False.

        Args:
            users, items: as for :meth:`predict`.
        """
        return np.full(len(users), np.nan)

    def explain(self, user: int, item: int) -> RatingExplanation:
        """Return the parts of the predicted rating of one pair. By default there are none.

        Args:
            user, item: the row of the user and of the item in train, -1 if it does not have them.
        """
        return RatingExplanation({})


def predict_ratings(model: RatingModel, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the predictions of a model, float64[m], after checking their shape and dtype.

    Args:
        model: a fitted model.
        users, items: as for :meth:`RatingModel.predict`.

    Raises:
        InputError: the model returned something other than float64[m], or an infinite number.
    """
    predicted = model.predict(users, items)
    name = type(model).__name__
    if not isinstance(predicted, np.ndarray) or predicted.shape != users.shape or predicted.dtype != np.float64:
        shape = f"{getattr(predicted, 'dtype', type(predicted).__name__)}{list(np.shape(predicted))}"
        raise InputError(f"{name}.predict returned {shape} for {len(users):,} pairs: return float64[{len(users)}].")
    if np.isinf(predicted).any():
        raise InputError(f"{name}.predict returned an infinite number: return NaN where there is no prediction.")
    return predicted
