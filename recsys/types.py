"""Define the frozen types that several packages exchange.

Code never changes an array after it has put it into one of these objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.schema import FEW, canonical_int64, canonical_number, is_category, is_text

SHORTFALL = ("none", "small_catalogue", "all_seen", "filtered", "cold_no_fallback")
"""The reasons why a list is shorter than k. ``TopK.shortfall`` has positions in this tuple.

* ``none``: the list is not short.
* ``small_catalogue``: there are fewer than k items.
* ``all_seen``: fewer than k items that the user has not seen have a score.
* ``filtered``: business rules, or a limit to some candidates, removed too many items.
* ``cold_no_fallback``: no model has a score for any item for this user.
"""

TopItems = tuple[np.ndarray, np.ndarray]
"""The lists of m users: the items, int32[m, k], best first and -1 after the last, and their scores, float32[m, k]."""


@dataclass(frozen=True)
class Selection:
    """Which items the lists of m users may have, and how many.

    Attributes:
        k: the length of the lists, ≥ 1.
        excluded: csr (m, items), an entry for each item that the list of a user leaves out. The items of
            a row are ascending.
        candidates: bool[items], the items that may be listed. None: all.
    """

    k: int
    excluded: csr_array
    candidates: np.ndarray | None = None

    def select(self, rows: slice | np.ndarray) -> Selection:
        """Return the selection for some of the users, given by a slice or by row numbers."""
        return Selection(self.k, self.excluded[rows], self.candidates)

    def empty_lists(self) -> TopItems:
        """Return a list without items for each user: -1 and NaN only."""
        shape = (self.excluded.shape[0], self.k)
        return np.full(shape, -1, dtype=np.int32), np.full(shape, np.nan, dtype=np.float32)


@dataclass(frozen=True)
class IdMap:
    """A map between the ids of users or items and the row numbers ``0 … n-1``. Rows are in
    ascending order of the ids.

    The map stores ids as ``int64`` or ``str``. Integers are sorted as numbers. Text is sorted by
    code point, which is the order of Spark as well.

    Attributes:
        ids: the distinct ids in row order, as an Index of int64 or of ``str`` objects.
        dtype: the dtype of the input, for example ``int32``. :meth:`ids_of` returns ids in this
            dtype.

    >>> films = IdMap.from_ids(np.array([30, 10, 20, 10], dtype=np.int32))
    >>> films.rows([20, 99])
    array([ 1, -1])
    >>> films.ids_of([2, 0])
    array([30, 10], dtype=int32)
    """

    ids: pd.Index
    dtype: np.dtype = field(default=np.dtype(object))

    @classmethod
    def from_ids(cls, *columns: Any) -> IdMap:
        """Return the map of all ids that occur in ``columns``.

        Empty columns do not count. Without any id, the map is empty and its dtype is int64. A null
        in a categorical column is not an id.

        Args:
            columns: arrays, Series or lists of ids of one kind: all user ids, or all item ids.

        Raises:
            InputError: some ids are text and some are numbers; an id of a column that is not
                categorical is missing; an id is a float; or an id does not fit in int64.
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
        """Return the row of each id, int64[len(ids)], or -1 for an id that is not in the map.

        If the map has integer ids, text is looked up by its canonical decimal form: "7" is the id
        7, but "007" is not an id of the map. A null in a categorical gives -1.

        Raises:
            InputError: the map has text ids, but ``ids`` are numbers; or ``ids`` has a float, or a
                missing id without being categorical.
        """
        if not len(ids):
            return np.empty(0, dtype=np.int64)
        # A server looks up one user or one history at a time, for which arrays take twice as long.
        if isinstance(ids, list) and len(ids) <= FEW and all(isinstance(value, str) for value in ids):
            return self._rows_of_texts(ids)
        if is_category(ids):
            return self.rows_int32(ids).astype(np.int64)
        values = _as_int64_or_text(ids)
        if not len(self):
            return np.full(len(values), -1, dtype=np.int64)
        if self.ids.dtype == object and values.dtype != object:
            raise InputError("the known ids are text, but numbers were given: pass the ids as text")
        if self.ids.dtype != object and values.dtype == object:
            numbers, is_canonical = canonical_int64(values)
            return np.where(is_canonical, self._positions(numbers), -1)
        return self._positions(values)

    def _rows_of_texts(self, texts: list[str]) -> np.ndarray:
        """Return the same rows as :meth:`rows`, for a short list of texts."""
        is_number = self.ids.dtype != object
        rows = []
        for text in texts:
            try:
                rows.append(self.ids.get_loc(canonical_number(text) if is_number else text))
            except KeyError:
                rows.append(-1)
        return np.array(rows, dtype=np.int64)

    def _positions(self, values: np.ndarray) -> np.ndarray:
        """Return the position of each value in :attr:`ids`, int64[n], or -1."""
        if len(values) > 1:
            return self.ids.get_indexer(values).astype(np.int64)
        # A server looks up one user at a time, and this is ten times as fast.
        try:
            return np.array([self.ids.get_loc(values[0])], dtype=np.int64)
        except KeyError:
            return np.array([-1], dtype=np.int64)

    def rows_int32(self, ids: Any) -> np.ndarray:
        """Return the same rows as :meth:`rows`, but as int32[len(ids)].

        For a categorical column it needs less memory: it never makes an array with eight bytes per
        id.
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
        """Return the id of each row, in the dtype :attr:`dtype` and in the shape of ``rows``.

        Args:
            rows: row numbers in ``0 … n-1``, in any shape. -1 is not allowed.
        """
        return self.ids.to_numpy()[np.asarray(rows, dtype=np.int64)].astype(self.dtype, copy=False)

    @property
    def all_ids(self) -> np.ndarray:
        """The ids of all rows, in row order, in the dtype :attr:`dtype`."""
        return self.ids.to_numpy().astype(self.dtype, copy=False)


def _parts(n: int) -> Iterator[slice]:
    """Yield slices of at most 2^20 rows that together cover n rows.

    An index array takes eight bytes per row in NumPy, so indexing slice by slice saves memory.
    """
    return (slice(start, start + (1 << 20)) for start in range(0, n, 1 << 20))


def _dtype(ids: Any) -> np.dtype:
    if is_category(ids):
        return ids.array.categories.dtype
    return np.asarray(ids).dtype


def _distinct(ids: Any) -> pd.Index:
    if not is_category(ids):
        return pd.Index(_as_int64_or_text(ids)).unique()
    codes = ids.array.codes
    # The last entry is for null, whose code is -1.
    used = np.zeros(len(ids.array.categories) + 1, dtype=bool)
    for part in _parts(len(codes)):
        used[codes[part]] = True
    return pd.Index(_as_int64_or_text(ids.array.categories))[used[:-1]]


def _as_int64_or_text(ids: Any) -> np.ndarray:
    """Return ids as int64, or as an object array of ``str``.

    Raises:
        InputError: an id is missing, does not fit in int64, or is neither an integer nor text.
    """
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
    """``n`` weighted (user, item) pairs, sorted by user and then by item. No pair occurs twice.

    A pair is also called an *entry*.

    Attributes:
        users: the id map of the users.
        items: the id map of the items.
        user: int32[n], the row of the user in ``users``.
        item: int32[n], the row of the item in ``items``.
        value: float32[n], finite. A value > 0 is a like, a value < 0 is a dislike, and 0 only says
            that the user has seen the item. For ALS, the preference p is 1 if value > 0, else 0,
            and the confidence is 1 + α|value|.
        time: int64[n], the time of the latest event of the pair in seconds since 1970, or -1 if it
            is unknown.

    Raises:
        ValueError: the arrays differ in length, or the entries are not sorted, or a pair occurs
            twice.
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
        """Return the values as a csr matrix (users, items) of float32.

        Column indices are sorted within each row. Values of 0 stay stored.
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
        """Return one history per row of ``users``: the entries of :meth:`matrix` with their times.

        If no entry has a known time, ``times`` of the result is None.
        """
        times = None
        if (self.time >= 0).any():
            times = self.time
        return Histories(self.matrix(), times)


@dataclass(frozen=True, eq=False)
class Histories:
    """The histories of ``m`` users at the time when a model scores items for them. Each user is one
    row.

    A model that ignores the order of events reads only ``values``.

    Attributes:
        values: csr (m, items) of float32 with sorted indices. The user has seen every item with a
            stored entry. A value > 0 is a like.
        times: int64[nnz], the time of each stored entry of ``values`` in seconds since 1970, -1 if
            it is unknown. A (user, item) pair with several events has the time of the latest one.
            None if no event has a time.

    Raises:
        ValueError: ``times`` has another length than ``values`` has entries, or ``times`` is given
            and the indices of ``values`` are not sorted.

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

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """The number of users and the number of items."""
        return self.values.shape

    @property
    def lengths(self) -> np.ndarray:
        """The number of entries in each row: int[m]."""
        return np.diff(self.values.indptr)

    @property
    def n_liked(self) -> np.ndarray:
        """The number of liked entries (value > 0) in each row: int64[m]."""
        return self.count_entries(self.values.data > 0)

    def count_entries(self, is_counted: np.ndarray) -> np.ndarray:
        """Return the number of counted entries in each row: int64[m].

        Args:
            is_counted: bool[nnz], one value per stored entry of ``values``.
        """
        # A server asks for one history at a time.
        if len(self) == 1:
            return np.array([np.count_nonzero(is_counted)])
        counts_before = np.concatenate([[0], np.cumsum(is_counted)])[self.values.indptr]
        return counts_before[1:] - counts_before[:-1]

    @property
    def row_of_entry(self) -> np.ndarray:
        """The row of each stored entry: int64[nnz]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def __getitem__(self, rows: slice | np.ndarray) -> Histories:
        """Return the histories of some rows.

        Args:
            rows: a slice, or an array of row numbers ≥ 0. For unknown users, use :meth:`select`.
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
        """Return the histories of ``rows``, in their order. Stored zeros are kept.

        Args:
            rows: int[k], row numbers. -1 stands for an unknown user, whose history is empty.
        """
        selected = select_rows(self.values, rows)
        if self.times is None:
            return Histories(selected)
        # A server asks for one user at a time, for whom a second matrix takes as long as the scores of 10,000 items.
        if len(rows) == 1:
            start, stop = _bounds_of_row(self.values, rows[0])
            return Histories(selected, self.times[start:stop].copy())
        entries = csr_array((self.times, self.values.indices, self.values.indptr), shape=self.shape)
        return Histories(selected, select_rows(entries, rows).data)

    def keep_entries(self, keep: np.ndarray) -> Histories:
        """Return the histories without the entries for which ``keep`` is False.

        The number of rows stays the same, so a history can become empty.

        Args:
            keep: bool[nnz], one value per stored entry of ``values``.
        """
        values = self.values
        indptr = np.concatenate([[0], np.cumsum(keep)])[values.indptr].astype(values.indptr.dtype)
        filtered = csr_array((values.data[keep], values.indices[keep], indptr), shape=values.shape)
        if self.times is None:
            return Histories(filtered)
        return Histories(filtered, self.times[keep])

    def positions(self) -> np.ndarray:
        """Return int64[nnz], the position of each stored entry in its user's history.

        0 is the oldest entry. Entries with equal times are in the order of their item rows. Entries
        with an unknown time (-1) come first. Without times, all entries are in the order of their
        item rows.
        """
        row = self.row_of_entry
        position = np.arange(self.values.nnz) - self.values.indptr[row]
        if self.times is None:
            return position
        # The entries of a row are sorted by item, and the sort is stable.
        order = np.lexsort((self.times, row))
        ranked = np.empty_like(position)
        ranked[order] = position
        return ranked

    def places_from_end(self, counted: np.ndarray) -> np.ndarray:
        """Return the position of each selected entry from the end of its history.

        The result is int64[number of selected entries]. 0 is the latest entry. Only selected
        entries are counted. Entries with equal times are in the order of their item rows. Without
        times the order is unknown, and every position is 0.

        Args:
            counted: bool[nnz], True for the selected entries.
        """
        counted_entries = self.keep_entries(counted)
        if counted_entries.times is None:
            return np.zeros(counted_entries.values.nnz, dtype=np.int64)
        return counted_entries.lengths[counted_entries.row_of_entry] - 1 - counted_entries.positions()

    def first(self, count: int) -> Histories:
        """Return the histories cut to the ``count`` oldest entries of each user.

        "Oldest" is defined by :meth:`positions`. A shorter history stays as it is.
        """
        return self.keep_entries(self.positions() < count)

    def ages(self) -> np.ndarray:
        """Return float64[nnz], the age of each stored entry in days.

        The age is the time from the entry to the latest entry of the same user. It is 0 for an
        entry whose time is unknown, and for all entries without times.
        """
        if self.times is None:
            return np.zeros(self.values.nnz)
        latest = np.full(len(self), -1, dtype=np.int64)
        row = self.row_of_entry
        np.maximum.at(latest, row, self.times)
        return np.where(self.times < 0, 0.0, (latest[row] - self.times) / 86_400)


@dataclass(frozen=True, eq=False)
class Features:
    """The features of items or of users, as a matrix of counts or numbers.

    The values are not weighted: models apply weights such as tf-idf. Two objects are equal only if
    they are the same object.

    Attributes:
        matrix: csr_array (rows, features) of float32. The rows are those of an IdMap of items or of
            users.
        names: the name of each column of ``matrix``, written ``field=value``, for example
            ``genres=drama``. A field is a column of the table that the features come from.
        dense: the names of the fields that are vectors of numbers, such as embeddings, and not
            counts.
        reviews: what people wrote about the items. None if the run has no table of reviews.
    """

    matrix: csr_array
    names: tuple[str, ...]
    dense: tuple[str, ...] = ()
    reviews: Reviews | None = None


@dataclass(frozen=True, eq=False)
class Reviews:
    """What people wrote about the items of a train part, one entry per review.

    Attributes:
        user: int64[n], the row of the user in train, -1 if the review does not say who wrote it or
            train does not have the user.
        item: int64[n], the row of the item.
        text: object[n], the texts.
        score: float64[n], the score of the review. If the review has none, the rating that the user
            gave to the item in train. NaN if there is neither.
        is_filled: bool[n], whether the rating of the pair in train was predicted from the text.
        user_ids: a categorical Series of length n, the id of the user. It is null if the review
            does not say who wrote it.
    """

    user: np.ndarray
    item: np.ndarray
    text: np.ndarray
    score: np.ndarray
    is_filled: np.ndarray
    user_ids: pd.Series

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class Split:
    """The parts of a log: train to learn from, history to score from, and test to judge by.

    Attributes:
        train: the interactions that models learn from.
        history: the interactions that a model may use when it scores: those of ``train``, and
            further events that no model trains on, such as the earlier events of held-out users.
            ``train`` and ``history`` have the same item map. Its items are the *candidates*: the
            items of train and of the items table.
        test: the interactions that models are judged on. It has its own id maps, because it may
            have items that are not candidates. No model could have recommended these items. Metrics
            still count them as relevant.
        rule: the name of the split rule, for example ``time``.
        about: numbers about the split (see :func:`recsys.data.splitting.split.split`).
    """

    train: Interactions
    history: Interactions
    test: Interactions
    rule: str
    about: dict[str, Any] = field(default_factory=dict)

    def histories(self) -> Histories:
        """Return the histories of the tested users, one row per user of ``test.users``.

        A tested user who is not in ``history`` has an empty history.
        """
        return self.history.histories().select(self.history.users.rows(self.test.users.ids))


def select_rows(matrix: csr_array, rows: np.ndarray) -> csr_array:
    """Return ``matrix[rows]`` as csr, where the row number -1 gives an empty row. Stored zeros
    are kept.
    """
    rows = np.asarray(rows, dtype=np.int64)
    is_known = rows >= 0
    # A server asks for one row at a time, which SciPy takes five times as long to select.
    if len(rows) == 1:
        start, stop = _bounds_of_row(matrix, rows[0])
        indptr = np.array([0, stop - start], dtype=matrix.indptr.dtype)
        entries = (matrix.data[start:stop].copy(), matrix.indices[start:stop].copy(), indptr)
        return csr_array(entries, shape=(1, matrix.shape[1]))
    lengths = np.zeros(len(rows), dtype=np.int64)
    lengths[is_known] = np.diff(matrix.indptr)[rows[is_known]]
    part = matrix[rows[is_known]]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(part.indptr.dtype)
    return csr_array((part.data, part.indices, indptr), shape=(len(rows), matrix.shape[1]))


def _bounds_of_row(matrix: csr_array, row: int) -> tuple[int, int]:
    """Return where the entries of a row of a csr matrix start and stop, or (0, 0) for the row -1."""
    if row < 0:
        return 0, 0
    return matrix.indptr[row], matrix.indptr[row + 1]


@dataclass(frozen=True)
class TopK:
    """The lists of ``m`` users: the best ``k`` items of each user, best first.

    Attributes:
        users: int[m], the row of each user in the user map of the caller.
        items: int32[m, k], rows of the item map. A list that is shorter than k has -1 at the end.
        scores: float32[m, k], NaN where ``items`` is -1.
        source: int8[m, k], the position in ``sources`` of the model that gave the score, -1 where
            ``items`` is -1.
        sources: the names of the models that gave scores.
        shortfall: int8[m], the position in :data:`SHORTFALL` of the reason why the list is short; 0
            for a list of k items.

    Raises:
        ValueError: the shapes do not fit each other.
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
    """The metrics of one model, for each tested user.

    Attributes:
        name: the name of the model.
        per_user: a DataFrame with one row per user: ``user_id``, counts such as the length of the
            history, and one float64 column per metric. NaN means that the metric is undefined for
            this user.
        about: a dict with the keys ``definitions`` (metric name -> its definition in one line),
            ``counts`` (name -> a number, such as the users ``evaluated``, ``undefined``,
            ``without_list`` and ``short``), and the settings of the evaluation.
    """

    name: str
    per_user: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics, in order. Each is a column of ``per_user``."""
        return list(self.about["definitions"])


RETRAIN_AT = 0.05
"""Growth of the drift by new events above which the model should be retrained."""


@dataclass(frozen=True)
class Update:
    """What changed when new events were added to a saved model without training.

    The saved model is a bundle, or a run on Spark. The *drift* is ‖Y' − Y‖ / ‖Y‖. Y are the item
    factors from the training, and Y' are the item factors that fit the present user factors best.

    Attributes:
        events: number of new events that could be read.
        users_new: number of users with new events whom the saved model did not have.
        users_changed: number of users of the saved model with new events.
        items_new: number of items that got a factor from the new events; 0 for a model other than
            ALS.
        retrain_at: limit of the growth of the drift, and of the share of events left out. Above it,
            the model should be retrained.
        events_left_out: number of events on items that the model cannot learn without training.
        events_not_newer: number of events that are not newer than the newest event of the saved
            model. Some of them may be events that the model already has; these count twice.
        drift_before, drift_after: the drift without and with the new events, NaN for a model other
            than ALS.
        overlap: mean share of common items in the first ten positions of the updated and of a
            retrained bundle, over users of both. NaN without a retrained bundle.
    """

    events: int
    users_new: int
    users_changed: int
    items_new: int
    drift_before: float
    drift_after: float
    retrain_at: float = RETRAIN_AT
    overlap: float = float("nan")
    events_left_out: int = 0
    events_not_newer: int = 0

    @property
    def retrain(self) -> bool:
        """Whether the model should be retrained.

        True if ``drift_after`` − ``drift_before``, or the share of events left out, is above
        ``retrain_at``.
        """
        growth = self.drift_after - self.drift_before
        return growth > self.retrain_at or self.events_left_out > self.retrain_at * self.events
