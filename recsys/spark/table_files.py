"""Tables of lists, users and late events: read from any URI that Spark reads, and written there."""

from __future__ import annotations

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.errors import InputError, RunFolderError, suggest_nearest
from recsys.schema import ITEM, RANK, SCORE, USER, VALUE

NUMBERS = {RANK: "int", SCORE: "double", VALUE: "float"}


def read_table(
    spark: SparkSession, uri: str, *, columns: tuple[str, ...] = (), like: DataFrame | None = None
) -> DataFrame:
    """Return a Parquet table, or CSV with a header when ``uri`` ends in .csv; ids of CSV are text.

    Args:
        columns: which must be there; a ``value`` that is not becomes 1.
        like: a frame whose ids (``user_id`` or ``user``) tell the kind of these.

    Raises:
        InputError: nothing there that can be read, a column is missing, or an id or a number is not one.
    """
    try:
        reader = spark.read.option("header", True)
        table = reader.csv(uri) if uri.rstrip("/").endswith(".csv") else reader.parquet(uri)
    except PySparkException as error:
        raise InputError(f"{uri}: Spark cannot read it: {str(error).splitlines()[0]}") from error
    for column in columns:
        if column not in table.columns:
            raise InputError(
                f"{uri}: no column {column}.{suggest_nearest(column, table.columns)} It has {table.columns}."
            )
    if ITEM in columns and VALUE not in table.columns:
        table = table.withColumn(VALUE, F.lit(1.0))
    kinds = {name: kind for name, kind in NUMBERS.items() if name in table.columns}
    if like is not None:
        kinds |= {field.name: field.dataType.simpleString() for field in like.schema if field.name in (USER, ITEM)} | (
            {USER: like.schema["user"].dataType.simpleString()} if "user" in like.columns else {}
        )
    for name, kind in kinds.items():
        if name in table.columns:
            table = _as(table, name, kind, uri)
    return table


def write_table(table: DataFrame, uri: str) -> None:
    """Write a table as Parquet, or as CSV with a header when ``uri`` ends in .csv.

    Raises:
        RunFolderError: something is there already, or it cannot be written.
    """
    try:
        writer = table.write.option("header", True)
        writer.csv(uri) if uri.rstrip("/").endswith(".csv") else writer.parquet(uri)
    except PySparkException as error:
        if "PATH_ALREADY_EXISTS" in str(error):
            raise RunFolderError(f"{uri}: is there already, and is left alone. Remove it, or name another.") from error
        raise RunFolderError(f"{uri}: cannot be written: {str(error).splitlines()[0]}") from error


def _as(table: DataFrame, name: str, kind: str, uri: str) -> DataFrame:
    """Return ``table`` with a column of another kind; InputError when a cell does not fit."""
    if table.schema[name].dataType.simpleString() == kind:
        return table
    cast = (
        F.col(name).cast("string") if kind == T.StringType().simpleString() else F.expr(f"try_cast(`{name}` AS {kind})")
    )
    bad = table.where(F.col(name).isNotNull() & cast.isNull()).select(F.col(name).cast("string")).first()
    if bad is not None:
        raise InputError(f"{uri}: {name} {bad[0]!r} is not of kind {kind}, as the others are.")
    return table.withColumn(name, cast)
