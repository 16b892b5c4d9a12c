"""The cascade: models in order of preference. The first one that can score a user scores the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from recsys.ranking import rank
from recsys.recommender import Explanation, Recommender, score_histories
from recsys.types import Features, Histories, Interactions, Selection, TopItems


class Cascade(Recommender):
    """Scores each user by the first of its members that can score the user.

    So all scores of a user come from the same member. The first member is tried last for a user
    with fewer than ``min_history`` liked items. A user whom no member can score has no scores: all
    are NaN.

    The sources are the names of the members. If a member has several sources, its second and later
    sources follow its name.

    Attributes:
        members: name -> model, in the order of preference. The later ones are called fallbacks.
        min_history: the smallest number of liked items with which the first member is preferred. 0:
            it is always preferred.
        record: how a trial chose ``min_history``, the dict of
            :func:`recsys.evaluation.min_history.choose_min_history`. None without a trial.

    >>> from recsys.models import build
    >>> Cascade({"als": build("als", {}), "popular": build("popular", {})}).sources
    ('als', 'popular')
    """

    def __init__(
        self,
        members: Mapping[str, Recommender],
        min_history: int = 0,
        record: dict[str, Any] | None = None,
    ) -> None:
        self.members = members
        self.min_history = min_history
        self.record = record

    def with_members(self, members: Mapping[str, Recommender]) -> Cascade:
        """Return a new cascade of ``members``, with the same ``min_history`` and ``record``."""
        return Cascade(members, self.min_history, self.record)

    @property
    def sources(self) -> tuple[str, ...]:
        """The name of each member, followed by the second and later sources of that member."""
        return tuple(name for key, model in self.members.items() for name in (key, *model.sources[1:]))

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Fit every member on ``train``, and return the cascade."""
        for model in self.members.values():
            model.fit(train, features)
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of each user by the member that scores the user, float32[m, items].

        :meth:`member_of` says which member that is. The row of a user whom no member can score is
        all NaN.

        Raises:
            InputError: the scores of a member have the wrong shape or dtype.
        """
        users = _user_numbers(histories, users)
        member = self.member_of(histories, users)
        # The common case, everyone scored by the first member, needs no copy.
        if self.members and (member == 0).all():
            return score_histories(next(iter(self.members.values())), histories, users)
        scores = np.full(histories.shape, np.nan, dtype=np.float32)
        for position, model in enumerate(self.members.values()):
            rows = np.flatnonzero(member == position)
            if len(rows):
                scores[rows] = score_histories(model, histories[rows], users[rows])
        return scores

    def top_k(self, histories: Histories, selection: Selection, users: np.ndarray | None = None) -> TopItems:
        """Return the list of each user by the member that scores the user, as int32[m, k] and float32[m, k].

        The arguments are those of :meth:`recsys.recommender.Recommender.top_k`.
        """
        users = _user_numbers(histories, users)
        member = self.member_of(histories, users)
        items, scores = selection.empty_lists()
        for position, model in enumerate(self.members.values()):
            rows = np.flatnonzero(member == position)
            if len(rows) == len(histories):
                return rank.top_k(model, histories, selection, users)
            if len(rows):
                lists = rank.top_k(model, histories[rows], selection.select(rows), users[rows])
                items[rows], scores[rows] = lists
        return items, scores

    def source(self, histories: Histories, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return the source of each listed item, as a position in :attr:`sources`, int8[m, k].

        It is -1 for a user whom no member can score.

        Args:
            items: int[m, k], the items of each user's list, -1 for padding.
            users: int[m], the user numbers. None: 0, 1, …, m − 1.
        """
        users = _user_numbers(histories, users)
        member = self.member_of(histories, users)
        source = np.full(items.shape, -1, dtype=np.int8)
        offset = 0
        for position, model in enumerate(self.members.values()):
            rows = np.flatnonzero(member == position)
            if len(rows):
                source[rows] = offset + model.source(histories[rows], items[rows], users[rows])
            offset += len(model.sources)
        return source

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether at least one member can score each of m histories."""
        return self.member_of(histories, users) >= 0

    def member_of(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the position of the member that scores each history, or -1 if none can, int8[m].

        It is the first member that can score the history. For a history with fewer than
        ``min_history`` likes, the first member is tried last.
        """
        users = _user_numbers(histories, users)
        member = np.full(len(histories), -1, dtype=np.int8)
        skips_first = np.zeros(len(histories), dtype=bool)
        if self.min_history:
            skips_first = histories.n_liked < self.min_history
        models = list(enumerate(self.members.values()))
        for position, model in models:
            self._assign(member, (member < 0) & ~(skips_first & (position == 0)), position, model, histories, users)
        if skips_first.any():
            self._assign(member, member < 0, *models[0], histories, users)
        return member

    @staticmethod
    def _assign(
        member: np.ndarray,
        is_open: np.ndarray,
        position: int,
        model: Recommender,
        histories: Histories,
        users: np.ndarray,
    ) -> None:
        """Store the position of a model as the member of those users whom the model can score.

        Args:
            member: int8[m], the position of each user's member, which is changed.
            is_open: bool[m], the users who may get this model.
            position: the position of the model.
        """
        rows = np.flatnonzero(is_open)
        if len(rows):
            member[rows[model.can_score(histories[rows], users[rows])]] = position

    def scoring_member(self, history: Histories, user: int = 0) -> tuple[str, Recommender] | None:
        """Return (name, model) of the member that scores one history, or None if none can.

        Args:
            history: the history, with one row.
            user: the number of the user.
        """
        position = int(self.member_of(history, np.array([user]))[0])
        return None if position < 0 else list(self.members.items())[position]

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return the explanation of one score by the member that scores this history.

        If no member can score the history, the score is NaN and only a note explains it.

        The arguments are those of :meth:`recsys.recommender.Recommender.explain`.
        """
        member = self.scoring_member(history, user)
        if member is None:
            return Explanation(np.nan, note="No model has an opinion on this user.")
        return member[1].explain(history, item, user)


def _user_numbers(histories: Histories, users: np.ndarray | None) -> np.ndarray:
    """Return ``users``, or 0, 1, … for the histories if ``users`` is None; int[m]."""
    return np.arange(len(histories)) if users is None else np.asarray(users)
