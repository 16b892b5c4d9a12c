"""Events in little memory: pieces go in, and a table comes out whose ids are numbered once and for all.

In the table an id is a category, at most int32 a row, with the categories in id order: what is asked of an id (its
hash, its row in another table) is asked once an id. ``value`` is float32 where every value of the log is exact in it,
else float64; ``timestamp`` is int32 where all are whole seconds before 2038, else float64. A hundred million events
take 1.6 GB. :func:`widen_log` gives the plain table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from recsys.schema import EVENT, ITEM, TIME, USER, VALUE, canonical_int64, is_category

SMALLEST = {VALUE: np.float32, TIME: np.int32}
EMPTY = -1
SLAB = 1 << 23


class Log:
    """Pieces of a log, each a frame that ``validate.check_events`` has passed, appended one after the other."""

    def __init__(self) -> None:
        self._ids: dict[str, IdNumbers] = {}
        self._columns: dict[str, _Column] = {}

    def append(self, piece: pd.DataFrame) -> None:
        """Add the rows of a piece; every piece has the same columns."""
        for name in piece:
            if name in SMALLEST:
                found = _shrink(piece[name].to_numpy(), SMALLEST[name])
            else:
                found = self._ids.setdefault(name, IdNumbers()).number(piece[name])
            self._columns.setdefault(name, _Column()).append(found)

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def table(self) -> pd.DataFrame:
        """Return all rows, and give up the pieces."""
        columns: dict[str, Any] = {}
        for name in (USER, ITEM, VALUE, TIME, EVENT):
            if name not in self._columns:
                continue
            found = self._columns.pop(name).whole()
            columns[name] = found if name in SMALLEST else self._ids.pop(name).categories(found)
        return pd.DataFrame(columns, copy=False)


class _Column:
    """Numbers that come in pieces, held in slabs large enough for the allocator to give them back to the system."""

    def __init__(self) -> None:
        self._slabs: list[np.ndarray] = []
        self._used = SLAB

    def append(self, values: np.ndarray) -> None:
        while len(values):
            if self._used == SLAB or self._slabs[-1].dtype != values.dtype:
                self._trim()
                self._slabs.append(np.empty(SLAB, dtype=values.dtype))
                self._used = 0
            fits = min(len(values), SLAB - self._used)
            self._slabs[-1][self._used : self._used + fits] = values[:fits]
            self._used += fits
            values = values[fits:]

    def _trim(self) -> None:
        if self._slabs:
            self._slabs[-1] = self._slabs[-1][: self._used]

    def whole(self) -> np.ndarray:
        self._trim()
        return np.concatenate(self._slabs) if self._slabs else np.empty(0)


class IdNumbers:
    """Distinct ids in the order met: integers as long as all are canonical integers, then text."""

    def __init__(self) -> None:
        self._table = np.full((2, 1 << 10), EMPTY, dtype=np.int64)  # open addressing: the id, its number
        self._found = np.empty(1 << 9, dtype=np.int64)
        self._count = 0
        self._texts: dict[str, int] | None = None
        self._dtypes: set[np.dtype] = set()

    def number(self, ids: pd.Series) -> np.ndarray:
        """Return int32[n], new numbers for new ids; ``ids``: integers, text or categories of text."""
        if ids.dtype.kind in "iu":
            self._dtypes.add(ids.dtype)
            return self._integers(ids.to_numpy().astype(np.int64, copy=False))
        if is_category(ids):
            codes, distinct = ids.cat.codes.to_numpy(), ids.cat.categories
        else:  # by hand: pandas' factorize takes text for ended at a NUL
            known: dict[str, int] = {}
            codes = np.array([known.setdefault(text, len(known)) for text in ids], dtype=np.int32)
            distinct = pd.Index(list(known), dtype=object)
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
            self._texts = {str(number): place for place, number in enumerate(self._found[: self._count])}
        known = self._texts
        return np.array([known.setdefault(text, len(known)) for text in distinct], dtype=np.int32)

    def _integers(self, ids: np.ndarray) -> np.ndarray:
        if self._texts is not None:
            codes, distinct = pd.factorize(ids)
            return self._text(pd.Index(distinct.astype(str), dtype=object))[codes]
        numbers, done = np.empty(len(ids), dtype=np.int32), 0
        while True:
            done, self._count = _number(ids, done, self._table, self._found, self._count, numbers)
            if done == len(ids):
                return numbers
            self._found = np.concatenate([self._found, np.empty_like(self._found)])
            self._table = np.full((2, 2 * self._table.shape[1]), EMPTY, dtype=np.int64)
            again = np.empty(self._count, dtype=np.int32)
            _number(self._found[: self._count].copy(), 0, self._table, self._found, 0, again)

    def categories(self, numbers: np.ndarray) -> pd.Categorical:
        """Return the ids of all rows as categories in id order; changes ``numbers``."""
        if self._texts is not None:
            ids = pd.Index(list(self._texts), dtype=object)
        else:
            dtype = np.result_type(*self._dtypes) if self._dtypes else np.dtype(np.int64)
            ids = pd.Index(self._found[: self._count].astype(dtype))
        order = ids.argsort()
        rank = np.empty(len(ids), dtype=np.int32)
        rank[order] = np.arange(len(ids), dtype=np.int32)
        _look_up(rank, numbers)
        return pd.Categorical.from_codes(numbers, categories=ids[order], validate=False)


def keep_rows(events: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Return the rows where bool[n] is true; unlike indexing, without an index of eight bytes a row."""
    return pd.DataFrame({name: events[name].array[rows] for name in events}, copy=False)


def widen_log(events: pd.DataFrame) -> pd.DataFrame:
    """Return the plain table: ids as int64 (or their own dtype) or text, values and times as float64."""
    columns = {name: events[name].to_numpy(np.float64 if name in SMALLEST else None) for name in events}
    return pd.DataFrame(columns, copy=False)


def _shrink(values: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        small = values.astype(dtype)
    return small if (small == values).all() else values


@njit(cache=True, nogil=True)
def _number(
    ids: np.ndarray, start: int, table: np.ndarray, found: np.ndarray, count: int, numbers: np.ndarray
) -> tuple[int, int]:
    """Fill ``numbers`` from row ``start``; return (the row that met a full table, or n; distinct ids so far)."""
    mask = np.uint64(table.shape[1] - 1)
    for row in range(start, len(ids)):
        mixed = np.uint64(ids[row]) * np.uint64(0x9E3779B97F4A7C15)
        place = (mixed ^ (mixed >> np.uint64(32))) & mask
        while table[1, place] != EMPTY and table[0, place] != ids[row]:
            place = (place + np.uint64(1)) & mask
        if table[1, place] == EMPTY:
            if count == len(found):
                return row, count
            table[0, place], table[1, place], found[count] = ids[row], count, ids[row]
            count += 1
        numbers[row] = table[1, place]
    return len(ids), count


@njit(cache=True, nogil=True)
def _look_up(table: np.ndarray, places: np.ndarray) -> None:
    for row in range(len(places)):
        places[row] = table[places[row]]
