"""ALS on the local engine: it stores item factors, and computes a user's factor from the history."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array

from recsys import linalg
from recsys.als import solvers
from recsys.als.definition import START_LENGTH, Objective, start, systems
from recsys.als.parameters import ALSParameters
from recsys.errors import InputError
from recsys.logging import log_phase, logger
from recsys.models.collaborative.fading import Fading, fading_weights
from recsys.models.collaborative.linear import liked_columns
from recsys.parameters import STRICT
from recsys.ranking.sorted_items import SortedItems, sort_once
from recsys.recommender import Explanation, Recommender
from recsys.types import Features, Histories, Interactions, Selection, TopItems

LARGEST_FACTOR = 1e18
"""The largest allowed absolute value in a factor. The sum of squares of larger values overflows in
float32."""


@dataclass(config=STRICT)
class ALS(Fading, ALSParameters, Recommender):
    """Alternating least squares on implicit feedback, as ``recsys.als.definition`` defines it.

    The scores of a user are x·Yᵀ. Y are the item factors, and x solves the normal equations of the
    user's history (*fold-in*). Users of the training data and later users are computed in the same
    way. If ``decay`` or ``recency_days`` is set, the value of each like in the history is first
    multiplied by its weight (``collaborative.fading``). Items that nobody liked in training have no
    factor, and their scores are NaN. All scores are NaN for a history without a liked item that has
    a factor.

    ``solver = "cg"`` takes three conjugate gradient steps per half-sweep, and starts them from the
    factors of the previous sweep. This is many times faster than the exact solution (``cholesky``)
    and reaches the same quality. With ``alpha`` in the hundreds, it needs some more sweeps to reach
    the same value of the objective. Fold-in is always exact.

    Training is in float32. With ``nu = 0`` and ``beta = 0`` the objective is that of the library
    ``implicit``. With ``nu = 1``, the default, ``reg`` means the same here as on Spark.

    The same data and parameters give the same factors with any number of threads. In training, the
    factors need 4·rank·(users + items) bytes; only the item factors are kept. After a fit,
    ``losses_`` has the value of the objective after each sweep.
    """

    STATE: ClassVar = {
        "item_factors_": "float32[items, rank]",
        "known_": "bool[items]",
        "spread_": "float[rank]",
        "axes_": "float[rank, rank]",
    }
    EXPLAINS: ClassVar = ("history",)
    SPACE: ClassVar = {"rank": (16, 512), "alpha": (1.0, 100.0), "reg": (0.001, 1.0), "iterations": (5, 20)}
    SOURCE: ClassVar = "als"
    START_LENGTH: ClassVar[float] = START_LENGTH

    # Not annotated, because an annotated name would be a parameter.
    computes_losses = True
    """Whether a fit computes ``losses_``, which takes a tenth of its time. If False, they are None."""

    solver: Annotated[
        Literal["cg", "cholesky"],
        Field(description="how factors are solved in training: cg (conjugate gradients, fast) or cholesky (exact)"),
    ] = "cg"

    @classmethod
    def from_factors(cls, item_factors: np.ndarray, has_factor: np.ndarray, **params: float) -> Self:
        """Return a fitted model whose item factors were trained elsewhere, for example on Spark.

        Args:
            item_factors: float32[items, rank]. Rows where ``has_factor`` is False are ignored.
            has_factor: bool[items], whether each item has a factor. The scores of an item without
                a factor are NaN.
            params: the alpha, reg, nu and beta with which the factors were trained.

        Raises:
            InputError: a factor is not finite, or its absolute value is 1e18 or more.
        """
        model = cls(rank=item_factors.shape[1], **params)  # type: ignore[arg-type]
        return model._set_factors(item_factors, has_factor)

    @property
    def objective(self) -> Objective:
        """The model's alpha, reg, nu and beta, as an ``Objective`` of ``recsys.als.definition``."""
        return Objective(self.alpha, self.reg, self.nu, self.beta)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn the item factors from a random start, and return the model.

        A second call starts again from ``seed``. ``features`` is not used.

        Raises:
            InputError: the values are too large for ``alpha``, or the training diverged.
        """
        matrix = train.matrix()
        self.objective.require_usable(float(np.abs(matrix.data).max(initial=0)))
        users, items = matrix.shape
        with log_phase(f"{self.SOURCE}: train factors", users=users, items=items, pairs=matrix.nnz, rank=self.rank):
            factors = self._train_factors(matrix)
        return self._set_factors(factors, liked_columns(matrix))

    @property
    def n_items(self) -> int:
        """The number of items that the model was fitted with."""
        return len(self.known_)

    def user_factors(self, histories: Histories) -> np.ndarray:
        """Compute the factor of each user from the history (fold-in), float32[m, rank].

        The linear system of a user is solved exactly. The factor is all zeros for a history without
        a liked item that has a factor.
        """
        values = self._faded(histories)
        indptr, indices, data = linalg.arrays(values)
        penalty = self.objective.penalty(values)
        # Only the factors of items in the histories are converted to float64. All factors of a
        # million items would take much longer than the rest of the fold-in of a few histories.
        if len(histories) == 1:
            # The items of one history are distinct, and a server asks for one history at a time.
            fixed = self.item_factors_[indices].astype(np.float64)
            axes = (self.spread_, np.ascontiguousarray(self.axes_))
            with linalg.one_blas_thread():
                factor = solvers.solve_history(data, fixed, self.alpha, float(penalty[0]), *axes)
            return factor[None].astype(np.float32)
        used, columns = np.unique(indices, return_inverse=True)
        fixed = self.item_factors_[used].astype(np.float64)
        equations = solvers.implicit_equations((indptr, columns, data), self.alpha, penalty, fixed.dtype)
        return solvers.implicit_rows(equations, fixed, (self.spread_, self.axes_)).astype(np.float32)

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the factor of each user by fold-in, float32[m, rank]. ``users`` is not used."""
        return self.user_factors(histories)

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each of m histories, float32[m, items].

        A score is NaN if the item has no factor, or if no liked item of the history has a factor.
        ``users`` is not used.
        """
        return self.score_vectors(self.user_factors(histories), self.can_score(histories))

    def score_vectors(self, user_factors: np.ndarray, has_factor: np.ndarray) -> np.ndarray:
        """Return the score of every item for each of m user factors, float32[m, items].

        A score is NaN if the item has no factor, or if the user has none.

        Args:
            user_factors: float32[m, rank].
            has_factor: bool[m], whether each user has a factor.
        """
        scores = linalg.product(user_factors, self.item_factors_.T)
        if not self.known_.all():
            scores[:, ~self.known_] = np.nan
        if not has_factor.all():
            scores[~has_factor] = np.nan
        return scores

    def top_k(self, histories: Histories, selection: Selection, users: np.ndarray | None = None) -> TopItems:
        """Return the lists of :meth:`recsys.recommender.Recommender.top_k`, without the scores that cannot be in them.

        ``users`` is not used.
        """
        return self.sorted_items.top_k(self.user_factors(histories), selection, self.can_score(histories))

    @property
    def sorted_items(self) -> SortedItems:
        """The items that have a factor, in descending order of the lengths of their factors."""
        return sort_once(self, self.item_factors_, self.known_)

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether each of m histories has a liked item that has a factor."""
        is_used = (histories.values.data > 0) & self.known_[histories.values.indices]
        return histories.count_entries(is_used) > 0

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each entry of one history adds to the score of ``item``.

        With the symbols of ``recsys.als.definition``, the user factor is x = A⁻¹ Σ_j c_j p_j y_j.
        So entry j adds c_j p_j · y_jᵀ A⁻¹ y_item to the score x·y_item (Hu et al. 2008, section 5).
        An entry that is not a like adds 0. If the score is NaN, the result has no parts.

        The arguments are those of :meth:`recsys.recommender.Recommender.explain`.
        """
        score = self._score_of(history, item)
        if np.isnan(score):
            return Explanation(score)
        values = self._faded(history)
        ((a, _),) = systems(values, self.item_factors_, self.objective)
        item_direction = np.linalg.solve(a, self.item_factors_[item].astype(np.float64))
        confidence = np.where(values.data > 0, 1 + self.alpha * values.data.astype(np.float64), 0)
        return Explanation(score, history=confidence * (self.item_factors_[values.indices] @ item_direction))

    def _faded(self, histories: Histories) -> csr_array:
        """Return the values of the histories, csr (m, items), with each like multiplied by its
        fading weight."""
        values = histories.values
        if histories.times is None or (self.decay == 1 and self.recency_days is None):
            return values
        counted = values.data > 0
        data = values.data.copy()
        data[counted] *= fading_weights(histories, counted, self.decay, self.recency_days)
        return csr_array((data, values.indices, values.indptr), shape=values.shape)

    def _set_factors(self, item_factors: np.ndarray, has_factor: np.ndarray) -> Self:
        """Set the fitted arrays from item factors, and return the model.

        Raises:
            InputError: a factor is not finite.
        """
        _require_finite(item_factors[has_factor])
        self.item_factors_ = np.where(has_factor[:, None], item_factors, 0).astype(np.float32)
        self.known_ = has_factor.astype(bool)
        # Kept, because every fold-in needs the principal axes of the item factors.
        self.spread_, axes = solvers.principal_axes(self.item_factors_.astype(np.float64))
        self.axes_ = np.ascontiguousarray(axes)
        return self

    def _train_factors(self, matrix: csr_array) -> np.ndarray:
        """Return the item factors after all sweeps, float32[items, rank], and set ``losses_``.

        Raises:
            InputError: the training diverged.
        """
        y = start(matrix.shape[1], self.rank, self.seed, self.START_LENGTH).astype(np.float32)
        x = np.zeros((matrix.shape[0], self.rank), dtype=np.float32)
        # Every sweep needs the same equations, so they are made once.
        by_item = matrix.T.tocsr()
        penalties = (self.objective.penalty(matrix), self.objective.penalty(by_item))
        user_equations = solvers.implicit_equations(linalg.arrays(matrix), self.alpha, penalties[0], y.dtype)
        item_equations = solvers.implicit_equations(linalg.arrays(by_item), self.alpha, penalties[1], y.dtype)
        # From here on, the values by item would only take memory.
        del by_item
        self.losses_ = np.empty(self.iterations) if self.computes_losses else None
        # Conjugate gradients start from the factors of the previous sweep; the exact solution needs
        # no start.
        is_warm = self.solver == "cg"
        y_axes = solvers.principal_axes(y)
        for sweep in range(self.iterations):
            x = solvers.implicit_rows(user_equations, y, y_axes, x if is_warm else None)
            _require_finite(x)
            x_axes = solvers.principal_axes(x)
            y = solvers.implicit_rows(item_equations, x, x_axes, y if is_warm else None)
            _require_finite(y)
            y_axes = solvers.principal_axes(y)
            if self.losses_ is not None:
                value = loss(x, y, matrix, self.objective, (x_axes, y_axes), penalties)
                self.losses_[sweep] = value
                logger.debug("%s: sweep %d of %d, loss %.6g", self.SOURCE, sweep + 1, self.iterations, value)
        return y


def _require_finite(factors: np.ndarray) -> None:
    """Raise InputError if a factor is not finite, or is larger than :data:`LARGEST_FACTOR`."""
    if not np.abs(factors).max(initial=0) < LARGEST_FACTOR:
        raise InputError("some factors are not finite: the training diverged. Raise `reg`, or lower `alpha`.")


def half_step(
    matrix: csr_array,
    fixed: np.ndarray,
    objective: Objective,
    axes: solvers.Axes | None = None,
    initial: np.ndarray | None = None,
) -> np.ndarray:
    """Return the factors of the rows that minimise the ALS loss for fixed factors of the columns.

    This is ``als.definition.half_step``, computed by a compiled kernel on all cores. The result is
    [rows, rank] in the dtype of ``fixed``. Rows are users and columns are items, or the reverse.

    Args:
        matrix: csr (rows, columns) of values.
        fixed: float[columns, rank], the fixed factors.
        objective: the parameters of the loss.
        axes: ``solvers.principal_axes(fixed)``, to save time. None: computed here.
        initial: [rows, rank] in the dtype of ``fixed``, the factors from which three conjugate
            gradient steps start. None: the exact solution is computed.
    """
    equations = solvers.implicit_equations(
        linalg.arrays(matrix), objective.alpha, objective.penalty(matrix), fixed.dtype
    )
    return solvers.implicit_rows(equations, fixed, axes, initial)


def loss(
    x: np.ndarray,
    y: np.ndarray,
    matrix: csr_array,
    objective: Objective,
    axes: tuple[solvers.Axes, solvers.Axes] | None = None,
    penalties: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """Return the value of the ALS objective, without computing the dense matrix of scores.

    The value is that of ``als.definition.loss``, up to rounding. The sum over (user, item) pairs
    that are not stored is computed from the Gram matrices of x and y.

    Args:
        x: float[users, rank], the user factors.
        y: float[items, rank], the item factors.
        matrix: csr (users, items) of values.
        objective: the parameters of the objective.
        axes: ``solvers.principal_axes`` of x and of y, to save time. None: computed here.
        penalties: ``objective.penalty`` of the matrix and of the transposed one, to save time. None:
            computed here.
    """
    (spread_x, axes_x), (spread_y, axes_y) = axes or (solvers.principal_axes(x), solvers.principal_axes(y))
    # The trace of XᵀX · YᵀY is the sum of all squared scores.
    squared_error = spread_x @ (axes_x.T @ axes_y) ** 2 @ spread_y
    squared_error += solvers.stored_loss(*linalg.arrays(matrix), x, y, objective.alpha)
    if penalties is None:
        penalties = (objective.penalty(matrix), objective.penalty(matrix.T.tocsr()))
    penalty = sum(
        weights @ (factors.astype(np.float64) ** 2).sum(axis=1)
        for weights, factors in zip(penalties, (x, y), strict=True)
    )
    return float(squared_error + penalty)
