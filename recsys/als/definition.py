"""Implicit-feedback matrix factorization by alternating least squares: the definition, in plain NumPy.

Every fast solver of the project (:mod:`recsys.als.solvers`, ``implicit``, Spark) is tested against
this module. x_u is the factor of user u, y_i the factor of item i, and v the value of a stored
(user, item) pair:

    p = 1 if v > 0 else 0                    preference; 0 where nothing is stored
    c = 1 + α|v|                             confidence; 1 where nothing is stored
    minimise  Σ_ui c_ui (p_ui − x_u·y_i)²  +  λ [ Σ_u (n_u + β·items)^ν |x_u|²  +  Σ_i (n_i + β·users)^ν |y_i|² ]

The first sum is over all pairs, stored or not. n_u and n_i are the numbers of pairs with p = 1 of a
user and of an item. If the item factors are fixed, the factor of each user solves one linear system:

    (YᵀY + Yᵀ(C_u − I)Y + λ(n_u + β·items)^ν I) x_u = YᵀC_u p_u

C_u is the diagonal matrix of the confidences c of the user. The same equations with the transposed
matrix give the item factors for fixed user factors. Other implementations are special cases:

    Spark MLlib, implicitPrefs     ν = 1, β = 0, users solved last
    implicit                       ν = 0, items solved last
    Rendle et al. 2021             ν = 1, β = α0, with α = 1/α0 on v = 1 and λ = λ*(1 + α0)/α0

References: Hu, Koren and Volinsky, ICDM 2008, equations 3 to 5; Rendle, Krichene, Zhang and Koren,
RecSys 2022 (arXiv 2110.14037), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from recsys.errors import InputError

MAX_CONFIDENCE = 1e9
"""The largest allowed confidence of a pair. Numbers in float32 have about seven digits. Next to a
much larger confidence, the pairs of confidence 1 would have no effect on a sum."""

START_LENGTH = 3.0
"""About the length of the random factors from which training starts.

Scores are near 1 for a like, so factors of this length are longer than those of the end. From a
length of 0.1, conjugate gradients took three times as many sweeps to the same objective on a dense
log of 400,000 pairs. On sparse logs the objective is up to 3 % lower from there, but the lists are not
better. `python bench/als_start.py` compares lengths on eight logs.
"""


@dataclass(frozen=True)
class Objective:
    """The parameters of the ALS objective; the description of this module has its equation.

    Attributes:
        alpha: α ≥ 0, how much a value adds to the confidence of its pair, 1 + α|value|.
        reg: λ > 0, the strength of the regularisation.
        nu: ν ≥ 0, the exponent of a row's number of pairs in the weight of its penalty.
        beta: β ≥ 0, the part of that weight that does not depend on the row's number of pairs.
    """

    alpha: float = 1.0
    reg: float = 0.1
    nu: float = 1.0
    beta: float = 0.0

    def require_usable(self, largest: float) -> None:
        """Check that no confidence is too large for float32.

        The largest confidence is 1 + alpha · ``largest``, and the limit is :data:`MAX_CONFIDENCE`.

        Args:
            largest: the largest absolute value of all pairs.

        Raises:
            InputError: the largest confidence is above the limit, or is NaN.
        """
        confidence = 1 + self.alpha * largest
        if not confidence <= MAX_CONFIDENCE:
            raise InputError(
                f"the largest value is {largest:g}, which ALS with alpha = {self.alpha:g} turns into a confidence of"
                f" {confidence:.3g} (1 + alpha × value), more than the {MAX_CONFIDENCE:g} it can work with. If the"
                " column `value` holds times, prices or counts, set [weigh] transform = 'log1p' or cap; else lower"
                " alpha, or remove the mapping of `value`."
            )

    def penalty(self, matrix: csr_array) -> np.ndarray:
        """Return the weight of |x|² in the objective for the factor x of each row, float64[rows].

        The weight is λ(n + β·columns)^ν, where n is the number of stored pairs of the row with a
        value above 0.

        Args:
            matrix: csr (rows, columns) of values.
        """
        is_positive = matrix.data > 0
        # One row, as a server asks for, and likes alone, as most logs have, are counted faster.
        if matrix.shape[0] == 1:
            n = np.array([np.count_nonzero(is_positive)])
        elif is_positive.all():
            n = np.diff(matrix.indptr)
        else:
            n = np.bincount(_row_of(matrix)[is_positive], minlength=matrix.shape[0])
        return self.reg * (n + self.beta * matrix.shape[1]) ** self.nu


def loss(x: np.ndarray, y: np.ndarray, matrix: csr_array, objective: Objective) -> float:
    """Return the value of the ALS objective for user factors ``x`` and item factors ``y``.

    The function makes dense arrays of shape (users, items), so it is for small data only.

    Args:
        x: float[users, rank], the user factors.
        y: float[items, rank], the item factors.
        matrix: csr (users, items) of values.
        objective: the parameters of the objective.
    """
    value = matrix.toarray().astype(np.float64)
    p = (value > 0).astype(np.float64)
    c = 1 + objective.alpha * np.abs(value)
    squared_error = (c * (p - x @ y.T) ** 2).sum()
    user_penalty = objective.penalty(matrix) @ (x**2).sum(axis=1)
    item_penalty = objective.penalty(matrix.T.tocsr()) @ (y**2).sum(axis=1)
    return float(squared_error + user_penalty + item_penalty)


def half_step(matrix: csr_array, y: np.ndarray, objective: Objective) -> np.ndarray:
    """Return the factors of the rows that minimise the loss for fixed factors ``y`` of the columns.

    The result is float64[rows, rank]. The factor of a row without a positive value is all zeros.

    Args:
        matrix: csr (rows, columns) of values. Rows are users and columns are items, or the reverse.
        y: float[columns, rank], the fixed factors.
        objective: the parameters of the objective.
    """
    x = np.zeros((matrix.shape[0], y.shape[1]))
    for row, (a, b) in enumerate(systems(matrix, y, objective)):
        # Without a positive pair zero is a minimum, and with ν > 0 and β = 0 the system may be
        # singular.
        if b.any():
            x[row] = np.linalg.solve(a, b)
    return x


def residual(x: np.ndarray, y: np.ndarray, matrix: csr_array, objective: Objective) -> np.ndarray:
    """Return the relative error of each row's factor in its linear system A x = b, float64[rows].

    The error is ‖A x − b‖ / ‖b‖, where (A, b) are those of :func:`systems`. It is NaN for a row
    without a positive value, where b is 0.

    Args:
        x: float[rows, rank], the factors to check.
        y: float[columns, rank], the fixed factors.
        matrix: csr (rows, columns) of values.
        objective: the parameters of the objective.
    """
    norms = np.full(matrix.shape[0], np.nan)
    for row, (a, b) in enumerate(systems(matrix, y, objective)):
        if b.any():
            norms[row] = np.linalg.norm(a @ x[row] - b) / np.linalg.norm(b)
    return norms


def fit(
    matrix: csr_array,
    rank: int,
    iterations: int,
    objective: Objective,
    seed: int = 0,
    length: float = START_LENGTH,
) -> tuple[np.ndarray, np.ndarray]:
    """Train ALS with exact solutions of the linear systems, and return the factors.

    The result is (user factors, item factors), float64[users, rank] and float64[items, rank]. Each
    iteration solves for all users first and then for all items.

    Args:
        matrix: csr (users, items) of values.
        rank: the number of latent factors.
        iterations: the number of iterations, at least 1.
        objective: the parameters of the objective.
        seed: the seed of the item factors from which training starts.
        length: about the length of these factors, > 0.
    """
    x = np.empty((matrix.shape[0], rank))
    y = start(matrix.shape[1], rank, seed, length)
    by_item = matrix.T.tocsr()
    for _ in range(iterations):
        x = half_step(matrix, y, objective)
        y = half_step(by_item, x, objective)
    return x, y


def start(rows: int, rank: int, seed: int, length: float = START_LENGTH) -> np.ndarray:
    """Return the random factors from which training starts, float64[rows, rank].

    The numbers are drawn from the normal distribution with mean 0 and the standard deviation
    :func:`start_deviation`.

    Args:
        rows: the number of factors, one per item.
        rank: the number of latent factors.
        seed: the seed of the random numbers.
        length: about the length of a factor, > 0.
    """
    return np.random.default_rng(seed).normal(0.0, start_deviation(rank, length), (rows, rank))


def start_deviation(rank: int, length: float = START_LENGTH) -> float:
    """Return the standard deviation of the numbers of a random factor that is about ``length`` long."""
    return length / np.sqrt(rank)


def systems(matrix: csr_array, y: np.ndarray, objective: Objective) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (A, b) of the linear system A x = b of each row, where x is the row's factor.

    A is float64[rank, rank] and b is float64[rank].

    Args:
        matrix: csr (rows, columns) of values.
        y: float[columns, rank], the fixed factors of the columns.
        objective: the parameters of the objective.
    """
    y = y.astype(np.float64)
    gram = y.T @ y
    identity = np.eye(y.shape[1])
    for row, penalty in enumerate(objective.penalty(matrix)):
        stored = slice(matrix.indptr[row], matrix.indptr[row + 1])
        value = matrix.data[stored].astype(np.float64)
        y_row = y[matrix.indices[stored]]
        c = 1 + objective.alpha * np.abs(value)
        p = value > 0
        yield gram + y_row.T @ ((c - 1)[:, None] * y_row) + penalty * identity, y_row.T @ (c * p)


def _row_of(matrix: csr_array) -> np.ndarray:
    """Return the row of each stored entry of a csr matrix, int64[nnz]."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
