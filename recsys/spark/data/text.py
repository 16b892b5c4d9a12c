"""Read delimited text and lines of JSON on Spark, as rows that are not checked yet.

Spark divides text files into lines, and the executors parse the lines in batches, with the
functions of ``data.reading``. A file that Spark cannot divide into lines (``.zst``, UTF-16) is read
as a whole by one task.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.data.reading.columnar import RawChunk
from recsys.data.reading.files import (
    JSON_LINES,
    DelimitedLayout,
    chunk_of_json,
    chunk_of_rows,
    column_names,
    delimited_layouts,
    find_json_keys,
    read_delimited_part,
)
from recsys.data.reading.lines import BOM, EndlessRowError, has_open_quote, read_row_blocks
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.sources import Source, is_utf8, recode, text_lines
from recsys.errors import InputError
from recsys.schema import ITEM, USER
from recsys.spark.data.raw_events import FILE, SEVERAL_LINES, Batches, ParsedRows, RawEvents
from recsys.spark.data.remote import spark_uri
from recsys.spark.table_files import hadoop_path
from recsys.spark.tasks import prepare_task


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


def read_delimited(spark: SparkSession, source: Source, mapping: dict[str, str], reading: ReadSettings) -> RawEvents:
    """Return the log of files of delimited text. Ids are text.

    Args:
        spark: the session.
        source: the file or folder.
        mapping: name of a column in this package -> its name in the files.
        reading: how to read the files.

    Raises:
        InputError: a file is empty or damaged, files have different columns, or Spark can neither
            divide a file nor read it whole.
    """
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


def read_json_lines(spark: SparkSession, source: Source, mapping: dict[str, str], reading: ReadSettings) -> RawEvents:
    """Return the log of files with one JSON object per line. Ids are text.

    All lines are read to find out which of the columns of ``mapping`` they have.

    Args:
        spark: the session.
        source: the file or folder.
        mapping: name of a column in this package -> the key of its values in the lines.
        reading: how to read the files.

    Raises:
        InputError: a file is empty or damaged, or Spark can neither divide a file nor read it whole.
    """
    for part in source.parts:
        # What is wrong with a whole file is said before Spark works.
        column_names(part, reading)
    divisible = [part for part in source.parts if _is_divisible(part, reading)]
    indivisible = [part for part in source.parts if not _is_divisible(part, reading)]
    frames: list[tuple[DataFrame, Callable[[Batches], Iterator[FileLines]]]] = []
    if divisible:
        frames.append((_text_frame(spark, divisible), partial(_json_lines, reading)))
    if indivisible:
        frames.append((_file_frame(spark, indivisible), partial(_json_lines_of_files, reading)))
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
    prepare_task(kernels=False)
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


def file_names(spark: SparkSession, source: Source) -> dict[int, str]:
    """Return a dict: number of each file of a table (:func:`_file_number`) -> its name in messages."""
    if source.parts == [source]:
        return {}
    uris = [(_file_uri(spark, part), str(part)) for part in source.parts]
    named = spark.createDataFrame(uris, "uri string, name string").select(_file_number("uri"), "name")
    return dict(named.collect())  # type: ignore[arg-type]
