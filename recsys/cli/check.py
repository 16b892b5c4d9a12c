"""The verb check: validate tables and print a data card, or audit a split for leaks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    import pandas as pd

    from recsys.data.reading.read_settings import ReadSettings
    from recsys.data.splitting.leaks import Finding
    from recsys.data.weigh import WeightSettings
    from recsys.models.sequential.order_effect import OrderEffect

MOST_USERS_FOR_ORDER = 20_000
"""The largest number of users whose events are used to test whether order matters."""


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
    """Read the tables as a run would and print a data card, or audit a split for leaks.

    The card also says whether the order of events matters. If more rows are refused than a run
    allows, the exit code is 2. For a config with [split] rule = "files", the split is audited too.

    Example: recsys check ratings.csv --column user_id=userId --column item_id=movieId

    Example: recsys check shop.toml --refused refused.csv

    Example: recsys check --split train.csv test.csv
    """
    from recsys.data.card import data_card
    from recsys.data.ids import describe_ids
    from recsys.data.reading.read import read_tables_with_bad_rows
    from recsys.data.splitting.strategies import ByFiles
    from recsys.errors import ConfigError, InputError
    from recsys.locations import local_paths
    from recsys.replacing import has_first_line, require_output_path, require_replaceable_file

    all_overrides = [
        *reading_overrides(columns, file_format, delimiter, encoding, time_unit),
        *table_overrides(items, users),
        *(overrides or ()),
    ]
    if split:
        settings = config_of(events or split[0], all_overrides)
        audit_of_files = audit_split(*split, settings.data.reading)
        if as_json:
            print(json.dumps(audit_of_files.as_dict(), ensure_ascii=False))
        else:
            print_audit(audit_of_files)
        audit_of_files.require_no_leaks()
        return
    if not events:
        raise ConfigError("recsys check: name a file of events or a config, or a split: --split TRAIN TEST.")
    settings = config_of(events, all_overrides)
    data = settings.data
    if refused:
        require_output_path(refused, "--refused")
        # A path that ends in ".." names a folder and is refused below, so no folder is made for it.
        if refused.name != "..":
            make_folder(refused.parent, "--refused")
        is_ours = has_first_line("file,line,reason,text")
        require_replaceable_file(refused, is_ours, "--refused", local_paths(settings.sources))
    tables = read_tables_with_bad_rows(settings.events, data.items, data.users, data.reading)
    refusals = tables.refusals
    if refused:
        with write_errors_explained(refused, "--refused"):
            refusals.write_csv(refused)
    effect = None
    if len(tables.log):
        facts = data_card(tables) | {"ids": describe_ids(tables.log, tables.items)}
        effect = measure_order_of_log(tables.log, settings.weigh)
    else:
        facts = {"events": 0, "refused": {"total": refusals.refused, "by_reason": refusals.counts}}
    audit = None
    if isinstance(settings.split, ByFiles) and not tables.over_share(data.reading):
        audit = audit_split(settings.split.train, settings.split.test, data.reading)
    if as_json:
        if effect:
            facts |= {"order": effect.as_dict()}
        if audit:
            facts |= {"split": audit.as_dict()}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        ids = facts.get("ids", {})
        for name, value in ({name: value for name, value in facts.items() if name != "ids"} | ids).items():
            # Rows of side tables with the same id are not repeated events.
            label = {"exact_duplicates": "equal rows", "duplicates": "merged side rows"}.get(name, name)
            text = format_value(value)
            if name == "busiest_users" and not value["users"]:
                text = f"none above {value['more_than']:,.0f} events"
            out.print(f"{label.replace('_', ' '):>22}  {text}")
        if effect:
            out.print(f"{'order':>22}  {effect}")
        if audit:
            print_audit(audit)
    # The card comes first: it is what shows why so many rows are refused.
    try:
        tables.require_few_refused(data.reading)
    except InputError as error:
        raise InputError(f"a run would stop here: {error}") from None
    if audit:
        audit.require_no_leaks()


def measure_order_of_log(log: pd.DataFrame, weighting: WeightSettings) -> OrderEffect | None:
    """Measure whether the order of events matters, on the events of a sample of users.

    The sample has :data:`MOST_USERS_FOR_ORDER` users, or all if there are fewer. The result is None
    if the log has too few events or no times.

    Args:
        log: the accepted events; user and item ids are categorical.
        weighting: how events are weighted.
    """
    import numpy as np

    from recsys.data.weigh import aggregate_events, weigh_events
    from recsys.models.sequential.order_effect import measure_order
    from recsys.schema import ITEM, TIME, USER
    from recsys.types import IdMap

    if TIME not in log:
        return None
    codes = log[USER].cat.codes.to_numpy()
    users = len(log[USER].cat.categories)
    if users > MOST_USERS_FOR_ORDER:
        sample = np.random.default_rng(0).permutation(users)[:MOST_USERS_FOR_ORDER]
        log = log[np.isin(codes, sample)]
    weighed = weigh_events(log, weighting)
    pairs = aggregate_events(weighed, weighting.aggregate, IdMap.from_ids(weighed[USER]), IdMap.from_ids(weighed[ITEM]))
    return measure_order(pairs)


@dataclass(frozen=True)
class SplitAudit:
    """The audit of a split that is given as files.

    Attributes:
        train, test: the names of the files.
        facts: the result of :func:`recsys.data.splitting.leaks.split_overview`.
        leaks: the result of :func:`recsys.data.splitting.leaks.find_leaks`.
    """

    train: str
    test: str
    facts: dict[str, Any]
    leaks: list[Finding]

    def as_dict(self) -> dict[str, Any]:
        """Return the audit as a dict for JSON, with the keys ``about`` and ``leaks``."""
        return {"about": self.facts, "leaks": [vars(leak) for leak in self.leaks]}

    def require_no_leaks(self) -> None:
        """Check that the split has no leaks.

        Raises:
            GateFired: it has leaks. The message names their kinds.
        """
        from recsys.errors import GateFired

        if self.leaks:
            kinds = ", ".join(dict.fromkeys(leak.leak for leak in self.leaks))
            raise GateFired(f"{self.train} contains what only {self.test} should: {kinds}.")


def audit_split(train: str, test: str, settings: ReadSettings) -> SplitAudit:
    """Read the train and the test table of a split, and audit them for leaks.

    Args:
        train, test: the locations of the tables.
        settings: how they are read.

    Raises:
        InputError: a table cannot be read, or too many of its rows are refused.
    """
    from recsys.data.reading.read import read_all_columns
    from recsys.data.splitting.leaks import find_leaks, split_overview
    from recsys.schema import ITEM, USER, unify_ids

    train_table = read_all_columns(train, settings)[0]
    test_table = read_all_columns(test, settings)[0]
    for key in (USER, ITEM):
        train_table[key], test_table[key] = unify_ids(train_table[key], test_table[key])
    return SplitAudit(train, test, split_overview(train_table, test_table), find_leaks(train_table, test_table))


def print_audit(audit: SplitAudit) -> None:
    """Print the audit of a split as text: the facts, then one line per leak."""
    for name, value in audit.facts.items():
        out.print(f"{name.replace('_', ' '):>26}  {format_value(value)}")
    out.print(f"{len(audit.leaks)} leaks found:" if audit.leaks else "no leaks found")
    for leak in audit.leaks:
        out.print(f"{leak.leak:>26}  {leak.message}")


def format_value(value: object) -> str:
    """Return a value of a data card as readable text.

    Whole numbers get separators of thousands, and other numbers four significant digits. An empty
    dict or list is "none".

    >>> format_value({"users": 1200, "share": 0.25})
    'users: 1,200, share: 0.25'
    """
    if isinstance(value, dict):
        parts = [f"{key.replace('_', ' ')}: {format_value(item)}" for key, item in value.items()]
        return ", ".join(parts) or "none"
    if isinstance(value, list):
        return " … ".join(map(format_value, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
