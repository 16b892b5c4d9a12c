"""Score items by their popularity in the user's segment, such as a country or an age group.

These scores are for users without a history.

A *segment* is the set of users who have the same values in some columns of the users table. With
several columns, from wide to narrow, every prefix of the values is a segment too: ``("arvenia",)``
contains ``("arvenia", "18-24")``. The score of an item is the share of the users of the segment who
like it, moved towards the score of the next wider segment. The widest segments are moved towards
the share among all users.

    score(s, i) = (users of s who like i + m · score(wider, i)) / (users of s + m)

This is the posterior mean under a prior of ``m`` pseudo-users (empirical Bayes). For example, if a
segment has m users, its score is the mean of the share in the segment and the score of the wider
segment. Only users who like something count. A user belongs to the narrowest segment that occurs in
train. A user without such a segment is scored by the next fallback, the popularity among all users.

The local engine and the Spark engine each count likes and pass the counts to this module, so they
have the same scores and lists. Of items with equal scores, the lower row comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import run_files
from recsys.array_files import read_npy, require_arrays
from recsys.errors import ConfigError, InputError, RunFolderError, suggest_nearest
from recsys.schema import USER
from recsys.types import Interactions

MOST_NUMBERS = 50
"""The largest number of distinct numbers of a column that can group users.

A column with more of them is a quantity, such as an age.
"""

_MISSING = ""
_HINT = "[recommend] segment"

Key = tuple[str, ...]
"""The values that define a segment, as text: those of the columns, up to the first missing one."""


@dataclass(frozen=True)
class Segments:
    """The segments of the users of train, and the scores of the items in each segment.

    Attributes:
        columns: the columns of the users table that define segments, from wide to narrow.
        keys: the values that define each segment, as text, in ascending order.
        scores: float32[segments, items] in [0, 1], in the order of ``keys``.
        users: the users table, with ids and columns as text.
    """

    columns: tuple[str, ...]
    keys: tuple[Key, ...]
    scores: np.ndarray
    users: pd.DataFrame

    @property
    def sources(self) -> tuple[str, ...]:
        """The names by which lists say that a segment scored an item, one per number of columns.

        For the columns country and age, they are ``segment:country`` and ``segment:country+age``.
        """
        return tuple(f"segment:{'+'.join(self.columns[: depth + 1])}" for depth in range(len(self.columns)))

    @property
    def row_sources(self) -> tuple[str, ...]:
        """The name in :attr:`sources` of each segment, in the order of ``keys``."""
        return tuple(self.sources[len(key) - 1] for key in self.keys)

    @property
    def depths(self) -> np.ndarray:
        """The position in :attr:`sources` of each segment, int8[segments]."""
        return np.array([len(key) - 1 for key in self.keys], dtype=np.int8)

    def rows(self, table: pd.DataFrame) -> np.ndarray:
        """Return the narrowest segment of each user, int64[rows]: its position in ``keys``, or -1
        for none.

        Args:
            table: one row per user, with the columns of the segments. A column that is absent
                counts as missing in all rows.
        """
        row_of = self._row_of_key
        keys, codes = _group_keys(table.reindex(columns=list(self.columns)))
        segment_rows = [
            next((row_of[key[:n]] for n in range(len(key), 0, -1) if key[:n] in row_of), -1) for key in keys
        ]
        return np.array(segment_rows, dtype=np.int64)[codes]

    def of_users(self, ids: Iterable[Any]) -> np.ndarray:
        """Return the segment of each user id, int64[ids]: its position in ``keys``, or -1 for none.

        A user who is not in the users table has no segment.

        Args:
            ids: the ids of the users, as text or numbers.
        """
        positions = self._user_index.get_indexer(pd.Index([str(user) for user in ids], dtype=object))
        return self._rows_of_users[positions]

    # What follows depends on the segments alone. A server looks up one user at a time.

    @cached_property
    def _row_of_key(self) -> dict[Key, int]:
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def _user_index(self) -> pd.Index:
        return pd.Index(self.users[USER])

    @cached_property
    def _rows_of_users(self) -> np.ndarray:
        """The segment of each row of the users table, and then -1, for the position -1."""
        return np.append(self.rows(self.users), -1)

    def save(self, run: Path) -> None:
        """Write the segments into the folder ``segment`` of a run folder, as JSON, ``.npy`` and
        Parquet.

        Args:
            run: the run folder.

        Raises:
            OSError: the folder ``segment`` exists already, or a file cannot be written.
        """
        (run / run_files.SEGMENT_FOLDER).mkdir()
        about = {"columns": self.columns, "keys": self.keys}
        (run / run_files.SEGMENTS).write_text(json.dumps(about, ensure_ascii=False) + "\n", encoding="utf-8")
        np.save(run / run_files.SEGMENT_SCORES, self.scores, allow_pickle=False)
        self.users.to_parquet(run / run_files.SEGMENT_USERS, index=False)

    @classmethod
    def load(cls, run: Path) -> Segments | None:
        """Return the segments that :meth:`save` wrote, or None if the run has no segments.

        Args:
            run: the run folder.

        Raises:
            RunFolderError: a file is missing or damaged.
        """
        folder = run / run_files.SEGMENT_FOLDER
        if not folder.exists():
            return None
        try:
            about = json.loads((run / run_files.SEGMENTS).read_text(encoding="utf-8"))
            columns = tuple(about["columns"])
            keys = tuple(map(tuple, about["keys"]))
            scores = read_npy(run / run_files.SEGMENT_SCORES)
            require_arrays({"scores": scores}, {"scores": "float32[segments, items]"}, {"segments": len(keys)})
            users = pd.read_parquet(run / run_files.SEGMENT_USERS)
            missing = {USER, *columns} - set(users.columns)
            if missing or not all(0 < len(key) <= len(columns) for key in keys):
                raise ValueError(f"the segments of {columns} do not fit the users table {list(users.columns)}")
            return cls(columns, keys, scores, users)
        except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
            raise RunFolderError(f"{folder}: cannot be read: {error}. Run it again.") from error


def popularity_below_zero(likers: np.ndarray) -> np.ndarray:
    """Return a score below 0 for each item, float32[items]. More popular items have higher scores.

    The score of an item that p users like is p − (1 + max p).

    Args:
        likers: int[items], the number of users who like each item.

    >>> popularity_below_zero(np.array([3, 0, 5])).tolist()
    [-3.0, -6.0, -1.0]
    """
    return (likers - likers.max(initial=0) - 1).astype(np.float32)


def describe_users(table: pd.DataFrame | None, columns: Sequence[str]) -> pd.DataFrame:
    """Return ``user_id`` and ``columns`` of a users table as text, one row per user.

    Missing values become the empty text.

    Args:
        table: the users table, or None.
        columns: the columns that define segments.

    Raises:
        ConfigError: there is no users table, or it lacks a column; or a column cannot divide users
            into groups, because it has several values in one cell or more than :data:`MOST_NUMBERS`
            distinct numbers.
    """
    if table is None:
        raise ConfigError(f"{_HINT}: there is no users table: name one in [data] users, or use fallback = 'popular'.")
    columns_as_text = {USER: table[USER].astype(str).astype(object)}
    for name in columns:
        if name == USER or name not in table:
            hint = suggest_nearest(name, set(table.columns) - {USER})
            raise ConfigError(f"{_HINT}: no column '{name}' to group by in the users table.{hint}")
        columns_as_text[name] = pd.Series(values_as_text(table[name]), index=table.index)
        values = columns_as_text[name].unique()
        if any("|" in value for value in values):
            raise ConfigError(
                f"{_HINT}: '{name}' has several values in a cell, but a user is in one group: choose another column."
            )
        numbers = pd.to_numeric(pd.Series([value for value in values if value]), errors="coerce")
        if len(numbers) > MOST_NUMBERS and numbers.notna().all():
            raise ConfigError(
                f"{_HINT}: '{name}' has {len(numbers):,} distinct numbers, so it is a quantity and not a grouping:"
                " add a column of ranges (18-24, 25-34 …) to the users table, and name that column."
            )
    return pd.DataFrame(columns_as_text).reset_index(drop=True)


def group_users(
    users: pd.DataFrame, columns: Sequence[str], items: int, memory_mb: int
) -> tuple[list[Key], np.ndarray]:
    """Return the distinct keys of the users, and the position of each user's key, int64[users].

    Keys are in the order in which they first occur. See :data:`Key`.

    Args:
        users: users table of :func:`describe_users`.
        columns: the columns that define segments, from wide to narrow.
        items: the number of items.
        memory_mb: the largest allowed size of the scores, in MiB.

    Raises:
        ConfigError: the scores of all segments, 4 · segments · items bytes, are more than
            ``memory_mb``.
    """
    keys, codes = _group_keys(users[list(columns)])
    n = len({key[:depth] for key in keys for depth in range(1, len(key) + 1)})
    size = 4 * n * items / 2**20
    if size > memory_mb:
        raise ConfigError(
            f"{_HINT}: {n:,} segments × {items:,} items are {size:,.0f} MiB of scores, more than [recommend] memory_mb"
            f" = {memory_mb}: use fewer columns or a wider one (a country, not a town), or raise memory_mb."
        )
    return keys, codes


def segments_from_counts(
    users: pd.DataFrame,
    columns: Sequence[str],
    keys: Sequence[Key],
    counts: tuple[np.ndarray, csr_array],
    share: np.ndarray,
    prior: float,
) -> Segments:
    """Compute the scores of all segments from counts of likes, by the formula of this module.

    The segments are all prefixes of ``keys`` that have at least one user who likes something. They
    are in ascending order. Scores are computed from wide segments to narrow ones, because the score
    of a segment uses that of the next wider segment.

    Args:
        users: users table of :func:`describe_users`, which is stored in the result.
        columns: columns of the users table, from wide to narrow.
        keys: the distinct keys of the users, see :func:`group_users`. Each user has one key.
        counts: two arrays, counted over the users who like something and have exactly this key, not
            a longer one. The first is int64[keys], the number of these users. The second is csr
            (keys, items), the number of them who like each item.
        share: float64[items], the number of users who like each item, divided by the number of
            users who like something. It is the score of all users together.
        prior: m, the number of pseudo-users, ≥ 0.
    """
    n, likes = counts
    scores: dict[Key, np.ndarray] = {}
    for depth in range(1, len(columns) + 1):
        rows_by_segment: dict[Key, list[int]] = {}
        for row, key in enumerate(keys):
            if len(key) >= depth and n[row]:
                rows_by_segment.setdefault(key[:depth], []).append(row)
        for key, rows in rows_by_segment.items():
            parent_scores = scores.get(key[:-1], share).astype(np.float64)
            scores[key] = ((likes[rows].sum(axis=0) + prior * parent_scores) / (n[rows].sum() + prior)).astype(
                np.float32
            )
    sorted_keys = sorted(scores)
    # numpy cannot stack an empty list, and a log in which no user likes anything has no segments.
    stacked = np.empty((0, len(share)), dtype=np.float32)
    if sorted_keys:
        stacked = np.stack([scores[key] for key in sorted_keys])
    return Segments(tuple(columns), tuple(sorted_keys), stacked, users)


def fit_segments(
    train: Interactions,
    table: pd.DataFrame | None,
    columns: Sequence[str],
    *,
    prior: float,
    memory_mb: int,
) -> Segments:
    """Count likes by segment, and return the segments with their scores, on the local engine.

    Args:
        train: the interactions in which likes are counted.
        table: the users table, or None.
        columns: columns of the users table, from wide to narrow.
        prior: m, the number of pseudo-users, ≥ 0.
        memory_mb: the largest size of the scores, in MiB.

    Raises:
        ConfigError: see :func:`describe_users` and :func:`group_users`.

    >>> from recsys.data.synthetic import checkerboard
    >>> train = checkerboard(4)
    >>> table = pd.DataFrame({"user_id": [0, 1, 2, 3], "country": ["x", "y", "x", "y"]})
    >>> segments = fit_segments(train, table, ["country"], prior=0, memory_mb=1)
    >>> segments.keys, segments.scores.tolist()
    ((('x',), ('y',)), [[0.5, 0.0, 0.5, 0.0], [0.0, 0.5, 0.0, 0.5]])
    """
    users = describe_users(table, columns)
    keys, codes = group_users(users, columns, len(train.items), memory_mb)
    positions = pd.Index(users[USER]).get_indexer(pd.Index(train.users.ids.astype(str), dtype=object))
    key_of = np.append(codes, -1)[positions]
    liked = train.value > 0
    user = train.user[liked]
    item = train.item[liked]
    likers = np.unique(user)
    popular = np.bincount(item, minlength=len(train.items)) / max(1, len(likers))
    # Users of no segment have code -1, so the first count is theirs and is left out.
    n = np.bincount(key_of[likers] + 1, minlength=len(keys) + 1)[1:]
    in_segment = key_of[user] >= 0
    cells = (
        np.ones(int(in_segment.sum()), dtype=np.int64),
        (key_of[user][in_segment], item[in_segment]),
    )
    return segments_from_counts(
        users,
        columns,
        keys,
        (n, csr_array(cells, shape=(len(keys), len(train.items)))),
        popular,
        prior,
    )


def parse_user_attributes(pairs: Iterable[str], segments: Segments) -> dict[str, str]:
    """Parse texts such as ``country=arvenia``, and return a dict: column -> value.

    Args:
        pairs: the texts, from the option ``--with``. Of several for one column, the last counts.
        segments: the segments, whose columns may be named.

    Raises:
        InputError: a text has no ``=``, or the segments do not use such a column.
    """
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name.strip() not in segments.columns:
            hint = suggest_nearest(name.strip(), segments.columns)
            raise InputError(
                f"--with {pair}: write column=value, with a column that defines the segments of this run.{hint}"
            )
        values[name.strip()] = value.strip()
    return values


def _group_keys(table: pd.DataFrame) -> tuple[list[Key], np.ndarray]:
    """Return the keys of the users in a table, and the position of each row's key, int64[rows].

    A key has the values of a row, up to the first missing one. Rows with the same values in all
    columns have the same position. Keys are in the order in which they first appear.

    Args:
        table: one row per user; its columns are those that define segments.
    """
    cells = pd.DataFrame({name: values_as_text(table[name]) for name in table})
    codes = cells.groupby(list(cells), sort=False).ngroup().to_numpy(dtype=np.int64)
    keys = []
    for values in cells.drop_duplicates().itertuples(index=False, name=None):
        filled = [value != _MISSING for value in values]
        # A user whose country is missing is not in a segment of that country and an age group.
        if False in filled:
            values = values[: filled.index(False)]
        keys.append(tuple(values))
    return keys, codes


def values_as_text(column: pd.Series) -> np.ndarray:
    """Return the values of a column as text, object[n].

    A missing value is the empty text, 25.0 is "25", and several values in one cell are joined by
    ``|``. Blanks around a value are removed.
    """
    try:
        codes, values = pd.factorize(column)
    except TypeError:  # lists cannot be hashed
        return np.array([value_as_text(value) for value in column], dtype=object)
    return np.array([*map(value_as_text, values), _MISSING], dtype=object)[codes]


def value_as_text(value: Any) -> str:
    """Return one value as text, by the rules of :func:`values_as_text`."""
    if isinstance(value, list | tuple | set | np.ndarray):
        return "|".join(map(value_as_text, value))
    if value is None or value is pd.NA or value != value:
        return _MISSING
    # A column of integers with gaps is one of floats in pandas, and 7.0 must be the 7 of Spark.
    if isinstance(value, float | np.floating) and value.is_integer():
        return str(int(value))
    return str(value).strip()
