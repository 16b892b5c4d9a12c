"""Verbs that hand a run over: bundle, update, track."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.console import Json, log


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("bundle")(bundle)
    app.command("update")(update)
    app.command("track")(track)


def bundle(
    run: Annotated[Path, typer.Argument(help="A run folder of either engine.")],
    out: Annotated[Path, typer.Argument(help="Where the bundle goes; an older one is replaced.")],
    model: Annotated[str | None, typer.Option(help="Which model; unset: the last one in its report.")] = None,
) -> None:
    """Write a portable folder that recommend, similar and explain answer from, without Spark or Java.

    Example: recsys bundle runs/als_demo bundles/als_demo
    """
    from recsys.saved.bundle import write

    name = write(run, out, model)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    log.print(f"{out}: model {name}, {size / 2**20:.1f} MiB", markup=False)


def update(
    place: Annotated[Path, typer.Argument(help="A bundle of an ALS run on Spark.", metavar="BUNDLE")],
    events: Annotated[Path, typer.Argument(help="New events, in the layout of the run's own.")],
    out: Annotated[Path, typer.Argument(help="Where the updated bundle goes; may be the old one.")],
    against: Annotated[Path | None, typer.Option(help="A bundle of a retrained run, to compare lists with.")] = None,
    retrain_at: Annotated[float, typer.Option(help="Say `retrain now` when the drift grows by more.")] = 0.05,
    as_json: Json = False,
) -> None:
    """Fold new users and items into a bundle with their full history, and say when to retrain.

    Example: recsys update bundles/als_demo late.csv bundles/als_demo
    """
    from recsys.runfolder import to_plain_json
    from recsys.saved.update import update as fold

    found = fold(place, events, out, retrain_at=retrain_at, against=against)
    if as_json:
        print(json.dumps(to_plain_json(asdict(found) | {"retrain": found.retrain}), allow_nan=False))
        return
    print(
        f"{found.events:,} events; users: {found.users_new:,} new, {found.users_changed:,} with new events;"
        f" items: {found.items_new:,} new"
    )
    print(f"drift: {found.before:.4f} before, {found.after:.4f} after (it may grow by {found.retrain_at})")
    if against:
        print(f"first ten places shared with {against}: {found.overlap:.1%}")
    print("retrain now" if found.retrain else "no need to retrain yet")


def track(
    run: Annotated[Path, typer.Argument(help="A run folder of either engine.")],
    to: Annotated[str, typer.Option(help="MLflow's tracking URI: http://HOST:5000, sqlite:///mlflow.db, …")],
    experiment: Annotated[str, typer.Option(help="The experiment; made if there is none.")] = "recsys",
) -> None:
    """Log a run, its models, metrics and report to MLflow.

    Example: recsys track runs/demo --to http://localhost:5000
    """
    from recsys.saved.track import track as log_run

    whole, *models = log_run(run, to, experiment)
    print(f"MLflow run {whole}, and one each of {len(models)} models inside it")
