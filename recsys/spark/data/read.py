"""Read events on Spark and check them by the rules of the local reader.

Spark divides text files into lines, and Parquet files into batches. The executors then parse and
check the rows in batches, with the functions of ``data.reading``. A file that Spark cannot divide
into lines (``.zst``, UTF-16) is read as a whole by one task.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.config import DataSettings
from recsys.data.reading import movielens
from recsys.data.reading.columnar import (
    ParquetLayout,
    RawChunk,
    column_to_series,
    parquet_layout,
    parse_finite_numbers,
    time_storage,
)
from recsys.data.reading.files import (
    JSON_LINES,
    READERS,
    DelimitedLayout,
    chunk_of_json,
    chunk_of_rows,
    column_names,
    delimited_layouts,
    find_json_keys,
    read_delimited_part,
)
from recsys.data.reading.lines import BOM, EndlessRowError, has_open_quote, read_row_blocks
from recsys.data.reading.read import (
    MAX_REFUSED_ROWS,
    AttributeTable,
    Refusals,
    check_refused_share,
    column_mapping,
    read_attributes,
    refused_text,
    require_columns,
    require_same_part_columns,
)
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.sources import Source, is_utf8, recode, text_lines
from recsys.data.reading.validate import (
    REASONS,
    check_events,
    count_times,
    guess_time_unit,
    unit_of_counts,
)
from recsys.errors import InputError
from recsys.locations import Location, is_remote, local_path
from recsys.schema import CANONICAL_INT, EVENT, FALLBACK, ITEM, ITEMS, SIDE, TIME, USER, USERS, VALUE, unify_ids
from recsys.spark.data.remote import fetch_source, make_source, spark_uri
from recsys.spark.table_files import hadoop_path

REASON = "reason"
"""Column with the code of the reason why a row is refused, which is 0 for an accepted row."""

TEXT = "text"
"""Column with the text of a refused row."""

FILE = "file"
"""Column with the number of the text file of a refused row (:func:`_file_number`)."""

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

SEVERAL_LINES = -1
"""Code of the reason for refusing a row that is only one line of a quoted field."""

Batches = Iterator[pa.RecordBatch]
"""The batches of a partition, as an executor gets them."""

ParsedRows = Iterator[tuple[RawChunk, dict[str, pa.Array]]]
"""Pairs of a chunk of rows and a dict: name of a column -> its values in the chunk.

The dict has the id columns that keep their type. The ids of other columns become text. For text
files it also has the column :data:`FILE`.
"""


@dataclass(frozen=True)
class FileLines:
    """Some lines of text files, and where they are.

    Attributes:
        lines: the lines, without their line ends: bytes of delimited text, or texts of JSON.
        file: int64[n], the number of the file of each line (:func:`_file_number`).
        number: int64[n], the number of each line in its file, from 1. 0 if it is unknown, because
            Spark has cut the file into pieces and this is not the first piece.
    """

    lines: list[Any]
    file: np.ndarray
    number: np.ndarray

    def select(self, is_selected: list[bool]) -> FileLines:
        """Return the selected lines, bool[n]."""
        return FileLines(list(compress(self.lines, is_selected)), self.file[is_selected], self.number[is_selected])


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
        values: the aggregates :data:`VALUE_AGGREGATES` of the values of ``events``. None if the parts of
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
class RawEvents:
    """A log before its rows are checked.

    Attributes:
        pieces: pairs of a DataFrame (lines of text, file paths or typed columns) and the function
            that parses its batches on an executor.
        columns: the columns of the log, by the names of this package, such as "user_id".
        id_types: ``user_id`` and ``item_id`` -> type of the ids after the check.
    """

    pieces: list[tuple[DataFrame, Callable[[Batches], ParsedRows]]]
    columns: tuple[str, ...]
    id_types: dict[str, T.DataType]


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
        refusals: the number of refused rows by reason, and up to :data:`MAX_REFUSED_ROWS` of these
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
        counts, checked = _write_checked(raw, unit, path, count_forms=is_guessed)
        if is_guessed:
            unit_of_all_rows = guess_time_unit([counts[name] or 0 for name in TIME_COUNTS], str(source))
            if any(counts[name] for guess, name in UNIT_COUNTS.items() if guess != unit_of_all_rows):
                path = path.with_name(f"{path.name}_again")
                counts, checked = _write_checked(raw, unit_of_all_rows, path, count_forms=False)
        refusals = _count_refusals(counts, checked, source)
        check_refused_share(source, refusals, reading)
    is_canonical = {column: bool(counts[f"canonical {column}"]) for column in _text_columns(checked)}
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


def _write_checked(raw: RawEvents, unit: Any, path: Location, *, count_forms: bool) -> tuple[dict[str, Any], DataFrame]:
    """Check all rows and write them to ``path``.

    Return the values of :func:`_counted_columns`, and the table of the written rows.
    """
    counts = Observation()
    checked = _checked_rows(raw, unit, count_forms=count_forms)
    checked = checked.observe(counts, *_counted_columns(checked)).drop(*TIME_COUNTS, *UNIT_COUNTS.values())
    checked.write.parquet(str(path))
    return counts.get, checked.sparkSession.read.schema(checked.schema).parquet(str(path))


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
        unit = reading.time_unit or _time_unit(raw, source)
        pairs.append(_checked_rows(raw, unit).where(F.col(REASON) == 0).select(USER, ITEM))
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
        raw = _read_parquet(spark, source, mapping)
    elif file_format == "jsonl":
        raw = _read_json_lines(spark, source, mapping, reading)
    else:
        raw = _read_delimited(spark, source, mapping, reading)
    require_columns(raw.columns, reading, str(source))
    if FALLBACK in raw.columns:
        raw.id_types[USER] = T.StringType()
    return raw


def _is_divisible(part: Source, reading: ReadSettings) -> bool:
    """Return whether Spark can divide a text file into lines.

    It cannot if the file is compressed by zstd (which needs native libraries), if its name has a
    colon, or if a line end takes more than one byte per character, as in UTF-16.

    Raises:
        InputError: Spark cannot divide a file that only Spark can read.
    """
    is_divisible = part.compression != "zstd" and ":" not in part.path.name
    is_divisible = is_divisible and "\r\n".encode(reading.encoding) == b"\r\n"
    if part.uri and not is_divisible:
        raise InputError(
            f"{part}: Spark cannot divide this file into lines, and reads it whole only from disks that all executors"
            " see. Write it as UTF-8 text or .gz without a colon in its name, or as Parquet."
        )
    return is_divisible


def _text_frame(spark: SparkSession, parts: list[Source]) -> DataFrame:
    """Return a DataFrame with one row per line of some text files.

    ``line`` has the bytes of the line, and ``file`` the number of its file. Spark reads a file in
    pieces; ``start`` is the position in the file at which the piece of the line begins.
    """
    lines = spark.read.text([spark_uri(part) for part in parts])
    return lines.select(
        F.col("value").cast("binary").alias("line"),
        _file_number("_metadata.file_path").alias("file"),
        F.col("_metadata.file_block_start").alias("start"),
    )


def _file_frame(spark: SparkSession, parts: list[Source]) -> DataFrame:
    """Return a DataFrame with the paths and numbers of files, one per partition, so that one task
    reads each file.
    """
    paths = [(str(part.path.absolute()), _file_uri(spark, part)) for part in parts]
    rows = spark.sparkContext.parallelize(paths, len(parts))
    return spark.createDataFrame(rows, "path string, uri string").select("path", _file_number("uri").alias("file"))


def _file_number(uri: str) -> Column:
    """Return a column with a number that identifies each file.

    Rows of text carry this number through Spark, because the path would often be longer than the
    row.

    Args:
        uri: the column with the URIs of the files, in the form of :func:`_file_uri`.
    """
    return F.xxhash64(uri)


def _file_uri(spark: SparkSession, part: Source) -> str:
    """Return the URI of a file in the form in which Spark names it in ``_metadata.file_path``."""
    location = part.uri or f"file://{part.path.absolute()}"
    path, _ = hadoop_path(spark, location)
    # Spark lists local files with one slash after the scheme.
    return str(path.toUri().toString()).replace("file:///", "file:/", 1)


def _lines(batches: Batches, skip: int) -> Iterator[FileLines]:
    """Yield the lines of each batch of :func:`_text_frame`, without empty lines.

    Args:
        skip: number of lines to leave out at the start of each file.
    """
    current = None
    to_skip = 0
    # 0 where the number of the next line is unknown.
    next_number = 0
    for batch in batches:
        lines = batch.column("line").to_pylist()
        file, start = (batch.column(name).to_numpy() for name in ("file", "start"))
        if not lines:
            continue
        begins = np.flatnonzero(np.r_[True, (np.diff(file) != 0) | (np.diff(start) != 0)])
        number = np.zeros(len(lines), dtype=np.int64)
        is_row = [bool(line) for line in lines]
        for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
            if current != (file[begin], start[begin]):
                current = (file[begin], start[begin])
                to_skip = next_number = 0
                if start[begin] == 0:
                    to_skip = skip
                    next_number = 1
                    lines[begin] = lines[begin].removeprefix(BOM)
                    is_row[begin] = bool(lines[begin])
            if next_number:
                number[begin:end] = np.arange(next_number, next_number + end - begin)
                next_number += end - begin
            for row in range(begin, end):
                if not to_skip:
                    break
                to_skip -= is_row[row]
                is_row[row] = False
        if any(is_row):
            yield FileLines(lines, file, number).select(is_row)


def _read_delimited(spark: SparkSession, source: Source, mapping: dict[str, str], reading: ReadSettings) -> RawEvents:
    layouts = delimited_layouts(source, mapping, reading)
    by_layout: dict[tuple[Any, ...], list[tuple[Source, DelimitedLayout]]] = {}
    indivisible = []
    for part, layout in layouts:
        if _is_divisible(part, reading):
            by_layout.setdefault((layout.names, layout.skip), []).append((part, layout))
        else:
            indivisible.append((part, layout))
    pieces: list[tuple[DataFrame, Callable[[Batches], ParsedRows]]] = []
    for parts in by_layout.values():
        frame = _text_frame(spark, [part for part, _ in parts])
        pieces.append((frame, partial(_parse_delimited, parts[0][1], reading, str(source))))
    if indivisible:
        by_path = {str(part.path.absolute()): (part, layout) for part, layout in indivisible}
        frame = _file_frame(spark, [part for part, _ in indivisible])
        pieces.append((frame, partial(_parse_whole_files, by_path, reading)))
    columns = tuple(column for column in mapping if column in layouts[0][1].positions)
    return RawEvents(pieces, columns, {USER: T.StringType(), ITEM: T.StringType()})


def _parse_delimited(layout: DelimitedLayout, reading: ReadSettings, source: str, batches: Batches) -> ParsedRows:
    """Yield the chunks of batches of lines of delimited text.

    A quoted field that contains a line end cannot be read, because Spark has divided its row. The
    rows of that batch are then replaced by one refused row (:func:`_half_row`).
    """
    for rows in _lines(batches, layout.skip):
        data = b"\n".join(rows.lines)
        if not is_utf8(reading):
            data = recode(data, reading.encoding)
        # The scanner would take a byte order mark for one of a file.
        blocks = read_row_blocks(io.BytesIO(b"\n" + data), layout.delimiter, len(layout.names), layout.selected, 0)
        chunks: list[RawChunk] = []
        with suppress(EndlessRowError):
            chunks += [chunk_of_rows(block, layout, reading, source) for block in blocks]
        # A quoted field that contains a line end makes one row of two lines.
        if sum(len(chunk.reasons) for chunk in chunks) != len(rows.lines):
            yield _half_row(rows.lines, layout, source), {}
            return
        begin = 0
        for chunk in chunks:
            end = begin + len(chunk.reasons)
            yield replace(chunk, line=rows.number[begin:end].item), {FILE: pa.array(rows.file[begin:end])}
            begin = end


def _half_row(lines: list[bytes], layout: DelimitedLayout, source: str) -> RawChunk:
    """Return a chunk with one refused row: the first of ``lines`` that opens a quote and does not
    close it.
    """
    texts = (line.decode("utf-8", "replace") for line in lines)
    half = next((text for text in texts if has_open_quote(text, layout.delimiter)), "")
    table = pd.DataFrame({column: pd.Series([""], dtype=object) for column in layout.positions})
    return RawChunk(table, np.array([SEVERAL_LINES], dtype=np.int8), source, lambda row: 0, lambda row: half)


def _parse_whole_files(
    by_path: dict[str, tuple[Source, DelimitedLayout]], reading: ReadSettings, batches: Batches
) -> ParsedRows:
    """Yield the chunks of files of delimited text that one task reads as a whole."""
    for batch in batches:
        for path, file in zip(*batch.to_pydict().values(), strict=True):
            for chunk in read_delimited_part(*by_path[path], reading):
                yield chunk, {FILE: pa.repeat(file, len(chunk.reasons))}


def _read_json_lines(spark: SparkSession, source: Source, mapping: dict[str, str], reading: ReadSettings) -> RawEvents:
    for part in source.parts:
        # What is wrong with a whole file is said before Spark works.
        column_names(part, reading)
    divisible = [part for part in source.parts if _is_divisible(part, reading)]
    whole = [part for part in source.parts if not _is_divisible(part, reading)]
    frames: list[tuple[DataFrame, Callable[[Batches], Iterator[FileLines]]]] = []
    if divisible:
        frames.append((_text_frame(spark, divisible), partial(_json_lines, reading)))
    if whole:
        frames.append((_file_frame(spark, whole), partial(_json_lines_of_files, reading)))
    names = set(mapping.values())
    present: set[str] = set()
    for frame, lines in frames:
        keys = frame.mapInArrow(partial(_keys_of, lines, names), "name string")
        present |= {row["name"] for row in keys.distinct().collect()}
    chosen = {column: name for column, name in mapping.items() if name in present}
    pieces: list[tuple[DataFrame, Callable[[Batches], ParsedRows]]] = [
        (frame, partial(_parse_json, lines, mapping, chosen, str(source))) for frame, lines in frames
    ]
    return RawEvents(pieces, tuple(chosen), {USER: T.StringType(), ITEM: T.StringType()})


def _json_lines(reading: ReadSettings, batches: Batches) -> Iterator[FileLines]:
    for rows in _lines(batches, 0):
        texts = [line.decode(reading.encoding, "surrogateescape") for line in rows.lines]
        yield FileLines(texts, rows.file, rows.number).select([bool(text.strip()) for text in texts])


def _json_lines_of_files(reading: ReadSettings, batches: Batches) -> Iterator[FileLines]:
    for batch in batches:
        for path, file in zip(*batch.to_pydict().values(), strict=True):
            lines = enumerate(text_lines(Source(Path(path)), reading), start=1)
            rows = ((number, line.rstrip("\r\n")) for number, line in lines if line.strip())
            while piece := list(islice(rows, JSON_LINES)):
                numbers, texts = zip(*piece, strict=True)
                yield FileLines(list(texts), np.full(len(piece), file), np.array(numbers))


def _keys_of(lines: Callable[[Batches], Iterator[FileLines]], names: set[str], batches: Batches) -> Batches:
    """Yield one batch with those of ``names`` that are keys of at least one line of JSON."""
    present: set[str] = set()
    for rows in lines(batches):
        find_json_keys(rows.lines, names, present)
    yield pa.RecordBatch.from_pydict({"name": pa.array(sorted(present), pa.string())})


def _parse_json(
    lines: Callable[[Batches], Iterator[FileLines]],
    mapping: dict[str, str],
    chosen: dict[str, str],
    source: str,
    batches: Batches,
) -> ParsedRows:
    for rows in lines(batches):
        yield chunk_of_json(rows.lines, mapping, chosen, source, rows.number.item), {FILE: pa.array(rows.file)}


def _read_parquet(spark: SparkSession, source: Source, mapping: dict[str, str]) -> RawEvents:
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


def _time_unit(raw: RawEvents, source: Source) -> Any:
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
    total = np.zeros(len(TIME_COUNTS), dtype=np.int64)
    for chunk, _ in parse(batches):
        total += count_times(chunk.table[TIME])
    yield pa.RecordBatch.from_arrays([pa.array([count]) for count in total], names=TIME_COUNTS)


def _checked_rows(raw: RawEvents, unit: Any, *, count_forms: bool = False) -> DataFrame:
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
    """Check the rows of each batch, and yield batches with the columns of :func:`_checked_rows`.

    Args:
        parse: yields the chunks of batches.
        unit: the unit of the times. None: the task guesses it from the first chunk that has times.
        text_ids: the id columns that are text. Other ids are passed on unchanged.
        count_forms: whether the first row of a batch gets the counts of the forms of its times, and
            the unit.
    """
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
        F.min(F.when(reason == 0, _canonical(column))).alias(f"canonical {column}") for column in _text_columns(checked)
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


def _text_columns(frame: DataFrame) -> list[str]:
    """Return the columns of ids that are text."""
    return [column for column in (USER, ITEM) if isinstance(frame.schema[column].dataType, T.StringType)]


def _count_refusals(observed: dict[str, Any], checked: DataFrame, source: Source) -> Refusals:
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
        names = _file_names(checked.sparkSession, source) if any(row[FILE] is not None for row in rows) else {}
        refusals.rows = sorted(
            (names.get(row[FILE], str(source)), row[LINE], REASONS[row[REASON]], row[TEXT]) for row in rows
        )
    return refusals


def _file_names(spark: SparkSession, source: Source) -> dict[int, str]:
    """Return a dict: number of each file of a table (:func:`_file_number`) -> its name in messages."""
    if source.parts == [source]:
        return {}
    uris = [(_file_uri(spark, part), str(part)) for part in source.parts]
    named = spark.createDataFrame(uris, "uri string, name string").select(_file_number("uri"), "name")
    return dict(named.collect())  # type: ignore[arg-type]


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


def _canonical(column: str) -> Column:
    """Return a column of booleans: whether each text is a canonical integer ("7", not "007") of 64
    bits.
    """
    return F.col(column).rlike(CANONICAL_INT) & F.expr(f"try_cast({column} AS bigint)").isNotNull()


def _cast(frame: DataFrame, column: str, numeric: bool) -> DataFrame:
    kind = frame.schema[column].dataType
    if numeric and isinstance(kind, T.StringType):
        return frame.withColumn(column, F.col(column).cast("bigint"))
    return frame if numeric else frame.withColumn(column, F.col(column).cast("string"))
