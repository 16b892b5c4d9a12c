"""Test whether more data, more capacity or more regularisation would help a model, on one fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from recsys import models
from recsys.config import Config
from recsys.data.hashing import id_bits, id_hash
from recsys.evaluation.testing.significance import mean_ci
from recsys.local_engine import configured_model
from recsys.models.combining.trial import subset
from recsys.tune.folds import Fold, fit_and_judge, fold_truth, judge_fitted, make_folds
from recsys.tune.study import Tuned, model_kind, read_train_part
from recsys.types import Split

Steps = Callable[[str, int, int], None]
"""A function that is called after each step of a task: (name of task, steps done, all steps)."""
SHARES = (0.125, 0.25, 0.5, 1.0)
"""The shares of the training users for which the model is trained."""
CAPACITY_PARAMETERS = ("rank", "neighbours")
"""Parameters that increase the capacity of a model. The test doubles them."""
REGULARISATION_PARAMETERS = ("reg", "shrink")
"""Parameters that increase the regularisation. The test triples them and divides them by three."""
SHARE_SEED = 5
"""The seed of the hash that selects the users of a share. A larger share has all users of a smaller
one."""


@dataclass(frozen=True)
class LearningReport:
    """The result of :func:`learning_curve`.

    Attributes:
        curve: one dict per share of the training users: ``share``; ``users``, their number;
            ``value``, the mean of the metric over the tested users; ``ci95``, its 95 % interval.
        changes: one dict per change of a parameter: ``change``, a text such as "rank 128 instead of
            64"; ``difference``, the mean of the metric minus that with the best settings; ``ci95``,
            its 95 % interval.
        train_value: the mean of the metric if the train pairs are also the test pairs.
        value: the mean of the metric on the test pairs, with all training users.
        findings: sentences that say whether more data or a change helps.
    """

    curve: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    train_value: float
    value: float
    findings: list[str]


def learning_curve(tuned: Tuned, *, progress: Steps | None = None) -> LearningReport:
    """Measure how the metric changes with the amount of data and with changed parameters.

    The model has the best settings of a search. It is trained and tested on the last fold of this
    search. The amount of data is the share of the *users* whose train pairs are used; a hash
    selects them. The tested users and their histories are the same for all shares. A change of
    parameters doubles the capacity (:data:`CAPACITY_PARAMETERS`), or triples the regularisation
    (:data:`REGULARISATION_PARAMETERS`) or divides it by three. Parameters that the model does not
    have, or that are 0, are not changed.

    Args:
        tuned: the result of the search.
        progress: called after each model that is trained with ("learning curve", number of models
            done, number of all models).

    Raises:
        RunFolderError: there is no complete run at ``tuned.config.out``.
        InputError: a fold has no train pairs or no relevant test pairs.
        ConfigError: the rule of the folds does not suit the items that the lists rank.
    """
    config = tuned.config
    name = tuned.model
    train, items = read_train_part(config, model_kind(config, name))
    fold = make_folds(train, config, tuned.metric, items)[-1]
    variants = _parameter_changes(config, name)
    runs: dict[Any, tuple[Config, Fold]] = {share: (config, _with_user_share(fold, share)) for share in SHARES}
    runs |= {change: (changed_config, fold) for change, changed_config in variants.items()}
    values: dict[Any, pd.Series] = {}
    for key, (run_config, run_fold) in runs.items():
        values[key] = fit_and_judge(configured_model(name, run_config), run_fold, run_config.recommend)
        if progress:
            progress("learning curve", len(values), len(runs))
    curve = []
    for share in SHARES:
        users = int(_users_in_share(fold.split, share).sum())
        curve.append(
            {"share": share, "users": users} | _mean_with_interval(values[share], config.seed),
        )
    changes = [
        {"change": change} | _difference_with_interval(values[change] - values[1.0], config.seed) for change in variants
    ]
    gain_of_data = _difference_with_interval(values[1.0] - values[0.5], config.seed)
    return LearningReport(
        curve,
        changes,
        _value_on_train(config, name, fold, tuned.metric),
        curve[-1]["value"],
        _findings(gain_of_data, changes),
    )


def _parameter_changes(config: Config, name: str) -> dict[str, Config]:
    """Return the description of each change of a parameter -> the config with this change."""
    parameters = dict(config.models[name])
    model = models.build(str(parameters.pop("model", name)), parameters)
    factors = [(key, 2.0) for key in CAPACITY_PARAMETERS]
    factors += [(key, factor) for key in REGULARISATION_PARAMETERS for factor in (3.0, 1 / 3)]
    changes = {}
    for key, factor in factors:
        current = getattr(model, key, None)
        # Parameters that the model does not have, or that are 0, cannot be multiplied.
        if not current:
            continue
        new = current * factor
        if not isinstance(current, float):
            new = max(1, round(new))
        model_settings = config.models | {name: config.models[name] | {key: new}}
        description = f"{key} {new:.4g} instead of {current:.4g}"
        changes[description] = config.model_copy(update={"models": model_settings})
    return changes


def _users_in_share(split: Split, share: float) -> np.ndarray:
    """Return bool[users], true for the users of train whose hash is below ``share``."""
    return id_hash(split.train.users.ids, SHARE_SEED) < share


def _with_user_share(fold: Fold, share: float) -> Fold:
    """Return the fold with only a share of its training users. Histories and truth do not change.

    Args:
        share: the share of the users, in (0, 1].
    """
    train = fold.split.train
    is_kept = _users_in_share(fold.split, share)[train.user]
    return replace(fold, split=replace(fold.split, train=subset(train, is_kept)))


def _value_on_train(config: Config, name: str, fold: Fold, metric: str) -> float:
    """Return the mean of the metric on the same pairs on which the model is trained.

    For this the lists do not leave out seen items, and rank the items of train also in a run that
    ranks new items alone.
    """
    model = configured_model(name, config).fit(fold.split.train, fold.item_features)
    recommend = config.recommend.model_copy(update={"exclude_seen": False})
    judge = config.judge
    if config.candidates == "cold":
        judge = judge.model_copy(update={"candidates": "train"})
    config = config.model_copy(update={"recommend": recommend, "judge": judge})
    truth = fold_truth(replace(fold.split, test=fold.split.train), config, metric)
    return float(np.nanmean(judge_fitted(model, truth, config.recommend)))


def _mean_with_interval(values: pd.Series, seed: int) -> dict[str, Any]:
    """Return the mean over users of a value, and its 95 % interval."""
    mean, low, high = mean_ci(values.to_numpy(), id_bits(values.index), seed=seed)
    return {"value": mean, "ci95": [low, high]}


def _difference_with_interval(differences: pd.Series, seed: int) -> dict[str, Any]:
    mean = _mean_with_interval(differences, seed)
    return {"difference": mean["value"], "ci95": mean["ci95"]}


def _effect(row: dict[str, Any]) -> str:
    """Return "helps", "hurts" or "shows no difference", depending on the interval of a difference.

    Args:
        row: its entry ``ci95`` has both ends of the interval.
    """
    low, high = row["ci95"]
    if low > 0:
        return "helps"
    if high < 0:
        return "hurts"
    return "shows no difference"


DATA_FINDINGS = {
    "helps": "More data would help: the second half of the training users adds",
    "hurts": "More data of this kind would not help: the second half of the training users costs",
    "shows no difference": "It is not shown whether more data would help: the second half of the training users adds",
}
"""Effect of the second half of the training users -> the beginning of the sentence about it."""


def _findings(gain_of_data: dict[str, Any], changes: list[dict[str, Any]]) -> list[str]:
    """Return the findings as sentences: one on more data, one per change, and a last one if nothing
    helps."""

    def size(row: dict[str, Any]) -> str:
        low, high = row["ci95"]
        return f"{row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"

    findings = [f"{DATA_FINDINGS[_effect(gain_of_data)]} {size(gain_of_data)}."]
    for row in changes:
        change = row["change"]
        findings.append(f"{change[0].upper()}{change[1:]} {_effect(row)}: {size(row)}.")
    if all(_effect(row) != "helps" for row in (gain_of_data, *changes)):
        findings.append("None of these shows a gain: the settings fit the available data.")
    return findings
