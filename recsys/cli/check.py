"""The verb check: validate tables and print a data card, or audit a split for leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.application import DATA, app
from recsys.cli.console import make_folder, out, write_errors_explained
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Items,
    Json,
    Overrides,
    TimeUnit,
    Users,
    config_of,
    reading_overrides,
    table_overrides,
)

if TYPE_CHECKING:
    from recsys.data.reading.read_settings import ReadSettings


@app.command(rich_help_panel=DATA)
def check(
    events: Annotated[
        str | None,
        typer.Argument(help="A file or folder of events, a MovieLens folder or zip file, or a config (TOML)."),
    ] = None,
    items: Items = None,
    users: Users = None,
    overrides: Overrides = None,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_unit: TimeUnit = None,
    split: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Audit a split of your own instead: TRAIN TEST. Exit code 3 when it leaks."),
    ] = None,
    refused: Annotated[
        Path | None, typer.Option(help="Write the refused rows, with reasons, to this CSV file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the tables as a run would and print a data card, or audit a split.
    Exit code 2 when so many rows are refused that a run would stop; the card is printed all the same.

    Example: recsys check ratings.csv --column user_id=userId --column item_id=movieId

    Example: recsys check shop.toml --refused refused.csv

    Example: recsys check --split train.csv test.csv
    """
    from recsys.data.card import data_card
    from recsys.data.reading.read import read_tables_with_bad_rows
    from recsys.errors import ConfigError, InputError
    from recsys.locations import local_paths
    from recsys.replacing import has_first_line, require_replaceable_file

    all_overrides = [
        *reading_overrides(columns, file_format, delimiter, encoding, time_unit),
        *table_overrides(items, users),
        *(overrides or ()),
    ]
    if split:
        settings = config_of(events or split[0], all_overrides)
        audit_split(*split, settings.data.reading, as_json)
        return
    if not events:
        raise ConfigError("recsys check: name a file of events or a config, or a split: --split TRAIN TEST.")
    settings = config_of(events, all_overrides)
    data = settings.data
    if refused:
        make_folder(refused.parent, "--refused")
        is_ours = has_first_line("file,line,reason,text")
        require_replaceable_file(refused, is_ours, "--refused", local_paths(settings.sources))
    tables = read_tables_with_bad_rows(data.events, data.items, data.users, data.reading)
    refusals = tables.refusals
    if refused:
        with write_errors_explained(refused, "--refused"):
            refusals.write_csv(refused)
    if len(tables.log):
        facts = data_card(tables)
    else:
        facts = {"events": 0, "refused": {"total": refusals.refused, "by_reason": refusals.counts}}
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        for name, value in facts.items():
            out.print(f"{name.replace('_', ' '):>22}  {format_value(value)}")
    # The card comes first: it is what shows why so many rows are refused.
    try:
        tables.require_few_refused(data.reading)
    except InputError as error:
        raise InputError(f"a run would stop here: {error}") from None


def audit_split(train: str, test: str, settings: ReadSettings, as_json: bool) -> None:
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
