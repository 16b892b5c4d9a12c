"""Lists against truth: the place of each relevant item in its user's list.
All metrics are functions of the result.
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
"""What equal scores mean. ``stable``: the order as it is. ``average``: the expectation over all
orders of tied items. ``pessimistic`` and ``optimistic``: the worst and the best order for the user.
All but ``stable`` ignore the given order of equal scores, so they do not change when items are
renamed or rows are shuffled."""


@dataclass(frozen=True)
class Judged:
    """The places of the relevant items of ``m`` users in their lists.

    User i's relevant items are the entries ``indptr[i]:indptr[i + 1]`` of the arrays, in the order
    of their places, whether or not they are candidates.

    ``position``: int32[nnz] from 0, ``kernels.NOWHERE`` when it is not in the list; the first of
    its tie group.
    ``spread``: int32[nnz], places that the item shares with others of equal score under
    ``average``, else 1.
    ``value``: float64[nnz] > 0, its graded gain. ``length``: int64[m], items in the list. ``k``:
    places of the longest list. ``complete``: every candidate was ranked, not only the best.
    ``n_tied``: int64[m], places whose score another of the list has (with all candidates ranked,
    those of relevant items only), None = no scores.
    ``propensity``: float64[nnz] in (0, 1], the chance that the item's relevance is observed, None
    when unknown.
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
        """All places whose score another of the list has."""
        if self.n_tied is None:
            return 0
        return int(self.n_tied.sum())

    @cached_property
    def n_relevant(self) -> np.ndarray:
        """Return int64[m]: relevant items of each user."""
        return np.diff(self.indptr).astype(np.int64)

    @cached_property
    def undefined(self) -> np.ndarray:
        """Return bool[m]: nothing is relevant, so no metric has a value."""
        return self.n_relevant == 0

    @cached_property
    def user(self) -> np.ndarray:
        """Return int64[nnz]: the row of each entry's user."""
        return np.repeat(np.arange(len(self.length)), self.n_relevant)

    @cached_property
    def ordinal(self) -> np.ndarray:
        """Return int64[nnz]: 0, 1, 2 … within each user."""
        return np.arange(len(self.position)) - self.indptr[self.user]

    @cached_property
    def tied(self) -> bool:
        """Whether some relevant item shares its places with others."""
        return bool((self.spread > 1).any())

    @cached_property
    def group(self) -> tuple[np.ndarray, np.ndarray]:
        """Return int64[nnz] twice: the user's relevant items before the entry's tie group,
        and those within it.
        """
        if not self.tied:
            return self.ordinal, np.ones(len(self.position), dtype=np.int64)
        first, size = tie_runs(self.user, self.position)
        return self.ordinal[first], size

    @cached_property
    def by_value(self) -> np.ndarray:
        """Return int64[nnz]: the entries, each user's largest values first;
        all cut-offs share it.
        """
        return np.lexsort((-self.value, self.user))

    def total(self, entries: np.ndarray) -> np.ndarray:
        """Return float64[m]: the sum of float64[nnz] entries over each user,
        in the order of places.
        """
        return np.bincount(self.user, weights=entries, minlength=len(self.length))

    def hits(self, k: int) -> np.ndarray:
        """Return float64[m]: relevant items among the first k places (over ties: expected);
        kept for other metrics.
        """
        if k not in self._hits:
            self._hits[k] = self.total(self.mean_over_places(np.ones(k)))
        return self._hits[k]

    @cached_property
    def _hits(self) -> dict[int, np.ndarray]:
        return {}

    def mean_over_places(self, weights: np.ndarray) -> np.ndarray:
        """Return float64[nnz]: ``weights`` (float64[k], then 0) at each entry's position,
        the mean over its tie group.
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
    """The lists of ``m`` users, one after the other, best items first.

    ``items``: [n] ids or integer codes. ``offsets``: int64[m + 1], user i has
    ``offsets[i]:offsets[i + 1]``.
    ``scores``: float[n], needed to settle ties; None = not known.
    """

    items: np.ndarray
    offsets: np.ndarray
    scores: np.ndarray | None = None

    @property
    def depth(self) -> int:
        """Places of the longest list, at least 1."""
        return int(np.diff(self.offsets).max(initial=1))


@dataclass(frozen=True, eq=False)
class RelevantItems:
    """The relevant items of ``m`` users, one user after the other.

    ``items``: [n] ids or integer codes. ``offsets``: int64[m + 1]. ``values``: float[n] > 0, the
    graded gains.
    ``propensity``: float[n] in (0, 1], the chance that the item's relevance is observed; None = not
    known.
    """

    items: np.ndarray
    offsets: np.ndarray
    values: np.ndarray
    propensity: np.ndarray | None = None


def judge(topk: TopK, relevant: csr_array, *, ties: Ties = "stable", propensity: np.ndarray | None = None) -> Judged:
    """Look up every user's relevant items in their list.

    Args:
        topk: lists of m users.
        relevant: csr (m, ≥ items), row i for list i, each stored value > 0: a stored entry is
            relevant and its value is its graded gain. Columns past the items that lists can name
            are relevant items that no model could have recommended: they count in ``n_relevant``
            and in every denominator.
        propensity: float64[columns], the chance that an item's relevance is observed;
            debiased metrics need it.

    Raises:
        ValueError: rows differ in number, a stored value is not positive, or an entry is stored
            twice.
        InputError: ``ties`` needs scores, and they do not fall along some list.
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
    """Judge lists of external ids, as an Arrow batch holds them; the same numbers as :func:`judge`.

    Args:
        lists, relevant: ids of one kind (text or integers).
        k: places of the longest list of all batches; default: of this one.
    """
    codes, names = pd.factorize(np.concatenate([lists.items, relevant.items]))
    lists = replace(lists, items=codes[: len(lists.items)])
    relevant = replace(relevant, items=codes[len(lists.items) :])
    _require_unique(lists, relevant, len(names))
    return judge_codes(lists, relevant, width=len(names), k=max(k or 0, lists.depth), ties=ties)


def judge_codes(lists: Lists, relevant: RelevantItems, *, width: int, k: int, ties: Ties = "stable") -> Judged:
    """Judge lists of integer codes below ``width``, none twice for a user:
    all judging of lists ends here.
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
    """Return int64[m]: how many of each user's places are marked."""
    cumulated = np.concatenate([[0], np.cumsum(marked)])
    return cumulated[offsets[1:]] - cumulated[offsets[:-1]]


def _require_unique(lists: Lists, relevant: RelevantItems, width: int) -> None:
    """Raise ValueError where an item is twice in a user's list,
    or twice among their relevant items.
    """
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
    """Judge the ranking of *all* candidates, without cutting a list: what AUC needs.

    Args:
        scores: float[m, n]; NaN and -inf are no candidates (not scored, seen, filtered).
        relevant, propensity: as in :func:`judge`; relevant items that are no candidates rank
            nowhere.
        ties: ``stable`` puts the lower column first, as ``rank.recommend`` does.
    """
    if relevant.shape[0] != len(scores):
        raise ValueError(f"{len(scores)} rows of scores, but {relevant.shape[0]} rows of relevant items")
    indptr = relevant.indptr.astype(np.int64)
    values = relevant.data.astype(np.float64)
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
    """Return int64[n] twice: where each position's run of equal scores starts,
    and how long it is.
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
    """Return (order, position, spread) of entries in the order of places,
    each tie group settled by ``ties``.

    ``position`` and ``spread``: first place and size of each entry's tie group, groups of one under
    ``stable``.
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
    """Return int64[nnz] twice: the first entry of each entry's run of equal (user, position),
    and the run's length.
    """
    starts = np.ones(len(position), dtype=bool)
    starts[1:] = (user[1:] != user[:-1]) | (position[1:] != position[:-1])
    return _runs(starts)


def _runs(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = np.flatnonzero(starts)
    size = np.diff(np.append(first, len(starts)))
    return np.repeat(first, size), np.repeat(size, size)
