"""A trial that finds the number of likes from which a model is better than its fallback."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.data.hashing import hash_words, to_unit_interval
from recsys.evaluation.judging.judge import judge
from recsys.evaluation.judging.metrics import ndcg
from recsys.evaluation.min_history import GROUP_STARTS, TOP_K, can_decide, choose_min_history
from recsys.models.combining.trial import Trial, hide_latest, hide_pairs
from recsys.ranking.rank import recommend
from recsys.recommender import Recommender
from recsys.types import Features, Interactions

HIDDEN_SHARE = 0.2
"""Share of the events, or of each user's likes, that the trial hides."""

MAX_USERS = 2000
"""Largest number of users that a trial judges. For this number, scoring is fast compared with the
fit."""


def try_short_histories(
    model: Recommender,
    fallback: Recommender,
    train: Interactions,
    features: Features | None = None,
    *,
    by_time: bool = False,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Compare a model with its fallback on users with few likes, in a trial on a part of train.

    The trial hides some likes, fits both models on the rest of ``train``, and compares the NDCG@10
    of the hidden likes. At most ``MAX_USERS`` users are judged. Each has a hidden like and 1 to 19
    likes that are not hidden.

    The result is the dict of :func:`recsys.evaluation.min_history.choose_min_history`. Its key
    ``min_history`` is the smallest number of likes with which a user gets the list of the model.
    The result is None, and nothing is fitted, if no group of users by history length (0–1, 2–4,
    5–19 likes) has 30 users.

    After the trial both models are fitted on a part of train only, so the caller must fit them again.

    Args:
        model, fallback: two models, which are fitted here.
        train: the interactions on which the trial is made.
        features: the features of the items, or None.
        by_time: whether to hide the newest fifth of all events, as a split by time does. If False,
            about the newest fifth of each user's likes is hidden, and every user keeps at least one
            like. Use True in a run that is split by time. With False, popularity would be counted
            from events that are later than the hidden ones, which would favour a popular fallback.
        seed: the seed of the hashes and of the bootstrap.
    """
    if by_time:
        trial = hide_latest(train, HIDDEN_SHARE, len(train.users), seed)
    else:
        trial = hide_pairs(train, HIDDEN_SHARE, len(train.users), seed)
    is_short = trial.histories.n_liked < GROUP_STARTS[-1]
    short_users = trial.users[is_short]
    order = np.argsort(to_unit_interval(hash_words(seed + 2, short_users)), kind="stable")
    rows = np.flatnonzero(is_short)[np.sort(order[:MAX_USERS])]
    n_liked = trial.histories.n_liked[rows]
    if not can_decide(n_liked):
        return None
    model_ndcg = _ndcg_of(model.fit(trial.train, features), trial, rows)
    fallback_ndcg = _ndcg_of(fallback.fit(trial.train, features), trial, rows)
    return choose_min_history(n_liked, model_ndcg, fallback_ndcg, seed=seed)


def _ndcg_of(model: Recommender, trial: Trial, rows: np.ndarray) -> np.ndarray:
    """Return the NDCG of a fitted model's lists for some users of a trial, float64[rows]."""
    lists = recommend(model, trial.histories[rows], TOP_K, users=trial.users[rows])
    return ndcg(judge(lists, trial.relevant[rows]), TOP_K)
