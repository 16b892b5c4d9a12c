"""The interface of a model that predicts ratings: the value that a user gives to an item.

It is another question than that of :mod:`recsys.recommender`, whose models order items for a list.
A model of ratings learns from the values alone, and is judged by the size of its errors
(``[judge] task = "ratings"``, docs/ratings.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from recsys.errors import InputError
from recsys.types import Features, Interactions


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
