"""Define the interface of a model: what it must implement, and what it may implement.

A model, or recommender, is a function from histories to scores. A custom model inherits from
:class:`Recommender` and implements ``fit`` and ``score``. All other methods have defaults. A class
declares in class attributes what it can do, for example ``EXPLAINS`` or ``NEEDS_FEATURES``. Callers
rely on these attributes, and the contract tests check them.
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
from recsys.types import Features, Histories, Interactions, Selection, TopItems


@dataclass(frozen=True)
class Explanation:
    """An explanation of one score by the contributions that add up to it.

    Contributions are given for up to three kinds: entries of the history, features, and members of
    a blend. For each kind that is present, its contributions plus ``constant`` give the score, up
    to rounding. All kinds are absent if the model cannot explain the score.

    Attributes:
        score: the score that is explained. NaN means that the model has no score.
        history: float64[entries of the history], the contribution of each entry. None if the model
            does not compute contributions of entries.
        features: feature name -> its contribution.
        members: name of a member of a blend -> its contribution.
        constant: the part of the score that does not depend on the history, for example the item's
            popularity.
        note: one sentence that is shown after the contributions, or alone if there are none.
    """

    score: float
    history: np.ndarray | None = None
    features: dict[str, float] = field(default_factory=dict)
    members: dict[str, float] = field(default_factory=dict)
    constant: float = 0.0
    note: str = ""


class Recommender(ABC):
    """The base class of all models. A model is fitted on interactions, then scores every item for
    any history.

    A second call of ``fit`` forgets the first. A score of NaN means that the model has no score for
    the item and the user (it has *no opinion*).
    """

    STATE: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Name -> description of each array that ``fit`` sets as an attribute, and that is saved with
    the model.

    The arrays are dense or sparse. :func:`recsys.array_files.require_arrays` checks the
    description, for example ``"float32[items, rank]"``, when the model is loaded.
    """

    SPACE: ClassVar[dict[str, tuple]] = {}
    """Parameter -> the values that ``recsys tune`` tries if the config does not name any.

    A tuple of two numbers is a range, both ends included. Any other tuple or list has the values to
    try.
    """

    NEEDS_FEATURES: ClassVar[bool] = False
    """Whether ``fit`` needs item features."""

    SCORES_EVERYONE: ClassVar[bool] = False
    """Whether the model has scores for every user, even for a user without a history."""

    SCORES_NEW_ITEMS: ClassVar[bool] = False
    """Whether the model has scores for items that nobody liked in train, for example from their
    features.
    """

    USES_ORDER: ClassVar[bool] = False
    """Whether the model uses the order of events, in ``fit`` and in the histories that are scored.

    If it is True, the log must have timestamps.
    """

    EXPLAINS: ClassVar[tuple[str, ...]] = ()
    """The kinds of contributions that :meth:`explain` returns: "history", "features", "members".

    If the tuple is empty, an explanation has only a note.
    """

    SOURCE: ClassVar[str] = ""
    """The name of the model in the column ``source`` of lists. Empty means the class name in
    lower case.
    """

    members: Mapping[str, Recommender] = MappingProxyType({})
    """Name -> model, for the models that this model combines. It is empty for most models."""

    record: dict[str, Any] | None = None
    """How the model chose its own settings, as a dict for JSON. None if the model chose nothing."""

    losses_: np.ndarray | None = None
    """float64[sweeps], the value of the objective after each sweep of training. A sweep is one pass
    over the data.

    It is None for a model without sweeps.
    """

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the models that a score may come from.

        :meth:`source` returns positions in this tuple. For a model without members it is one name:
        ``SOURCE``, or the class name in lower case.
        """
        return (self.SOURCE or type(self).__name__.lower(),)

    @property
    def n_items(self) -> int | None:
        """The number of items that the model was fitted with, or None if the model does not know
        it.
        """
        for member in self.members.values():
            return member.n_items
        return None

    @abstractmethod
    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn from ``train``, and return the fitted model itself.

        Args:
            train: the interactions to learn from.
            features: the features of the items, with one row per item of ``train.items``. None if
                there are none.
        """

    @abstractmethod
    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each history: float32[m, items]. NaN means no score.

        The array may be read-only.

        Args:
            histories: the histories of m users, over the items of ``fit``.
            users: int[m], a number that identifies each user. Some models need it, for a random
                seed per user or for stored factors. None means ``0 … m-1``.
        """

    def top_k(self, histories: Histories, selection: Selection, users: np.ndarray | None = None) -> TopItems | None:
        """Return the k best items for each history, int32[m, k], and their scores, float32[m, k]; or None.

        A model implements this if it can make lists without the scores of all items. The default is
        None, which means that it cannot. The lists must be those of :func:`recsys.ranking.rank.top_k`.

        Args:
            histories, users: as in :meth:`score`.
            selection: which items may be listed, and how many.
        """
        return None

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether the model has a finite score for at least one item.

        There is one value per history. The arguments are those of :meth:`score`.
        """
        return np.isfinite(score_histories(self, histories, users)).any(axis=1)

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray | csr_array | None:
        """Return one vector per history, from which the similarity of users is computed; or None.

        The result is float32[m, d] or csr (m, d). Similar users have vectors of similar direction.
        The vector is zero for a user of whom the model knows nothing. The default is None, which
        means that the model has no user vectors. The arguments are those of :meth:`score`.
        """
        return None

    def source(self, histories: Histories, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return which model scored each listed item: int8[m, k], positions in :attr:`sources`.

        Args:
            histories: the histories of the m users.
            items: int[m, k], rows of items. -1 is padding. The result is undefined there.
            users: as in :meth:`score`.
        """
        return np.zeros(items.shape, dtype=np.int8)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return the contributions to the score of one item for one history.

        The default has the score and a note, but no contributions.

        Args:
            history: the history of one user (one row).
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
    """A model that can be fitted from sums over users, so that groups of users can be summed in
    parallel.

    ``fit(train)`` equals three steps:

    1. :meth:`prepare_sums` with the number of likes of each item,
    2. :meth:`sum_users` for all users,
    3. :meth:`fit_sums` with the result.

    The second step may be called for groups of users. The results of the groups, added up, give the
    same fit.
    """

    @abstractmethod
    def prepare_sums(self, likes: np.ndarray) -> None:
        """Prepare the model for calls of :meth:`sum_users`.

        Args:
            likes: int64[items], the number of users who like each item.

        Raises:
            InputError: the sums would need more memory than the model's parameter ``memory_mb``
                allows.
        """

    @abstractmethod
    def sum_users(self, histories: Histories) -> dict[str, np.ndarray | csr_array]:
        """Return a dict: name -> a sum over the users of ``histories``, as a dense or sparse
        matrix.

        The names, shapes and dtypes are the same for every group of users, also for a group of no
        users. So the results of groups can be added without a change of dtype: a sum that starts
        with integers would lose the fractions of the others.

        Raises:
            InputError: the histories lack what the model learns from, such as times.
        """

    @abstractmethod
    def fit_sums(self, sums: Mapping[str, np.ndarray | csr_array]) -> None:
        """Fit the model from the sums over all users.

        Args:
            sums: the results of :meth:`sum_users`, added by name. The arrays may be overwritten.
        """


def score_histories(model: Recommender, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
    """Return the scores of a model, float32[m, items], after checking their shape and dtype.

    Args:
        model: a fitted model.
        histories: the histories of m users.
        users: as in :meth:`Recommender.score`.

    Raises:
        InputError: the histories have another number of items than the model was fitted with, or
            the scores have the wrong shape or dtype.
    """
    require_n_items(model, histories)
    return require_scores(model.score(histories, users), histories, type(model).__name__)


def require_n_items(model: Recommender, histories: Histories) -> None:
    """Check that histories have the number of items that a model was fitted with.

    Raises:
        InputError: they have another number.
    """
    rows, items = histories.shape
    if model.n_items not in (None, items):
        raise InputError(
            f"{type(model).__name__} was fitted with {model.n_items:,} items, but the histories have the shape ({rows},"
            f" {items}): give histories of the items that it was fitted with."
        )


def require_scores(scores: Any, histories: Histories, name: str) -> np.ndarray:
    """Return ``scores`` unchanged, after checking that they are an array float32[m, items].

    Args:
        scores: what ``score`` of a model returned.
        histories: the histories that were scored. They give m and the number of items.
        name: the name of the model, for the error message.

    Raises:
        InputError: the scores have the wrong shape or dtype. The message names it.
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
