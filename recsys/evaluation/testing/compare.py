"""Compare models that were judged on the same users: differences with intervals, effect sizes and
tests."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from string import ascii_lowercase

import numpy as np
import pandas as pd

from recsys import run_files
from recsys.data.hashing import id_bits
from recsys.errors import InputError, suggest_nearest
from recsys.evaluation.settings import RATING_METRICS
from recsys.evaluation.testing.significance import (
    Method,
    bootstrap_sums,
    detectable_effect,
    holm_adjust,
    sign_flip_test,
)
from recsys.runfolder import RunFolder
from recsys.schema import USER
from recsys.types import Evaluation

FLIPS_PER_TEST = 100
"""The number of random sign assignments of the randomisation test, for each test of a comparison.

A comparison of T tests uses at least 100 T assignments. So the smallest possible p-value is below
1/100 after Holm's procedure, however large T is. With very few users, where all assignments are
tried, it is larger.
"""


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    ``means`` has one row per model and one column per metric: the mean over the users for whom the
    metric is defined. ``alpha`` is the significance level: a difference counts if its ``p_holm`` is at
    most ``alpha``. ``differences`` has one row per pair of models and metric, with these columns:

    * ``model``, ``against``, ``metric``, the names of the two models and of the metric;
    * ``difference``, the mean of model − against, and ``low``, ``high``, its 95 % bootstrap interval;
    * ``effect_size``, the difference divided by its standard deviation over users; NaN if all users
      have the same difference or if there are fewer than two;
    * ``p``, the p-value of the randomisation test, and ``p_holm``, p adjusted by Holm's procedure for
      all pairs and metrics;
    * ``users``, the number of users for whom the metric of both models is defined;
    * ``detectable``, the true difference that a two-sided test of this number of users at the level
      .05, before Holm's procedure, detects with 80 % power;
    * ``folds``, a list with the mean difference of each fold of a backtest, NaN for a fold without
      one. In all other columns a user counts once, with the mean over folds.
    """

    means: pd.DataFrame
    differences: pd.DataFrame
    alpha: float

    def table(self) -> pd.DataFrame:
        """Return a table of text, with one row per model and one column per metric.

        A row starts with the letter of its model. Each mean is followed by the letters of the
        models that the model beats. It beats a model if ``difference`` shows a higher value for it
        (a lower one for an error of predicted ratings) and ``p_holm`` is at most ``alpha``.
        """
        letters = dict(zip(self.means.index, _letters(len(self.means)), strict=True))
        beaten: dict[tuple[str, str], list[str]] = {}
        for row in self.differences.itertuples():
            if row.p_holm <= self.alpha and row.difference:
                winner, loser = row.model, row.against
                if (row.difference < 0) != (row.metric in RATING_METRICS):
                    winner, loser = loser, winner
                beaten.setdefault((winner, row.metric), []).append(letters[loser])
        cells: dict[str, list[str]] = {metric: [] for metric in self.means}
        for metric in self.means:
            for name, mean in self.means[metric].items():
                beaten_letters = "".join(sorted(beaten.get((name, metric), [])))
                cells[metric].append(f"{mean:.4f} {beaten_letters}".rstrip())
        return pd.DataFrame(cells, index=pd.Index([f"{letters[name]} {name}" for name in self.means.index]))

    def __str__(self) -> str:
        differences = self.differences.drop(columns="folds", errors="ignore")
        return f"{self.table().to_string()}\n\n{differences.to_string(index=False)}"


def compare(
    evaluations: list[Evaluation],
    *,
    baseline: str | None = None,
    resamples: int = 4999,
    seed: int = 0,
    alpha: float = 0.05,
    method: Method = "percentile",
) -> Comparison:
    """Compare models that were judged on the same users by the same metrics.

    Evaluations with the same name are the folds of one model, in order. Fold f of a model is
    compared with fold f of the other model. A user who is tested in several folds counts once, with
    the mean of the user's differences, because the folds of one user are not independent.

    Args:
        evaluations: one per model, or one per model and fold.
        baseline: the model with which all others are compared. None: every two models are compared.
        resamples: the number of resamples of the bootstrap. The randomisation test
            (:func:`.significance.sign_flip_test`) uses this number too, or :data:`FLIPS_PER_TEST`
            times the number of tests if that is larger. There is one test per pair and metric.
        seed: the seed of the bootstrap and of the randomisation test.
        alpha: the significance level of :meth:`Comparison.table`.
        method: the method of the interval. For differences of ranking metrics, ``bca`` misses the
            true difference more often than ``percentile`` (bench/RESULTS.md). With fewer than about
            a hundred users both intervals are too narrow; then rely on p.

    Raises:
        InputError: there are fewer than two models; the metrics, the users or the numbers of folds
            differ; a user is twice in an evaluation; or ``baseline`` is not one of the models.
    """
    folds = _group_folds(evaluations)
    names = list(folds)
    metrics = evaluations[0].metrics
    if baseline is not None and baseline not in folds:
        raise InputError(
            f"baseline '{baseline}' is not one of the models compared.{suggest_nearest(baseline, names)}",
        )
    users, values = _values_by_model(folds, metrics)
    if baseline:
        pairs = [(name, baseline) for name in names if name != baseline]
    else:
        pairs = [(model, against) for against, model in combinations(names, 2)]
    # Folds are averaged per user before any test, so that the unit is the user.
    fold_differences = [values[model] - values[against] for model, against in pairs]
    differences = np.concatenate([_defined_mean(array, axis=0) for array in fold_differences], axis=1)
    user_bits = id_bits(users)
    sums = bootstrap_sums(differences, user_bits, resamples=resamples, seed=seed)
    mean, low, high = sums.intervals(method=method)
    flips = max(resamples, FLIPS_PER_TEST * differences.shape[1])
    p = sign_flip_test(differences, user_bits, resamples=flips, seed=seed)
    labels = [(model, against, metric) for model, against in pairs for metric in metrics]
    table = pd.DataFrame(labels, columns=["model", "against", "metric"]).assign(
        difference=mean,
        low=low,
        high=high,
        effect_size=np.divide(mean, sums.sd, out=np.full(len(mean), np.nan), where=sums.sd > 0),
        p=p,
        p_holm=holm_adjust(p),
        users=sums.count.astype(np.int64),
        detectable=detectable_effect(sums.sd, sums.count),
        folds=[
            list(_defined_mean(array[:, :, column], axis=1))
            for array in fold_differences
            for column in range(len(metrics))
        ],
    )
    means = {name: _defined_mean(_defined_mean(values[name], axis=0), axis=0) for name in names}
    return Comparison(pd.DataFrame(means, index=metrics).T, table, alpha)


def read_run(folder: RunFolder, table_name: str = run_files.PER_USER) -> dict[str, Evaluation]:
    """Return the evaluation of each model of a complete run folder, as a dict: model -> Evaluation.

    The models are in the order of metrics.json. ``about`` of each Evaluation has ``definitions``
    only.

    Args:
        folder: the run folder.
        table_name: the file with the values per user, that of the run or that of its backtest.

    Raises:
        RunFolderError: a file of the run is missing or damaged.
    """
    about = folder.read_json(run_files.METRICS)
    definitions = about["about"]["definitions"]
    table = folder.read_table(table_name)
    return {
        name: Evaluation(
            name,
            table[table["model"] == name].drop(columns="model").reset_index(drop=True),
            {"definitions": definitions},
        )
        for name in about["models"]
    }


def _group_folds(evaluations: list[Evaluation]) -> dict[str, list[Evaluation]]:
    """Return the evaluations of the folds of each model, as a dict: model -> list of Evaluations.

    Raises:
        InputError: there are fewer than two models, or the models differ in their numbers of folds,
            their metrics or their users.
    """
    folds: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        folds.setdefault(evaluation.name, []).append(evaluation)
    if len(folds) < 2:
        raise InputError(
            f"a comparison needs two models; it was given {', '.join(folds) or 'none'}.",
        )
    first_name, first = next(iter(folds.items()))
    for name, evaluations_of_name in folds.items():
        if len(evaluations_of_name) != len(first):
            raise InputError(
                f"{first_name} has {len(first)} folds, {name} has {len(evaluations_of_name)}: compare the same folds.",
            )
        for fold, (first_fold, second_fold) in enumerate(
            zip(first, evaluations_of_name, strict=True),
        ):
            label = f"{first_name} and {name}"
            if len(first) > 1:
                label += f", fold {fold}"
            _check_comparable(first_fold, second_fold, label)
    return folds


def _check_comparable(first: Evaluation, second: Evaluation, label: str) -> None:
    """Raise InputError if two evaluations differ in their metrics or users, or have a user twice."""
    if first.metrics != second.metrics:
        raise InputError(
            f"{label}: metrics differ: {first.metrics} and {second.metrics}. Judge both by the same metrics.",
        )
    first_users = pd.Index(first.per_user[USER])
    second_users = pd.Index(second.per_user[USER])
    if unshared := len(first_users.symmetric_difference(second_users)):
        raise InputError(f"{label}: {unshared:,} users were judged for one of them only. Judge both on the same users.")
    if not first_users.is_unique or not second_users.is_unique:
        raise InputError(
            f"{label}: a user occurs twice. Judge both on the same users, each user once.",
        )


def _values_by_model(
    folds: dict[str, list[Evaluation]],
    metrics: list[str],
) -> tuple[pd.Index, dict[str, np.ndarray]]:
    """Return the ids of all users, and the values of each model: model -> float64[folds, users, metrics].

    A value is NaN if the metric is undefined for the user, or if the user is not tested in the fold.
    """
    first = next(iter(folds.values()))
    users = pd.Index(pd.concat([evaluation.per_user[USER] for evaluation in first]).unique())
    values = {}
    for name, evaluations in folds.items():
        frames = [evaluation.per_user.set_index(USER)[metrics].reindex(users) for evaluation in evaluations]
        values[name] = np.stack([frame.to_numpy(dtype=np.float64) for frame in frames])
    return users, values


def _defined_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean along an axis of the values that are not NaN; NaN if there are none."""
    count = (~np.isnan(values)).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _letters(n: int) -> list[str]:
    """Return n distinct labels: a, …, z, then a1, …, z1, then a2, and so on."""
    labels = []
    for i in range(n):
        letter = ascii_lowercase[i % 26]
        labels.append(letter + str(i // 26) if i >= 26 else letter)
    return labels
