"""The cold-start curve: how good each model is for users of whom only the first 0, 1, 2, 5,
10 events are known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.data.hashing import hash_words, id_bits
from recsys.evaluation.evaluate import compute_metrics
from recsys.evaluation.judging.metrics import parse_all
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.ranking.rank import recommend
from recsys.recommender import Recommender
from recsys.types import Histories

MOST_USERS = 1_000
"""Users on the curve at most, drawn by hash: enough for narrow intervals,
and every cut scores all of them again."""
FEWEST_USERS = 20
"""A cut for which fewer users have enough events is left out."""


class ColdStart:
    """The same users at every cut, for every model: their histories cut to the first events,
    and their truth.

    Histories are cut to a user's first events (equal times: the lower item row), or, where events
    have no time, to random ones that depend on user and item alone. Lists leave out *all* items of
    the whole history, and the truth stays the same,
    so that only what the model knows of the user changes from cut to cut.

    ``cuts``: those of ``settings.cold_start`` for which at least :data:`FEWEST_USERS` users have
    enough events.
    ``users``: int[m], the users on the curve as rows of ``truth.users``.
    """

    def __init__(self, truth: Truth, k: int) -> None:
        """Choose the users and cut their histories, once for all models.

        Args:
            truth: of the run, with or without seen items; the curve always leaves them out.
            k: length of the lists.
        """
        self.truth = truth.without_seen()
        self.metric = parse_all(truth.settings.metrics)[0]
        self.k = k
        has_truth = np.diff(self.truth.relevant.indptr) > 0
        events = np.where(has_truth, truth.histories.lengths, -1)
        # A user without any history says nothing about the cut 0 either: the curve has the same
        # users at every cut.
        self.cuts = tuple(
            cut for cut in sorted(set(truth.settings.cold_start)) if (events >= max(cut, 1)).sum() >= FEWEST_USERS
        )
        users = np.flatnonzero(events >= max(self.cuts, default=np.inf))
        if len(users) > MOST_USERS:
            bits = hash_words(0, id_bits(pd.Index(truth.users.ids_of(users))))
            users = np.sort(users[np.argsort(bits, kind="stable")[:MOST_USERS]])
        self.users = users
        full_histories = truth.histories.select(users)
        self.seen = full_histories.values
        position = _event_positions(full_histories, truth.users.ids_of(users))
        self._histories = {cut: full_histories.keep_entries(position < cut) for cut in self.cuts}

    def values(self, model: Recommender) -> dict[int, np.ndarray]:
        """Return cut -> float64[users] of the primary metric."""
        values = {}
        for cut, histories in self._histories.items():
            topk = recommend(
                model, histories, self.k, users=self.users, seen=self.seen, candidates=self.truth.ranked_items
            )
            judged = self.truth.judge(topk)
            values[cut] = compute_metrics(judged, [self.metric], "zero")[str(self.metric)]
        return values


def summary(values: dict[str, dict[int, np.ndarray]], metric: str) -> dict[str, Any]:
    """Return what coldstart.json holds: a row per model and cut with its interval,
    and the best model at each cut.
    """
    rows = []
    for name, by_cut in values.items():
        for cut, user_values in by_cut.items():
            mean, low, high = mean_ci(user_values)
            rows.append({"model": name, "events": cut, "mean": mean, "ci95": [low, high]})
    cuts = list(next(iter(values.values()), {}))
    leaders = [max(values, key=lambda name: float(values[name][cut].mean())) for cut in cuts]
    users = 0
    if cuts:
        users = len(next(iter(values.values()))[cuts[0]])
    return {
        "metric": metric,
        "users": users,
        "curve": rows,
        "leads": dict(zip(map(str, cuts), leaders, strict=True)),
    }


def _event_positions(histories: Histories, user_ids: np.ndarray) -> np.ndarray:
    """Return int64[nnz]: the position of each entry in its user's history; without times,
    an order drawn by hash.
    """
    if histories.times is not None:
        return histories.positions()
    row = histories.row_of_entry
    chance = hash_words(1, id_bits(pd.Index(user_ids))[row], histories.values.indices)
    order = np.lexsort((chance, row))
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order)) - histories.values.indptr[row[order]]
    return position
