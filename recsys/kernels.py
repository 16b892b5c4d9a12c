"""Compiled loops that both engines use. The tests compare each of them with a slow reference.

They are pure functions of arrays, so they work in the same way in this process and in a Spark task.
The number of threads of Numba (``numba.set_num_threads``) is the number of cores that a call uses.
Results do not depend on it.
"""

import numpy as np
from numba import njit, prange

# --- Selection ------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _ranks_before(score_a: float, item_a: int, score_b: float, item_b: int) -> bool:
    """Return whether entry a ranks before b: the higher score first, then the lower row."""
    return score_a > score_b or (score_a == score_b and item_a < item_b)


@njit(cache=True, nogil=True)
def _sift_down(scores: np.ndarray, items: np.ndarray, node: int, size: int) -> None:
    """Restore the order of a heap below ``node``.

    The root of the heap is the entry that ranks last among the entries of the heap.
    """
    score, item = scores[node], items[node]
    while 2 * node + 1 < size:
        child = 2 * node + 1
        if child + 1 < size and _ranks_before(scores[child], items[child], scores[child + 1], items[child + 1]):
            child += 1
        if not _ranks_before(score, item, scores[child], items[child]):
            break
        scores[node], items[node] = scores[child], items[child]
        node = child
    scores[node], items[node] = score, item


@njit(cache=True, nogil=True)
def select_top_k_of_row(row: np.ndarray, skip: np.ndarray, items: np.ndarray, scores: np.ndarray) -> int:
    """Fill ``items`` and ``scores`` with the best entries of ``row``, and return their number.

    Entries at the positions ``skip``, which must be sorted, are left out.
    """
    k = len(items)
    size = 0
    start = 0
    # The scan runs over the gaps between skipped items, which needs neither a test per item nor a
    # copy of the row.
    for gap in range(len(skip) + 1):
        stop = skip[gap] if gap < len(skip) else len(row)
        if size == k:
            threshold = scores[0]
        else:
            threshold = np.float32(-np.inf)
        for item in range(start, stop):
            score = row[item]
            # False for NaN and for the -inf of a masked item; a tie keeps the lower row.
            if score > threshold:
                if size < k:
                    # The heap grows: sift the new entry up.
                    node = size
                    size += 1
                    while node > 0 and _ranks_before(scores[(node - 1) // 2], items[(node - 1) // 2], score, item):
                        scores[node], items[node] = scores[(node - 1) // 2], items[(node - 1) // 2]
                        node = (node - 1) // 2
                    scores[node], items[node] = score, item
                else:
                    scores[0], items[0] = score, item
                    _sift_down(scores, items, 0, k)
                if size == k:
                    threshold = scores[0]
        start = stop + 1
    # Heap sort: the root ranks last, so it moves to the end.
    for last in range(size - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        items[0], items[last] = items[last], items[0]
        _sift_down(scores, items, 0, last)
    for node in range(size, k):
        items[node] = -1
        scores[node] = np.nan
    return size


def select_top_k(scores: np.ndarray, indptr: np.ndarray, indices: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best columns of each row, best first, leaving out the row's own ``indices``.

    Args:
        scores: float32[m, n], read only. NaN and -inf are never chosen.
        indptr, indices: the CSR structure of what to leave out, int[m + 1] and int[nnz], columns
            sorted and unique within a row.
        k: length of the lists, ≥ 1.

    Returns:
        items int32[m, k] with -1 padding, scores float32[m, k] with NaN padding. Ties go to the
        lower column. One pass over the row with a heap of k entries: O(n + hits·log k), no
        partition of the whole row.
    """
    # A kernel is compiled once more for other dtypes, and for arrays that are read-only.
    indptr = np.require(indptr, dtype=np.int64, requirements="W")
    indices = np.require(indices, dtype=np.int32, requirements="W")
    return _select_top_k(scores, indptr, indices, k)


@njit(cache=True, nogil=True, parallel=True)
def _select_top_k(scores: np.ndarray, indptr: np.ndarray, indices: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    m = scores.shape[0]
    best_items = np.empty((m, k), dtype=np.int32)
    best_scores = np.empty((m, k), dtype=np.float32)
    for i in prange(m):
        select_top_k_of_row(scores[i], indices[indptr[i] : indptr[i + 1]], best_items[i], best_scores[i])
    return best_items, best_scores


# --- Judging --------------------------------------------------------------------------------------


NOWHERE = np.int32(2**30)
"""The place of a relevant item that is not in a list: after every cut-off."""

PARTS = 16
"""Parallel parts of the lists, where each part needs an array as long as the catalogue."""


@njit(cache=True, nogil=True, parallel=True)
def add_weighted(total: np.ndarray, weight: np.ndarray, scores: np.ndarray, entry_weight: np.ndarray) -> None:
    """Add weighted scores to ``total`` and their weights to ``weight``, in place.

    Entries whose score is not finite or whose weight is not above 0 are left out.

    Args:
        total, weight, scores: float32[m, n].
        entry_weight: float32[m, n], or [m, 1] for one weight per row.
    """
    per_entry = entry_weight.shape[1] > 1
    for i in prange(len(scores)):
        for j in range(scores.shape[1]):
            w = entry_weight[i, j if per_entry else 0]
            if w > 0 and np.isfinite(scores[i, j]):
                total[i, j] += scores[i, j] * w
                weight[i, j] += w


@njit(cache=True, nogil=True)
def number_codes(codes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the codes that occur, in order of first appearance.

    ``codes``: int[rows] below ``n``; negative codes are skipped.

    Returns:
        (code int32[seen] of each number, number int32[n] of each code, 0 where it never occurs).
    """
    seen = np.empty(n, dtype=np.int32)
    number = np.full(n, -1, dtype=np.int32)
    count = 0
    for code in codes:
        if code >= 0 and number[code] < 0:
            seen[count] = code
            number[code] = count
            count += 1
    return seen[:count], np.maximum(number, 0)


@njit(cache=True, nogil=True)
def is_identity(order: np.ndarray, n: int) -> bool:
    """Return whether ``order`` is 0, 1, …, n - 1.

    ``order`` must have at most n elements, all of them different.
    """
    position = 0
    while position < len(order) and order[position] == position:
        position += 1
    return position == n


@njit(cache=True, nogil=True)
def group_rows(group: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort rows by their group, and return (order int64[n'], offsets int64[m + 1]).

    The rows of group g are ``order[offsets[g]:offsets[g + 1]]``, ascending. ``group`` is int[n], the
    group of each row; rows of a group outside ``0 … m-1`` are left out. The method is a counting
    sort in two passes.
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
    """Sort each group of ``order`` in place by ``key[order]``, ascending; the sort is stable."""
    for g in prange(len(offsets) - 1):
        start = offsets[g]
        stop = offsets[g + 1]
        for position in range(start + 1, stop):
            if key[order[position]] < key[order[position - 1]]:
                # Most tables are sorted already, so sorting starts at the first inversion.
                rows = order[start:stop].copy()
                order[start:stop] = rows[np.argsort(key[rows], kind="mergesort")]
                break


@njit(cache=True, nogil=True, parallel=True)
def count_repeats(codes: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Count in each group the entries that equal an earlier entry of the group, int64[groups].

    The entries of group g are ``codes[offsets[g]:offsets[g + 1]]``, each in ``0 … n-1``.
    """
    m = len(offsets) - 1
    repeats = np.zeros(m, dtype=np.int64)
    for part in prange(PARTS):
        last = np.full(n, -1, dtype=np.int64)
        for g in range(part * m // PARTS, (part + 1) * m // PARTS):
            for position in range(offsets[g], offsets[g + 1]):
                repeats[g] += last[codes[position]] == g
                last[codes[position]] = g
    return repeats


@njit(cache=True, nogil=True, parallel=True)
def count_equal_neighbours(key: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Count the entries of each group that equal neighbours in the group, int64[groups, 2].

    Column 0 counts the entries that equal the entry before them. Column 1 counts the entries that
    equal the entry before or after them.
    """
    counts = np.zeros((len(offsets) - 1, 2), dtype=np.int64)
    for g in prange(len(offsets) - 1):
        start = offsets[g]
        stop = offsets[g + 1]
        for position in range(start, stop):
            equals_previous = position > start and key[position] == key[position - 1]
            counts[g, 0] += equals_previous
            counts[g, 1] += equals_previous or (position + 1 < stop and key[position] == key[position + 1])
    return counts


@njit(cache=True, nogil=True, parallel=True)
def find_relevant(
    listed: np.ndarray, offsets: np.ndarray, relevant: np.ndarray, indptr: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the place of each relevant item in the list of its user.

    Args:
        listed, offsets: codes of all lists, best first, one list after another; no code twice in a
            list.
        relevant, indptr: codes of the relevant items of all users in the same form; no code twice
            for a user.
        n: all codes are in ``0 … n-1``.

    Returns:
        (entry int64[nnz], place int32[nnz]): user by user, positions in ``relevant`` in the order
        of their places from 0, then those that are not listed, with place NOWHERE. One pass over
        lists and truth, without search or sort.
    """
    m = len(indptr) - 1
    entry = np.empty(len(relevant), dtype=np.int64)
    places = np.full(len(relevant), NOWHERE, dtype=np.int32)
    for part in prange(PARTS):
        entry_of = np.full(n, -1, dtype=np.int64)
        for row in range(part * m // PARTS, (part + 1) * m // PARTS):
            start = indptr[row]
            stop = indptr[row + 1]
            for position in range(start, stop):
                entry_of[relevant[position]] = position
            free = start
            for position in range(offsets[row], offsets[row + 1]):
                if entry_of[listed[position]] >= 0:
                    entry[free] = entry_of[listed[position]]
                    places[free] = position - offsets[row]
                    entry_of[listed[position]] = -1
                    free += 1
            for position in range(start, stop):
                if entry_of[relevant[position]] >= 0:
                    entry[free] = position
                    entry_of[relevant[position]] = -1
                    free += 1
    return entry, places


@njit(cache=True, nogil=True, parallel=True)
def rank_relevant(
    scores: np.ndarray, relevant: np.ndarray, indptr: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rank the relevant items of each row among all its candidates.

    Args:
        scores: float[m, n]; entries that are NaN or -inf are not candidates.
        relevant, indptr: columns of the relevant items of each row; columns ≥ n are not candidates.

    Returns:
        (above, tied, before int32[nnz], candidates int64[m]): candidates with a higher score
        (NOWHERE if the item is not a candidate), with the same score (itself included), and with
        the same score in a lower column.
    """
    m, n = scores.shape
    above = np.full(len(relevant), NOWHERE, dtype=np.int32)
    tied = np.ones(len(relevant), dtype=np.int32)
    lower_column = np.zeros(len(relevant), dtype=np.int32)
    candidates = np.zeros(m, dtype=np.int64)
    for row in prange(m):
        # Scores are negated so that the ascending sort puts the best first.
        negated = np.full(indptr[row + 1] - indptr[row], np.inf)
        for j in range(len(negated)):
            item = relevant[indptr[row] + j]
            if item < n and scores[row, item] > -np.inf:
                negated[j] = -scores[row, item]
        order = np.argsort(negated)
        negated = negated[order]
        n_finite = np.searchsorted(negated, np.inf)
        higher = np.zeros(n_finite + 1, dtype=np.int32)
        entries = indptr[row] + order[:n_finite]
        tied[entries] = 0
        # For each candidate, one binary search among the few relevant scores.
        for column in range(n):
            score = -np.float64(scores[row, column])
            if not score < np.inf:
                continue
            candidates[row] += 1
            if n_finite and score <= negated[n_finite - 1]:
                slot = np.searchsorted(negated[:n_finite], score, side="right")
                higher[slot] += 1
                while slot > 0 and negated[slot - 1] == score:
                    slot -= 1
                    tied[entries[slot]] += 1
                    lower_column[entries[slot]] += column < relevant[entries[slot]]
        total = 0
        for j in range(n_finite):
            total += higher[j]
            above[entries[j]] = total
    return above, tied, lower_column, candidates


@njit(cache=True, nogil=True)
def expected_reciprocal_rank(first_place: np.ndarray, spread: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Return the mean reciprocal rank of the first relevant item over all orders of its tie group.

    The result is float64[n]. A rank greater than k counts as 0.

    Args:
        first_place: int[n], the first position of the group in the list, from 0.
        spread, relevant: int[n], the number of items in the group and the number of relevant items
            among them, 1 ≤ relevant ≤ spread.

    With g items, r of them relevant, the first relevant item is at offset i with the probability
    C(g−i−1, r−1) / C(g, r), which is computed by recursion from r/g. Reference: McSherry and Najork,
    ECIR 2008.
    """
    means = np.zeros(len(first_place))
    for row in range(len(first_place)):
        g = spread[row]
        r = relevant[row]
        chance = r / g
        for i in range(min(g - r + 1, k - first_place[row])):
            means[row] += chance / (first_place[row] + i + 1)
            chance *= (g - i - r) / max(1, g - i - 1)
    return means


# --- Random scores --------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
def hash_last_word(state: np.ndarray, n: int) -> np.ndarray:
    """Hash each of m states together with each word 0 … n - 1 to a number in [0, 1), float32[m, n].

    The result is ``hashing.to_unit_interval`` of the states after ``hash_words`` has added the word.

    Args:
        state: uint64[m].
    """
    numbers = np.empty((len(state), n), dtype=np.float32)
    for i in prange(len(state)):
        for word in range(n):
            bits = (state[i] ^ np.uint64(word)) + np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            bits = bits ^ (bits >> np.uint64(31))
            numbers[i, word] = np.float64(bits >> np.uint64(11)) * 2.0**-53
    return numbers
