"""Onboarding: ask new users about items, and recommend items by their answers.

A new user answers that they like an item, dislike it, or do not know it. The interactions of the
users of train with the best-known items are a table of such answers. A ridge regression on it
predicts what a new user likes:

    E[likes | answers to A] = μ + (z_A − z̄_A)ᵀ (G_AA + λI)⁻¹ C_A

A is the set of the items with an answer. z has two indicators per item (liked, disliked). μ is the
mean of the likes over users, and z̄ the mean of the indicators. G has the sums over users of the
products of two centred indicators. C has the sums of the products of the centred indicators and the
centred likes of all items. λ is ``shrink`` × users. After each answer one small linear system is
solved; no model is fitted again. The answer about an item is not used to predict that item: an item
that the user knows is not recommended, and "I do not know it" is not a dislike. Without any answer
the list has the most popular items.

A strategy chooses the item to ask about next:

    popular          the item that most users know
    entropy0         the most even split into unknown (weight ½), liked and disliked
                     (Rashid et al., SIGKDD Explorations 2008)
    popular_entropy  log of the number of users who know it × entropy of liked and disliked
                     (Rashid et al., IUI 2002)
    coverage         the item whose answer is hardest to predict from the items before it (greedy
                     D-optimal design, by a pivoted Cholesky decomposition of G)
    best_guess       the item with the largest value, which is the probability that the user likes it,
                     given the answers so far, plus ``curiosity`` × the expected change of the
                     predictions for the top items (a sum of standard deviations)

Only the choice of ``best_guess`` depends on the answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array, hstack

from recsys.models.collaborative.linear import liked
from recsys.models.combining.wrappers import FixedScores
from recsys.parameters import STRICT
from recsys.ranking.rank import recommend
from recsys.types import Interactions, TopK

LIKES, DISLIKES, UNKNOWN = 1, -1, 0
"""The three possible answers about an item: the user likes it, dislikes it, or does not know it."""

Answers = dict[int, int]
"""Row of an item -> the answer about it: ``LIKES``, ``DISLIKES`` or ``UNKNOWN``."""

TOP = 40
"""Number of items with the highest predictions that the strategy ``best_guess`` considers.

It estimates how much an answer may change the predictions for these items.
"""

Strategy = Literal["popular", "entropy0", "popular_entropy", "coverage", "best_guess"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
"""The names of all strategies. The description of this module says what each one asks about."""


@dataclass(config=STRICT)
class Onboarding:
    """Chooses items to ask a new user about, and recommends items by the answers.

    Call :meth:`fit` once. For each new user begin with no answers, ``{}``. Then ask about the item
    that :meth:`question` returns, add the answer, and repeat. :meth:`recommend` returns the list.
    The description of this module has the method.

    A fitted object needs 8 · candidates · items bytes, where the candidates are the items about which
    it may ask. ``fit`` also needs memory for some copies of train.
    """

    strategy: Annotated[Strategy, Field(description="how the next item to ask about is chosen")] = "best_guess"
    candidates: Annotated[int, Field(ge=1, description="number of best-known items that may be asked about")] = 300
    shrink: Annotated[float, Field(gt=0, description="λ of the ridge regression, as a share of the users")] = 0.2
    curiosity: Annotated[
        float, Field(ge=0, description="weight of what an answer may teach; 0 asks about what it would recommend first")
    ] = 0.1
    like: Annotated[
        float | None,
        Field(description="least value of a like; unset: any above 0. All other stored values are dislikes"),
    ] = None

    def fit(self, train: Interactions) -> Self:
        """Compute the sums of the regression and the order of the questions, and return the object.

        All strategies except ``best_guess`` ask in this order.

        Args:
            train: the interactions of users. A stored value is a like if it is above 0 and at least
                ``like``. Any other stored value is a dislike.
        """
        users = max(1, len(train.users))
        self.users_ = users
        matrix = train.matrix()
        is_like = matrix.data > 0
        if self.like is not None:
            is_like &= matrix.data >= self.like
        answers = csr_array((np.where(is_like, LIKES, DISLIKES), matrix.indices, matrix.indptr), shape=matrix.shape)
        likes = liked(answers, binary=True)
        dislikes = liked(-answers, binary=True)
        counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
        self.items_ = np.argsort(-counts, kind="stable")[: min(self.candidates, int((counts > 0).sum()))]
        self.column_of_ = {int(item): column for column, item in enumerate(self.items_)}
        indicators = csr_array(hstack([likes[:, self.items_], dislikes[:, self.items_]]))
        transposed = csr_array(indicators.T)
        self.indicator_mean_ = _column_means(indicators, users)
        self.mean_ = _column_means(likes, users)
        # Centred by Σ_u (z_u − z̄)(l_u − l̄)ᵀ = ZᵀL − n z̄ l̄ᵀ. The products of sparse indicators
        # are counts, which float32 holds exactly up to 2^24.
        gram = _dense_product(transposed, indicators).astype(np.float64)
        gram -= users * np.outer(self.indicator_mean_, self.indicator_mean_)
        gram[np.diag_indices(len(gram))] += self.shrink * users
        self.gram_ = gram
        self.cross_ = _dense_product(transposed, likes)
        for row, share in zip(self.cross_, self.indicator_mean_, strict=True):
            row[:] = row - users * share * self.mean_
        self.order_ = self._question_order(counts[self.items_], users)
        return self

    def _question_order(self, counts: np.ndarray, users: int) -> np.ndarray:
        """Return the candidates (positions in ``items_``) in the order in which to ask about them.

        Args:
            counts: number of users who know each candidate.
        """
        liked_share, disliked_share = np.split(self.indicator_mean_, 2)
        if self.strategy == "entropy0":
            unknown_share = 1 - counts / users
            value = 0.5 * _information(unknown_share) + _information(liked_share) + _information(disliked_share)
        elif self.strategy == "popular_entropy":
            share = liked_share * users / np.maximum(counts, 1)
            value = np.log1p(counts) * (_information(share) + _information(1 - share))
        elif self.strategy == "coverage":
            return _pivots(self.gram_[: len(counts), : len(counts)])
        else:
            value = counts
        return np.argsort(-value, kind="stable")

    def question(self, answers: Answers) -> int | None:
        """Return the row of the item to ask about next.

        The result is None if ``answers`` has an answer about every candidate. The candidates are
        the items about which the object may ask.

        Args:
            answers: the answers of the user so far; ``{}`` at the start.

        Raises:
            KeyError: the strategy is ``best_guess``, and an answer is about an item that is not a
                candidate.
        """
        unasked = [int(item) for item in self.items_[self.order_] if int(item) not in answers]
        if not unasked:
            return None
        if self.strategy != "best_guess":
            return unasked[0]
        expected = self.expected(answers)
        value = expected[self.items_]
        if self.curiosity:
            top = np.argpartition(-expected, min(TOP, len(expected)) - 1)[:TOP]
            value = value + self.curiosity * self._answer_deviations(answers, top).sum(axis=1)
        return unasked[int(np.argmax(value[[self.column_of_[item] for item in unasked]]))]

    def _answer_deviations(self, answers: Answers, items: np.ndarray) -> np.ndarray:
        """Return how much the answer about each candidate may change the predictions for some items.

        The result is float64[candidates, items]: the standard deviation of the change of the
        predicted probability. Let G|A and C|A be the parts of G and C for the two indicators of a
        candidate after the answers so far are taken into account (Schur complements). The
        covariance of the indicators is then G|A / users, and their coefficients for the likes are
        G|A⁻¹ C|A. So the variances of the change are the diagonal of C|Aᵀ G|A⁻¹ C|A / users.

        Args:
            items: int[n], rows of the items.
        """
        n = len(self.items_)
        gram = self.gram_
        cross = self.cross_[:, items].astype(np.float64)
        variance = np.diag(gram)
        covariance = np.diag(gram, n)  # of the two indicators of each item
        rows = np.array([self.column_of_[item] + shift for shift in (0, n) for item in answers], dtype=np.int64)
        if len(rows):
            answered = gram[:, rows]
            solved = cho_solve(cho_factor(gram[np.ix_(rows, rows)]), np.hstack([answered.T, cross[rows]]))
            variance = variance - np.einsum("ij,ji->i", answered, solved[:, : 2 * n])
            covariance = covariance - np.einsum("ij,ji->i", answered[:n], solved[:, n : 2 * n])
            cross = cross - answered @ solved[:, 2 * n :]
        # The inverse of each 2 × 2 matrix [[a, b], [b, d]], written out.
        a = variance[:n, None]
        d = variance[n:, None]
        b = covariance[:, None]
        by_like, by_dislike = cross[:n], cross[n:]
        quadratic_form = d * by_like**2 - 2 * b * by_like * by_dislike + a * by_dislike**2
        explained = quadratic_form / np.maximum(a * d - b**2, 1e-12)
        return np.sqrt(np.maximum(explained, 0) / self.users_)

    def expected(self, answers: Answers) -> np.ndarray:
        """Return the predicted probability that the new user likes each item, float64[items].

        The linear model may return values outside of [0, 1]. The answer about an item is not used
        to predict this item.

        Args:
            answers: the answers of the user so far. Without any, the result is the share of users
                who like each item.

        Raises:
            KeyError: an answer is about an item that is not a candidate.
        """
        columns = np.array([self.column_of_[item] for item in answers], dtype=np.int64)
        replies = np.array(list(answers.values()), dtype=np.int64)
        rows, weights = self._answer_weights(columns, replies)
        expected = self.mean_ + weights @ self.cross_[rows]
        # An item that was asked about is predicted by the answers about all other items.
        for answer, item in enumerate(self.items_[columns]):
            is_used = np.arange(len(columns)) != answer
            rows, weights = self._answer_weights(columns[is_used], replies[is_used])
            expected[item] = self.mean_[item] + weights @ self.cross_[rows, item]
        return expected

    def _answer_weights(self, columns: np.ndarray, replies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of C for the indicators of the answered items, and the weight of each row.

        Both have two elements per answer. The prediction is the mean plus the weighted sum of these
        rows.

        Args:
            columns: int64[answers], the positions of the answered items among the candidates.
            replies: int64[answers], the answers.
        """
        rows = np.concatenate([columns, columns + len(self.items_)])
        deviation = np.concatenate([replies == LIKES, replies == DISLIKES]) - self.indicator_mean_[rows]
        if not len(rows):
            return rows, deviation
        return rows, cho_solve(cho_factor(self.gram_[np.ix_(rows, rows)]), deviation)

    def recommend(self, answers: Answers, k: int) -> TopK:
        """Return the list of the ``k`` items with the highest predictions, as a TopK of one list.

        Items that the user likes or dislikes by the answers are left out.

        Raises:
            KeyError: an answer is about an item that is not a candidate.
        """
        return _lists(self.expected(answers)[None], [answers], k)


def _lists(scores: np.ndarray, answers: list[Answers], k: int) -> TopK:
    """Return the list of the best ``k`` items of each user, without the items that the user knows.

    Args:
        scores: float[m, items].
        answers: the answers of each of the m users. A user knows an item if the answer is a like or a
            dislike.
    """
    known_items = [
        np.sort([item for item, reply in row.items() if reply != UNKNOWN]).astype(np.int32) for row in answers
    ]
    indptr = np.cumsum([0] + [len(items) for items in known_items])
    data = np.ones(indptr[-1], dtype=np.float32)
    seen = csr_array((data, np.concatenate(known_items), indptr), shape=scores.shape)
    return recommend(FixedScores(scores, "onboarding"), seen, k)


def simulate(
    model: Onboarding,
    knowledge: csr_array,
    *,
    questions: Iterable[int] = (0, 1, 3, 5, 10),
    k: int = 10,
) -> dict[int, TopK]:
    """Simulate the onboarding of users whose answers are known from data, and return their lists.

    The result is a dict: number of questions -> the lists of the m users after this number of
    questions. It is empty if ``questions`` is empty.

    Args:
        model: a fitted object. Fit it without these users.
        knowledge: csr (m, items), what each user would answer: a stored value > 0 means that they
            like the item, a stored value ≤ 0 that they dislike it, and no stored value that they do
            not know it. It must not have the items by which the lists are judged.
        questions: the numbers of questions after which lists are made, each ≥ 0.
        k: the length of the lists.
    """
    counts = sorted(set(questions))
    if not counts:
        return {}
    scores = {count: np.empty(knowledge.shape, dtype=np.float32) for count in counts}
    answers_after: dict[int, list[Answers]] = {count: [] for count in counts}
    for row in range(knowledge.shape[0]):
        entries = slice(knowledge.indptr[row], knowledge.indptr[row + 1])
        replies = np.where(knowledge.data[entries] > 0, LIKES, DISLIKES)
        reply_of = dict(zip(knowledge.indices[entries].tolist(), replies, strict=True))
        answers: Answers = {}
        for count in range(counts[-1] + 1):
            if count in scores:
                scores[count][row] = model.expected(answers)
                answers_after[count].append(dict(answers))
            item = model.question(answers)
            if item is not None:
                answers[item] = int(reply_of.get(item, UNKNOWN))
    return {count: _lists(scores[count], answers_after[count], k) for count in counts}


def _dense_product(a: csr_array, b: csr_array) -> np.ndarray:
    """Return the product of two sparse matrices of float32 as a dense array, float32[m, n].

    This is not the compiled product of ``recsys.linalg``. A server fits in a thread beside the one
    that scores, and not every threading layer of Numba lets two threads run parallel loops at a time.
    """
    result = np.empty((a.shape[0], b.shape[1]), dtype=np.float32)
    # By blocks, because a sparse product with few zeros needs three times the memory of a dense one.
    for start in range(0, len(result), 32):
        rows = slice(start, start + 32)
        (a[rows] @ b).toarray(out=result[rows])
    return result


def _column_means(matrix: csr_array, rows: int) -> np.ndarray:
    """Return the number of entries of each column divided by ``rows``, float64[columns]."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1]) / rows


def _information(p: np.ndarray) -> np.ndarray:
    """Return −p log p, which is 0 for p = 0."""
    return -p * np.log(np.where(p > 0, p, 1.0))


def _pivots(covariance: np.ndarray) -> np.ndarray:
    """Return the row numbers in the order of a pivoted Cholesky decomposition, int64[n].

    The next row is always the one with the largest variance that the rows before it leave
    unexplained.

    Args:
        covariance: float64[n, n].
    """
    residual = covariance.copy()
    is_taken = np.zeros(len(covariance), dtype=bool)
    order = np.empty(len(covariance), dtype=np.int64)
    for step in range(len(covariance)):
        pivot = int(np.argmax(np.where(is_taken, -np.inf, np.diag(residual))))
        order[step] = pivot
        is_taken[pivot] = True
        residual -= np.outer(residual[pivot], residual[pivot]) / residual[pivot, pivot]
    return order
