"""Read Parquet on Spark, as rows that are not checked yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.data.reading.columnar import (
    ParquetLayout,
    RawChunk,
    column_to_series,
    parquet_layout,
    parse_finite_numbers,
    time_storage,
)
from recsys.data.reading.sources import Source
from recsys.errors import InputError
from recsys.schema import FALLBACK, ITEM, TIME, USER, VALUE
from recsys.spark.data.raw_events import Batches, ParsedRows, RawEvents
from recsys.spark.data.remote import spark_uri


def read_parquet(spark: SparkSession, source: Source, mapping: dict[str, str]) -> RawEvents:
    """Return the log of a Parquet file or folder, with ids of the types that the files have.

    Args:
        spark: the session. Some of its settings for Parquet are changed.
        source: the file or folder.
        mapping: name of a column in this package -> its name in the files.

    Raises:
        InputError: a file is damaged or has a colon in its name, or a column has a type that its
            values cannot have.
    """
    # A time in nanoseconds, which Spark has no type for, is read as its number.
    spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    # Folders such as item_id=007 name texts, and names that differ in case are two columns.
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    spark.conf.set("spark.sql.caseSensitive", "true")
    for part in source.parts:
        if ":" in part.path.name:
            raise InputError(f"{part}: Spark cannot read a file with a colon in its name: rename it.")
    layout = parquet_layout(source, mapping)
    kinds = {column: layout.schema.field(name).type for column, name in layout.chosen.items()}
    _require_types(kinds, source)
    by_storage: dict[tuple[str, pa.Schema], list[Source]] = {}
    for part, schema in zip(source.parts, layout.part_schemas, strict=True):
        storage = ""
        if pa.types.is_timestamp(kinds.get(TIME, pa.null())):
            storage = time_storage(part, layout.chosen[TIME])
        by_storage.setdefault((storage, schema), []).append(part)
    frames = [
        _parquet_frame(spark, source, parts, layout, schema, storage) for (storage, schema), parts in by_storage.items()
    ]
    frames = [_whole_ids(frame, kinds, source) for frame in frames]
    id_types = {column: frames[0].schema[column].dataType for column in (USER, ITEM) if column in kinds}
    pieces: list[tuple[DataFrame, Callable[[Batches], ParsedRows]]] = [
        (frame, partial(_parse_typed, str(source))) for frame in frames
    ]
    return RawEvents(pieces, tuple(layout.chosen), id_types)


def _parquet_frame(
    spark: SparkSession,
    source: Source,
    parts: list[Source],
    layout: ParquetLayout,
    schema: pa.Schema,
    storage: str,
) -> DataFrame:
    """Return a DataFrame of the chosen columns of Parquet files, by the names that this package uses.

    A column that the files lack is null. The types are those of the layout.

    Args:
        schema: the types of the columns in these files.
        storage: "nanoseconds" or "int96" if the times are stored in this way; they are converted to
            timestamps. Empty for other times.

    Raises:
        InputError: a file is damaged.
    """
    fields = []
    for column in schema:
        kind = _spark_type(column.type)
        if column.name == layout.chosen.get(TIME) and storage:
            kind = {"nanoseconds": T.LongType(), "int96": T.TimestampType()}[storage]
        if not isinstance(kind, T.NullType):
            fields.append(T.StructField(column.name, kind))
    reader = spark.read.schema(T.StructType(fields))
    if layout.keys:
        reader = reader.option("basePath", spark_uri(source))
    try:
        table = reader.parquet(*(spark_uri(part) for part in parts))
    except Py4JJavaError as error:  # a damaged footer is no PySparkException
        cause = str(error.java_exception.getMessage()).partition("\n")[0]
        raise InputError(f"{source}: not a readable Parquet file or folder: {cause}") from error
    columns = []
    for column, name in layout.chosen.items():
        values = F.lit(None).cast("string")
        if name in table.columns:
            values = F.col(f"`{name}`")
        if column == TIME and storage == "nanoseconds":
            values = F.timestamp_micros(F.expr(f"`{name}` div 1000"))
        elif name in schema.names and schema.field(name).type != layout.schema.field(name).type:
            # Spark itself widens few types while it reads.
            values = values.cast(_spark_type(layout.schema.field(name).type))
        columns.append(values.alias(column))
    return table.select(*columns)


def _whole_ids(frame: DataFrame, kinds: dict[str, pa.DataType], source: Source) -> DataFrame:
    """Convert the ids of some types: uint64 and decimals to text, and floats to integers.

    Raises:
        InputError: a float is not a whole number, or its absolute value is 2^53 or more.
    """
    floats = [column for column in (USER, ITEM, FALLBACK) if column in kinds and pa.types.is_floating(kinds[column])]
    if floats:
        bad = [F.max(F.isnan(c) | (F.abs(c) >= 2.0**53) | (c != F.floor(c))) for c in map(F.col, floats)]
        row = frame.agg(*(column.alias(name) for column, name in zip(bad, floats, strict=True))).first()
        for name in floats:
            if row and row[name]:
                raise InputError(f"{source}: column '{name}' has type {kinds[name]}: ids must be text or integers.")
            frame = frame.withColumn(name, F.col(name).cast("bigint"))
    for name in (USER, ITEM, FALLBACK):
        if name in kinds and (pa.types.is_decimal(kinds[name]) or pa.types.is_uint64(kinds[name])):
            frame = frame.withColumn(name, F.col(name).cast("string"))
    return frame


def _spark_type(kind: pa.DataType) -> T.DataType:
    """Return the type in which Spark reads a column of Parquet."""
    if pa.types.is_timestamp(kind):
        return T.TimestampNTZType() if kind.tz is None else T.TimestampType()
    if pa.types.is_decimal(kind):
        return T.DecimalType(kind.precision, kind.scale)
    for test, result in SPARK_TYPES:
        if test(kind):
            return result
    return T.StringType()


SPARK_TYPES: tuple[tuple[Callable[[pa.DataType], bool], T.DataType], ...] = (
    (pa.types.is_int8, T.ByteType()),
    (pa.types.is_uint8, T.ShortType()),
    (pa.types.is_int16, T.ShortType()),
    (pa.types.is_uint16, T.IntegerType()),
    (pa.types.is_int32, T.IntegerType()),
    (pa.types.is_uint32, T.LongType()),
    (pa.types.is_int64, T.LongType()),
    (pa.types.is_uint64, T.DecimalType(20, 0)),
    (pa.types.is_float32, T.FloatType()),
    (pa.types.is_float64, T.DoubleType()),
    (pa.types.is_boolean, T.BooleanType()),
    (pa.types.is_date, T.DateType()),
    (pa.types.is_null, T.NullType()),
)
"""Pairs of a test of an Arrow type and the type in which Spark reads such a column of Parquet."""


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _require_types(kinds: dict[str, pa.DataType], source: Source) -> None:
    """Raise InputError unless ids are text or integers, and values and times can be numbers."""
    rules: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
        USER: (_can_be_ids, "ids must be text or integers"),
        ITEM: (_can_be_ids, "ids must be text or integers"),
        VALUE: (lambda kind: _is_number(kind) or pa.types.is_boolean(kind), "it must be a number"),
        TIME: (
            lambda kind: _is_number(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind),
            "it must be a number",
        ),
    }
    for column, (is_possible, rule) in rules.items():
        kind = kinds.get(column, pa.string())
        if not (_is_text(kind) or is_possible(kind)):
            raise InputError(f"{source}: column '{column}' has type {kind}: {rule}.")


def _can_be_ids(kind: pa.DataType) -> bool:
    is_whole = pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)
    return is_whole or pa.types.is_floating(kind)


def _parse_typed(source: str, batches: Batches) -> ParsedRows:
    for batch in batches:
        if not batch.num_rows:
            continue
        columns = {}
        for name in batch.schema.names:
            column = pa.chunked_array([batch.column(name)])
            if name in (VALUE, TIME):
                column = parse_finite_numbers(column)
            columns[name] = column_to_series(column, name, source)
        frame = pd.DataFrame(columns)
        reasons = np.zeros(len(frame), dtype=np.int8)
        chunk = RawChunk(frame, reasons, source, lambda row: 0, _text_of_row(frame))
        yield chunk, {name: batch.column(name) for name in (USER, ITEM)}


def _text_of_row(frame: pd.DataFrame) -> Callable[[int], str]:
    return lambda row: str(frame.iloc[row].to_dict())
