"""Read one ranked list of ids from a text file or a CSV file.

A text file has one id per line, best first. Tied ids are on one line, separated by tabs. The first
line may be the header ``item_id``. A CSV file has the header ``item_id,score``. Ids are text: "007"
is not "7". Lines end at a line feed, and at no other character.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from recsys.errors import InputError
from recsys.schema import ITEM, SCORE


def read_list(path: str | Path) -> list[list[str]] | dict[str, float]:
    """Return the ranked list in a text file or a CSV file.

    A text file gives groups of tied ids, best first. A CSV file gives id -> score. A file is CSV if
    its name ends with ``.csv`` or its first line has a comma, unless this line is ``item_id``.
    Blanks around an id are removed.

    Raises:
        InputError: the file does not exist; is not UTF-8; is empty; is CSV with other columns than
            ``item_id`` and ``score``, or with another number of fields in a row; has an empty id or
            an id twice; or has a score that cannot be read as a number.
    """
    path = Path(path)
    text = _read_text(path)
    lines = split_lines(text)
    header = 1 if lines[0].strip() == ITEM else 0
    if not any(line.strip() for line in lines[header:]):
        raise InputError(f"{path}: no ids: the file is empty.")
    if not header and (path.suffix.lower() == ".csv" or "," in lines[0]):
        return _parse_scores(path, text)
    return _parse_groups(path, lines, header)


def read_id_lines(path: str | Path) -> list[str]:
    """Return the ids in a file with one id per line.

    Blank lines, and blanks around an id, are removed. An id that occurs twice is returned twice.
    The result is empty for an empty file.

    Raises:
        InputError: the file does not exist, or is not UTF-8.
    """
    return [line.strip() for line in split_lines(_read_text(Path(path))) if line.strip()]


def split_lines(text: str) -> list[str]:
    r"""Return the lines of a text without their ends, LF or CRLF.

    No other character ends a line. After the last line end there is one more line, which may be
    empty.

    >>> split_lines("a\r\nb\n")
    ['a', 'b', '']
    """
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror or error}. Give a file with one id per line."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: cannot be read: it is not UTF-8 text. Save it as UTF-8.") from None


def _parse_groups(path: Path, lines: list[str], header: int) -> list[list[str]]:
    """Return the groups of tied ids in the lines after the first ``header`` lines."""
    groups: list[list[str]] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines[header:], start=header + 1):
        group = [item.strip(" ") for item in line.split("\t") if item.strip()]
        for item in group:
            _record_id(path, item, number, seen)
        if group:
            groups.append(group)
    return groups


def _parse_scores(path: Path, text: str) -> dict[str, float]:
    rows = csv.reader(io.StringIO(text, newline=""))
    head = [column.strip() for column in next(rows)]
    if sorted(head) != sorted((ITEM, SCORE)):
        raise InputError(
            f"{path}: the columns are {', '.join(head)}; a list in CSV has item_id,score and nothing else. "
            "(Without scores: one id per line, no comma in the first line.)"
        )
    item_column = head.index(ITEM)
    score_column = head.index(SCORE)
    scores: dict[str, float] = {}
    seen: dict[str, int] = {}
    for row in rows:
        if not row:
            continue
        if len(row) != len(head):
            raise InputError(f"{path}, line {rows.line_num}: {len(row)} fields, but the header has {len(head)}.")
        item = row[item_column].strip(" ")
        _record_id(path, item, rows.line_num, seen)
        try:
            scores[item] = float(row[score_column])
        except ValueError:
            raise InputError(
                f"{path}, line {rows.line_num}: the score {row[score_column]!r} is not a number."
            ) from None
    if not scores:
        raise InputError(f"{path}: no ids: the file has nothing but a header.")
    return scores


def _record_id(path: Path, item: str, line: int, seen: dict[str, int]) -> None:
    if not item:
        raise InputError(f"{path}, line {line}: the id is empty.")
    if item in seen:
        raise InputError(f"{path}, line {line}: {item!r} is on line {seen[item]} already: keep only its best place.")
    seen[item] = line
