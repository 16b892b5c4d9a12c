"""The search for the best settings of a model: an Optuna study in a file.

Several processes may work on one study. A study that was stopped can be continued. The settings of
a trial depend only on the seed, on the number of trials drawn before it and on their results. They
do not depend on the state of a process. So, with one process at a time, a study that was stopped
and continued tries the same settings as a study that was not.
"""

from __future__ import annotations

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
import pyarrow.compute as pc
import pyarrow.dataset as ds
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from recsys import run_files
from recsys.als.parameters import largest_rank
from recsys.atomic_writing import is_running, mark_as_running
from recsys.config import Config, require_task_of_lists
from recsys.engine import RANK_IS_CAPPED, training_rows
from recsys.errors import ConfigError, RunFolderError, suggest_nearest
from recsys.evaluation.judging.metrics import parse
from recsys.evaluation.settings import needs_all_scores
from recsys.local_engine import BLENDS, configured_model
from recsys.models import kind_class
from recsys.parameters import is_class_path
from recsys.replacing import require_study_folder
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, TIME, USER
from recsys.tune.folds import Fold, fit_and_judge, make_folds
from recsys.tune.space import Range, Space, at_most, grid_points, search_space
from recsys.tune.study_lock import StudyLock

Steps = Callable[[str, int, int], None]
"""A function that is called after each step of a task: (name of task, steps done, all steps)."""
FoldJudge = Callable[[Config], float]
"""A function from a config to the mean of the metric over the users of one fold."""

PAIR_FOLDS = 2
"""The version of the rule by which pairs are divided into folds. A stored study of another version
is not continued."""

FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)
"""The states of trials that count as finished: judged on all folds, or stopped early."""
TPE_RANDOM_TRIALS = 8
"""Number of trials that the TPE sampler draws at random before it learns from results."""
PRUNERS: dict[str, optuna.pruners.BasePruner] = {
    "median": optuna.pruners.MedianPruner(n_startup_trials=5),
    "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    "none": optuna.pruners.NopPruner(),
}
"""Value of ``[tune] prune`` -> the rule by which Optuna stops a trial before its last fold."""

SPARK_SPACE: dict[str, Any] = {
    "rank": [16, 32, 64, 128],
    "iterations": [5, 10, 20],
    "alpha": {"low": 1.0, "high": 100.0},
    "reg": {"low": 0.001, "high": 1.0},
}
"""The default search space on Spark: the parameters that MLlib's ALS has."""

FEATURE_MODELS = ("content", "attributes", "content_als", "side_ease", "blend", "hybrid")
"""Kinds of models that learn from features of the items."""


@dataclass(frozen=True)
class Tuned:
    """The result of :func:`tune`.

    A trial is one setting of the parameters, which is judged on the folds.

    Attributes:
        model: name of the model.
        metric: the metric that was maximised.
        config: the config of the run, with the best settings.
        trials: one dict per finished trial, in the order of the trials: ``number`` (from 0);
            ``state``, "complete" or "pruned" (stopped early); ``value``, the mean of the metric
            over the folds, None if pruned; ``params``, parameter -> value; ``folds``, the metric on
            each fold that was judged.
        best_params: the parameters of the best complete trial, the first one of equal trials. Empty
            if the config's own settings are the best.
        value: the mean of the metric over the folds for the best trial.
        initial_value: the same for the config's own settings, which are always the first trial.
    """

    model: str
    metric: str
    config: Config
    trials: list[dict[str, Any]]
    best_params: dict[str, Any]
    value: float
    initial_value: float


def tune(config: Config, storage: Path, *, progress: Steps | None = None) -> Tuned:
    """Search for the best settings of the model ``config.tune.model``, and return the result.

    Settings are judged on folds of the train part of the run at ``config.out``. The function reads
    the train pairs of this run, and the items table if the model or the lists need it
    (:func:`read_train_part`). It never reads the test part. To continue a search that was stopped,
    call the function again with the same ``storage``. Several processes may work on the same
    search. With ``engine = "spark"``, folds and models are those of the Spark engine, and
    ``tune.parallel`` trials run at the same time.

    Args:
        config: the config of a finished run.
        storage: the file in which the trials are stored, an Optuna journal. It is created if it
            does not exist.
        progress: called after each trial with ("trials", number of finished trials, number of all
            trials).

    Raises:
        ConfigError: there is no such model, parameter or metric, the engine cannot tune the model,
            or ``storage`` has a study of other settings.
        RunFolderError: there is no complete run at ``config.out``, or ``storage`` is damaged.
        InputError: a fold has no train pairs or no relevant test pairs.
    """
    require_task_of_lists(config, "recsys tune")
    settings = config.tune
    name = _model_name(config)
    kind = model_kind(config, name)
    _require_scores_of_new_items(config, name, kind)
    metric = settings.metric or config.judge.metrics[0]
    if needs_all_scores(metric):
        raise ConfigError(
            f"[tune] metric: {metric} needs the scores of all candidates, and trials are judged by lists: choose"
            " another, such as ndcg@10."
        )
    metric = str(parse(metric))
    requested = settings.space
    if not requested and config.engine == "spark":
        requested = SPARK_SPACE
    space = search_space(kind, requested)
    if "rank" in space and kind not in RANK_IS_CAPPED:
        space["rank"] = _possible_ranks(space["rank"], kind, RunFolder.open(config.out))
    grid = []
    if settings.sampler == "grid":
        grid = grid_points(space)
    # The config's own settings come first, before the points of the grid.
    total = settings.trials
    if grid:
        total = min(settings.trials, len(grid) + 1)
    about: dict[str, Any] = {
        "engine": config.engine,
        "model": name,
        "kind": kind,
        "metric": metric,
        "tune": settings.model_dump(mode="json", exclude={"trials", "parallel"}),
    }
    if config.candidates != "items":
        about["candidates"] = config.candidates
    if config.fold_rule(timed=_is_timed(RunFolder.open(config.out))) == "pairs":
        about["pair_folds"] = PAIR_FOLDS
    study = _open_study(storage, about)
    with (
        mark_as_running(storage.with_name("trial")) as process,
        _fold_judges(config, name, kind, metric, storage) as judges,
        ThreadPoolExecutor(settings.parallel) as threads,
    ):
        search = _Search(config, name, space, grid, total, judges, process, progress, Event())
        futures = [threads.submit(search.work, _open_study(storage, about)) for _ in range(settings.parallel - 1)]
        # The main thread works too, so that Ctrl-C interrupts a trial.
        search.work(study)
        for future in futures:
            future.result()
    return _result(study, config, name, metric)


@dataclass(frozen=True)
class _Search:
    """The state that all threads of a search share."""

    config: Config
    name: str
    space: Space
    grid: list[dict[str, Any]]
    total: int
    judges: Sequence[FoldJudge]
    process: str
    progress: Steps | None
    stop: Event

    def work(self, study: optuna.Study) -> None:
        """Draw and judge trials until the study has ``total`` finished trials.

        The method also stops if another thread fails.
        """
        try:
            while not self.stop.is_set():
                finished = _finished_count(study)
                if finished >= self.total:
                    break
                trial = study.ask()
                trial.set_user_attr("process", self.process)
                number = _trial_number(study, trial)
                if number >= self.total:
                    # Another process has drawn the last trial.
                    study.tell(trial, state=TrialState.FAIL)
                    break
                params = self._draw_params(study, trial, number)
                trial.set_user_attr("params", params)
                _judge_trial(
                    study,
                    trial,
                    _with_params(self.config, self.name, params),
                    self.judges,
                )
                if self.progress:
                    self.progress("trials", finished + 1, self.total)
        except BaseException:
            # The other threads finish the trial that they work on.
            self.stop.set()
            raise

    def _draw_params(self, study: optuna.Study, trial: optuna.Trial, number: int) -> dict[str, Any]:
        """Return the parameters of the trial with a number.

        Trial 0 has none, because it judges the settings of the config.
        """
        if number == 0:
            return {}
        study.sampler = _sampler(self.config, self.grid, number)
        params: dict[str, Any] = {}
        for name, values in self.space.items():
            if isinstance(values, list):
                params[name] = trial.suggest_categorical(name, values)
            elif values.is_integer:
                params[name] = trial.suggest_int(
                    name,
                    int(values.low),
                    int(values.high),
                    log=values.log,
                )
            else:
                params[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
        return params


@contextmanager
def _fold_judges(
    config: Config,
    name: str,
    kind: str,
    metric: str,
    storage: Path,
) -> Iterator[list[FoldJudge]]:
    """Yield one judge per fold of the run's train part."""
    if config.engine == "spark":
        # Spark is imported only where it is used.
        from recsys.spark.tune import fold_judges

        with fold_judges(config, name, metric, storage.parent) as spark_judges:
            yield spark_judges
        return
    train, items = read_train_part(config, kind)

    def judge(fold: Fold, trial_config: Config) -> float:
        per_user = fit_and_judge(configured_model(name, trial_config), fold, trial_config.recommend)
        return float(np.nanmean(per_user))

    yield [partial(judge, fold) for fold in make_folds(train, config, metric, items)]


def _possible_ranks(ranks: Range | list[Any], kind: str, run: RunFolder) -> Range | list[Any]:
    """Return the ranks to try, with those that are too large for the train part of a run lowered."""
    highest = max(ranks) if isinstance(ranks, list) else int(ranks.high)
    train = run.path / run_files.TRAIN
    users, items = (_count_distinct(train, column, highest) for column in (USER, ITEM))
    return at_most(ranks, largest_rank(training_rows(kind, users, items), items))


def _is_timed(run: RunFolder) -> bool:
    """Return whether all train pairs of a run have times."""
    batches = ds.dataset(run.path / run_files.TRAIN).to_batches(columns=[TIME])
    return all(pc.all(pc.greater_equal(batch.column(0), 0)).as_py() is not False for batch in batches)


def _count_distinct(path: Path, column: str, enough: int) -> int:
    """Return the number of distinct values of a column, or ``enough`` if there are at least that
    many."""
    values: set[Any] = set()
    for batch in ds.dataset(path).to_batches(columns=[column]):
        values.update(batch.column(0).unique().to_pylist())
        if len(values) >= enough:
            return enough
    return len(values)


def model_kind(config: Config, name: str) -> str:
    """Return the kind of a model of the config: its key ``model``, by default its name.

    Args:
        config: the config.
        name: the name of the model, a key of ``config.models``.
    """
    return str(config.models[name].get("model", name))


def read_train_part(config: Config, kind: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the train pairs of the run at ``config.out``, and its items table or None.

    The items table is read if this kind of model uses features of items (:data:`FEATURE_MODELS`),
    if the model is a class of the user's own, or if lists rank only items without train events.

    Args:
        config: the config of the run.
        kind: the kind of the model, or the path of its class.

    Raises:
        RunFolderError: there is no complete run at ``config.out``.
    """
    folder = RunFolder.open(config.out)
    train = folder.read_table(run_files.TRAIN)
    if kind not in FEATURE_MODELS and not is_class_path(kind) and config.candidates != "cold":
        return train, None
    return train, folder.read_table(run_files.ITEMS)


def _model_name(config: Config) -> str:
    """Return the name of the model to tune.

    Raises:
        ConfigError: no model is named and there is not exactly one, the named model does not
            exist, it cannot be tuned on this engine, or ``parallel`` is set on the local engine.
    """
    names = list(config.models)
    if config.engine == "local" and config.tune.parallel > 1:
        raise ConfigError(
            "[tune] parallel is for the Spark path: on the local path, start `recsys tune` several times at once."
        )
    if config.tune.model is None and len(names) != 1:
        raise ConfigError(f"[tune] model: which of {', '.join(names) or 'no models'}? Name one.")
    name = config.tune.model or names[0]
    if name not in names:
        raise ConfigError(
            f"[tune] model: '{name}' is not under [models].{suggest_nearest(name, names)}",
        )
    if config.engine == "spark" and model_kind(config, name) != "als":
        raise ConfigError(
            f"[tune] model: '{name}' has nothing to search on Spark: name an ALS, or set engine = 'local'.",
        )
    return name


def _require_scores_of_new_items(config: Config, name: str, kind: str) -> None:
    """Check that the model can score the items on which it is judged.

    Raises:
        ConfigError: the folds test on new items alone, and the model scores none.
    """
    if config.candidates != "cold" and config.tune.rule != "items":
        return
    # A blend scores what its parts score.
    if kind in BLENDS or kind_class(kind).SCORES_NEW_ITEMS:
        return
    raise ConfigError(
        f"[tune] model: '{name}' scores no item without an event in train, and the folds test on such items alone"
        " ([judge] candidates = 'cold' or [tune] rule = 'items'), so all its settings would be equal: tune a model that"
        " learns from the attributes of items."
    )


def _open_study(storage: Path, about: dict[str, Any]) -> optuna.Study:
    """Return the study in a file. The file is created if it does not exist.

    Unfinished trials of processes that have ended are marked as failed.

    Raises:
        ConfigError: the file has a study of another search.
        RunFolderError: the file is not a study of recsys, or is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage.parent.mkdir(parents=True, exist_ok=True)
    require_study_folder(storage.parent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                study_name=run_files.STUDY_NAME,
                storage=JournalStorage(JournalFileBackend(str(storage), lock_obj=StudyLock(storage))),
                direction="maximize",
                load_if_exists=True,
                pruner=PRUNERS[about["tune"]["prune"]],
            )
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise RunFolderError(f"{storage}: damaged: {error!r}. Choose another --out, or remove it.") from error
    stored = study.user_attrs.get("about")
    if stored not in (None, about):
        raise ConfigError(
            f"{storage}: a study of other settings ({stored}). Choose another --out, or remove it.",
        )
    study.set_user_attr("about", about)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not is_running(storage.parent, str(trial.user_attrs.get("process"))):
            study.tell(trial.number, state=TrialState.FAIL)
    return study


def _finished_count(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=FINISHED_STATES))


def _trial_number(study: optuna.Study, trial: optuna.Trial) -> int:
    """Return the number of trials drawn before this one.

    Trials that failed or were killed do not count.
    """
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    return sum(earlier_trial.state != TrialState.FAIL for earlier_trial in earlier)


def _sampler(config: Config, grid: list[dict[str, Any]], number: int) -> BaseSampler:
    """Return the sampler of one trial.

    Its seed depends on the number of the trial, so that a continued study draws the same settings.
    """
    if grid:
        return _FixedSampler(grid[number - 1])
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    if config.tune.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=TPE_RANDOM_TRIALS)


class _FixedSampler(BaseSampler):
    """An Optuna sampler that returns given parameters."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        """Return an empty search space, because each parameter is returned independently."""
        return {}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return no parameters, because each parameter is returned independently."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the given value of a parameter."""
        return self._params[param_name]


def _with_params(config: Config, name: str, params: dict[str, Any]) -> Config:
    """Return the config with these parameters of the model ``name``. They replace those of the
    config.
    """
    model_settings = config.models[name] | params
    return config.model_copy(update={"models": config.models | {name: model_settings}})


def _judge_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    config: Config,
    judges: Sequence[FoldJudge],
) -> None:
    """Judge a trial on one fold after another, and store its mean over all folds.

    If the pruner stops the trial before the last fold, it is stored as pruned.
    """
    values: list[float] = []
    for step, judge in enumerate(judges, start=1):
        values.append(judge(config))
        trial.set_user_attr("folds", values)
        trial.report(float(np.mean(values)), step)
        # Trial 0, the config itself, is never pruned, because the others are compared with it.
        if step < len(judges) and trial.number and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, float(np.mean(values)))


def _result(study: optuna.Study, config: Config, name: str, metric: str) -> Tuned:
    """Return the result of the study: all finished trials, and the best of them.

    If several trials have the same best value, the first of them is the best.
    """
    rows = []
    for number, trial in enumerate(study.get_trials(deepcopy=False, states=FINISHED_STATES)):
        rows.append(
            {
                "number": number,
                "state": trial.state.name.lower(),
                "value": trial.value if trial.state == TrialState.COMPLETE else None,
                "params": trial.user_attrs["params"],
                "folds": trial.user_attrs["folds"],
            }
        )
    complete = [row for row in rows if row["value"] is not None]
    best_trial = max(complete, key=lambda row: row["value"])
    return Tuned(
        model=name,
        metric=metric,
        config=_with_params(config, name, best_trial["params"]),
        trials=rows,
        best_params=best_trial["params"],
        value=best_trial["value"],
        initial_value=next(row["value"] for row in rows if not row["params"]),
    )
