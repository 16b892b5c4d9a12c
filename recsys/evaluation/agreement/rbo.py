"""Rank-biased overlap (RBO) of two prefixes of endless lists, with ties.

RBO = (1 − p) Σ_d p^(d−1) A_d over the depths d = 1, 2, …, where A_d is the agreement of the first d
positions of both lists. Only prefixes of the lists are observed. They allow a smallest and a
largest value of RBO, and an extrapolated value, which assumes that the lists go on to agree as far
as they did.

An item contributes c_d ∈ [0, 1] at depth d. An item without ties contributes 1 from its position
on. In a tie that fills the positions t … b, variant ``w`` counts every item as 1 from t on;
variants ``a`` and ``b`` count the share (d − t + 1) / (b − t + 1) until depth b, and 1 from there.
With X_d = Σ c·c' over the items of both lists,

    w: A_d = 2 X_d / (Σ c + Σ c')        tied items deserve the same rank
    a: A_d = X_d / d                     the true order is unknown: the mean over all ways to break
    ties
    b: A_d = X_d / √(Σ c² · Σ c'²)       as a, corrected so that a list with ties agrees fully with
    itself

References: Webber, Moffat and Zobel, TOIS 2010; Corsi and Urbano, SIGIR 2024 (ties).
"""

import math

import numpy as np
from numba import njit, prange

from recsys.evaluation.agreement.concordance import find_position

W, A, B = 0, 1, 2


@njit(cache=True, nogil=True)
def _group_end(dense_ranks: np.ndarray, start: int) -> int:
    """Return the end of the group of ties that starts at position ``start``."""
    end = start + 1
    while end < len(dense_ranks) and dense_ranks[end] == dense_ranks[start]:
        end += 1
    return end


@njit(cache=True, nogil=True)
def _count_in_range(positions: np.ndarray, start: int, end: int, low: int, high: int) -> int:
    """Return how many of ``positions[start:end]`` are in [low, high)."""
    count = 0
    for j in range(start, end):
        count += low <= positions[j] < high
    return count


@njit(cache=True, nogil=True)
def _depth_agreement(
    x: float,
    short_sums: tuple[float, float],
    long_sums: tuple[float, float],
    depth: int,
    ties: int,
) -> float:
    """Return the agreement A_d at the depth d, as the description of this module defines it.

    Args:
        x: X_d.
        short_sums, long_sums: (Σ c, Σ c²) of the shorter and of the longer list.
        depth: d.
        ties: the variant, W, A or B.
    """
    if ties == W:
        return 2 * x / (short_sums[0] + long_sums[0])
    if ties == A:
        return x / depth
    return x / math.sqrt(short_sums[1] * long_sums[1])


@njit(cache=True, nogil=True)
def _list_sums(start: int, end: int, contribution: float) -> tuple[float, float]:
    """Return (Σ c, Σ c²) over the items of a list at one depth.

    The items above ``start`` contribute 1 each. The group of ties at the positions [start, end)
    contains the depth, and each of its items contributes ``contribution``.
    """
    size = end - start
    return start + size * contribution, start + size * contribution**2


@njit(cache=True, nogil=True)
def _pair_bounds(
    short_ranks: np.ndarray,
    long_ranks: np.ndarray,
    short_in_long: np.ndarray,
    long_in_short: np.ndarray,
    p: float,
    ties: int,
) -> tuple[float, float, float]:
    """Return the extrapolated, the smallest and the largest RBO of two lists.

    Args:
        short_ranks, long_ranks: dense ranks of the shorter and the longer list.
        short_in_long: position in the long list of each item of the short list, or -1.
        long_in_short: the reverse.

    The loop visits each depth once. At a depth, each list has one *open* group, the group of ties
    that contains the depth, and *closed* groups above it. The counters hold the common items by the
    state of their group in either list.
    """
    short_length = len(short_ranks)
    long_length = len(long_ranks)
    # The open groups fill the positions [s0, s1) of the short list and [l0, l1) of the long list.
    s0 = s1 = l0 = l1 = 0
    closed_both = 0
    short_open = 0
    long_open = 0
    both_open = 0
    # Items of the long list alone: in closed groups, and in the open group.
    unmatched_closed = 0
    unmatched_open = 0
    extrapolated = 0.0
    smallest = 0.0
    largest = 0.0
    harmonic = 0.0
    x = 0.0
    short_end_agreement = 0.0
    weight = 1.0
    for d in range(1, long_length + 1):
        if d > s1 and s1 <= short_length:
            closed_both += short_open
            long_open += both_open
            s0 = s1
            # Positions past the end of the short list are not tied: one last group covers the
            # unseen rest.
            s1 = _group_end(short_ranks, s0) if s0 < short_length else short_length + 1
            stop = min(s1, short_length)
            short_open = _count_in_range(short_in_long, s0, stop, 0, l0)
            both_open = _count_in_range(short_in_long, s0, stop, l0, l1)
        if d > l1:
            closed_both += long_open
            short_open += both_open
            unmatched_closed += unmatched_open
            l0 = l1
            l1 = _group_end(long_ranks, l0)
            long_open = _count_in_range(long_in_short, l0, l1, 0, s0)
            both_open = _count_in_range(long_in_short, l0, l1, s0, s1)
            unmatched_open = _count_in_range(long_in_short, l0, l1, -1, 0)
        c_short = 1.0 if ties == W else (d - s0) / (s1 - s0)
        c_long = 1.0 if ties == W else (d - l0) / (l1 - l0)
        x = closed_both + c_short * short_open + c_long * long_open + c_short * c_long * both_open
        long_sums = _list_sums(l0, l1, c_long)
        weight *= p
        harmonic += weight / d
        if d <= short_length:
            short_sums = _list_sums(s0, s1, c_short)
            short_end_agreement = _depth_agreement(x, short_sums, long_sums, d, ties)
            extrapolated += weight * short_end_agreement
            smallest += weight * short_end_agreement
            largest += weight * short_end_agreement
        else:
            # The short list has ended: its unseen items could match none or many of the unmatched
            # items.
            short_sums = (float(d), float(d))
            unseen = d - short_length
            unmatched = unmatched_closed + unmatched_open
            mean_contribution = (unmatched_closed + c_long * unmatched_open) / unmatched
            most = min(unseen, unmatched_closed) + c_long * max(0, unseen - unmatched_closed)
            expected = unseen * short_end_agreement * mean_contribution
            extrapolated += weight * _depth_agreement(x + expected, short_sums, long_sums, d, ties)
            smallest += weight * _depth_agreement(x, short_sums, long_sums, d, ties)
            largest += weight * _depth_agreement(x + most, short_sums, long_sums, d, ties)
    # The sums over all depths past the end of the long list have closed forms.
    final_x = x + (long_length - short_length) * short_end_agreement
    extrapolated += final_x / long_length * weight * p / (1 - p)
    smallest += x * (-math.log1p(-p) - harmonic)
    # From this depth on the lists could agree fully.
    full_depth = long_length + short_length - int(x)
    for d in range(long_length + 1, full_depth + 1):
        weight *= p
        largest += weight * (2 * d - long_length - short_length + x) / d
    largest += weight * p / (1 - p)
    scale = (1 - p) / p
    return min(1.0, scale * extrapolated), min(1.0, scale * smallest), min(1.0, scale * largest)


@njit(cache=True, nogil=True, parallel=True)
def rbo_bounds(
    a_items: np.ndarray,
    a_ranks: np.ndarray,
    a_offsets: np.ndarray,
    a_tables: np.ndarray,
    a_table_offsets: np.ndarray,
    b_items: np.ndarray,
    b_ranks: np.ndarray,
    b_offsets: np.ndarray,
    b_tables: np.ndarray,
    b_table_offsets: np.ndarray,
    rows_a: np.ndarray,
    rows_b: np.ndarray,
    p: float,
    ties: int,
) -> np.ndarray:
    """Return float64[m, 3]: the extrapolated, smallest and largest RBO of each pair; NaN where a list is empty."""
    values = np.full((len(rows_a), 3), np.nan)
    for i in prange(len(rows_a)):
        row_a = rows_a[i]
        row_b = rows_b[i]
        a_start, a_end = a_offsets[row_a], a_offsets[row_a + 1]
        b_start, b_end = b_offsets[row_b], b_offsets[row_b + 1]
        if a_end > a_start and b_end > b_start:
            list_a = a_items[a_start:a_end]
            list_b = b_items[b_start:b_end]
            table_a = a_tables[a_table_offsets[row_a] : a_table_offsets[row_a + 1]]
            table_b = b_tables[b_table_offsets[row_b] : b_table_offsets[row_b + 1]]
            a_in_b = np.empty(len(list_a), dtype=np.int64)
            b_in_a = np.empty(len(list_b), dtype=np.int64)
            for j in range(len(list_a)):
                a_in_b[j] = find_position(table_b, list_b, list_a[j])
            for j in range(len(list_b)):
                b_in_a[j] = find_position(table_a, list_a, list_b[j])
            ranks_a = a_ranks[a_start:a_end]
            ranks_b = b_ranks[b_start:b_end]
            if len(list_a) <= len(list_b):
                bounds = _pair_bounds(ranks_a, ranks_b, a_in_b, b_in_a, p, ties)
            else:
                bounds = _pair_bounds(ranks_b, ranks_a, b_in_a, a_in_b, p, ties)
            values[i, 0], values[i, 1], values[i, 2] = bounds
    return values
