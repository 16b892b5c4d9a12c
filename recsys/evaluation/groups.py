"""Compute results for groups of users, and for groups of relevant items.

Users are grouped by the length of their history, or by a column of the users table. Results are
averaged over each group. Relevant items are grouped by popularity, or by a column of the items
table. For a group of items, the lists stay the same, but only the items of the group count as
relevant. So the metric shows how well a model finds the relevant items of this group. It is
undefined for a user without relevant items in the group.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from recsys.errors import ConfigError, suggest_nearest
from recsys.evaluation.judging.metrics import Metric
from recsys.evaluation.testing.significance import Sums
from recsys.evaluation.truth import Truth
from recsys.schema import ITEM, USER
from recsys.types import TopK

LEAST_USERS = 20
"""Smallest number of users in a group for which differences between groups are computed.

Smaller groups are shown, but their bootstrap intervals cannot be trusted.
"""

MOST_LEVELS = 12
"""Largest number of groups of a column, not counting the group ``unknown``.

If a column of numbers has more distinct values, its groups are the four ranges between the
quartiles. If a column of text has more, the rarest texts form one group, ``other``.
"""

UNKNOWN = "unknown"
"""The group of users or items without a value in the column."""
OTHER = "other"
"""The group of the rarest texts of a column, see :data:`MOST_LEVELS`."""

_HISTORY_STARTS = np.array([0, 1, 5, 20])


@dataclass(frozen=True)
class Grouping:
    """A way to divide users or relevant items into groups.

    Attributes:
        name: for example "history", or the name of a column.
        levels: the names of the groups, in the order in which they are shown.
    """

    name: str
    levels: tuple[str, ...]


HISTORY = Grouping("history", ("0", "1-4", "5-19", "20+"))
"""The grouping of users by the number of items in their history when their lists were made: none,
1 to 4, 5 to 19, 20 or more."""

POPULARITY = Grouping("popularity", ("head", "mid", "tail"))
"""The grouping of relevant items by popularity, see :func:`popularity_codes`."""


def history_codes(n_history: np.ndarray) -> np.ndarray:
    """Return the group of each history length, int[m]: its position in the levels of :data:`HISTORY`.

    The group of an unknown (negative) length is -1.

    Args:
        n_history: int[m], the lengths of the histories of m users.

    >>> history_codes(np.array([0, 4, 5, 99, -1])).tolist()
    [0, 1, 2, 3, -1]
    """
    return np.searchsorted(_HISTORY_STARTS, n_history, side="right") - 1


def popularity_codes(likes: np.ndarray) -> np.ndarray:
    """Return the popularity group of each item, int[items]: 0 (head), 1 (mid) or 2 (tail).

    Each group has about a third of all likes. An item is in the head if all more popular items
    together have less than a third of the likes. It is in the middle group if they have at least a
    third, but less than two thirds, and else in the tail. Items with the same number of likes are
    in the same group. An item without likes is in the tail.

    Args:
        likes: int[items], the number of likes of each item.

    >>> popularity_codes(np.array([5, 2, 2, 1, 1, 1, 0])).tolist()
    [0, 1, 1, 2, 2, 2, 2]
    """
    values, index, sizes = np.unique(-np.asarray(likes, dtype=np.int64), return_inverse=True, return_counts=True)
    total_likes = -values * sizes
    likes_of_more_popular = np.cumsum(total_likes) - total_likes
    level = np.searchsorted(np.array([1, 2]) * total_likes.sum(), 3 * likes_of_more_popular, side="right")
    return np.where(values == 0, 2, level)[index]


@dataclass(frozen=True)
class Groups:
    """A grouping of n users or items, with the groups of each of them.

    Attributes:
        grouping: the grouping.
        membership: bool[n, levels], True if user or item i is in group j of ``grouping.levels``.
    """

    grouping: Grouping
    membership: np.ndarray

    @classmethod
    def from_codes(cls, grouping: Grouping, codes: np.ndarray) -> Groups:
        """Return the Groups of n users or items that are each in at most one group.

        Args:
            grouping: the grouping.
            codes: int[n], for each user or item the position of its group in ``grouping.levels``.
                -1: it is in no group.
        """
        return cls(grouping, codes[:, None] == np.arange(len(grouping.levels)))

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the membership of the users or items with these row numbers, bool[len(rows), levels].

        A row number that is negative or too large counts as a member of the last group, which is
        ``unknown`` or ``tail``.

        Args:
            rows: int[], row numbers of ``membership``.
        """
        n = len(self.membership)
        last_level = np.zeros((1, len(self.grouping.levels)), dtype=bool)
        last_level[0, -1] = True
        in_range = np.where((rows < 0) | (rows >= n), n, rows)
        return np.concatenate([self.membership, last_level])[in_range]


def column_groups(name: str, column: pd.Series) -> Groups:
    """Return the groups that a column of a users or items table defines.

    Each distinct text or number of the column is a group. A row whose cell is a list, or a text
    with ``|`` such as "a|b", is in several groups. If there are more than :data:`MOST_LEVELS`
    distinct values, some of them share a group (see there). Rows with a missing or empty cell form
    the last group, ``unknown``.

    Args:
        name: the name of the column, which becomes that of the grouping.
        column: one cell per user or item.

    >>> groups = column_groups("genre", pd.Series(["war", "war|drama", None]))
    >>> groups.grouping.levels
    ('drama', 'war', 'unknown')
    >>> groups.membership.astype(int).tolist()
    [[0, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    cells = [_cell(value) for value in column]
    levels, level_of = _levels(pd.Series([v for cell in cells for v in cell], dtype=object).value_counts())
    membership = np.zeros((len(cells), len(levels) + 1), dtype=bool)
    for row, cell in enumerate(cells):
        membership[row, [level_of[value] for value in cell] or [-1]] = True
    return Groups(Grouping(name, (*levels, UNKNOWN)), membership)


def _cell(value: Any) -> list[str]:
    """Return the values of one cell as texts: several for a list or a text with ``|``, none if it
    is empty."""
    if isinstance(value, list | tuple | np.ndarray):
        return [text for part in value for text in _cell(part)]
    if value is None or value is pd.NA or value != value:
        return []
    if isinstance(value, float | np.floating):
        return [f"{value:g}"]
    return [part for part in (piece.strip() for piece in str(value).split("|")) if part]


def _levels(counts: pd.Series) -> tuple[list[str], dict[str, int]]:
    """Return the names of the groups of a column, and a dict: value -> position of its group.

    Args:
        counts: the number of occurrences of each distinct value, a Series by value.
    """
    numbers = pd.to_numeric(pd.Series(counts.index, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    numeric = bool(len(numbers)) and bool(np.isfinite(numbers).all())
    has_rest = len(counts) > MOST_LEVELS
    if numeric and has_rest:
        edges = np.unique(np.quantile(np.repeat(numbers, counts), [0.25, 0.5, 0.75]))
        bins, codes = np.unique(np.searchsorted(edges, numbers), return_inverse=True)
        parts = [numbers[codes == code] for code in range(len(bins))]
        return [f"{part.min():g} to {part.max():g}" for part in parts], dict(zip(counts.index, codes, strict=True))
    levels = sorted(counts.index, key=lambda value: (-counts[value], value))[: MOST_LEVELS - has_rest]
    levels.sort(key=float if numeric else str)
    level_of = {value: levels.index(value) if value in levels else len(levels) for value in counts.index}
    return levels + [OTHER] * has_rest, level_of


def table_groups(names: list[str], table: pd.DataFrame | None, key: str, ids: Any) -> list[Groups]:
    """Return the groups of users or items that some columns of a table define, one Groups per column.

    Row i of each Groups is the user or item ``ids[i]``. An id that the table does not have is in the
    group ``unknown``. Without a table, the result is empty.

    Args:
        names: the names of the columns.
        table: the users table or the items table, with each id at most once; or None.
        key: the name of the column of the table with the ids.
        ids: the ids of the users or items.
    """
    if table is None:
        return []
    rows = pd.Index(table[key]).get_indexer(pd.Index(ids))
    groups = [column_groups(name, table[name]) for name in names]
    return [Groups(of_column.grouping, of_column.rows(rows)) for of_column in groups]


def assign_columns(
    names: Iterable[str], user_columns: Iterable[str], item_columns: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Divide column names between the users table and the items table.

    The result is (names in the users table, names in the items table), each in the order of
    ``names``.

    Args:
        names: the names to divide.
        user_columns, item_columns: the names of all columns of the two tables.

    Raises:
        ConfigError: a column is in neither table or in both, or has the name of a built-in
            grouping.
    """
    names = list(names)
    of_users = set(user_columns) - {USER}
    of_items = set(item_columns) - {ITEM}
    for name in names:
        if name in (HISTORY.name, POPULARITY.name):
            raise ConfigError(f"[judge] segments: '{name}' is always shown; to use a column of that name, rename it.")
        if name in of_users & of_items:
            raise ConfigError(f"[judge] segments: users and items both have a column '{name}': rename one of them.")
        if name not in of_users | of_items:
            hint = " There is no users or items table."
            if of_users | of_items:
                hint = suggest_nearest(name, of_users | of_items)
            raise ConfigError(f"[judge] segments: no column '{name}' in the users or items table.{hint}")
    return [name for name in names if name in of_users], [name for name in names if name in of_items]


def group_column(metric: Metric | str, grouping: Grouping, level: str) -> str:
    """Return the name of the column with a metric that counts only the items of one group as relevant.

    Args:
        metric: the metric, or its name.
        grouping: the grouping of items.
        level: the name of the group.

    >>> group_column("ndcg@10", POPULARITY, "tail")
    'ndcg@10[popularity=tail]'
    """
    return f"{metric}[{grouping.name}={level}]"


def by_item_group(topk: TopK, truth: Truth, groups: Groups, metric: Metric) -> dict[str, np.ndarray]:
    """Compute a metric for each group of items, with only the items of the group as relevant ones.

    Returns:
        A dict with one entry per group: column name (:func:`group_column`) -> float64[m], one value
        per user, NaN for a user without relevant items in the group.

    Args:
        topk: the lists of m users.
        truth: the relevant items of the same users.
        groups: the groups of the candidates. Relevant items that are not candidates are in the last
            group.
        metric: the metric.
    """
    in_level = groups.rows(truth.relevant.indices)
    return {
        group_column(metric, groups.grouping, level): metric(truth.keep_relevant(in_level[:, code]).judge(topk))
        for code, level in enumerate(groups.grouping.levels)
    }


def gap(sums: Sums, columns: np.ndarray, levels: tuple[str, ...]) -> dict[str, Any]:
    """Return the largest difference of means between two groups of users, a measure of fairness.

    The result is a dict. ``gap`` is the highest mean minus the lowest. ``best`` and ``worst`` are
    the names of these two groups. ``ci95`` is the 95 % interval of the gap, [low, high]. Groups of
    fewer than :data:`LEAST_USERS` users do not count. If fewer than two groups count, the values
    are None, and ``ci95`` is [None, None].

    The interval takes into account that the two groups were chosen because they differ most. It is
    gap ± c · e, where e is the bootstrap standard error of the difference of the two means. To find
    c, each resample gives one number. For every two groups, the deviation of their difference from
    that of the data is divided by its standard error; the number is the largest of these quotients,
    in absolute value. c is the 95 % quantile of these numbers. This is the method of Tukey's range
    test, with errors from the bootstrap. If the true means of all groups are equal, the interval
    excludes 0 in 5 to 7 % of cases (bench/RESULTS.md).

    Args:
        sums: the sums of the values of the metric, one column per group of users. No user is in two
            of the groups.
        columns: int[groups], the column of each group in ``sums``.
        levels: the name of each group.
    """
    large = np.flatnonzero(sums.count[columns] >= LEAST_USERS)
    if len(large) < 2:
        return {"gap": None, "ci95": [None, None], "best": None, "worst": None}
    mean = sums.mean[columns[large]]
    means = sums.resampled_means[:, columns[large]]
    pairs = np.array(list(combinations(range(len(large)), 2)))
    deviation = (means[:, pairs[:, 0]] - mean[pairs[:, 0]]) - (means[:, pairs[:, 1]] - mean[pairs[:, 1]])
    error = deviation.std(axis=0)
    standardised = np.divide(np.abs(deviation), error, out=np.zeros_like(deviation), where=error > 0)
    reach = float(np.quantile(standardised.max(axis=1), 0.95))
    highest = int(mean.argmax())
    lowest = int(mean.argmin())
    picked = np.flatnonzero((pairs == sorted((highest, lowest))).all(axis=1))
    size = float(mean[highest] - mean[lowest])
    half_width = reach * float(error[picked].sum())
    names = [levels[group] for group in large]
    return {
        "gap": size,
        "ci95": [size - half_width, size + half_width],
        "best": names[highest],
        "worst": names[lowest],
    }
