"""Scorers, which score all items for a user on Spark: at random, by one vector for all users, or by
the factor or the segment of the user.

A scorer is broadcast to the executors, which call it with Arrow batches of users. A scorer may
score users in several ways, its *kinds*. Each kind has a name in the column ``source`` of the
lists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa

from recsys.data.hashing import random_scores

FEATURES = "features"
"""Column of a user's factor; null for a user without one."""

SEGMENT = "segment"
"""Column of a user's segment; null or -1 for a user without one."""

HISTORY_COLUMNS = {"items": "array<int>", "values": "array<float>", "times": "array<bigint>"}
"""Columns of the history of a user, and their types.

``items`` is in ascending order, and the other columns are in the order of ``items``. A scorer that
reads one of them names it in its ``columns``. They are not collected for other scorers.
"""


class Scorer(ABC):
    """Scores all items for each user of a batch.

    A batch has the columns ``user``, ``seen`` and those of :attr:`columns`, and no others.
    """

    name: str

    @property
    def columns(self) -> Mapping[str, str]:
        """Column -> Spark type, for each column that the scorer reads besides user and seen."""
        return {}

    @property
    def sources(self) -> tuple[str, ...]:
        """The name of each kind, for the column ``source`` of the lists."""
        return (self.name,)

    @property
    @abstractmethod
    def n_items(self) -> int:
        """Number of candidates."""

    @abstractmethod
    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write float32[users, items] into ``scores``, NaN where there is no score."""

    @abstractmethod
    def scored_items(self) -> np.ndarray:
        """Return bool[kinds, items]: whether an item has a score for users of a kind."""

    @abstractmethod
    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return a scorer that scores only the items where ``allowed``, bool[items], is True."""


@dataclass(frozen=True)
class RandomScorer(Scorer):
    """Scores items at random. A score depends on the seed, the user's row and the item's row.

    Attributes:
        size: number of candidates.
        allowed: bool[items], the items that are scored. None: all items.
    """

    name: str
    seed: int
    size: int
    allowed: np.ndarray | None = None

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return self.size

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write float32[users, items]. The column ``user`` must have the rows of the users."""
        rows = users.column("user").to_numpy(zero_copy_only=False)
        scores[:] = random_scores(self.seed, rows, self.size)
        if self.allowed is not None:
            scores[:, ~self.allowed] = np.nan

    def scored_items(self) -> np.ndarray:
        """Return bool[1, items]."""
        allowed = np.ones(self.size, dtype=bool) if self.allowed is None else self.allowed
        return allowed[None]

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return the scorer without scores where ``allowed`` is False."""
        return replace(self, allowed=allowed)


@dataclass(frozen=True)
class SharedScorer(Scorer):
    """Gives every user the same ``scores``, float32[items]."""

    name: str
    scores: np.ndarray

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return len(self.scores)

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write float32[users, items]."""
        scores[:] = self.scores

    def scored_items(self) -> np.ndarray:
        """Return bool[1, items]."""
        return np.isfinite(self.scores)[None]

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return the scorer without scores where ``allowed`` is False."""
        return replace(self, scores=_masked(self.scores, allowed))


@dataclass(frozen=True)
class RepeatScorer(Scorer):
    """Scores the liked items of a user's history by their values, and all others by ``popularity``.

    Attributes:
        popularity: float32[items], below 0.
        allowed: bool[items], the items that are scored. None: all items.
    """

    name: str
    popularity: np.ndarray
    allowed: np.ndarray | None = None

    @property
    def columns(self) -> Mapping[str, str]:
        """The items of the history and their values."""
        return {name: HISTORY_COLUMNS[name] for name in ("items", "values")}

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return len(self.popularity)

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write float32[users, items]."""
        scores[:] = self.popularity
        items = users.column("items")
        rows = np.repeat(np.arange(users.num_rows), items.value_lengths().to_numpy(zero_copy_only=False))
        values = users.column("values").flatten().to_numpy(zero_copy_only=False)
        is_liked = values > 0
        scores[rows[is_liked], items.flatten().to_numpy(zero_copy_only=False)[is_liked]] = values[is_liked]
        if self.allowed is not None:
            scores[:, ~self.allowed] = np.nan

    def scored_items(self) -> np.ndarray:
        """Return bool[1, items]."""
        allowed = np.ones(self.n_items, dtype=bool) if self.allowed is None else self.allowed
        return allowed[None]

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return the scorer without scores where ``allowed`` is False."""
        return replace(self, allowed=allowed)


@dataclass(frozen=True)
class SegmentScores:
    """The scores of all items for each segment of users.

    Attributes:
        scores: float32[segments, items].
        sources: for each segment, the name that the column ``source`` of the lists has for items
            that it scores.
    """

    scores: np.ndarray
    sources: tuple[str, ...]


@dataclass(frozen=True)
class FactorScorer(Scorer):
    """Scores users by their factors: the score of item i for a user with the factor x is x·y_i.

    A user without a factor has the scores of the user's segment. A user without both has the scores
    of the fallback, or no list if there is none. The kinds are 0 for the fallback, 1 for the
    factors, and 2 + s for segment s.

    Attributes:
        name: name of the model.
        item_factors: float32[items, rank], the y_i. The row of an item without a factor is NaN.
        fallback: scores for users without a factor and without a segment, or None.
        segments: scores of the segments, or None.
    """

    name: str
    item_factors: np.ndarray
    fallback: SharedScorer | None = None
    segments: SegmentScores | None = None

    @property
    def columns(self) -> Mapping[str, str]:
        """The user's factor, and the segment if there are segments."""
        columns = {FEATURES: "array<float>"}
        if self.segments is not None:
            columns[SEGMENT] = "int"
        return columns

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the fallback, of the factors, and of each segment."""
        fallback = self.name if self.fallback is None else self.fallback.name
        segments = () if self.segments is None else self.segments.sources
        return (fallback, self.name, *segments)

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return len(self.item_factors)

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write float32[users, items]."""
        features = users.column(FEATURES)
        has_factor = features.is_valid().to_numpy(zero_copy_only=False)
        if has_factor.any():
            factors = features.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(has_factor.sum(), -1)
            if has_factor.all():
                np.matmul(factors, self.item_factors.T, out=scores)
            else:
                scores[has_factor] = factors @ self.item_factors.T
        scores[~has_factor] = np.nan if self.fallback is None else self.fallback.scores
        if self.segments is not None:
            segment = user_kinds(users) - 2
            in_segment = segment >= 0
            scores[in_segment] = self.segments.scores[segment[in_segment]]

    def scored_items(self) -> np.ndarray:
        """Return bool[kinds, items]."""
        none = np.zeros(self.n_items, dtype=bool)
        fallback = none if self.fallback is None else np.isfinite(self.fallback.scores)
        rows = [fallback, np.isfinite(self.item_factors[:, 0])]
        if self.segments is not None:
            rows.append(np.isfinite(self.segments.scores))
        return np.vstack(rows)

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return the scorer without scores where ``allowed`` is False."""
        segments = self.segments
        return replace(
            self,
            item_factors=_masked(self.item_factors.T, allowed).T,
            fallback=None if self.fallback is None else self.fallback.restricted_to(allowed),
            segments=None if segments is None else replace(segments, scores=_masked(segments.scores, allowed)),
        )


def user_kinds(users: pa.RecordBatch) -> np.ndarray:
    """Return int64[users], the kind of each user, as :class:`FactorScorer` numbers them.

    It is read from the columns :data:`FEATURES` and :data:`SEGMENT`. All kinds are 0 for a batch
    without the column of factors.
    """
    kinds = np.zeros(users.num_rows, dtype=np.int64)
    if FEATURES not in users.schema.names:
        return kinds
    has_factor = users.column(FEATURES).is_valid().to_numpy(zero_copy_only=False)
    kinds[has_factor] = 1
    if SEGMENT in users.schema.names:
        segment = users.column(SEGMENT).fill_null(-1).to_numpy(zero_copy_only=False)
        in_segment = ~has_factor & (segment >= 0)
        kinds[in_segment] = 2 + segment[in_segment]
    return kinds


def _masked(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return scores [..., items], NaN where ``allowed`` is False."""
    return np.where(allowed, scores, np.float32(np.nan))
