"""The sentence that a report opens with."""

from __future__ import annotations

from typing import Any

from recsys.evaluation.groups import LEAST_USERS
from recsys.report.parts import BASELINES, interval


def verdict(metrics: dict[str, Any]) -> str:
    """Return the plain sentence that a report opens with: the best model against the baseline."""
    about, models = metrics["about"], metrics["models"]
    primary, baseline = about["primary"], about["baseline"]
    own = [name for name in models if name not in BASELINES] or [name for name in models if name != baseline]
    scored = [name for name in own if models[name][primary]["mean"] is not None]
    if not scored:
        return f"No user could be judged by {primary}: nothing relevant in the test part."
    best = max(scored, key=lambda name: models[name][primary]["mean"])
    reached = f"{best} reaches {primary} = {models[best][primary]['mean']:.4f}"
    if baseline is None or best == baseline:
        return f"{reached} {interval(models[best][primary]['ci95'])}; there is no baseline to compare it with."
    difference = metrics["differences"][best][primary]
    low, high = difference["ci95"]
    size = f"{difference['mean']:+.4f} {primary} {interval([low, high], sign=True)}"
    over, groups = f"over {difference['users']:,} users", _by_history(metrics, best)
    if low > 0:
        return f"{best} beats {baseline} by {size} {over}.{groups}"
    if high < 0:
        return f"{best} is worse than {baseline}: {size} {over}.{groups}"
    return f"No difference shown between {best} and {baseline}: {size} {over}.{groups}"


def _by_history(metrics: dict[str, Any], model: str) -> str:
    """Return a sentence on the groups of users by history, where at least two are large enough to speak of."""
    about = metrics["about"]
    found: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for level, cells in about["segment_differences"]["history"].items():
        cell = cells[model][about["primary"]]
        if cell["users"] >= LEAST_USERS:
            low, high = cell["ci95"]
            found["better" if low > 0 else "worse" if high < 0 else "no difference shown"].append(level)
    if sum(map(len, found.values())) < 2:
        return ""
    clauses = (f"{how} for {' and '.join(levels)}" for how, levels in found.items() if levels)
    return f" By items in the user's history: {'; '.join(clauses)}."
