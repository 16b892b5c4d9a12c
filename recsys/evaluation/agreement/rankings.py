"""Ranked lists and pairs of ranked lists, the input of all measures of agreement."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.errors import ConfigError, InputError, suggest_nearest
from recsys.evaluation.agreement import concordance
from recsys.types import TopK

RankedList: TypeAlias = Sequence[Any] | Mapping[Any, float] | pd.Series
"""One ranked list of ids: a sequence, best first, or a dict id -> score, or a Series of scores with the
ids as its index. A Series of anything but numbers is a sequence of ids.

In a sequence, a nested list, tuple or set is a group of ties. In a dict, ids with the same score
are tied."""

MISSING_RULES = ("intersection", "bottom")
"""What to do with an item that only one list of a pair has, see :class:`Pairs`."""


@dataclass(frozen=True)
class Rankings:
    """``m`` ranked lists of any lengths, in flat arrays: one list after the other, each best first.

    Attributes:
        items: int32[n], item codes ≥ 0; a list holds an item at most once.
        dense_ranks: int32[n], 0 for the best group of ties of a list, 1 for the next group, and so
            on.
        offsets: int64[m + 1], where each list begins and ends: list i is
            ``items[offsets[i] : offsets[i + 1]]``.
    """

    items: np.ndarray
    dense_ranks: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of items of each list, int64[m]."""
        return np.diff(self.offsets)

    @cached_property
    def position_tables(self) -> tuple[np.ndarray, np.ndarray]:
        """The hash tables with which the compiled functions find the position of an item in a list.

        The value is (tables, offsets). ``tables``, int32, has the tables of all lists, one after
        the other. ``offsets``, int64[m + 1], says where each table begins and ends.
        ``concordance.find_position`` looks an item up.

        Raises:
            InputError: a list has an item twice.
        """
        # At most half of the slots are used, so that probing stays short.
        slots = np.exp2(np.ceil(np.log2(2 * np.maximum(self.lengths, 1)))).astype(np.int64)
        table_offsets = np.concatenate([[0], np.cumsum(slots)])
        tables, repeats = concordance.build_position_tables(self.items, self.offsets, table_offsets)
        if repeats.any():
            raise InputError(
                f"list {repeats.argmax()} holds an item more than once: keep its best position only",
            )
        return tables, table_offsets

    def cut(self, k: int) -> Rankings:
        """Return the lists cut to their first k items, k ≥ 1.

        If the cut is inside a group of ties, the whole group is kept. So a list may keep more than
        k items.

        Raises:
            ValueError: k is less than 1.
        """
        if k < 1:
            raise ValueError(f"lists are cut to at least one item, and k is {k}")
        last = self.offsets[:-1] + np.minimum(k, self.lengths) - 1
        is_filled = self.lengths > 0
        last_ranks = 0
        if len(self.dense_ranks):
            last_ranks = self.dense_ranks[last * is_filled]
        deepest = np.where(is_filled, last_ranks, 0)
        keep = self.dense_ranks <= np.repeat(deepest, self.lengths)
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        return Rankings(self.items[keep], self.dense_ranks[keep], kept_before[self.offsets])

    @classmethod
    def from_padded(cls, items: np.ndarray, dense_ranks: np.ndarray | None = None) -> Rankings:
        """Return one list per row of a matrix of items.

        Args:
            items: int[m, k], item codes, best first. A list that is shorter than k has -1 at the
                end.
            dense_ranks: int[m, k], the group of ties of each item: 0 for the best group of a list,
                1 for the next group, and so on. None: no items are tied.
        """
        if dense_ranks is None:
            dense_ranks = np.broadcast_to(np.arange(items.shape[1], dtype=np.int32), items.shape)
        is_item = items >= 0
        offsets = np.concatenate([[0], np.cumsum(np.count_nonzero(is_item, axis=1))])
        return cls(items[is_item].astype(np.int32), dense_ranks[is_item].astype(np.int32), offsets)

    @classmethod
    def from_flat(cls, items: np.ndarray, offsets: np.ndarray) -> Rankings:
        """Return m lists without ties.

        Args:
            items: int[n], the item codes of all lists, one list after the other, each best first.
            offsets: int64[m + 1], list i is ``items[offsets[i] : offsets[i + 1]]``.
        """
        positions = np.arange(len(items)) - np.repeat(offsets[:-1], np.diff(offsets))
        return cls(items.astype(np.int32), positions.astype(np.int32), offsets)

    @classmethod
    def from_topk(cls, topk: TopK, *, tied_scores: bool = False) -> Rankings:
        """Return the lists of a TopK as Rankings, with the items in the same order.

        Args:
            topk: m lists of items.
            tied_scores: whether neighbouring items with the same score are tied. If False, no items
                are tied.
        """
        if not tied_scores:
            return cls.from_padded(topk.items)
        dense_ranks = np.zeros(topk.items.shape, dtype=np.int64)
        np.cumsum(topk.scores[:, 1:] != topk.scores[:, :-1], axis=1, out=dense_ranks[:, 1:])
        return cls.from_padded(topk.items, dense_ranks)

    @classmethod
    def from_scores(cls, scores: csr_array) -> Rankings:
        """Return one list per row of a matrix: its stored columns, highest value first.

        The columns are the item codes. Columns with the same value are tied. Stored zeros count.

        Args:
            scores: csr (m, items).

        Raises:
            InputError: a value is NaN.
        """
        if np.isnan(scores.data).any():
            count = int(np.isnan(scores.data).sum())
            raise InputError(f"{count:,} scores are NaN: fill them, or leave the items out")
        row = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
        order = np.lexsort((-scores.data, row))
        values = scores.data[order]
        is_new_group = np.zeros(len(values), dtype=np.int64)
        is_new_group[1:] = values[1:] != values[:-1]
        # Groups are numbered over all rows first; then the number of a row's first group is
        # subtracted.
        groups = np.cumsum(is_new_group)
        offsets = scores.indptr.astype(np.int64)
        first_groups = np.zeros(len(offsets) - 1)
        if len(groups):
            first_groups = groups[np.minimum(offsets[:-1], len(groups) - 1)]
        dense_ranks = groups - np.repeat(first_groups, np.diff(offsets)).astype(np.int64)
        return cls(scores.indices[order].astype(np.int32), dense_ranks.astype(np.int32), offsets)


@dataclass(frozen=True)
class AlignedKeys:
    """The items on which m pairs of lists are compared, with their ranks in both lists.

    A key is an int64 that holds the ranks of one item in both lists of a pair; the module
    ``concordance`` has its layout. The keys of a pair are sorted. Those of pair i are
    ``keys[starts[i] : starts[i] + sizes[i]]``.

    Attributes:
        keys: int64[n], one key per compared item.
        starts: int64[m], where the keys of each pair begin.
        sizes: int64[m], the number of compared items of each pair.
    """

    keys: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @cached_property
    def swapped(self) -> AlignedKeys:
        """The keys of the same pairs with the two lists exchanged: b is the first list, a the second."""
        return replace(self, keys=concordance.swap_lists(self.keys, self.starts, self.sizes))

    @cached_property
    def counts(self) -> ConcordanceCounts:
        """The counts from which Kendall's coefficients are computed, for each pair of lists."""
        counts, moments = concordance.count_concordance(self.keys, self.starts, self.sizes)
        return ConcordanceCounts(moments[:, :2].T, moments[:, 2:].T, *counts.T)


@dataclass(frozen=True)
class ConcordanceCounts:
    """Counts of m pairs of lists, from which Kendall's coefficients and their variance are
    computed.

    Attributes:
        moments_a, moments_b: float64[2, m], the sums Σ t(t − 1)(t − 2) and Σ t(t − 1)(2t + 5) over
            the groups of ties of list a, and of list b. t is the number of items of a group.
        items: int64[m], the number of compared items.
        discordant: int64[m], the number of pairs of items that the two lists put in opposite order.
        tied_a, tied_b, tied_both: int64[m], the number of pairs of items that are tied in list a,
            in list b, and in both lists.
        groups_a, groups_b: int64[m], the number of groups of ties in list a, and in list b. An item
            without ties is a group of its own.
    """

    moments_a: np.ndarray
    moments_b: np.ndarray
    items: np.ndarray
    discordant: np.ndarray
    tied_a: np.ndarray
    tied_b: np.ndarray
    tied_both: np.ndarray
    groups_a: np.ndarray
    groups_b: np.ndarray

    @property
    def pairs(self) -> np.ndarray:
        """The number of all pairs of compared items, n (n − 1) / 2 for n items; int64[m]."""
        return self.items * (self.items - 1) // 2

    @property
    def balance(self) -> np.ndarray:
        """The number of concordant minus the number of discordant pairs of items, int64[m]."""
        return self.pairs - self.tied_a - self.tied_b + self.tied_both - 2 * self.discordant

    @property
    def undefined(self) -> np.ndarray:
        """Whether a correlation is undefined for each pair of lists, bool[m].

        It is undefined if fewer than two items are compared, or if all items of a list are tied.
        """
        return (self.groups_a < 2) | (self.groups_b < 2)


@dataclass(frozen=True)
class Pairs:
    """``m`` pairs of ranked lists.

    Pair i is list ``rows_a[i]`` of ``a`` and list ``rows_b[i]`` of ``b``. An item has the same code
    in ``a`` and in ``b``.

    Attributes:
        a, b: the lists from which the pairs are formed.
        rows_a, rows_b: int[m], for each pair, the number of its list in ``a`` and in ``b``.
        missing: the default rule for an item that only one list of a pair has. ``intersection``
            leaves the item out. ``bottom`` adds the item below the end of the other list. All
            items that are added to a list form one group of ties.
    """

    a: Rankings
    b: Rankings
    rows_a: np.ndarray
    rows_b: np.ndarray
    missing: str = "intersection"

    @classmethod
    def row_by_row(cls, a: Rankings, b: Rankings, missing: str = "intersection") -> Pairs:
        """Return the pairs of list i of ``a`` and list i of ``b``, for each i.

        Args:
            a, b: m lists each, with the same item codes.
            missing: the attribute ``missing`` of the result.

        Raises:
            ValueError: ``a`` and ``b`` do not have the same number of lists.
        """
        if len(a) != len(b):
            raise ValueError(f"row_by_row needs equally many lists: a has {len(a)}, b has {len(b)}")
        rows = np.arange(len(a))
        return cls(a, b, rows, rows, missing)

    def __len__(self) -> int:
        return len(self.rows_a)

    @property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """The lengths of the first and of the second lists of the pairs, int64[m] each."""
        return self.a.lengths[self.rows_a], self.b.lengths[self.rows_b]

    @property
    def common(self) -> np.ndarray:
        """The number of items that are in both lists of each pair, int64[m]."""
        return self._intersection.sizes

    def cut(self, k: int | None) -> Pairs:
        """Return the pairs with all lists cut at k (:meth:`Rankings.cut`). None: no cut."""
        if k is None:
            return self
        return replace(self, a=self.a.cut(k), b=self.b.cut(k))

    def aligned(self, missing: str = "") -> AlignedKeys:
        """Return the items on which the lists of each pair are compared, with their ranks.

        Args:
            missing: "intersection": the items that both lists have. "bottom": the items that at
                least one list has. "": what the attribute ``missing`` of these pairs says.

        Raises:
            ConfigError: there is no such rule.
            InputError: a list has an item twice.
        """
        rule = missing or self.missing
        if rule not in MISSING_RULES:
            raise ConfigError(f"missing is {rule!r}.{suggest_nearest(rule, MISSING_RULES)}")
        if rule == "bottom":
            return self._union
        return self._intersection

    @cached_property
    def _intersection(self) -> AlignedKeys:
        a_lengths, b_lengths = self.lengths
        return self._align(np.minimum(a_lengths, b_lengths), bottom=False)

    @cached_property
    def _union(self) -> AlignedKeys:
        a_lengths, b_lengths = self.lengths
        return self._align(a_lengths + b_lengths, bottom=True)

    def _align(self, capacities: np.ndarray, *, bottom: bool) -> AlignedKeys:
        """Return the keys of the items on which the lists of each pair are compared.

        Args:
            capacities: int64[m], the largest possible number of keys of each pair.
            bottom: whether to compare on the items of either list, or only on those of both.
        """
        starts = np.concatenate([[0], np.cumsum(capacities)])
        # The tables of a are not used, but building them refuses lists that repeat an item.
        _ = self.a.position_tables
        keys, sizes = concordance.align_pairs(
            self.a.items,
            self.a.dense_ranks,
            self.a.offsets,
            self.b.items,
            self.b.dense_ranks,
            self.b.offsets,
            *self.b.position_tables,
            self.rows_a,
            self.rows_b,
            starts,
            bottom,
        )
        return AlignedKeys(keys, starts[:-1], sizes)


def make_pair(a: RankedList, b: RankedList) -> Pairs:
    """Return two ranked lists of ids as Pairs of one pair.

    Args:
        a, b: two lists, each in one of the forms of :data:`RankedList`.

    Raises:
        InputError: a list has an id twice, a score is NaN, or an argument is not a list.

    >>> make_pair(["x", ["y", "z"]], {"z": 3.5, "x": 1.0}).common
    array([2])
    """
    codes: dict[Hashable, int] = {}
    rankings_a = _encode(a, codes, "the first list")
    rankings_b = _encode(b, codes, "the second list")
    return Pairs.row_by_row(rankings_a, rankings_b)


def _encode(ranked: RankedList, codes: dict[Hashable, int], label: str) -> Rankings:
    """Return one ranked list, in any of the forms of :data:`RankedList`, as Rankings of one list.

    Args:
        codes: id -> item code. New ids are added.
        label: the name of the list, for error messages.

    Raises:
        InputError: the list has an id twice or a NaN score, or is not a ranked list.
    """
    items: list[int] = []
    dense_ranks: list[int] = []
    seen: set[Hashable] = set()
    if isinstance(ranked, pd.Series) and pd.api.types.is_numeric_dtype(ranked):
        if not ranked.index.is_unique:
            raise InputError(f"{label}: the index of the Series repeats {ranked.index[ranked.index.duplicated()][0]!r}")
        ranked = ranked.to_dict()
    if not isinstance(ranked, Iterable):
        raise InputError(
            f"{label} is of type {type(ranked).__name__}: give a list of ids, a dict id -> score, or a Series of scores"
            " by id."
        )
    if isinstance(ranked, pd.DataFrame):
        raise InputError(f"{label} is a table of shape {ranked.shape}: give one column by id, or use agree_tables.")
    groups: Iterable[Any] = ranked
    if isinstance(ranked, Mapping):
        groups = _group_by_score(ranked, label)
    for dense_rank, group in enumerate(groups):
        for item in group if isinstance(group, list | tuple | set | frozenset) else (group,):
            if item in seen:
                raise InputError(
                    f"{label} holds {item!r} more than once: keep its best position only",
                )
            seen.add(item)
            items.append(codes.setdefault(item, len(codes)))
            dense_ranks.append(dense_rank)
    offsets = np.array([0, len(items)])
    return Rankings(np.array(items, dtype=np.int32), np.array(dense_ranks, dtype=np.int32), offsets)


def _group_by_score(scores: Mapping[Any, float], label: str) -> Iterable[list[Any]]:
    """Return the groups of ids with the same score, highest score first.

    Raises:
        InputError: a score is NaN.
    """
    groups: dict[float, list[Any]] = {}
    for item, score in scores.items():
        if score != score:
            raise InputError(
                f"{label}: the score of {item!r} is NaN: fill it, or leave the item out",
            )
        groups.setdefault(score, []).append(item)
    return [groups[score] for score in sorted(groups, reverse=True)]
