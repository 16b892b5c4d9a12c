"""The verb that chooses the path: route."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli.console import Json, out
from recsys.errors import ConfigError, suggest_nearest

if TYPE_CHECKING:
    from recsys.route import LogStatistics


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("route")(route)


def route(
    events: Annotated[Path | None, typer.Argument(help="A log, or a config (.toml) that names one.")] = None,
    items: Annotated[Path | None, typer.Option(help="The items table.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Instead of a log: events=3e8,users=3e7,items=50000[,attributes=4].")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=1, help="MiB to plan for; unset: what this machine has left.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which path and which models suit a log, and why.

    Example: recsys route events.csv --items items.csv
    """
    from recsys.config import Config, DataSettings, load_config
    from recsys.route import choose_route, measure_log

    if (events is None) == (size is None):
        raise ConfigError("name a log (or a config), or give its --size.")
    if size is not None:
        found = _of_size(size)
    else:
        of_log = Config(data=DataSettings(events=str(events), items=str(items) if items else None))
        found = measure_log(load_config(events) if events and events.suffix == ".toml" else of_log)
    chosen = choose_route(found, memory)
    if as_json:
        print(json.dumps(chosen.as_dict()))
        return
    out.print(f"path: {chosen.engine}; models: {', '.join(chosen.models)}")
    for sentence in chosen.why:
        out.print(sentence, markup=False)


def _of_size(text: str) -> LogStatistics:
    from recsys.route import LogStatistics

    known = ("events", "users", "items", "attributes")
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in known:
            raise ConfigError(f"--size {part}: no such figure.{suggest_nearest(name, known)}")
        try:
            values[name] = int(float(number))
        except (ValueError, OverflowError):
            raise ConfigError(f"--size {part}: '{number}' is no number.") from None
    if missing := [name for name in known[:3] if values.get(name, 0) < 1]:
        raise ConfigError(f"--size {text}: also give {', '.join(missing)}, each at least 1.")
    return LogStatistics(**values)
