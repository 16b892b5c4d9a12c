"""Tables of lists, users and late events: read from any URI that Spark reads, and written there."""

from __future__ import annotations

from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.errors import InputError, RunFolderError, suggest_nearest
from recsys.schema import ITEM, RANK, SCORE, USER, VALUE

CSV_READING = {"header": True, "quote": '"', "escape": '"', "multiLine": True, "encoding": "UTF-8"}
"""RFC 4180: a quote inside a quoted field is doubled, a backslash is a character like any other, and a
field may contain line ends."""

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

NUMBER_TYPES = {RANK: "int", SCORE: "double", VALUE: "double"}


def spark_path(path: Path) -> str:
    """Return the path of a local file or folder as Spark takes it for exactly that one, whatever
    characters are in it.
    """
    return "file://" + str(path.absolute()).translate(GLOB_CHARACTERS)


def read_table(
    spark: SparkSession, uri: str, *, columns: tuple[str, ...] = (), like: DataFrame | None = None
) -> DataFrame:
    """Return a Parquet table, or CSV with a header when ``uri`` ends in .csv; ids of CSV are text.

    Args:
        columns: must exist; a missing ``value`` becomes 1.
        like: a frame whose ids (``user_id`` or ``user``, ``item_id``) have the type that these ids
            get.

    Raises:
        InputError: it cannot be read, a column is missing, or a value does not have the type of
            its column.
    """
    try:
        # A local file is meant by its exact name, whatever characters a pattern could have.
        exact = spark_path(Path(uri)) if Path(uri).exists() else uri
        if uri.rstrip("/").endswith(".csv"):
            # Fields with line ends are read by a part of Spark that takes a name for a pattern in any case.
            multi_line = "\\" not in exact
            table = spark.read.options(**CSV_READING | {"multiLine": multi_line}).csv(exact)
        else:
            table = spark.read.parquet(exact)
    except PySparkException as error:
        raise InputError(f"{uri}: Spark cannot read it: {str(error).splitlines()[0]}") from error
    for column in columns:
        if column not in table.columns:
            raise InputError(
                f"{uri}: no column {column}.{suggest_nearest(column, table.columns)} It has {table.columns}."
            )
    if ITEM in columns and VALUE not in table.columns:
        table = table.withColumn(VALUE, F.lit(1.0))
    types = dict(NUMBER_TYPES)
    if like is not None:
        types |= {field.name: field.dataType.simpleString() for field in like.schema if field.name in (USER, ITEM)}
        if "user" in like.columns:
            types[USER] = like.schema["user"].dataType.simpleString()
    for name, column_type in types.items():
        if name in table.columns:
            table = _cast_column(table, name, column_type, uri)
    return table


def write_table(table: DataFrame, uri: str) -> None:
    """Write a table as Parquet, or as CSV with a header when ``uri`` ends in .csv.

    Raises:
        RunFolderError: ``uri`` exists, or cannot be written.
    """
    try:
        if uri.rstrip("/").endswith(".csv"):
            table.write.options(**CSV_WRITING).csv(uri)
        else:
            table.write.parquet(uri)
    except PySparkException as error:
        if "PATH_ALREADY_EXISTS" in str(error):
            raise RunFolderError(
                f"{uri}: exists already and is not replaced. Remove it, or choose another name."
            ) from error
        raise RunFolderError(f"{uri}: cannot be written: {str(error).splitlines()[0]}") from error


def _cast_column(table: DataFrame, name: str, column_type: str, uri: str) -> DataFrame:
    """Return ``table`` with a column cast to another type; InputError if a value cannot be cast."""
    if table.schema[name].dataType.simpleString() == column_type:
        return table
    cast = F.expr(f"try_cast(`{name}` AS {column_type})")
    if column_type == T.StringType().simpleString():
        cast = F.col(name).cast("string")
    bad = table.where(F.col(name).isNotNull() & cast.isNull()).select(F.col(name).cast("string")).first()
    if bad is not None:
        raise InputError(f"{uri}: {name} {bad[0]!r} is not of type {column_type}, as in the tables it belongs to.")
    return table.withColumn(name, cast)
