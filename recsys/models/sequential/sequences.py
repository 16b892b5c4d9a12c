"""Likes in the order of time: one sequence of items per user, and passes over all sequences.

Every pass goes over the items, and for each item over its places in the sequences. So one thread
writes each row of a result, and results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.linalg import PARTS
from recsys.types import Histories


class Sequences(NamedTuple):
    """The liked items of each user, oldest first, and where each item occurs.

    Attributes:
        indptr: int64[users + 1], the sequence of user u is ``items[indptr[u]:indptr[u + 1]]``.
        items: int32[n].
        user: int32[n], the user of each entry of ``items``.
        by_item: int64[items + 1], the entries of item i are ``entries[by_item[i]:by_item[i + 1]]``.
        entries: int64[n], ascending within an item.
    """

    indptr: np.ndarray
    items: np.ndarray
    user: np.ndarray
    by_item: np.ndarray
    entries: np.ndarray

    @property
    def n_items(self) -> int:
        """The number of items, liked or not."""
        return len(self.by_item) - 1

    @property
    def longest(self) -> int:
        """The length of the longest sequence, at least 1."""
        return int(max(np.diff(self.indptr).max(initial=1), 1))


def liked_sequences(histories: Histories, model: str) -> Sequences:
    """Return the likes of each user in the order of their times.

    A pair with several events counts once, at the time of its latest event. Events of one user with
    the same time are in the order of their item rows; events without a time come first.

    Args:
        model: the name of the model, for the message.

    Raises:
        InputError: no event has a time, so nothing is known of the order.
    """
    if histories.times is None:
        raise InputError(
            f"model '{model}' learns from the order of events, but no event of train has a time: add a column of times"
            " ([data] columns), or use a model without order, such as 'rp3beta' or 'ease'."
        )
    likes = histories.keep_entries(histories.values.data > 0)
    indptr = likes.values.indptr.astype(np.int64)
    user = likes.row_of_entry
    entry = indptr[user] + likes.positions()
    items = np.empty(len(entry), dtype=np.int32)
    items[entry] = likes.values.indices
    n_items = likes.shape[1]
    by_item = np.zeros(n_items + 1, dtype=np.int64)
    np.cumsum(np.bincount(items, minlength=n_items), out=by_item[1:])
    return Sequences(indptr, items, user.astype(np.int32), by_item, np.argsort(items, kind="stable"))


def count_neighbours_in_time(sequences: Sequences, forward: np.ndarray, backward: np.ndarray) -> csr_array:
    """Return csr float32[items, items], in which entry (j, i) says how often i is close to j.

    The entry is the sum of weights over all pairs of positions in one sequence at which j and i are.
    The weight depends on the distance of the two positions.

    Args:
        forward: float64[window], the weight where i comes d places after j is ``forward[d - 1]``.
        backward: float64[window], the weight where i comes d places before j.
    """
    n = sequences.n_items
    # An item meets at most this many others.
    room = np.minimum(np.diff(sequences.by_item) * (len(forward) + np.count_nonzero(backward)), n)
    start = np.concatenate([[0], np.cumsum(room)])
    columns = np.empty(start[-1], dtype=np.int32)
    weights = np.empty(start[-1], dtype=np.float32)
    size = _count_rows(*sequences, forward, backward, start, columns, weights)
    filled = np.arange(start[-1]) - np.repeat(start[:-1], room) < np.repeat(size, room)
    indptr = np.concatenate([[0], np.cumsum(size)])
    return csr_array((weights[filled], columns[filled], indptr), shape=(n, n))


@njit(cache=True, nogil=True, parallel=True)
def _count_rows(
    indptr: np.ndarray,
    items: np.ndarray,
    user: np.ndarray,
    by_item: np.ndarray,
    entries: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    start: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Write the rows of a sparse matrix to ``columns`` and ``weights``, and return their sizes.

    Row j begins at position ``start[j]`` of both arrays, and its columns are ascending. The sizes
    are int64[items].
    """
    n = len(by_item) - 1
    size = np.zeros(n, dtype=np.int64)
    for part in prange(PARTS):
        total = np.zeros(n)
        is_filled = np.zeros(n, dtype=np.bool_)
        filled = np.empty(n, dtype=np.int32)
        for j in range(part, n, PARTS):
            count = 0
            for position in range(by_item[j], by_item[j + 1]):
                entry = entries[position]
                first = max(indptr[user[entry]], entry - len(backward))
                last = min(indptr[user[entry] + 1], entry + len(forward) + 1)
                for neighbour in range(first, last):
                    if neighbour == entry:
                        continue
                    if neighbour > entry:
                        weight = forward[neighbour - entry - 1]
                    else:
                        weight = backward[entry - neighbour - 1]
                    if weight == 0:
                        continue
                    i = items[neighbour]
                    total[i] += weight
                    if not is_filled[i]:
                        is_filled[i] = True
                        filled[count] = i
                        count += 1
            ordered = np.sort(filled[:count])
            for position in range(count):
                i = ordered[position]
                columns[start[j] + position] = i
                weights[start[j] + position] = total[i]
                total[i] = 0.0
                is_filled[i] = False
            size[j] = count
    return size


@njit(cache=True, nogil=True, parallel=True)
def decayed_gram(
    indptr: np.ndarray,
    items: np.ndarray,
    user: np.ndarray,
    by_item: np.ndarray,
    entries: np.ndarray,
    powers: np.ndarray,
    sums: np.ndarray,
) -> np.ndarray:
    """Return float32[S · items, S · items], the Gram matrix of decayed histories before every target.

    Before place t of a sequence, memory s holds x_s(t) = Σ_{p<t} d_s^(t−1−p) · e(item at p). The block
    (s, r) is Σ_t x_s(t) x_r(t)ᵀ over all places of all sequences. Two items at the places p ≤ q of a
    sequence with m targets after q add d_s^(q−p) · Σ_{u<m} (d_s d_r)^u, so no x is ever formed.

    Args:
        indptr, items, user, by_item, entries: of :class:`Sequences`.
        powers: float64[S, reach], d_s^0, d_s^1, …; items that are ``reach`` places apart or more
            add nothing.
        sums: float64[S, S, longest], Σ_{u<m} (d_s d_r)^u at position m.
    """
    n = len(by_item) - 1
    memories, reach = powers.shape
    gram = np.zeros((memories * n, memories * n), dtype=np.float32)
    for part in prange(PARTS):
        for a in range(part, n, PARTS):
            for position in range(by_item[a], by_item[a + 1]):
                entry = entries[position]
                stop = indptr[user[entry] + 1]
                first = max(indptr[user[entry]], entry - reach + 1)
                last = min(stop, entry + reach)
                for neighbour in range(first, last):
                    distance = abs(neighbour - entry)
                    targets = stop - 1 - max(neighbour, entry)
                    b = items[neighbour]
                    for s in range(memories):
                        for r in range(memories):
                            # The older of the two has faded by the places between them.
                            older = s if entry <= neighbour else r
                            weight = powers[older, distance] * sums[s, r, targets]
                            gram[s * n + a, r * n + b] += weight
    return gram
