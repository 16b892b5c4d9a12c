"""Compiled linear algebra that both engines share: products of matrices, and least squares.

As in ``recsys.kernels``, each function depends only on its arguments, and results do not depend on
the number of threads. The tests of the models compare these functions with plain loops.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange
from scipy.sparse import csr_array
from threadpoolctl import ThreadpoolController

from recsys.kernels import select_top_k_of_row

# --- Sparse products ---------------------------------------------------------------------------------------

CSR = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A sparse matrix for compiled code, as the three arrays ``indptr``, ``indices`` and ``data``."""

PARTS = 64
"""Number of parts into which rows are divided.

Each part has scratch memory of its own. Results do not depend on this number.
"""


def arrays(matrix: csr_array) -> CSR:
    """Return the arrays of a sparse matrix for compiled code: indptr int64, indices int32, and
    data.

    Compiled code needs the same dtypes in every call, because it is compiled again for each other
    combination, which takes seconds. SciPy chooses the dtype of the indices by the operation that
    made the matrix.
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
    """Compute a weighted sum of rows of a CSR matrix: ``total`` becomes Σ_j values_j ·
    row(columns_j).

    Args:
        columns, values: the rows to add, and their weights.
        total: float64[n], all NaN before the call. Entries in which no row has a stored value stay
            NaN.
        filled: int64[n]. Its first entries become the columns of ``total`` that get a value.

    Returns:
        the number of columns that get a value.
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


@njit(cache=True, nogil=True)
def _count_terms(columns: np.ndarray, matrix: CSR) -> int:
    """Return the number of stored values in some rows of a CSR matrix."""
    indptr = matrix[0]
    count = 0
    for row in columns:
        count += indptr[row + 1] - indptr[row]
    return count


@njit(cache=True, nogil=True)
def _gather_all(columns: np.ndarray, values: np.ndarray, matrix: CSR, total: np.ndarray) -> None:
    """Compute the sum of :func:`_gather`, for a sum with values in most columns.

    It makes no list of the columns that get a value, and takes a fourth of the time per term.
    Entries of ``total`` in which no row has a stored value become -0.0, and no other entry does.
    """
    indptr, indices, data = matrix
    for column in range(len(total)):
        total[column] = -0.0
    for position in range(len(columns)):
        row = columns[position]
        value = values[position]
        for entry in range(indptr[row], indptr[row + 1]):
            # 0.0 is added because -0.0 + -0.0 would stay -0.0. The conversion says that no index is
            # negative, which would otherwise be tested.
            total[np.uint64(indices[entry])] += value * data[entry] + 0.0


@njit(cache=True, nogil=True)
def _scale_row(total: np.ndarray, a_scale: float, b_scale: np.ndarray, shrink: float, similar: np.ndarray) -> None:
    """Write the similarities of one row to ``similar``, and make ``total`` all NaN.

    Args:
        total: float64[n], the products of the row, as from :func:`_gather_all`.
        a_scale, b_scale, shrink: as for :func:`nearest_rows`, ``a_scale`` of this row.
        similar: float32[n], which becomes -inf in columns without a product.
    """
    for column in range(len(total)):
        product = total[column]
        if product == 0 and np.signbit(product):
            similar[column] = -np.inf
        else:
            similar[column] = product / (a_scale * b_scale[column] + shrink)
        total[column] = np.nan


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
    """Return the k largest entries of each row of a similarity matrix S, which is never stored.

    S_ij = (A·B)_ij / (a_scale_i · b_scale_j + shrink), for the sparse matrices A (m, u) and B (u,
    n). Only pairs (i, j) are listed for which row i of A and column j of B both have a stored entry
    at the same of the u positions.

    Args:
        a, b: A and B. All values are finite.
        a_scale, b_scale: float64[m] and float64[n]. The denominator of every listed pair is > 0.
        shrink: the shrinkage in the denominator, ≥ 0.
        k: number of entries per row, ≥ 1.
        excluded: int[m], the column that each row leaves out, for example the row itself; -1 for
            none.

    Returns:
        the columns int32[m, k], largest entry first, and the values float32[m, k]. If values are
            equal, the lower column is first. Rows with fewer than k entries end with -1 and NaN.
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
        all_similar = np.empty(n, dtype=np.float32)
        for i in range(part, m, PARTS):
            row = slice(a_indptr[i], a_indptr[i + 1])
            if _count_terms(a_indices[row], b) > n // 2:
                _gather_all(a_indices[row], a_data[row], b, total)
                _scale_row(total, a_scale[i], b_scale, shrink, all_similar)
                if excluded[i] >= 0:
                    all_similar[excluded[i]] = -np.inf
                select_top_k_of_row(all_similar, none, best[i], values[i])
                continue
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
    """Return the product of two sparse matrices (m, u) and (u, n) as an array, float32[m, n]."""
    a_indptr, a_indices, a_data = a
    b_indptr, b_indices, b_data = b
    m = len(a_indptr) - 1
    result = np.zeros((m, n), dtype=np.float32)
    for i in prange(m):
        row = result[i]
        for a_entry in range(a_indptr[i], a_indptr[i + 1]):
            j = a_indices[a_entry]
            value = a_data[a_entry]
            for b_entry in range(b_indptr[j], b_indptr[j + 1]):
                # The conversion says that no index is negative, which would otherwise be tested.
                row[np.uint64(b_indices[b_entry])] += value * b_data[b_entry]
    return result


@njit(cache=True, nogil=True, parallel=True, fastmath={"contract"})
def multiply_dense(a: CSR, b: np.ndarray) -> np.ndarray:
    """Return the product of a sparse matrix (m, u) and a dense one, float32[m, n].

    Args:
        a: the sparse matrix, of float32.
        b: float32[u, n], in C order.
    """
    a_indptr, a_indices, a_data = a
    m = len(a_indptr) - 1
    n = b.shape[1]
    result = np.zeros((m, n), dtype=np.float32)
    for i in prange(m):
        row = result[i]
        stop = a_indptr[i + 1]
        in_fours = a_indptr[i] + (stop - a_indptr[i]) // 4 * 4
        # Four rows at a time, so that the result is read and written a fourth as often.
        for entry in range(a_indptr[i], in_fours, 4):
            b0 = b[a_indices[entry]]
            b1 = b[a_indices[entry + 1]]
            b2 = b[a_indices[entry + 2]]
            b3 = b[a_indices[entry + 3]]
            for column in range(n):
                row[column] += (
                    a_data[entry] * b0[column]
                    + a_data[entry + 1] * b1[column]
                    + a_data[entry + 2] * b2[column]
                    + a_data[entry + 3] * b3[column]
                )
        for entry in range(in_fours, stop):
            b0 = b[a_indices[entry]]
            for column in range(n):
                row[column] += a_data[entry] * b0[column]
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

    return ThreadpoolController().select(user_api="blas")


def one_blas_thread() -> Any:
    """Return a context in which BLAS uses one thread.

    It is for code that already divides its rows among all cores.
    """
    blas = _blas()
    # A server limits its thread once, and then this check takes a tenth of the time of a limit.
    if all(library.num_threads == 1 for library in blas.lib_controllers):
        return nullcontext()
    return blas.limit(limits=1)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the matrix product a·b. The result is the same, bit for bit, for any number of
    threads.

    The rows of ``a`` are divided among compiled threads. Between other compiled loops this is
    faster than BLAS on several threads, because the threads of BLAS still occupy the cores when the
    next loop starts.

    Args:
        a: float[m, u], in C order.
        b: float[u, n], with the dtype of ``a``, in C or Fortran order.
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
    """Return the Gram matrix YᵀY, float64[rank, rank], of ``y``, float[n, rank] in C order.

    Sums over a block of rows are computed in the dtype of ``y``, and sums over the blocks in
    float64. The result is the same, bit for bit, for any number of threads. The caller limits BLAS
    to one thread.
    """
    n, rank = y.shape
    parts = min(16, 1 + n // 256)
    partial = np.empty((parts, rank, rank), dtype=y.dtype)
    for part in prange(parts):
        rows = y[part * n // parts : (part + 1) * n // parts]
        np.dot(rows.T, rows, partial[part])
    total = np.zeros((rank, rank))
    for part in range(parts):
        for f in range(rank):
            for g in range(rank):
                total[f, g] += partial[part, f, g]
    return total


def ridge(features: Any, targets: np.ndarray, reg: float, weight: np.ndarray, direct: int = 4096) -> np.ndarray:
    """Solve a weighted ridge regression, and return its coefficients W, float64[f, r].

    W minimises Σ_i weight_i · |targets_i − features_i·W|² + reg · |W|², where i is a row. With F
    the features, Y the targets, D the diagonal matrix of the weights and λ = ``reg``, W is (FᵀDF +
    λI)⁻¹FᵀDY for f ≤ n, and otherwise the equal Fᵀ(FFᵀ + λD⁻¹)⁻¹Y. If both n and f are above
    ``direct``, the same equations are solved by conjugate gradients, without a Gram matrix.

    Args:
        features: csr_array (n, f), one row per observation.
        targets: float[n, r], r targets per observation.
        reg: the regularisation λ > 0.
        weight: float[n], the weight of each observation, > 0.
        direct: the largest size of a system that is solved directly.
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
    residual_norm = _column_products(residual, direction)  # rᵀM⁻¹r, a squared norm
    goal = 1e-16 * residual_norm
    for _ in range(steps):
        if (residual_norm <= goal).all():
            break
        A_direction = multiply(direction)
        curvature = _column_products(direction, A_direction)
        # No step for a column where rounding in ``multiply`` has left no curvature.
        step = np.divide(residual_norm, curvature, out=np.zeros_like(residual_norm), where=curvature > 0)
        x += step * direction
        residual -= step * A_direction
        preconditioned = precondition(residual)
        new_norm = _column_products(residual, preconditioned)
        direction *= new_norm / np.maximum(residual_norm, 1e-300)
        direction += preconditioned
        residual_norm = new_norm
    return x


def _column_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the scalar product of each column of ``a`` with that of ``b``, without an array of all products."""
    products: np.ndarray = np.einsum("nc,nc->c", a, b)
    return products


@njit(cache=True, nogil=True)
def _fit_logistic_row(columns: np.ndarray, fixed: np.ndarray, offset: np.ndarray, reg: float, x: np.ndarray) -> None:
    """Write to x, which is zeros, the coefficients of one row; see :func:`logistic_rows`.

    This is a function of its own because a compiled loop on several threads gives an array that is
    computed within it one buffer for all turns of the loop. A step that goes too far would then
    overwrite the coefficients that it starts from.
    """
    factors = fixed[columns]
    shift = offset[columns]
    n, rank = factors.shape
    penalty = reg * n
    gram = np.dot(factors, factors.T) if n < rank else np.empty((0, 0))
    value = np.inf
    step = np.zeros(rank)
    for _ in range(100 * min(n, 1)):
        trial = x + step
        margin = np.dot(factors, trial) + shift
        trial_value = penalty / 2 * np.dot(trial, trial)
        for j in range(n):
            trial_value += max(-margin[j], 0.0) + np.log1p(np.exp(-abs(margin[j])))
        if trial_value < value:
            value = trial_value
            error = 1 / (1 + np.exp(margin))
            gradient = penalty * trial - np.dot(error, factors)
            largest = 0.0
            for f in range(rank):
                x[f] = trial[f]
                largest = max(largest, abs(gradient[f]))
            if largest < 1e-9 * n:
                break
            curvature = error * (1 - error)
            if n < rank:
                system = gram.copy()
                for j in range(n):
                    for k in range(n):
                        system[j, k] *= curvature[j]
                    system[j, j] += penalty
                projected = np.linalg.solve(system, curvature * np.dot(factors, gradient))
                step = (np.dot(projected, factors) - gradient) / penalty
            else:
                weighted = factors.copy()
                for j in range(n):
                    for f in range(rank):
                        weighted[j, f] *= curvature[j]
                hessian = np.dot(weighted.T, factors)
                for f in range(rank):
                    hessian[f, f] += penalty
                step = -np.linalg.solve(hessian, gradient)
        else:
            # Newton's step went too far: a part of it lowers the value, for the function is convex.
            step = step / 2


@njit(cache=True, nogil=True, parallel=True)
def logistic_rows(
    indptr: np.ndarray, indices: np.ndarray, fixed: np.ndarray, offset: np.ndarray, reg: float
) -> np.ndarray:
    """Fit one logistic regression per row of a sparse matrix, and return float64[m, rank]
    coefficients.

    The coefficients x of a row minimise Σ_j log(1 + exp(−(x·y_j + offset_j))) + reg/2 · n·|x|² over
    the n columns j that the row stores. They are zeros for an empty row. The minimum is unique. It
    is found by Newton's method, which halves a step that does not lower the value. If n < rank, a
    step solves a system of n equations (Woodbury identity).

    The caller limits BLAS to one thread.

    Args:
        indptr, indices: the structure of the CSR matrix. Columns are rows of ``fixed``.
        fixed: float64[columns, rank] in C order, the vectors y.
        offset: float64[columns], the offset of each column.
        reg: the regularisation, > 0.
    """
    x = np.zeros((len(indptr) - 1, fixed.shape[1]))
    for i in prange(len(x)):
        _fit_logistic_row(indices[indptr[i] : indptr[i + 1]], fixed, offset, reg, x[i])
    return x
