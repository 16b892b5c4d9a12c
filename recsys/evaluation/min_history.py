"""Choose the smallest number of liked items with which a user gets the list of a model.

For users with few likes, a personal model can be worse than its fallback, for example popularity.
A trial hides some likes of train, and compares the lists of the model and of the fallback by them.
If the fallback is better, users with fewer liked items get the list of the fallback.
The local engine and the Spark engine both use this module.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.evaluation.testing.significance import mean_ci

GROUP_STARTS = (0, 2, 5, 20)
"""The smallest number of liked items in each group of users: 0–1, 2–4, 5–19 and 20 or more."""

MIN_USERS = 30
"""Smallest number of users in a group for which the model and the fallback are compared."""

TOP_K = 10
"""Length of the lists that the trial judges by NDCG."""


def choose_min_history(
    n_liked: np.ndarray,
    model_ndcg: np.ndarray,
    fallback_ndcg: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Choose the smallest number of liked items with which a user gets the list of the model.

    Users are grouped by their number of liked items. In each group, from the shortest histories to
    the longest, the NDCG of the model minus that of the fallback is averaged over users, with its
    95 % interval. If the interval is below 0, the group gets the fallback. If the interval is above
    0, this group and all groups with longer histories get the model. If it contains 0, or the group
    has fewer than ``MIN_USERS`` users, the group is treated like the group with the next longer
    histories. Users with 20 likes or more always get the model: if it is worse even for them, it is
    a bad model, which the results of the run must show.

    Returns:
        A dict. ``min_history`` is the chosen number, one of ``GROUP_STARTS``; 0 means that all users
        get the model. ``metric`` describes the metric. ``groups`` is a list with a dict per group:
        ``history`` (its name, such as "2-4"), ``users`` (their number), ``model`` and ``fallback``
        (the mean NDCG of each), and ``difference``, a dict with ``mean``, ``low`` and ``high``. For
        a group of fewer than ``MIN_USERS`` users, ``difference`` is None, and ``model`` and
        ``fallback`` are missing.

    Args:
        n_liked: int[users], the number of likes that the model sees in each history.
        model_ndcg: float64[users], the NDCG of the model for each user, NaN where undefined.
        fallback_ndcg: float64[users], the NDCG of the fallback for the same users and hidden likes.
        seed: the seed of the bootstrap.
    """
    groups: list[dict[str, Any]] = []
    chosen = 0
    model_is_better = False
    for name, in_group in history_groups(n_liked):
        users = int(in_group.sum())
        group: dict[str, Any] = {"history": name, "users": users, "difference": None}
        groups.append(group)
        if users < MIN_USERS:
            continue
        group["model"] = float(np.nanmean(model_ndcg[in_group]))
        group["fallback"] = float(np.nanmean(fallback_ndcg[in_group]))
        mean, low, high = mean_ci(model_ndcg[in_group] - fallback_ndcg[in_group], seed=seed)
        group["difference"] = {"mean": mean, "low": low, "high": high}
        model_is_better = model_is_better or low > 0
        if high < 0 and not model_is_better and len(groups) < len(GROUP_STARTS):
            chosen = GROUP_STARTS[len(groups)]
    return {"min_history": chosen, "metric": f"ndcg@{TOP_K} on hidden likes", "groups": groups}


def can_decide(n_liked: np.ndarray) -> bool:
    """Return whether :func:`choose_min_history` can choose another number than 0.

    It can if a group below 20 likes has at least ``MIN_USERS`` users.

    Args:
        n_liked: int[users], the number of likes that the model sees in each history.
    """
    return any(in_group.sum() >= MIN_USERS for _, in_group in history_groups(n_liked)[:-1])


def history_groups(n_liked: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the groups of users by number of liked items, shortest histories first.

    Each group is (name, bool[users]); the mask is True for the users of the group.

    Args:
        n_liked: int[users], the number of liked items of each user.

    >>> [(name, mask.tolist()) for name, mask in history_groups(np.array([3, 30]))][1]
    ('2-4', [True, False])
    """
    group_of_user = np.searchsorted(GROUP_STARTS, n_liked, side="right") - 1
    ends = [start - 1 for start in GROUP_STARTS[1:]]
    names = [f"{start}-{end}" for start, end in zip(GROUP_STARTS, ends, strict=False)]
    names.append(f"{GROUP_STARTS[-1]}+")
    return [(name, group_of_user == group) for group, name in enumerate(names)]
