"""Find the best items of one user among very many items by a scan of small codes.

The factors of a million items are hundreds of MiB, and reading them is what a list costs. So each
factor is stored once more as int8 codes with one scale per item, which is a quarter of the bytes. A
scan of the codes gives each score up to a known error. Only the items that could be among the best
within this error get an exact score, which are a few dozen. So lists are those of exact scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit

from recsys import kernels, linalg

LEVELS = 127
"""The largest code. Codes are in −127 … 127."""

BLOCK = 256
"""Number of items whose codes are stored, and scored, together.

Each code of a block is multiplied by one number of the user, which a processor does for many items at once.
"""

_NONE = np.zeros(2, dtype=np.int64), np.empty(0, dtype=np.int32)
"""The structure of a CSR matrix of one row without entries."""

_ALL = np.empty(0, dtype=np.bool_)
"""Stands for all items where a kernel expects the allowed ones."""


@dataclass(frozen=True, eq=False)
class ItemScan:
    """The factors of items with their codes.

    Attributes:
        factors: float32[items, rank], the exact factors.
        codes: int8[blocks, rank, BLOCK]. Item i is in block i // BLOCK, at place i % BLOCK. A factor
            is about ``scales`` × ``codes``.
        scales: float32[blocks, BLOCK], NaN for an item without a factor and after the last item.
        errors: float32[blocks, BLOCK]. A score of the codes differs from the exact one by at most this
            times Σ|x|, where x is the factor of the user. It covers the rounding of both sums.
        largest_errors: float64[blocks], the largest of ``errors`` in each block.
    """

    factors: np.ndarray
    codes: np.ndarray
    scales: np.ndarray
    errors: np.ndarray
    largest_errors: np.ndarray

    @classmethod
    def encode(cls, factors: np.ndarray, has_factor: np.ndarray) -> Self:
        """Return the factors of items with their codes.

        Args:
            factors: float32[items, rank] in C order, finite.
            has_factor: bool[items], whether each item has a factor. Others are never listed.
        """
        items, rank = factors.shape
        blocks = -(-items // BLOCK)
        codes = np.zeros((blocks, rank, BLOCK), dtype=np.int8)
        scales = np.full((blocks, BLOCK), np.nan, dtype=np.float32)
        errors = np.zeros((blocks, BLOCK), dtype=np.float32)
        _encode(factors, codes, scales, errors)
        scales.reshape(-1)[:items][~has_factor] = np.nan
        return cls(factors, codes, scales, errors, errors.max(axis=1, initial=0).astype(np.float64))

    def top_k(
        self, user_factor: np.ndarray, k: int, seen: np.ndarray, candidates: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the k items with the largest scores, int32[1, k], and their scores, float32[1, k].

        The first item is the best. Of items with equal scores, the lower row is first. The result is
        None if there are fewer than k items to choose from, or if scores are not finite.

        Args:
            user_factor: float32[rank].
            k: ≥ 1.
            seen: int[n], the items to leave out.
            candidates: bool[items], the items that may be chosen. None: all.
        """
        allowed = _ALL if candidates is None else candidates
        seen = kernels.writable(seen, np.int32)
        arrays = (self.codes, self.scales, self.errors, self.largest_errors)
        rows = _reachable_items(*arrays, user_factor, seen, allowed, k)
        if not len(rows):
            return None
        exact_scores = linalg.product(user_factor[None], self.factors[rows].T)
        positions, scores = kernels.select_top_k(exact_scores, *_NONE, k)
        return rows[positions], scores


@njit(cache=True, nogil=True)
def _encode(factors: np.ndarray, codes: np.ndarray, scales: np.ndarray, errors: np.ndarray) -> None:
    """Fill the arrays of :class:`ItemScan` for the items that there are."""
    items, rank = factors.shape
    # Each of the two float32 sums of a score is wrong by at most (rank + 2) · 2⁻²³ of the sum of the
    # sizes of its terms; the factor 4 leaves room for the scale and for second-order terms.
    rounding = 4 * (rank + 2) * 2.0**-23
    for i in range(items):
        block = i // BLOCK
        j = i % BLOCK
        largest = 0.0
        for f in range(rank):
            largest = max(largest, abs(np.float64(factors[i, f])))
        scale = np.float32(largest / LEVELS)
        error = 0.0
        for f in range(rank):
            code = 0.0
            if scale > 0:
                code = min(max(np.rint(factors[i, f] / np.float64(scale)), -LEVELS), LEVELS)
            codes[block, f, j] = np.int8(code)
            error = max(error, abs(factors[i, f] - code * np.float64(scale)))
        scales[block, j] = scale
        # One part in a thousand more than the bound, so that its own rounding to float32 is covered.
        errors[block, j] = (error + rounding * largest) * 1.001 + 1e-44


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _scan(codes: np.ndarray, scales: np.ndarray, user_factor: np.ndarray, scores: np.ndarray) -> None:
    """Write the score of the codes of each item to ``scores``, float32[blocks, BLOCK]."""
    totals = np.empty(BLOCK, dtype=np.float32)
    for block in range(codes.shape[0]):
        totals[:] = 0
        for f in range(codes.shape[1]):
            for j in range(BLOCK):
                totals[j] += user_factor[f] * np.float32(codes[block, f, j])
        for j in range(BLOCK):
            scores[block, j] = totals[j] * scales[block, j]


@njit(cache=True, nogil=True)
def _reachable_items(
    codes: np.ndarray,
    scales: np.ndarray,
    errors: np.ndarray,
    largest_errors: np.ndarray,
    user_factor: np.ndarray,
    seen: np.ndarray,
    allowed: np.ndarray,
    k: int,
) -> np.ndarray:
    """Return the items that may be among the k with the largest exact scores, int32[n], ascending.

    There are none if fewer than k items have a score, or if scores are not finite. It is one function, because
    between small ones the arrays of the next one leave the caches of the processor.

    Args:
        codes, scales, errors, largest_errors: as in :class:`ItemScan`.
        user_factor, seen, k: as in :meth:`ItemScan.top_k`.
        allowed: bool[items], or empty if all are allowed.
    """
    scores = np.empty(scales.shape, dtype=np.float32)
    _scan(codes, scales, user_factor, scores)
    row = scores.reshape(-1)
    for item in seen:
        row[item] = np.nan
    for item in range(len(allowed)):
        if not allowed[item]:
            row[item] = np.nan
    items = np.empty(k, dtype=np.int32)
    item_scores = np.empty(k, dtype=np.float32)
    reachable = np.empty(row.size, dtype=np.int32)
    count = 0
    if kernels.select_top_k_of_row(row, reachable[:0], items, item_scores) < k:
        return reachable[:0]
    length = 0.0
    for f in range(len(user_factor)):
        length += abs(np.float64(user_factor[f]))
    # The exact score of each of these k items is at least this, and so is the k-th best exact score of all.
    threshold = np.inf
    for i in range(k):
        error = errors[items[i] // BLOCK, items[i] % BLOCK] * length
        threshold = min(threshold, np.float64(item_scores[i]) - error)
    if not np.isfinite(threshold):
        return reachable[:0]
    for block in range(len(scores)):
        # Few blocks have such an item, and only these are read item by item. The bound of a block is lower by more
        # than its rounding to float32.
        bound = threshold - largest_errors[block] * length
        if kernels.count_above(scores[block], np.float32(bound - abs(bound) * 1e-6 - 1e-37)) == 0:
            continue
        for j in range(BLOCK):
            if np.float64(scores[block, j]) + errors[block, j] * length >= threshold:
                reachable[count] = block * BLOCK + j
                count += 1
    return reachable[:count].copy()
