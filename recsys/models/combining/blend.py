"""Several models' opinions in one list, on one scale a user."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.errors import ConfigError
from recsys.kernels import add_weighted
from recsys.parameters import STRICT
from recsys.recommender import Explanation, Recommender
from recsys.types import Features, Histories, Interactions

LENGTHS = (2, 5, 20)
"""Where the groups of history length begin: 0–1, 2–4, 5–19, 20+ liked items."""

How = Literal["standard", "rrf"]


class Blended(Recommender):
    """What blends share: Σ_p w_p z_p / Σ_p w_p over the parts with an opinion on the item.

    z is a part's score, standardised over the user's items (``standard``), or 1/(60 + rank) (``rrf``: reciprocal rank
    fusion, Cormack, Clarke and Büttcher, SIGIR 2009). The weights depend on how many items the user likes and, for
    items that nobody liked in training, on another choice: those are ordered among themselves by ``cold_weights_``,
    of scores standardised over them alone (beside the others' scores theirs hardly differ), while the places that they
    hold against the others stay as the first weights say. NaN where no part with a weight has an opinion.
    """

    STATE: ClassVar = ("weights_", "cold_weights_", "cold_")
    EXPLAINS: ClassVar = ("members",)

    how: How
    members: dict[str, Recommender]
    weights_: np.ndarray  # float64[len(LENGTHS) + 1, parts]
    cold_weights_: np.ndarray  # float64[parts], all 0: nothing special
    cold_: np.ndarray  # bool[items]: nobody liked it in training

    @property
    def sources(self) -> tuple[str, ...]:
        """The name, and the name for items that nobody liked before."""
        name = type(self).__name__.lower()
        return name, f"{name}: new item"

    def source(self, histories: Histories, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return int8[m, k]: 1 for new items."""
        return self.cold_[items].astype(np.int8)

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]."""
        users = np.arange(len(histories)) if users is None else users
        weights = self.weights_[lengths(histories)]
        parts = self._parts(histories, users)
        found = mix(((parts[p], weights[:, p]) for p in parts), histories.shape)
        cold = np.flatnonzero(self.cold_)
        if self.cold_weights_.any() and len(cold):
            shape = (histories.shape[0], len(cold))
            own = ((among(z, cold, self.how), np.full(shape[0], self.cold_weights_[p])) for p, z in parts.items())
            found = reordered(found, cold, mix(own, shape))
        return found

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: a part that weighs for the row has an opinion. Nothing is scored for parts that can tell."""
        weighs = self.weights_[lengths(histories)] > 0
        if self.cold_.any():
            weighs |= self.cold_weights_ > 0
        found = np.zeros(len(histories), dtype=bool)
        for p, model in enumerate(self.members.values()):
            open_ = np.flatnonzero(weighs[:, p] & ~found)
            if len(open_):
                found[open_] = model.can_score(histories[open_])
        return found

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each part adds to one score."""
        score = self._score_of(history, item, user)
        members = self._shares(history, item)
        total = sum(members.values())
        note = ""
        if members and abs(total - score) > 1e-3 * max(1, abs(score)):
            note = (
                f"The parts sum to {total:.6f}, which orders the new items; these share out their scores in that order."
            )
        return Explanation(score, members=members, note=note)

    def _shares(self, history: Histories, item: int) -> dict[str, float]:
        """Return part -> what it adds to one score, and nothing where no part has an opinion.

        For a new item that ``cold_weights_`` speak of, they sum to what orders it among the new items instead.
        """
        names, parts = list(self.members), self._parts(history, np.zeros(1, dtype=np.int64))

        def added(weights: np.ndarray, z: dict[int, float]) -> dict[str, float]:
            spoke = [p for p in z if weights[p] > 0 and np.isfinite(z[p])]
            return {names[p]: float(weights[p] * z[p] / weights[spoke].sum()) for p in spoke}

        found: dict[str, float] = {}
        if self.cold_[item]:
            cold = np.flatnonzero(self.cold_)
            at = int(np.searchsorted(cold, item))
            found = added(self.cold_weights_, {p: among(z, cold, self.how)[0, at] for p, z in parts.items()})
        return found or added(self.weights_[lengths(history)[0]], {p: z[0, item] for p, z in parts.items()})

    def _parts(self, histories: Histories, users: np.ndarray) -> dict[int, np.ndarray]:
        used = self.weights_.any(axis=0) | (self.cold_weights_ > 0)
        return {
            p: comparable(model.score(histories, users), self.how)
            for p, model in enumerate(self.members.values())
            if used[p]
        }


@dataclass(config=STRICT)
class Blend(Blended):
    """The parts and the weights that you name; ``hybrid`` chooses both.

    ``parts``: name -> parameters, ``model`` being the kind, by default the name. ``weights``: 1 unless named.

    >>> from recsys.models import build
    >>> build("blend", {"parts": {"als": {"rank": 8}, "content": {}}, "weights": {"content": 0.5}}).how
    'standard'
    """

    parts: dict[str, dict[str, Any]]
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    how: How = "standard"

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Fit every part.

        Raises:
            ConfigError: no parts, no weight above 0, or a weight for a part that is not there.
        """
        from recsys.models import build

        strangers = set(self.weights) - set(self.parts)
        weights = [self.weights.get(name, 1.0) for name in self.parts]
        if strangers or not any(weights):
            raise ConfigError(f"model 'blend': weights for {sorted(strangers)}, but the parts are {list(self.parts)}")
        self.members = {}
        for name, settings in self.parts.items():
            params = dict(settings)
            self.members[name] = build(params.pop("model", name), params).fit(train, features)
        self.weights_ = np.tile(np.array(weights), (len(LENGTHS) + 1, 1))
        self.cold_weights_ = np.zeros(len(weights))
        self.cold_ = unliked(train)
        return self


def unliked(train: Interactions) -> np.ndarray:
    """Return bool[items]: nobody liked it."""
    return np.bincount(train.item[train.value > 0], minlength=len(train.items)) == 0


def lengths(histories: Histories) -> np.ndarray:
    """Return int64[m]: which group of :data:`LENGTHS` each history falls in, by its liked items."""
    liked = np.bincount(histories.row_of_entry[histories.values.data > 0], minlength=len(histories))
    return np.searchsorted(LENGTHS, liked, side="right")


def comparable(scores: np.ndarray, how: How = "standard") -> np.ndarray:
    """Return float32[m, n] scores on one scale a row; NaN stays.

    ``standard``: mean 0 and deviation 1 over the row's opinions, all 0 where they are equal. ``rrf``: 1/(60 + rank),
    rank from 1, ties to the lower column.
    """
    given = np.isfinite(scores)
    if how == "rrf":
        order = np.argsort(np.where(given, -scores, np.inf), axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(1, scores.shape[1] + 1)[None, :], axis=1)
        return np.where(given, 1 / (60 + rank), np.nan).astype(np.float32)
    count = np.maximum(given.sum(axis=1, keepdims=True), 1)
    mean = np.where(given, scores, 0).sum(axis=1, keepdims=True, dtype=np.float64) / count
    centred = (scores - mean).astype(np.float32)
    spread = np.sqrt((np.where(given, centred, 0).astype(np.float64) ** 2).sum(axis=1, keepdims=True) / count)
    return centred / np.where(spread > 1e-12 * np.abs(mean), spread, np.inf).astype(np.float32)


def among(z: np.ndarray, columns: np.ndarray, how: How = "standard") -> np.ndarray:
    """Return float32[m, len(columns)]: :func:`comparable` scores made comparable over these columns alone."""
    return comparable(z[:, columns], how)


def mix(parts: Iterable[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Return float32[m, n]: the mean of parts [m, n] by weights ≥ 0 ([m] or [m, n]), where they have an opinion."""
    return mean_of(*sums(parts, shape))


def sums(parts: Iterable[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[m, n] twice: the weighted sum of the parts of :func:`mix`, and the weight behind each cell."""
    total, weight = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    for z, w in parts:
        add_weighted(total, weight, z, w.reshape(len(w), -1).astype(np.float32))
    return total, weight


def mean_of(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return float32[m, n]: ``total`` / ``weight``, NaN where nothing weighs."""
    return np.divide(total, weight, out=np.full(total.shape, np.nan, dtype=np.float32), where=weight > 0)


def reordered(scores: np.ndarray, columns: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return ``scores`` with each row's values in ``columns`` handed out by ``order``: largest to largest.

    Ties go to the lower column. Where only ``order`` has an opinion, it puts the cell below all of the row's scores.

    >>> reordered(np.array([[0.1, 0.2, 0.9, 0.5, np.nan]]), np.array([0, 1, 2, 4]), np.array([[5.0, 7.0, 6.0, 8.0]]))
    array([[ 0.1,  0.9,  0.2,  0.5, -0.9]])
    """
    found, places = scores.copy(), scores[:, columns]
    for row in range(len(found)):
        told = np.isfinite(order[row])
        both = np.flatnonzero(np.isfinite(places[row]) & told)
        found[row, columns[both[np.argsort(-order[row, both], kind="stable")]]] = np.sort(places[row, both])[::-1]
        alone = np.flatnonzero(~np.isfinite(places[row]) & told)
        known = scores[row][np.isfinite(scores[row])]
        drop = known.min() - order[row, alone].max() - 1 if len(known) and len(alone) else 0
        found[row, columns[alone]] = order[row, alone] + drop
    return found
