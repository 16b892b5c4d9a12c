"""The interface of a model: what it must implement, what it may implement, and how it explains a
score.

A recommender is a function from histories to scores. A custom model inherits from
:class:`Recommender` and implements ``fit`` and ``score``. All other methods have defaults. A class
declares what it can do in class attributes, its capabilities (``EXPLAINS``, ``NEEDS_FEATURES`` …).
Callers rely on them, and the contract tests check them.
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
    """The parts of which a score is the sum. The parts of each kind, plus ``constant``, give the
    score.

    Attributes:
        score: the score that is explained. NaN means that the model has no score.
        history: float64[entries of the history], the contribution of each entry. None if the model
            does not compute it.
        features: feature -> its contribution.
        members: name of a part of a blend -> its contribution.
        constant: the part of the score that is the same for all users.
        note: one sentence that is shown after the parts, or alone if there are none.
    """

    score: float
    history: np.ndarray | None = None
    features: dict[str, float] = field(default_factory=dict)
    members: dict[str, float] = field(default_factory=dict)
    constant: float = 0.0
    note: str = ""


class Recommender(ABC):
    """A model that is fitted on interactions and then scores every item for any history.

    A second call of ``fit`` forgets the first. A score of NaN means that the model cannot score the
    item for the user (it has *no opinion*).
    """

    STATE: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Name -> description of each attribute that ``fit`` sets and that is saved with the model.

    The attributes are arrays, dense or sparse. A description such as ``"float32[items, rank]"`` is
    checked by ``recsys.array_files.require_arrays`` when the model is loaded.
    """

    SPACE: ClassVar[dict[str, tuple]] = {}
    """Parameter -> (low, high) or a list of values: what a search for good parameters tries by
    default."""

    NEEDS_FEATURES: ClassVar[bool] = False
    """Whether ``fit`` needs item features."""

    SCORES_EVERYONE: ClassVar[bool] = False
    """Whether every user gets scores, also a user without a history."""

    SCORES_NEW_ITEMS: ClassVar[bool] = False
    """Whether items that nobody liked in training get scores, from their features or otherwise."""

    USES_ORDER: ClassVar[bool] = False
    """Whether the order of events matters, in ``fit`` and in the histories that are scored.

    Such a model needs a log with times.
    """

    EXPLAINS: ClassVar[tuple[str, ...]] = ()
    """The kinds of parts that :meth:`explain` returns: "history", "features", "members".

    If it is empty, an explanation has only a note.
    """

    SOURCE: ClassVar[str] = ""
    """The name of the model in the column ``source`` of lists. If empty, it is the class name in
    lower case."""

    members: Mapping[str, Recommender] = MappingProxyType({})
    """The models that this model combines, by name. It is empty for most models."""

    record: dict[str, Any] | None = None
    """How the model chose its own settings, as a JSON object. None if it chose nothing."""

    losses_: np.ndarray | None = None
    """The objective after each sweep of training, float64[sweeps]. None for a model without sweeps."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the models that a score may come from. :meth:`source` returns positions in
        it."""
        return (self.SOURCE or type(self).__name__.lower(),)

    @property
    def n_items(self) -> int | None:
        """The number of items that the model was fitted with, or None if the model does not know
        it."""
        for member in self.members.values():
            return member.n_items
        return None

    @abstractmethod
    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn from ``train``. ``features`` has one row per item of ``train.items``."""

    @abstractmethod
    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each history: float32[m, items], NaN where there is
        none.

        The array may be read-only.

        Args:
            users: int[m], a number that identifies each user, for models that need it (for a random
                seed per user, or for stored factors). None means ``0 … m-1``.
        """

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether at least one item has a score for each history.

        The arguments are those of :meth:`score`.
        """
        return np.isfinite(score_histories(self, histories, users)).any(axis=1)

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray | csr_array | None:
        """Return one vector per history, float32[m, d] or csr, for measuring how similar users are.

        Similar users have vectors of similar direction. The vector is zero for a user of whom the
        model knows nothing. The result is None if the model has no user vectors.
        """
        return None

    def source(self, histories: Histories, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return int8[m, k]: the position in :attr:`sources` of the model that scored each listed
        item.

        Args:
            items: int[m, k], rows of items. -1 is padding, for which the result may be any number.
        """
        return np.zeros(items.shape, dtype=np.int8)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return the parts of the score of one item for one history.

        Args:
            history: the history, with one row.
            item: the row of the item.
            user: a number that identifies the user, as in :meth:`score`.
        """
        return Explanation(
            self._score_of(history, item, user),
            note="This model does not say what its score is made of.",
        )

    def _score_of(self, history: Histories, item: int, user: int = 0) -> float:
        """Return the score of one item for one history."""
        return float(score_histories(self, history, np.array([user]))[0, item])


class FitsFromSums(Recommender):
    """A model that can be fitted from sums over users, so that groups of users can be summed
    separately.

    ``fit(train)`` is the same as three steps: :meth:`prepare_sums` with the number of likes per
    item, :meth:`sum_users` for all users, and :meth:`fit_sums` with the result. The users may also
    be divided into groups: the sums of the groups, added up, give the same fit.
    """

    @abstractmethod
    def prepare_sums(self, likes: np.ndarray) -> None:
        """Prepare the model for calls of :meth:`sum_users`.

        Args:
            likes: int64[items], the number of users who like each item.

        Raises:
            InputError: the sums would need more memory than the model may use.
        """

    @abstractmethod
    def sum_users(self, histories: Histories) -> dict[str, np.ndarray | csr_array]:
        """Return name -> a sum over the users of ``histories``, as a dense or sparse matrix.

        The shapes do not depend on the users.

        Raises:
            InputError: the histories lack what the model learns from.
        """

    @abstractmethod
    def fit_sums(self, sums: Mapping[str, np.ndarray | csr_array]) -> None:
        """Fit the model from the sums over all users. The arrays may be overwritten."""


def score_histories(model: Recommender, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
    """Return the scores of a model, float32[m, items], after checking their shape and dtype.

    Raises:
        InputError: the histories have another number of items than the model was fitted with, or
            the scores have another shape or dtype.
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
    """Return ``scores`` unchanged if they are an array float32[m, items] for m histories.

    Args:
        name: the name of the model, for the error message.

    Raises:
        InputError: the shape or the dtype is another one. The message names it.
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
