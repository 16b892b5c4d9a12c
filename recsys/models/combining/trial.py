"""A validation split made inside ``fit``: what a model that chooses among models looks at, and nothing else."""

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
from recsys.models.combining.blend import How, comparable, mean_of, sums
from recsys.recommender import Recommender
from recsys.types import Interactions, TopK

DEPTH = 100
"""Places that count. A list this long has enough hits to compare models where hits are few."""

SHARES = (0.25, 0.5, 1.0)
"""With how much of a blend's weight another part may come in."""


@dataclass
class Trial:
    """Some likes hidden from ``train``, and models judged by NDCG@100 on finding them for ``users`` (rows).

    ``candidates``: bool[items], what is ranked (besides what the user has seen, which never is). ``scores``: part ->
    its scores of all users, comparable in the sense of ``how``, kept, so that a blend costs an addition.
    """

    train: Interactions
    hidden: csr_array
    users: np.ndarray
    candidates: np.ndarray
    how: How = "standard"
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.histories = self.train.histories().select(self.users)
        self.relevant = self.hidden[self.users]

    def judge(self, model: Recommender, rows: np.ndarray) -> np.ndarray:
        """Return a fitted model's NDCG for some users, float64[len(rows)]."""
        return self.value(self._opinions(model, rows), rows)

    def listen(self, name: str, model: Recommender) -> np.ndarray:
        """Keep a fitted model's opinions under ``name`` and return its NDCG, float64[users]."""
        self.scores[name] = comparable(self._opinions(model, np.arange(len(self.users))), self.how)
        return self.value(self.scores[name])

    def _opinions(self, model: Recommender, rows: np.ndarray) -> np.ndarray:
        scores = model.score(self.histories[rows], self.users[rows])
        return scores if self.candidates.all() else np.where(self.candidates, scores, np.float32(np.nan))

    def value(self, scores: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return NDCG@100 of each user (of ``rows`` of them)."""
        rows = np.arange(len(self.users)) if rows is None else rows
        seen = self.histories.values[rows]
        items, best = select_top_k(np.ascontiguousarray(scores), seen.indptr, seen.indices, DEPTH)
        nobody = np.zeros(items.shape, dtype=np.int8)
        topk = TopK(self.users[rows], items, best, nobody, ("trial",), nobody[:, 0])
        return ndcg(judge(topk, self.relevant[rows]), DEPTH)

    def mixed(self, weights: dict[str, float], rows: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of a blend of parts that were listened to."""
        rows = np.arange(len(self.users)) if rows is None else rows
        return mean_of(*_sums({p: self.scores[p][rows] for p in weights}, weights))

    def blend(self, weights: dict[str, float], rows: np.ndarray | None = None) -> np.ndarray:
        """Return the NDCG of a blend of parts that were listened to."""
        return self.value(self.mixed(weights, rows), rows)

    def choose(self, rows: np.ndarray, start: dict[str, float] | None = None, steps: int = 6) -> dict[str, float]:
        """Return weights that add parts one by one (a part may come again) while the mean NDCG of ``rows`` rises.

        A part comes in with one of :data:`SHARES` of the weight of all so far, whichever is best. Without ``start``,
        the best single part is the start. After Caruana, Niculescu-Mizil, Crew and Ksikes, ICML 2004, whose parts come
        in with equal weights: a part that helps at a fifth may harm at a half.
        """
        everyone = len(rows) == len(self.users)
        own = {p: z if everyone else z[rows] for p, z in self.scores.items()}
        if start is None:
            single = {p: float(self.value(z, rows).mean()) for p, z in own.items()}
            start = {max(single, key=lambda p: single[p]): 1.0}
        weights, best = dict(start), float(self.blend(start, rows).mean())
        for _ in range(steps):
            so_far, size = _sums(own, weights), sum(weights.values())
            values = {}
            for p, share in product(own, SHARES):
                total, weight = (part.copy() for part in so_far)
                add_weighted(total, weight, own[p], np.full((len(rows), 1), share * size, dtype=np.float32))
                values[p, share] = float(self.value(mean_of(total, weight), rows).mean())
            p, share = max(values, key=lambda step: values[step])
            if values[p, share] <= best:
                break
            weights, best = weights | {p: weights.get(p, 0.0) + share * size}, values[p, share]
        return weights

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to choose on and the rows to check on."""
        first = to_unit_interval(hash_words(seed + 1, self.users)) < 0.5
        return np.flatnonzero(first), np.flatnonzero(~first)


def _sums(scores: dict[str, np.ndarray], weights: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return what :func:`blend.sums` says of parts with one weight each."""
    shape = next(iter(scores.values())).shape
    return sums(((scores[p], np.full(shape[0], w)) for p, w in weights.items()), shape)


Place = tuple[int, ...]
"""A rung of each of some ladders."""


def climb(lengths: list[int], value: Callable[[Place], float], rounds: int = 10) -> Place:
    """Return the place on ladders of so many rungs that climbs from their middles while ``value`` rises.

    One ladder after another, again (``rounds`` times at most) until none of them helps: a local maximum along every
    ladder. ``value`` is asked once a place.
    """
    value = cache(value)
    place = tuple(n // 2 for n in lengths)
    for _ in range(rounds):
        before = place
        for axis, n in enumerate(lengths):
            for step in (1, -1):
                while 0 <= place[axis] + step < n:
                    there = (*place[:axis], place[axis] + step, *place[axis + 1 :])
                    if value(there) <= value(place):
                        break
                    place = there
        if place == before:
            break
    return place


def gain(new: np.ndarray, old: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the mean paired difference of two models' values and its 95 % bootstrap interval."""
    mean, low, high = mean_ci(new - old, seed=seed)
    return {"mean": mean, "low": low, "high": high}


def hide_pairs(train: Interactions, share: float, most: int, seed: int) -> Trial:
    """Return a trial that hides about ``share`` of the likes of users with two or more, the newest first.

    Likes of one time, or of no known time, go by hash. Everyone keeps one. At most ``most`` of these users are asked.
    Every item is a candidate.
    """
    liked = np.flatnonzero(train.value > 0)
    user, chance = train.user[liked], to_unit_interval(hash_words(seed, train.user[liked], train.item[liked]))
    newest = liked[np.lexsort((chance, -train.time[liked], user))]
    likes = np.bincount(user, minlength=len(train.users))
    place = np.arange(len(liked)) - np.repeat(np.cumsum(likes) - likes, likes)
    goal = share * likes + to_unit_interval(hash_words(seed + 3, np.arange(len(likes))))  # rounded up or down by chance
    hide = np.zeros(len(train), dtype=bool)
    hide[newest] = (place + 1 <= goal[train.user[newest]]) & (place + 1 < likes[train.user[newest]])
    return _trial(train, hide, hide, np.ones(len(train.items), dtype=bool), most, seed)


def hide_items(train: Interactions, share: float, most: int, seed: int) -> Trial:
    """Return a trial that hides all events of about ``share`` of the items that somebody likes, by hash.

    They are new items, ranked among themselves for users who like some of them and something else.
    """
    new = to_unit_interval(hash_words(seed, np.arange(len(train.items)))) < share
    hide = new[train.item]
    new &= np.bincount(train.item[train.value > 0], minlength=len(new)) > 0
    return _trial(train, hide, hide & (train.value > 0), new, most, seed)


def _trial(
    train: Interactions, gone: np.ndarray, hidden: np.ndarray, candidates: np.ndarray, most: int, seed: int
) -> Trial:
    kept = subset(train, ~gone)
    left = np.bincount(kept.user[kept.value > 0], minlength=len(train.users)) > 0
    truth = replace(subset(train, hidden), value=np.ones(int(hidden.sum()), dtype=np.float32)).matrix()
    users = np.flatnonzero(left & (np.diff(truth.indptr) > 0))
    chance = to_unit_interval(hash_words(seed + 2, users))
    return Trial(kept, truth, np.sort(users[np.argsort(chance, kind="stable")[:most]]), candidates)


def subset(train: Interactions, keep: np.ndarray) -> Interactions:
    """Return the entries of ``keep`` (bool[n]) under the same maps."""
    parts = {name: getattr(train, name)[keep] for name in ("user", "item", "value", "time")}
    return replace(train, **parts)
