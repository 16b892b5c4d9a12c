"""The training curve: after each sweep, the objective and the quality of validation users' lists.

Validation users are not trained on, and some of their pairs are hidden. Their factors are folded in
from their other pairs, as for any new user. So the curve shows from which sweep on lists no longer
improve, and whether they get worse. Reference: Liang, Krishnan, Hoffman and Jebara, WWW 2018,
section 4 (strong generalisation).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from recsys import linalg
from recsys.als import solvers
from recsys.evaluation.judging.judge import judge
from recsys.evaluation.judging.metrics import ndcg
from recsys.evaluation.min_history import choose_min_history
from recsys.ranking import rank
from recsys.ranking.sorted_items import SortedItems
from recsys.recommender import Recommender
from recsys.spark.training.parameters import SparkALSParameters
from recsys.types import Features, Histories, Interactions, Selection, TopItems, TopK

MAX_USERS = 1000
"""Approximate number of validation users, if there are enough users."""

MIN_INTERVAL = 100
"""Smallest value of :func:`holdout_interval`: at most one user in this number is held out."""

MIN_USERS = 30
"""Smallest number of validation users. If there would be fewer, no users are held out."""

HIDDEN_SHARE = 0.2
"""Share of the validation users' pairs that is hidden."""

NDCG_CUTOFF = 10
"""Number of positions of a list for which NDCG is computed."""


@dataclass
class TrainingCurve:
    """The numbers that are measured during a training.

    Attributes:
        losses: the objective after each sweep, over the training users.
        quality: the value of ``measure`` on the validation users after each sweep. Empty if no user
            was held out.
        measure: for implicit feedback "ndcg@10", the mean over the validation users. For explicit
            feedback "rmse", the root mean squared error over all of their hidden values. Empty if
            no user was held out.
        validation_users: the number of validation users.
        short_histories: the comparison with popularity by history length
            (:func:`recsys.evaluation.min_history.choose_min_history`). None if no user was held
            out, or for explicit feedback.
    """

    losses: list[float] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    measure: str = ""
    validation_users: int = 0
    short_histories: dict[str, Any] | None = None


def holdout_interval(n_users: int) -> int:
    """Return n if one user in n should be held out for validation, or 0 if there are too few users.

    About :data:`MAX_USERS` users are held out, but at most one in :data:`MIN_INTERVAL`. There are
    too few users if fewer than :data:`MIN_USERS` would be held out.

    Args:
        n_users: the number of users with a training pair.

    >>> holdout_interval(1_000_000), holdout_interval(20_000), holdout_interval(2_000)
    (1000, 100, 0)
    """
    interval = max(MIN_INTERVAL, -(-n_users // MAX_USERS))
    return interval if n_users >= MIN_USERS * interval else 0


@dataclass(frozen=True)
class ValidationUsers:
    """The histories of held-out users, with some pairs hidden.

    Attributes:
        seen: csr (users, items), the pairs from which a user's factor is solved.
        hidden: csr (users, items), the hidden pairs.
        params: the parameters of the model.
    """

    seen: csr_array
    hidden: csr_array
    params: SparkALSParameters

    @classmethod
    def draw(
        cls, held_out: list[tuple[np.ndarray, linalg.CSR]], n_items: int, params: SparkALSParameters
    ) -> ValidationUsers | None:
        """Hide some training pairs of held-out users at random, and return the validation users.

        The choice does not depend on how users are divided into parts. Users without a hidden pair,
        or without a remaining training pair, are left out. The result is None if no user remains.

        Args:
            held_out: the users of each part, int32[m], distinct, and their histories as a CSR matrix.
            n_items: the number of items.
            params: the parameters of the model. ``params.seed`` is the seed of the choice.
        """
        parts = [
            csr_array((values, items, indptr), shape=(len(indptr) - 1, n_items))
            for _, (indptr, items, values) in held_out
            if len(indptr) > 1
        ]
        if not parts:
            return None
        ids = np.concatenate([part_users for part_users, _ in held_out])
        histories = csr_array(vstack(parts, format="csr"))[np.argsort(ids)]
        row = np.repeat(np.arange(histories.shape[0]), np.diff(histories.indptr))
        is_training = params.is_training_pair(histories.data)
        is_hidden = is_training & (np.random.default_rng(params.seed).random(histories.nnz) < HIDDEN_SHARE)
        hidden_counts = np.bincount(row[is_hidden], minlength=histories.shape[0])
        visible_counts = np.bincount(row[is_training & ~is_hidden], minlength=histories.shape[0])
        users = np.flatnonzero((hidden_counts > 0) & (visible_counts > 0))
        if not len(users):
            return None

        def entries(chosen: np.ndarray) -> csr_array:
            cells = (row[chosen], histories.indices[chosen])
            return csr_array((histories.data[chosen], cells), shape=histories.shape)[users]

        return cls(entries(~is_hidden), entries(is_hidden), params)

    @property
    def n_users(self) -> int:
        """Number of validation users."""
        return int(self.seen.shape[0])

    @property
    def measure(self) -> str:
        """Name of the number that :meth:`evaluate` returns: "ndcg@10" or, for ratings, "rmse"."""
        return f"ndcg@{NDCG_CUTOFF}" if self.params.implicit else "rmse"

    def evaluate(self, items: np.ndarray) -> float:
        """Return the quality of item factors on the validation users.

        For implicit feedback it is the mean NDCG@10 of lists without seen items; higher is better.
        For explicit feedback it is the root mean squared error of the hidden values; lower is
        better.

        Args:
            items: float32[items, rank], zeros for an item without a training pair.
        """
        model = _FixedItems(items, self.params)
        if self.params.implicit:
            return float(np.nanmean(self._ndcg_of(model)))
        return self.rmse_of(model.solve_users(self.seen), items[self.hidden.indices])

    def rmse_of(self, x: np.ndarray, hidden_items: np.ndarray) -> float:
        """Return the root mean squared error of the hidden values.

        Args:
            x: float[users, rank], the factors of the users.
            hidden_items: float32[n, rank], the factor of the item of each hidden pair.
        """
        row = np.repeat(np.arange(self.n_users), np.diff(self.hidden.indptr))
        error = self.hidden.data - np.einsum("nr,nr->n", x[row], hidden_items)
        return float(np.sqrt(np.mean(error**2)))

    def compare_with_popular(self, items: np.ndarray, pair_counts: np.ndarray) -> dict[str, Any] | None:
        """Compare the lists of the model with popular lists, for short and for long histories.

        Both lists of each validation user are judged by NDCG on the user's hidden pairs. The result
        is that of :func:`recsys.evaluation.min_history.choose_min_history`: the smallest number of
        likes with which a user gets the list of the model, and both means for each group of users
        with similarly many likes. It is None if feedback is explicit.

        Args:
            items: float32[items, rank], the item factors, trained without these users; zeros for an
                item without a training pair.
            pair_counts: int[items], the number of training pairs of the other users on each item:
                the popularity.
        """
        if not self.params.implicit:
            return None
        model_ndcg = self._ndcg_of(_FixedItems(items, self.params))
        return self.compare(model_ndcg, self._ndcg_of(_Popular(pair_counts)))

    def compare(self, model_ndcg: np.ndarray, popular_ndcg: np.ndarray) -> dict[str, Any] | None:
        """Return the result of :meth:`compare_with_popular` for the NDCG of each user's two lists.

        Args:
            model_ndcg, popular_ndcg: float64[users], the NDCG of the model and of popularity.
        """
        return choose_min_history(Histories(self.seen).n_liked, model_ndcg, popular_ndcg, seed=self.params.seed)

    def _ndcg_of(self, model: Recommender) -> np.ndarray:
        """Return the NDCG of each user's list without seen items: float64[users]."""
        return self.ndcg_of(rank.recommend(model, self.seen, NDCG_CUTOFF).items)

    def ndcg_of(self, lists: np.ndarray) -> np.ndarray:
        """Return the NDCG of the list of each user: float64[users].

        Args:
            lists: int32[users, k], items, best first, -1 after the last one.
        """
        blank = np.full(lists.shape, -1, dtype=np.int8)
        no_scores = np.full(lists.shape, np.nan, dtype=np.float32)
        shortfall = np.zeros(len(lists), dtype=np.int8)
        topk = TopK(np.arange(len(lists)), lists, no_scores, blank, (), shortfall)
        relevant = csr_array((self.hidden > 0).astype(np.float64))
        return ndcg(judge(topk, relevant), NDCG_CUTOFF)


class _Popular(Recommender):
    """Scores every item by its number of training pairs, the same for all users."""

    def __init__(self, pair_counts: np.ndarray) -> None:
        self.pair_counts = pair_counts

    def fit(self, train: Interactions, features: Features | None = None) -> _Popular:
        """Return the model unchanged: the pairs are counted on Spark."""
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the number of training pairs of each item in every row, float32[m, items]."""
        return np.tile(self.pair_counts.astype(np.float32), (len(histories), 1))


class _FixedItems(Recommender):
    """A model of fixed item factors that folds users in."""

    def __init__(self, items: np.ndarray, params: SparkALSParameters) -> None:
        self.items = items
        self.params = params

    def fit(self, train: Interactions, features: Features | None = None) -> _FixedItems:
        """Return the model unchanged: Spark trains the items."""
        return self

    def solve_users(self, histories: csr_array) -> np.ndarray:
        axes = solvers.principal_axes(self.items) if self.params.implicit else None
        return self.params.solve_rows(linalg.arrays(histories), self.items, axes)

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of users who are folded in, float32[m, items], NaN for items without a
        factor."""
        scores = self.solve_users(histories.values) @ self.items.T
        scores[:, ~self.items.any(axis=1)] = np.nan
        return scores.astype(np.float32, copy=False)

    def top_k(self, histories: Histories, selection: Selection, users: np.ndarray | None = None) -> TopItems:
        """Return the lists of users who are folded in (:meth:`recsys.recommender.Recommender.top_k`)."""
        has_factor = np.asarray(self.items.any(axis=1))
        sorted_items = SortedItems.from_factors(self.items, has_factor)
        return sorted_items.top_k(self.solve_users(histories.values), selection)
