"""From per-user values to ``metrics.json``: means, 95 % intervals, paired differences, segments, gaps.

Everything is a sum over users (:class:`~recsys.evaluation.significance.Sums`), so one machine and a cluster write the
same document: each part of the users is summed by :meth:`Layout.sums`, the parts are added, :func:`document` divides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from recsys.data.hashing import id_bits
from recsys.evaluation.evaluate import Judging
from recsys.evaluation.segments import HISTORY, Grouping, gap, history_codes
from recsys.evaluation.significance import Sums, bootstrap_sums, detectable, holm
from recsys.schema import USER
from recsys.types import Evaluation

ALL, LEVEL = ("", ""), ("any", "level")
"""The part of the users that is all of them, and what stands for any other part."""


@dataclass(frozen=True)
class Layout:
    """Which column of the sums is what.

    ``baseline``: a name of ``models``; any other name stands for none, and there are no differences.
    ``groupings``: how users are grouped; each user is in at most one level of each.
    ``extras``: further per-user columns of each model that are only averaged (beyond accuracy).
    """

    models: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str
    groupings: tuple[Grouping, ...] = (HISTORY,)
    extras: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The per-user columns that each model must have, in the order of :meth:`sums`."""
        return self.metrics + self.extras

    @property
    def others(self) -> tuple[str, ...]:
        """The models that are compared with the baseline."""
        return tuple(name for name in self.models if name != self.baseline) if self.baseline in self.models else ()

    def parts(self) -> Iterator[tuple[str, str]]:
        """Yield (grouping, level) of each part of the users, all of them first."""
        yield ALL
        yield from ((grouping.name, level) for grouping in self.groupings for level in grouping.levels)

    def names(self, part: tuple[str, str]) -> tuple[str, ...]:
        """Return the columns that are averaged over a part of the users."""
        return self.columns if part == ALL else self.metrics

    def sums(self, values: np.ndarray, codes: np.ndarray, users: np.ndarray, *, resamples: int, seed: int) -> Sums:
        """Return the sums of some users: models, then differences, of all of them and of each level.

        Args:
            values: float64[m, models × columns], NaN = undefined.
            codes: int[m, groupings], the user's level, -1 for none.
            users: uint64[m], ``id_bits`` of the user ids.
        """
        inside = [np.ones(len(values), dtype=bool)]
        inside += [codes[:, g] == c for g, grouping in enumerate(self.groupings) for c in range(len(grouping.levels))]
        of = dict(zip(self.models, np.split(values, len(self.models), axis=1), strict=True))
        tables = []
        for part in (ALL, LEVEL):
            width = len(self.names(part))
            own = {name: columns[:, :width] for name, columns in of.items()}
            tables.append(np.hstack([*own.values(), *(own[name] - own[self.baseline] for name in self.others)]))
        drawn = {"resamples": resamples, "seed": seed}
        return Sums.beside([bootstrap_sums(tables[i > 0][j], users[j], **drawn) for i, j in enumerate(inside)])

    def places(self) -> dict[tuple[str, str, str, str], np.ndarray]:
        """Return (kind, grouping, level, model) -> columns of the sums; kind is models or differences."""
        found: dict[tuple[str, str, str, str], np.ndarray] = {}
        at = 0
        for part in self.parts():
            width = len(self.names(part))
            for kind, names in (("models", self.models), ("differences", self.others)):
                for name in names:
                    found[kind, *part, name] = np.arange(at, at + width)
                    at += width
        return found


@dataclass(frozen=True)
class Facts:
    """What the document says besides the sums: ``counts`` and ``beyond`` are by model, ``definitions`` by metric."""

    engine: str
    definitions: dict[str, str]
    counts: dict[str, dict[str, int]]
    beyond: dict[str, dict[str, Any]] = field(default_factory=dict)


def document(layout: Layout, sums: Sums, facts: Facts) -> dict[str, Any]:
    """Return metrics.json from the sums of all users."""
    places, cells = layout.places(), _cells(sums)

    def found(kind: str, part: tuple[str, str]) -> dict[str, Any]:
        names = layout.models if kind == "models" else layout.others
        return {m: dict(zip(layout.names(part), cells[places[kind, *part, m]], strict=True)) for m in names}

    _test([places["differences", *ALL, name][: len(layout.metrics)] for name in layout.others], cells, sums)
    models, differences = found("models", ALL), found("differences", ALL)
    segments: dict[str, Any] = {grouping.name: {} for grouping in layout.groupings}
    versus: dict[str, Any] = {grouping.name: {} for grouping in layout.groupings}
    for grouping in layout.groupings:
        for level in grouping.levels:
            segments[grouping.name][level] = found("models", (grouping.name, level))
            versus[grouping.name][level] = found("differences", (grouping.name, level))
    return {
        "models": {name: _only(layout.metrics, row) for name, row in models.items()},
        "differences": {name: _only(layout.metrics, row) for name, row in differences.items()},
        "about": {
            "engine": facts.engine,
            "primary": layout.metrics[0],
            "baseline": layout.baseline if layout.others else None,
            "definitions": facts.definitions,
            "counts": facts.counts,
            "segments": segments,
            "segment_differences": versus,
            "gaps": _gaps(layout, sums, places),
            "beyond": {name: facts.beyond.get(name, {}) | _only(layout.extras, models[name]) for name in layout.models},
        },
    }


def _only(names: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _cells(sums: Sums) -> np.ndarray:
    """Return object[c]: mean, 95 % interval and users of each column."""
    mean, low, high = sums.intervals()
    rows = zip(mean, low, high, sums.count, strict=True)
    found = [{"mean": float(x), "ci95": [float(a), float(b)], "users": int(n)} for x, a, b, n in rows]
    return np.array([*found, None], dtype=object)[:-1]


def _test(family: list[np.ndarray], cells: np.ndarray, sums: Sums) -> None:
    """Add to each difference of ``family``: effect size, detectable difference, p of the paired t-test, and Holm's."""
    columns = np.concatenate([np.empty(0, dtype=np.int64), *family])
    p, sd = sums.t_test()[columns], sums.sd[columns]
    effect = np.divide(sums.mean[columns], sd, out=np.full(len(columns), np.nan), where=sd > 0)
    rows = zip(effect, detectable(sd, sums.count[columns]), p, holm(p), strict=True)
    for column, row in zip(columns, rows, strict=True):
        cells[column] |= dict(zip(("effect_size", "detectable", "p", "p_holm"), map(float, row), strict=True))


def _gaps(layout: Layout, sums: Sums, places: dict[tuple[str, str, str, str], np.ndarray]) -> dict[str, Any]:
    """Return grouping -> model -> metric -> the gap between the groups."""
    found: dict[str, Any] = {}
    for grouping in layout.groupings:
        found[grouping.name] = {}
        for name in layout.models:
            columns = np.stack([places["models", grouping.name, level, name] for level in grouping.levels])
            gaps = (gap(sums, columns[:, j], grouping.levels) for j in range(len(layout.metrics)))
            found[grouping.name][name] = dict(zip(layout.metrics, gaps, strict=True))
    return found


def summarise(evaluations: list[Evaluation], judging: Judging, *, seed: int = 0) -> dict[str, Any]:
    """Return metrics.json of evaluations of the same users by the same metrics.

    Users whose value is undefined (NaN) are left out of a mean; a difference is over the users for whom both
    models are defined.
    """
    first = evaluations[0]
    layout = Layout(tuple(e.name for e in evaluations), tuple(first.metrics), judging.baseline)
    users = first.per_user[USER]
    tables = [e.per_user.set_index(USER)[list(layout.columns)].reindex(users) for e in evaluations]
    values = pd.concat(tables, axis=1).to_numpy(dtype=np.float64)
    history = first.per_user.get("n_history", pd.Series(-1, index=first.per_user.index))
    codes = history_codes(history.to_numpy())[:, None]
    sums = layout.sums(values, codes, id_bits(users), resamples=judging.resamples, seed=seed)
    facts = Facts("local", first.about["definitions"], {e.name: e.about["counts"] for e in evaluations})
    return document(layout, sums, facts)
