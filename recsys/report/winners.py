"""Find the best model for each group of users by length of history, and for rarely liked items."""

from __future__ import annotations

from typing import Any

from recsys.evaluation.groups import LEAST_USERS
from recsys.evaluation.testing.pick import lower_is_better, models_by_quality

RARE_ITEMS = "rare items"
"""The name of the group of items in the tail of popularity, including those that nobody liked in
train."""


def best_models(metrics: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Return the best model of each group by the first metric, as a dict: group -> (model, mean).

    The groups are those of users by length of history. The last group is :data:`RARE_ITEMS`: the
    metric of all users, with only items of the popularity tail as relevant items. If several models
    have the best mean, it is the first of them. A group in which no model was judged on at least
    ``LEAST_USERS`` users is left out.

    Args:
        metrics: the content of metrics.json.
    """
    about = metrics["about"]
    primary = about["primary"]
    groups = dict(about["segments"].get("history", {}))
    tail = about["segments"].get("popularity", {}).get("tail")
    if tail:
        groups[RARE_ITEMS] = tail
    winners = {}
    for group, models in groups.items():
        cells = {name: values.get(primary) for name, values in models.items()}
        means = {name: cell["mean"] for name, cell in cells.items() if cell and cell["users"] >= LEAST_USERS}
        means = {name: mean for name, mean in means.items() if mean is not None}
        if means:
            name = models_by_quality(means, is_error=lower_is_better(metrics))[0]
            winners[group] = (name, means[name])
    return winners
