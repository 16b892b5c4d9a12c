"""The sections that compare the lists of the models: accuracy and coverage, agreement, hits by rank."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys.evaluation.agreement.system_pairs import pairwise_agreement
from recsys.report import plots
from recsys.report.labels import Points
from recsys.report.parts import Drawing, ReportTable, Section
from recsys.report.run_reader import Run
from recsys.schema import ITEM, RANK, USER


def tradeoff(run: Run) -> Section | None:
    """Return the section "Accuracy against breadth": plots of accuracy against coverage and novelty.

    Accuracy is the mean of the first metric. A sentence names the dominated models. A model is
    dominated if another model is at least as good in all these measures, and better in one.

    The result is None if neither coverage nor novelty was measured.
    """
    primary = run.about["primary"]
    measures = run.about["beyond"]
    panels = {}
    for measure, key, label in (
        ("coverage", "value", "coverage: share of the catalogue in any list"),
        ("novelty", "mean", "novelty: mean bits of surprise of a listed item"),
    ):
        pairs = {
            name: (
                measures.get(name, {}).get(measure, {}).get(key),
                run.metrics["models"][name][primary]["mean"],
            )
            for name in run.models
        }
        points = {name: pair for name, pair in pairs.items() if None not in pair}
        if points:
            panels[label] = points
    if not panels:
        return None
    text = (
        "Up: more accurate. Right: more of the catalogue, or less known items. A model is"
        " dominated if another one is at least as good in everything and better in something."
        f" {_dominated(panels)}"
    )
    drawings = [
        Drawing(
            plots.scatter(points, label, primary, run.best_model),
            f"{primary} against {label}; the tables above have the numbers.",
        )
        for label, points in panels.items()
    ]
    return Section("Accuracy against breadth", [text], figures=drawings)


def _dominated(panels: dict[str, Points]) -> str:
    """Return a sentence with the names of the models that another model dominates.

    A model is dominated if another one is at least as good in everything and better in something.

    Args:
        panels: label of a plot -> the (x, y) of each model. Larger is better in both.
    """
    names = sorted(set.intersection(*(set(points) for points in panels.values())))
    values = {name: np.array([value for points in panels.values() for value in points[name]]) for name in names}
    dominated = [
        name
        for name in names
        if any((values[rival] >= values[name]).all() and (values[rival] > values[name]).any() for rival in names)
    ]
    return f"Dominated here: {', '.join(dominated) or 'none'}."


def model_agreement(run: Run) -> Section | None:
    """Return the section "Agreement between models": how much the lists of every two models agree.

    The agreement is averaged over the sampled users. The table has one row per pair of models, the
    pair with the largest rank-biased overlap (RBO) first. The result is None if fewer than two
    models have lists.
    """
    names = [name for name in run.models if len(run.lists[name])]
    if len(names) < 2:
        return None
    measures = ["overlap", "rbo", "tau_b"]
    agreements = pairwise_agreement({name: run.lists[name] for name in names}, measures)
    means = agreements.groupby(["a", "b"], sort=False)[measures].mean().reset_index()
    rows = [
        [
            row.a,
            row.b,
            f"{row.overlap:.3f}",
            f"{row.rbo:.3f}",
            "–" if np.isnan(row.tau_b) else f"{row.tau_b:+.3f}",
        ]
        for row in means.sort_values("rbo", ascending=False, kind="stable").itertuples()
    ]
    text = (
        f"Means over {len(run.users):,} tested users; the two models whose lists are most alike are first. Overlap:"
        " share of items in both lists. RBO:"
        " the same with more weight on the top. tau-b: agreement of the order, where an item that"
        " is missing from a list is below its end; -1 = reversed. Two models of equal accuracy"
        " whose lists agree little find different items, so a blend of them may do better."
    )
    table = ReportTable("Agreement of the lists", ["model", "with", "overlap", "RBO", "tau-b"], rows, 2)
    return Section("Agreement between models", [text], tables=[table])


def hits_by_rank(run: Run) -> Section | None:
    """Return the section "Is the order right": how often the item at each rank is relevant.

    For each model and rank, it has the share of the sampled users for whom the item at this rank is
    relevant. Users without relevant items do not count. The result is None if no sampled user has a
    relevant item.
    """
    judged = run.users.loc[run.users["n_relevant"] > 0, USER]
    if not len(judged):
        return None
    k = run.config.recommend.k
    curves = {name: _hits(run.lists[name], judged, run.truth, k) for name in run.models}
    rows = [[name, *(f"{share:.4f}" for share in shares)] for name, shares in curves.items()]
    text = (
        f"The share of {len(judged):,} users with something relevant for whom the item at each"
        " rank is relevant. The line of a model that ranks well starts high and falls; where it is"
        " flat, the order of the list does not matter."
    )
    table = ReportTable("Relevant at rank", ["model", *map(str, range(1, k + 1))], rows, notes=run.notes)
    drawn = plots.lines(curves, "rank", "share relevant", run.best_model)
    return Section(
        "Is the order right: hits by rank",
        [text],
        tables=[table],
        figures=[Drawing(drawn, table.caption)],
    )


def _hits(lists: pd.DataFrame, judged: pd.Series, truth: pd.DataFrame, k: int) -> np.ndarray:
    """Return for each rank the share of judged users whose item at this rank is relevant, float64[k].

    Args:
        lists: the lists of a model (user_id, item_id, rank).
        judged: the ids of the users with relevant items.
        truth: the relevant (user_id, item_id) pairs.
        k: the length of the lists.
    """
    hits = lists.loc[lists[USER].isin(judged), [USER, ITEM, RANK]].merge(truth, on=[USER, ITEM])
    return np.bincount(hits[RANK], minlength=k + 1)[1 : k + 1] / len(judged)
