"""Lists against truth: where each user's relevant items stand. Every metric is a function of the result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import kernels
from recsys.errors import InputError
from recsys.types import TopK

Ties = Literal["stable", "average", "pessimistic", "optimistic"]
"""What equal scores mean. ``stable``: the order as it is. ``average``: the expectation over every order of the tied.
``pessimistic`` and ``optimistic``: the worst and the best order for the user. All but ``stable`` ignore the given
order of equal scores, so they do not change when items are renamed or rows are shuffled."""


@dataclass(frozen=True)
class Judged:
    """Where the relevant items of ``m`` users stand in their lists.

    User i's relevant items are the entries ``indptr[i]:indptr[i + 1]`` of the arrays, in the order of their places,
    whether or not anybody could have recommended them.

    ``place``: int32[nnz] from 0, ``kernels.NOWHERE`` when it is not in the list; the first of its tie group.
    ``spread``: int32[nnz], places that the item shares with others of equal score under ``average``, else 1.
    ``value``: float64[nnz] > 0, its graded gain. ``length``: int64[m], items in the list. ``k``: places of the
    longest list. ``complete``: every candidate was ranked, not only the best. ``n_tied``: int64[m], places whose
    score another of the list has (with all candidates ranked, those of relevant items only), None = no scores.
    ``propensity``: float64[nnz] in (0, 1], the chance that the item's relevance is observed, None when unknown.
    """

    indptr: np.ndarray
    place: np.ndarray
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
        return 0 if self.n_tied is None else int(self.n_tied.sum())

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
        return np.arange(len(self.place)) - self.indptr[self.user]

    @cached_property
    def tied(self) -> bool:
        """Whether some relevant item shares its places with others."""
        return bool((self.spread > 1).any())

    @cached_property
    def group(self) -> tuple[np.ndarray, np.ndarray]:
        """Return int64[nnz] twice: the user's relevant items before the entry's tie group, and those within it."""
        if not self.tied:
            return self.ordinal, np.ones(len(self.place), dtype=np.int64)
        first, size = tie_runs(self.user, self.place)
        return self.ordinal[first], size

    @cached_property
    def by_value(self) -> np.ndarray:
        """Return int64[nnz]: the entries, each user's largest values first; all cut-offs share it."""
        return np.lexsort((-self.value, self.user))

    def total(self, entries: np.ndarray) -> np.ndarray:
        """Return float64[m]: the sum of float64[nnz] entries over each user, in the order of places."""
        return np.bincount(self.user, weights=entries, minlength=len(self.length))

    def hits(self, k: int) -> np.ndarray:
        """Return float64[m]: relevant items among the first k places (over ties: expected); kept for other metrics."""
        if k not in self._hits:
            self._hits[k] = self.total(self.mean_over_places(np.ones(k)))
        return self._hits[k]

    @cached_property
    def _hits(self) -> dict[int, np.ndarray]:
        return {}

    def mean_over_places(self, weights: np.ndarray) -> np.ndarray:
        """Return float64[nnz]: ``weights`` (float64[k], then 0) at each entry's place, the mean over its tie group."""
        k = len(weights)
        if not self.tied:
            return np.append(weights, 0.0)[np.minimum(self.place, k)]
        upto = np.concatenate([[0.0], np.cumsum(weights)])
        first, last = np.minimum(self.place, k), np.minimum(self.place + self.spread, k)
        return (upto[last] - upto[first]) / self.spread


def judge(topk: TopK, relevant: csr_array, *, ties: Ties = "stable", propensity: np.ndarray | None = None) -> Judged:
    """Look every listed item up among the user's relevant ones.

    Args:
        topk: lists of m users.
        relevant: csr (m, ≥ items), row i for list i, each stored value > 0: a stored entry is relevant and its
            value is its graded gain. Columns past the items that lists can name stand for relevant items that
            nobody could have recommended: they count in ``n_relevant`` and in every denominator.
        propensity: float64[columns], the chance that an item's relevance is observed; debiased metrics need it.

    Raises:
        ValueError: rows differ in number, a stored value is not positive, or an entry is stored twice.
        InputError: ``ties`` needs scores, and they do not fall along some list.
    """
    if relevant.shape[0] != len(topk.items):
        raise ValueError(f"{len(topk.items)} lists, but {relevant.shape[0]} rows of relevant items")
    if relevant.nnz and not relevant.data.min() > 0:
        raise ValueError("a relevant item must have a value above 0")
    listed = topk.items >= 0
    items, offsets = topk.items[listed], np.append(0, np.cumsum(listed.sum(axis=1)))
    width = max(relevant.shape[1], int(topk.items.max(initial=0)) + 1)
    _unique(items, offsets, relevant.indices, relevant.indptr, width)
    return judge_codes(
        items,
        offsets,
        relevant.indices,
        relevant.indptr,
        relevant.data,
        width=width,
        k=topk.items.shape[1],
        scores=topk.scores[listed],
        ties=ties,
        propensity=None if propensity is None else propensity[relevant.indices],
    )


def judge_lists(
    listed: np.ndarray,
    listed_offsets: np.ndarray,
    relevant: np.ndarray,
    relevant_offsets: np.ndarray,
    values: np.ndarray,
    *,
    k: int | None = None,
    scores: np.ndarray | None = None,
    ties: Ties = "stable",
    propensity: np.ndarray | None = None,
) -> Judged:
    """Judge lists of external ids, as an Arrow batch holds them; the same numbers as :func:`judge`.

    Args:
        listed, relevant: ids of all lists one after the other, best first; of one kind (text or integers).
        listed_offsets, relevant_offsets: int[m + 1], where each user's part starts and ends.
        values: float[len(relevant)], > 0.
        k: places of the longest list of all batches; default: of this one.
        scores: float[len(listed)], for ``ties``.
        propensity: float[len(relevant)] in (0, 1], for debiased metrics.
    """
    codes, names = pd.factorize(np.concatenate([listed, relevant]))
    listed, relevant = codes[: len(listed)], codes[len(listed) :]
    _unique(listed, listed_offsets, relevant, relevant_offsets, len(names))
    return judge_codes(
        listed,
        listed_offsets,
        relevant,
        relevant_offsets,
        values,
        width=len(names),
        k=max(k or 0, int(np.diff(listed_offsets).max(initial=1))),
        scores=scores,
        ties=ties,
        propensity=propensity,
    )


def judge_codes(
    listed: np.ndarray,
    offsets: np.ndarray,
    relevant: np.ndarray,
    indptr: np.ndarray,
    values: np.ndarray,
    *,
    width: int,
    k: int,
    scores: np.ndarray | None = None,
    ties: Ties = "stable",
    propensity: np.ndarray | None = None,
) -> Judged:
    """Judge lists of integer codes below ``width``, none twice for a user: what all judging of lists comes down to.

    ``values`` and ``propensity`` stand beside ``relevant``.
    """
    indptr, offsets = np.asarray(indptr, dtype=np.int64), np.asarray(offsets, dtype=np.int64)
    entry, place = kernels.find_relevant(listed, offsets, relevant, indptr, width)
    spread, n_tied = np.ones(len(place), dtype=np.int32), None
    if scores is not None:
        n_tied = kernels.count_equal_neighbours(np.asarray(scores), offsets)[:, 1]
    elif ties != "stable":
        raise InputError(f"ties = '{ties}' needs a score beside every listed item: add them, or use 'stable'")
    if ties != "stable":
        group, size = _tie_groups(np.asarray(scores), offsets)
        user = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        found = np.flatnonzero(place < kernels.NOWHERE)
        at = (offsets[user] + place)[found]
        place[found], spread[found] = group[at] - offsets[user[found]], size[at]
        order, place, spread = _settle(user, place, spread, np.asarray(values)[entry], ties)
        entry = entry[order]
    return Judged(
        indptr,
        place,
        spread,
        np.asarray(values, dtype=np.float64)[entry],
        np.diff(offsets),
        k,
        n_tied=n_tied,
        propensity=None if propensity is None else np.asarray(propensity, dtype=np.float64)[entry],
    )


def _per_user(marked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return int64[m]: how many of each user's places are marked."""
    upto = np.concatenate([[0], np.cumsum(marked)])
    return upto[offsets[1:]] - upto[offsets[:-1]]


def _unique(listed: np.ndarray, offsets: np.ndarray, relevant: np.ndarray, indptr: np.ndarray, width: int) -> None:
    for what, codes, bounds in (("list", listed, offsets), ("truth", relevant, indptr)):
        if kernels.count_repeats(codes, bounds, width).any():
            raise ValueError(f"an item stands twice in a user's {what}")


def judge_scores(
    scores: np.ndarray, relevant: csr_array, *, ties: Ties = "average", propensity: np.ndarray | None = None
) -> Judged:
    """Judge the ranking of *all* candidates, without cutting a list: what AUC needs.

    Args:
        scores: float[m, n]; NaN and -inf are no candidates (no opinion, seen, filtered).
        relevant, propensity: as in :func:`judge`; relevant items that are no candidates rank nowhere.
        ties: ``stable`` puts the lower column first, as ``rank.recommend`` does.
    """
    if relevant.shape[0] != len(scores):
        raise ValueError(f"{len(scores)} rows of scores, but {relevant.shape[0]} rows of relevant items")
    indptr, values = relevant.indptr.astype(np.int64), relevant.data.astype(np.float64)
    place, spread, before, candidates = kernels.rank_relevant(scores, relevant.indices, indptr)
    n_tied = _per_user(spread > 1, indptr)
    if ties == "stable":
        place, spread = place + before, np.ones_like(spread)
    user = np.repeat(np.arange(len(scores)), np.diff(indptr))
    order, place, spread = _settle(user, place, spread, values, ties)
    return Judged(
        indptr,
        place,
        spread,
        values[order],
        candidates,
        scores.shape[1],
        complete=True,
        n_tied=n_tied,
        propensity=None if propensity is None else propensity[relevant.indices[order]],
    )


def _tie_groups(scores: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[n] twice: where each place's run of equal scores starts, and how long it is."""
    opens = np.zeros(len(scores), dtype=bool)
    opens[offsets[:-1][offsets[:-1] < len(scores)]] = True
    if np.isnan(scores).any():
        raise InputError("ties: some listed items have no score: fill them, or use ties = 'stable'")
    if ((scores[1:] > scores[:-1]) & ~opens[1:]).any():
        raise InputError("ties: scores rise along a list, so equal ones say nothing: use ties = 'stable'")
    opens[1:] |= scores[1:] != scores[:-1]
    return _runs(opens)


def _settle(
    user: np.ndarray, place: np.ndarray, spread: np.ndarray, value: np.ndarray, ties: Ties
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (order, place, spread) of entries in the order of places, each tie group settled by ``ties``.

    ``place`` and ``spread``: first place and size of each entry's tie group, groups of one under ``stable``.
    """
    order = np.lexsort((-value if ties == "optimistic" else value, place, user))
    user, place, spread = user[order], place[order], spread[order]
    if ties in ("stable", "average") or not (spread > 1).any():
        return order, place, spread
    before, relevant = tie_runs(user, place)
    ordinal = np.arange(len(place)) - before
    shift = ordinal if ties == "optimistic" else spread - relevant + ordinal  # the best value last of the group
    return order, np.where(place < kernels.NOWHERE, place + shift, place).astype(np.int32), np.ones_like(spread)


def tie_runs(user: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[nnz] twice: the first entry of each entry's run of equal (user, place), and the run's length."""
    starts = np.ones(len(place), dtype=bool)
    starts[1:] = (user[1:] != user[:-1]) | (place[1:] != place[:-1])
    return _runs(starts)


def _runs(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = np.flatnonzero(starts)
    size = np.diff(np.append(first, len(starts)))
    return np.repeat(first, size), np.repeat(size, size)
