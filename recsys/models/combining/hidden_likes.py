"""Compute the NDCG of hidden likes from scores, without making lists.

The loops are compiled, because a trial computes this NDCG thousands of times.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from scipy.sparse import csr_array

from recsys.linalg import arrays

CHUNK = 256
"""Number of scores that are compared before the loop checks whether it can stop."""


def ndcg_of_hidden(scores: np.ndarray, seen: csr_array, hidden: csr_array, depth: int) -> np.ndarray:
    """Return the NDCG@depth of the list of each row, float64[m], with binary relevance.

    The list of a row holds the columns with the highest scores, without the columns of ``seen`` and
    without scores that are not finite. Of equal scores, the lower column comes first. The result is
    0 for a row without hidden likes.

    Args:
        scores: float32[m, n], read only.
        seen: csr (m, n), items that are left out.
        hidden: csr (m, n), the relevant items; none of them is in ``seen``.
        depth: length of the lists.
    """
    discounts = 1 / np.log2(np.arange(2.0, depth + 2))
    seen_ptr, seen_columns, _ = arrays(seen)
    hidden_ptr, hidden_columns, _ = arrays(hidden)
    gains = _gain_per_row(np.ascontiguousarray(scores), seen_ptr, seen_columns, hidden_ptr, hidden_columns, discounts)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(np.diff(hidden_ptr), depth)]
    return np.divide(gains, ideal, out=np.zeros(len(gains)), where=ideal > 0)


@njit(cache=True, nogil=True, parallel=True)
def _gain_per_row(
    scores: np.ndarray,
    seen_ptr: np.ndarray,
    seen_columns: np.ndarray,
    hidden_ptr: np.ndarray,
    hidden_columns: np.ndarray,
    discounts: np.ndarray,
) -> np.ndarray:
    """Return for each row the sum of the discounts of the hidden likes in its list, float64[m].

    The discount of a hidden like is that of its position in the list.
    """
    rows = scores.shape[0]
    gains = np.zeros(rows)
    for row in prange(rows):
        open_scores = np.where(np.isfinite(scores[row]), scores[row], np.float32(np.nan))
        open_scores[seen_columns[seen_ptr[row] : seen_ptr[row + 1]]] = np.nan
        for column in hidden_columns[hidden_ptr[row] : hidden_ptr[row + 1]]:
            score = open_scores[column]
            if np.isnan(score):
                continue
            # The place of the item is the number of items before it.
            place = _count(open_scores[:column], score, True, len(discounts))
            place += _count(open_scores[column + 1 :], score, False, len(discounts) - place)
            if place < len(discounts):
                gains[row] += discounts[place]
    return gains


@njit(cache=True, nogil=True)
def _count(scores: np.ndarray, score: np.float32, with_equal: bool, enough: int) -> int:
    """Count the scores above ``score``, or with ``with_equal`` those above or equal to it.

    Counting stops when the count has reached ``enough``, so a result of ``enough`` or more only says
    that there are at least ``enough`` such scores.
    """
    count = 0
    start = 0
    while start < len(scores) and count < enough:
        chunk = scores[start : start + CHUNK]
        # Counted in 32 bits, as wide as a score, so that the loop runs on vectors of them.
        in_chunk = np.int32(0)
        if with_equal:
            for other in chunk:
                in_chunk += np.int32(1) if other >= score else np.int32(0)
        else:
            for other in chunk:
                in_chunk += np.int32(1) if other > score else np.int32(0)
        count += int(in_chunk)
        start += CHUNK
    return count
