"""Several models on the same users: every difference with its interval, its size, its test, and one table to read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from string import ascii_lowercase

import numpy as np
import pandas as pd

from recsys import run_files
from recsys.data.hashing import id_bits
from recsys.errors import InputError, suggest_nearest
from recsys.evaluation.testing.significance import Method, bootstrap_sums, detectable, holm, sign_flip_test
from recsys.runfolder import RunFolder
from recsys.schema import USER
from recsys.types import Evaluation


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    ``means``: model × metric, each over the users for whom the model is defined. ``differences``: a row a pair and
    metric: ``model``, ``against``, ``metric``, ``difference``, ``low``, ``high`` (95 % bootstrap), ``effect_size``
    (difference over its standard deviation between users), ``p`` (randomisation), ``p_holm``, ``users`` (for whom both
    are defined), ``detectable`` (the true difference seen four times in five), ``folds`` (the difference in each).
    """

    means: pd.DataFrame
    differences: pd.DataFrame
    alpha: float

    def table(self) -> pd.DataFrame:
        """Return text: a row a model, opened by its letter; each mean is followed by the letters of those it beats.

        "Beats": its mean is the higher one of the two and Holm's p is at most ``alpha``.
        """
        letters = dict(zip(self.means.index, _letters(len(self.means)), strict=True))
        won: dict[tuple[str, str], list[str]] = {}
        for row in self.differences.itertuples():
            if row.p_holm <= self.alpha and row.difference:
                better, worse = (row.model, row.against) if row.difference > 0 else (row.against, row.model)
                won.setdefault((better, row.metric), []).append(letters[worse])
        shown = {
            metric: [
                " ".join([f"{mean:.4f}", *filter(None, ["".join(sorted(won.get((name, metric), [])))])])
                for name, mean in self.means[metric].items()
            ]
            for metric in self.means
        }
        return pd.DataFrame(shown, index=pd.Index([f"{letters[name]} {name}" for name in self.means.index]))

    def __str__(self) -> str:
        return f"{self.table().to_string()}\n\n{self.differences.drop(columns='folds').to_string(index=False)}"


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

    Evaluations of one name are the folds of one model, in order; fold f of a model meets fold f of the other. A user
    who is tested in several folds counts once, with the mean of his differences: his folds are not independent.

    Args:
        baseline: compare the others with this one; None: every pair.
        resamples: of the bootstrap and of the randomisation test; p cannot be below 1 / (resamples + 1).
        alpha: what ``p_holm`` is held against in :meth:`Comparison.table`; Holm's family is all pairs × metrics.
        method: of the interval. ``bca`` errs more often than ``percentile`` on the differences of ranking metrics
            (bench/RESULTS.md); both are too narrow below a hundred users, where p is to be trusted rather.

    Raises:
        InputError: fewer than two models, other metrics, users or numbers of folds in one of them, an unknown baseline.
    """
    folds = _folds(evaluations)
    names, metrics = list(folds), evaluations[0].metrics
    if baseline is not None and baseline not in folds:
        raise InputError(f"baseline '{baseline}' is none of the models compared.{suggest_nearest(baseline, names)}")
    users, values = _values(folds, metrics)
    pairs = [(n, baseline) for n in names if n != baseline] if baseline else [(b, a) for a, b in combinations(names, 2)]
    by_fold = [values[model] - values[against] for model, against in pairs]
    differences = np.concatenate([_mean(d, axis=0) for d in by_fold], axis=1)
    bits = id_bits(users)
    sums = bootstrap_sums(differences, bits, resamples=resamples, seed=seed)
    mean, low, high = sums.intervals(method=method)
    p = sign_flip_test(differences, bits, resamples=resamples, seed=seed)
    table = pd.DataFrame(
        [(model, against, metric) for model, against in pairs for metric in metrics],
        columns=["model", "against", "metric"],
    ).assign(
        difference=mean,
        low=low,
        high=high,
        effect_size=np.divide(mean, sums.sd, out=np.full(len(mean), np.nan), where=sums.sd > 0),
        p=p,
        p_holm=holm(p),
        users=sums.count.astype(np.int64),
        detectable=detectable(sums.sd, sums.count),
        folds=[list(_mean(d[:, :, j], axis=1)) for d in by_fold for j in range(len(metrics))],
    )
    means = pd.DataFrame({name: _mean(_mean(values[name], axis=0), axis=0) for name in names}, index=metrics).T
    return Comparison(means, table, alpha)


def read_run(folder: RunFolder) -> dict[str, Evaluation]:
    """Return model -> evaluation of a whole run folder of either engine, in the order of its metrics.json."""
    about = folder.read_json(run_files.METRICS)
    definitions = about["about"]["definitions"]
    table = folder.read_table(run_files.PER_USER)
    return {
        name: Evaluation(
            name,
            table[table["model"] == name].drop(columns="model").reset_index(drop=True),
            {"definitions": definitions},
        )
        for name in about["models"]
    }


def _folds(evaluations: list[Evaluation]) -> dict[str, list[Evaluation]]:
    """Return name -> evaluations, after checking that they can be compared."""
    folds: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        folds.setdefault(evaluation.name, []).append(evaluation)
    if len(folds) < 2:
        raise InputError(f"a comparison needs two models; there is {', '.join(folds) or 'none'}.")
    first_name, first = next(iter(folds.items()))
    for name, found in folds.items():
        if len(found) != len(first):
            raise InputError(f"{first_name} has {len(first)} folds, {name} has {len(found)}: compare the same folds.")
        for fold, (ours, theirs) in enumerate(zip(first, found, strict=True)):
            where = f"{first_name} and {name}" + (f", fold {fold}" if len(first) > 1 else "")
            if ours.metrics != theirs.metrics:
                raise InputError(f"{where}: metrics differ: {ours.metrics} and {theirs.metrics}. Judge both alike.")
            a, b = pd.Index(ours.per_user[USER]), pd.Index(theirs.per_user[USER])
            if (odd := len(a.symmetric_difference(b))) or not a.is_unique:
                what = f"{odd:,} users were judged for one of them only" if odd else "a user stands there twice"
                raise InputError(f"{where}: {what}. Judge both on the same users.")
    return folds


def _values(folds: dict[str, list[Evaluation]], metrics: list[str]) -> tuple[pd.Index, dict[str, np.ndarray]]:
    """Return all users, and name -> float64[folds, users, metrics], NaN where undefined or not in that fold."""
    found = next(iter(folds.values()))
    users = pd.Index(pd.concat([e.per_user[USER] for e in found]).unique())
    return users, {
        name: np.stack([e.per_user.set_index(USER)[metrics].reindex(users).to_numpy(dtype=np.float64) for e in own])
        for name, own in folds.items()
    }


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean of the defined values along an axis, NaN where there is none."""
    defined = (~np.isnan(values)).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.divide(total, defined, out=np.full(total.shape, np.nan), where=defined > 0)


def _letters(n: int) -> list[str]:
    """Return n distinct labels: a … z, then a1 … z1, and so on."""
    return [ascii_lowercase[i % 26] + (str(i // 26) if i >= 26 else "") for i in range(n)]
