"""The lists of the models compared: accuracy against breadth, agreement, hits by rank, examples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys.data.hashing import hash_words, id_bits
from recsys.evaluation.agreement.system_pairs import pairwise_agreement
from recsys.report import plots
from recsys.report.explanations import Explainer
from recsys.report.parts import Drawing, ReportTable, Section
from recsys.report.run_reader import Run
from recsys.schema import ITEM, RANK, SOURCE, TIME, USER, VALUE

MEASURES = {"rbo": "RBO, top-weighted", "tau_b": "Kendall's tau-b"}
EXAMPLE_LENGTH = 5
"""Items of a list in an example."""
TITLE_LENGTH = 60
"""Characters of a title in an example, at most."""


def tradeoff(run: Run) -> Section | None:
    """Return accuracy against coverage and novelty."""
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
    drawn = plots.scatter(panels, primary, run.best_model)
    return Section(
        "Accuracy against breadth",
        [text],
        figures=[Drawing(drawn, f"{primary} against coverage and novelty; the tables above have the numbers.")],
    )


def _dominated(panels: dict[str, plots.Points]) -> str:
    """Return a sentence with the models that another model dominates."""
    names = sorted(set.intersection(*(set(points) for points in panels.values())))
    values = {name: np.array([value for points in panels.values() for value in points[name]]) for name in names}
    dominated = [
        name
        for name in names
        if any((values[rival] >= values[name]).all() and (values[rival] > values[name]).any() for rival in names)
    ]
    return f"Dominated here: {', '.join(dominated) or 'none'}."


def model_agreement(run: Run) -> Section | None:
    """Return how much the lists of every two models agree."""
    names = [name for name in run.models if len(run.lists[name])]
    if len(names) < 2:
        return None
    agreements = pairwise_agreement({name: run.lists[name] for name in names}, ["overlap", *MEASURES])
    means = agreements.groupby(["a", "b"], sort=False)[["overlap", *MEASURES]].mean().reset_index()
    rows = [
        [
            row.a,
            row.b,
            f"{row.overlap:.3f}",
            f"{row.rbo:.3f}",
            "–" if np.isnan(row.tau_b) else f"{row.tau_b:+.3f}",
        ]
        for row in means.itertuples()
    ]
    text = (
        f"Means over {len(run.users):,} tested users. Overlap: share of items in both lists. RBO:"
        " the same with more weight on the top. tau-b: agreement of the order, where an item that"
        " is missing from a list is below its end; -1 = reversed. Two models of equal accuracy"
        " whose lists agree little find different items, so a blend of them may do better."
    )
    table = ReportTable("Agreement of the lists", ["model", "with", "overlap", "RBO", "tau-b"], rows, 2)
    drawings = [
        Drawing(
            plots.heat(_square(means, measure, names), names, label),
            f"{label}; the table below has the numbers.",
        )
        for measure, label in MEASURES.items()
    ]
    return Section("Agreement between models", [text], tables=[table], figures=drawings)


def _square(means: pd.DataFrame, measure: str, names: list[str]) -> np.ndarray:
    index = {name: row for row, name in enumerate(names)}
    square = np.eye(len(names))
    for row in means.itertuples():
        value = getattr(row, measure)
        square[index[row.a], index[row.b]] = value
        square[index[row.b], index[row.a]] = value
    return square


def hits_by_rank(run: Run) -> Section | None:
    """Return the share of users for whom the item at each rank is relevant."""
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
    table = ReportTable("Relevant at rank", ["model", *map(str, range(1, k + 1))], rows)
    drawn = plots.lines(curves, "rank", "share relevant", run.best_model)
    return Section(
        "Is the order right: hits by rank",
        [text],
        tables=[table],
        figures=[Drawing(drawn, table.caption)],
    )


def _hits(lists: pd.DataFrame, judged: pd.Series, truth: pd.DataFrame, k: int) -> np.ndarray:
    """Return float64[k]: at each rank the relevant items over the judged users."""
    hits = lists.loc[lists[USER].isin(judged), [USER, ITEM, RANK]].merge(truth, on=[USER, ITEM])
    return np.bincount(hits[RANK], minlength=k + 1)[1 : k + 1] / len(judged)


def examples(run: Run) -> Section | None:
    """Return a few users with what they liked, what each model shows them, and why."""
    users = _draw_users(run)
    if not len(users):
        return None
    explainer = Explainer.for_run(run)
    tables = [_example(run, explainer, user, history_length) for user, history_length in users.itertuples(index=False)]
    reasons = ""
    if explainer:
        reasons = f" Why: the parts of the score of {explainer.name} that add most, with their shares."
    text = (
        "Users drawn by a hash of their id, one for each length of history (none, 1–4, 5–19, 20"
        " and more items); they were not picked for good results. ✓: the user chose the item in"
        f" the test part.{reasons}"
    )
    return Section("Examples", [text], tables=tables)


def _draw_users(run: Run) -> pd.DataFrame:
    """Return (user_id, n_history) of at most one tested user of each length of history."""
    order = np.argsort(hash_words(1, id_bits(pd.Index(run.users[USER]))), kind="stable")
    drawn = run.users.iloc[order]
    group = np.searchsorted([1, 5, 20], drawn["n_history"], side="right")
    return drawn.groupby(group).head(1).sort_values("n_history")[[USER, "n_history"]]


def _example(run: Run, explainer: Explainer | None, user: object, history_length: int) -> ReportTable:
    relevant = set(run.truth.loc[run.truth[USER] == user, ITEM])
    columns = {}
    for name in run.models:
        lists = run.lists[name]
        top = lists[lists[USER] == user].head(EXAMPLE_LENGTH)
        items = top[ITEM]
        columns[name] = [("✓ " if item in relevant else "") + _shorten(run.title(item)) for item in items]
        if explainer and name == explainer.name:
            columns[f"why {name}"] = [explainer.explain(user, *row) for row in zip(items, top[SOURCE], strict=True)]
    rows = [
        [
            str(rank + 1),
            *(column[rank] if rank < len(column) else "–" for column in columns.values()),
        ]
        for rank in range(EXAMPLE_LENGTH)
    ]
    return ReportTable(
        f"User {_shorten(str(user))}: {_liked(run, user, history_length)}",
        ["rank", *columns],
        rows,
        1 + len(columns),
    )


def _liked(run: Run, user: object, history_length: int) -> str:
    history = run.history[(run.history[USER] == user) & (run.history[VALUE] > 0)]
    newest = history.sort_values([TIME, VALUE], ascending=False)[ITEM].head(EXAMPLE_LENGTH)
    if not len(newest):
        return f"{history_length} items in the history, none liked"
    names = "; ".join(_shorten(run.title(item)) for item in newest)
    return f"{history_length:,} items in the history, liked most recently: {names}"


def _shorten(text: str) -> str:
    if len(text) <= TITLE_LENGTH:
        return text
    return text[: TITLE_LENGTH - 1] + "…"
