"""Compiled linear algebra that both engines share: products of sparse matrices, and the least squares of ALS.

Pure functions of arrays, like ``recsys.kernels``: results never depend on the number of threads. Their twins are in the
tests of the models and in ``models/als.py``.
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
"""Rows are cut into so many runs, each with its own scratch space; a row's sum never depends on the cut."""


def arrays(matrix: csr_array) -> CSR:
    """Return what compiled code takes of a sparse matrix."""
    return matrix.indptr, matrix.indices, matrix.data


@njit(cache=True, nogil=True)
def _gather(
    columns: np.ndarray,
    values: np.ndarray,
    matrix: CSR,
    total: np.ndarray,
    met: np.ndarray,
) -> int:
    """Add Σ_j values_j · row(columns_j) of a CSR matrix to ``total``, all NaN before; list in ``met`` what it fills."""
    indptr, indices, data = matrix
    count = 0
    for place in range(len(columns)):
        for entry in range(indptr[columns[place]], indptr[columns[place] + 1]):
            column, term = indices[entry], values[place] * data[entry]
            if np.isnan(total[column]):
                total[column] = term
                met[count] = column
                count += 1
            else:
                total[column] += term
    return count


@njit(cache=True, nogil=True, parallel=True)
def nearest_rows(
    a: CSR,
    b: CSR,
    left: np.ndarray,
    right: np.ndarray,
    shrink: float,
    k: int,
    own: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest entries of each row of S, S_ij = (A·B)_ij / (left_i · right_j + shrink), of sparse A and B.

    Args:
        a, b: A (m, u) and B (u, n), finite.
        left, right: float64[m], float64[n]; with ``shrink`` every denominator met is > 0.
        k: ≥ 1.
        own: int[m], a column that row i leaves out (itself, say); -1 leaves out none.

    Returns:
        columns int32[m, k], best first, ties to the lower one, -1 padding; values float32[m, k], NaN padding. Pairs
        without a common column of A and row of B are never listed, and (m, n) never exists as a whole.
    """
    a_indptr, a_indices, a_data = a
    m, n = len(a_indptr) - 1, len(right)
    best = np.empty((m, k), dtype=np.int32)
    values = np.empty((m, k), dtype=np.float32)
    none = np.empty(0, dtype=a_indices.dtype)
    for part in prange(PARTS):
        total = np.full(n, np.nan)
        met = np.empty(n, dtype=np.int64)
        for i in range(part, m, PARTS):
            row = slice(a_indptr[i], a_indptr[i + 1])
            count = _gather(a_indices[row], a_data[row], b, total, met)
            near = np.sort(met[:count]) if count * 16 < n else np.flatnonzero(~np.isnan(total))
            similar = np.empty(count, dtype=np.float32)
            for place in range(count):
                j = near[place]
                similar[place] = -np.inf if j == own[i] else total[j] / (left[i] * right[j] + shrink)
                total[j] = np.nan
            found = select_top_k_of_row(similar, none, best[i], values[i])
            for place in range(found):
                best[i, place] = near[best[i, place]]
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
    found = np.zeros((m, n), dtype=np.float32)
    for i in prange(m):
        for place in range(a_indptr[i], a_indptr[i + 1]):
            j, value = a_indices[place], a_data[place]
            for entry in range(b_indptr[j], b_indptr[j + 1]):
                found[i, b_indices[entry]] += value * b_data[entry]
    return found


@njit(cache=True, nogil=True, parallel=True)
def dense_two_hops(
    a: CSR,
    b: CSR,
    t: CSR,
    u: int,
    n: int,
) -> np.ndarray:
    """Return float32[m, n] = A·B·T of CSR matrices (m, n'), (n', u) and (u, n), without B·T, which may be dense."""
    a_indptr, a_indices, a_data = a
    t_indptr, t_indices, t_data = t
    m = len(a_indptr) - 1
    found = np.zeros((m, n), dtype=np.float32)
    for part in prange(PARTS):
        total = np.full(u, np.nan)
        met = np.empty(u, dtype=np.int64)
        for i in range(part, m, PARTS):
            own = slice(a_indptr[i], a_indptr[i + 1])
            count = _gather(a_indices[own], a_data[own], b, total, met)
            for place in range(count):
                j = met[place]
                for entry in range(t_indptr[j], t_indptr[j + 1]):
                    found[i, t_indices[entry]] += total[j] * t_data[entry]
                total[j] = np.nan
    return found


# --- Least squares -----------------------------------------------------------------------------------------


@cache
def _blas() -> ThreadpoolController:
    import scipy.linalg.cython_blas  # noqa: F401  compiled code calls this one, so it must be loaded to be found

    return ThreadpoolController()


def one_blas_thread() -> Any:
    """Return a context in which BLAS keeps to one thread, for work whose rows are in parallel already."""
    return _blas().limit(limits=1, user_api="blas")


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a·b of one dtype, a in C order, b in C or Fortran order: the same bits for any number of threads.

    Between compiled loops it is faster than BLAS with threads of its own, which are still awake when the loop begins.
    """
    found = np.empty((a.shape[0], b.shape[1]), dtype=a.dtype)  # NumPy asks for large pages, compiled code does not
    with one_blas_thread():
        _product(a, b, found)
    return found


@njit(cache=True, nogil=True, parallel=True)
def _product(a: np.ndarray, b: np.ndarray, found: np.ndarray) -> None:
    block = 128
    for part in prange((a.shape[0] + block - 1) // block):
        own = slice(part * block, (part + 1) * block)
        np.dot(a[own], b, found[own])


@njit(cache=True, nogil=True, parallel=True)
def gram(y: np.ndarray) -> np.ndarray:
    """Return float64[rank, rank] YᵀY of C-contiguous [n, rank], summed in its dtype within runs of rows.

    The same bits for any number of threads. The caller limits BLAS to one thread.
    """
    n, rank = y.shape
    parts = min(16, 1 + n // 256)
    found = np.empty((parts, rank, rank), dtype=y.dtype)
    for part in prange(parts):
        own = y[part * n // parts : (part + 1) * n // parts]
        found[part] = np.dot(own.T, own)
    total = np.zeros((rank, rank))
    for part in range(parts):
        total += found[part]
    return total


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
        weight, target: [nnz]. Implicit ALS: α|v| and (1 + α|v|)·p. Explicit ALS: 1 and v.
        fixed: [n, rank], C order: the other side's factors y. Implicit ALS: turned into the eigenvectors of
            their Gram matrix, whose eigenvalues are ``base``.
        base: [rank] ≥ 0. Explicit ALS: zeros.
        penalty: [m], > 0 where the row has a target that is not 0.

    Returns:
        [m, rank]; everything is of one dtype, float32 or float64. A row without a target other than 0 gets zeros,
        whatever its system.

    A diagonal plus a matrix of rank n, the row's length, costs O(n²·rank) by the Woodbury identity instead of
    O(n·rank² + rank³), which is what makes a high rank cheap; rows longer than the rank are solved as they stand.
    The caller limits BLAS to one thread.
    """
    m, rank = len(indptr) - 1, fixed.shape[1]
    x = np.zeros((m, rank), dtype=fixed.dtype)
    for i in prange(m):
        start, n = indptr[i], indptr[i + 1] - indptr[i]
        diagonal = base + penalty[i]
        b = np.zeros(rank, dtype=fixed.dtype)
        own = np.empty((n, rank), dtype=fixed.dtype)
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


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _row_cg_steps(
    indices: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    fixed: np.ndarray,
    diagonal: np.ndarray,
    x: np.ndarray,
    steps: int,
) -> None:
    """Move x by at most ``steps`` conjugate gradient steps towards the solution of one row's system A x = b.

    A is ``diagonal``, which is also the preconditioner, plus Σ_j weight_j y_j y_jᵀ over the row's n columns.
    ``diagonal`` is what all rows share, YᵀY + penalty in its own axes. So a step costs O(n·rank), and n + 1 steps
    would be exact.

    The steps end early where rᵀM⁻¹r (residual r, preconditioner M) is below the smallest normal number of the dtype.
    """
    rank = len(x)
    zero = x.dtype.type(0)
    smallest = np.finfo(x.dtype).tiny
    residual = -diagonal * x  # b − A x, to which the loop below adds the row's columns
    direction = np.empty_like(x)
    A_direction = np.empty_like(x)
    for j in range(len(indices)):
        y = fixed[indices[j]]
        score = zero
        for f in range(rank):
            score += y[f] * x[f]
        error = target[j] - weight[j] * score
        for f in range(rank):
            residual[f] += error * y[f]
    residual_norm = zero  # rᵀM⁻¹r, a squared norm
    for f in range(rank):
        direction[f] = residual[f] / diagonal[f]
        residual_norm += residual[f] * direction[f]
    for _ in range(steps):
        # The factors of a user and an item that have only each other can shrink in every sweep, to 1e-20 and below.
        # Their squares then underflow, and a quotient of two such sums is noise, infinite or undefined.
        if not residual_norm > smallest:
            break
        curvature = zero
        for f in range(rank):
            A_direction[f] = diagonal[f] * direction[f]
            curvature += A_direction[f] * direction[f]
        for j in range(len(indices)):
            y = fixed[indices[j]]
            score = zero
            for f in range(rank):
                score += y[f] * direction[f]
            weighted_score = weight[j] * score
            curvature += weighted_score * score
            for f in range(rank):
                A_direction[f] += weighted_score * y[f]
        if not curvature > 0:
            break
        step = residual_norm / curvature
        new_norm = zero
        for f in range(rank):
            x[f] += step * direction[f]
            residual[f] -= step * A_direction[f]
            new_norm += residual[f] * residual[f] / diagonal[f]
        ratio = new_norm / residual_norm
        for f in range(rank):
            direction[f] = residual[f] / diagonal[f] + ratio * direction[f]
        residual_norm = new_norm


@njit(cache=True, nogil=True, parallel=True)
def als_cg_step(
    indptr: np.ndarray,
    indices: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    fixed: np.ndarray,
    base: np.ndarray,
    penalty: np.ndarray,
    initial: np.ndarray,
    rotation: np.ndarray,
    steps: int,
) -> np.ndarray:
    """Return x of each row after ``steps`` conjugate gradient steps from ``initial`` to what ``als_half_step`` solves.

    Args:
        initial: [m, rank], the x that each row starts from: that of the previous sweep, or zeros.
        rotation: [rank, rank], the eigenvectors that rotated ``fixed``. ``initial`` and the result are not rotated.
        steps: ≥ 1.
        The rest, and which rows are zeros, as in :func:`als_half_step`.
    """
    result = np.empty_like(initial)
    inverse_rotation = np.ascontiguousarray(rotation.T)
    block = 64
    for part in prange((len(initial) + block - 1) // block):
        first = part * block
        x = np.dot(initial[first : first + block], rotation)
        for row in range(len(x)):
            pairs = slice(indptr[first + row], indptr[first + row + 1])
            if np.any(target[pairs] != 0):
                diagonal = base + penalty[first + row]
                _row_cg_steps(indices[pairs], weight[pairs], target[pairs], fixed, diagonal, x[row], steps)
            else:
                x[row] = 0
        result[first : first + block] = np.dot(x, inverse_rotation)
    return result


STEPS = 3
"""Conjugate gradient steps of a half-step: with those of the sweeps before, enough to train as well as exactly."""

Axes = tuple[np.ndarray, np.ndarray]
"""Eigenvalues float64[rank] ≥ 0 and eigenvectors float64[rank, rank] (columns) of a Gram matrix YᵀY."""


def principal_axes(factors: np.ndarray) -> Axes:
    """Return the axes of ``factors`` [n, rank], whose Gram matrix is summed as :func:`gram` does."""
    with one_blas_thread():
        values, vectors = np.linalg.eigh(gram(np.ascontiguousarray(factors)))
    return np.maximum(values, 0), vectors


def implicit_rows(
    matrix: CSR,
    fixed: np.ndarray,
    alpha: float,
    penalty: np.ndarray,
    axes: Axes | None = None,
    near: np.ndarray | None = None,
) -> np.ndarray:
    """Return [rows, rank] in the dtype of ``fixed``: ``models.als.half_step``, compiled and in parallel.

    Args:
        matrix: stored values v; its columns are rows of ``fixed``.
        fixed: [columns, rank], finite: the other side's factors.
        alpha: confidence 1 + α|v|. penalty: [rows], what multiplies each row's squared norm.
        axes: those of ``fixed``, where the caller has them already.
        near: [rows, rank] of that dtype, from where ``STEPS`` conjugate gradient steps are made; None: solve exactly.
    """
    indptr, indices, value = matrix
    base, vectors = axes or principal_axes(fixed)
    weight = alpha * np.abs(value.astype(np.float64))
    target = np.where(value > 0, 1 + weight, 0.0)
    used = np.zeros(len(fixed), dtype=bool)
    used[indices] = True  # a few histories touch few columns: turn no others
    place = np.cumsum(used) - 1
    turn, back = (np.ascontiguousarray(v, dtype=fixed.dtype) for v in (vectors, vectors.T))
    weight, target, base, penalty = (part.astype(fixed.dtype) for part in (weight, target, base, penalty))
    with one_blas_thread():
        turned = product(fixed[used], turn)
        system = (indptr, place[indices], weight, target, turned, base, penalty)
        if near is not None:
            return als_cg_step(*system, near, turn, STEPS)
        return product(als_half_step(*system), back)


@njit(cache=True, nogil=True, parallel=True, fastmath={"reassoc", "contract"})
def stored_loss(
    indptr: np.ndarray, indices: np.ndarray, value: np.ndarray, x: np.ndarray, y: np.ndarray, alpha: float
) -> float:
    """Return Σ c (p − x_u·y_i)² − (x_u·y_i)² over stored values, with c = 1 + α|v| and p = 1 where v > 0."""
    found, zero = np.zeros(len(indptr) - 1), x.dtype.type(0)
    for u in prange(len(found)):
        for place in range(indptr[u], indptr[u + 1]):
            score = zero
            for f in range(x.shape[1]):
                score += x[u, f] * y[indices[place], f]
            p = 1.0 if value[place] > 0 else 0.0
            found[u] += (1.0 + alpha * abs(value[place])) * (p - score) ** 2 - score**2
    return found.sum()


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_left_over(
    indptr: np.ndarray,
    indices: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    left: np.ndarray,
) -> float:
    """Add (target − weight·x_u·y_i) x_u to ``left_i`` for each stored (u, i): what the equations of y leave over.

    Args:
        indptr, indices, weight, target: as in :func:`als_half_step`, a row a user.
        x: [users, rank]. y, left: [items, rank].

    Returns:
        Σ weight·s² − 2·target·s with s = x_u·y_i: what the stored pairs add to the objective, but for its constant.
    """
    total = 0.0
    for u in range(len(indptr) - 1):
        own = x[u]
        for place in range(indptr[u], indptr[u + 1]):
            there, into = y[indices[place]], left[indices[place]]
            s = np.float32(0.0)
            for f in range(len(own)):
                s += own[f] * there[f]
            part = target[place] - weight[place] * s
            for f in range(len(own)):
                into[f] += part * own[f]
            total += s * (weight[place] * s - 2 * target[place])
    return total


def explicit_rows(matrix: CSR, fixed: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Return [rows, rank] in the dtype of ``fixed``: x minimises Σ_j (v_j − x·y_j)² + penalty |x|² over stored values.

    Arguments as for :func:`implicit_rows`.
    """
    indptr, indices, value = matrix
    target, base = value.astype(fixed.dtype), np.zeros(fixed.shape[1], dtype=fixed.dtype)
    indices = np.require(indices, requirements="W")  # a read-only array would compile the kernel once more
    with one_blas_thread():
        return als_half_step(indptr, indices, np.ones_like(target), target, fixed, base, penalty.astype(fixed.dtype))


def ridge(features: Any, targets: np.ndarray, reg: float, weight: np.ndarray, direct: int = 4096) -> np.ndarray:
    """Return float64[f, r]: W that minimises Σ_i weight_i |targets_i − features_i·W|² + reg·|W|².

    Closed form over the smaller of n and f while that is at most ``direct``: W = (FᵀDF + λI)⁻¹FᵀDY, or
    Fᵀ(FFᵀ + λD⁻¹)⁻¹Y. Beyond, the same equations by conjugate gradients, which never form a Gram matrix.

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
    apply: Callable[[np.ndarray], np.ndarray],
    b: np.ndarray,
    steps: int = 500,
    near: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Return x of a positive definite A x = b, a column each, to a relative residual of 1e-8 or ``steps`` steps.

    ``near``: the preconditioner, what A⁻¹ is not far from, applied to columns.
    """
    x, left = np.zeros_like(b), b.copy()
    toward = near(left).copy()
    size = (left * toward).sum(axis=0)
    goal = 1e-16 * size
    for _ in range(steps):
        if (size <= goal).all():
            break
        moved = apply(toward)
        along = (toward * moved).sum(axis=0)
        step = np.divide(size, along, out=np.zeros_like(size), where=along > 0)  # 0 where ``apply`` rounds all away
        x += step * toward
        left -= step * moved
        turned = near(left)
        new = (left * turned).sum(axis=0)
        toward = turned + new / np.maximum(size, 1e-300) * toward
        size = new
    return x


@njit(cache=True, nogil=True, parallel=True)
def logistic_rows(
    indptr: np.ndarray, indices: np.ndarray, fixed: np.ndarray, offset: np.ndarray, reg: float
) -> np.ndarray:
    """Return x of each row, minimising Σ_j log(1 + exp(−(x·y_j + offset_j))) + reg/2 · n |x|² over its n columns j.

    Args:
        indptr, indices: the CSR structure of the rows; indices point into ``fixed``.
        fixed: float64[n, rank], C order: y. offset: float64[n]. reg: > 0.

    Returns:
        float64[m, rank], zeros for an empty row. Newton's method, halving steps that do not lower the value; the
        minimum is unique. Where n < rank a step solves an n × n system (Woodbury). The caller limits BLAS to one
        thread.
    """
    m, rank = len(indptr) - 1, fixed.shape[1]
    x = np.zeros((m, rank))
    for i in prange(m):
        columns = indices[indptr[i] : indptr[i + 1]]
        own, shift, n = fixed[columns], offset[columns], len(columns)
        gram = np.dot(own, own.T) if n < rank else own[:0]
        value = np.inf
        best, step = np.zeros(rank), np.zeros(rank)
        for _ in range(100 * min(n, 1)):
            there = best + step
            margin = np.dot(own, there) + shift
            now = np.logaddexp(0.0, -margin).sum() + reg / 2 * n * np.dot(there, there)
            if now < value:
                best, value = there, now
                doubt = 1 / (1 + np.exp(margin))
                slope = reg * n * best - np.dot(doubt, own)
                if np.abs(slope).max() < 1e-9 * n:
                    break
                curve = doubt * (1 - doubt)
                if n < rank:
                    small = gram * curve.reshape(-1, 1) + reg * n * np.eye(n)
                    step = (np.dot(np.linalg.solve(small, curve * np.dot(own, slope)), own) - slope) / (reg * n)
                else:
                    large = np.dot((own * curve.reshape(-1, 1)).T, own) + reg * n * np.eye(rank)
                    step = -np.linalg.solve(large, slope)
            else:
                step = step / 2
        x[i] = best
    return x
