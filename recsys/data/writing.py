"""Write tables to files in pieces; a file gets its name only when all of it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from recsys.errors import ConfigError, InputError


@contextmanager
def open_appenders(paths: dict[str, Path], format: str) -> Iterator[dict[str, Callable[[pd.DataFrame], None]]]:
    """Yield, for each named path, a function that appends a frame; if the block fails, no file is
    left.

    Args:
        format: csv or parquet. All frames of one file have the same columns and dtypes. In CSV,
            text is quoted only in a file that has a comma, a quote or a line end in the text of its
            first frame.

    Raises:
        ConfigError: another format.
        InputError: the folder cannot be written.
    """
    if format not in ("csv", "parquet"):
        raise ConfigError(f"format {format!r}: a table is written as csv or parquet.")
    parts = {path: path.with_name(f".{path.name}.part") for path in paths.values()}
    try:
        for path in parts:
            path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            yield {name: _make_appender(files, parts[path], format) for name, path in paths.items()}
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        raise InputError(f"{error.filename or next(iter(parts))}: cannot be written: {error.strerror}.") from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _make_appender(files: ExitStack, part: Path, format: str) -> Callable[[pd.DataFrame], None]:
    writers: list[Any] = []

    def append(frame: pd.DataFrame) -> None:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if not writers:
            if format == "csv":
                # With "needed", Arrow quotes every text, even one without a comma, so it is used
                # only if it must be.
                quoting_style = "none"
                if _needs_quotes(frame):
                    quoting_style = "needed"
                quoting = pa.csv.WriteOptions(quoting_style=quoting_style)
                writers.append(pa.csv.CSVWriter(part, table.schema, write_options=quoting))
            else:
                writers.append(pa.parquet.ParquetWriter(part, table.schema))
            files.enter_context(writers[0])
        writers[0].write_table(table)

    return append


def _needs_quotes(frame: pd.DataFrame) -> bool:
    text = frame.select_dtypes("object").astype(str)
    return any(text[column].str.contains('[,"\r\n]', regex=True).any() for column in text)
