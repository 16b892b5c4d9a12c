"""Would more data, more capacity or more regularisation help? Each is tried, on one fold, and compared user by user."""

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
from recsys.experiment import configured
from recsys.models.combining.trial import subset
from recsys.tune.folds import Fold, fold_truth, folds, judged, per_user
from recsys.tune.study import Tuned, train_part
from recsys.types import Split

Steps = Callable[[str, int, int], None]
SHARES = (0.125, 0.25, 0.5, 1.0)
CAPACITY, REGULARISATION = ("rank", "neighbours"), ("reg", "shrink")
"""Parameters that mean more of either when they grow."""


@dataclass(frozen=True)
class Learning:
    """What :func:`learn` found.

    ``curve``: a row a share of the training users: ``share``, ``users``, ``value``, ``ci95``. ``changes``: a row a
    change tried: ``change``, ``difference``, ``ci95`` against the settings as they are. ``train_value``: the metric on
    what the model was trained on, ``value`` on what it was not. ``says``: what follows, in a sentence each.
    """

    curve: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    train_value: float
    value: float
    says: list[str]


def learn(tuned: Tuned, *, progress: Steps | None = None) -> Learning:
    """Measure the learning curve and the changes for the best settings, on the last fold.

    Shares of the data are shares of the *users* trained on, by hash; the tested users and their histories stay.
    A change is twice the capacity (rank, neighbours), or three times or a third of the regularisation.
    """
    config, name = tuned.config, tuned.model
    kind = str(config.models[name].get("model", name))
    train, items = train_part(config, kind)
    fold = folds(train, config, tuned.metric, items)[-1]
    variants = _variants(config, name)
    tried: dict[Any, tuple[Config, Fold]] = {share: (config, _share(fold, share)) for share in SHARES}
    tried |= {change: (changed, fold) for change, changed in variants.items()}
    values: dict[Any, pd.Series] = {}
    for key, (settings, part) in tried.items():
        values[key] = per_user(configured(name, settings), part, settings.recommend)
        if progress:
            progress("learning curve", len(values), len(tried))
    curve = [
        {"share": share, "users": int((_kept(fold.split, share)).sum())} | _mean(values[share], config.seed)
        for share in SHARES
    ]
    changes = [{"change": key} | _difference(values[key] - values[1.0], config.seed) for key in variants]
    data = _difference(values[1.0] - values[0.5], config.seed)
    return Learning(
        curve, changes, _on_train(config, name, fold, tuned.metric), curve[-1]["value"], _says(data, changes)
    )


def _variants(config: Config, name: str) -> dict[str, Config]:
    """Return what was changed -> the config with it."""
    settings = dict(config.models[name])
    model = models.build(str(settings.pop("model", name)), settings)
    found = {}
    for key, factor in [(key, 2) for key in CAPACITY] + [(key, by) for key in REGULARISATION for by in (3, 1 / 3)]:
        now = getattr(model, key, None)
        if now:
            then = now * factor if isinstance(now, float) else max(1, round(now * factor))
            config_then = config.model_copy(
                update={"models": config.models | {name: config.models[name] | {key: then}}}
            )
            found[f"{key} {then:.4g} instead of {now:.4g}"] = config_then
    return found


def _kept(split: Split, share: float) -> np.ndarray:
    return id_hash(split.train.users.ids, 5) < share


def _share(fold: Fold, share: float) -> Fold:
    """Return the fold with a share of its training users; histories and truth stay as they are."""
    split = fold.split
    return replace(fold, split=replace(split, train=subset(split.train, _kept(split, share)[split.train.user])))


def _on_train(config: Config, name: str, fold: Fold, metric: str) -> float:
    """Return the metric on the pairs trained on, nothing masked."""
    split = fold.split
    model = configured(name, config).fit(split.train, fold.features)
    unmasked = config.model_copy(update={"recommend": config.recommend.model_copy(update={"exclude_seen": False})})
    truth = fold_truth(replace(split, test=split.train), unmasked, metric)
    return float(np.nanmean(judged(model, truth, unmasked.recommend)))


def _mean(values: pd.Series, seed: int) -> dict[str, Any]:
    mean, low, high = mean_ci(values.to_numpy(), id_bits(values.index), seed=seed)
    return {"value": mean, "ci95": [low, high]}


def _difference(values: pd.Series, seed: int) -> dict[str, Any]:
    found = _mean(values, seed)
    return {"difference": found["value"], "ci95": found["ci95"]}


def _says(data: dict[str, Any], changes: list[dict[str, Any]]) -> list[str]:
    """Return the findings: a change helps when its interval is above 0, hurts when it is below."""

    def size(row: dict[str, Any]) -> str:
        return f"{row['difference']:+.4f} [{row['ci95'][0]:+.4f}, {row['ci95'][1]:+.4f}]"

    def effect(row: dict[str, Any]) -> str:
        return "helps" if row["ci95"][0] > 0 else "hurts" if row["ci95"][1] < 0 else "shows no difference"

    more = {
        "helps": "More data would help: the second half of the training users adds",
        "hurts": "More data of this kind would not help: the second half of the training users costs",
        "shows no difference": "Whether more data would help is not shown: the second half of the training users adds",
    }
    found = [f"{more[effect(data)]} {size(data)}."]
    found += [f"{row['change'][0].upper()}{row['change'][1:]} {effect(row)}: {size(row)}." for row in changes]
    if not any(effect(row) == "helps" for row in (data, *changes)):
        found.append("None of these shows a gain: the settings fit the data there is.")
    return found
