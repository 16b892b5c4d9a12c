"""Compiled linear algebra that both engines share: products of matrices, and least squares.

Pure functions of arrays, like ``recsys.kernels``: results never depend on the number of threads.
The tests of the models compare them with plain loops.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange
from scipy.sparse import csr_array
from threadpoolctl import ThreadpoolController

from recsys.kernels import select_top_k_of_row

# --- Sparse products ---------------------------------------------------------------------------------------

CSR = tuple[np.ndarray, np.ndarray, np.ndarray]
"""indptr, indices and data of a sparse matrix."""

PARTS = 64
"""Number of parts into which rows are divided, each with scratch memory of its own; no sum depends
on it.
"""


def arrays(matrix: csr_array) -> CSR:
    """Return the arrays of a sparse matrix for compiled code: indptr int64, indices int32, and data.

    A kernel is compiled once for each combination of dtypes, which takes seconds, and scipy chooses
    the dtype of the indices by the operation that made the matrix.
    """
    return matrix.indptr.astype(np.int64, copy=False), matrix.indices.astype(np.int32, copy=False), matrix.data


@njit(cache=True, nogil=True)
def _gather(
    columns: np.ndarray,
    values: np.ndarray,
    matrix: CSR,
    total: np.ndarray,
    filled: np.ndarray,
) -> int:
    """Add up weighted rows of a CSR matrix: ``total`` becomes Σ_j values_j · row(columns_j).

    ``total`` must be all NaN at the start, and stays NaN where no row has an entry. The columns that
    get a value are written to ``filled``. The result is their number.
    """
    indptr, indices, data = matrix
    count = 0
    for position in range(len(columns)):
        row = columns[position]
        for entry in range(indptr[row], indptr[row + 1]):
            column = indices[entry]
            term = values[position] * data[entry]
            if np.isnan(total[column]):
                total[column] = term
                filled[count] = column
                count += 1
            else:
                total[column] += term
    return count


@njit(cache=True, nogil=True, parallel=True)
def nearest_rows(
    a: CSR,
    b: CSR,
    a_scale: np.ndarray,
    b_scale: np.ndarray,
    shrink: float,
    k: int,
    excluded: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest entries of each row of S, S_ij = (A·B)_ij / (a_scale_i · b_scale_j +
    shrink).

    Args:
        a, b: A (m, u) and B (u, n), finite.
        a_scale, b_scale: float64[m], float64[n]; every denominator of a listed pair is > 0.
        k: ≥ 1.
        excluded: int[m], a column that row i leaves out (itself, for example); -1 leaves out none.

    Returns:
        columns int32[m, k], best first, ties to the lower one, -1 padding; values float32[m, k],
        NaN padding. Pairs without a common column of A and row of B are never listed, and (m, n)
        never exists as a whole.
    """
    a_indptr, a_indices, a_data = a
    m = len(a_indptr) - 1
    n = len(b_scale)
    best = np.empty((m, k), dtype=np.int32)
    values = np.empty((m, k), dtype=np.float32)
    none = np.empty(0, dtype=a_indices.dtype)
    for part in prange(PARTS):
        total = np.full(n, np.nan)
        filled = np.empty(n, dtype=np.int64)
        for i in range(part, m, PARTS):
            row = slice(a_indptr[i], a_indptr[i + 1])
            count = _gather(a_indices[row], a_data[row], b, total, filled)
            if count * 16 < n:
                candidates = np.sort(filled[:count])
            else:
                candidates = np.flatnonzero(~np.isnan(total))
            similar = np.empty(count, dtype=np.float32)
            for position in range(count):
                j = candidates[position]
                if j == excluded[i]:
                    similar[position] = -np.inf
                else:
                    similar[position] = total[j] / (a_scale[i] * b_scale[j] + shrink)
                total[j] = np.nan
            n_selected = select_top_k_of_row(similar, none, best[i], values[i])
            for position in range(n_selected):
                best[i, position] = candidates[best[i, position]]
    return best, values


@njit(cache=True, nogil=True, parallel=True)
def dense_product(
    a: CSR,
    b: CSR,
    n: int,
) -> np.ndarray:
    """Return float32[m, n], the product of two CSR matrices (m, u) and (u, n) as a dense array."""
    a_indptr, a_indices, a_data = a
    b_indptr, b_indices, b_data = b
    m = len(a_indptr) - 1
    result = np.zeros((m, n), dtype=np.float32)
    for i in prange(m):
        for a_entry in range(a_indptr[i], a_indptr[i + 1]):
            j = a_indices[a_entry]
            for b_entry in range(b_indptr[j], b_indptr[j + 1]):
                result[i, b_indices[b_entry]] += a_data[a_entry] * b_data[b_entry]
    return result


@njit(cache=True, nogil=True, parallel=True)
def dense_two_hops(
    a: CSR,
    b: CSR,
    t: CSR,
    u: int,
    n: int,
) -> np.ndarray:
    """Return the product A·B·T of three CSR matrices as a dense array, float32[m, n].

    The shapes are (m, n'), (n', u) and (u, n). B·T, which may be dense, is never computed.
    """
    a_indptr, a_indices, a_data = a
    t_indptr, t_indices, t_data = t
    m = len(a_indptr) - 1
    result = np.zeros((m, n), dtype=np.float32)
    for part in prange(PARTS):
        total = np.full(u, np.nan)
        filled = np.empty(u, dtype=np.int64)
        for i in range(part, m, PARTS):
            row = slice(a_indptr[i], a_indptr[i + 1])
            count = _gather(a_indices[row], a_data[row], b, total, filled)
            for position in range(count):
                j = filled[position]
                for entry in range(t_indptr[j], t_indptr[j + 1]):
                    result[i, t_indices[entry]] += total[j] * t_data[entry]
                total[j] = np.nan
    return result


# --- Least squares -----------------------------------------------------------------------------------------


@cache
def _blas() -> ThreadpoolController:
    # The controller limits only libraries that are loaded, and compiled code calls this one.
    import scipy.linalg.cython_blas  # noqa: F401

    return ThreadpoolController()


def one_blas_thread() -> Any:
    """Return a context in which BLAS uses one thread.

    It is for code that already distributes its rows over all cores.
    """
    return _blas().limit(limits=1, user_api="blas")


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the matrix product a·b, the same bit for bit for any number of threads.

    Both arrays have the same dtype; ``a`` is in C order, ``b`` in C or Fortran order. Between
    compiled loops this is faster than BLAS on several threads, because the threads of BLAS still
    occupy the cores when the next loop starts.
    """
    # NumPy allocates large pages, compiled code does not.
    result = np.empty((a.shape[0], b.shape[1]), dtype=a.dtype)
    with one_blas_thread():
        _fill_product(a, b, result)
    return result


@njit(cache=True, nogil=True, parallel=True)
def _fill_product(a: np.ndarray, b: np.ndarray, result: np.ndarray) -> None:
    block = 128
    for part in prange((a.shape[0] + block - 1) // block):
        rows = slice(part * block, (part + 1) * block)
        np.dot(a[rows], b, result[rows])


@njit(cache=True, nogil=True, parallel=True)
def gram(y: np.ndarray) -> np.ndarray:
    """Return the Gram matrix YᵀY of ``y`` [n, rank], float64[rank, rank].

    ``y`` is in C order. Sums over a block of rows are computed in the dtype of ``y``, and sums over
    the blocks in float64. The result is the same bit for bit for any number of threads. The caller
    limits BLAS to one thread.
    """
    n, rank = y.shape
    parts = min(16, 1 + n // 256)
    partial = np.empty((parts, rank, rank), dtype=y.dtype)
    for part in prange(parts):
        rows = y[part * n // parts : (part + 1) * n // parts]
        partial[part] = np.dot(rows.T, rows)
    total = np.zeros((rank, rank))
    for part in range(parts):
        total += partial[part]
    return total


def ridge(features: Any, targets: np.ndarray, reg: float, weight: np.ndarray, direct: int = 4096) -> np.ndarray:
    """Solve a weighted ridge regression, and return its coefficients W, float64[f, r].

    W minimises Σ_i weight_i |targets_i − features_i·W|² + reg·|W|². If the smaller of n and f is at
    most ``direct``, W is computed in closed form: (FᵀDF + λI)⁻¹FᵀDY for f ≤ n, or else
    Fᵀ(FFᵀ + λD⁻¹)⁻¹Y. Otherwise the same equations are solved by conjugate gradients, without a
    Gram matrix.

    Args:
        features: csr_array (n, f).
        targets: float[n, r].
        reg: λ > 0.
        weight: float[n] > 0.
    """
    root = np.sqrt(np.asarray(weight, dtype=np.float64))
    a = features.astype(np.float64).multiply(root[:, None]).tocsr()
    b = root[:, None] * targets.astype(np.float64)
    n, f = a.shape
    if min(n, f) > direct:
        return conjugate_gradients(lambda w: a.T @ (a @ w) + reg * w, a.T @ b)
    if f <= n:
        return np.linalg.solve((a.T @ a).toarray() + reg * np.eye(f), a.T @ b)
    return a.T @ np.linalg.solve((a @ a.T).toarray() + reg * np.eye(n), b)


def conjugate_gradients(
    multiply: Callable[[np.ndarray], np.ndarray],
    b: np.ndarray,
    steps: int = 500,
    precondition: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Solve A x = b for each column of ``b`` by conjugate gradients.

    The result is x, float64[n, columns]. A is symmetric and positive definite, and is given as a
    function. The steps end when the relative residual of every column is at most 1e-8 in the norm of
    M⁻¹, and after ``steps`` steps at the latest.

    Args:
        multiply: takes V [n, columns] and returns A·V. It may use another A for each column.
        b: float64[n, columns].
        steps: the largest number of steps.
        precondition: takes V [n, columns] and returns M⁻¹·V, where M approximates A. The default M
            is the identity.
    """
    x = np.zeros_like(b)
    residual = b.copy()
    direction = precondition(residual).copy()
    residual_norm = (residual * direction).sum(axis=0)  # rᵀM⁻¹r, a squared norm
    goal = 1e-16 * residual_norm
    for _ in range(steps):
        if (residual_norm <= goal).all():
            break
        A_direction = multiply(direction)
        curvature = (direction * A_direction).sum(axis=0)
        # No step for a column where rounding in ``multiply`` has left no curvature.
        step = np.divide(residual_norm, curvature, out=np.zeros_like(residual_norm), where=curvature > 0)
        x += step * direction
        residual -= step * A_direction
        preconditioned = precondition(residual)
        new_norm = (residual * preconditioned).sum(axis=0)
        direction = preconditioned + new_norm / np.maximum(residual_norm, 1e-300) * direction
        residual_norm = new_norm
    return x


@njit(cache=True, nogil=True, parallel=True)
def logistic_rows(
    indptr: np.ndarray, indices: np.ndarray, fixed: np.ndarray, offset: np.ndarray, reg: float
) -> np.ndarray:
    """Fit a logistic regression for each row of a sparse matrix, and return its coefficients x.

    x minimises Σ_j log(1 + exp(−(x·y_j + offset_j))) + reg/2 · n |x|² over the n columns j of the
    row.

    Args:
        indptr, indices: the CSR structure of the rows; indices point into ``fixed``.
        fixed: float64[n, rank], C order: y. offset: float64[n]. reg: > 0.

    Returns:
        float64[m, rank], zeros for an empty row. Newton's method, halving steps that do not lower
        the value; the minimum is unique. Where n < rank a step solves an n × n system (Woodbury).
        The caller limits BLAS to one thread.
    """
    m = len(indptr) - 1
    rank = fixed.shape[1]
    x = np.zeros((m, rank))
    for i in prange(m):
        columns = indices[indptr[i] : indptr[i + 1]]
        factors = fixed[columns]
        shift = offset[columns]
        n = len(columns)
        gram = np.dot(factors, factors.T) if n < rank else factors[:0]
        value = np.inf
        minimum = np.zeros(rank)
        step = np.zeros(rank)
        for _ in range(100 * min(n, 1)):
            trial = minimum + step
            margin = np.dot(factors, trial) + shift
            trial_value = np.logaddexp(0.0, -margin).sum() + reg / 2 * n * np.dot(trial, trial)
            if trial_value < value:
                minimum = trial
                value = trial_value
                error = 1 / (1 + np.exp(margin))
                gradient = reg * n * minimum - np.dot(error, factors)
                if np.abs(gradient).max() < 1e-9 * n:
                    break
                curvature = error * (1 - error)
                if n < rank:
                    small = gram * curvature.reshape(-1, 1) + reg * n * np.eye(n)
                    projected = np.linalg.solve(small, curvature * np.dot(factors, gradient))
                    step = (np.dot(projected, factors) - gradient) / (reg * n)
                else:
                    hessian = np.dot((factors * curvature.reshape(-1, 1)).T, factors) + reg * n * np.eye(rank)
                    step = -np.linalg.solve(hessian, gradient)
            else:
                # Newton's step went too far: a part of it lowers the value, for the function is
                # convex.
                step = step / 2
        x[i] = minimum
    return x
