"""Write tables to files in pieces, and make the folder of a synthetic world."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from recsys import run_files
from recsys.atomic_writing import new_file, new_folder
from recsys.errors import ConfigError, InputError
from recsys.fingerprint import fingerprint
from recsys.replacing import KIND, is_unfinished_world, require_replaceable_world, resolve_target


@contextmanager
def open_appenders(paths: dict[str, Path], format: str) -> Iterator[dict[str, Callable[[pd.DataFrame], None]]]:
    """Yield a dict: name -> a function that appends a DataFrame to the file of this name.

    Existing files are replaced. If the block raises an error, no file is written and existing files
    stay as they are.

    Args:
        paths: name -> path of the file. Missing folders are made.
        format: ``csv`` or ``parquet``. All frames of one file have the same columns and dtypes.
            Each file needs at least one frame. In CSV, the texts of a frame are quoted only if
            one of them has a comma, a quote or a line end.

    Raises:
        ConfigError: the format is another one.
        InputError: a file cannot be written, or has no frame.
    """
    if format not in ("csv", "parquet"):
        raise ConfigError(f"format {format!r}: a table is written as csv or parquet.")
    try:
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as parts, ExitStack() as files:
            # The files are closed before they get their names.
            tables = {
                name: _AppendedTable(parts.enter_context(new_file(path)), format, files) for name, path in paths.items()
            }
            yield {name: table.append for name, table in tables.items()}
            for name, path in paths.items():
                if tables[name].is_empty:
                    raise InputError(f"{path}: cannot be written: there are no rows, so its columns are not known.")
    except OSError as error:
        path = error.filename or next(iter(paths.values()))
        raise InputError(f"{path}: cannot be written: {error.strerror or error}.") from error


@contextmanager
def new_world_folder(target: str | Path) -> Iterator[Path]:
    """Yield an empty folder for the tables of a synthetic world, and move it to ``target`` after
    the block.

    If the block raises an error, ``target`` is unchanged. A file ``world.json`` with the
    fingerprints of all files is added. By it, recsys later recognises the folder as its own.

    Raises:
        RunFolderError: ``target`` may not be replaced, because it has anything but an unchanged
            synthetic world, or is inside a run or a bundle.
        InputError: the folder cannot be written.
    """
    try:
        with new_folder(resolve_target(target), require_replaceable_world, is_unfinished_world) as folder:
            yield folder
            sums = {path.name: fingerprint(path) for path in sorted(folder.iterdir())}
            card = {KIND: "world", "files": sums}
            (folder / run_files.WORLD_CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error}. Choose another folder.") from error


class _AppendedTable:
    """A file to which frames are appended. It is opened for the first frame.

    Args:
        part: the path of the file.
        format: ``csv`` or ``parquet``.
        files: closes the file.
    """

    def __init__(self, part: Path, format: str, files: ExitStack) -> None:
        self._part = part
        self._format = format
        self._files = files
        self._file: Any = None

    @property
    def is_empty(self) -> bool:
        """Whether no frame was appended."""
        return self._file is None

    def append(self, frame: pd.DataFrame) -> None:
        """Append a frame."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        is_first = self.is_empty
        if self._format == "csv":
            if is_first:
                self._file = self._files.enter_context(pa.OSFile(str(self._part), "wb"))
            # With "needed", Arrow quotes every text, even one without a comma, so it is used only
            # if it must be.
            quoting_style = "none"
            if _needs_quotes(frame):
                quoting_style = "needed"
            options = pa.csv.WriteOptions(include_header=is_first, quoting_style=quoting_style)
            pa.csv.write_csv(table, self._file, options)
            return
        if is_first:
            self._file = self._files.enter_context(pa.parquet.ParquetWriter(self._part, table.schema))
        self._file.write_table(table)


def _needs_quotes(frame: pd.DataFrame) -> bool:
    text = frame.select_dtypes("object").astype(str)
    return any(text[column].str.contains('[,"\r\n]', regex=True).any() for column in text)
