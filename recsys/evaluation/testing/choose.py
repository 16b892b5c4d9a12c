"""Choose between models by the difference of a metric and by what the better model costs.

"85 % or 82 %: which do you pick?" cannot be answered from the two numbers. The answer needs the
interval of their difference over the same users, the smallest difference that the test can detect,
and the effect of the better model on the catalogue, on response time and on memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from recsys.evaluation.agreement.system_pairs import DEFAULT_MEASURES, pairwise_agreement
from recsys.evaluation.testing.compare import Comparison
from recsys.evaluation.testing.significance import users_needed
from recsys.schema import USER
from recsys.types import Evaluation

GUARDRAILS: dict[str, tuple[str, float]] = {
    "coverage": ("share of the catalogue that is in any list", 0.8),
    "tail_share": ("share of listed items from the tail", 0.8),
    "ms_per_user": ("milliseconds to make one list", 2.0),
    "peak_mb": ("peak memory of fitting and recommending, MiB", 1.5),
}
"""Guardrail -> its description, and a limit for the ratio value of candidate / value of incumbent.

A guardrail is a property of the lists or the cost of a model that a new model must not make much
worse. The incumbent is the model in use, a candidate is a model that could replace it. A limit below
1 is the smallest allowed ratio, a limit above 1 is the largest.
"""

CHANGED_USERS = 5
"""Largest number of users that :func:`most_changed_users` returns."""


@dataclass(frozen=True)
class ModelChoice:
    """The result of :func:`choose_model`.

    Attributes:
        pick: the name of the chosen model.
        conclusive: whether the chosen model is shown to be better than the incumbent and breaks no
            guardrail.
        reasons: sentences that explain the choice.
    """

    pick: str
    conclusive: bool
    reasons: list[str]


def broken_guardrails(incumbent: dict[str, float], candidate: dict[str, float]) -> list[str]:
    """Return one sentence for each guardrail (:data:`GUARDRAILS`) that the candidate breaks.

    A guardrail is skipped if a value is missing, or if the value of the incumbent is not positive.

    Args:
        incumbent, candidate: guardrail -> value, for the model in use and for the new model.
    """
    sentences = []
    for name, (description, limit) in GUARDRAILS.items():
        current = incumbent.get(name)
        new = candidate.get(name)
        if current is None or new is None or current <= 0:
            continue
        is_too_low = limit < 1 and new < limit * current
        is_too_high = limit >= 1 and new > limit * current
        if is_too_low or is_too_high:
            sentences.append(
                f"{name} {current:.3g} -> {new:.3g} ({new / current:.2f} times; {description})",
            )
    return sentences


def choose_model(
    comparison: Comparison,
    incumbent: str,
    metric: str,
    guardrails: dict[str, dict[str, float]],
) -> ModelChoice:
    """Choose between the incumbent (the model in use) and the candidates, by one metric.

    A candidate is shown to be better if the lower end of its interval is above 0 and its ``p_holm``
    is at most ``comparison.alpha``. If no candidate is shown to be better, the incumbent is kept.
    Otherwise the choice is among the candidates that are shown to be better. Those that break no
    guardrail (:data:`GUARDRAILS`) come first; among these, the largest difference decides.

    Args:
        comparison: the differences of the candidates from the incumbent: the result of
            :func:`.compare.compare` with ``baseline=incumbent``.
        incumbent: the name of the model in use.
        metric: the name of the metric.
        guardrails: model -> guardrail -> value. Missing values are not checked.
    """
    differences = comparison.differences
    is_relevant = (differences["metric"] == metric) & (differences["against"] == incumbent)
    rows = list(differences[is_relevant].itertuples())
    winners = [row for row in rows if row.low > 0 and row.p_holm <= comparison.alpha]
    if not winners:
        reasons = [_why_not_taken(row, comparison.alpha) for row in rows]
        reasons.append(f"Keep {incumbent}: a change needs a candidate that is shown to be better.")
        return ModelChoice(incumbent, False, reasons)
    current = guardrails.get(incumbent, {})
    broken = {row.model: broken_guardrails(current, guardrails.get(row.model, {})) for row in winners}
    pick = min(winners, key=lambda row: (bool(broken[row.model]), -row.difference))
    mean = comparison.means.loc[incumbent, metric]
    reasons = [
        f"{pick.model} is shown to be better than {incumbent}: {metric} {mean:.4f} ->"
        f" {mean + pick.difference:.4f}, {_difference_text(pick)}, p = {pick.p_holm:.4f} after"
        f" Holm's adjustment, over {pick.users:,} users."
    ]
    if runners_up := [row.model for row in winners if row.model != pick.model]:
        reasons.append(f"Also shown to be better than {incumbent}: {', '.join(runners_up)}.")
    reasons += [f"But it breaks a guardrail: {sentence}." for sentence in broken[pick.model]]
    if broken[pick.model]:
        reasons.append(
            f"Take it only if the gain in {metric} is worth this cost; otherwise keep {incumbent}.",
        )
    elif guardrails.get(pick.model) and current:
        reasons.append("It breaks no guardrail.")
    reasons.append(
        "Offline results may not hold online: confirm them in an experiment (recsys ab plan).",
    )
    return ModelChoice(pick.model, not broken[pick.model], reasons)


def _difference_text(row: Any) -> str:
    """Return the difference of a row and its interval as text."""
    return f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"


def _why_not_taken(row: Any, alpha: float) -> str:
    """Return a sentence with the reason why a candidate is not chosen.

    If its difference is too small for this number of users, the sentence says how many users could
    show it.
    """
    size = f"{row.metric} {_difference_text(row)}"
    if row.high < 0:
        return f"{row.model} is worse: {size}."
    if row.low > 0:
        return f"{row.model}: {size}, but p = {row.p_holm:.4f} after Holm's adjustment is above {alpha:g}."
    if not row.difference or not row.effect_size or math.isnan(row.effect_size):
        return f"{row.model} and the incumbent do not differ in {row.metric}."
    # The effect size is the difference in standard deviations between users.
    sd = row.difference / row.effect_size
    return (
        f"{row.model}: no difference is shown, {size}. This many users can detect a difference of"
        f" {row.detectable:.4f} with 80 % power; detecting {row.difference:+.4f} would take"
        f" {users_needed(sd, row.difference):,} users."
    )


def mean_agreement(lists: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the mean agreement of the lists of every two models, one row per pair of models.

    The columns are ``a`` and ``b`` (the names of the two models), one column for each of
    ``DEFAULT_MEASURES`` with its mean over users, and ``users`` (the number of users with a list of
    both models). Users for whom a measure is undefined are left out of its mean.

    Args:
        lists: model -> table of lists (user_id, item_id, rank).
    """
    groups = pairwise_agreement(lists).groupby(["a", "b"], sort=False)
    return groups[list(DEFAULT_MEASURES)].mean().assign(users=groups.size()).reset_index()


def most_changed_users(
    a: Evaluation,
    b: Evaluation,
    metric: str,
    lists: dict[str, pd.DataFrame],
) -> pd.DataFrame:
    """Return the users for whom a metric differs most between two models.

    There are at most :data:`CHANGED_USERS` of them, one per row.
    The columns are user_id (as text), a and b (the metric of the user for each model), and overlap
    (the measure ``overlap`` of the user's two lists, NaN if one of them is missing). The largest
    difference is first. Equal differences are ordered by the overlap, smallest first, then by id.
    Users for whom the metric is undefined (NaN) in one model are left out.

    Args:
        a, b: the evaluations of the two models.
        metric: the name of the metric.
        lists: model -> table of lists (user_id, item_id, rank), with those of the models a and b.
    """
    values = a.per_user[[USER, metric]].merge(b.per_user[[USER, metric]], on=USER).dropna()
    values.columns = pd.Index([USER, "a", "b"])
    overlap = pairwise_agreement({"a": lists[a.name], "b": lists[b.name]}, ["overlap"])[[USER, "overlap"]]
    # The tables of two runs may hold the same ids as numbers and as text.
    values[USER] = values[USER].astype(str)
    overlap[USER] = overlap[USER].astype(str)
    table = values.merge(overlap, on=USER, how="left")
    table["size"] = -(table["b"] - table["a"]).abs()
    table = table.sort_values(["size", "overlap", USER], kind="stable")
    return table.drop(columns="size").head(CHANGED_USERS)
