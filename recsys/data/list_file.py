"""One ranked list in a file: one id a line, best first, ids on one line separated by tabs being tied; or CSV.

A CSV has the header ``item_id,score``. Ids are text: "007" is not "7".
"""

from __future__ import annotations

import csv
from pathlib import Path

from recsys.errors import InputError
from recsys.schema import ITEM, SCORE


def read_list(path: str | Path) -> list[list[str]] | dict[str, float]:
    """Return groups of ids, best first, or id -> score.

    Raises:
        InputError: no such file, not UTF-8, empty, another header, an id twice, or a score that is no number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}: give a file of one id a line.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text: save it as UTF-8.") from None
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        raise InputError(f"{path}: no ids: the file is empty.")
    return _scores(path, lines) if path.suffix.lower() == ".csv" or "," in lines[0] else _groups(path, lines)


def _groups(path: Path, lines: list[str]) -> list[list[str]]:
    groups: list[list[str]] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        group = [item.strip() for item in line.split("\t") if item.strip()]
        for item in group:
            _once(path, item, number, seen)
        if group:
            groups.append(group)
    return groups


def _scores(path: Path, lines: list[str]) -> dict[str, float]:
    rows = csv.reader(lines)
    head = [column.strip() for column in next(rows)]
    if sorted(head) != sorted((ITEM, SCORE)):
        raise InputError(
            f"{path}: the columns are {', '.join(head)}; a list in CSV has item_id,score and nothing else. "
            "(Without scores: one id a line, no comma in the first.)"
        )
    at_item, at_score = head.index(ITEM), head.index(SCORE)
    scores: dict[str, float] = {}
    seen: dict[str, int] = {}
    for row in rows:
        if not row:
            continue
        if len(row) != len(head):
            raise InputError(f"{path}, line {rows.line_num}: {len(row)} fields, but the header has {len(head)}.")
        item = row[at_item].strip()
        _once(path, item, rows.line_num, seen)
        try:
            scores[item] = float(row[at_score])
        except ValueError:
            raise InputError(f"{path}, line {rows.line_num}: the score {row[at_score]!r} is no number.") from None
    return scores


def _once(path: Path, item: str, line: int, seen: dict[str, int]) -> None:
    if not item:
        raise InputError(f"{path}, line {line}: the id is empty.")
    if item in seen:
        raise InputError(
            f"{path}, line {line}: {item!r} stands on line {seen[item]} already: keep its best place only."
        )
    seen[item] = line
