"""The verb that searches for settings: tune."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recsys import run_files
from recsys.cli.console import Overrides, log, out, progress


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("tune")(tune)


def tune(
    config: Annotated[Path, typer.Argument(help="The config of a run that exists; [tune] says what to search.")],
    overrides: Overrides = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where the study goes; unset: beside the run, as NAME-tune.")
    ] = None,
    curve: Annotated[
        bool, typer.Option(help="Local path: also measure whether more data or capacity would help.")
    ] = True,
) -> None:
    """Search for better settings on the train part of a run; call it again, or twice at once, to go on.

    Example: recsys tune configs/demo.toml --set tune.trials=20
    """
    from recsys.config import load_config
    from recsys.errors import MissingExtra, RunFolderError
    from recsys.report.tuning_page import tuning_page
    from recsys.runfolder import RunFolder

    try:
        from recsys.tune import learn
        from recsys.tune import tune as search
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise MissingExtra("recsys tune needs Optuna: pip install 'recsys[tune]'") from error

    settings = load_config(config, overrides or ())
    place = folder or Path(f"{settings.out.rstrip('/')}-tune")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{place}: cannot be a folder: {error.strerror}. Choose another --out.") from error
    with progress() as steps:
        found = search(settings, place / run_files.STUDY_LOG, progress=steps)
        learning = learn(found, progress=steps) if curve and settings.engine == "local" else None
    tuned = found.config.model_copy(update={"out": f"{settings.out.rstrip('/')}-tuned"})
    written = RunFolder(place)
    written.write_text(run_files.BEST_CONFIG, tuned.to_toml())
    told = {key: value for key, value in asdict(found).items() if key != "config"}
    told["learning"] = asdict(learning) if learning else None
    written.write_json(run_files.STUDY_RESULT, told)
    written.write_text(run_files.REPORT_HTML, tuning_page(place.resolve().name, told))
    given_up = sum(row["value"] is None for row in found.trials)
    log.print(f"{len(found.trials)} settings, {given_up} given up early", markup=False)
    out.print(f"{found.model}: {found.metric} on folds of train {found.before:.4f} -> {found.value:.4f}", markup=False)
    out.print(f"best: {found.best or 'the settings of the config'}", markup=False)
    for sentence in learning.says if learning else ():
        out.print(sentence, markup=False)
    out.print(
        f"report: {place / run_files.REPORT_HTML}; run it: recsys run {place / run_files.BEST_CONFIG}", markup=False
    )
