"""Bytes -> raw columns, before any rule about their contents."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from recsys.data.columnar import Raw, choose, read_parquet, require_ids
from recsys.data.validate import NUMBER, code, refuse
from recsys.errors import InputError
from recsys.schema import EVENTS

if TYPE_CHECKING:
    from recsys.data.read import Reading

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


def read_raw(
    source: Source,
    file_format: str,
    wanted: dict[str, str],
    reading: Reading,
    *,
    everything: bool = False,
    careful: bool = False,
) -> Raw:
    """Read the ``wanted`` columns (ours -> theirs) that exist, renamed to ours; ``everything``: all others too.

    Raises:
        InputError: unreadable, truncated, empty, of another layout, or with the wrong delimiter.
    """
    kind = source.format() if file_format == "auto" else file_format
    try:
        if kind == "parquet":
            return read_parquet(source.path, str(source), wanted, everything)
        if kind == "jsonl":
            return _jsonl(source, wanted, reading, everything)
        delimiter = reading.delimiter or ("\t" if kind == "tsv" else ",")
        names, skip = header(source, delimiter, wanted, reading)
        wanted = choose(names, wanted)
        if not careful:
            fast = _fast_csv(source, delimiter, names, skip, wanted, reading)
            if fast:
                return fast
        return _careful_csv(source, delimiter, names, skip, wanted, reading, everything)
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise InputError(f"{source}: the archive is damaged or cut short ({error}). Fetch it again.") from error
    except UnicodeError as error:
        raise InputError(f"{source}: not text in [data] encoding = {reading.encoding!r} ({error}).") from error
    except (IsADirectoryError, PermissionError, FileNotFoundError) as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}.") from error


def _lines(source: Source, reading: Reading) -> Iterator[str]:
    """Yield text lines; bytes of another encoding become lone surrogates, which validation refuses."""
    stream = source.open()
    start = stream.read(2)
    stream.close()
    utf8 = reading.encoding.lower() in ("utf-8", "utf8")
    if utf8 and start in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{source}: this is UTF-16. Save it as UTF-8, or set [data] encoding = 'utf-16'.")
    encoding = "utf-8-sig" if utf8 else reading.encoding
    with io.TextIOWrapper(source.open(), encoding=encoding, errors="surrogateescape", newline="") as text:
        yield from text


def _rows(source: Source, delimiter: str, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """Yield (first physical line from 1, fields) of every row that is not blank.

    Raises:
        InputError: a quote that is never closed, which would swallow the rest of the file.
    """
    lines: list[str] = []  # of the row that is being read

    def remembered() -> Iterator[str]:
        for text in _lines(source, reading):
            lines.append(text)
            yield text

    reader = csv.reader(remembered(), delimiter=delimiter)
    first = 1
    try:
        for fields in reader:
            if lines[0].count('"') % 2 and len(lines) > 1:  # it went on over line ends: did it end, or the file?
                _require_closed(lines, delimiter)
            if fields:
                yield first, fields
            first = reader.line_num + 1
            lines.clear()
    except csv.Error as error:
        raise InputError(f"{source}, line {first}: {error}. Check the quotes and [data] delimiter.") from error


def _require_closed(lines: list[str], delimiter: str) -> None:
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "end of data" in str(error):
            raise csv.Error("a quote is opened here and never closed") from None


def header(source: Source, delimiter: str, wanted: dict[str, str], reading: Reading) -> tuple[list[str], int]:
    """Return the column names, and 1 when the first row holds them, else 0 (names are then positions)."""
    first = next(_rows(source, delimiter, reading), None)
    if first is None:
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    fields = first[1]
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
    require_ids(str(source), wanted, names)
    return names, skip


class _Counted(io.RawIOBase):
    """A stream that counts the line ends and the quotes that pass through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.lines, self.quotes, self._ended = stream, 0, 0, True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self.lines += block.count(b"\n")
        self.quotes += block.count(b'"')
        if block:
            self._ended = block.endswith(b"\n")
        elif not self._ended:
            self.lines, self._ended = self.lines + 1, True
        return block

    def readable(self) -> bool:
        return True


def _fast_csv(
    source: Source, delimiter: str, names: list[str], skip: int, wanted: dict[str, str], reading: Reading
) -> Raw | None:
    """Read a clean UTF-8 file with pyarrow; None when anything about it is odd."""
    if reading.encoding.lower() not in ("utf-8", "utf8") or len(set(names)) < len(names):
        return None
    present = {theirs: ours for ours, theirs in wanted.items() if theirs in names}
    types = {theirs: _type(ours, theirs, names, skip, source, delimiter, reading) for theirs, ours in present.items()}
    try:
        with source.open() as stream:
            counted = _Counted(stream)
            table = pa.csv.read_csv(
                pa.PythonFile(counted, mode="r"),
                read_options=pa.csv.ReadOptions(column_names=names, skip_rows_after_names=skip, block_size=1 << 24),
                parse_options=pa.csv.ParseOptions(delimiter=delimiter),
                convert_options=pa.csv.ConvertOptions(
                    column_types=types, include_columns=list(present), null_values=[], strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid:
        return None
    if counted.quotes and len(table) + skip != counted.lines:  # a row of many lines: or is a quote never closed?
        return None
    why = np.zeros(len(table), dtype=np.int8)
    columns = {present[name]: column for name, column in zip(table.column_names, table.columns, strict=True)}
    del table  # each column is given back as soon as pandas has it
    frame = pd.DataFrame({ours: columns.pop(ours).unify_dictionaries().to_pandas() for ours in present.values()})
    return Raw(frame, why, str(source), lambda row: row, lambda row: "", fast=True)


def _type(
    ours: str, theirs: str, names: list[str], skip: int, source: Source, delimiter: str, reading: Reading
) -> pa.DataType:
    """Return float64 for a column of numbers (as the first row has it), else text, each distinct text held once."""
    if ours in ("value", "timestamp"):
        fields = next(islice(_rows(source, delimiter, reading), skip, None), (0, []))[1]
        place = names.index(theirs)
        if place < len(fields) and re.fullmatch(NUMBER, fields[place]):
            return pa.float64()
    return pa.dictionary(pa.int32(), pa.string())


def _careful_csv(
    source: Source,
    delimiter: str,
    names: list[str],
    skip: int,
    wanted: dict[str, str],
    reading: Reading,
    everything: bool,
) -> Raw:
    rows = list(_rows(source, delimiter, reading))[skip:]
    places = {ours: names.index(theirs) for ours, theirs in wanted.items() if theirs in names}
    if everything:
        places |= {name: place for place, name in enumerate(names) if name not in wanted.values()}
    fits = np.array([len(fields) == len(names) for _, fields in rows], dtype=bool)
    columns = {
        ours: pd.Series([fields[place] if place < len(fields) else "" for _, fields in rows], dtype=object)
        for ours, place in places.items()
    }
    why = np.where(fits, 0, code("wrong column count")).astype(np.int8)
    return Raw(
        pd.DataFrame(columns),
        why,
        str(source),
        line=lambda row: rows[row][0],
        text=lambda row: delimiter.join(rows[row][1]),
    )


def _jsonl(source: Source, wanted: dict[str, str], reading: Reading, everything: bool) -> Raw:
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
    why = np.array([code("not a JSON object") if record is None else 0 for record in records], dtype=np.int8)
    for ours, theirs in chosen.items():
        if ours.endswith("_id"):
            odd = np.array([not _is_id(record.get(theirs)) if record else False for record in records])
            refuse(why, odd, "id is no text or integer")
    table = pd.DataFrame(columns)
    return Raw(table, why, str(source), line=lambda row: lines[row][0], text=lambda row: lines[row][1])


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
