"""Delimited text -> fields, a block of bytes at a time: compiled, because everything a user brings passes here.

One state machine reads every file, clean or not. It is that of Python's :mod:`csv` (RFC 4180, forgiving): a quote
opens a field only at its beginning, two quotes inside are one, what follows the closing quote belongs to the field,
and a line ends with LF, CRLF or CR. It was chosen over pyarrow's, Polars' and DuckDB's readers because those drop
the whole file, or the row's line and text, where we refuse one row with its place.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
from numba import njit

BLOCK = 1 << 24
"""Bytes read at a time, and the most that one row may have."""

LF, CR, QUOTE, PLUS, MINUS, POINT, ZERO, NINE = (ord(character) for character in '\n\r"+-.09')
BOM = b"\xef\xbb\xbf"
DONE, LONG, ODD = 0, 1, 2
LOWEST, EXACT = -(2**63), 2**53
POWERS = 10.0 ** np.arange(19)


@dataclass(frozen=True)
class RowBlock:
    """``n`` rows of text as found.

    ``begins``, ``ends``: int32[columns asked for, n] where each field lies in ``data``, without its quotes.
    ``rows``: int32[n + 1] where each row begins. ``lines``: int64[n] its first line in the file, from 1.
    ``whole``: bool[n], the row has as many fields as there are columns. ``twisted``: bool[n], a field asked for is
    not simply the bytes between its ends (quotes doubled, or text behind the closing quote).
    """

    data: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    rows: np.ndarray
    lines: np.ndarray
    whole: np.ndarray
    twisted: np.ndarray
    places: list[int]
    delimiter: str

    def __len__(self) -> int:
        return len(self.lines)

    def fields(self, row: int) -> list[str]:
        """Return the fields of a row."""
        text = _text(self.data[self.rows[row] : self.rows[row + 1]]).rstrip("\r\n")  # blank lines may follow it
        return next(csv.reader([text], delimiter=self.delimiter))

    def cell(self, column: int, row: int) -> str:
        """Return the text of a field; empty where the row has no such field."""
        if self.twisted[row]:
            fields, place = self.fields(row), self.places[column]
            return fields[place] if place < len(fields) else ""
        return _text(self.data[self.begins[column, row] : self.ends[column, row]])

    def text(self, column: int) -> pd.Series:
        """Return a column as text: categories, so that each distinct text is held once."""
        coded = self._packed(column, np.arange(len(self)), pa.binary()).dictionary_encode()
        codes, distinct = np.array(coded.indices), _decoded(coded.dictionary)
        twisted = np.flatnonzero(self.twisted)
        if len(twisted):
            known = {text: code for code, text in enumerate(distinct)}
            codes[twisted] = [known.setdefault(self.cell(column, int(row)), len(known)) for row in twisted]
            distinct = np.array(list(known), dtype=object)
        return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(distinct, dtype=object)))

    def integers(self, column: int) -> np.ndarray | None:
        """Return int64[n] when every whole row has a canonical integer here ("7", not "007"), else None."""
        found = np.zeros(len(self), dtype=np.int64)
        usable = self.whole & ~self.twisted
        if (self.twisted & self.whole).any():
            return None
        fits = _integers(self.data, self.begins[column], self.ends[column], usable, found)
        return found if fits else None

    def numbers(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (float64[n], the rows whose text needs a closer look); every other number is correctly rounded."""
        found = np.full(len(self), np.nan)
        state = np.zeros(len(self), dtype=np.uint8)
        _numbers(self.data, self.begins[column], self.ends[column], self.twisted, found, state)
        long = np.flatnonzero(state == LONG)
        if len(long):
            try:
                found[long] = self._packed(column, long, pa.string()).cast(pa.float64()).to_numpy()
            except pa.ArrowInvalid:
                state[long] = ODD
        return found, np.flatnonzero(state == ODD)

    def _packed(self, column: int, rows: np.ndarray, kind: pa.DataType) -> pa.Array:
        begins, ends = self.begins[column, rows], self.ends[column, rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum(ends - begins, out=offsets[1:])
        packed = np.empty(offsets[-1], dtype=np.uint8)
        _pack(self.data, begins, offsets, packed)
        return pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(packed)])


class EndlessRowError(Exception):
    """``line``: where the row begins. ``why``: it has no end."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(line, why)
        self.line, self.why = line, why


def read_row_blocks(stream: BinaryIO, delimiter: str, columns: int, places: list[int], skip: int) -> Iterator[RowBlock]:
    """Yield the rows of a UTF-8 stream behind the first ``skip``, without blank ones.

    Args:
        places: positions of the columns asked for, of all ``columns``.

    Raises:
        EndlessRowError: the quotes make one row of the rest of the file, or a row is longer than a block.
    """
    slots = np.full(columns, -1, dtype=np.int32)
    slots[places] = np.arange(len(places), dtype=np.int32)
    rest, line, final = b"", 1, False
    while not final:
        piece = stream.read(BLOCK)
        final = not piece
        start = len(BOM) if line == 1 and not rest and piece.startswith(BOM) else 0
        data = np.frombuffer(rest + piece[start:], dtype=np.uint8)
        most = int(np.count_nonzero(data == LF) + np.count_nonzero(data == CR)) + 1
        begins, ends = (np.zeros((len(places), most), dtype=np.int32) for _ in range(2))
        rows, lines, flags = np.zeros(most + 1, np.int32), np.zeros(most, np.int64), np.zeros((2, most), np.bool_)
        n, used, line = _tokenise(data, final, ord(delimiter), slots, line, begins, ends, rows, lines, flags)
        if final and used < len(data):
            raise EndlessRowError(line, "a quote is opened here and never closed")
        if len(data) - used > BLOCK:
            raise EndlessRowError(line, f"a row of more than {BLOCK >> 20} MiB begins here")
        first = min(skip, n)
        skip -= first
        if n > first:
            of_rows = (rows[first : n + 1], lines[first:n], flags[0, first:n], flags[1, first:n])
            yield RowBlock(data, begins[:, first:n], ends[:, first:n], *of_rows, places, delimiter)
        rest = data[used:].tobytes()


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _text(part: np.ndarray) -> str:
    return _decode(part.tobytes())


def _decoded(texts: pa.Array) -> np.ndarray:
    try:
        return texts.cast(pa.string()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return np.array([_decode(text) for text in texts.to_pylist()], dtype=object)


@njit(cache=True, nogil=True)
def _tokenise(
    data: np.ndarray,
    final: bool,
    delimiter: int,
    slots: np.ndarray,
    line: int,
    begins: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    lines: np.ndarray,
    flags: np.ndarray,
) -> tuple[int, int, int]:
    """Fill the places of the fields of each row that ends here; return (rows, bytes used, line of the next row)."""
    n, at, size = 0, 0, len(data)
    while at < size:
        rows[n], lines[n] = at, line
        blank, field = data[at] == LF or data[at] == CR, 0
        while not blank:
            begin, end, at, twisted, broken = _field(data, at, final, delimiter)
            if at < 0:
                return n, rows[n], lines[n]
            line += broken
            if field < len(slots) and slots[field] >= 0:
                begins[slots[field], n], ends[slots[field], n] = begin, end
                flags[1, n] |= twisted
            field += 1
            if at == size or data[at] != delimiter:
                break
            at += 1
        if at < size:
            if data[at] == CR and at + 1 == size and not final:  # is there an LF behind it?
                return n, rows[n], lines[n]
            at += 2 if data[at] == CR and at + 1 < size and data[at + 1] == LF else 1
        line += 1
        if not blank:
            flags[0, n] = field == len(slots)
            n += 1
    rows[n] = at
    return n, at, line


@njit(cache=True, nogil=True, inline="always")
def _field(data: np.ndarray, at: int, final: bool, delimiter: int) -> tuple[int, int, int, bool, int]:
    """Return (begin, end, the delimiter or line end behind it, twisted, line ends inside) of the field at ``at``.

    The third is -1 when the data end before the field does.
    """
    size, twisted, broken = len(data), False, 0
    begin = end = at
    quoted = at < size and data[at] == QUOTE
    if quoted:
        begin = end = at = at + 1
        while at < size:
            if data[at] == QUOTE:
                if at + 1 == size or data[at + 1] != QUOTE:
                    break
                twisted = True
                at += 1
            elif data[at] == LF or (data[at] == CR and (at + 1 == size or data[at + 1] != LF)):
                broken += 1
            at += 1
        if at == size:
            return begin, at, -1, twisted, broken
        end = at
        at += 1
    behind = at
    while at < size and data[at] != delimiter and data[at] != LF and data[at] != CR:
        at += 1
    if at == size and not final:
        return begin, at, -1, twisted, broken
    return begin, end if quoted else at, at, twisted or (quoted and at > behind), broken


@njit(cache=True, nogil=True)
def _pack(data: np.ndarray, begins: np.ndarray, offsets: np.ndarray, packed: np.ndarray) -> None:
    for row in range(len(begins)):
        for place in range(offsets[row + 1] - offsets[row]):
            packed[offsets[row] + place] = data[begins[row] + place]


@njit(cache=True, nogil=True)
def _integers(data: np.ndarray, begins: np.ndarray, ends: np.ndarray, usable: np.ndarray, found: np.ndarray) -> bool:
    """Fill ``found``; return whether each usable row is canonical and fits in 64 bits."""
    for row in range(len(begins)):
        begin, end = begins[row], ends[row]
        if not usable[row]:
            continue
        negative = end > begin and data[begin] == MINUS
        first = begin + negative
        if first == end or end - first > 19 or (data[first] == ZERO and (negative or end - first > 1)):
            return False
        value = 0  # below zero, where there is room for one more
        for place in range(first, end):
            digit = np.int64(data[place]) - ZERO
            if digit < 0 or digit > 9 or value < LOWEST // 10 + 1 or (value == LOWEST // 10 + 1 and digit > 8):
                return False
            value = value * 10 - digit  # type: ignore[assignment]
        if not negative and value == LOWEST:
            return False
        found[row] = value if negative else -value
    return True


@njit(cache=True, nogil=True)
def _numbers(
    data: np.ndarray, begins: np.ndarray, ends: np.ndarray, twisted: np.ndarray, found: np.ndarray, state: np.ndarray
) -> None:
    """Fill ``found`` where the digits, taken as one whole number, are exact in float64: one division rounds once.

    ``state``: DONE; LONG, a number that is not so simple; ODD, something else.
    """
    for row in range(len(begins)):
        state[row] = ODD
        at, end = begins[row], ends[row]
        if twisted[row] or at == end:
            continue
        negative = data[at] == MINUS
        at += negative or data[at] == PLUS
        whole, digits, decimals, point = 0, 0, 0, False
        while at < end and (ZERO <= data[at] <= NINE or (data[at] == POINT and not point)):
            if data[at] == POINT:
                point = True
            else:
                digits += 1
                decimals += point
                if digits <= 18:
                    whole = whole * 10 + (np.int64(data[at]) - ZERO)  # type: ignore[assignment]
            at += 1
        if digits and at == end:
            if digits <= 18 and whole <= EXACT:
                state[row] = DONE
                found[row] = (-1.0 if negative else 1.0) * whole / POWERS[decimals]
            else:
                state[row] = LONG
        elif digits and (data[at] == 101 or data[at] == 69):  # e or E
            at += 1
            at += at < end and (data[at] == MINUS or data[at] == PLUS)
            least = at
            while at < end and ZERO <= data[at] <= NINE:
                at += 1
            if at == end and at > least:
                state[row] = LONG
