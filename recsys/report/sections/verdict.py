"""The sentence that a report opens with."""

from __future__ import annotations

from typing import Any

from recsys.engine import BASELINES
from recsys.evaluation.groups import LEAST_USERS
from recsys.report.parts import format_interval


def verdict(metrics: dict[str, Any]) -> str:
    """Return the sentence that a report opens with: the best model against the baseline.

    Args:
        metrics: the contents of metrics.json.
    """
    about = metrics["about"]
    models = metrics["models"]
    primary = about["primary"]
    baseline = about["baseline"]
    # A baseline counts as the best model only if the run has nothing else.
    candidates = [name for name in models if name not in BASELINES] or [name for name in models if name != baseline]
    scored = [name for name in candidates if models[name][primary]["mean"] is not None]
    if not scored:
        return f"No user could be judged by {primary}: the test part has nothing relevant."
    best_model = max(scored, key=lambda name: models[name][primary]["mean"])
    if baseline is None or best_model == baseline:
        cell = models[best_model][primary]
        return (
            f"{best_model} reaches {primary} = {cell['mean']:.4f} {format_interval(cell['ci95'])};"
            " there is no baseline to compare it with."
        )
    difference = metrics["differences"][best_model][primary]
    low, high = difference["ci95"]
    size = f"{difference['mean']:+.4f} {primary} {format_interval([low, high], sign=True)}"
    users = f"over {difference['users']:,} users"
    groups = _by_history(metrics, best_model)
    if low > 0:
        return f"{best_model} beats {baseline} by {size} {users}.{groups}"
    if high < 0:
        return f"{best_model} is worse than {baseline}: {size} {users}.{groups}"
    return f"No difference shown between {best_model} and {baseline}: {size} {users}.{groups}"


def _by_history(metrics: dict[str, Any], model: str) -> str:
    """Return a sentence on the groups of users by history,
    empty if fewer than two of them are large enough.
    """
    about = metrics["about"]
    levels_by_outcome: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for level, cells in about["segment_differences"]["history"].items():
        cell = cells[model][about["primary"]]
        if cell["users"] < LEAST_USERS:
            continue
        low, high = cell["ci95"]
        outcome = "no difference shown"
        if low > 0:
            outcome = "better"
        elif high < 0:
            outcome = "worse"
        levels_by_outcome[outcome].append(level)
    if sum(map(len, levels_by_outcome.values())) < 2:
        return ""
    clauses = (f"{outcome} for {' and '.join(levels)}" for outcome, levels in levels_by_outcome.items() if levels)
    return f" By items in the user's history: {'; '.join(clauses)}."
