"""The verb log export: what a server has kept, as a log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.application import DEPLOYMENT, app
from recsys.cli.console import log as notes
from recsys.cli.options import Columns, Delimiter, Encoding, FileFormat, TimeUnit, config_of, reading_overrides
from recsys.cli.serve import STORE
from recsys.errors import ConfigError

log = typer.Typer(no_args_is_help=True, help="Export the events and impressions that a server has kept.")
app.add_typer(log, name="log", rich_help_panel=DEPLOYMENT)


@log.callback()
def group() -> None:
    """Export the events and impressions that a server has stored."""


@log.command()
def export(
    places: Annotated[
        list[str],
        typer.Argument(
            help="The store of `recsys serve`, a file or a URL postgresql://…, unless the variable RECSYS_STORE has it;"
            " and the folder to write. An older export there is replaced.",
            metavar="[STORE] OUT",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(help="An older log, such as that of the first training; its events come first."),
    ] = None,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_unit: TimeUnit = None,
) -> None:
    """Write events.parquet and impressions.parquet, which recsys run reads as a log.

    The server may keep running. --column and the other options on files are for the older log.

    Example: recsys log export events.db logs/tonight
    """
    from recsys.serving.event_store import EventStore
    from recsys.serving.export import export_log

    *stores, out = places
    location = stores[0] if stores else os.environ.get(STORE)
    if not location or len(stores) > 1:
        raise ConfigError(f"log export [STORE] OUT: name one store, or set the variable {STORE}; then one folder.")
    overrides = reading_overrides(columns, file_format, delimiter, encoding, time_unit)
    if overrides and not base:
        raise ConfigError("log export: options on how files are read need an older log: --base LOG.")
    reading = config_of(base, overrides).data.reading if base else None
    opened = EventStore(location, create=False)
    try:
        counts = export_log(opened, Path(out), base, reading)
    finally:
        opened.close()
    notes.print(f"{out}: {counts['events']:,} events, {counts['impressions']:,} impressions")
