"""The model ``repeat``: it recommends the items that the user had before, most frequent first.

It is the baseline for repeat purchases, known as personal top frequency in next-basket recommendation
(Li et al., A Next Basket Recommendation Reality Check, 2021). After the items of the user, a list has
the most popular items.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic.dataclasses import dataclass

from recsys.features.segment_popularity import popularity_below_zero
from recsys.models.collaborative.fading import RecencyDays
from recsys.parameters import STRICT
from recsys.recommender import Explanation, Recommender
from recsys.types import Features, Histories, Interactions


@dataclass(config=STRICT)
class Repeat(Recommender):
    """Scores the liked items of a history by their values, and all other items below 0 by popularity.
    The model is useful only with `exclude_seen = false`: otherwise its lists have only popular
    items.

    If events have no values and ``[weigh] aggregate`` is "sum", the value of a pair is its number
    of events. With ``recency_days`` a like of value v scores v · 2^(−age / recency_days), where
    the age is the number of days to the user's latest entry. The age is 0 if the time is unknown.
    An item that is not a like of the history scores p − (1 + max p), where p is the number of users
    who like it in train. So its score is below 0, and such items are in the order of ``popular``.
    No score is NaN.
    """

    STATE: ClassVar = {"popularity_": "float32[items]"}
    SPACE: ClassVar = {"recency_days": (1.0, 365.0)}
    SCORES_EVERYONE: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    EXPLAINS: ClassVar = ("history",)
    SOURCE: ClassVar = "repeat"

    recency_days: RecencyDays = None

    @property
    def n_items(self) -> int:
        """The number of items that the model was fitted with."""
        return len(self.popularity_)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Count the users who like each item in ``train``, and return the model.

        The counts order the items that are not likes of a history. ``features`` is not used.
        """
        likers = np.bincount(train.item[train.value > 0], minlength=len(train.items))
        self.popularity_ = popularity_below_zero(likers)
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each of m histories, float32[m, items].

        Scores are above 0 for the liked items of the history, and below 0 for all other items.
        ``users`` is not used.
        """
        scores = np.tile(self.popularity_, (len(histories), 1))
        is_liked = histories.values.data > 0
        items = histories.values.indices[is_liked]
        scores[histories.row_of_entry[is_liked], items] = self._strengths(histories)[is_liked]
        return scores

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m], all True: the model scores every user."""
        return np.ones(len(histories), dtype=bool)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each entry of one history adds to the score of ``item``.

        If the item is a like of the history, its own entry adds the whole score. Otherwise the
        whole score is the constant of the explanation. All other entries add 0.

        The arguments are those of :meth:`recsys.recommender.Recommender.explain`.
        """
        score = self._score_of(history, item, user)
        added = np.where((history.values.indices == item) & (history.values.data > 0), score, 0.0)
        if score > 0:
            return Explanation(score, history=added)
        return Explanation(score, history=added, constant=score, note="The user has not had it: it is popular.")

    def _strengths(self, histories: Histories) -> np.ndarray:
        """Return the value of each history entry, float32[nnz].

        It is reduced by the age of the entry if ``recency_days`` is set.
        """
        values = histories.values.data.astype(np.float32)
        if self.recency_days is None or histories.times is None:
            return values
        faded = values * np.exp2(-histories.ages() / self.recency_days)
        # However old, what the user had stays above what is popular.
        return np.maximum(faded, np.finfo(np.float32).tiny).astype(np.float32)
