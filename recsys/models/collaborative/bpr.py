"""The model ``bpr`` on the local engine: matrix factorization that is trained by pairwise ranking.

The model keeps item factors. The factor of a user is computed from the history.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array, csr_matrix

from recsys import linalg
from recsys.logging import log_phase
from recsys.models.collaborative.linear import liked, liked_columns
from recsys.parameters import STRICT
from recsys.recommender import Explanation, Recommender
from recsys.types import Features, Histories, Interactions


@dataclass(config=STRICT)
class BPR(Recommender):
    """Pairwise ranking: each liked item should score above a random other item.

    It is an alternative to ALS whose parameters need tuning. The library ``implicit`` trains the
    item factors y and the item biases b by stochastic gradient descent. It maximises
    ln σ(x_u·(y_i − y_j) + b_i − b_j), less a penalty of strength ``reg`` on the squares of the
    factors and biases. Here σ is the logistic function, and user u likes item i but not item j.

    The factor x of a user is computed from the history of the user (*fold-in*). It minimises

        Σ_i −ln σ(x·(y_i − ȳ) + b_i − b̄) + reg/2 · n |x|²

    The sum is over those n liked items of the history that somebody liked in training. ȳ and b̄ are
    the means over all items that somebody liked in training. The score of item i is x·y_i + b_i.

    Scores are NaN for items that nobody liked in training, and for a history without a liked item
    that somebody liked in training. Training uses one thread, because with several threads
    ``implicit`` gives a different result each time. ALS is faster.

    Reference: Rendle et al., UAI 2009.
    """

    STATE: ClassVar = {
        "item_factors_": "float32[items, rank]",
        "bias_": "float32[items]",
        "known_": "bool[items]",
    }
    SPACE: ClassVar = {"rank": (16, 256), "learning_rate": (0.005, 0.2), "reg": (0.001, 0.1), "iterations": (20, 300)}
    EXPLAINS: ClassVar = ("history",)
    SOURCE: ClassVar = "bpr"

    rank: Annotated[int, Field(ge=1, description="number of latent factors per user and per item")] = 64
    iterations: Annotated[int, Field(ge=1, description="number of passes over the liked pairs")] = 100
    learning_rate: Annotated[float, Field(gt=0, description="step size of stochastic gradient descent")] = 0.05
    reg: Annotated[float, Field(gt=0, description="regularization; higher values keep factors smaller")] = 0.01
    seed: Annotated[int, Field(ge=0, description="seed of the random start and of the sampled pairs")] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn item factors and biases from the liked pairs, and return the model.

        Only the pairs with a value above 0 are used. Every call starts again from ``seed``.
        ``features`` is not used.
        """
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
            users, items = likes.shape
            with log_phase("bpr: train factors", users=users, items=items, pairs=likes.nnz, rank=self.rank):
                library.fit(csr_matrix(likes), show_progress=False)
            factors_and_bias = np.where(self.known_[:, None], library.item_factors, 0).astype(np.float32)
        else:
            factors_and_bias = np.zeros((len(self.known_), self.rank + 1), dtype=np.float32)
        self.item_factors_ = np.ascontiguousarray(factors_and_bias[:, :-1])
        self.bias_ = np.ascontiguousarray(factors_and_bias[:, -1])
        return self

    @property
    def n_items(self) -> int:
        """The number of items that the model was fitted with."""
        return len(self.known_)

    def user_factors(self, histories: Histories) -> np.ndarray:
        """Return the factor of each user, computed from the history (fold-in), float32[m, rank].

        The factor is all zeros for a history without a liked item that somebody liked in training.
        """
        return self._fold_in(liked(histories.values, self.known_, binary=True), *self._centred()).astype(np.float32)

    def _fold_in(self, likes: csr_array, y: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Compute the factor of each user, the minimum that the class describes, float64[m, rank].

        Args:
            likes: csr (m, items), the liked items of each user.
            y: float64[items, rank], y_i − ȳ.
            b: float64[items], b_i − b̄.
        """
        with linalg.one_blas_thread():
            indptr, indices, _ = linalg.arrays(likes)
            return linalg.logistic_rows(indptr, indices, y, b, self.reg)

    def _centred(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the centred factors y_i − ȳ, float64[items, rank], and biases b_i − b̄, float64[items]."""
        y = self.item_factors_.astype(np.float64)
        b = self.bias_.astype(np.float64)
        # Rows of items without a factor are zeros, so the sums are over the items that have one.
        n = max(1, int(self.known_.sum()))
        return y - y.sum(axis=0) / n, b - b.sum() / n

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the factor of each user by fold-in, float32[m, rank]. ``users`` is not used."""
        return self.user_factors(histories)

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each of m histories, float32[m, items].

        A score is NaN if nobody liked the item in training, or if the history has no liked item
        that somebody liked in training. ``users`` is not used.
        """
        scores = linalg.product(self.user_factors(histories), self.item_factors_.T)
        scores += self.bias_
        scores[:, ~self.known_] = np.nan
        scores[~self.can_score(histories)] = np.nan
        return scores

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether each of m histories has a liked item that somebody liked in training."""
        return np.diff(liked(histories.values, self.known_, binary=True).indptr) > 0

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each entry of one history adds to the score of ``item``.

        The score is x·y_item + b_item. The bias b_item is the constant of the explanation. At the
        minimum, reg · n x = Σ_j d_j (y_j − ȳ), where d_j = σ(−x·(y_j − ȳ) − b_j + b̄) is the
        residual of the liked item j. So entry j adds d_j (y_j − ȳ)·y_item / (reg · n). An entry
        adds 0 if it is not a like, or if nobody liked its item in training. If the score is NaN,
        the result has no parts.

        The arguments are those of :meth:`recsys.recommender.Recommender.explain`.
        """
        score = self._score_of(history, item)
        if np.isnan(score):
            return Explanation(score)
        values = history.values
        counted = (values.data > 0) & self.known_[values.indices]
        y, b = self._centred()
        x = self._fold_in(liked(values, self.known_, binary=True), y, b)[0]
        rows = values.indices[counted]
        residual = 1 / (1 + np.exp(y[rows] @ x + b[rows]))
        added = np.zeros(values.nnz)
        added[counted] = residual * (y[rows] @ self.item_factors_[item].astype(np.float64)) / (self.reg * len(rows))
        return Explanation(score, history=added, constant=float(self.bias_[item]))
