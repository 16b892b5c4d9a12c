"""The cold-start curve: how good each model is for users of whom only the first 0, 1, 2, 5, 10 events are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.data.hashing import hash_words, id_bits
from recsys.evaluation.evaluate import EvaluationSettings, score, truth_of
from recsys.evaluation.judging.judge import judge
from recsys.evaluation.judging.metrics import parse_all
from recsys.evaluation.testing.significance import mean_ci
from recsys.ranking.rank import recommend
from recsys.types import Recommender, Split, select_rows

MOST = 1_000
"""So many users are asked about, drawn by hash: their intervals are narrow enough, and every cut scores them again."""
LEAST = 20
"""Longer cuts, which fewer users have, are left out."""


class ColdStart:
    """The same users at every cut, by every model: who has events enough, their histories cut, and their truth.

    Histories are cut to a user's first events (equal times: the lower item row), or, where events have no time, to
    random ones that depend on user and item alone. All that the user has seen stays out of the lists, and the truth
    stays what it is, so only what the model is told changes.

    ``cuts``: those of ``judging.cold_start`` that at least :data:`LEAST` users have events for.
    ``users``: int[m], rows of ``split.test.users``: who they are, which models are told.
    """

    def __init__(self, split: Split, judging: EvaluationSettings, k: int) -> None:
        self.metric, self.k = parse_all(judging.metrics)[0], k
        histories = split.histories()
        relevant, _ = truth_of(split, judging.relevant, histories)
        events = np.where(np.diff(relevant.indptr) > 0, np.diff(histories.indptr), -1)
        self.cuts = tuple(cut for cut in sorted(set(judging.cold_start)) if (events >= max(cut, 1)).sum() >= LEAST)
        able = np.flatnonzero(events >= max(self.cuts, default=np.inf))
        if len(able) > MOST:
            bits = hash_words(0, id_bits(pd.Index(split.test.users.ids_of(able))))
            able = np.sort(able[np.argsort(bits, kind="stable")[:MOST]])
        self.users, self.seen, self.relevant = able, select_rows(histories, able), select_rows(relevant, able)
        self.seen.sort_indices()
        self._place = _places(split, able)

    def values(self, model: Recommender) -> dict[int, np.ndarray]:
        """Return cut -> float64[users] of the primary metric."""
        found = {}
        for cut in self.cuts:
            told = _kept(self.seen, self._place < cut)
            lists = recommend(model, told, self.k, users=self.users, seen=self.seen)
            judged = judge(lists, self.relevant)
            found[cut] = score(judged, [self.metric], "zero")[str(self.metric)]
        return found


def summary(values: dict[str, dict[int, np.ndarray]], metric: str) -> dict[str, Any]:
    """Return what coldstart.json holds: a row a model and cut with its interval, and where the lead changes hands."""
    rows = []
    for name, by_cut in values.items():
        for cut, own in by_cut.items():
            mean, low, high = mean_ci(own)
            rows.append({"model": name, "events": cut, "mean": mean, "ci95": [low, high]})
    cuts = list(next(iter(values.values()), {}))
    leaders = [max(values, key=lambda name: float(values[name][cut].mean())) for cut in cuts]
    users = len(next(iter(values.values()))[cuts[0]]) if cuts else 0
    return {"metric": metric, "users": users, "curve": rows, "leads": dict(zip(map(str, cuts), leaders, strict=True))}


def _places(split: Split, rows: np.ndarray) -> np.ndarray:
    """Return int64[nnz of the histories]: 0, 1, 2 … within each user, in the order in which events came."""
    history = split.history
    times = csr_array((history.time.astype(np.float64) + 2, (history.user, history.item)), shape=history.matrix().shape)
    own = select_rows(times, history.users.rows(split.test.users.ids)[rows])
    own.sort_indices()
    user = np.repeat(np.arange(len(rows)), np.diff(own.indptr))
    chance = hash_words(1, id_bits(pd.Index(split.test.users.ids_of(rows)))[user], own.indices)
    order = np.lexsort((chance if (history.time < 0).all() else own.indices, own.data, user))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - own.indptr[user[order]]
    return place


def _kept(matrix: csr_array, kept: np.ndarray) -> csr_array:
    """Return the matrix with some of its stored entries."""
    upto = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return csr_array((matrix.data[kept], matrix.indices[kept], upto), shape=matrix.shape)
