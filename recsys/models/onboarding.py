"""Newcomers: which items to ask about, and what to recommend after each answer.

A newcomer says of an item that he likes it, that he does not, or that he does not know it. What the users of train say
of the items they know best is a table of such answers; ridge regression on it tells what a newcomer likes:

    E[likes | answers to A] = μ + (z_A − z̄_A)ᵀ (G_AA + λI)⁻¹ C_A

z holds two marks an item (liked, disliked), μ and z̄ are means over users; G and C are the centred products of the marks
with each other and with the likes of all items, λ = ``shrink`` × users. Whatever was asked, an answer costs one small
system: no model is fitted again. An item's own answer does not speak for the item itself: what is known is not
recommended, and what is not known was not refused. Without any answer the list is the popular one.

Strategies, the item to ask about next:

    popular          the best known
    entropy0         the most even split into unknown (½), liked and disliked (Rashid et al., SIGKDD Explorations 2008)
    popular_entropy  log of the users who know it × entropy of liked and disliked (Rashid et al., IUI 2002)
    coverage         what the items asked so far leave most uncertain: greedy D-optimal design, pivoted Cholesky of G
    best_guess       what he most probably likes, given his answers so far, plus ``curiosity`` × how far the answer may
                     move the expected likes of the items at the top (the sum of standard deviations): adaptive
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array, hstack

from recsys.linalg import arrays, dense_product
from recsys.models.collaborative.linear import liked
from recsys.models.combining.wrappers import FixedScores
from recsys.parameters import STRICT
from recsys.ranking.rank import recommend
from recsys.types import Interactions, TopK

LIKES, DISLIKES, UNKNOWN = 1, -1, 0
"""The three answers."""

Answers = dict[int, int]
"""Item row -> answer."""

TOP = 40
"""How many of the items expected most are watched for being moved by an answer."""

Strategy = Literal["popular", "entropy0", "popular_entropy", "coverage", "best_guess"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


@dataclass(config=STRICT)
class Onboarding:
    """Asks newcomers about items of train, and knows what to recommend after their answers.

    ``candidates``: how many of the best known items it may ask about. ``shrink``: λ as a share of the users of train.
    ``curiosity``: what ``best_guess`` adds for learning; 0 asks about what it would recommend first.
    ``like``: a value of train is a like when it is at least this; unset: when it is above 0; any other stored value is
    a dislike. Memory: 8 · candidates · items bytes kept, and for ``fit`` some copies of train beside that; nothing
    dense is as long as the users.
    """

    strategy: Strategy = "best_guess"
    candidates: Annotated[int, Field(ge=1)] = 300
    shrink: Annotated[float, Field(gt=0)] = 0.2
    curiosity: Annotated[float, Field(ge=0)] = 0.1
    like: float | None = None

    def fit(self, train: Interactions) -> Self:
        """Count who knows and likes what, and settle the order of the questions that do not depend on answers."""
        users = self.users_ = max(1, len(train.users))
        matrix = train.matrix()
        good = matrix.data > 0 if self.like is None else (matrix.data > 0) & (matrix.data >= self.like)
        given = csr_array((np.where(good, LIKES, DISLIKES), matrix.indices, matrix.indptr), shape=matrix.shape)
        likes, dislikes = liked(given, binary=True), liked(-given, binary=True)
        known = np.bincount(matrix.indices, minlength=matrix.shape[1])
        self.items_ = np.argsort(-known, kind="stable")[: min(self.candidates, int((known > 0).sum()))]
        self.place_of_ = {int(item): place for place, item in enumerate(self.items_)}
        marks = csr_array(hstack([likes[:, self.items_], dislikes[:, self.items_]]))
        said = arrays(csr_array(marks.T))
        self.marked_, self.mean_ = (np.bincount(of.indices, minlength=of.shape[1]) / users for of in (marks, likes))
        # centred by Σ_u (z_u − z̄)(l_u − l̄)ᵀ = ZᵀL − n z̄ l̄ᵀ: the products of sparse marks are counts, exact to 2^24
        gram = dense_product(said, arrays(marks), len(self.marked_)).astype(np.float64)
        self.gram_ = gram - users * np.outer(self.marked_, self.marked_) + self.shrink * users * np.eye(len(gram))
        self.cross_ = dense_product(said, arrays(likes), len(self.mean_))
        for row, share in zip(self.cross_, self.marked_, strict=True):
            row[:] = row - users * share * self.mean_
        self.order_ = self._order(known[self.items_], users)
        return self

    def _order(self, known: np.ndarray, users: int) -> np.ndarray:
        """Return the candidates' places, first question first."""
        liked, disliked = np.split(self.marked_, 2)
        if self.strategy == "entropy0":
            worth = 0.5 * _information(1 - known / users) + _information(liked) + _information(disliked)
        elif self.strategy == "popular_entropy":
            share = liked * users / np.maximum(known, 1)
            worth = np.log1p(known) * (_information(share) + _information(1 - share))
        elif self.strategy == "coverage":
            return _pivots(self.gram_[: len(known), : len(known)])
        else:
            worth = known
        return np.argsort(-worth, kind="stable")

    def question(self, answers: Answers) -> int | None:
        """Return the item row to ask about after these answers, None when there is nothing left to ask."""
        left = [int(item) for item in self.items_[self.order_] if int(item) not in answers]
        if not left:
            return None
        if self.strategy != "best_guess":
            return left[0]
        expected = self.expected(answers)
        worth = expected[self.items_]
        if self.curiosity:
            top = np.argpartition(-expected, min(TOP, len(expected)) - 1)[:TOP]
            worth = worth + self.curiosity * self._moves(answers, top).sum(axis=1)
        return left[int(np.argmax(worth[[self.place_of_[item] for item in left]]))]

    def _moves(self, answers: Answers, items: np.ndarray) -> np.ndarray:
        """Return float64[candidates, items]: the standard deviation of what an answer adds to the expected likes.

        What is left of an item's two marks once the answers so far are taken out has covariance G|A / users, and moves
        likes by G|A⁻¹ C|A: the variance is the diagonal of C|Aᵀ G|A⁻¹ C|A / users.
        """
        n, cross, gram = len(self.items_), self.cross_[:, items].astype(np.float64), self.gram_
        own, both = np.diag(gram), np.diag(gram, n)
        rows = np.array([self.place_of_[item] + shift for shift in (0, n) for item in answers], dtype=np.int64)
        if len(rows):
            other = gram[:, rows]
            taken = cho_solve(cho_factor(gram[np.ix_(rows, rows)]), np.hstack([other.T, cross[rows]]))
            own = own - np.einsum("ij,ji->i", other, taken[:, : 2 * n])
            both = both - np.einsum("ij,ji->i", other[:n], taken[:, n : 2 * n])
            cross = cross - other @ taken[:, 2 * n :]
        a, d, b = own[:n, None], own[n:, None], both[:, None]
        first, second = cross[:n], cross[n:]
        moved = (d * first**2 - 2 * b * first * second + a * second**2) / np.maximum(a * d - b**2, 1e-12)
        return np.sqrt(np.maximum(moved, 0) / self.users_)

    def expected(self, answers: Answers) -> np.ndarray:
        """Return float64[items]: the chance that the newcomer likes each item, up to the error of a linear model.

        Raises:
            KeyError: an answer about an item that is no candidate.
        """
        places = np.array([self.place_of_[item] for item in answers], dtype=np.int64)
        said = np.array(list(answers.values()), dtype=np.int64)
        rows, weights = self._weights(places, said)
        found = self.mean_ + weights @ self.cross_[rows]
        for at, item in enumerate(self.items_[places]):
            others = np.arange(len(places)) != at
            rows, weights = self._weights(places[others], said[others])
            found[item] = self.mean_[item] + weights @ self.cross_[rows, item]
        return found

    def _weights(self, places: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows of the marks of what was answered, what each adds to the expected likes per unit of cross_)."""
        rows = np.concatenate([places, places + len(self.items_)])
        off = np.concatenate([said == LIKES, said == DISLIKES]) - self.marked_[rows]
        if not len(rows):
            return rows, off
        return rows, cho_solve(cho_factor(self.gram_[np.ix_(rows, rows)]), off)

    def recommend(self, answers: Answers, k: int) -> TopK:
        """Return the best ``k`` items that the newcomer did not say he knows."""
        return _lists(self.expected(answers)[None], [answers], k)


def _lists(scores: np.ndarray, answers: list[Answers], k: int) -> TopK:
    known = [np.sort([item for item, said in own.items() if said != UNKNOWN]).astype(np.int32) for own in answers]
    indptr = np.cumsum([0] + [len(row) for row in known])
    data = np.ones(indptr[-1], dtype=np.float32)
    return recommend(
        FixedScores(scores, "onboarding"), csr_array((data, np.concatenate(known), indptr), shape=scores.shape), k
    )


def simulate(
    model: Onboarding,
    knowledge: csr_array,
    *,
    questions: Iterable[int] = (0, 1, 3, 5, 10),
    k: int = 10,
) -> dict[int, TopK]:
    """Ask users whose answers are known, and return their lists after so many questions.

    Args:
        model: fitted without these users.
        knowledge: csr (m, items): what each user would answer; stored > 0: likes, stored ≤ 0: dislikes, else he does
            not know the item. What he is judged on must not be in it.
    """
    wanted = sorted(set(questions))
    scores = {count: np.empty(knowledge.shape, dtype=np.float32) for count in wanted}
    said: dict[int, list[Answers]] = {count: [] for count in wanted}
    for row in range(knowledge.shape[0]):
        inside = slice(knowledge.indptr[row], knowledge.indptr[row + 1])
        known = dict(
            zip(knowledge.indices[inside].tolist(), np.where(knowledge.data[inside] > 0, LIKES, DISLIKES), strict=True)
        )
        answers: Answers = {}
        for count in range(wanted[-1] + 1):
            if count in scores:
                scores[count][row] = model.expected(answers)
                said[count].append(dict(answers))
            item = model.question(answers)
            if item is not None:
                answers[item] = int(known.get(item, UNKNOWN))
    return {count: _lists(scores[count], said[count], k) for count in wanted}


def _information(p: np.ndarray) -> np.ndarray:
    """Return −p log p, 0 at 0."""
    return -p * np.log(np.where(p > 0, p, 1.0))


def _pivots(covariance: np.ndarray) -> np.ndarray:
    """Return the order in which pivoted Cholesky takes the rows: each time the one with most variance left."""
    left, taken = covariance.copy(), np.zeros(len(covariance), dtype=bool)
    order = np.empty(len(covariance), dtype=np.int64)
    for at in range(len(covariance)):
        best = order[at] = int(np.argmax(np.where(taken, -np.inf, np.diag(left))))
        taken[best] = True
        left -= np.outer(left[best], left[best]) / left[best, best]
    return order
