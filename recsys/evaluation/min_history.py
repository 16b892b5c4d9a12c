"""From how many liked items on a model scores users itself, and below that its fallback does. Both engines decide here.

With few likes to go by, a personal model can be worse than popularity. Where a trial on a part of
train shows that, the users with short histories get the lists of the fallback.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.evaluation.testing.significance import mean_ci

GROUP_STARTS = (0, 2, 5, 20)
"""Where the groups of history length begin: 0–1, 2–4, 5–19 and 20+ liked items, as for the weights of a hybrid."""

MIN_USERS = 30
"""A group with fewer users decides nothing."""

TOP_K = 10
"""The trial judges lists of this length, by NDCG."""


def choose_min_history(
    n_liked: np.ndarray,
    model_ndcg: np.ndarray,
    fallback_ndcg: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Return from how many liked items on the model scores users itself, with the results that led to it.

    A group in which the fallback is better, with the 95 % interval of the paired difference clear
    of 0, goes to the fallback, and one in which the model is better stays with the model, as do all
    longer ones. A group that shows neither, or that has fewer than ``MIN_USERS`` users, follows the
    next longer group: what is worse with four likes is hardly better with one. Users with 20 likes
    or more always stay with the model: one that is worse even for them is worse as a whole, which
    the results of the run must show.

    Args:
        n_liked: int[users], liked items in the history that the model sees.
        model_ndcg: float64[users], NaN = undefined.
        fallback_ndcg: float64[users], for the same users and the same hidden items.

    Returns:
        ``min_history``: one of ``GROUP_STARTS``, 0 = the model scores everyone. ``groups``: per
            group of history its name, the number of users, both means, and the difference model
            minus fallback with its interval; the difference is null with fewer than ``MIN_USERS``
            users.
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
    """Return whether a group below 20 likes has enough users for :func:`choose_min_history` to decide anything."""
    return any(in_group.sum() >= MIN_USERS for _, in_group in history_groups(n_liked)[:-1])


def history_groups(n_liked: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the name of each group of history length and bool[users], who is in it; the shortest histories first."""
    group_of_user = np.searchsorted(GROUP_STARTS, n_liked, side="right") - 1
    ends = [start - 1 for start in GROUP_STARTS[1:]]
    names = [f"{start}-{end}" for start, end in zip(GROUP_STARTS, ends, strict=False)]
    names.append(f"{GROUP_STARTS[-1]}+")
    return [(name, group_of_user == group) for group, name in enumerate(names)]
