"""What the lists look like beside each other: accuracy against breadth, agreement of models, hits by rank, examples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys.data.hashing import hash_words, id_bits
from recsys.evaluation.agreement.system_pairs import pairwise_agreement
from recsys.report import plots
from recsys.report.explanations import Teller
from recsys.report.parts import Drawing, Section, Table
from recsys.report.run_reader import Run
from recsys.schema import ITEM, RANK, SOURCE, TIME, USER, VALUE

MEASURES = {"rbo": "RBO, top-weighted", "tau_b": "Kendall's tau-b"}
SHOWN = 5
"""Places of an example's lists."""
LONGEST = 60
"""Characters of a title in an example: enough to know it by."""


def tradeoff(run: Run) -> Section | None:
    """Accuracy against coverage and novelty."""
    primary, beyond = run.about["primary"], run.about["beyond"]
    panels = {}
    for measure, key, label in (
        ("coverage", "value", "coverage: share of the catalogue listed at all"),
        ("novelty", "mean", "novelty: mean bits of surprise of a listed item"),
    ):
        pairs = {
            name: (beyond.get(name, {}).get(measure, {}).get(key), run.metrics["models"][name][primary]["mean"])
            for name in run.models
        }
        points = {name: pair for name, pair in pairs.items() if None not in pair}
        if points:
            panels[label] = points
    if not panels:
        return None
    text = (
        "Up: more accurate. Right: more of the catalogue, or less known items. A model with another one both above it"
        f" and to its right is the poorer on both counts.{_dominated(panels)}"
    )
    drawn = plots.scatter(panels, primary, run.best)
    return Section(
        "Accuracy against breadth",
        [text],
        figures=[Drawing(drawn, f"{primary} against coverage and novelty; the tables above have the numbers.")],
    )


def _dominated(panels: dict[str, plots.Points]) -> str:
    """Return a sentence naming the models that some other model beats on accuracy and on every breadth."""
    names = set.intersection(*(set(points) for points in panels.values()))

    def at(name: str) -> np.ndarray:
        return np.array([value for points in panels.values() for value in points[name]])

    poor = [n for n in sorted(names) if any((at(o) >= at(n)).all() and (at(o) > at(n)).any() for o in names - {n})]
    return f" Here that is so of {', '.join(poor)}." if poor else " Here that is so of none."


def agreement(run: Run) -> Section | None:
    """How alike the lists of every two models are."""
    names = [name for name in run.models if len(run.lists[name])]
    if len(names) < 2:
        return None
    found = pairwise_agreement({name: run.lists[name] for name in names}, ["overlap", *MEASURES])
    means = found.groupby(["a", "b"], sort=False)[["overlap", *MEASURES]].mean().reset_index()
    rows = [
        [row.a, row.b, f"{row.overlap:.3f}", f"{row.rbo:.3f}", "–" if np.isnan(row.tau_b) else f"{row.tau_b:+.3f}"]
        for row in means.itertuples()
    ]
    text = (
        f"Means over {len(run.users):,} tested users. Overlap: items that both lists hold. RBO: the same with the top"
        " weighing most. tau-b: agreement in order, an item that one list misses standing below its end; -1 = reversed."
        " Two models of equal accuracy whose lists agree little find different things: a blend of them may do better."
    )
    table = Table("Agreement of the lists", ["model", "with", "overlap", "RBO", "tau-b"], rows, 2)
    drawings = [
        Drawing(plots.heat(_square(means, measure, names), names, label), f"{label}; the table below has the numbers.")
        for measure, label in MEASURES.items()
    ]
    return Section("Agreement between models", [text], tables=[table], figures=drawings)


def _square(means: pd.DataFrame, measure: str, names: list[str]) -> np.ndarray:
    place = {name: row for row, name in enumerate(names)}
    square = np.eye(len(names))
    for row in means.itertuples():
        square[place[row.a], place[row.b]] = square[place[row.b], place[row.a]] = getattr(row, measure)
    return square


def hits_by_rank(run: Run) -> Section | None:
    """Whether higher places are right more often."""
    judged = run.users.loc[run.users["n_relevant"] > 0, USER]
    if not len(judged):
        return None
    k = run.config.recommend.k
    curves = {name: _hits(run.lists[name], judged, run.truth, k) for name in run.models}
    rows = [[name, *(f"{share:.4f}" for share in shares)] for name, shares in curves.items()]
    text = (
        f"The share of {len(judged):,} users with something relevant for whom the item at each rank is relevant."
        " A model that ranks well starts high and falls: where the line is flat, the order of the list tells nothing."
    )
    table = Table("Relevant at rank", ["model", *map(str, range(1, k + 1))], rows)
    drawn = plots.lines(curves, "rank", "share relevant", run.best)
    return Section("Is the order right: hits by rank", [text], tables=[table], figures=[Drawing(drawn, table.caption)])


def _hits(lists: pd.DataFrame, judged: pd.Series, truth: pd.DataFrame, k: int) -> np.ndarray:
    """Return float64[k]: at each rank the relevant items over the judged users."""
    hits = lists.loc[lists[USER].isin(judged), [USER, ITEM, RANK]].merge(truth, on=[USER, ITEM])
    return np.bincount(hits[RANK], minlength=k + 1)[1 : k + 1] / len(judged)


def examples(run: Run) -> Section | None:
    """A few users: what they liked, what each model shows them, and why."""
    chosen = _few(run)
    if not len(chosen):
        return None
    teller = Teller.of(run)
    tables = [_example(run, teller, user, known) for user, known in chosen.itertuples(index=False)]
    why = f" Why: what {teller.name} drew on, in shares of the score." if teller else ""
    text = (
        "Users drawn by a hash of their id, one each of those with nothing, little and much known; not chosen for"
        f" looking good. ✓: the user did choose it in the test part.{why}"
    )
    return Section("Examples", [text], tables=tables)


def _few(run: Run) -> pd.DataFrame:
    """Return (user_id, n_history) of at most one tested user of each length of history."""
    order = np.argsort(hash_words(1, id_bits(pd.Index(run.users[USER]))), kind="stable")
    drawn = run.users.iloc[order]
    group = np.searchsorted([1, 5, 20], drawn["n_history"], side="right")
    return drawn.groupby(group).head(1).sort_values("n_history")[[USER, "n_history"]]


def _example(run: Run, teller: Teller | None, user: object, known: int) -> Table:
    right = set(run.truth.loc[run.truth[USER] == user, ITEM])
    columns = {}
    for name in run.models:
        lists = run.lists[name]
        own = lists[lists[USER] == user].head(SHOWN)
        items = own[ITEM]
        columns[name] = [("✓ " if item in right else "") + _cut(run.title(item)) for item in items]
        if teller and name == teller.name:
            columns[f"why {name}"] = [teller.why(user, *row) for row in zip(items, own[SOURCE], strict=True)]
    rows = [
        [str(place + 1), *(column[place] if place < len(column) else "–" for column in columns.values())]
        for place in range(SHOWN)
    ]
    return Table(f"User {_cut(str(user))}: {_liked(run, user, known)}", ["rank", *columns], rows, 1 + len(columns))


def _liked(run: Run, user: object, known: int) -> str:
    history = run.history[(run.history[USER] == user) & (run.history[VALUE] > 0)]
    newest = history.sort_values([TIME, VALUE], ascending=False)[ITEM].head(SHOWN)
    if not len(newest):
        return f"{known} items known, none liked"
    names = "; ".join(_cut(run.title(item)) for item in newest)
    return f"{known:,} items known, lately liked {names}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
