"""Ranked lists and pairs of them, in the one form that every measure of agreement takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recsys.errors import ConfigError, InputError, nearest
from recsys.evaluation.agreement import concordance
from recsys.types import TopK

Ranked = Sequence[Any] | Mapping[Any, float]
"""One ranked list: ids best first, a list, tuple or set among them being a group of ties; or id -> score."""

MISSING = ("intersection", "bottom")


@dataclass(frozen=True)
class Rankings:
    """``m`` lists of any lengths, one after the other, best first.

    ``items``: int32[n] codes ≥ 0, at most once a list. ``level``: int32[n], 0 for a list's best group of ties, one
    more for each next group. ``offsets``: int64[m + 1], where each list starts and the last one ends.
    """

    items: np.ndarray
    level: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def length(self) -> np.ndarray:
        """Return int64[m]: items in each list."""
        return np.diff(self.offsets)

    @cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what ``concordance.find`` looks items up in: (tables, int64[m + 1] where each list's one starts).

        Raises:
            InputError: a list holds an item twice.
        """
        room = np.exp2(np.ceil(np.log2(2 * np.maximum(self.length, 1)))).astype(np.int64)
        start = np.concatenate([[0], np.cumsum(room)])
        tables, repeats = concordance.places(self.items, self.offsets, start)
        if repeats.any():
            raise InputError(f"list {repeats.argmax()} holds an item more than once: keep its best place only")
        return tables, start

    def cut(self, k: int) -> Rankings:
        """Return the first k places of each list; a group of ties that crosses the cut stays whole."""
        last = self.offsets[:-1] + np.minimum(k, self.length) - 1
        filled = self.length > 0
        deepest = np.where(filled, self.level[last * filled] if len(self.level) else 0, 0)
        keep = self.level <= np.repeat(deepest, self.length)
        kept = np.concatenate([[0], np.cumsum(keep)])
        return Rankings(self.items[keep], self.level[keep], kept[self.offsets])

    @classmethod
    def of_places(cls, items: np.ndarray, level: np.ndarray | None = None) -> Rankings:
        """Return the lists of int[m, k] items, best first, -1 padding; ``level``: int[m, k], default no ties."""
        places = np.broadcast_to(np.arange(items.shape[1]), items.shape) if level is None else level
        offsets = np.concatenate([[0], np.cumsum(np.count_nonzero(items >= 0, axis=1))])
        return cls(*concordance.flatten(items, places, offsets), offsets)

    @classmethod
    def of_orders(cls, items: np.ndarray, offsets: np.ndarray) -> Rankings:
        """Return lists without ties of int[n] items, all lists one after the other."""
        place = np.arange(len(items)) - np.repeat(offsets[:-1], np.diff(offsets))
        return cls(items.astype(np.int32), place.astype(np.int32), offsets)

    @classmethod
    def of_topk(cls, topk: TopK, *, tied_scores: bool = False) -> Rankings:
        """Return the lists of a TopK; ``tied_scores``: neighbours of equal score are tied, else places are taken."""
        if not tied_scores:
            return cls.of_places(topk.items)
        level = np.zeros(topk.items.shape, dtype=np.int64)
        np.cumsum(topk.scores[:, 1:] != topk.scores[:, :-1], axis=1, out=level[:, 1:])
        return cls.of_places(topk.items, level)

    @classmethod
    def of_scores(cls, scores: csr_array) -> Rankings:
        """Return one list a row: its stored columns, highest value first, equal values tied.

        Raises:
            InputError: a value is NaN.
        """
        if np.isnan(scores.data).any():
            raise InputError(f"{int(np.isnan(scores.data).sum()):,} scores are NaN: fill them, or leave the items out")
        row = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
        order = np.lexsort((-scores.data, row))
        value = scores.data[order]
        step = np.zeros(len(value), dtype=np.int64)
        step[1:] = value[1:] != value[:-1]
        offsets = scores.indptr.astype(np.int64)
        groups = np.cumsum(step)
        first = groups[np.minimum(offsets[:-1], max(len(groups) - 1, 0))] if len(groups) else np.zeros(len(offsets) - 1)
        level = groups - np.repeat(first, np.diff(offsets)).astype(np.int64)
        return cls(scores.indices[order].astype(np.int32), level.astype(np.int32), offsets)


@dataclass(frozen=True)
class Aligned:
    """The items that each pair is compared on, as sorted keys (see ``concordance``); pair i has ``size[i]`` of them."""

    keys: np.ndarray
    start: np.ndarray
    size: np.ndarray

    @cached_property
    def swapped(self) -> Aligned:
        """The same with the two lists exchanged."""
        return replace(self, keys=concordance.swap(self.keys, self.start, self.size))

    @cached_property
    def counts(self) -> Counts:
        """Pairs of items by how the two lists order them."""
        counts, moments = concordance.concordance(self.keys, self.start, self.size)
        return Counts(moments[:, :2].T, moments[:, 2:].T, *counts.T)


@dataclass(frozen=True)
class Counts:
    """int64[m] each: ``items``; pairs of items in opposite order, tied in a, in b, in both; groups of ties.

    ``moments``: float64[2, m], Σ t(t − 1)(t − 2) and Σ t(t − 1)(2t + 5) over a list's groups of t items.
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
        """All pairs of items."""
        return self.items * (self.items - 1) // 2

    @property
    def balance(self) -> np.ndarray:
        """Concordant minus discordant pairs."""
        return self.pairs - self.tied_a - self.tied_b + self.tied_both - 2 * self.discordant

    @property
    def undefined(self) -> np.ndarray:
        """Fewer than two items to compare, or a list that ties all of them: it holds no order to agree with."""
        return (self.groups_a < 2) | (self.groups_b < 2)


@dataclass(frozen=True)
class Pairs:
    """``m`` pairs of lists: ``left[i]`` of ``a`` against ``right[i]`` of ``b``; both share one code an item.

    ``missing``: what measures do by default with items of one list only: ``intersection`` leaves them out, ``bottom``
    ties them in one group below the list that misses them.
    """

    a: Rankings
    b: Rankings
    left: np.ndarray
    right: np.ndarray
    missing: str = "intersection"

    @classmethod
    def row_by_row(cls, a: Rankings, b: Rankings, missing: str = "intersection") -> Pairs:
        """Return list 0 of ``a`` against list 0 of ``b``, 1 against 1, …"""
        if len(a) != len(b):
            raise ValueError(f"{len(a)} lists against {len(b)}")
        rows = np.arange(len(a))
        return cls(a, b, rows, rows, missing)

    def __len__(self) -> int:
        return len(self.left)

    @property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Items in the first and in the second list of each pair."""
        return self.a.length[self.left], self.b.length[self.right]

    @property
    def common(self) -> np.ndarray:
        """Return int64[m]: items that stand in both lists."""
        return self._intersection.size

    def cut(self, k: int | None) -> Pairs:
        """Return the pairs of lists cut at k (:meth:`Rankings.cut`); None: as they are."""
        return self if k is None else replace(self, a=self.a.cut(k), b=self.b.cut(k))

    def aligned(self, missing: str = "") -> Aligned:
        """Return the items to compare under a rule of :data:`MISSING`, "" meaning these pairs' own."""
        rule = missing or self.missing
        if rule not in MISSING:
            raise ConfigError(f"missing is {rule!r}.{nearest(rule, MISSING)}")
        return self._bottom if rule == "bottom" else self._intersection

    @cached_property
    def _intersection(self) -> Aligned:
        a, b = self.lengths
        return self._align(np.minimum(a, b), bottom=False)

    @cached_property
    def _bottom(self) -> Aligned:
        a, b = self.lengths
        return self._align(a + b, bottom=True)

    def _align(self, room: np.ndarray, *, bottom: bool) -> Aligned:
        a, b, start = self.a, self.b, np.concatenate([[0], np.cumsum(room)])
        _ = a.table  # refuses repeated items
        lists = (a.items, a.level, a.offsets, b.items, b.level, b.offsets, *b.table)
        keys, size = concordance.align(*lists, self.left, self.right, start, bottom)
        return Aligned(keys, start[:-1], size)


def pair(a: Ranked, b: Ranked) -> Pairs:
    """Return one pair of lists.

    >>> pair(["x", ["y", "z"]], {"z": 3.5, "x": 1.0}).common
    array([2])

    Raises:
        InputError: a list holds an id twice, or a score is no finite or infinite number.
    """
    codes: dict[Hashable, int] = {}
    return Pairs.row_by_row(_ranking(a, codes, "the first list"), _ranking(b, codes, "the second list"))


def _ranking(ranked: Ranked, codes: dict[Hashable, int], which: str) -> Rankings:
    """Return one list; ids get the next free code."""
    items: list[int] = []
    level: list[int] = []
    seen: set[Hashable] = set()
    for place, group in enumerate(_by_score(ranked, which) if isinstance(ranked, Mapping) else ranked):
        for item in group if isinstance(group, list | tuple | set | frozenset) else (group,):
            if item in seen:
                raise InputError(f"{which} holds {item!r} more than once: keep its best place only")
            seen.add(item)
            items.append(codes.setdefault(item, len(codes)))
            level.append(place)
    return Rankings(np.array(items, dtype=np.int32), np.array(level, dtype=np.int32), np.array([0, len(items)]))


def _by_score(scores: Mapping[Any, float], which: str) -> Iterable[list[Any]]:
    """Return groups of ids of equal score, highest first."""
    groups: dict[float, list[Any]] = {}
    for item, score in scores.items():
        if score != score:
            raise InputError(f"{which}: the score of {item!r} is NaN: fill it, or leave the item out")
        groups.setdefault(score, []).append(item)
    return [groups[score] for score in sorted(groups, reverse=True)]
