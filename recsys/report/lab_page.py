"""Write the report of the lab (``recsys lab``) as one HTML page."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from recsys.report.figures import ACCENT, INK, LINE, SOFT, STYLE, bare, dots, svg
from recsys.report.html import render_html
from recsys.report.parts import Drawing, Report, ReportTable, Section

SCALE = "On the scale 0 = what independent orders give, 1 = what a list gives against itself."
"""A sentence that explains scaled values of measures, see ``lab.studies.ScaledMeasure``."""


def lab_page(results: dict[str, Any]) -> str:
    """Return the HTML page of the lab, from the contents of its file ``lab.json``.

    Args:
        results: the contents of the file: the result of ``lab.studies.run_lab``; ``questions``,
            that of ``lab.studies.best_measures``; and optionally ``labelled``, that of
            ``lab.labelled.discrimination_auc``.
    """
    sections = [
        _questions(results),
        _soundness(results),
        _noise(results),
        _top(results),
        _partial(results),
        _power(results),
    ]
    if "labelled" in results:
        sections.insert(1, _labelled(results["labelled"]))
    failed = [name for name, row in results["measures"].items() if row["failed"]]
    worst = max(abs(row["z"]) for row in results["mallows"])
    verdict = (
        f"{len(results['measures'])} measures were tested; "
        + (f"{', '.join(failed)} failed a check. " if failed else "none failed a check. ")
        + f"Simulated orders are within {worst:.1f} standard errors of their known mean distance."
    )
    return render_html(Report("The lab: which measure for which question", verdict, sections), kind="lab")


def _questions(results: dict[str, Any]) -> Section:
    """Return the section with the best measures for each question."""
    rows = []
    for row in results["questions"]:
        best_two = [f"{name} ({value:.3f})" for name, value in row["best"]]
        rows.append([row["question"], *[*best_two, "–", "–"][:2], row["figure"]])
    heads = ["question", "best", "next", "by"]
    text = "Each answer is the measure with the best number in the sections below, among those that passed all checks."
    return Section("Which measure for which question", [text], tables=[ReportTable("Answers", heads, rows, 4)])


def _labelled(labelled: dict[str, Any]) -> Section:
    """Return the section with the results on real ratings."""
    rows = [
        [name, f"{cell['auc']:.3f}", _interval(cell["ci95"]), f"{cell['users']:,}"]
        for name, cell in sorted(labelled["measures"].items(), key=lambda row: -row[1]["auc"])
    ]
    text = (
        f"For each of {labelled['users']:,} users, the films of the second half of the history"
        " were ranked from the first half, and from the history of another user. Both rankings"
        " were compared with the ratings of the user. AUC is the chance that the first ranking"
        f" agrees more with them; a tie counts one half. {labelled['left_out']:,} users with too"
        " few ratings were left out."
    )
    drawing = Drawing(
        draw_labelled(labelled),
        "Own history against that of another user; the table below has the numbers.",
    )
    table = ReportTable("Own history against another user's", ["measure", "AUC", "95 %", "users"], rows)
    return Section("Own history or another user's", [text], tables=[table], figures=[drawing])


def _soundness(results: dict[str, Any]) -> Section:
    """Return the section with the checks of the measures and of the simulations."""
    rows = [[name, "; ".join(row["failed"]) or "passed"] for name, row in results["measures"].items()]
    warnings = [f"{name}: {'; '.join(row['failed'])}" for name, row in results["measures"].items() if row["failed"]]
    text = (
        "A sound measure is highest for a list with itself, falls with noise, depends neither on"
        " the names of items nor on the other pairs that it is computed with, and falls at most as"
        " much for a swap at the bottom as at the top."
    )
    distances = [
        [
            f"{row['dispersion']:g}",
            f"{row['mean']:.2f}",
            f"{row['expected']:.2f}",
            f"{row['z']:+.2f}",
        ]
        for row in results["mallows"]
    ]
    tables = [
        ReportTable("Checks", ["measure", "result"], rows, 2),
        ReportTable(
            "Mallows model: Kendall distance from the truth",
            ["dispersion", "mean", "closed form", "z"],
            distances,
            0,
        ),
    ]
    return Section("Are the measures, and the simulations, sound", [text], warnings, tables)


def _noise(results: dict[str, Any]) -> Section:
    """Return the section on how the measures fall as noise grows."""
    heads = ["measure", *(f"{d:g}" for d in results["about"]["dispersions"]), "deviation"]
    rows = [
        [name, *(f"{v:.2f}" for v in row["curve"]), f"{row['spread']:.3f}"] for name, row in results["measures"].items()
    ]
    text = f"Mean agreement of noisy orders with the truth; the dispersion rises as noise falls. {SCALE}"
    more = "Deviation: the standard deviation of one pair's value at dispersion 0.1."
    table = ReportTable("Agreement by dispersion (Mallows)", heads, rows)
    drawing = Drawing(curves(results), "Agreement by dispersion: the table below has the numbers.")
    return Section("How agreement falls with noise", [text, more], tables=[table], figures=[drawing])


def _top(results: dict[str, Any]) -> Section:
    """Return the section on how much the top of a list counts in each measure."""
    rows = [
        [
            name,
            "not sensitive" if row["top_weight"] is None else f"{row['top_weight']:.2f}",
            *(f"{row[change][end]:.4f}" for change in ("shuffle", "swap") for end in ("top", "bottom")),
        ]
        for name, row in results["measures"].items()
    ]
    text = (
        "How much a measure falls when the top or the bottom third is shuffled, and when two"
        f" neighbours at either end are swapped. {SCALE} Top weight: 0.5 if both ends count the"
        " same, 1 if only the top counts."
    )
    heads = [
        "measure",
        "top weight",
        "shuffled top",
        "shuffled bottom",
        "swap at top",
        "swap at bottom",
    ]
    drawing = Drawing(top_weights(results), "Top weight: the table below has the numbers.")
    return Section(
        "How much the top counts",
        [text],
        tables=[ReportTable("Top weight", heads, rows)],
        figures=[drawing],
    )


def _partial(results: dict[str, Any]) -> Section:
    """Return the section on lists that are cut, tied or incomplete, and on other kinds of noise."""
    parts = ("truncated", "tied", "subsampled")
    heads = [
        "measure",
        *(f"{part}: {statistic}" for part in parts for statistic in ("bias", "deviation")),
    ]
    rows = [
        [
            name,
            *(
                _number(row["observed"][part][statistic], sign=statistic == "bias")
                for part in parts
                for statistic in ("bias", "spread")
            ),
        ]
        for name, row in results["measures"].items()
    ]
    text = (
        "Compared with complete lists: both lists cut at half, both with items tied in threes,"
        " both without a random third of their items. Bias is the mean error, deviation its"
        f" standard deviation. {SCALE}"
    )
    scenes = [
        [
            name,
            *(_number(row["observed"][scene][w]) for scene in ("rerated", "plackett_luce") for w in ("mean", "spread")),
        ]
        for name, row in results["measures"].items()
    ]
    scene_heads = [
        "measure",
        "re-rated: mean",
        "re-rated: deviation",
        "Plackett–Luce: mean",
        "Plackett–Luce: deviation",
    ]
    tables = [
        ReportTable("Errors of partial lists", heads, rows),
        ReportTable("Other kinds of noise", scene_heads, scenes),
    ]
    return Section("Lists that are cut, tied or patchy", [text], tables=tables)


def _power(results: dict[str, Any]) -> Section:
    """Return the section on the power and the size of tests that use the measures."""
    about = results["about"]
    ordered = sorted(results["measures"].items(), key=lambda row: -row[1]["power"]["all"])
    rows = [
        [
            name,
            *(f"{row['power'][part]:.3f}" for part in ("all", "top", "bottom")),
            f"{row['null']:.3f}",
        ]
        for name, row in ordered
    ]
    tests = [[name, f"{size:.4f}"] for name, size in results["tests"].items()]
    text = (
        f"{about['experiments']:,} experiments, each a t-test at 5 % between two systems judged on"
        f" {about['users']} users. Power: how often the test detects a worse system, which is"
        " noisier everywhere, or whose first or last five items are shuffled. Under the null: how"
        " often it reports a difference between equal systems; this should be 0.05."
    )
    tables = [
        ReportTable(
            "Discriminative power",
            ["measure", "noisier", "worse top", "worse bottom", "under the null"],
            rows,
        ),
        ReportTable(
            "Tests of independence: share of independent pairs reported as dependent",
            ["test", "size"],
            tests,
        ),
    ]
    return Section("Discriminative power and size", [text], tables=tables)


def _number(value: float | None, *, sign: bool = False) -> str:
    """Return a number with three decimals as text, or a dash (–) for None and NaN.

    Args:
        sign: whether a positive number has a plus sign.
    """
    if value is None or math.isnan(value):
        return "–"
    # A value that rounds to 0 is written without its sign.
    if abs(value) < 0.0005:
        value = 0.0
        sign = False
    if sign:
        return f"{value:+.3f}"
    return f"{value:.3f}"


def _interval(ends: list[float]) -> str:
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def curves(results: dict[str, Any]) -> str:
    """Return an SVG figure with one small panel per measure: a curve of its mean by dispersion.

    In each panel the curves of all measures are drawn in a light colour behind that of the measure.

    Args:
        results: the contents of lab.json, see :func:`lab_page`.
    """
    steps = range(len(results["about"]["dispersions"]))
    names = list(results["measures"])
    rows = math.ceil(len(names) / 3)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.75 * rows), layout="constrained")
        panels = figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False).flat
        for name, axes in zip(names, panels, strict=False):
            for each_name in names:
                axes.plot(steps, results["measures"][each_name]["curve"], color=LINE, linewidth=1)
            axes.plot(steps, results["measures"][name]["curve"], color=ACCENT, linewidth=2)
            axes.set_title(name, fontsize=9, color=INK, loc="left")
            axes.set_xticks([0, 3, 6, 9], [f"{results['about']['dispersions'][i]:g}" for i in (0, 3, 6, 9)])
            bare(axes)
        # The iterator continues after the last measure: these are the empty panels of the last row.
        for axes in list(panels):
            axes.set_visible(False)
        figure.supxlabel("dispersion: more noise on the left", fontsize=9, color=SOFT)
        return svg(figure)


def top_weights(results: dict[str, Any]) -> str:
    """Return an SVG figure with the top weight of each measure as a dot, largest first.

    A measure loses agreement when the top third of a list is shuffled, and also when the bottom third
    is. The top weight is the first loss divided by the sum of both, so it is 0.5 if both thirds count
    the same (see ``studies.study_measure``). Measures without a top weight are left out. The result
    is "" if no measure has one.

    Args:
        results: the contents of lab.json, see :func:`lab_page`.
    """
    values = {name: row["top_weight"] for name, row in results["measures"].items() if row["top_weight"] is not None}
    return dots(
        {name: (values[name], None) for name in sorted(values, key=values.__getitem__, reverse=True)},
        "top weight: 0.5 if both ends count the same",
        0.5,
    )


def draw_labelled(labelled: dict[str, Any]) -> str:
    """Return an SVG figure with one dot per measure: its AUC on real ratings, with the interval.

    The largest AUC is at the top.

    Args:
        labelled: the entry ``labelled`` of lab.json, the result of
            ``lab.labelled.discrimination_auc``.
    """
    ordered = sorted(labelled["measures"].items(), key=lambda row: -row[1]["auc"])
    cells = {name: (cell["auc"], cell["ci95"]) for name, cell in ordered}
    return dots(cells, "AUC, 95 % interval: 0.5 is no better than chance", 0.5)
