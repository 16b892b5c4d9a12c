"""Read files into raw chunks, before any rule about their contents is applied."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from recsys.data.reading.columnar import RawChunk, choose_columns, read_parquet, require_id_columns
from recsys.data.reading.lines import EndlessRowError, RowBlock, read_row_blocks
from recsys.data.reading.read_settings import SUFFIXES, ReadSettings
from recsys.data.reading.validate import parse_numbers, reason_code, refuse_rows
from recsys.errors import InputError
from recsys.schema import EVENTS, TIME, VALUE

csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Source:
    """A file, a folder of Parquet parts, or a member of a zip archive."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        if self.member:
            return f"{self.path}/{self.member}"
        return str(self.path)

    @property
    def name(self) -> str:
        """Return the file name whose suffix tells the format."""
        return self.member or self.path.name

    def open(self) -> BinaryIO:
        """Open the file as a stream of unpacked bytes."""
        if self.member:
            return zipfile.ZipFile(self.path).open(self.member)  # type: ignore[return-value]
        if self.path.suffix == ".gz":
            return gzip.open(self.path)  # type: ignore[return-value]
        return self.path.open("rb")

    def format(self) -> str:
        """Return the format that the suffix of the name tells.

        Raises:
            InputError: no such file or folder, or an unknown suffix.
        """
        if not self.path.exists():
            raise InputError(f"{self}: no such file or folder. Paths are relative to the folder you run in.")
        if self.path.is_dir():
            if any(self.path.rglob("*.parquet")):
                return "parquet"
            raise InputError(f"{self}: a folder without .parquet files and without a MovieLens layout.")
        suffix = Path(self.name.removesuffix(".gz")).suffix.lower()
        if suffix not in SUFFIXES:
            raise InputError(f"{self}: the format cannot be told from the name. Set [data] format.")
        return SUFFIXES[suffix]


def read_chunks(
    source: Source,
    file_format: str,
    mapping: dict[str, str],
    reading: ReadSettings,
    *,
    all_columns: bool = False,
) -> Iterator[RawChunk]:
    """Read the columns of ``mapping`` that exist, under their canonical names, one chunk of the
    file at a time.

    ``mapping``: canonical column -> its name in the file. ``all_columns``: read the other columns
    too, and all of them as text if the file is text.

    Raises:
        InputError: unreadable, truncated, empty, of another layout, or with the wrong delimiter.
    """
    kind = file_format
    if file_format == "auto":
        kind = source.format()
    try:
        yield from READERS[kind](source, mapping, reading, all_columns)
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise InputError(f"{source}: the archive is damaged or cut short ({error}). Fetch it again.") from error
    except UnicodeError as error:
        raise InputError(f"{source}: not text in [data] encoding = {reading.encoding!r} ({error}).") from error
    except (IsADirectoryError, PermissionError, FileNotFoundError) as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}.") from error


def is_utf8(reading: ReadSettings) -> bool:
    """Return whether files are read as UTF-8."""
    return codecs.lookup(reading.encoding).name == "utf-8"


def _text_lines(source: Source, reading: ReadSettings) -> Iterator[str]:
    """Yield text lines. Invalid bytes become lone surrogates, which validation refuses."""
    stream = source.open()
    start = stream.read(2)
    stream.close()
    utf8 = is_utf8(reading)
    if utf8 and start in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{source}: this is UTF-16. Save it as UTF-8, or set [data] encoding = 'utf-16'.")
    encoding = reading.encoding
    if utf8:
        encoding = "utf-8-sig"
    with io.TextIOWrapper(source.open(), encoding=encoding, errors="surrogateescape", newline="") as text:
        yield from text


def _first_row(source: Source, delimiter: str, reading: ReadSettings) -> list[str] | None:
    """Return the fields of the first row that is not blank, or None."""
    try:
        return next(
            (fields for fields in csv.reader(_text_lines(source, reading), delimiter=delimiter) if fields),
            None,
        )
    except csv.Error as error:
        raise InputError(f"{source}, line 1: {error}. Check the quotes and [data] delimiter.") from error


def read_header(
    source: Source, delimiter: str, mapping: dict[str, str], reading: ReadSettings
) -> tuple[list[str], int]:
    """Return the column names and the number of header rows: 1, or 0 if the names are positions."""
    fields = _first_row(source, delimiter, reading)
    if fields is None:
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    positions = bool(reading.columns) and all(
        name.isdigit() and name not in fields for name in reading.columns.values()
    )
    if reading.header is False or (reading.header is None and positions):
        names = [str(position) for position in range(len(fields))]
        skip = 0
    else:
        names = fields
        skip = 1
    repeated = {name for name in names if names.count(name) > 1 and name in mapping.values()}
    if repeated:
        raise InputError(f"{source}: the header names {', '.join(sorted(repeated))} twice. Rename one.")
    if len(fields) == 1 and len([1 for name in EVENTS.required if name in mapping]) > 1:
        candidates = [d for d in (",", ";", "\t", "|") if d != delimiter and d in fields[0]]
        hint = ""
        if candidates:
            hint = f" It looks separated by {candidates[0]!r}: set [data] delimiter."
        raise InputError(f"{source}: one column only ({fields[0][:60]!r}), when split by {delimiter!r}.{hint}")
    require_id_columns(str(source), mapping, names)
    return names, skip


def _read_parquet(
    source: Source, mapping: dict[str, str], reading: ReadSettings, all_columns: bool
) -> Iterator[RawChunk]:
    return read_parquet(source.path, str(source), mapping, all_columns)


def _read_delimited(
    source: Source,
    mapping: dict[str, str],
    reading: ReadSettings,
    all_columns: bool,
    *,
    delimiter: str = ",",
) -> Iterator[RawChunk]:
    """Read delimited text; ``delimiter`` is used where the settings name none."""
    delimiter = reading.delimiter or delimiter
    names, skip = read_header(source, delimiter, mapping, reading)
    positions = {column: names.index(source_name) for column, source_name in choose_columns(names, mapping).items()}
    if all_columns:
        positions |= {name: position for position, name in enumerate(names) if position not in positions.values()}
    selected = sorted(set(positions.values()))
    stream: Any = source.open()
    # The row scanner works on bytes of UTF-8, so text in another encoding is converted on the way.
    if not is_utf8(reading):
        stream = _Recoded(stream, reading.encoding)
    try:
        with stream:
            for block in read_row_blocks(stream, delimiter, len(names), selected, skip):
                columns = {
                    column: _text_column(block, selected.index(position))
                    if all_columns
                    else _typed_column(block, selected.index(position), column, reading)
                    for column, position in positions.items()
                }
                reasons = np.where(block.complete, 0, reason_code("wrong column count")).astype(np.int8)
                table = pd.DataFrame(columns, copy=False)
                yield RawChunk(table, reasons, str(source), _line_of(block), _text_of(block))
    except EndlessRowError as error:
        raise InputError(
            f"{source}, line {error.line}: {error.problem}. Check the quotes and [data] delimiter."
        ) from error


def _line_of(block: RowBlock) -> Callable[[int], int]:
    return lambda row: int(block.lines[row])


def _text_of(block: RowBlock) -> Callable[[int], str]:
    return lambda row: block.delimiter.join(block.row_fields(row))


def _text_column(block: RowBlock, column: int) -> pd.Series:
    return block.text_column(column).astype(object)


def _typed_column(block: RowBlock, column: int, name: str, reading: ReadSettings) -> pd.Series:
    """Return a column as integers (ids that are all canonical), numbers (values and times) or
    text.
    """
    if name.endswith("_id"):
        integers = block.integer_column(column)
        if integers is None:
            return block.text_column(column)
        return pd.Series(integers, copy=False)
    if name == VALUE or (name == TIME and reading.time_unit != "iso"):
        values, unparsed = block.number_column(column)
        if name == TIME and len(unparsed) == len(values):
            return _text_column(block, column)
        if len(unparsed):
            values[unparsed], spelt_out = parse_numbers(
                pd.Series([block.cell_text(column, row) for row in unparsed], dtype=object)
            )
            if name == VALUE:
                # Infinity stands for "nan" too: validation refuses both with the same reason.
                values[unparsed[spelt_out]] = np.inf
        return pd.Series(values, copy=False)
    return block.text_column(column)


class _Recoded(io.RawIOBase):
    """A stream that recodes text of another encoding as UTF-8; invalid bytes stay invalid."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")

    def read(self, size: int = -1) -> bytes:
        while True:
            piece = self._stream.read(size)
            text = self._decoder.decode(piece, final=not piece)
            if text or not piece:
                return text.encode("utf-8", "surrogatepass")

    def close(self) -> None:
        self._stream.close()
        super().close()


def _read_json_lines(
    source: Source, mapping: dict[str, str], reading: ReadSettings, all_columns: bool
) -> Iterator[RawChunk]:
    lines = []
    records = []
    for number, line in enumerate(_text_lines(source, reading), start=1):
        if line.strip():
            lines.append((number, line.rstrip("\r\n")))
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            # A list or a number is valid JSON but not a row, so it is refused like a broken line.
            if not isinstance(record, dict):
                record = None
            records.append(record)
    if not records:
        raise InputError(f"{source}: no rows: the file is empty.")
    names = dict.fromkeys(name for record in records if record for name in record)
    chosen = {column: source_name for column, source_name in mapping.items() if source_name in names}
    if all_columns:
        chosen |= {name: name for name in names if name not in mapping.values()}
    columns = {
        column: pd.Series(
            [_json_text(record.get(source_name)) if record else None for record in records],
            dtype=object,
        )
        for column, source_name in chosen.items()
    }
    is_object = np.array([record is not None for record in records])
    reasons = np.where(is_object, 0, reason_code("not a JSON object")).astype(np.int8)
    for column, source_name in chosen.items():
        if column.endswith("_id"):
            bad_ids = np.array([not _is_id(record.get(source_name)) if record else False for record in records])
            refuse_rows(reasons, bad_ids, "id is neither text nor an integer")
    table = pd.DataFrame(columns)
    yield RawChunk(table, reasons, str(source), line=lambda row: lines[row][0], text=lambda row: lines[row][1])


def _is_id(value: object) -> bool:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return value is None or is_whole or (isinstance(value, str | int) and not isinstance(value, bool))


def _json_text(value: object) -> str | None:
    """Return a JSON value as the text of a CSV cell; lists are joined by ``|``, and 3.0 is 3."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, list):
        return "|".join(map(str, value))
    if value is None:
        return None
    return str(value)


READERS: dict[str, Callable[[Source, dict[str, str], ReadSettings, bool], Iterator[RawChunk]]] = {
    "csv": _read_delimited,
    "tsv": partial(_read_delimited, delimiter="\t"),
    "jsonl": _read_json_lines,
    "parquet": _read_parquet,
}
"""Format -> its reader, called with (source, mapping, settings, all_columns) as :func:`read_chunks`
says.
"""
