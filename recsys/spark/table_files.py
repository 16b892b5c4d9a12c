"""Tables of lists, users and late events: read from any URI that Spark reads, and written there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.config import Config
from recsys.data.splitting.strategies import ByFiles
from recsys.errors import ConfigError, InputError, RunFolderError, suggest_nearest
from recsys.evaluation.topk_tables import PANDAS_INDEX, require
from recsys.locations import Location, Uri
from recsys.schema import ITEM, RANK, SCORE, USER, VALUE, TableSchema
from recsys.spark.hadoop_client import HadoopClient

CSV_READING = {"header": True, "quote": '"', "escape": '"', "multiLine": True, "encoding": "UTF-8"}
"""Options by which Spark reads CSV as RFC 4180 defines it.

A quote inside a quoted field is doubled, a backslash is a character like any other, and a field may
contain line ends.
"""

CSV_WRITING = {
    "header": True,
    "quote": '"',
    "escape": '"',
    # Spark's writer removes blanks at the ends of a field by default.
    "ignoreLeadingWhiteSpace": False,
    "ignoreTrailingWhiteSpace": False,
    "emptyValue": '""',
}

GLOB_CHARACTERS = str.maketrans({character: "\\" + character for character in "[]{}*?\\"})

CORRUPT = "_recsys_corrupt_row"
"""The column in which Spark's reader keeps a line that has another number of fields than the header."""

NUMBER_TYPES = {RANK: "int", SCORE: "double", VALUE: "double"}


def spark_path(path: Location) -> str:
    """Return a URI by which Spark reads exactly this file or folder.

    Characters that Spark would read as a pattern, such as ``*``, are escaped.
    """
    if isinstance(path, Uri):
        return str(path).translate(GLOB_CHARACTERS)
    return "file://" + str(path.absolute()).translate(GLOB_CHARACTERS)


def read_table(
    spark: SparkSession,
    uri: str,
    *,
    columns: tuple[str, ...] = (),
    like: DataFrame | None = None,
    schema: TableSchema | None = None,
) -> DataFrame:
    """Read a table from a CSV file with a header, if ``uri`` ends in .csv, or else from Parquet.

    Ids in CSV are text. If ``item_id`` is a required column and the table has no column ``value``,
    it gets one that is 1 in every row.

    Args:
        spark: the session.
        uri: the path or URI of the file or folder.
        columns: the columns that the table must have. It may have others.
        schema: if given, the columns that the table must and may have. Those of a pandas index are
            left out.
        like: the ids of the table are converted to the types that the columns ``user_id`` (or
            ``user``) and ``item_id`` of this DataFrame have.

    Raises:
        InputError: the table cannot be read or has no rows, or a line of a CSV file has another
            number of fields than the header. Or a column is missing or not in the schema, an id is
            missing or neither text nor an integer, or a value cannot be converted to the type of
            its column.
    """
    try:
        # A local file is meant by its exact name, whatever characters a pattern could have.
        exact = spark_path(Path(uri)) if Path(uri).exists() else uri
        _require_no_colon(uri)
        if uri.rstrip("/").endswith(".csv"):
            # Fields with line ends are read by a part of Spark that takes a name for a pattern in any case.
            multi_line = "\\" not in exact
            reader = spark.read.options(**CSV_READING | {"multiLine": multi_line})
            table = reader.csv(exact)
            _require_even_rows(reader, table, exact, uri)
        else:
            _require_no_empty_part(Path(uri))
            table = spark.read.parquet(exact)
    except PySparkException as error:
        raise InputError(f"{uri}: Spark cannot read it: {str(error).splitlines()[0]}") from error
    if schema is not None:
        table = table.drop(*(name for name in table.columns if name.startswith(PANDAS_INDEX)))
        require(schema, table.columns, uri)
        columns = schema.required
    for column in columns:
        if column not in table.columns:
            raise InputError(
                f"{uri}: no column {column}.{suggest_nearest(column, table.columns)} It has {table.columns}."
            )
    _require_ids(table, [column for column in columns if column in (USER, ITEM)], uri)
    if ITEM in columns and VALUE not in table.columns:
        table = table.withColumn(VALUE, F.lit(1.0))
    types = dict(NUMBER_TYPES)
    if like is not None:
        types |= {field.name: field.dataType.simpleString() for field in like.schema if field.name in (USER, ITEM)}
        if "user" in like.columns:
            types[USER] = like.schema["user"].dataType.simpleString()
    for name, column_type in types.items():
        if name in table.columns:
            # As on the local engine, values that are not numbers are counted as refused later.
            keep_bad = schema is not None and name == VALUE
            table = _cast_column(table, name, column_type, uri, keep_bad=keep_bad)
    return table


def _require_even_rows(reader: DataFrameReader, table: DataFrame, exact: str, uri: str) -> None:
    """Raise InputError if a line of a CSV file has more or fewer fields than the header.

    Without this check Spark would drop the extra fields, or add null fields.

    Args:
        reader: the reader with the options of CSV.
        table: the file as it was read.
        exact: the escaped URI of the file.
        uri: the name of the file for the message.
    """
    if not table.columns:
        raise InputError(f"{uri}: no rows: the file is empty, or has nothing but a header.")
    schema = T.StructType([*table.schema.fields, T.StructField(CORRUPT, T.StringType())])
    lines = reader.options(columnNameOfCorruptRecord=CORRUPT).schema(schema).csv(exact)
    odd = lines.where(F.col(CORRUPT).isNotNull()).first()
    if odd is not None:
        raise InputError(
            f"{uri}: a line has another number of fields than the header, which has {len(table.columns)}:"
            f" {odd[CORRUPT][:80]!r}."
        )


def _require_no_empty_part(folder: Path) -> None:
    """Raise InputError if a local folder has a Parquet file of 0 bytes, which Spark would skip in silence."""
    for part in sorted(folder.rglob("*.parquet")):
        if part.is_file() and not part.stat().st_size:
            raise InputError(f"{part}: not a readable Parquet file: it has 0 bytes. Write it again, or leave it out.")


def _require_ids(table: DataFrame, columns: list[str], uri: str) -> None:
    """Raise InputError if a table has no rows, or ids that are missing or neither text nor integers."""
    if not columns:
        return
    for column in columns:
        kind = table.schema[column].dataType
        if not isinstance(kind, T.StringType | T.IntegralType | T.NullType):
            raise InputError(f"{uri}: column '{column}' has type {kind.simpleString()}: ids must be text or integers.")
    is_missing = {column: F.col(column).isNull() | (F.col(column).cast("string") == "") for column in columns}
    row = table.agg(F.count("*").alias("rows"), *(F.count_if(is_missing[column]).alias(column) for column in columns))
    counts = row.collect()[0]
    if not counts["rows"]:
        raise InputError(f"{uri}: no rows: the file is empty, or has nothing but a header.")
    for column in columns:
        if counts[column]:
            raise InputError(f"{uri}: {counts[column]:,} rows have no {column}.")


def require_new_table(spark: SparkSession, uri: str) -> None:
    """Check, before any work, that no file or folder exists at ``uri``.

    Raises:
        RunFolderError: ``uri`` exists already, its name has a colon, or Spark cannot write there.
    """
    if ":" in _name_of(uri):
        raise RunFolderError(f"{uri}: Spark writes no table whose name has a colon: choose another name.")
    with _write_errors_explained(uri):
        path, files = hadoop_path(spark, uri)
        if files.exists(path):
            raise RunFolderError(f"{uri}: exists already and is not replaced. Remove it, or choose another name.")


def write_table(table: DataFrame, uri: str) -> None:
    """Write a table as CSV with a header, if ``uri`` ends in .csv, or else as Parquet.

    On a local disk and on HDFS the table is written under a temporary name, and renamed when it is
    complete. An object store cannot rename: a table there is complete if it has a file ``_SUCCESS``.

    Raises:
        RunFolderError: ``uri`` exists, or cannot be written.
    """
    spark = table.sparkSession
    require_new_table(spark, uri)
    is_csv = uri.rstrip("/").endswith(".csv")
    with _write_errors_explained(uri):
        path, files = hadoop_path(spark, uri)
        part = path
        if files.getScheme() in ("file", "hdfs"):
            name = f".{path.getName()}.recsys-{secrets.token_hex(8)}.part"
            part = spark._jvm.org.apache.hadoop.fs.Path(path.getParent(), name)
        try:
            if is_csv:
                table.write.options(**CSV_WRITING).csv(part.toString())
            else:
                table.write.parquet(part.toString())
            if part is not path and not files.rename(part, path):
                raise RunFolderError(f"{uri}: cannot be written: the table cannot be given this name.")
        finally:
            if part is not path:
                # After an interruption Java may not answer any more.
                with suppress(Py4JError, OSError):
                    files.delete(part, True)


def write_input_tables(
    config: Config, folder: str, *, events: DataFrame, items: DataFrame | None = None, users: DataFrame | None = None
) -> Config:
    """Write DataFrames as the input tables of a run, and return the config that reads them on Spark.

    The DataFrames become ``events.parquet``, ``items.parquet`` and ``users.parquet`` in ``folder``,
    and stay there, because the run names them as its sources. The run checks their rows, as those
    of any file.

    Args:
        config: a config whose settings of columns, times and ids hold for the DataFrames. Its
            locations of events, items and users are replaced, so they may be any text. The location
            of a table that is not given becomes None.
        folder: a path or URI that the driver and all executors see, such as ``hdfs://…/input``.
        events: one row per event, with the columns that the config names (by default ``user_id``,
            ``item_id``, and optionally ``value`` and ``timestamp``).
        items, users: one row per item or user, with ids and attributes.

    Raises:
        ConfigError: the config has a split of its own files, which a DataFrame cannot replace.
        RunFolderError: a table exists already, or cannot be written.
    """
    if isinstance(config.split, ByFiles):
        raise ConfigError("[split] rule = 'files' reads the events from its own files: choose another rule.")
    frames = {"events": events, "items": items, "users": users}
    locations = {
        name: None if frame is None else f"{folder.rstrip('/')}/{name}.parquet" for name, frame in frames.items()
    }
    for location in filter(None, locations.values()):
        require_new_table(events.sparkSession, location)
    for name, frame in frames.items():
        if frame is not None:
            write_table(frame, str(locations[name]))
    data = config.data.model_copy(update={**locations, "format": "auto"})
    return config.model_copy(update={"engine": "spark", "data": data})


def _name_of(uri: str) -> str:
    """Return the last part of a path or URI."""
    return uri.rstrip("/").rpartition("/")[2]


def _require_no_colon(uri: str) -> None:
    """Check that no name has a colon where Spark would take it for the end of a scheme.

    That is the name of the table, and for CSV on this machine every folder above it too.

    Raises:
        InputError: such a name has a colon.
    """
    names = [_name_of(uri)]
    if names[0].endswith(".csv") and Path(uri).exists():
        names += Path(uri).absolute().parts
    for name in names:
        if ":" in name:
            raise InputError(f"{uri}: Spark cannot read it, because the name {name!r} has a colon: rename it.")


def hadoop_path(spark: Any, uri: str) -> tuple[Any, Any]:
    """Return (path, file system) of a URI, as the Java objects Path and FileSystem of Hadoop."""
    return HadoopClient.of_session(spark).resolve(uri)


@contextmanager
def _write_errors_explained(uri: str) -> Iterator[None]:
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        reason = str(getattr(error, "java_exception", None) or error).splitlines()[0]
        raise RunFolderError(f"{uri}: cannot be written: {reason}") from error


def _cast_column(table: DataFrame, name: str, column_type: str, uri: str, *, keep_bad: bool = False) -> DataFrame:
    """Convert a column of a table to the type ``column_type``, and return the table.

    Args:
        keep_bad: whether a value that cannot be converted becomes null. False: it is an error.

    Raises:
        InputError: a value cannot be converted without loss.
    """
    kind = table.schema[name].dataType
    if kind.simpleString() == column_type:
        return table
    if name in NUMBER_TYPES and not isinstance(kind, T.NumericType | T.StringType | T.NullType):
        raise InputError(f"{uri}: column '{name}' has type {kind.simpleString()}: it must hold numbers.")
    cast = F.expr(f"try_cast(`{name}` AS {column_type})")
    if column_type == T.StringType().simpleString():
        cast = F.col(name).cast("string")
    if keep_bad:
        return table.withColumn(name, cast)
    is_bad = F.col(name).isNotNull() & cast.isNull()
    if isinstance(kind, T.FractionalType) and column_type == "int":
        # A cast cuts off what comes after the point.
        is_bad = is_bad | (cast != F.col(name))
    bad = table.where(is_bad).select(F.col(name).cast("string")).first()
    if bad is not None:
        raise InputError(f"{uri}: {name} {bad[0]!r} is not of type {column_type}, as in the tables it belongs to.")
    return table.withColumn(name, cast)
