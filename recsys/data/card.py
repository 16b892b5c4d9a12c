"""The data card: what was read and refused, how sparse and long-tailed the log is, and what looks
unusual.

Everything is computed from counts that are small on either engine: events per item, users by number
of events, days with events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recsys.data import pairs
from recsys.data.reading.read import Tables
from recsys.data.splitting.strategies import to_iso
from recsys.schema import EVENT, ITEM, TIME, USER, VALUE

DAY = 86_400
PIECE = 1 << 22
"""Values per piece, so that a full copy of the column is never made."""

OUTLYING = 3.5
"""Robust standard deviations of log(events per user) beyond which a user may be a machine."""


def data_card(tables: Tables) -> dict[str, Any]:
    """Return the data card of the accepted events as plain values for JSON; see
    :func:`card_from_counts`.
    """
    events = tables.log
    user, item = (events[column].cat.codes.to_numpy() for column in (USER, ITEM))
    value = events[VALUE].to_numpy()
    # A column that is compared anyway replaces a missing one, so that no two rows differ in it.
    time = value
    if TIME in events:
        time = events[TIME].to_numpy()
    kind = item
    if EVENT in events:
        kind = _item_event_codes(events)
    begins, order = pairs.sort_events(user, kind, len(events[USER].cat.categories), time, value)
    days = None
    span = None
    if TIME in events:
        days = np.unique(events[TIME].to_numpy() // DAY).astype(np.float64)
        span = [to_iso(events[TIME].min()), to_iso(events[TIME].max())]
    counts_by_value = count_values(value)
    extra_tables = {"items": tables.items, "users": tables.users}
    counts = CardCounts(
        pairs=pairs.count_distinct(begins, order, [item]),
        distinct=pairs.count_distinct(begins, order, [kind, time, value]),
        per_item=np.bincount(item),
        per_user=np.unique(np.diff(begins), return_counts=True),
        days=days,
        span=span,
        tables={name: len(table) for name, table in extra_tables.items() if table is not None},
        refused={"total": tables.refusals.refused, "by_reason": dict(tables.refusals.counts)},
        values=counts_by_value,
        duplicates={name: count for name, count in tables.duplicates.items() if count},
    )
    return card_from_counts(counts)


def count_values(values: np.ndarray) -> dict[str, Any]:
    """Describe the values of events; see :func:`describe_values`."""
    total = np.zeros(3)
    mean = 0.0
    # The mean comes first, because moments about another point lose all digits for large values.
    for power in (1, 2, 3):
        for start in range(0, len(values), PIECE):
            with np.errstate(over="ignore", invalid="ignore"):
                piece = values[start : start + PIECE].astype(np.float64)
                total[power - 1] += ((piece - mean) ** power).sum()
        if power == 1:
            mean = total[0] / len(values)
    second, third = total[1:] / len(values)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        skew = third / second**1.5
    return describe_values(
        smallest=float(values.min()),
        largest=float(values.max()),
        mean=mean,
        skew=float(skew),
        negative=int((values < 0).sum()),
        zero=int((values == 0).sum()),
    )


def describe_values(
    *, smallest: float, largest: float, mean: float, skew: float | None, negative: int, zero: int
) -> dict[str, Any]:
    """Return the entry ``values`` of the data card.

    ``skew``: the third standardised moment, positive where a few values are far above the others;
    three digits; None where all values are equal or the moment is too large for float64.
    """
    if skew is None or not np.isfinite(skew) or smallest == largest:
        skew = None
    else:
        skew = float(f"{skew:.3g}")
    return {
        "smallest": smallest,
        "mean": float(f"{mean:.6g}"),
        "largest": largest,
        "skew": skew,
        "negative": negative,
        "zero": zero,
    }


def _item_event_codes(events: pd.DataFrame) -> np.ndarray:
    """Return int32[n], one number per (item, event type), in the order of items."""
    item, kind = (events[column].cat for column in (ITEM, EVENT))
    combined = item.codes.to_numpy().astype(np.int64) * len(kind.categories) + kind.codes.to_numpy()
    if len(item.categories) * len(kind.categories) >= 2**31:
        combined = np.unique(combined, return_inverse=True)[1]
    return combined.astype(np.int32)


@dataclass(frozen=True)
class CardCounts:
    """What a data card is computed from; either engine can count it.

    Attributes:
        pairs: distinct (user, item) pairs.
        distinct: distinct rows.
        per_item: int[items], events of each item that has any, in any order.
        per_user: (int[m] numbers of events, ascending; int[m] users who have that many).
        days: float[d], days since 1970 that have events (UTC), ascending; None without timestamps.
        span: ISO times of the first and the last event; None without timestamps.
        tables: rows of each further table.
        refused: refused rows, in total and by reason.
        values: what :func:`describe_values` returns.
        duplicates: rows of each further table beyond one per id, which ``[data] duplicates`` settled.
    """

    pairs: int
    distinct: int
    per_item: np.ndarray
    per_user: tuple[np.ndarray, np.ndarray]
    days: np.ndarray | None
    span: list[str] | None
    tables: dict[str, int]
    refused: dict[str, Any]
    values: dict[str, Any]
    duplicates: dict[str, int]


def card_from_counts(counts: CardCounts) -> dict[str, Any]:
    """Return the data card of these counts.

    ``sparsity``: share of (user, item) cells without an event, in [0, 1]. ``gini_items``: Gini
    coefficient of events per item that has any, 0 = all equal. ``top_1_percent_share``: share of
    events on the most popular 1 % of items (at least one item). ``repeats``: rows that are not the
    first of their (user, item) pair.
    ``values``: see :func:`describe_values`. ``exact_duplicates``: rows equal to an earlier one in every
    column. ``span``: ISO times of the first and the last event. ``gaps``: see
    :func:`describe_gaps`. ``busiest_users``: see :func:`find_busiest_users`.
    """
    per_item = np.sort(counts.per_item)
    events = int(per_item.sum())
    items = len(per_item)
    users = int(counts.per_user[1].sum())
    top_items = max(1, items // 100)
    return {
        "events": events,
        "users": users,
        "items": items,
        "sparsity": 1 - counts.pairs / (users * items),
        "median_events_per_user": median_of_counts(*counts.per_user),
        "median_events_per_item": float(np.median(per_item)),
        "gini_items": gini_coefficient(per_item),
        "top_1_percent_share": float(per_item[-top_items:].sum() / events),
        "values": counts.values,
        "repeats": events - counts.pairs,
        "exact_duplicates": events - counts.distinct,
        "span": counts.span,
        "gaps": None if counts.days is None else describe_gaps(counts.days),
        "busiest_users": find_busiest_users(*counts.per_user),
        "tables": counts.tables,
        "duplicates": counts.duplicates,
        "refused": counts.refused,
    }


def describe_gaps(days: np.ndarray) -> dict[str, Any]:
    """Count the days between the first and the last that have no event, and find the longest run of
    them.

    >>> describe_gaps(np.array([0.0, 1.0, 5.0, 7.0]))
    {'empty_days': 4, 'longest': 3, 'from': '1970-01-03', 'to': '1970-01-05'}
    """
    empty_between = np.diff(days).astype(np.int64) - 1
    if not empty_between.sum():
        return {"empty_days": 0, "longest": 0, "from": None, "to": None}
    longest = int(empty_between.argmax())
    start = (days[longest] + 1) * DAY
    end = (days[longest + 1] - 1) * DAY
    return {
        "empty_days": int(empty_between.sum()),
        "longest": int(empty_between[longest]),
        "from": to_iso(start),
        "to": to_iso(end),
    }


def find_busiest_users(numbers: np.ndarray, users: np.ndarray) -> dict[str, Any]:
    """Count the users with implausibly many events, and return that limit and their share of all
    events.

    A user counts if the modified z-score of log(events) is above :data:`OUTLYING`. The score is the
    distance from the median over 1.4826 × the median absolute deviation, or over 1.2533 × the mean
    absolute deviation where more than half of the users have the same number. Reference: Iglewicz
    and Hoaglin, How to Detect and Handle Outliers, 1993.

    >>> find_busiest_users(np.array([8, 10, 12, 5000]), np.array([30, 40, 29, 1]))["users"]
    1
    """
    logs = np.log(numbers)
    distance = np.abs(logs - median_of_counts(logs, users))
    order = np.argsort(distance, kind="stable")
    spread = 1.4826 * median_of_counts(distance[order], users[order])
    # The median deviation is 0 when more than half of the users have the same number of events.
    spread = spread or 1.2533 * float(np.average(distance, weights=users))
    limit = np.exp(median_of_counts(logs, users) + OUTLYING * spread)
    is_busy = (numbers > limit) & (distance > 0)
    return {
        "users": int(users[is_busy].sum()),
        "more_than": float(np.floor(limit)),
        "share_of_events": float((numbers * users)[is_busy].sum() / (numbers * users).sum()),
    }


def median_of_counts(values: np.ndarray, counts: np.ndarray) -> float:
    """Return the median of ascending ``values`` that occur ``counts`` times each; of two middle
    ones, their mean.

    >>> median_of_counts(np.array([1, 2, 9]), np.array([2, 1, 1]))
    1.5
    """
    ends = np.cumsum(counts)
    low, high = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
    return float((values[low] + values[high]) / 2)


def gini_coefficient(sorted_counts: np.ndarray) -> float:
    """Return the Gini coefficient of ascending non-negative counts, in [0, 1 − 1/n]; NaN when all
    are zero.

    >>> gini_coefficient(np.array([1, 1, 1, 1])), gini_coefficient(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    n = len(sorted_counts)
    total = float(np.sum(sorted_counts))
    if not total:
        return float("nan")
    ranks = np.arange(1, n + 1)
    return float(2 * np.dot(ranks, sorted_counts) / (n * total) - (n + 1) / n)
