"""Likes and content in one model: inside the factorization, inside the autoencoder, or behind the factors."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.linalg import inv
from scipy.sparse import csc_array, csr_array, vstack
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from recsys.als.parameters import AttributesParameters
from recsys.errors import InputError
from recsys.features.terms import (
    Scheme,
    add_constant_column,
    compute_once,
    predict_cold_factors,
    require_features,
    weigh_terms,
)
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.linear import Linear, liked, liked_columns
from recsys.models.content import filled, similar
from recsys.parameters import STRICT
from recsys.types import Features, Interactions

BLOCK = 1024
"""Rows or columns of a large matrix that are worked on at a time."""


@dataclass(config=STRICT)
class Attributes(ALS, AttributesParameters):
    """ALS that gives a new item the factor its attributes predict: *attributes → factors*.

    W minimises Σ_i n_i^½ |y_i − [f_i, 1]·W|² + ``ridge``·|W|² over the items somebody liked n_i times, with f the
    weighted features of :func:`recsys.features.terms.weigh_terms`; an item that nobody liked gets [f_i, 1]·W. The other
    factors are those of ALS. NaN for items with neither likes nor features.

    Reference: Gantner, Drumond, Freudenthaler, Rendle and Schmidt-Thieme, ICDM 2010.
    """

    NEEDS_FEATURES: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "attributes"

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Fit ALS, then the ridge regression from features to factors."""
        ALS.fit(self, train, features)
        terms = add_constant_column(weigh_terms(require_features(features, "attributes"), self.scheme, self.fields))
        liked_by = np.bincount(train.item[train.value > 0], minlength=len(train.items))
        if self.known_.any():
            self._keep(*predict_cold_factors(terms, self.item_factors_, self.known_, liked_by, self.ridge))
        return self


@dataclass(config=STRICT)
class ContentALS(ALS):
    """ALS in which content speaks by made-up users, so that it shapes the factors while they are learned.

    Every item stands for one who likes it and its ``neighbours`` nearest in content, each like weighing ``content``
    times what the usual like does. Every term of the features stands for one who likes the items that have it; such
    likes weigh as the term does in the item, ``terms`` times the usual like in the mean. So an item with few likes, or
    none, is placed by what it is like. A user is folded in as in ALS. NaN for items with neither likes nor features.

    Reference: Singh and Gordon, KDD 2008, for factors shared by likes and attributes.
    """

    NEEDS_FEATURES: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "content_als"

    alpha: Annotated[float, Field(ge=0)] = 100.0
    reg: Annotated[float, Field(gt=0)] = 0.1
    beta: Annotated[float, Field(ge=0)] = 0.01
    neighbours: Annotated[int, Field(ge=1)] = 5
    content: Annotated[float, Field(gt=0)] = 3.0
    terms: Annotated[float, Field(ge=0)] = 0.1
    scheme: Scheme = "tfidf"
    fields: dict[str, float] = Field(default_factory=dict)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn item factors from the users and the made-up users together."""
        known, matrix = require_features(features, "content_als"), train.matrix()
        weights = weigh_terms(known, self.scheme, self.fields)
        usual = np.median(matrix.data[matrix.data > 0]) if (matrix.data > 0).any() else 1.0
        parts = [matrix, self._items(known, weights, self.content * usual)]
        if self.terms and weights.nnz:
            parts.append(csr_array(weights.T) * np.float32(self.terms * usual / np.abs(weights.data).mean()))
        both = csr_array(vstack(parts, format="csr", dtype=np.float32))
        both.sort_indices()
        return self._keep(self._fit_kernel(both), liked_columns(both))

    def _items(self, known: Features, weights: csr_array, value: float) -> csr_array:
        """Return the made-up users that items stand for: float32[items with features, items]."""
        told = np.flatnonzero(filled(weights))
        key = ("near", self.scheme, *sorted(self.fields.items()), self.neighbours)
        near = np.column_stack([told, compute_once(known, key, lambda: similar(weights, told, self.neighbours)[0])])
        row, place = np.nonzero(near >= 0)
        likes = np.full(len(row), value, dtype=np.float32)
        return csr_array((likes, (row, near[row, place])), shape=(len(told), weights.shape[0]))


@dataclass(config=STRICT)
class SideEASE(Linear):
    """Linear autoencoder over likes and content at once: an item is a column of [P; γ·Fᵀ].

    P: 0/1 likes (users, items); F: the weighted features in ``dims`` latent dimensions, rows of length 1; γ makes the
    two blocks equally heavy, times ``content``. With X the stacked matrix,

        minimise |X − X W|² + λ|W|²  with diag W = 0        λ = ``reg`` · mean diagonal of X Xᵀ

    W is R = Xᵀ(XXᵀ + λI)⁻¹X, the minimum without the constraint, its diagonal taken out and column j divided by
    1 − R_jj: an item does not speak for itself. A user's scores are the history times W. Of XXᵀ and XᵀX the smaller is
    inverted: up to 12·side² bytes while fitting, 4·side² kept, side = min(users + dims, items); beyond ``memory_mb``
    the fit refuses before it allocates.

    References: Steck, WWW 2019; Jeunen, Van Balen and Goethals, RecSys 2020, for the side information.
    """

    STATE: ClassVar = ("rows_", "middle_", "latent_", "own_", "known_")
    NEEDS_FEATURES: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "side_ease"

    content: Annotated[float, Field(ge=0)] = 1.0
    reg: Annotated[float, Field(gt=0)] = 3.0
    dims: Annotated[int, Field(ge=1)] = 500
    scheme: Scheme = "tfidf"
    fields: dict[str, float] = Field(default_factory=dict)
    memory_mb: Annotated[int, Field(ge=1)] = 4096
    seed: Annotated[int, Field(ge=0)] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Invert the Gram matrix of the smaller side.

        Raises:
            InputError: it would not fit in ``memory_mb``.
        """
        known = require_features(features, "side_ease")
        terms = weigh_terms(known, self.scheme, self.fields)
        matrix = train.matrix()
        key = ("reduced", self.scheme, *sorted(self.fields.items()), self.dims, self.seed)
        latent = compute_once(known, key, lambda: reduced(terms, self.dims, self.seed))
        side = min(matrix.shape[0] + latent.shape[1], matrix.shape[1])
        if 12 * side**2 / 2**20 > self.memory_mb:
            raise InputError(
                f"model 'side_ease': a side of {side:,} needs {12 * side**2 / 2**20:,.0f} MiB, more than memory_mb = "
                f"{self.memory_mb:,}. Raise it, or use 'content_als', which needs none of it."
            )
        columns = liked_columns(matrix)
        self.known_ = columns | filled(terms)
        self.rows_ = liked(matrix, binary=True)
        balance = max(self.rows_.nnz, 1) / max(float((latent**2).sum()), 1e-12)  # without likes: content alone
        self.latent_ = (self.content * np.sqrt(balance) * latent).astype(np.float32)
        if side == matrix.shape[1]:
            self.middle_ = self._weights_of_items()
            self.own_ = np.diag(self.middle_).copy()
        else:
            self.middle_ = self._inverse_of_rows()
            self.own_ = self._diagonal()
        return self

    def _inverse_of_rows(self) -> np.ndarray:
        users, dims = self.rows_.shape[0], self.latent_.shape[1]
        gram = np.empty((users + dims, users + dims), dtype=np.float32)
        gram[:users, :users] = (self.rows_ @ self.rows_.T).toarray()
        gram[:users, users:] = self.rows_ @ self.latent_
        gram[users:, :users] = gram[:users, users:].T
        gram[users:, users:] = self.latent_.T @ self.latent_
        return _inverse(gram, self._penalty(gram))

    def _diagonal(self) -> np.ndarray:
        """Return float32[items]: R_jj = x_jᵀ (XXᵀ + λI)⁻¹ x_j, in blocks of items."""
        users, n = self.rows_.shape
        columns, found = csc_array(self.rows_), np.empty(n, dtype=np.float32)
        upper, cross, lower = self.middle_[:users, :users], self.middle_[:users, users:], self.middle_[users:, users:]
        for start in range(0, n, BLOCK):
            block = slice(start, min(n, start + BLOCK))
            likes, latent = columns[:, block], self.latent_[block]
            met = upper @ likes + 2 * cross @ latent.T
            found[block] = likes.multiply(met).sum(axis=0) + ((latent @ lower) * latent).sum(axis=1)
        return found

    def _weights_of_items(self) -> np.ndarray:
        gram = (self.rows_.T @ self.rows_).toarray() + self.latent_ @ self.latent_.T
        reg = self._penalty(gram)
        return np.eye(len(gram), dtype=np.float32) - np.float32(reg) * _inverse(gram, reg)

    def _penalty(self, gram: np.ndarray) -> float:
        """Return λ, the same for the Gram matrices of both sides, and above 0 where nothing is known."""
        return float(self.reg * gram.trace() / (self.rows_.shape[0] + self.latent_.shape[1])) or 1.0

    @property
    def _by_items(self) -> bool:
        return len(self.middle_) == len(self.known_)

    def _apply(self, strengths: csr_array) -> np.ndarray:
        if self._by_items:
            scores = strengths @ self.middle_
        else:
            stacked = np.hstack([(strengths @ self.rows_.T).toarray(), strengths @ self.latent_]) @ self.middle_
            users = self.rows_.shape[0]
            scores = np.ascontiguousarray((self.rows_.T @ stacked[:, :users].T).T)
            scores += stacked[:, users:] @ self.latent_.T
        row = np.repeat(np.arange(strengths.shape[0]), np.diff(strengths.indptr))
        scores[row, strengths.indices] -= strengths.data * self.own_[strengths.indices]
        return scores / (1 - self.own_)

    def _weights(self, rows: np.ndarray, item: int) -> np.ndarray:
        if self._by_items:
            own = self.own_[item]
            return np.where(rows == item, 0.0, self.middle_[rows, item]) / (1 - own)
        one = csr_array((np.ones(len(rows), np.float32), rows, np.arange(len(rows) + 1)), (len(rows), len(self.known_)))
        return self._apply(one)[:, item].astype(np.float64)


def reduced(terms: csr_array, dims: int, seed: int) -> np.ndarray:
    """Return float32[items, ≤ dims]: the terms in the space of their largest singular values; dense when they fit.

    Rows have length 1, those of items without terms are 0.
    """
    if dims >= min(terms.shape):
        return terms.toarray()
    return normalize(TruncatedSVD(dims, n_iter=2, random_state=seed).fit_transform(terms)).astype(np.float32)


def _inverse(gram: np.ndarray, reg: float) -> np.ndarray:
    """Return (gram + reg·I)⁻¹ of a symmetric float32 matrix, which is written over."""
    gram[np.diag_indices(len(gram))] += np.float32(reg)
    turned = gram.T  # itself, in the order that LAPACK wants
    return inv(turned, overwrite_a=True, check_finite=False, assume_a="pos", lower=True).T
