"""Rank-biased overlap of prefixes of endless lists, with ties.

RBO = (1 − p) Σ_d p^(d−1) A_d over depths d from 1; A_d is the agreement of the lists' first d places. Only prefixes are
known, so there are a least and a greatest value that they allow, and one that extrapolates their agreement.

An item counts c_d ∈ [0, 1] towards depth d; one outside any tie counts 1 from its place on. Inside a tie that fills
places t … b: ``w`` counts it whole from t on; ``a`` and ``b`` count its share (d − t + 1) / (b − t + 1) until b. With
X_d = Σ c·c' over the items of both lists,

    w: A_d = 2 X_d / (Σ c + Σ c')        ties are equal merit
    a: A_d = X_d / d                     ties are ignorance: the mean over all ways to break them
    b: A_d = X_d / √(Σ c² · Σ c'²)       as a, corrected for what ties hide: a list agrees fully with itself

References: Webber, Moffat and Zobel, TOIS 2010; Corsi and Urbano, SIGIR 2024 (ties).
"""

import math

import numpy as np
from numba import njit, prange

from recsys.evaluation.agreement.concordance import find

W, A, B = 0, 1, 2


@njit(cache=True, nogil=True)
def _group_end(level: np.ndarray, start: int) -> int:
    """Return where the group of ties that starts here ends."""
    end = start + 1
    while end < len(level) and level[end] == level[start]:
        end += 1
    return end


@njit(cache=True, nogil=True)
def _count(place: np.ndarray, start: int, end: int, low: int, high: int) -> int:
    """Return how many of ``place[start:end]`` lie in [low, high)."""
    inside = 0
    for j in range(start, end):
        inside += low <= place[j] < high
    return inside


@njit(cache=True, nogil=True)
def _agreement(x: float, short: tuple[float, float], long: tuple[float, float], depth: int, ties: int) -> float:
    """Return A_d from X_d and each list's (Σ c, Σ c²)."""
    if ties == W:
        return 2 * x / (short[0] + long[0])
    return x / depth if ties == A else x / math.sqrt(short[1] * long[1])


@njit(cache=True, nogil=True)
def _bounds(
    s_level: np.ndarray, l_level: np.ndarray, s_in_l: np.ndarray, l_in_s: np.ndarray, p: float, ties: int
) -> tuple[float, float, float]:
    """Return (extrapolated, least, greatest) RBO of a list and one at least as long.

    ``s_in_l``: place in the long list of each item of the short one, -1 where it has none; ``l_in_s``: the reverse.
    One walk over the depths. Groups before the ones that the depth lies in are *whole*; counted are the items whole in
    both lists, in the short one's open group and whole in the long one, the reverse, and open in both.
    """
    s, l = len(s_level), len(l_level)  # noqa: E741 - the letters of the papers
    s0 = s1 = l0 = l1 = 0  # open groups: places [s0, s1) and [l0, l1)
    whole, s_open, l_open, both_open = 0, 0, 0, 0
    only_whole, only_open = 0, 0  # items of the long list alone: whole, in its open group
    extrapolated, least, greatest, harmonic = 0.0, 0.0, 0.0, 0.0
    x, at_s, weight = 0.0, 0.0, 1.0
    for d in range(1, l + 1):
        if d > s1 and s1 <= s:
            whole, l_open = whole + s_open, l_open + both_open
            s0 = s1
            s1 = _group_end(s_level, s0) if s0 < s else s + 1  # past the end nothing is tied any more
            stop = min(s1, s)
            s_open, both_open = _count(s_in_l, s0, stop, 0, l0), _count(s_in_l, s0, stop, l0, l1)
        if d > l1:
            whole, s_open, only_whole = whole + l_open, s_open + both_open, only_whole + only_open
            l0, l1 = l1, _group_end(l_level, l1)
            l_open, both_open = _count(l_in_s, l0, l1, 0, s0), _count(l_in_s, l0, l1, s0, s1)
            only_open = _count(l_in_s, l0, l1, -1, 0)
        in_s = 1.0 if ties == W else (d - s0) / (s1 - s0)
        in_l = 1.0 if ties == W else (d - l0) / (l1 - l0)
        x = whole + in_s * s_open + in_l * l_open + in_s * in_l * both_open
        long = (l0 + (l1 - l0) * in_l, l0 + (l1 - l0) * in_l**2)
        weight *= p
        harmonic += weight / d
        if d <= s:
            short = (s0 + (s1 - s0) * in_s, s0 + (s1 - s0) * in_s**2)
            at_s = _agreement(x, short, long, d, ties)
            extrapolated += weight * at_s
            least += weight * at_s
            greatest += weight * at_s
        else:
            short, unseen = (float(d), float(d)), d - s
            mean = (only_whole + in_l * only_open) / (only_whole + only_open)
            most = min(unseen, only_whole) + in_l * max(0, unseen - only_whole)
            extrapolated += weight * _agreement(x + unseen * at_s * mean, short, long, d, ties)
            least += weight * _agreement(x, short, long, d, ties)
            greatest += weight * _agreement(x + most, short, long, d, ties)
    extrapolated += (x + (l - s) * at_s) / l * weight * p / (1 - p)
    least += x * (-math.log1p(-p) - harmonic)
    full = l + s - int(x)  # from this depth on the lists can agree on everything
    for d in range(l + 1, full + 1):
        weight *= p
        greatest += weight * (2 * d - l - s + x) / d
    greatest += weight * p / (1 - p)
    scale = (1 - p) / p
    return min(1.0, scale * extrapolated), min(1.0, scale * least), min(1.0, scale * greatest)


@njit(cache=True, nogil=True, parallel=True)
def bounds(
    a_items: np.ndarray,
    a_level: np.ndarray,
    a_offsets: np.ndarray,
    a_table: np.ndarray,
    a_start: np.ndarray,
    b_items: np.ndarray,
    b_level: np.ndarray,
    b_offsets: np.ndarray,
    b_table: np.ndarray,
    b_start: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    p: float,
    ties: int,
) -> np.ndarray:
    """Return float64[m, 3]: extrapolated, least and greatest RBO of each pair; NaN when a list is empty."""
    found = np.full((len(left), 3), np.nan)
    for i in prange(len(left)):
        a0, a1 = a_offsets[left[i]], a_offsets[left[i] + 1]
        b0, b1 = b_offsets[right[i]], b_offsets[right[i] + 1]
        if a1 > a0 and b1 > b0:
            a_in_b, b_in_a = np.empty(a1 - a0, dtype=np.int64), np.empty(b1 - b0, dtype=np.int64)
            in_a, table_a = a_items[a0:a1], a_table[a_start[left[i]] : a_start[left[i] + 1]]
            in_b, table_b = b_items[b0:b1], b_table[b_start[right[i]] : b_start[right[i] + 1]]
            for j in range(len(in_a)):
                a_in_b[j] = find(table_b, in_b, in_a[j])
            for j in range(len(in_b)):
                b_in_a[j] = find(table_a, in_a, in_b[j])
            if a1 - a0 <= b1 - b0:
                values = _bounds(a_level[a0:a1], b_level[b0:b1], a_in_b, b_in_a, p, ties)
            else:
                values = _bounds(b_level[b0:b1], a_level[a0:a1], b_in_a, a_in_b, p, ties)
            found[i, 0], found[i, 1], found[i, 2] = values
    return found
