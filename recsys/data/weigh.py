"""Turn accepted events into one weighted entry per (user, item) pair.

The steps are: filter, weigh, decay and aggregate. The numbers are defined so that any engine can
reproduce them bit by bit. :func:`weigh_events` works on each row alone, so an engine may call it on
batches. :func:`aggregate_events` adds in float64, from 0.0, one event after another in the order
(timestamp, value), and rounds once to float32. In Spark SQL this is::

    aggregate(array_sort(collect_list(struct(timestamp, value))), 0D,
              (sum, event) -> sum + event.value)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recsys.data import pairs
from recsys.data.reading.log import keep_rows
from recsys.errors import ConfigError, InputError
from recsys.schema import EVENT, INTERACTIONS, ITEM, TIME, USER, VALUE
from recsys.types import IdMap, Interactions

Aggregate = Literal["sum", "last", "max", "count"]
"""How the events of one (user, item) pair become one value, see :func:`aggregate_events`."""
AGGREGATES = get_args(Aggregate)
"""The methods of aggregation. The compiled code takes the position of a method as its code."""
DAY = 86_400.0
"""The number of seconds of a day."""
DECAY_NEEDS_TIMES = "half_life_days needs timestamps: map a timestamp column, or remove half_life_days."
LAST_NEEDS_TIMES = "aggregate = 'last' needs timestamps: map a timestamp column, or use 'sum' or 'max'."
SESSIONS_NEED_TIMES = "session_minutes needs timestamps: map a timestamp column, or remove session_minutes."


TOO_LARGE = (
    "a (user, item) value does not fit in float32 after weighting: set [weigh] transform = 'log1p' or cap, or scale"
    " the values down."
)


class WeightSettings(BaseModel):
    """How events are weighted, and how the events of a (user, item) pair are combined.

    The weight of an event is type weight × value × decay.

    >>> WeightSettings(events={"view": 1, "buy": 5, "return": -5, "impression": 0}, half_life_days=30).aggregate
    'sum'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: dict[str, float] = Field(
        default={},
        description=(
            "event type -> weight; negative: a dislike, whatever the sign of its value; 0: leave the event out;"
            " unset: every type has weight 1"
        ),
    )
    transform: Literal["log1p"] | None = Field(
        default=None,
        description=(
            "how values are rescaled before anything else: `log1p`: log(1 + |value|), with the sign of the value;"
            " for counts, prices and seconds, of which a few are a thousand times the others"
        ),
    )
    cap: float | None = Field(
        default=None,
        gt=0,
        description="largest distance of a value from 0, after `transform`; larger values are set to it",
    )
    half_life_days: float | None = Field(
        default=None,
        gt=0,
        description="age, relative to the newest train event, at which the weight of a train event is halved",
    )
    aggregate: Aggregate = Field(
        default="sum",
        description=(
            "how the events of one (user, item) pair become one value: their sum, the last"
            " (largest if tied), the max, or the count of rows"
        ),
    )
    session_minutes: float | None = Field(
        default=None,
        gt=0,
        description=(
            "events of one user, item and type that are at most this many minutes apart form a"
            " session, of which only the last event counts"
        ),
    )

    @model_validator(mode="after")
    def _count_ignores_values(self) -> Self:
        if self.aggregate == "count" and (self.half_life_days or not {0.0, 1.0}.issuperset(self.events.values())):
            raise ValueError(
                "aggregate = 'count' counts events and ignores their values, so half_life_days and event"
                " weights other than 0 and 1 would do nothing: remove them or use aggregate = 'sum'"
            )
        if self.aggregate == "count" and self.rescales:
            raise ValueError(
                "aggregate = 'count' counts events and ignores their values, so transform and cap would do nothing:"
                " remove them or use aggregate = 'sum'"
            )
        return self

    @property
    def rescales(self) -> bool:
        """Whether ``transform`` or ``cap`` changes values before they are weighted."""
        return self.transform is not None or self.cap is not None

    @property
    def negative_types(self) -> list[str]:
        """The event types with a negative weight, in the order of ``events``."""
        return [kind for kind, weight in self.events.items() if weight < 0]


class FilterSettings(BaseModel):
    """The smallest numbers of train rows that an item and a user must have.

    Items with fewer rows are removed first. Users are removed next, by the rows that remain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_item_events: int = Field(default=0, ge=0, description="remove items with fewer train rows; applied first")
    min_user_events: int = Field(default=0, ge=0, description="remove users with fewer train rows; applied second")
    repeat: bool = Field(
        default=False,
        description="repeat both filters until every item and user has its minimum (the k-core)",
    )

    def steps(self) -> list[tuple[str, str, int]]:
        """Return the filters to apply, in the order in which they are applied: items, then users.

        Each is a tuple (name of the setting, column of the ids, minimum number of rows per id). A
        filter with a minimum of 0 or 1 is left out, because it can remove nothing.
        """
        filters = (
            ("min_item_events", ITEM, self.min_item_events),
            ("min_user_events", USER, self.min_user_events),
        )
        return [step for step in filters if step[2] > 1]


def zero_removal_counts() -> dict[str, dict[str, int]]:
    """Return the counts of :func:`filter_events` for filters that remove nothing.

    The result is a dict: name of the filter -> ``{"rows": 0, "ids": 0}``.
    """
    return {name: {"rows": 0, "ids": 0} for name in ("min_item_events", "min_user_events")}


def filter_events(events: pd.DataFrame, filters: FilterSettings) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """Remove the events of rare items, then of rare users, and count what each filter removed.

    The first result has the other events. The second is a dict: name of the filter -> ``{"rows": …,
    "ids": …}``, the numbers of rows and of ids that it removed in all rounds together. With
    ``repeat``, the first result is the largest part of the log in which every item and every user
    has its minimum number of rows. This part does not depend on the order of removal. It may be
    empty.

    Args:
        events: the events, with ``user_id`` and ``item_id``.
        filters: the minimum numbers of rows.
    """
    removed = zero_removal_counts()
    previous_rows = -1
    while previous_rows != len(events) and (previous_rows < 0 or filters.repeat):
        previous_rows = len(events)
        for name, column, least in filters.steps():
            codes = IdMap.from_ids(events[column]).rows_int32(events[column])
            counts = np.bincount(codes)
            is_kept = counts[codes] >= least
            removed[name]["rows"] += int((~is_kept).sum())
            removed[name]["ids"] += int((counts < least).sum())
            events = keep_rows(events, is_kept)
    return events, removed


def keep_last_of_session(events: pd.DataFrame, weighting: WeightSettings) -> pd.DataFrame:
    """Return the last event of each session, or all events if ``session_minutes`` is not set.

    So a page that is loaded five times in ten minutes counts as one sign of interest, and not as
    five. A session consists of events of one user, one item and one type. Two of them that follow
    each other in the order (timestamp, value) are in the same session if they are at most
    ``session_minutes`` apart. So a session has no maximum length. Rows stay in their order.

    Raises:
        ConfigError: ``session_minutes`` is set and there are no timestamps.
    """
    if weighting.session_minutes is None:
        return events
    if TIME not in events:
        raise ConfigError(SESSIONS_NEED_TIMES)
    if not len(events):
        return events
    users = IdMap.from_ids(events[USER])
    user = users.rows_int32(events[USER])
    item = IdMap.from_ids(events[ITEM]).rows_int32(events[ITEM])
    time = events[TIME].to_numpy()
    value = events[VALUE].to_numpy()
    begins, order = pairs.sort_events(user, item, len(users), time, value)
    kind = np.zeros(len(events), dtype=np.int64)
    if EVENT in events:
        kind = pd.factorize(events[EVENT])[0]
    return keep_rows(
        events,
        pairs.last_of_session(begins, order, item, time, kind, 60 * weighting.session_minutes),
    )


def check_event_types(events: pd.DataFrame, weighting: WeightSettings) -> None:
    """Check that every event type of the events has a weight.

    Nothing is checked if the events have no ``event`` column, or if no weights are set.

    Raises:
        ConfigError: a type has no weight. The message lists each such type with its number of rows.
    """
    if EVENT not in events or not weighting.events:
        return
    check_event_counts(events[EVENT].value_counts(dropna=False).to_dict(), weighting)


def check_event_counts(counts: dict[str, int], weighting: WeightSettings) -> None:
    """Check that every event type has a weight.

    Args:
        counts: event type -> number of rows.
        weighting: the settings with the weights.

    Raises:
        ConfigError: a type has no weight. The message lists each such type with its number of rows.
    """
    unlisted = {kind: count for kind, count in counts.items() if kind not in weighting.events}
    if unlisted:
        kinds = ", ".join(f"{kind!r} ({count:,} rows)" for kind, count in unlisted.items())
        raise ConfigError(f"event types without a weight: {kinds}. Give each one under [weigh.events], 0 to ignore it.")


def weigh_events(events: pd.DataFrame, weighting: WeightSettings, *, reference: float | None = None) -> pd.DataFrame:
    """Return the events with weighted values: value × type weight × 2^(−age / half-life).

    * Values are first rescaled by ``transform`` and ``cap``.
    * If the weight of a type is negative, its events are dislikes, whatever the sign of their
      values: a return of −6 pieces is a dislike, like a return of 6.
    * Events whose type has the weight 0 are left out. The type weight is 1 if there is no ``event``
      column or no weights are set.
    * The age is ``reference − timestamp``, but never below 0. Dislikes decay toward 0 as well.
    * A row with the value 0 is kept, because it says that the user has seen the item.

    Args:
        events: ``value``, and optionally ``timestamp`` (seconds) and ``event``; other columns are
            kept.
        weighting: the settings.
        reference: the time from which ages count, in seconds since 1970. It is not later than the
            cut between train and test. None: no decay, as for test events.

    Raises:
        ConfigError: an event type has no weight, or a decay is set and there are no timestamps.
    """
    # The copy shares its columns with the input, because columns are never changed in place.
    weighed = events.copy(deep=False)
    if weighting.rescales:
        weighed[VALUE] = rescale_values(events[VALUE].to_numpy(dtype=np.float64), weighting)
    if weighting.half_life_days and reference is not None:
        if TIME not in events:
            raise ConfigError(DECAY_NEEDS_TIMES)
        decay = _decay(events[TIME].to_numpy(dtype=np.float64), weighting.half_life_days, reference)
        weighed[VALUE] = weighed[VALUE].to_numpy(dtype=np.float64) * decay
    if EVENT not in events or not weighting.events:
        return weighed
    check_event_types(events, weighting)
    weight = events[EVENT].map(weighting.events).to_numpy(dtype=np.float64)
    weighed[VALUE] = apply_type_weights(weighed[VALUE].to_numpy(), weight)
    return keep_rows(weighed, weight != 0)


def apply_type_weights(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return values × weights. Where the weight is negative, the sign of the value does not count.

    Args:
        values: float[n], the values of events.
        weights: float64[n], the weights of their types.
    """
    return np.where(weights < 0, np.abs(values), values) * weights


def rescale_values(values: np.ndarray, weighting: WeightSettings) -> np.ndarray:
    """Return values after ``transform`` and then ``cap``, float64[n]. Each value keeps its sign.

    >>> rescale_values(np.array([-6.0, 0.0, 1e8]), WeightSettings(cap=5)).tolist()
    [-5.0, 0.0, 5.0]
    """
    size = np.abs(values)
    if weighting.transform == "log1p":
        size = np.log1p(size)
    if weighting.cap is not None:
        size = np.minimum(size, weighting.cap)
    return np.copysign(size, values)


def count_both_negative(events: pd.DataFrame, weighting: WeightSettings) -> int:
    """Return the number of events whose value and whose type weight are both negative.

    It is 0 if the events have no ``event`` column.
    """
    if EVENT not in events or not weighting.negative_types:
        return 0
    return int(((events[VALUE] < 0) & events[EVENT].isin(weighting.negative_types)).sum())


def undo_decay(interactions: Interactions, half_life_days: float, reference: float) -> Interactions:
    """Return the interactions with their values before the decay of :func:`weigh_events`.

    Each value must come from a single event, the one at the time of its entry. A sum of several
    events cannot be restored. The result is exact up to the rounding of float32 and of times to
    whole seconds. A value that the decay has rounded to 0 stays 0.

    Args:
        interactions: entries with known times.
        half_life_days: the half-life with which the values were decayed, in days.
        reference: the reference of :func:`weigh_events`, in seconds since 1970. Entries at this
            time or later did not decay.
    """
    value = interactions.value / _decay(interactions.time, half_life_days, reference)
    return replace(interactions, value=value.astype(np.float32))


def _decay(time: np.ndarray, half_life_days: float, reference: float) -> np.ndarray:
    return np.exp2(-np.maximum(reference - time, 0.0) / (half_life_days * DAY))


def aggregate_events(events: pd.DataFrame, method: Aggregate, users: IdMap, items: IdMap) -> Interactions:
    """Combine the events of each (user, item) pair, and return one entry per pair.

    The value of an entry depends on ``method``:

    * ``sum``: the sum of the values, in float64 in the order (timestamp, value), rounded once to
      float32.
    * ``last``: the value of the latest event. Of several events at that time, the largest value.
    * ``max``: the largest value.
    * ``count``: the number of rows.

    The time of an entry is the latest timestamp, rounded down to whole seconds, or -1 without
    timestamps. The result is empty if there are no events.

    Args:
        events: user_id, item_id, value, and optionally timestamp (seconds since 1970).
        method: the name of the method.
        users, items: id maps that have all ids of the events.

    Raises:
        InputError: an id is not in its map, or a value does not fit in float32.
        ConfigError: the method is ``last``, but there are no timestamps.
    """
    if method == "last" and TIME not in events:
        raise ConfigError(LAST_NEEDS_TIMES)
    if not len(events):
        empty = np.empty(0, np.int32)
        return Interactions(users, items, empty, empty, empty.astype(np.float32), empty.astype(np.int64))
    user = _rows(events, USER, users)
    item = _rows(events, ITEM, items)
    value = events[VALUE].to_numpy()
    if TIME in events:
        time = events[TIME].to_numpy()
    else:
        time = np.full(len(events), -1, dtype=np.int32)
    begins, order = pairs.sort_events(user, item, len(users), time, value)
    # ``order`` contains the users by now, so their column is freed before the next arrays.
    del user
    return Interactions(users, items, *aggregate_sorted(begins, order, item, time, value, method))


def aggregate_sorted(
    begins: np.ndarray,
    order: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    value: np.ndarray,
    method: Aggregate,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return :func:`aggregate_events` of sorted events: the arrays user, item, value and time.

    Args:
        begins, order: the result of :func:`recsys.data.pairs.sort_events`.
        item, time, value: the columns of the events, as for :func:`recsys.data.pairs.sort_events`.
        method: as for :func:`aggregate_events`.

    Raises:
        InputError: a value does not fit in float32.
    """
    columns = pairs.aggregate_pairs(begins, order, item, time, value, AGGREGATES.index(method))
    _require_finite(columns[2])
    return columns


def aggregate_user(
    item: np.ndarray, time: np.ndarray, value: np.ndarray, method: Aggregate
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return :func:`aggregate_events` of the events of one user: the arrays item, value and time.

    Args:
        item: int32[n], the row of the item of each event.
        time, value: float64[n], the time and the value of each event.
        method: as for :func:`aggregate_events`.

    Raises:
        InputError: a value does not fit in float32.
    """
    items, values, times = pairs.aggregate_user(item, time, value, AGGREGATES.index(method))
    _require_finite(values)
    return items, values, times


def _require_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError(TOO_LARGE)


def add_pairs(history: Interactions, new_pairs: Interactions, method: Aggregate) -> Interactions:
    """Add newer interactions to older ones, and return the entries of both together.

    A (user, item) pair that is in both gets one entry. Its value is made of the two values by
    ``method``; with ``count`` they are added. The result has the id maps of ``new_pairs``. If an
    entry has no known time, all times of the result are -1.

    Args:
        history: the older interactions. Each of its users and items is in the maps of
            ``new_pairs``.
        new_pairs: the newer interactions, aggregated by ``method``.
        method: as for :func:`aggregate_events`.

    Raises:
        InputError: an id of ``history`` is not in its map, or a value does not fit in float32.
        ConfigError: the method is ``last``, but an entry has no known time.
    """
    if not len(history):
        return new_pairs
    users = new_pairs.users
    items = new_pairs.items
    user = np.concatenate([_change_map(history.user, history.users, users), new_pairs.user])
    item = np.concatenate([_change_map(history.item, history.items, items), new_pairs.item])
    value = np.concatenate([history.value, new_pairs.value])
    time = np.concatenate([history.time, new_pairs.time])
    if (time < 0).any():
        if method == "last":
            raise ConfigError(LAST_NEEDS_TIMES)
        time = np.full(len(time), -1, dtype=np.int32)
    # Counts were made when the pairs were: from here on they add up.
    rule: Aggregate = "sum" if method == "count" else method
    begins, order = pairs.sort_events(user, item, len(users), time, value)
    return Interactions(users, items, *aggregate_sorted(begins, order, item, time, value, rule))


def _change_map(rows: np.ndarray, old: IdMap, new: IdMap) -> np.ndarray:
    """Return the rows in the id map ``new`` of ids that are given by their rows in ``old``, int32[n].

    Raises:
        InputError: an id of ``old`` is not in ``new``.
    """
    if old is new:
        return rows
    new_rows = new.rows_int32(old.all_ids)
    if len(new_rows) and new_rows.min() < 0:
        missing = old.all_ids[new_rows < 0]
        raise InputError(
            f"{len(missing):,} ids of the older interactions are outside the id map, first {missing[0]!r}."
        )
    return new_rows[rows]


def interactions_to_table(interactions: Interactions) -> pd.DataFrame:
    """Return the interactions as a table of one row per (user, item).

    Columns: ``user_id`` and ``item_id`` (dtypes of the input), ``value`` (float32), ``timestamp``
    (int64, seconds since 1970, -1 where unknown).
    """
    return pd.DataFrame(
        {
            USER: interactions.users.ids_of(interactions.user),
            ITEM: interactions.items.ids_of(interactions.item),
            VALUE: interactions.value,
            TIME: interactions.time,
        }
    )


def interactions_from_table(df: pd.DataFrame, users: IdMap | None = None, items: IdMap | None = None) -> Interactions:
    """Return the interactions in a table with the columns of :func:`interactions_to_table`.

    The table has one row per (user, item), in any order.

    Args:
        df: the table.
        users, items: the id maps to use. None: a map of the ids in the table.

    Raises:
        InputError: a column is missing, a pair occurs twice, or an id is not in its map.
    """
    INTERACTIONS.require(df.columns)
    if users is None:
        users = IdMap.from_ids(df[USER])
    if items is None:
        items = IdMap.from_ids(df[ITEM])
    user = _rows(df, USER, users)
    item = _rows(df, ITEM, items)
    order = np.lexsort((item, user))
    user = user[order]
    item = item[order]
    repeats = int(((np.diff(user) == 0) & (np.diff(item) == 0)).sum())
    if repeats:
        raise InputError(f"interactions: {repeats:,} (user, item) pairs occur twice: aggregate them first.")
    return Interactions(
        users=users,
        items=items,
        user=user,
        item=item,
        value=df[VALUE].to_numpy(dtype=np.float32)[order],
        time=df[TIME].to_numpy(dtype=np.int64)[order],
    )


def _rows(df: pd.DataFrame, column: str, ids: IdMap) -> np.ndarray:
    """Return int32[n], the row of each id of a column.

    Raises:
        InputError: an id is not in the map.
    """
    rows = ids.rows_int32(df[column])
    if len(rows) and rows.min() < 0:
        unknown = df[column].array[rows < 0]
        raise InputError(f"{len(unknown):,} rows have a {column} outside the id map, first {unknown[0]!r}.")
    return rows
