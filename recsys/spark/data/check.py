"""Check the rows of a log on the executors by the rules of the local reader, and count refused rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.data.reading.read import MAX_REFUSED_ROWS, Refusals, refused_text
from recsys.data.reading.sources import Source
from recsys.data.reading.validate import REASONS, check_events, count_times, guess_time_unit, unit_of_counts
from recsys.errors import InputError
from recsys.locations import Location
from recsys.schema import CANONICAL_INT, EVENT, ITEM, TIME, USER, VALUE
from recsys.spark.data.raw_events import FILE, SEVERAL_LINES, Batches, ParsedRows, RawEvents
from recsys.spark.data.text import file_names
from recsys.spark.tasks import prepare_task

REASON = "reason"
"""Column with the code of the reason why a row is refused, which is 0 for an accepted row."""

TEXT = "text"
"""Column with the text of a refused row."""

LINE = "line"
"""Column with the line of a refused row in its file, from 1, or 0 if the line is unknown."""

TIME_COUNTS = ("number times", "late times", "date times", "day times", "text times")
"""Columns with the numbers of times in each form, as ``count_times`` returns them.

The first row of each checked batch has the numbers of the batch.
"""

UNIT_COUNTS = {"s": "tasks in s", "iso": "tasks in iso"}
"""Unit of times -> column with 1 in the first row of a batch in which a task has guessed this unit."""

VALUE_AGGREGATES = ("smallest", "largest", "mean", "skew", "negative", "zero")
"""Names of the aggregates of all values of a log, which the data card describes."""


def write_checked(raw: RawEvents, unit: Any, path: Location, *, count_forms: bool) -> tuple[dict[str, Any], DataFrame]:
    """Check all rows and write them to ``path``.

    Return the values of :func:`_counted_columns`, and the table of the written rows.
    """
    counts = Observation()
    checked = checked_rows(raw, unit, count_forms=count_forms)
    checked = checked.observe(counts, *_counted_columns(checked)).drop(*TIME_COUNTS, *UNIT_COUNTS.values())
    checked.write.parquet(str(path))
    return counts.get, checked.sparkSession.read.schema(checked.schema).parquet(str(path))


def find_time_unit(raw: RawEvents, source: Source) -> Any:
    """Return the unit of the times of a log, by the rule of the local reader.

    All rows are read for this. The result is None for a log without times.
    """
    if TIME not in raw.columns:
        return None
    return guess_time_unit(_count_times(raw), str(source))


def _count_times(raw: RawEvents) -> np.ndarray:
    """Return the sum of ``count_times`` over all rows of a log, int64[5]."""
    total = np.zeros(len(TIME_COUNTS), dtype=np.int64)
    for frame, parse in raw.pieces:
        schema = ", ".join(f"`{name}` long" for name in TIME_COUNTS)
        counted = frame.mapInArrow(partial(_count_batches, parse), schema)
        row = counted.agg(*(F.sum(name) for name in TIME_COUNTS)).first()
        total += np.array([count or 0 for count in row or (0, 0, 0, 0)])
    return total


def _count_batches(parse: Callable[[Batches], ParsedRows], batches: Batches) -> Batches:
    prepare_task(kernels=False)
    total = np.zeros(len(TIME_COUNTS), dtype=np.int64)
    for chunk, _ in parse(batches):
        total += count_times(chunk.table[TIME])
    yield pa.RecordBatch.from_arrays([pa.array([count]) for count in total], names=TIME_COUNTS)


def checked_rows(raw: RawEvents, unit: Any, *, count_forms: bool = False) -> DataFrame:
    """Check all rows, and return them with a column for the result of the check.

    The column :data:`REASON` is 0 for an accepted row, and otherwise the code of the reason for
    which the row is refused. The columns :data:`TEXT`, :data:`FILE` and :data:`LINE` describe some
    refused rows, and are null for all other rows. With ``count_forms`` there are the columns
    :data:`TIME_COUNTS` and :data:`UNIT_COUNTS` as well.
    """
    fields = [T.StructField(column, raw.id_types[column]) for column in (USER, ITEM)]
    fields.append(T.StructField(VALUE, T.DoubleType()))
    if TIME in raw.columns:
        fields.append(T.StructField(TIME, T.DoubleType()))
    if EVENT in raw.columns:
        fields.append(T.StructField(EVENT, T.StringType()))
    fields += [T.StructField(REASON, T.ByteType()), T.StructField(TEXT, T.StringType())]
    fields += [T.StructField(FILE, T.LongType()), T.StructField(LINE, T.LongType())]
    if count_forms:
        fields += [T.StructField(name, T.LongType()) for name in (*TIME_COUNTS, *UNIT_COUNTS.values())]
    schema = T.StructType(fields)
    text_ids = {column for column, kind in raw.id_types.items() if isinstance(kind, T.StringType)}
    checked = [
        frame.mapInArrow(partial(_check_batches, parse, unit, text_ids, count_forms), schema)
        for frame, parse in raw.pieces
    ]
    return reduce(DataFrame.unionByName, checked)


def _check_batches(
    parse: Callable[[Batches], ParsedRows], unit: Any, text_ids: set[str], count_forms: bool, batches: Batches
) -> Batches:
    """Check the rows of each batch, and yield batches with the columns of :func:`checked_rows`.

    Args:
        parse: yields the chunks of batches.
        unit: the unit of the times. None: the task guesses it from the first chunk that has times.
        text_ids: the id columns that are text. Other ids are passed on unchanged.
        count_forms: whether the first row of a batch gets the counts of the forms of its times, and
            the unit.
    """
    prepare_task(kernels=False)
    described = 0
    for chunk, typed in parse(batches):
        if not len(chunk.table):
            continue
        if count_forms:
            counts = dict(zip(TIME_COUNTS, count_times(chunk.table[TIME]), strict=True))
            if unit is None and any(counts.values()):
                unit = unit_of_counts(list(counts.values()))
            counts |= {name: int(unit == guess) for guess, name in UNIT_COUNTS.items()}
        # Without any time, all units give the same result.
        events, reasons = check_events(chunk.table, unit or "s")
        reasons = np.where(chunk.reasons != 0, chunk.reasons, reasons).astype(np.int8)
        columns = {
            column: _text_array(events[column], reasons) if column in text_ids else typed[column]
            for column in (USER, ITEM)
        }
        columns[VALUE] = pa.array(events[VALUE].to_numpy())
        if TIME in events:
            columns[TIME] = pa.array(np.where(reasons != 0, 0.0, events[TIME].to_numpy()))
        if EVENT in events:
            columns[EVENT] = _text_array(events[EVENT], reasons)
        columns[REASON] = pa.array(reasons)
        texts: list[str | None] = [None] * len(reasons)
        lines: list[int | None] = [None] * len(reasons)
        # The text of each row takes time, and the driver takes no more than this of all tasks.
        for row in np.flatnonzero(reasons)[: MAX_REFUSED_ROWS - described]:
            described += 1
            texts[row] = _valid_text(refused_text(chunk.text(int(row))))
            lines[row] = chunk.line(int(row))
        columns[TEXT] = pa.array(texts, pa.string())
        files = typed.get(FILE, pa.nulls(len(reasons), pa.int64()))
        columns[FILE] = pc.if_else(pc.is_valid(columns[TEXT]), files, None)
        columns[LINE] = pa.array(lines, pa.int64())
        if count_forms:
            for name, count in counts.items():
                columns[name] = pa.array([count] + [None] * (len(reasons) - 1), pa.int64())
        yield pa.RecordBatch.from_pydict(columns)


def _text_array(column: pd.Series, reasons: np.ndarray) -> pa.Array:
    """Convert a column to text. The text of a refused row is null, except in a column of integers."""
    if column.dtype.kind in "iu":
        return pa.array(column.to_numpy()).cast(pa.string())
    texts = column.astype(object)
    if (reasons != 0).any():
        texts = texts.where(reasons == 0, None)
    array = pa.Array.from_pandas(texts.where(texts.notna(), None), type=pa.string())
    return array


def _valid_text(text: str) -> str:
    """Replace characters that UTF-8 cannot encode by escape sequences such as ``\\udc80``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _counted_columns(checked: DataFrame) -> list[Column]:
    """Return the aggregates that are computed while the checked rows are written.

    They are ``reason CODE``, the number of rows by reason; ``canonical COLUMN``, whether every
    accepted id of a text column is a canonical integer; the aggregates :data:`VALUE_AGGREGATES` of the
    accepted values; and the sums of :data:`TIME_COUNTS` and :data:`UNIT_COUNTS`. The write is one
    stage, so rows of a task that runs again are not counted twice.
    """
    reason = F.col(REASON)
    codes = [*range(len(REASONS)), SEVERAL_LINES]
    by_reason = [F.count_if(reason == code).alias(f"reason {code}") for code in codes]
    canonical = [
        F.min(F.when(reason == 0, _canonical(column))).alias(f"canonical {column}") for column in text_columns(checked)
    ]
    values = aggregate_values(F.when(reason == 0, F.col(VALUE)))
    counted = (*TIME_COUNTS, *UNIT_COUNTS.values())
    times = [F.sum(name).alias(name) for name in counted if name in checked.columns]
    return by_reason + canonical + values + times


def aggregate_values(value: Column) -> list[Column]:
    """Return the aggregates :data:`VALUE_AGGREGATES` of a column of values, with these names."""
    aggregates = [
        F.min(value),
        F.max(value),
        F.avg(value),
        F.skewness(value),
        F.count_if(value < 0),
        F.count_if(value == 0),
    ]
    return [column.alias(name) for name, column in zip(VALUE_AGGREGATES, aggregates, strict=True)]


def text_columns(frame: DataFrame) -> list[str]:
    """Return the columns of ids that are text."""
    return [column for column in (USER, ITEM) if isinstance(frame.schema[column].dataType, T.StringType)]


def count_refusals(observed: dict[str, Any], checked: DataFrame, source: Source) -> Refusals:
    """Return the number of refused rows by reason, and up to :data:`MAX_REFUSED_ROWS` of the rows.

    Args:
        observed: the values of :func:`_counted_columns`.
    """
    if observed[f"reason {SEVERAL_LINES}"]:
        half = checked.where(F.col(REASON) == SEVERAL_LINES).select(TEXT).first()
        raise InputError(
            f"{source}: a quoted field contains a line end, or is never closed: {((half and half[0]) or '')[:80]!r}."
            " Spark reads one row per line: use engine = 'local', or write the table as Parquet."
        )
    counts = {code: observed[f"reason {code}"] for code in range(len(REASONS)) if observed[f"reason {code}"]}
    refusals = Refusals(total=sum(counts.values()))
    refusals.counts = {REASONS[reason]: counts[reason] for reason in sorted(counts) if reason}
    if refusals.refused:
        described = checked.where(F.col(TEXT).isNotNull()).select(FILE, LINE, REASON, TEXT)
        rows = described.limit(MAX_REFUSED_ROWS).collect()
        names = file_names(checked.sparkSession, source) if any(row[FILE] is not None for row in rows) else {}
        refusals.rows = sorted(
            (names.get(row[FILE], str(source)), row[LINE], REASONS[row[REASON]], row[TEXT]) for row in rows
        )
    return refusals


def _canonical(column: str) -> Column:
    """Return a column of booleans: whether each text is a canonical integer ("7", not "007") of 64
    bits.
    """
    return F.col(column).rlike(CANONICAL_INT) & F.expr(f"try_cast({column} AS bigint)").isNotNull()
