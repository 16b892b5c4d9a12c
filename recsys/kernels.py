"""Compiled loops that both engines share. Each has a plain twin in the tests or in ``models/als.py``.

They are pure functions of arrays, so that they run the same in this process and inside a Spark task. Numba's
thread count (``numba.set_num_threads``) decides how many cores a call uses; results never depend on it.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange
from threadpoolctl import ThreadpoolController

# --- Selection -------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _before(score_a: float, item_a: int, score_b: float, item_b: int) -> bool:
    """Whether entry a ranks before b: higher score first, then the lower row."""
    return score_a > score_b or (score_a == score_b and item_a < item_b)


@njit(cache=True, nogil=True)
def _sift_down(scores: np.ndarray, items: np.ndarray, place: int, size: int) -> None:
    """Restore the heap whose root is the entry that ranks last of those kept."""
    score, item = scores[place], items[place]
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _before(scores[child], items[child], scores[child + 1], items[child + 1]):
            child += 1
        if not _before(score, item, scores[child], items[child]):
            break
        scores[place], items[place] = scores[child], items[child]
        place = child
    scores[place], items[place] = score, item


@njit(cache=True, nogil=True)
def _select_row(row: np.ndarray, skip: np.ndarray, items: np.ndarray, scores: np.ndarray) -> int:
    """Fill ``items`` and ``scores`` with the best entries of ``row`` outside ``skip`` (sorted); return how many."""
    k = len(items)
    size = 0
    start = 0
    for gap in range(len(skip) + 1):  # scan between skipped items: no test an item, and no copy of the row
        stop = skip[gap] if gap < len(skip) else len(row)
        if size == k:
            threshold = scores[0]
        else:
            threshold = np.float32(-np.inf)
        for item in range(start, stop):
            score = row[item]
            if score > threshold:  # false for NaN and for the -inf of a masked item; a tie keeps the lower row
                if size < k:
                    place = size  # grow the heap: sift the newcomer up
                    size += 1
                    while place > 0 and _before(scores[(place - 1) // 2], items[(place - 1) // 2], score, item):
                        scores[place], items[place] = scores[(place - 1) // 2], items[(place - 1) // 2]
                        place = (place - 1) // 2
                    scores[place], items[place] = score, item
                else:
                    scores[0], items[0] = score, item
                    _sift_down(scores, items, 0, k)
                if size == k:
                    threshold = scores[0]
        start = stop + 1
    for last in range(size - 1, 0, -1):  # heap sort: the root ranks last, move it to the end
        scores[0], scores[last] = scores[last], scores[0]
        items[0], items[last] = items[last], items[0]
        _sift_down(scores, items, 0, last)
    for place in range(size, k):
        items[place] = -1
        scores[place] = np.nan
    return size


@njit(cache=True, nogil=True, parallel=True)
def select_top_k(scores: np.ndarray, indptr: np.ndarray, indices: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best columns of each row, best first, leaving out the row's own ``indices``.

    Args:
        scores: float32[m, n], read only. NaN and -inf are never chosen.
        indptr, indices: the CSR structure of what to leave out, int[m + 1] and int[nnz], columns sorted and
            unique within a row.
        k: length of the lists, ≥ 1.

    Returns:
        items int32[m, k] with -1 padding, scores float32[m, k] with NaN padding. Ties go to the lower column.
        One pass over the row with a heap of k entries: O(n + hits·log k), no partition of the whole row.
    """
    m = scores.shape[0]
    best_items = np.empty((m, k), dtype=np.int32)
    best_scores = np.empty((m, k), dtype=np.float32)
    for i in prange(m):
        _select_row(scores[i], indices[indptr[i] : indptr[i + 1]], best_items[i], best_scores[i])
    return best_items, best_scores


# --- Judging ---------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
def gains(
    items: np.ndarray, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what each listed item is worth, and what the best possible list would have been worth.

    Args:
        items: int[m, k] columns, -1 padding.
        indptr, indices, values: CSR of the relevant items, columns sorted within a row, float64 values > 0.

    Returns:
        gains float64[m, k], 0 where an item is not stored in its row; ideal float64[m, k], each row's largest
        values in descending order, then 0. O(k·log(row) + row·log(row)) a row.
    """
    m, k = items.shape
    found = np.zeros((m, k))
    ideal = np.zeros((m, k))
    for i in prange(m):
        start, stop = indptr[i], indptr[i + 1]
        row = indices[start:stop]
        for place in range(k):
            where = np.searchsorted(row, items[i, place])
            if where < len(row) and row[where] == items[i, place]:
                found[i, place] = values[start + where]
        best = np.sort(values[start:stop])[::-1]
        n = min(k, len(best))
        ideal[i, :n] = best[:n]
    return found, ideal


# --- Least squares -----------------------------------------------------------------------------------------


@cache
def _blas() -> ThreadpoolController:
    import scipy.linalg.cython_blas  # noqa: F401  compiled code calls this one, so it must be loaded to be found

    return ThreadpoolController()


def one_blas_thread() -> Any:
    """Return a context in which BLAS keeps to one thread, for work whose rows are in parallel already."""
    return _blas().limit(limits=1, user_api="blas")


@njit(cache=True, nogil=True, parallel=True)
def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a·b of C-contiguous arrays of one dtype, in blocks of a's rows: the same bits for any number of threads.

    The caller limits BLAS to one thread.
    """
    block = 128
    found = np.empty((a.shape[0], b.shape[1]), dtype=a.dtype)
    for part in prange((a.shape[0] + block - 1) // block):
        found[part * block : (part + 1) * block] = np.dot(a[part * block : (part + 1) * block], b)
    return found


@njit(cache=True, nogil=True, parallel=True)
def als_half_step(
    indptr: np.ndarray,
    indices: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    fixed: np.ndarray,
    base: np.ndarray,
    penalty: np.ndarray,
) -> np.ndarray:
    """Return x of each row, solving (diag(base + penalty) + Σ_j weight_j y_j y_jᵀ) x = Σ_j target_j y_j exactly.

    Args:
        indptr, indices: the CSR structure of the rows; indices point into ``fixed``.
        weight, target: float64[nnz]. Implicit ALS: α|v| and (1 + α|v|)·p. Explicit ALS: 1 and v.
        fixed: float64[n, rank], C order: the other side's factors y. Implicit ALS: turned into the eigenvectors of
            their Gram matrix, whose eigenvalues are ``base``.
        base: float64[rank] ≥ 0. Explicit ALS: zeros.
        penalty: float64[m], > 0 where the row has a target that is not 0.

    Returns:
        float64[m, rank]. A row whose targets are all 0 gets zeros, whatever its system.

    A diagonal plus a matrix of rank n, the row's length, costs O(n²·rank) by the Woodbury identity instead of
    O(n·rank² + rank³), which is what makes a high rank cheap; rows longer than the rank are solved as they stand.
    The caller limits BLAS to one thread.
    """
    m, rank = len(indptr) - 1, fixed.shape[1]
    x = np.zeros((m, rank))
    for i in prange(m):
        start, n = indptr[i], indptr[i + 1] - indptr[i]
        diagonal = base + penalty[i]
        b = np.zeros(rank)
        own = np.empty((n, rank))
        for j in range(n):
            y, w, t = fixed[indices[start + j]], np.sqrt(weight[start + j]), target[start + j]
            for f in range(rank):
                own[j, f] = w * y[f]
                b[f] += t * y[f]
        if not np.any(b != 0):
            continue
        if n < rank:
            over = own / diagonal
            small = np.dot(over, own.T)
            for j in range(n):
                small[j, j] += 1.0
            x[i] = (b - np.dot(np.linalg.solve(small, np.dot(over, b)), own)) / diagonal
        else:
            large = np.dot(own.T, own)
            for f in range(rank):
                large[f, f] += diagonal[f]
            x[i] = np.linalg.solve(large, b)
    return x
