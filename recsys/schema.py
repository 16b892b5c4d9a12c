"""Names and dtypes of the tables that recsys reads and writes, and their checks.

``TableSchema.require`` takes the column names of a pandas or a Spark frame. So both engines refuse
the same tables with the same message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recsys.errors import InputError, suggest_columns

USER = "user_id"
ITEM = "item_id"
VALUE = "value"
TIME = "timestamp"
EVENT = "event"
FALLBACK = "fallback_id"
"""Column whose id is used for a row without a user id. Checked tables do not have this column."""
SIDE = "side"
"""Column that names the part of a split (train, history or test) to which each event belongs.

Only a log that was read from the parts of a split has it.
"""
RANK = "rank"
SCORE = "score"
SOURCE = "source"
TITLE = "title"
REASON = "reason"
TEXT = "text"
FOLD = "fold"
SPREAD = "spread"

CANONICAL_INT = r"^(0|-?[1-9][0-9]{0,18})$"
"""Regular expression for a canonical integer ("7", not "007"), for Java and Python.

Ids of text become int64 only if all of them match it and fit in 64 bits.
"""


@dataclass(frozen=True)
class TableSchema:
    """The columns of one table of recsys.

    Attributes:
        name: the name of the table, for error messages.
        required: the columns that the table must have.
        optional: the columns that the table may have. Other columns are allowed too.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def require(self, columns: Iterable[str], source: str = "") -> None:
        """Check that a table has all required columns.

        Args:
            columns: the names of the columns of the table.
            source: where the table comes from, for the error message.

        Raises:
            InputError: columns are missing. The message names each of them, and up to two similar
                columns that exist.
        """
        columns = list(columns)
        missing = [column for column in self.required if column not in columns]
        if missing:
            advice = "Rename the columns of the table."
            if {*missing} <= {*MAPPABLE}:
                advice = "Map columns under [data.columns], or with --column OURS=THEIRS, or rename them."
            raise InputError(
                f"{source or self.name}: the {self.name} table needs {', '.join(self.required)}."
                f"{suggest_columns(missing, columns)} {advice}"
            )


EVENTS = TableSchema("events", (USER, ITEM), (VALUE, TIME, EVENT))
ITEMS = TableSchema("items", (ITEM,), (TITLE,))
REVIEWS = TableSchema("reviews", (ITEM, TEXT), (SCORE, USER))
SCORED_REVIEWS = TableSchema("reviews", (ITEM, TEXT, SCORE), (USER,))
USERS = TableSchema("users", (USER,))
TOPK = TableSchema("topk", (USER, ITEM, RANK), (SCORE, SOURCE))
INTERACTIONS = TableSchema("interactions", (USER, ITEM, VALUE, TIME))

MAPPABLE = (*EVENTS.required, *EVENTS.optional, RANK, SCORE)
"""The columns that ``[data] columns`` and ``--column`` can map."""


def is_text(values: np.ndarray) -> bool:
    """Return whether every entry of an object array is a ``str``. It is True for an empty array."""
    return pd.api.types.infer_dtype(values, skipna=False) in ("string", "empty")


FEW = 100
"""Number of ids up to which they are parsed and looked up one by one."""


def canonical_int64(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Parse texts as integers of 64 bits, and return the numbers and which texts are integers.

    Returns int64[n] and bool[n]. A text is an integer only in its canonical form (``"7"``, not
    ``"007"`` or ``"+7"``), and only if it fits in 64 bits. The number of any other text is 0.

    Args:
        values: n texts, none of which is missing.

    >>> canonical_int64(["7", "007", "-3", "9223372036854775808"])
    (array([ 7,  0, -3,  0]), array([ True, False,  True, False]))
    """
    # A server looks up one id at a time, for which a column of pandas costs more than the loop.
    if len(values) <= FEW:
        parsed = [canonical_number(str(value)) for value in values]
        numbers = np.array([number or 0 for number in parsed], dtype=np.int64)
        return numbers, np.array([number is not None for number in parsed], dtype=bool)
    text = pd.Series(values, dtype=object)
    is_canonical = text.str.fullmatch(CANONICAL_INT[1:-1]).to_numpy(dtype=bool)
    numbers = np.zeros(len(text), dtype=np.int64)
    short = is_canonical & (text.str.len() < 19).to_numpy(dtype=bool)
    numbers[short] = text[short].astype(np.int64)
    # Only texts of 19 or 20 characters can overflow.
    for row in np.flatnonzero(is_canonical & ~short):
        number = int(text.iat[row])
        is_canonical[row] = -(2**63) <= number < 2**63
        # A row that is not canonical keeps its 0: the number would not fit in the array.
        if is_canonical[row]:
            numbers[row] = number
    return numbers, is_canonical


def canonical_number(text: str) -> int | None:
    """Return a canonical decimal number of 64 bits, or None for any other text."""
    # Longer texts are out of range, and Python refuses to parse those of thousands of digits.
    if len(text) > 20:
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    return number if str(number) == text and -(2**63) <= number < 2**63 else None


def unify_ids(*columns: pd.Series) -> list[pd.Series]:
    """Convert several columns of user ids, or several columns of item ids, to one kind: integers or
    text.

    Text becomes int64 only if *every* text id in *every* column is a canonical integer of 64 bits.
    Otherwise all columns become text, because "007" differs from "7". A column of integers keeps
    its dtype, unless all columns become text.

    Args:
        columns: Series of integers or text without missing values, or categorical Series, in which
            nulls stay null. All categories of a categorical column count, even those that no row
            uses.

    Returns:
        The columns in the order of the arguments. A categorical column stays categorical, with its
        categories in ascending order, unless its categories are integers already.
    """
    parsed = []
    for column in columns:
        ids = column
        if is_category(column):
            ids = column.cat.categories.to_series()
        if ids.dtype.kind in "iu":
            parsed.append(column)
            continue
        numbers, is_canonical = canonical_int64(ids)
        if not is_canonical.all():
            return [_as_text(column) for column in columns]
        values: Any = numbers
        if is_category(column):
            values = _recode_categories(column, numbers)
        parsed.append(pd.Series(values, index=column.index, name=column.name))
    return parsed


def _as_text(ids: pd.Series) -> pd.Series:
    if is_category(ids):
        return pd.Series(_recode_categories(ids, ids.cat.categories.astype(str)), index=ids.index, name=ids.name)
    if ids.dtype.kind in "iu":
        ids = ids.astype(str)
    return ids.astype(object)


def _recode_categories(column: pd.Series, ids: Any) -> pd.Categorical:
    """Return a categorical column with new, sorted category names. Null stays null.

    Args:
        ids: the new name of each category, in the order of the old ones.
    """
    ids = pd.Index(ids, dtype=object if ids.dtype.kind not in "iu" else None)
    order = ids.argsort()
    # The last entry is for null, whose code is -1.
    rank = np.full(len(ids) + 1, -1, dtype=np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    return pd.Categorical.from_codes(rank[column.cat.codes], categories=ids[order])


def is_category(ids: Any) -> bool:
    """Return whether ids (a Series, an Index, an array …) are a pandas categorical."""
    return isinstance(getattr(ids, "dtype", None), pd.CategoricalDtype)
