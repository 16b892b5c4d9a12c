"""Compiled loops that both engines share. Each has a plain twin in the tests.

They are pure functions of arrays, so that they run the same in this process and inside a Spark task. Numba's
thread count (``numba.set_num_threads``) decides how many cores a call uses; results never depend on it.
"""

import numpy as np
from numba import njit, prange

# --- Selection -------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _before(score_a: float, item_a: int, score_b: float, item_b: int) -> bool:
    """Whether entry a ranks before b: higher score first, then the lower row."""
    return score_a > score_b or (score_a == score_b and item_a < item_b)


@njit(cache=True, nogil=True)
def _sift_down(scores: np.ndarray, items: np.ndarray, place: int, size: int) -> None:
    """Restore the heap whose root is the entry that ranks last of those kept."""
    score, item = scores[place], items[place]
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _before(scores[child], items[child], scores[child + 1], items[child + 1]):
            child += 1
        if not _before(score, item, scores[child], items[child]):
            break
        scores[place], items[place] = scores[child], items[child]
        place = child
    scores[place], items[place] = score, item


@njit(cache=True, nogil=True)
def select_top_k_of_row(row: np.ndarray, skip: np.ndarray, items: np.ndarray, scores: np.ndarray) -> int:
    """Fill ``items`` and ``scores`` with the best entries of ``row`` outside ``skip`` (sorted); return how many."""
    k = len(items)
    size = 0
    start = 0
    for gap in range(len(skip) + 1):  # scan between skipped items: no test an item, and no copy of the row
        stop = skip[gap] if gap < len(skip) else len(row)
        if size == k:
            threshold = scores[0]
        else:
            threshold = np.float32(-np.inf)
        for item in range(start, stop):
            score = row[item]
            if score > threshold:  # false for NaN and for the -inf of a masked item; a tie keeps the lower row
                if size < k:
                    place = size  # grow the heap: sift the newcomer up
                    size += 1
                    while place > 0 and _before(scores[(place - 1) // 2], items[(place - 1) // 2], score, item):
                        scores[place], items[place] = scores[(place - 1) // 2], items[(place - 1) // 2]
                        place = (place - 1) // 2
                    scores[place], items[place] = score, item
                else:
                    scores[0], items[0] = score, item
                    _sift_down(scores, items, 0, k)
                if size == k:
                    threshold = scores[0]
        start = stop + 1
    for last in range(size - 1, 0, -1):  # heap sort: the root ranks last, move it to the end
        scores[0], scores[last] = scores[last], scores[0]
        items[0], items[last] = items[last], items[0]
        _sift_down(scores, items, 0, last)
    for place in range(size, k):
        items[place] = -1
        scores[place] = np.nan
    return size


@njit(cache=True, nogil=True, parallel=True)
def select_top_k(scores: np.ndarray, indptr: np.ndarray, indices: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best columns of each row, best first, leaving out the row's own ``indices``.

    Args:
        scores: float32[m, n], read only. NaN and -inf are never chosen.
        indptr, indices: the CSR structure of what to leave out, int[m + 1] and int[nnz], columns sorted and
            unique within a row.
        k: length of the lists, ≥ 1.

    Returns:
        items int32[m, k] with -1 padding, scores float32[m, k] with NaN padding. Ties go to the lower column.
        One pass over the row with a heap of k entries: O(n + hits·log k), no partition of the whole row.
    """
    m = scores.shape[0]
    best_items = np.empty((m, k), dtype=np.int32)
    best_scores = np.empty((m, k), dtype=np.float32)
    for i in prange(m):
        select_top_k_of_row(scores[i], indices[indptr[i] : indptr[i + 1]], best_items[i], best_scores[i])
    return best_items, best_scores


# --- Judging ---------------------------------------------------------------------------------------------


NOWHERE = np.int32(2**30)
"""The place of a relevant item that a list does not hold: past every cut-off."""

PARTS = 16
"""Into how many parts lists are cut where each part needs an array as long as the catalogue."""


@njit(cache=True, nogil=True, parallel=True)
def add_weighted(total: np.ndarray, weight: np.ndarray, scores: np.ndarray, own: np.ndarray) -> None:
    """Add ``own`` · ``scores`` to ``total`` and ``own`` to ``weight``, in place, where a score is finite and own > 0.

    All float32[m, n]; ``own`` may be [m, 1]: a weight a row.
    """
    wide = own.shape[1] > 1
    for i in prange(len(scores)):
        for j in range(scores.shape[1]):
            here = own[i, j if wide else 0]
            if here > 0 and np.isfinite(scores[i, j]):
                total[i, j] += scores[i, j] * here
                weight[i, j] += here


@njit(cache=True, nogil=True)
def number_codes(codes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the codes that occur, in the order of their first appearance.

    ``codes``: int[rows] below ``n``; negative ones are passed over.

    Returns:
        (code int32[seen] of each number, number int32[n] of each code, 0 where it never occurs).
    """
    seen, number, count = np.empty(n, dtype=np.int32), np.full(n, -1, dtype=np.int32), 0
    for code in codes:
        if code >= 0 and number[code] < 0:
            seen[count], number[code] = code, count
            count += 1
    return seen[:count], np.maximum(number, 0)


@njit(cache=True, nogil=True)
def is_identity(order: np.ndarray, n: int) -> bool:
    """Whether ``order``, of at most n different rows, is 0, 1, …, n - 1."""
    at = 0
    while at < len(order) and order[at] == at:
        at += 1
    return at == n


@njit(cache=True, nogil=True)
def group_rows(group: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (order int64[n'], offsets int64[m + 1]): rows of group 0, then of group 1, …, in their first order.

    ``group``: int[n]; rows of a group outside ``0 … m-1`` are left out. A counting sort: two passes.
    """
    offsets = np.zeros(m + 1, dtype=np.int64)
    for g in group:
        if 0 <= g < m:
            offsets[g + 1] += 1
    for g in range(m):
        offsets[g + 1] += offsets[g]
    order = np.empty(offsets[m], dtype=np.int64)
    free = offsets.copy()
    for row in range(len(group)):
        g = group[row]
        if 0 <= g < m:
            order[free[g]] = row
            free[g] += 1
    return order, offsets


@njit(cache=True, nogil=True, parallel=True)
def sort_groups(order: np.ndarray, offsets: np.ndarray, key: np.ndarray) -> None:
    """Sort each group of ``order`` in place by ``key[order]``, ascending, ties in their first order."""
    for g in prange(len(offsets) - 1):
        start, stop = offsets[g], offsets[g + 1]
        for at in range(start + 1, stop):
            if key[order[at]] < key[order[at - 1]]:  # most tables are sorted already
                own = order[start:stop].copy()
                order[start:stop] = own[np.argsort(key[own], kind="mergesort")]
                break


@njit(cache=True, nogil=True, parallel=True)
def count_repeats(codes: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Return int64[groups]: entries of each group that repeat an earlier one of it; ``codes`` lie in ``0 … n-1``."""
    m = len(offsets) - 1
    found = np.zeros(m, dtype=np.int64)
    for part in prange(PARTS):
        last = np.full(n, -1, dtype=np.int64)
        for g in range(part * m // PARTS, (part + 1) * m // PARTS):
            for at in range(offsets[g], offsets[g + 1]):
                found[g] += last[codes[at]] == g
                last[codes[at]] = g
    return found


@njit(cache=True, nogil=True, parallel=True)
def count_equal_neighbours(key: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return int64[groups, 2]: entries that equal the one before them, and entries that equal a neighbour at all."""
    found = np.zeros((len(offsets) - 1, 2), dtype=np.int64)
    for g in prange(len(offsets) - 1):
        start, stop = offsets[g], offsets[g + 1]
        for at in range(start, stop):
            before = at > start and key[at] == key[at - 1]
            found[g, 0] += before
            found[g, 1] += before or (at + 1 < stop and key[at] == key[at + 1])
    return found


@njit(cache=True, nogil=True, parallel=True)
def find_relevant(
    listed: np.ndarray, offsets: np.ndarray, relevant: np.ndarray, indptr: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Walk each list and note where its user's relevant items stand.

    Args:
        listed, offsets: codes of all lists, best first, one list after the other; none twice in a list.
        relevant, indptr: codes of all users' relevant items in the same manner; none twice for a user.
        n: all codes lie in ``0 … n-1``.

    Returns:
        (entry int64[nnz], place int32[nnz]): user by user, positions in ``relevant`` in the order of their places from
        0, then those that are not listed, with place NOWHERE. One pass over lists and truth: no search, no sort.
    """
    m = len(indptr) - 1
    entry = np.empty(len(relevant), dtype=np.int64)
    place = np.full(len(relevant), NOWHERE, dtype=np.int32)
    for part in prange(PARTS):
        position = np.full(n, -1, dtype=np.int64)
        for row in range(part * m // PARTS, (part + 1) * m // PARTS):
            start, stop = indptr[row], indptr[row + 1]
            for at in range(start, stop):
                position[relevant[at]] = at
            free = start
            for at in range(offsets[row], offsets[row + 1]):
                if position[listed[at]] >= 0:
                    entry[free], place[free] = position[listed[at]], at - offsets[row]
                    position[listed[at]] = -1
                    free += 1
            for at in range(start, stop):
                if position[relevant[at]] >= 0:
                    entry[free] = at
                    position[relevant[at]] = -1
                    free += 1
    return entry, place


@njit(cache=True, nogil=True, parallel=True)
def rank_relevant(
    scores: np.ndarray, relevant: np.ndarray, indptr: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return where relevant items stand when every candidate of their row is ranked.

    Args:
        scores: float[m, n]; NaN and -inf are no candidates.
        relevant, indptr: columns of each row's relevant items; columns ≥ n are no candidates.

    Returns:
        (above, tied, before int32[nnz], candidates int64[m]): candidates with a higher score (NOWHERE for what is no
        candidate), with the same score (itself too), and with the same score in a lower column.
    """
    m, n = scores.shape
    above = np.full(len(relevant), NOWHERE, dtype=np.int32)
    tied = np.ones(len(relevant), dtype=np.int32)
    before = np.zeros(len(relevant), dtype=np.int32)
    candidates = np.zeros(m, dtype=np.int64)
    for row in prange(m):
        own = np.full(indptr[row + 1] - indptr[row], np.inf)  # minus the scores, so that the best comes first
        for j in range(len(own)):
            item = relevant[indptr[row] + j]
            if item < n and scores[row, item] > -np.inf:
                own[j] = -scores[row, item]
        order = np.argsort(own)
        own = own[order]
        found = np.searchsorted(own, np.inf)
        higher = np.zeros(found + 1, dtype=np.int32)
        at = indptr[row] + order[:found]
        tied[at] = 0
        for column in range(n):  # one search among the few relevant scores for each candidate
            score = -np.float64(scores[row, column])
            if not score < np.inf:
                continue
            candidates[row] += 1
            if found and score <= own[found - 1]:
                place = np.searchsorted(own[:found], score, side="right")
                higher[place] += 1
                while place > 0 and own[place - 1] == score:
                    place -= 1
                    tied[at[place]] += 1
                    before[at[place]] += column < relevant[at[place]]
        total = 0
        for j in range(found):
            total += higher[j]
            above[at[j]] = total
    return above, tied, before, candidates


@njit(cache=True, nogil=True)
def expected_reciprocal_rank(place: np.ndarray, spread: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Return float64[n]: mean of 1 / rank of the first relevant item, 0 past rank k, over random orders of a tie group.

    Args:
        place: int[n], the group's first place, from 0.
        spread, relevant: int[n], places and relevant items in it, 1 ≤ relevant ≤ spread.

    P(first at offset i) = C(g−i−1, r−1) / C(g, r), by recursion from r/g. McSherry and Najork, ECIR 2008.
    """
    found = np.zeros(len(place))
    for row in range(len(place)):
        g, r = spread[row], relevant[row]
        chance = r / g
        for i in range(min(g - r + 1, k - place[row])):
            found[row] += chance / (place[row] + i + 1)
            chance *= (g - i - r) / max(1, g - i - 1)
    return found


# --- Random scores -----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
def hash_last_word(state: np.ndarray, n: int) -> np.ndarray:
    """Return float32[m, n] in [0, 1): ``hashing.to_unit_interval`` of uint64[m] states to which
    ``hash_words`` adds a word below n."""
    found = np.empty((len(state), n), dtype=np.float32)
    for i in prange(len(state)):
        for word in range(n):
            bits = (state[i] ^ np.uint64(word)) + np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            bits = bits ^ (bits >> np.uint64(31))
            found[i, word] = np.float64(bits >> np.uint64(11)) * 2.0**-53
    return found
