"""The data card: what was read and refused, how sparse and long-tailed the log is, and what is
unusual.

It is computed from counts that are small on either engine: events per item, users per number of
events, and days with events.
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
"""Number of values that are processed at a time, so that no copy of the whole column is made."""

OUTLYING = 3.5
"""The modified z-score of log(number of events) above which a user counts as implausibly busy.

Such users may be machines. :func:`find_busiest_users` defines the score.
"""


def data_card(tables: Tables) -> dict[str, Any]:
    """Return the data card of the accepted events as a dict for JSON.

    A data card says what was read and refused, and how the events are distributed. Its keys are
    described in :func:`card_from_counts`.

    Args:
        tables: the checked tables, with at least one event.
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
    """Return statistics of the values of all events: the entry ``values`` of the data card.

    The keys are described in :func:`describe_values`.

    Args:
        values: float[n], n ≥ 1, finite.
    """
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
    """Return the entry ``values`` of the data card as a dict, whose keys are the names of the
    arguments.

    Args:
        smallest, largest: the smallest and the largest value.
        mean: the mean value. It is rounded to six significant digits.
        skew: the third standardised moment, which is positive if a few values are far above the
            others. It is rounded to three significant digits. It becomes None if all values are
            equal, or if it is too large for float64.
        negative, zero: the numbers of events with a value below 0 and with the value 0.
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
    """Return int32[n], a number for the combination of item and event type of each event.

    Equal combinations have equal numbers. The numbers ascend with the item, and then with the type.
    """
    item, kind = (events[column].cat for column in (ITEM, EVENT))
    combined = item.codes.to_numpy().astype(np.int64) * len(kind.categories) + kind.codes.to_numpy()
    if len(item.categories) * len(kind.categories) >= 2**31:
        combined = np.unique(combined, return_inverse=True)[1]
    return combined.astype(np.int32)


@dataclass(frozen=True)
class CardCounts:
    """The counts from which a data card is computed. Either engine can count them.

    Attributes:
        pairs: the number of different (user, item) pairs.
        distinct: the number of different rows of the log.
        per_item: int[items], the number of events of each item that has any, in any order.
        per_user: two arrays int[m]: different numbers of events in ascending order, and how many
            users have each number.
        days: float[d], the days (UTC) that have events, as days since 1970, ascending. None without
            timestamps.
        span: the ISO times of the first and the last event. None without timestamps.
        tables: ``items`` or ``users`` -> the number of rows of this table. A table that does not
            exist has no entry.
        refused: ``total``, the number of refused rows, and ``by_reason``, reason -> their number.
        values: the result of :func:`describe_values`.
        duplicates: ``items`` or ``users`` -> the number of rows that ``[data] duplicates`` merged
            into others.
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
    """Compute the data card from counts of the log, and return it as a dict for JSON.

    Its keys:

    * ``events``, ``users``, ``items``: the numbers of events, and of users and items that have any;
    * ``sparsity``: the share of (user, item) pairs without an event, in [0, 1];
    * ``median_events_per_user``, ``median_events_per_item``;
    * ``gini_items``: the Gini coefficient of the events per item; 0 means that all are equal;
    * ``top_1_percent_share``: the share of events on the most popular 1 % of items (at least one
      item);
    * ``repeats``: the number of rows that are not the first of their (user, item) pair;
    * ``exact_duplicates``: the number of rows that equal an earlier row in every column;
    * ``values``, ``busiest_users``: see :func:`describe_values` and :func:`find_busiest_users`;
    * ``gaps``: see :func:`describe_gaps`; None without timestamps;
    * ``span``, ``tables``, ``duplicates``, ``refused``: see :class:`CardCounts`.
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
    """Return the number of days without an event, and the longest run of such days, as a dict.

    Only days between the first and the last event count. The keys are ``empty_days`` and
    ``longest`` (numbers of days), ``from`` and ``to`` (the first and the last day of the longest
    run, as ISO dates). Of equally long runs, the earliest counts. Without an empty day, ``from``
    and ``to`` are None.

    Args:
        days: float[d], d ≥ 1, the days that have events, as days since 1970, ascending.

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
    """Return how many users have implausibly many events, and their share of all events.

    Keys of the result:

    * ``users``: the number of these users;
    * ``more_than``: each of them has more events than this number;
    * ``share_of_events``: the share of all events that are theirs, in [0, 1].

    A user has implausibly many events if the modified z-score of log(number of events) is above
    :data:`OUTLYING`. The score is log(number of events) minus the median over all users, divided by
    1.4826 × the median absolute deviation. So users with few events have a score below 0. If the
    median absolute deviation is 0, because more than half of the users have the same number of
    events, 1.2533 × the mean absolute deviation takes its place. If all users have the same number
    of events, nobody is counted. Reference: Iglewicz and Hoaglin, How to Detect and Handle
    Outliers, 1993.

    Args:
        numbers: int[m], different numbers of events, each ≥ 1, ascending; m ≥ 1.
        users: int[m], how many users have each number.

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
    """Return the median of values that occur several times each, as a float.

    If there are two middle values, the result is their mean.

    Args:
        values: [m], m ≥ 1, ascending.
        counts: int[m], how often each value occurs, each ≥ 1.

    >>> median_of_counts(np.array([1, 2, 9]), np.array([2, 1, 1]))
    1.5
    """
    ends = np.cumsum(counts)
    low, high = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
    return float((values[low] + values[high]) / 2)


def gini_coefficient(sorted_counts: np.ndarray) -> float:
    """Return the Gini coefficient of n counts, in [0, 1 − 1/n]. 0 means that all counts are equal.

    It is NaN if all counts are zero, or if there are none.

    Args:
        sorted_counts: [n], ascending and not negative.

    >>> gini_coefficient(np.array([1, 1, 1, 1])), gini_coefficient(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    n = len(sorted_counts)
    total = float(np.sum(sorted_counts))
    if not total:
        return float("nan")
    ranks = np.arange(1, n + 1)
    return float(2 * np.dot(ranks, sorted_counts) / (n * total) - (n + 1) / n)
