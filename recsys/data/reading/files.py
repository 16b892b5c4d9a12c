"""Bytes -> raw columns, before any rule about their contents."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pandas as pd

from recsys.data.reading.columnar import RawChunk, choose_columns, read_parquet, require_id_columns
from recsys.data.reading.lines import EndlessRowError, RowBlock, read_row_blocks
from recsys.data.reading.validate import parse_numbers, reason_code, refuse_rows
from recsys.errors import InputError
from recsys.schema import EVENTS, TIME, VALUE

if TYPE_CHECKING:
    from recsys.data.reading.read import ReadSettings

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Source:
    """A file, a folder of Parquet parts, or a member of a zip archive."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The file name that tells the format."""
        return self.member or self.path.name

    def open(self) -> BinaryIO:
        """Return the unpacked bytes as a stream."""
        if self.member:
            return zipfile.ZipFile(self.path).open(self.member)  # type: ignore[return-value]
        if self.path.suffix == ".gz":
            return gzip.open(self.path)  # type: ignore[return-value]
        return self.path.open("rb")

    def format(self) -> str:
        """Return the format that the name tells.

        Raises:
            InputError: nothing there, or an unknown ending.
        """
        if not self.path.exists():
            raise InputError(f"{self}: no such file or folder. Paths are relative to the folder you run in.")
        if self.path.is_dir():
            if any(self.path.rglob("*.parquet")):
                return "parquet"
            raise InputError(f"{self}: a folder without .parquet files and without a MovieLens layout.")
        suffix = Path(self.name.removesuffix(".gz")).suffix.lower()
        if suffix not in SUFFIXES:
            raise InputError(f"{self}: cannot tell the format by the name. Set [data] format.")
        return SUFFIXES[suffix]


def read_chunks(
    source: Source, file_format: str, wanted: dict[str, str], reading: ReadSettings, *, everything: bool = False
) -> Iterator[RawChunk]:
    """Read the ``wanted`` columns (ours -> theirs) that exist, renamed to ours, a piece of the file at a time.

    ``everything``: all other columns too, and all as text where the file is text.

    Raises:
        InputError: unreadable, truncated, empty, of another layout, or with the wrong delimiter.
    """
    kind = source.format() if file_format == "auto" else file_format
    try:
        if kind == "parquet":
            yield from read_parquet(source.path, str(source), wanted, everything)
        elif kind == "jsonl":
            yield _jsonl(source, wanted, reading, everything)
        else:
            yield from _csv(source, reading.delimiter or ("\t" if kind == "tsv" else ","), wanted, reading, everything)
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise InputError(f"{source}: the archive is damaged or cut short ({error}). Fetch it again.") from error
    except UnicodeError as error:
        raise InputError(f"{source}: not text in [data] encoding = {reading.encoding!r} ({error}).") from error
    except (IsADirectoryError, PermissionError, FileNotFoundError) as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}.") from error


def is_utf8(reading: ReadSettings) -> bool:
    """Return whether files are read as UTF-8."""
    return codecs.lookup(reading.encoding).name == "utf-8"


def _lines(source: Source, reading: ReadSettings) -> Iterator[str]:
    """Yield text lines; bytes of another encoding become lone surrogates, which validation refuses."""
    stream = source.open()
    start = stream.read(2)
    stream.close()
    utf8 = is_utf8(reading)
    if utf8 and start in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{source}: this is UTF-16. Save it as UTF-8, or set [data] encoding = 'utf-16'.")
    encoding = "utf-8-sig" if utf8 else reading.encoding
    with io.TextIOWrapper(source.open(), encoding=encoding, errors="surrogateescape", newline="") as text:
        yield from text


def _first_row(source: Source, delimiter: str, reading: ReadSettings) -> list[str] | None:
    """Return the fields of the first row that is not blank."""
    try:
        return next((fields for fields in csv.reader(_lines(source, reading), delimiter=delimiter) if fields), None)
    except csv.Error as error:
        raise InputError(f"{source}, line 1: {error}. Check the quotes and [data] delimiter.") from error


def read_header(source: Source, delimiter: str, wanted: dict[str, str], reading: ReadSettings) -> tuple[list[str], int]:
    """Return the column names, and 1 when the first row holds them, else 0 (names are then positions)."""
    fields = _first_row(source, delimiter, reading)
    if fields is None:
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    positions = bool(reading.columns) and all(
        name.isdigit() and name not in fields for name in reading.columns.values()
    )
    if reading.header is False or (reading.header is None and positions):
        names, skip = [str(place) for place in range(len(fields))], 0
    else:
        names, skip = fields, 1
    repeated = {name for name in names if names.count(name) > 1 and name in wanted.values()}
    if repeated:
        raise InputError(f"{source}: the header names {', '.join(sorted(repeated))} twice. Rename one.")
    if len(fields) == 1 and len([1 for name in EVENTS.required if name in wanted]) > 1:
        better = [d for d in (",", ";", "\t", "|") if d != delimiter and d in fields[0]]
        hint = f" It looks separated by {better[0]!r}: set [data] delimiter." if better else ""
        raise InputError(f"{source}: one column only ({fields[0][:60]!r}), when split by {delimiter!r}.{hint}")
    require_id_columns(str(source), wanted, names)
    return names, skip


def _csv(
    source: Source, delimiter: str, wanted: dict[str, str], reading: ReadSettings, everything: bool
) -> Iterator[RawChunk]:
    names, skip = read_header(source, delimiter, wanted, reading)
    places = {ours: names.index(theirs) for ours, theirs in choose_columns(names, wanted).items()}
    if everything:
        places |= {name: place for place, name in enumerate(names) if place not in places.values()}
    asked = sorted(set(places.values()))
    stream: Any = source.open() if is_utf8(reading) else _Recoded(source.open(), reading.encoding)
    try:
        with stream:
            for block in read_row_blocks(stream, delimiter, len(names), asked, skip):
                columns = {
                    ours: _text_column(block, asked.index(place))
                    if everything
                    else _column(block, asked.index(place), ours, reading)
                    for ours, place in places.items()
                }
                why = np.where(block.whole, 0, reason_code("wrong column count")).astype(np.int8)
                table = pd.DataFrame(columns, copy=False)
                yield RawChunk(table, why, str(source), _line_of(block), _text_of(block))
    except EndlessRowError as error:
        raise InputError(f"{source}, line {error.line}: {error.why}. Check the quotes and [data] delimiter.") from error


def _line_of(block: RowBlock) -> Callable[[int], int]:
    return lambda row: int(block.lines[row])


def _text_of(block: RowBlock) -> Callable[[int], str]:
    return lambda row: block.delimiter.join(block.fields(row))


def _text_column(block: RowBlock, column: int) -> pd.Series:
    return block.text(column).astype(object)


def _column(block: RowBlock, column: int, name: str, reading: ReadSettings) -> pd.Series:
    """Return integers, where all ids of the block are canonical; numbers of values and times; else text."""
    if name.endswith("_id"):
        integers = block.integers(column)
        return block.text(column) if integers is None else pd.Series(integers, copy=False)
    if name == VALUE or (name == TIME and reading.time_unit != "iso"):
        found, odd = block.numbers(column)
        if name == TIME and len(odd) == len(found):
            return _text_column(block, column)
        if len(odd):
            found[odd], spelt_out = parse_numbers(pd.Series([block.cell(column, row) for row in odd], dtype=object))
            if name == VALUE:
                found[odd[spelt_out]] = np.inf  # not finite, for both reasons to be as good as one
        return pd.Series(found, copy=False)
    return block.text(column)


class _Recoded(io.RawIOBase):
    """A stream of text in some encoding, as UTF-8; bytes that are not of it stay invalid."""

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


def _jsonl(source: Source, wanted: dict[str, str], reading: ReadSettings, everything: bool) -> RawChunk:
    lines, records = [], []
    for number, line in enumerate(_lines(source, reading), start=1):
        if line.strip():
            lines.append((number, line.rstrip("\r\n")))
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            records.append(record if isinstance(record, dict) else None)
    if not records:
        raise InputError(f"{source}: no rows: the file is empty.")
    names = dict.fromkeys(name for record in records if record for name in record)
    chosen = {ours: theirs for ours, theirs in wanted.items() if theirs in names}
    if everything:
        chosen |= {name: name for name in names if name not in wanted.values()}
    columns = {
        ours: pd.Series([_text(record.get(theirs)) if record else None for record in records], dtype=object)
        for ours, theirs in chosen.items()
    }
    why = np.array([reason_code("not a JSON object") if record is None else 0 for record in records], dtype=np.int8)
    for ours, theirs in chosen.items():
        if ours.endswith("_id"):
            odd = np.array([not _is_id(record.get(theirs)) if record else False for record in records])
            refuse_rows(why, odd, "id is no text or integer")
    table = pd.DataFrame(columns)
    return RawChunk(table, why, str(source), line=lambda row: lines[row][0], text=lambda row: lines[row][1])


def _is_id(value: object) -> bool:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return value is None or whole or (isinstance(value, str | int) and not isinstance(value, bool))


def _text(value: object) -> str | None:
    """Return a JSON value as the text that a CSV cell would hold; lists are joined by ``|``, 3.0 is 3."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, list):
        return "|".join(map(str, value))
    return None if value is None else str(value)
