"""The model ``blend``: a weighted mean of the scores of several models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array

from recsys.errors import ConfigError, suggest_nearest
from recsys.kernels import add_weighted
from recsys.parameters import STRICT, check_nested
from recsys.recommender import Explanation, Recommender, score_histories
from recsys.types import Features, Histories, Interactions

LENGTHS = (2, 5, 20)
"""Numbers of likes at which the second and later groups of histories begin: the groups have 0-1, 2-4,
5-19 and 20+ likes."""

RRF_OFFSET = 60
"""The constant c of reciprocal rank fusion, which scores an item by 1/(c + rank).

Source: Cormack, Clarke and Büttcher, SIGIR 2009.
"""

BLOCK_CELLS = 2**18
"""Number of scores that are rescaled at a time, so that their copies in float64 stay in the cache."""

Scaling = Annotated[
    Literal["standard", "rrf"],
    Field(
        description="how the scores of members become comparable: standard (mean 0 and deviation 1 per user) or "
        "rrf (reciprocal rank fusion)"
    ),
]


class Blended(Recommender):
    """The base class of blends: the score of an item is a weighted mean of the members' scores.

    The score of an item is Σ_p w_p z_p / Σ_p w_p over the members p that have a score for it. z_p
    is the member's score on a scale that is common to all members (:func:`rescale_rows`). With
    ``standard``, the scores of a user have mean 0 and standard deviation 1. With ``rrf``
    (reciprocal rank fusion), z_p is 1/(60 + rank). The weights w_p depend on the number of items
    that the user likes. The score is NaN if no member with a weight above 0 has a score.

    Items that nobody liked in training (*new items*) may have other weights, ``cold_weights_``.
    They apply to scores that are rescaled over the new items alone, because rescaling over all
    items makes the scores of new items nearly equal. These weights decide only the order of the new
    items relative to each other. The general weights decide which positions of a list go to new
    items.

    Attributes:
        members: name -> fitted model.
        scaling: "standard" or "rrf".
        weights_: float64[4, members], a row of weights per group of history lengths
            (:func:`length_groups`).
        cold_weights_: float64[members]. If all are 0, new items are treated like all others.
        cold_: bool[items], True for a new item.
    """

    STATE: ClassVar = {
        "weights_": f"float64[{len(LENGTHS) + 1}, members]",
        "cold_weights_": "float64[members]",
        "cold_": "bool[items]",
    }
    EXPLAINS: ClassVar = ("members",)

    scaling: Scaling
    members: dict[str, Recommender]
    weights_: np.ndarray  # float64[len(LENGTHS) + 1, members]
    cold_weights_: np.ndarray  # float64[members], all 0: new items are treated like all items
    cold_: np.ndarray  # bool[items]: nobody liked the item in training

    @property
    def sources(self) -> tuple[str, ...]:
        """Two names: that of the model, and the same with ": new item" for new items.

        For example ``("hybrid", "hybrid: new item")``.
        """
        name = type(self).__name__.lower()
        return name, f"{name}: new item"

    def source(self, histories: Histories, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return the source of each listed item, as a position in :attr:`sources`, int8[m, k].

        It is 1 for a new item, which nobody liked in training, and 0 for any other item. The
        histories and ``users`` are not used.

        Args:
            items: int[m, k], the items of each list. -1 is padding, whose result has no meaning.
        """
        return self.cold_[items].astype(np.int8)

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each of m histories, float32[m, items].

        A score is NaN if no member with a weight above 0 has a score for the item.

        Args:
            users: int[m], the user numbers, for the members. None: 0, 1, …, m − 1.
        """
        users = np.arange(len(histories)) if users is None else users
        weights = self.weights_[length_groups(histories)]
        rescaled = self._rescaled_scores(histories, users)
        scores = weighted_mean(((z, weights[:, p]) for p, z in rescaled.items()), histories.shape)
        cold_items = np.flatnonzero(self.cold_)
        if self.cold_weights_.any() and len(cold_items):
            shape = (len(histories), len(cold_items))
            cold_scores = (
                (rescale_columns(z, cold_items, self.scaling), np.full(shape[0], self.cold_weights_[p]))
                for p, z in rescaled.items()
            )
            scores = reassign_scores(scores, cold_items, weighted_mean(cold_scores, shape))
        return scores

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether a member with a weight above 0 can score each of m histories.

        ``users`` is not used.
        """
        has_weight = self.weights_[length_groups(histories)] > 0
        if self.cold_.any():
            has_weight |= self.cold_weights_ > 0
        scorable = np.zeros(len(histories), dtype=bool)
        for p, model in enumerate(self.members.values()):
            remaining = np.flatnonzero(has_weight[:, p] & ~scorable)
            if len(remaining):
                scorable[remaining] = model.can_score(histories[remaining])
        return scorable

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray | csr_array | None:
        """Return the user vectors of one member: float32[m, d] or csr (m, d), one row per history.

        Of the members that have user vectors, the one with the largest weight is used. Its weight
        is the mean of its weights over the groups of history lengths; of equal weights, the first
        member is used. The result is None if no member with a weight above 0 has user vectors.

        Args:
            histories: the histories of m users.
            users: int[m], the user numbers, for the members. None: 0, 1, …, m − 1.
        """
        users = np.arange(len(histories)) if users is None else users
        mean_weights = self.weights_.mean(axis=0)
        for p in np.argsort(-mean_weights, kind="stable"):
            vectors = list(self.members.values())[p].user_vectors(histories, users)
            if mean_weights[p] > 0 and vectors is not None:
                return vectors
        return None

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each member adds to the score of one item, in ``members`` of the result.

        The parts sum to the score. The exception is a new item to which ``cold_weights_`` apply.
        Then the parts sum to the value that orders the new items, and the note says so.

        The arguments are those of :meth:`recsys.recommender.Recommender.explain`.
        """
        score = self._score_of(history, item, user)
        members = self._member_shares(history, item)
        total = sum(members.values())
        note = ""
        if members and abs(total - score) > 1e-3 * max(1, abs(score)):
            note = (
                f"The parts sum to {total:.6f}, which orders the new items; these share out their scores in that order."
            )
        return Explanation(score, members=members, note=note)

    def _member_shares(self, history: Histories, item: int) -> dict[str, float]:
        """Return what each member adds to the score of one item, as a dict: member -> number.

        The result is empty if no member has a score for the item. If the item is new and
        ``cold_weights_`` apply to it, the parts do not sum to its score. They sum to the value by
        which the new items are ordered.
        """
        names = list(self.members)
        rescaled = self._rescaled_scores(history, np.zeros(1, dtype=np.int64))

        def shares(weights: np.ndarray, z: dict[int, float]) -> dict[str, float]:
            scoring = [p for p in z if weights[p] > 0 and np.isfinite(z[p])]
            return {names[p]: float(weights[p] * z[p] / weights[scoring].sum()) for p in scoring}

        if self.cold_[item]:
            cold_items = np.flatnonzero(self.cold_)
            column = int(np.searchsorted(cold_items, item))
            z_cold = {p: rescale_columns(z, cold_items, self.scaling)[0, column] for p, z in rescaled.items()}
            cold_shares = shares(self.cold_weights_, z_cold)
            if cold_shares:
                return cold_shares
        return shares(self.weights_[length_groups(history)[0]], {p: z[0, item] for p, z in rescaled.items()})

    def _rescaled_scores(self, histories: Histories, users: np.ndarray) -> dict[int, np.ndarray]:
        """Return the rescaled scores of each member, as a dict: position of member -> float32[m, items].

        Members whose weights are all 0 are left out.
        """
        has_weight = self.weights_.any(axis=0) | (self.cold_weights_ > 0)
        return {
            p: rescale_rows(score_histories(model, histories, users), self.scaling)
            for p, model in enumerate(self.members.values())
            if has_weight[p]
        }


def build_part(name: str, settings: dict[str, Any]) -> Recommender:
    """Return the unfitted model of one part of a blend.

    Args:
        name: the name of the part.
        settings: the parameters of the model. The key ``model`` is its kind, by default the name.

    Raises:
        ConfigError: the kind or a parameter is not valid.
    """
    from recsys.models import build

    params = dict(settings)
    return build(params.pop("model", name), params)


def _check_parts(parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the parts unchanged, after a check of all their kinds and parameters."""
    check_nested(lambda name: build_part(name, parts[name]), parts)
    return parts


@dataclass(config=STRICT)
class Blend(Blended):
    """A weighted mean of the scores of several models, with members and weights set in the config.

    The weights are the same for all users and items. (The model ``hybrid`` chooses its members and
    weights by itself.) :class:`Blended` describes how scores of different models become comparable.

    >>> from recsys.models import build
    >>> build("blend", {"parts": {"als": {"rank": 8}, "content": {}}, "weights": {"content": 0.5}}).scaling
    'standard'
    """

    parts: Annotated[
        dict[str, dict[str, Any]],
        Field(description="name -> parameters of a member; the key `model` is its kind, by default the name"),
        AfterValidator(_check_parts),
    ]
    weights: Annotated[
        dict[str, Annotated[float, Field(ge=0)]],
        Field(description="name -> weight of a member; a member that is not named has weight 1"),
    ] = Field(default_factory=dict)
    scaling: Scaling = "standard"

    def __post_init__(self) -> None:
        """Check the weights.

        Raises:
            ConfigError: there are no members, no weight is above 0, or a weight is given for a
                member that does not exist.
        """
        problems = [
            f"weights: there is no part '{name}'.{suggest_nearest(name, self.parts)}"
            for name in self.weights
            if name not in self.parts
        ]
        if not any(self._member_weights()):
            problems.append("no part has a weight above 0: name a part with one.")
        if problems:
            raise ConfigError("\n".join(f"model 'blend': {problem}" for problem in problems))

    def _member_weights(self) -> list[float]:
        """Return the weight of each member, in their order."""
        return [self.weights.get(name, 1.0) for name in self.parts]

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Fit every member on ``train``, and return the blend.

        Raises:
            RecsysError: any error that the fit of a member raises.
        """
        self.members = {name: build_part(name, settings).fit(train, features) for name, settings in self.parts.items()}
        weights = self._member_weights()
        self.weights_ = np.tile(np.array(weights), (len(LENGTHS) + 1, 1))
        self.cold_weights_ = np.zeros(len(weights))
        self.cold_ = unliked_items(train)
        return self


def unliked_items(train: Interactions) -> np.ndarray:
    """Return bool[items]: True for each item that nobody likes (value > 0) in ``train``."""
    return np.bincount(train.item[train.value > 0], minlength=len(train.items)) == 0


def length_groups(histories: Histories) -> np.ndarray:
    """Return the group of each history by its number of likes, int64[m].

    Group 0 has 0–1 likes, group 1 has 2–4, group 2 has 5–19, and group 3 has 20 or more.
    """
    liked = np.bincount(histories.row_of_entry[histories.values.data > 0], minlength=len(histories))
    return np.searchsorted(LENGTHS, liked, side="right")


def rescale_rows(scores: np.ndarray, scaling: Scaling = "standard") -> np.ndarray:
    """Rescale the scores of each row to a common scale, and return them as float32[m, n].

    ``standard`` gives the scores of a row the mean 0 and the standard deviation 1, or all 0 if they
    are equal. ``rrf`` replaces a score by 1/(60 + rank), where the highest score of the row has the
    rank 1. Of equal scores, the lower column has the smaller rank. NaN stays NaN, and does not
    count in the mean, the deviation or the ranks.

    Args:
        scores: float32[m, n], one row per user.
        scaling: "standard" or "rrf".
    """
    rows = max(1, BLOCK_CELLS // max(1, scores.shape[1]))
    rescaled = np.empty(scores.shape, dtype=np.float32)
    for first in range(0, len(scores), rows):
        rescaled[first : first + rows] = _rescale_block(scores[first : first + rows], scaling)
    return rescaled


def _rescale_block(scores: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Return what :func:`rescale_rows` returns, with some arrays of float64 of the same shape in memory."""
    is_scored = np.isfinite(scores)
    if scaling == "rrf":
        order = np.argsort(np.where(is_scored, -scores, np.inf), axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(1, scores.shape[1] + 1)[None, :], axis=1)
        return np.where(is_scored, 1 / (RRF_OFFSET + rank), np.nan).astype(np.float32)
    count = np.maximum(is_scored.sum(axis=1, keepdims=True), 1)
    mean = np.where(is_scored, scores, 0).sum(axis=1, keepdims=True, dtype=np.float64) / count
    centred = (scores - mean).astype(np.float32)
    variance = (np.where(is_scored, centred, 0).astype(np.float64) ** 2).sum(axis=1, keepdims=True) / count
    deviation = np.sqrt(variance)
    # A deviation that is only rounding error of equal scores must not be blown up to 1.
    return centred / np.where(deviation > 1e-12 * np.abs(mean), deviation, np.inf).astype(np.float32)


def rescale_columns(z: np.ndarray, columns: np.ndarray, scaling: Scaling = "standard") -> np.ndarray:
    """Rescale each row over some of its columns only, and return these columns, float32[m, c].

    Args:
        z: float32[m, n], scores as :func:`rescale_rows` returns them.
        columns: int[c], the columns, in the order of the result.
        scaling: as for :func:`rescale_rows`.
    """
    return rescale_rows(z[:, columns], scaling)


def weighted_mean(scored: Iterable[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Return the weighted mean of several arrays of scores, cell by cell, float32[m, n].

    A NaN score is left out of the mean. If no score with a weight above 0 remains in a cell, its
    mean is NaN.

    Args:
        scored: pairs of scores [m, n] and their weights ≥ 0, [m] or [m, n].
        shape: (m, n).
    """
    return divide_sums(*weighted_sums(scored, shape))


def weighted_sums(
    scored: Iterable[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each cell, the weighted sum of the scores and the sum of their weights.

    Both are float32[m, n]. A cell in which a score is NaN gets nothing from this score: neither its
    value nor its weight. The arguments are those of :func:`weighted_mean`.
    """
    total = np.zeros(shape, dtype=np.float32)
    total_weight = np.zeros(shape, dtype=np.float32)
    for z, weights in scored:
        add_weighted(total, total_weight, z, weights.reshape(len(weights), -1).astype(np.float32))
    return total, total_weight


def divide_sums(total: np.ndarray, total_weight: np.ndarray) -> np.ndarray:
    """Return ``total`` / ``total_weight`` for each cell, float32[m, n], NaN where the weight is 0.

    Args:
        total, total_weight: float32[m, n], as :func:`weighted_sums` returns them.
    """
    undefined = np.full(total.shape, np.nan, dtype=np.float32)
    return np.divide(total, total_weight, out=undefined, where=total_weight > 0)


def reassign_scores(scores: np.ndarray, columns: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return scores that are permuted within each row, so that some columns follow another order.

    In each row, the largest score in ``columns`` goes to the column with the largest value in
    ``order``, the second largest to the second, and so on. Of equal values in ``order``, the lower
    column gets the larger score. A cell that has a value in ``order`` but no score gets a score
    below all scores of its row.

    Args:
        scores: float[m, n].
        columns: int[c], the columns whose scores are permuted.
        order: float[m, c], the values that give the new order. A NaN cell keeps its score.

    >>> reassign_scores(
    ...     np.array([[0.1, 0.2, 0.9, 0.5, np.nan]]), np.array([0, 1, 2, 4]), np.array([[5.0, 7.0, 6.0, 8.0]])
    ... )
    array([[ 0.1,  0.9,  0.2,  0.5, -0.9]])
    """
    reassigned = scores.copy()
    column_scores = scores[:, columns]
    for row in range(len(scores)):
        has_order = np.isfinite(order[row])
        has_score = np.isfinite(column_scores[row])
        movable = np.flatnonzero(has_score & has_order)
        by_order = movable[np.argsort(-order[row, movable], kind="stable")]
        reassigned[row, columns[by_order]] = np.sort(column_scores[row, movable])[::-1]
        unscored = np.flatnonzero(~has_score & has_order)
        row_scores = scores[row][np.isfinite(scores[row])]
        shift = 0.0
        if len(row_scores) and len(unscored):
            shift = row_scores.min() - order[row, unscored].max() - 1
        reassigned[row, columns[unscored]] = order[row, unscored] + shift
    return reassigned
