"""Files -> tables: CSV, TSV, JSONL, Parquet and MovieLens folders, with every bad row refused and counted.

A file is read, checked and packed a piece at a time (``data.lines``, ``data.log``), one piece ahead in a thread of
its own; the whole is never held as text. "007" stays "007": ids are integers only if all of them are canonical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.dataset
from pydantic import BaseModel, ConfigDict, Field, field_validator

from recsys.data.reading import movielens
from recsys.data.reading.columnar import RawChunk, concat_chunks, is_table, read_in_memory
from recsys.data.reading.files import Source, read_chunks
from recsys.data.reading.log import Log, widen_log
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
from recsys.errors import InputError, suggest_nearest
from recsys.schema import EVENT, EVENTS, ITEM, ITEMS, TIME, USER, USERS, VALUE, TableSchema, unify_ids

PACKED = 5
"""How many times smaller a packed log is, about."""

MAX_REFUSED_ROWS = 100_000
"""Refused rows kept to be written out; beyond it they are only counted."""


class ReadSettings(BaseModel):
    """How files are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "movielens"] = Field(
        "auto", description="auto goes by the name: .csv .tsv .jsonl .parquet, with .gz behind it or not"
    )
    columns: dict[str, str] = Field(
        {}, description="our column -> its name in the files, or its position from 0 in a file without header"
    )
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="unset: tab for .tsv, else comma")
    header: bool | None = Field(None, description="unset: yes, unless every mapped column is a position")
    encoding: str = Field("utf-8", description="of text files; a byte order mark is skipped")
    time_unit: TimeUnit | None = Field(
        None, description="s, ms, us or iso; unset: seconds or ISO 8601, refusing what looks like neither"
    )
    max_refused_share: float = Field(0.05, ge=0, le=1, description="stop when more than this share of rows is bad")

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        known = EVENTS.required + EVENTS.optional
        for name in columns:
            if name not in known:
                raise ValueError(f"'{name}' is no column of events.{suggest_nearest(name, known)}")
        return columns

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            "".encode(name)
        except LookupError:
            raise ValueError("no encoding of text that Python knows") from None
        return name

    @field_validator("delimiter")
    @classmethod
    def _usable_delimiter(cls, character: str | None) -> str | None:
        if character and (character in '"\r\n' or not character.isascii()):
            raise ValueError("a delimiter is one ASCII character, and no quote or line end")
        return character


@dataclass
class Refusals:
    """Rows that were not accepted: all are counted, the first :data:`MAX_REFUSED_ROWS` are kept.

    ``total``: rows present, so that rows read + rows refused = total. ``rows``: (file, line, reason, text).
    """

    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[str, int, str, str]] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """Rows refused, for any reason."""
        return sum(self.counts.values())

    def add(self, file: str, why: np.ndarray, line: Callable[[int], int], text: Callable[[int], str]) -> None:
        """Count one file's rows, of which ``why`` (positions in REASONS) refuses some."""
        self.total += len(why)
        for reason, count in zip(*np.unique(why[why > 0], return_counts=True), strict=True):
            self.counts[REASONS[reason]] = self.counts.get(REASONS[reason], 0) + int(count)
        for row in np.flatnonzero(why)[: MAX_REFUSED_ROWS - len(self.rows)]:
            self.rows.append((file, int(line(row)), REASONS[why[row]], text(row)[:200]))

    def merge(self, other: Refusals) -> None:
        """Add what another table had refused."""
        self.total += other.total
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        self.rows += other.rows[: MAX_REFUSED_ROWS - len(self.rows)]

    def write_csv(self, path: str | Path) -> None:
        """Write ``file, line, reason, text``; when rows were only counted, a last line says how many."""
        rows = list(self.rows)
        if self.refused > len(rows):
            rows.append(("", 0, "not listed", f"{self.refused - len(rows):,} more rows were refused"))
        table = pd.DataFrame(rows, columns=["file", "line", "reason", "text"])
        table.to_csv(path, index=False, errors="backslashreplace")


@dataclass
class Tables:
    """Tables whose ids are of one kind; ``items`` and ``users`` may be absent. ``log``: see ``data.log``."""

    log: pd.DataFrame
    items: pd.DataFrame | None
    users: pd.DataFrame | None
    refusals: Refusals

    @property
    def events(self) -> pd.DataFrame:
        """The log as a plain table, made anew: ids are integers or text, values and times float64."""
        return widen_log(self.log)

    def take_log(self) -> pd.DataFrame:
        """Return the log and forget it, so that who takes it can let go of it."""
        log, self.log = self.log, self.log.iloc[:0].copy()  # a slice alone would hold all of it
        return log


def read_tables(events: Any, items: Any = None, users: Any = None, reading: ReadSettings | None = None) -> Tables:
    """Read and check all tables, and settle over all of them whether ids are numbers or text.

    Each is a path, or a table in memory: pandas, Polars, pyarrow, or anything with the Arrow C interface.
    A MovieLens folder or zip as ``events`` brings its own items (and users).

    Raises:
        InputError: a file is missing, empty, damaged or of another layout, or too many rows are bad.
    """
    reading = reading or ReadSettings()
    source, of_events, layout = _locate(events, reading)
    log = Log()
    refusals = _collect(source, of_events, log)
    pyarrow.default_memory_pool().release_unused()  # what it read with; as much as the log itself
    found = log.table()
    item_table, user_table = (layout.items(), layout.users()) if layout else (None, None)
    if items is not None:
        item_table = read_attributes(items, ITEMS, reading, refusals)
    if users is not None:
        user_table = read_attributes(users, USERS, reading, refusals)
    for column, table in ((USER, user_table), (ITEM, item_table)):
        if table is not None:
            found[column], table[column] = unify_ids(found[column], table[column])
    return Tables(found, item_table, user_table, refusals)


def read_events(events: Any, reading: ReadSettings | None = None) -> tuple[pd.DataFrame, Refusals]:
    """Return the accepted events of a file, folder or table, and what was refused; see :func:`read_tables`."""
    tables = read_tables(events, reading=reading)
    return tables.events, tables.refusals


def read_all_columns(events: Any, reading: ReadSettings | None = None) -> tuple[pd.DataFrame, Refusals]:
    """Return the accepted events with every further column as it was found, and what was refused."""
    source, reading, _ = _locate(events, reading or ReadSettings())
    found: list[pd.DataFrame] = []
    refusals = _collect(source, reading, found, everything=True)
    table = pd.concat(found, ignore_index=True)
    return table.astype(dict.fromkeys(table.select_dtypes("category"), object)), refusals


def read_items(items: Any, reading: ReadSettings | None = None) -> pd.DataFrame:
    """Return an items table: ``item_id`` and whatever else there is, as text where the file is text."""
    table = read_attributes(items, ITEMS, reading or ReadSettings(), Refusals())
    table[ITEM] = unify_ids(table[ITEM])[0]
    return table


def read_items_of_log(events: Any, items: Any = None, reading: ReadSettings | None = None) -> pd.DataFrame | None:
    """Return the items table that :func:`read_tables` would: the one named, or the log's own; None without one."""
    _, _, layout = _locate(events, reading or ReadSettings())
    return read_items(items, reading) if items is not None else layout.items() if layout else None


def scan_log(events: Any, reading: ReadSettings | None = None) -> Iterator[pd.DataFrame]:
    """Yield the rows of a log as found, unchecked, a piece at a time: for those who only count."""
    source, reading, _ = _locate(events, reading or ReadSettings())
    where = str(source) if isinstance(source, Source) else EVENTS.name
    for raw in _pieces(source, where, reading, False):
        _require_columns(raw, reading)
        yield raw.table


def estimate_rows(events: Any, reading: ReadSettings | None = None) -> int:
    """Return about how many rows a log has: exactly for Parquet and tables, else its bytes over those of a row."""
    source, _, _ = _locate(events, reading or ReadSettings())
    if not isinstance(source, Source):
        return len(source)
    if source.path.is_dir() or source.path.suffix in (".parquet", ".pq"):
        return int(pyarrow.dataset.dataset(source.path, format="parquet").count_rows())
    with source.open() as stream:
        start = stream.read(1 << 20)
    packed = PACKED if source.member or source.path.suffix == ".gz" else 1
    return max(start.count(b"\n"), round(source.path.stat().st_size * packed * start.count(b"\n") / max(len(start), 1)))


def _locate(events: Any, reading: ReadSettings) -> tuple[Any, ReadSettings, movielens.MovieLensLayout | None]:
    """Return where the events are (a table is its own place), how to read them, and the MovieLens layout if any."""
    path = None if is_table(events) else Path(events)
    layout = movielens.find_layout(path) if path and reading.format in ("auto", "movielens") else None
    if layout:
        return layout.events, reading.model_copy(update=layout.reading), layout
    if reading.format == "movielens":
        raise InputError(f"{events}: no MovieLens layout here (ratings.csv, ratings.dat or u.data): check the folder.")
    return events if path is None else Source(path), reading, None


class _NumberAfterAllError(Exception):
    """A time is a number, in a log whose first times were none."""


def _collect(source: Any, reading: ReadSettings, sink: Log | list[pd.DataFrame], everything: bool = False) -> Refusals:
    """Append the accepted rows of every piece to ``sink``, and return what was refused.

    Times without a given unit are ISO 8601 if none is a number: that is believed of the first piece, and where a
    later one shows that it is not so, reading begins anew.
    """
    try:
        return _append(source, reading, sink, reading.time_unit, everything)
    except _NumberAfterAllError:
        sink.clear()
        return _append(source, reading, sink, "s", everything)


def _append(
    source: Any, reading: ReadSettings, sink: Log | list[pd.DataFrame], unit: TimeUnit | None, everything: bool
) -> Refusals:
    where = str(source) if isinstance(source, Source) else EVENTS.name
    refusals, times = Refusals(), np.zeros(3, dtype=np.int64)
    for raw in _ahead(_pieces(source, where, reading, everything)):
        _require_columns(raw, reading)
        if TIME in raw.table and reading.time_unit is None:
            times += count_times(raw.table[TIME])
            if unit == "iso" and times[0]:
                raise _NumberAfterAllError
            unit = unit or ("s" if times[0] else "iso")
        found, why = check_events(raw.table, unit)
        why = np.where(raw.why > 0, raw.why, why)
        refusals.add(where, why, raw.line, raw.text)
        if everything:
            found = pd.concat([found, raw.table[[name for name in raw.table if name not in found]]], axis=1)
        sink.append(found[why == 0] if why.any() else found)
    if times.any():
        guess_time_unit(times, where)
    check_refused_share(where, refusals, reading)
    return refusals


def _pieces(source: Any, where: str, reading: ReadSettings, everything: bool) -> Iterator[RawChunk]:
    wanted = {column: reading.columns.get(column, column) for column in (USER, ITEM, VALUE, TIME, EVENT)}
    if isinstance(source, Source):
        return read_chunks(source, reading.format, wanted, reading, everything=everything)
    return read_in_memory(source, where, wanted, everything)


def _ahead(found: Iterator[RawChunk]) -> Iterator[RawChunk]:
    """Yield what ``found`` yields, whose next piece is already being read while one is looked at."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, found, None)
        while (piece := coming.result()) is not None:
            coming = reader.submit(next, found, None)
            yield piece


def _require_columns(raw: RawChunk, reading: ReadSettings) -> None:
    EVENTS.require(raw.table.columns, raw.where)
    for column in reading.columns:
        if column not in raw.table:
            raise InputError(
                f"{raw.where}: [data.columns] maps {column} to '{reading.columns[column]}', which is no column here."
            )


def read_attributes(source: Any, kind: TableSchema, reading: ReadSettings, refusals: Refusals) -> pd.DataFrame:
    """Read an items or users table: refuse rows without an id, and all but the first of a repeated id."""
    key = kind.required[0]
    wanted = {key: reading.columns.get(key, key)}
    if is_table(source):
        found = read_in_memory(source, kind.name, wanted, everything=True)
    else:
        plain = ReadSettings(encoding=reading.encoding, delimiter=reading.delimiter)
        found = read_chunks(Source(Path(source)), "auto", wanted, plain, everything=True)
    raw = concat_chunks(found, kind.name if is_table(source) else str(source))
    kind.require(raw.table.columns, raw.where)
    why = raw.why.copy()
    refuse_rows(why, is_missing(raw.table[key]), f"missing {key.removesuffix('_id')} id")
    refuse_rows(why, is_undecodable(raw.table[key]), "undecodable bytes")
    repeated = raw.table[key].where(why == 0).duplicated().to_numpy() & (why == 0)
    why[repeated] = reason_code("duplicate id")
    own = Refusals()
    own.add(raw.where, why, raw.line, raw.text)
    check_refused_share(raw.where, own, reading)
    refusals.merge(own)
    return raw.table[why == 0].reset_index(drop=True)


def check_refused_share(source: str | Source, refusals: Refusals, reading: ReadSettings) -> None:
    """Raise InputError when there are no events, or too many of them were refused."""
    bad, total = refusals.refused, refusals.total
    if not total:
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    if bad < total and bad <= reading.max_refused_share * total:
        return
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in refusals.counts.items())
    examples = "".join(
        f"\n  {f'line {line}: ' if line else ''}{reason}: {text!r}"
        for file, line, reason, text in refusals.rows[:3]
        if file == str(source)
    )
    raise InputError(
        f"{source}: {bad:,} of {total:,} rows are bad ({reasons}), more than [data] max_refused_share ="
        f" {reading.max_refused_share:g} allows. Check the column mapping and the delimiter, or raise that share."
        f" The first:{examples}"
    )
