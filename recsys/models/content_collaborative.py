"""Models that combine likes and item features: ``attributes``, ``content_als`` and ``side_ease``."""

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
    add_constant_column,
    compute_once,
    predict_cold_factors,
    require_features,
    weigh_terms,
)
from recsys.linalg import arrays, dense_product
from recsys.logging import log_phase
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.fading import Fading
from recsys.models.collaborative.linear import Linear, liked, liked_columns
from recsys.models.content import FieldWeights, TermScheme, nonzero_rows, similar
from recsys.parameters import STRICT
from recsys.types import Features, Interactions

BLOCK = 1024
"""Number of columns of a large matrix that are processed at a time."""

SHARED_NEIGHBOURS = 10
"""Number of nearest items that are computed for each item, if a model needs no more of them."""


@dataclass(config=STRICT)
class Attributes(ALS, AttributesParameters):
    """ALS that gives each new item the factor that a regression predicts from its attributes.

    A new item is one that nobody liked in training. The regression W minimises
    Σ_i n_i^½ |y_i − [f_i, 1]·W|² + ``ridge``·|W|² over the other items i. n_i is the number of
    likes of item i, y_i its factor, and f_i its weighted features
    (:func:`recsys.features.terms.weigh_terms`). A new item with features gets the factor [f_i,
    1]·W. The other items keep their factors of ALS. Scores are NaN for items with neither likes nor
    features, and for a history without a liked item that has a factor.

    Reference: Gantner, Drumond, Freudenthaler, Rendle and Schmidt-Thieme, ICDM 2010.
    """

    NEEDS_FEATURES: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "attributes"

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Fit ALS, then the ridge regression from features to factors, and return the model.

        Raises:
            ConfigError: there are no features, or a weight is given for a field that they do not
                have.
            InputError: the values are too large for ``alpha``, or the training diverged.
        """
        ALS.fit(self, train, features)
        return self.fit_new_items(train, features)

    def fit_new_items(self, train: Interactions, features: Features | None) -> Self:
        """Fit the ridge regression again, give its factors to the new items, and return the model.

        The factors of the other items stay. So this is all that needs to be done after a change of
        ``ridge``, ``scheme`` or ``fields``.

        Args:
            train, features: those of :meth:`fit`, which must have been called before.

        Raises:
            ConfigError: as in :meth:`fit`.
        """
        terms = add_constant_column(weigh_terms(require_features(features, "attributes"), self.scheme, self.fields))
        liked_by = np.bincount(train.item[train.value > 0], minlength=len(train.items))
        is_liked = liked_by > 0
        if is_liked.any():
            self._set_factors(*predict_cold_factors(terms, self.item_factors_, is_liked, liked_by, self.ridge))
        return self


@dataclass(config=STRICT)
class ContentALS(ALS):
    """ALS with artificial users who like similar items, so that features influence the item factors.

    There are two kinds of artificial users. First, each item with features has one artificial user,
    who likes the item and its ``neighbours`` nearest items by content. The value of these likes is
    ``content`` times the median value of a like. Second, each column of the features, such as a
    genre or a word, has one artificial user, who likes the items that have it. These values are
    proportional to the weight of the feature in the item, and on average ``terms`` times the median
    value of a like. So an item with few likes or none gets a factor near those of similar items.

    The factor of a real user is computed from the history, as in ALS. Scores are NaN for items with
    neither likes nor features, and for a history without a liked item that has a factor.

    Reference: Singh and Gordon, KDD 2008, for factors shared by likes and attributes.
    """

    NEEDS_FEATURES: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "content_als"
    # From longer factors its lists were worse, on citeulike-t by seven per cent.
    START_LENGTH: ClassVar[float] = 0.1

    alpha: Annotated[
        float, Field(ge=0, description="confidence of a stored pair: 1 + alpha·|value|; implicit feedback only")
    ] = 100.0
    reg: Annotated[float, Field(gt=0, description="λ, the regularization; higher values keep factors smaller")] = 0.1
    beta: Annotated[
        float, Field(ge=0, description="β: the part of the penalty that does not depend on the row's number of pairs")
    ] = 0.01
    neighbours: Annotated[
        int, Field(ge=1, description="number of similar items that the artificial user of an item likes")
    ] = 5
    content: Annotated[float, Field(gt=0, description="value of these likes, as a multiple of the median like")] = 3.0
    terms: Annotated[
        float, Field(ge=0, description="mean value of a like by the artificial user of a term; 0: no such users")
    ] = 0.1
    scheme: TermScheme = "tfidf"
    fields: FieldWeights = Field(default_factory=dict)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Learn item factors from the users and the artificial users, and return the model.

        Raises:
            ConfigError: there are no features, or a weight is given for a field that they do not
                have.
            InputError: the values are too large for ``alpha``, or the training diverged.
        """
        item_features = require_features(features, "content_als")
        matrix = train.matrix()
        self.objective.require_usable(float(np.abs(matrix.data).max(initial=0)))
        weights = weigh_terms(item_features, self.scheme, self.fields)
        likes = matrix.data[matrix.data > 0]
        median_like = np.median(likes) if len(likes) else 1.0
        blocks = [matrix, self._item_users(item_features, weights, self.content * median_like)]
        if self.terms and weights.nnz:
            scale = self.terms * median_like / np.abs(weights.data).mean()
            blocks.append(csr_array(weights.T) * np.float32(scale))
        all_users = csr_array(vstack(blocks, format="csr", dtype=np.float32))
        all_users.sort_indices()
        users, items = all_users.shape
        with log_phase("content_als: train factors", users=users, items=items, pairs=all_users.nnz, rank=self.rank):
            factors = self._train_factors(all_users)
        return self._set_factors(factors, liked_columns(all_users))

    def _item_users(self, item_features: Features, weights: csr_array, value: float) -> csr_array:
        """Return the likes of the artificial users for items, csr (items with features, items).

        The dtype is float32. There is one user for each item with features.
        """
        rows = np.flatnonzero(nonzero_rows(weights))
        # More neighbours take hardly more time, and models with other ``neighbours`` share them.
        computed = max(self.neighbours, SHARED_NEIGHBOURS)
        key = ("near", self.scheme, *sorted(self.fields.items()), computed)
        neighbours = compute_once(item_features, key, lambda: similar(weights, rows, computed)[0])
        liked_items = np.column_stack([rows, neighbours[:, : self.neighbours]])
        row, column = np.nonzero(liked_items >= 0)
        likes = np.full(len(row), value, dtype=np.float32)
        return csr_array((likes, (row, liked_items[row, column])), shape=(len(rows), weights.shape[0]))


@dataclass(config=STRICT)
class SideEASE(Fading, Linear):
    """Linear autoencoder like EASE that learns from likes and item features together.

    It uses the stacked matrix X = [P; γ·Fᵀ]. P is the 0/1 matrix of likes (users, items). F (items,
    dims) has the weighted features, reduced to ``dims`` dimensions, with rows of length 1. γ is such
    that the norm of the second block is ``content`` times that of the first. The weights W

        minimise |X − X W|² + λ|W|²  with diag W = 0        λ = ``reg`` · mean diagonal of X Xᵀ

    Without the constraint diag W = 0 the minimum is R = Xᵀ(XXᵀ + λI)⁻¹X. The constraint prevents an
    item from predicting itself. With it, W is R with a zero diagonal and column j divided by
    1 − R_jj. The scores of a user are the user's likes times W. Scores are NaN for items with
    neither likes nor features, and for a history without a liked item that has a score.

    The smaller one of XXᵀ and XᵀX is inverted. With side = min(users + dims, items), the fit needs
    up to 12·side² bytes, of which 4·side² are kept. If that is more than ``memory_mb``, the fit
    raises an error before it allocates memory.

    References: Steck, WWW 2019; Jeunen, Van Balen and Goethals, RecSys 2020, for the side
    information.
    """

    STATE: ClassVar = {
        "rows_": "csr float32[users, items]",
        "middle_": "float32[side, side]",
        "latent_": "float32[items, dims]",
        "own_": "float32[items]",
        "known_": "bool[items]",
    }
    NEEDS_FEATURES: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    SOURCE: ClassVar = "side_ease"

    content: Annotated[float, Field(ge=0, description="weight of the features against the likes; 1: equal")] = 1.0
    reg: Annotated[
        float, Field(gt=0, description="regularization, as a multiple of the mean diagonal of the Gram matrix")
    ] = 3.0
    dims: Annotated[int, Field(ge=1, description="number of latent dimensions of the features")] = 500
    scheme: TermScheme = "tfidf"
    fields: FieldWeights = Field(default_factory=dict)
    memory_mb: Annotated[
        int, Field(ge=1, description="memory for the matrices of a fit, in MiB; a fit that needs more is refused")
    ] = 4096
    seed: Annotated[int, Field(ge=0, description="seed of the truncated singular value decomposition")] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the weights from the inverse of the smaller Gram matrix, and return the model.

        Raises:
            ConfigError: there are no features, or a weight is given for a field that they do not
                have.
            InputError: the matrices would not fit in ``memory_mb``.
        """
        item_features = require_features(features, "side_ease")
        terms = weigh_terms(item_features, self.scheme, self.fields)
        matrix = train.matrix()
        key = ("reduced", self.scheme, *sorted(self.fields.items()), self.dims, self.seed)
        latent = compute_once(item_features, key, lambda: reduce_terms(terms, self.dims, self.seed))
        side = min(matrix.shape[0] + latent.shape[1], matrix.shape[1])
        if 12 * side**2 / 2**20 > self.memory_mb:
            raise InputError(
                f"model 'side_ease': a side of {side:,} needs {12 * side**2 / 2**20:,.0f} MiB, more than memory_mb = "
                f"{self.memory_mb:,}. Raise it, or use 'content_als', which needs none of it."
            )
        columns = liked_columns(matrix)
        self.known_ = columns | nonzero_rows(terms)
        self.rows_ = liked(matrix, binary=True)
        # Without any like the model is made of content alone.
        balance = max(self.rows_.nnz, 1) / max(float((latent**2).sum()), 1e-12)
        self.latent_ = (self.content * np.sqrt(balance) * latent).astype(np.float32)
        users, items = matrix.shape
        with log_phase("side_ease: invert the Gram matrix", users=users, items=items, side=side):
            if side == items:
                self.middle_ = self._item_weights()
                self.own_ = np.diag(self.middle_).copy()
            else:
                self.middle_ = self._inverse_row_gram()
                self.own_ = self._diagonal()
        return self

    def _inverse_row_gram(self) -> np.ndarray:
        """Return (XXᵀ + λI)⁻¹, float32[users + dims, users + dims]."""
        users, dims = self.rows_.shape[0], self.latent_.shape[1]
        gram = np.empty((users + dims, users + dims), dtype=np.float32)
        gram[:users, :users] = (self.rows_ @ self.rows_.T).toarray()
        gram[:users, users:] = self.rows_ @ self.latent_
        gram[users:, :users] = gram[:users, users:].T
        gram[users:, users:] = self.latent_.T @ self.latent_
        return _inverse(gram, self._penalty(gram))

    def _diagonal(self) -> np.ndarray:
        """Return R_jj = x_jᵀ (XXᵀ + λI)⁻¹ x_j of each item j, float32[items], where x_j is column j of X."""
        users, n = self.rows_.shape
        columns = csc_array(self.rows_)
        diagonal = np.empty(n, dtype=np.float32)
        upper = self.middle_[:users, :users]
        cross = self.middle_[:users, users:]
        lower = self.middle_[users:, users:]
        for start in range(0, n, BLOCK):
            block = slice(start, min(n, start + BLOCK))
            likes = columns[:, block]
            latent = self.latent_[block]
            like_terms = likes.multiply(upper @ likes + 2 * cross @ latent.T).sum(axis=0)
            diagonal[block] = like_terms + ((latent @ lower) * latent).sum(axis=1)
        return diagonal

    def _item_weights(self) -> np.ndarray:
        items = self.rows_.shape[1]
        gram = dense_product(arrays(csr_array(self.rows_.T.tocsr())), arrays(self.rows_), items)
        gram += self.latent_ @ self.latent_.T
        reg = self._penalty(gram)
        # R = I − λ(XᵀX + λI)⁻¹, computed in the array of the inverse.
        weights = _inverse(gram, reg)
        weights *= -np.float32(reg)
        weights[np.diag_indices(items)] += 1
        return weights

    def _penalty(self, gram: np.ndarray) -> float:
        """Return λ, which is the same for both Gram matrices, and above 0 even for empty matrices."""
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
            return np.where(rows == item, 0.0, self.middle_[rows, item]) / (1 - self.own_[item])
        one_like_each = csr_array(
            (np.ones(len(rows), np.float32), rows, np.arange(len(rows) + 1)), (len(rows), len(self.known_))
        )
        return self._apply(one_like_each)[:, item].astype(np.float64)


def reduce_terms(terms: csr_array, dims: int, seed: int) -> np.ndarray:
    """Reduce the features of items to at most ``dims`` dimensions by a truncated SVD.

    The result is a dense array of float32 with one row per item. If there are no more than ``dims``
    features or no more than ``dims`` items, it has the features as they are, [items, features].
    Otherwise it is [items, dims], and each row is scaled to length 1. The row of an item without
    features is zero.

    Args:
        terms: csr (items, features) of float32, weighted, with rows of length 1 or 0.
        dims: the number of dimensions.
        seed: the seed of the SVD.
    """
    if dims >= min(terms.shape):
        return terms.toarray()
    return normalize(TruncatedSVD(dims, n_iter=2, random_state=seed).fit_transform(terms)).astype(np.float32)


def _inverse(gram: np.ndarray, reg: float) -> np.ndarray:
    """Return (gram + reg·I)⁻¹ of a symmetric float32 matrix. ``gram`` is overwritten."""
    gram[np.diag_indices(len(gram))] += np.float32(reg)
    # The transpose of a symmetric matrix is the matrix itself, in the memory order that LAPACK
    # needs.
    column_major = gram.T
    return inv(column_major, overwrite_a=True, check_finite=False, assume_a="pos", lower=True).T
