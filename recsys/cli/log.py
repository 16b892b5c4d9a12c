"""The verb log export: what a server has kept, as a log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.application import DEPLOYMENT, app
from recsys.cli.console import log as notes
from recsys.errors import InputError

log = typer.Typer(no_args_is_help=True, help="The events and impressions that a server has kept.")
app.add_typer(log, name="log", rich_help_panel=DEPLOYMENT)


@log.callback()
def group() -> None:
    """The events and impressions that a server has kept."""


@log.command()
def export(
    store: Annotated[str, typer.Argument(help="The store of `recsys serve`: a file, or a URL postgresql://…")],
    out: Annotated[Path, typer.Argument(help="The folder to write; an older export there is replaced.")],
    base: Annotated[
        str | None,
        typer.Option(help="An older log, such as that of the first training; its events come first."),
    ] = None,
) -> None:
    """Write events.parquet and impressions.parquet, which recsys run reads as a log.

    The server may go on meanwhile.

    Example: recsys log export events.db logs/tonight
    """
    from recsys.serving.event_store import EventStore
    from recsys.serving.export import export_log

    if "://" not in store and not Path(store).is_file():
        raise InputError(f"{store}: there is no such store. `recsys serve --store {store}` makes one.")
    opened = EventStore(store)
    try:
        counts = export_log(opened, out, base)
    finally:
        opened.close()
    notes.print(f"{out}: {counts['events']:,} events, {counts['impressions']:,} impressions")
