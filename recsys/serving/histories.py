"""Histories of one user with new events: those of the store, and those of a request."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from recsys.data.weigh import add_pairs, aggregate_user, apply_type_weights, rescale_values
from recsys.saved.open_model import SavedModel
from recsys.types import Histories, IdMap, Interactions

NOBODY = ""
"""The id of a user of whom only the request says anything. No log has it, because blank ids are refused."""

UserEvent = tuple[str, float, float, str | None]
"""An event of one user: the id of the item, the value, the time in seconds since 1970, and the type or None."""

_ONE_USER = IdMap.from_ids(["user"])


def is_new_to(history: Histories, rows: np.ndarray, events: list[UserEvent]) -> list[bool]:
    """Return whether a bundle lacks each event of a user.

    The bundle has an event if its history has the item with a time that is at least as late. So an
    event that was exported, trained on and bundled does not count twice. A history without times
    lacks every event.

    Args:
        history: the history of the user in the bundle, one row.
        rows: int[events], the row of the item of each event.
        events: the events.
    """
    if history.times is None:
        return [True] * len(events)
    newest = dict(zip(history.values.indices.tolist(), history.times.tolist(), strict=True))
    # Times of histories are whole seconds.
    return [newest.get(row, -1) < int(event[2]) for row, event in zip(rows.tolist(), events, strict=True)]


def add_events(
    saved: SavedModel, history: Histories, rows: np.ndarray, events: list[UserEvent]
) -> tuple[Histories, int]:
    """Return a history with events added, one row, and the number of events that were added.

    The events are weighted and aggregated as those of the run were, without decay of the new ones.
    Left out are events on items that the bundle does not have, and events of a type that the run
    gave no weight. An event without a type has the weight 1.

    Args:
        history: the history of one user, one row.
        rows: int32[events], the row of the item of each event, or -1.
        events: the events.
    """
    settings = saved.config.weigh
    # Arrays alone: a table of pandas takes longer than the scores of 27,000 items.
    _, event_values, event_times, types = zip(*events, strict=True)
    value = np.array(event_values, dtype=np.float64)
    if settings.rescales:
        value = rescale_values(value, settings)
    is_used = rows >= 0
    count = int(np.count_nonzero(is_used))
    if settings.events:
        weights = np.array([1.0 if kind is None else settings.events.get(kind, np.nan) for kind in types])
        is_used &= ~np.isnan(weights)
        count = int(np.count_nonzero(is_used))
        is_used &= weights != 0
        value = apply_type_weights(value, weights)
    time = np.array(event_times, dtype=np.float64)
    item = rows
    if not is_used.all():
        value = value[is_used]
        time = time[is_used]
        item = item[is_used]
    if not len(item):
        return history, count
    items, values, times = aggregate_user(item, time, value, settings.aggregate)
    if not history.values.nnz:
        indptr = np.array([0, len(items)], dtype=np.int32)
        return Histories(csr_array((values, items, indptr), shape=history.shape), times), count
    user = np.zeros(len(items), dtype=np.int32)
    new_pairs = Interactions(_ONE_USER, saved.history.items, user, items, values, times)
    return add_pairs(_interactions(history, saved.history.items), new_pairs, settings.aggregate).histories(), count


def _interactions(history: Histories, items: IdMap) -> Interactions:
    """Return the history of one user as interactions."""
    values = history.values
    times = history.times
    if times is None:
        times = np.full(values.nnz, -1, dtype=np.int64)
    user = np.zeros(values.nnz, dtype=np.int32)
    return Interactions(_ONE_USER, items, user, values.indices.astype(np.int32), values.data, times)
