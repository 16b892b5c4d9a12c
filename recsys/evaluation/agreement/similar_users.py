"""Each user's nearest users: those who rank the items that both rated most alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from recsys.errors import ConfigError
from recsys.evaluation.agreement.measures import DISTANCES, Measure, parse
from recsys.evaluation.agreement.rankings import Pairs, Rankings

BLOCK = 1 << 19
"""Pairs of users compared at a time; what decides the memory."""


@dataclass(frozen=True)
class Neighbours:
    """``users``: int64[m] rows. ``neighbours``: int64[m, k] rows, nearest first, -1 padding. ``value``: float64[m, k],
    NaN padding. ``common``: int64[m, k], items that both rated, 0 padding.
    """

    users: np.ndarray
    neighbours: np.ndarray
    value: np.ndarray
    common: np.ndarray


def nearest_users(
    ratings: csr_array, k: int = 10, *, measure: str = "tau_b", min_common: int = 5, users: np.ndarray | None = None
) -> Neighbours:
    """Return the k users whose ratings agree most with each user's, over the items that both rated.

    Args:
        ratings: csr (users, items), the stored values; equal values are ties.
        measure: a name of ``agreement``; of a distance the smallest are nearest.
        min_common: pairs with fewer items in common are not compared: their agreement would be mostly chance.
        users: rows to find neighbours of; default: all.

    Ties go to the pair with more items in common, then to the lower row; pairs without a defined value are left out.
    Only pairs that share items are ever looked at, at most :data:`BLOCK` of them (or one user's) at a time.
    """
    if k < 1 or min_common < 2:
        raise ConfigError(f"nearest users: k is {k} and min_common is {min_common}; at least 1 and 2 are needed")
    parsed, lists = parse(measure), Rankings.of_scores(ratings)
    users = np.arange(len(lists)) if users is None else np.asarray(users, dtype=np.int64)
    rated = csr_array((np.ones(ratings.nnz, dtype=np.int32), ratings.indices, ratings.indptr), shape=ratings.shape)
    raters = rated.T.tocsr()
    rows = max(1, BLOCK // max(1, len(lists)))
    blocks = [
        _block(lists, rated, raters, users[i : i + rows], k, parsed, min_common) for i in range(0, len(users), rows)
    ]
    empty = (np.empty((0, k), dtype=np.int64), np.empty((0, k)), np.empty((0, k), dtype=np.int64))
    return Neighbours(
        users, *(np.concatenate(parts) for parts in (zip(*blocks, strict=True) if blocks else zip(empty, strict=True)))
    )


def _block(
    lists: Rankings, rated: csr_array, raters: csr_array, users: np.ndarray, k: int, measure: Measure, min_common: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shared = (rated[users] @ raters).tocoo()
    keep = (shared.data >= min_common) & (users[shared.row] != shared.col)
    row, other, common = shared.row[keep], shared.col[keep].astype(np.int64), shared.data[keep]
    value = measure(Pairs(lists, lists, users[row], other))
    near = np.round(value if measure.name in DISTANCES else -value, 12)  # equal fractions may differ by rounding
    order = np.lexsort((other, -common, near, row))
    order = order[~np.isnan(value[order])]
    start = np.searchsorted(row[order], np.arange(len(users)))
    place = np.arange(len(order)) - start[row[order]]
    order, place = order[place < k], place[place < k]
    found = np.full((len(users), k), -1, dtype=np.int64)
    values, counts = np.full((len(users), k), np.nan), np.zeros((len(users), k), dtype=np.int64)
    found[row[order], place], values[row[order], place] = other[order], value[order]
    counts[row[order], place] = common[order]
    return found, values, counts
