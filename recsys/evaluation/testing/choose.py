"""Which of several to take: the difference first, then what it costs, said in sentences.

"85 % or 82 %: which do you pick?" cannot be answered from the two numbers. It takes the interval of their difference
(over the same users), what such a test could have seen at all, and what the better one does to the catalogue, to the
waiting time and to the memory bill.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from recsys.evaluation.agreement.system_pairs import DEFAULT_MEASURES, pairwise_agreement
from recsys.evaluation.testing.compare import Comparison
from recsys.evaluation.testing.significance import users_needed
from recsys.schema import USER
from recsys.types import Evaluation

GUARDS: dict[str, tuple[str, float]] = {
    "coverage": ("share of the catalogue listed at all", 0.8),
    "tail_share": ("share of listed items from the tail", 0.8),
    "ms_a_user": ("milliseconds to make one list", 2.0),
    "peak_mb": ("peak memory of fitting and recommending, MiB", 1.5),
}
"""Guardrail -> (what it is, the ratio to the incumbent's beyond which it is broken: below if under 1, else above)."""

CHANGED = 5


@dataclass(frozen=True)
class Choice:
    """``pick``: the name to take; ``sure``: whether it is shown to be the better one; ``reasons``: sentences."""

    pick: str
    sure: bool
    reasons: list[str]


def broken(incumbent: dict[str, float], candidate: dict[str, float]) -> list[str]:
    """Return a sentence for every guardrail that the candidate breaks; what either does not know is no guardrail."""
    found = []
    for name, (meaning, limit) in GUARDS.items():
        before, after = incumbent.get(name), candidate.get(name)
        if before is None or after is None or before <= 0:
            continue
        if (limit < 1 and after < limit * before) or (limit >= 1 and after > limit * before):
            found.append(f"{name} {before:.3g} -> {after:.3g} ({after / before:.2f} times; {meaning})")
    return found


def choose(found: Comparison, incumbent: str, metric: str, guards: dict[str, dict[str, float]]) -> Choice:
    """Choose between the incumbent and those that were compared with it, by ``metric``.

    A candidate must be shown to be better: lower end of its interval above 0 and Holm's p at most ``found.alpha``. Of
    several the highest mean is taken, one that breaks a guardrail only if no other is shown to be better.
    """
    rows = found.differences[(found.differences["metric"] == metric) & (found.differences["against"] == incumbent)]
    better = [row for row in rows.itertuples() if row.low > 0 and row.p_holm <= found.alpha]
    costs = {row.model: broken(guards.get(incumbent, {}), guards.get(row.model, {})) for row in rows.itertuples()}
    if not better:
        return Choice(
            incumbent, False, [*(_not_shown(row, found.alpha) for row in rows.itertuples()), _keep(incumbent)]
        )
    best = min(better, key=lambda row: (bool(costs[row.model]), -row.difference))
    base = found.means.loc[incumbent, metric]
    reasons = [
        f"{best.model} is shown to be better than {incumbent}: {metric} {base:.4f} -> {base + best.difference:.4f},"
        f" {best.difference:+.4f} [{best.low:+.4f}, {best.high:+.4f}], p = {best.p_holm:.4f} after Holm, over"
        f" {best.users:,} users."
    ]
    others = [row.model for row in better if row.model != best.model]
    if others:
        reasons.append(f"Also shown to be better than {incumbent}: {', '.join(others)}.")
    broke = costs[best.model]
    reasons += [f"But it breaks a guardrail: {text}." for text in broke]
    if broke:
        reasons.append(f"Take it only if {metric} is worth that to you; else stay with {incumbent}.")
    elif guards.get(best.model) and guards.get(incumbent):
        reasons.append("It breaks no guardrail.")
    reasons.append("Offline is not online: let an experiment confirm it (recsys ab plan).")
    return Choice(best.model, not broke, reasons)


def _not_shown(row: object, alpha: float) -> str:
    """Say why a candidate is not taken, and what it would need."""
    model, metric, low, high = (getattr(row, key) for key in ("model", "metric", "low", "high"))
    size = f"{getattr(row, 'difference'):+.4f} [{low:+.4f}, {high:+.4f}]"  # noqa: B009 - a namedtuple of pandas
    if high < 0:
        return f"{model} is worse: {metric} {size}."
    if low > 0:
        return f"{model}: {metric} {size}, but p = {getattr(row, 'p_holm'):.4f} after Holm is above {alpha:g}."  # noqa: B009
    difference, effect, least = (getattr(row, key) for key in ("difference", "effect_size", "detectable"))
    if not difference or math.isnan(effect) or not effect:
        return f"{model} and the incumbent do not differ in {metric}."
    users = users_needed(difference / effect, difference)
    return (
        f"{model}: no difference shown in {metric}, {size}. So many users show {least:.4f} four times in five; if its"
        f" {difference:+.4f} is real, {users:,} users would."
    )


def _keep(incumbent: str) -> str:
    return f"Keep {incumbent}: what is not shown to be better is not worth the change."


def agreement(lists: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row per pair of models: ``a``, ``b``, ``users`` and the mean of each of ``DEFAULT_MEASURES``."""
    found = pairwise_agreement(lists)
    groups = found.groupby(["a", "b"], sort=False)
    return groups[list(DEFAULT_MEASURES)].mean().assign(users=groups.size()).reset_index()


def most_changed(a: Evaluation, b: Evaluation, metric: str, lists: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the users whose ``metric`` differs most between two models, most first: user_id, a, b, overlap.

    Equal differences: the user with fewer items in common first, then by id.
    """
    both = a.per_user[[USER, metric]].merge(b.per_user[[USER, metric]], on=USER, suffixes=("_a", "_b")).dropna()
    both.columns = pd.Index([USER, "a", "b"])
    shared = pairwise_agreement({"a": lists[a.name], "b": lists[b.name]}, ["overlap"])[[USER, "overlap"]]
    both[USER], shared[USER] = both[USER].astype(str), shared[USER].astype(str)
    both = both.merge(shared, on=USER, how="left")
    both["size"] = -(both["b"] - both["a"]).abs()
    return both.sort_values(["size", "overlap", USER], kind="stable").drop(columns="size").head(CHANGED)
