"""Arguments and options that several verbs share."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.errors import ConfigError, describe_invalid_value
from recsys.locations import parse_location

if TYPE_CHECKING:
    from recsys.config import Config

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
"""The option ``--json``."""

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the config: --set recommend.k=20 (repeatable)."),
]
"""The option ``--set``."""


def run_argument(help_text: str) -> Any:
    """Return the argument of a verb for run folders: a path, or a URI such as s3://bucket/run.

    Typer has no unions, so parameters with this argument are declared as a Path. Their value is a
    :data:`recsys.locations.Location`.
    """
    return typer.Argument(help=help_text, parser=parse_location, metavar="RUN")


RunOrBundle = Annotated[Path, run_argument("A run folder of `recsys run`, or a bundle of one: a path or a URI.")]
"""The argument for a run folder or a bundle."""

ModelName = Annotated[
    str | None,
    typer.Option("--model", help="Which model of the run. Default: the pick of the run, the best by its first metric."),
]
"""The option ``--model`` of the verbs that use one saved model."""


def require_finite(value: float | None) -> float | None:
    """Return the number of an option unchanged, or None if the option is not given.

    Raises:
        typer.BadParameter: the number is NaN or infinite. No option has a meaning for these.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"must be a finite number (it is {value})")
    return value


TableOut = Annotated[
    Path | None,
    typer.Option("--out", help="Write the table to this CSV file instead of printing it."),
]


def _allow_own_models(context: typer.Context, is_given: bool) -> bool:
    """Allow classes of the user's own until the command ends, if the option is given."""
    if is_given:
        from recsys.models.own_model import allow_own_models

        context.with_resource(allow_own_models())
    return is_given


OwnModels = Annotated[
    bool,
    typer.Option(
        "--own-models",
        callback=_allow_own_models,
        help="Allow models named package.module:Class. Their code is run, so allow only code that you trust.",
    ),
]

Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="A column that has another name in the file, OURS=THEIRS: user_id=uid (repeatable)."),
]

FileFormat = Annotated[
    str | None,
    typer.Option(
        "--format", help="The file format: csv, tsv, jsonl or parquet. Default: by the ending of the file name."
    ),
]

Delimiter = Annotated[str | None, typer.Option("--delimiter", help="The text between fields, such as ';' or '::'.")]

Encoding = Annotated[str | None, typer.Option("--encoding", help="The encoding of text files. Default: utf-8.")]

TimeUnit = Annotated[
    str | None, typer.Option("--time-unit", help="The unit of timestamps: s, ms, us, ns, yyyymmdd or iso.")
]

Items = Annotated[str | None, typer.Option("--items", help="The items table.")]

Users = Annotated[str | None, typer.Option("--users", help="The users table.")]


def reading_overrides(
    columns: list[str] | None = None,
    file_format: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    time_unit: str | None = None,
) -> list[str]:
    r"""Return overrides of ``[data]`` for the options on reading files.

    An override is a text such as ``data.format="csv"``. Options that are not given have no
    override.

    Args:
        columns: values of ``--column``, each OURS=THEIRS.
        file_format, delimiter, encoding, time_unit: the values of these options. ``\t`` in a
            delimiter becomes a tab.

    Raises:
        ConfigError: a value of ``--column`` is not of the form OURS=THEIRS, or values are not
            allowed. The message names the options of all these.
    """
    overrides = []
    problems = []
    for pair in columns or ():
        canonical, equals, source = pair.partition("=")
        if not equals or not canonical:
            raise ConfigError(f"--column {pair}: write it as OURS=THEIRS, for example user_id=userId.")
        problems += _problems_of("--column", "columns", {canonical: source})
        overrides.append(f"data.columns.{canonical}={json.dumps(source, ensure_ascii=False)}")
    if delimiter:
        # A shell passes '\t' on as it is written.
        delimiter = delimiter.replace("\\t", "\t")
    values = {"format": file_format, "delimiter": delimiter, "encoding": encoding, "time_unit": time_unit}
    for key, value in values.items():
        if value:
            problems += _problems_of(f"--{key.replace('_', '-')}", key, value)
            overrides.append(f"data.{key}={json.dumps(value, ensure_ascii=False)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return overrides


def _problems_of(option: str, key: str, value: object) -> list[str]:
    """Return one line with what is wrong with the value of an option on reading files, if anything is."""
    from pydantic import ValidationError

    from recsys.data.reading.read_settings import ReadSettings

    try:
        ReadSettings.model_validate({key: value})
    except ValidationError as error:
        return [f"{option}: {describe_invalid_value(error.errors())}"]
    return []


def table_overrides(items: str | None, users: str | None = None) -> list[str]:
    """Return overrides of ``[data]`` for the given tables, such as ``data.items="items.csv"``.

    A table that is None has no override.
    """
    tables = {"items": items, "users": users}
    return [f"data.{key}={json.dumps(path, ensure_ascii=False)}" for key, path in tables.items() if path]


def config_of(location: str, overrides: list[str]) -> Config:
    """Return the config in a TOML file, or the default config for a log of events.

    Args:
        location: a path that ends in ``.toml`` is read as a config. Anything else is the location
            of a log, which is not opened here.
        overrides: keys to set, such as ``recommend.k=20``.

    Raises:
        ConfigError: the TOML file cannot be read, an override is not valid, or keys are unknown,
            missing, or have values that are not allowed. The message names these and the wrong
            parameters of models.
    """
    from recsys.config import config_for_log, load_config
    from recsys.flow import model_errors_included

    with model_errors_included():
        if Path(location).suffix == ".toml":
            return load_config(location, overrides)
        return config_for_log(location, overrides)
