"""A trial on a part of train: from how many likes on is a model better than its fallback?"""

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
"""Users that a trial judges, at most: with so many, scoring costs little beside the fit."""


def try_short_histories(
    model: Recommender,
    fallback: Recommender,
    train: Interactions,
    features: Features | None = None,
    *,
    by_time: bool = False,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Fit both models without some likes, compare them, and return what :func:`choose_min_history` says.

    The users judged are at most ``MAX_USERS`` of those who have a like that is visible and one that
    is hidden, and so few visible ones that they could go to the fallback. None, and nothing is
    fitted, where they are too few.

    Both models are left fitted on the part of train that the trial shows; fit them again
    afterwards.

    Args:
        by_time: hide the newest fifth of all events, as a split by time does; otherwise about a
            fifth of each user's likes, the newest, so that every user keeps one. Popularity gains
            much from events that come later than what is hidden: a trial that shows them would hand
            users of a run by time to the fallback without need.
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
    """Return the NDCG of a fitted model's lists for some users of a trial: float64[rows]."""
    lists = recommend(model, trial.histories[rows], TOP_K, users=trial.users[rows])
    return ndcg(judge(lists, trial.relevant[rows]), TOP_K)
