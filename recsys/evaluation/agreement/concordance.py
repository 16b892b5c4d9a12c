"""Compiled loops over pairs of ranked lists: who stands before whom in both. Plain twins: tests/reference_agreement.py.

Lists lie one after the other in flat arrays (see ``rankings.Rankings``). Two lists are compared on *keys*: one int64
an item, its tie group in list a in the high 32 bits and that in list b in the low ones, sorted; so a key array is
sorted by a, and by b within ties of a. Every loop takes O(n log n) a pair and gives the same whatever the threads.
"""

import numpy as np
from numba import njit, prange

LOW = 0xFFFFFFFF


@njit(cache=True, nogil=True, parallel=True)
def flatten(items: np.ndarray, level: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int32 items and levels of the lists of int[m, k] items, one after the other, without the -1 padding."""
    flat, tied = np.empty(offsets[-1], dtype=np.int32), np.empty(offsets[-1], dtype=np.int32)
    for i in prange(len(items)):
        at = offsets[i]
        for j in range(items.shape[1]):
            if items[i, j] >= 0:
                flat[at], tied[at] = items[i, j], level[i, j]
                at += 1
    return flat, tied


@njit(cache=True, nogil=True)
def _slot(table: np.ndarray, items: np.ndarray, item: int) -> np.int64:
    """Return where an item is, or would be, in a hash table of places (a power of two of them, -1 = free)."""
    mask = np.uint64(len(table) - 1)
    at = ((np.uint64(item) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while table[at] >= 0 and items[table[at]] != item:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@njit(cache=True, nogil=True, parallel=True)
def places(items: np.ndarray, offsets: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash table of places a list, from ``start[i]`` to ``start[i + 1]``, and which lists repeat an item."""
    tables = np.full(start[-1], -1, dtype=np.int32)
    repeats = np.zeros(len(offsets) - 1, dtype=np.bool_)
    for i in prange(len(offsets) - 1):
        table, own = tables[start[i] : start[i + 1]], items[offsets[i] : offsets[i + 1]]
        for j in range(len(own)):
            at = _slot(table, own, own[j])
            repeats[i] |= table[at] >= 0
            table[at] = j
    return tables, repeats


@njit(cache=True, nogil=True)
def find(table: np.ndarray, items: np.ndarray, item: int) -> int:
    """Return the place of an item in a list, -1 when it is not there; ``table`` is its part of :func:`places`."""
    return table[_slot(table, items, item)]


@njit(cache=True, nogil=True, parallel=True)
def align(
    a_items: np.ndarray,
    a_level: np.ndarray,
    a_offsets: np.ndarray,
    b_items: np.ndarray,
    b_level: np.ndarray,
    b_offsets: np.ndarray,
    b_table: np.ndarray,
    b_start: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    start: np.ndarray,
    bottom: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of the items that a pair is compared on, and how many there are.

    Pair i compares list ``left[i]`` of a with list ``right[i]`` of b; its keys begin at ``start[i]``. Without
    ``bottom``: items of both lists. With it: items of either; what a list misses is tied in one group below its end.
    """
    keys = np.empty(start[-1], dtype=np.int64)
    size = np.zeros(len(left), dtype=np.int64)
    for i in prange(len(left)):
        a0, a1 = a_offsets[left[i]], a_offsets[left[i] + 1]
        b0, b1 = b_offsets[right[i]], b_offsets[right[i] + 1]
        after_a = np.int64(a_level[a1 - 1]) + 1 if a1 > a0 else np.int64(0)
        after_b = np.int64(b_level[b1 - 1]) + 1 if b1 > b0 else np.int64(0)
        table, in_b = b_table[b_start[right[i]] : b_start[right[i] + 1]], b_items[b0:b1]
        met = np.zeros(b1 - b0 if bottom else 0, dtype=np.bool_)
        at = start[i]
        for j in range(a0, a1):
            place = find(table, in_b, a_items[j])
            if place >= 0 or bottom:
                low = np.int64(b_level[b0 + place]) if place >= 0 else after_b
                keys[at] = (np.int64(a_level[j]) << 32) | low
                at += 1
            if place >= 0 and bottom:
                met[place] = True
        for j in range(len(met)):
            if not met[j]:
                keys[at] = (after_a << 32) | np.int64(b_level[b0 + j])
                at += 1
        size[i] = at - start[i]
        for j in range(start[i] + 1, at):  # in order already, unless ties of a are in another order in b
            if keys[j] < keys[j - 1]:
                keys[start[i] : at].sort()
                break
    return keys, size


@njit(cache=True, nogil=True, parallel=True)
def swap(keys: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the keys with a and b exchanged, sorted by b, then a."""
    swapped = np.empty_like(keys)
    for i in prange(len(size)):
        for j in range(start[i], start[i] + size[i]):
            swapped[j] = ((keys[j] & LOW) << 32) | (keys[j] >> 32)
        swapped[start[i] : start[i] + size[i]].sort()
    return swapped


@njit(cache=True, nogil=True)
def _runs(values: np.ndarray) -> tuple[int, int, float, float]:
    """Return (pairs of equal values, groups of them, Σ t(t−1)(t−2), Σ t(t−1)(2t+5)) of a sorted array's t-fold ones."""
    pairs, groups, third, spread, begin = 0, 0, 0.0, 0.0, 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[end] != values[begin]:
            t = end - begin
            groups += 1
            begin = end
            if t > 1:
                pairs += t * (t - 1) // 2
                third += float(t) * (t - 1) * (t - 2)
                spread += float(t) * (t - 1) * (2 * t + 5)
    return pairs, groups, third, spread


@njit(cache=True, nogil=True)
def _inversions(values: np.ndarray) -> tuple[int, np.ndarray]:
    """Return how many pairs stand in the wrong order, and the values sorted (Knight 1966); ``values`` is changed."""
    n, width, wrong = len(values), 8, 0
    for low in range(0, n, width):  # short runs are sorted by insertion, which is faster there
        for i in range(low + 1, min(low + width, n)):
            value, j = values[i], i
            while j > low and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
            wrong += i - j
    merged = np.empty_like(values)
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, middle
            for at in range(low, high):
                if j == high or (i < middle and values[i] <= values[j]):
                    merged[at] = values[i]
                    i += 1
                else:
                    merged[at] = values[j]
                    wrong += middle - i
                    j += 1
        values, merged = merged, values
        width *= 2
    return wrong, values


@njit(cache=True, nogil=True, parallel=True)
def concordance(keys: np.ndarray, start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[m, 7]: items, pairs in opposite order, pairs tied in a, in b, in both, groups in a, groups in b;
    and float64[m, 4]: of a's, then of b's groups of t items, Σ t(t−1)(t−2) and Σ t(t−1)(2t+5).
    """
    counts = np.empty((len(size), 7), dtype=np.int64)
    moments = np.empty((len(size), 4))
    for i in prange(len(size)):
        both = keys[start[i] : start[i] + size[i]]
        counts[i, 0] = len(both)
        counts[i, 2], counts[i, 5], moments[i, 0], moments[i, 1] = _runs(both >> 32)
        counts[i, 4] = _runs(both)[0]
        counts[i, 1], second = _inversions(both & LOW)
        counts[i, 3], counts[i, 6], moments[i, 2], moments[i, 3] = _runs(second)
    return counts, moments


@njit(cache=True, nogil=True)
def _pair_weight(total: float, squares: float, count: int, additive: bool) -> float:
    """Return the sum over all pairs of ``count`` items of w_i + w_j, or of w_i · w_j."""
    return (count - 1) * total if additive else (total * total - squares) / 2


@njit(cache=True, nogil=True)
def _tied_weight(values: np.ndarray, weight: np.ndarray, additive: bool) -> float:
    """Return the weight of the pairs of equal values of a sorted array."""
    tied, begin = 0.0, 0
    while begin < len(values):
        total, squares, end = 0.0, 0.0, begin
        while end < len(values) and values[end] == values[begin]:
            total += weight[end]
            squares += weight[end] ** 2
            end += 1
        if end - begin > 1:
            tied += _pair_weight(total, squares, end - begin, additive)
        begin = end
    return tied


@njit(cache=True, nogil=True)
def _inverted_weight(values: np.ndarray, weight: np.ndarray, additive: bool) -> float:
    """Sort ``values``, their ``weight`` with them, and return the weight of the pairs that stood in the wrong order."""
    n, width, wrong = len(values), 1, 0.0
    merged, moved = np.empty_like(values), np.empty_like(weight)
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, middle
            waiting = weight[low:middle].sum()
            for at in range(low, high):
                if j == high or (i < middle and values[i] <= values[j]):
                    merged[at], moved[at] = values[i], weight[i]
                    waiting -= weight[i]
                    i += 1
                else:
                    merged[at], moved[at] = values[j], weight[j]
                    if i < middle:
                        wrong += waiting + (middle - i) * weight[j] if additive else waiting * weight[j]
                    j += 1
        values[:], weight[:] = merged, moved
        width *= 2
    return wrong


@njit(cache=True, nogil=True, parallel=True)
def weighted_tau(keys: np.ndarray, start: np.ndarray, size: np.ndarray, additive: bool) -> np.ndarray:
    """Return float64[m]: tau-b with each pair weighed by 1/rank of its items in the order of the keys."""
    tau = np.full(len(size), np.nan)
    for i in prange(len(size)):
        both = keys[start[i] : start[i] + size[i]]
        weight = 1 / np.arange(1.0, len(both) + 1)
        second = both & LOW
        every = _pair_weight(weight.sum(), (weight**2).sum(), len(both), additive)
        in_a = _tied_weight(both >> 32, weight, additive)
        in_both = _tied_weight(both, weight, additive)
        wrong = _inverted_weight(second, weight, additive)
        in_b = _tied_weight(second, weight, additive)
        if every > in_a and every > in_b:
            score = (every + in_both - in_a - in_b - 2 * wrong) / np.sqrt(every - in_a) / np.sqrt(every - in_b)
            tau[i] = min(1.0, max(-1.0, score))
    return tau


@njit(cache=True, nogil=True)
def _before(tree: np.ndarray, place: int) -> int:
    """Return how many marks of a Fenwick tree lie before ``place``."""
    total = 0
    while place > 0:
        total += tree[place]
        place -= place & -place
    return total


@njit(cache=True, nogil=True, parallel=True)
def average_precision(keys: np.ndarray, start: np.ndarray, size: np.ndarray, average: bool) -> np.ndarray:
    """Return float64[m]: tau_AP; the high half of a key is the list that is judged, the low half the reference.

    ``average``: the mean over all ways to break ties; else a tie agrees with nothing, and an item is compared with
    those in groups above its own.
    """
    tau = np.full(len(size), np.nan)
    for i in prange(len(size)):
        both = keys[start[i] : start[i] + size[i]]
        n = len(both)
        reference = both & LOW
        order = np.sort(reference)
        tree = np.zeros(n + 1, dtype=np.int64)
        at_place = np.zeros(n, dtype=np.int64)
        begin, compared, total = 0, 0, 0.0
        while begin < n:
            end, right = begin, 0.0
            while end < n and both[end] >> 32 == both[begin] >> 32:
                place = np.searchsorted(order, reference[end])
                right += _before(tree, place) + (0.5 * at_place[place] if average else 0.0)
                end += 1
            tied = end - begin
            if average:
                compared += tied - (begin == 0)
                for k in range(begin, end):  # the group's items take each of its places in turn
                    if k > 0:
                        total += (right / tied + 0.5 * (k - begin)) / k
            elif begin > 0:
                compared += tied
                total += right / begin
            for j in range(begin, end):
                place = np.searchsorted(order, reference[j])
                at_place[place] += 1
                place += 1
                while place <= n:
                    tree[place] += 1
                    place += place & -place
            begin = end
        if compared:
            tau[i] = 2 * total / compared - 1
    return tau


@njit(cache=True, nogil=True)
def _ranks(both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranks of each item in a and in b, from 1; ties share their mean rank."""
    first, second = both >> 32, both & LOW
    order = np.sort(second)
    a, b = np.empty(len(both)), np.empty(len(both))
    for j in range(len(both)):
        a[j] = (np.searchsorted(first, first[j]) + np.searchsorted(first, first[j], side="right") + 1) / 2
        b[j] = (np.searchsorted(order, second[j]) + np.searchsorted(order, second[j], side="right") + 1) / 2
    return a, b


@njit(cache=True, nogil=True, parallel=True)
def rank_products(keys: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return float64[m, 3]: Σ dx·dy, Σ dx², Σ dy² of the ranks' distances from their mean."""
    sums = np.zeros((len(size), 3))
    for i in prange(len(size)):
        a, b = _ranks(keys[start[i] : start[i] + size[i]])
        middle = (len(a) + 1) / 2
        for j in range(len(a)):
            sums[i, 0] += (a[j] - middle) * (b[j] - middle)
            sums[i, 1] += (a[j] - middle) ** 2
            sums[i, 2] += (b[j] - middle) ** 2
    return sums


@njit(cache=True, nogil=True, parallel=True)
def rank_distance(
    keys: np.ndarray, start: np.ndarray, size: np.ndarray, a_length: np.ndarray, b_length: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Return float64[m]: Σ |rank in a − rank in b|, an item past the end of its list having rank ``at[i]``."""
    distance = np.zeros(len(size))
    for i in prange(len(size)):
        a, b = _ranks(keys[start[i] : start[i] + size[i]])
        for j in range(len(a)):
            x = at[i] if a[j] > a_length[i] else a[j]
            y = at[i] if b[j] > b_length[i] else b[j]
            distance[i] += abs(x - y)
    return distance
