"""Find the best model for each group of users by history length, and for items that few or none
liked."""

from __future__ import annotations

from typing import Any

from recsys.evaluation.groups import LEAST_USERS

RARE_ITEMS = "rare items"
"""The name of the group of items in the tail of popularity, including those that nobody liked in
train."""


def best_models(metrics: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Return group -> (model, mean): the best model by the first metric in each group.

    The groups are the users by history length, and last :data:`RARE_ITEMS`, for which only items of
    the popularity tail are relevant. Of equal means, the first model wins. A group in which no
    model was judged on ``LEAST_USERS`` users is left out.

    Args:
        metrics: the content of metrics.json.
    """
    about = metrics["about"]
    primary = about["primary"]
    groups = dict(about["segments"].get("history", {}))
    tail = about["segments"].get("popularity", {}).get("tail")
    if tail:
        groups[RARE_ITEMS] = tail
    best = {}
    for group, models in groups.items():
        cells = {name: values.get(primary) for name, values in models.items()}
        means = {name: cell["mean"] for name, cell in cells.items() if cell and cell["users"] >= LEAST_USERS}
        means = {name: mean for name, mean in means.items() if mean is not None}
        if means:
            name = max(means, key=lambda name: means[name])
            best[group] = (name, means[name])
    return best
