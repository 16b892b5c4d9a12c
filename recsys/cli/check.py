"""The verb check: validate tables and print a data card, or audit a split for leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.application import DATA, app
from recsys.cli.console import out
from recsys.cli.options import Json

if TYPE_CHECKING:
    from recsys.data.reading.read_settings import ReadSettings


@app.command(rich_help_panel=DATA)
def check(
    events: Annotated[
        Path | None,
        typer.Argument(help="A file or folder of events, or a MovieLens folder or zip file."),
    ] = None,
    items: Annotated[Path | None, typer.Option(help="The items table.")] = None,
    users: Annotated[Path | None, typer.Option(help="The users table.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Which column of the file holds ours, OURS=THEIRS: --column user_id=uid (repeatable)."),
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="The field delimiter of text files.")] = None,
    time_unit: Annotated[str | None, typer.Option(help="The unit of timestamps: s, ms, us or iso.")] = None,
    split: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Audit a split of your own instead: TRAIN TEST. Exit code 3 when it leaks."),
    ] = None,
    refused: Annotated[
        Path | None, typer.Option(help="Write the refused rows, with reasons, to this CSV file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Validate tables and print a data card, or audit a split.
    Exit code 2 when too many rows are refused.

    Example: recsys check ratings.csv --column user_id=userId --column item_id=movieId

    Example: recsys check --split train.csv test.csv
    """
    from recsys.data.card import data_card
    from recsys.data.reading.read import read_tables
    from recsys.errors import ConfigError

    settings = read_settings(column, delimiter, time_unit)
    if split:
        audit_split(*split, settings, as_json)
        return
    if not events:
        raise ConfigError("recsys check: name a file of events, or a split: --split TRAIN TEST.")
    tables = read_tables(events, items, users, settings)
    if refused:
        tables.refusals.write_csv(refused)
    facts = data_card(tables)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        out.print(f"{name.replace('_', ' '):>22}  {format_value(value)}")


def audit_split(train: Path, test: Path, settings: ReadSettings, as_json: bool) -> None:
    """Print what leaks from a test table into a train table.

    Raises:
        GateFired: something leaks.
    """
    from recsys.data.reading.read import read_all_columns
    from recsys.data.splitting.leaks import find_leaks, split_overview
    from recsys.errors import GateFired
    from recsys.schema import ITEM, USER, unify_ids

    train_table = read_all_columns(train, settings)[0]
    test_table = read_all_columns(test, settings)[0]
    for key in (USER, ITEM):
        train_table[key], test_table[key] = unify_ids(train_table[key], test_table[key])
    facts = split_overview(train_table, test_table)
    leaks = find_leaks(train_table, test_table)
    if as_json:
        print(json.dumps({"about": facts, "leaks": [vars(leak) for leak in leaks]}, ensure_ascii=False))
    else:
        for name, value in facts.items():
            out.print(f"{name.replace('_', ' '):>26}  {format_value(value)}")
        out.print(f"{len(leaks)} leaks found:" if leaks else "no leaks found")
        for leak in leaks:
            out.print(f"{leak.leak:>26}  {leak.message}")
    if leaks:
        kinds = ", ".join(dict.fromkeys(leak.leak for leak in leaks))
        raise GateFired(f"{train} contains what only {test} should: {kinds}.")


def read_settings(column: list[str] | None, delimiter: str | None, time_unit: str | None) -> ReadSettings:
    """Return the settings of reading that some command-line options describe."""
    from pydantic import ValidationError

    from recsys.data.reading.read_settings import ReadSettings
    from recsys.errors import ConfigError

    columns = {}
    for pair in column or ():
        canonical, equals, source = pair.partition("=")
        if not equals:
            raise ConfigError(f"--column {pair}: write it as OURS=THEIRS, for example user_id=userId.")
        columns[canonical] = source
    try:
        return ReadSettings(columns=columns, delimiter=delimiter, time_unit=time_unit)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{part['loc'][0]}: {part['msg']}" for part in error.errors())) from None


def format_value(value: object) -> str:
    """Return a value of a data card as text for people."""
    if isinstance(value, dict):
        parts = [f"{key.replace('_', ' ')}: {format_value(item)}" for key, item in value.items()]
        return ", ".join(parts) or "none"
    if isinstance(value, list):
        return " … ".join(map(format_value, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
