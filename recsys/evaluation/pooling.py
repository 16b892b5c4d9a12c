"""Pool the folds of a rolling backtest: one value per user, model and metric, and what it shows.

The unit is the user. A user who is tested in several folds counts once, with the mean of the values
of these folds. The values of one user are not independent: a user who is easy to predict in one
window of time is often easy to predict in the next. If each of these values counted as a unit of
its own, intervals would be too narrow. With one number per user, the intervals and tests of a run
apply without change. Source: Matthews,
Altman, Campbell and Royston, Analysis of serial measurements in medical research, BMJ 1990 (the mean
as the summary measure of a subject).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.data.hashing import id_bits
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.summary import Facts, Layout, document
from recsys.evaluation.testing.significance import Sums
from recsys.schema import USER
from recsys.types import IdMap

MODEL = "model"
"""The column of the values per user that has the name of the model."""


def pool_folds(tables: list[pd.DataFrame], metrics: tuple[str, ...]) -> pd.DataFrame:
    """Return the mean of each user's values over the folds: model, user_id and the metrics.

    There is one row per model and user, in ascending order of both. An undefined value (NaN) is
    left out of its mean. The mean is NaN if the value is undefined in all folds.

    Args:
        tables: one table per fold, with the columns model, user_id and the metrics, and one row per
            model and user. A user who is not tested in a fold is not in its table.
        metrics: the names of the metrics.
    """
    columns = [MODEL, USER, *metrics]
    every_fold = pd.concat([table[columns] for table in tables], ignore_index=True)
    return every_fold.groupby([MODEL, USER], as_index=False, observed=True)[list(metrics)].mean()


def pooled_layout(models: list[str], judging: EvaluationSettings) -> Layout:
    """Return the Layout of the pooled values, for :func:`sum_users` and :func:`describe_pooled`.

    It has the models and metrics of a run, and no groups of users or items.

    Args:
        models: the names of the models.
        judging: the settings of the evaluation, with the metrics and the baseline.
    """
    return Layout(tuple(models), judging.metrics, judging.baseline, groupings=())


def sum_users(pooled: pd.DataFrame, layout: Layout, *, resamples: int, seed: int) -> Sums:
    """Return the sums over users of the pooled values, for :func:`describe_pooled`.

    Args:
        pooled: the result of :func:`pool_folds`, with all models of the layout.
        layout: the result of :func:`pooled_layout`.
        resamples: the number of resamples of the bootstrap.
        seed: the seed of the bootstrap.
    """
    ids = IdMap.from_ids(pooled[USER]).all_ids
    by_model = {name: table.set_index(USER) for name, table in pooled.groupby(MODEL, observed=True)}
    tables = [by_model[name][list(layout.metrics)].reindex(ids) for name in layout.models]
    values = pd.concat(tables, axis=1).to_numpy(dtype=np.float64)
    without_groups = np.empty((len(ids), 0), dtype=bool)
    return layout.sums(values, without_groups, id_bits(ids), resamples=resamples, seed=seed)


def describe_pooled(layout: Layout, sums: Sums, engine: str, folds: int) -> dict[str, Any]:
    """Return the entry ``backtest`` of metrics.json, a dict.

    ``folds`` is the number of folds. ``models`` and ``differences`` have the form of these entries
    of metrics.json (:func:`.summary.document`), computed from the pooled values. So has ``about``,
    with only ``primary``, ``baseline``, ``baseline_differences``, ``tests`` and ``leads``.

    Args:
        layout: the result of :func:`pooled_layout`.
        sums: the result of :func:`sum_users`.
        engine: "local" or "spark".
        folds: the number of folds.
    """
    pooled = document(layout, sums, Facts(engine, {}, {}))
    kept_keys = ("primary", "baseline", "baseline_differences", "tests", "leads")
    about = {key: pooled["about"][key] for key in kept_keys}
    return {"folds": folds, "models": pooled["models"], "differences": pooled["differences"], "about": about}
