"""Read typed columns into raw chunks: Parquet files, partitioned folders of them, and tables in
memory.

A table in memory is any object with the Arrow C interface (pandas, Polars, pyarrow, DuckDB …).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from recsys.errors import InputError, suggest_nearest
from recsys.schema import EVENTS

ROWS = 1 << 20
"""Rows of a typed table per chunk."""


@dataclass(frozen=True)
class RawChunk:
    """A part of a table, not yet validated.

    Attributes:
        table: the columns that were asked for, under their canonical names.
        reasons: int8[n], refusal code set by the reader (0 = accepted).
        source: file or table name for messages.
        line: gives the line of a row in its file, from 1.
        text: gives the text of a row for messages.
    """

    table: pd.DataFrame
    reasons: np.ndarray
    source: str
    line: Callable[[int], int]
    text: Callable[[int], str]


def read_parquet(path: Path, source: str, mapping: dict[str, str], all_columns: bool) -> Iterator[RawChunk]:
    """Read columns of a Parquet file, or of a folder with key=value folders in it.

    ``mapping``: canonical column -> its name in the file. ``all_columns``: read all others too.
    """
    try:
        partitions = pa.dataset.HivePartitioning.discover(infer_dictionary=True)
        data = pa.dataset.dataset(path, format="parquet", partitioning=partitions)
        chosen = choose_columns(data.schema.names, mapping, all_columns)
        require_id_columns(source, mapping, data.schema.names)
        columns = list(dict.fromkeys(chosen.values()))
        batches = data.to_batches(columns=columns, batch_size=ROWS, batch_readahead=2, fragment_readahead=1)
        yield from _to_chunks(batches, source, chosen)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{source}: not a readable Parquet file or folder: {first}") from error


def read_in_memory(table: Any, source: str, mapping: dict[str, str], all_columns: bool) -> Iterator[RawChunk]:
    """Read columns of a table in memory as :func:`read_parquet` does; a pandas index is ignored."""
    try:
        if isinstance(table, pd.DataFrame):
            chosen = choose_columns([str(name) for name in table.columns], mapping, all_columns)
            require_id_columns(source, mapping, [str(name) for name in table.columns])
            data = pa.table({name: _to_arrow(table, name) for name in dict.fromkeys(chosen.values())})
        else:
            data = pa.table(table)
            chosen = choose_columns(data.column_names, mapping, all_columns)
            require_id_columns(source, mapping, data.column_names)
        yield from _to_chunks(data.to_batches(max_chunksize=ROWS), source, chosen)
    except (pa.ArrowException, TypeError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{source}: the table cannot be read: {first}. Give each column one type.") from error


def _to_chunks(batches: Iterable[pa.RecordBatch], source: str, chosen: dict[str, str]) -> Iterator[RawChunk]:
    """Yield the ``chosen`` columns (canonical -> source name) as pandas columns for validation."""
    rows_before = 0
    for batch in batches:
        if batch.num_rows:
            yield _to_chunk(pa.table(batch), source, chosen, rows_before)
            rows_before += batch.num_rows
    if not rows_before:
        raise InputError(f"{source}: no rows: the table is empty.")


def _to_chunk(data: pa.Table, source: str, chosen: dict[str, str], rows_before: int) -> RawChunk:
    frame = pd.DataFrame(
        {column: column_to_series(data.column(name), column, source) for column, name in chosen.items()}
    )
    reasons = np.zeros(len(frame), dtype=np.int8)
    return RawChunk(
        frame,
        reasons,
        source,
        lambda row: rows_before + int(row) + 1,
        lambda row: str(frame.iloc[row].to_dict()),
    )


def concat_chunks(chunks: Iterable[RawChunk], source: str) -> RawChunk:
    """Return one chunk that holds all rows of the chunks."""
    parts = list(chunks)
    if not parts:
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    ends = np.cumsum([len(chunk.reasons) for chunk in parts])

    def locate(row: int) -> tuple[RawChunk, int]:
        chunk = int(np.searchsorted(ends, row, side="right"))
        return parts[chunk], int(row) - int(ends[chunk]) + len(parts[chunk].reasons)

    def line(row: int) -> int:
        chunk, chunk_row = locate(row)
        return chunk.line(chunk_row)

    def text(row: int) -> str:
        chunk, chunk_row = locate(row)
        return chunk.text(chunk_row)

    tables = [chunk.table.astype(dict.fromkeys(chunk.table.select_dtypes("category"), object)) for chunk in parts]
    table = pd.concat(tables, ignore_index=True)
    return RawChunk(table, np.concatenate([chunk.reasons for chunk in parts]), source, line, text)


def is_table(thing: Any) -> bool:
    """Return whether an object is a table in memory."""
    return isinstance(thing, pd.DataFrame) or hasattr(thing, "__arrow_c_stream__")


def choose_columns(names: list[str], mapping: dict[str, str], all_columns: bool = False) -> dict[str, str]:
    """Return canonical column -> its name among ``names``, for the columns that exist.

    A name in ``mapping`` may also be a position from 0. ``all_columns``: add the other columns
    under their own names.
    """
    by_position = {str(position): name for position, name in enumerate(names)}
    chosen = {
        column: source_name if source_name in names else by_position[source_name]
        for column, source_name in mapping.items()
        if source_name in names or source_name in by_position
    }
    if all_columns:
        chosen |= {name: name for name in names if name not in chosen.values() and name not in chosen}
    return chosen


def require_id_columns(source: str, mapping: dict[str, str], names: list[str]) -> None:
    """Raise InputError if a mapped id column is absent; the message names the nearest present
    column.
    """
    present = {*names, *map(str, range(len(names)))}
    missing = [column for column in EVENTS.required if column in mapping and not present & {column, mapping[column]}]
    if missing:
        hints = "".join(
            f" No column '{mapping[column]}'.{suggest_nearest(mapping[column], names)}" for column in missing
        )
        raise InputError(f'{source}:{hints} Map columns under [data.columns], for example user_id = "{names[0]}".')


def _to_arrow(table: pd.DataFrame, name: str) -> pa.ChunkedArray:
    column = table.loc[:, [str(column) == name for column in table.columns]]
    if column.shape[1] != 1:
        raise InputError(f"the table has two columns '{name}'. Rename one of them.")
    return pa.chunked_array([pa.Array.from_pandas(column.iloc[:, 0])])


def column_to_series(column: pa.ChunkedArray, name: str, source: str) -> pd.Series:
    """Convert a typed column called ``name`` to the form that validation expects; text ids become
    categories.

    Raises:
        InputError: ids that are neither text nor integers, or values that are not numbers.
    """
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([_dictionary_values(chunk).take(chunk.indices) for chunk in column.chunks])
    kind = column.type
    if _is_text(kind) and (name.endswith("_id") or name == "event"):
        return column.dictionary_encode().unify_dictionaries().to_pandas()
    if pa.types.is_null(kind) or _is_text(kind):
        return column.to_pandas().astype(object)
    if name.endswith("_id"):
        return _convert_ids(column, name, source)
    if name == "timestamp" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        # A date has no zone. A time without one is taken as UTC further on.
        zone = None
        if pa.types.is_timestamp(kind):
            zone = kind.tz
        return column.cast(pa.timestamp("us", tz=zone), safe=False).to_pandas()
    if name in ("value", "timestamp"):
        if not (_is_number(kind) or (name == "value" and pa.types.is_boolean(kind))):
            raise InputError(f"{source}: column '{name}' has type {kind}: it must be a number.")
        return column.cast(pa.float64(), safe=False).to_pandas()
    if name == "event":
        return column.cast(pa.string()).to_pandas().astype(object)
    return column.to_pandas()


def _dictionary_values(coded: pa.DictionaryArray) -> pa.Array:
    if _is_text(coded.dictionary.type):
        return coded.dictionary.cast(pa.string())
    return coded.dictionary


def _convert_ids(column: pa.ChunkedArray, name: str, source: str) -> pd.Series:
    """Return ids as integers or text; whole floats (pandas' integers with missing values) are
    integers.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        largest = pc.max(pc.abs(column.cast(pa.float64()))).as_py() or 0.0
        all_whole = largest < 2**53 and pc.all(pc.equal(column, pc.round(column))).as_py() is not False
        if all_whole:
            column = column.cast(pa.int64())
    too_large = pa.types.is_uint64(kind) and (pc.max(column).as_py() or 0) >= 2**63
    if too_large or (pa.types.is_decimal(kind) and kind.scale == 0):
        column = column.cast(pa.string())
    if not (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
        raise InputError(f"{source}: column '{name}' has type {kind}: ids must be text or integers.")
    if column.null_count:
        column = column.cast(pa.string())
    values = column.to_pandas()
    if pa.types.is_string(column.type):
        return values.astype(object)
    return values


def parse_finite_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text that consists of finite numbers as float64, correctly rounded; other columns
    unchanged.

    Text that Arrow's parser refuses or reads as infinite is left to ``validate.parse_numbers``,
    which is slower and finds the reason.
    """
    if not _is_text(column.type):
        return column
    try:
        value = column.cast(pa.float64())
    except pa.ArrowInvalid:
        return column
    # The answer is None for a column of nulls only, which counts as finite.
    if pc.all(pc.is_finite(value)).as_py() is False:
        return column
    return value


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
