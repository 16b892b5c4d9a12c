"""What the ids of a log look like: the items with the most events, items without a row in the items
table, and ids that are probably two spellings of one thing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from recsys.schema import ITEM, TITLE, USER

MAX_SHOWN = 5
"""Largest number of items or spellings that are named."""

_WHOLE_NUMBER = re.compile(r"(-?)0*(\d+)(?:\.0*)?")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_BLANKS = re.compile(r"\s+")


def normal_spelling(name: str) -> str:
    """Return a form that different spellings of one name have in common.

    Spellings differ in case, in blanks, in leading zeros, and in ``.0`` at the end of a number.

    >>> normal_spelling(" 017850.0 "), normal_spelling("Film  07")
    ('17850', 'film 7')
    """
    text = _BLANKS.sub(" ", name.strip().casefold())
    if number := _WHOLE_NUMBER.fullmatch(text):
        return number[1] + number[2]
    return _LEADING_ZEROS.sub("", text)


def describe_ids(log: pd.DataFrame, items: pd.DataFrame | None) -> dict[str, Any]:
    """Describe the ids of a log, and return plain values for JSON.

    Keys of the result:

    * ``most_events``: the items with the most events, the most first, as ``id (title)`` -> number of
      events. Items with equal numbers are in the order of their ids;
    * ``items_without_row``: only with an items table. ``items``, how many items of the log the items
      table lacks; ``share_of_events``, the share of all events on them, in [0, 1]; ``such_as``, the
      ids of those with the most events;
    * ``similar_users`` and ``similar_items``: ``groups``, how many groups of ids are equal but for
      their spelling (:func:`normal_spelling`), and ``such_as``, the first of these groups.

    Args:
        log: the accepted events; ``user_id`` and ``item_id`` are categories.
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
    """Return the groups of ids that are equal but for their spelling, in the order of their first id.

    Each group has two ids or more, in the given order, in quotation marks so that blanks are seen.
    Integers have one spelling each, so there are no such groups among them.
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
