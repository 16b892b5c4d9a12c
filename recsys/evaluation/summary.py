"""Compute ``metrics.json`` from values per user: means, 95 % intervals, paired differences, groups
and gaps.

Everything is computed from sums over users (:class:`~recsys.evaluation.testing.significance.Sums`).
A cluster computes the sums of each partition of the users (:meth:`Layout.sums`) and adds them.
:func:`document` computes the means, intervals and tests from the sums of all users. So one machine
and a cluster write the same document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from recsys.data.hashing import id_bits
from recsys.evaluation.beyond import Catalogue
from recsys.evaluation.groups import (
    HISTORY,
    Grouping,
    Groups,
    gap,
    group_column,
    history_codes,
    table_groups,
)
from recsys.evaluation.settings import BASELINES, EvaluationSettings
from recsys.evaluation.testing.pick import models_by_quality
from recsys.evaluation.testing.significance import (
    Sums,
    bootstrap_sums,
    detectable_effect,
    holm_adjust,
    mean_ci,
)
from recsys.schema import USER
from recsys.types import Evaluation

ALL = ("", "")
"""The key of all users together, as a pair (grouping, level)."""
LEVEL = ("any", "level")
"""A key that stands for any one group of users, where all groups are treated in the same way."""


@dataclass(frozen=True)
class Layout:
    """The models, metrics and groups of a summary, which define the columns of its sums.

    One column of the sums belongs to one model, one metric and one group of users, see
    :meth:`sum_columns`.

    Attributes:
        models: the names of the models.
        metrics: the names of the metrics. The first is the primary metric.
        baseline: the name of the model from which differences are taken. If it is not one of
            ``models``, there are no differences.
        groupings: the groupings of users. Each metric is averaged over each group.
        item_groupings: the groupings of relevant items. The primary metric on the items of each
            group is a column of its own (``groups.group_column``).
        catalogue_measures: the names of the measures beyond accuracy, as
            ``beyond.Catalogue.measures`` returns them.
    """

    models: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str
    groupings: tuple[Grouping, ...] = (HISTORY,)
    item_groupings: tuple[Grouping, ...] = ()
    catalogue_measures: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the values per user that each model must have, in the order of :meth:`sums`.

        They are the metrics, the primary metric in each group of items, and the measures beyond
        accuracy.
        """
        of_items = (group_column(self.metrics[0], g, level) for g in self.item_groupings for level in g.levels)
        return (*self.metrics, *of_items, *self.catalogue_measures)

    @property
    def compared_models(self) -> tuple[str, ...]:
        """The models that are compared with the baseline; none if it is not in ``models``."""
        if self.baseline not in self.models:
            return ()
        return tuple(name for name in self.models if name != self.baseline)

    @property
    def baselines(self) -> tuple[str, ...]:
        """The models that others should beat: those in ``settings.BASELINES``, and ``baseline``."""
        return tuple(name for name in self.models if name in BASELINES or name == self.baseline)

    def parts(self) -> Iterator[tuple[str, str]]:
        """Yield the keys (grouping, level): first :data:`ALL`, then one for each group of users."""
        yield ALL
        yield from ((grouping.name, level) for grouping in self.groupings for level in grouping.levels)

    def names(self, part: tuple[str, str]) -> tuple[str, ...]:
        """Return the names of the values that are averaged over a group of users.

        For all users these are ``columns``, for a group only the metrics.

        Args:
            part: the key of the group, as from :meth:`parts`.
        """
        if part == ALL:
            return self.columns
        return self.metrics

    def sums(
        self,
        values: np.ndarray,
        membership: np.ndarray,
        users: np.ndarray,
        *,
        resamples: int,
        seed: int,
    ) -> Sums:
        """Return the sums over m users, for :func:`document`.

        There are sums of three kinds of values: those of the models, their differences from the
        baseline, and the differences of the primary metric between models. There are sums for all
        users and for each group of users. :meth:`sum_columns` has the positions of the columns.

        Args:
            values: float64[m, models × columns], one row per user: the columns of the first model,
                then those of the second model, and so on. NaN = undefined.
            membership: bool[m, levels of all groupings], the groups of each user.
            users: uint64[m], a number that identifies each user (``data.hashing.id_bits``).
            resamples: the number of resamples of the bootstrap.
            seed: the seed of the bootstrap.
        """
        by_model = dict(zip(self.models, np.split(values, len(self.models), axis=1), strict=True))
        tables = []
        for part in (ALL, LEVEL):
            width = len(self.names(part))
            averaged = {name: columns[:, :width] for name, columns in by_model.items()}
            differences = [averaged[name] - averaged[self.baseline] for name in self.compared_models]
            minus_other = [
                averaged[name][:, :1] - averaged[subtracted][:, :1] for subtracted, name in self._pairs(part)
            ]
            tables.append(np.hstack([*averaged.values(), *differences, *minus_other]))
        parts = [(tables[0], users), *((tables[1][group], users[group]) for group in membership.T)]
        return Sums.hstack([bootstrap_sums(table, ids, resamples=resamples, seed=seed) for table, ids in parts])

    def sum_columns(self) -> dict[tuple[str, str, str, str], np.ndarray]:
        """Return the positions of columns in the sums, as a dict: (kind, grouping, level, model) -> int[].

        There are three kinds:

        * "models": the values of the model, one column per name of :meth:`names`;
        * "differences": its values minus those of the baseline, one column per name;
        * "minus NAME": its primary metric minus that of the model NAME, one column. Over all users,
          NAME is each other model. In a group, it is each baseline.
        """
        columns: dict[tuple[str, str, str, str], np.ndarray] = {}
        start = 0
        for part in self.parts():
            width = len(self.names(part))
            for kind, names in (("models", self.models), ("differences", self.compared_models)):
                for name in names:
                    columns[kind, *part, name] = np.arange(start, start + width)
                    start += width
            for subtracted, name in self._pairs(part):
                columns[f"minus {subtracted}", *part, name] = np.arange(start, start + 1)
                start += 1
        return columns

    def _pairs(self, part: tuple[str, str]) -> list[tuple[str, str]]:
        """Return the pairs (model that is subtracted, other model) of a group of users.

        For all users these are every two models. For a group, they are each baseline with every
        other model.
        """
        # Which model is best, and which is next, is known only after the sums.
        subtracted_models = self.baselines
        if part == ALL:
            subtracted_models = self.models
        return [(subtracted, name) for subtracted in subtracted_models for name in self.models if name != subtracted]


@dataclass(frozen=True)
class Facts:
    """The parts of metrics.json that are not computed from sums.

    Attributes:
        engine: the name of the engine, "local" or "spark".
        definitions: metric -> what it computes, in one line.
        counts: model -> counts of users, lists and pairs.
        all_lists: model -> the measures of all its lists together (``beyond.of_all_lists``).
    """

    engine: str
    definitions: dict[str, str]
    counts: dict[str, dict[str, int]]
    all_lists: dict[str, dict[str, Any]] = field(default_factory=dict)


def document(layout: Layout, sums: Sums, facts: Facts) -> dict[str, Any]:
    """Return the content of metrics.json, computed from the sums over all users.

    The result is a dict. ``models`` is model -> metric -> a mean with its interval: a dict of
    ``mean``, ``ci95`` and ``users``. ``differences`` has the same for each model minus the
    baseline, with the results of the test: ``effect_size``, ``detectable``, ``p`` and ``p_holm``.
    ``p_holm`` is corrected for ``about.tests`` comparisons: those of ``differences``, and those of each
    model with each further baseline by the primary metric.
    ``about`` has the names of the primary metric and the baseline, the results for groups, and the
    fields of ``facts``. docs/deciding.md explains the numbers.

    Args:
        layout: the models, metrics and groups.
        sums: the sums over all users: the result of :meth:`Layout.sums`, or several results added.
        facts: what the sums do not have.
    """
    columns = layout.sum_columns()
    cells = _cells(sums)

    def cells_of(kind: str, part: tuple[str, str]) -> dict[str, Any]:
        names = layout.compared_models
        if kind == "models":
            names = layout.models
        return {m: dict(zip(layout.names(part), cells[columns[kind, *part, m]], strict=True)) for m in names}

    tests = _test_differences(layout, columns, cells, sums)
    models = cells_of("models", ALL)
    differences = cells_of("differences", ALL)
    segments: dict[str, Any] = {}
    versus: dict[str, Any] = {}
    for grouping in layout.groupings:
        parts = {level: (grouping.name, level) for level in grouping.levels}
        segments[grouping.name] = {level: cells_of("models", part) for level, part in parts.items()}
        versus[grouping.name] = {level: cells_of("differences", part) for level, part in parts.items()}
    for grouping in layout.item_groupings:
        segments[grouping.name] = _item_group_cells(layout.metrics[0], grouping, models)
        versus[grouping.name] = _item_group_cells(layout.metrics[0], grouping, differences)
    return {
        "models": {name: _select_cells(layout.metrics, row) for name, row in models.items()},
        "differences": {name: _select_cells(layout.metrics, row) for name, row in differences.items()},
        "about": {
            "engine": facts.engine,
            "primary": layout.metrics[0],
            "baseline": layout.baseline if layout.compared_models else None,
            "baseline_differences": _baseline_differences(layout, cells, columns),
            "tests": tests,
            "leads": _leads(layout, cells, columns),
            "definitions": facts.definitions,
            "counts": facts.counts,
            "segments": segments,
            "segment_differences": versus,
            "gaps": _gaps(layout, sums, columns),
            "beyond": {
                name: facts.all_lists.get(name, {}) | _select_cells(layout.catalogue_measures, models[name])
                for name in layout.models
            },
        },
    }


def _baseline_differences(
    layout: Layout, cells: np.ndarray, columns: dict[tuple[str, str, str, str], np.ndarray]
) -> dict[str, Any]:
    """Compare every model with each baseline, by the primary metric of the model minus that of the baseline.

    The result has one entry per baseline: a dict of two keys. ``all`` holds model -> difference over
    all users. ``history`` holds, for each group of users by length of history, model -> difference
    in that group. A difference is a cell of the summary: an estimate with its interval.
    """

    def cells_of(baseline: str, part: tuple[str, str]) -> dict[str, Any]:
        names = [name for name in layout.models if name != baseline]
        return {name: cells[columns[f"minus {baseline}", *part, name][0]] for name in names}

    levels = HISTORY.levels if HISTORY in layout.groupings else ()
    return {
        baseline: {
            "all": cells_of(baseline, ALL),
            HISTORY.name: {level: cells_of(baseline, (HISTORY.name, level)) for level in levels},
        }
        for baseline in layout.baselines
    }


def _leads(layout: Layout, cells: np.ndarray, columns: dict[tuple[str, str, str, str], np.ndarray]) -> dict[str, Any]:
    """Return the lead of each model over the next best model: model -> difference, best model first.

    The difference is that of the primary metric, as a cell with its interval. The worst model has
    no next one and is left out. Models without a mean are left out too.
    """
    primary_columns = {name: columns["models", *ALL, name][0] for name in layout.models}
    means = {name: cells[column]["mean"] for name, column in primary_columns.items()}
    ranked = models_by_quality({name: mean for name, mean in means.items() if not np.isnan(mean)})
    return {name: cells[columns[f"minus {following}", *ALL, name][0]] for name, following in pairwise(ranked)}


def _select_cells(names: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of ``row`` with these names."""
    return {name: row[name] for name in names}


def _item_group_cells(metric: str, grouping: Grouping, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the primary metric in each group of items, as a dict: group -> model -> metric -> cell.

    Args:
        metric: the name of the primary metric.
        rows: model -> column name -> cell.
    """
    return {
        level: {name: {metric: row[group_column(metric, grouping, level)]} for name, row in rows.items()}
        for level in grouping.levels
    }


def _cells(sums: Sums) -> np.ndarray:
    """Return one cell per column of the sums, object[c]: a dict of mean, ci95 and number of users."""
    mean, low, high = sums.intervals()
    rows = zip(mean, low, high, sums.count, strict=True)
    cells = [{"mean": float(x), "ci95": [float(a), float(b)], "users": int(n)} for x, a, b, n in rows]
    # NumPy would make an array of two dimensions from dicts of one shape alone, so a None is added
    # and cut off.
    return np.array([*cells, None], dtype=object)[:-1]


def _test_differences(
    layout: Layout, sum_columns: dict[tuple[str, str, str, str], np.ndarray], cells: np.ndarray, sums: Sums
) -> int:
    """Add the results of a test to the cells of differences from baselines, and return the number of tests.

    The results are the effect size, the difference that this number of users can detect, the p-value
    of the paired t-test, and the p-value adjusted by Holm for all tests together. They are the
    differences from ``layout.baseline`` in every metric, and those of each model from each further
    baseline in the primary metric: the verdict chooses the pair that it speaks of among all of them.

    Args:
        cells: object[c], the cells to which the results are added.
    """
    family = [sum_columns["differences", *ALL, name][: len(layout.metrics)] for name in layout.compared_models]
    family += [
        sum_columns[f"minus {baseline}", *ALL, name]
        for baseline in layout.baselines
        for name in layout.models
        if baseline != layout.baseline and name not in layout.baselines
    ]
    columns = np.concatenate([np.empty(0, dtype=np.int64), *family])
    p = sums.t_test()[columns]
    sd = sums.sd[columns]
    effect = np.divide(sums.mean[columns], sd, out=np.full(len(columns), np.nan), where=sd > 0)
    rows = zip(effect, detectable_effect(sd, sums.count[columns]), p, holm_adjust(p), strict=True)
    for column, row in zip(columns, rows, strict=True):
        cells[column] |= dict(zip(("effect_size", "detectable", "p", "p_holm"), map(float, row), strict=True))
    # The sums hold the primary metric minus that of the baseline twice.
    for name in layout.compared_models:
        cells[sum_columns[f"minus {layout.baseline}", *ALL, name][0]] = cells[sum_columns["differences", *ALL, name][0]]
    return int((~np.isnan(p)).sum())


def _gaps(layout: Layout, sums: Sums, sum_columns: dict[tuple[str, str, str, str], np.ndarray]) -> dict[str, Any]:
    """Return the largest difference between groups, as a dict: grouping -> model -> metric -> gap.

    A gap is the result of :func:`~recsys.evaluation.groups.gap`. For a grouping of items, only the
    primary metric has gaps.
    """
    gaps: dict[str, Any] = {}
    for grouping in layout.groupings:
        gaps[grouping.name] = {}
        for name in layout.models:
            columns = np.stack([sum_columns["models", grouping.name, level, name] for level in grouping.levels])
            by_metric = (gap(sums, columns[:, j], grouping.levels) for j in range(len(layout.metrics)))
            gaps[grouping.name][name] = dict(zip(layout.metrics, by_metric, strict=True))
    for grouping in layout.item_groupings:
        level_columns = [
            layout.columns.index(group_column(layout.metrics[0], grouping, level)) for level in grouping.levels
        ]
        of_model = {name: sum_columns["models", *ALL, name][level_columns] for name in layout.models}
        gaps[grouping.name] = {
            name: {layout.metrics[0]: gap(sums, columns, grouping.levels)} for name, columns in of_model.items()
        }
    return gaps


def summarise(
    evaluations: list[Evaluation],
    judging: EvaluationSettings,
    *,
    seed: int = 0,
    users: pd.DataFrame | None = None,
    catalogue: Catalogue | None = None,
) -> dict[str, Any]:
    """Return the content of metrics.json for evaluations of the same users by the same metrics.

    The result has the form of :func:`document`. Users with an undefined value (NaN) are left out of
    a mean. A difference is averaged over the users for whom the metric of both models is defined.

    Args:
        evaluations: one per model, at least one.
        judging: the settings of the evaluation.
        seed: the seed of the bootstrap.
        users: the users table, or None. Its columns in ``judging.segments`` group the users.
        catalogue: the catalogue with which the evaluations were extended (``beyond.extend``). None:
            they were not extended.
    """
    first = evaluations[0]
    ids = first.per_user[USER]
    names = []
    if users is not None:
        names = [name for name in judging.segments if name in users]
    history = first.per_user.get("n_history", pd.Series(-1, index=ids.index)).to_numpy()
    groups = [
        Groups.from_codes(HISTORY, history_codes(history)),
        *table_groups(names, users, USER, ids),
    ]
    models = tuple(e.name for e in evaluations)
    layout = Layout(
        models,
        tuple(first.metrics),
        judging.baseline_among(models),
        tuple(one.grouping for one in groups),
        () if catalogue is None else tuple(one.grouping for one in catalogue.groups),
        () if catalogue is None else catalogue.measures,
    )
    tables = [e.per_user.set_index(USER)[list(layout.columns)].reindex(ids) for e in evaluations]
    values = pd.concat(tables, axis=1).to_numpy(dtype=np.float64)
    membership = np.hstack([one.membership for one in groups])
    sums = layout.sums(values, membership, id_bits(ids), resamples=judging.resamples, seed=seed)
    facts = Facts(
        "local",
        first.about["definitions"],
        {e.name: e.about["counts"] for e in evaluations},
        {e.name: e.about.get("beyond", {}) for e in evaluations},
    )
    return document(layout, sums, facts)


def summarise_sampled(evaluations: list[Evaluation], judging: EvaluationSettings, *, seed: int) -> dict[str, Any]:
    """Return the content of sampled.json, for evaluations among sampled candidates.

    The result is a dict. ``models`` is model -> metric -> a dict of ``mean``, ``ci95`` (the 95 %
    interval) and ``users`` (the number of users with a defined value). ``metrics`` is the name of
    each metric of the run -> its name among sampled candidates (:func:`.evaluate.mark_sampled`).
    ``definitions`` is metric -> definition. ``sampled`` is the number of candidates per user, and
    ``seed`` the argument.

    Args:
        evaluations: one per model, at least one, with the metrics of ``judging``.
        judging: the settings of the evaluation.
        seed: the seed of the bootstrap.
    """
    names = dict(zip(judging.metrics, evaluations[0].metrics, strict=True))
    models: dict[str, Any] = {}
    for evaluation in evaluations:
        users = id_bits(evaluation.per_user[USER])
        cells = {}
        for name in evaluation.metrics:
            values = evaluation.per_user[name].to_numpy()
            mean, low, high = mean_ci(values, users, resamples=judging.resamples, seed=seed)
            cells[name] = {"mean": mean, "ci95": [low, high], "users": int((~np.isnan(values)).sum())}
        models[evaluation.name] = cells
    return {
        "sampled": judging.sampled,
        "seed": seed,
        "metrics": names,
        "definitions": evaluations[0].about["definitions"],
        "models": models,
    }
