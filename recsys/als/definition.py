"""Implicit-feedback matrix factorization by alternating least squares: the definition, in plain NumPy.

Every fast solver of the project (:mod:`recsys.als.solvers`, ``implicit``, Spark) is tested against
these lines. With value v of a stored (user, item) pair:

    p = 1 if v > 0 else 0                    preference; 0 where nothing is stored
    c = 1 + α|v|                             confidence; 1 where nothing is stored
    minimise  Σ_ui c_ui (p_ui − x_u·y_i)²  +  λ [ Σ_u (n_u + β·items)^ν |x_u|²  +  Σ_i (n_i + β·users)^ν |y_i|² ]

over all pairs, stored or not; n counts a row's pairs with p = 1. With the items fixed, each user is
one linear system:

    (YᵀY + Yᵀ(C_u − I)Y + λ(n_u + β·items)^ν I) x_u = YᵀC_u p_u

The same function solves for the items when it is handed the transposed matrix.

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
"""Confidence beside which the 1 of all other pairs is lost in the sums of single precision."""


@dataclass(frozen=True)
class Objective:
    """The four numbers of the definition: ``alpha`` ≥ 0, ``reg`` (λ) > 0, ``nu`` (ν) and ``beta`` (β) ≥ 0."""

    alpha: float = 1.0
    reg: float = 0.1
    nu: float = 1.0
    beta: float = 0.0

    def require_usable(self, largest: float) -> None:
        """Raise InputError if the ``largest`` |value| is so large that its confidence hides all other
        pairs.
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
        """Return float64[rows]: λ(n + β·columns)^ν, what multiplies each row's squared norm."""
        n = np.bincount(_row_of(matrix)[matrix.data > 0], minlength=matrix.shape[0])
        return self.reg * (n + self.beta * matrix.shape[1]) ** self.nu


def loss(x: np.ndarray, y: np.ndarray, matrix: csr_array, objective: Objective) -> float:
    """Return the value that ALS minimises, from dense (users, items) arrays: for small data only."""
    value = matrix.toarray().astype(np.float64)
    p = (value > 0).astype(np.float64)
    c = 1 + objective.alpha * np.abs(value)
    fit = (c * (p - x @ y.T) ** 2).sum()
    shrink = objective.penalty(matrix) @ (x**2).sum(axis=1) + objective.penalty(matrix.T.tocsr()) @ (y**2).sum(axis=1)
    return float(fit + shrink)


def half_step(matrix: csr_array, y: np.ndarray, objective: Objective) -> np.ndarray:
    """Return float64[rows, rank]: the best factor of every row while the columns' factors ``y`` stay."""
    x = np.zeros((matrix.shape[0], y.shape[1]))
    for row, (a, b) in enumerate(systems(matrix, y, objective)):
        # Without a positive pair zero is a minimum, and with ν > 0 and β = 0 the system may be
        # singular.
        if b.any():
            x[row] = np.linalg.solve(a, b)
    return x


def residual(x: np.ndarray, y: np.ndarray, matrix: csr_array, objective: Objective) -> np.ndarray:
    """Return float64[rows]: ‖A x − b‖ / ‖b‖ of each row's system, NaN for a row without a positive pair."""
    norms = np.full(matrix.shape[0], np.nan)
    for row, (a, b) in enumerate(systems(matrix, y, objective)):
        if b.any():
            norms[row] = np.linalg.norm(a @ x[row] - b) / np.linalg.norm(b)
    return norms


def fit(
    matrix: csr_array, rank: int, iterations: int, objective: Objective, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return user and item factors (float64) after full sweeps, each solving the users first and the items last."""
    x = np.empty((matrix.shape[0], rank))
    y = start(matrix.shape[1], rank, seed)
    by_item = matrix.T.tocsr()
    for _ in range(iterations):
        x = half_step(matrix, y, objective)
        y = half_step(by_item, x, objective)
    return x, y


def start(rows: int, rank: int, seed: int) -> np.ndarray:
    """Return the random factors that a fit begins with: float64[rows, rank], normal, deviation 0.1/√rank."""
    return np.random.default_rng(seed).normal(0.0, 0.1 / np.sqrt(rank), (rows, rank))


def systems(matrix: csr_array, y: np.ndarray, objective: Objective) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (A, b) of each row: float64[rank, rank] and float64[rank]."""
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
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
