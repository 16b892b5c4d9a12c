"""Read CSV, TSV, JSONL, Parquet and MovieLens files into checked tables.

Bad rows are refused and counted. A file is read, checked and packed one chunk at a time
(``data.reading.lines``, ``data.reading.log``), while a thread reads the next chunk. So the text of
a whole file is never in memory. Ids become integers only if all of them are canonical decimal
integers. So the id "007" stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet

from recsys.atomic_writing import new_file
from recsys.data.reading import movielens
from recsys.data.reading.columnar import RawChunk, concat_chunks, is_table, read_in_memory, require_table_or_path
from recsys.data.reading.files import read_chunks
from recsys.data.reading.log import Log, concat_logs, widen_log
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.reviews import read_reviews, with_text_ids
from recsys.data.reading.sources import Source
from recsys.data.reading.validate import (
    IMPOSSIBLE_TIME,
    REASONS,
    UNPARSABLE_VALUE,
    TimeUnit,
    check_events,
    count_times,
    guess_time_unit,
    is_missing,
    is_undecodable,
    reason_code,
    refuse_rows,
    unit_of_counts,
)
from recsys.data.splitting.strategies import SIDES
from recsys.errors import InputError
from recsys.locations import local_path
from recsys.schema import (
    EVENT,
    EVENTS,
    FALLBACK,
    ITEM,
    ITEMS,
    SIDE,
    TIME,
    USER,
    USERS,
    VALUE,
    TableSchema,
    unify_ids,
)

PACKED = 5
"""The assumed ratio between the size of a text log and the size of its compressed file."""

MAX_REFUSED_ROWS = 100_000
"""The largest number of refused rows that are stored, on both engines. Further rows are only counted."""

MAX_REFUSED_TEXT = 2_000
"""The largest number of characters that are stored of one refused row. All stored rows together then fit in memory."""


@dataclass
class Refusals:
    """The refused rows: all are counted, and the first :data:`MAX_REFUSED_ROWS` are stored.

    Attributes:
        total: the number of all rows in the files, accepted and refused.
        counts: reason -> number of refused rows.
        rows: (file, line, reason, text) of each stored row. The line is 0 if it is unknown. Texts are
            as in the file; a longer one than :data:`MAX_REFUSED_TEXT` is cut, see :func:`refused_text`.
    """

    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[str, int, str, str]] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """The number of rows that were refused for any reason."""
        return sum(self.counts.values())

    def add(self, file: str, reasons: np.ndarray, line: Callable[[int], int], text: Callable[[int], str]) -> None:
        """Add the rows of one file: count all of them, and store the refused ones.

        Args:
            file: the name of the file.
            reasons: int[n], the position in :data:`REASONS` of the reason why each row is refused,
                0 for an accepted row.
            line: a function from the position of a row to its line number.
            text: a function from the position of a row to its text.
        """
        self.total += len(reasons)
        for reason, count in zip(*np.unique(reasons[reasons > 0], return_counts=True), strict=True):
            self.counts[REASONS[reason]] = self.counts.get(REASONS[reason], 0) + int(count)
        for row in np.flatnonzero(reasons)[: MAX_REFUSED_ROWS - len(self.rows)]:
            self.rows.append((file, int(line(row)), REASONS[reasons[row]], refused_text(text(row))))

    def merge(self, refusals: Refusals) -> None:
        """Add the counts and the stored rows of other refusals to these."""
        self.total += refusals.total
        for reason, count in refusals.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        self.rows += refusals.rows[: MAX_REFUSED_ROWS - len(self.rows)]

    def over_share(self, reading: ReadSettings) -> bool:
        """Return whether too many rows were refused.

        It is True if all rows were refused or there are no rows. It is also True if the refused
        share is larger than ``reading.max_refused_share``.
        """
        return not self.refused < self.total or self.refused > reading.max_refused_share * self.total

    def write_csv(self, path: str | Path) -> None:
        """Write the stored rows as CSV with the columns ``file, line, reason, text``.

        If more rows were refused than stored, a last line has the number of the others. An existing
        file is replaced only when the new file is complete.

        Raises:
            OSError: the file cannot be written.
        """
        rows = list(self.rows)
        if self.refused > len(rows):
            rows.append(("", 0, "not listed", f"{self.refused - len(rows):,} more rows were refused"))
        table = pd.DataFrame(rows, columns=["file", "line", "reason", "text"])
        with new_file(path) as part:
            table.to_csv(part, index=False, errors="backslashreplace")


def refused_text(text: str) -> str:
    """Return the text of a refused row as it is stored: whole, or its first characters and the number of the others.

    >>> refused_text("a,b"), refused_text("x" * 2_100)[-28:]
    ('a,b', 'xxxx … (100 more characters)')
    """
    if len(text) <= MAX_REFUSED_TEXT:
        return text
    return f"{text[:MAX_REFUSED_TEXT]} … ({len(text) - MAX_REFUSED_TEXT:,} more characters)"


@dataclass
class Tables:
    """The checked tables of a data set.

    User ids are integers in all tables or text in all tables, and so are item ids.

    Attributes:
        log: the accepted events in a compact form. Ids are categories, and numbers have a small
            dtype that holds them exactly (:mod:`recsys.data.reading.log`). It is empty after
            :meth:`take_log`.
        items, users: the items table and the users table. None if there is no such table.
        reviews: item_id, text, score (NaN where there is none) and user_id (a
            category, null where the review does not say who wrote it). None if there is no such table.
        refusals_by_table: path of a table, or its name if it was in memory -> its refusals.
        duplicates: ``items`` or ``users`` -> the number of rows that ``[data] duplicates`` merged
            into others. A table that was not given, or that belongs to a MovieLens data set, has no
            entry.
    """

    log: pd.DataFrame
    items: pd.DataFrame | None
    users: pd.DataFrame | None
    refusals_by_table: dict[str, Refusals] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    reviews: pd.DataFrame | None = None

    @property
    def refusals(self) -> Refusals:
        """The refusals of all tables together, as a new object."""
        merged = Refusals()
        for refusals in self.refusals_by_table.values():
            merged.merge(refusals)
        return merged

    def over_share(self, reading: ReadSettings) -> bool:
        """Return whether :meth:`Refusals.over_share` is True for at least one table."""
        return any(refusals.over_share(reading) for refusals in self.refusals_by_table.values())

    def require_few_refused(self, reading: ReadSettings) -> None:
        """Check that no table has too many refused rows.

        Raises:
            InputError: :meth:`Refusals.over_share` is True for a table. The message has the reasons
                and examples.
        """
        for name, refusals in self.refusals_by_table.items():
            check_refused_share(name, refusals, reading)

    @property
    def events(self) -> pd.DataFrame:
        """The log as a new plain table. Ids are integers or text; values and times are float64."""
        return widen_log(self.log)

    def take_log(self) -> pd.DataFrame:
        """Return the log and remove it from this object, so that the caller can free its memory.

        The caller then has the only reference to it.
        """
        log = self.log
        # The copy is needed because a slice would keep the memory of the whole log.
        self.log = log.iloc[:0].copy()
        return log


def read_tables(
    events: Any,
    items: Any = None,
    users: Any = None,
    reading: ReadSettings | None = None,
    reviews: str | None = None,
) -> Tables:
    """Read and check the events, the items, the users and the reviews.

    Ids get one type in all tables: integers if all of them are canonical integers ("7", not "007"),
    else text. Each table is a path, or a table in memory: pandas, Polars, pyarrow, or anything with
    the Arrow C interface.

    Args:
        events: the events. A MovieLens folder or zip archive also has the items (and users). A dict
            with the parts of a split, ``train``, ``test`` and optionally ``history``, has one table
            for each; then the log gets a column ``side``
            (:data:`recsys.data.splitting.strategies.SIDES`).
        items: the items table. None: that of MovieLens, or none.
        users: the users table. None: that of MovieLens, or none.
        reading: how files are read. None: the defaults.
        reviews: the path of a table of reviews. None: there is none.

    Raises:
        InputError: a file is missing, empty or damaged, or has another layout than expected; more
            rows of a table are refused than ``max_refused_share`` allows; or a review has no item
            or a score that is not a number.
    """
    reading = reading or ReadSettings()
    tables = read_tables_with_bad_rows(events, items, users, reading)
    tables.require_few_refused(reading)
    if reviews is not None:
        _add_reviews(tables, read_reviews(reviews, reading))
    return tables


def _add_reviews(tables: Tables, reviews: pd.DataFrame) -> None:
    """Add a table of reviews, and give all tables one kind of ids."""
    reviews = with_text_ids(reviews)
    for column, attributes in ((ITEM, tables.items), (USER, tables.users)):
        with_ids = [table for table in (tables.log, reviews, attributes) if table is not None]
        for table, ids in zip(with_ids, unify_ids(*(table[column] for table in with_ids)), strict=True):
            table[column] = ids
    tables.reviews = reviews


def read_tables_with_bad_rows(events: Any, items: Any, users: Any, reading: ReadSettings) -> Tables:
    """Return the tables as :func:`read_tables` does, but accept any number of refused rows.

    The arguments are those of :func:`read_tables`.

    Raises:
        InputError: a file is missing, empty or damaged, or has another layout than expected.
    """
    by_table: dict[str, Refusals] = {}
    if isinstance(events, Mapping):
        log, layout = _read_parts(events, reading, by_table)
    else:
        log, layout = _read_log(events, reading, by_table)
    tables = Tables(log, None, None, by_table)
    if layout:
        tables.items = layout.items()
        tables.users = layout.users()
    # A table that the caller names takes the place of the one of the MovieLens layout.
    if items is not None:
        attributes = read_attributes(items, ITEMS, reading)
        tables.items = attributes.table
        tables.duplicates["items"] = attributes.duplicates
        by_table[attributes.name] = attributes.refusals
    if users is not None:
        attributes = read_attributes(users, USERS, reading)
        tables.users = attributes.table
        tables.duplicates["users"] = attributes.duplicates
        by_table[attributes.name] = attributes.refusals
    for column, table in ((USER, tables.users), (ITEM, tables.items)):
        if table is not None and column in tables.log:
            tables.log[column], table[column] = unify_ids(tables.log[column], table[column])
    return tables


def _read_log(
    events: Any, reading: ReadSettings, by_table: dict[str, Refusals], name: str | None = None
) -> tuple[pd.DataFrame, movielens.MovieLensLayout | None]:
    """Return a log, and its MovieLens layout or None. The refusals are added to ``by_table``.

    Args:
        name: the name that messages use for a table in memory. None: "events".
    """
    source, reading, layout = _locate(events, reading)
    log = Log()
    if isinstance(source, Source) or name is None:
        name = _source_name(source)
    by_table[name] = _collect(source, reading, log)
    # The buffers of the reader take as much memory as the log itself.
    pyarrow.default_memory_pool().release_unused()
    return log.table(), layout


def _read_parts(
    parts: Mapping[str, Any], reading: ReadSettings, by_table: dict[str, Refusals]
) -> tuple[pd.DataFrame, movielens.MovieLensLayout | None]:
    """Return the parts of a split as one log with a column ``side``, and the first MovieLens layout
    or None."""
    logs = {side: _read_log(part, reading, by_table, side) for side, part in parts.items()}
    require_same_part_columns({side: list(log.columns) for side, (log, _) in logs.items()})
    log = concat_logs([log for log, _ in logs.values()])
    log[SIDE] = np.repeat([np.int8(SIDES[side]) for side in logs], [len(log) for log, _ in logs.values()])
    return log, next((layout for _, layout in logs.values() if layout), None)


def require_same_part_columns(columns: Mapping[str, Collection[str]]) -> None:
    """Check that either all parts of a split have times, or none; and the same for event types.

    Args:
        columns: part -> its columns.

    Raises:
        InputError: only some parts have such a column. The message names two of them.
    """
    for name in (TIME, EVENT):
        having = [side for side, names in columns.items() if name in names]
        without = [side for side in columns if side not in having]
        if having and without:
            raise InputError(
                f"[split] {without[0]} has no column '{name}', which {having[0]} has. The files are parts of one log:"
                " give them the same columns, or map them under [data.columns]."
            )


def read_events(events: Any, reading: ReadSettings | None = None) -> tuple[pd.DataFrame, Refusals]:
    """Return the accepted events of a file, folder or table, and the refused rows.

    The events have ``user_id``, ``item_id``, ``value``, and ``timestamp`` and ``event`` if the log
    has them. Ids are integers or text; values and times are float64.

    Args:
        events: as for :func:`read_tables`.
        reading: how files are read. None: the defaults.

    Raises:
        InputError: as for :func:`read_tables`.
    """
    tables = read_tables(events, reading=reading)
    return tables.events, tables.refusals


def read_all_columns(events: Any, reading: ReadSettings | None = None) -> tuple[pd.DataFrame, Refusals]:
    """Return the accepted events with all other columns of the file, and the refused rows.

    The other columns are unchanged. In a text file, the ids and the other columns are text.

    Raises:
        InputError: as for :func:`read_tables`.
    """
    source, reading, _ = _locate(events, reading or ReadSettings())
    accepted: list[pd.DataFrame] = []
    refusals = _collect(source, reading, accepted, all_columns=True)
    check_refused_share(_source_name(source), refusals, reading)
    table = pd.concat(accepted, ignore_index=True)
    return table.astype(dict.fromkeys(table.select_dtypes("category"), object)), refusals


def read_items(items: Any, reading: ReadSettings | None = None) -> pd.DataFrame:
    """Return an items table with ``item_id`` and all other columns.

    Ids are integers if all of them are canonical integers ("7", not "007"), else text. The other
    columns are text if the file is a text file.

    Args:
        items: a path or a table in memory.
        reading: how files are read. None: the defaults.

    Raises:
        InputError: as for :func:`read_tables`.
    """
    reading = reading or ReadSettings()
    attributes = read_attributes(items, ITEMS, reading)
    check_refused_share(attributes.name, attributes.refusals, reading)
    attributes.table[ITEM] = unify_ids(attributes.table[ITEM])[0]
    return attributes.table


def read_items_of_log(events: Any, items: Any = None, reading: ReadSettings | None = None) -> pd.DataFrame | None:
    """Return the items table that :func:`read_tables` would use, or None if there is none.

    It is ``items`` if that is given, else the items table of a MovieLens folder or archive.

    Raises:
        InputError: as for :func:`read_tables`.
    """
    _, _, layout = _locate(events, reading or ReadSettings())
    if items is not None:
        return read_items(items, reading)
    if layout:
        return layout.items()
    return None


def scan_log(events: Any, reading: ReadSettings | None = None) -> Iterator[pd.DataFrame]:
    """Yield the accepted rows of a log, one chunk at a time, for callers that only count.

    Rows may be refused without an error, however many they are. The unit of times is detected from
    the first chunk only, whereas :func:`read_tables` looks at all chunks.

    Args:
        events: a path or a table in memory.
        reading: how files are read. None: the defaults.

    Raises:
        InputError: the log cannot be read, or lacks a column.
    """
    source, reading, _ = _locate(events, reading or ReadSettings())
    unit = reading.time_unit
    for chunk in _read_source(source, _source_name(source), reading, False):
        require_columns(chunk.table.columns, reading, chunk.source)
        if unit is None and TIME in chunk.table:
            unit = unit_of_counts(count_times(chunk.table[TIME]))
        accepted, reasons = check_events(chunk.table, unit)
        yield accepted[(reasons == 0) & (chunk.reasons == 0)]


def estimate_rows(events: Any, reading: ReadSettings | None = None) -> int:
    """Return the approximate number of rows of a log.

    The number is exact for Parquet files and for tables in memory. For other files it is estimated
    from the size of the files and the bytes per row at the start of the first file.

    Args:
        events: a path or a table in memory.
        reading: how files are read. None: the defaults.

    Raises:
        InputError: the log is missing, or its format is unknown.
    """
    source, reading, _ = _locate(events, reading or ReadSettings())
    if not isinstance(source, Source):
        return len(source)
    if source.format(reading) == "parquet":
        return sum(pyarrow.parquet.read_metadata(part.path).num_rows for part in source.parts)
    with source.parts[0].open() as stream:
        start = stream.read(1 << 20)
    n_bytes = 0
    for part in source.parts:
        packed = 1
        if part.member or part.compression:
            packed = PACKED
        n_bytes += part.path.stat().st_size * packed
    return max(start.count(b"\n"), round(n_bytes * start.count(b"\n") / max(len(start), 1)))


def _locate(events: Any, reading: ReadSettings) -> tuple[Any, ReadSettings, movielens.MovieLensLayout | None]:
    """Return the source of the events, the settings to read it, and its MovieLens layout or None.

    The source is a :class:`Source`, or the table in memory itself.
    """
    layout = None
    if not isinstance(events, Source):
        events = require_table_or_path(events, EVENTS.name)
    if not is_table(events) and reading.format in ("auto", "movielens"):
        layout = movielens.find_layout(local_path(events))
    if layout:
        return layout.events, reading.model_copy(update=layout.reading), layout
    if reading.format == "movielens":
        raise InputError(f"{events}: no MovieLens files (ratings.csv, ratings.dat or u.data) in it: check the folder.")
    if is_table(events):
        return events, reading, None
    return Source(local_path(events)), reading, None


def _source_name(source: Any) -> str:
    """Return the name that messages use for a source of events.

    It is the path of a file, or ``events`` for a table in memory.
    """
    if isinstance(source, Source):
        return str(source)
    return EVENTS.name


DECIMAL_COMMA = re.compile(r"[;\t|\"]\s*-?\d+,\d+\s*([;\t|\"]|$)")
"""Pattern of a text row in which a number has a decimal comma."""
DAY_BEFORE_YEAR = re.compile(r"\b\d{1,2}[./]\d{1,2}[./]\d{4}\b")
"""Pattern of dates such as 01.02.2024, in which the day or the month may come first."""


class _OtherTimeUnitError(Exception):
    """All times of a log have another unit than its first ones."""

    def __init__(self, unit: TimeUnit) -> None:
        super().__init__(unit)
        self.unit = unit


def _collect(source: Any, reading: ReadSettings, sink: Log | list[pd.DataFrame], all_columns: bool = False) -> Refusals:
    """Append the accepted rows of every chunk to ``sink``, and return the refusals.

    If the settings have no time unit, it is guessed from the first chunk. If all chunks together
    show another unit, the file is read again from the start.
    """
    try:
        return _append_chunks(source, reading, sink, reading.time_unit, all_columns)
    except _OtherTimeUnitError as unit_error:
        sink.clear()
        return _append_chunks(source, reading, sink, unit_error.unit, all_columns)


def _append_chunks(
    source: Any,
    reading: ReadSettings,
    sink: Log | list[pd.DataFrame],
    unit: TimeUnit | None,
    all_columns: bool,
) -> Refusals:
    name = _source_name(source)
    refusals = Refusals()
    time_counts = np.zeros(5, dtype=np.int64)
    for chunk in _prefetch(_read_source(source, name, reading, all_columns)):
        require_columns(chunk.table.columns, reading, chunk.source)
        if TIME in chunk.table and reading.time_unit is None:
            time_counts += count_times(chunk.table[TIME])
            if unit is None:
                unit = unit_of_counts(time_counts)
        accepted, reasons = check_events(chunk.table, unit)
        reasons = np.where(chunk.reasons > 0, chunk.reasons, reasons)
        refusals.add(chunk.source, reasons, chunk.line, chunk.text)
        if all_columns:
            further_columns = [column for column in chunk.table if column not in accepted]
            accepted = pd.concat([accepted, chunk.table[further_columns]], axis=1)
        # A frame without refused rows is passed on as it is, which saves a copy.
        if reasons.any():
            accepted = accepted[reasons == 0]
        sink.append(accepted)
    if time_counts.any():
        unit_of_all = guess_time_unit(time_counts, name)
        if unit_of_all != unit:
            raise _OtherTimeUnitError(unit_of_all)
    if not refusals.total:
        raise InputError(f"{name}: no rows: the file is empty, or has nothing but a header.")
    return refusals


def _read_source(source: Any, name: str, reading: ReadSettings, all_columns: bool) -> Iterator[RawChunk]:
    mapping = column_mapping(reading)
    if isinstance(source, Source):
        return read_chunks(source, mapping, reading, all_columns=all_columns)
    return read_in_memory(source, name, mapping, all_columns)


def column_mapping(reading: ReadSettings) -> dict[str, str]:
    """Return a dict: name of a column in recsys -> its name in the files of a log.

    The names in recsys, called canonical, are ``user_id``, ``item_id``, ``value``, ``timestamp``
    and ``event``, and ``fallback_id`` if ``user_fallback`` is set. ``[data.columns]`` gives the
    names in the files. A column that it does not map has its canonical name.

    Args:
        reading: the settings.
    """
    mapping = {column: reading.columns.get(column, column) for column in (USER, ITEM, VALUE, TIME, EVENT)}
    if reading.user_fallback:
        mapping[FALLBACK] = reading.user_fallback
    return mapping


def _prefetch(chunks: Iterator[RawChunk]) -> Iterator[RawChunk]:
    """Yield the chunks. A thread reads the next chunk while the caller works on the current one."""
    with ThreadPoolExecutor(1) as reader:
        pending = reader.submit(next, chunks, None)
        while (chunk := pending.result()) is not None:
            pending = reader.submit(next, chunks, None)
            yield chunk


def require_columns(columns: Collection[str], reading: ReadSettings, label: str) -> None:
    """Check that a log has its id columns, and every column that the settings map.

    Args:
        columns: the columns that the log has, by their names in recsys (:func:`column_mapping`).
        reading: the settings.
        label: the name of the log, for the message.

    Raises:
        InputError: a column is missing.
    """
    # The mapping comes first: a file may have the very name that the mapping says it has not.
    for column, source_name in reading.columns.items():
        if column not in columns:
            raise InputError(
                f"{label}: [data.columns] maps {column} to '{source_name}', but there is no such column: correct the"
                " mapping, or remove it if the name in the file is ours."
            )
    EVENTS.require(columns, label)
    if reading.user_fallback and FALLBACK not in columns:
        raise InputError(f"{label}: [data] user_fallback is '{reading.user_fallback}', but there is no such column.")


@dataclass(frozen=True)
class AttributeTable:
    """An items table or a users table, with one row per id.

    Attributes:
        name: the name of the table in messages: its path, or ``items`` or ``users`` if it was in
            memory.
        table: the accepted rows, with all columns.
        refusals: the refused rows.
        duplicates: the number of rows that ``[data] duplicates`` merged into others.
    """

    name: str
    table: pd.DataFrame
    refusals: Refusals
    duplicates: int


def read_attributes(source: Any, schema: TableSchema, reading: ReadSettings) -> AttributeTable:
    """Read an items or users table with all its columns.

    Rows without an id are refused. If several rows have the same id, ``reading.duplicates`` says
    which row or values count. If it is not set, all but the first of them are refused. Rows may be
    refused without an error, however many they are.

    Args:
        source: a path or a table in memory.
        schema: :data:`recsys.schema.ITEMS` or :data:`recsys.schema.USERS`.
        reading: how files are read.

    Raises:
        InputError: the table cannot be read, is empty, or lacks a column.
    """
    key = schema.required[0]
    name, chunk = _read_whole_table(source, schema, reading)
    reasons = chunk.reasons.copy()
    refuse_rows(reasons, is_missing(chunk.table[key]), f"missing {key.removesuffix('_id')} id")
    refuse_rows(reasons, is_undecodable(chunk.table[key]), "undecodable bytes")
    if reading.duplicates is None:
        repeated = chunk.table[key].where(reasons == 0).duplicated().to_numpy() & (reasons == 0)
        reasons[repeated] = reason_code("duplicate id")
    refusals = Refusals()
    refusals.add(chunk.source, reasons, chunk.line, chunk.text)
    table = chunk.table[reasons == 0].reset_index(drop=True)
    n_rows = len(table)
    if reading.duplicates is not None:
        table = settle_duplicates(table, key, reading.duplicates)
    return AttributeTable(name, table, refusals, n_rows - len(table))


def _read_whole_table(source: Any, schema: TableSchema, reading: ReadSettings) -> tuple[str, RawChunk]:
    """Return the name of an items or users table in messages, and all its rows and columns.

    The arguments and the errors are those of :func:`read_attributes`.
    """
    key = schema.required[0]
    settings = reading.of_table(key)
    mapping = {key: key} | settings.columns
    name = schema.name
    if not isinstance(source, Source):
        source = require_table_or_path(source, name)
    if is_table(source):
        chunks = read_in_memory(source, name, mapping, all_columns=True)
    else:
        if not isinstance(source, Source):
            source = Source(local_path(source))
        name = str(source)
        chunks = read_chunks(source, mapping, settings, all_columns=True)
    chunk = concat_chunks(chunks, name)
    schema.require(chunk.table.columns, chunk.source)
    for column, source_name in settings.columns.items():
        if column not in chunk.table and column != key:
            raise InputError(f"{name}: no column '{source_name}' to read {column} from: correct the column mapping.")
    return name, chunk


def settle_duplicates(table: pd.DataFrame, key: str, rule: str) -> pd.DataFrame:
    """Return one row per id, in the order in which ids first occur.

    Args:
        table: the table, with several rows for some ids.
        key: the column with the ids.
        rule: which of several rows counts: ``first``, ``last``, or ``most frequent``. The last one
            takes, for each column, the most frequent value that is neither null nor empty. Of
            equally frequent values it takes the one that occurs first.
    """
    repeated = table[key].duplicated(keep=False)
    if not repeated.any():
        return table
    if rule == "most frequent":
        return _most_frequent_values(table, key)
    order = table[key].drop_duplicates()
    rows = table.drop_duplicates(key, keep=rule)  # type: ignore[arg-type]
    return rows.set_index(key, drop=False).loc[order].reset_index(drop=True)


def _most_frequent_values(table: pd.DataFrame, key: str) -> pd.DataFrame:
    ids = table[key].drop_duplicates().reset_index(drop=True)
    settled = {}
    for column in table:
        if column == key:
            settled[column] = ids
            continue
        # Lists are not hashable, and equal lists have equal texts.
        compared = table[column]
        if compared.dtype == object:
            compared = compared.map(lambda value: value if isinstance(value, str) else str(value), na_action="ignore")
        has_value = compared.notna() & (compared != "")
        rows = pd.DataFrame(
            {"id": table[key][has_value], "value": compared[has_value], "row": np.flatnonzero(has_value)}
        )
        counts = rows.groupby(["id", "value"], sort=False)["row"].agg(["size", "min"]).reset_index()
        winners = counts.sort_values(["size", "min"], ascending=[False, True]).drop_duplicates("id")
        row_of_id = pd.Series(winners["min"].to_numpy(), index=winners["id"]).reindex(ids)
        present = row_of_id.notna().to_numpy()
        values = table[column].take(row_of_id[present].astype(np.int64)).set_axis(np.flatnonzero(present))
        settled[column] = values.reindex(range(len(ids)))
    return pd.DataFrame(settled)


def check_refused_share(source: str | Source, refusals: Refusals, reading: ReadSettings) -> None:
    """Check that a table has rows, and that not too many of them were refused.

    Args:
        source: the table, for the message.
        refusals: the refused rows.
        reading: the settings, with the largest share.

    Raises:
        InputError: there are no rows, or :meth:`Refusals.over_share` is True. The message has the
            reasons, examples and advice.
    """
    refused = refusals.refused
    total = refusals.total
    if not total:
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    if not refusals.over_share(reading):
        return
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in refusals.counts.items())
    examples = "".join(
        f"\n  {_describe_location(file, line, str(source))}{reason}: {text!r}"
        for file, line, reason, text in refusals.rows[:3]
    )
    advice = "Check the column mapping and the delimiter, or raise that share."
    if any(reason == IMPOSSIBLE_TIME and DAY_BEFORE_YEAR.search(text) for *_, reason, text in refusals.rows):
        advice += (
            " Dates such as 31.12.2024 or 12/31/2024 are not read, because their order is not known: write them as"
            " 2024-12-31, for example with pandas.to_datetime(column, format='%d.%m.%Y')."
        )
    if any(reason == UNPARSABLE_VALUE and DECIMAL_COMMA.search(text) for *_, reason, text in refusals.rows):
        advice += (
            " Numbers with a decimal comma (4,5) are not read: write them as 4.5, for example with"
            " pandas.read_csv(FILE, sep=';', decimal=',')."
        )
    if "duplicate id" in refusals.counts:
        advice += " Where a table has several rows per id, [data] duplicates says which of them counts."
    raise InputError(
        f"{source}: {refused:,} of {total:,} rows are bad ({reasons}), more than [data] max_refused_share ="
        f" {reading.max_refused_share:g} allows. {advice}"
        f" `recsys check` with --refused FILE lists them. The first:{examples}"
    )


def _describe_location(file: str, line: int, source: str) -> str:
    """Return the file and line of a refused row, as the start of a sentence.

    The file is left out if it is ``source``, and the line if it is unknown.
    """
    parts = []
    if file != source:
        parts.append(file)
    if line:
        parts.append(f"line {line}")
    if not parts:
        return ""
    return ", ".join(parts) + ": "
