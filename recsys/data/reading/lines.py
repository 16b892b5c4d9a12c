"""Split delimited text into fields, one block of bytes at a time, in compiled code.

The same rules apply to clean and to damaged files. They are the rules of Python's :mod:`csv` module
(RFC 4180, lenient). A quote opens a quoted field only at the start of the field. Two quotes inside
a quoted field are one quote. Text after the closing quote belongs to the field. A line ends with
LF, CRLF or CR.

The readers of pyarrow, Polars and DuckDB are not used, because one bad row makes them reject the
whole file, or they do not report the line and the text of that row. This reader refuses the one row
and gives its line number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
from numba import njit

BLOCK = 1 << 24
"""Number of bytes that are read at a time. A longer row is an error."""

LF, CR, QUOTE, PLUS, MINUS, POINT, ZERO, NINE = (ord(character) for character in '\n\r"+-.09')
BOM = b"\xef\xbb\xbf"
DONE, LONG, ODD = 0, 1, 2
LOWEST, EXACT = -(2**63), 2**53
POWERS = 10.0 ** np.arange(19)


@dataclass(frozen=True)
class RowBlock:
    """``n`` rows of text, split into fields.

    Attributes:
        data: uint8, the bytes of the rows.
        begins, ends: int32[selected columns, n], the positions in ``data`` of the first byte of
            each field and of the byte after its end. Quotes around a field are not part of it.
        rows: int32[n + 1], the position in ``data`` of the first byte of each row, and of the byte
            after the last row.
        lines: int64[n], the number of the first line of each row in the file, from 1.
        complete: bool[n], whether the row has as many fields as the file has columns.
        escaped: bool[n], whether the text of a selected field differs from its bytes in ``data``,
            because it has doubled quotes, or text after the closing quote.
        positions: the positions of the selected columns in the file, from 0.
        delimiter: the text between two fields.
    """

    data: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    rows: np.ndarray
    lines: np.ndarray
    complete: np.ndarray
    escaped: np.ndarray
    positions: list[int]
    delimiter: str

    def __len__(self) -> int:
        return len(self.lines)

    def row_fields(self, row: int) -> list[str]:
        """Return the text of all fields of one row, also of the columns that are not selected."""
        # Blank lines may follow the row, so all line ends are stripped.
        line = _text(self.data[self.rows[row] : self.rows[row + 1]]).rstrip("\r\n")
        return split_row(line, self.delimiter)

    def cell_text(self, column: int, row: int) -> str:
        """Return the text of one field. It is empty if the row does not have this field.

        Args:
            column: index of the column among the selected ones.
            row: index of the row in this block.
        """
        if self.escaped[row]:
            fields = self.row_fields(row)
            position = self.positions[column]
            if position >= len(fields):
                return ""
            return fields[position]
        return _text(self.data[self.begins[column, row] : self.ends[column, row]])

    def text_column(self, column: int) -> pd.Series:
        """Return a selected column as categories of text, so that each distinct text is stored
        once.
        """
        coded = self._packed(column, np.arange(len(self)), pa.binary()).dictionary_encode()
        codes = np.array(coded.indices)
        distinct = _decode_distinct(coded.dictionary)
        escaped = np.flatnonzero(self.escaped)
        if len(escaped):
            codes_by_text = {text: code for code, text in enumerate(distinct)}
            codes[escaped] = [
                codes_by_text.setdefault(self.cell_text(column, int(row)), len(codes_by_text)) for row in escaped
            ]
            distinct = np.array(list(codes_by_text), dtype=object)
        return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(distinct, dtype=object)))

    def integer_column(self, column: int) -> np.ndarray | None:
        """Return a selected column as int64[n], or None if it is not a column of integers.

        Every complete row must have a canonical integer ("7", not "007") that fits in 64 bits. Rows
        that are not complete have undefined values.
        """
        values = np.zeros(len(self), dtype=np.int64)
        usable = self.complete & ~self.escaped
        if (self.escaped & self.complete).any():
            return None
        all_canonical = _parse_integers(self.data, self.begins[column], self.ends[column], usable, values)
        if not all_canonical:
            return None
        return values

    def number_column(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Parse a selected column as numbers, and return the numbers and the rows that have none.

        The numbers are float64[n]. Each is the float64 that is nearest to the text. The second
        array has the rows, ascending, whose text is not a plain decimal number. Their number is
        NaN.
        """
        values = np.full(len(self), np.nan)
        state = np.zeros(len(self), dtype=np.uint8)
        _parse_numbers(self.data, self.begins[column], self.ends[column], self.escaped, values, state)
        long = np.flatnonzero(state == LONG)
        if len(long):
            try:
                values[long] = self._packed(column, long, pa.string()).cast(pa.float64()).to_numpy()
            except pa.ArrowInvalid:
                state[long] = ODD
        return values, np.flatnonzero(state == ODD)

    def _packed(self, column: int, rows: np.ndarray, kind: pa.DataType) -> pa.Array:
        begins = self.begins[column, rows]
        ends = self.ends[column, rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum(ends - begins, out=offsets[1:])
        packed = np.empty(offsets[-1], dtype=np.uint8)
        _copy_fields(self.data, begins, offsets, packed)
        return pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(packed)])


def split_row(row: str, delimiter: str) -> list[str]:
    """Return the fields of one row of text, by the same rules as the compiled reader.

    If a quote is never closed, its field ends at the end of the row (see :func:`has_open_quote`).

    Args:
        row: the row without its line end.
    """
    fields = []
    position = 0
    while True:
        text = ""
        if row.startswith('"', position):
            text, position = _quoted_text(row, position + 1)
        end = row.find(delimiter, position)
        if end < 0:
            fields.append(text + row[position:])
            return fields
        fields.append(text + row[position:end])
        position = end + len(delimiter)


def has_open_quote(row: str, delimiter: str) -> bool:
    """Return whether the last field of a row opens a quote and does not close it."""
    position = 0
    while position <= len(row):
        if row.startswith('"', position):
            _, position = _quoted_text(row, position + 1)
            if position > len(row):
                return True
        end = row.find(delimiter, position)
        if end < 0:
            return False
        position = end + len(delimiter)
    return False


def _quoted_text(row: str, start: int) -> tuple[str, int]:
    """Return the text of a quoted field, and the position in the row after its closing quote.

    If there is no closing quote, the position is ``len(row) + 1``.

    Args:
        start: the position after the opening quote.
    """
    pieces = []
    while True:
        quote = row.find('"', start)
        if quote < 0:
            pieces.append(row[start:])
            return "".join(pieces), len(row) + 1
        pieces.append(row[start:quote])
        if not row.startswith('""', quote):
            return "".join(pieces), quote + 1
        pieces.append('"')
        start = quote + 2


class EndlessRowError(Exception):
    """An error that is raised if the end of a row is not found.

    Attributes:
        line: number of the first line of the row, from 1.
        problem: what is wrong, as a sentence without a full stop.
    """

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(line, problem)
        self.line = line
        self.problem = problem


def read_row_blocks(
    stream: BinaryIO, delimiter: str, columns: int, positions: list[int], skip: int
) -> Iterator[RowBlock]:
    """Yield the rows of a UTF-8 stream in blocks, without blank rows.

    Args:
        delimiter: one or more characters, none of them a quote or a line end.
        columns: the number of columns of the file.
        positions: positions of the selected columns, from 0.
        skip: number of rows to leave out at the start, such as a header.

    Raises:
        EndlessRowError: an open quote makes the rest of the file one row, or a row is longer than a
            block.
    """
    slots = np.full(columns, -1, dtype=np.int32)
    slots[positions] = np.arange(len(positions), dtype=np.int32)
    # A tuple, so that each length of a delimiter gets compiled code of its own, and one byte the fastest.
    separator = tuple(delimiter.encode())
    rest = b""
    line = 1
    final = False
    while not final:
        piece = stream.read(BLOCK)
        final = not piece
        start = 0
        if line == 1 and not rest and piece.startswith(BOM):
            start = len(BOM)
        data = np.frombuffer(rest + piece[start:], dtype=np.uint8)
        most = int(np.count_nonzero(data == LF) + np.count_nonzero(data == CR)) + 1
        begins, ends = (np.zeros((len(positions), most), dtype=np.int32) for _ in range(2))
        rows = np.zeros(most + 1, np.int32)
        lines = np.zeros(most, np.int64)
        flags = np.zeros((2, most), np.bool_)
        n, used, line = _tokenise(data, final, separator, slots, line, begins, ends, rows, lines, flags)
        if final and used < len(data):
            raise EndlessRowError(line, "a quote is opened here and never closed")
        if len(data) - used > BLOCK:
            raise EndlessRowError(line, f"a row of more than {BLOCK >> 20} MiB begins here")
        first = min(skip, n)
        skip -= first
        if n > first:
            of_rows = (rows[first : n + 1], lines[first:n], flags[0, first:n], flags[1, first:n])
            yield RowBlock(data, begins[:, first:n], ends[:, first:n], *of_rows, positions, delimiter)
        rest = data[used:].tobytes()


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _text(part: np.ndarray) -> str:
    return _decode(part.tobytes())


def _decode_distinct(texts: pa.Array) -> np.ndarray:
    try:
        return texts.cast(pa.string()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return np.array([_decode(text) for text in texts.to_pylist()], dtype=object)


@njit(cache=True, nogil=True)
def _tokenise(
    data: np.ndarray,
    final: bool,
    delimiter: tuple[int, ...],
    slots: np.ndarray,
    line: int,
    begins: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    lines: np.ndarray,
    flags: np.ndarray,
) -> tuple[int, int, int]:
    """Find the fields of each row that ends in ``data``, and write their positions to the arrays.

    Return (number of rows, number of bytes in these rows, line number of the next row).

    Args:
        final: whether the file ends with ``data``.
        delimiter: the bytes of the delimiter.
        slots: int32[columns], the index of each column of the file among the selected columns, or
            -1.
        line: the line number of the first byte.
        begins, ends, rows, lines: the arrays of :class:`RowBlock`, which are filled.
        flags: bool[2, rows]. Its rows become ``complete`` and ``escaped`` of :class:`RowBlock`.
    """
    n = 0
    byte = 0
    size = len(data)
    # A delimiter holds no line end, so its first byte tells where a field ends.
    first = delimiter[0]
    width = len(delimiter)
    while byte < size:
        rows[n] = byte
        lines[n] = line
        blank = data[byte] == LF or data[byte] == CR
        field = 0
        while not blank:
            begin, end, byte, escaped, line_ends = _scan_field(data, byte, final, first, width, delimiter)
            if byte < 0:
                return n, rows[n], lines[n]
            line += line_ends
            if field < len(slots) and slots[field] >= 0:
                begins[slots[field], n] = begin
                ends[slots[field], n] = end
                flags[1, n] |= escaped
            field += 1
            if byte == size or data[byte] != first:
                break
            byte += width
        if byte < size:
            # Whether an LF follows this CR is known only when the next block is read.
            if data[byte] == CR and byte + 1 == size and not final:
                return n, rows[n], lines[n]
            if data[byte] == CR and byte + 1 < size and data[byte + 1] == LF:
                byte += 1
            byte += 1
        line += 1
        if not blank:
            flags[0, n] = field == len(slots)
            n += 1
    rows[n] = byte
    return n, byte, line


@njit(cache=True, nogil=True, inline="always")
def _scan_field(
    data: np.ndarray, byte: int, final: bool, first: int, width: int, delimiter: tuple[int, ...]
) -> tuple[int, int, int, bool, int]:
    """Find the end of the field that begins at ``byte``, and return five facts about the field.

    They are: the position of the first byte of its text, the position after its text, the position
    of the delimiter or line end after the field, whether it is ``escaped`` (see :class:`RowBlock`),
    and the number of line ends inside. If the data end before the field does, the third value is
    -1.

    Args:
        final: whether the file ends with ``data``.
        first, width: the first byte and the number of bytes of the delimiter.
    """
    size = len(data)
    escaped = False
    line_ends = 0
    begin = end = byte
    quoted = byte < size and data[byte] == QUOTE
    if quoted:
        begin = end = byte = byte + 1
        while byte < size:
            if data[byte] == QUOTE:
                if byte + 1 == size or data[byte + 1] != QUOTE:
                    break
                escaped = True
                byte += 1
            elif data[byte] == LF or (data[byte] == CR and (byte + 1 == size or data[byte + 1] != LF)):
                line_ends += 1
            byte += 1
        if byte == size:
            return begin, byte, -1, escaped, line_ends
        end = byte
        byte += 1
    after_quote = byte
    while byte < size and data[byte] != first and data[byte] != LF and data[byte] != CR:
        byte += 1
    # The first byte of a longer delimiter may also be one of the field.
    while width > 1 and byte < size and data[byte] == first and not _is_delimiter(data, byte, delimiter):
        byte += 1
        while byte < size and data[byte] != first and data[byte] != LF and data[byte] != CR:
            byte += 1
    if byte == size and not final:
        return begin, byte, -1, escaped, line_ends
    return (
        begin,
        end if quoted else byte,
        byte,
        escaped or (quoted and byte > after_quote),
        line_ends,
    )


@njit(cache=True, nogil=True)
def _is_delimiter(data: np.ndarray, byte: int, delimiter: tuple[int, ...]) -> bool:
    """Return whether the delimiter begins at the position ``byte`` of ``data``.

    The caller has already compared the first byte. The result is False if the data end within the
    delimiter. The caller then scans the field again, together with the next block.
    """
    if byte + len(delimiter) > len(data):
        return False
    is_equal = True
    for position in range(1, len(delimiter)):
        is_equal &= data[byte + position] == delimiter[position]
    return is_equal


@njit(cache=True, nogil=True)
def _copy_fields(data: np.ndarray, begins: np.ndarray, offsets: np.ndarray, packed: np.ndarray) -> None:
    for row in range(len(begins)):
        for position in range(offsets[row + 1] - offsets[row]):
            packed[offsets[row] + position] = data[begins[row] + position]


@njit(cache=True, nogil=True)
def _parse_integers(
    data: np.ndarray, begins: np.ndarray, ends: np.ndarray, usable: np.ndarray, values: np.ndarray
) -> bool:
    """Parse integers into ``values``, int64[n], and return whether every usable row has an integer.

    The text must be a canonical integer ("7", not "007") that fits in 64 bits. The function stops
    at the first row with any other text.

    Args:
        begins, ends: int32[n], where the text of each row begins and ends in ``data``.
        usable: bool[n], the rows to parse.
    """
    for row in range(len(begins)):
        begin = begins[row]
        end = ends[row]
        if not usable[row]:
            continue
        negative = end > begin and data[begin] == MINUS
        first = begin + negative
        if first == end or end - first > 19 or (data[first] == ZERO and (negative or end - first > 1)):
            return False
        # The value is built below zero, where int64 has room for one more number.
        value = 0
        for position in range(first, end):
            digit = np.int64(data[position]) - ZERO
            if digit < 0 or digit > 9 or value < LOWEST // 10 + 1 or (value == LOWEST // 10 + 1 and digit > 8):
                return False
            value = value * 10 - digit  # type: ignore[assignment]
        if not negative and value == LOWEST:
            return False
        # Digits are summed with a minus sign, because −2⁶³ is an int64 and 2⁶³ is not.
        if negative:
            values[row] = value
        else:
            values[row] = -value
    return True


@njit(cache=True, nogil=True)
def _parse_numbers(
    data: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    escaped: np.ndarray,
    values: np.ndarray,
    state: np.ndarray,
) -> None:
    """Parse simple numbers into ``values``, float64[n], and classify the text of each row in
    ``state``.

    A number is simple if its digits, read as one integer, are exact in float64. Its value is then
    this integer divided by a power of ten, which is correctly rounded. ``state``, uint8[n], becomes
    DONE for simple numbers, LONG for other numbers, which the caller must parse, and ODD for text
    that is not a plain decimal number.
    """
    for row in range(len(begins)):
        state[row] = ODD
        byte = begins[row]
        end = ends[row]
        if escaped[row] or byte == end:
            continue
        negative = data[byte] == MINUS
        byte += negative or data[byte] == PLUS
        mantissa = 0
        digits = 0
        decimals = 0
        point = False
        while byte < end and (ZERO <= data[byte] <= NINE or (data[byte] == POINT and not point)):
            if data[byte] == POINT:
                point = True
            else:
                digits += 1
                decimals += point
                if digits <= 18:
                    mantissa = mantissa * 10 + (np.int64(data[byte]) - ZERO)  # type: ignore[assignment]
            byte += 1
        if digits and byte == end:
            if digits <= 18 and mantissa <= EXACT:
                state[row] = DONE
                values[row] = (-1.0 if negative else 1.0) * mantissa / POWERS[decimals]
            else:
                state[row] = LONG
        elif digits and (data[byte] == 101 or data[byte] == 69):  # e or E
            byte += 1
            byte += byte < end and (data[byte] == MINUS or data[byte] == PLUS)
            least = byte
            while byte < end and ZERO <= data[byte] <= NINE:
                byte += 1
            if byte == end and byte > least:
                state[row] = LONG
