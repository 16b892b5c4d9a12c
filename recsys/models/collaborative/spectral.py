"""The model ``spectral``: it smooths histories over the graph of items that the same users like."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array
from sklearn.utils.extmath import randomized_svd

from recsys import linalg
from recsys.logging import log_phase
from recsys.models.collaborative.fading import Fading
from recsys.models.collaborative.linear import Linear, liked, liked_columns
from recsys.parameters import STRICT
from recsys.types import Features, Interactions

POWER, OVERSAMPLE = 4, 32
"""Accuracy of the randomized SVD: its power iterations, and the fewest extra vectors.

The number of extra vectors is ``OVERSAMPLE`` or a quarter of the rank, whichever is larger. Larger
numbers make the last singular vectors more accurate.
"""

MOST_ITEMS_OF_GRAPH = 8192
"""The largest number of items of which the graph is kept as a dense matrix, at most 256 MiB, once it was needed.

With more items, each history walks over the likes of the users who share an item with it.
"""


@dataclass(config=STRICT)
class Spectral(Fading, Linear):
    """Graph filter in closed form: fast, for sparse likes and a large catalogue.

    P is the 0/1 matrix of likes (users, items). D_users and D_items are the diagonal matrices of the
    numbers of likes of users and of items, and R = D_users^−½ P D_items^−½. V (items, rank) has the
    first ``rank`` right singular vectors of R. The scores of a history p, a row of P, are

        p (RᵀR + low · D_items^−½ V Vᵀ D_items^½)

    The first term smooths the history over neighbouring items of the graph. The second term keeps
    only the low frequencies of the graph; with ``low = 0`` it is left out. Scores are NaN for items
    that nobody liked in training, and for a history without a liked item that somebody liked in
    training. The model keeps the likes, and 4 · rank · items bytes. The singular vectors come from
    a seeded randomized method, so the last of them are approximate.

    References: Shen et al., CIKM 2021 (GF-CF); Halko, Martinsson and Tropp, SIAM Review 2011
    (randomized SVD).
    """

    STATE: ClassVar = {
        "vectors_": "float32[items, rank]",
        "root_": "float32[items]",
        "by_item_": "csr float32[items, users]",
        "known_": "bool[items]",
    }
    SPACE: ClassVar = {"rank": (16, 1024), "low": (0.0, 2.0)}
    SOURCE: ClassVar = "spectral"

    rank: Annotated[
        int,
        Field(
            ge=1,
            description="number of singular vectors, the low frequencies; at most the number of users and items",
        ),
    ] = 256
    low: Annotated[float, Field(ge=0, description="weight of the low frequencies; 0 leaves the neighbours alone")] = 0.3
    seed: Annotated[int, Field(ge=0, description="seed of the randomized singular value decomposition")] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the first singular vectors of the normalized likes, and return the model.

        ``features`` is not used.
        """
        matrix = train.matrix()
        self.known_ = liked_columns(matrix)
        likes = liked(matrix, binary=True)
        self.root_ = np.sqrt(np.maximum(1, np.bincount(likes.indices, minlength=matrix.shape[1]))).astype(np.float32)
        n = np.diff(likes.indptr)
        likes.data = (1 / np.sqrt(np.repeat(n, n)) / self.root_[likes.indices]).astype(np.float32)
        self.by_item_ = likes.T.tocsr()
        rank = min(self.rank, *likes.shape)
        users, items = likes.shape
        with linalg.one_blas_thread(), log_phase("spectral: singular vectors", users=users, items=items, rank=rank):
            _, _, rows = randomized_svd(
                likes,
                rank,
                n_oversamples=max(OVERSAMPLE, rank // 4),
                n_iter=POWER,
                power_iteration_normalizer="QR",
                random_state=self.seed,
            )
        self.vectors_ = np.ascontiguousarray(rows.T.astype(np.float32))
        return self

    def _apply(self, strengths: csr_array) -> np.ndarray:
        scores = self._smooth(strengths)
        spectrum = (strengths / self.root_) @ self.vectors_
        scores += self.low * (spectrum @ (self.vectors_ * self.root_[:, None]).T)
        return scores

    def _smooth(self, strengths: csr_array) -> np.ndarray:
        """Return the scores of the first term, strengths · RᵀR, float32[m, items]."""
        items, users = self.by_item_.shape
        if items <= MOST_ITEMS_OF_GRAPH:
            return linalg.multiply_dense(linalg.arrays(strengths), self._item_graph())
        by_user = linalg.arrays(self.by_item_.T.tocsr())
        return linalg.dense_two_hops(linalg.arrays(strengths), linalg.arrays(self.by_item_), by_user, users, items)

    def _item_graph(self) -> np.ndarray:
        """Return RᵀR, float32[items, items]. It is computed once after each fit."""
        cached: tuple[csr_array, np.ndarray] | None = self.__dict__.get("_cached_graph")
        if cached is None or cached[0] is not self.by_item_:
            by_user = linalg.arrays(self.by_item_.T.tocsr())
            graph = linalg.dense_product(linalg.arrays(self.by_item_), by_user, self.by_item_.shape[0])
            cached = (self.by_item_, graph)
            # Not a field of the model's dataclass, whose fields are the parameters.
            self.__dict__["_cached_graph"] = cached
        return cached[1]

    def _weights(self, rows: np.ndarray, item: int) -> np.ndarray:
        item_users = self.by_item_[[item]].T.astype(np.float64)
        graph_weight = (self.by_item_[rows].astype(np.float64) @ item_users).toarray()[:, 0]
        frequency_weight = self.vectors_[rows].astype(np.float64) @ self.vectors_[item].astype(np.float64)
        return graph_weight + self.low * frequency_weight / self.root_[rows] * self.root_[item]
