"""The verb track: log a run to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.application import DEPLOYMENT, app
from recsys.cli.options import run_argument


@app.command(rich_help_panel=DEPLOYMENT)
def track(
    run: Annotated[Path, run_argument("A run folder of either engine: a path or a URI.")],
    to: Annotated[
        str,
        typer.Option(help="The tracking URI of MLflow: http://HOST:5000, sqlite:///mlflow.db, …"),
    ],
    experiment: Annotated[str, typer.Option(help="The experiment; it is made if there is none.")] = "recsys",
) -> None:
    """Log a run, its models, metrics and report to MLflow.

    Example: recsys track runs/demo --to http://localhost:5000
    """
    from recsys.saved.track import track as log_run

    run_id, *model_ids = log_run(run, to, experiment)
    print(f"MLflow run {run_id}, with one run for each of {len(model_ids)} models inside it")
