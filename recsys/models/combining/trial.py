"""A validation split made inside ``fit``, for a model that chooses among models: it never looks at other data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product

import numpy as np
from scipy.sparse import csr_array

from recsys.data.hashing import hash_words, to_unit_interval
from recsys.evaluation.judging.judge import judge
from recsys.evaluation.judging.metrics import ndcg
from recsys.evaluation.testing.significance import mean_ci
from recsys.kernels import add_weighted, select_top_k
from recsys.models.combining.blend import Scaling, divide_sums, rescale_rows, weighted_sums
from recsys.recommender import Recommender
from recsys.types import Interactions, TopK

DEPTH = 100
"""Length of the lists. Lists this long have enough hits to compare models where hits are few."""

SHARES = (0.25, 0.5, 1.0)
"""The weight with which another member may enter a blend, as a share of the weight of the blend so far."""


@dataclass
class Trial:
    """Some likes hidden from ``train``, and models judged by NDCG@100 at retrieving them for ``users`` (rows).

    ``candidates``: bool[items], the items that are ranked; items that a user has seen are never
    ranked. ``scores``: member -> its scores for all users, rescaled by ``scaling`` and kept, so
    that a blend costs one addition.
    """

    train: Interactions
    hidden: csr_array
    users: np.ndarray
    candidates: np.ndarray
    scaling: Scaling = "standard"
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.histories = self.train.histories().select(self.users)
        self.relevant = self.hidden[self.users]

    def judge(self, model: Recommender, rows: np.ndarray) -> np.ndarray:
        """Return the NDCG of a fitted model for some users, float64[len(rows)]."""
        return self.ndcg_per_user(self._candidate_scores(model, rows), rows)

    def cache_scores(self, name: str, model: Recommender) -> np.ndarray:
        """Keep the rescaled scores of a fitted model under ``name`` and return its NDCG, float64[users]."""
        all_rows = np.arange(len(self.users))
        self.scores[name] = rescale_rows(self._candidate_scores(model, all_rows), self.scaling)
        return self.ndcg_per_user(self.scores[name])

    def _candidate_scores(self, model: Recommender, rows: np.ndarray) -> np.ndarray:
        """Return the scores of a model for some users, NaN for items that are not candidates."""
        scores = model.score(self.histories[rows], self.users[rows])
        if self.candidates.all():
            return scores
        return np.where(self.candidates, scores, np.float32(np.nan))

    def ndcg_per_user(self, scores: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return NDCG@100 per user, float64[len(rows)]; without ``rows``, of all users."""
        rows = np.arange(len(self.users)) if rows is None else rows
        seen = self.histories.values[rows]
        items, top_scores = select_top_k(np.ascontiguousarray(scores), seen.indptr, seen.indices, DEPTH)
        source = np.zeros(items.shape, dtype=np.int8)
        topk = TopK(self.users[rows], items, top_scores, source, ("trial",), source[:, 0])
        return ndcg(judge(topk, self.relevant[rows]), DEPTH)

    def blend_scores(self, weights: dict[str, float], rows: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of a blend of members whose scores are cached."""
        rows = np.arange(len(self.users)) if rows is None else rows
        return divide_sums(*_sums({name: self.scores[name][rows] for name in weights}, weights))

    def blend_ndcg(self, weights: dict[str, float], rows: np.ndarray | None = None) -> np.ndarray:
        """Return the NDCG per user of a blend of members whose scores are cached."""
        return self.ndcg_per_user(self.blend_scores(weights, rows), rows)

    def choose(self, rows: np.ndarray, start: dict[str, float] | None = None, steps: int = 6) -> dict[str, float]:
        """Return weights, by adding members one by one while the mean NDCG of ``rows`` rises.

        A member enters with one of :data:`SHARES` of the weight of the blend so far, whichever is
        best, and may enter again. Without ``start``, the best single member is the start. After
        Caruana, Niculescu-Mizil, Crew and Ksikes,
        ICML 2004, whose members enter with equal weights: a member that helps at a fifth may harm
        at a half.
        """
        scores = self.scores
        if len(rows) < len(self.users):
            scores = {name: z[rows] for name, z in self.scores.items()}
        if start is None:
            single = {name: float(self.ndcg_per_user(z, rows).mean()) for name, z in scores.items()}
            start = {max(single, key=lambda name: single[name]): 1.0}
        weights = dict(start)
        current_value = float(self.blend_ndcg(start, rows).mean())
        for _ in range(steps):
            blend_sums = _sums(scores, weights)
            size = sum(weights.values())
            values = {}
            for name, share in product(scores, SHARES):
                total, total_weight = (array.copy() for array in blend_sums)
                added_weight = np.full((len(rows), 1), share * size, dtype=np.float32)
                add_weighted(total, total_weight, scores[name], added_weight)
                values[name, share] = float(self.ndcg_per_user(divide_sums(total, total_weight), rows).mean())
            name, share = max(values, key=lambda step: values[step])
            if values[name, share] <= current_value:
                break
            weights = weights | {name: weights.get(name, 0.0) + share * size}
            current_value = values[name, share]
        return weights

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to choose on and the rows to check on."""
        first = to_unit_interval(hash_words(seed + 1, self.users)) < 0.5
        return np.flatnonzero(first), np.flatnonzero(~first)


def _sums(scores: dict[str, np.ndarray], weights: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return :func:`blend.weighted_sums` of members with one weight each."""
    shape = next(iter(scores.values())).shape
    scored = ((scores[name], np.full(shape[0], weight)) for name, weight in weights.items())
    return weighted_sums(scored, shape)


Position = tuple[int, ...]
"""One rung of each ladder."""


def climb(lengths: list[int], value: Callable[[Position], float], rounds: int = 10) -> Position:
    """Return the position on ladders that a climb from their middles ends at, moving while ``value`` rises.

    One ladder is climbed after another, again and again (at most ``rounds`` times) until none of
    them helps: a local maximum along every ladder. ``value`` is called once per position.

    Args:
        lengths: number of rungs of each ladder.
    """
    value = cache(value)
    position = tuple(length // 2 for length in lengths)
    for _ in range(rounds):
        start = position
        for axis, length in enumerate(lengths):
            for step in (1, -1):
                while 0 <= position[axis] + step < length:
                    neighbour = (*position[:axis], position[axis] + step, *position[axis + 1 :])
                    if value(neighbour) <= value(position):
                        break
                    position = neighbour
        if position == start:
            break
    return position


def gain(new: np.ndarray, old: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the mean paired difference of two models' values and its 95 % bootstrap interval."""
    mean, low, high = mean_ci(new - old, seed=seed)
    return {"mean": mean, "low": low, "high": high}


def hide_pairs(train: Interactions, share: float, max_users: int, seed: int) -> Trial:
    """Return a trial that hides about ``share`` of the likes of each user with two or more, the newest first.

    Likes of one time, or of unknown time, are ordered by hash. Each user keeps at least one like.
    Every item is a candidate.

    Args:
        max_users: at most this number of users with a hidden like are judged, chosen by hash.
    """
    liked = np.flatnonzero(train.value > 0)
    user = train.user[liked]
    chance = to_unit_interval(hash_words(seed, user, train.item[liked]))
    newest_first = liked[np.lexsort((chance, -train.time[liked], user))]
    likes = np.bincount(user, minlength=len(train.users))
    position = np.arange(len(liked)) - np.repeat(np.cumsum(likes) - likes, likes)
    # The number to hide is rounded up or down by chance, so that users with few likes take part
    # too.
    goal = share * likes + to_unit_interval(hash_words(seed + 3, np.arange(len(likes))))
    owner = train.user[newest_first]
    is_hidden = np.zeros(len(train), dtype=bool)
    is_hidden[newest_first] = (position + 1 <= goal[owner]) & (position + 1 < likes[owner])
    candidates = np.ones(len(train.items), dtype=bool)
    return _trial(train, is_hidden, is_hidden, candidates, max_users, seed)


def hide_items(train: Interactions, share: float, max_users: int, seed: int) -> Trial:
    """Return a trial that hides all events of about ``share`` of the liked items, chosen by hash.

    These are its new items and its only candidates. Users who like some of them and something else
    are judged.

    Args:
        max_users: at most this number of these users are judged, chosen by hash.
    """
    is_new = to_unit_interval(hash_words(seed, np.arange(len(train.items)))) < share
    is_removed = is_new[train.item]
    is_new &= np.bincount(train.item[train.value > 0], minlength=len(is_new)) > 0
    return _trial(train, is_removed, is_removed & (train.value > 0), is_new, max_users, seed)


def _trial(
    train: Interactions,
    is_removed: np.ndarray,
    is_relevant: np.ndarray,
    candidates: np.ndarray,
    max_users: int,
    seed: int,
) -> Trial:
    """Return the trial without the entries ``is_removed`` that judges by the entries ``is_relevant``."""
    remaining = subset(train, ~is_removed)
    has_likes = np.bincount(remaining.user[remaining.value > 0], minlength=len(train.users)) > 0
    relevant = replace(subset(train, is_relevant), value=np.ones(int(is_relevant.sum()), dtype=np.float32)).matrix()
    users = np.flatnonzero(has_likes & (np.diff(relevant.indptr) > 0))
    chance = to_unit_interval(hash_words(seed + 2, users))
    chosen_users = np.sort(users[np.argsort(chance, kind="stable")[:max_users]])
    return Trial(remaining, relevant, chosen_users, candidates)


def subset(train: Interactions, keep: np.ndarray) -> Interactions:
    """Return the entries of ``keep`` (bool[n]) with the same id maps."""
    columns = {name: getattr(train, name)[keep] for name in ("user", "item", "value", "time")}
    return replace(train, **columns)
