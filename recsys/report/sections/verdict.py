"""Write the verdict: the sentences at the top of a report."""

from __future__ import annotations

from typing import Any

from recsys.evaluation.groups import LEAST_USERS
from recsys.evaluation.testing.pick import Pick, difference_outcome, pick_model
from recsys.report.parts import format_interval
from recsys.report.sections.ratings import is_of_ratings, rating_verdict

MUCH_TRUTH = 1 / 20
"""The verdict says so if a larger share of the items that the tested users chose is not judged, or
cannot be recommended."""

MANY_NEWCOMERS = 1 / 4
"""The verdict says so if a larger share of the judged users has no history."""


def verdict(metrics: dict[str, Any]) -> str:
    """Return the verdict: sentences on the best model, compared with the best baseline.

    Further sentences say what all folds of a backtest show, for which users the model is better,
    and what was not judged.

    Args:
        metrics: the contents of metrics.json.
    """
    if is_of_ratings(metrics):
        return rating_verdict(metrics)
    primary = metrics["about"]["primary"]
    pick = pick_model(metrics)
    if pick.name is None:
        return f"No user could be judged by {primary}: the test part has nothing relevant."
    sentences = [compare_with_baseline(metrics, pick), _over_all_folds(metrics)]
    sentences += [_repeat_purchases(pick), _by_history(pick)]
    sentences.append(_without_history(metrics, pick.name))
    sentences += _left_out(metrics, pick.name)
    return " ".join(sentence for sentence in sentences if sentence)


def compare_with_baseline(metrics: dict[str, Any], pick: Pick) -> str:
    """Return a sentence that compares the best model with the best baseline.

    Args:
        metrics: the contents of metrics.json, or its entry ``backtest``.
        pick: the pick of these metrics; it has a name.
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
        return f"{pick.model} beats the best baseline, {pick.baseline}, by {size} {users}{pick.correction}."
    if pick.outcome == "worse":
        return (
            f"{pick.model}, the best model, is worse than the baseline {pick.baseline}: {size}"
            f" {users}{pick.correction}."
        )
    return (
        f"No difference shown between {pick.model}, the best model, and {pick.baseline}, the best"
        f" baseline{pick.correction}: {size} {users}."
    )


def _over_all_folds(metrics: dict[str, Any]) -> str:
    """Return a sentence with the comparison over all folds of a backtest, or "" without a backtest."""
    pooled = metrics.get("backtest")
    if pooled is None:
        return ""
    pick = pick_model(pooled)
    if pick.name is None:
        return ""
    return f"This is the last fold alone. Over all {pooled['folds']} folds: {compare_with_baseline(pooled, pick)}"


def _repeat_purchases(pick: Pick) -> str:
    """Return a sentence if no model is shown to be better than ``repeat``, or else "".

    The baseline ``repeat`` lists the items that the user had before.
    """
    if pick.baseline != "repeat" or pick.outcome in (None, "better"):
        return ""
    if pick.outcome == "worse":
        return "Repeat purchases: to list what each user had most often before is better than every model."
    return "Repeat purchases: no model is shown to be better than to list what each user had most often before."


def _by_history(pick: Pick) -> str:
    """Return a sentence with the outcome in each group of users by length of history.

    Groups of fewer than ``LEAST_USERS`` users are left out. The text is empty if fewer than two groups
    remain.
    """
    levels_by_outcome: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for level, cell in pick.by_history.items():
        if cell["users"] >= LEAST_USERS:
            levels_by_outcome[difference_outcome(cell)].append(level)
    if sum(map(len, levels_by_outcome.values())) < 2:
        return ""
    clauses = (f"{outcome} for {' and '.join(levels)}" for outcome, levels in levels_by_outcome.items() if levels)
    return f"By items in the user's history: {'; '.join(clauses)}."


def _without_history(metrics: dict[str, Any], model: str) -> str:
    """Return a sentence if many judged users have no history, or else "".

    Most models give such users the list of their fallback, so the models hardly differ for them. A
    combination with a part that scores everyone needs no fallback; metrics.json does not say which do.
    """
    judged = metrics["about"]["counts"][model].get("evaluated", 0)
    cells = metrics["about"].get("segments", {}).get("history", {}).get("0", {}).get(model, {})
    users = cells.get(metrics["about"]["primary"], {}).get("users", 0)
    if users <= MANY_NEWCOMERS * judged:
        return ""
    return (
        f"{users:,} of the {judged:,} judged users ({users / judged:.0%}) have no history: a model that needs one gives"
        " them the list of its fallback, and a hybrid serves them itself if one of its parts needs none, such as"
        " popular."
    )


def _left_out(metrics: dict[str, Any], model: str) -> list[str]:
    """Return sentences on the chosen items that are not judged, or that no model could recommend.

    There is one sentence for each cause that affects more than :data:`MUCH_TRUTH` of the items that
    the tested users chose.
    """
    counts = metrics["about"]["counts"][model]
    judged = counts.get("relevant_pairs", 0)
    repeated = counts.get("seen_pairs_removed", 0)
    out_of_reach = counts.get("relevant_outside_candidates", 0)
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
    if out_of_reach > MUCH_TRUTH * judged:
        sentences.append(
            f"{out_of_reach / judged:.0%} of the judged choices are items that are not candidates, so no model could"
            " recommend them."
        )
    return sentences
