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
    """

    factors: np.ndarray
    codes: np.ndarray
    scales: np.ndarray
    errors: np.ndarray

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
        return cls(factors, codes, scales, errors)

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
        block_scores = np.empty(self.scales.shape, dtype=np.float32)
        _scan(self.codes, self.scales, user_factor, block_scores)
        scores = block_scores.reshape(-1)
        scores[seen] = np.nan
        if candidates is not None:
            scores[: len(candidates)][~candidates] = np.nan
        coarse_items, _ = kernels.select_top_k(scores[None], *_NONE, k)
        if coarse_items[0, -1] < 0:
            return None
        # The k-th best exact score of all items is at least the smallest one of these k items.
        threshold = float(self._exact_scores(coarse_items[0], user_factor).min())
        if not np.isfinite(threshold):
            return None
        rows = _reach(block_scores, self.errors, float(np.abs(user_factor).sum(dtype=np.float64)), threshold)
        positions, exact_scores = kernels.select_top_k(self._exact_scores(rows, user_factor), *_NONE, k)
        return rows[positions], exact_scores

    def _exact_scores(self, rows: np.ndarray, user_factor: np.ndarray) -> np.ndarray:
        return linalg.product(user_factor[None], self.factors[rows].T)


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
def _reach(scores: np.ndarray, errors: np.ndarray, length: float, threshold: float) -> np.ndarray:
    """Return the items whose exact score may reach a threshold, int32[n], ascending.

    Args:
        scores: float32[blocks, BLOCK], the scores of the codes, NaN for items to leave out.
        errors: as in :class:`ItemScan`.
        length: Σ|x| of the user.
        threshold: the exact score to reach.
    """
    rows = np.empty(scores.size, dtype=np.int32)
    count = 0
    for block in range(len(scores)):
        reaching = 0
        for j in range(BLOCK):
            reaching += np.float64(scores[block, j]) + errors[block, j] * length >= threshold
        # Few blocks have such an item, and only these are read item by item.
        if reaching == 0:
            continue
        for j in range(BLOCK):
            if np.float64(scores[block, j]) + errors[block, j] * length >= threshold:
                rows[count] = block * BLOCK + j
                count += 1
    return rows[:count].copy()
