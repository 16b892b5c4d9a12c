"""Write the report of a search for settings (``recsys tune``) as one HTML page."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.report import figures, plots
from recsys.report.html import render_html
from recsys.report.parts import Drawing, Report, ReportTable, Section, format_interval


def tuning_page(title: str, study: dict[str, Any]) -> str:
    """Return the HTML page of a search for settings, from the contents of its file ``tuning.json``.

    Args:
        title: the title of the page.
        study: the contents of the file: the fields of ``tune.study.Tuned`` without ``config``, and
            ``learning``, a dict of the fields of ``tune.learning.LearningReport``, or None.
    """
    gain = study["value"] - study["initial_value"]
    if gain > 0:
        verdict = (
            f"{study['model']}: {study['metric']} on the folds of train rose from"
            f" {study['initial_value']:.4f} to {study['value']:.4f} ({gain:+.4f}) with"
            f" {len(study['trials'])} settings tried."
        )
    else:
        verdict = (
            f"{study['model']}: none of {len(study['trials'])} settings is better than that of the"
            f" config, {study['initial_value']:.4f}."
        )
    sections = [_trials(study)]
    if study["learning"]:
        sections.insert(0, _learning(study["metric"], study["learning"]))
    return render_html(Report(title, verdict, sections), kind="tuning report")


def _learning(metric: str, learning: dict[str, Any]) -> Section:
    """Return the section on the learning curve and on changes that may improve the model."""
    curve = learning["curve"]
    text = (
        "Measured with the best settings on the last fold of train, user by user. The model reaches"
        f" {learning['train_value']:.4f} on the events that it was trained on, and"
        f" {learning['value']:.4f} on others."
    )
    rows = [
        [
            f"{row['share']:.1%}",
            f"{row['users']:,}",
            f"{row['value']:.4f} {format_interval(row['ci95'])}",
        ]
        for row in curve
    ]
    changes = [
        [row["change"], f"{row['difference']:+.4f} {format_interval(row['ci95'], sign=True)}"]
        for row in learning["changes"]
    ]
    shares = [100 * row["share"] for row in curve]
    drawings = [
        Drawing(
            plots.lines(
                {metric: np.array([r["value"] for r in curve])},
                "% of training users",
                metric,
                metric,
                shares,
            ),
            "The learning curve; the table below has the numbers.",
        )
    ]
    cells = {row["change"]: (row["difference"], row["ci95"]) for row in learning["changes"]}
    if cells:
        svg = figures.dots(cells, f"difference in {metric}, 95 % interval", 0.0)
        drawings.append(Drawing(svg, "What each change does; the table below has the numbers."))
    tables = [
        ReportTable("Learning curve", ["share", "users", metric], rows),
        ReportTable("Changes", ["change", metric], changes),
    ]
    return Section(
        "What would help",
        [text, *learning["findings"]],
        tables=tables if changes else tables[:1],
        figures=drawings,
    )


def _trials(study: dict[str, Any]) -> Section:
    """Return the section with all settings that were tried and their values."""
    trials = study["trials"]
    names = list(dict.fromkeys(name for row in trials for name in row["params"]))
    rows = [
        [
            str(row["number"]),
            "stopped early" if row["value"] is None else f"{row['value']:.4f}",
            *(_format_value(row["params"].get(name, "as configured")) for name in names),
        ]
        for row in trials
    ]
    best_values = np.fmax.accumulate([np.nan if row["value"] is None else row["value"] for row in trials])
    svg = plots.lines({"best so far": best_values}, "settings tried", study["metric"], "best so far")
    text = (
        "Each setting is evaluated on folds of the train part, and stopped early if it falls"
        " below the median of the others."
    )
    return Section(
        "Settings tried",
        [text],
        tables=[ReportTable("Settings", ["number", study["metric"], *names], rows)],
        figures=[Drawing(svg, "The best value so far; the table below has the numbers.")],
    )


def _format_value(value: Any) -> str:
    """Return the value of a setting as text; a float has four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
