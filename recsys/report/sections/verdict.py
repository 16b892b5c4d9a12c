"""The sentences that a report opens with."""

from __future__ import annotations

from typing import Any

from recsys.evaluation.groups import LEAST_USERS
from recsys.evaluation.testing.pick import Pick, interval_outcome, pick_model
from recsys.report.parts import format_interval

MUCH_TRUTH = 1 / 20
"""Share of what the tested users chose: if more than this cannot be in a list, the verdict says
so.
"""

MANY_NEWCOMERS = 1 / 4
"""Share of the judged users: if more than this have no history, the verdict says so."""


def verdict(metrics: dict[str, Any]) -> str:
    """Return the sentences that a report opens with: the best model against the best baseline.

    Args:
        metrics: the contents of metrics.json.
    """
    primary = metrics["about"]["primary"]
    pick = pick_model(metrics)
    if pick.name is None:
        return f"No user could be judged by {primary}: the test part has nothing relevant."
    sentences = [_comparison(metrics, pick), _repeat_purchases(pick), _by_history(pick)]
    sentences.append(_without_history(metrics, pick.name))
    sentences += _left_out(metrics, pick.name)
    return " ".join(sentence for sentence in sentences if sentence)


def _comparison(metrics: dict[str, Any], pick: Pick) -> str:
    """Return what the difference between the best model and the best baseline shows, and the
    pick.
    """
    primary = metrics["about"]["primary"]
    if pick.difference is None:
        cell = metrics["models"][pick.name][primary]
        reached = f"{pick.name} reaches {primary} = {cell['mean']:.4f} {format_interval(cell['ci95'])}"
        if pick.baseline is None:
            return f"{reached}; there is no baseline to compare it with."
        return f"{reached}; the run has no model besides the baselines."
    difference = pick.difference
    size = f"{difference['mean']:+.4f} {primary} {format_interval(difference['ci95'], sign=True)}"
    users = f"over {difference['users']:,} users"
    if pick.outcome == "better":
        return f"{pick.model} beats the best baseline, {pick.baseline}, by {size} {users}."
    if pick.outcome == "worse":
        return f"{pick.model}, the best model, is worse than the baseline {pick.baseline}: {size} {users}."
    return (
        f"No difference shown between {pick.model}, the best model, and {pick.baseline}, the best baseline:"
        f" {size} {users}."
    )


def _repeat_purchases(pick: Pick) -> str:
    """Return a sentence where no model is shown to be better than what the user had before."""
    if pick.baseline != "repeat" or pick.outcome in (None, "better"):
        return ""
    if pick.outcome == "worse":
        return "Repeat purchases: to list what each user had most often before is better than every model."
    return "Repeat purchases: no model is shown to be better than to list what each user had most often before."


def _by_history(pick: Pick) -> str:
    """Return a sentence on the groups of users by history,
    empty if fewer than two of them are large enough.
    """
    levels_by_outcome: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for level, cell in pick.by_history.items():
        if cell["users"] >= LEAST_USERS:
            levels_by_outcome[interval_outcome(cell)].append(level)
    if sum(map(len, levels_by_outcome.values())) < 2:
        return ""
    clauses = (f"{outcome} for {' and '.join(levels)}" for outcome, levels in levels_by_outcome.items() if levels)
    return f"By items in the user's history: {'; '.join(clauses)}."


def _without_history(metrics: dict[str, Any], model: str) -> str:
    """Return a sentence where many of the judged users have no history, on whom most models agree."""
    judged = metrics["about"]["counts"][model].get("evaluated", 0)
    cells = metrics["about"].get("segments", {}).get("history", {}).get("0", {}).get(model, {})
    users = cells.get(metrics["about"]["primary"], {}).get("users", 0)
    if users <= MANY_NEWCOMERS * judged:
        return ""
    return (
        f"{users:,} of the {judged:,} judged users ({users / judged:.0%}) have no history: every model without features"
        " of users gives them the list of its fallback."
    )


def _left_out(metrics: dict[str, Any], model: str) -> list[str]:
    """Return a sentence for each large part of what the tested users chose that no list could
    hold.
    """
    counts = metrics["about"]["counts"][model]
    judged = counts.get("relevant_pairs", 0)
    repeated = counts.get("seen_pairs_removed", 0)
    outside = counts.get("relevant_outside_candidates", 0)
    warm = counts.get("warm_pairs_removed", 0)
    sentences = []
    if warm > MUCH_TRUTH * (judged + repeated + warm):
        sentences.append(
            f"{warm / (judged + repeated + warm):.0%} of what the tested users chose are items of train: lists rank new"
            " items alone, so these choices are not judged ([judge] candidates = 'items' judges them)."
        )
    if repeated > MUCH_TRUTH * (judged + repeated):
        sentences.append(
            f"{repeated / (judged + repeated):.0%} of what the tested users chose they had chosen before: lists leave"
            " such repeats out, so they are not judged ([recommend] exclude_seen = false judges them, beside the"
            " baseline repeat)."
        )
    if outside > MUCH_TRUTH * judged:
        sentences.append(
            f"{outside / judged:.0%} of the judged choices are items that are no candidates, so no model could"
            " recommend them."
        )
    return sentences
