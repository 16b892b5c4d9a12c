"""Read typed columns into raw chunks: from Parquet files, folders of them, and tables in memory.

A table in memory is any object with the Arrow C interface (pandas, Polars, pyarrow, DuckDB …).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet

from recsys.data.reading.sources import Source
from recsys.errors import InputError, suggest_columns
from recsys.schema import EVENTS, ITEM, TEXT, USER

ROWS = 1 << 20
"""The number of rows of a typed table per chunk."""

ID_WORDS = {
    USER: ("user", "customer", "client", "member", "account", "visitor", "reader", "reviewer"),
    ITEM: ("item", "product", "article", "movie", "film", "book", "song", "track", "stock", "sku", "isbn", "asin"),
}
"""Id column -> words in the names that other logs give it."""


@dataclass(frozen=True)
class RawChunk:
    """A part of a table that has not been checked yet.

    Attributes:
        table: the columns that were asked for, under their canonical names (``user_id``,
            ``item_id``, ``value`` …).
        reasons: int8[n], the position in ``validate.REASONS`` of the reason why the reader refuses
            each row, 0 if it does not.
        source: the file or table, for messages.
        line: a function from the position of a row to its line in the file, from 1.
        text: a function from the position of a row to its text, for messages.
    """

    table: pd.DataFrame
    reasons: np.ndarray
    source: str
    line: Callable[[int], int]
    text: Callable[[int], str]


@dataclass(frozen=True)
class ParquetLayout:
    """The columns of a Parquet file, or of a folder of parts.

    Attributes:
        chosen: canonical column -> its name in the file.
        schema: the types of these columns, each wide enough for the values of all parts.
        part_schemas: the types of these columns in each part, in the order of the parts.
        keys: the columns whose values are in the names of folders (``day=2024-01-01``). They are
            text.
    """

    chosen: dict[str, str]
    schema: pa.Schema
    part_schemas: tuple[pa.Schema, ...]
    keys: tuple[str, ...]


def parquet_layout(source: Source, mapping: dict[str, str], all_columns: bool = False) -> ParquetLayout:
    """Return the layout that all parts of a Parquet table share.

    All parts must have the same columns of ``mapping``. Another column that only some parts have is
    null in the others.

    Args:
        source: the location of the table.
        mapping: canonical column -> its name in the file.
        all_columns: whether to include all other columns too.

    Raises:
        InputError: a part is not a Parquet file, an id column is missing, or two parts differ in a
            column of ``mapping`` or in the type of a column. The message names both parts.
    """
    chosen: dict[str, str] = {}
    keys: tuple[str, ...] = ()
    schema = pa.schema([])
    part_schemas = []
    first_with: dict[str, Source] = {}
    for number, part in enumerate(source.parts):
        part_schema = _read_schema(part)
        folders = part.path.relative_to(source.path).parts[:-1]
        part_keys = [folder.partition("=")[0] for folder in folders if "=" in folder]
        keys = tuple(dict.fromkeys([*keys, *part_keys]))
        names = [*part_schema.names, *(key for key in part_keys if key not in part_schema.names)]
        part_chosen = choose_columns(names, mapping, all_columns)
        if number == 0:
            require_id_columns(str(source), mapping, names)
        else:
            columns = [column for column in part_chosen if column in mapping]
            present = [column for column in chosen if column in mapping]
            require_same_columns(str(source.parts[0]), present, str(part), columns, mapping)
        fields = []
        for name in dict.fromkeys(part_chosen.values()):
            kind = pa.string()
            if name not in part_keys:
                kind = _column_type(part, part_schema, name)
            fields.append(pa.field(name, kind))
            schema = _widen_schema(schema, fields[-1], part, first_with)
        part_schemas.append(pa.schema(fields))
        chosen |= part_chosen
    return ParquetLayout(chosen, schema, tuple(part_schemas), tuple(key for key in keys if key in schema.names))


def time_storage(part: Source, name: str) -> str:
    """Return how a Parquet file stores the times of a column: ``int96``, ``nanoseconds`` or "".

    Spark must convert the first two forms. "" is any other form, or a column that does not exist.

    Args:
        part: the file.
        name: the name of the column in the file.
    """
    columns = pyarrow.parquet.read_metadata(part.open_parquet()).schema
    for position in range(len(columns)):
        column = columns.column(position)
        if column.path == name and column.physical_type == "INT96":
            return "int96"
        if column.path == name and "nanoseconds" in column.logical_type.to_json():
            return "nanoseconds"
    return ""


def _read_schema(part: Source) -> pa.Schema:
    try:
        return pyarrow.parquet.read_schema(part.open_parquet())
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{part}: not a readable Parquet file: {first}") from error


def _column_type(part: Source, schema: pa.Schema, name: str) -> pa.DataType:
    positions = schema.get_all_field_indices(name)
    if len(positions) > 1:
        raise InputError(f"{part}: two columns are named '{name}'. Rename one of them.")
    kind = schema.field(positions[0]).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind


def _widen_schema(schema: pa.Schema, field: pa.Field, part: Source, first_with: dict[str, Source]) -> pa.Schema:
    """Return the schema with the column ``field`` of one more part added.

    If the column exists, its type becomes one that can hold the values of both.

    Raises:
        InputError: there is no such type. The message names both parts.
    """
    first = first_with.setdefault(field.name, part)
    if field.name not in schema.names:
        return schema.append(field)
    position = schema.get_field_index(field.name)
    current = schema.field(position)
    if current.type == field.type:
        return schema
    try:
        widened = pa.unify_schemas([pa.schema([current]), pa.schema([field])], promote_options="permissive").field(0)
    except pa.ArrowException:
        raise InputError(
            f"{part}: column '{field.name}' has type {field.type}, but type {current.type} in {first}. The files of a"
            " folder are read as one table: give the column one type in all of them."
        ) from None
    return schema.set(position, widened)


def read_parquet(source: Source, mapping: dict[str, str], all_columns: bool) -> Iterator[RawChunk]:
    """Yield chunks of a Parquet file, or of a folder of parts.

    If parts are in folders such as ``day=2024-01-01``, they have a text column ``day``.

    Args:
        source: the location of the table.
        mapping: canonical column -> its name in the file.
        all_columns: whether to read all other columns too.

    Raises:
        InputError: a file cannot be read, there are no rows, an id column is missing, or two parts
            differ in a column.
    """
    layout = parquet_layout(source, mapping, all_columns)
    try:
        keys = pa.schema([layout.schema.field(key) for key in layout.keys])
        partitioning = pa.dataset.partitioning(keys, flavor="hive")
        data = pa.dataset.dataset(source.path, layout.schema, format="parquet", partitioning=partitioning)
        batches = data.to_batches(columns=layout.schema.names, batch_size=ROWS, batch_readahead=2, fragment_readahead=1)
        yield from _to_chunks(batches, str(source), layout.chosen)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{source}: not a readable Parquet file or folder: {first}") from error


def read_in_memory(table: Any, source: str, mapping: dict[str, str], all_columns: bool) -> Iterator[RawChunk]:
    """Yield chunks of a table in memory. A pandas index is ignored.

    Args:
        table: pandas, pyarrow, or anything with the Arrow C interface.
        source: the name of the table, for messages.
        mapping: canonical column -> its name in the table.
        all_columns: whether to read all other columns too.

    Raises:
        InputError: the table cannot be read, has no rows, or lacks an id column.
    """
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
    """Yield one chunk per batch, with the ``chosen`` columns (canonical -> source name) as pandas
    columns."""
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
    """Return one chunk with the rows of all chunks, in their order. Categories become plain values.

    Args:
        chunks: the chunks of one table.
        source: the table, for messages.

    Raises:
        InputError: there are no chunks.
    """
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
    """Return whether an object is a table in memory, and not a path."""
    return isinstance(thing, pd.DataFrame) or hasattr(thing, "__arrow_c_stream__")


def require_table_or_path(thing: Any, label: str) -> Any:
    """Check that ``thing`` is a table in memory or a path, and return it.

    A lazy Polars frame is computed.

    Args:
        thing: the object to check.
        label: the start of the error message, for example ``events``.

    Raises:
        InputError: it is neither a table nor a path.
    """
    if hasattr(thing, "collect") and hasattr(thing, "lazy"):
        thing = thing.collect()
    if not is_table(thing) and not isinstance(thing, str | Path):
        raise InputError(
            f"{label}: {type(thing).__name__} is neither a path nor a table. Give the path of a file, or a frame of"
            " pandas, Polars or Arrow."
        )
    return thing


def choose_columns(names: list[str], mapping: dict[str, str], all_columns: bool = False) -> dict[str, str]:
    """Return canonical column -> its name in ``names``, for the columns of ``mapping`` that exist.

    Args:
        names: the columns of the source, in order.
        mapping: canonical column -> its name in the source, or its position from 0 as text. A
            column with this name takes precedence over the position.
        all_columns: whether to add all other columns under their own names.
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
    """Check that a table has its id columns, and a table of events also every other mapped column.

    Args:
        source: the file or table, for the message.
        mapping: canonical column -> its name in the source.
        names: the columns that the source has.

    Raises:
        InputError: a column is missing. The message names the most similar columns, and lists all.
    """
    present = {*names, *map(str, range(len(names)))}
    if not names:
        raise InputError(f"{source}: no columns: the table is empty.")
    missing = [column for column in EVENTS.required if column in mapping and not present & {column, mapping[column]}]
    if missing:
        hints = suggest_columns([mapping[column] for column in missing], names)
        section = section_of(mapping)
        examples = _example_columns(missing, [name for name in names if name not in mapping.values()])
        keys = " and ".join(f'{column} = "{name}"' for column, name in examples.items())
        option = "--column "
        if section != "columns":
            option = f"--set data.{section}."
        options = " ".join(option + shlex.quote(f"{column}={name}") for column, name in examples.items())
        raise InputError(f"{source}:{hints} Map columns under [data.{section}], for example {keys}, or with {options}.")
    # Tables of items and users may have our names although the log of events has others.
    if not mapping.keys() >= {*EVENTS.required}:
        return
    for column in (*EVENTS.required, *EVENTS.optional):
        source_name = mapping.get(column, column)
        if source_name != column and source_name not in present:
            raise InputError(
                f"{source}: [data.columns] maps {column} to '{source_name}', but there is no such column: correct the"
                f" mapping, or remove it if the name in the file is ours.{suggest_columns([source_name], names)}"
            )


def section_of(mapping: Collection[str]) -> str:
    """Return the section of ``[data]`` that maps the columns of a table.

    Args:
        mapping: the canonical columns that the reader of the table asks for.
    """
    # Reviews, the table with texts, are mapped as events are, with or without users.
    if USER not in mapping and TEXT not in mapping:
        return "item_columns"
    if ITEM not in mapping:
        return "user_columns"
    return "columns"


def _example_columns(missing: list[str], names: list[str]) -> dict[str, str]:
    """Return for each missing id column the column that may hold these ids by its name, or "..."."""
    examples = {}
    for column in missing:
        similar = [name for name in names if any(word in name.lower() for word in ID_WORDS[column])]
        # Of movieTitle and movieId the second one holds ids.
        examples[column] = min(similar, key=lambda name: not name.lower().endswith("id"), default="...")
    return examples


def require_same_columns(
    first: str, first_columns: Collection[str], part: str, columns: Collection[str], mapping: dict[str, str]
) -> None:
    """Check that two parts of a table have the same columns of ``mapping``.

    Args:
        first, part: the names of the two parts, for the message.
        first_columns, columns: the columns that they have.
        mapping: canonical column -> its name in the files.

    Raises:
        InputError: only one of the parts has one of these columns. The message names both parts.
    """
    for column in sorted({*first_columns} ^ {*columns}):
        without, having = part, first
        if column in columns:
            without, having = first, part
        raise InputError(
            f"{without}: no column '{mapping.get(column, column)}', which {having} has. The files of a folder are read"
            " as one table: give all of them the same columns, or keep those that do not belong to it elsewhere."
        )


def _to_arrow(table: pd.DataFrame, name: str) -> pa.ChunkedArray:
    column = table.loc[:, [str(column) == name for column in table.columns]]
    if column.shape[1] != 1:
        raise InputError(f"the table has two columns '{name}'. Rename one of them.")
    return pa.chunked_array([pa.Array.from_pandas(column.iloc[:, 0])])


def column_to_series(column: pa.ChunkedArray, name: str, source: str) -> pd.Series:
    """Convert a typed column to the form that the validation of rows expects.

    * Text ids and event types become categories. Integer ids stay integers, or become text if one
      is null.
    * Values and numeric times become float64. Timestamps and dates become datetimes.
    * All other columns become pandas columns as they are.

    Args:
        column: the column.
        name: its canonical name.
        source: the file or table, for the error message.

    Raises:
        InputError: ids are neither text nor integers, or values or times have a type that cannot be
            read.
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
    """Return ids as integers or text.

    Whole floats become integers, because pandas makes floats of integers with missing values.
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
    """Convert a column of texts to float64 if all of them are finite numbers.

    Any other column is returned unchanged. The numbers are correctly rounded. Nulls stay null. A
    column stays text if one of its texts cannot be parsed by Arrow, or is read as NaN or infinity.
    ``validate.parse_numbers``, which is slower, then parses the column and finds the reason.
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
