"""The verb route: which engine and which models suit a log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli.application import RUNS, app
from recsys.cli.console import out
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Items,
    Json,
    Overrides,
    TimeUnit,
    config_of,
    reading_overrides,
    table_overrides,
)
from recsys.errors import ConfigError, suggest_nearest

if TYPE_CHECKING:
    from recsys.route import LogStatistics

SIZE_NAMES = ("events", "users", "items", "attributes")
"""The numbers that ``--size`` may give."""


@app.command(rich_help_panel=RUNS)
def route(
    events: Annotated[str | None, typer.Argument(help="A file of events, or a config (TOML) that names one.")] = None,
    items: Items = None,
    overrides: Overrides = None,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_unit: TimeUnit = None,
    size: Annotated[
        str | None,
        typer.Option(help="The size of a log that is not here: events=3e8,users=3e7,items=50000[,attributes=4]."),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(min=1, help="MiB of memory to plan for. Default: what is free on this machine."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print which engine and which models suit a log, and why.

    Example: recsys route events.csv --items items.csv
    """
    from recsys.config import require_task_of_lists
    from recsys.route import choose_route, measure_log

    if events is not None and size is None:
        reading = reading_overrides(columns, file_format, delimiter, encoding, time_unit)
        settings = config_of(events, [*reading, *table_overrides(items), *(overrides or ())])
        require_task_of_lists(settings, "recsys route")
        statistics = measure_log(settings)
    elif size is not None and events is None:
        statistics = parse_size(size)
    else:
        raise ConfigError("name a file of events (or a config), or give a --size, but not both.")
    chosen = choose_route(statistics, memory)
    if as_json:
        print(json.dumps(chosen.as_dict()))
        return
    out.print(f"engine: {chosen.engine}; models: {', '.join(chosen.models)}")
    for reason in chosen.reasons:
        out.print(reason)


def parse_size(text: str) -> LogStatistics:
    """Return the size of a log that is written as in ``events=3e8,users=3e7,items=50000``.

    ``attributes=4`` may follow.

    Raises:
        ConfigError: a name is unknown, a value is not a number, or events, users or items are
            missing or less than 1.
    """
    from recsys.route import LogStatistics

    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in SIZE_NAMES:
            raise ConfigError(f"--size {part}: no such number.{suggest_nearest(name, SIZE_NAMES)}")
        try:
            # int alone does not read 3e8.
            values[name] = int(float(number))
        except (ValueError, OverflowError):
            raise ConfigError(f"--size {part}: '{number}' is not a number.") from None
    required = [name for name in SIZE_NAMES if name != "attributes"]
    if missing := [name for name in required if values.get(name, 0) < 1]:
        raise ConfigError(f"--size {text}: also give {', '.join(missing)}, each at least 1.")
    return LogStatistics(**values)
