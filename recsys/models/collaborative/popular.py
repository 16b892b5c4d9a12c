"""Baselines that every model must beat: random, popular, recent. They score every user."""

from __future__ import annotations

from copy import copy
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.data.hashing import id_bits, random_scores
from recsys.parameters import STRICT
from recsys.ranking.sorted_items import sort_once
from recsys.recommender import Explanation, Recommender
from recsys.types import Features, Histories, Interactions, Selection, TopItems


@dataclass(config=STRICT)
class Random(Recommender):
    """Scores each (user, item) pair by a random number from 0 to 1.

    The number depends only on the seed, the user and the row of the item. So it does not change if
    other users are scored in the same call. A user is identified by the id if :meth:`with_user_ids`
    was called, as in every run on either engine, and otherwise by the user number.
    """

    STATE: ClassVar = {"items_": "int[1]"}
    SCORES_EVERYONE: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "random"

    # Not a field: parameters alone are fields.
    _user_bits: ClassVar[np.ndarray | None] = None

    seed: Annotated[int, Field(ge=0, description="seed of the scores")] = 0

    def with_user_ids(self, user_ids: Any) -> Self:
        """Return a copy whose scores depend on the ids of users instead of their numbers.

        Args:
            user_ids: the ids of the users, in the order of the user numbers.
        """
        model = copy(self)
        model.__dict__["_user_bits"] = id_bits(user_ids)
        return model

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Store the number of items of ``train``, and return the model. ``features`` is not used."""
        self.items_ = np.array([len(train.items)])
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return random scores from 0 to 1, float32[m, items]. The values of the histories are not used."""
        users = np.arange(len(histories)) if users is None else np.asarray(users)
        if self._user_bits is not None:
            users = self._user_bits[users]
        return random_scores(self.seed, users, int(self.items_[0]))

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m], all True: the model scores every user."""
        return np.ones(len(histories), dtype=bool)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return the score of ``item`` without parts, and a note that it is random.

        The arguments are those of :meth:`recsys.recommender.Recommender.explain`.
        """
        return Explanation(self._score_of(history, item, user), note="The score is drawn at random.")


@dataclass(config=STRICT)
class Popular(Recommender):
    """Scores each item by the number of users who like it (value > 0), the same for all users.

    An item that nobody likes has the score 0, and no score is NaN.
    """

    STATE: ClassVar = {"scores_": "float32[items]"}
    SCORES_EVERYONE: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "popular"

    @property
    def n_items(self) -> int:
        """The number of items that the model was fitted with."""
        return len(self.scores_)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Count the users who like each item, and return the model. ``features`` is not used."""
        self.scores_ = self._count(train.item[train.value > 0], len(train.items))
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the same row of scores for each of m histories, float32[m, items].

        The array is read-only. The values of the histories and ``users`` are not used.
        """
        return np.broadcast_to(self.scores_, (len(histories), len(self.scores_)))

    def top_k(self, histories: Histories, selection: Selection, users: np.ndarray | None = None) -> TopItems:
        """Return the lists of :meth:`recsys.recommender.Recommender.top_k`, without a row of scores for each user.

        The values of the histories and ``users`` are not used.
        """
        return sort_once(self, self.scores_).shared_lists(selection)

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m], all True: the model scores every user."""
        return np.ones(len(histories), dtype=bool)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return the score of ``item`` as a constant, because it does not depend on the user.

        ``history`` and ``user`` are not used.
        """
        score = float(self.scores_[item])
        return Explanation(score, constant=score, note="The score is the same for everyone.")

    @staticmethod
    def _count(items: np.ndarray, n: int) -> np.ndarray:
        return np.bincount(items, minlength=n).astype(np.float32)


@dataclass(config=STRICT)
class Recent(Popular):
    """Scores each item by its number of likes among the newest ``share`` of all likes in train.

    A like is a (user, item) pair with a value above 0, at the time of its latest event. Of n likes,
    the newest ``ceil(share · n)`` count. Likes at the same time as the oldest of these count as
    well. An item without such a like scores 0. Without timestamps all likes have the same
    time, so all of them count and the scores are those of :class:`Popular`. The period is a share
    and not a number of days, because a share suits a log of two weeks as well as one of twenty
    years.
    """

    SOURCE: ClassVar = "recent"

    share: Annotated[float, Field(gt=0, le=1, description="the newest share of all likes, which is counted")] = 0.1

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Count the likes of each item among the newest ``share`` of all likes, and return the model.

        ``features`` is not used.
        """
        liked = train.value > 0
        item, time = train.item[liked], train.time[liked]
        since = newest_since(time, self.share) if len(time) else 0
        self.scores_ = self._count(item[time >= since], len(train.items))
        return self


def newest_since(times: np.ndarray, share: float) -> int:
    """Return the smallest of the ``ceil(share · n)`` largest of n times.

    So at least the share ``share`` of the times is not before the result.

    Args:
        times: int64[n], n ≥ 1, in any order.
        share: in (0, 1].

    >>> newest_since(np.array([10, 30, 20, 40, 50]), share=0.4)
    40
    """
    first = len(times) - int(np.ceil(share * len(times)))
    return int(np.partition(times, first)[first])
