"""What recommend, similar and explain share: a saved model, its users and items by id, and lists with
titles.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recsys.cli.console import log
from recsys.errors import InputError, suggest_nearest

if TYPE_CHECKING:
    import pandas as pd

    from recsys.saved.open_model import SavedModel


def open_with_notice(run: Path, model: str | None, *, uses_history: bool = False) -> SavedModel:
    """Open a saved model, and say on stderr which one it is if none was named.

    Args:
        uses_history: as in ``open_model``.
    """
    from recsys.saved.open_model import open_model

    saved = open_model(run, model, uses_history=uses_history)
    if model is None:
        log.print(f"model: {saved.name} (another with --model)")
    return saved


def item_row(saved: SavedModel, item: str) -> int:
    """Return the row of an item; InputError, with the nearest id, for an unknown item."""
    row = int(saved.history.items.rows([item])[0])
    if row < 0:
        raise InputError(f"no item {item!r} in this run.{suggest_nearest(item, map(str, saved.history.items.ids))}")
    return row


def csv_with_titles(saved: SavedModel, table: pd.DataFrame) -> str:
    """Return a table of lists as CSV, with a column of titles if the items have titles."""
    if "title" in saved.items:
        table = table.merge(saved.items[["item_id", "title"]], on="item_id", how="left")
    return table.to_csv(index=False)
