"""Run a config on either engine: read, split, fit, recommend, judge, summarise, report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from recsys import run_files
from recsys.config import Config, SettingsError, load_config, require_toml
from recsys.data.splitting.strategies import ByTime, to_iso
from recsys.engine import Engine, Progress
from recsys.errors import ConfigError, InputError, MissingExtra
from recsys.fingerprint import fingerprint_in_background
from recsys.hop_log import HopLog
from recsys.locations import Location, is_remote
from recsys.logging import running_step
from recsys.meter import Meter
from recsys.parameters import is_class_path
from recsys.runfolder import RunFolder


def run(
    config: Config | str | Path, *, engine: Engine | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Run a config from the events to the report, write the run folder, and return the metrics.

    The steps are: read, split, fit, recommend, judge, summarise, report. The result is the content
    of metrics.json (:func:`recsys.evaluation.summary.summarise`). If an error is raised, an older
    run folder stays unchanged.

    Args:
        config: a config, or the path of its TOML file.
        engine: the engine to use. None: the engine that the config names.
        progress: a function that is called with (name of the step, units done, total units) during
            the longer steps. None: no progress is reported.

    Raises:
        InputError: the data cannot be used.
        ConfigError: a setting cannot be used.
        RunFolderError: the run folder cannot be written, or may not be replaced.
        MissingExtra: a program or a library that the run needs is not installed.
    """
    if not isinstance(config, Config):
        with model_errors_included():
            config = load_config(config)
    require_feasible(config)
    write_report = load_report_writer()
    hop_log = None
    if config.hop_log is not None:
        hop_log = HopLog.open(config.hop_log, config.out)
    engine = engine or make_engine(config)
    started = datetime.now(UTC)
    # A large log takes minutes to read, so it is read while the steps run.
    fingerprints = fingerprint_in_background(config.tables)
    with (
        Meter(log=hop_log) as meter,
        engine.started(meter),
        # The last step is to put the complete folder in the place of an older one.
        running_step("write the run folder"),
        RunFolder.writing(config.out, "run", config.sources) as folder,
        engine.open(folder, meter, progress),
    ):
        with meter.hop("read"):
            engine.read_events()
        with meter.hop("split"):
            engine.split_events()
        for name in engine.model_names:
            with meter.hop(f"fit {name}"):
                engine.fit(name)
            with meter.hop(f"{engine.prediction_hop} {name}"):
                engine.recommend(name)
            with meter.hop(f"judge {name}"):
                engine.judge(name)
            if engine.has_cold_start_curve:
                with meter.hop(f"cold start {name}"):
                    engine.judge_cold_start(name)
        with meter.hop("summarise"):
            metrics = engine.summarise()
        if engine.fold_starts:
            fold_folders = [fold_folder(folder, number) for number in range(1, len(engine.fold_starts))]
            folds = run_folds(config, engine.fold_starts, fold_folders, meter, progress)
            folder.write_json(run_files.BACKTEST, {"folds": [*folds, describe_fold(folder, metrics)]})
            with meter.hop("pool folds"):
                metrics["backtest"] = engine.pool_folds([*fold_folders, folder])
            folder.write_json(run_files.METRICS, metrics)
            remove_folds(folder)
        folder.write_text(run_files.CONFIG, config.to_toml())
        with running_step("fingerprint the input files"):
            inputs = fingerprints.result()
        folder.write_manifest(seed=config.seed, inputs=inputs, hops=meter.hops, started=started)
        with running_step("write the report"):
            write_report(folder)
    return metrics


def run_folds(
    config: Config, starts: list[float], folders: list[RunFolder], meter: Meter, progress: Progress | None
) -> list[dict[str, Any]]:
    """Repeat a run on the earlier windows of a rolling backtest, and return a summary of each.

    A summary is the result of :func:`describe_fold`. Each fold trains on the events before its
    window and tests on those in it.

    Args:
        config: the config of the run. A fold makes no lists for other users and samples no
            candidates.
        starts: the start of the test part of each fold in seconds since 1970, earliest first. The
            last fold is the run itself, so it is not repeated.
        folders: the empty folder of each fold (:func:`fold_folder`).
        meter: measures the time and memory of each fold.
        progress: as in :func:`run`.

    Raises:
        InputError, ConfigError: a fold cannot be run. The message names the fold.
    """
    folds = []
    lists = config.recommend.model_copy(update={"everyone": False})
    judging = config.judge.model_copy(update={"sampled": None})
    windows = zip(pairwise(starts), folders, strict=True)
    for number, ((start, end), folder) in enumerate(windows, start=1):
        window = ByTime(at=start, until=end)
        fold_config = config.model_copy(update={"split": window, "recommend": lists, "judge": judging})
        try:
            with meter.hop(f"fold {number}"):
                folds.append(run_fold(fold_config, folder, progress))
        except (InputError, ConfigError) as error:
            raise type(error)(f"fold {number} of {len(starts)}, from {to_iso(start)}: {error}") from error
    return folds


def fold_folder(folder: RunFolder, number: int) -> RunFolder:
    """Make and return the folder in which an earlier fold of a run is written.

    It is inside the folder of the run, until :func:`remove_folds` removes it.

    Args:
        folder: the folder of the run.
        number: the number of the fold, from 1.
    """
    return folder.subfolder(f"{run_files.FOLDS_SCRATCH}/{number}")


def remove_folds(folder: RunFolder) -> None:
    """Remove the folders of the earlier folds from the folder of a run."""
    scratch = folder.path / run_files.FOLDS_SCRATCH
    shutil.rmtree(scratch)
    # On Spark the run itself still has tables in the folder around.
    with suppress(OSError):
        scratch.parent.rmdir()


def run_fold(config: Config, folder: RunFolder, progress: Progress | None) -> dict[str, Any]:
    """Run the config of one fold, and return its summary, the result of :func:`describe_fold`.

    Args:
        config: the config of the fold.
        folder: the folder to write to, which is empty.
        progress: as in :func:`run`.

    Raises:
        InputError: the fold has no train or no test events.
        ConfigError: a configured model is not valid.
        RunFolderError: the folder cannot be written.
    """
    engine = make_engine(config)
    with Meter() as meter, engine.started(meter), engine.open(folder, meter, progress):
        with running_step("read"):
            engine.read_events()
        with running_step("split"):
            engine.split_events()
        for name in engine.model_names:
            with running_step(f"fit {name}"):
                engine.fit(name)
            with running_step(f"{engine.prediction_hop} {name}"):
                engine.recommend(name)
            with running_step(f"judge {name}"):
                engine.judge(name)
        return describe_fold(folder, engine.summarise())


def describe_fold(folder: RunFolder, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of one fold in backtest.json.

    Its keys:

    * ``cut``, ``to``: the start of the test window and its last event, as ISO times;
    * ``train_rows``, ``test_rows``: the numbers of events of the parts;
    * ``models``, ``differences``: as in metrics.json: the mean metrics of each model, and the
      differences between models on the same users.

    Args:
        folder: the folder of the fold.
        metrics: the content of metrics.json of the fold.

    Raises:
        RunFolderError: a file of the fold is missing or damaged.
    """
    split = folder.read_json(run_files.SPLIT_CARD)
    return {
        "cut": split["cut"],
        "to": split["test"]["to"],
        "train_rows": split["train"]["rows"],
        "test_rows": split["test"]["rows"],
        "models": metrics["models"],
        "differences": metrics["differences"],
    }


def load_report_writer() -> Callable[[RunFolder], Location]:
    """Import and return the function that writes the report.

    Raises:
        MissingExtra: a library that the report needs is not installed.
    """
    try:
        from recsys.report import write_report
    except ModuleNotFoundError as error:
        # Any other missing module is a bug, which an advice to install something would hide.
        if error.name is None or error.name.startswith("recsys"):
            raise
        raise MissingExtra(f"the report of a run needs {error.name}: pip install {error.name}") from error
    return write_report


def require_feasible(config: Config) -> None:
    """Check early what a run needs only at its end, because the work before may take hours.

    Raises:
        ConfigError: config.toml cannot hold a setting, or a class that the config names as a model
            cannot or may not be used.
        RunFolderError: the run folder cannot be written, or may not be replaced.
    """
    require_toml(config)
    class_paths = [kind for kind in config.kinds if is_class_path(kind)]
    if class_paths:
        from recsys.models.own_model import own_model_class
        from recsys.rating_model import RatingModel
        from recsys.recommender import Recommender

        base: type[Recommender | RatingModel] = RatingModel if config.judge.task == "ratings" else Recommender

        for class_path in class_paths:
            own_model_class(class_path, base)
    # A URI is checked when Spark has started, because only Spark may have the right to read it.
    if config.engine != "spark" or not is_remote(config.out):
        RunFolder.require_writable(config.out, "run", config.sources)


@contextmanager
def model_errors_included() -> Iterator[None]:
    """Add the errors of models to those of a config that the ``with`` block reads.

    Raises:
        ConfigError: the config is not valid. The message names the settings that are not valid and,
            if the models can be checked nevertheless, the parameters of models that are not.
    """
    try:
        yield
    except SettingsError as error:
        lines = [str(error)]
        if error.valid is not None:
            try:
                make_engine(error.valid)
            except (ConfigError, MissingExtra) as model_error:
                lines.append(str(model_error))
        raise ConfigError("\n".join(lines)) from None


def make_engine(config: Config) -> Engine:
    """Return a new engine of the kind that the config names. Spark is imported only if it is
    needed.

    Raises:
        ConfigError: a configured model is not valid, or the business rules cannot be read.
        MissingExtra: the config names Spark, which is not installed.
    """
    if config.engine == "spark":
        from recsys.saved.model_library import ModelLibrary
        from recsys.spark.engine import SparkEngine

        return SparkEngine(config, library=ModelLibrary())
    if config.judge.task == "ratings":
        from recsys.ratings_engine import RatingsEngine

        return RatingsEngine(config)
    from recsys.local_engine import LocalEngine

    return LocalEngine(config)
