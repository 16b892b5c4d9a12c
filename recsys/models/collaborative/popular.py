"""What every model must beat: random, popular, recently popular. They answer everyone, whatever the history."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array

from recsys.data.hashing import random_scores
from recsys.parameters import STRICT
from recsys.types import Features, Interactions


@dataclass(config=STRICT)
class Random:
    """A score in [0, 1) for every (user, item), the same however users are batched or ordered."""

    STATE: ClassVar = ("items_",)
    sources: ClassVar = ("random",)

    seed: Annotated[int, Field(ge=0)] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Remember how many items there are."""
        self.items_ = np.array([len(train.items)])
        return self

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items] that depend on the seed, the user's number and the item's row alone."""
        users = np.arange(histories.shape[0]) if users is None else np.asarray(users)
        return random_scores(self.seed, users, int(self.items_[0]))

    def knows(self, histories: csr_array) -> np.ndarray:
        """Return bool[m], all True."""
        return np.ones(histories.shape[0], dtype=bool)


@dataclass(config=STRICT)
class Popular:
    """Items by the number of users who like them (value > 0); an item that nobody likes scores 0."""

    STATE: ClassVar = ("scores_",)
    sources: ClassVar = ("popular",)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Count the likers of every item."""
        self.scores_ = self._count(train.item[train.value > 0], len(train.items))
        return self

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items], read-only: the same row for everyone."""
        return np.broadcast_to(self.scores_, (histories.shape[0], len(self.scores_)))

    def knows(self, histories: csr_array) -> np.ndarray:
        """Return bool[m], all True."""
        return np.ones(histories.shape[0], dtype=bool)

    @staticmethod
    def _count(items: np.ndarray, n: int) -> np.ndarray:
        return np.bincount(items, minlength=n).astype(np.float32)


@dataclass(config=STRICT)
class Recent(Popular):
    """Items by the number of likes among the newest ``share`` of all likes; ties in time at the border count.

    A share of the log fits a log of two weeks as well as one of twenty years, where no fixed number of days
    does. Without timestamps everything is equally new, and this is :class:`Popular`.
    """

    sources: ClassVar = ("recent",)

    share: Annotated[float, Field(gt=0, le=1)] = 0.1

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Count the likers of every item since the time at which the newest ``share`` begins."""
        liked = train.value > 0
        item, time = train.item[liked], train.time[liked]
        since = newest_since(time, self.share) if len(time) else 0
        self.scores_ = self._count(item[time >= since], len(train.items))
        return self


def newest_since(times: np.ndarray, share: float) -> int:
    """Return the time of the first of the newest ``ceil(share·n)`` of n ≥ 1 times.

    >>> newest_since(np.array([10, 30, 20, 40, 50]), share=0.4)
    40
    """
    first = len(times) - int(np.ceil(share * len(times)))
    return int(np.partition(times, first)[first])
