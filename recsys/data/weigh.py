"""Turn accepted events into one weighted entry per (user, item): filters, event weights, decay,
aggregation.

The numbers are defined so that any engine can reproduce them bit by bit. :func:`weigh_events`
depends on one row at a time, so an engine may call it on batches. :func:`aggregate_events` adds in
float64, from 0.0, one event after another in the order (timestamp, value), and rounds once to
float32; in Spark SQL::

    aggregate(array_sort(collect_list(struct(timestamp, value))), 0D, (sum, event) -> sum +
    event.value)
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
AGGREGATES = get_args(Aggregate)
"""The positions are the codes of ``pairs``: SUM, LAST, MAX, COUNT."""
DAY = 86_400.0
DECAY_NEEDS_TIMES = "half_life_days needs timestamps: map a timestamp column, or remove half_life_days."
LAST_NEEDS_TIMES = "aggregate = 'last' needs timestamps: map a timestamp column, or use 'sum' or 'max'."
SESSIONS_NEED_TIMES = "session_minutes needs timestamps: map a timestamp column, or remove session_minutes."


class WeightSettings(BaseModel):
    """The weight of an event, type weight × value × decay, and how the events of a (user, item)
    pair are combined.

    >>> WeightSettings(events={"view": 1, "buy": 5, "return": -5, "impression": 0}, half_life_days=30).aggregate
    'sum'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: dict[str, float] = Field(
        default={},
        description=(
            "event type -> weight; negative: a dislike; 0: leave the event out; unset: every type has weight 1"
        ),
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
        return self


class FilterSettings(BaseModel):
    """Minimum activity in rows of train: items first, then users among the remaining rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_item_events: int = Field(default=0, ge=0, description="remove items with fewer train rows; applied first")
    min_user_events: int = Field(default=0, ge=0, description="remove users with fewer train rows; applied second")
    repeat: bool = Field(
        default=False,
        description="repeat both filters until every item and user has its minimum (the k-core)",
    )

    def steps(self) -> list[tuple[str, str, int]]:
        """Return (name, column, minimum rows per id) of each filter that can remove anything, in
        order.
        """
        filters = (
            ("min_item_events", ITEM, self.min_item_events),
            ("min_user_events", USER, self.min_user_events),
        )
        return [step for step in filters if step[2] > 1]


def zero_removal_counts() -> dict[str, dict[str, int]]:
    """Return the removal counts of :func:`filter_events` before anything is removed."""
    return {name: {"rows": 0, "ids": 0} for name in ("min_item_events", "min_user_events")}


def filter_events(events: pd.DataFrame, filters: FilterSettings) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """Return the events that pass the filters, and the rows and ids that each filter removed over
    all rounds.

    With ``repeat`` the result is the largest part of the log in which every item and every user has
    its minimum number of rows; it does not depend on the order of removal.
    """
    removed = zero_removal_counts()
    previous_rows = -1
    while previous_rows != len(events) and (previous_rows < 0 or filters.repeat):
        previous_rows = len(events)
        for name, column, least in filters.steps():
            codes = IdMap.of(events[column]).rows_int32(events[column])
            counts = np.bincount(codes)
            is_kept = counts[codes] >= least
            removed[name]["rows"] += int((~is_kept).sum())
            removed[name]["ids"] += int((counts < least).sum())
            events = keep_rows(events, is_kept)
    return events, removed


def keep_last_of_session(events: pd.DataFrame, weighting: WeightSettings) -> pd.DataFrame:
    """Return the last event of each session, a run of events of one user, item and type.

    A page loaded five times in ten minutes is one sign of interest, not five. Two events that
    follow each other in the order (timestamp, value) are in the same session if they are at most
    ``session_minutes`` apart, so a session lasts as long as its pauses are short.

    Raises:
        ConfigError: no timestamps.
    """
    if weighting.session_minutes is None:
        return events
    if TIME not in events:
        raise ConfigError(SESSIONS_NEED_TIMES)
    if not len(events):
        return events
    users = IdMap.of(events[USER])
    user = users.rows_int32(events[USER])
    item = IdMap.of(events[ITEM]).rows_int32(events[ITEM])
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
    """Raise ConfigError if event types have no weight; the message lists each with its number of
    rows.
    """
    if EVENT not in events or not weighting.events:
        return
    check_event_counts(events[EVENT].value_counts(dropna=False).to_dict(), weighting)


def check_event_counts(counts: dict[str, int], weighting: WeightSettings) -> None:
    """Raise ConfigError as :func:`check_event_types`, from event type -> rows."""
    unlisted = {kind: count for kind, count in counts.items() if kind not in weighting.events}
    if unlisted:
        kinds = ", ".join(f"{kind!r} ({count:,} rows)" for kind, count in unlisted.items())
        raise ConfigError(f"event types without a weight: {kinds}. Give each one under [weigh.events], 0 to ignore it.")


def weigh_events(events: pd.DataFrame, weighting: WeightSettings, *, reference: float | None = None) -> pd.DataFrame:
    """Return events with ``value`` × type weight × 2^(−age / half-life); rows of weight 0 are left
    out.

    The type weight is 1 when there is no ``event`` column or no weights are given. Age is
    ``reference − timestamp``, never below 0. A value of 0 stays (the pair was seen); a dislike
    decays toward 0 too.

    Args:
        reference: seconds since 1970, at most the cut; None = no decay (test events are never
            decayed).
    """
    # The copy shares its columns with the input, because columns are never changed in place.
    weighed = events.copy(deep=False)
    if weighting.half_life_days and reference is not None:
        if TIME not in events:
            raise ConfigError(DECAY_NEEDS_TIMES)
        decay = _decay(events[TIME].to_numpy(dtype=np.float64), weighting.half_life_days, reference)
        weighed[VALUE] = events[VALUE].to_numpy(dtype=np.float64) * decay
    if EVENT not in events or not weighting.events:
        return weighed
    check_event_types(events, weighting)
    weight = events[EVENT].map(weighting.events).to_numpy(dtype=np.float64)
    weighed[VALUE] = weighed[VALUE].to_numpy() * weight
    return keep_rows(weighed, weight != 0)


def undo_decay(interactions: Interactions, half_life_days: float, reference: float) -> Interactions:
    """Return values as they were before :func:`weigh_events` applied the decay.

    Exact up to the rounding of float32 and of whole seconds, where each value is that of one event:
    a sum of several events cannot be restored.
    """
    value = interactions.value / _decay(interactions.time, half_life_days, reference)
    return replace(interactions, value=value.astype(np.float32))


def _decay(time: np.ndarray, half_life_days: float, reference: float) -> np.ndarray:
    return np.exp2(-np.maximum(reference - time, 0.0) / (half_life_days * DAY))


def aggregate_events(events: pd.DataFrame, method: Aggregate, users: IdMap, items: IdMap) -> Interactions:
    """Return one entry per (user, item), sorted by rows of ``users`` and ``items``.

    value: ``sum`` of values (float64 in the order (timestamp, value), then float32), value of the
    ``last`` event, ``max``, or ``count`` of rows. time: floor of the latest timestamp, -1 without
    timestamps.

    Ties: among events of one pair at the same time, ``last`` is the one with the largest value.

    Raises:
        InputError: an id is not in its map, or a sum does not fit in float32.
        ConfigError: ``last`` without timestamps.
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
    user, item, value, time = pairs.aggregate_pairs(begins, order, item, time, value, AGGREGATES.index(method))
    if not np.isfinite(value).all():
        raise InputError("a (user, item) value does not fit in float32 after weighting: scale the values down.")
    return Interactions(users, items, user, item, value, time)


def interactions_to_table(interactions: Interactions) -> pd.DataFrame:
    """Return the interactions table: user_id, item_id (dtypes of the input), value float32,
    timestamp int64.
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
    """Return the interactions of a table of one row per (user, item), in any order; undoes
    :func:`interactions_to_table`.

    Without ``users`` or ``items``, the maps are those of the ids present.

    Raises:
        InputError: a column is missing, a pair occurs twice, or an id is not in its map.
    """
    INTERACTIONS.require(df.columns)
    if users is None:
        users = IdMap.of(df[USER])
    if items is None:
        items = IdMap.of(df[ITEM])
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
    """Return int32[n], the row of each id of a column; raise InputError if an id is not in the
    map.
    """
    rows = ids.rows_int32(df[column])
    if len(rows) and rows.min() < 0:
        unknown = df[column].array[rows < 0]
        raise InputError(f"{len(unknown):,} rows have a {column} outside the id map, first {unknown[0]!r}.")
    return rows
