"""Neighbourhood models: ``itemknn`` (items), ``userknn`` (users) and ``rp3beta`` (random walks).

Similarities are computed row by row, and only the nearest neighbours are kept. So no dense (items,
items) or (users, users) matrix is ever in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array, eye_array

from recsys.errors import ConfigError
from recsys.linalg import arrays, dense_product, nearest_rows
from recsys.logging import log_phase
from recsys.models.collaborative.fading import Fading
from recsys.models.collaborative.linear import Linear, SparseLinear, liked, liked_columns
from recsys.parameters import STRICT
from recsys.recommender import FitsFromSums
from recsys.types import Features, Histories, Interactions

Weighting = Literal["cosine", "tfidf", "bm25"]
WeightingScheme = Annotated[
    Weighting, Field(description="weights of values before similarity: cosine (as they are), tfidf or bm25")
]
Neighbours = Annotated[int, Field(ge=1, description="number of neighbours that are kept")]
Shrink = Annotated[
    float, Field(ge=0, description="added to the denominator of a similarity; higher values discount rare pairs")
]

K1, B = 1.2, 0.75
"""The usual constants of BM25.

A higher K1 lets repeated values count more. A higher B discounts long histories more.
"""


@dataclass(config=STRICT)
class ItemKNN(Fading, SparseLinear, FitsFromSums):
    """Item-based nearest neighbours: the first model to try, because it is quick to fit and easy to
    explain.

    With a_i the column of item i in the weighted (users, items) matrix of liked values, and r_uj the
    value of the liked item j in the history of user u,

        s_ij = a_i·a_j / (|a_i| |a_j| + shrink)          score(u, i) = Σ_j r_uj · s_ij,  j among the neighbours of i

    The weight of a liked value is the value itself (``cosine``), √value · idf (``tfidf``), or the
    saturating form of BM25 (``bm25``). The last two discount users who like many items. ``shrink``
    discounts pairs of items that few users share. An item has the score 0 if no liked item of the
    history is among its neighbours. Scores are NaN for items that nobody liked in training, and for
    a history without a liked item that somebody liked in training. Of equally similar neighbours,
    those with the lower row are kept. The model needs 8 · neighbours · items bytes.

    A user with n likes takes part in n² products. Users with more than ``max_likes`` likes are left
    out of the similarities: mostly they are machines or shared accounts. They still get scores.

    References: Sarwar et al., WWW 2001; Bell and Koren, KDD Cup 2007 (shrinkage).
    """

    STATE: ClassVar = {"weights_": "csr float32[items, items]", "known_": "bool[items]"}
    SPACE: ClassVar = {"neighbours": (10, 1000), "shrink": (0.0, 100.0), "weighting": ("cosine", "tfidf", "bm25")}
    SOURCE: ClassVar = "itemknn"
    BINARY: ClassVar = False

    neighbours: Neighbours = 100
    weighting: WeightingScheme = "cosine"
    shrink: Shrink = 20.0
    max_likes: Annotated[
        int | None,
        Field(ge=1, description="users with more likes do not count in the similarities; unset: all users count"),
    ] = None

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the nearest neighbours of each item, and return the model.

        ``features`` is not used.
        """
        matrix = train.matrix()
        self.known_ = liked_columns(matrix)
        by_item = self._weighted_likes(matrix)
        norm = _norms(by_item)
        by_user = arrays(by_item.T.tocsr())
        items, users = by_item.shape
        with log_phase("itemknn: nearest items", users=users, items=items, neighbours=self.neighbours):
            neighbours = nearest_rows(
                arrays(by_item), by_user, norm, norm, self.shrink, min(self.neighbours, items), np.arange(items)
            )
        # Transposed, because column i of W holds the neighbours of item i.
        self.weights_ = _to_csr(*neighbours, len(norm)).T.tocsr()
        return self

    def prepare_sums(self, likes: np.ndarray) -> None:
        """Store which items somebody liked.

        Args:
            likes: int[items], the number of users who like each item.

        Raises:
            ConfigError: the weighting is ``bm25``, which depends on the sum of all values of an item.
        """
        if self.weighting == "bm25":
            raise ConfigError(
                "model 'itemknn': weighting = 'bm25' cannot be fitted from sums over users, as on Spark: use 'tfidf' or"
                " 'cosine', or engine = 'local'."
            )
        self.known_ = likes > 0

    def sum_users(self, histories: Histories) -> dict[str, np.ndarray | csr_array]:
        """Return the products of the columns of the items, summed over these users.

        The result is a dict with one key, ``products``: csr float64 (items, items), the a_i·a_j of
        the class.
        """
        by_item = self._weighted_likes(histories.values)
        return {"products": csr_array(by_item @ by_item.T)}

    def fit_sums(self, sums: Mapping[str, np.ndarray | csr_array]) -> None:
        """Compute the similarities, and keep the nearest neighbours of each item.

        Args:
            sums: a dict with the key ``products``, as :meth:`sum_users` returns it, for all users.
        """
        products = csr_array(sums["products"])
        norm = np.sqrt(products.diagonal())
        items = len(norm)
        rows = csr_array(eye_array(items, format="csr"))
        with log_phase("itemknn: nearest items", items=items, neighbours=self.neighbours):
            neighbours = nearest_rows(
                arrays(rows), arrays(products), norm, norm, self.shrink, min(self.neighbours, items), np.arange(items)
            )
        self.weights_ = _to_csr(*neighbours, items).T.tocsr()

    def _weighted_likes(self, matrix: csr_array) -> csr_array:
        """Return the columns a_i as rows, csr (items, users), without users who have too many likes.

        Args:
            matrix: csr (users, items), the values.
        """
        by_user = liked(matrix, binary=False)
        if self.max_likes is not None:
            by_user = csr_array(by_user[np.diff(by_user.indptr) <= self.max_likes])
        by_item = by_user.T.tocsr()
        return weigh(by_item, self.weighting, *term_statistics(by_item))


@dataclass(config=STRICT)
class RP3beta(Fading, SparseLinear):
    """Random walk from item to user to item that discounts popular items: fast, for sparse data.

        W_ji = Σ_v (1/n_j)^alpha (1/n_v)^alpha / n_i^beta       over the users v who like both j and i

    n_j and n_i are the numbers of likes of the items, n_v the number of likes of the user v. The
    score of item i for a user is the sum of W_ji over the liked items j. ``alpha`` below 1 makes the
    probabilities of the walk more equal. ``beta = 0`` is the model P3alpha, and a larger ``beta``
    favours rare items. The ``neighbours`` largest W_ji of each item j are kept; of equal ones, those
    with the lower row i. The others count as 0. Scores are NaN for items that nobody liked in
    training, and for a history without a liked item that somebody liked in training.

    References: Cooper et al., WWW 2014 (P3alpha); Paudel et al., ACM TiiS 2017 (RP3beta).
    """

    STATE: ClassVar = {"weights_": "csr float32[items, items]", "known_": "bool[items]"}
    SPACE: ClassVar = {"neighbours": (50, 1000), "alpha": (0.2, 2.0), "beta": (0.0, 1.0)}
    SOURCE: ClassVar = "rp3beta"

    neighbours: Neighbours = 200
    alpha: Annotated[
        float, Field(ge=0, description="exponent of the transition probabilities; below 1 flattens them")
    ] = 0.7
    beta: Annotated[
        float, Field(ge=0, description="exponent of the popularity that divides a weight; higher favours rare items")
    ] = 0.2

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the largest weights W_ji of each item j, and return the model.

        ``features`` is not used.
        """
        matrix = train.matrix()
        self.known_ = liked_columns(matrix)
        by_user = liked(matrix, binary=True)
        by_item = by_user.T.tocsr()
        activity, popularity = (np.diff(side.indptr).astype(np.float64) for side in (by_user, by_item))
        by_user.data = np.repeat(_inverse(activity), np.diff(by_user.indptr)) ** self.alpha
        # nearest_rows divides by both arrays: by the first for the step from item j, by the second
        # for n_i^beta.
        start_norm = _inverse(popularity) ** -self.alpha
        end_norm = np.maximum(popularity, 1) ** self.beta
        excluded = np.arange(len(end_norm))
        users, items = by_user.shape
        with log_phase("rp3beta: random walks", users=users, items=items, neighbours=self.neighbours):
            neighbours = nearest_rows(
                arrays(by_item), arrays(by_user), start_norm, end_norm, 0.0, min(self.neighbours, items), excluded
            )
        self.weights_ = _to_csr(*neighbours, len(end_norm))
        return self


@dataclass(config=STRICT)
class UserKNN(Fading, Linear):
    """User-based nearest neighbours: for logs with few users and many items.

        score(u, i) = Σ_v s_uv · r_vi,  v among the nearest training users of u's history

    r_vi is the value of item i in the history of the training user v. The similarity s_uv, weighting
    and shrinkage are those of :class:`ItemKNN`, with users and items exchanged. A user who is in the
    training data is one of their own neighbours. This only affects the scores of the items in
    their own history. To score a user, the model compares the history with all training users who
    share an item with it. So scoring is slower than with the other models, but there is nothing to
    train. Scores are NaN for items that nobody liked in training, and for a history without a liked
    item that somebody liked in training.
    """

    STATE: ClassVar = {
        "train_": "csr float[users, items]",
        "by_item_": "csr float[items, users]",
        "norm_": "float[users]",
        "idf_": "float[items]",
        "average_": "float[1]",
        "known_": "bool[items]",
    }
    SPACE: ClassVar = ItemKNN.SPACE
    SOURCE: ClassVar = "userknn"
    BINARY: ClassVar = False

    neighbours: Neighbours = 100
    weighting: WeightingScheme = "cosine"
    shrink: Shrink = 0.0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Store the likes of the training users, unweighted and weighted, and return the model.

        ``features`` is not used.
        """
        self.train_ = liked(train.matrix(), binary=False)
        self.idf_, self.average_ = term_statistics(self.train_)
        self.known_ = self.idf_ > 0
        weighted = weigh(self.train_, self.weighting, self.idf_, self.average_)
        self.norm_ = _norms(weighted)
        self.by_item_ = weighted.T.tocsr()
        return self

    def _contributions(self, strengths: csr_array, item: int) -> np.ndarray:
        # An entry adds its share of the similarity to every neighbour who likes the item.
        weighted, similarity = self._nearest(strengths)
        values = self.train_[similarity.indices][:, [item]].toarray()[:, 0].astype(np.float64)
        votes = values / (_norms(weighted)[0] * self.norm_[similarity.indices] + self.shrink)
        return weighted.data * (self.by_item_[weighted.indices][:, similarity.indices] @ votes)

    def _apply(self, strengths: csr_array) -> np.ndarray:
        _, similarity = self._nearest(strengths)
        return dense_product(arrays(similarity), arrays(self.train_), len(self.known_))

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> csr_array:
        """Return the weighted likes of each user, csr (m, items) of float64.

        The weights are those from which the similarity of users is computed. A row is empty for a
        history without a liked item that somebody liked in training. ``users`` is not used.
        """
        return weigh(self._strengths(histories), self.weighting, self.idf_, self.average_)

    def _nearest(self, strengths: csr_array) -> tuple[csr_array, csr_array]:
        """Return the weighted histories, and their similarities to their nearest training users.

        The shapes are csr (m, items) and csr (m, training users).
        """
        weighted = weigh(strengths, self.weighting, self.idf_, self.average_)
        norm = np.maximum(_norms(weighted), np.finfo(np.float64).tiny)
        # No user is excluded: a history does not say which training user it belongs to.
        excluded = np.full(len(norm), -1)
        # More neighbours than users would be memory for nothing.
        k = min(self.neighbours, len(self.norm_))
        neighbours = nearest_rows(arrays(weighted), arrays(self.by_item_), norm, self.norm_, self.shrink, k, excluded)
        return weighted, _to_csr(*neighbours, len(self.norm_))


def term_statistics(documents: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return the inverse document frequency (idf) of each column, and the mean row sum.

    The idf, float64[columns], is log(1 + rows/df), where df is the number of entries in the column.
    It is 0 if df is 0. The mean row sum, float64[1], is the mean over the rows of the sum of their
    values. It is 0 if there are no rows.

    Args:
        documents: csr (rows, columns) with values > 0. A row is a document, a column is a term.
    """
    df = np.bincount(documents.indices, minlength=documents.shape[1])
    idf = np.log1p(np.divide(documents.shape[0], df, out=np.zeros(len(df)), where=df > 0))
    return idf, np.array([documents.sum() / max(1, documents.shape[0])])


def weigh(documents: csr_array, weighting: Weighting, idf: np.ndarray, average: np.ndarray) -> csr_array:
    """Replace the value of each entry by its weight, and return the matrix as float64.

    A weight is above 0 if the inverse document frequency of its column is above 0.

    Args:
        documents: csr (rows, columns) with values > 0.
        weighting: "cosine" (values stay), "tfidf" or "bm25".
        idf: as :func:`term_statistics` returns it.
        average: the mean row sum, as :func:`term_statistics` returns it.
    """
    value = documents.data.astype(np.float64)
    if weighting == "tfidf":
        value = np.sqrt(value) * idf[documents.indices]
    elif weighting == "bm25":
        length = np.repeat(documents.sum(axis=1, dtype=np.float64), np.diff(documents.indptr)) / average
        value = value * (K1 + 1) / (value + K1 * (1 - B + B * length)) * idf[documents.indices]
    return csr_array((value, documents.indices, documents.indptr), shape=documents.shape)


def _norms(matrix: csr_array) -> np.ndarray:
    """Return the Euclidean norm of each row, float64[rows]."""
    return np.sqrt(matrix.power(2).sum(axis=1, dtype=np.float64))


def _inverse(counts: np.ndarray) -> np.ndarray:
    """Return 1/n for each count n, and 1 if n is 0; no result uses that 1."""
    return 1 / np.maximum(counts, 1)


def _to_csr(columns: np.ndarray, values: np.ndarray, n: int) -> csr_array:
    """Convert padded lists of neighbours to a sparse matrix, csr (rows, n) with sorted indices.

    Args:
        columns: int[rows, k], the columns of each row's neighbours, padded with -1.
        values: [rows, k], the value of each neighbour.
        n: the number of columns of the matrix.
    """
    is_listed = columns >= 0
    indptr = np.concatenate([[0], np.cumsum(is_listed.sum(axis=1))])
    matrix = csr_array((values[is_listed], columns[is_listed], indptr), shape=(len(columns), n))
    matrix.sort_indices()
    return matrix
