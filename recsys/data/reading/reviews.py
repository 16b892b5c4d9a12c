"""Read a table of reviews: what people wrote about items, with a score or without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.data.reading.columnar import concat_chunks
from recsys.data.reading.files import read_chunks
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.sources import Source
from recsys.errors import InputError
from recsys.locations import local_path
from recsys.schema import ITEM, REVIEWS, SCORE, TEXT, USER, TableSchema


def read_reviews(table: str, reading: ReadSettings, schema: TableSchema = REVIEWS) -> pd.DataFrame:
    """Read a table of reviews: item_id, text, score, and user_id if the table has it.

    Ids are text; from a Parquet file, they have the type of the file. ``score`` is float64, NaN
    where it is empty or the table has no such column. A missing text becomes the empty text.

    Args:
        table: the path of the table.
        reading: how the table is read.
        schema: the columns that the table must and may have.

    Raises:
        InputError: a required column is missing, an item id is empty, or a score is not a finite
            number.
    """
    names = (*schema.required, *schema.optional)
    # Reviews may be unsigned, while a mapped id column must exist. All other columns are read anyway.
    mapping = {name: name for name in names if name != USER} | reading.columns
    chunk = concat_chunks(read_chunks(Source(local_path(table)), mapping, reading, all_columns=True), table)
    schema.require(chunk.table.columns, table)
    frame = chunk.table[[name for name in names if name in chunk.table]].astype(object)
    if SCORE not in frame:
        frame[SCORE] = None
    score = pd.to_numeric(frame[SCORE].replace("", None), errors="coerce").astype(np.float64)
    is_empty = _is_empty(frame[SCORE])
    is_bad = (score.isna() & ~is_empty) | ~np.isfinite(score.fillna(0.0))
    for label, rows in (("score is not a number", is_bad), ("item_id is empty", _is_empty(frame[ITEM]))):
        if rows.any():
            raise InputError(
                f"{table}: in {int(rows.sum()):,} rows the {label}, first in data row {int(rows.argmax()) + 1:,}."
            )
    text = frame[TEXT].fillna("").astype(str)
    return frame.assign(text=text, score=score).reset_index(drop=True)


def with_text_ids(reviews: pd.DataFrame) -> pd.DataFrame:
    """Convert the ids of a table of reviews to text, and return the table.

    ``user_id`` becomes a categorical column. It is null where the review does not name a user, and
    everywhere if the table has no such column.

    Args:
        reviews: a table as :func:`read_reviews` returns it.
    """
    users = pd.Series(None, index=reviews.index, dtype=object)
    if USER in reviews:
        users = reviews[USER]
    is_signed = users.notna() & (users != "")
    return reviews.assign(
        **{ITEM: reviews[ITEM].astype(str), USER: users.astype(str).where(is_signed).astype("category")}
    )


def _is_empty(column: Any) -> pd.Series:
    return column.isna() | (column == "")
