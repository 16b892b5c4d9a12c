"""The section with examples: what some users liked, what each model shows them, and why."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from recsys.data.hashing import hash_words, id_bits
from recsys.report.explanations import Explainer
from recsys.report.parts import Details, ReportTable, Section
from recsys.report.run_reader import Run
from recsys.schema import ITEM, SOURCE, TIME, USER, VALUE

USERS_PER_LENGTH = 3
"""Number of users per group of history lengths. The part of the first user of a group is open, and
says why the items are listed."""

MAX_PLACES = 10
"""Largest number of places of a list that are shown."""

MAX_LIKED = 5
"""Largest number of liked items that the line of a user names."""

MAX_LENGTH = 60
"""Largest number of characters of a title or an id that are shown."""


def examples(run: Run) -> Section | None:
    """Return the section "Examples": what some users liked, and what each model lists for them.

    Each user has a part of the page that opens by a click. A box searches users and items. The
    result is None if there are no tested users.
    """
    users = _draw_users(run)
    if not len(users):
        return None
    explainer = Explainer.for_run(run)
    details = []
    for user, history_length, is_first in users.itertuples(index=False):
        tops = {name: lists[lists[USER] == user].head(MAX_PLACES) for name, lists in run.lists.items()}
        tables = [_lists_table(run, user, tops)]
        # To explain a list of a blend takes seconds, so the further users have no reasons.
        if is_first and explainer and len(tops[explainer.name]):
            tables.append(_reasons_table(run, explainer, user, tops[explainer.name]))
        details.append(Details(f"{_name_user(user)}: {_liked(run, user, history_length)}", tables, is_open=is_first))
    text = (
        f"Users drawn by a hash of their id, {USERS_PER_LENGTH} for each length of history (none, 1–4, 5–19, 20"
        " and more items); they were not picked for good results. ✓: the user chose the item in"
        " the test part. In parentheses: the id of the item."
    )
    if explainer:
        text += (
            f" Why, for the first user of each length: the parts of the score of {explainer.name} that add most, with"
            " their shares."
        )
    return Section("Examples", [text], details=details, search="Find a user or an item, by id or title")


def _draw_users(run: Run) -> pd.DataFrame:
    """Draw some tested users from each group of history lengths.

    The result has user_id, n_history and ``is_first``: whether the user is the first of the group.
    """
    order = np.argsort(hash_words(1, id_bits(pd.Index(run.users[USER]))), kind="stable")
    drawn = run.users.iloc[order]
    drawn = drawn.assign(length=np.searchsorted([1, 5, 20], drawn["n_history"], side="right"))
    drawn = drawn.assign(is_first=~drawn["length"].duplicated())
    chosen = drawn.groupby("length").head(USERS_PER_LENGTH)
    return chosen.sort_values("length", kind="stable")[[USER, "n_history", "is_first"]]


def _lists_table(run: Run, user: Any, tops: dict[str, pd.DataFrame]) -> ReportTable:
    """Return the table with the lists of one user, one column per model. Relevant items have a mark.

    Args:
        tops: model -> the first rows of the user's list.
    """
    relevant = set(run.truth.loc[run.truth[USER] == user, ITEM])
    columns = {
        name: [("✓ " if item in relevant else "") + _name_item(run, item) for item in top[ITEM]]
        for name, top in tops.items()
    }
    rows = [
        [str(index + 1), *(column[index] if index < len(column) else "–" for column in columns.values())]
        for index in range(min(run.config.recommend.k, MAX_PLACES))
    ]
    return ReportTable(f"{_name_user(user)}: the lists", ["rank", *columns], rows, 1 + len(columns), notes=run.notes)


def _reasons_table(run: Run, explainer: Explainer, user: Any, top: pd.DataFrame) -> ReportTable:
    """Return the table with the reason for each item of a user's list.

    Args:
        top: the first rows of the user's list.
    """
    items = [_name_item(run, item) for item in top[ITEM]]
    reasons = [explainer.explain(user, *entry) for entry in zip(top[ITEM], top[SOURCE], strict=True)]
    caption = f"{_name_user(user)}: why {explainer.name} lists these items"
    return ReportTable(caption, ["rank", "item", "why"], _reason_rows(items, reasons), numbers=3)


def _reason_rows(items: list[str], reasons: list[str]) -> list[list[str]]:
    """Return the rows [ranks, items, reason] of a table. Consecutive items with the same reason share a row.

    Args:
        items: the names of the items, in the order of the list.
        reasons: the reason of each item.
    """
    rows = []
    for reason, group in groupby(enumerate(reasons), key=lambda entry: entry[1]):
        indexes = [index for index, _ in group]
        ranks = str(indexes[0] + 1)
        if len(indexes) > 1:
            ranks += f" to {indexes[-1] + 1}"
        rows.append([ranks, "; ".join(items[index] for index in indexes), reason])
    return rows


def _liked(run: Run, user: Any, history_length: int) -> str:
    """Return a text with the number of items in a user's history and the newest liked ones."""
    history = run.history[(run.history[USER] == user) & (run.history[VALUE] > 0)]
    newest = history.sort_values([TIME, VALUE], ascending=False)[ITEM].head(MAX_LIKED)
    if not len(newest):
        return f"{history_length} items in the history, none liked"
    names = "; ".join(_name_item(run, item) for item in newest)
    return f"{history_length:,} items in the history, liked most recently: {names}"


def _name_user(user: Any) -> str:
    return f"User {_shorten(str(user))}"


def _name_item(run: Run, item: Any) -> str:
    """Return the title of an item with its id in parentheses, or the id alone."""
    name = _shorten(str(item))
    if item not in run.titles:
        return name
    return f"{_shorten(run.titles[item])} ({name})"


def _shorten(text: str) -> str:
    if len(text) <= MAX_LENGTH:
        return text
    return text[: MAX_LENGTH - 1] + "…"
