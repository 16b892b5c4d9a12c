"""Models whose scores are linear in the history.

The score is score(u, i) = Σ_j s_uj · W_ji over the liked items j of the history. The strength s_uj
of a liked item is 1 or its value, times its weight if the history fades
(:mod:`recsys.models.collaborative.fading`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from recsys.linalg import arrays, dense_product
from recsys.models.collaborative.fading import fading_weights
from recsys.recommender import Explanation, Recommender
from recsys.types import Histories


def liked(matrix: csr_array, columns: np.ndarray | None = None, *, binary: bool) -> csr_array:
    """Return ``matrix`` with only its entries > 0 (the likes), as csr of float32.

    The values are a copy. If all entries are kept, the result shares its index arrays with
    ``matrix``.

    Args:
        matrix: csr (rows, columns), usually (users, items).
        columns: bool[columns], the columns whose entries are kept. None: all.
        binary: whether every value is replaced by 1.
    """
    keep = matrix.data > 0
    if columns is not None:
        keep &= columns[matrix.indices]
    if not keep.all():
        indptr = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr].astype(matrix.indptr.dtype)
        matrix = csr_array((matrix.data[keep], matrix.indices[keep], indptr), shape=matrix.shape)
    data = np.ones(matrix.nnz, dtype=np.float32) if binary else matrix.data.astype(np.float32)
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def liked_columns(matrix: csr_array) -> np.ndarray:
    """Return bool[columns]: whether any row has a value > 0 in the column.

    Args:
        matrix: csr (rows, columns), usually (users, items).
    """
    return count_liked_rows(matrix) > 0


def count_liked_rows(matrix: csr_array) -> np.ndarray:
    """Return int64[columns]: the number of rows that have a value > 0 in the column.

    Args:
        matrix: csr (rows, columns), usually (users, items).
    """
    return np.bincount(matrix.indices[matrix.data > 0], minlength=matrix.shape[1])


class Linear(Recommender):
    """Base class of models that score an item by the weights between it and the liked items.

    score(u, i) = Σ_j s_uj · W_ji over the liked items j of the history of user u. W_ji is the
    weight between items j and i. The strength s_uj is 1 or the value of the history entry,
    multiplied by ``fading_weights`` if older entries count less. The *known* items are those that
    somebody liked in training; a subclass may add others. Scores are NaN for items that
    are not known, and for a history without a known liked item. A subclass sets ``known_``,
    bool[items], and implements ``_apply`` and ``_weights``.
    """

    EXPLAINS: ClassVar = ("history",)

    BINARY: ClassVar = True
    """Whether the strength of a liked item is 1. If False, it is the value of the history entry."""

    known_: np.ndarray  # bool[items]: somebody liked the item in training

    decay: float = 1.0
    recency_days: float | None = None

    @property
    def n_items(self) -> int:
        """The number of items that the model was fitted with."""
        return len(self.known_)

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each of m histories, float32[m, items].

        A score is NaN if the item is not known, or if no liked item of the history is known. The
        known items are usually those that somebody liked in training (see the class). ``users`` is
        not used.
        """
        strengths = self._strengths(histories)
        scores = self._apply(strengths)
        scores[:, ~self.known_] = np.nan
        scores[np.diff(strengths.indptr) == 0] = np.nan
        return scores

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether each of m histories has a liked item that is known.

        The known items are usually those that somebody liked in training (see the class).
        """
        return np.diff(liked(histories.values, self.known_, binary=True).indptr) > 0

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each entry of one history adds to the score of ``item``.

        An entry adds 0 if it is not a like, or if its item is not known (see the class). If the
        score is NaN, the result has no parts.

        The arguments are those of :meth:`recsys.recommender.Recommender.explain`.
        """
        score = self._score_of(history, item)
        if np.isnan(score):
            return Explanation(score)
        counted = self._counted(history)
        added = np.zeros(history.values.nnz)
        added[counted] = self._contributions(self._strengths(history), item)
        return Explanation(score, history=added)

    def _contributions(self, strengths: csr_array, item: int) -> np.ndarray:
        """Return what each liked item of one history adds to the score of ``item``, float64[nnz].

        Args:
            strengths: csr (1, items), the strengths of the liked items.
        """
        return strengths.data.astype(np.float64) * self._weights(strengths.indices, item)

    def _strengths(self, histories: Histories) -> csr_array:
        """Return the strength of each liked item that the model knows, csr (m, items) of float32."""
        strengths = liked(histories.values, self.known_, binary=self.BINARY)
        strengths.data *= fading_weights(histories, self._counted(histories), self.decay, self.recency_days)
        return strengths

    def _counted(self, histories: Histories) -> np.ndarray:
        """Return whether each entry is a liked item that the model knows, bool[nnz].

        These are the entries that :meth:`_strengths` keeps.
        """
        return (histories.values.data > 0) & self.known_[histories.values.indices]

    def _apply(self, strengths: csr_array) -> np.ndarray:
        """Return the scores, strengths · W, as a new array float32[m, items].

        Args:
            strengths: csr (m, items), the strengths of the liked items of m users.
        """
        raise NotImplementedError

    def _weights(self, rows: np.ndarray, item: int) -> np.ndarray:
        """Return the weights between some items and ``item``, W[rows, item], float64[len(rows)]."""
        raise NotImplementedError


class SparseLinear(Linear):
    """Base class of linear models that store the weights W in ``weights_``, csr (items, items)."""

    weights_: csr_array

    def _apply(self, strengths: csr_array) -> np.ndarray:
        return dense_product(arrays(strengths), arrays(self.weights_), self.weights_.shape[1])

    def _weights(self, rows: np.ndarray, item: int) -> np.ndarray:
        return self.weights_[rows][:, [item]].toarray()[:, 0].astype(np.float64)
