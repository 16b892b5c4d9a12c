"""The data card: what was read, what was refused, how sparse and long-tailed it is, and what looks odd about it.

Everything is computed from counts that are small on either engine: events an item, users by number of events, days
with events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.data import pairs
from recsys.data.reading.read import Tables
from recsys.data.splitting.strategies import to_iso
from recsys.schema import EVENT, ITEM, TIME, USER, VALUE

DAY = 86_400
OUTLYING = 3.5
"""Robust standard deviations, of the logarithm of a user's events, beyond which a user may be a machine."""


def data_card(tables: Tables) -> dict[str, Any]:
    """Return JSON-able facts about the accepted events; see :func:`facts`."""
    events = tables.log
    user, item = (events[column].cat.codes.to_numpy() for column in (USER, ITEM))
    value = events[VALUE].to_numpy()
    time = events[TIME].to_numpy() if TIME in events else value
    kind = _item_and_event(events) if EVENT in events else item
    begins, order = pairs.sort_events(user, kind, len(events[USER].cat.categories), time, value)
    return facts(
        pairs=pairs.count_distinct(begins, order, [item]),
        distinct=pairs.count_distinct(begins, order, [kind, time, value]),
        per_item=np.bincount(item),
        per_user=np.unique(np.diff(begins), return_counts=True),
        days=np.unique(events[TIME].to_numpy() // DAY).astype(np.float64) if TIME in events else None,
        span=[to_iso(events[TIME].min()), to_iso(events[TIME].max())] if TIME in events else None,
        tables={name: len(t) for name in ("items", "users") if (t := getattr(tables, name)) is not None},
        refused={"total": tables.refusals.refused, "by_reason": dict(tables.refusals.counts)},
    )


def _item_and_event(events: pd.DataFrame) -> np.ndarray:
    """Return int32[n] in the order of items: one number an item and type of event."""
    item, kind = (events[column].cat for column in (ITEM, EVENT))
    both = item.codes.to_numpy().astype(np.int64) * len(kind.categories) + kind.codes.to_numpy()
    if len(item.categories) * len(kind.categories) >= 2**31:
        both = np.unique(both, return_inverse=True)[1]
    return both.astype(np.int32)


def facts(
    *,
    pairs: int,
    distinct: int,
    per_item: np.ndarray,
    per_user: tuple[np.ndarray, np.ndarray],
    days: np.ndarray | None,
    span: list[str] | None,
    tables: dict[str, int],
    refused: dict[str, Any],
) -> dict[str, Any]:
    """Return the card from counts, which either engine can supply.

    ``sparsity``: share of (user, item) cells without an event, in [0, 1]. ``gini_items``: Gini coefficient of
    events per item that has any, 0 = all equal. ``top_1_percent_share``: share of events on the most popular
    1 % of items (at least one item). ``repeats``: rows that are not the first of their (user, item);
    ``exact_duplicates``: rows equal to an earlier one in every column. ``span``: ISO times of the first and last
    event. ``gaps``: :func:`describe_gaps`. ``busiest_users``: :func:`find_busiest_users`.

    Args:
        pairs: distinct (user, item); ``distinct``: distinct rows.
        per_item: int[items] events of each item, in any order.
        per_user: (int[m] numbers of events, ascending; int[m] users who have that many).
        days: float[d] days since 1970 with events (UTC), ascending; None without timestamps.
    """
    per_item = np.sort(per_item)
    events, items, users = int(per_item.sum()), len(per_item), int(per_user[1].sum())
    return {
        "events": events,
        "users": users,
        "items": items,
        "sparsity": 1 - pairs / (users * items),
        "median_events_per_user": median_of_counts(*per_user),
        "median_events_per_item": float(np.median(per_item)),
        "gini_items": gini_coefficient(per_item),
        "top_1_percent_share": float(per_item[-max(1, items // 100) :].sum() / events),
        "repeats": events - pairs,
        "exact_duplicates": events - distinct,
        "span": span,
        "gaps": None if days is None else describe_gaps(days),
        "busiest_users": find_busiest_users(*per_user),
        "tables": tables,
        "refused": refused,
    }


def describe_gaps(days: np.ndarray) -> dict[str, Any]:
    """Return how many days between the first and the last have no event, and the longest run of such days.

    >>> gaps(np.array([0.0, 1.0, 5.0, 7.0]))
    {'empty_days': 4, 'longest': 3, 'from': '1970-01-03', 'to': '1970-01-05'}
    """
    between = np.diff(days).astype(np.int64) - 1
    if not between.sum():
        return {"empty_days": 0, "longest": 0, "from": None, "to": None}
    place = int(between.argmax())
    start, end = (days[place] + 1) * DAY, (days[place + 1] - 1) * DAY
    return {"empty_days": int(between.sum()), "longest": int(between[place]), "from": to_iso(start), "to": to_iso(end)}


def find_busiest_users(numbers: np.ndarray, users: np.ndarray) -> dict[str, Any]:
    """Return how many users have more events than people do, where that begins, and their share of the events.

    The modified z-score of log(events) is above :data:`OUTLYING`: its distance from the median over 1.4826 × the
    median absolute deviation, or over 1.2533 × the mean absolute deviation where more than half of the users
    are alike. Reference: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993.

    >>> busiest(np.array([8, 10, 12, 5000]), np.array([30, 40, 29, 1]))["users"]
    1
    """
    logs = np.log(numbers)
    distance = np.abs(logs - median_of_counts(logs, users))
    order = np.argsort(distance, kind="stable")
    spread = 1.4826 * median_of_counts(distance[order], users[order])
    spread = spread or 1.2533 * float(np.average(distance, weights=users))
    limit = np.exp(median_of_counts(logs, users) + OUTLYING * spread)
    many = (numbers > limit) & (distance > 0)
    return {
        "users": int(users[many].sum()),
        "more_than": float(np.floor(limit)),
        "share_of_events": float((numbers * users)[many].sum() / (numbers * users).sum()),
    }


def median_of_counts(values: np.ndarray, counts: np.ndarray) -> float:
    """Return the median of ascending ``values``, each occurring ``counts`` times; the mean of two in the middle.

    >>> median(np.array([1, 2, 9]), np.array([2, 1, 1]))
    1.5
    """
    ends = np.cumsum(counts)
    low, high = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
    return float((values[low] + values[high]) / 2)


def gini_coefficient(sorted_counts: np.ndarray) -> float:
    """Return the Gini coefficient of ascending non-negative counts, in [0, 1 − 1/n]; NaN when all are zero.

    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    n, total = len(sorted_counts), float(np.sum(sorted_counts))
    if not total:
        return float("nan")
    ranks = np.arange(1, n + 1)
    return float(2 * np.dot(ranks, sorted_counts) / (n * total) - (n + 1) / n)
