"""Sort events by (user, item, time, value) and aggregate the events of each (user, item) pair.

The loops are compiled, for very large logs. The events of a log are never copied. The result of the
sort is an array of positions in the log, with four bytes per event. A counting sort first groups
the positions by user, and then the positions of each user are sorted. The users are divided among
several threads. Results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numba import get_num_threads, njit

from recsys.kernels import copy_values

SUM, LAST, MAX, COUNT = range(4)
LONG = 1 << 18
"""Smallest number of rows for which the work is divided among threads."""

SHARES = 16
"""Number of parts per thread into which users are divided.

There are more parts than threads, so that a part with a very active user does not delay the end.
"""


def sort_events(
    user: np.ndarray, item: np.ndarray, users: int, time: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sort events by (user, item, time, value), and return the order as two arrays.

    The arrays are ``begins``, int64[users + 1], and ``order``, int32[n] (int64 for 2^31 events or
    more). The positions of the events of user u, sorted, are ``order[begins[u] : begins[u + 1]]``.
    Events that are equal in all four columns stay in the order of the log.

    Args:
        user, item: int[n], the row numbers of the user and of the item of each event.
        users: number of users. All numbers in ``user`` are below it.
        time, value: float or int[n], the time and the value of each event.
    """
    # Narrow integers would each have loops of their own compiled.
    user, item = (rows.astype(np.promote_types(rows.dtype, np.int32), copy=False) for rows in (user, item))
    begins = np.zeros(users + 1, dtype=np.int64)
    _count_events(user, begins)
    row_dtype: type = np.int64
    if len(user) < 2**31:
        row_dtype = np.int32
    order: np.ndarray = np.empty(len(user), dtype=row_dtype)
    _run_parts(_place_rows, _user_parts(begins, 1), user, begins, order)
    _run_parts(_sort_users, _user_parts(begins), begins, order, item, time, value)
    return begins, order


def aggregate_pairs(
    begins: np.ndarray,
    order: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    value: np.ndarray,
    method: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Combine the events of each (user, item) pair, and return one entry per pair in four arrays.

    The arrays are the user row (int32), the item row (int32), the combined value (float32) and the
    latest time (int64, rounded down) of each pair, in the order of (user, item).

    Args:
        begins, order: the result of :func:`sort_events`.
        item, time, value: the columns of the events, as for :func:`sort_events`.
        method: how values are combined: ``SUM``, ``LAST``, ``MAX`` or ``COUNT``.
    """
    # After the cumulative sum, entry u is the number of pairs of all users before u.
    pair_offsets = np.zeros(len(begins), dtype=np.int64)
    _run_parts(_count_pairs, _user_parts(begins), begins, order, item, pair_offsets)
    np.cumsum(pair_offsets, out=pair_offsets)
    n = pair_offsets[-1]
    columns = (
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.empty(n, np.float32),
        np.empty(n, np.int64),
    )
    _run_parts(
        _write_pairs,
        _user_parts(begins),
        begins,
        pair_offsets,
        order,
        item,
        time,
        value,
        method,
        *columns,
    )
    return columns


def aggregate_user(
    item: np.ndarray, time: np.ndarray, value: np.ndarray, method: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return :func:`aggregate_pairs` of the events of one user, in any order: the arrays item, value and time.

    It calls compiled code once, because a server does it for each request.

    Args:
        item: int32[n], the row of the item of each event.
        time, value: float64[n].
        method: as for :func:`aggregate_pairs`.
    """
    return _aggregate_user(item, time, value, method)  # type: ignore[no-any-return]


def last_of_session(
    begins: np.ndarray,
    order: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    kind: np.ndarray,
    seconds: float,
) -> np.ndarray:
    """Return bool[n]: whether each event of a log is the last event of its session.

    An event is not the last one if a later event in the sorted order has the same user, item and
    kind, and is at most ``seconds`` later. "Later" refers to the order of :func:`sort_events`.

    Args:
        begins, order: the result of :func:`sort_events`.
        item, time, kind: [n], the item, the time in seconds and the number of the event type of
            each event.
        seconds: the longest pause within a session.
    """
    last = np.ones(len(order), dtype=np.bool_)
    _run_parts(_mark_followed, _user_parts(begins), begins, order, item, time, kind, seconds, last)
    return last


def count_distinct(begins: np.ndarray, order: np.ndarray, columns: list[np.ndarray]) -> int:
    """Return the number of sorted events that differ from the event before them.

    Two events differ if they have different users or different values in at least one of
    ``columns``.

    Args:
        begins, order: the result of :func:`sort_events`.
        columns: arrays [n], in the order of the log.
    """
    first = np.zeros(len(order), dtype=np.bool_)
    first[begins[:-1][np.diff(begins) > 0]] = True
    for column in columns:
        _run_parts(_mark_changes, _equal_parts(len(order)), order, column, first)
    return int(np.count_nonzero(first))


def contains_pairs(begins: np.ndarray, item: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return bool[m]: whether each of m (user, item) pairs is in a sorted table of pairs.

    Args:
        begins, item: the sorted table. The items of user u are ``item[begins[u] : begins[u + 1]]``,
            ascending.
        users, items: int[m], the rows of the user and of the item of each pair to look for.
    """
    contained = np.zeros(len(users), dtype=np.bool_)
    _run_parts(_search_pairs, _equal_parts(len(users)), begins, item, users, items, contained)
    return contained


def keys_contain(user: np.ndarray, item: np.ndarray, width: int, keys: np.ndarray) -> np.ndarray:
    """Return bool[n]: whether the key user × ``width`` + item of each (user, item) pair is in
    ``keys``.

    The result is False for a pair whose user or item is -1.

    Args:
        user, item: int[n], rows, or -1 for an unknown user or item.
        width: the number of items.
        keys: int64, ascending.
    """
    contained = np.zeros(len(user), dtype=np.bool_)
    _run_parts(_search_keys, _equal_parts(len(user)), user, item, width, keys, contained)
    return contained


def _run_parts(loop: Callable[..., None], bounds: np.ndarray, *arguments: Any) -> None:
    """Call ``loop(low, high, *arguments)`` for each part of a range, on several threads.

    A part is the range between two neighbouring entries of ``bounds``. If there is only one part,
    it runs in the calling thread.
    """
    parts = list(pairwise(bounds.tolist()))
    if len(parts) == 1:
        loop(*parts[0], *arguments)
        return
    with ThreadPoolExecutor(get_num_threads()) as cores:
        for _ in cores.map(lambda part: loop(*part, *arguments), parts):
            pass


def _equal_parts(n: int) -> np.ndarray:
    """Return int64[parts + 1], bounds that divide n rows equally: one part per thread, or one if
    few.
    """
    parts = 1
    if n >= LONG:
        parts = get_num_threads()
    return np.linspace(0, n, parts + 1).astype(np.int64)


def _user_parts(begins: np.ndarray, per_core: int = SHARES) -> np.ndarray:
    """Return int64[parts + 1], bounds that divide the users into parts with about equal events."""
    if begins[-1] < LONG:
        return np.array([0, len(begins) - 1])
    parts = per_core * get_num_threads()
    inner = np.searchsorted(begins[:-1], np.linspace(0, begins[-1], parts + 1)[1:-1])
    return np.concatenate([[0], inner, [len(begins) - 1]]).astype(np.int64)


@njit(cache=True, nogil=True)
def _count_events(user: np.ndarray, begins: np.ndarray) -> None:
    """Fill ``begins``, int64[users + 1] of zeros, with the position of the first event of each
    user.
    """
    for row in range(len(user)):
        begins[user[row] + 1] += 1
    for position in range(1, len(begins)):
        begins[position] += begins[position - 1]


@njit(cache=True, nogil=True)
def _place_rows(low: int, high: int, user: np.ndarray, begins: np.ndarray, order: np.ndarray) -> None:
    """Group the positions of events by user in ``order``, for the users ``low … high - 1``.

    The positions of user u are written to ``order[begins[u] : begins[u + 1]]``, ascending.
    """
    free = begins[low:high].copy()
    for row in range(len(user)):
        if low <= user[row] < high:
            order[free[user[row] - low]] = row
            free[user[row] - low] += 1


@njit(cache=True, nogil=True)
def _sort_users(
    low: int,
    high: int,
    begins: np.ndarray,
    order: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    value: np.ndarray,
) -> None:
    """Sort the positions of each user ``low … high - 1`` in ``order`` by (item, time, value)."""
    for user in range(low, high):
        rows = order[begins[user] : begins[user + 1]]
        keys = np.empty(len(rows), dtype=np.int64)
        for position in range(len(rows)):
            # One integer sort orders by item and keeps the first order of equal items.
            keys[position] = (np.int64(item[rows[position]]) << 32) | position
        keys.sort()
        copy_values(rows[keys & 0xFFFFFFFF], rows)
        start = 0
        for position in range(1, len(rows) + 1):
            if position == len(rows) or keys[position] >> 32 != keys[start] >> 32:
                if position - start > 1:
                    _sort_ties(rows[start:position], time, value)
                start = position


@njit(cache=True, nogil=True)
def _sort_ties(rows: np.ndarray, time: np.ndarray, value: np.ndarray) -> None:
    """Sort ``rows``, the positions of the events of one pair, in place by (time, value)."""
    # Two stable sorts, the less important key first, order by (time, value).
    by_value = rows[np.argsort(value[rows], kind="mergesort")]
    copy_values(by_value[np.argsort(time[by_value], kind="mergesort")], rows)


@njit(cache=True, nogil=True)
def _count_pairs(
    low: int, high: int, begins: np.ndarray, order: np.ndarray, item: np.ndarray, pairs: np.ndarray
) -> None:
    """Write the number of pairs of each user u in ``low … high - 1`` to ``pairs[u + 1]``."""
    for user in range(low, high):
        for position in range(begins[user], begins[user + 1]):
            pairs[user + 1] += position == begins[user] or item[order[position]] != item[order[position - 1]]


@njit(cache=True, nogil=True)
def _write_pairs(
    low: int,
    high: int,
    begins: np.ndarray,
    pairs: np.ndarray,
    order: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    value: np.ndarray,
    method: int,
    users: np.ndarray,
    items: np.ndarray,
    values: np.ndarray,
    times: np.ndarray,
) -> None:
    """Combine the events of each pair of the users ``low … high - 1``, and write one entry per
    pair.

    A sum is computed in float64, from 0.0, in the sorted order of the events, and is rounded to
    float32 once.

    Args:
        pairs: int64[users + 1], the number of pairs of all users before each user.
        users, items, values, times: the arrays of the result, as :func:`aggregate_pairs` returns
            them.
    """
    entry = pairs[low] - 1
    total = 0.0
    for user in range(low, high):
        for position in range(begins[user], begins[user + 1]):
            row = order[position]
            if position == begins[user] or item[row] != item[order[position - 1]]:
                entry += 1
                users[entry] = user
                items[entry] = item[row]
                total = -np.inf if method == MAX else 0.0
            if method == SUM:
                total += value[row]
            elif method == COUNT:
                total += 1.0
            elif method == LAST:
                total = value[row]
            else:
                total = max(total, value[row])
            values[entry] = total
            times[entry] = np.int64(np.floor(time[row]))


@njit(cache=True, nogil=True)
def _aggregate_user(
    item: np.ndarray, time: np.ndarray, value: np.ndarray, method: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the result of :func:`aggregate_user`."""
    begins = np.array([0, len(item)])
    order = np.arange(len(item)).astype(np.int32)
    _sort_users(0, 1, begins, order, item, time, value)
    offsets = np.zeros(2, dtype=np.int64)
    _count_pairs(0, 1, begins, order, item, offsets)
    n = offsets[1]
    items = np.empty(n, dtype=np.int32)
    values = np.empty(n, dtype=np.float32)
    times = np.empty(n, dtype=np.int64)
    users = np.empty(n, dtype=np.int32)
    _write_pairs(0, 1, begins, offsets, order, item, time, value, method, users, items, values, times)
    return items, values, times


@njit(cache=True, nogil=True)
def _mark_followed(
    low: int,
    high: int,
    begins: np.ndarray,
    order: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    kind: np.ndarray,
    seconds: float,
    last: np.ndarray,
) -> None:
    """Set ``last`` to False for events that another event of the same session follows.

    It does so for the users ``low … high - 1``. The rule is that of :func:`last_of_session`.
    """
    for user in range(low, high):
        for position in range(begins[user], begins[user + 1]):
            row = order[position]
            for next_row in order[position + 1 : begins[user + 1]]:
                if item[next_row] != item[row] or np.float64(time[next_row]) - np.float64(time[row]) > seconds:
                    break
                if kind[next_row] == kind[row]:
                    last[row] = False
                    break


@njit(cache=True, nogil=True)
def _mark_changes(low: int, high: int, order: np.ndarray, column: np.ndarray, first: np.ndarray) -> None:
    """Set ``first`` to True at the sorted positions whose value in ``column`` differs from the one
    before.
    """
    for position in range(max(low, 1), high):
        first[position] |= column[order[position]] != column[order[position - 1]]


@njit(cache=True, nogil=True)
def _search_pairs(
    low: int,
    high: int,
    begins: np.ndarray,
    item: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    contained: np.ndarray,
) -> None:
    for row in range(low, high):
        start = begins[users[row]]
        end = begins[users[row] + 1]
        position = start + np.searchsorted(item[start:end], items[row])
        contained[row] = position < end and item[position] == items[row]


@njit(cache=True, nogil=True)
def _search_keys(
    low: int,
    high: int,
    user: np.ndarray,
    item: np.ndarray,
    width: int,
    keys: np.ndarray,
    contained: np.ndarray,
) -> None:
    for row in range(low, high):
        if user[row] >= 0 and item[row] >= 0:
            key = np.int64(user[row]) * width + item[row]
            position = np.searchsorted(keys, key)
            contained[row] = position < len(keys) and keys[position] == key
