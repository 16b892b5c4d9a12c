"""Scores that are linear in the history: score(u, i) = Σ_j s_uj · W_ji over the liked items j of the history."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array


def liked(matrix: csr_array, known: np.ndarray | None = None, *, binary: bool) -> csr_array:
    """Return the entries with value > 0, in ``known`` (bool[columns]) columns if given, as float32 or, binary, as ones.

    Where these are all there are, the result shares its structure with ``matrix``.
    """
    keep = matrix.data > 0
    if known is not None:
        keep &= known[matrix.indices]
    if not keep.all():
        indptr = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr].astype(matrix.indptr.dtype)
        matrix = csr_array((matrix.data[keep], matrix.indices[keep], indptr), shape=matrix.shape)
    data = np.ones(matrix.nnz, dtype=np.float32) if binary else matrix.data.astype(np.float32)
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def liked_columns(matrix: csr_array) -> np.ndarray:
    """Return bool[columns]: some row has a value > 0 there."""
    return np.bincount(matrix.indices[matrix.data > 0], minlength=matrix.shape[1]) > 0


class Linear:
    """What the item-to-item models share. NaN: no liked item that the model knows, or an item nobody liked.

    A model gives ``known_``, ``_apply`` (strengths -> dense scores) and ``_weights`` (some of a column of W).
    """

    BINARY: ClassVar = True
    """Whether a liked item counts as 1 or by its value."""

    known_: np.ndarray

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]."""
        strengths = liked(histories, self.known_, binary=self.BINARY)
        scores = self._apply(strengths)
        scores[:, ~self.known_] = np.nan
        scores[np.diff(strengths.indptr) == 0] = np.nan
        return scores

    def knows(self, histories: csr_array) -> np.ndarray:
        """Return bool[m]: the history holds a liked item that the model knows."""
        return np.diff(liked(histories, self.known_, binary=True).indptr) > 0

    def contributions(self, history: csr_array, item: int) -> np.ndarray:
        """Return float64[history.nnz]: what each entry of one history (1, items) adds to the score of ``item``.

        They sum to the score. 0 for entries that are not liked or not known; all NaN where the score is.
        """
        counts = (history.data > 0) & self.known_[history.indices]
        parts = np.full(history.nnz, 0.0 if counts.any() and self.known_[item] else np.nan)
        if counts.any() and self.known_[item]:
            strength = 1.0 if self.BINARY else history.data[counts].astype(np.float64)
            parts[counts] = strength * self._weights(history.indices[counts], item)
        return parts

    def _apply(self, strengths: csr_array) -> np.ndarray:
        """Return strengths · W, a new float32[m, items]."""
        raise NotImplementedError

    def _weights(self, rows: np.ndarray, item: int) -> np.ndarray:
        """Return float64[len(rows)]: W[rows, item]."""
        raise NotImplementedError
