"""Read events on Spark: from the files of a run to its checked tables.

``text`` and ``parquet`` parse the files, and ``check`` checks their rows, with the functions of
``data.reading``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pandas as pd
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.config import DataSettings
from recsys.data.reading import movielens
from recsys.data.reading.files import READERS
from recsys.data.reading.read import (
    AttributeTable,
    Refusals,
    check_refused_share,
    column_mapping,
    read_attributes,
    require_columns,
    require_same_part_columns,
)
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.sources import Source
from recsys.data.reading.validate import guess_time_unit
from recsys.errors import InputError
from recsys.locations import Location, is_remote, local_path
from recsys.schema import FALLBACK, ITEM, ITEMS, SIDE, TIME, USER, USERS, unify_ids
from recsys.spark.data.check import (
    LINE,
    REASON,
    TEXT,
    TIME_COUNTS,
    UNIT_COUNTS,
    VALUE_AGGREGATES,
    checked_rows,
    count_refusals,
    find_time_unit,
    text_columns,
    write_checked,
)
from recsys.spark.data.parquet import read_parquet
from recsys.spark.data.raw_events import FILE, RawEvents
from recsys.spark.data.remote import fetch_source, make_source
from recsys.spark.data.text import read_delimited, read_json_lines


@dataclass(frozen=True)
class SparkTables:
    """The checked tables of a run.

    Attributes:
        events: the accepted rows, with the columns user_id, item_id, value, and timestamp and event
            if the log has them. All user ids have one type, and so do all item ids.
        items: the column ``item_id`` of the items table, in the type of the item ids of ``events``.
            None without an items table.
        refusals: refused rows, counted by reason.
        item_table, user_table: the tables in the memory of the driver, with ids in the type of those
            of ``events``. None without such a table.
        duplicates: ``items`` or ``users`` -> number of rows that ``[data] duplicates`` merged into
            others.
        values: the aggregates ``check.VALUE_AGGREGATES`` of the values of ``events``. None if the parts of
            a split were read.
    """

    events: DataFrame
    items: DataFrame | None
    refusals: Refusals
    item_table: pd.DataFrame | None = None
    user_table: pd.DataFrame | None = None
    duplicates: dict[str, int] = field(default_factory=dict)
    values: dict[str, Any] | None = None


@dataclass(frozen=True)
class CheckedLog:
    """The checked events of a log: the accepted rows, and the counts of the refused ones.

    Attributes:
        accepted: the accepted rows, with the columns user_id, item_id, value, and timestamp and
            event if the log has them. If the parts of a split were read, the column ``side`` has
            the name of the part.
        is_canonical: name of an id column with ids that are text -> whether all of these ids are
            canonical integers of 64 bits ("7", not "007"). Only accepted rows count. False if there
            are none.
        refusals: the number of refused rows by reason, and up to ``MAX_REFUSED_ROWS`` of these
            rows.
        values: as in :class:`SparkTables`.
    """

    accepted: DataFrame
    is_canonical: dict[str, bool]
    refusals: Refusals
    values: dict[str, Any] | None = None


def read_tables(
    spark: SparkSession, data: DataSettings, work: Location, events: str | dict[str, str] | None = None
) -> SparkTables:
    """Read and check the events, items and users that ``data`` names, and return them as tables.

    User ids and item ids that are text become int64 if every id of that kind is a canonical integer
    ("7", not "007") of 64 bits. Otherwise ids of that kind are text in all tables. The checked rows
    are written to the folder ``work``, and later steps read them there and not in the source.

    Args:
        spark: the session.
        data: the section ``[data]``: the locations of the tables, and how to read them.
        work: a folder that the executors see under the same path.
        events: the location of the events. None: ``data.events``. For events that are split
            already, it is a dict: name of the part ("train", "test" …) -> file or folder. The
            events then have a column ``side`` with these names.

    Raises:
        InputError: a file is missing, empty or damaged, it has another layout than expected, Spark
            cannot read it, or more rows are refused than ``[data] max_refused_share`` allows.
    """
    events = events or str(data.events)
    if isinstance(events, str):
        locations = [events]
        log = _read_log(spark, events, data, work / "checked")
    else:
        locations = list(events.values())
        log = _read_parts(spark, events, data, work)
    with _read_errors_explained(locations[0]):
        item_table, user_table, duplicates = _read_attributes(spark, data, locations, log.refusals)
        accepted, tables = _unify_id_types(log.accepted, log.is_canonical, {"items": item_table, "users": user_table})
        items = None
        if tables["items"] is not None:
            items = spark.createDataFrame(tables["items"][[ITEM]])
    return SparkTables(accepted, items, log.refusals, tables["items"], tables["users"], duplicates, log.values)


def _read_log(spark: SparkSession, location: str, data: DataSettings, path: Location) -> CheckedLog:
    """Read and check one file or folder of events, and write the checked rows to ``path``.

    If the settings have no unit of times, each task guesses it from its first times. If all rows
    together show another unit than that of any task, they are checked and written again, to a
    folder beside ``path``.

    Raises:
        InputError: the file cannot be read, or too many rows are refused.
    """
    source, reading = _source(spark, location, data)
    with _read_errors_explained(location):
        raw = _read_raw(spark, source, reading)
        unit = reading.time_unit
        is_guessed = unit is None and TIME in raw.columns
        counts, checked = write_checked(raw, unit, path, count_forms=is_guessed)
        if is_guessed:
            unit_of_all_rows = guess_time_unit([counts[name] or 0 for name in TIME_COUNTS], str(source))
            if any(counts[name] for guess, name in UNIT_COUNTS.items() if guess != unit_of_all_rows):
                path = path.with_name(f"{path.name}_again")
                counts, checked = write_checked(raw, unit_of_all_rows, path, count_forms=False)
        refusals = count_refusals(counts, checked, source)
        check_refused_share(source, refusals, reading)
    is_canonical = {column: bool(counts[f"canonical {column}"]) for column in text_columns(checked)}
    accepted = checked.where(F.col(REASON) == 0).drop(REASON, TEXT, FILE, LINE)
    return CheckedLog(accepted, is_canonical, refusals, {name: counts[name] for name in VALUE_AGGREGATES})


def _read_parts(spark: SparkSession, parts: dict[str, str], data: DataSettings, work: Location) -> CheckedLog:
    """Return the parts of a split as one log with a column ``side``, with ids of one type."""
    logs = {side: _read_log(spark, location, data, work / f"checked-{side}") for side, location in parts.items()}
    frames = {side: log.accepted for side, log in logs.items()}
    require_same_part_columns({side: frame.columns for side, frame in frames.items()})
    is_canonical = {}
    for column in (USER, ITEM):
        with_texts = [log for log in logs.values() if column in log.is_canonical]
        kind = "bigint"
        if with_texts:
            kind = "string"
            is_canonical[column] = all(log.is_canonical[column] for log in with_texts)
        if len({frame.schema[column].dataType for frame in frames.values()}) > 1:
            frames = {side: frame.withColumn(column, F.col(column).cast(kind)) for side, frame in frames.items()}
    accepted = reduce(DataFrame.unionByName, [frame.withColumn(SIDE, F.lit(side)) for side, frame in frames.items()])
    refusals = Refusals()
    for log in logs.values():
        refusals.merge(log.refusals)
    return CheckedLog(accepted, is_canonical, refusals)


@contextmanager
def _read_errors_explained(location: str) -> Iterator[None]:
    try:
        yield
    except PySparkException as error:
        raise InputError(f"{location}: Spark cannot read it: {str(error).splitlines()[0]}") from error


def accepted_pairs(spark: SparkSession, data: DataSettings, locations: list[str]) -> DataFrame:
    """Return a DataFrame with user_id and item_id of the accepted events of all locations.

    The result is not stored: every action on it reads and checks the files again.

    Args:
        spark: the session.
        data: the section ``[data]``: how to read the files.
        locations: paths or URIs of files or folders of events.

    Raises:
        InputError: a file cannot be read, or a required column is missing.
    """
    pairs = []
    for location in locations:
        source, reading = _source(spark, location, data)
        raw = _read_raw(spark, source, reading)
        unit = reading.time_unit or find_time_unit(raw, source)
        pairs.append(checked_rows(raw, unit).where(F.col(REASON) == 0).select(USER, ITEM))
    return reduce(DataFrame.unionByName, pairs)


def _movielens_layout(location: str, data: DataSettings) -> movielens.MovieLensLayout | None:
    if data.format not in ("auto", "movielens") or is_remote(location):
        return None
    return movielens.find_layout(local_path(location))


def _source(spark: SparkSession, location: str, data: DataSettings) -> tuple[Source, ReadSettings]:
    layout = _movielens_layout(location, data)
    source = make_source(spark, location)
    reading = data.reading
    if layout:
        source, reading = layout.events, reading.model_copy(update=layout.reading)
    if source.member or source.path.suffix == ".zip":
        raise InputError(f"{source}: Spark cannot read inside a zip archive: unpack it, and name the folder.")
    return source, reading


def _read_raw(spark: SparkSession, source: Source, reading: ReadSettings) -> RawEvents:
    """Find the format and the columns of a log, and return it as RawEvents.

    Raises:
        InputError: Spark does not read this format, or a required column is missing.
    """
    file_format = source.format(reading)
    if file_format not in READERS:
        raise InputError(
            f"{source}: Spark reads csv, tsv, jsonl and parquet, but not {file_format}:"
            " use engine = 'local', or write the table as Parquet."
        )
    mapping = column_mapping(reading)
    if file_format == "parquet":
        raw = read_parquet(spark, source, mapping)
    elif file_format == "jsonl":
        raw = read_json_lines(spark, source, mapping, reading)
    else:
        raw = read_delimited(spark, source, mapping, reading)
    require_columns(raw.columns, reading, str(source))
    if FALLBACK in raw.columns:
        raw.id_types[USER] = T.StringType()
    return raw


def _read_attributes(
    spark: SparkSession, data: DataSettings, locations: list[str], refusals: Refusals
) -> tuple[pd.DataFrame | None, pd.DataFrame | None, dict[str, int]]:
    """Read the items table and the users table into the memory of the driver.

    Return (items table, users table, table name -> number of rows that repeat an id).
    """
    layouts = [_movielens_layout(location, data) for location in locations]
    layout = next((layout for layout in layouts if layout), None)
    items, users = (layout.items(), layout.users()) if layout else (None, None)
    duplicates = {}
    if data.items:
        side = read_attributes(fetch_source(spark, data.items), ITEMS, data.reading)
        items = _accept(side, refusals, data.reading)
        duplicates["items"] = side.duplicates
    if data.users:
        side = read_attributes(fetch_source(spark, data.users), USERS, data.reading)
        users = _accept(side, refusals, data.reading)
        duplicates["users"] = side.duplicates
    return items, users, duplicates


def _accept(side: AttributeTable, refusals: Refusals, reading: ReadSettings) -> pd.DataFrame:
    check_refused_share(side.name, side.refusals, reading)
    refusals.merge(side.refusals)
    return side.table


def _unify_id_types(
    events: DataFrame, is_canonical: dict[str, bool], tables: dict[str, pd.DataFrame | None]
) -> tuple[DataFrame, dict[str, pd.DataFrame | None]]:
    """Convert the ids of all tables to one type, and return the events and the other tables.

    User ids, and likewise item ids, that are text become int64 only if every one of them in every
    table is a canonical integer that fits. Otherwise they are text in all tables.

    Args:
        is_canonical: that of the events, as in :class:`CheckedLog`.
        tables: "items" and "users" -> the table, None without such a table.
    """
    unified = dict(tables)
    for name, column in (("users", USER), ("items", ITEM)):
        table = tables[name]
        is_numeric = is_canonical.get(column, True)
        if table is not None:
            (ids,) = unify_ids(table[column])
            is_numeric = is_numeric and ids.dtype.kind in "iu"
            if not is_numeric:
                ids = ids.astype(str).astype(object)
            unified[name] = table.assign(**{column: ids})
        events = _cast(events, column, is_numeric)
    return events, unified


def _cast(frame: DataFrame, column: str, numeric: bool) -> DataFrame:
    kind = frame.schema[column].dataType
    if numeric and isinstance(kind, T.StringType):
        return frame.withColumn(column, F.col(column).cast("bigint"))
    return frame if numeric else frame.withColumn(column, F.col(column).cast("string"))
