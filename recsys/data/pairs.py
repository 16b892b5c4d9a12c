"""Events in the order (user, item, time, value), and one entry a pair: compiled, for logs of a hundred million events.

Rows are counted into their users, then sorted within each user, so that nothing as long as the log is copied: the
order itself takes four bytes an event. Users are shared out over cores; results never depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numba import get_num_threads, njit

SUM, LAST, MAX, COUNT = range(4)
LONG = 1 << 18
SHARES = 16
"""Parts a core, so that one with a busy user does not hold up the others."""


def sort_events(
    user: np.ndarray, item: np.ndarray, users: int, time: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (int64[users + 1] where each user begins, int32[n] the events by (user, item, time, value)).

    ``user``, ``item``: int[n] rows from 0, those of users below ``users``.
    """
    begins = np.zeros(users + 1, dtype=np.int64)
    _count(user, begins)
    order = np.empty(len(user), dtype=np.int32 if len(user) < 2**31 else np.int64)
    _each(_scatter, _shares(begins, 1), user, begins, order)
    _each(_sort, _shares(begins), begins, order, item, time, value)
    return begins, order


def aggregate_pairs(
    begins: np.ndarray, order: np.ndarray, item: np.ndarray, time: np.ndarray, value: np.ndarray, how: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (int32 user, int32 item, float32 value, int64 latest time) of each pair.

    ``begins, order``: as of :func:`sort_events`.
    """
    pairs = np.zeros(len(begins), dtype=np.int64)  # of the users before
    _each(_count_pairs, _shares(begins), begins, order, item, pairs)
    np.cumsum(pairs, out=pairs)
    n = pairs[-1]
    found = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.int64)
    _each(_reduce, _shares(begins), begins, pairs, order, item, time, value, how, *found)
    return found


def last_of_session(
    begins: np.ndarray, order: np.ndarray, item: np.ndarray, time: np.ndarray, kind: np.ndarray, seconds: float
) -> np.ndarray:
    """Return bool[n]: which events, :func:`sort_events`, no event of their pair and kind follows within ``seconds``."""
    last = np.ones(len(order), dtype=np.bool_)
    _each(_mark_followed, _shares(begins), begins, order, item, time, kind, seconds, last)
    return last


def count_distinct(begins: np.ndarray, order: np.ndarray, columns: list[np.ndarray]) -> int:
    """Return how many events in order differ from the one before them, in the user or in any of the columns."""
    first = np.zeros(len(order), dtype=np.bool_)
    first[begins[:-1][np.diff(begins) > 0]] = True
    for column in columns:
        _each(_mark_changes, _evenly(len(order)), order, column, first)
    return int(np.count_nonzero(first))


def contains_pairs(begins: np.ndarray, item: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return bool[m]: which of m pairs occur among pairs that are sorted, ``item`` from ``begins`` of each user."""
    found = np.zeros(len(users), dtype=np.bool_)
    _each(_search, _evenly(len(users)), begins, item, users, items, found)
    return found


def keys_contain(user: np.ndarray, item: np.ndarray, width: int, keys: np.ndarray) -> np.ndarray:
    """Return bool[n]: which events have user × width + item among the sorted keys; -1 is no user, and no item."""
    found = np.zeros(len(user), dtype=np.bool_)
    _each(_search_keys, _evenly(len(user)), user, item, width, keys, found)
    return found


def _each(loop: Callable[..., None], bounds: np.ndarray, *arguments: Any) -> None:
    """Run ``loop(low, high, …)`` between all bounds, on all cores; a short log is not worth a thread."""
    parts = list(pairwise(bounds.tolist()))
    if len(parts) == 1:
        loop(*parts[0], *arguments)
        return
    with ThreadPoolExecutor(get_num_threads()) as cores:
        for _ in cores.map(lambda part: loop(*part, *arguments), parts):
            pass


def _evenly(n: int) -> np.ndarray:
    return np.linspace(0, n, (get_num_threads() if n >= LONG else 1) + 1).astype(np.int64)


def _shares(begins: np.ndarray, a_core: int = SHARES) -> np.ndarray:
    """Return the users at which each of several parts of about the same number of events begins, and the end."""
    parts = a_core * get_num_threads() if begins[-1] >= LONG else 1
    inner = np.searchsorted(begins[:-1], np.linspace(0, begins[-1], parts + 1)[1:-1])
    return np.concatenate([[0], inner, [len(begins) - 1]]).astype(np.int64)


@njit(cache=True, nogil=True)
def _count(user: np.ndarray, begins: np.ndarray) -> None:
    for row in range(len(user)):
        begins[user[row] + 1] += 1
    for place in range(1, len(begins)):
        begins[place] += begins[place - 1]


@njit(cache=True, nogil=True)
def _scatter(low: int, high: int, user: np.ndarray, begins: np.ndarray, order: np.ndarray) -> None:
    """Put the row of each event of these users among those of its user."""
    free = begins[low:high].copy()
    for row in range(len(user)):
        if low <= user[row] < high:
            order[free[user[row] - low]] = row
            free[user[row] - low] += 1


@njit(cache=True, nogil=True)
def _sort(
    low: int, high: int, begins: np.ndarray, order: np.ndarray, item: np.ndarray, time: np.ndarray, value: np.ndarray
) -> None:
    for user in range(low, high):
        rows = order[begins[user] : begins[user + 1]]
        keys = np.empty(len(rows), dtype=np.int64)
        for place in range(len(rows)):
            keys[place] = (np.int64(item[rows[place]]) << 32) | place
        keys.sort()
        rows[:] = rows[keys & 0xFFFFFFFF]
        start = 0
        for place in range(1, len(rows) + 1):
            if place == len(rows) or keys[place] >> 32 != keys[start] >> 32:
                if place - start > 1:
                    _sort_ties(rows[start:place], time, value)
                start = place


@njit(cache=True, nogil=True)
def _sort_ties(rows: np.ndarray, time: np.ndarray, value: np.ndarray) -> None:
    rows[:] = rows[np.argsort(value[rows], kind="mergesort")]
    rows[:] = rows[np.argsort(time[rows], kind="mergesort")]


@njit(cache=True, nogil=True)
def _count_pairs(
    low: int, high: int, begins: np.ndarray, order: np.ndarray, item: np.ndarray, pairs: np.ndarray
) -> None:
    for user in range(low, high):
        for place in range(begins[user], begins[user + 1]):
            pairs[user + 1] += place == begins[user] or item[order[place]] != item[order[place - 1]]


@njit(cache=True, nogil=True)
def _reduce(
    low: int,
    high: int,
    begins: np.ndarray,
    pairs: np.ndarray,
    order: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    value: np.ndarray,
    how: int,
    users: np.ndarray,
    items: np.ndarray,
    values: np.ndarray,
    times: np.ndarray,
) -> None:
    """Write one entry a pair; a sum adds in float64, in order, from 0, and is rounded once."""
    entry, total = pairs[low] - 1, 0.0
    for user in range(low, high):
        for place in range(begins[user], begins[user + 1]):
            row = order[place]
            if place == begins[user] or item[row] != item[order[place - 1]]:
                entry += 1
                users[entry], items[entry] = user, item[row]
                total = -np.inf if how == MAX else 0.0
            if how == SUM:
                total += value[row]
            elif how == COUNT:
                total += 1.0
            else:
                total = value[row] if how == LAST else max(total, value[row])
            values[entry] = total
            times[entry] = np.int64(np.floor(time[row]))


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
    for user in range(low, high):
        for place in range(begins[user], begins[user + 1]):
            row = order[place]
            for later in order[place + 1 : begins[user + 1]]:
                if item[later] != item[row] or np.float64(time[later]) - np.float64(time[row]) > seconds:
                    break
                if kind[later] == kind[row]:
                    last[row] = False
                    break


@njit(cache=True, nogil=True)
def _mark_changes(low: int, high: int, order: np.ndarray, column: np.ndarray, first: np.ndarray) -> None:
    for place in range(max(low, 1), high):
        first[place] |= column[order[place]] != column[order[place - 1]]


@njit(cache=True, nogil=True)
def _search(
    low: int,
    high: int,
    begins: np.ndarray,
    item: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    found: np.ndarray,
) -> None:
    for row in range(low, high):
        start, end = begins[users[row]], begins[users[row] + 1]
        place = start + np.searchsorted(item[start:end], items[row])
        found[row] = place < end and item[place] == items[row]


@njit(cache=True, nogil=True)
def _search_keys(
    low: int, high: int, user: np.ndarray, item: np.ndarray, width: int, keys: np.ndarray, found: np.ndarray
) -> None:
    for row in range(low, high):
        if user[row] >= 0 and item[row] >= 0:
            key = np.int64(user[row]) * width + item[row]
            place = np.searchsorted(keys, key)
            found[row] = place < len(keys) and keys[place] == key
