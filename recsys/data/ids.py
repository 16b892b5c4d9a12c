"""Describe the ids of a log: busy items, items without a row, and similar spellings.

Similar spellings, such as "a1" and "A01", are probably two ids of one thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from recsys.schema import ITEM, TITLE, USER

MAX_SHOWN = 5
"""The largest number of items, or of groups of spellings, that are named."""

_WHOLE_NUMBER = re.compile(r"(-?)0*(\d+)(?:\.0*)?")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_BLANKS = re.compile(r"\s+")


def normal_spelling(name: str) -> str:
    """Return a normalised form of a name, which different spellings of the name have in common.

    Case is folded. Blanks at the ends are removed, and others become one space. Leading zeros of
    numbers are removed, and ``.0`` at the end if the whole name is a number.

    >>> normal_spelling(" 017850.0 "), normal_spelling("Film  07")
    ('17850', 'film 7')
    """
    text = _BLANKS.sub(" ", name.strip().casefold())
    if number := _WHOLE_NUMBER.fullmatch(text):
        return number[1] + number[2]
    return _LEADING_ZEROS.sub("", text)


def describe_ids(log: pd.DataFrame, items: pd.DataFrame | None) -> dict[str, Any]:
    """Return facts about the ids of a log as a dict for JSON.

    Its keys:

    * ``most_events``: ``id (title)`` -> number of events, for the :data:`MAX_SHOWN` items with the
      most events, the most first. Items with equal numbers are in the order of their ids.
    * ``items_without_row``: a dict, only with an items table. ``items`` is the number of items of
      the log that the items table lacks. ``share_of_events`` is the share of all events on them, in
      [0, 1]. ``such_as`` has the ids of those with the most events.
    * ``similar_users``, ``similar_items``: a dict each. ``groups`` is the number of groups that
      :func:`find_similar` returns. ``such_as`` has the first groups, such as ``"'a1' = 'A1'"``.

    Args:
        log: the accepted events, at least one; ``user_id`` and ``item_id`` are categorical.
        items: the items table, or None.
    """
    counts = np.bincount(log[ITEM].cat.codes.to_numpy(), minlength=len(log[ITEM].cat.categories))
    ids = log[ITEM].cat.categories.to_numpy()
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    titles: dict[Any, str] = {}
    if items is not None and TITLE in items:
        titles = dict(zip(items[ITEM], items[TITLE].fillna("").astype(str), strict=True))
    described: dict[str, Any] = {
        "most_events": {_with_title(ids[row], titles): int(counts[row]) for row in order[:MAX_SHOWN]}
    }
    if items is not None:
        missing = order[~np.isin(ids[order].astype(str), items[ITEM].astype(str))]
        described["items_without_row"] = {
            "items": len(missing),
            "share_of_events": float(counts[missing].sum() / len(log)),
            "such_as": [str(item) for item in ids[missing[:MAX_SHOWN]]],
        }
    for name, column in (("similar_users", USER), ("similar_items", ITEM)):
        groups = find_similar(log[column].cat.categories)
        described[name] = {"groups": len(groups), "such_as": [" = ".join(group) for group in groups[:MAX_SHOWN]]}
    return described


def find_similar(ids: Iterable[Any]) -> list[list[str]]:
    """Return the groups of ids that have the same :func:`normal_spelling`.

    Each group has at least two ids, as Python literals in quotation marks, so that blanks are
    visible. Groups and ids are in the given order. The result is empty if an id is not text,
    because an integer has only one spelling.

    >>> find_similar(["a1", "b", "A01"])
    [["'a1'", "'A01'"]]
    """
    groups: dict[str, list[str]] = {}
    for name in ids:
        if not isinstance(name, str):
            return []
        groups.setdefault(normal_spelling(name), []).append(repr(name))
    return [group for group in groups.values() if len(group) > 1]


def _with_title(item: Any, titles: dict[Any, str]) -> str:
    title = titles.get(item)
    if title:
        return f"{item} ({title})"
    return str(item)
