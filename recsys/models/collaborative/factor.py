"""Factor models: a user is what the history says under fixed item factors, so a new user is no special case."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array

from recsys import linalg
from recsys.als.definition import Objective, start, systems
from recsys.errors import InputError
from recsys.models.collaborative.linear import liked, liked_columns
from recsys.models.collaborative.popular import STRICT
from recsys.types import Features, Interactions


@dataclass(config=STRICT)
class ALS:
    """Alternating least squares on implicit feedback, as ``recsys.als.definition`` defines it.

    A user's scores are x·Yᵀ, where x solves the user's own normal equations given the item factors Y (*fold-in*):
    the same for a user of the training data and for one who came later. NaN for a history without any liked
    item that the model knows, and for items that nobody liked in training.

    ``solver = "cg"`` trains by three conjugate gradient steps a half-step from where the sweep before ended, many times
    faster than exact solution (``cholesky``) and to the same quality; with ``alpha`` in the hundreds the objective is
    some sweeps behind. A user is always folded in exactly. ``nu = 0`` without ``beta`` is trained by the ``implicit``
    library; anything else, which ``implicit`` cannot express, by the project's own kernel in float32. With ``nu = 1``,
    the default, ``reg`` means the same here as on Spark.

    Same data and parameters, same factors: threads never change a result. Memory: 4·rank·(users + items) bytes.
    After a fit by our own kernel ``losses_`` holds the objective after each sweep.
    """

    STATE: ClassVar = ("item_factors_", "known_", "spread_", "axes_")
    SPACE: ClassVar = {"rank": (16, 512), "alpha": (1.0, 100.0), "reg": (0.001, 1.0), "iterations": (5, 20)}
    sources: ClassVar = ("als",)

    rank: Annotated[int, Field(ge=1)] = 64
    iterations: Annotated[int, Field(ge=1)] = 15
    alpha: Annotated[float, Field(ge=0)] = 10.0
    reg: Annotated[float, Field(gt=0)] = 0.05
    nu: Annotated[float, Field(ge=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 0.0
    solver: Literal["cg", "cholesky"] = "cg"
    seed: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def from_factors(cls, item_factors: np.ndarray, known: np.ndarray, **params: float) -> Self:
        """Return a fitted model from factors trained elsewhere, on Spark say.

        Args:
            item_factors: float32[items, rank], any numbers where ``known`` is False.
            known: bool[items], False = no factor: the model has no opinion on the item.
            params: alpha, reg, nu, beta of the training.

        Raises:
            InputError: a factor of a known item is not finite.
        """
        model = cls(rank=item_factors.shape[1], **params)  # type: ignore[arg-type]
        return model._keep(item_factors, known)

    @property
    def objective(self) -> Objective:
        """The numbers of the definition."""
        return Objective(self.alpha, self.reg, self.nu, self.beta)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn item factors, always from a fresh random start."""
        matrix = train.matrix()
        library = self.nu == 0 and self.beta == 0
        factors = self._fit_implicit(matrix) if library else self._fit_kernel(matrix)
        return self._keep(factors, liked_columns(matrix))

    def user_factors(self, histories: csr_array) -> np.ndarray:
        """Return float32[m, rank]: the exact fold-in of each history; zeros without a liked item that is known."""
        axes = (self.spread_, self.axes_)
        fixed = self.item_factors_.astype(np.float64)
        return half_step(histories, fixed, self.objective, axes).astype(np.float32)

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]."""
        scores = linalg.product(self.user_factors(histories), self.item_factors_.T)
        scores[:, ~self.known_] = np.nan
        scores[~self.knows(histories)] = np.nan
        return scores

    def knows(self, histories: csr_array) -> np.ndarray:
        """Return bool[m]: the history holds a liked item that the model knows."""
        return np.diff(liked(histories, self.known_, binary=True).indptr) > 0

    def contributions(self, history: csr_array, item: int) -> np.ndarray:
        """Return float64[history.nnz]: what each entry of one history (1, items) adds to the score of ``item``.

        With x = A⁻¹ Σ_j c_j p_j y_j, entry j adds c_j p_j · y_jᵀ A⁻¹ y_item (Hu et al. 2008, section 5). They sum to
        the score; 0 for entries that are not liked, all NaN where the score is.
        """
        if not (self.known_[item] and self.knows(history)[0]):
            return np.full(history.nnz, np.nan)
        ((a, _),) = systems(history, self.item_factors_, self.objective)
        toward = np.linalg.solve(a, self.item_factors_[item].astype(np.float64))
        value = history.data.astype(np.float64)
        return np.where(value > 0, 1 + self.alpha * value, 0) * (self.item_factors_[history.indices] @ toward)

    def _keep(self, item_factors: np.ndarray, known: np.ndarray) -> Self:
        if not np.isfinite(item_factors[known]).all():
            raise InputError("some item factors are not finite: the training diverged. Raise `reg`, or lower `alpha`.")
        self.item_factors_ = np.where(known[:, None], item_factors, 0).astype(np.float32)
        self.known_ = known.astype(bool)
        self.spread_, self.axes_ = linalg.principal_axes(self.item_factors_.astype(np.float64))
        return self

    def _fit_kernel(self, matrix: csr_array) -> np.ndarray:
        by_item = matrix.T.tocsr()
        y = start(matrix.shape[1], self.rank, self.seed).astype(np.float32)
        x = np.zeros((matrix.shape[0], self.rank), dtype=np.float32)
        warm, self.losses_ = self.solver == "cg", np.empty(self.iterations)
        y_axes = linalg.principal_axes(y)
        for sweep in range(self.iterations):
            x = half_step(matrix, y, self.objective, y_axes, x if warm else None)
            x_axes = linalg.principal_axes(x)
            y = half_step(by_item, x, self.objective, x_axes, y if warm else None)
            y_axes = linalg.principal_axes(y)
            self.losses_[sweep] = loss(x, y, matrix, self.objective, (x_axes, y_axes))
        return y

    def _fit_implicit(self, matrix: csr_array) -> np.ndarray:
        from implicit.cpu.als import AlternatingLeastSquares

        confident = matrix.copy()  # implicit takes the confidence as it is; a negative one means preference 0
        confident.data = np.where(matrix.data > 0, 1.0, -1.0) * (1 + self.alpha * np.abs(matrix.data))
        with linalg.one_blas_thread():
            library = AlternatingLeastSquares(  # a new one for every fit: a second fit would go on from the first
                factors=self.rank,
                regularization=self.reg,
                alpha=1.0,
                iterations=self.iterations,
                use_native=True,
                use_cg=self.solver == "cg",
                random_state=self.seed,
                num_threads=0,
            )
            library.fit(_csr_matrix(confident), show_progress=False)
        return np.asarray(library.item_factors)


@dataclass(config=STRICT)
class BPR:
    """Pairwise ranking: each liked item should beat a random other one. A second opinion beside ALS, tuned by hand.

    Items are trained by ``implicit``: stochastic gradient descent on ln σ(x_u·(y_i − y_j) + b_i − b_j), i liked by u,
    j not. A user's factor is the history's own (*fold-in*), the unique minimum over x of

        Σ_i −ln σ(x·(y_i − ȳ) + b_i − b̄) + reg/2 · n |x|²,   i over the n liked items, ȳ, b̄ means over known items

    and a score is x·y_i + b_i. NaN as for :class:`ALS`. Training runs on one thread, because the library's threads race
    and no two fits would be alike: choose ALS when time matters.

    Reference: Rendle et al., UAI 2009.
    """

    STATE: ClassVar = ("item_factors_", "bias_", "known_")
    SPACE: ClassVar = {"rank": (16, 256), "learning_rate": (0.005, 0.2), "reg": (0.001, 0.1), "iterations": (20, 300)}
    sources: ClassVar = ("bpr",)

    rank: Annotated[int, Field(ge=1)] = 64
    iterations: Annotated[int, Field(ge=1)] = 100
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    reg: Annotated[float, Field(gt=0)] = 0.01
    seed: Annotated[int, Field(ge=0)] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn item factors and biases from the liked pairs, always from a fresh random start."""
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        matrix = train.matrix()
        self.known_ = liked_columns(matrix)
        library = BayesianPersonalizedRanking(
            factors=self.rank,
            learning_rate=self.learning_rate,
            regularization=self.reg,
            iterations=self.iterations,
            num_threads=1,
            random_state=self.seed,
        )
        likes = liked(matrix, binary=True)
        if likes.nnz:
            library.fit(_csr_matrix(likes), show_progress=False)
            found = np.where(self.known_[:, None], library.item_factors, 0).astype(np.float32)
        else:
            found = np.zeros((len(self.known_), self.rank + 1), dtype=np.float32)
        self.item_factors_, self.bias_ = np.ascontiguousarray(found[:, :-1]), np.ascontiguousarray(found[:, -1])
        return self

    def user_factors(self, histories: csr_array) -> np.ndarray:
        """Return float32[m, rank]: the fold-in of each history; zeros without a liked item that is known."""
        return self._fold_in(liked(histories, self.known_, binary=True), *self._centred()).astype(np.float32)

    def _fold_in(self, likes: csr_array, y: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return float64[m, rank]: what the class's sum is least at, given y_i − ȳ and b_i − b̄."""
        with linalg.one_blas_thread():
            return linalg.logistic_rows(likes.indptr, likes.indices, y, b, self.reg)

    def _centred(self) -> tuple[np.ndarray, np.ndarray]:
        """Return float64[items, rank] y_i − ȳ and float64[items] b_i − b̄."""
        y, b = self.item_factors_.astype(np.float64), self.bias_.astype(np.float64)
        n = max(1, int(self.known_.sum()))
        return y - y.sum(axis=0) / n, b - b.sum() / n  # unknown items are zeros: the sums are those of the known

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]."""
        scores = linalg.product(self.user_factors(histories), self.item_factors_.T)
        scores += self.bias_
        scores[:, ~self.known_] = np.nan
        scores[~self.knows(histories)] = np.nan
        return scores

    def knows(self, histories: csr_array) -> np.ndarray:
        """Return bool[m]: the history holds a liked item that the model knows."""
        return np.diff(liked(histories, self.known_, binary=True).indptr) > 0

    def contributions(self, history: csr_array, item: int) -> np.ndarray:
        """Return float64[history.nnz]: what each entry of one history (1, items) adds to x·y of ``item``.

        At the minimum reg · n x = Σ_j d_j (y_j − ȳ), with d_j = σ(−x·(y_j − ȳ) − b_j + b̄) how much the liked item j is
        in doubt: entry j adds d_j (y_j − ȳ)·y_item / (reg · n). With :meth:`base` they sum to the score. 0 for entries
        that are not liked or not known; all NaN where the score is.
        """
        counts = (history.data > 0) & self.known_[history.indices]
        if not (counts.any() and self.known_[item]):
            return np.full(history.nnz, np.nan)
        y, b = self._centred()
        x = self._fold_in(liked(history, self.known_, binary=True), y, b)[0]
        rows = history.indices[counts]
        doubt = 1 / (1 + np.exp(y[rows] @ x + b[rows]))
        parts = np.zeros(history.nnz)
        parts[counts] = doubt * (y[rows] @ self.item_factors_[item].astype(np.float64)) / (self.reg * len(rows))
        return parts

    def base(self, item: int) -> float:
        """Return what of the item's score is the same for everyone: b_i, NaN for an item that nobody liked."""
        return float(self.bias_[item]) if self.known_[item] else np.nan


def half_step(
    matrix: csr_array,
    fixed: np.ndarray,
    objective: Objective,
    axes: linalg.Axes | None = None,
    near: np.ndarray | None = None,
) -> np.ndarray:
    """Return [rows, rank] in the dtype of ``fixed``: ``models.als.half_step``, compiled and in parallel.

    ``axes``: those of ``fixed``, where the caller has them already. ``near``: where conjugate gradients start, as in
    :func:`linalg.implicit_rows`; None solves exactly.
    """
    return linalg.implicit_rows(linalg.arrays(matrix), fixed, objective.alpha, objective.penalty(matrix), axes, near)


def loss(
    x: np.ndarray,
    y: np.ndarray,
    matrix: csr_array,
    objective: Objective,
    axes: tuple[linalg.Axes, linalg.Axes] | None = None,
) -> float:
    """Return ``models.als.loss`` without the dense matrix: what is not stored is in the two Gram matrices.

    ``axes``: those of x and y, where the caller has them already.
    """
    (a, left), (b, right) = axes or (linalg.principal_axes(x), linalg.principal_axes(y))
    fit = a @ (left.T @ right) ** 2 @ b  # the trace of XᵀX·YᵀY
    fit += linalg.stored_loss(*linalg.arrays(matrix), x, y, objective.alpha)
    sides = ((matrix, x), (matrix.T.tocsr(), y))
    return float(fit + sum(objective.penalty(own) @ (side.astype(np.float64) ** 2).sum(axis=1) for own, side in sides))


def _csr_matrix(array: csr_array) -> Any:
    """Return the older matrix class, which ``implicit`` asks for."""
    from scipy.sparse import csr_matrix

    return csr_matrix(array)
