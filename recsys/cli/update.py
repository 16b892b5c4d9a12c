"""The verb update: add new events to a bundle, without training."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.application import DEPLOYMENT, app
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Json,
    OwnModels,
    TimeUnit,
    reading_overrides,
)

if TYPE_CHECKING:
    from recsys.types import Update


@app.command(rich_help_panel=DEPLOYMENT)
def update(
    bundle: Annotated[Path, typer.Argument(help="A bundle of a run of either engine.")],
    events: Annotated[str, typer.Argument(help="New events, in the layout of those of the run.")],
    out: Annotated[Path, typer.Argument(help="The folder of the updated bundle; may be the old one.")],
    against: Annotated[
        Path | None, typer.Option(help="A bundle of a retrained run, to compare the lists with.")
    ] = None,
    retrain_at: Annotated[
        float,
        typer.Option(help="Recommend a retrain when the drift grows by more, or a larger share of events is left out."),
    ] = 0.05,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_unit: TimeUnit = None,
    as_json: Json = False,
    own_models: OwnModels = False,
) -> None:
    """Add new events to a bundle without training, and print whether to retrain.

    With ALS, the factors of users with new events are solved again from their full histories. The
    events are read as those of the run, except for what --column and the other options on files
    set.

    Example: recsys update bundles/als_demo late.csv bundles/als_demo
    """
    from recsys.saved.update import update as update_bundle

    overrides = reading_overrides(columns, file_format, delimiter, encoding, time_unit)
    result = update_bundle(bundle, events, out, retrain_at=retrain_at, against=against, overrides=overrides)
    print_update(result, bundle, against, as_json=as_json)


def print_update(result: Update, source: str | Path, against: str | Path | None = None, *, as_json: bool) -> None:
    """Print what an update has changed, and whether to retrain.

    Args:
        result: the result of the update.
        source: the bundle or run that was updated.
        against: the retrained model with whose lists those of the update were compared, or None.
        as_json: whether to print one JSON object.
    """
    from recsys.runfolder import to_plain_json

    if as_json:
        print(json.dumps(to_plain_json(asdict(result) | {"retrain": result.retrain}), allow_nan=False))
        return
    print(
        f"{result.events:,} events; users: {result.users_new:,} new, {result.users_changed:,} with"
        f" new events; items: {result.items_new:,} new"
    )
    if result.events_left_out:
        print(f"left out: {result.events_left_out:,} events on items that the model was not trained with")
    if result.events_not_newer:
        print(
            f"{result.events_not_newer:,} events are not newer than the newest event of {source}:"
            " any that it has already count twice"
        )
    if not math.isnan(result.drift_after):
        print(
            f"drift: {result.drift_before:.4f} before, {result.drift_after:.4f} after;"
            f" retrain when it grows by more than {result.retrain_at}"
        )
    if against:
        print(f"share of the first ten items that are also in the lists of {against}: {result.overlap:.1%}")
    if result.retrain and result.events_left_out > result.retrain_at * result.events:
        print(f"retrain now: more than {result.retrain_at:.0%} of the events are left out")
    elif result.retrain:
        print(f"retrain now: the drift grew by more than {result.retrain_at}")
    elif math.isnan(result.drift_after):
        print("whether to retrain was not measured: only ALS has a measure of drift. Retrain on a schedule.")
    else:
        print("no need to retrain yet")
