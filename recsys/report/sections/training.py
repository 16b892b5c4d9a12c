"""The section on the training: whether it was long enough, by the objective after each sweep.

If it was measured, the section also has the quality for users who are not part of the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys import run_files
from recsys.report import plots
from recsys.report.parts import Drawing, Section
from recsys.report.run_reader import Run

SETTLED = 0.01
"""Training has settled if its last sweep lowers the objective by at most this share."""


def training(run: Run) -> Section | None:
    """Return the section "Training": how the objective of each model fell from sweep to sweep.

    If the run measured it, the section also has the quality of the lists after each sweep. The
    result is None if no model has recorded its objective after at least two sweeps.
    """
    if not run.folder.has(run_files.TRAINING):
        return None
    record = run.folder.read_json(run_files.TRAINING)
    curves = {name: np.array(losses) for name, losses in record.items() if len(losses) > 1}
    if not curves:
        return None
    sentences = [_describe_losses(name, losses) for name, losses in curves.items()]
    shares = {name: losses / losses[0] for name, losses in curves.items()}
    svg = plots.lines(shares, "sweep", "objective, share of the first sweep's", run.best_model)
    figures = [Drawing(svg, "The objective on train after each sweep.")]
    if run.folder.has(run_files.WATCHED):
        watched = run.folder.read_json(run_files.WATCHED)
        sentences += [_describe_quality(name, entry) for name, entry in watched.items()]
        for measure in sorted({entry["measure"] for entry in watched.values()}):
            qualities = {
                name: np.array(entry["quality"]) for name, entry in watched.items() if entry["measure"] == measure
            }
            svg = plots.lines(qualities, "sweep", measure, run.best_model)
            label = f"{measure} on hidden pairs of users who are not trained on, after each sweep."
            figures.append(Drawing(svg, label))
    return Section("Training", sentences, figures=figures)


def _describe_losses(name: str, losses: np.ndarray) -> str:
    """Return sentences on how the objective of a model fell, and whether it still falls.

    Args:
        losses: float[sweeps], the objective after each sweep.
    """
    last_gain = 1 - losses[-1] / losses[-2]
    sentence = (
        f"{name}: after {len(losses)} sweeps the objective is {losses[-1] / losses[0]:.1%} of its"
        f" value after the first one; the last sweep lowered it by {last_gain:.2%}"
    )
    if last_gain > SETTLED:
        return (
            f"{sentence}. More iterations would lower it further; `recsys tune` measures whether the lists get better."
        )
    return f"{sentence}. It has settled."


def _describe_quality(name: str, watched: dict[str, Any]) -> str:
    """Return a sentence on the quality of a model during the training.

    ``watched`` is the entry of the model in watched.json.
    """
    measure, quality = watched["measure"], watched["quality"]
    best_sweep = int(np.argmin(quality) if measure == "rmse" else np.argmax(quality))
    sentence = (
        f"{name}: {watched['users']:,} users were not trained on, and a fifth of their pairs was hidden. On"
        f" these pairs {measure} was {quality[0]:.4f} after the first sweep and {quality[-1]:.4f}"
        " after the last one"
    )
    if best_sweep < len(quality) - 1:
        return f"{sentence}; it was best, {quality[best_sweep]:.4f}, after sweep {best_sweep + 1}."
    return f"{sentence}, which is the best."
