"""Find the most similar users of each user: the users who order the items that both rated most
alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from recsys.errors import ConfigError
from recsys.evaluation.agreement.measures import Measure, parse_measure
from recsys.evaluation.agreement.rankings import Pairs, Rankings

BLOCK_PAIRS = 1 << 19
"""Number of pairs of users that are compared at a time. A larger number needs more memory."""


@dataclass(frozen=True)
class Neighbours:
    """The k most similar users (neighbours) of each of m users.

    A user with fewer than k neighbours has padding at the end of the row.

    Attributes:
        users: int64[m], the row of each user in the matrix of ratings.
        neighbours: int64[m, k], the rows of the neighbours of each user, the most similar first;
            padding is -1.
        values: float64[m, k], the value of the measure for the user and each neighbour; padding is
            NaN.
        common: int64[m, k], the number of items that the user and the neighbour both rated;
            padding is 0.
    """

    users: np.ndarray
    neighbours: np.ndarray
    values: np.ndarray
    common: np.ndarray


def nearest_users(
    ratings: csr_array,
    k: int = 10,
    *,
    measure: str = "tau_b",
    min_common: int = 5,
    users: np.ndarray | None = None,
) -> Neighbours:
    """Return, for each user, the k other users whose ratings agree most with those of the user.

    The ratings of a user define a ranking of the items that the user rated. Two users are compared
    by the agreement of their rankings; by default only the items that both rated count. Users with
    the same agreement are ordered by the number of common items, largest first, then by row. Pairs
    of users whose agreement is undefined are left out.

    Args:
        ratings: csr (users, items). The stored values are the ratings, higher for a better item.
            Items with equal ratings of a user are tied.
        k: the number of neighbours per user.
        measure: the name of a measure of ``agreement.measures``. If it is a distance, the smallest
            values are the most similar.
        min_common: smallest number of common items with which two users are compared. The agreement
            on very few items is mostly chance.
        users: int[m], the rows of the users to find neighbours for. None: all users.

    Raises:
        ConfigError: k is below 1, ``min_common`` is below 2, or the name of the measure is not
            valid.
        InputError: a rating is NaN.
    """
    if k < 1 or min_common < 2:
        raise ConfigError(
            f"nearest users: k is {k} and min_common is {min_common}; they must be at least 1 and 2",
        )
    search = _NeighbourSearch(ratings, k, parse_measure(measure), min_common)
    if users is None:
        users = np.arange(len(search.lists))
    users = np.asarray(users, dtype=np.int64)
    block_rows = max(1, BLOCK_PAIRS // max(1, len(search.lists)))
    # An empty block comes first, so that there is something to concatenate when there are no users.
    blocks = [search.find_neighbours(users[:0])]
    blocks += [search.find_neighbours(users[i : i + block_rows]) for i in range(0, len(users), block_rows)]
    neighbours, values, common = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    return Neighbours(users, neighbours, values, common)


class _NeighbourSearch:
    """A search for similar users: the ranked items of all users, and the settings of the search."""

    def __init__(self, ratings: csr_array, k: int, measure: Measure, min_common: int) -> None:
        self.lists = Rankings.from_scores(ratings)
        self.k = k
        self.measure = measure
        self.min_common = min_common
        ones = np.ones(ratings.nnz, dtype=np.int32)
        self.is_rated = csr_array((ones, ratings.indices, ratings.indptr), shape=ratings.shape)
        self.raters = self.is_rated.T.tocsr()

    def find_neighbours(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (neighbours, values, common) of a block of users, shaped as in :class:`Neighbours`.

        Args:
            users: int64[m], the rows of the users of the block.
        """
        common_counts = (self.is_rated[users] @ self.raters).tocoo()
        is_compared = (common_counts.data >= self.min_common) & (users[common_counts.row] != common_counts.col)
        row = common_counts.row[is_compared]
        neighbour = common_counts.col[is_compared].astype(np.int64)
        common = common_counts.data[is_compared]
        value = self.measure(Pairs(self.lists, self.lists, users[row], neighbour))
        if self.measure.is_distance:
            distance = value
        else:
            distance = -value
        # Equal fractions may differ by rounding; without this the order of ties would depend on it.
        distance = np.round(distance, 12)
        order = np.lexsort((neighbour, -common, distance, row))
        order = order[~np.isnan(value[order])]
        first = np.searchsorted(row[order], np.arange(len(users)))
        position = np.arange(len(order)) - first[row[order]]
        is_nearest = position < self.k
        order = order[is_nearest]
        cells = row[order], position[is_nearest]
        shape = (len(users), self.k)
        neighbours = np.full(shape, -1, dtype=np.int64)
        neighbours[cells] = neighbour[order]
        values = np.full(shape, np.nan)
        values[cells] = value[order]
        counts = np.zeros(shape, dtype=np.int64)
        counts[cells] = common[order]
        return neighbours, values, counts
