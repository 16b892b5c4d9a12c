"""The few frozen types that cross rooms. Arrays are never changed in place once inside one of
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.schema import canonical_int64, is_category, is_text

SHORTFALL = ("none", "small_catalogue", "all_seen", "filtered", "cold_no_fallback")
"""Why a list is shorter than k; ``TopK.shortfall`` holds positions in this tuple."""


@dataclass(frozen=True)
class IdMap:
    """External ids, sorted, against rows ``0 … n-1``.

    Inside, ids are ``int64`` or ``str``; ``dtype`` remembers what the input used (``int32``, say)
    and :meth:`ids_of` hands that back. Integers sort as numbers, text by code point (Spark's order
    too).

    >>> films = IdMap.of(np.array([30, 10, 20, 10], dtype=np.int32))
    >>> films.rows([20, 99])
    array([ 1, -1])
    >>> films.ids_of([2, 0])
    array([30, 10], dtype=int32)
    """

    ids: pd.Index
    dtype: np.dtype = field(default=np.dtype(object))

    @classmethod
    def of(cls, *columns: Any) -> IdMap:
        """Build the map of every id that occurs in ``columns`` (arrays, Series or lists of ids of
        one kind).

        Raises:
            InputError: an id is missing, a float, or text and numbers are mixed.
        """
        parts = [_distinct(column) for column in columns if len(column)]
        if not parts:
            return cls(pd.Index([], dtype=np.int64), np.dtype(np.int64))
        if len({part.dtype == object for part in parts}) > 1:
            raise InputError("some ids are text and some are numbers: make them one kind (text is safest)")
        ids = parts[0]
        for part in parts[1:]:
            ids = ids.union(part, sort=False)
        kinds = [_dtype(column) for column in columns if len(column)]
        dtype = np.dtype(object)
        if ids.dtype != object:
            dtype = np.result_type(*kinds)
        return cls(ids.sort_values(), dtype)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Any) -> np.ndarray:
        """Return ``int64[len(ids)]`` rows, -1 where an id is unknown.

        Text is looked up among integer ids when it is their canonical decimal form ("7", not
        "007").

        Raises:
            InputError: numbers are looked up among text ids.
        """
        if not len(ids):
            return np.empty(0, dtype=np.int64)
        if is_category(ids):
            return self.rows_int32(ids).astype(np.int64)
        values = _as_int64_or_text(ids)
        if not len(self):
            return np.full(len(values), -1, dtype=np.int64)
        if self.ids.dtype == object and values.dtype != object:
            raise InputError("the known ids are text, but numbers were given: pass the ids as text")
        if self.ids.dtype != object and values.dtype == object:
            numbers, is_canonical = canonical_int64(values)
            return np.where(is_canonical, self.ids.get_indexer(numbers), -1).astype(np.int64)
        return self.ids.get_indexer(values).astype(np.int64)

    def rows_int32(self, ids: Any) -> np.ndarray:
        """Return :meth:`rows` as int32; of categories, without anything of eight bytes an id in
        between.
        """
        if not is_category(ids):
            return self.rows(ids).astype(np.int32)
        codes = ids.array.codes
        # The last entry is for null, whose code is -1.
        of_category = np.append(self.rows(ids.array.categories), -1).astype(np.int32)
        rows = np.empty(len(codes), dtype=np.int32)
        for part in _parts(len(codes)):
            rows[part] = of_category[codes[part]]
        return rows

    def ids_of(self, rows: Any) -> np.ndarray:
        """Return the ids of ``rows`` (any shape, each ≥ 0) in the dtype of the input."""
        return self.ids.to_numpy()[np.asarray(rows, dtype=np.int64)].astype(self.dtype, copy=False)

    @property
    def all_ids(self) -> np.ndarray:
        """The ids of all rows, in order, in the dtype of the input."""
        return self.ids.to_numpy().astype(self.dtype, copy=False)


def _parts(n: int) -> Iterator[slice]:
    """Yield slices of n rows: numpy takes eight bytes for each place that it looks up."""
    return (slice(start, start + (1 << 20)) for start in range(0, n, 1 << 20))


def _dtype(ids: Any) -> np.dtype:
    if is_category(ids):
        return ids.array.categories.dtype
    return np.asarray(ids).dtype


def _distinct(ids: Any) -> pd.Index:
    if not is_category(ids):
        return pd.Index(_as_int64_or_text(ids)).unique()
    codes = ids.array.codes
    used = np.zeros(len(ids.array.categories), dtype=bool)
    for part in _parts(len(codes)):
        used[codes[part]] = True
    return pd.Index(_as_int64_or_text(ids.array.categories))[used]


def _as_int64_or_text(ids: Any) -> np.ndarray:
    """Return ids as int64 or as an object array of ``str``; refuse anything else."""
    if hasattr(ids, "to_numpy"):
        values = ids.to_numpy()
    else:
        values = np.asarray(ids)
    if values.dtype.kind in "iu":
        if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
            raise InputError("an unsigned id does not fit in 64 signed bits: pass the ids as text")
        return values.astype(np.int64, copy=False)
    values = values.astype(object)
    if not is_text(values):
        raise InputError("ids must all be integers or all be text, and none may be missing")
    return values


@dataclass(frozen=True)
class Interactions:
    """``n`` weighted (user, item) entries, sorted by (user, item), at most one an entry.

    ``user``, ``item``: int32[n] rows of ``users`` and ``items``. ``value``: float32[n], finite;
    preference p = 1 iff value > 0, confidence 1 + α|value|, so that a negative value is a dislike
    and an explicit zero counts as seen. ``time``: int64[n], seconds since 1970 of the latest event,
    -1 where unknown.
    """

    users: IdMap
    items: IdMap
    user: np.ndarray
    item: np.ndarray
    value: np.ndarray
    time: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.user) == len(self.item) == len(self.value) == len(self.time):
            raise ValueError("user, item, value and time must have one length")
        same_user = self.user[1:] == self.user[:-1]
        if not np.all((self.user[1:] > self.user[:-1]) | (same_user & (self.item[1:] > self.item[:-1]))):
            raise ValueError(
                "entries must be sorted by (user, item) and unique: use recsys.data.weigh.aggregate_events"
            )

    def __len__(self) -> int:
        return len(self.user)

    def matrix(self) -> csr_array:
        """Return float32 values as (users, items); indices are sorted and explicit zeros stay
        stored.
        """
        shape = (len(self.users), len(self.items))
        indptr = np.zeros(shape[0] + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.user, minlength=shape[0]), out=indptr[1:])
        # scipy converts both index arrays if they differ in dtype, so they are made alike here.
        index: type = np.int64
        if len(self) < np.iinfo(np.int32).max:
            index = np.int32
        return csr_array((self.value, self.item.astype(index, copy=False), indptr.astype(index)), shape=shape)

    def histories(self) -> Histories:
        """Return each user's history: the values of :meth:`matrix` with the times of the same
        entries.
        """
        times = None
        if (self.time >= 0).any():
            times = self.time
        return Histories(self.matrix(), times)


@dataclass(frozen=True, eq=False)
class Histories:
    """What is known of ``m`` users when a model scores items for them: one row per user.

    ``values``: csr (m, items) of float32 with sorted indices. Every stored entry was seen; a value
    > 0 is a like. ``times``: int64[nnz], seconds since 1970 of the entries of ``values``, in the
    same order, -1 where unknown; None where no event has a time. Of a pair with several events it
    is the time of the latest.

    A model that ignores order reads ``values`` and pays nothing for the times.

    >>> values = csr_array(np.array([[5.0, 0.0, 1.0], [0.0, 2.0, 0.0]], dtype=np.float32))
    >>> histories = Histories(values, np.array([90, 30, 60]))
    >>> histories.positions().tolist()
    [1, 0, 0]
    >>> histories.first(1).values.toarray().tolist()
    [[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]]
    """

    values: csr_array
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.times is None:
            self.values.sort_indices()
        elif len(self.times) != self.values.nnz:
            raise ValueError(f"{len(self.times):,} times for {self.values.nnz:,} history entries: give one per entry")
        elif not self.values.has_sorted_indices:
            raise ValueError("history entries must be sorted by item within each row, because times follow their order")

    @classmethod
    def of(cls, histories: Histories | csr_array) -> Histories:
        """Return ``histories`` as they are; a matrix becomes histories without times."""
        if isinstance(histories, cls):
            return histories
        return cls(csr_array(histories))

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(users, items)."""
        return self.values.shape

    @property
    def lengths(self) -> np.ndarray:
        """The number of entries in each row: int[m]."""
        return np.diff(self.values.indptr)

    @property
    def n_liked(self) -> np.ndarray:
        """The number of liked entries (value > 0) in each row: int64[m]."""
        return np.bincount(self.row_of_entry[self.values.data > 0], minlength=len(self))

    @property
    def row_of_entry(self) -> np.ndarray:
        """The row of each stored entry: int64[nnz]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def __getitem__(self, rows: slice | np.ndarray) -> Histories:
        """Return some rows, by a slice or by row numbers ≥ 0; see :meth:`select` for unknown
        users.
        """
        if self.times is None:
            return Histories(self.values[rows])
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                entries = slice(self.values.indptr[start], self.values.indptr[stop])
                return Histories(self.values[rows], self.times[entries])
            rows = np.arange(start, stop, step)
        return self.select(rows)

    def select(self, rows: np.ndarray) -> Histories:
        """Return the histories of ``rows``; row -1, an unknown user, has an empty one. Stored zeros
        are kept.
        """
        selected = select_rows(self.values, rows)
        if self.times is None:
            return Histories(selected)
        entries = csr_array((self.times, self.values.indices, self.values.indptr), shape=self.shape)
        return Histories(selected, select_rows(entries, rows).data)

    def keep_entries(self, keep: np.ndarray) -> Histories:
        """Return the histories with the entries of ``keep`` (bool[nnz]) alone."""
        values = self.values
        indptr = np.concatenate([[0], np.cumsum(keep)])[values.indptr].astype(values.indptr.dtype)
        filtered = csr_array((values.data[keep], values.indices[keep], indptr), shape=values.shape)
        if self.times is None:
            return Histories(filtered)
        return Histories(filtered, self.times[keep])

    def positions(self) -> np.ndarray:
        """Return int64[nnz]: the position of each entry in its user's history, 0 for the oldest.

        Entries of one time are in the order of their item rows, and so are all entries where there
        are no times.
        """
        row = self.row_of_entry
        position = np.arange(self.values.nnz) - self.values.indptr[row]
        if self.times is None:
            return position
        order = np.lexsort((self.values.indices, self.times, row))
        ranked = np.empty_like(position)
        ranked[order] = position
        return ranked

    def first(self, count: int) -> Histories:
        """Return the histories cut to each user's ``count`` oldest entries."""
        return self.keep_entries(self.positions() < count)

    def ages(self) -> np.ndarray:
        """Return float64[nnz]: days from each entry to the latest entry of its row; 0 where a time
        is unknown.
        """
        if self.times is None:
            return np.zeros(self.values.nnz)
        latest = np.full(len(self), -1, dtype=np.int64)
        row = self.row_of_entry
        np.maximum.at(latest, row, self.times)
        return np.where(self.times < 0, 0.0, (latest[row] - self.times) / 86_400)


@dataclass(frozen=True, eq=False)
class Features:
    """``matrix``: csr_array (rows, features) of raw counts or values; ``names``: one a column.

    Rows are those of an item (or user) IdMap. Weighting such as tf-idf belongs to the model. Two
    are equal if they are one and the same.
    """

    matrix: csr_array
    names: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """What a model may learn from, what is known when it predicts, and what it is judged on.

    ``train`` and ``history`` share one item map, the *candidates*: items of train and of the items
    table. ``history`` equals ``train`` except for held-out users. ``test`` has maps of its own,
    because it may hold items that nobody could have recommended; they stay in the denominator of
    every metric. ``rule`` names the split, ``about`` counts it (see
    ``recsys.data.splitting.split``).
    """

    train: Interactions
    history: Interactions
    test: Interactions
    rule: str
    about: dict[str, Any] = field(default_factory=dict)

    def histories(self) -> Histories:
        """Return the histories of the tested users: row i is what is known of ``test.users`` row i,
        often nothing.
        """
        return self.history.histories().select(self.history.users.rows(self.test.users.ids))


def select_rows(matrix: csr_array, rows: np.ndarray) -> csr_array:
    """Return ``matrix[rows]`` where row -1 is an empty row; stored zeros are kept."""
    rows = np.asarray(rows, dtype=np.int64)
    is_known = rows >= 0
    lengths = np.zeros(len(rows), dtype=np.int64)
    lengths[is_known] = np.diff(matrix.indptr)[rows[is_known]]
    part = matrix[rows[is_known]]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(part.indptr.dtype)
    return csr_array((part.data, part.indices, indptr), shape=(len(rows), matrix.shape[1]))


@dataclass(frozen=True)
class TopK:
    """The best ``k`` items of ``m`` users, best first.

    ``users``: int[m] rows of the caller's user map. ``items``: int32[m, k] rows of the item map, -1
    padding at the end. ``scores``: float32[m, k], NaN padding. ``source``: int8[m, k], position in
    ``sources`` of the model that spoke, -1 padding. ``shortfall``: int8[m], position in
    :data:`SHORTFALL`.
    """

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    source: np.ndarray
    sources: tuple[str, ...]
    shortfall: np.ndarray

    def __post_init__(self) -> None:
        m, k = self.items.shape
        if not (self.scores.shape == self.source.shape == (m, k) and len(self.users) == len(self.shortfall) == m):
            raise ValueError("items, scores and source must be [m, k], users and shortfall [m]")


@dataclass(frozen=True)
class Evaluation:
    """``per_user``: DataFrame with ``user_id``, counts, and one float64 column a metric (NaN =
    undefined).

    ``about``: ``definitions`` (metric -> one line) and ``counts`` (users evaluated, undefined,
    short, without a list …).
    """

    name: str
    per_user: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The metric columns, in order."""
        return list(self.about["definitions"])
