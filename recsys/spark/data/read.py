"""Files -> checked events on Spark: the rules of ``data.validate``, run on batches of rows by the executors."""

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
from recsys.data.reading.read import Refusals, check_refused_share, read_attributes
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.validate import LATEST, REASONS, check_events, count_times, guess_time_unit, reason_code
from recsys.errors import InputError
from recsys.schema import CANONICAL_INT, EVENT, EVENTS, ITEM, ITEMS, TIME, USER, USERS, VALUE

CORRUPT, WHY, TEXT = "_corrupt", "why", "text"
SAMPLE = 1_000
"""Refused rows written out; all are counted."""


@dataclass(frozen=True)
class Tables:
    """``events``: checked, one kind of id; ``items``: the ids of the items table, or None; ``refusals``: counted.

    ``item_table``, ``user_table``: the tables themselves, which the driver reads, with ids as they came.
    """

    events: DataFrame
    items: DataFrame | None
    refusals: Refusals
    item_table: pd.DataFrame | None = None
    user_table: pd.DataFrame | None = None


def read_tables(spark: SparkSession, data: DataSettings, work: Path) -> Tables:
    """Read, check and settle the kind of the ids; the result is on disk under ``work``, so nothing is read twice.

    Raises:
        InputError: a file is missing, empty, damaged or of another layout, or too many rows are bad.
    """
    source, reading = _source(data)
    try:
        raw = _raw(spark, source, reading)
        unit = reading.time_unit or _unit(raw, source)
        broken = "not a JSON object" if _kind(source, reading) == "jsonl" else "wrong column count"
        checked = raw.mapInArrow(_checker(unit, broken), _checked_schema(raw))
        checked.write.parquet(str(work / "checked"))
        checked = spark.read.parquet(str(work / "checked"))
        refusals = _refusals(checked, source)
        check_refused_share(source, refusals, reading)
        accepted = checked.where(F.col(WHY) == 0).drop(WHY, TEXT)
        item_table, user_table = _attributes(data, refusals)
        items = None if item_table is None else spark.createDataFrame(item_table[[ITEM]])
        accepted, items = _one_kind(accepted, items)
    except PySparkException as error:
        raise InputError(f"{source}: Spark cannot read it: {str(error).splitlines()[0]}") from error
    return Tables(accepted, items, refusals, item_table, user_table)


def raw_events(spark: SparkSession, data: DataSettings) -> DataFrame:
    """Return the events as they stand in their file, unchecked, under our column names."""
    return _raw(spark, *_source(data))


def _source(data: DataSettings) -> tuple[Source, ReadSettings]:
    layout = movielens.find_layout(Path(data.events)) if data.format in ("auto", "movielens") else None
    source, reading = Source(Path(data.events)), data.reading
    if layout:
        source, reading = layout.events, reading.model_copy(update=layout.reading)
    if source.member or source.path.suffix == ".zip":
        raise InputError(f"{source}: Spark cannot read inside a zip archive: unpack it, and name the folder.")
    return source, reading


def _kind(source: Source, reading: ReadSettings) -> str:
    return source.format() if reading.format == "auto" else reading.format


def _raw(spark: SparkSession, source: Source, reading: ReadSettings) -> DataFrame:
    """Return the columns that exist, renamed to ours; text files give text, and rows that do not parse ``_corrupt``."""
    kind = _kind(source, reading)
    wanted = {column: reading.columns.get(column, column) for column in (USER, ITEM, VALUE, TIME, EVENT)}
    path = str(source.path)
    if kind == "parquet":
        try:
            found = spark.read.parquet(path)
        except Py4JJavaError as error:  # a damaged footer is no PySparkException
            why = str(error.java_exception.getMessage()).partition("\n")[0]
            raise InputError(f"{source}: not a readable Parquet file or folder: {why}") from error
        names = found.columns
    elif kind == "jsonl":
        schema = T.StructType([T.StructField(name, T.StringType()) for name in [*wanted.values(), CORRUPT]])
        found = spark.read.schema(schema).json(path, columnNameOfCorruptRecord=CORRUPT, encoding=reading.encoding)
        present = found.agg(*(F.max(F.col(name).isNotNull()).alias(name) for name in wanted.values())).first()
        names = [name for name in wanted.values() if present and present[name]]
    else:
        delimiter = reading.delimiter or ("\t" if kind == "tsv" else ",")
        names, skip = read_header(source, delimiter, wanted, reading)
        schema = T.StructType([T.StructField(name, T.StringType()) for name in [*names, CORRUPT]])
        found = spark.read.schema(schema).csv(
            path,
            header=bool(skip),
            sep=delimiter,
            escape='"',
            encoding=reading.encoding,
            columnNameOfCorruptRecord=CORRUPT,
        )
    columns = [F.col(f"`{theirs}`").alias(ours) for ours, theirs in wanted.items() if theirs in names]
    EVENTS.require([ours for ours, theirs in wanted.items() if theirs in names], str(source))
    for ours, theirs in reading.columns.items():
        if theirs not in names:
            raise InputError(f"{source}: [data.columns] maps {ours} to '{theirs}', but there is no such column.")
    corrupt = F.col(CORRUPT) if CORRUPT in found.columns else F.lit(None).cast("string").alias(CORRUPT)
    return _plain(found.select(*columns, corrupt), source)


def _plain(frame: DataFrame, source: Source) -> DataFrame:
    """Raise InputError unless ids are text or integers, and values and times can be numbers."""
    whole = T.ByteType | T.ShortType | T.IntegerType | T.LongType
    real = whole | T.StringType | T.FloatType | T.DoubleType | T.DecimalType
    moment = T.TimestampType | T.TimestampNTZType | T.DateType
    wanted: dict[str, tuple[Any, str]] = {
        USER: (T.StringType | whole, "ids must be text or integers"),
        ITEM: (T.StringType | whole, "ids must be text or integers"),
        VALUE: (real | T.BooleanType, "it must be a number"),
        TIME: (real | moment, "it must be a number or a time"),
    }
    for column, (kinds, rule) in wanted.items():
        kind = frame.schema[column].dataType if column in frame.columns else None
        if kind is not None and not isinstance(kind, kinds):
            raise InputError(f"{source}: column '{column}' has type {kind.simpleString()}: {rule}.")
    return frame


def _unit(raw: DataFrame, source: Source) -> Any:
    """Return the unit of the times, by the rule of the local reader, from counts over all batches."""
    if TIME not in raw.columns:
        return None
    if isinstance(raw.schema[TIME].dataType, T.NumericType):  # no text to look at: Spark can count
        time = F.col(TIME).cast("double")
        number = time.isNotNull() & ~F.isnan(time)
        late = F.coalesce(number & (time >= LATEST), F.lit(False))
        counts = raw.select(*(F.count_if(which).alias(name) for name, which in (("found", number), ("late", late))))
        found, beyond = counts.first() or (0, 0)
        return guess_time_unit([found, beyond, 0], str(source))

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total = np.zeros(3, dtype=np.int64)
        for batch in batches:
            total += count_times(_series(batch, TIME, as_numbers=True))
        yield pa.RecordBatch.from_arrays([pa.array([n]) for n in total], names=["found", "late", "other"])

    counts = raw.select(TIME).mapInArrow(count, "found long, late long, other long")
    row = counts.agg(F.sum("found"), F.sum("late"), F.sum("other")).first()
    return guess_time_unit([number or 0 for number in row], str(source)) if row else None


def _checked_schema(raw: DataFrame) -> T.StructType:
    fields = [raw.schema[USER], raw.schema[ITEM], T.StructField(VALUE, T.DoubleType())]
    if TIME in raw.columns:
        fields.append(T.StructField(TIME, T.DoubleType()))
    if EVENT in raw.columns:
        fields.append(T.StructField(EVENT, T.StringType()))
    return T.StructType([*fields, T.StructField(WHY, T.ByteType()), T.StructField(TEXT, T.StringType())])


def _checker(unit: Any, broken_reason: str) -> Any:
    """Return the function that checks batches: ids pass through as they are, and only bad rows become text."""

    def check(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            names = [name for name in batch.schema.names if name != CORRUPT]
            as_numbers = {VALUE} if unit == "iso" else {VALUE, TIME}
            frame = pd.DataFrame({name: _series(batch, name, as_numbers=name in as_numbers) for name in names})
            events, why = check_events(frame, unit)
            broken = batch.column(CORRUPT).is_valid().to_numpy(zero_copy_only=False)
            why[broken] = reason_code(broken_reason)
            columns = {USER: batch.column(USER), ITEM: batch.column(ITEM), VALUE: pa.array(events[VALUE].to_numpy())}
            if TIME in events:
                columns[TIME] = pa.array(np.where(why > 0, 0.0, events[TIME].to_numpy()))
            if EVENT in events:
                columns[EVENT] = pa.Array.from_pandas(events[EVENT]).cast(pa.string())
            columns |= {WHY: pa.array(why.astype(np.int8)), TEXT: _text(batch, names, why > 0)}
            yield pa.RecordBatch.from_pydict(columns)

    return check


def _series(batch: pa.RecordBatch, name: str, *, as_numbers: bool) -> pd.Series:
    column = pa.chunked_array([batch.column(name)])
    return column_to_series(parse_finite_numbers(column) if as_numbers else column, name, "the log")


def _text(batch: pa.RecordBatch, names: list[str], bad: np.ndarray) -> pa.Array:
    """Return the bad rows as they stood, or as well as that is known, and null for all others."""
    if not bad.any():
        return pa.nulls(batch.num_rows, pa.string())
    text = np.full(batch.num_rows, None, dtype=object)
    rows = batch.select(names).take(pa.array(np.flatnonzero(bad))).to_pandas()
    whole = rows.astype(str).agg(",".join, axis=1)
    stood = batch.column(CORRUPT).take(pa.array(np.flatnonzero(bad))).to_pandas()
    text[bad] = stood.where(stood.notna(), whole)
    return pa.array(text, pa.string())


def _require_rows_on_lines(checked: DataFrame, source: Source) -> None:
    """Raise InputError when a row has half of a quoted field: Spark cuts files into pieces at line ends, whole or not.

    The local reader accepts a line end between quotes; here it would make two broken rows of a good one.
    """
    quotes = F.length(TEXT) - F.length(F.replace(F.col(TEXT), F.lit('"'), F.lit("")))
    half = checked.where((F.col(WHY) == reason_code("wrong column count")) & (quotes % 2 == 1)).select(TEXT).first()
    if half:
        raise InputError(
            f"{source}: a quoted field goes over the end of a line, or is never closed: {half[0][:80]!r}. Spark reads"
            " rows of one line: use engine = 'local', or write the table as Parquet."
        )


def _refusals(checked: DataFrame, source: Source) -> Refusals:
    """Return the counts by reason, and a sample of refused rows; Spark does not know their line numbers (0)."""
    counts = {row[WHY]: row["count"] for row in checked.groupBy(WHY).count().collect()}
    if reason_code("wrong column count") in counts:
        _require_rows_on_lines(checked, source)
    refusals = Refusals(total=sum(counts.values()))
    refusals.counts = {REASONS[why]: counts[why] for why in sorted(counts) if why}
    if refusals.refused:
        rows = checked.where(F.col(WHY) > 0).select(WHY, TEXT).limit(SAMPLE).collect()
        refusals.rows = [(str(source), 0, REASONS[row[WHY]], (row[TEXT] or "")[:200]) for row in rows]
    return refusals


def _attributes(data: DataSettings, refusals: Refusals) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Return the items and the users table. The driver reads them: a catalogue and a list of users fit there."""
    layout = movielens.find_layout(Path(data.events)) if data.format in ("auto", "movielens") else None
    items, users = (layout.items(), layout.users()) if layout else (None, None)
    if data.items:
        items = read_attributes(data.items, ITEMS, data.reading, refusals)
    if data.users:
        users = read_attributes(data.users, USERS, data.reading, refusals)
    return items, users


def _one_kind(events: DataFrame, items: DataFrame | None) -> tuple[DataFrame, DataFrame | None]:
    """Apply ``schema.unify_ids``: text ids become int64 only if every one of them is canonical and fits."""
    text = [_text_ids(events, (USER, ITEM)), [] if items is None else _text_ids(items, (ITEM,))]
    whole = [_all_canonical(events, text[0]), {} if items is None else _all_canonical(items, text[1])]
    for column in sorted({*text[0], *text[1]}):
        numeric = all(found.get(column, True) for found in whole)
        events = _cast(events, column, numeric)
        if items is not None and column == ITEM:
            items = _cast(items, column, numeric)
    return events, items


def _text_ids(frame: DataFrame, columns: tuple[str, ...]) -> list[str]:
    return [column for column in columns if isinstance(frame.schema[column].dataType, T.StringType)]


def _all_canonical(frame: DataFrame, columns: list[str]) -> dict[str, bool]:
    """Return column -> every id is a canonical int64, in one pass."""
    row = frame.agg(*(F.min(_canonical(column)).alias(column) for column in columns)).first() if columns else None
    return {column: bool(row and row[column]) for column in columns}


def _canonical(column: str) -> Column:
    return F.col(column).rlike(CANONICAL_INT) & F.expr(f"try_cast({column} AS bigint)").isNotNull()


def _cast(frame: DataFrame, column: str, whole: bool) -> DataFrame:
    kind = frame.schema[column].dataType
    if whole and isinstance(kind, T.StringType):
        return frame.withColumn(column, F.col(column).cast("bigint"))
    return frame if whole else frame.withColumn(column, F.col(column).cast("string"))
