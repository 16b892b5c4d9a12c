"""Weight the features of items (words and attribute values), and predict item factors from them.

The local engine and the Spark engine both use these functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from scipy.sparse import csr_array, hstack

from recsys import linalg
from recsys.errors import ConfigError
from recsys.features.encoding import columns_by_field
from recsys.types import Features

T = TypeVar("T")
Scheme = Literal["tfidf", "bm25", "raw"]
"""How values are weighted, see :func:`weigh_terms`."""
K1 = 1.2
"""k₁ of BM25, the usual value. A higher k₁ lets a repeated word count more."""

B = 0.75
"""b of BM25, the usual value, in [0, 1]. A higher b lets the words of long texts count less."""


def require_features(features: Features | None, kind: str) -> Features:
    """Return ``features`` unchanged, after checking that there is at least one value.

    Args:
        features: the features of the items, or None.
        kind: the kind of the model that needs features, for the message.

    Raises:
        ConfigError: ``features`` is None or has no value.
    """
    if features is None or not features.matrix.nnz:
        raise ConfigError(f"model '{kind}' needs item features: give [data] items a table with attributes or text.")
    return features


_REMEMBERED: WeakKeyDictionary[Features, dict[tuple[Any, ...], Any]] = WeakKeyDictionary()


def compute_once(features: Features, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
    """Return the result of ``compute()``, which runs only once per ``features`` and ``key``.

    The result is stored as long as ``features`` exists. This is safe because the arrays of
    ``features`` never change. So models that are fitted repeatedly on the same features, for
    example in a search, share results that depend only on the features.

    Args:
        features: the object with which the result is stored.
        key: a name of the result, and all settings on which it depends. It must be hashable.
        compute: the function that computes the result.
    """
    cache = _REMEMBERED.setdefault(features, {})
    if key not in cache:
        cache[key] = compute()
    return cache[key]


def weigh_terms(features: Features, scheme: Scheme = "tfidf", weights: dict[str, float] | None = None) -> csr_array:
    """Return the weighted features of items as csr (items, features) of float32, with rows of
    length 1.

    The length is the Euclidean norm. The row of an item without features is zero. Each field is
    weighted separately, so that a field with a long text does not outweigh a field with three
    genres:

    1. A value v of the field is replaced: by log(1 + v) for ``tfidf``; by v(k₁ + 1) / (v + k₁(1 − b
    + b·size / mean size)) for ``bm25``, where the size is the sum of the item's values in the
    field; it stays as it is for ``raw``.
    2. The values are multiplied by the inverse document frequency of the feature (not for ``raw``).
    3. The values of the field are scaled to a vector of length 1, and multiplied by the weight of
    the field.

    Then the whole row is scaled to length 1. A field that is a vector of numbers, such as an
    embedding, is always ``raw``. If an item has no value of a field, its other fields get a larger
    share.

    References: Manning, Raghavan and Schütze 2008, 6.2 to 6.4 and 11.4.3. The inverse document
    frequency is the smoothed one of scikit-learn.

    Args:
        features: the features, with at least one column.
        scheme: "tfidf", "bm25" or "raw".
        weights: field -> weight. The weight of a field that is not named is 1.

    Raises:
        ConfigError: ``weights`` names a field that the features do not have.
    """
    key = ("weighted", scheme, *sorted((weights or {}).items()))
    return compute_once(features, key, lambda: _weigh_fields(features, scheme, dict(weights or {})))


def _weigh_fields(features: Features, scheme: Scheme, weights: dict[str, float]) -> csr_array:
    """Return the weighted features, as :func:`weigh_terms` defines them. ``weights`` is emptied."""
    # scikit-learn takes a second to import, and most processes that import this module weigh no terms.
    from sklearn.preprocessing import normalize

    parts = []
    columns = []
    for name, field_columns in columns_by_field(features).items():
        block = csr_array(features.matrix[:, field_columns])
        field_scheme = scheme
        # The numbers of a vector are not counts, which a rare word would outweigh.
        if name in features.dense:
            field_scheme = "raw"
        parts.append(weights.pop(name, 1.0) * normalize(_damp_and_idf(block, field_scheme)))
        columns.append(field_columns)
    if weights:
        raise ConfigError(
            f"no features of field {sorted(weights)[0]!r}: the fields are {list(columns_by_field(features))}"
        )
    joined = csr_array(hstack(parts, format="csr"))[:, np.argsort(np.concatenate(columns))]
    joined.eliminate_zeros()
    joined.sort_indices()
    return csr_array(normalize(joined)).astype(np.float32)


def add_constant_column(terms: csr_array) -> csr_array:
    """Return the csr matrix ``terms`` with one more column at its end, which has only ones."""
    return csr_array(hstack([terms, np.ones((terms.shape[0], 1), dtype=np.float32)], format="csr"))


def predict_cold_factors(
    terms: csr_array, factors: np.ndarray, warm: np.ndarray, liked_by: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the factors of cold items from their terms, and return the factors of all items.

    A warm item is one that somebody liked; the others are cold. Terms are weighted features. A
    ridge regression W from terms to factors is computed on the warm items. It minimises Σ_i n_i^½
    |y_i − f_i·W|² + ``ridge``·|W|², where n_i is the number of users who like the item i, y_i its
    factor, and f_i its terms. A cold item with terms gets the factor f_i·W. Warm items keep their
    factors.

    Returns:
        The factors, float32[items, rank], and bool[items], whether each item has a factor. Cold
        items without terms have none; their rows have no meaning.

    Args:
        terms: csr (items, terms), with a last column of ones (:func:`add_constant_column`).
        factors: float32[items, rank]. Rows of cold items are ignored.
        warm: bool[items], the items that somebody liked. At least one must be True.
        liked_by: [items], the number of users who like each item.
        ridge: the regularization, > 0.
    """
    has_terms = np.diff(terms.indptr) > 1
    learned = linalg.ridge(terms[warm], factors[warm], ridge, np.sqrt(liked_by[warm]))
    return np.where(warm[:, None], factors, (terms @ learned).astype(np.float32)), warm | has_terms


def _damp_and_idf(block: csr_array, scheme: Scheme) -> csr_array:
    """Return the features of one field after the steps 1 and 2 of :func:`weigh_terms`."""
    from sklearn.feature_extraction.text import TfidfTransformer

    if scheme == "raw":
        return block
    damped = block.astype(np.float64)
    if scheme == "tfidf":
        damped.data = np.sign(block.data) * np.log1p(np.abs(block.data))
    else:
        length = np.asarray(block.sum(axis=1)).ravel()
        # Rows without words are left out of the mean, because a missing text is not a short one.
        mean_length = 1.0
        if (length > 0).any():
            mean_length = length[length > 0].mean()
        norm = 1 - B + B * length / mean_length
        damped.data = block.data * (K1 + 1) / (block.data + K1 * np.repeat(norm, np.diff(block.indptr)))
    return csr_array(TfidfTransformer(norm=None).fit_transform(damped))
