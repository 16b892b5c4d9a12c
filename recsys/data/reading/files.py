"""Read files into raw chunks, before their contents are checked.

The functions that make chunks of rows of delimited text, and of lines of JSON, work on pieces of
any size. So the executors of Spark call them too.
"""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

from recsys.data.reading.columnar import (
    RawChunk,
    choose_columns,
    read_parquet,
    require_id_columns,
    require_same_columns,
    section_of,
)
from recsys.data.reading.lines import EndlessRowError, RowBlock, has_open_quote, read_row_blocks, split_row
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.sources import Source, open_as_utf8, text_lines
from recsys.data.reading.validate import is_missing, parse_numbers, reason_code, refuse_rows
from recsys.errors import InputError
from recsys.schema import ITEM, RANK, SCORE, TIME, USER, VALUE

USUAL_DELIMITERS = ("::", ",", ";", "\t", "|")
"""The delimiters that messages propose, in the order in which they are looked for."""

JSON_LINES = 1 << 17
"""The number of lines of JSON per chunk."""

MAX_HEADER = 1 << 20
"""The largest number of characters of a header row."""


def read_chunks(
    source: Source, mapping: dict[str, str], reading: ReadSettings, *, all_columns: bool = False
) -> Iterator[RawChunk]:
    """Yield a table in pieces that are not checked yet, with the column names of recsys.

    The columns of ``mapping`` that exist are read. The parts of a folder are read one after
    another.

    Args:
        source: the location of the table.
        mapping: name of a column in recsys (canonical name) -> its name in the file.
        reading: the format and the other settings.
        all_columns: whether to read all other columns too. All columns of a text file are then
            text.

    Raises:
        InputError: the file is unreadable, truncated or empty, or has other columns or another
            delimiter than expected.
    """
    return READERS[source.format(reading)](source, mapping, reading, all_columns)


@contextmanager
def read_errors_explained(source: Source, reading: ReadSettings) -> Iterator[None]:
    """Convert errors of reading a file in a ``with`` block into InputErrors that name the file.

    Args:
        source: the file that the block reads.
        reading: the settings, whose encoding an error message names.

    Raises:
        InputError: an archive is damaged or cut short, text is not in the encoding of the settings,
            or the operating system cannot read the file. Other errors are not converted.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise InputError(f"{source}: the archive is damaged or cut short ({error}). Fetch it again.") from error
    except UnicodeError as error:
        raise InputError(f"{source}: not text in [data] encoding = {reading.encoding!r} ({error}).") from error
    except OSError as error:
        # Arrow reports damaged archives as errors of input without a number.
        if error.errno is None:
            raise InputError(f"{source}: the archive is damaged or cut short ({error}). Fetch it again.") from error
        raise InputError(f"{source}: cannot be read: {error.strerror}.") from error


@dataclass(frozen=True)
class DelimitedLayout:
    """How the rows of a file of delimited text are divided into columns.

    Attributes:
        delimiter: the text between two fields.
        names: all columns of the file, in order.
        skip: the number of header rows, 0 or 1.
        positions: name of a column in the chunk -> its position in the file, from 0.
    """

    delimiter: str
    names: tuple[str, ...]
    skip: int
    positions: dict[str, int]

    @property
    def selected(self) -> list[int]:
        """The positions of the columns that are read, ascending and each once."""
        return sorted(set(self.positions.values()))


def delimited_layouts(
    source: Source, mapping: dict[str, str], reading: ReadSettings, all_columns: bool = False
) -> list[tuple[Source, DelimitedLayout]]:
    """Return the parts of a table of delimited text, each with its layout. Empty parts are left
    out.

    Args:
        source: the location of the table.
        mapping: canonical column -> its name in the file, or its position from 0.
        reading: the settings.
        all_columns: whether the layouts include all other columns too.

    Raises:
        InputError: there are no rows, an id column is missing, two parts have different columns, or
            the delimiter seems wrong.
    """
    delimiter = delimiter_of(source, reading)
    layouts: list[tuple[Source, DelimitedLayout]] = []
    for part in source.parts:
        with read_errors_explained(part, reading):
            fields = _first_row(part, delimiter, reading)
        # Some systems write empty parts, which hold nothing that could be lost.
        if fields is None:
            continue
        names, skip = _name_columns(part, fields, mapping, reading)
        chosen = choose_columns(names, mapping)
        if layouts:
            first, first_layout = layouts[0]
            present = {column for column in first_layout.positions if column in mapping}
            require_same_columns(str(first), present, str(part), chosen, mapping)
        else:
            if section_of(mapping) == "columns":
                require_several_columns(part, fields, delimiter)
            elif not chosen:
                _require_delimiter_of_log(part, fields, delimiter)
            require_id_columns(str(part), mapping, names)
        positions = {column: names.index(name) for column, name in chosen.items()}
        if all_columns:
            positions |= {name: position for position, name in enumerate(names) if position not in positions.values()}
        layouts.append((part, DelimitedLayout(delimiter, tuple(names), skip, positions)))
    if not layouts:
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    return layouts


def column_names(source: Source, reading: ReadSettings) -> list[str]:
    """Return the names of the columns of a text file.

    They are the fields of its first row that is not blank. For JSON lines they are the keys of the
    first line. The result is empty for a file without rows.

    Raises:
        InputError: the file cannot be read.
    """
    with read_errors_explained(source, reading):
        if source.format(reading) == "jsonl":
            first = next((line for line in text_lines(source, reading) if line.strip()), "")
            return list(parse_json_line(first) or ())
        return _first_row(source, delimiter_of(source, reading), reading) or []


def delimiter_of(source: Source, reading: ReadSettings) -> str:
    """Return the delimiter of a file: that of the settings, else tab for ``tsv`` and comma
    otherwise.
    """
    if reading.delimiter:
        return reading.delimiter
    if source.format(reading) == "tsv":
        return "\t"
    return ","


def _first_row(source: Source, delimiter: str, reading: ReadSettings) -> list[str] | None:
    """Return the fields of the first row that is not blank, or None if there is none."""
    row = ""
    for line in text_lines(source, reading):
        if not row and not line.strip("\r\n"):
            continue
        row += line
        if not has_open_quote(row, delimiter):
            return split_row(row.rstrip("\r\n"), delimiter)
        if len(row) > MAX_HEADER:
            break
    if row:
        raise InputError(f"{source}, line 1: a quote is never closed. Check the quotes and [data] delimiter.")
    return None


def _name_columns(
    source: Source, fields: list[str], mapping: dict[str, str], reading: ReadSettings
) -> tuple[list[str], int]:
    """Return the names of the columns of a file, and its number of header rows, 0 or 1.

    Without a header the names are the positions of the columns from 0, as text.

    Args:
        fields: the fields of the first row.
    """
    mapped = set(reading.columns.values())
    # A row of data may hold the number of a column, but a header of numbers holds all of them.
    by_position = bool(mapped) and all(name.isdigit() for name in mapped) and not mapped <= set(fields)
    if reading.header is False or (reading.header is None and by_position):
        return [str(position) for position in range(len(fields))], 0
    repeated = {name for name in fields if fields.count(name) > 1 and name in mapping.values()}
    if repeated:
        raise InputError(f"{source}: the header names {', '.join(sorted(repeated))} twice. Rename one.")
    return fields, 1


def require_several_columns(source: Source, fields: list[str], delimiter: str) -> None:
    """Check that the first row of a file has several columns.

    Args:
        source: the file, for the message.
        fields: the fields of the first row.
        delimiter: the delimiter by which the row was split.

    Raises:
        InputError: there is only one field. The message suggests a delimiter that occurs in it.
    """
    if len(fields) != 1:
        return
    hint = ""
    if likely := _likely_delimiter(fields, delimiter):
        hint = f" It looks separated by {likely!r}: set the delimiter ([data] delimiter, or --delimiter)."
    raise InputError(f"{source}: {_one_column(fields, delimiter)}.{hint}")


def _require_delimiter_of_log(source: Source, fields: list[str], delimiter: str) -> None:
    """Check that an items or users table without its id column is not separated by another delimiter.

    The arguments are those of :func:`require_several_columns`. Such a table may have one column.

    Raises:
        InputError: the only field has another usual delimiter.
    """
    if len(fields) == 1 and (likely := _likely_delimiter(fields, delimiter)):
        raise InputError(
            f"{source}: {_one_column(fields, delimiter)}. It looks separated by {likely!r}, but [data] has one"
            f" delimiter for all tables: write this one with {delimiter!r} too, or as Parquet."
        )


def _one_column(fields: list[str], delimiter: str) -> str:
    return f"one column only ({fields[0][:60]!r}), when split by {delimiter!r}"


def _likely_delimiter(fields: list[str], delimiter: str) -> str | None:
    """Return the first usual delimiter in the first field, other than that of the settings, or None."""
    return next((usual for usual in USUAL_DELIMITERS if usual != delimiter and usual in fields[0]), None)


def _read_parquet(
    source: Source, mapping: dict[str, str], reading: ReadSettings, all_columns: bool
) -> Iterator[RawChunk]:
    with read_errors_explained(source, reading):
        yield from read_parquet(source, mapping, all_columns)


def _read_delimited(
    source: Source, mapping: dict[str, str], reading: ReadSettings, all_columns: bool
) -> Iterator[RawChunk]:
    for part, layout in delimited_layouts(source, mapping, reading, all_columns):
        yield from read_delimited_part(part, layout, reading, all_columns)


def read_delimited_part(
    part: Source, layout: DelimitedLayout, reading: ReadSettings, all_columns: bool = False
) -> Iterator[RawChunk]:
    """Yield the chunks of one file of delimited text, one block of bytes at a time.

    Args:
        part: the file.
        layout: its columns.
        reading: the settings.
        all_columns: whether every column is returned as text.

    Raises:
        InputError: the file cannot be read, or a row is so long that a quote was probably not
            closed.
    """
    try:
        with read_errors_explained(part, reading), open_as_utf8(part, reading) as stream:
            for block in read_row_blocks(stream, layout.delimiter, len(layout.names), layout.selected, layout.skip):
                yield chunk_of_rows(block, layout, reading, str(part), all_columns)
    except EndlessRowError as error:
        raise InputError(
            f"{part}, line {error.line}: {error.problem}. Check the quotes and [data] delimiter."
        ) from error


def chunk_of_rows(
    block: RowBlock, layout: DelimitedLayout, reading: ReadSettings, source: str, all_columns: bool = False
) -> RawChunk:
    """Return a block of rows of delimited text as a chunk.

    Rows with a wrong number of fields get a reason to be refused.

    Args:
        block: the rows.
        layout: the columns of the file.
        reading: the settings.
        source: the file, for messages.
        all_columns: whether every column is returned as text. Otherwise ids may be integers, and
            values and times numbers.
    """
    selected = layout.selected
    columns = {
        column: _text_column(block, selected.index(position))
        if all_columns
        else _typed_column(block, selected.index(position), column, reading)
        for column, position in layout.positions.items()
    }
    reasons = np.where(block.complete, 0, reason_code("wrong column count")).astype(np.int8)
    return RawChunk(pd.DataFrame(columns, copy=False), reasons, source, _line_of(block), _text_of(block))


def _line_of(block: RowBlock) -> Callable[[int], int]:
    return lambda row: int(block.lines[row])


def _text_of(block: RowBlock) -> Callable[[int], str]:
    def text(row: int) -> str:
        # As it is in the file: without its quotes, a row would have other fields when it is read again.
        line = block.data[block.rows[row] : block.rows[row + 1]].tobytes()
        return line.decode("utf-8", "surrogateescape").rstrip("\r\n")

    return text


def _text_column(block: RowBlock, column: int) -> pd.Series:
    return block.text_column(column).astype(object)


def _typed_column(block: RowBlock, column: int, name: str, reading: ReadSettings) -> pd.Series:
    """Return a column of a block as integers, numbers or text.

    Ids are integers if all of them are canonical integers ("7", not "007"), and otherwise text.
    Values, ranks, scores and times are numbers, NaN for a text that is not a number. Times are text
    if none of them is a number, or if their unit is ``iso``, or if some have another form and the
    settings have no unit. All other columns are text.

    Args:
        column: index of the column among the selected ones.
        name: canonical name of the column.
    """
    if name.endswith("_id"):
        integers = block.integer_column(column)
        if integers is None:
            return block.text_column(column)
        return pd.Series(integers, copy=False)
    if name in (VALUE, RANK, SCORE) or (name == TIME and reading.time_unit != "iso"):
        values, unparsed = block.number_column(column)
        if name == TIME and len(unparsed) == len(values):
            return _text_column(block, column)
        if len(unparsed):
            texts = pd.Series([block.cell_text(column, row) for row in unparsed], dtype=object)
            values[unparsed], spelt_out = parse_numbers(texts)
            is_text = np.isnan(values[unparsed]) & ~is_missing(texts)
            if name == TIME and reading.time_unit is None and is_text.any():
                # The log decides whether its times are numbers or text, not this block.
                return _text_column(block, column)
            if name == VALUE:
                # Infinity stands for "nan" too: validation refuses both with the same reason.
                values[unparsed[spelt_out]] = np.inf
        return pd.Series(values, copy=False)
    return block.text_column(column)


def _read_json_lines(
    source: Source, mapping: dict[str, str], reading: ReadSettings, all_columns: bool
) -> Iterator[RawChunk]:
    chosen = None
    if not all_columns:
        # A chunk alone does not tell which columns the log has: a key may first occur in its last line.
        present: set[str] = set()
        for part in source.parts:
            with read_errors_explained(part, reading):
                find_json_keys(text_lines(part, reading), set(mapping.values()), present)
        chosen = {column: name for column, name in mapping.items() if name in present}
    is_empty = True
    for part in source.parts:
        for chunk in read_json_part(part, mapping, chosen, reading):
            is_empty = False
            yield chunk
    if is_empty:
        raise InputError(f"{source}: no rows: the file is empty.")


def read_json_part(
    part: Source, mapping: dict[str, str], chosen: dict[str, str] | None, reading: ReadSettings
) -> Iterator[RawChunk]:
    """Yield the chunks of one file of JSON lines, :data:`JSON_LINES` lines each.

    Blank lines are skipped.

    Args:
        part: the file.
        mapping, chosen: as for :func:`chunk_of_json`.
        reading: the settings.

    Raises:
        InputError: the file cannot be read.
    """
    with read_errors_explained(part, reading):
        numbered = (
            (number, line.rstrip("\r\n"))
            for number, line in enumerate(text_lines(part, reading), start=1)
            if line.strip()
        )
        while lines := list(islice(numbered, JSON_LINES)):
            yield chunk_of_json([text for _, text in lines], mapping, chosen, str(part), _number_of(lines))


def _number_of(lines: list[tuple[int, str]]) -> Callable[[int], int]:
    return lambda row: lines[row][0]


def find_json_keys(lines: Iterable[str], names: set[str], present: set[str]) -> None:
    r"""Add to the set ``present`` those of ``names`` that are keys of at least one line of JSON.

    To save time, a line is parsed only if it may have a name that is still missing: the name is in
    its text as it is, or the line has an escape such as ``\u0041`` or ``\/``. Lines that are not
    JSON objects are ignored. Reading stops when all names are present.

    Args:
        lines: the lines of a file.
        names: the keys to look for.
        present: the keys that were found so far; changed in place.
    """
    missing = names - present
    for line in lines:
        if not missing:
            return
        # An escape may spell a name in another way.
        if "\\" not in line and not any(name in line for name in missing):
            continue
        present |= missing & set(parse_json_line(line) or ())
        missing = names - present


def parse_json_line(line: str) -> dict[str, object] | None:
    """Return the JSON object in a line, or None if the line is anything else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    # A list or a number is valid JSON but not a row, so it is refused like a broken line.
    if not isinstance(record, dict):
        return None
    return record


def chunk_of_json(
    lines: list[str],
    mapping: dict[str, str],
    chosen: dict[str, str] | None,
    source: str,
    line: Callable[[int], int],
) -> RawChunk:
    """Return lines of JSON as a chunk of text columns.

    A missing key and null become None. Lists are joined by ``|``. Lines that are not objects, and
    ids that are neither text nor integers, get a reason to be refused.

    Args:
        lines: the lines.
        mapping: canonical column -> its key.
        chosen: the columns of the whole log, canonical name -> key. None: all keys of these lines.
        source: the file, for messages.
        line: a function from the position of a row in ``lines`` to its line number in the file.
    """
    records = [parse_json_line(text) for text in lines]
    if chosen is None:
        names = dict.fromkeys(name for record in records if record for name in record)
        chosen = {column: name for column, name in mapping.items() if name in names}
        chosen |= {name: name for name in names if name not in mapping.values()}
    columns = {
        column: pd.Series([_json_text(record.get(name)) if record else None for record in records], dtype=object)
        for column, name in chosen.items()
    }
    is_object = np.array([record is not None for record in records], dtype=bool)
    reasons = np.where(is_object, 0, reason_code("not a JSON object")).astype(np.int8)
    for column, name in chosen.items():
        if column in (USER, ITEM):
            bad_ids = np.array([not _is_id(record.get(name)) if record else False for record in records], dtype=bool)
            refuse_rows(reasons, bad_ids, "id is neither text nor an integer")
    return RawChunk(pd.DataFrame(columns), reasons, source, line=line, text=lambda row: lines[row])


def _is_id(value: object) -> bool:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return value is None or is_whole or (isinstance(value, str | int) and not isinstance(value, bool))


def _json_text(value: object) -> str | None:
    """Return a JSON value as the text that a CSV cell would have.

    Lists are joined by ``|``, and 3.0 becomes 3.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, list):
        return "|".join(map(str, value))
    if value is None:
        return None
    return str(value)


READERS: dict[str, Callable[[Source, dict[str, str], ReadSettings, bool], Iterator[RawChunk]]] = {
    "csv": _read_delimited,
    "tsv": _read_delimited,
    "jsonl": _read_json_lines,
    "parquet": _read_parquet,
}
"""Format -> its reader, which has the arguments of :func:`read_chunks`."""
