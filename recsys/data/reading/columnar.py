"""Typed columns -> raw columns: Parquet files, partitioned folders of them, and tables in memory.

A table in memory is whatever hands itself over by the Arrow C interface (pandas, Polars, pyarrow, DuckDB …).
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
"""Rows of a typed table that are looked at together."""


@dataclass(frozen=True)
class RawChunk:
    """A piece of a table as found. ``why``: int8[n], what the reader itself holds against a row."""

    table: pd.DataFrame
    why: np.ndarray
    where: str
    line: Callable[[int], int]
    text: Callable[[int], str]


def read_parquet(path: Path, where: str, wanted: dict[str, str], everything: bool) -> Iterator[RawChunk]:
    """Read the ``wanted`` columns (ours -> theirs) of a file, or of a folder with key=value folders in it."""
    try:
        partitions = pa.dataset.HivePartitioning.discover(infer_dictionary=True)
        data = pa.dataset.dataset(path, format="parquet", partitioning=partitions)
        chosen = choose_columns(data.schema.names, wanted, everything)
        require_id_columns(where, wanted, data.schema.names)
        columns = list(dict.fromkeys(chosen.values()))
        batches = data.to_batches(columns=columns, batch_size=ROWS, batch_readahead=2, fragment_readahead=1)
        yield from _pieces(batches, where, chosen)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{where}: not a readable Parquet file or folder: {first}") from error


def read_in_memory(table: Any, where: str, wanted: dict[str, str], everything: bool) -> Iterator[RawChunk]:
    """Read the ``wanted`` columns of a table in memory; a pandas index is ignored."""
    try:
        if isinstance(table, pd.DataFrame):
            chosen = choose_columns([str(name) for name in table.columns], wanted, everything)
            require_id_columns(where, wanted, [str(name) for name in table.columns])
            data = pa.table({theirs: _arrow(table, theirs) for theirs in dict.fromkeys(chosen.values())})
        else:
            data = pa.table(table)
            chosen = choose_columns(data.column_names, wanted, everything)
            require_id_columns(where, wanted, data.column_names)
        yield from _pieces(data.to_batches(max_chunksize=ROWS), where, chosen)
    except (pa.ArrowException, TypeError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{where}: a table that cannot be read: {first}. Make each column one type.") from error


def _pieces(batches: Iterable[pa.RecordBatch], where: str, chosen: dict[str, str]) -> Iterator[RawChunk]:
    """Yield the ``chosen`` columns (ours -> theirs) as pandas columns that validation understands."""
    before = 0
    for batch in batches:
        if batch.num_rows:
            yield _raw(pa.table(batch), where, chosen, before)
            before += batch.num_rows
    if not before:
        raise InputError(f"{where}: no rows: the table is empty.")


def _raw(data: pa.Table, where: str, chosen: dict[str, str], before: int) -> RawChunk:
    frame = pd.DataFrame({ours: column_to_series(data.column(theirs), ours, where) for ours, theirs in chosen.items()})
    why = np.zeros(len(frame), dtype=np.int8)
    return RawChunk(frame, why, where, lambda row: before + int(row) + 1, lambda row: str(frame.iloc[row].to_dict()))


def concat_chunks(found: Iterable[RawChunk], where: str) -> RawChunk:
    """Return all pieces as one."""
    parts = list(found)
    if not parts:
        raise InputError(f"{where}: no rows: the file is empty, or has nothing but a header.")
    ends = np.cumsum([len(part.why) for part in parts])

    def place(row: int) -> tuple[RawChunk, int]:
        part = int(np.searchsorted(ends, row, side="right"))
        return parts[part], int(row) - int(ends[part]) + len(parts[part].why)

    def line(row: int) -> int:
        part, own = place(row)
        return part.line(own)

    def text(row: int) -> str:
        part, own = place(row)
        return part.text(own)

    tables = [part.table.astype(dict.fromkeys(part.table.select_dtypes("category"), object)) for part in parts]
    table = pd.concat(tables, ignore_index=True)
    return RawChunk(table, np.concatenate([part.why for part in parts]), where, line, text)


def is_table(thing: Any) -> bool:
    """Return whether ``thing`` is a table in memory."""
    return isinstance(thing, pd.DataFrame) or hasattr(thing, "__arrow_c_stream__")


def choose_columns(names: list[str], wanted: dict[str, str], everything: bool = False) -> dict[str, str]:
    """Return our column -> its name among ``names``, of those that exist; a position from 0 will do as a name.

    ``everything``: the columns that nobody asked for keep their names.
    """
    by_place = {str(place): name for place, name in enumerate(names)}
    chosen = {
        ours: theirs if theirs in names else by_place[theirs]
        for ours, theirs in wanted.items()
        if theirs in names or theirs in by_place
    }
    if everything:
        chosen |= {name: name for name in names if name not in chosen.values() and name not in chosen}
    return chosen


def require_id_columns(where: str, wanted: dict[str, str], names: list[str]) -> None:
    """Raise InputError naming each id column that is wanted and absent, and the nearest present one."""
    there = {*names, *map(str, range(len(names)))}
    missing = [ours for ours in EVENTS.required if ours in wanted and not there & {ours, wanted[ours]}]
    if missing:
        hints = "".join(f" No column '{wanted[ours]}'.{suggest_nearest(wanted[ours], names)}" for ours in missing)
        raise InputError(f'{where}:{hints} Map columns under [data.columns], for example user_id = "{names[0]}".')


def _arrow(table: pd.DataFrame, name: str) -> pa.ChunkedArray:
    column = table.loc[:, [str(column) == name for column in table.columns]]
    if column.shape[1] != 1:
        raise InputError(f"the table has two columns '{name}'. Rename one.")
    return pa.chunked_array([pa.Array.from_pandas(column.iloc[:, 0])])


def column_to_series(column: pa.ChunkedArray, name: str, where: str) -> pd.Series:
    """Return a typed column, to be called ``name``, as validation wants it: text ids are categories.

    Raises:
        InputError: ids that are neither text nor integers, or values that are no numbers.
    """
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([_distinct(chunk).take(chunk.indices) for chunk in column.chunks])
    kind = column.type
    if _is_text(kind) and (name.endswith("_id") or name == "event"):
        return column.dictionary_encode().unify_dictionaries().to_pandas()
    if pa.types.is_null(kind) or _is_text(kind):
        return column.to_pandas().astype(object)
    if name.endswith("_id"):
        return _ids(column, name, where)
    if name == "timestamp" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        return column.cast(pa.timestamp("us", tz=zone), safe=False).to_pandas()
    if name in ("value", "timestamp"):
        if not (_is_number(kind) or (name == "value" and pa.types.is_boolean(kind))):
            raise InputError(f"{where}: column '{name}' has type {kind}: it must be a number.")
        return column.cast(pa.float64(), safe=False).to_pandas()
    if name == "event":
        return column.cast(pa.string()).to_pandas().astype(object)
    return column.to_pandas()


def _distinct(coded: pa.DictionaryArray) -> pa.Array:
    return coded.dictionary.cast(pa.string()) if _is_text(coded.dictionary.type) else coded.dictionary


def _ids(column: pa.ChunkedArray, name: str, where: str) -> pd.Series:
    """Return ids as integers or text; whole floats (pandas' integers with gaps) are integers."""
    kind = column.type
    if pa.types.is_floating(kind):
        largest = pc.max(pc.abs(column.cast(pa.float64()))).as_py() or 0.0
        whole = largest < 2**53 and pc.all(pc.equal(column, pc.round(column))).as_py() is not False
        column = column.cast(pa.int64()) if whole else column
    too_large = pa.types.is_uint64(kind) and (pc.max(column).as_py() or 0) >= 2**63
    if too_large or (pa.types.is_decimal(kind) and kind.scale == 0):
        column = column.cast(pa.string())
    if not (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
        raise InputError(f"{where}: column '{name}' has type {kind}: ids must be text or integers.")
    if column.null_count:
        column = column.cast(pa.string())
    found = column.to_pandas()
    return found.astype(object) if pa.types.is_string(column.type) else found


def parse_finite_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text that is all finite numbers as float64, correctly rounded, and any other column as it is.

    What Arrow's parser refuses or finds infinite is left to ``validate.parse_numbers``, which is slower and knows why.
    """
    if not _is_text(column.type):
        return column
    try:
        value = column.cast(pa.float64())
    except pa.ArrowInvalid:
        return column
    return column if pc.all(pc.is_finite(value)).as_py() is False else value


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
