"""Was it trained long enough: what the training minimises, sweep by sweep."""

from __future__ import annotations

import numpy as np

from recsys.report import plots
from recsys.report.opened import Run
from recsys.report.parts import Drawing, Section

STILL = 0.01
"""A last sweep that lowers the objective by more than this share says that more sweeps would go on."""


def training(run: Run) -> Section | None:
    """Return the training curves of models that keep one; None for a run without."""
    if not (run.folder.path / "training.json").exists():
        return None
    curves = {name: np.array(own) for name, own in run.folder.read_json("training.json").items() if len(own) > 1}
    if not curves:
        return None
    shares = {name: losses / losses[0] for name, losses in curves.items()}
    sentences = [_say(name, losses) for name, losses in curves.items()]
    drawn = plots.lines(shares, "sweep", "objective, of the first sweep's", run.best)
    return Section("Training", sentences, figures=[Drawing(drawn, "The objective on train after each sweep.")])


def _say(name: str, losses: np.ndarray) -> str:
    last = 1 - losses[-1] / losses[-2]
    told = (
        f"{name}: {len(losses)} sweeps lowered the objective to {losses[-1] / losses[0]:.1%} of what it was after the"
        f" first, the last one by {last:.2%}"
    )
    if last > STILL:
        return f"{told}: more iterations would lower it further; whether lists get better too, recsys tune tells."
    return f"{told}: it has settled."
