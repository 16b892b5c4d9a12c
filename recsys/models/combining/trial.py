"""A validation split of the training data, for models that choose among other models in ``fit``.

It uses no data other than the training data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product

import numpy as np
from scipy.sparse import csr_array

from recsys.data.hashing import hash_words, to_unit_interval
from recsys.evaluation.testing.significance import mean_ci
from recsys.models.combining.blend import Scaling, divide_sums, rescale_rows, weighted_sums
from recsys.models.combining.hidden_likes import ndcg_after_addition, ndcg_of_hidden
from recsys.recommender import Recommender, score_histories
from recsys.types import Interactions

DEPTH = 100
"""Length of the lists of which a trial computes the NDCG.

Long lists have enough relevant items to compare models, even if relevant items are rare.
"""

FIRST_SHARE = 0.25
OTHER_SHARES = (0.5, 1.0)
"""Weights of a member that is added to a blend, as shares of the sum of the weights so far.

Each addition is tried with :data:`FIRST_SHARE` first, and the best additions with these shares too. A
small share first, because a member that ranks badly by itself may help with a small weight alone.
"""

CELLS_OF_STARTS = 15_000_000
"""The largest sum of users × items over the starts of :meth:`Trial.choose`, after the first start.

With more, the choice of the weights would take as long as the search of the settings.
"""

FULLY_TRIED = 3
"""Number of members that a step also tries with :data:`OTHER_SHARES`.

They are the best ones with :data:`FIRST_SHARE`.
"""


@dataclass
class Trial:
    """A validation split, which judges models by NDCG@100 on likes that are hidden from training.

    A model is fitted on ``train``. It then ranks the candidates for each user, without the items
    that the user has seen in ``train``. The hidden likes of the user are the relevant items.

    Attributes:
        train: the interactions without the hidden entries.
        hidden: csr (users, items) of float32, an entry per hidden like. Its rows are those of
            ``train.users``.
        users: int64[n], the rows in ``train.users`` of the users who are judged.
        candidates: bool[items], the items that are ranked.
        scaling: how scores are rescaled, see :func:`blend.rescale_rows`.
        scores: name of a member -> float32[n, items], its rescaled scores. :meth:`cache_scores`
            stores them, so that a blend is a weighted sum of stored arrays.
        histories: the histories of the n users in ``train``.
        relevant: csr (n, items), the hidden likes of the n users.
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
        """Return the NDCG@100 of a fitted model for the chosen users, float64[len(rows)].

        It is 0 for a user without hidden likes.

        Args:
            model: the model, fitted on ``train``.
            rows: int64, the chosen users, as positions in ``users``.
        """
        return self.ndcg_per_user(self._candidate_scores(model, rows), rows)

    def cache_scores(self, name: str, model: Recommender) -> np.ndarray:
        """Store the scores of a fitted model, and return the NDCG@100 of each user, float64[n].

        ``scores[name]`` becomes float32[n, items]: the scores of the candidates, rescaled per user
        as ``scaling`` says. The scores of other items are NaN.
        """
        all_rows = np.arange(len(self.users))
        self.scores[name] = rescale_rows(self._candidate_scores(model, all_rows), self.scaling)
        return self.ndcg_per_user(self.scores[name])

    def _candidate_scores(self, model: Recommender, rows: np.ndarray) -> np.ndarray:
        """Return the scores of a model for some of the users, float32[len(rows), items].

        Items that are not candidates have NaN.

        Args:
            rows: positions in ``users``.
        """
        scores = score_histories(model, self.histories[rows], self.users[rows])
        if self.candidates.all():
            return scores
        return np.where(self.candidates, scores, np.float32(np.nan))

    def ndcg_per_user(self, scores: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the NDCG@100 of each user for given scores, float64[len(rows)].

        It is 0 for a user without hidden likes.

        Args:
            scores: float32[len(rows), items], NaN for an item that is not ranked.
            rows: positions in ``users``. None: all users.
        """
        rows = np.arange(len(self.users)) if rows is None else rows
        return ndcg_of_hidden(scores, self.histories.values[rows], self.relevant[rows], DEPTH)

    def blend_scores(self, weights: dict[str, float], rows: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of a blend of members with stored scores, float32[len(rows), items].

        A score is the weighted mean of the rescaled scores of those members that have one for the
        item. It is NaN if no member has one.

        Args:
            weights: name of a member -> weight, at least one. Each member is in ``scores``.
            rows: positions in ``users``. None: all users.
        """
        rows = np.arange(len(self.users)) if rows is None else rows
        return divide_sums(*self._sums(weights, rows))

    def _sums(self, weights: dict[str, float], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted sum of the members' scores and the sum of the weights, for each cell.

        Both are float32[len(rows), items], as from :func:`blend.weighted_sums`. The arguments are
        those of :meth:`blend_scores`.
        """
        shape = (len(rows), len(self.candidates))
        scored = ((self._scores_of(name, rows), np.full(len(rows), weight)) for name, weight in weights.items())
        return weighted_sums(scored, shape)

    def _scores_of(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return the stored scores of a member for some users, float32[len(rows), items].

        They are a copy only if ``rows`` are not all users. One member is copied at a time, because
        the stored scores of all members take most of the memory of a trial.
        """
        if np.array_equal(rows, np.arange(len(self.users))):
            return self.scores[name]
        return self.scores[name][rows]

    def blend_ndcg(self, weights: dict[str, float], rows: np.ndarray | None = None) -> np.ndarray:
        """Return the NDCG@100 of each user for a blend of members with stored scores, float64[len(rows)].

        The arguments are those of :meth:`blend_scores`.
        """
        return self.ndcg_per_user(self.blend_scores(weights, rows), rows)

    def choose(self, rows: np.ndarray, start: dict[str, float] | None = None, steps: int = 6) -> dict[str, float]:
        """Choose the weights of a blend by adding members one by one, and return member -> weight.

        Each step tries to add one member, and keeps the addition with the highest mean NDCG@100
        over ``rows`` (of equal ones, the first). The weight of the added member is a share of the
        sum of the weights so far. A member may be added several times; its weights are then added
        up. The search ends when no addition raises the mean, or after ``steps`` additions.

        Each step tries all members with stored scores with :data:`FIRST_SHARE`, and the
        :data:`FULLY_TRIED` best ones also with :data:`OTHER_SHARES`.

        The best blend may not contain the best single member. So without ``start`` the search starts
        from each single member, the best ones first, and returns the best blend of all.
        :data:`CELLS_OF_STARTS` limits the number of starts.

        The method is that of Caruana, Niculescu-Mizil, Crew and Ksikes, ICML 2004, except that
        their members have equal weights. Several weights are tried here, because a member may
        improve a blend with a fifth of the total weight and harm it with a half.

        Args:
            rows: positions in ``users``.
            start: member -> weight of the first blend. None: the first blends are single members
                with weight 1.
            steps: the largest number of additions. 0: the first blend is returned, the best single member
                without ``start``.
        """
        if start is not None:
            return self._add_members(start, rows, steps)[0]
        single = {name: float(self.ndcg_per_user(self._scores_of(name, rows), rows).mean()) for name in self.scores}
        best_first = sorted(single, key=lambda name: -single[name])
        if not steps:
            return {best_first[0]: 1.0}
        most_starts = max(1, CELLS_OF_STARTS // (len(self.users) * len(self.candidates)))
        blends = [self._add_members({name: 1.0}, rows, steps) for name in best_first[:most_starts]]
        return max(blends, key=lambda blend: blend[1])[0]

    def _add_members(self, start: dict[str, float], rows: np.ndarray, steps: int) -> tuple[dict[str, float], float]:
        """Return the weights that :meth:`choose` reaches from a start, and their mean NDCG@100 over ``rows``.

        Args:
            start: the weights of the first blend.
            rows, steps: as for :meth:`choose`.
        """
        weights = dict(start)
        current_value = float(self.blend_ndcg(start, rows).mean())
        for _ in range(steps):
            values = self._values_of_additions(weights, rows)
            name, share = max(values, key=lambda step: values[step])
            if values[name, share] <= current_value:
                break
            weights = weights | {name: weights.get(name, 0.0) + share * sum(weights.values())}
            current_value = values[name, share]
        return weights, current_value

    def _values_of_additions(self, weights: dict[str, float], rows: np.ndarray) -> dict[tuple[str, float], float]:
        """Return the mean NDCG@100 of a blend after each possible addition of one member.

        The result is a dict: (name of the member, share) -> mean. All members are tried with the
        first share, and the best of them also with the other shares.

        Args:
            weights: the weights of the blend before the addition.
            rows: positions in ``users``.
        """
        sums = self._sums(weights, rows)
        seen, hidden = self.histories.values[rows], self.relevant[rows]
        size = sum(weights.values())
        values: dict[tuple[str, float], float] = {}

        def try_addition(name: str, share: float) -> None:
            member = (self.scores[name], rows)
            values[name, share] = float(ndcg_after_addition(sums, member, share * size, seen, hidden, DEPTH).mean())

        for name in self.scores:
            try_addition(name, FIRST_SHARE)
        best_additions = sorted(self.scores, key=lambda name: -values[name, FIRST_SHARE])[:FULLY_TRIED]
        for name, share in product(best_additions, OTHER_SHARES):
            try_addition(name, share)
        return values

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Divide the users at random into two halves: one to choose a blend on, and one to check it on.

        Both are int64 positions in ``users``, in ascending order. A hash of the user decides, so
        the halves may differ a little in size.

        Args:
            seed: the seed of the hash.
        """
        first = to_unit_interval(hash_words(seed + 1, self.users)) < 0.5
        return np.flatnonzero(first), np.flatnonzero(~first)


Position = tuple[int, ...]
"""The number of the current rung on each ladder. A ladder is the ordered list of values of a setting,
and a rung is one of these values."""

Ladders = tuple[int, ...]
"""The indices of ladders on which a search moves together."""


def climb(
    start: Position,
    lengths: Sequence[int],
    value: Callable[[Position], float],
    rounds: Sequence[Sequence[Ladders]] | None = None,
    least_gain: float = 0.0,
) -> Position:
    """Search a position with a high ``value`` by moving along ladders, and return it.

    On each ladder the search moves up rung by rung as long as ``value`` rises, then down in the
    same way. Several ladders can also move together, each by one rung. A round does this one after
    the other. The search ends after the last round, or after a round without a move. ``value`` is
    called only once per position.

    Args:
        start: the first position.
        lengths: number of rungs of each ladder.
        value: the function to maximise.
        rounds: for each round, in the order of the search, the indices of the ladders that move
            together. None: ten rounds in which each ladder moves by itself.
        least_gain: a move is made if the new value is above (1 + ``least_gain``) times the old one.

    >>> climb((0, 0), [5, 5], lambda position: -((position[0] - 3) ** 2) - (position[1] - 1) ** 2)
    (3, 1)
    """
    value = cache(value)
    position = start
    value(position)
    for moves in [one_by_one(len(lengths))] * 10 if rounds is None else rounds:
        before_round = position
        for ladders in moves:
            for step in (1, -1):
                while True:
                    neighbour = tuple(rung + step * (axis in ladders) for axis, rung in enumerate(position))
                    is_on_ladders = all(0 <= rung < length for rung, length in zip(neighbour, lengths, strict=True))
                    if not is_on_ladders or value(neighbour) <= value(position) * (1 + least_gain):
                        break
                    position = neighbour
        if position == before_round:
            break
    return position


def one_by_one(count: int) -> list[Ladders]:
    """Return the round of :func:`climb` in which each of ``count`` ladders moves by itself."""
    return [(axis,) for axis in range(count)]


def gain(new: np.ndarray, old: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the mean of ``new - old`` over users, and its 95 % bootstrap interval.

    The result is a dict with the keys ``mean``, ``low`` and ``high``.

    Args:
        new, old: float64[n], the values of two models for the same users.
        seed: the seed of the bootstrap.
    """
    mean, low, high = mean_ci(new - old, seed=seed)
    return {"mean": mean, "low": low, "high": high}


def hide_pairs(train: Interactions, share: float, max_users: int, seed: int, *, newest: bool = True) -> Trial:
    """Return a trial that hides about ``share`` of the likes of each user.

    Each user keeps at least one like, so a user with one like has nothing hidden. The order of
    likes with the same time, or without a time, is decided by a hash. Every item is a candidate.

    Args:
        train: the interactions, from which the trial takes both parts.
        share: in (0, 1). The number of hidden likes of a user is rounded up or down by a hash.
        max_users: the largest number of users to judge. They are chosen by a hash among the users
            with a hidden like.
        seed: seed of the hashes.
        newest: whether the newest likes of each user are hidden. If False, a hash chooses them.
    """
    liked = np.flatnonzero(train.value > 0)
    user = train.user[liked]
    chance = to_unit_interval(hash_words(seed, user, train.item[liked]))
    time = train.time[liked] if newest else np.zeros(len(liked), dtype=np.int64)
    newest_first = liked[np.lexsort((chance, -time, user))]
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


def hide_latest(train: Interactions, share: float, max_users: int, seed: int) -> Trial:
    """Return a trial that hides about ``share`` of all events: those after a point in time.

    A split by time does the same. Events are the entries of ``train``. Those with the same time are
    all hidden or all visible; those without a time are visible. An item whose likes are all hidden
    is a new item of the trial. Every item is a candidate.

    Args:
        train: the interactions, from which the trial takes both parts.
        share: in (0, 1).
        max_users: the largest number of users to judge. They are chosen by a hash among the users
            with a hidden like and a visible one.
        seed: seed of the hash.
    """
    is_hidden = train.time > np.quantile(train.time, 1 - share)
    candidates = np.ones(len(train.items), dtype=bool)
    return _trial(train, is_hidden, is_hidden & (train.value > 0), candidates, max_users, seed)


def hide_items(train: Interactions, share: float, max_users: int, seed: int) -> Trial:
    """Return a trial that hides all entries of some of the liked items, chosen by a hash.

    The hidden items are the new items of the trial, and only they are candidates. Users are judged
    if they like a hidden item and an item that is not hidden.

    Args:
        train: the interactions, from which the trial takes both parts.
        share: in (0, 1), the share of the liked items that is hidden; their number is rounded up.
        max_users: the largest number of users to judge. They are chosen by a hash.
        seed: seed of the hashes.
    """
    # A fixed limit of the hash would leave few: items that a split by items has hidden have low hashes.
    liked = np.unique(train.item[train.value > 0])
    count = int(np.ceil(share * len(liked)))
    order = np.argsort(hash_words(seed, liked), kind="stable")
    is_new = np.zeros(len(train.items), dtype=bool)
    is_new[liked[order[:count]]] = True
    is_removed = is_new[train.item]
    return _trial(train, is_removed, is_removed & (train.value > 0), is_new, max_users, seed)


def _trial(
    train: Interactions,
    is_removed: np.ndarray,
    is_relevant: np.ndarray,
    candidates: np.ndarray,
    max_users: int,
    seed: int,
) -> Trial:
    """Return a trial in which some entries of ``train`` are hidden and some are the relevant items.

    Only users with a relevant entry and a remaining like are judged.

    Args:
        is_removed: bool[n], the entries that are hidden from training.
        is_relevant: bool[n], the entries that models should retrieve.
        candidates: bool[items], the items that are ranked.
        max_users: the largest number of users to judge, chosen by a hash.
    """
    remaining = subset(train, ~is_removed)
    has_likes = np.bincount(remaining.user[remaining.value > 0], minlength=len(train.users)) > 0
    relevant = replace(subset(train, is_relevant), value=np.ones(int(is_relevant.sum()), dtype=np.float32)).matrix()
    users = np.flatnonzero(has_likes & (np.diff(relevant.indptr) > 0))
    chance = to_unit_interval(hash_words(seed + 2, users))
    chosen_users = np.sort(users[np.argsort(chance, kind="stable")[:max_users]])
    return Trial(remaining, relevant, chosen_users, candidates)


def subset(train: Interactions, keep: np.ndarray) -> Interactions:
    """Return interactions with only some of the entries of ``train``, and with the same id maps.

    Args:
        keep: bool[n], True for the entries to keep.
    """
    columns = {name: getattr(train, name)[keep] for name in ("user", "item", "value", "time")}
    return replace(train, **columns)
