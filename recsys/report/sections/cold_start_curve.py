"""The section on the quality of each model when it knows only the first events of a user."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from recsys import run_files
from recsys.report import plots
from recsys.report.parts import Drawing, ReportTable, Section, format_mean
from recsys.report.run_reader import Run


def cold_start_curve(run: Run) -> Section | None:
    """Return the section "Cold start": the quality of each model if it knows few events of a user.

    It has a table and a figure. The result is None for a run without a cold-start curve."""
    if not run.folder.has(run_files.COLD_START):
        return None
    record = run.folder.read_json(run_files.COLD_START)
    metric = record["metric"]
    cuts = list(record["leads"])
    measured = groupby(record["curve"], key=lambda row: row["model"])
    rows_of_model = {name: list(rows) for name, rows in measured}
    rows_of_model = {name: rows_of_model[name] for name in run.models if name in rows_of_model}
    table = ReportTable(
        f"{metric} by number of known events",
        ["model", *cuts],
        [[name, *map(format_mean, rows)] for name, rows in rows_of_model.items()],
        notes=run.notes,
    )
    curves = {name: np.array([row["mean"] for row in rows]) for name, rows in rows_of_model.items()}
    svg = plots.lines(curves, "known events", metric, run.best_model, [float(cut) for cut in cuts])
    text = (
        f"{record['users']:,} tested users; each model gets only the first events of a user. The"
        " later events of the history stay out of the lists in every case. Best:"
        f" {_leads(record['leads'])} events."
    )
    return Section("Cold start", [text], tables=[table], figures=[Drawing(svg, f"{table.caption}, drawn.")])


def _leads(leads: dict[str, str]) -> str:
    """Return a text that says which model is best at which numbers of events.

    For example, ``popular at 0 and 1, then als at 2 to 20``.

    Args:
        leads: number of events -> the best model.
    """
    clauses = []
    for name, entries in groupby(leads.items(), key=lambda entry: entry[1]):
        cuts = [cut for cut, _ in entries]
        if len(cuts) < 3:
            span = " and ".join(cuts)
        else:
            span = f"{cuts[0]} to {cuts[-1]}"
        clauses.append(f"{name} at {span}")
    return ", then ".join(clauses)
