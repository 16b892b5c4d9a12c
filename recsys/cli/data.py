"""The verbs data fetch and data make: public data sets, and a made-up one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.application import DATA, app
from recsys.cli.console import log, out, progress

data = typer.Typer(no_args_is_help=True, help="Fetch a public data set, or make one up.")
app.add_typer(data, name="data", rich_help_panel=DATA)


@data.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(help="ml-latest-small, ml-latest, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m or ml-32m."),
    ],
    folder: Annotated[Path, typer.Option(help="The folder to put it in.")] = Path("data"),
) -> None:
    """Download a public data set from its own site, check its checksum, and unpack it.

    Example: recsys data fetch ml-latest-small
    """
    from recsys.data.reading.fetch import fetch_data_set

    with progress() as steps:
        path = fetch_data_set(name, folder, progress=lambda done, total: steps(f"fetch {name}", done, total))
    out.print(str(path))


@data.command()
def make(
    folder: Annotated[Path, typer.Argument(help="The folder for the tables; a world that was made there is replaced.")],
    users: Annotated[int, typer.Option(min=1, help="Number of users.")] = 6_000,
    items: Annotated[int, typer.Option(min=1, help="Number of films.")] = 2_000,
    events: Annotated[int, typer.Option(min=1, help="Number of ratings, about.")] = 400_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same world.")] = 0,
    file_format: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
) -> None:
    """Make up a world of films, with the tables of its users, items and events.

    It has tastes, popularity, drift, genres, cast, text, films without events and new users.

    Example: recsys data make runs/world --users 1000 --items 500 --events 50000
    """
    from recsys.data.synthetic import Recipe, generate_world
    from recsys.data.writing import new_world_folder

    recipe = Recipe(users, items, events, seed, years=4.0)
    with progress() as steps, new_world_folder(folder) as new_folder:
        generate_world(
            recipe,
            new_folder,
            file_format,
            progress=lambda done, total: steps("make users", done, total),
        )
    log.print(f"wrote events, items and users to {folder}")
