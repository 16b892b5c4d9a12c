"""The model ``ease``: weights between items that best predict each liked item from the other likes.

The weights are computed in closed form.
"""

from __future__ import annotations

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
from recsys.models.collaborative.linear import Linear, liked, liked_columns
from recsys.parameters import STRICT
from recsys.types import Features, Interactions


@dataclass(config=STRICT)
class EASE(Fading, Linear):
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
        self.known_ = liked_columns(matrix)
        items = int(self.known_.sum())
        need = 14 * items**2 / 2**20
        if need > self.memory_mb:
            raise InputError(
                f"model 'ease': {items:,} liked items need {need:,.0f} MiB, more than memory_mb = {self.memory_mb:,}. "
                "Raise it, drop rare items (the `filter` section), or use 'itemknn', 'rp3beta' or 'spectral'"
            )
        likes = csr_array(liked(matrix, binary=True)[:, self.known_])
        likes = likes[np.diff(likes.indptr) > 0]
        # With few users the inverse of the users' Gram matrix is smaller; 4 is where it becomes
        # faster.
        invert = _inverse_by_users if 4 * likes.shape[0] < items else _inverse
        with one_blas_thread(), log_phase("ease: invert the Gram matrix", users=likes.shape[0], items=items):
            inverse = invert(likes, self.reg)
        inverse /= -np.diag(inverse)
        np.fill_diagonal(inverse, 0)
        self.weights_ = inverse.astype(np.float32, order="C")
        return self

    def _apply(self, strengths: csr_array) -> np.ndarray:
        scores = np.zeros(strengths.shape, dtype=np.float32)
        scores[:, self.known_] = strengths[:, self.known_] @ self.weights_
        return scores

    def _weights(self, rows: np.ndarray, item: int) -> np.ndarray:
        weight_row = np.cumsum(self.known_) - 1
        return self.weights_[weight_row[rows], weight_row[item]].astype(np.float64)


def _inverse(likes: csr_array, reg: float) -> np.ndarray:
    """Return (PᵀP + reg·I)⁻¹, float64[items, items], where P is the matrix of likes.

    Args:
        likes: P, csr (users, items) of 0 and 1.
        reg: the regularization.
    """
    # The products are counts, which float32 holds exactly below 2**24.
    gram = dense_product(arrays(likes.T.tocsr()), arrays(likes), likes.shape[1])
    gram = gram.astype(np.float64, order="F")
    gram[np.diag_indices(len(gram))] += reg
    return inv(gram, overwrite_a=True, check_finite=False, assume_a="pos", lower=True)


def _inverse_by_users(likes: csr_array, reg: float) -> np.ndarray:
    """Return the same matrix as :func:`_inverse`, faster if there are few users.

    By Woodbury's identity it is (I − Pᵀ(PPᵀ + reg·I)⁻¹P) / reg.
    """
    gram = (likes @ likes.T).toarray().astype(np.float64)
    gram[np.diag_indices(len(gram))] += reg
    inverse = (likes.T @ np.linalg.inv(gram)) @ likes
    inverse /= -reg
    inverse[np.diag_indices(len(inverse))] += 1 / reg
    return inverse
