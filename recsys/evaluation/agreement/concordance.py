"""Compiled loops over pairs of ranked lists: concordant, discordant and tied pairs of items.

All lists are concatenated in flat arrays (see ``rankings.Rankings``). Each item has a *dense rank*
in its list: 0 for the best group of tied items, 1 for the next group, and so on. Two lists a and b
are compared through *keys*, one int64 per item: the item's dense rank in a in the high 32 bits, its
dense rank in b in the low 32 bits. The keys of a pair are sorted, hence ordered by a, and by b
within ties of a.

Every loop takes O(n log n) time per pair of lists. The results do not depend on the number of
threads. The same definitions as slow plain Python: tests/reference_agreement.py.
"""

import numpy as np
from numba import njit, prange

from recsys.kernels import copy_values

LOW_BITS = 0xFFFFFFFF
"""Mask that keeps an item's dense rank in b."""

INSERTION_RUN = 8
"""Runs of this length are sorted by insertion before merging starts, because that is faster for short runs."""


# --- Hash tables: item -> position in a list ------------------------------------------------------


@njit(cache=True, nogil=True)
def _find_slot(table: np.ndarray, items: np.ndarray, item: int) -> np.int64:
    """Return the slot of an item in a hash table of positions, or the free slot (-1) where it would be inserted.

    The number of slots is a power of two; collisions are resolved by linear probing.
    """
    mask = np.uint64(len(table) - 1)
    # Fibonacci hashing: 2^64 divided by the golden ratio spreads consecutive ids over the table.
    slot = ((np.uint64(item) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while table[slot] >= 0 and items[table[slot]] != item:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@njit(cache=True, nogil=True, parallel=True)
def build_position_tables(
    items: np.ndarray,
    offsets: np.ndarray,
    table_offsets: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return one hash table per list (item -> position) and bool[m], true for a list that repeats an item.

    The table of list i occupies ``table_offsets[i]`` to ``table_offsets[i + 1]`` of the first
    array.
    """
    tables = np.full(table_offsets[-1], -1, dtype=np.int32)
    repeats = np.zeros(len(offsets) - 1, dtype=np.bool_)
    for i in prange(len(offsets) - 1):
        table = tables[table_offsets[i] : table_offsets[i + 1]]
        list_items = items[offsets[i] : offsets[i + 1]]
        for j in range(len(list_items)):
            slot = _find_slot(table, list_items, list_items[j])
            repeats[i] |= table[slot] >= 0
            table[slot] = j
    return tables, repeats


@njit(cache=True, nogil=True)
def find_position(table: np.ndarray, items: np.ndarray, item: int) -> int:
    """Return the position of an item in a list, or -1; ``table`` is the list's part of the position tables."""
    return table[_find_slot(table, items, item)]


# --- Keys of a pair of lists ----------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
def align_pairs(
    a_items: np.ndarray,
    a_ranks: np.ndarray,
    a_offsets: np.ndarray,
    b_items: np.ndarray,
    b_ranks: np.ndarray,
    b_offsets: np.ndarray,
    b_tables: np.ndarray,
    b_table_offsets: np.ndarray,
    rows_a: np.ndarray,
    rows_b: np.ndarray,
    starts: np.ndarray,
    bottom: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted keys of the items that each pair is compared on, and the number of items per pair.

    Pair i compares list ``rows_a[i]`` of a with list ``rows_b[i]`` of b; its keys begin at
    ``starts[i]``. With ``bottom`` false, only items of both lists are compared. With ``bottom``
    true, items of either list are compared, and the items that a list misses form one group of ties
    below its end.
    """
    keys = np.empty(starts[-1], dtype=np.int64)
    sizes = np.zeros(len(rows_a), dtype=np.int64)
    for i in prange(len(rows_a)):
        a_start, a_end = a_offsets[rows_a[i]], a_offsets[rows_a[i] + 1]
        b_start, b_end = b_offsets[rows_b[i]], b_offsets[rows_b[i] + 1]
        a_bottom = np.int64(a_ranks[a_end - 1]) + 1 if a_end > a_start else np.int64(0)
        b_bottom = np.int64(b_ranks[b_end - 1]) + 1 if b_end > b_start else np.int64(0)
        table = b_tables[b_table_offsets[rows_b[i]] : b_table_offsets[rows_b[i] + 1]]
        list_b = b_items[b_start:b_end]
        in_both = np.zeros(b_end - b_start if bottom else 0, dtype=np.bool_)
        end = starts[i]
        for j in range(a_start, a_end):
            position = find_position(table, list_b, a_items[j])
            if position >= 0 or bottom:
                b_rank = np.int64(b_ranks[b_start + position]) if position >= 0 else b_bottom
                keys[end] = (np.int64(a_ranks[j]) << 32) | b_rank
                end += 1
            if position >= 0 and bottom:
                in_both[position] = True
        for j in range(len(in_both)):
            if not in_both[j]:
                keys[end] = (a_bottom << 32) | np.int64(b_ranks[b_start + j])
                end += 1
        sizes[i] = end - starts[i]
        # The keys follow the order of list a, so they need sorting only where b orders ties of a
        # differently.
        for j in range(starts[i] + 1, end):
            if keys[j] < keys[j - 1]:
                keys[starts[i] : end].sort()
                break
    return keys, sizes


@njit(cache=True, nogil=True, parallel=True)
def swap_lists(keys: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the keys with a and b exchanged: sorted by b, then by a."""
    swapped = np.empty_like(keys)
    for i in prange(len(sizes)):
        for j in range(starts[i], starts[i] + sizes[i]):
            swapped[j] = ((keys[j] & LOW_BITS) << 32) | (keys[j] >> 32)
        swapped[starts[i] : starts[i] + sizes[i]].sort()
    return swapped


# --- Kendall's counts -----------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _tie_statistics(values: np.ndarray) -> tuple[int, int, float, float]:
    """Return the tie statistics of a sorted array whose groups of equal values have sizes t.

    They are: pairs of equal values, groups, Σ t(t−1)(t−2) and Σ t(t−1)(2t+5).
    """
    tied_pairs = 0
    groups = 0
    third_moment = 0.0
    variance_term = 0.0
    start = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[end] != values[start]:
            t = end - start
            groups += 1
            start = end
            if t > 1:
                tied_pairs += t * (t - 1) // 2
                third_moment += float(t) * (t - 1) * (t - 2)
                variance_term += float(t) * (t - 1) * (2 * t + 5)
    return tied_pairs, groups, third_moment, variance_term


@njit(cache=True, nogil=True)
def _count_inversions(values: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of inversions by merge sort, and the sorted values; ``values`` is overwritten.

    Reference: Knight, JASA 1966.
    """
    n = len(values)
    width = INSERTION_RUN
    inversions = 0
    for low in range(0, n, width):
        for i in range(low + 1, min(low + width, n)):
            value = values[i]
            j = i
            while j > low and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
            inversions += i - j
    merged = np.empty_like(values)
    while width < n:
        for low in range(0, n, 2 * width):
            middle = min(low + width, n)
            high = min(low + 2 * width, n)
            i = low
            j = middle
            for out in range(low, high):
                if j == high or (i < middle and values[i] <= values[j]):
                    merged[out] = values[i]
                    i += 1
                else:
                    # values[j] passes all the values of the first run that are not merged yet.
                    merged[out] = values[j]
                    inversions += middle - i
                    j += 1
        values, merged = merged, values
        width *= 2
    return inversions, values


@njit(cache=True, nogil=True, parallel=True)
def count_concordance(
    keys: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts from which Kendall's coefficients and their variance are computed.

    Returns:
        counts: int64[m, 7]: items, discordant pairs, pairs tied in a, in b, in both, groups in a,
            groups in b.
        moments: float64[m, 4]: Σ t(t−1)(t−2) and Σ t(t−1)(2t+5) over the groups of t items in a,
            then the same in b.
    """
    counts = np.empty((len(sizes), 7), dtype=np.int64)
    moments = np.empty((len(sizes), 4))
    for i in prange(len(sizes)):
        pair_keys = keys[starts[i] : starts[i] + sizes[i]]
        counts[i, 0] = len(pair_keys)
        counts[i, 2], counts[i, 5], moments[i, 0], moments[i, 1] = _tie_statistics(pair_keys >> 32)
        counts[i, 4] = _tie_statistics(pair_keys)[0]
        counts[i, 1], sorted_b = _count_inversions(pair_keys & LOW_BITS)
        counts[i, 3], counts[i, 6], moments[i, 2], moments[i, 3] = _tie_statistics(sorted_b)
    return counts, moments


# --- Weighted tau ---------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _pair_weight_sum(weight_sum: float, square_sum: float, count: int, additive: bool) -> float:
    """Return the sum over all pairs of ``count`` items of w_i + w_j (additive) or of w_i · w_j."""
    if additive:
        return (count - 1) * weight_sum
    return (weight_sum * weight_sum - square_sum) / 2


@njit(cache=True, nogil=True)
def _tied_weight(values: np.ndarray, weights: np.ndarray, additive: bool) -> float:
    """Return the total weight of the pairs of equal values of a sorted array."""
    tied = 0.0
    start = 0
    while start < len(values):
        weight_sum = 0.0
        square_sum = 0.0
        end = start
        while end < len(values) and values[end] == values[start]:
            weight_sum += weights[end]
            square_sum += weights[end] ** 2
            end += 1
        if end - start > 1:
            tied += _pair_weight_sum(weight_sum, square_sum, end - start, additive)
        start = end
    return tied


@njit(cache=True, nogil=True)
def _sort_inverted_weight(values: np.ndarray, weights: np.ndarray, additive: bool) -> float:
    """Sort ``values`` in place, ``weights`` along with them, and return the total weight of the inversions."""
    n = len(values)
    width = 1
    inverted = 0.0
    merged_values = np.empty_like(values)
    merged_weights = np.empty_like(weights)
    while width < n:
        for low in range(0, n, 2 * width):
            middle = min(low + width, n)
            high = min(low + 2 * width, n)
            i = low
            j = middle
            remaining = weights[low:middle].sum()
            for out in range(low, high):
                if j == high or (i < middle and values[i] <= values[j]):
                    merged_values[out] = values[i]
                    merged_weights[out] = weights[i]
                    remaining -= weights[i]
                    i += 1
                else:
                    merged_values[out] = values[j]
                    merged_weights[out] = weights[j]
                    if i < middle:
                        # values[j] passes the middle − i values of the first run that are not
                        # merged yet.
                        if additive:
                            inverted += remaining + (middle - i) * weights[j]
                        else:
                            inverted += remaining * weights[j]
                    j += 1
        copy_values(merged_values, values)
        copy_values(merged_weights, weights)
        width *= 2
    return inverted


@njit(cache=True, nogil=True, parallel=True)
def hyperbolic_tau(
    keys: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    additive: bool,
) -> np.ndarray:
    """Return float64[m]: tau-b with item weights 1/r, where r is an item's position among the keys, from 1.

    NaN where all pairs of items are tied in a list. Reference: Vigna, WWW 2015.
    """
    tau = np.full(len(sizes), np.nan)
    for i in prange(len(sizes)):
        pair_keys = keys[starts[i] : starts[i] + sizes[i]]
        weights = 1 / np.arange(1.0, len(pair_keys) + 1)
        b_ranks = pair_keys & LOW_BITS
        total = _pair_weight_sum(weights.sum(), (weights**2).sum(), len(pair_keys), additive)
        tied_a = _tied_weight(pair_keys >> 32, weights, additive)
        tied_both = _tied_weight(pair_keys, weights, additive)
        inverted = _sort_inverted_weight(b_ranks, weights, additive)
        # The ranks in b, and the weights with them, are sorted by now.
        tied_b = _tied_weight(b_ranks, weights, additive)
        if total > tied_a and total > tied_b:
            balance = total + tied_both - tied_a - tied_b - 2 * inverted
            score = balance / np.sqrt(total - tied_a) / np.sqrt(total - tied_b)
            tau[i] = min(1.0, max(-1.0, score))
    return tau


# --- AP correlation -------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _prefix_sum(tree: np.ndarray, end: int) -> int:
    """Return the sum of the first ``end`` counters of a Fenwick tree."""
    total = 0
    while end > 0:
        total += tree[end]
        end -= end & -end
    return total


@njit(cache=True, nogil=True, parallel=True)
def ap_correlation(
    keys: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    average_ties: bool,
) -> np.ndarray:
    """Return float64[m]: the AP correlation tau_AP; list a is judged, list b is the reference.

    With ``average_ties``, the mean over all ways to break ties. Otherwise a tied pair counts as
    disagreement, and an item is compared with the items in groups above its own only. NaN without
    any comparison.
    """
    tau = np.full(len(sizes), np.nan)
    for i in prange(len(sizes)):
        pair_keys = keys[starts[i] : starts[i] + sizes[i]]
        n = len(pair_keys)
        reference = pair_keys & LOW_BITS
        sorted_reference = np.sort(reference)
        # Items above the current group, counted by their position in the reference: as prefix sums
        # and one by one.
        tree = np.zeros(n + 1, dtype=np.int64)
        item_counts = np.zeros(n, dtype=np.int64)
        start = 0
        comparisons = 0
        total = 0.0
        while start < n:
            end = start
            agreeing = 0.0
            while end < n and pair_keys[end] >> 32 == pair_keys[start] >> 32:
                position = np.searchsorted(sorted_reference, reference[end])
                tied = 0.5 * item_counts[position] if average_ties else 0.0
                agreeing += _prefix_sum(tree, position) + tied
                end += 1
            group_size = end - start
            if average_ties:
                comparisons += group_size - (start == 0)
                # Over all ways to break the tie, each item of the group takes each position of the
                # group equally often.
                for k in range(start, end):
                    if k > 0:
                        total += (agreeing / group_size + 0.5 * (k - start)) / k
            elif start > 0:
                comparisons += group_size
                total += agreeing / start
            for j in range(start, end):
                position = np.searchsorted(sorted_reference, reference[j])
                item_counts[position] += 1
                position += 1
                while position <= n:
                    tree[position] += 1
                    position += position & -position
            start = end
        if comparisons:
            tau[i] = 2 * total / comparisons - 1
    return tau


# --- Ranks ----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _mean_ranks(pair_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each item in a and in b, from 1; tied items share their mean rank."""
    a_values = pair_keys >> 32
    b_values = pair_keys & LOW_BITS
    sorted_b = np.sort(b_values)
    a_ranks = np.empty(len(pair_keys))
    b_ranks = np.empty(len(pair_keys))
    for j in range(len(pair_keys)):
        a_first = np.searchsorted(a_values, a_values[j])
        a_ranks[j] = (a_first + np.searchsorted(a_values, a_values[j], side="right") + 1) / 2
        b_first = np.searchsorted(sorted_b, b_values[j])
        b_ranks[j] = (b_first + np.searchsorted(sorted_b, b_values[j], side="right") + 1) / 2
    return a_ranks, b_ranks


@njit(cache=True, nogil=True, parallel=True)
def rank_cross_products(keys: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return float64[m, 3]: Σ dx·dy, Σ dx² and Σ dy², with dx and dy the deviations of the ranks from their mean."""
    sums = np.zeros((len(sizes), 3))
    for i in prange(len(sizes)):
        a_ranks, b_ranks = _mean_ranks(keys[starts[i] : starts[i] + sizes[i]])
        mean = (len(a_ranks) + 1) / 2
        for j in range(len(a_ranks)):
            sums[i, 0] += (a_ranks[j] - mean) * (b_ranks[j] - mean)
            sums[i, 1] += (a_ranks[j] - mean) ** 2
            sums[i, 2] += (b_ranks[j] - mean) ** 2
    return sums


@njit(cache=True, nogil=True, parallel=True)
def footrule_distance(
    keys: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    a_lengths: np.ndarray,
    b_lengths: np.ndarray,
    locations: np.ndarray,
) -> np.ndarray:
    """Return float64[m]: Σ |rank in a − rank in b|; an item past the end of a list has the rank ``locations[i]``."""
    distance = np.zeros(len(sizes))
    for i in prange(len(sizes)):
        a_ranks, b_ranks = _mean_ranks(keys[starts[i] : starts[i] + sizes[i]])
        for j in range(len(a_ranks)):
            a_rank = locations[i] if a_ranks[j] > a_lengths[i] else a_ranks[j]
            b_rank = locations[i] if b_ranks[j] > b_lengths[i] else b_ranks[j]
            distance[i] += abs(a_rank - b_rank)
    return distance
