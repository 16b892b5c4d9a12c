"""How good each model is for users of whom little is known."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from recsys import run_files
from recsys.report import plots
from recsys.report.parts import Drawing, Section, Table, mean
from recsys.report.run_reader import Run


def coldstart(run: Run) -> Section | None:
    """Return the cold-start curve; None for a run without one."""
    if not (run.folder.path / run_files.COLD_START).exists():
        return None
    found = run.folder.read_json(run_files.COLD_START)
    rows = {name: list(own) for name, own in groupby(found["curve"], key=lambda row: row["model"])}
    cuts = list(found["leads"])
    table = Table(
        f"{found['metric']} by events known", ["model", *cuts], [[name, *map(mean, own)] for name, own in rows.items()]
    )
    curves = {name: np.array([row["mean"] for row in own]) for name, own in rows.items()}
    drawn = plots.lines(curves, "events known", found["metric"], run.best, [float(cut) for cut in cuts])
    leads = [(name, [cut for cut, _ in own]) for name, own in groupby(found["leads"].items(), key=lambda pair: pair[1])]
    text = (
        f"{found['users']:,} tested users, of whom every model is told only the first events; what they saw later stays"
        " out of their lists all the same. The lead: "
        + ", then ".join(
            f"{name} at {' and '.join(at) if len(at) < 3 else f'{at[0]} to {at[-1]}'}" for name, at in leads
        )
        + " events."
    )
    return Section("Cold start", [text], tables=[table], figures=[Drawing(drawn, "The same, drawn.")])
