"""Compiled loops that both engines use. The tests compare each of them with a slow reference.

Each function depends only on its arguments, which are arrays and numbers. So it works in the same
way in this process and in a task of Spark. A call uses the number of threads that
``numba.set_num_threads`` sets. Results do not depend on this number.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import DTypeLike

# --- Copying --------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def copy_values(source: np.ndarray, target: np.ndarray) -> None:
    """Copy the entries of one array to another one of the same length, as ``target[:] = source`` does.

    Numba compiles an assignment to a slice in two seconds, because it checks shapes that could be
    broadcast.
    """
    for position in range(len(source)):
        target[position] = source[position]


# --- Selection ------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def ranks_before(score_a: float, item_a: int, score_b: float, item_b: int) -> bool:
    """Return whether entry a ranks before b: the higher score first, then the lower row."""
    return score_a > score_b or (score_a == score_b and item_a < item_b)


@njit(cache=True, nogil=True)
def sift_down(scores: np.ndarray, items: np.ndarray, node: int, size: int) -> None:
    """Restore the order of a heap below the position ``node``.

    The heap is stored in the first ``size`` entries of ``scores`` and ``items``. Its root, at
    position 0, is the entry that ranks last among the entries of the heap.
    """
    score, item = scores[node], items[node]
    while 2 * node + 1 < size:
        child = 2 * node + 1
        if child + 1 < size and ranks_before(scores[child], items[child], scores[child + 1], items[child + 1]):
            child += 1
        if not ranks_before(score, item, scores[child], items[child]):
            break
        scores[node], items[node] = scores[child], items[child]
        node = child
    scores[node], items[node] = score, item


@njit(cache=True, nogil=True)
def add_to_heap(scores: np.ndarray, items: np.ndarray, size: int, score: float, item: int) -> int:
    """Add an entry to a heap (:func:`sift_down`), and return its new size.

    If the heap is full, the entry replaces the root, which must rank after it.

    Args:
        scores, items: [k], the heap.
        size: the number of entries.
        score, item: the entry to add.
    """
    if size == len(items):
        scores[0] = score
        items[0] = item
        sift_down(scores, items, 0, size)
        return size
    node = size
    while node > 0 and ranks_before(scores[(node - 1) // 2], items[(node - 1) // 2], score, item):
        scores[node] = scores[(node - 1) // 2]
        items[node] = items[(node - 1) // 2]
        node = (node - 1) // 2
    scores[node] = score
    items[node] = item
    return size + 1


@njit(cache=True, nogil=True)
def sort_heap(scores: np.ndarray, items: np.ndarray, size: int) -> None:
    """Sort the entries of a heap (:func:`sift_down`), best first, and fill the rest with NaN and -1."""
    # The root ranks last, so it moves to the end.
    for last in range(size - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        items[0], items[last] = items[last], items[0]
        sift_down(scores, items, 0, last)
    for node in range(size, len(items)):
        items[node] = -1
        scores[node] = np.nan


SELECTION_BLOCK = 256
"""Number of entries that are compared with the worst listed entry at once."""


@njit(cache=True, nogil=True)
def count_above(row: np.ndarray, threshold: np.float32) -> np.int32:
    """Return the number of entries of ``row`` that are above a threshold."""
    count = np.int32(0)
    for position in range(len(row)):
        count += np.int32(row[position] > threshold)
    return count


@njit(cache=True, nogil=True)
def select_top_k_of_row(row: np.ndarray, skip: np.ndarray, items: np.ndarray, scores: np.ndarray) -> int:
    """Write the best entries of ``row`` to ``items`` and ``scores``, and return their number.

    Args:
        row: float32[n], the scores. NaN and -inf are never chosen.
        skip: the positions in ``row`` to leave out, ascending.
        items, scores: [k], which become the positions and the scores of the best entries, best
            first, with the lower position first if scores are equal. If there are fewer than k
            entries, the rest is filled with -1 and NaN.
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
        for begin in range(start, stop, SELECTION_BLOCK):
            block = row[begin : min(begin + SELECTION_BLOCK, stop)]
            # Most blocks have no better entry, which a processor sees for many entries at once.
            if count_above(block, threshold) == 0:
                continue
            for position in range(len(block)):
                score = block[position]
                # False for NaN and for the -inf of a masked item; a tie keeps the lower row.
                if score > threshold:
                    size = add_to_heap(scores, items, size, score, begin + position)
                    if size == k:
                        threshold = scores[0]
        start = stop + 1
    sort_heap(scores, items, size)
    return size


def select_top_k(scores: np.ndarray, indptr: np.ndarray, indices: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k columns with the highest scores in each row, best first, and their scores.

    Both results have the shape [m, k]: the columns as int32 and the scores as float32. If scores
    are equal, the lower column is first. If a row has fewer than k columns to choose from, its
    columns end with -1 and its scores with NaN. Each row is read once, with a heap of k entries.

    Args:
        scores: float32[m, n], which is not changed. NaN and -inf are never chosen.
        indptr, indices: the columns to leave out in each row, as the structure of a CSR matrix,
            int[m + 1] and int[nnz]. The columns of a row are ascending and distinct.
        k: length of the lists, ≥ 1.
    """
    return _select_top_k(scores, writable(indptr, np.int64), writable(indices, np.int32), k)


def writable(array: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Return an array of a dtype that may be written, which is a copy only if it must be.

    A kernel is compiled once more for other dtypes, and for arrays that are read-only.
    """
    if array.dtype == dtype and array.flags.writeable:
        return array
    return np.array(array, dtype=dtype)


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
"""The position of a relevant item that is not in a list. It is larger than every cut-off."""

PARTS = 16
"""Number of parts that are processed in parallel. Each part needs an array as long as the
catalogue.
"""


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
    """Number the distinct codes from 0, in the order in which they first appear.

    The result is two arrays: int32[seen], the code that has each number, and int32[n], the number
    of each code, which is 0 for a code that does not occur.

    Args:
        codes: int[rows], all below ``n``. Negative codes are left out.
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
    """Sort rows by their group, and return the order and where each group begins in it.

    The order is int64[n'], the offsets are int64[m + 1]. The rows of group g are
    ``order[offsets[g]:offsets[g + 1]]``, ascending. The method is a counting sort.

    Args:
        group: int[n], the group of each row. Rows whose group is not in ``0 … m-1`` are left out.
        m: the number of groups.
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
    """Sort the rows of each group by a key, ascending. Rows with equal keys keep their order.

    Args:
        order, offsets: the rows by group, as :func:`group_rows` returns them. ``order`` is changed
            in place.
        key: [n], the key of each row.
    """
    for g in prange(len(offsets) - 1):
        start = offsets[g]
        stop = offsets[g + 1]
        for position in range(start + 1, stop):
            if key[order[position]] < key[order[position - 1]]:
                # Most tables are sorted already, so sorting starts at the first inversion.
                rows = order[start:stop].copy()
                copy_values(rows[np.argsort(key[rows], kind="mergesort")], order[start:stop])
                break


@njit(cache=True, nogil=True, parallel=True)
def count_repeats(codes: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Return for each group the number of entries that equal an earlier entry of the group.

    The result is int64[groups].

    Args:
        codes, offsets: the entries of group g are ``codes[offsets[g]:offsets[g + 1]]``.
        n: all codes are in ``0 … n-1``.
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
    """Return for each group two counts of entries that equal a neighbouring entry, int64[groups,
    2].

    Column 0 counts the entries that equal the entry before them in the group. Column 1 counts the
    entries that equal the entry before or after them.

    Args:
        key, offsets: the entries of group g are ``key[offsets[g]:offsets[g + 1]]``.
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
    """Return the position of each relevant item in the list of its user.

    The result is two arrays with one entry per relevant item, user by user: int64[nnz], the index
    of the item in ``relevant``, and int32[nnz], the position of the item in the list of its user,
    from 0. The entries of a user are in the order of these positions. The relevant items that are
    not in the list follow, with the position :data:`NOWHERE`.

    Args:
        listed, offsets: the list of user u is ``listed[offsets[u]:offsets[u + 1]]``, codes of
            items, best first. No code occurs twice in a list.
        relevant, indptr: the relevant items of user u are ``relevant[indptr[u]:indptr[u + 1]]``. No
            code occurs twice for a user.
        n: all codes are in ``0 … n-1``.
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
    """Return how each relevant item ranks among all candidates of its row, as four arrays of
    counts.

    The first three arrays are int32[nnz], with one entry per relevant item. They count the
    candidates with a higher score, the candidates with the same score (including the item), and the
    candidates with the same score in a lower column. For an item that is no candidate they are
    :data:`NOWHERE`, 1 and 0. The fourth array is int64[m], the number of candidates of each row.

    Args:
        scores: float[m, n]. Columns whose score is NaN or -inf are not candidates.
        relevant, indptr: the relevant items of row u are the columns ``relevant[indptr[u]:indptr[u
            + 1]]``. Columns ≥ n are not candidates.
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
        for entry in entries:
            tied[entry] = 0
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
    """Return float32[m, n], a random number in [0, 1) for each of m states and each word 0 … n - 1.

    The number is ``hashing.to_unit_interval`` of the state after ``hash_words`` has hashed the word
    as its last one.

    Args:
        state: uint64[m], the states of ``hash_words`` before the last word.
        n: the number of words.
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
