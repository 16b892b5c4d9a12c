"""A compact log of events: chunks are appended, and a table with numbered ids is returned at the
end.

In the table, ids are categories, at most int32 per row, with the categories in id order, so that
work per id (its hash, its row in another table) is done once per distinct id. ``value`` is float32
if every value of the log is exact in float32, else float64; ``timestamp`` is int32 if all are whole
seconds before 2038, else float64. A hundred million events take 1.6 GB. :func:`widen_log` returns
the plain table.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from recsys.schema import EVENT, ITEM, TIME, USER, VALUE, canonical_int64, is_category, unify_ids

SMALLEST = {VALUE: np.float32, TIME: np.int32}
EMPTY = -1
SLAB = 1 << 23


class Log:
    """A log that grows by frames of accepted events, as ``validate.check_events`` returns them."""

    def __init__(self) -> None:
        self._ids: dict[str, IdNumbers] = {}
        self._columns: dict[str, _Column] = {}

    def append(self, piece: pd.DataFrame) -> None:
        """Append the rows of a chunk. Every chunk must have the same columns."""
        for name in piece:
            if name in SMALLEST:
                values = _narrow(piece[name].to_numpy(), SMALLEST[name])
            else:
                values = self._ids.setdefault(name, IdNumbers()).number(piece[name])
            self._columns.setdefault(name, _Column()).append(values)

    def clear(self) -> None:
        """Remove all rows and ids."""
        self.__init__()  # type: ignore[misc]

    def table(self) -> pd.DataFrame:
        """Return all rows as one table and release the chunks."""
        columns: dict[str, Any] = {}
        for name in (USER, ITEM, VALUE, TIME, EVENT):
            if name not in self._columns:
                continue
            values = self._columns.pop(name).concat()
            if name not in SMALLEST:
                values = self._ids.pop(name).categories(values)
            columns[name] = values
        return pd.DataFrame(columns, copy=False)


class _Column:
    """A column that grows by arrays of values.

    The values are stored in arrays so large that the allocator returns their memory to the
    operating system when they are freed.
    """

    def __init__(self) -> None:
        self._slabs: list[np.ndarray] = []
        self._used = SLAB

    def append(self, values: np.ndarray) -> None:
        while len(values):
            if self._used == SLAB or self._slabs[-1].dtype != values.dtype:
                self._trim()
                self._slabs.append(np.empty(SLAB, dtype=values.dtype))
                self._used = 0
            taken = min(len(values), SLAB - self._used)
            self._slabs[-1][self._used : self._used + taken] = values[:taken]
            self._used += taken
            values = values[taken:]

    def _trim(self) -> None:
        if self._slabs:
            self._slabs[-1] = self._slabs[-1][: self._used]

    def concat(self) -> np.ndarray:
        self._trim()
        if not self._slabs:
            return np.empty(0, dtype=np.int32)
        return np.concatenate(self._slabs)


class IdNumbers:
    """Numbers distinct ids in the order in which they first appear, from 0.

    Ids are stored as integers as long as all of them are canonical integers ("7", not "007"). From
    the first other id on, all of them are stored as text.
    """

    def __init__(self) -> None:
        # A hash table with open addressing: row 0 holds the ids, row 1 their numbers.
        self._table = np.full((2, 1 << 10), EMPTY, dtype=np.int64)
        self._found = np.empty(1 << 9, dtype=np.int64)
        self._count = 0
        self._texts: dict[str, int] | None = None
        self._dtypes: set[np.dtype] = set()

    def number(self, ids: pd.Series) -> np.ndarray:
        """Return int32[n], the number of each id. An id that is new gets the next number.

        Args:
            ids: integers, text, or a categorical of text.
        """
        if ids.dtype.kind in "iu":
            self._dtypes.add(ids.dtype)
            return self._integers(ids.to_numpy().astype(np.int64, copy=False))
        if is_category(ids):
            codes = ids.cat.codes.to_numpy()
            distinct = ids.cat.categories
        else:
            # pandas' factorize is not used because it ends a text at its first NUL character.
            numbers_by_text: dict[str, int] = {}
            codes = np.array(
                [numbers_by_text.setdefault(text, len(numbers_by_text)) for text in ids],
                dtype=np.int32,
            )
            distinct = pd.Index(list(numbers_by_text), dtype=object)
        used = np.zeros(len(distinct), dtype=bool)
        used[codes] = True
        numbers = np.zeros(len(distinct), dtype=np.int32)
        numbers[used] = self._text(distinct[used])
        return numbers[codes]

    def _text(self, distinct: pd.Index) -> np.ndarray:
        if self._texts is None:
            numbers, fit = canonical_int64(distinct)
            if fit.all():
                self._dtypes.add(np.dtype(np.int64))
                return self._integers(numbers)
            self._texts = {str(number): code for code, number in enumerate(self._found[: self._count])}
        numbers_by_text = self._texts
        return np.array(
            [numbers_by_text.setdefault(text, len(numbers_by_text)) for text in distinct],
            dtype=np.int32,
        )

    def _integers(self, ids: np.ndarray) -> np.ndarray:
        if self._texts is not None:
            codes, distinct = pd.factorize(ids)
            return self._text(pd.Index(distinct.astype(str), dtype=object))[codes]
        numbers = np.empty(len(ids), dtype=np.int32)
        done = 0
        while True:
            done, self._count = _number_integers(ids, done, self._table, self._found, self._count, numbers)
            if done == len(ids):
                return numbers
            self._found = np.concatenate([self._found, np.empty_like(self._found)])
            self._table = np.full((2, 2 * self._table.shape[1]), EMPTY, dtype=np.int64)
            rehashed = np.empty(self._count, dtype=np.int32)
            _number_integers(self._found[: self._count].copy(), 0, self._table, self._found, 0, rehashed)

    def categories(self, numbers: np.ndarray) -> pd.Categorical:
        """Return the ids of all rows as a categorical whose categories are in ascending order.

        Args:
            numbers: int32[n], the number of the id of each row. The array is changed in place.
        """
        if self._texts is not None:
            ids = pd.Index(list(self._texts), dtype=object)
        else:
            dtype = np.dtype(np.int64)
            if self._dtypes:
                dtype = np.result_type(*self._dtypes)
            ids = pd.Index(self._found[: self._count].astype(dtype))
        order = ids.argsort()
        rank = np.empty(len(ids), dtype=np.int32)
        rank[order] = np.arange(len(ids), dtype=np.int32)
        _map_in_place(rank, numbers)
        return pd.Categorical.from_codes(numbers, categories=ids[order], validate=False)


def keep_rows(events: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Return the rows of a log for which ``rows``, bool[n], is True.

    Unlike the selection of pandas, it makes no index of eight bytes per row.
    """
    return pd.DataFrame({name: events[name].array[rows] for name in events}, copy=False)


def concat_logs(logs: list[pd.DataFrame]) -> pd.DataFrame:
    """Join several logs with the same columns to one log.

    Ids of different types are converted to one type by the rule of ``schema.unify_ids``.
    """
    columns: dict[str, Any] = {}
    for name in logs[0]:
        parts = [log[name] for log in logs]
        if name in SMALLEST:
            columns[name] = np.concatenate([part.to_numpy() for part in parts])
        else:
            columns[name] = _concat_ids(unify_ids(*parts))
    return pd.DataFrame(columns, copy=False)


def _concat_ids(parts: list[pd.Series]) -> pd.Categorical:
    ids = reduce(pd.Index.union, [part.cat.categories for part in parts])
    codes = [ids.get_indexer(part.cat.categories).astype(np.int32)[part.cat.codes] for part in parts]
    return pd.Categorical.from_codes(np.concatenate(codes), categories=ids, validate=False)


def widen_log(events: pd.DataFrame) -> pd.DataFrame:
    """Convert a compact log to a plain table, without categories.

    Ids become int64 (or the integer dtype of the categories) or text; values and times become
    float64.
    """
    columns = {name: events[name].to_numpy(np.float64 if name in SMALLEST else None) for name in events}
    return pd.DataFrame(columns, copy=False)


def _narrow(values: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        small = values.astype(dtype)
    if (small == values).all():
        return small
    return values


@njit(cache=True, nogil=True)
def _number_integers(
    ids: np.ndarray,
    start: int,
    table: np.ndarray,
    distinct: np.ndarray,
    n_distinct: int,
    numbers: np.ndarray,
) -> tuple[int, int]:
    """Give each id its number by means of a hash table, and write the numbers to ``numbers``.

    It starts at the row ``start`` and stops when there is no room for another distinct id. Return
    (first row without a number, number of distinct ids).

    Args:
        table: int64[2, slots], the id and the number of each slot.
        distinct: the ids in the order of their numbers; new ones are added.
        n_distinct: how many ids ``distinct`` has at the start.
    """
    mask = np.uint64(table.shape[1] - 1)
    for row in range(start, len(ids)):
        mixed = np.uint64(ids[row]) * np.uint64(0x9E3779B97F4A7C15)
        slot = (mixed ^ (mixed >> np.uint64(32))) & mask
        while table[1, slot] != EMPTY and table[0, slot] != ids[row]:
            slot = (slot + np.uint64(1)) & mask
        if table[1, slot] == EMPTY:
            if n_distinct == len(distinct):
                return row, n_distinct
            table[0, slot] = ids[row]
            table[1, slot] = n_distinct
            distinct[n_distinct] = ids[row]
            n_distinct += 1
        numbers[row] = table[1, slot]
    return len(ids), n_distinct


@njit(cache=True, nogil=True)
def _map_in_place(table: np.ndarray, values: np.ndarray) -> None:
    for row in range(len(values)):
        values[row] = table[values[row]]
