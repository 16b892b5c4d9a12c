"""Content: what an item is made of. A user is the weighted sum of the items in the history, in the same space."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from recsys.features.terms import Scheme, require_features, weigh_terms
from recsys.kernels import select_top_k
from recsys.linalg import arrays, dense_product, nearest_rows
from recsys.parameters import STRICT
from recsys.recommender import Explanation, Recommender
from recsys.types import Features, Histories, Interactions


@dataclass(config=STRICT)
class Content(Recommender):
    """Items like the ones in the history, by their attributes and words alone; the only model that needs no crowd.

    score(u, i) = cos(Σ_j w_j t_j, t_i), where t is an item's weighted features (:func:`weigh_terms`) and w_j is
    log(1 + |v|) with the sign of the value v, a dislike counting ``dislike`` as much. Recency is in the value:
    ``[weigh] half_life_days`` makes old events small. In [−1, 1]; NaN for items without features and for users
    whose history has none.

    With ``dims`` > 0 the cosine is taken after a truncated SVD, so that related words meet. ``fields`` weighs
    fields against each other, 1 unless named: ``{"overview": 2, "title": 0}``.

    Choose it for items without any history, or where a user has one or two events. Memory: the features, and
    4·dims·(items + features) bytes. Similarity stays sparse without ``dims``.
    """

    STATE: ClassVar = ("terms_", "basis_", "vectors_", "names_")
    NEEDS_FEATURES: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    EXPLAINS: ClassVar = ("history", "features")
    SOURCE: ClassVar = "content"

    scheme: Scheme = "tfidf"
    fields: dict[str, float] = Field(default_factory=dict)
    dims: Annotated[int, Field(ge=0)] = 0
    dislike: Annotated[float, Field(ge=0)] = 0.5
    seed: Annotated[int, Field(ge=0)] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Weigh the features; what people did is not looked at.

        Raises:
            ConfigError: no features, or a weight for a field that they do not have.
        """
        known = require_features(features, "content")
        self.terms_ = weigh_terms(known, self.scheme, self.fields)
        self.names_ = np.array(known.names, dtype=str)
        self.basis_ = np.zeros((self.terms_.shape[1], 0), dtype=np.float32)
        if 0 < self.dims < min(self.terms_.shape):
            svd = TruncatedSVD(self.dims, random_state=self.seed).fit(self.terms_)
            self.basis_ = np.ascontiguousarray(svd.components_.T, dtype=np.float32)
        self.vectors_ = normalize(self.terms_ @ self.basis_) if self.basis_.shape[1] else self.terms_
        return self

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]."""
        profiles, items = self.profiles(histories), self.vectors_
        if isinstance(items, csr_array):
            scores = dense_product(arrays(csr_array(profiles)), arrays(csr_array(items.T)), items.shape[0])
        else:
            scores = profiles @ items.T
        scores[:, ~filled(items)] = np.nan
        scores[~filled(profiles)] = np.nan
        return scores.astype(np.float32, copy=False)

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: the history holds an item with features."""
        return filled(self.profiles(histories))

    def profiles(self, histories: Histories) -> np.ndarray | csr_array:
        """Return users as rows of length 1 (or 0) in the space of ``vectors_`` (items)."""
        return normalize(self._evidence(histories) @ self.vectors_)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each entry of the history, and what each feature of ``item``, adds to its score."""
        score = self._score_of(history, item)
        if np.isnan(score):
            return Explanation(score)
        evidence = self._evidence(history)
        cosine = self.vectors_[history.values.indices] @ self.vectors_[[item]].T
        if isinstance(cosine, csr_array):
            cosine = cosine.toarray()
        length = np.linalg.norm(_dense(evidence @ self.vectors_))
        added = evidence.data.astype(np.float64) * cosine.ravel() / length
        return Explanation(score, history=added, features=self._feature_contributions(history, item))

    def _feature_contributions(self, history: Histories, item: int) -> dict[str, float]:
        """Return feature -> what it adds to the score of ``item``, largest first; the values sum to the score."""
        profile = _dense(self.profiles(history)).astype(np.float64)
        row = self.terms_[[item]]
        weight = row.data.astype(np.float64)
        if self.basis_.shape[1]:
            projected = _dense(row @ self.basis_)
            profile = self.basis_ @ profile / (np.linalg.norm(projected) or np.nan)
        parts = weight * profile[row.indices]
        order = np.argsort(-parts, kind="stable")
        return {str(self.names_[row.indices[k]]): float(parts[k]) for k in order if parts[k] != 0}

    def _evidence(self, histories: Histories) -> csr_array:
        """Return float32 csr (m, items): how much each entry says for, or below 0 against, its item."""
        values = histories.values
        weight = np.sign(values.data) * np.log1p(np.abs(values.data))
        weight = np.where(weight < 0, self.dislike * weight, weight).astype(np.float32)
        return csr_array((weight, values.indices, values.indptr), shape=values.shape)


def similar(
    vectors: np.ndarray | csr_array, rows: np.ndarray, k: int, block: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Return int32[m, k] nearest other rows by dot product and their float32[m, k] similarity, best first.

    ``vectors``: rows of length 1, so that the product is the cosine: items, or users' profiles. Only similarities
    above 0 count; -1 and NaN pad. Ties: the lower row. Memory: ``block`` rows of dense similarities at a time.
    """
    if isinstance(vectors, csr_array):
        return _similar_sparse(vectors, rows, k)
    found = np.full((len(rows), k), -1, dtype=np.int32)
    value = np.full((len(rows), k), np.nan, dtype=np.float32)
    for start in range(0, len(rows), block):
        part = np.asarray(rows[start : start + block], dtype=np.int64)
        near = np.ascontiguousarray(vectors[part] @ vectors.T, dtype=np.float32)
        near[near <= 0] = np.nan
        chosen = select_top_k(near, np.arange(len(part) + 1), part, k)
        found[start : start + block], value[start : start + block] = chosen
    return found, value


def _similar_sparse(vectors: csr_array, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = arrays(csr_array(vectors[rows])), arrays(csr_array(vectors.T))
    found, value = nearest_rows(a, b, np.ones(len(rows)), np.ones(vectors.shape[0]), 0.0, k, np.asarray(rows))
    none = ~(value > 0)
    found[none], value[none] = -1, np.nan
    return found, value


def filled(rows: np.ndarray | csr_array) -> np.ndarray:
    """Return bool[m]: the row is not all zero."""
    if isinstance(rows, csr_array):
        return np.asarray(abs(rows).sum(axis=1)).ravel() > 0
    return np.abs(rows).sum(axis=1) > 0


def _2d(rows: np.ndarray | csr_array) -> np.ndarray:
    return rows.toarray() if isinstance(rows, csr_array) else rows


def _dense(row: np.ndarray | csr_array) -> np.ndarray:
    return np.asarray(_2d(row)).ravel()
