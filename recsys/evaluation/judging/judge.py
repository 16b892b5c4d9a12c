"""Find the position of each relevant item in the list of its user.

All metrics are functions of the result, :class:`Judged`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import kernels
from recsys.errors import InputError
from recsys.types import TopK

Ties = Literal["stable", "average", "pessimistic", "optimistic"]
"""How items with equal scores in a list are judged.

``stable`` keeps the given order of the list. ``average`` takes the expectation over all orders of
tied items. ``pessimistic`` and ``optimistic`` take the worst and the best order for the user. All
but ``stable`` ignore the given order of tied items, so results do not change when items are renamed
or rows are shuffled."""


@dataclass(frozen=True)
class Judged:
    """The positions of the relevant items of ``m`` users in the lists of these users.

    An entry is one relevant item of one user, whether or not the item is in the list. There are nnz
    entries. Those of user i are ``indptr[i]:indptr[i + 1]``, in the order of their positions; items
    that are not in the list come last. A tie group is a run of items with equal scores in one list.

    Attributes:
        indptr: int64[m + 1], where the entries of each user begin.
        position: int32[nnz], the position of the item in the list, 0 for the first item, or
            ``kernels.NOWHERE`` if the item is not in the list. If ties are averaged (``average`` of
            :data:`Ties`), it is the first position of the tie group of the item.
        spread: int32[nnz], the number of items in the tie group if ties are averaged, else 1.
        value: float64[nnz] > 0, the value of the item for the user, from which NDCG computes gains.
        length: int64[m], the number of items in each list.
        k: the number of positions that a list can have: the number of columns of a TopK, the length
            of the longest list of a table, or the number of all items if all candidates were
            ranked.
        complete: whether all candidates were ranked, and not only the best ones.
        n_tied: int64[m], the number of items in each list that belong to a tie group of two or
            more. If all candidates were ranked, only relevant items count. None without scores.
        propensity: float64[nnz] in (0, 1], the probability that the relevance of the item is
            observed. None if it is unknown.
    """

    indptr: np.ndarray
    position: np.ndarray
    spread: np.ndarray
    value: np.ndarray
    length: np.ndarray
    k: int
    complete: bool = False
    n_tied: np.ndarray | None = None
    propensity: np.ndarray | None = None

    @property
    def tied_places(self) -> int:
        """The sum of ``n_tied`` over all users, 0 without scores."""
        if self.n_tied is None:
            return 0
        return int(self.n_tied.sum())

    @cached_property
    def n_relevant(self) -> np.ndarray:
        """Return the number of relevant items of each user, int64[m]."""
        return np.diff(self.indptr).astype(np.int64)

    @cached_property
    def undefined(self) -> np.ndarray:
        """Return for each user whether metrics are undefined, because no item is relevant, bool[m]."""
        return self.n_relevant == 0

    @cached_property
    def user(self) -> np.ndarray:
        """Return the user of each entry as a number in 0 … m − 1, int64[nnz], ascending."""
        return np.repeat(np.arange(len(self.length)), self.n_relevant)

    @cached_property
    def ordinal(self) -> np.ndarray:
        """Return the number of each entry among those of its user, from 0, int64[nnz].

        The entry of the user's relevant item that is highest in the list has the number 0.
        """
        return np.arange(len(self.position)) - self.indptr[self.user]

    @cached_property
    def tied(self) -> bool:
        """Whether ties are averaged, and a relevant item is in a tie group of two or more items."""
        return bool((self.spread > 1).any())

    @cached_property
    def group(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of relevant items above and inside the tie group of each entry.

        The result is (above, inside), int64[nnz] each. Both count relevant items of the same user.
        If ties are not averaged, each entry is a group of its own, and ``inside`` is 1. The numbers
        have no meaning for an entry whose item is not in the list.
        """
        if not self.tied:
            return self.ordinal, np.ones(len(self.position), dtype=np.int64)
        first, size = tie_runs(self.user, self.position)
        return self.ordinal[first], size

    @cached_property
    def by_value(self) -> np.ndarray:
        """Return the order of the entries by user, and within a user by value, largest first.

        The result is int64[nnz]: element j is the index of the entry that is at position j of this
        order. Entries with equal values keep their order.
        """
        return np.lexsort((-self.value, self.user))

    def total(self, entries: np.ndarray) -> np.ndarray:
        """Return the sum of ``entries`` over the entries of each user, float64[m].

        The sum is 0 for a user without entries.

        Args:
            entries: float64[nnz], one number per entry.
        """
        return np.bincount(self.user, weights=entries, minlength=len(self.length))

    def hits(self, k: int) -> np.ndarray:
        """Return the number of relevant items among the first k items of each list, float64[m].

        If ties are averaged and the cut at k is inside a tie group, the result is the expected
        number over all orders of the group. The result is cached, because several metrics use it.
        """
        if k not in self._hits:
            self._hits[k] = self.total(self.mean_over_places(np.ones(k)))
        return self._hits[k]

    @cached_property
    def _hits(self) -> dict[int, np.ndarray]:
        return {}

    def mean_over_places(self, weights: np.ndarray) -> np.ndarray:
        """Return the mean weight of the positions of each entry's tie group, float64[nnz].

        If ties are not averaged, it is the weight of the entry's own position.

        Args:
            weights: float64[k], the weight of each of the first k positions. Later positions, and
                items that are not in the list, have the weight 0.
        """
        k = len(weights)
        if not self.tied:
            return np.append(weights, 0.0)[np.minimum(self.position, k)]
        cumulated = np.concatenate([[0.0], np.cumsum(weights)])
        first = np.minimum(self.position, k)
        last = np.minimum(self.position + self.spread, k)
        return (cumulated[last] - cumulated[first]) / self.spread


@dataclass(frozen=True, eq=False)
class Lists:
    """The lists of ``m`` users in flat arrays, one list after the other, each best item first.

    Attributes:
        items: [n], the ids or integer codes of the items.
        offsets: int64[m + 1], the list of user i is ``items[offsets[i]:offsets[i + 1]]``.
        scores: float[n], the score of each item. Items of a list with equal scores are tied. None
            if the scores are not known.
    """

    items: np.ndarray
    offsets: np.ndarray
    scores: np.ndarray | None = None

    @property
    def depth(self) -> int:
        """The number of items in the longest list, at least 1."""
        return int(np.diff(self.offsets).max(initial=1))


@dataclass(frozen=True, eq=False)
class RelevantItems:
    """The relevant items of ``m`` users in flat arrays, one user after the other.

    Attributes:
        items: [n], the ids or integer codes of the items.
        offsets: int64[m + 1], the items of user i are ``items[offsets[i]:offsets[i + 1]]``.
        values: float[n] > 0, the value of each item for the user, from which NDCG computes gains.
        propensity: float[n] in (0, 1], the probability that the relevance of the item is observed.
            None if it is not known.
    """

    items: np.ndarray
    offsets: np.ndarray
    values: np.ndarray
    propensity: np.ndarray | None = None


def judge(topk: TopK, relevant: csr_array, *, ties: Ties = "stable", propensity: np.ndarray | None = None) -> Judged:
    """Return the position of each relevant item in the list of its user.

    Args:
        topk: lists of m users. Its scores decide which items are tied.
        relevant: csr (m, items or more), row i for list i. The stored entries are the relevant
            items. Their values must be > 0; NDCG computes gains from them. Columns after the last
            candidate are relevant items that no model could have recommended. They count in
            ``n_relevant`` and in every denominator.
        ties: how items with equal scores are judged, see :data:`Ties`.
        propensity: float64[columns], the probability that the relevance of an item is observed,
            for debiased metrics.

    Raises:
        ValueError: ``topk`` and ``relevant`` do not have the same number of rows, a stored value is
            not positive, or an item occurs twice in a row of one of them.
        InputError: ``ties`` is not ``stable``, and a score is missing or scores rise along a list.
    """
    if relevant.shape[0] != len(topk.items):
        raise ValueError(f"{len(topk.items)} lists, but {relevant.shape[0]} rows of relevant items")
    if relevant.nnz and not relevant.data.min() > 0:
        raise ValueError("a relevant item must have a value above 0")
    listed = topk.items >= 0
    lists = Lists(topk.items[listed], np.append(0, np.cumsum(listed.sum(axis=1))), topk.scores[listed])
    weights = None
    if propensity is not None:
        weights = propensity[relevant.indices]
    relevant_items = RelevantItems(relevant.indices, relevant.indptr, relevant.data, weights)
    width = max(relevant.shape[1], int(topk.items.max(initial=0)) + 1)
    _require_unique(lists, relevant_items, width)
    return judge_codes(lists, relevant_items, width=width, k=topk.items.shape[1], ties=ties)


def judge_lists(lists: Lists, relevant: RelevantItems, *, k: int | None = None, ties: Ties = "stable") -> Judged:
    """Return the position of each relevant item in the list of its user, for lists of external ids.

    This is :func:`judge` for lists whose items are external ids instead of row numbers, for example
    those of an Arrow batch.

    Args:
        lists, relevant: the lists and the relevant items of the same m users, in the same order.
            The ids are text in both, or integers in both.
        k: the length of the longest list, if other batches may have longer lists than this one.
            None: the length of the longest list of this batch.
        ties: how items with equal scores are judged, see :data:`Ties`.

    Raises:
        ValueError: an item occurs twice in a list, or in the relevant items of a user.
        InputError: ``ties`` is not ``stable``, and a score is missing or scores rise along a list.
    """
    codes, names = pd.factorize(np.concatenate([lists.items, relevant.items]))
    lists = replace(lists, items=codes[: len(lists.items)])
    relevant = replace(relevant, items=codes[len(lists.items) :])
    _require_unique(lists, relevant, len(names))
    return judge_codes(lists, relevant, width=len(names), k=max(k or 0, lists.depth), ties=ties)


def judge_codes(lists: Lists, relevant: RelevantItems, *, width: int, k: int, ties: Ties = "stable") -> Judged:
    """Return the position of each relevant item in the list of its user, for lists of item codes.

    :func:`judge` and :func:`judge_lists` call this function. It does not check whether items
    repeat.

    Args:
        lists, relevant: the lists and the relevant items of the same m users, in the same order. Their
            items are codes in ``0 … width - 1``, each at most once per user.
        width: the number of different codes.
        k: the number of positions that a list can have, :attr:`Judged.k`.
        ties: how items with equal scores are judged, see :data:`Ties`.

    Raises:
        InputError: ``ties`` is not ``stable``, and a score is missing or scores rise along a list.
    """
    indptr = np.asarray(relevant.offsets, dtype=np.int64)
    offsets = np.asarray(lists.offsets, dtype=np.int64)
    values = np.asarray(relevant.values)
    entry, position = kernels.find_relevant(lists.items, offsets, relevant.items, indptr, width)
    spread = np.ones(len(position), dtype=np.int32)
    n_tied = None
    if lists.scores is not None:
        n_tied = kernels.count_equal_neighbours(np.asarray(lists.scores), offsets)[:, 1]
    elif ties != "stable":
        raise InputError(f"ties = '{ties}' needs a score beside every listed item: add them, or use 'stable'")
    if ties != "stable":
        group, size = _tie_groups(np.asarray(lists.scores), offsets)
        user = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        retrieved = np.flatnonzero(position < kernels.NOWHERE)
        list_entry = (offsets[user] + position)[retrieved]
        position[retrieved] = group[list_entry] - offsets[user[retrieved]]
        spread[retrieved] = size[list_entry]
        order, position, spread = _settle_ties(user, position, spread, values[entry], ties)
        entry = entry[order]
    propensity = relevant.propensity
    if propensity is not None:
        propensity = np.asarray(propensity, dtype=np.float64)[entry]
    return Judged(
        indptr,
        position,
        spread,
        values.astype(np.float64)[entry],
        np.diff(offsets),
        k,
        n_tied=n_tied,
        propensity=propensity,
    )


def _count_per_user(marked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the number of marked entries of each user, int64[m].

    Args:
        marked: bool[nnz], one per entry.
        offsets: int64[m + 1], the entries of user i are ``offsets[i]:offsets[i + 1]``.
    """
    cumulated = np.concatenate([[0], np.cumsum(marked)])
    return cumulated[offsets[1:]] - cumulated[offsets[:-1]]


def _require_unique(lists: Lists, relevant: RelevantItems, width: int) -> None:
    """Raise ValueError if an item occurs twice in a list, or twice in the relevant items, of a
    user."""
    for name, part in (("list", lists), ("truth", relevant)):
        if kernels.count_repeats(part.items, part.offsets, width).any():
            raise ValueError(f"an item stands twice in a user's {name}")


def judge_scores(
    scores: np.ndarray,
    relevant: csr_array,
    *,
    ties: Ties = "average",
    propensity: np.ndarray | None = None,
) -> Judged:
    """Return the position of each relevant item in the ranking of *all* candidates of its user.

    Metrics such as AUC need the whole ranking, not only its first k items. A relevant item that is
    not a candidate has the position ``kernels.NOWHERE``.

    Args:
        scores: float[m, n], one row per user, one column per item. A score of NaN or -inf means
            that the item is not a candidate of the user: it was not scored, was seen, or was
            filtered.
        relevant: csr (m, n or more), the relevant items, as in :func:`judge`.
        ties: how items with equal scores are judged, see :data:`Ties`. ``stable`` puts the lower
            column first, as ``rank.recommend`` does.
        propensity: float64[columns of ``relevant``], as in :func:`judge`.

    Raises:
        ValueError: ``scores`` and ``relevant`` do not have the same number of rows.
    """
    if relevant.shape[0] != len(scores):
        raise ValueError(f"{len(scores)} rows of scores, but {relevant.shape[0]} rows of relevant items")
    indptr = relevant.indptr.astype(np.int64)
    values = relevant.data.astype(np.float64)
    scores = np.ascontiguousarray(scores)
    position, spread, earlier_ties, candidates = kernels.rank_relevant(scores, relevant.indices, indptr)
    n_tied = _count_per_user(spread > 1, indptr)
    if ties == "stable":
        position = position + earlier_ties
        spread = np.ones_like(spread)
    user = np.repeat(np.arange(len(scores)), np.diff(indptr))
    order, position, spread = _settle_ties(user, position, spread, values, ties)
    if propensity is not None:
        propensity = propensity[relevant.indices[order]]
    return Judged(
        indptr,
        position,
        spread,
        values[order],
        candidates,
        scores.shape[1],
        complete=True,
        n_tied=n_tied,
        propensity=propensity,
    )


def _tie_groups(scores: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the start and the length of the tie group of each place in the lists, int64[n] each.

    A tie group is a run of items with equal scores in one list.

    Args:
        scores: float[n], the scores of all lists, one list after the other.
        offsets: int64[m + 1], where each list begins and ends.

    Raises:
        InputError: a score is NaN, or scores rise along a list.
    """
    opens = np.zeros(len(scores), dtype=bool)
    opens[offsets[:-1][offsets[:-1] < len(scores)]] = True
    if np.isnan(scores).any():
        raise InputError("ties: some listed items have no score: fill them, or use ties = 'stable'")
    if ((scores[1:] > scores[:-1]) & ~opens[1:]).any():
        raise InputError("ties: scores rise along a list, so equal ones say nothing: use ties = 'stable'")
    opens[1:] |= scores[1:] != scores[:-1]
    return _runs(opens)


def _settle_ties(
    user: np.ndarray, position: np.ndarray, spread: np.ndarray, value: np.ndarray, ties: Ties
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the entries of each user by place, and give tied entries the places that ``ties`` says.

    The result is (order, position, spread). ``order`` is int64[nnz], the new order of the entries of
    all users. ``position`` and ``spread`` are in this order, as :class:`Judged` defines them.

    Args:
        user: int64[nnz], the row of the user of each entry.
        position, spread: int32[nnz], the first place and the size of the tie group of each entry.
            Under ``stable`` every group has the size 1.
        value: float[nnz], the graded gain of each entry.
    """
    # In a tie group the optimistic choice puts the most valuable item first, the others last.
    value_key = value
    if ties == "optimistic":
        value_key = -value
    order = np.lexsort((value_key, position, user))
    user = user[order]
    position = position[order]
    spread = spread[order]
    if ties in ("stable", "average") or not (spread > 1).any():
        return order, position, spread
    first, relevant = tie_runs(user, position)
    ordinal = np.arange(len(position)) - first
    # Pessimistic: the relevant items take the last places of their tie group, the best value last
    # of all.
    shift = ordinal
    if ties != "optimistic":
        shift = spread - relevant + ordinal
    position = np.where(position < kernels.NOWHERE, position + shift, position).astype(np.int32)
    return order, position, np.ones_like(spread)


def tie_runs(user: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first entry and the length of the run to which each entry belongs, int64[nnz] each.

    A run is a sequence of neighbouring entries with the same user and the same position.

    Args:
        user, position: int[nnz], the user and the position of each entry, as in :class:`Judged`.

    >>> first, length = tie_runs(np.array([0, 0, 0, 1]), np.array([2, 5, 5, 5]))
    >>> first.tolist(), length.tolist()
    ([0, 1, 1, 3], [1, 2, 2, 1])
    """
    starts = np.ones(len(position), dtype=bool)
    starts[1:] = (user[1:] != user[:-1]) | (position[1:] != position[:-1])
    return _runs(starts)


def _runs(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each element, the position at which its run begins and the length of the run.

    Args:
        starts: bool[n], True where a run begins. The first element must be True.
    """
    first = np.flatnonzero(starts)
    size = np.diff(np.append(first, len(starts)))
    return np.repeat(first, size), np.repeat(size, size)
