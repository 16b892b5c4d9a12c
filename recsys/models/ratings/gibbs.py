"""The compiled step of Gibbs sampling for matrix factorization: it draws the factors of all rows of one side."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def draw_factors(
    indptr: np.ndarray,
    indices: np.ndarray,
    target: np.ndarray,
    fixed: np.ndarray,
    precision: np.ndarray,
    shift: np.ndarray,
    noise_precision: float,
    normals: np.ndarray,
) -> np.ndarray:
    """Draw the factor of each row from its normal posterior, float64[m, d].

    The ratings of a row are target_j = x·y_j + noise, with a noise of precision α, and the prior
    of x is normal with precision Λ and mean Λ⁻¹ ``shift``. So the posterior has the precision
    A = Λ + α Σ_j y_j y_jᵀ and the mean A⁻¹ (shift + α Σ_j target_j y_j). With A = L Lᵀ, the draw is
    L⁻ᵀ(L⁻¹ b + z), where b is the right side of the mean and z are standard normals.

    Args:
        indptr, indices: the CSR structure of the rows; indices point into ``fixed``.
        target: float64[nnz].
        fixed: float64[n, d], the factors y of the other side.
        precision: float64[d, d], Λ, positive definite.
        shift: float64[m, d], Λ times the prior mean of each row.
        noise_precision: α > 0.
        normals: float64[m, d], the standard normals z. Zeros give the posterior means.
    """
    m, d = normals.shape
    x = np.empty((m, d))
    a = np.empty((d, d))
    b = np.empty(d)
    for row in range(m):
        for f in range(d):
            b[f] = 0.0
            for g in range(f + 1):
                a[f, g] = 0.0
        for entry in range(indptr[row], indptr[row + 1]):
            y = fixed[indices[entry]]
            t = target[entry]
            for f in range(d):
                y_f = y[f]
                b[f] += t * y_f
                for g in range(f + 1):
                    a[f, g] += y_f * y[g]
        for f in range(d):
            b[f] = shift[row, f] + noise_precision * b[f]
            for g in range(f + 1):
                a[f, g] = precision[f, g] + noise_precision * a[f, g]
        # Cholesky: the lower triangle of a becomes L.
        for f in range(d):
            for g in range(f + 1):
                total = a[f, g]
                for h in range(g):
                    total -= a[f, h] * a[g, h]
                if f == g:
                    a[f, f] = np.sqrt(total)
                else:
                    a[f, g] = total / a[g, g]
        for f in range(d):
            total = b[f]
            for g in range(f):
                total -= a[f, g] * b[g]
            b[f] = total / a[f, f]
        for f in range(d - 1, -1, -1):
            total = b[f] + normals[row, f]
            for g in range(f + 1, d):
                total -= a[g, f] * x[row, g]
            x[row, f] = total / a[f, f]
    return x


@njit(cache=True, nogil=True)
def pair_scores(x: np.ndarray, y: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return b_u + c_i + x_u·y_i of each pair, float64[m]. Number 0 of a factor is the bias.

    Args:
        x: float[users, d], the factors of the users.
        y: float[items, d], those of the items.
        users, items: int[m], the rows of each pair.
    """
    scores = np.empty(len(users))
    for pair in range(len(users)):
        x_pair = x[users[pair]]
        y_pair = y[items[pair]]
        score = np.float64(x_pair[0]) + np.float64(y_pair[0])
        for f in range(1, len(x_pair)):
            score += np.float64(x_pair[f]) * np.float64(y_pair[f])
        scores[pair] = score
    return scores
