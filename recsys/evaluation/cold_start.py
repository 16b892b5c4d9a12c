"""The cold-start curve: the quality of each model when it knows only the first 0, 1, 2, 5 or 10
events of a user."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.data.hashing import hash_words, id_bits
from recsys.evaluation.evaluate import compute_metrics
from recsys.evaluation.judging.metrics import parse_all
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.recommender import Recommender
from recsys.types import Histories

MOST_USERS = 1_000
"""Largest number of users on the curve. If more users qualify, a hash of the user id selects them.

This number gives narrow intervals. It limits the time, because every cut scores all users again.
"""
FEWEST_USERS = 20
"""Smallest number of users with a history long enough for a cut. Otherwise the cut is left out."""


class ColdStart:
    """The users of the cold-start curve, with their histories cut to the first 0, 1, 2 … items.

    A *cut* is a number of items. For a cut c, the model sees only the c oldest items of each
    history. Of items with equal times, the one with the lower row counts as older. If no history
    has times, the model sees c items that a hash of user and item selects.

    All cuts and models have the same users and the same truth, and lists leave out all items of the
    *whole* history. So only the part of the history that the model sees differs between two cuts.

    Attributes:
        truth: the truth by which lists are judged, without the seen items.
        metric: the metric of the curve, which is the primary metric of the run.
        k: the length of the lists.
        cuts: the numbers of ``settings.cold_start`` with at least :data:`FEWEST_USERS` users whose
            history is that long, in ascending order. These users must also have a relevant item,
            and at least one item in the history. Empty if there is no such number: then the curve
            has no users.
        users: int[m], the users on the curve, as rows of ``truth.users``: those with a relevant
            item and a history of at least the largest cut, at most :data:`MOST_USERS` of them.
        seen: csr (m, items), the whole histories of these users.
    """

    def __init__(self, truth: Truth, k: int) -> None:
        """Choose the users and cut their histories, once for all models.

        Args:
            truth: the truth of the run. The curve always leaves out seen items, even if the run
                does not.
            k: the length of the lists.
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
        """Return the primary metric of each user for every cut, as a dict: cut -> float64[m].

        The values are in the order of ``users``. A user whom the model cannot score has the value
        0.

        Args:
            model: a fitted model.
        """
        values = {}
        options = RecommendOptions(seen=self.seen, candidates=self.truth.ranked_items)
        for cut, histories in self._histories.items():
            topk = recommend(model, histories, self.k, users=self.users, options=options)
            judged = self.truth.judge(topk)
            values[cut] = compute_metrics(judged, [self.metric], "zero")[str(self.metric)]
        return values


def summary(values: dict[str, dict[int, np.ndarray]], metric: str) -> dict[str, Any]:
    """Return the content of coldstart.json, a dict.

    Its keys are ``metric``; ``users``, their number; ``curve``, one entry per model and cut with
    ``model``, ``events`` (the cut), ``mean`` and ``ci95`` (the 95 % interval of the mean); and
    ``leads``, cut as text -> the model with the highest mean, the first of several.

    Args:
        values: model -> cut -> the metric of each user, float64[m], as :meth:`ColdStart.values`
            returns it.
        metric: the name of the metric.
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
    """Return the position of each entry in its user's history, 0 for the first, int64[nnz].

    Entries are in the order of their times. If there are no times, they are in the order of a hash
    of user and item.
    """
    if histories.times is not None:
        return histories.positions()
    row = histories.row_of_entry
    chance = hash_words(1, id_bits(pd.Index(user_ids))[row], histories.values.indices)
    order = np.lexsort((chance, row))
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order)) - histories.values.indptr[row[order]]
    return position
