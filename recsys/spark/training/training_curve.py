"""Watching a training: users who teach nothing while it sweeps, some of whose pairs are hidden and to be found.

Their factors are what the model would give a newcomer (*fold-in*), so the curve shows when lists stop getting better,
and whether they get worse again. Reference: Liang, Krishnan, Hoffman and Jebara, WWW 2018, section 4 (strong
generalisation).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, vstack

from recsys import linalg
from recsys.evaluation.judging.judge import judge
from recsys.evaluation.judging.metrics import ndcg
from recsys.ranking import rank
from recsys.recommender import Recommender
from recsys.types import Features, Histories, Interactions

if TYPE_CHECKING:
    from recsys.spark.training.als import Params

MOST, ONE_IN, LEAST = 1000, 100, 30
"""Users that are watched: about so many, never more than one in 100; nobody where that would be fewer than 30."""
HIDDEN, TOP = 0.2, 10
"""Share of the watched users' pairs that is hidden; NDCG looks at so many places."""


@dataclass
class Curve:
    """What a training looked like. ``losses``: the objective after each sweep, over the users that teach. ``quality``:
    ``measure`` of ``watched`` users after each sweep; empty if nobody was watched.
    """

    losses: list[float] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    measure: str = ""
    watched: int = 0


def one_in(users: int) -> int:
    """Return n so that one user in n is watched; 0 where there are too few users."""
    every = max(ONE_IN, -(-users // MOST))
    return every if users >= LEAST * every else 0


@dataclass(frozen=True)
class Watched:
    """``seen``: csr (users, items), what a user's factors are solved from. ``hidden``: csr of the same shape."""

    seen: csr_array
    hidden: csr_array
    params: Params

    @classmethod
    def draw(cls, matrices: list[linalg.CSR], items: int, params: Params) -> Watched | None:
        """Hide pairs of these histories, liked ones if feedback is implicit; None if no user has both kinds left."""
        parts = [csr_array((v, i, p), shape=(len(p) - 1, items)) for p, i, v in matrices if len(p) > 1]
        if not parts:
            return None
        whole = csr_array(vstack(parts, format="csr"))
        row = np.repeat(np.arange(whole.shape[0]), np.diff(whole.indptr))
        taught = params.taught(whole.data)
        hide = taught & (np.random.default_rng(params.seed).random(whole.nnz) < HIDDEN)
        both = [np.bincount(row[kind], minlength=whole.shape[0]) > 0 for kind in (hide, taught & ~hide)]
        users = np.flatnonzero(both[0] & both[1])
        seen, hidden = (
            csr_array((whole.data[kind], (row[kind], whole.indices[kind])), shape=whole.shape)[users]
            for kind in (~hide, hide)
        )
        return cls(seen, hidden, params) if len(users) else None

    @property
    def users(self) -> int:
        """How many."""
        return int(self.seen.shape[0])

    @property
    def measure(self) -> str:
        """What :meth:`judge` returns."""
        return f"ndcg@{TOP}" if self.params.implicit else "rmse"

    def judge(self, items: np.ndarray) -> float:
        """Return the measure under float32[items, rank], 0 = never taught: mean NDCG of lists without what is seen, or
        the root mean squared error of the hidden values.
        """
        if self.params.implicit:
            topk = rank.recommend(_FoldIn(items, self.params), self.seen, TOP)
            return float(np.nanmean(ndcg(judge(topk, csr_array((self.hidden > 0).astype(np.float64))), TOP)))
        x = _FoldIn(items, self.params).factors(self.seen)
        row = np.repeat(np.arange(self.users), np.diff(self.hidden.indptr))
        error = self.hidden.data - np.einsum("nr,nr->n", x[row], items[self.hidden.indices])
        return float(np.sqrt(np.mean(error**2)))


class _FoldIn(Recommender):
    """Scores under item factors that are still being trained."""

    def __init__(self, items: np.ndarray, params: Params) -> None:
        self.items = items
        self.params = params

    def fit(self, train: Interactions, features: Features | None = None) -> _FoldIn:
        """Return the same: Spark does the training."""
        return self

    def factors(self, histories: csr_array) -> np.ndarray:
        axes = linalg.principal_axes(self.items) if self.params.implicit else None
        return self.params.solve(linalg.arrays(histories), self.items, axes)

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]."""
        scores = self.factors(histories.values) @ self.items.T
        scores[:, ~self.items.any(axis=1)] = np.nan
        return scores
