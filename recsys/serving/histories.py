"""Histories of one user with new events: those of the store, and those of a request."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys.data.weigh import add_pairs, aggregate_events, weigh_events
from recsys.saved.open_model import SavedModel
from recsys.schema import EVENT, ITEM, TIME, USER
from recsys.types import Histories, IdMap, Interactions

NOBODY = ""
"""The id of a user of whom only the request says anything. No log has it, because blank ids are refused."""


def is_new_to(history: Histories, items: IdMap, events: pd.DataFrame) -> np.ndarray:
    """Return whether a bundle lacks each event of a user, bool[events].

    The bundle has an event if its history has the item with a time that is at least as late. So an
    event that was exported, trained on and bundled does not count twice. A history without times
    lacks every event.

    Args:
        history: the history of the user in the bundle, one row.
        items: the items of the bundle.
        events: ``item_id`` and ``timestamp``.
    """
    if history.times is None or not len(events):
        return np.ones(len(events), dtype=bool)
    newest = dict(zip(history.values.indices.tolist(), history.times.tolist(), strict=True))
    rows = items.rows(events[ITEM].to_numpy(dtype=object)).tolist()
    times = np.floor(events[TIME].to_numpy(dtype=np.float64)).tolist()
    return np.array([newest.get(row, -1) < time for row, time in zip(rows, times, strict=True)], dtype=bool)


def add_events(saved: SavedModel, history: Histories, events: pd.DataFrame) -> tuple[Histories, int]:
    """Return a history with events added, one row, and the number of events that were added.

    The events are weighted and aggregated as those of the run were, without decay of the new ones.
    Left out are events on items that the bundle does not have, and events of a type that the run
    gave no weight. An event without a type has the weight 1.

    Args:
        history: the history of one user, one row.
        events: ``item_id`` (text), ``value``, ``timestamp``, and ``event``: the type, or None.
    """
    settings = saved.config.weigh
    items = saved.history.items
    rows = items.rows(events[ITEM].to_numpy(dtype=object))
    has_type = events[EVENT].notna().to_numpy()
    is_used = rows >= 0
    if settings.events:
        is_used &= ~has_type | events[EVENT].isin(settings.events).to_numpy()
    if not is_used.any():
        return history, 0
    used = events.assign(**{USER: "user", ITEM: items.ids_of(np.maximum(rows, 0))})[is_used]
    typed = has_type[is_used]
    if not typed.any():
        weighed = weigh_events(used.drop(columns=EVENT), settings)
    elif typed.all():
        weighed = weigh_events(used, settings)
    else:
        untyped_events = weigh_events(used[~typed].drop(columns=EVENT), settings)
        weighed = pd.concat([weigh_events(used[typed], settings), untyped_events])
    users = IdMap.of(["user"])
    new_pairs = aggregate_events(weighed, settings.aggregate, users, items)
    return add_pairs(_interactions(history, users, items), new_pairs, settings.aggregate).histories(), int(
        is_used.sum()
    )


def _interactions(history: Histories, users: IdMap, items: IdMap) -> Interactions:
    """Return the history of one user as interactions."""
    times = history.times
    if times is None:
        times = np.full(history.values.nnz, -1, dtype=np.int64)
    return Interactions(
        users,
        items,
        np.zeros(history.values.nnz, dtype=np.int32),
        history.values.indices.astype(np.int32),
        history.values.data,
        times,
    )
