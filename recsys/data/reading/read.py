"""Read CSV, TSV, JSONL, Parquet and MovieLens files into checked tables.

Bad rows are refused and counted. A file is read, checked and packed one chunk at a time
(``data.reading.lines``, ``data.reading.log``), while a thread reads the next chunk. So the text of
a whole file is never in memory. Ids become integers only if all of them are canonical decimal
integers. So the id "007" stays text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset

from recsys.data.reading import movielens
from recsys.data.reading.columnar import RawChunk, concat_chunks, is_table, read_in_memory
from recsys.data.reading.files import Source, read_chunks
from recsys.data.reading.log import Log, widen_log
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.validate import (
    REASONS,
    TimeUnit,
    check_events,
    count_times,
    guess_time_unit,
    is_missing,
    is_undecodable,
    reason_code,
    refuse_rows,
)
from recsys.errors import InputError
from recsys.schema import (
    EVENT,
    EVENTS,
    ITEM,
    ITEMS,
    TIME,
    USER,
    USERS,
    VALUE,
    TableSchema,
    unify_ids,
)

PACKED = 5
"""Approximate ratio of the size of a text log to that of its compressed file."""

MAX_REFUSED_ROWS = 100_000
"""Most refused rows that are kept for ``write_csv``; further ones are only counted."""


@dataclass
class Refusals:
    """The refused rows. All are counted, and the first :data:`MAX_REFUSED_ROWS` are stored.

    Attributes:
        total: number of all rows in the files, accepted and refused.
        counts: reason -> number of refused rows.
        rows: (file, line, reason, text) of the stored rows.
    """

    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[str, int, str, str]] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """Return the number of rows refused for any reason."""
        return sum(self.counts.values())

    def add(self, file: str, reasons: np.ndarray, line: Callable[[int], int], text: Callable[[int], str]) -> None:
        """Count the rows of one file, and store refused rows.

        Args:
            reasons: int[n], position in :data:`REASONS` of the reason why each row is refused, 0
                for an accepted row.
            line: returns the line number of a row.
            text: returns the text of a row.
        """
        self.total += len(reasons)
        for reason, count in zip(*np.unique(reasons[reasons > 0], return_counts=True), strict=True):
            self.counts[REASONS[reason]] = self.counts.get(REASONS[reason], 0) + int(count)
        for row in np.flatnonzero(reasons)[: MAX_REFUSED_ROWS - len(self.rows)]:
            self.rows.append((file, int(line(row)), REASONS[reasons[row]], text(row)[:200]))

    def merge(self, refusals: Refusals) -> None:
        """Add the refusals of another table."""
        self.total += refusals.total
        for reason, count in refusals.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        self.rows += refusals.rows[: MAX_REFUSED_ROWS - len(self.rows)]

    def write_csv(self, path: str | Path) -> None:
        """Write the stored rows as CSV with the columns ``file, line, reason, text``.

        If more rows were refused than stored, a last line has their number.
        """
        rows = list(self.rows)
        if self.refused > len(rows):
            rows.append(("", 0, "not listed", f"{self.refused - len(rows):,} more rows were refused"))
        table = pd.DataFrame(rows, columns=["file", "line", "reason", "text"])
        table.to_csv(path, index=False, errors="backslashreplace")


@dataclass
class Tables:
    """The checked tables of a data set.

    User ids are integers in all tables or text in all tables, and so are item ids.

    Attributes:
        log: the events, packed by ``data.reading.log``.
        items, users: the items table and the users table, None if there is no such table.
    """

    log: pd.DataFrame
    items: pd.DataFrame | None
    users: pd.DataFrame | None
    refusals: Refusals

    @property
    def events(self) -> pd.DataFrame:
        """Return a new plain table of the log: ids are integers or text, values and times
        float64.
        """
        return widen_log(self.log)

    def take_log(self) -> pd.DataFrame:
        """Return the log and remove it from this object.

        The caller then has the only reference to it, and can free its memory.
        """
        log = self.log
        # The copy is needed because a slice would keep the memory of the whole log.
        self.log = log.iloc[:0].copy()
        return log


def read_tables(events: Any, items: Any = None, users: Any = None, reading: ReadSettings | None = None) -> Tables:
    """Read and check all tables, and choose the type of ids, integer or text, for all of them.

    Each table is a path or a table in memory: pandas, Polars, pyarrow, or anything with the Arrow C
    interface. A MovieLens folder or zip archive as ``events`` also supplies the items (and users).

    Raises:
        InputError: a file is missing, empty or damaged, it has another layout than expected, or
            more rows are refused than ``max_refused_share`` allows.
    """
    reading = reading or ReadSettings()
    source, of_events, layout = _locate(events, reading)
    log = Log()
    refusals = _collect(source, of_events, log)
    # The buffers of the reader take as much memory as the log itself.
    pyarrow.default_memory_pool().release_unused()
    events = log.table()
    item_table = None
    user_table = None
    if layout:
        item_table = layout.items()
        user_table = layout.users()
    # A table that the caller names takes the place of the one of the MovieLens layout.
    if items is not None:
        item_table = read_attributes(items, ITEMS, reading, refusals)
    if users is not None:
        user_table = read_attributes(users, USERS, reading, refusals)
    for column, table in ((USER, user_table), (ITEM, item_table)):
        if table is not None:
            events[column], table[column] = unify_ids(events[column], table[column])
    return Tables(events, item_table, user_table, refusals)


def read_events(events: Any, reading: ReadSettings | None = None) -> tuple[pd.DataFrame, Refusals]:
    """Return the accepted events of a file, folder or table, and the refused rows.

    The rules are those of :func:`read_tables`.
    """
    tables = read_tables(events, reading=reading)
    return tables.events, tables.refusals


def read_all_columns(events: Any, reading: ReadSettings | None = None) -> tuple[pd.DataFrame, Refusals]:
    """Return the accepted events with all their other columns unchanged, and the refused rows."""
    source, reading, _ = _locate(events, reading or ReadSettings())
    accepted: list[pd.DataFrame] = []
    refusals = _collect(source, reading, accepted, all_columns=True)
    table = pd.concat(accepted, ignore_index=True)
    return table.astype(dict.fromkeys(table.select_dtypes("category"), object)), refusals


def read_items(items: Any, reading: ReadSettings | None = None) -> pd.DataFrame:
    """Return an items table with ``item_id`` and all other columns.

    The other columns are text if the file is a text file.
    """
    table = read_attributes(items, ITEMS, reading or ReadSettings(), Refusals())
    table[ITEM] = unify_ids(table[ITEM])[0]
    return table


def read_items_of_log(events: Any, items: Any = None, reading: ReadSettings | None = None) -> pd.DataFrame | None:
    """Return the items table that :func:`read_tables` would use.

    It is ``items``, or the items table of a MovieLens folder or archive, or None.
    """
    _, _, layout = _locate(events, reading or ReadSettings())
    if items is not None:
        return read_items(items, reading)
    if layout:
        return layout.items()
    return None


def scan_log(events: Any, reading: ReadSettings | None = None) -> Iterator[pd.DataFrame]:
    """Yield the unchecked rows of a log, one chunk at a time, for callers that only count."""
    source, reading, _ = _locate(events, reading or ReadSettings())
    name = _source_name(source)
    for chunk in _read_source(source, name, reading, False):
        require_columns(chunk.table.columns, reading, chunk.source)
        yield chunk.table


def estimate_rows(events: Any, reading: ReadSettings | None = None) -> int:
    """Return the number of rows of a log, or an estimate of it.

    The number is exact for Parquet files and for tables in memory. For other files it is estimated
    from the size of the file and the bytes per row.
    """
    source, _, _ = _locate(events, reading or ReadSettings())
    if not isinstance(source, Source):
        return len(source)
    if source.path.is_dir() or source.path.suffix in (".parquet", ".pq"):
        return int(pyarrow.dataset.dataset(source.path, format="parquet").count_rows())
    with source.open() as stream:
        start = stream.read(1 << 20)
    packed = 1
    if source.member or source.path.suffix == ".gz":
        packed = PACKED
    return max(
        start.count(b"\n"),
        round(source.path.stat().st_size * packed * start.count(b"\n") / max(len(start), 1)),
    )


def _locate(events: Any, reading: ReadSettings) -> tuple[Any, ReadSettings, movielens.MovieLensLayout | None]:
    """Return the source of the events, its settings, and its MovieLens layout or None.

    The source is a file, or the table itself.
    """
    layout = None
    if not is_table(events) and reading.format in ("auto", "movielens"):
        layout = movielens.find_layout(Path(events))
    if layout:
        return layout.events, reading.model_copy(update=layout.reading), layout
    if reading.format == "movielens":
        raise InputError(f"{events}: no MovieLens files (ratings.csv, ratings.dat or u.data) in it: check the folder.")
    if is_table(events):
        return events, reading, None
    return Source(Path(events)), reading, None


def _source_name(source: Any) -> str:
    """Return the name that messages use for a source of events.

    It is the path of a file, and ``events`` for a table in memory.
    """
    if isinstance(source, Source):
        return str(source)
    return EVENTS.name


class _NumberAfterAllError(Exception):
    """A numeric time occurs in a log whose first times were ISO 8601."""


def _collect(source: Any, reading: ReadSettings, sink: Log | list[pd.DataFrame], all_columns: bool = False) -> Refusals:
    """Append the accepted rows of every chunk to ``sink``, and return the refusals.

    Times without a configured unit are ISO 8601 if none is a number. This is decided from the first
    chunk; if a later chunk contradicts it, the file is read again from the start.
    """
    try:
        return _append_chunks(source, reading, sink, reading.time_unit, all_columns)
    except _NumberAfterAllError:
        sink.clear()
        return _append_chunks(source, reading, sink, "s", all_columns)


def _append_chunks(
    source: Any,
    reading: ReadSettings,
    sink: Log | list[pd.DataFrame],
    unit: TimeUnit | None,
    all_columns: bool,
) -> Refusals:
    name = _source_name(source)
    refusals = Refusals()
    time_counts = np.zeros(3, dtype=np.int64)
    for chunk in _prefetch(_read_source(source, name, reading, all_columns)):
        require_columns(chunk.table.columns, reading, chunk.source)
        if TIME in chunk.table and reading.time_unit is None:
            time_counts += count_times(chunk.table[TIME])
            if unit == "iso" and time_counts[0]:
                raise _NumberAfterAllError
            if unit is None:
                unit = "iso"
                if time_counts[0]:
                    unit = "s"
        accepted, reasons = check_events(chunk.table, unit)
        reasons = np.where(chunk.reasons > 0, chunk.reasons, reasons)
        refusals.add(name, reasons, chunk.line, chunk.text)
        if all_columns:
            accepted = pd.concat(
                [accepted, chunk.table[[name for name in chunk.table if name not in accepted]]],
                axis=1,
            )
        # A frame without refused rows is passed on as it is, which saves a copy.
        if reasons.any():
            accepted = accepted[reasons == 0]
        sink.append(accepted)
    if time_counts.any():
        guess_time_unit(time_counts, name)
    check_refused_share(name, refusals, reading)
    return refusals


def _read_source(source: Any, name: str, reading: ReadSettings, all_columns: bool) -> Iterator[RawChunk]:
    mapping = {column: reading.columns.get(column, column) for column in (USER, ITEM, VALUE, TIME, EVENT)}
    if isinstance(source, Source):
        return read_chunks(source, reading.format, mapping, reading, all_columns=all_columns)
    return read_in_memory(source, name, mapping, all_columns)


def _prefetch(chunks: Iterator[RawChunk]) -> Iterator[RawChunk]:
    """Yield the chunks. A thread reads the next chunk while the caller works on the current one."""
    with ThreadPoolExecutor(1) as reader:
        pending = reader.submit(next, chunks, None)
        while (chunk := pending.result()) is not None:
            pending = reader.submit(next, chunks, None)
            yield chunk


def require_columns(columns: Collection[str], reading: ReadSettings, where: str) -> None:
    """Raise InputError if a required column or a column that the settings map is missing.

    Args:
        columns: the columns of this package that the source has.
        where: the source, for the message.
    """
    EVENTS.require(columns, where)
    for column, source_name in reading.columns.items():
        if column not in columns:
            raise InputError(f"{where}: [data.columns] maps {column} to '{source_name}', but there is no such column.")


def read_attributes(source: Any, kind: TableSchema, reading: ReadSettings, refusals: Refusals) -> pd.DataFrame:
    """Read an items table or a users table.

    Rows without an id are refused. If an id occurs in several rows, all but the first are refused.
    The refused rows are added to ``refusals``.
    """
    key = kind.required[0]
    mapping = {key: reading.columns.get(key, key)}
    if is_table(source):
        source_name = kind.name
        chunks = read_in_memory(source, kind.name, mapping, all_columns=True)
    else:
        source_name = str(source)
        file_settings = ReadSettings(encoding=reading.encoding, delimiter=reading.delimiter)
        chunks = read_chunks(Source(Path(source)), "auto", mapping, file_settings, all_columns=True)
    chunk = concat_chunks(chunks, source_name)
    kind.require(chunk.table.columns, chunk.source)
    reasons = chunk.reasons.copy()
    refuse_rows(reasons, is_missing(chunk.table[key]), f"missing {key.removesuffix('_id')} id")
    refuse_rows(reasons, is_undecodable(chunk.table[key]), "undecodable bytes")
    repeated = chunk.table[key].where(reasons == 0).duplicated().to_numpy() & (reasons == 0)
    reasons[repeated] = reason_code("duplicate id")
    table_refusals = Refusals()
    table_refusals.add(chunk.source, reasons, chunk.line, chunk.text)
    check_refused_share(chunk.source, table_refusals, reading)
    refusals.merge(table_refusals)
    return chunk.table[reasons == 0].reset_index(drop=True)


def check_refused_share(source: str | Source, refusals: Refusals, reading: ReadSettings) -> None:
    """Raise InputError if there are no rows, or if too many were refused.

    Too many are all rows, or more than the share ``reading.max_refused_share`` of them.
    """
    refused = refusals.refused
    total = refusals.total
    if not total:
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    if refused < total and refused <= reading.max_refused_share * total:
        return
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in refusals.counts.items())
    examples = "".join(
        f"\n  {f'line {line}: ' if line else ''}{reason}: {text!r}"
        for file, line, reason, text in refusals.rows[:3]
        if file == str(source)
    )
    raise InputError(
        f"{source}: {refused:,} of {total:,} rows are bad ({reasons}), more than [data] max_refused_share ="
        f" {reading.max_refused_share:g} allows. Check the column mapping and the delimiter, or raise that share."
        f" The first:{examples}"
    )
