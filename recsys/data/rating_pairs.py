"""Reduce a log of ratings to one rating per (user, item) pair."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys.errors import InputError
from recsys.schema import EVENT, ITEM, SIDE, TIME, USER, VALUE
from recsys.types import IdMap


def rating_per_pair(events: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the events with one rating per (user, item) pair, and how many rows were merged away.

    The rating of a pair is that of its latest event. If several events of the pair have this time,
    or if the log has no times, it is the mean of their ratings. Event types are left out. In a log
    of parts (``[split] rule = "files"``) each part has its own pairs. Rows stay in the order of the
    log.

    Args:
        events: user_id, item_id, value, and optionally timestamp, event and side.

    Raises:
        InputError: all ratings have one value, so there is nothing to predict.
    """
    events = events[[name for name in events if name != EVENT]]
    values = events[VALUE].to_numpy()
    if len(values) and values.min() == values.max():
        raise InputError(
            f"every rating is {values[0]:g}, so there is nothing to predict: map the column with the ratings to `value`"
            " under [data.columns], or judge lists ([judge] task = 'lists')."
        )
    users = IdMap.from_ids(events[USER])
    items = IdMap.from_ids(events[ITEM])
    key = users.rows(events[USER]) * len(items) + items.rows(events[ITEM])
    if SIDE in events:
        key = key * 3 + events[SIDE].to_numpy()
    if len(np.unique(key)) == len(key):
        return events, 0
    time = np.zeros(len(events))
    if TIME in events:
        time = events[TIME].to_numpy()
    order = np.lexsort((time, key))
    last_of_pair = np.append(key[order][1:] != key[order][:-1], True)
    latest = order[last_of_pair]
    pair = np.empty(len(events), dtype=np.int64)
    pair[order] = np.cumsum(np.append(0, last_of_pair[:-1]))
    is_latest = time == time[latest][pair]
    total = np.bincount(pair[is_latest], weights=values[is_latest].astype(np.float64))
    mean = total / np.bincount(pair[is_latest])
    in_log_order = np.argsort(latest, kind="stable")
    merged = events.iloc[latest[in_log_order]].reset_index(drop=True)
    return merged.assign(**{VALUE: mean[in_log_order]}), len(events) - len(merged)
