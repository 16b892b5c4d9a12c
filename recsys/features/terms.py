"""Features -> weighted terms, and what terms tell of factors: shared by the models and by Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize

from recsys import linalg
from recsys.errors import ConfigError
from recsys.features.encoding import columns_by_field
from recsys.types import Features

T = TypeVar("T")
Scheme = Literal["tfidf", "bm25", "raw"]
K1, B = 1.2, 0.75
"""Okapi BM25's own defaults: how fast a repeated word saturates, and how much a long text is held against it."""


def require_features(features: Features | None, kind: str) -> Features:
    """Return the features, or say that the model cannot do without."""
    if features is None or not features.matrix.nnz:
        raise ConfigError(f"model '{kind}' needs item features: give [data] items a table with attributes or text.")
    return features


_REMEMBERED: WeakKeyDictionary[Features, dict[tuple[Any, ...], Any]] = WeakKeyDictionary()


def compute_once(features: Features, key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """Return ``make()``, once a ``key`` for as long as ``features``, whose arrays never change, is alive.

    Models that are fitted again and again on the same features, by a search say, share what depends on them alone.
    """
    known = _REMEMBERED.setdefault(features, {})
    if key not in known:
        known[key] = make()
    return known[key]


def weigh_terms(features: Features, scheme: Scheme = "tfidf", weights: dict[str, float] | None = None) -> csr_array:
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
    return compute_once(features, key, lambda: _weighted(features, scheme, dict(weights or {})))


def _weighted(features: Features, scheme: Scheme, weights: dict[str, float]) -> csr_array:
    parts, columns = [], []
    for name, own in columns_by_field(features).items():
        block = csr_array(features.matrix[:, own])
        parts.append(weights.pop(name, 1.0) * normalize(_damped(block, scheme)))
        columns.append(own)
    if weights:
        raise ConfigError(
            f"no features of field {sorted(weights)[0]!r}: the fields are {list(columns_by_field(features))}"
        )
    joined = csr_array(hstack(parts, format="csr"))[:, np.argsort(np.concatenate(columns))]
    joined.eliminate_zeros()
    joined.sort_indices()
    return csr_array(normalize(joined)).astype(np.float32)


def add_constant_column(terms: csr_array) -> csr_array:
    """Return the terms and one more column of ones."""
    return csr_array(hstack([terms, np.ones((terms.shape[0], 1), dtype=np.float32)], format="csr"))


def predict_cold_factors(
    terms: csr_array, factors: np.ndarray, warm: np.ndarray, liked_by: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[items, rank] and bool[items]: factors, those of cold items from their terms; and who has one.

    W minimises Σ_i n_i^½ |y_i − f_i·W|² + ``ridge``·|W|² over warm items, n_i = ``liked_by``; a cold item gets f_i·W.
    Warm items keep their factors. A cold item without a term has none.

    Args:
        terms: csr (items, terms), the last column ones: :func:`add_constant_column`.
        factors: float[items, rank], any numbers where ``warm``, bool[items], is False; some item is warm.
        liked_by: [items], > 0 where ``warm``.
    """
    told = np.diff(terms.indptr) > 1
    learned = linalg.ridge(terms[warm], factors[warm], ridge, np.sqrt(liked_by[warm]))
    return np.where(warm[:, None], factors, (terms @ learned).astype(np.float32)), warm | told


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
