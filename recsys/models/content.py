"""The model ``content``: it compares the features of items with those of the items in a history."""

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

TermScheme = Annotated[
    Scheme, Field(description="weights of feature values: tfidf, bm25 or raw (as they are, rows of length 1)")
]
FieldWeights = Annotated[
    dict[str, float], Field(description="field -> weight of its features; a field that is not named has weight 1")
]


@dataclass(config=STRICT)
class Content(Recommender):
    """Scores items by how similar their attributes and words are to those of the history.

    It is the only model that does not need the events of other users. The score is

        score(u, i) = cos(Σ_j w_j t_j, t_i)

    where t is the vector of an item's weighted features (:func:`weigh_terms`). The weight w_j is
    log(1 + |v|) with the sign of the value v. The weight of a dislike (v < 0) is also multiplied by
    ``dislike``. To weigh recent events more, make the values of old events smaller with ``[weigh]
    half_life_days``. Scores are in [−1, 1]. The scores of an item without features are NaN. So are
    all scores of a user if the sum Σ_j w_j t_j is zero, for example because no item of the history
    has features. With ``dims`` > 0 the cosine is taken after a truncated SVD, which gives related
    words similar vectors. The features stay as they are if there are at most ``dims`` features or
    at most ``dims`` items.

    Choose it for new items, which no user has liked yet, or for users with one or two events. The
    model keeps the features. With ``dims`` it also keeps 4·dims·(items + features) bytes. Without
    ``dims`` the similarity is computed on sparse vectors.
    """

    STATE: ClassVar = {
        "terms_": "csr float32[items, terms]",
        "basis_": "float32[terms, dims]",
        "vectors_": "float32[items, dims] | csr float32[items, terms]",
        "names_": "str[terms]",
    }
    NEEDS_FEATURES: ClassVar = True
    SCORES_NEW_ITEMS: ClassVar = True
    EXPLAINS: ClassVar = ("history", "features")
    SOURCE: ClassVar = "content"

    scheme: TermScheme = "tfidf"
    fields: FieldWeights = Field(default_factory=dict)
    dims: Annotated[int, Field(ge=0, description="number of latent dimensions; 0: the features as they are")] = 0
    dislike: Annotated[float, Field(ge=0, description="weight of a dislike against a like of the same size")] = 0.5
    seed: Annotated[int, Field(ge=0, description="seed of the truncated singular value decomposition")] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the weighted feature vectors of the items, and return the model.

        ``train`` is not used.

        Raises:
            ConfigError: there are no features, or a weight is given for a field that they do not
                have.
        """
        item_features = require_features(features, "content")
        self.terms_ = weigh_terms(item_features, self.scheme, self.fields)
        self.names_ = np.array(item_features.names, dtype=str)
        self.basis_ = np.zeros((self.terms_.shape[1], 0), dtype=np.float32)
        if 0 < self.dims < min(self.terms_.shape):
            svd = TruncatedSVD(self.dims, random_state=self.seed).fit(self.terms_)
            self.basis_ = np.ascontiguousarray(svd.components_.T, dtype=np.float32)
        self.vectors_ = normalize(self.terms_ @ self.basis_) if self.basis_.shape[1] else self.terms_
        return self

    @property
    def n_items(self) -> int:
        """The number of items that the model was fitted with."""
        return self.vectors_.shape[0]

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each of m histories, float32[m, items].

        Scores are in [−1, 1]. A score is NaN if the item has no features or the profile of the user
        is zero (:meth:`profiles`). ``users`` is not used.
        """
        profiles = self.profiles(histories)
        items = self.vectors_
        if isinstance(items, csr_array):
            scores = dense_product(arrays(csr_array(profiles)), arrays(csr_array(items.T)), items.shape[0])
        else:
            scores = profiles @ items.T
        scores[:, ~nonzero_rows(items)] = np.nan
        scores[~nonzero_rows(profiles)] = np.nan
        return scores.astype(np.float32, copy=False)

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether each of m histories has a profile other than zero (:meth:`profiles`)."""
        return nonzero_rows(self.profiles(histories))

    def profiles(self, histories: Histories) -> np.ndarray | csr_array:
        """Return the profile of each user: the weighted sum of the feature vectors of the history.

        The result has one row per history. It is csr (m, features), or an array float32[m, dims]
        if the features were reduced to ``dims`` dimensions. A profile is scaled to length 1. It is
        all 0 if no item of the history has features, or if all values of the history are 0.
        """
        return normalize(self._evidence(histories) @ self.vectors_)

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray | csr_array:
        """Return the profile of each user, as :meth:`profiles` does. ``users`` is not used."""
        return self.profiles(histories)

    def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
        """Return what each history entry, and what each feature of ``item``, adds to its score.

        ``history`` of the result sums to the score, and so does ``features``. If the score is NaN,
        the result has no parts.

        The arguments are those of :meth:`recsys.recommender.Recommender.explain`.
        """
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
        """Return what each feature adds to the score of ``item``, as a dict: feature -> number.

        The largest number is first. The numbers sum to the score.
        """
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
        """Return the weight w_j of each history entry, csr (m, items) of float32; negative for
        dislikes."""
        values = histories.values
        weight = np.sign(values.data) * np.log1p(np.abs(values.data))
        weight = np.where(weight < 0, self.dislike * weight, weight).astype(np.float32)
        return csr_array((weight, values.indices, values.indptr), shape=values.shape)


def similar(
    vectors: np.ndarray | csr_array, rows: np.ndarray, k: int, block: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``k`` vectors that are most similar to each of m vectors, and the similarities.

    The first result, int32[m, k], has row numbers of ``vectors``, most similar first. The second,
    float32[m, k], has their similarities. The similarity is the dot product, which is the cosine
    for vectors of length 1. A vector is not compared with itself. Only vectors with a similarity
    above 0 are listed. If there are fewer than k, the rest of the row is -1 and NaN. Of equally
    similar vectors, the one in the lower row is first.

    Args:
        vectors: one vector of length 1 per row, dense or csr, for example of items or of users.
        rows: int[m], the rows of the m vectors.
        k: the number of similar vectors per row.
        block: number of rows of dense similarities in memory at a time. Not used for csr.
    """
    if isinstance(vectors, csr_array):
        return _similar_sparse(vectors, rows, k)
    neighbours = np.full((len(rows), k), -1, dtype=np.int32)
    values = np.full((len(rows), k), np.nan, dtype=np.float32)
    for start in range(0, len(rows), block):
        part = np.asarray(rows[start : start + block], dtype=np.int64)
        similarity = np.ascontiguousarray(vectors[part] @ vectors.T, dtype=np.float32)
        similarity[similarity <= 0] = np.nan
        # Each row is the only item that its own list leaves out.
        block_neighbours, block_values = select_top_k(similarity, np.arange(len(part) + 1), part, k)
        neighbours[start : start + block] = block_neighbours
        values[start : start + block] = block_values
    return neighbours, values


def _similar_sparse(vectors: csr_array, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    neighbours, values = nearest_rows(
        arrays(csr_array(vectors[rows])),
        arrays(csr_array(vectors.T)),
        np.ones(len(rows)),
        np.ones(vectors.shape[0]),
        0.0,
        k,
        np.asarray(rows),
    )
    is_padding = ~(values > 0)
    neighbours[is_padding] = -1
    values[is_padding] = np.nan
    return neighbours, values


def nonzero_rows(rows: np.ndarray | csr_array) -> np.ndarray:
    """Return bool[m]: whether each of m rows has a value other than zero."""
    if isinstance(rows, csr_array):
        return np.asarray(abs(rows).sum(axis=1)).ravel() > 0
    return np.abs(rows).sum(axis=1) > 0


def _dense(row: np.ndarray | csr_array) -> np.ndarray:
    """Return one row as a dense vector."""
    return np.asarray(row.toarray() if isinstance(row, csr_array) else row).ravel()
