"""From per-user values to ``metrics.json``: means, 95 % intervals, paired differences, segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.evaluation.evaluate import Judging
from recsys.evaluation.significance import mean_ci, paired_difference
from recsys.schema import USER
from recsys.types import Evaluation

HISTORY_SEGMENTS = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20+": (20, np.inf)}
"""Users by the number of items in their history: least and most, both included."""


def summarise(evaluations: list[Evaluation], judging: Judging, *, seed: int = 0) -> dict[str, Any]:
    """Return metrics.json: per model and metric the mean, its interval and the number of users it is over.

    Users whose value is undefined (NaN) are left out of a mean; a difference is over the users for whom both
    models are defined. Every interval uses the same seed, so equal inputs give equal intervals.
    """
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    baseline = by_name.get(judging.baseline)
    result: dict[str, Any] = {"models": {e.name: _means(e.per_user, e.metrics, judging, seed) for e in evaluations}}
    if baseline is not None:
        result["differences"] = {
            e.name: _differences(e, baseline, judging, seed) for e in evaluations if e is not baseline
        }
    result["about"] = {
        "engine": "local",
        "primary": judging.metrics[0],
        "baseline": judging.baseline if baseline is not None else None,
        "definitions": evaluations[0].about.get("definitions", {}),
        "counts": {e.name: e.about.get("counts", {}) for e in evaluations},
        "segments": {"history": _segments(evaluations, judging, seed)},
    }
    return result


def entry(mean: float, low: float, high: float, users: int) -> dict[str, Any]:
    """Return one cell of metrics.json."""
    return {"mean": mean, "ci95": [low, high], "users": users}


def _means(per_user: pd.DataFrame, metrics: list[str], judging: Judging, seed: int) -> dict[str, Any]:
    cells = {}
    for metric in metrics:
        values = per_user[metric].to_numpy(dtype=np.float64)
        values = values[~np.isnan(values)]
        cells[metric] = entry(*mean_ci(values, resamples=judging.resamples, rng=seed), len(values))
    return cells


def _differences(model: Evaluation, baseline: Evaluation, judging: Judging, seed: int) -> dict[str, Any]:
    both = model.per_user.merge(baseline.per_user, on=USER, suffixes=("", "\0"))
    cells = {}
    for metric in model.metrics:
        a, b = both[metric].to_numpy(dtype=np.float64), both[metric + "\0"].to_numpy(dtype=np.float64)
        defined = ~np.isnan(a) & ~np.isnan(b)
        found = paired_difference(a[defined], b[defined], resamples=judging.resamples, rng=seed)
        cells[metric] = entry(*found, int(defined.sum())) | {"baseline": baseline.name}
    return cells


def _segments(evaluations: list[Evaluation], judging: Judging, seed: int) -> dict[str, Any]:
    segments = {}
    for name, (least, most) in HISTORY_SEGMENTS.items():
        parts = {}
        for e in evaluations:
            if "n_history" in e.per_user:
                part = e.per_user[e.per_user["n_history"].between(least, most)]
                parts[e.name] = _means(part, e.metrics, judging, seed)
        segments[name] = parts
    return segments
