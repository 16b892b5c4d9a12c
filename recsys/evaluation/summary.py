"""From per-user values to ``metrics.json``: means, 95 % intervals, paired differences, segments.

Everything is a sum over users (:class:`~recsys.evaluation.significance.Sums`), so one machine and a cluster write the
same document: each part of the users is summed by :meth:`Layout.sums`, the parts are added, :func:`document` divides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Layout:
    """Which column of the sums is what: models × metrics, then differences from the baseline, then each segment.

    ``baseline``: a name of ``models``; any other name stands for none, and there are no differences.
    """

    models: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str

    @property
    def others(self) -> tuple[str, ...]:
        """The models that are compared with the baseline."""
        return tuple(name for name in self.models if name != self.baseline) if self.baseline in self.models else ()

    def blocks(self) -> Iterator[tuple[str, str]]:
        """Yield (part of the document, model) of each block of ``len(metrics)`` columns, in order."""
        yield from (("models", name) for name in self.models)
        yield from (("differences", name) for name in self.others)
        yield from ((segment, name) for segment in HISTORY_SEGMENTS for name in self.models)

    def sums(self, values: np.ndarray, n_history: np.ndarray, users: np.ndarray, *, resamples: int, seed: int) -> Sums:
        """Return the sums of some users.

        Args:
            values: float64[m, models × metrics], NaN = undefined.
            n_history: int[m], items in each user's history.
            users: uint64[m], ``id_bits`` of the user ids.
        """
        width = len(self.metrics)
        of = {name: values[:, i * width : (i + 1) * width] for i, name in enumerate(self.models)}
        inside = {name: ((n_history >= low) & (n_history <= high)) for name, (low, high) in HISTORY_SEGMENTS.items()}
        columns = []
        for part, name in self.blocks():
            if part == "models":
                columns.append(of[name])
            elif part == "differences":
                columns.append(of[name] - of[self.baseline])
            else:
                columns.append(np.where(inside[part][:, None], of[name], np.nan))
        return bootstrap_sums(np.concatenate(columns, axis=1), users, resamples=resamples, seed=seed)


def document(
    layout: Layout, sums: Sums, *, engine: str, definitions: dict[str, str], counts: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Return metrics.json from the sums of all users.

    ``definitions``: metric -> one line; ``counts``: model -> what ``evaluate.count`` returns.
    """
    mean, low, high = sums.intervals()
    found: dict[str, dict[str, Any]] = {name: {} for name in ("models", "differences", *HISTORY_SEGMENTS)}
    at = 0
    for part, name in layout.blocks():
        cells = {}
        for metric in layout.metrics:
            cells[metric] = {
                "mean": float(mean[at]),
                "ci95": [float(low[at]), float(high[at])],
                "users": int(sums.count[at]),
            }
            at += 1
        found[part][name] = cells
    return {
        "models": found["models"],
        "differences": found["differences"],
        "about": {
            "engine": engine,
            "primary": layout.metrics[0],
            "baseline": layout.baseline if layout.others else None,
            "definitions": definitions,
            "counts": counts,
            "segments": {"history": {name: found[name] for name in HISTORY_SEGMENTS}},
        },
    }


def summarise(evaluations: list[Evaluation], judging: Judging, *, seed: int = 0) -> dict[str, Any]:
    """Return metrics.json of evaluations of the same users by the same metrics.

    Users whose value is undefined (NaN) are left out of a mean; a difference is over the users for whom both
    models are defined.
    """
    first = evaluations[0]
    layout = Layout(tuple(e.name for e in evaluations), tuple(first.metrics), judging.baseline)
    users = first.per_user[USER]
    tables = [e.per_user.set_index(USER)[e.metrics].reindex(users) for e in evaluations]
    values = pd.concat(tables, axis=1).to_numpy(dtype=np.float64)
    history = (
        first.per_user["n_history"] if "n_history" in first.per_user else pd.Series(-1, index=first.per_user.index)
    )
    sums = layout.sums(values, history.to_numpy(), id_bits(users), resamples=judging.resamples, seed=seed)
    counts = {e.name: e.about["counts"] for e in evaluations}
    return document(layout, sums, engine="local", definitions=first.about["definitions"], counts=counts)
