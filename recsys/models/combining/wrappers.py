"""Recommenders that are not trained: they wrap stored scores, stored factors, or segments of users."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from recsys.errors import RunFolderError
from recsys.features.segment_popularity import Segments
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.popular import Random
from recsys.models.combining.cascade import Cascade
from recsys.recommender import Explanation, Recommender
from recsys.types import Features, Histories, Interactions, Selection, TopItems


class FixedScores(Recommender):
    """Scores users by an array of scores that was computed elsewhere.

    Args:
        scores: float[users, items], one row per user number.
        source: the name of the scores in the column ``source`` of lists.

    Attributes:
        scores: the scores as float32[users, items].
    """

    def __init__(self, scores: np.ndarray, source: str) -> None:
        self.scores = np.asarray(scores, dtype=np.float32)
        self._source = source

    @property
    def sources(self) -> tuple[str, ...]:
        """The name of the scores, as a tuple with one element."""
        return (self._source,)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Return the model unchanged, because there is nothing to learn."""
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the stored rows of ``users``, float32[m, items].

        The histories are not used, except for their number m. ``users`` = None means the rows
        0, 1, …, m − 1.
        """
        return self.scores[np.arange(len(histories)) if users is None else users]


class StoredFactors(Recommender):
    """ALS that scores a user by a stored factor, without looking at the history.

    The factor of a user without a stored one is computed from the history (fold-in).

    Attributes:
        als: the fitted ALS model, with the item factors.
        user_factors: float32[users, rank], the stored factor of each user number, NaN where there
            is none.
    """

    def __init__(self, als: ALS, user_factors: np.ndarray) -> None:
        self.als = als
        self.user_factors = user_factors

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources of the ALS model, usually ``("als",)``."""
        return self.als.sources

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Raise RunFolderError: the stored factors were trained elsewhere, so this model has no fit."""
        raise RunFolderError("a model with stored factors is not trained again: train a run, and bundle that.")

    @property
    def n_items(self) -> int:
        """The number of items that the model was fitted with."""
        return self.als.n_items

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each of m users, float32[m, items].

        A score is NaN if the item has no factor, or if the user has no stored factor and no liked
        item of the history has a factor.

        Args:
            users: int[m], the user numbers. None: 0, 1, …, m − 1.
        """
        return self.als.score_vectors(self.user_vectors(histories, users), self.can_score(histories, users))

    def top_k(self, histories: Histories, selection: Selection, users: np.ndarray | None = None) -> TopItems:
        """Return the lists of :meth:`recsys.recommender.Recommender.top_k` by the vectors of the users."""
        vectors = self.user_vectors(histories, users)
        return self.als.sorted_items.top_k(vectors, selection, self.can_score(histories, users))

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether each of m users has a stored factor, or can be folded in.

        A user can be folded in if a liked item of the history has a factor.
        """
        is_stored = self._stored(histories, users)[1]
        return is_stored if is_stored.all() else is_stored | self.als.can_score(histories)

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the stored factor of each user, or else the fold-in of the history, float32[m, rank]."""
        factors, is_stored = self._stored(histories, users)
        folded_in = np.flatnonzero(~is_stored)
        if len(folded_in):
            factors[folded_in] = self.als.user_factors(histories[folded_in])
        return factors

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each entry of the history adds to the score of ``item``, as computed by fold-in.

        A user with a stored factor is scored by that factor, so this score may differ a little from
        the one in the list. It is NaN, without parts, if no liked item of the history has a factor.

        Args:
            history: the history, with one row.
            item: the row of the item.
            user: not used, because fold-in needs the history alone.
        """
        return self.als.explain(history, item, user)

    def _stored(self, histories: Histories, users: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the stored factor of each user, float32[m, rank], and whether there is one, bool[m]."""
        factors = self.user_factors[np.arange(len(histories)) if users is None else users]
        return factors, ~np.isnan(factors).any(axis=1)


class SegmentMember(Recommender):
    """Scores items by their popularity in the user's segment.

    A segment is the users with the same values of some columns of the users table, such as the
    country. The scores of a user without a segment are NaN.

    Attributes:
        segments: the segments and their scores.
        segment_rows: int64[users], the row in ``segments`` of each user number's segment, -1 for none.
    """

    def __init__(self, segments: Segments, segment_rows: np.ndarray) -> None:
        self.segments = segments
        self.segment_rows = segment_rows

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources: name i is for segments that the first i + 1 columns define.

        For the columns country and age, the names are ``segment:country`` and
        ``segment:country+age``.
        """
        return self.segments.sources

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Raise RunFolderError: segments are counted once for all models of a run, not fitted here."""
        raise RunFolderError("segments are not trained as a model: train a run with fallback = 'segment'.")

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of each user's segment, float32[m, items].

        All scores of a user without a segment are NaN. The histories are not used, except for their
        number m.

        Args:
            users: int[m], the user numbers. None: 0, 1, …, m − 1.
        """
        rows = self._rows(histories, users)
        scores = np.full(histories.shape, np.nan, dtype=np.float32)
        scores[rows >= 0] = self.segments.scores[rows[rows >= 0]]
        return scores

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether each of m users has a segment."""
        return self._rows(histories, users) >= 0

    def source(self, histories: Histories, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return the source of each item, as a position in ``sources``, int8[m, k].

        All items of a user have the same source: the number of columns that define the user's
        segment, minus one. It is 0 for a user without a segment, who has no scores.

        Args:
            histories: the histories of m users, of which only the number m is used.
            items: int[m, k], of which only the shape is used.
            users: int[m], the user numbers. None: 0, 1, …, m − 1.
        """
        depth = np.append(self.segments.depths, 0)[self._rows(histories, users)]
        return np.broadcast_to(depth[:, None], items.shape)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return the score of ``item`` as a constant: the share of the segment's users who like it.

        The score is NaN if the user has no segment.

        Args:
            history: not used.
            item: the row of the item.
            user: the number of the user.
        """
        row = int(self.segment_rows[user])
        if row < 0:
            return Explanation(np.nan)
        values = ", ".join(map("=".join, zip(self.segments.columns, self.segments.keys[row], strict=False)))
        score = float(self.segments.scores[row, item])
        return Explanation(
            score, constant=score, note=f"The score is the share of users of {values} who like the item."
        )

    def _rows(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        """Return the row of each user's segment, int64[m], -1 for users without a segment."""
        return self.segment_rows[np.arange(len(histories)) if users is None else users]


def with_stored_factors(model: Recommender, user_factors: np.ndarray | None) -> Recommender:
    """Return a model that scores users by stored factors (:class:`StoredFactors`) instead of fold-in.

    In a cascade, only the first member is replaced.

    Args:
        model: an ALS, or a cascade whose first member is ALS.
        user_factors: float32[users, rank], as for :class:`StoredFactors`. None: the model is
            returned unchanged.

    Raises:
        RunFolderError: the model, or the first member of the cascade, is not an ALS.
    """
    if user_factors is None:
        return model
    if isinstance(model, Cascade):
        (name, first), *fallbacks = model.members.items()
        return model.with_members({name: with_stored_factors(first, user_factors), **dict(fallbacks)})
    if not isinstance(model, ALS):
        raise RunFolderError(f"stored factors belong to ALS, not to {type(model).__name__}: bundle the run again.")
    return StoredFactors(model, user_factors)


def with_user_ids(model: Recommender, user_ids: Any) -> Recommender:
    """Return a model whose random scores depend on the ids of users, so that both engines draw the same.

    Any other model is returned unchanged.

    Args:
        model: a fitted model.
        user_ids: the ids of the users, in the order of the user numbers.
    """
    if isinstance(model, Random):
        return model.with_user_ids(user_ids)
    return model


def insert_segment_fallback(model: Recommender, segments: Segments | None, user_ids: Any) -> Recommender:
    """Return a cascade with popularity by segment between its first member and its fallbacks.

    If there are no segments, or the model is not a cascade, the model is returned unchanged.

    Args:
        model: a model, usually a cascade.
        segments: the segments and their scores, or None.
        user_ids: the ids of the users, in the order of the user numbers, to look up their segments.
    """
    if segments is None:
        return model
    return with_segment_rows(model, segments, segments.of_users(user_ids))


def with_segment_rows(model: Recommender, segments: Segments, segment_rows: np.ndarray) -> Recommender:
    """Return a cascade with popularity by segment between its first member and its fallbacks.

    Unlike :func:`insert_segment_fallback`, it takes the segment of each user and not the ids. A
    model that is not a cascade is returned unchanged.

    Args:
        model: a model, usually a cascade.
        segments: the segments and their scores.
        segment_rows: int64[users], as for :class:`SegmentMember`.
    """
    if not isinstance(model, Cascade):
        return model
    (name, first), *fallbacks = model.members.items()
    segment_member = SegmentMember(segments, segment_rows)
    return model.with_members({name: first, segments.sources[0]: segment_member, **dict(fallbacks)})
