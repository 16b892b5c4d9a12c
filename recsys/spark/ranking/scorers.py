"""Scorers, which compute the scores of all items for a user on Spark.

There are scorers for random scores, for one vector of scores that all users share, for the factor
or the segment of a user, and for a fitted model. A scorer is broadcast to the executors, which call
it with Arrow batches of users. A scorer may score users in several ways, its *kinds*. Each kind has
a name in the column ``source`` of the lists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from recsys import kernels
from recsys.data.hashing import id_bits, random_scores
from recsys.ranking.sorted_items import SortedItems
from recsys.recommender import Recommender, score_histories
from recsys.schema import USER
from recsys.spark.item_blocks import FactorBlocks, FactorTable
from recsys.types import Histories, Selection, TopItems

FEATURES = "features"
"""Column with the factor of a user, which is null for a user without one."""

SEGMENT = "segment"
"""Column with the segment of a user, which is null or -1 for a user without one."""

HISTORY_COLUMNS = {"items": "array<int>", "values": "array<float>", "times": "array<bigint>"}
"""Columns of the history of a user, and their types.

``items`` is in ascending order, and the other columns are in the order of ``items``. A scorer that
reads one of them names it in its ``columns``. They are not collected for other scorers.
"""


class Scorer(ABC):
    """Scores all items for each user of a batch, in one or more ways, which are its *kinds*.

    A kind is, for example, "by the user's factor" or "by the fallback". A batch has the columns
    ``user``, ``seen`` and those of :attr:`columns`, and no others.

    Attributes:
        name: the name of the model, for the column ``source`` of the lists.
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
        """Write the scores of a batch of users into the array ``scores``, float32[users, items].

        The whole array is overwritten. An item without a score for a user gets NaN.
        """

    def top_k(self, users: pa.RecordBatch, selection: Selection, users_per_block: int) -> TopItems:
        """Return the k best items of each user of a batch, int32[users, k], and their scores, float32[users, k].

        The best item is first; of equal scores, the lower row is first. If a user has fewer than k
        items with a score, the list ends with -1 and NaN.

        Args:
            selection: which items may be listed, and how many. It has no candidates, because a scorer is
                restricted to them by :meth:`restricted_to`.
            users_per_block: the largest number of users whose scores are in memory at a time.
        """
        items, list_scores = selection.empty_lists()
        # All blocks use the same memory: to allocate it anew costs as much as the product.
        scores = np.empty((min(users_per_block, users.num_rows), self.n_items), dtype=np.float32)
        for start in range(0, users.num_rows, users_per_block):
            block = users.slice(start, users_per_block)
            rows = slice(start, start + block.num_rows)
            self.fill(scores[: block.num_rows], block)
            excluded = selection.excluded[rows]
            lists = kernels.select_top_k(scores[: block.num_rows], excluded.indptr, excluded.indices, selection.k)
            items[rows], list_scores[rows] = lists
        return items, list_scores

    def kinds(self, users: pa.RecordBatch) -> np.ndarray:
        """Return the kind by which each user of a batch is scored, int64[users].

        A kind is a position in :attr:`sources`.
        """
        return np.zeros(users.num_rows, dtype=np.int64)

    @abstractmethod
    def scored_items(self) -> np.ndarray:
        """Return bool[kinds, items]: whether each item has a score for users of each kind.

        The kinds are those of :attr:`sources`, in the same order. For example, users who are scored by
        the fallback are one kind.
        """

    @abstractmethod
    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return a scorer that scores only the items where ``allowed``, bool[items], is True."""


@dataclass(frozen=True)
class RandomScorer(Scorer):
    """Scores items by random numbers, as the local model ``random`` does.

    A score depends only on the seed, the user's id and the item's row.

    Attributes:
        name: name of the model.
        seed: the seed of the scores.
        size: number of candidates.
        allowed: bool[items], the items that are scored. None: all items.
    """

    name: str
    seed: int
    size: int
    allowed: np.ndarray | None = None

    @property
    def columns(self) -> Mapping[str, str]:
        """Column -> Spark type, of the column with the user's id."""
        return {USER: "string"}

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return self.size

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write the scores of a batch of users into the array ``scores``, float32[users, items]."""
        bits = id_bits(users.column(USER).to_numpy(zero_copy_only=False))
        scores[:] = random_scores(self.seed, bits, self.size)
        if self.allowed is not None:
            scores[:, ~self.allowed] = np.nan

    def scored_items(self) -> np.ndarray:
        """Return bool[1, items]: whether each item has a score."""
        allowed = np.ones(self.size, dtype=bool) if self.allowed is None else self.allowed
        return allowed[None]

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return a scorer that scores only the items where ``allowed``, bool[items], is True."""
        return replace(self, allowed=allowed)


@dataclass(frozen=True)
class SharedScorer(Scorer):
    """Gives every user the same scores, for example the popularity of the items.

    Attributes:
        name: name of the model.
        scores: float32[items], NaN for an item without a score.
    """

    name: str
    scores: np.ndarray

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return len(self.scores)

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write the shared scores into each row of the array ``scores``, float32[users, items]."""
        scores[:] = self.scores

    def top_k(self, users: pa.RecordBatch, selection: Selection, users_per_block: int) -> TopItems:
        """Return the lists of :meth:`Scorer.top_k` without the scores of all items for each user."""
        return self.sorted_items.shared_lists(selection)

    @cached_property
    def sorted_items(self) -> SortedItems:
        """The items in the order of their scores."""
        return SortedItems.from_scores(self.scores)

    def scored_items(self) -> np.ndarray:
        """Return bool[1, items]: whether each item has a score."""
        return np.isfinite(self.scores)[None]

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return a scorer that scores only the items where ``allowed``, bool[items], is True."""
        return replace(self, scores=_masked(self.scores, allowed))


@dataclass(frozen=True)
class RepeatScorer(Scorer):
    """Scores the liked items of a user's history by their values, and other items by popularity.

    It is the model ``repeat`` without ``recency_days``.

    Attributes:
        name: name of the model.
        popularity: float32[items], the scores of items that are not likes of the history, all
            below 0.
        allowed: bool[items], the items that are scored. None: all items.
    """

    name: str
    popularity: np.ndarray
    allowed: np.ndarray | None = None

    @property
    def columns(self) -> Mapping[str, str]:
        """Column -> Spark type, of the columns with the items of the history and their values."""
        return {name: HISTORY_COLUMNS[name] for name in ("items", "values")}

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return len(self.popularity)

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write the scores of a batch of users into the array ``scores``, float32[users, items]."""
        scores[:] = self.popularity
        items = users.column("items")
        rows = np.repeat(np.arange(users.num_rows), items.value_lengths().to_numpy(zero_copy_only=False))
        values = users.column("values").flatten().to_numpy(zero_copy_only=False)
        is_liked = values > 0
        scores[rows[is_liked], items.flatten().to_numpy(zero_copy_only=False)[is_liked]] = values[is_liked]
        if self.allowed is not None:
            scores[:, ~self.allowed] = np.nan

    def scored_items(self) -> np.ndarray:
        """Return bool[1, items]: whether each item has a score."""
        allowed = np.ones(self.n_items, dtype=bool) if self.allowed is None else self.allowed
        return allowed[None]

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return a scorer that scores only the items where ``allowed``, bool[items], is True."""
        return replace(self, allowed=allowed)


@dataclass(frozen=True)
class SegmentScores:
    """The scores of all items for each segment of users.

    Attributes:
        scores: float32[segments, items].
        sources: the name of each segment in the column ``source`` of the lists.
    """

    scores: np.ndarray
    sources: tuple[str, ...]


class _ScorerWithFallback(Scorer):
    """Scores users by a model, and those whom the model does not score by their segment or a fallback.

    The kinds are 0 for the fallback, 1 for the model, and 2 + s for segment s.

    Attributes:
        fallback: scores of users whom the model does not score and who have no segment, or None.
        segments: scores of the segments, or None.
    """

    MODEL_COLUMNS: ClassVar[Mapping[str, str]]
    """Column -> Spark type, of the columns that the model reads."""

    fallback: SharedScorer | None
    segments: SegmentScores | None

    @property
    def columns(self) -> Mapping[str, str]:
        """Column -> Spark type, of what the model reads, and of the user's segment if there are segments."""
        columns = dict(self.MODEL_COLUMNS)
        if self.segments is not None:
            columns[SEGMENT] = "int"
        return columns

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the fallback, of the model, and of each segment."""
        fallback = self.name if self.fallback is None else self.fallback.name
        segments = () if self.segments is None else self.segments.sources
        return (fallback, self.name, *segments)

    def _scored_by_kind(self, has_score: np.ndarray) -> np.ndarray:
        """Return bool[kinds, items]: the items that the fallback, the model and each segment score.

        Args:
            has_score: bool[items], the items that the model scores.
        """
        rows = [np.zeros_like(has_score), has_score]
        if self.fallback is not None:
            rows[0] = np.isfinite(self.fallback.scores)
        if self.segments is not None:
            rows.append(np.isfinite(self.segments.scores))
        return np.vstack(rows)


@dataclass(frozen=True)
class FactorScorer(_ScorerWithFallback):
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

    MODEL_COLUMNS: ClassVar = {FEATURES: "array<float>"}

    name: str
    item_factors: np.ndarray
    fallback: SharedScorer | None = None
    segments: SegmentScores | None = None

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return len(self.item_factors)

    def kinds(self, users: pa.RecordBatch) -> np.ndarray:
        """Return int64[users], how each user is scored: 0 by the fallback, 1 by the factor, 2 + s
        by segment s."""
        return _kinds(users, _has_factor(users))

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write the scores of a batch of users into the array ``scores``, float32[users, items]."""
        has_factor = _has_factor(users)
        if has_factor.any():
            factors = _factors(users)
            if has_factor.all():
                np.matmul(factors, self.item_factors.T, out=scores)
            else:
                scores[has_factor] = factors @ self.item_factors.T
        scores[~has_factor] = np.nan if self.fallback is None else self.fallback.scores
        if self.segments is not None:
            segment = self.kinds(users) - 2
            in_segment = segment >= 0
            scores[in_segment] = self.segments.scores[segment[in_segment]]

    def top_k(self, users: pa.RecordBatch, selection: Selection, users_per_block: int) -> TopItems:
        """Return the lists of :meth:`Scorer.top_k`, without the scores that cannot be among the best."""
        items, scores = selection.empty_lists()
        kinds = self.kinds(users)
        rows = np.flatnonzero(kinds == 1)
        if len(rows):
            items[rows], scores[rows] = self._sorted_items.top_k(_factors(users), selection.select(rows))
        rows = np.flatnonzero(kinds == 0)
        if len(rows) and self.fallback is not None:
            items[rows], scores[rows] = self.fallback.sorted_items.shared_lists(selection.select(rows))
        rows = np.flatnonzero(kinds >= 2)
        if len(rows):
            # There may be as many segments as users, so that sorting the items of each would take longer.
            users_of_segments = users.take(pa.array(rows))
            items[rows], scores[rows] = super().top_k(users_of_segments, selection.select(rows), users_per_block)
        return items, scores

    @cached_property
    def _sorted_items(self) -> SortedItems:
        return SortedItems.from_factors(self.item_factors)

    def scored_items(self) -> np.ndarray:
        """Return bool[kinds, items]: whether each item has a score for users of each kind.

        The kinds are those of :attr:`sources`, in the same order.
        """
        return self._scored_by_kind(np.isfinite(self.item_factors[:, 0]))

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return a scorer that scores only the items where ``allowed``, bool[items], is True."""
        segments = self.segments
        return replace(
            self,
            item_factors=_masked(self.item_factors.T, allowed).T,
            fallback=None if self.fallback is None else self.fallback.restricted_to(allowed),
            segments=None if segments is None else replace(segments, scores=_masked(segments.scores, allowed)),
        )


@dataclass(frozen=True)
class BlockedFactorScorer(_ScorerWithFallback):
    """Scores users as :class:`FactorScorer` does, with one block of item factors in memory at a time.

    A pickled scorer has no ``blocks``, because Spark sends broadcasts only with a function. Without
    them it knows the kinds of users, but cannot score.

    Attributes:
        name: name of the model.
        has_factor: bool[items], the items with a factor.
        blocks: the item factors.
        fallback, segments: as in :class:`FactorScorer`. They are not cut into blocks.
        allowed: bool[items], the items that are scored. None: all items.
    """

    MODEL_COLUMNS: ClassVar = FactorScorer.MODEL_COLUMNS

    name: str
    has_factor: np.ndarray
    blocks: FactorBlocks | None
    fallback: SharedScorer | None = None
    segments: SegmentScores | None = None
    allowed: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"blocks": None}

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return len(self.has_factor)

    def kinds(self, users: pa.RecordBatch) -> np.ndarray:
        """Return int64[users], how each user is scored: 0 by the fallback, 1 by the factor, 2 + s
        by segment s."""
        return _kinds(users, _has_factor(users))

    def scorers_of_blocks(self) -> Iterator[tuple[int, FactorScorer]]:
        """Yield for each block its first item, and the scorer of its items alone.

        The scorer of a block counts items from the first of the block.
        """
        for start, item_factors in self.blocks or ():
            items = slice(start, start + len(item_factors))
            fallback, segments = self.fallback, self.segments
            if fallback is not None:
                fallback = replace(fallback, scores=fallback.scores[items])
            if segments is not None:
                segments = replace(segments, scores=segments.scores[:, items])
            scorer = FactorScorer(self.name, item_factors, fallback, segments)
            yield start, scorer if self.allowed is None else scorer.restricted_to(self.allowed[items])

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write the scores of a batch of users into the array ``scores``, float32[users, items].

        Every call reads all blocks.
        """
        for start, scorer in self.scorers_of_blocks():
            scorer.fill(scores[:, start : start + scorer.n_items], users)

    def scored_items(self) -> np.ndarray:
        """Return bool[kinds, items]: whether each item has a score for users of each kind.

        The kinds are those of :attr:`sources`, in the same order.
        """
        scored = self._scored_by_kind(self.has_factor)
        return scored if self.allowed is None else scored & self.allowed

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return a scorer that scores only the items where ``allowed``, bool[items], is True."""
        return replace(self, allowed=allowed)


def factor_scorer(
    name: str,
    item_factors: np.ndarray | FactorTable,
    fallback: SharedScorer | None = None,
    segments: SegmentScores | None = None,
) -> FactorScorer | BlockedFactorScorer:
    """Return the scorer of a factor model for the layout of its item factors.

    Args:
        name: name of the model.
        item_factors: float32[items, rank] with NaN rows for items without a factor, or a table.
        fallback, segments: as in :class:`FactorScorer`.
    """
    if isinstance(item_factors, np.ndarray):
        return FactorScorer(name, item_factors, fallback, segments)
    blocks, has_factor = item_factors.share()
    return BlockedFactorScorer(name, has_factor, blocks, fallback, segments)


@dataclass(frozen=True)
class ModelScorer(_ScorerWithFallback):
    """Scores users by a fitted model, from their histories.

    The model scores the users whom it can score and who have at least ``min_history`` liked items.
    Each of the other users has the scores of the user's segment. A user without a segment has the
    scores of the fallback, or no list if there is none. The kinds are 0 for the fallback, 1 for the
    model, and 2 + s for segment s.

    Attributes:
        name: name of the model.
        model: the fitted model.
        has_score: bool[items], the items that the model scores.
        timed: whether an entry of any history has a known time.
        min_history: the smallest number of liked items with which the model scores a user.
        fallback: scores for users whom the model does not score and who have no segment, or None.
        segments: scores of the segments, or None.
        allowed: bool[items], the items that are scored. None: all items.
    """

    MODEL_COLUMNS: ClassVar = HISTORY_COLUMNS

    name: str
    model: Recommender
    has_score: np.ndarray
    timed: bool
    min_history: int = 0
    fallback: SharedScorer | None = None
    segments: SegmentScores | None = None
    allowed: np.ndarray | None = None

    @property
    def n_items(self) -> int:
        """Number of candidates."""
        return len(self.has_score)

    def kinds(self, users: pa.RecordBatch) -> np.ndarray:
        """Return int64[users], how each user is scored: 0 by the fallback, 1 by the model, 2 + s by
        segment s."""
        histories = histories_of_batch(users, self.n_items, self.timed)
        is_scored = self.model.can_score(histories) & (histories.n_liked >= self.min_history)
        return _kinds(users, is_scored)

    def fill(self, scores: np.ndarray, users: pa.RecordBatch) -> None:
        """Write the scores of a batch of users into the array ``scores``, float32[users, items]."""
        kinds = self.kinds(users)
        scores[kinds == 0] = np.nan if self.fallback is None else self.fallback.scores
        rows = np.flatnonzero(kinds == 1)
        if len(rows):
            histories = histories_of_batch(users, self.n_items, self.timed)
            scores[rows] = score_histories(self.model, histories[rows])
        if self.segments is not None:
            in_segment = kinds >= 2
            scores[in_segment] = self.segments.scores[kinds[in_segment] - 2]
        if self.allowed is not None:
            scores[:, ~self.allowed] = np.nan

    def scored_items(self) -> np.ndarray:
        """Return bool[kinds, items]: whether each item has a score for users of each kind.

        The kinds are those of :attr:`sources`, in the same order.
        """
        scored = self._scored_by_kind(self.has_score)
        return scored if self.allowed is None else scored & self.allowed

    def restricted_to(self, allowed: np.ndarray) -> Self:
        """Return a scorer that scores only the items where ``allowed``, bool[items], is True."""
        return replace(self, allowed=allowed)


def histories_of_batch(batch: pa.RecordBatch, n_items: int, timed: bool) -> Histories:
    """Return the histories of a batch of users, from its columns :data:`HISTORY_COLUMNS`.

    Args:
        batch: the batch.
        n_items: the number of candidates.
        timed: whether any history of the whole table has a known time. It decides if the result has
            times, because models treat histories without times differently from histories with
            unknown times.
    """
    items = batch.column("items")
    indptr = np.zeros(batch.num_rows + 1, dtype=np.int64)
    np.cumsum(items.value_lengths().to_numpy(zero_copy_only=False), out=indptr[1:])
    columns = items.flatten().to_numpy(zero_copy_only=False)
    data = batch.column("values").flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    cells = (data, columns, indptr.astype(np.int32))
    values = csr_array(cells, shape=(batch.num_rows, n_items))
    if not timed:
        return Histories(values)
    times = batch.column("times").flatten().fill_null(-1)
    return Histories(values, times.to_numpy(zero_copy_only=False))


def _has_factor(users: pa.RecordBatch) -> np.ndarray:
    """Return bool[users]: whether each user of a batch has a factor."""
    has_factor: np.ndarray = users.column(FEATURES).is_valid().to_numpy(zero_copy_only=False)
    return has_factor


def _factors(users: pa.RecordBatch) -> np.ndarray:
    """Return float32[n, rank], the factors of the users of a batch that have one."""
    features = users.column(FEATURES).drop_null()
    factors: np.ndarray = features.flatten().to_numpy(zero_copy_only=False).reshape(len(features), -1)
    return factors


def _kinds(users: pa.RecordBatch, is_scored: np.ndarray) -> np.ndarray:
    """Return int64[users], how each user is scored.

    It is 1 where ``is_scored``, bool[users], is True. For other users it is 2 + the segment, or 0
    without a segment.
    """
    kinds = is_scored.astype(np.int64)
    if SEGMENT in users.schema.names:
        segment = users.column(SEGMENT).fill_null(-1).to_numpy(zero_copy_only=False)
        in_segment = ~is_scored & (segment >= 0)
        kinds[in_segment] = 2 + segment[in_segment]
    return kinds


def _masked(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return scores [..., items] that are NaN where ``allowed`` is False."""
    return np.where(allowed, scores, np.float32(np.nan))
