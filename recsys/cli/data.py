"""Verbs that look at, fetch or make data: check, data fetch, data make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.console import Json, log, out, progress

if TYPE_CHECKING:
    from recsys.data.reading.read import ReadSettings


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("check")(check)
    group = typer.Typer(no_args_is_help=True, help="Fetch a known data set, or make one.")
    group.command("fetch")(fetch)
    group.command("make")(make)
    app.add_typer(group, name="data")


def check(
    events: Annotated[
        Path | None, typer.Argument(help="File or folder of events, or a MovieLens folder or zip.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Items table.")] = None,
    users: Annotated[Path | None, typer.Option(help="Users table.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Column mapping, canonical=source: --column user_id=uid (repeatable).")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Field delimiter of text files.")] = None,
    time_unit: Annotated[str | None, typer.Option(help="s, ms, us or iso.")] = None,
    split: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Audit this split instead: TRAIN TEST; exit 3 when it leaks.")
    ] = None,
    refused: Annotated[Path | None, typer.Option(help="Write the refused rows, with reasons, to this CSV.")] = None,
    as_json: Json = False,
) -> None:
    """Validate tables and print a data card, or audit a split; exit 2 when too many rows are bad.

    Example: recsys check ratings.csv --column user_id=userId --column item_id=movieId

    Example: recsys check --split train.csv test.csv
    """
    from recsys.data.card import data_card
    from recsys.data.reading.read import read_tables
    from recsys.errors import ConfigError

    settings = _reading(column, delimiter, time_unit)
    if split:
        return _audit(*split, settings, as_json)
    if not events:
        raise ConfigError("recsys check: name a file of events, or --split TRAIN TEST.")
    tables = read_tables(events, items, users, settings)
    if refused:
        tables.refusals.write_csv(refused)
    facts = data_card(tables)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        out.print(f"{name:>12}  {_say(value)}", markup=False)


def _audit(train: Path, test: Path, reading: ReadSettings, as_json: bool) -> None:
    """Print what leaks from TEST into TRAIN; a leak fires the gate."""
    from recsys.data.reading.read import read_all_columns
    from recsys.data.splitting.leaks import find_leaks, split_overview
    from recsys.errors import GateFired
    from recsys.schema import ITEM, USER, unify_ids

    parts = [read_all_columns(part, reading)[0] for part in (train, test)]
    for key in (USER, ITEM):
        parts[0][key], parts[1][key] = unify_ids(parts[0][key], parts[1][key])
    about, leaks = split_overview(*parts), find_leaks(*parts)
    if as_json:
        print(json.dumps({"about": about, "leaks": [vars(leak) for leak in leaks]}, ensure_ascii=False))
    else:
        for name, value in about.items():
            out.print(f"{name:>26}  {_say(value)}", markup=False)
        out.print("no leaks found" if not leaks else f"{len(leaks)} leaks found:", markup=False)
        for leak in leaks:
            out.print(f"{leak.leak:>26}  {leak.says}", markup=False)
    if leaks:
        raise GateFired(f"{train} knows what only {test} should: {', '.join(dict.fromkeys(x.leak for x in leaks))}.")


def _reading(column: list[str] | None, delimiter: str | None, time_unit: str | None) -> ReadSettings:
    """Return the Reading of command-line options."""
    from pydantic import ValidationError

    from recsys.data.reading.read import ReadSettings
    from recsys.errors import ConfigError

    columns = {}
    for pair in column or ():
        canonical, equals, source = pair.partition("=")
        if not equals:
            raise ConfigError(f"--column {pair}: write it as canonical=source, for example user_id=userId")
        columns[canonical] = source
    try:
        return ReadSettings(columns=columns, delimiter=delimiter, time_unit=time_unit)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{p['loc'][0]}: {p['msg']}" for p in error.errors())) from None


def _say(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_say(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return " … ".join(map(_say, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def fetch(
    name: Annotated[
        str, typer.Argument(help="ml-latest-small, ml-latest, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m.")
    ],
    folder: Annotated[Path, typer.Option(help="Where to put it.")] = Path("data"),
) -> None:
    """Download a public data set from its own site, check its checksum, and unpack it.

    Example: recsys data fetch ml-latest-small
    """
    from recsys.data.reading.fetch import fetch_data_set as download

    with progress() as steps:
        place = download(name, folder, progress=lambda done, total: steps(f"fetch {name}", done, total))
    out.print(str(place), markup=False)


def make(
    folder: Annotated[Path, typer.Argument(help="Where to write events, items and users.")],
    users: Annotated[int, typer.Option(min=1)] = 6_000,
    items: Annotated[int, typer.Option(min=1)] = 2_000,
    events: Annotated[int, typer.Option(min=1)] = 400_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    file_format: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
) -> None:
    """Make a film world: tastes, popularity, drift, genres, cast, text, cold films and newcomers.

    Example: recsys data make runs/world --users 1000 --items 500 --events 50000
    """
    from recsys.data.synthetic import Recipe
    from recsys.data.synthetic import generate_world as write

    recipe = Recipe(users, items, events, seed, years=4.0)
    with progress() as steps:
        write(recipe, folder, file_format, progress=lambda done, total: steps("make users", done, total))
    log.print(f"wrote events, items and users to {folder}", markup=False)
