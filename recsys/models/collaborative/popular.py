"""Baselines that every model must beat: random, popular, recently popular. They score every user."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.data.hashing import random_scores
from recsys.parameters import STRICT
from recsys.recommender import Explanation, Recommender
from recsys.types import Features, Histories, Interactions


@dataclass(config=STRICT)
class Random(Recommender):
    """A score in [0, 1) for every (user, item), the same however users are batched or ordered."""

    STATE: ClassVar = ("items_",)
    SCORES_EVERYONE: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "random"

    seed: Annotated[int, Field(ge=0, description="seed of the scores")] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Store the number of items."""
        self.items_ = np.array([len(train.items)])
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items] that depend on the seed, the user's number and the item's row alone."""
        users = np.arange(len(histories)) if users is None else np.asarray(users)
        return random_scores(self.seed, users, int(self.items_[0]))

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m], all True."""
        return np.ones(len(histories), dtype=bool)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return the score, and a note that it is random."""
        return Explanation(self._score_of(history, item, user), note="The score is drawn at random.")


@dataclass(config=STRICT)
class Popular(Recommender):
    """Items by the number of users who like them (value > 0); an item that nobody likes scores 0."""

    STATE: ClassVar = ("scores_",)
    SCORES_EVERYONE: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "popular"

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Count the likers of every item."""
        self.scores_ = self._count(train.item[train.value > 0], len(train.items))
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items], read-only: the same row for every user."""
        return np.broadcast_to(self.scores_, (len(histories), len(self.scores_)))

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m], all True."""
        return np.ones(len(histories), dtype=bool)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return the score as a constant, because it does not depend on the user."""
        score = float(self.scores_[item])
        return Explanation(score, constant=score, note="The score is the same for everyone.")

    @staticmethod
    def _count(items: np.ndarray, n: int) -> np.ndarray:
        return np.bincount(items, minlength=n).astype(np.float32)


@dataclass(config=STRICT)
class Recent(Popular):
    """Items by the number of likes among the newest ``share`` of all likes; ties in time at the border count.

    A share of the log suits a log of two weeks as well as one of twenty years; a fixed number of
    days does not. Without timestamps all likes are equally new, and this is :class:`Popular`.
    """

    SOURCE: ClassVar = "recent"

    share: Annotated[float, Field(gt=0, le=1, description="the newest share of all likes, which is counted")] = 0.1

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
