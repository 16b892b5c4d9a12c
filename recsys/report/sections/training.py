"""Was it trained long enough: what the training minimises, sweep by sweep, and what users who taught nothing get."""

from __future__ import annotations

import numpy as np

from recsys import run_files
from recsys.report import plots
from recsys.report.parts import Drawing, Section
from recsys.report.run_reader import Run

STILL = 0.01
"""A last sweep that lowers the objective by more than this share says that more sweeps would go on."""


def training(run: Run) -> Section | None:
    """Return the training curves of models that keep one; None for a run without."""
    if not (run.folder.path / run_files.TRAINING).exists():
        return None
    curves = {name: np.array(own) for name, own in run.folder.read_json(run_files.TRAINING).items() if len(own) > 1}
    if not curves:
        return None
    shares = {name: losses / losses[0] for name, losses in curves.items()}
    sentences = [_say(name, losses) for name, losses in curves.items()]
    drawn = plots.lines(shares, "sweep", "objective, of the first sweep's", run.best)
    figures = [Drawing(drawn, "The objective on train after each sweep.")]
    if (run.folder.path / run_files.WATCHED).exists():
        watched = run.folder.read_json(run_files.WATCHED)
        sentences += [_say_watched(name, **own) for name, own in watched.items()]
        for measure in sorted({own["measure"] for own in watched.values()}):
            found = {name: np.array(own["quality"]) for name, own in watched.items() if own["measure"] == measure}
            drawn = plots.lines(found, "sweep", measure, run.best)
            figures.append(Drawing(drawn, f"{measure} of hidden pairs of users who teach nothing, after each sweep."))
    return Section("Training", sentences, figures=figures)


def _say(name: str, losses: np.ndarray) -> str:
    last = 1 - losses[-1] / losses[-2]
    told = (
        f"{name}: {len(losses)} sweeps lowered the objective to {losses[-1] / losses[0]:.1%} of what it was after the"
        f" first, the last one by {last:.2%}"
    )
    if last > STILL:
        return f"{told}: more iterations would lower it further; whether lists get better too, recsys tune tells."
    return f"{told}: it has settled."


def _say_watched(name: str, measure: str, users: int, quality: list[float]) -> str:
    best = int(np.argmin(quality) if measure == "rmse" else np.argmax(quality))
    told = (
        f"{name}: {users:,} users taught nothing while it swept, and a fifth of their pairs was hidden: {measure} was"
        f" {quality[0]:.4f} after the first sweep, {quality[-1]:.4f} after the last"
    )
    if best < len(quality) - 1:
        return f"{told}, and best, {quality[best]:.4f}, after sweep {best + 1}."
    return f"{told}, where it was best."
