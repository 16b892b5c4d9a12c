"""The contract of a model: what it must do, what it may do, and how it explains a score. Nothing
else is asked of one.

A recommender is a function from histories to scores. A model of one's own inherits
:class:`Recommender` and writes ``fit`` and ``score``; everything else has a default. What a class
claims by its capabilities (``EXPLAINS``, ``NEEDS_FEATURES`` …) is what callers ask, and what the
contract tests hold it to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.types import Features, Histories, Interactions


@dataclass(frozen=True)
class Explanation:
    """What a score is made of. Each kind of part sums to the score, together with ``constant``.

    ``score``: the score that is explained, NaN = no opinion. ``history``: float64[entries of the
    history], what each entry adds; None where the model does not work that way. ``features``:
    feature -> what it adds. ``members``: part of a blend -> what it adds. ``constant``: what the
    item has for everyone. ``note``: one sentence that is true besides, or instead where there are
    no parts.
    """

    score: float
    history: np.ndarray | None = None
    features: dict[str, float] = field(default_factory=dict)
    members: dict[str, float] = field(default_factory=dict)
    constant: float = 0.0
    note: str = ""


class Recommender(ABC):
    """A model: fitted on interactions, it scores every item for any history.

    ``fit`` always starts afresh: fitting twice is fitting once. A score of NaN means *no opinion*.
    """

    STATE: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The attributes that ``fit`` learns: arrays, dense or sparse, which saving writes and loading
    sets. Each is described, such as ``"float32[items, rank]"``, as
    ``recsys.array_files.require_arrays`` checks it when a model is loaded.
    """

    SPACE: ClassVar[dict[str, tuple]] = {}
    """Parameter -> (low, high), or the values, that a search tries by default."""

    NEEDS_FEATURES: ClassVar[bool] = False
    """``fit`` must be given item features."""

    SCORES_EVERYONE: ClassVar[bool] = False
    """Every user gets scores, one without a history too."""

    SCORES_NEW_ITEMS: ClassVar[bool] = False
    """Items that nobody liked in training get scores, from their features or otherwise."""

    USES_ORDER: ClassVar[bool] = False
    """``fit`` learns from the order of events, so it needs a log with times; and the order of a history
    changes its scores.
    """

    EXPLAINS: ClassVar[tuple[str, ...]] = ()
    """The kinds of part that :meth:`explain` gives: "history", "features", "members". Empty: a note
    alone.
    """

    SOURCE: ClassVar[str] = ""
    """The name of the model in the column ``source`` of lists; empty: the name of the class, in
    small letters.
    """

    members: Mapping[str, Recommender] = MappingProxyType({})
    """The models that this one is made of, by name; empty for most."""

    record: dict[str, Any] | None = None
    """How the model chose, if it chose: JSON."""

    losses_: np.ndarray | None = None
    """The objective after each sweep of training, float64[sweeps]; None for a model without sweeps."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of what a score may come from; :meth:`source` gives positions in it."""
        return (self.SOURCE or type(self).__name__.lower(),)

    @property
    def n_items(self) -> int | None:
        """The number of items that the model was fitted with; None where the model does not say."""
        for member in self.members.values():
            return member.n_items
        return None

    @abstractmethod
    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn from ``train``; ``features`` has one row per item of ``train.items``."""

    @abstractmethod
    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items], NaN = no opinion; the array may be read-only.

        ``users``: int[m], a number that identifies each user, for models that need an identity
        (seeds per user, stored factors); None means ``0 … m-1``.
        """

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: the model has an opinion on at least one item for the row."""
        return np.isfinite(score_histories(self, histories, users)).any(axis=1)

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray | csr_array | None:
        """Return one vector per row, float32[m, d] or csr, whose directions say how alike users are;
        zeros for a row of which nothing is known. None for a model without vectors of users.
        """
        return None

    def source(self, histories: Histories, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return int8[m, k]: for each listed item (-1 = padding, any answer), the position of its
        source.
        """
        return np.zeros(items.shape, dtype=np.int8)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what the score of ``item`` (a row) is made of for one history (1, items)."""
        return Explanation(
            self._score_of(history, item, user),
            note="This model does not say what its score is made of.",
        )

    def _score_of(self, history: Histories, item: int, user: int = 0) -> float:
        """Return the score of one item for one history."""
        return float(score_histories(self, history, np.array([user]))[0, item])


class FitsFromSums(Recommender):
    """A model that is fitted from sums over users, so that parts of the users can be summed apart.

    ``fit(train)`` does the same as :meth:`prepare_sums` with the likes of each item, then
    :meth:`fit_sums` of what :meth:`sum_users` returns for all users; so do the parts of any
    division of the users, when what they return is added up.
    """

    @abstractmethod
    def prepare_sums(self, likes: np.ndarray) -> None:
        """Get ready to sum.

        Args:
            likes: int64[items], the number of users who like each item.

        Raises:
            InputError: the sums need more memory than the model may take.
        """

    @abstractmethod
    def sum_users(self, histories: Histories) -> dict[str, np.ndarray | csr_array]:
        """Return name -> sums over these users: dense or sparse matrices, the same shapes for any
        users.

        Raises:
            InputError: the histories do not have what the model learns from.
        """

    @abstractmethod
    def fit_sums(self, sums: Mapping[str, np.ndarray | csr_array]) -> None:
        """Learn from the sums over all users. The arrays may be overwritten."""


def score_histories(model: Recommender, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
    """Return the scores of a model, one row per history and one column per item.

    Raises:
        InputError: histories of other items than the model was fitted with, or scores that are not
            as :func:`require_scores` says.
    """
    rows, items = histories.shape
    name = type(model).__name__
    if model.n_items not in (None, items):
        raise InputError(
            f"{name} was fitted with {model.n_items:,} items, but the histories have the shape ({rows}, {items}): give"
            " histories of the items that it was fitted with."
        )
    return require_scores(model.score(histories, users), histories, name)


def require_scores(scores: Any, histories: Histories, name: str) -> np.ndarray:
    """Return scores if they are an array float32[m, items] for m histories.

    Args:
        name: of the model, for the message.

    Raises:
        InputError: another shape or dtype; both are named.
    """
    rows, items = histories.shape
    if np.shape(scores) != histories.shape:
        raise InputError(
            f"{name}.score returned scores of shape {np.shape(scores)} for {rows:,} histories of {items:,} items: they"
            f" must have the shape ({rows}, {items})."
        )
    if not isinstance(scores, np.ndarray) or scores.dtype != np.float32:
        kind = f"an array of {scores.dtype}" if isinstance(scores, np.ndarray) else f"a {type(scores).__name__}"
        raise InputError(
            f"{name}.score returned {kind}: scores are a NumPy array of float32, so return them with"
            " .astype(np.float32)."
        )
    return scores
