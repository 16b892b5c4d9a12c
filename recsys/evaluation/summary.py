"""From per-user values to ``metrics.json``: means, 95 % intervals, paired differences, segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.data.hashing import id_bits
from recsys.evaluation.evaluate import Judging
from recsys.evaluation.significance import Sums, bootstrap_sums
from recsys.schema import USER
from recsys.types import Evaluation

HISTORY_SEGMENTS = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20+": (20, np.inf)}
"""Users by the number of items in their history: least and most, both included."""


def summarise(evaluations: list[Evaluation], judging: Judging, *, seed: int = 0) -> dict[str, Any]:
    """Return metrics.json: per model and metric the mean, its interval and the number of users it is over.

    Users whose value is undefined (NaN) are left out of a mean; a difference is over the users for whom both
    models are defined.
    """
    baseline = next((e for e in evaluations if e.name == judging.baseline), None)

    def measure(table: pd.DataFrame, metrics: list[str], **extra: Any) -> dict[str, Any]:
        values = table[metrics].to_numpy(dtype=np.float64)
        return cells(
            bootstrap_sums(values, id_bits(table[USER]), resamples=judging.resamples, seed=seed), metrics, **extra
        )

    models = {e.name: measure(e.per_user, e.metrics) for e in evaluations}
    differences = {
        e.name: measure(_minus(e, baseline), e.metrics, baseline=baseline.name)
        for e in evaluations
        if baseline is not None and e is not baseline
    }
    segments = {
        name: {
            e.name: measure(e.per_user[e.per_user["n_history"].between(*bounds)], e.metrics) for e in evaluations
        }
        for name, bounds in HISTORY_SEGMENTS.items()
    }
    about = {
        "engine": "local",
        "primary": judging.metrics[0],
        "baseline": baseline.name if baseline else None,
        "definitions": evaluations[0].about["definitions"],
        "counts": {e.name: e.about["counts"] for e in evaluations},
        "segments": {"history": segments},
    }
    return {"models": models, "differences": differences, "about": about}


def cells(sums: Sums, metrics: list[str], **extra: Any) -> dict[str, Any]:
    """Return metric -> {mean, ci95, users} from sums whose columns are the metrics."""
    mean, low, high = sums.intervals()
    return {
        metric: {"mean": float(mean[i]), "ci95": [float(low[i]), float(high[i])], "users": int(sums.count[i])} | extra
        for i, metric in enumerate(metrics)
    }


def _minus(model: Evaluation, baseline: Evaluation) -> pd.DataFrame:
    """Return the users of both, with the differences of their metrics."""
    a, b = model.per_user.set_index(USER)[model.metrics], baseline.per_user.set_index(USER)[model.metrics]
    return (a - b.reindex(a.index)).reset_index()
