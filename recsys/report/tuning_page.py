"""What a search found -> one page."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.report import figures, plots
from recsys.report.html import page
from recsys.report.parts import Content, Drawing, Section, Table, interval


def tuning_page(title: str, found: dict[str, Any]) -> str:
    """Return the page of ``tuning.json``."""
    initial = found["initial_value"]
    gain = found["value"] - initial
    verdict = (
        f"{found['model']}: {found['metric']} on the folds of train rose from {initial:.4f} to"
        f" {found['value']:.4f} ({gain:+.4f}) in {len(found['trials'])} settings."
        if gain > 0
        else f"{found['model']}: no setting of {len(found['trials'])} beats the config's own {initial:.4f}."
    )
    sections = [_trials(found)]
    if found["learning"]:
        sections.insert(0, _learning(found["metric"], found["learning"]))
    return page(Content(title, verdict, sections), kind="tuning report")


def _learning(metric: str, learning: dict[str, Any]) -> Section:
    curve = learning["curve"]
    text = (
        "Measured with the best settings on the last fold of train, user by user. On what it was trained on the model"
        f" reaches {learning['train_value']:.4f}, on what it was not {learning['value']:.4f}."
    )
    rows = [
        [f"{row['share']:.1%}", f"{row['users']:,}", f"{row['value']:.4f} {interval(row['ci95'])}"] for row in curve
    ]
    changes = [
        [row["change"], f"{row['difference']:+.4f} {interval(row['ci95'], sign=True)}"] for row in learning["changes"]
    ]
    shares = [100 * row["share"] for row in curve]
    drawings = [
        Drawing(
            plots.lines({metric: np.array([r["value"] for r in curve])}, "% of training users", metric, metric, shares),
            "The learning curve; the table below has the numbers.",
        )
    ]
    cells = {row["change"]: (row["difference"], row["ci95"]) for row in learning["changes"]}
    if cells:
        drawn = figures.dots(cells, f"difference in {metric}, 95 % interval", 0.0)
        drawings.append(Drawing(drawn, "What each change does; the table below has the numbers."))
    tables = [Table("Learning curve", ["share", "users", metric], rows), Table("Changes", ["change", metric], changes)]
    return Section(
        "What would help", [text, *learning["findings"]], tables=tables[: 2 if changes else 1], figures=drawings
    )


def _trials(found: dict[str, Any]) -> Section:
    trials = found["trials"]
    names = list(dict.fromkeys(name for row in trials for name in row["params"]))
    rows = [
        [
            str(row["number"]),
            "given up" if row["value"] is None else f"{row['value']:.4f}",
            *(_short(row["params"].get(name, "as configured")) for name in names),
        ]
        for row in trials
    ]
    best = np.fmax.accumulate([np.nan if row["value"] is None else row["value"] for row in trials])
    drawn = plots.lines({"best so far": best}, "settings tried", found["metric"], "best so far")
    text = (
        "Each setting is judged on folds of the train part, and given up when it falls below the median of the others."
    )
    return Section(
        "Settings tried",
        [text],
        tables=[Table("Settings", ["number", found["metric"], *names], rows)],
        figures=[Drawing(drawn, "The best value so far; the table below has the numbers.")],
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
