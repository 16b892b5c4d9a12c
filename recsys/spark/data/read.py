"""Read events on Spark and check them: executors apply the rules of the local reader to batches of
rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.config import DataSettings
from recsys.data.reading import movielens
from recsys.data.reading.columnar import column_to_series, parse_finite_numbers
from recsys.data.reading.files import Source, read_header
from recsys.data.reading.read import (
    Refusals,
    check_refused_share,
    read_attributes,
    require_columns,
)
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.validate import (
    LATEST,
    REASONS,
    check_events,
    count_times,
    guess_time_unit,
    reason_code,
)
from recsys.errors import InputError
from recsys.schema import CANONICAL_INT, EVENT, ITEM, ITEMS, TIME, USER, USERS, VALUE

CORRUPT = "_corrupt"
"""Column that holds a row which does not parse, as text."""

REASON = "reason"
"""Column of the refusal code; 0 = accepted."""

TEXT = "text"
"""Column of a refused row as text."""

MAX_REFUSED_ROWS = 1_000
"""Number of refused rows that are written out; all are counted."""


@dataclass(frozen=True)
class SparkTables:
    """The tables of a run.

    Attributes:
        events: the accepted rows. All user ids have one type, and so do all item ids.
        items: the column ``item_id`` of the items table, in the type of the item ids of ``events``.
            None without an items table.
        refusals: refused rows, counted by reason.
        item_table, user_table: the tables in the memory of the driver, with ids as they are in the
            file. None without such a table.
    """

    events: DataFrame
    items: DataFrame | None
    refusals: Refusals
    item_table: pd.DataFrame | None = None
    user_table: pd.DataFrame | None = None


def read_tables(spark: SparkSession, data: DataSettings, work: Path) -> SparkTables:
    """Read and check the events, items and users that ``data`` names, and return them as tables.

    User ids and item ids that are text become int64 if every id of that kind is a canonical
    integer that fits ("7", not "007"). Otherwise ids of that kind are text in all tables. The
    checked rows are written to the folder ``work``. Later steps read them there and not in the
    source.

    Raises:
        InputError: a file is missing, empty or damaged, it has another layout than expected, Spark
            cannot read it, or more rows are refused than ``[data] max_refused_share`` allows.
    """
    source, reading = _source(data)
    try:
        raw = _read_raw(spark, source, reading)
        unit = reading.time_unit or _time_unit(raw, source)
        broken = "not a JSON object" if _file_format(source, reading) == "jsonl" else "wrong column count"
        checked = raw.mapInArrow(_check_batches(unit, broken), _checked_schema(raw))
        checked.write.parquet(str(work / "checked"))
        checked = spark.read.parquet(str(work / "checked"))
        refusals = _count_refusals(checked, source)
        check_refused_share(source, refusals, reading)
        accepted = checked.where(F.col(REASON) == 0).drop(REASON, TEXT)
        item_table, user_table = _read_attributes(data, refusals)
        items = None if item_table is None else spark.createDataFrame(item_table[[ITEM]])
        accepted, items = _unify_id_types(accepted, items)
    except PySparkException as error:
        raise InputError(f"{source}: Spark cannot read it: {str(error).splitlines()[0]}") from error
    return SparkTables(accepted, items, refusals, item_table, user_table)


def raw_events(spark: SparkSession, data: DataSettings) -> DataFrame:
    """Return the events as they are in their file, unchecked, under our column names."""
    return _read_raw(spark, *_source(data))


def _source(data: DataSettings) -> tuple[Source, ReadSettings]:
    layout = movielens.find_layout(Path(data.events)) if data.format in ("auto", "movielens") else None
    source, reading = Source(Path(data.events)), data.reading
    if layout:
        source, reading = layout.events, reading.model_copy(update=layout.reading)
    if source.member or source.path.suffix == ".zip":
        raise InputError(f"{source}: Spark cannot read inside a zip archive: unpack it, and name the folder.")
    return source, reading


def _file_format(source: Source, reading: ReadSettings) -> str:
    return source.format() if reading.format == "auto" else reading.format


def _read_raw(spark: SparkSession, source: Source, reading: ReadSettings) -> DataFrame:
    """Return the raw events: the columns that the source has, renamed to the names of this package,
    and the column :data:`CORRUPT`.

    Columns of csv, tsv and jsonl files have the type text. Columns of Parquet keep their type.
    """
    file_format = _file_format(source, reading)
    source_names = {column: reading.columns.get(column, column) for column in (USER, ITEM, VALUE, TIME, EVENT)}
    path = str(source.path)
    if file_format not in ("csv", "tsv", "jsonl", "parquet"):
        raise InputError(
            f"{source}: Spark reads csv, tsv, jsonl and parquet, but not {file_format}:"
            " use engine = 'local', or write the table as Parquet."
        )
    if file_format == "parquet":
        try:
            table = spark.read.parquet(path)
        except Py4JJavaError as error:  # a damaged footer is no PySparkException
            cause = str(error.java_exception.getMessage()).partition("\n")[0]
            raise InputError(f"{source}: not a readable Parquet file or folder: {cause}") from error
        names = table.columns
    elif file_format == "jsonl":
        schema = T.StructType([T.StructField(name, T.StringType()) for name in [*source_names.values(), CORRUPT]])
        table = spark.read.schema(schema).json(path, columnNameOfCorruptRecord=CORRUPT, encoding=reading.encoding)
        has_value = table.agg(*(F.max(F.col(name).isNotNull()).alias(name) for name in source_names.values())).first()
        names = [name for name in source_names.values() if has_value and has_value[name]]
    else:
        delimiter = reading.delimiter or ("\t" if file_format == "tsv" else ",")
        names, skip = read_header(source, delimiter, source_names, reading)
        schema = T.StructType([T.StructField(name, T.StringType()) for name in [*names, CORRUPT]])
        table = spark.read.schema(schema).csv(
            path,
            header=bool(skip),
            sep=delimiter,
            escape='"',
            encoding=reading.encoding,
            columnNameOfCorruptRecord=CORRUPT,
        )
    columns = {column: name for column, name in source_names.items() if name in names}
    require_columns(columns, reading, str(source))
    corrupt = F.col(CORRUPT) if CORRUPT in table.columns else F.lit(None).cast("string").alias(CORRUPT)
    renamed = table.select(*(F.col(f"`{name}`").alias(column) for column, name in columns.items()), corrupt)
    _require_types(renamed, source)
    return renamed


def _require_types(frame: DataFrame, source: Source) -> None:
    """Raise InputError unless ids are text or integers, and values and times can be numbers."""
    integer = T.ByteType | T.ShortType | T.IntegerType | T.LongType
    real = integer | T.StringType | T.FloatType | T.DoubleType | T.DecimalType
    moment = T.TimestampType | T.TimestampNTZType | T.DateType
    rules: dict[str, tuple[Any, str]] = {
        USER: (T.StringType | integer, "ids must be text or integers"),
        ITEM: (T.StringType | integer, "ids must be text or integers"),
        VALUE: (real | T.BooleanType, "it must be a number"),
        TIME: (real | moment, "it must be a number or a time"),
    }
    for column, (types, rule) in rules.items():
        kind = frame.schema[column].dataType if column in frame.columns else None
        if kind is not None and not isinstance(kind, types):
            raise InputError(f"{source}: column '{column}' has type {kind.simpleString()}: {rule}.")


def _time_unit(raw: DataFrame, source: Source) -> Any:
    """Return the unit of the timestamps, guessed from counts over all batches by the rule of the
    local reader. None without timestamps.
    """
    if TIME not in raw.columns:
        return None
    if isinstance(raw.schema[TIME].dataType, T.NumericType):  # no text to look at: Spark can count
        time = F.col(TIME).cast("double")
        number = time.isNotNull() & ~F.isnan(time)
        too_late = F.coalesce(number & (time >= LATEST), F.lit(False))
        row = raw.select(F.count_if(number), F.count_if(too_late)).first()
        return guess_time_unit([*(row or (0, 0)), 0], str(source))

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total = np.zeros(3, dtype=np.int64)
        for batch in batches:
            total += count_times(_series(batch, TIME, as_numbers=True))
        yield pa.RecordBatch.from_arrays([pa.array([n]) for n in total], names=["numbers", "too_late", "texts"])

    counts = raw.select(TIME).mapInArrow(count, "numbers long, too_late long, texts long")
    row = counts.agg(F.sum("numbers"), F.sum("too_late"), F.sum("texts")).first()
    return guess_time_unit([number or 0 for number in row], str(source)) if row else None


def _checked_schema(raw: DataFrame) -> T.StructType:
    fields = [raw.schema[USER], raw.schema[ITEM], T.StructField(VALUE, T.DoubleType())]
    if TIME in raw.columns:
        fields.append(T.StructField(TIME, T.DoubleType()))
    if EVENT in raw.columns:
        fields.append(T.StructField(EVENT, T.StringType()))
    return T.StructType([*fields, T.StructField(REASON, T.ByteType()), T.StructField(TEXT, T.StringType())])


def _check_batches(unit: Any, broken_reason: str) -> Any:
    """Return a function that checks batches of rows and adds :data:`REASON` and :data:`TEXT`.

    The ids stay as they are. ``TEXT`` is null for an accepted row.
    """

    def check(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            names = [name for name in batch.schema.names if name != CORRUPT]
            as_numbers = {VALUE} if unit == "iso" else {VALUE, TIME}
            frame = pd.DataFrame({name: _series(batch, name, as_numbers=name in as_numbers) for name in names})
            events, reason = check_events(frame, unit)
            broken = batch.column(CORRUPT).is_valid().to_numpy(zero_copy_only=False)
            reason[broken] = reason_code(broken_reason)
            columns = {
                USER: batch.column(USER),
                ITEM: batch.column(ITEM),
                VALUE: pa.array(events[VALUE].to_numpy()),
            }
            if TIME in events:
                columns[TIME] = pa.array(np.where(reason > 0, 0.0, events[TIME].to_numpy()))
            if EVENT in events:
                columns[EVENT] = pa.Array.from_pandas(events[EVENT]).cast(pa.string())
            columns[REASON] = pa.array(reason.astype(np.int8))
            columns[TEXT] = _refused_text(batch, names, reason > 0)
            yield pa.RecordBatch.from_pydict(columns)

    return check


def _series(batch: pa.RecordBatch, name: str, *, as_numbers: bool) -> pd.Series:
    column = pa.chunked_array([batch.column(name)])
    return column_to_series(parse_finite_numbers(column) if as_numbers else column, name, "the log")


def _refused_text(batch: pa.RecordBatch, names: list[str], refused: np.ndarray) -> pa.Array:
    """Return the text of each refused row, and null for an accepted row.

    The text is the whole line if the line did not parse, and otherwise the values of its columns,
    separated by commas.
    """
    if not refused.any():
        return pa.nulls(batch.num_rows, pa.string())
    text = np.full(batch.num_rows, None, dtype=object)
    rows = pa.array(np.flatnonzero(refused))
    columns = batch.select(names).take(rows).to_pandas().astype(str).agg(",".join, axis=1)
    lines = batch.column(CORRUPT).take(rows).to_pandas()
    text[refused] = lines.where(lines.notna(), columns)
    return pa.array(text, pa.string())


def _require_rows_on_lines(checked: DataFrame, source: Source) -> None:
    """Raise InputError if a row contains only the first or the last part of a quoted field.

    The local reader accepts a line end between quotes. Spark splits files at every line end, so it
    would turn such a row into two damaged rows.
    """
    quotes = F.length(TEXT) - F.length(F.replace(F.col(TEXT), F.lit('"'), F.lit("")))
    half = checked.where((F.col(REASON) == reason_code("wrong column count")) & (quotes % 2 == 1)).select(TEXT).first()
    if half:
        raise InputError(
            f"{source}: a quoted field contains a line end, or is never closed: {half[0][:80]!r}. Spark reads one row"
            " per line: use engine = 'local', or write the table as Parquet."
        )


def _count_refusals(checked: DataFrame, source: Source) -> Refusals:
    """Return the number of refused rows by reason, and up to :data:`MAX_REFUSED_ROWS` of the rows.

    Their line numbers are 0, because Spark does not know them.
    """
    counts = {row[REASON]: row["count"] for row in checked.groupBy(REASON).count().collect()}
    if reason_code("wrong column count") in counts:
        _require_rows_on_lines(checked, source)
    refusals = Refusals(total=sum(counts.values()))
    refusals.counts = {REASONS[reason]: counts[reason] for reason in sorted(counts) if reason}
    if refusals.refused:
        rows = checked.where(F.col(REASON) > 0).select(REASON, TEXT).limit(MAX_REFUSED_ROWS).collect()
        refusals.rows = [(str(source), 0, REASONS[row[REASON]], (row[TEXT] or "")[:200]) for row in rows]
    return refusals


def _read_attributes(data: DataSettings, refusals: Refusals) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Return the items table and the users table, each None if there is none.

    The driver reads both, because a table with one row per item or user fits in its memory.
    """
    layout = movielens.find_layout(Path(data.events)) if data.format in ("auto", "movielens") else None
    items, users = (layout.items(), layout.users()) if layout else (None, None)
    if data.items:
        items = read_attributes(data.items, ITEMS, data.reading, refusals)
    if data.users:
        users = read_attributes(data.users, USERS, data.reading, refusals)
    return items, users


def _unify_id_types(events: DataFrame, items: DataFrame | None) -> tuple[DataFrame, DataFrame | None]:
    """Return both tables with ids of one type, by the rule of ``schema.unify_ids``.

    User ids, and likewise item ids, that are text become int64 only if every one of them is a
    canonical integer that fits. Otherwise they are text in both tables.
    """
    is_canonical = [_all_canonical(events, (USER, ITEM))]
    if items is not None:
        is_canonical.append(_all_canonical(items, (ITEM,)))
    for column in sorted(set().union(*is_canonical)):
        numeric = all(columns.get(column, True) for columns in is_canonical)
        events = _cast(events, column, numeric)
        if items is not None and column == ITEM:
            items = _cast(items, column, numeric)
    return events, items


def _all_canonical(frame: DataFrame, columns: tuple[str, ...]) -> dict[str, bool]:
    """Return column -> whether every id in it is a canonical int64.

    Only columns of text are in the result. All are checked in one pass over the data.
    """
    text_columns = [column for column in columns if isinstance(frame.schema[column].dataType, T.StringType)]
    if not text_columns:
        return {}
    row = frame.agg(*(F.min(_canonical(column)).alias(column) for column in text_columns)).first()
    return {column: bool(row and row[column]) for column in text_columns}


def _canonical(column: str) -> Column:
    return F.col(column).rlike(CANONICAL_INT) & F.expr(f"try_cast({column} AS bigint)").isNotNull()


def _cast(frame: DataFrame, column: str, numeric: bool) -> DataFrame:
    kind = frame.schema[column].dataType
    if numeric and isinstance(kind, T.StringType):
        return frame.withColumn(column, F.col(column).cast("bigint"))
    return frame if numeric else frame.withColumn(column, F.col(column).cast("string"))
