"""Files -> the two tables that ``recsys evaluate`` needs, with ids as categories so that each is read once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from recsys.data.files import Source
from recsys.errors import InputError, nearest
from recsys.schema import EVENT, ITEM, RANK, SCORE, SOURCE, TIME, TOPK, USER, VALUE, Table

TRUTH = Table("truth", (USER, ITEM), (VALUE, TIME, EVENT))
_ID = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    USER: _ID,
    ITEM: _ID,
    SOURCE: _ID,
    EVENT: _ID,
    RANK: pa.int64(),
    SCORE: pa.float64(),
    VALUE: pa.float64(),
    TIME: pa.string(),
}


def read_topk(path: str | Path) -> pd.DataFrame:
    """Read a topk table: ``user_id``, ``item_id``, ``rank`` and/or ``score``, ``source``; CSV, TSV or Parquet."""
    return _read(Source(Path(path)), TOPK)


def read_truth(path: str | Path) -> pd.DataFrame:
    """Read what users chose: ``user_id``, ``item_id``, ``value``; ``timestamp`` and ``event`` may stand beside them."""
    return _read(Source(Path(path)), TRUTH)


def _read(source: Source, table: Table) -> pd.DataFrame:
    """Return the known columns of a file, text ids as categories.

    Raises:
        InputError: no such file, another format, no rows, a missing, unknown or repeated column, a cell that is not
            what its column holds, an id that is missing.
    """
    kind = source.format()
    if kind not in ("csv", "tsv", "parquet"):
        raise InputError(f"{source}: {kind} is not read here: write the table as CSV or Parquet.")
    try:
        found = _parquet(source, table) if kind == "parquet" else _csv(source, table, "\t" if kind == "tsv" else ",")
    except (pa.ArrowException, OSError, EOFError) as error:
        raise InputError(f"{source}: {str(error).splitlines()[0]}. Check the file and its columns.") from error
    if not len(found):
        raise InputError(f"{source}: no rows: the file is empty, or has nothing but a header.")
    for column in (USER, ITEM):
        blank = found[column].isna() | (found[column] == "")
        if blank.any():
            raise InputError(f"{source}: {int(blank.sum()):,} rows have no {column}, first row {blank.argmax() + 1}.")
    return found


def _csv(source: Source, table: Table, delimiter: str) -> pd.DataFrame:
    with source.open() as stream:
        found = pa.csv.read_csv(
            stream,
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=_TYPES, null_values=[""], strings_can_be_null=True),
        )
    require(table, found.column_names, str(source))
    return found.unify_dictionaries().to_pandas()


def _parquet(source: Source, table: Table) -> pd.DataFrame:
    data = pa.parquet.ParquetDataset(source.path, read_dictionary=[USER, ITEM])
    require(table, data.schema.names, str(source))
    found = data.read()
    for column in (USER, ITEM):
        kind = found.schema.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_dictionary(kind)):
            raise InputError(f"{source}: column '{column}' has type {kind}: ids must be text or integers.")
    return found.unify_dictionaries().to_pandas()


def require(table: Table, columns: Iterable[str], where: str) -> None:
    """Raise InputError naming every missing, repeated and unknown column at once."""
    columns = list(columns)
    known = table.required + table.optional
    problems = [f"no column '{name}'.{nearest(name, columns)}" for name in table.required if name not in columns]
    problems += [f"unknown column '{name}'.{nearest(name, known)}" for name in columns if name not in known]
    problems += [f"column '{name}' stands there twice." for name in known if columns.count(name) > 1]
    if problems:
        raise InputError("\n".join(f"{where}: {problem}" for problem in problems) + "\nRename or drop columns.")
