"""Read tables of lists and of truth, and convert their ids to integer codes for the metrics."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from recsys import kernels
from recsys.data.reading.columnar import RawChunk
from recsys.data.reading.files import column_names, delimiter_of, read_chunks, require_several_columns
from recsys.data.reading.log import IdNumbers
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.sources import Source
from recsys.data.reading.validate import REASONS, is_missing, parse_numbers
from recsys.errors import InputError, suggest_nearest
from recsys.evaluation.judging.judge import Lists
from recsys.locations import local_path
from recsys.schema import (
    EVENT,
    FOLD,
    ITEM,
    RANK,
    REASON,
    SCORE,
    SOURCE,
    SPREAD,
    TIME,
    TITLE,
    USER,
    VALUE,
    TableSchema,
    is_category,
    is_text,
    unify_ids,
)

LISTS = TableSchema("topk", (USER, ITEM), (RANK, SCORE, SOURCE, TITLE, REASON, FOLD, SPREAD))
"""The columns of a table of lists. A rank or a score is needed too, see :func:`lists`."""
TRUTH = TableSchema("truth", (USER, ITEM), (VALUE, TIME, EVENT))
"""The columns of a table of the items that users chose."""
NUMBERS = (RANK, SCORE, VALUE)
"""The columns of both tables that have numbers."""

PANDAS_INDEX = "__index_level_"
"""Prefix of the column that pandas writes for an index without a name."""


def read_topk(path: str | Path, reading: ReadSettings | None = None) -> pd.DataFrame:
    """Read a table of lists from a file, and return it as a pandas frame.

    The file has the columns ``user_id``, ``item_id``, and ``rank`` or ``score`` or both. It may
    also have ``source``, ``title`` and ``reason``, which ``recsys recommend`` writes, or ``fold``
    and ``spread`` of a table of predicted ratings. The file can have any format in which an event log
    can be read. In the result, ids are text (as categories), or integers if a Parquet file has
    integers.

    Args:
        path: the path or ``file:`` URI of a file or of a folder of files.
        reading: the format and the names of the columns. None: the defaults.

    Raises:
        InputError: the file does not exist, has another format or no rows; a column is missing,
            unknown or repeated; an id is missing; a rank or a score in a text file is not a finite
            number.
    """
    return _read(Source(local_path(path)), LISTS, reading or ReadSettings())


def read_truth(path: str | Path, reading: ReadSettings | None = None) -> pd.DataFrame:
    """Read a table of the items that users chose from a file, and return it as a pandas frame.

    The file has the columns ``user_id``, ``item_id``, and optionally ``value``. It may also have
    ``timestamp`` and ``event``. Ids, arguments and errors raised are those of :func:`read_topk`. A
    value in a text file that is not a finite number is not an error: it becomes NaN or infinite.
    """
    return _read(Source(local_path(path)), TRUTH, reading or ReadSettings())


def as_frame(table: Any, label: str) -> pd.DataFrame:
    """Return a table in memory as a pandas frame.

    A Polars or Arrow table is converted, and a lazy Polars frame is computed. A pandas frame is
    returned unchanged.

    Args:
        table: the table.
        label: the name of the table, for the error message.

    Raises:
        InputError: ``table`` is not a table.
    """
    if isinstance(table, pd.DataFrame):
        return table
    if hasattr(table, "collect") and hasattr(table, "lazy"):
        table = table.collect()
    for method in ("to_arrow", "to_pandas"):
        if hasattr(table, method):
            table = getattr(table, method)()
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            f"{label}: {type(table).__name__} is not a table. Give a frame of pandas, Polars or Arrow with the columns"
            " user_id, item_id and further ones."
        )
    return table


def drop_refused_values(truth: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the rows of a truth table whose value is a finite number, and the number of other rows.

    Without a column ``value``, all rows are returned, and the number is 0.

    Raises:
        InputError: there are rows, but none with such a value.
    """
    if VALUE not in truth:
        return truth, 0
    is_finite = np.isfinite(pd.to_numeric(truth[VALUE], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
    if is_finite.all():
        return truth, 0
    require_finite_values(int(is_finite.sum()))
    return truth[is_finite], int((~is_finite).sum())


def require_finite_values(count: int) -> None:
    """Check that a truth table has a row with a finite value.

    Args:
        count: the number of rows with a finite value.

    Raises:
        InputError: ``count`` is 0.
    """
    if not count:
        raise InputError(
            "no row of the truth has a value that is a finite number: correct the column 'value', or drop it, so that"
            " every row is relevant."
        )


def _read(source: Source, table: TableSchema, reading: ReadSettings) -> pd.DataFrame:
    """Return the known columns of a file. Text ids become categories.

    Raises:
        InputError: the file does not exist, has another format or no rows, a column is missing,
            unknown or repeated, an id is missing, or a cell is not valid in its column.
    """
    # A mapped name counts in whichever of the two tables has it.
    columns = table.required + table.optional
    mapping = {column: reading.columns.get(column, column) for column in columns}
    if source.format(reading) == "parquet":
        try:
            frame = _parquet(source, table, mapping)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise InputError(f"{source}: {str(error).splitlines()[0]}. Check the file and its columns.") from error
    else:
        frame = _text(source, table, mapping, reading)
    if not len(frame):
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    for column in (USER, ITEM):
        blank = frame[column].isna() | (frame[column] == "")
        if blank.any():
            raise InputError(f"{source}: {int(blank.sum()):,} rows have no {column}, first row {blank.argmax() + 1}.")
    return frame


def _text(source: Source, table: TableSchema, mapping: dict[str, str], reading: ReadSettings) -> pd.DataFrame:
    """Read a table in a text file with the reader of logs.

    A row that would be refused in a log is an error here, because a list without one of its rows is
    another list.
    """
    reading = _with_present_delimiter(source, reading)
    # Columns are looked at before the ids, so that all that is wrong is named at once.
    for part in source.parts:
        names = column_names(part, reading)
        if part.format(reading) != "jsonl":
            require_several_columns(part, names, delimiter_of(part, reading))
        mapping = _present_names(mapping, names)
        if reading.header is not False and names:
            require(table, _our_names(names, mapping), str(part))
    ids = {column: IdNumbers() for column in (USER, ITEM)}
    pieces: dict[str, list[np.ndarray]] = {}
    for chunk in read_chunks(source, {c: n for c, n in mapping.items() if c in (USER, ITEM, *NUMBERS)}, reading):
        table.require(chunk.table.columns, chunk.source)
        if chunk.reasons.any():
            row = int(np.flatnonzero(chunk.reasons)[0])
            raise InputError(
                f"{chunk.source}, line {chunk.line(row)}: {REASONS[chunk.reasons[row]]}: {chunk.text(row)[:80]!r}."
            )
        for column in chunk.table:
            if column in ids:
                missing = is_missing(chunk.table[column])
                if missing.any():
                    line = chunk.line(int(missing.argmax()))
                    raise InputError(f"{chunk.source}, line {line}: {int(missing.sum()):,} rows have no {column}.")
                values = ids[column].number(chunk.table[column])
            else:
                values = _numbers(chunk, column)
            pieces.setdefault(column, []).append(values)
    frame = {}
    for column, arrays in pieces.items():
        values = np.concatenate(arrays)
        if column in ids:
            coded = ids[column].categories(values)
            # Text in every table, as ids of two tables must be of one kind to be equal.
            values = coded.rename_categories(coded.categories.astype(str).astype(object))
        frame[column] = values
    return pd.DataFrame(frame)


def _numbers(chunk: RawChunk, column: str) -> np.ndarray:
    """Return a column as float64.

    A value that is not a finite number becomes NaN or infinite, and is refused and counted later.

    Raises:
        InputError: a rank or a score is not a finite number.
    """
    values = parse_numbers(chunk.table[column])[0]
    bad = ~np.isfinite(values) & (column != VALUE)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{chunk.source}, line {chunk.line(row)}: {column} is not a finite number: {chunk.text(row)[:80]!r}."
        )
    return values


def _with_present_delimiter(source: Source, reading: ReadSettings) -> ReadSettings:
    """Return ``reading`` without its delimiter if only without it the file has several columns.

    Lists and truth are read with the same settings, and may have two delimiters, like two names of a
    column. The first part of a folder decides.
    """
    if reading.delimiter is None or not source.parts:
        return reading
    default = reading.model_copy(update={"delimiter": None})
    widths = [len(column_names(source.parts[0], settings)) for settings in (reading, default)]
    return default if widths[0] < 2 <= widths[1] else reading


def _present_names(mapping: dict[str, str], names: list[str]) -> dict[str, str]:
    """Return the name of each column in a file, as a dict: column of recsys -> name in the file.

    The name in the file is the mapped one. If only the column name of recsys is in the file, it is
    that name.

    Args:
        mapping: column of recsys -> mapped name.
        names: the column names of the file.
    """
    return {
        column: column if column in names and source_name not in names else source_name
        for column, source_name in mapping.items()
    }


def _our_names(names: list[str], mapping: dict[str, str]) -> list[str]:
    """Return column names of a file as column names of recsys; names that are not mapped stay.

    Args:
        mapping: column of recsys -> name in the file.
    """
    canonical = {source_name: column for column, source_name in mapping.items()}
    return [canonical.get(name, name) for name in names]


def _parquet(source: Source, table: TableSchema, mapping: dict[str, str]) -> pd.DataFrame:
    """Read a table in Parquet files.

    Raises:
        InputError: a column is missing, unknown or repeated, ids are neither text nor integers, or a
            column of numbers has another type.
    """
    names = [name for name in pa.parquet.ParquetDataset(source.path).schema.names if not name.startswith(PANDAS_INDEX)]
    mapping = _present_names(mapping, names)
    data = pa.parquet.ParquetDataset(source.path, read_dictionary=[mapping[USER], mapping[ITEM]])
    require(table, _our_names(names, mapping), str(source))
    arrow_table = data.read(names)
    if not arrow_table.num_rows:
        return pd.DataFrame({USER: [], ITEM: []})
    arrow_table = arrow_table.rename_columns(_our_names(arrow_table.column_names, mapping))
    for column in (USER, ITEM):
        kind = arrow_table.schema.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_dictionary(kind)):
            raise InputError(f"{source}: column '{column}' has type {kind}: ids must be text or integers.")
    frame = arrow_table.unify_dictionaries().to_pandas()
    for column in NUMBERS:
        if column in frame:
            frame[column] = _numbers_of(frame[column], arrow_table.schema.field(column).type, source)
    return frame


def _numbers_of(column: pd.Series, kind: pa.DataType, source: Source) -> pd.Series:
    """Return a column of a Parquet file as numbers. Text is read as in a text file."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return column
    if pa.types.is_decimal(kind):
        return column.astype(np.float64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return pd.Series(parse_numbers(column.astype(object))[0], index=column.index, name=column.name)
    raise InputError(f"{source}: column '{column.name}' has type {kind}: it must hold numbers.")


def require(table: TableSchema, columns: Iterable[str], label: str) -> None:
    """Check that a table has all required columns, and no unknown or repeated ones.

    Args:
        table: the required and the optional columns.
        columns: the columns that the table has.
        label: the name of the table, for the error message.

    Raises:
        InputError: columns are missing, repeated or unknown. The message names all of them.
    """
    columns = list(columns)
    schema_columns = table.required + table.optional
    problems = [
        f"no column '{name}'.{suggest_nearest(name, columns)}" for name in table.required if name not in columns
    ]
    problems += [
        f"unknown column '{name}'.{suggest_nearest(name, schema_columns)}"
        for name in columns
        if name not in schema_columns
    ]
    problems += [f"column '{name}' is there twice." for name in schema_columns if columns.count(name) > 1]
    if problems:
        raise InputError("\n".join(f"{label}: {problem}" for problem in problems) + "\nRename or drop columns.")


def codes(*columns: pd.Series) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the distinct ids of several columns, and each column as int32 codes.

    A code is a position in the distinct ids. Equal ids of different columns have the same code. Ids
    are in the order in which they first appear, column by column. If one column has text and
    another has integers, they are made one kind: integers, if every text is the usual decimal form
    of an integer, such as "7" but not "007"; else text.

    Raises:
        InputError: an id is missing, or is neither text nor an integer.

    >>> ids, (first, second) = codes(pd.Series(["b", "a", "b"]), pd.Series(["c", "a"]))
    >>> ids.tolist(), first.tolist(), second.tolist()
    (['b', 'a', 'c'], [0, 1, 0], [2, 1])
    """
    encoded = [_encode(column) for column in columns]
    ids = [pd.Series(names) for names, _, _ in encoded]
    if len({series.dtype.kind == "O" for series in ids if len(series)}) > 1:
        ids = unify_ids(*ids)
    all_codes, union = pd.factorize(np.concatenate([series.to_numpy() for series in ids]))
    parts = np.split(all_codes.astype(np.int32), np.cumsum([len(series) for series in ids])[:-1])
    union_codes = []
    for part, (_, index, column_codes) in zip(parts, encoded, strict=True):
        union_codes.append(part[index][column_codes])
    return np.asarray(union), union_codes


def _encode(column: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct ids of a column, and the column as positions in them.

    The result is (ids, index, codes): row r of the column has the id ``ids[index[codes[r]]]``.

    Raises:
        InputError: an id is missing, or is neither text nor an integer.
    """
    if is_category(column):
        column_codes = column.cat.codes.to_numpy()
        names = column.cat.categories.to_numpy()
    else:
        column_codes, names = _factorize(column.to_numpy())
    seen, index = kernels.number_codes(column_codes.astype(np.int32, copy=False), len(names))
    if (missing := column_codes < 0).any():
        raise InputError(f"{int(missing.sum()):,} rows have no {column.name}, first row {missing.argmax() + 1}")
    names = names[seen]
    if names.dtype.kind not in "iu":
        names = names.astype(object)
        if not is_text(names):
            raise InputError(f"{column.name}: ids must all be integers or all be text")
    return names, index, column_codes


def _factorize(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, ids) as ``pd.factorize`` does, but faster for text.

    In a table of text ids, many rows share one Python string object. Rows are first grouped by the
    address of their object, because an address is hashed much faster than a text. Then each object
    is hashed as text only once.
    """
    if values.dtype != object or not len(values):
        return pd.factorize(values)
    values = np.ascontiguousarray(values)
    address = np.ctypeslib.as_array((ctypes.c_ssize_t * len(values)).from_address(values.ctypes.data))
    object_codes, objects = pd.factorize(address)
    # With few shared objects the second pass would cost more than it saves.
    if len(objects) > len(values) // 2:
        return pd.factorize(values)
    first = np.empty(len(objects), dtype=np.int64)
    first[object_codes[::-1]] = np.arange(len(values))[::-1]
    codes, ids = pd.factorize(values[first])
    return codes[object_codes], ids


def lists(
    table: pd.DataFrame,
    user: np.ndarray,
    item: np.ndarray,
    m: int,
    *,
    label: str,
    names: np.ndarray | None = None,
) -> Lists:
    """Return the lists of the users with the codes ``0 … m-1``, in this order.

    Rows of other users are left out. A user without rows has an empty list. There are two cases:

    * ``names`` is None: lists are in the order of the ranks, or, without a column ``rank``, of the
      scores, highest first. Equal scores keep the order of the rows. Gaps between ranks are
      allowed.
    * ``names`` is given: lists are in the order of the scores, rounded to float32. Items with equal
      scores are sorted by id as text, descending.

    Args:
        table: the table of lists.
        user, item: int32[rows], the codes of the user and the item of each row.
        m: the number of users.
        label: the name of the table, for error messages.
        names: the id of each item code, or None.

    Raises:
        InputError: the column to sort by is missing, a rank is not a whole number from 1, a score
            is missing or not a number, or an item or a rank occurs twice in a list.
    """
    score = _scores(table, label)
    rank = None
    if names is None and RANK in table:
        rank = _ranks(table, label)
    order, offsets = kernels.group_rows(user, m)
    if rank is not None:
        kernels.sort_groups(order, offsets, rank)
    elif score is None:
        raise InputError(
            f"{label}: the topk table needs a column 'score' to rank by" + (", or 'rank'" * (names is None))
        )
    else:
        if names is not None:
            score = score.astype(np.float32).astype(np.float64)
            kernels.sort_groups(order, offsets, -_alphabetical(names)[item])
        kernels.sort_groups(order, offsets, -score)
    # Most tables are sorted already, and need no copies.
    is_sorted = kernels.is_identity(order, len(table))

    def sorted_(values: np.ndarray) -> np.ndarray:
        if is_sorted:
            return values
        return values[order]

    listed = sorted_(item)
    _refuse_repeats(
        table,
        order,
        offsets,
        "item",
        kernels.count_repeats(listed, offsets, int(item.max(initial=0)) + 1),
        label,
    )
    if rank is not None:
        _refuse_repeats(
            table,
            order,
            offsets,
            "rank",
            kernels.count_equal_neighbours(sorted_(rank), offsets)[:, 0],
            label,
        )
    return Lists(listed, offsets, None if score is None else sorted_(score))


def _alphabetical(names: np.ndarray) -> np.ndarray:
    """Return the position of each id when all ids are sorted as text, float64[n]."""
    position = np.empty(len(names))
    position[np.argsort(names.astype(str))] = np.arange(len(names))
    return position


def _refuse_repeats(
    table: pd.DataFrame,
    order: np.ndarray,
    offsets: np.ndarray,
    column: str,
    repeated: np.ndarray,
    label: str,
) -> None:
    """Raise InputError if a list has an item or a rank twice.

    Args:
        order: int[rows], the rows of the table in the order of the lists.
        offsets: int64[m + 1], where the list of each user begins and ends in this order.
        column: "item" or "rank", for the message.
        repeated: int[m], the number of repeated items or ranks in the list of each user.
    """
    if repeated.any():
        first = table[USER].iloc[order[offsets[int(repeated.argmax())]]]
        raise InputError(
            f"{label}: {int(repeated.sum()):,} rows of the topk table repeat a (user, {column})"
            f" pair, first user {first!r}: keep one row of each"
        )


def _scores(table: pd.DataFrame, label: str) -> np.ndarray | None:
    """Return the scores of a table, float64[rows], or None if it has no scores.

    Raises:
        InputError: a score is missing or not a number.
    """
    if SCORE not in table:
        return None
    column = table[SCORE]
    if column.dtype == np.float64:
        score = column.to_numpy()
    else:
        score = _as_numbers(column, label)
    if np.isnan(score).any():
        raise InputError(f"{label}: {int(np.isnan(score).sum()):,} rows have no score: fill or drop the column")
    return score


def _as_numbers(column: pd.Series, label: str) -> np.ndarray:
    """Return a column as float64, or raise InputError if it does not hold numbers."""
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(f"{label}: the column '{column.name}' does not hold numbers: {error}.") from error


def _ranks(table: pd.DataFrame, label: str) -> np.ndarray:
    """Return the ranks of a table, one per row.

    Raises:
        InputError: a rank is not a whole number from 1.
    """
    rank = table[RANK].to_numpy()
    if rank.dtype.kind not in "iu":
        rank = _as_numbers(table[RANK], label)
    if len(rank) and not (rank.min() >= 1 and (rank.dtype.kind in "iu" or (rank % 1 == 0).all())):
        raise InputError(f"{label}: ranks must be whole numbers from 1, best first")
    return rank
