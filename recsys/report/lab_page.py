"""What the lab found -> one HTML page."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from recsys.report.figures import ACCENT, INK, LINE, SOFT, STYLE, bare, dots, svg
from recsys.report.html import page
from recsys.report.parts import Content, Drawing, Section, Table

SCALE = "On the scale 0 = what independent orders give, 1 = what a list gives against itself."


def lab_page(found: dict[str, Any]) -> str:
    """Return the page of the results of ``run_lab`` with ``questions``, and with ``labelled`` if there is."""
    sections = [_questions(found), _soundness(found), _noise(found), _top(found), _partial(found), _power(found)]
    if "labelled" in found:
        sections.insert(1, _labelled(found["labelled"]))
    failed = [name for name, row in found["measures"].items() if row["failed"]]
    worst = max(abs(row["z"]) for row in found["mallows"])
    verdict = (
        f"{len(found['measures'])} measures on trial; "
        + (f"{', '.join(failed)} failed a check. " if failed else "none failed a check. ")
        + f"Simulated orders are within {worst:.1f} standard errors of their known mean distance."
    )
    return page(Content("The lab: which measure for which question", verdict, sections), kind="lab")


def _questions(found: dict[str, Any]) -> Section:
    rows = []
    for row in found["questions"]:
        best = [f"{name} ({value:.3f})" for name, value in row["best"]]
        rows.append([row["question"], *[*best, "–", "–"][:2], row["figure"]])
    heads = ["question", "best", "next", "by"]
    text = "Each answer is the measure with the best number of the sections below, among those that passed all checks."
    return Section("Which measure for which question", [text], tables=[Table("Answers", heads, rows, 4)])


def _labelled(labelled: dict[str, Any]) -> Section:
    rows = [
        [name, f"{cell['auc']:.3f}", _interval(cell["ci95"]), f"{cell['users']:,}"]
        for name, cell in sorted(labelled["measures"].items(), key=lambda row: -row[1]["auc"])
    ]
    text = (
        f"The films of {labelled['users']:,} users' second halves were ranked from each user's own first half and from "
        "a stranger's; both were compared with the user's own ratings. AUC is the chance that the own ranking agrees "
        f"more, a tie counting half. {labelled['left_out']:,} users with too few ratings were left out."
    )
    drawn = Drawing(told_apart(labelled), "Own against stranger: the table below has the numbers.")
    table = Table("Own against stranger", ["measure", "AUC", "95 %", "users"], rows)
    return Section("Mine or a stranger's", [text], tables=[table], figures=[drawn])


def _soundness(found: dict[str, Any]) -> Section:
    rows = [[name, "; ".join(row["failed"]) or "passed"] for name, row in found["measures"].items()]
    warnings = [f"{name}: {'; '.join(row['failed'])}" for name, row in found["measures"].items() if row["failed"]]
    text = (
        "A sound measure is best for a list with itself, falls with noise, cares neither what items are called nor "
        "which other pairs it is given, and never minds a swap at the bottom more than one at the top."
    )
    known = [
        [f"{row['dispersion']:g}", f"{row['mean']:.2f}", f"{row['expected']:.2f}", f"{row['z']:+.2f}"]
        for row in found["mallows"]
    ]
    tables = [
        Table("Checks", ["measure", "result"], rows, 2),
        Table("Mallows' orders: Kendall distance from the truth", ["dispersion", "mean", "closed form", "z"], known, 0),
    ]
    return Section("Can the measures, and the lab, be trusted", [text], warnings, tables)


def _noise(found: dict[str, Any]) -> Section:
    heads = ["measure", *(f"{d:g}" for d in found["about"]["dispersions"]), "deviation"]
    rows = [
        [name, *(f"{v:.2f}" for v in row["curve"]), f"{row['spread']:.3f}"] for name, row in found["measures"].items()
    ]
    text = f"Mean agreement of noisy orders with the truth; the dispersion rises as noise falls. {SCALE}"
    more = "Deviation: the standard deviation of one pair's value at dispersion 0.1."
    table = Table("Agreement by dispersion (Mallows)", heads, rows)
    drawn = Drawing(curves(found), "Agreement by dispersion: the table below has the numbers.")
    return Section("How agreement falls with noise", [text, more], tables=[table], figures=[drawn])


def _top(found: dict[str, Any]) -> Section:
    rows = [
        [
            name,
            "blind to it" if row["top_weight"] is None else f"{row['top_weight']:.2f}",
            *(f"{row[what][where]:.4f}" for what in ("shuffle", "swap") for where in ("top", "bottom")),
        ]
        for name, row in found["measures"].items()
    ]
    text = (
        f"What it costs to shuffle the top or the bottom third, and to swap two neighbours at either end. {SCALE} "
        "0.5 minds both ends alike, 1 only the top."
    )
    heads = ["measure", "top weight", "shuffled top", "shuffled bottom", "swap at top", "swap at bottom"]
    drawn = Drawing(top_weights(found), "Top weight: the table below has the numbers.")
    return Section("How much the top counts", [text], tables=[Table("Top weight", heads, rows)], figures=[drawn])


def _partial(found: dict[str, Any]) -> Section:
    parts = ("truncated", "tied", "subsampled")
    heads = ["measure", *(f"{part}: {what}" for part in parts for what in ("bias", "deviation"))]
    rows = [
        [
            name,
            *(
                _number(row["observed"][part][what], sign=what == "bias")
                for part in parts
                for what in ("bias", "spread")
            ),
        ]
        for name, row in found["measures"].items()
    ]
    text = (
        "Seen against whole lists: both cut at half, both with places tied by threes, both without a random third of "
        f"their items. Bias is the mean error, deviation its standard deviation. {SCALE}"
    )
    scenes = [
        [
            name,
            *(_number(row["observed"][scene][w]) for scene in ("rerated", "plackett_luce") for w in ("mean", "spread")),
        ]
        for name, row in found["measures"].items()
    ]
    others = ["measure", "re-rated: mean", "re-rated: deviation", "Plackett–Luce: mean", "Plackett–Luce: deviation"]
    tables = [Table("Errors of partial lists", heads, rows), Table("Other kinds of noise", others, scenes)]
    return Section("Lists that are cut, tied or patchy", [text], tables=tables)


def _power(found: dict[str, Any]) -> Section:
    about = found["about"]
    ordered = sorted(found["measures"].items(), key=lambda row: -row[1]["power"]["all"])
    rows = [
        [name, *(f"{row['power'][where]:.3f}" for where in ("all", "top", "bottom")), f"{row['null']:.3f}"]
        for name, row in ordered
    ]
    tests = [[name, f"{size:.4f}"] for name, size in found["tests"].items()]
    text = (
        f"{about['experiments']:,} experiments, each a t-test at 5 % between two systems judged on {about['users']} "
        "users. Power: how often it tells a system from a worse one, which is noisier everywhere, or has its first or "
        "last five places shuffled. Under the null: how often it does so when both are the same; it should be 0.05."
    )
    tables = [
        Table("Discriminative power", ["measure", "noisier", "worse top", "worse bottom", "under the null"], rows),
        Table("Tests of independence: share of unrelated pairs called related", ["test", "size"], tests),
    ]
    return Section("Discriminative power and size", [text], tables=tables)


def _number(value: float | None, *, sign: bool = False) -> str:
    if value is None or math.isnan(value):
        return "–"
    return (
        f"{value + 0.0:+.3f}"
        if sign and abs(value) >= 0.0005
        else f"{abs(value) if abs(value) < 0.0005 else value:.3f}"
    )


def _interval(ends: list[float]) -> str:
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def curves(found: dict[str, Any]) -> str:
    """Return a small panel a measure: its mean by dispersion, over the other measures' in the line colour."""
    steps = range(len(found["about"]["dispersions"]))
    names = list(found["measures"])
    rows = math.ceil(len(names) / 3)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.75 * rows), layout="constrained")
        panels = figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False).flat
        for name, axes in zip(names, panels, strict=False):
            for other in names:
                axes.plot(steps, found["measures"][other]["curve"], color=LINE, linewidth=1)
            axes.plot(steps, found["measures"][name]["curve"], color=ACCENT, linewidth=2)
            axes.set_title(name, fontsize=9, color=INK, loc="left")
            axes.set_xticks([0, 3, 6, 9], [f"{found['about']['dispersions'][i]:g}" for i in (0, 3, 6, 9)])
            bare(axes)
        for axes in list(panels):
            axes.set_visible(False)
        figure.supxlabel("dispersion: more noise on the left", fontsize=9, color=SOFT)
        return svg(figure)


def top_weights(found: dict[str, Any]) -> str:
    """Return a dot a measure: the share of the loss that the top third costs."""
    values = {name: row["top_weight"] for name, row in found["measures"].items() if row["top_weight"] is not None}
    return dots(
        {name: (values[name], None) for name in sorted(values, key=values.__getitem__, reverse=True)},
        "top weight: 0.5 minds both ends alike",
        0.5,
    )


def told_apart(labelled: dict[str, Any]) -> str:
    """Return a dot with its interval a measure: the AUC of own against stranger."""
    ordered = sorted(labelled["measures"].items(), key=lambda row: -row[1]["auc"])
    cells = {name: (cell["auc"], cell["ci95"]) for name, cell in ordered}
    return dots(cells, "AUC of own against stranger, 95 % interval: 0.5 cannot tell", 0.5)
