"""Compiled half-steps of ALS, which both engines use.

Pure functions of arrays: results never depend on the number of threads. The tests compare them with
:mod:`recsys.als.definition`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import DTypeLike

from recsys.kernels import copy_values, writable
from recsys.linalg import CSR, gram, one_blas_thread, product

CG_STEPS = 3
"""Conjugate gradient steps per half-step. Each starts from the previous sweep, so few steps train
as well as many.
"""

HEAVY_WEIGHT = 1e4
"""Weight of a pair above which the exact solution of a row is computed in float64."""

PAIRS_PER_BLOCK = 1 << 16
"""Number of pairs whose weights and targets are computed at once."""

Axes = tuple[np.ndarray, np.ndarray]
"""Eigenvalues float64[rank] ≥ 0 and eigenvectors float64[rank, rank] (columns) of a Gram matrix
YᵀY.
"""


def principal_axes(factors: np.ndarray) -> Axes:
    """Return the eigenvalues and eigenvectors of the Gram matrix of ``factors`` [n, rank].

    The Gram matrix is computed by :func:`recsys.linalg.gram`.
    """
    with one_blas_thread():
        values, vectors = np.linalg.eigh(gram(np.ascontiguousarray(factors)))
    return np.maximum(values, 0), vectors


@njit(cache=True, nogil=True)
def _solve_short_row(columns: np.ndarray, weight: np.ndarray, target: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Return x of one row of fewer columns than factors; see :func:`als_half_step`.

    ``columns``: [n, rank], the factors y of the row, in the dtype in which x is computed.
    """
    n = len(columns)
    scaled = columns / diagonal
    system = np.dot(scaled, columns.T)
    u = np.empty(n, dtype=columns.dtype)
    for j in range(n):
        # Equations that are divided by 1 + weight all have numbers of one size, also where a weight
        # is 1e9.
        share = 1 / (1 + weight[j])
        for k in range(n):
            system[j, k] *= weight[j] * share
        system[j, j] += share
        u[j] = target[j] * share
    return np.dot(np.linalg.solve(system, u), scaled)


@njit(cache=True, nogil=True)
def _solve_row(columns: np.ndarray, weight: np.ndarray, target: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Return x of one row, in the dtype of ``columns``; see :func:`als_half_step`.

    ``columns``: [n, rank], the factors y of the row.
    """
    n, rank = columns.shape
    b = np.dot(target, columns)
    if not np.any(b != 0):
        return np.zeros_like(b)
    is_heavy = weight.max() > HEAVY_WEIGHT
    if n < rank and is_heavy:
        return _solve_short_row(columns.astype(np.float64), weight, target, diagonal).astype(columns.dtype)
    if n < rank:
        return _solve_short_row(columns, weight, target, diagonal)
    if is_heavy:
        # Beside such a weight float32 loses the diagonal, and the system is singular.
        doubles = columns.astype(np.float64)
        double_system = np.dot((doubles * weight.reshape(n, 1)).T, doubles)
        for f in range(rank):
            double_system[f, f] += diagonal[f]
        return np.linalg.solve(double_system, np.dot(target.astype(np.float64), doubles)).astype(columns.dtype)
    weighted = columns * weight.reshape(n, 1)
    system = np.dot(weighted.T, columns)
    for f in range(rank):
        system[f, f] += diagonal[f]
    return np.linalg.solve(system, b)


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
    """Solve the linear system of each row exactly, and return its solution x.

    The system is (diag(base + penalty) + Σ_j weight_j y_j y_jᵀ) x = Σ_j target_j y_j, where the sums
    are over the columns j of the row.

    Args:
        indptr, indices: the CSR structure of the rows; indices point into ``fixed``.
        weight, target: [nnz]. Implicit ALS: α|v| and (1 + α|v|)·p. Explicit ALS: 1 and v.
        fixed: [n, rank], C order: the factors y of the other side. Implicit ALS: rotated to the
            eigenvectors of their Gram matrix, whose eigenvalues are ``base``.
        base: [rank] ≥ 0. Explicit ALS: zeros.
        penalty: [m], > 0 where the row has a target that is not 0.

    Returns:
        [m, rank]; all arrays have one dtype, float32 or float64. A row without a target other than
        0 gets zeros.

    The system of a row is a diagonal D plus YᵀWY of rank n, the row's length. For rows shorter than
    ``rank`` the identity x = D⁻¹Yᵀu, where u solves (I + W·YD⁻¹Yᵀ) u = target, takes O(n²·rank)
    instead of O(n·rank² + rank³), which makes a high rank cheap. It subtracts no large numbers that
    are almost equal, as the Woodbury identity does when weights are large. The caller limits BLAS to
    one thread.
    """
    m = len(indptr) - 1
    rank = fixed.shape[1]
    x = np.zeros((m, rank), dtype=fixed.dtype)
    for i in prange(m):
        start = indptr[i]
        n = indptr[i + 1] - start
        columns = np.empty((n, rank), dtype=fixed.dtype)
        for j in range(n):
            columns[j] = fixed[indices[start + j]]
        pairs = slice(start, start + n)
        copy_values(_solve_row(columns, weight[pairs], target[pairs], base + penalty[i]), x[i])
    return x


@njit(cache=True, nogil=True)
def solve_history(
    value: np.ndarray,
    factors: np.ndarray,
    alpha: float,
    penalty: float,
    base: np.ndarray,
    rotation: np.ndarray,
) -> np.ndarray:
    """Return the factor of one user by implicit ALS, float64[rank].

    It is :func:`implicit_rows` for one row, for which the calls of NumPy would take longer than the solution. The
    caller limits BLAS to one thread.

    Args:
        value: [n], the values v of the history.
        factors: float64[n, rank], the factors of its items.
        alpha: α of the confidence 1 + α|v|.
        penalty: the weight of the squared norm.
        base, rotation: the principal axes of the factors of all items, in C order.
    """
    n = len(value)
    weight = np.empty(n)
    target = np.zeros(n)
    for j in range(n):
        weight[j] = alpha * abs(np.float64(value[j]))
        if value[j] > 0:
            target[j] = 1 + weight[j]
    # A function that divides its rows among threads would crash here: Numba starts them only if Python calls it.
    x = _solve_row(np.dot(factors, rotation), weight, target, base + penalty)
    return np.dot(rotation, x)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _add_pairs(
    indices: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    fixed: np.ndarray,
    vector: np.ndarray,
    target_share: float,
    total: np.ndarray,
) -> float:
    """Add Σ_j (weight_j s_j − target_share · target_j) y_j to ``total``, and return Σ_j weight_j s_j².

    The sums are over the columns j of one row, and s_j = y_j · ``vector``. With a share of 1 the sum
    is the pairs' part of A x − b for x = ``vector``, with 0 that of A · ``vector``.

    Args:
        indices, weight, target: the columns of the row, as in :func:`als_half_step`.
        vector, total: [rank].
    """
    rank = len(vector)
    zero = vector.dtype.type(0)
    quadratic = zero
    # Four columns at a time: ``vector`` and ``total`` are then read a fourth as often, and all takes
    # about two thirds of the time.
    in_fours = len(indices) // 4 * 4
    for j in range(0, in_fours, 4):
        y0 = fixed[indices[j]]
        y1 = fixed[indices[j + 1]]
        y2 = fixed[indices[j + 2]]
        y3 = fixed[indices[j + 3]]
        score0 = zero
        score1 = zero
        score2 = zero
        score3 = zero
        for f in range(rank):
            score0 += y0[f] * vector[f]
            score1 += y1[f] * vector[f]
            score2 += y2[f] * vector[f]
            score3 += y3[f] * vector[f]
        weighted0 = weight[j] * score0
        weighted1 = weight[j + 1] * score1
        weighted2 = weight[j + 2] * score2
        weighted3 = weight[j + 3] * score3
        quadratic += weighted0 * score0 + weighted1 * score1 + weighted2 * score2 + weighted3 * score3
        weighted0 -= target_share * target[j]
        weighted1 -= target_share * target[j + 1]
        weighted2 -= target_share * target[j + 2]
        weighted3 -= target_share * target[j + 3]
        for f in range(rank):
            total[f] += weighted0 * y0[f] + weighted1 * y1[f] + weighted2 * y2[f] + weighted3 * y3[f]
    for j in range(in_fours, len(indices)):
        y = fixed[indices[j]]
        score = zero
        for f in range(rank):
            score += y[f] * vector[f]
        weighted = weight[j] * score
        quadratic += weighted * score
        weighted -= target_share * target[j]
        for f in range(rank):
            total[f] += weighted * y[f]
    return quadratic


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _row_cg_steps(
    indices: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    fixed: np.ndarray,
    diagonal: np.ndarray,
    x: np.ndarray,
    steps: int,
    scratch: np.ndarray,
) -> None:
    """Move x by at most ``steps`` conjugate gradient steps towards the solution of one row's
    system A x = b.

    A is ``diagonal``, which is also the preconditioner, plus Σ_j weight_j y_j y_jᵀ over the row's
    n columns. ``diagonal`` is what all rows share, YᵀY + penalty in its own axes. So a step costs
    O(n·rank), and n + 1 steps would be exact.

    The steps end early where rᵀM⁻¹r (gradient r, preconditioner M) is below the smallest normal
    number of the dtype.

    Args:
        scratch: [3, rank] of that dtype, which is overwritten.
    """
    rank = len(x)
    zero = x.dtype.type(0)
    one = x.dtype.type(1)
    smallest = np.finfo(x.dtype).tiny
    gradient = scratch[0]  # A x − b
    direction = scratch[1]
    A_direction = scratch[2]
    for f in range(rank):
        gradient[f] = diagonal[f] * x[f]
    _add_pairs(indices, weight, target, fixed, x, one, gradient)
    gradient_norm = zero  # rᵀM⁻¹r, a squared norm
    for f in range(rank):
        direction[f] = -gradient[f] / diagonal[f]
        gradient_norm -= gradient[f] * direction[f]
    for _ in range(steps):
        # The factors of a user and an item that have only each other can shrink in every sweep, to
        # 1e-20 and below. Their squares then underflow, and a quotient of two such sums is noise,
        # infinite or undefined.
        if not gradient_norm > smallest:
            break
        curvature = zero
        for f in range(rank):
            A_direction[f] = diagonal[f] * direction[f]
            curvature += A_direction[f] * direction[f]
        curvature += _add_pairs(indices, weight, target, fixed, direction, zero, A_direction)
        if not curvature > 0:
            break
        step = gradient_norm / curvature
        new_norm = zero
        for f in range(rank):
            x[f] += step * direction[f]
            gradient[f] += step * A_direction[f]
            new_norm += gradient[f] * gradient[f] / diagonal[f]
        ratio = new_norm / gradient_norm
        for f in range(rank):
            direction[f] = ratio * direction[f] - gradient[f] / diagonal[f]
        gradient_norm = new_norm


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
    """Improve the factors x of each row by ``steps`` conjugate gradient steps, and return them.

    The steps start from ``initial``. The linear system is that of :func:`als_half_step`.

    Args:
        initial: [m, rank], the x that each row starts from: that of the previous sweep, or zeros.
        rotation: [rank, rank], the eigenvectors that rotated ``fixed``. ``initial`` and the result
            are not rotated.
        steps: ≥ 1.
        The rest, and which rows are zeros, as in :func:`als_half_step`.
    """
    result = np.empty_like(initial)
    inverse_rotation = np.ascontiguousarray(rotation.T)
    block = 64
    for part in prange((len(initial) + block - 1) // block):
        first = part * block
        x = np.dot(initial[first : first + block], rotation)
        diagonal = np.empty_like(base)
        scratch = np.empty((3, len(base)), dtype=initial.dtype)
        for row in range(len(x)):
            pairs = slice(indptr[first + row], indptr[first + row + 1])
            if np.any(target[pairs]):
                for f in range(len(base)):
                    diagonal[f] = base[f] + penalty[first + row]
                _row_cg_steps(indices[pairs], weight[pairs], target[pairs], fixed, diagonal, x[row], steps, scratch)
            else:
                x[row] = 0
        np.dot(x, inverse_rotation, result[first : first + block])
    return result


class Equations(NamedTuple):
    """What the linear systems of all rows have, apart from the factors of the other side.

    :func:`als_half_step` has the systems. One object serves all half-steps of a training.

    Attributes:
        indptr, indices: int64[rows + 1] and int32[n], the CSR structure of the rows.
        weight, target: [n], those of each stored pair.
        penalty: [rows], the weight of the squared norm of each row's factor.
    """

    indptr: np.ndarray
    indices: np.ndarray
    weight: np.ndarray
    target: np.ndarray
    penalty: np.ndarray


def implicit_equations(matrix: CSR, alpha: float, penalty: np.ndarray, dtype: DTypeLike) -> Equations:
    """Return the equations of implicit ALS.

    Args:
        matrix: the stored values v.
        alpha: α of the confidence 1 + α|v|.
        penalty: [rows], the weight of the squared norm of each row's factor.
        dtype: float32 or float64, in which the rows are solved.
    """
    indptr, indices, value = matrix
    weight = np.empty(len(value), dtype=dtype)
    target = np.empty(len(value), dtype=dtype)
    # In blocks, as they are computed in float64 and a log has many pairs.
    for first in range(0, len(value), PAIRS_PER_BLOCK):
        block = slice(first, first + PAIRS_PER_BLOCK)
        exact_weight = alpha * np.abs(value[block].astype(np.float64))
        weight[block] = exact_weight
        target[block] = np.where(value[block] > 0, 1 + exact_weight, 0.0)
    return Equations(
        writable(indptr, np.int64), writable(indices, np.int32), weight, target, penalty.astype(dtype, copy=False)
    )


def implicit_rows(
    equations: Equations, fixed: np.ndarray, axes: Axes | None = None, initial: np.ndarray | None = None
) -> np.ndarray:
    """Compute the factors of all rows by one half-step of implicit ALS, on all cores.

    The result is [rows, rank] in the dtype of ``fixed``.

    Args:
        equations: those of the rows, in that dtype; ``indices`` are rows of ``fixed``.
        fixed: [columns, rank], finite: the factors of the other side.
        axes: ``principal_axes(fixed)``, if the caller has them already.
        initial: [rows, rank] of that dtype, from which ``CG_STEPS`` conjugate gradient steps
            start; None solves exactly.
    """
    indptr, indices, weight, target, penalty = equations
    base, vectors = axes or principal_axes(fixed)
    # A few histories touch few columns, so only the factors of these columns are rotated.
    if len(indices) < len(fixed):
        used, indices = np.unique(indices, return_inverse=True)
        indices = indices.astype(np.int32)
        fixed = fixed[used]
    rotation = np.ascontiguousarray(vectors, dtype=fixed.dtype)
    inverse_rotation = np.ascontiguousarray(vectors.T, dtype=fixed.dtype)
    base = base.astype(fixed.dtype, copy=False)
    with one_blas_thread():
        system = (indptr, indices, weight, target, product(fixed, rotation), base, penalty)
        if initial is not None:
            return als_cg_step(*system, initial, rotation, CG_STEPS)
        return product(als_half_step(*system), inverse_rotation)


def explicit_rows(matrix: CSR, fixed: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Compute the factors x of all rows by one half-step of explicit ALS, on all cores.

    x minimises Σ_j (v_j − x·y_j)² + penalty |x|² over the stored values v_j of its row. The result
    is [rows, rank] in the dtype of ``fixed``.

    Args:
        matrix: the stored values v; its columns are rows of ``fixed``.
        fixed: [columns, rank], finite: the factors of the other side.
        penalty: [rows], the weight of the squared norm of each row's factor.
    """
    indptr, indices, value = matrix
    target = value.astype(fixed.dtype)
    base = np.zeros(fixed.shape[1], dtype=fixed.dtype)
    indptr = writable(indptr, np.int64)
    indices = writable(indices, np.int32)
    with one_blas_thread():
        return als_half_step(indptr, indices, np.ones_like(target), target, fixed, base, penalty.astype(fixed.dtype))


@njit(cache=True, nogil=True, parallel=True, fastmath={"reassoc", "contract"})
def stored_loss(
    indptr: np.ndarray,
    indices: np.ndarray,
    value: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    alpha: float,
) -> float:
    """Return Σ c (p − x_u·y_i)² − (x_u·y_i)² over stored values, with c = 1 + α|v| and p = 1 where
    v > 0.
    """
    losses = np.zeros(len(indptr) - 1)
    zero = x.dtype.type(0)
    for u in prange(len(losses)):
        for entry in range(indptr[u], indptr[u + 1]):
            score = zero
            for f in range(x.shape[1]):
                score += x[u, f] * y[indices[entry], f]
            p = 1.0 if value[entry] > 0 else 0.0
            losses[u] += (1.0 + alpha * abs(value[entry])) * (p - score) ** 2 - score**2
    return losses.sum()


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_residual(
    indptr: np.ndarray,
    indices: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    residual: np.ndarray,
) -> float:
    """Add (target − weight·x_u·y_i) x_u to ``residual_i`` for each stored (u, i).

    Summed over all pairs this is the pairs' part of the residual b − A y_i of each item's
    equations.

    Args:
        indptr, indices, weight, target: as in :func:`als_half_step`, one row per user.
        x: [users, rank].
        y, residual: [items, rank].

    Returns:
        Σ weight·s² − 2·target·s with s = x_u·y_i: the pairs' part of the objective, without its
        constant.
    """
    loss = 0.0
    for u in range(len(indptr) - 1):
        user = x[u]
        for entry in range(indptr[u], indptr[u + 1]):
            item = y[indices[entry]]
            item_residual = residual[indices[entry]]
            score = np.float32(0.0)
            for f in range(len(user)):
                score += user[f] * item[f]
            error = target[entry] - weight[entry] * score
            for f in range(len(user)):
                item_residual[f] += error * user[f]
            loss += score * (weight[entry] * score - 2 * target[entry])
    return loss
