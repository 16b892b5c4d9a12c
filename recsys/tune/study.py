"""The search itself: an Optuna study in a file, which one process or several work on, now or after a kill.

A setting is drawn from (seed, how many were drawn before it) and from the results so far, not from the state of a
process. So a study that was killed and resumed tries, one process at a time, what it would have tried undisturbed.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from recsys import run_files
from recsys.config import Config
from recsys.errors import ConfigError, suggest_nearest
from recsys.evaluation.judging.metrics import parse
from recsys.experiment import configured
from recsys.runfolder import RunFolder
from recsys.tune.folds import Fold, folds, per_user
from recsys.tune.space import Space, grid_of, space_of

Steps = Callable[[str, int, int], None]
Judge = Callable[[Config], float]
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
PRUNERS: dict[str, optuna.pruners.BasePruner] = {
    "median": optuna.pruners.MedianPruner(n_startup_trials=5),
    "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    "none": optuna.pruners.NopPruner(),
}

ON_SPARK: dict[str, Any] = {
    "rank": [16, 32, 64, 128],
    "iterations": [5, 10, 20],
    "alpha": {"low": 1.0, "high": 100.0},
    "reg": {"low": 0.001, "high": 1.0},
}
"""What is searched on Spark where no space is given: what MLlib's ALS has."""


@dataclass(frozen=True)
class Tuned:
    """What :func:`tune` found.

    ``trials``: a row a setting, in order: ``number``, ``state``, ``value``, ``params``, ``folds``. ``config``: that of
    the run with the best settings. ``value``, ``before``: the mean over folds of the best and of the config's own
    settings, which are always tried first.
    """

    model: str
    metric: str
    config: Config
    trials: list[dict[str, Any]]
    best: dict[str, Any]
    value: float
    before: float


def tune(config: Config, storage: Path, *, progress: Steps | None = None) -> Tuned:
    """Search the settings of ``config.tune.model``, judged on folds of the train part of the run at ``config.out``.

    Of the run only ``split/train.parquet`` is read, and ``split/items.parquet`` for models that use features: what is
    tested is out of reach. Trials go to ``storage`` (an Optuna journal); call again, or in several processes, to go on.

    With ``engine = "spark"`` the folds and the models are of the Spark path, ``tune.parallel`` settings at a time.

    Raises:
        ConfigError: no such model or parameter, a study of other settings in ``storage``.
        RunFolderError: no whole run at ``config.out``.
    """
    name, wanted = _chosen(config), config.tune
    kind = str(config.models[name].get("model", name))
    metric = str(parse(wanted.metric or config.judge.metrics[0]))
    space = space_of(kind, wanted.space or (ON_SPARK if config.engine == "spark" else {}))
    grid = grid_of(space) if wanted.sampler == "grid" else []
    about: dict[str, Any] = {"engine": config.engine, "model": name, "kind": kind, "metric": metric}
    about["tune"] = wanted.model_dump(mode="json", exclude={"trials", "parallel"})
    total = min(wanted.trials, len(grid) + 1) if grid else wanted.trials

    def work(study: optuna.Study) -> None:
        try:
            while not stop.is_set() and (behind := _behind(study)) < total:
                trial = study.ask()
                trial.set_user_attr("process", _process())
                place = _place(study, trial)
                if place >= total:  # another process draws the last one
                    study.tell(trial, state=TrialState.FAIL)
                    break
                params = {} if place == 0 else _draw(study, trial, space, _sampler(config, grid, place))
                trial.set_user_attr("params", params)
                _judge(study, trial, _with(config, name, params), judges)
                if progress:
                    progress("trials", behind + 1, total)
        except BaseException:
            stop.set()  # the other threads end with the setting they are at
            raise

    study, stop = _study(storage, about), Event()
    with _judges(config, name, kind, metric, storage) as judges, ThreadPoolExecutor(wanted.parallel) as threads:
        others = [threads.submit(work, _study(storage, about)) for _ in range(wanted.parallel - 1)]
        work(study)  # here, so that Ctrl-C is heard
        for other in others:
            other.result()
    return _result(study, config, name, metric)


@contextmanager
def _judges(config: Config, name: str, kind: str, metric: str, storage: Path) -> Iterator[list[Judge]]:
    """Give the folds of the run's train part, each as what judges a config on it."""
    if config.engine == "spark":
        from recsys.spark.tune import judges

        with judges(config, name, metric, storage.parent) as found:
            yield found
        return
    train, items = train_part(config, kind)
    parts = folds(train, config, metric, items)

    def judge(fold: Fold, settings: Config) -> float:
        return float(np.nanmean(per_user(configured(name, settings), fold, settings.recommend)))

    yield [partial(judge, fold) for fold in parts]


def train_part(config: Config, kind: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return (train pairs, the items table if this kind of model can use one)."""
    folder = RunFolder.open(config.out)
    items = folder.read_table(run_files.ITEMS) if kind in FEATURED else None
    return folder.read_table(run_files.TRAIN), items


FEATURED = ("content", "attributes", "content_als", "side_ease", "blend", "hybrid")
"""Kinds of models that learn from features of the items."""


def _chosen(config: Config) -> str:
    names = list(config.models)
    if config.engine == "local" and config.tune.parallel > 1:
        raise ConfigError("[tune] parallel is of the Spark path: here, start `recsys tune` so often at once.")
    if config.tune.model is None and len(names) != 1:
        raise ConfigError(f"[tune] model: which of {', '.join(names) or 'no models'}? Name one.")
    name = config.tune.model or names[0]
    if name not in names:
        raise ConfigError(f"[tune] model: '{name}' is not under [models].{suggest_nearest(name, names)}")
    if config.engine == "spark" and config.models[name].get("model", name) != "als":
        raise ConfigError(f"[tune] model: '{name}' has nothing to search on Spark: name an ALS, or engine = 'local'.")
    return name


def _study(storage: Path, about: dict[str, Any]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name="recsys",
            storage=JournalStorage(JournalFileBackend(str(storage))),
            direction="maximize",
            load_if_exists=True,
            pruner=PRUNERS[about["tune"]["prune"]],
        )
    if (before := study.user_attrs.get("about")) not in (None, about):
        raise ConfigError(f"{storage}: a study of other settings ({before}). Choose another --out, or remove it.")
    study.set_user_attr("about", about)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _dead(trial.user_attrs.get("process")):
            study.tell(trial.number, state=TrialState.FAIL)
    return study


def _process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _dead(process: str | None) -> bool:
    """Whether the process that drew a trial is gone; one on another machine is taken to live."""
    host, _, pid = (process or "").rpartition(" ")
    return not process or (
        host == socket.gethostname() and pid != str(os.getpid()) and not Path(f"/proc/{pid}").exists()
    )


def _behind(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=DONE))


def _place(study: optuna.Study, trial: optuna.Trial) -> int:
    """Return how many settings were drawn before this one, those that failed or were killed aside."""
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    return sum(other.state != TrialState.FAIL for other in earlier)


def _sampler(config: Config, grid: list[dict[str, Any]], place: int) -> BaseSampler:
    if grid:
        return _Fixed(grid[place - 1])
    seed = int(np.random.SeedSequence([config.seed, place]).generate_state(1)[0])
    return RandomSampler(seed=seed) if config.tune.sampler == "random" else TPESampler(seed=seed, n_startup_trials=8)


class _Fixed(BaseSampler):
    """Draws what it was told."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: every parameter is drawn by itself."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the parameter's value."""
        return self._params[param_name]


def _draw(study: optuna.Study, trial: optuna.Trial, space: Space, sampler: BaseSampler) -> dict[str, Any]:
    study.sampler = sampler
    found: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, list):
            found[name] = trial.suggest_categorical(name, values)
        elif values.whole:
            found[name] = trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
        else:
            found[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
    return found


def _with(config: Config, name: str, params: dict[str, Any]) -> Config:
    return config.model_copy(update={"models": config.models | {name: config.models[name] | params}})


def _judge(study: optuna.Study, trial: optuna.Trial, config: Config, judges: Sequence[Judge]) -> None:
    """Judge a setting fold by fold and tell the study: its mean over all, or that it was given up."""
    means: list[float] = []
    for place, judge in enumerate(judges, start=1):
        means.append(judge(config))
        trial.set_user_attr("folds", means)
        trial.report(float(np.mean(means)), place)
        if place < len(judges) and trial.number and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, float(np.mean(means)))


def _result(study: optuna.Study, config: Config, name: str, metric: str) -> Tuned:
    done = study.get_trials(deepcopy=False, states=DONE)
    rows = [
        {
            "number": place,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "params": trial.user_attrs["params"],
            "folds": trial.user_attrs["folds"],
        }
        for place, trial in enumerate(done)
    ]
    best = max((row for row in rows if row["value"] is not None), key=lambda row: row["value"])
    before = next(row["value"] for row in rows if not row["params"])
    return Tuned(name, metric, _with(config, name, best["params"]), rows, best["params"], best["value"], before)
