"""Functions that recommend, similar and explain share: find users and items, and show lists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.cli.console import log
from recsys.data.ids import normal_spelling
from recsys.errors import InputError
from recsys.locations import Location

if TYPE_CHECKING:
    import pandas as pd

    from recsys.saved.open_model import SavedModel
    from recsys.saved.rating_predictions import SavedRatingModel
    from recsys.types import IdMap

MAX_NEAREST = 3
"""The largest number of similar names that a message suggests."""

MAX_COMPARED = 50_000
"""The largest number of names that are compared letter by letter with an unknown name.

If there are more names, only other spellings of the unknown name are suggested.
"""

MAX_UNKNOWN = 5
"""The largest number of unknown users for whom a line each is printed."""


def open_with_notice(run: Location, model: str | None, *, uses_history: bool = False) -> SavedModel:
    """Open and return a saved model. If the user named no model, print its name on stderr.

    Args:
        run: a run folder or a bundle.
        model: the name of the model, or None.
        uses_history: as in :func:`recsys.saved.open_model.open_model`.

    Raises:
        RunFolderError: the folder is not a complete run or bundle, or has no such model.
    """
    from recsys.saved.open_model import open_model

    saved = open_model(run, model, uses_history=uses_history)
    if model is None:
        log.print(f"model: {saved.name} (another with --model)")
    return saved


def item_row(ids_of_items: IdMap, items: pd.DataFrame, item: str) -> int:
    """Return the row of an item, which is named by its id, or by its title if only one item has it.

    Upper and lower case of titles do not matter.

    Args:
        ids_of_items: the id map of the items.
        items: the items table of a saved model: item_id, and title if there is one.
        item: the id or the title.

    Raises:
        InputError: there is no such item (the message has similar ids and titles), or several items
            have this title.
    """
    row = int(ids_of_items.rows([item])[0])
    if row >= 0:
        return row
    ids = items["item_id"].astype(str).to_numpy(dtype=object)
    titles = np.full(len(ids), "", dtype=object)
    if "title" in items:
        titles = items["title"].fillna("").astype(str).to_numpy(dtype=object)
    rows = [row for row, title in enumerate(titles) if title.casefold() == item.strip().casefold()]
    if len(rows) == 1:
        log.print(f"item {ids[rows[0]]}: {titles[rows[0]]}")
        return rows[0]
    if rows:
        raise InputError(f"{len(rows)} items have the title {item!r}: name one by its id, {', '.join(ids[rows][:9])}.")
    names = dict(zip(titles, ids, strict=True)) | dict(zip(ids, ids, strict=True))
    title_of = dict(zip(ids, titles, strict=True))
    nearest = dict.fromkeys(names[name] for name in nearest_names(item, filter(None, names)))
    described = [f"{name!r} ({title_of[name]})" if title_of[name] else repr(name) for name in nearest]
    hint = f" Nearest: {', '.join(described)}." if described else f" Its ids are like {', '.join(map(repr, ids[:3]))}."
    raise InputError(f"no item {item!r} in this run.{hint}")


def user_row(saved: SavedModel, user: str) -> int:
    """Return the row of a user in the history of a saved model.

    Args:
        saved: the model.
        user: the id of the user.

    Raises:
        InputError: there is no such user. The message has similar ids.
    """
    users = saved.history.users
    row = int(users.rows([user])[0])
    if row >= 0:
        return row
    nearest = nearest_names(user, [str(user_id) for user_id in users.all_ids])
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    raise InputError(f"no user {user!r} with a history in this run.{hint}")


def report_unknown_users(saved: SavedModel | SavedRatingModel, user_ids: Iterable[Any]) -> None:
    """Print on stderr which users have no history in the run, with similar ids.

    At most :data:`MAX_UNKNOWN` users have a line each. One more line has the number of the others.

    Args:
        saved: the model.
        user_ids: the ids that the user of the command named.
    """
    users = np.array([str(user) for user in user_ids], dtype=object)
    unknown = users[saved.history.users.rows(users) < 0]
    if not len(unknown):
        return
    users_of_run = [str(user) for user in saved.history.users.all_ids]
    for user in unknown[:MAX_UNKNOWN]:
        nearest = nearest_names(user, users_of_run)
        hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        log.print(f"user {user}: no history in this run, so what follows is for a user of whom nothing is known.{hint}")
    if len(unknown) > MAX_UNKNOWN:
        log.print(f"{len(unknown) - MAX_UNKNOWN:,} more users have no history in this run")


def nearest_names(word: str, names: Iterable[str]) -> list[str]:
    """Return up to :data:`MAX_NEAREST` names that are similar to a word, the most similar first.

    They are other spellings of the word (:func:`recsys.data.ids.normal_spelling`). If there are
    none, they are names with similar letters: a ratio of at least 0.6 by :mod:`difflib`.

    Args:
        word: the unknown name.
        names: the names that exist.
    """
    names = list(names)
    spelling = normal_spelling(word)
    same_spelling = [name for name in names if normal_spelling(name) == spelling]
    if same_spelling or len(names) > MAX_COMPARED:
        return same_spelling[:MAX_NEAREST]
    return difflib.get_close_matches(word, names, n=MAX_NEAREST, cutoff=0.6)


def csv_with_titles(saved: SavedModel, table: pd.DataFrame) -> str:
    """Return a table of lists as CSV text, with a column ``title`` if the items have titles.

    Args:
        saved: the model, which has the items table.
        table: a table with the column ``item_id``.
    """
    if "title" in saved.items:
        table = table.merge(saved.items[["item_id", "title"]], on="item_id", how="left")
    return table.to_csv(index=False)
