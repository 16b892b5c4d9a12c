"""Compute the NDCG of hidden likes from scores, without making lists.

The loops are compiled, because a trial computes this NDCG thousands of times.
"""

from __future__ import annotations

from collections.abc import Callable

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
    return _ndcg(lambda *likes: _gain_per_row(np.ascontiguousarray(scores), *likes), seen, hidden, depth)


def ndcg_after_addition(
    sums: tuple[np.ndarray, np.ndarray],
    member: tuple[np.ndarray, np.ndarray],
    added_weight: float,
    seen: csr_array,
    hidden: csr_array,
    depth: int,
) -> np.ndarray:
    """Return the NDCG@depth of each row after a member is added to a blend, float64[m].

    It is that of :func:`ndcg_of_hidden` for the weighted mean of the blend and the new member. The
    means are computed row by row and not stored: a choice of weights tries thousands of additions.

    Args:
        sums: the weighted sum of the scores of the blend and the sum of its weights, both
            float32[m, n], as from :func:`recsys.models.combining.blend.weighted_sums`. Read only.
        member: the scores of the new member, float32[users, n], and the m rows of it to use,
            int64[m]. Read only. A cell whose score is not finite keeps the mean that it has.
        added_weight: the weight of the new member, above 0.
        seen, hidden, depth: as for :func:`ndcg_of_hidden`.
    """
    weight = np.float32(added_weight)
    return _ndcg(lambda *likes: _gain_after_addition(*sums, *member, weight, *likes), seen, hidden, depth)


def _ndcg(gain_per_row: Callable[..., np.ndarray], seen: csr_array, hidden: csr_array, depth: int) -> np.ndarray:
    """Return the sums of discounts of each row, divided by those of an ideal list, float64[m].

    Args:
        gain_per_row: the function that returns the sums of discounts. Its arguments are those of
            :func:`_gain_per_row`, without ``scores``.
    """
    discounts = 1 / np.log2(np.arange(2.0, depth + 2))
    seen_ptr, seen_columns, _ = arrays(seen)
    hidden_ptr, hidden_columns, _ = arrays(hidden)
    gains = gain_per_row(seen_ptr, seen_columns, hidden_ptr, hidden_columns, discounts)
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
        seen_here = seen_columns[seen_ptr[row] : seen_ptr[row + 1]]
        hidden_here = hidden_columns[hidden_ptr[row] : hidden_ptr[row + 1]]
        gains[row] = _gain(scores[row].copy(), seen_here, hidden_here, discounts)
    return gains


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _gain_after_addition(
    total: np.ndarray,
    total_weight: np.ndarray,
    scores: np.ndarray,
    score_rows: np.ndarray,
    weight: np.float32,
    seen_ptr: np.ndarray,
    seen_columns: np.ndarray,
    hidden_ptr: np.ndarray,
    hidden_columns: np.ndarray,
    discounts: np.ndarray,
) -> np.ndarray:
    """Return what :func:`_gain_per_row` returns for (total + weight · scores) / (total_weight + weight).

    The scores are those in ``score_rows``. Where a score is not finite, it and its weight are left out.
    """
    rows = len(score_rows)
    gains = np.zeros(rows)
    for row in prange(rows):
        means = np.empty(scores.shape[1], dtype=np.float32)
        member_scores = scores[score_rows[row]]
        for column in range(len(means)):
            score = member_scores[column]
            is_scored = np.isfinite(score)
            added = score * weight if is_scored else np.float32(0)
            added_weight = weight if is_scored else np.float32(0)
            # 0 / 0, where no member has a score, is NaN.
            means[column] = (total[row, column] + added) / (total_weight[row, column] + added_weight)
        seen_here = seen_columns[seen_ptr[row] : seen_ptr[row + 1]]
        hidden_here = hidden_columns[hidden_ptr[row] : hidden_ptr[row + 1]]
        gains[row] = _gain(means, seen_here, hidden_here, discounts)
    return gains


@njit(cache=True, nogil=True)
def _gain(scores: np.ndarray, seen: np.ndarray, hidden: np.ndarray, discounts: np.ndarray) -> float:
    """Return the sum of the discounts of the hidden likes in the list of one row.

    Args:
        scores: float32[n], which this function changes.
        seen, hidden: the columns that are left out, and those of the hidden likes.
    """
    for column in range(len(scores)):
        if not np.isfinite(scores[column]):
            scores[column] = np.nan
    scores[seen] = np.nan
    gain = 0.0
    # NaN is last, and of equal scores the lower column is first, as in the list.
    for column in hidden[np.argsort(-scores[hidden], kind="mergesort")]:
        score = scores[column]
        if np.isnan(score):
            break
        # The position of the item is the number of items before it.
        position = _count(scores[:column], score, True, len(discounts))
        position += _count(scores[column + 1 :], score, False, len(discounts) - position)
        if position >= len(discounts):
            # The other hidden likes come later in the ranking.
            break
        gain += discounts[position]
    return gain


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
        # Counted in 32 bits, as wide as a score, and by index, so that the loop runs on vectors of them.
        in_chunk = np.int32(0)
        if with_equal:
            for column in range(len(chunk)):
                in_chunk += np.int32(1) if chunk[column] >= score else np.int32(0)
        else:
            for column in range(len(chunk)):
                in_chunk += np.int32(1) if chunk[column] > score else np.int32(0)
        count += int(in_chunk)
        start += CHUNK
    return count
