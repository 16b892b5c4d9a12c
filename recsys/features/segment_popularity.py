"""Popular by segment: what users of one country (age band, gender …) like, for those of whom nothing else is known.

A *segment* is the users that share the values of some columns of the users table. With several columns, from wide to
narrow, every beginning is a segment too: ``("arvenia",)`` around ``("arvenia", "18-24")``. An item's score is the share
of the segment's users who like it, drawn towards that of the next wider group, in the end everybody:

    score(s, i) = (likers of i in s + m · score(wider, i)) / (users of s + m)

which is the posterior mean under a prior worth ``m`` users (empirical Bayes). A segment of m users is half itself; a
tiny one is next to plain popularity, a large one is all its own. Users count who like something. A user belongs to the
narrowest segment that train knows; one of no known segment is for whoever stands behind, plain popularity.

Both engines count and come here with counts, so that scores and lists are equal. Ties: the lower item row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import run_files
from recsys.errors import ConfigError, InputError, RunFolderError, suggest_nearest
from recsys.schema import USER
from recsys.types import Interactions

MOST_NUMBERS = 50
"""More distinct numbers than this are a quantity, not groups."""

_MISSING = ""
_HINT = "[recommend] segment"

Key = tuple[str, ...]
"""The values of the first columns, as text, up to the first that is missing."""


@dataclass(frozen=True)
class Segments:
    """``columns``: of the users table, from wide to narrow. ``keys``: the segments, sorted.

    ``scores``: float32[segments, items] in [0, 1]. ``users``: the users table: id as text, and the columns as text.
    """

    columns: tuple[str, ...]
    keys: tuple[Key, ...]
    scores: np.ndarray
    users: pd.DataFrame

    @property
    def sources(self) -> tuple[str, ...]:
        """Who is said to speak, one name a number of columns: ``segment:country``, ``segment:country+age``."""
        return tuple(f"segment:{'+'.join(self.columns[: depth + 1])}" for depth in range(len(self.columns)))

    @property
    def row_sources(self) -> tuple[str, ...]:
        """Who is said to speak for each segment."""
        return tuple(self.sources[len(key) - 1] for key in self.keys)

    @property
    def depths(self) -> np.ndarray:
        """Position in ``sources`` of each segment: int8[segments]."""
        return np.array([len(key) - 1 for key in self.keys], dtype=np.int8)

    def rows(self, table: pd.DataFrame) -> np.ndarray:
        """Return int64[len(table)], the narrowest known segment of each row, -1 for none; a column may be absent."""
        row_of = {key: row for row, key in enumerate(self.keys)}
        keys, codes = _keys(table.reindex(columns=list(self.columns)))
        found = [next((row_of[key[:n]] for n in range(len(key), 0, -1) if key[:n] in row_of), -1) for key in keys]
        return np.array(found, dtype=np.int64)[codes]

    def of_users(self, ids: Iterable[Any]) -> np.ndarray:
        """Return int64[ids], the segment that the users table puts each user in, -1 for none."""
        at = pd.Index(self.users[USER]).get_indexer(pd.Index([str(user) for user in ids], dtype=object))
        return np.append(self.rows(self.users), -1)[at]

    def save(self, run: Path) -> None:
        """Write them into a run folder: JSON, ``.npy`` and Parquet."""
        (run / run_files.SEGMENT_FOLDER).mkdir()
        about = {"columns": self.columns, "keys": self.keys}
        (run / run_files.SEGMENTS).write_text(json.dumps(about, ensure_ascii=False) + "\n", encoding="utf-8")
        np.save(run / run_files.SEGMENT_SCORES, self.scores, allow_pickle=False)
        self.users.to_parquet(run / run_files.SEGMENT_USERS, index=False)

    @classmethod
    def load(cls, run: Path) -> Segments | None:
        """Return what :meth:`save` wrote, None where a run has none; a damaged one is a RunFolderError."""
        folder = run / run_files.SEGMENT_FOLDER
        if not folder.exists():
            return None
        try:
            about = json.loads((run / run_files.SEGMENTS).read_text(encoding="utf-8"))
            scores = np.load(run / run_files.SEGMENT_SCORES, allow_pickle=False)
            users = pd.read_parquet(run / run_files.SEGMENT_USERS)
            return cls(tuple(about["columns"]), tuple(map(tuple, about["keys"])), scores, users)
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise RunFolderError(f"{folder}: cannot be read: {error}. Run it again.") from error


def describe_users(table: pd.DataFrame | None, columns: Sequence[str]) -> pd.DataFrame:
    """Return the users table as segments need it: ``user_id`` and ``columns`` as text, a missing value empty.

    Raises:
        ConfigError: there is no users table or no such column, or a column that makes no groups: several values in one
            cell, or more than :data:`MOST_NUMBERS` distinct numbers.
    """
    if table is None:
        raise ConfigError(f"{_HINT}: there is no users table: name one in [data] users, or use fallback = 'popular'.")
    found = {USER: table[USER].astype(str).astype(object)}
    for name in columns:
        if name == USER or name not in table:
            known = suggest_nearest(name, set(table.columns) - {USER})
            raise ConfigError(f"{_HINT}: no column '{name}' to group by in the users table.{known}")
        found[name] = pd.Series(values_as_text(table[name]), index=table.index)
        values = found[name].unique()
        if any("|" in value for value in values):
            raise ConfigError(
                f"{_HINT}: '{name}' has several values in a cell, but a user is in one group: take another."
            )
        numbers = pd.to_numeric(pd.Series([value for value in values if value]), errors="coerce")
        if len(numbers) > MOST_NUMBERS and numbers.notna().all():
            raise ConfigError(
                f"{_HINT}: '{name}' has {len(numbers):,} distinct numbers, which are a quantity and no groups:"
                " add a column of bands (18-24, 25-34 …) to the users table, and name that."
            )
    return pd.DataFrame(found).reset_index(drop=True)


def group_users(
    users: pd.DataFrame, columns: Sequence[str], items: int, memory_mb: int
) -> tuple[list[Key], np.ndarray]:
    """Return the distinct keys of a described users table, and int64[users], the key of each.

    Raises:
        ConfigError: the scores of all segments, 4 · segments · items bytes, are more than ``memory_mb``.
    """
    keys, codes = _keys(users[list(columns)])
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
    """Return the segments of counts.

    Args:
        users: described; it comes along.
        keys: of :func:`group_users`.
        counts: int64[keys], users with exactly this key who like something; csr (keys, items), how many like each.
        share: float64[items], of all users who like something, those who like each.
        prior: m, ≥ 0, in users.
    """
    n, likes = counts
    scores: dict[Key, np.ndarray] = {}
    for depth in range(1, len(columns) + 1):
        inside: dict[Key, list[int]] = {}
        for row, key in enumerate(keys):
            if len(key) >= depth and n[row]:
                inside.setdefault(key[:depth], []).append(row)
        for key, rows in inside.items():
            wider = scores.get(key[:-1], share).astype(np.float64)
            scores[key] = ((likes[rows].sum(axis=0) + prior * wider) / (n[rows].sum() + prior)).astype(np.float32)
    known = sorted(scores)
    stacked = np.stack([scores[key] for key in known]) if known else np.empty((0, len(share)), dtype=np.float32)
    return Segments(tuple(columns), tuple(known), stacked, users)


def fit_segments(
    train: Interactions, table: pd.DataFrame | None, columns: Sequence[str], *, prior: float, memory_mb: int
) -> Segments:
    """Return the segments of a local log.

    >>> from recsys.data.synthetic import checkerboard
    >>> train = checkerboard(4)
    >>> table = pd.DataFrame({"user_id": [0, 1, 2, 3], "country": ["x", "y", "x", "y"]})
    >>> found = fit(train, table, ["country"], prior=0, memory_mb=1)
    >>> found.keys, found.scores.tolist()
    ((('x',), ('y',)), [[0.5, 0.0, 0.5, 0.0], [0.0, 0.5, 0.0, 0.5]])
    """
    users = describe_users(table, columns)
    keys, codes = group_users(users, columns, len(train.items), memory_mb)
    at = pd.Index(users[USER]).get_indexer(pd.Index(train.users.ids.astype(str), dtype=object))
    key_of = np.append(codes, -1)[at]
    liked = train.value > 0
    user, item = train.user[liked], train.item[liked]
    likers = np.unique(user)
    popular = np.bincount(item, minlength=len(train.items)) / max(1, len(likers))
    n = np.bincount(key_of[likers] + 1, minlength=len(keys) + 1)[1:]
    inside = key_of[user] >= 0
    cells = (np.ones(int(inside.sum()), dtype=np.int64), (key_of[user][inside], item[inside]))
    return segments_from_counts(
        users, columns, keys, (n, csr_array(cells, shape=(len(keys), len(train.items)))), popular, prior
    )


def parse_user_attributes(pairs: Iterable[str], segments: Segments) -> dict[str, str]:
    """Return column -> value of ``column=value`` texts.

    Raises:
        InputError: no such column of the segments, or no ``=``.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name.strip() not in segments.columns:
            known = suggest_nearest(name.strip(), segments.columns)
            raise InputError(f"--with {pair}: write column=value, of a column that makes this run's segments.{known}")
        found[name.strip()] = value.strip()
    return found


def _keys(table: pd.DataFrame) -> tuple[list[Key], np.ndarray]:
    """Return the distinct keys of the rows in order of first appearance, and int64[rows], the key of each."""
    cells = pd.DataFrame({name: values_as_text(table[name]) for name in table})
    codes = cells.groupby(list(cells), sort=False).ngroup().to_numpy(dtype=np.int64)
    keys = []
    for values in cells.drop_duplicates().itertuples(index=False, name=None):
        filled = [value != _MISSING for value in values]
        keys.append(tuple(values[: filled.index(False)] if False in filled else values))
    return keys, codes


def values_as_text(column: pd.Series) -> np.ndarray:
    """Return values as text (object), missing ones empty: 25.0 is "25", several values are joined by ``|``."""
    try:
        codes, values = pd.factorize(column)
    except TypeError:  # lists cannot be hashed
        return np.array([value_as_text(value) for value in column], dtype=object)
    return np.array([*map(value_as_text, values), _MISSING], dtype=object)[codes]


def value_as_text(value: Any) -> str:
    """Return one value as :func:`values_as_text` does."""
    if isinstance(value, list | tuple | set | np.ndarray):
        return "|".join(map(value_as_text, value))
    if value is None or value is pd.NA or value != value:
        return _MISSING
    return str(int(value)) if isinstance(value, float | np.floating) and value.is_integer() else str(value).strip()
