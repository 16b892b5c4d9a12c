"""The verb tune: search for settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recsys import run_files
from recsys.cli.application import RUNS, app
from recsys.cli.console import log, out, progress, write_errors_explained
from recsys.cli.options import Overrides, OwnModels


@app.command(rich_help_panel=RUNS)
def tune(
    config: Annotated[
        Path,
        typer.Argument(help="The config of a run that has ended; its [tune] section says what to search."),
    ],
    overrides: Overrides = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="The folder of the study. Default: beside the run, as NAME-tune."),
    ] = None,
    curve: Annotated[
        bool,
        typer.Option(help="On the local engine, also measure whether more data or capacity would help."),
    ] = True,
    own_models: OwnModels = False,
) -> None:
    """Search for better settings on the train part of a run.

    To continue a search, call the verb again. Several processes may search at once.

    Example: recsys tune configs/demo.toml --set tune.trials=20
    """
    from recsys.config import load_config, require_toml
    from recsys.errors import MissingExtra
    from recsys.flow import model_errors_included
    from recsys.replacing import require_study_folder
    from recsys.report.tuning_page import tuning_page
    from recsys.runfolder import RunFolder, to_json_text

    try:
        from recsys.tune import learning_curve
        from recsys.tune import tune as search
    except ModuleNotFoundError as error:
        # Any other missing module is a bug, which an advice to install an extra would hide.
        if error.name != "optuna":
            raise
        raise MissingExtra("recsys tune needs Optuna: pip install 'recsys[tune]'") from error

    with model_errors_included():
        settings = load_config(config, overrides or ())
    require_toml(settings)
    run = settings.out.rstrip("/")
    study = folder or Path(f"{run}-tune")
    with write_errors_explained(study):
        require_study_folder(study)
        study.mkdir(parents=True, exist_ok=True)
    learning = None
    # Each trial is added to the study's log while the search goes on.
    with progress() as steps, write_errors_explained(study):
        result = search(settings, study / run_files.STUDY_LOG, progress=steps)
        if curve and settings.engine == "local":
            learning = learning_curve(result, progress=steps)
    record = {key: value for key, value in asdict(result).items() if key != "config"}
    record["learning"] = None
    if learning:
        record["learning"] = asdict(learning)
    best_config = result.config.model_copy(update={"out": f"{run}-tuned"})
    RunFolder(study).write_texts(
        {
            run_files.BEST_CONFIG: best_config.to_toml(),
            run_files.STUDY_RESULT: to_json_text(record),
            run_files.REPORT_HTML: tuning_page(study.resolve().name, record),
        }
    )
    stopped = sum(trial["value"] is None for trial in result.trials)
    log.print(f"{len(result.trials)} settings tried, {stopped} of them stopped early")
    if result.value > result.initial_value:
        outcome = (
            f"{result.model}: {result.metric} on folds of train rose from"
            f" {result.initial_value:.4f} to {result.value:.4f}"
        )
    else:
        outcome = (
            f"{result.model}: no setting was better than the config's own, {result.metric} {result.initial_value:.4f}"
        )
    out.print(outcome)
    out.print(f"best: {result.best_params or 'the settings of the config'}")
    for sentence in learning.findings if learning else ():
        out.print(sentence)
    out.print(f"report: {study / run_files.REPORT_HTML}")
    out.print(f"run the best settings: recsys run {study / run_files.BEST_CONFIG}")
