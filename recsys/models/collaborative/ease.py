"""The model ``ease``: weights between items that best predict each liked item from the other likes.

The weights are computed in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.linalg import inv
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.linalg import arrays, dense_product, one_blas_thread
from recsys.logging import log_phase
from recsys.models.collaborative.fading import Fading
from recsys.models.collaborative.linear import Linear, count_liked_rows, liked
from recsys.parameters import STRICT
from recsys.recommender import FitsFromSums
from recsys.types import Features, Histories, Interactions


@dataclass(config=STRICT)
class EASE(Fading, Linear, FitsFromSums):
    """Shallow linear autoencoder with one parameter to tune, for up to a few thousand items.

    With P the 0/1 matrix of likes, the weights W

        minimise |P − P W|² + reg · |W|²   with diag W = 0

    The solution is W_ij = −C_ij / C_jj for i ≠ j, with C = (PᵀP + reg · I)⁻¹. The scores of a user
    are the user's row of P times W.

    Only items that somebody liked in training take part; the scores of the others are NaN. So are
    all scores for a history without a liked item that takes part. With n such items the fit needs
    14 · n² bytes, of which 4 · n² are kept, and its time grows with n³. If the fit would need more
    than ``memory_mb``, it raises an error before it allocates memory.

    Reference: Steck, WWW 2019.
    """

    STATE: ClassVar = {"weights_": "float32[liked, liked]", "known_": "bool[items]"}
    SPACE: ClassVar = {"reg": (1.0, 10_000.0)}
    SOURCE: ClassVar = "ease"

    reg: Annotated[float, Field(gt=0, description="regularization; higher values keep weights smaller")] = 250.0
    memory_mb: Annotated[
        int, Field(ge=1, description="memory for the matrices of a fit, in MiB; a fit that needs more is refused")
    ] = 4096

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the item-to-item weights from the inverse of a Gram matrix, and return the model.

        ``features`` is not used.

        Raises:
            InputError: the matrices would not fit in ``memory_mb``.
        """
        matrix = train.matrix()
        self.prepare_sums(count_liked_rows(matrix))
        likes = self._known_likes(matrix)
        likes = likes[np.diff(likes.indptr) > 0]
        users, items = likes.shape
        with one_blas_thread(), log_phase("ease: invert the Gram matrix", users=users, items=items):
            # With few users the inverse of the users' Gram matrix is smaller; 4 is where it becomes
            # faster.
            if 4 * users < items:
                inverse = _inverse_by_users(likes, self.reg)
            else:
                inverse = _inverse(_gram(likes), self.reg)
        self._store_weights(inverse)
        return self

    def prepare_sums(self, likes: np.ndarray) -> None:
        """Store which items somebody liked.

        Args:
            likes: int[items], the number of users who like each item.

        Raises:
            InputError: the matrices would not fit in ``memory_mb``.
        """
        self.known_ = likes > 0
        items = int(self.known_.sum())
        need = 14 * items**2 / 2**20
        if need > self.memory_mb:
            raise InputError(
                f"model 'ease': {items:,} liked items need {need:,.0f} MiB, more than memory_mb = {self.memory_mb:,}. "
                "Raise it, drop rare items (the `filter` section), or use 'itemknn', 'rp3beta' or 'spectral'"
            )

    def sum_users(self, histories: Histories) -> dict[str, np.ndarray | csr_array]:
        """Return the Gram matrix PᵀP of the likes of these users.

        The result is a dict with one key, ``gram``: float32[liked, liked], the number of these
        users who like both items, for all pairs of the items that somebody liked.
        """
        return {"gram": _gram(self._known_likes(histories.values))}

    def fit_sums(self, sums: Mapping[str, np.ndarray | csr_array]) -> None:
        """Compute the weights from the inverse of the Gram matrix.

        Args:
            sums: a dict with the key ``gram``, as :meth:`sum_users` returns it, for all users.
        """
        gram = np.asarray(sums["gram"])
        with one_blas_thread(), log_phase("ease: invert the Gram matrix", items=len(gram)):
            inverse = _inverse(gram, self.reg)
        self._store_weights(inverse)

    def _known_likes(self, matrix: csr_array) -> csr_array:
        """Return P: the likes of a matrix as 1, csr (users, items that somebody liked)."""
        return csr_array(liked(matrix, binary=True)[:, self.known_])

    def _store_weights(self, inverse: np.ndarray) -> None:
        """Store W, computed from C = (PᵀP + reg · I)⁻¹, which is overwritten."""
        inverse /= -np.diag(inverse)
        np.fill_diagonal(inverse, 0)
        self.weights_ = inverse.astype(np.float32, order="C")

    def _apply(self, strengths: csr_array) -> np.ndarray:
        scores = np.zeros(strengths.shape, dtype=np.float32)
        scores[:, self.known_] = strengths[:, self.known_] @ self.weights_
        return scores

    def _weights(self, rows: np.ndarray, item: int) -> np.ndarray:
        weight_row = np.cumsum(self.known_) - 1
        return self.weights_[weight_row[rows], weight_row[item]].astype(np.float64)


def _gram(likes: csr_array) -> np.ndarray:
    """Return PᵀP, float32[items, items], for the likes P, csr (users, items) of 0 and 1."""
    # The products are counts, which float32 holds exactly below 2**24.
    return dense_product(arrays(likes.T.tocsr()), arrays(likes), likes.shape[1])


def _inverse(gram: np.ndarray, reg: float) -> np.ndarray:
    """Return (PᵀP + reg·I)⁻¹, float64[items, items].

    Args:
        gram: PᵀP, float32[items, items].
        reg: the regularization.
    """
    gram = gram.astype(np.float64, order="F")
    gram[np.diag_indices(len(gram))] += reg
    return inv(gram, overwrite_a=True, check_finite=False, assume_a="pos", lower=True)


def _inverse_by_users(likes: csr_array, reg: float) -> np.ndarray:
    """Return the same matrix as :func:`_inverse` for the likes P, faster if there are few users.

    By Woodbury's identity it is (I − Pᵀ(PPᵀ + reg·I)⁻¹P) / reg.
    """
    gram = (likes @ likes.T).toarray().astype(np.float64)
    gram[np.diag_indices(len(gram))] += reg
    inverse = (likes.T @ np.linalg.inv(gram)) @ likes
    inverse /= -reg
    inverse[np.diag_indices(len(inverse))] += 1 / reg
    return inverse
