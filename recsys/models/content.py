"""Content: what an item is made of. A user is the weighted sum of the items in the history, in the same space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array, hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize

from recsys.data.features import fields
from recsys.errors import ConfigError
from recsys.kernels import select_top_k
from recsys.linalg import dense_product, nearest_rows
from recsys.models.popular import STRICT
from recsys.types import Features, Interactions

T = TypeVar("T")
Scheme = Literal["tfidf", "bm25", "raw"]
K1, B = 1.2, 0.75
"""Okapi BM25's own defaults: how fast a repeated word saturates, and how much a long text is held against it."""


@dataclass(config=STRICT)
class Content:
    """Items like the ones in the history, by their attributes and words alone; the only model that needs no crowd.

    score(u, i) = cos(Σ_j w_j t_j, t_i), where t is an item's weighted features (:func:`weighted`) and w_j is
    log(1 + |v|) with the sign of the value v, a dislike counting ``dislike`` as much. Recency is in the value:
    ``[weigh] half_life_days`` makes old events small. In [−1, 1]; NaN for items without features and for users
    whose history has none.

    With ``dims`` > 0 the cosine is taken after a truncated SVD, so that related words meet. ``fields`` weighs
    fields against each other, 1 unless named: ``{"overview": 2, "title": 0}``.

    Choose it for items without any history, or where a user has one or two events. Memory: the features, and
    4·dims·(items + features) bytes. Similarity stays sparse without ``dims``.
    """

    STATE: ClassVar = ("terms_", "basis_", "vectors_", "names_")
    sources: ClassVar = ("content",)

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
        known = required(features, "content")
        self.terms_ = weighted(known, self.scheme, self.fields)
        self.names_ = np.array(known.names, dtype=str)
        self.basis_ = np.zeros((self.terms_.shape[1], 0), dtype=np.float32)
        if 0 < self.dims < min(self.terms_.shape):
            svd = TruncatedSVD(self.dims, random_state=self.seed).fit(self.terms_)
            self.basis_ = np.ascontiguousarray(svd.components_.T, dtype=np.float32)
        self.vectors_ = normalize(self.terms_ @ self.basis_) if self.basis_.shape[1] else self.terms_
        return self

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]."""
        profiles, items = self.profiles(histories), self.vectors_
        if isinstance(items, csr_array):
            a, b = ((m.indptr, m.indices, m.data) for m in (csr_array(profiles), csr_array(items.T)))
            scores = dense_product(a, b, items.shape[0])
        else:
            scores = profiles @ items.T
        scores[:, ~filled(items)] = np.nan
        scores[~filled(profiles)] = np.nan
        return scores.astype(np.float32, copy=False)

    def knows(self, histories: csr_array) -> np.ndarray:
        """Return bool[m]: the history holds an item with features."""
        return filled(self.profiles(histories))

    def profiles(self, histories: csr_array) -> np.ndarray | csr_array:
        """Return users as rows of length 1 (or 0) in the space of ``vectors_`` (items)."""
        return normalize(self._evidence(histories) @ self.vectors_)

    def contributions(self, history: csr_array, item: int) -> np.ndarray:
        """Return float64[nnz]: what each entry of a (1, items) history adds to the score of ``item``."""
        evidence, vectors = self._evidence(history), self.vectors_
        own = vectors[history.indices] @ vectors[[item]].T
        own = own.toarray() if isinstance(own, csr_array) else own
        length = np.linalg.norm(_dense(evidence @ vectors))
        return evidence.data.astype(np.float64) * own.ravel() / (length or np.nan)

    def terms(self, history: csr_array, item: int) -> dict[str, float]:
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

    def _evidence(self, histories: csr_array) -> csr_array:
        weight = np.sign(histories.data) * np.log1p(np.abs(histories.data))
        weight = np.where(weight < 0, self.dislike * weight, weight).astype(np.float32)
        return csr_array((weight, histories.indices, histories.indptr), shape=histories.shape)


def required(features: Features | None, kind: str) -> Features:
    """Return the features, or say that the model cannot do without."""
    if features is None or not features.matrix.nnz:
        raise ConfigError(f"model '{kind}' needs item features: give [data] items a table with attributes or text.")
    return features


_REMEMBERED: WeakKeyDictionary[Features, dict[tuple[Any, ...], Any]] = WeakKeyDictionary()


def remember(features: Features, key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """Return ``make()``, once a ``key`` for as long as ``features``, whose arrays never change, is alive.

    Models that are fitted again and again on the same features, by a search say, share what depends on them alone.
    """
    known = _REMEMBERED.setdefault(features, {})
    if key not in known:
        known[key] = make()
    return known[key]


def weighted(features: Features, scheme: Scheme = "tfidf", weights: dict[str, float] | None = None) -> csr_array:
    """Return float32 csr (items, features) with rows of length 1 (0 for an item without features).

    Each field apart: values are damped (``tfidf``: log(1 + v); ``bm25``: v(k₁ + 1)/(v + k₁(1 − b + b·length/mean
    length)); ``raw``: as they are), multiplied by the inverse document frequency (not for ``raw``), scaled to length 1,
    multiplied by the field's weight. So a long text does not drown three genres. A field without a value in a row
    leaves the others a larger share.

    References: Manning, Raghavan and Schütze 2008, 6.2 to 6.4 and 11.4.3; the idf is scikit-learn's, smoothed.

    Raises:
        ConfigError: ``weights`` names a field that the features do not have.
    """
    key = ("weighted", scheme, *sorted((weights or {}).items()))
    return remember(features, key, lambda: _weighted(features, scheme, dict(weights or {})))


def _weighted(features: Features, scheme: Scheme, weights: dict[str, float]) -> csr_array:
    parts, columns = [], []
    for name, own in fields(features).items():
        block = csr_array(features.matrix[:, own])
        parts.append(weights.pop(name, 1.0) * normalize(_damped(block, scheme)))
        columns.append(own)
    if weights:
        raise ConfigError(f"no features of field {sorted(weights)[0]!r}: the fields are {list(fields(features))}")
    joined = csr_array(hstack(parts, format="csr"))[:, np.argsort(np.concatenate(columns))]
    joined.eliminate_zeros()
    joined.sort_indices()
    return csr_array(normalize(joined)).astype(np.float32)


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
    a, b = ((m.indptr, m.indices, m.data) for m in (csr_array(vectors[rows]), csr_array(vectors.T)))
    found, value = nearest_rows(a, b, np.ones(len(rows)), np.ones(vectors.shape[0]), 0.0, k, np.asarray(rows))
    none = ~(value > 0)
    found[none], value[none] = -1, np.nan
    return found, value


def _damped(block: csr_array, scheme: Scheme) -> csr_array:
    if scheme == "raw":
        return block
    damped = block.astype(np.float64)
    if scheme == "tfidf":
        damped.data = np.sign(block.data) * np.log1p(np.abs(block.data))
    else:
        length = np.asarray(block.sum(axis=1)).ravel()
        norm = 1 - B + B * length / (length[length > 0].mean() if (length > 0).any() else 1.0)
        damped.data = block.data * (K1 + 1) / (block.data + K1 * np.repeat(norm, np.diff(block.indptr)))
    return csr_array(TfidfTransformer(norm=None).fit_transform(damped))


def filled(rows: np.ndarray | csr_array) -> np.ndarray:
    """Return bool[m]: the row is not all zero."""
    if isinstance(rows, csr_array):
        return np.asarray(abs(rows).sum(axis=1)).ravel() > 0
    return np.abs(rows).sum(axis=1) > 0


def _2d(rows: np.ndarray | csr_array) -> np.ndarray:
    return rows.toarray() if isinstance(rows, csr_array) else rows


def _dense(row: np.ndarray | csr_array) -> np.ndarray:
    return np.asarray(_2d(row)).ravel()
