"""Split the events on Spark, weigh them, and number users and items, with the local engine's
results.

Each step writes its result as Parquet and reads it again. If an executor is lost, Spark then
computes the lost rows from these files, and not from a source that may have changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys.data import weigh
from recsys.data.card import DAY
from recsys.data.hashing import id_hash, pair_hash
from recsys.data.splitting.audit import cut_as_iso as describe_cut
from recsys.data.splitting.audit import rule_parameters, split_warnings
from recsys.data.splitting.split import WEIGHTLESS
from recsys.data.splitting.strategies import (
    AnyRule,
    ByFiles,
    ByTime,
    ColdItems,
    Folds,
    Fraction,
    LastN,
    empty_side_message,
    missing_times_message,
    require_fold_events,
    to_iso,
    window_starts,
)
from recsys.data.weigh import Aggregate, FilterSettings, WeightSettings, zero_removal_counts
from recsys.errors import ConfigError, InputError
from recsys.locations import Location
from recsys.schema import EVENT, ITEM, SIDE, TIME, USER, VALUE
from recsys.spark.data.audit import (
    HISTORY,
    NO_ROWS,
    TEST,
    TRAIN,
    RowCounts,
    SplitCounts,
    adds_exactly,
    count_items,
    count_pairs,
    count_rows,
    describe_overlap,
    describe_part,
    item_table,
)
from recsys.spark.tasks import prepare_task

LEVELS: tuple[Callable[[Column], Column], ...] = (
    lambda time: F.floor(time / DAY),
    lambda time: F.floor(time),
    lambda time: time,
)
"""Functions that divide times into ever smaller buckets: by day, by second, and by the time itself.

A search for a time uses one after another, each within the bucket that the previous one has found.
"""


@dataclass(frozen=True)
class SparkSplit:
    """The parts of a split as tables, and the row numbers of users and items.

    Attributes:
        train, history, test: columns (user int, item int, value float, timestamp long), one row per
            (user, item) pair, where ``user`` and ``item`` are row numbers.
        users: columns (row, user_id) of every user.
        items: columns (row, item_id) of every item.
        item_ids: the ids of all items in the order of their rows, on the driver.
        candidates: the number of candidates, which are the items of train and of the items table.
            Their rows are below this number. All other items occur only in test.
        timed: whether events have timestamps.
        by_id: "train", "test" and "history" -> the same pairs with the columns (user_id, item_id,
            value, timestamp). The key "history" is missing if history is the same as train.
        about: the content of ``split.json``.
    """

    train: DataFrame
    history: DataFrame
    test: DataFrame
    users: DataFrame
    items: DataFrame
    item_ids: pd.Index
    candidates: int
    timed: bool
    by_id: dict[str, DataFrame]
    about: dict[str, Any] = field(default_factory=dict)


def split(
    events: DataFrame,
    rule: AnyRule,
    *,
    weighting: WeightSettings,
    filters: FilterSettings,
    items: DataFrame | None,
    work: Location,
) -> SparkSplit:
    """Split the events on Spark, and return the parts in rows and by id.

    The results are those of the local :func:`recsys.data.splitting.split.split`. The steps are:
    divide the events by ``rule``, filter train, weigh the events and apply the decay, aggregate
    them to one row per (user, item), and number users and items.

    Args:
        events: columns (user_id, item_id, value), and optionally timestamp, event (the type), and
            side for events that are split already.
        rule: the split rule.
        weighting: how events are weighted and aggregated.
        filters: the smallest numbers of events per item and user.
        items: the column ``item_id`` of the items table, or None.
        work: the folder to which intermediate tables are written.

    Raises:
        InputError: the rule needs timestamps and there are none, or train or test is empty.
        ConfigError: an event type has no weight, or decay or sessions are set and there are no
            timestamps.
    """
    _check_event_types(events, weighting)
    events = keep_until(events, rule)
    timed = TIME in events.columns
    sided, cut = assign_sides(events, rule)
    # A comparison of times costs less than a copy of the log; other rules sort or hash, so their
    # result is written.
    if cut is None or weighting.session_minutes is not None:
        sided = write_and_read(keep_last_of_session(sided, weighting), work / "sided")
    raw = {side: sided.where(F.col(SIDE) == side).drop(SIDE) for side in (TRAIN, HISTORY, TEST)}
    raw[TRAIN], removed = filter_events(raw[TRAIN], filters, work)
    if _rows_removed(removed):
        raw[TRAIN] = write_and_read(raw[TRAIN], work / "train_rows")
        sided = _with_sides(raw)
    item_counts = count_items(sided)
    rows = count_rows(item_counts)
    if weighting.session_minutes is not None:
        rows_of_sessions = sum(counts.rows for counts in rows.values()) + _rows_removed(removed)
        removed["session_minutes"] = {"rows": events.count() - rows_of_sessions, "ids": 0}
    _refuse_empty(rows, events, rule, removed)

    newest = rows[TRAIN].last if timed else None
    weighed = sided.drop(EVENT)
    weighed_counts = item_counts
    if _changes_values(raw[TRAIN], weighting, newest):
        # Event types of weight 0 leave the log here, and with them perhaps items.
        references = {TRAIN: newest, HISTORY: newest, TEST: None}
        parts = {
            side: _weigh(part, weighting, references[side], work / f"weighed_{side}")
            for side, part in raw.items()
            if side in rows
        }
        weighed = _with_sides(parts)
        weighed_counts = count_items(weighed)
    weighed_item_rows = item_table(weighed_counts)
    catalogue = _number_items(weighed_item_rows, items, events)
    history = TRAIN
    dropped = 0
    if rule.has_history_events:
        history = HISTORY
        rows[HISTORY] = rows[TRAIN] + rows.get(HISTORY, NO_ROWS)
        raw[HISTORY] = raw[TRAIN].unionByName(raw[HISTORY])
        is_history = weighed_counts[SIDE] == HISTORY
        is_candidate = weighed_counts[ITEM].isin(catalogue.ids[: catalogue.n_candidates])
        dropped = int(weighed_counts["rows"][is_history & ~is_candidate].sum())
        usable = weighed.where(F.col(SIDE) != TEST).join(F.broadcast(catalogue.candidates), ITEM, "left_semi")
        weighed = weighed.where(F.col(SIDE) != HISTORY).unionByName(usable.withColumn(SIDE, F.lit(HISTORY)))
    else:
        rows[HISTORY] = rows[TRAIN]
        raw[HISTORY] = raw[TRAIN]
    users, _ = number_ids(weighed.select(USER).distinct(), USER, work / "users")
    item = F.broadcast(catalogue.items.withColumnRenamed("row", "item"))
    user = users.withColumnRenamed("row", "user")
    numbered = weighed.join(item, ITEM).join(user, USER)
    exact = weighting.aggregate == "sum" and adds_exactly(weighed_counts)
    # Each pair is written by row and by id, so that neither has to be looked up again.
    pairs = _write_sides(aggregate_events(numbered, weighting.aggregate, exact=exact), work / "pairs")
    by_side = {side: pairs.where(F.col(SIDE) == side) for side in dict.fromkeys((TRAIN, history, TEST))}
    by_row = {side: table.select("user", "item", VALUE, TIME) for side, table in by_side.items()}
    result = SparkSplit(
        train=by_row[TRAIN],
        history=by_row[history],
        test=by_row[TEST],
        users=users,
        items=catalogue.items,
        item_ids=catalogue.ids,
        candidates=catalogue.n_candidates,
        timed=timed,
        by_id={side: table.select(USER, ITEM, VALUE, TIME) for side, table in by_side.items()},
    )
    counts = SplitCounts(
        rows,
        item_table(item_counts),
        weighed_item_rows,
        catalogue.ids[catalogue.n_candidates :],
        count_pairs(pairs, history),
    )
    result.about.update(_describe(result, raw, counts, rule))
    result.about.update(
        decay_reference=to_iso(newest) if weighting.half_life_days and newest is not None else None,
        filters=removed,
        history_rows_outside_candidates=dropped,
        both_negative=_count_both_negative(events, weighting),
    )
    result.about["warnings"] = split_warnings(result.about, rule, weighting, EVENT in events.columns)
    return result


def _with_sides(parts: dict[str, DataFrame]) -> DataFrame:
    """Return the events of all parts as one table, with the name of the part in the column side."""
    return reduce(DataFrame.unionByName, [part.withColumn(SIDE, F.lit(side)) for side, part in parts.items()])


def _write_sides(pairs: DataFrame, path: Location) -> DataFrame:
    """Write pairs with the column side, a folder per side, and return the written table.

    Who reads one side of it does not read the others.
    """
    pairs.write.partitionBy(SIDE).parquet(str(path))
    # Without any pair there is no file that would have the columns.
    return pairs.sparkSession.read.schema(pairs.schema).parquet(str(path))


@dataclass(frozen=True)
class NumberedItems:
    """All items with their row numbers.

    Attributes:
        items: columns (item_id, row) of all items, with rows from 0, candidates first.
        ids: the ids in the order of the rows.
        n_candidates: the number of candidates, which are the items that can be recommended. All
            other items occur only in test.
    """

    items: DataFrame
    ids: pd.Index
    n_candidates: int

    @property
    def candidates(self) -> DataFrame:
        """The candidates, as a DataFrame with the columns item_id and row."""
        return self.items.where(F.col("row") < self.n_candidates)


def _number_items(item_rows: pd.DataFrame, items: DataFrame | None, events: DataFrame) -> NumberedItems:
    """Give each item a row number: first the candidates, then the items that occur only in test.

    The candidates are the items of train and of the items table. Each group is numbered in
    ascending order of the ids.

    Args:
        item_rows: by item id, ``train`` (the number of its events in train) and ``test`` (the
            number of its events in test).
        items: the items table, or None without one.
        events: the column item_id, for the type of the ids.
    """
    candidates = item_rows.index[item_rows[TRAIN] > 0]
    id_field = events.schema[ITEM]
    if items is not None:
        # Integers of the items table may be wider than those of the events.
        id_field = events.select(ITEM).union(items.select(ITEM)).schema[ITEM]
        candidates = candidates.append(pd.Index(items.select(ITEM).toPandas()[ITEM])).unique().sort_values()
    test_items = item_rows.index[(item_rows[TEST] > 0) & (item_rows[TRAIN] == 0)]
    ids = candidates.append(test_items[~test_items.isin(candidates)])
    schema = T.StructType([id_field, T.StructField("row", T.IntegerType())])
    table = pd.DataFrame({ITEM: ids, "row": np.arange(len(ids), dtype=np.int32)})
    return NumberedItems(events.sparkSession.createDataFrame(table, schema), ids, len(candidates))


def _describe(split: SparkSplit, raw: dict[str, DataFrame], counts: SplitCounts, rule: AnyRule) -> dict[str, Any]:
    """Return the content of ``split.json``.

    The entries for the decay, the filters and the removed history rows have their empty values.
    The caller replaces them.

    Args:
        split: the aggregated parts.
        raw: ``train``, ``history`` and ``test`` -> the events before they are aggregated.
        counts: the numbers of events, counted before.
        rule: the rule that made the split.

    Raises:
        InputError: train or test has no pairs.
    """
    trained = counts.weighed_item_rows[TRAIN].to_numpy() > 0
    tested = counts.weighed_item_rows[TEST].to_numpy() > 0
    train = describe_part(TRAIN, counts, int(trained.sum()))
    test = describe_part(TEST, counts, int(tested.sum()))
    history = train
    if rule.has_history_events:
        history = describe_part(HISTORY, counts, split.history.select("item").distinct().count())
    if not train["pairs"] or not test["pairs"]:
        raise InputError(WEIGHTLESS)
    return {
        "rule": rule.rule,
        "parameters": rule_parameters(rule),
        "cut": describe_cut(rule, counts.rows[TEST].first if split.timed else None),
        "decay_reference": None,
        TRAIN: train,
        HISTORY: history,
        TEST: test,
        "candidates": split.candidates,
        "users_wholly_in_train": counts.pairs.train_only_users,
        "filters": {},
        "history_rows_outside_candidates": 0,
        **describe_overlap(raw, counts),
        "test_items": {"warm": int((tested & trained).sum()), "cold": int((tested & ~trained).sum())},
    }


def keep_until(events: DataFrame, rule: AnyRule) -> DataFrame:
    """Return the events before the time ``rule.until``, in seconds since 1970.

    All events are returned if the rule has no such time, or if the events have no timestamps.
    """
    if not isinstance(rule, ByTime) or rule.until is None or TIME not in events.columns:
        return events
    return events.where(F.col(TIME) < rule.until)


def fold_starts(events: DataFrame, rule: AnyRule) -> list[float]:
    """Return the time at which the test part of each fold starts, in seconds since 1970.

    The folds are those of a rolling backtest, in the order of time. The result is that of the local
    ``fold_starts``. It is empty for a rule without folds.

    Args:
        events: columns (user_id, item_id, value), and timestamp.
        rule: the split rule.

    Raises:
        InputError: the events have no timestamps, or a fold has no train events or no test events.
    """
    if not isinstance(rule, ByTime) or rule.folds == 1:
        return []
    if TIME not in events.columns:
        raise InputError(missing_times_message(rule))
    events = keep_until(events, rule)
    end = _first(events.agg(F.max(TIME)))
    starts = window_starts(rule, partial(cut_time, events), end)
    time = F.col(TIME)
    ends = [*starts, math.inf]
    windows = [(time >= start) & (time < end) for start, end in zip([-math.inf, *starts], ends, strict=True)]
    require_fold_events(list(events.select(*map(F.count_if, windows)).first() or ()))
    return starts


def assign_sides(events: DataFrame, rule: AnyRule) -> tuple[DataFrame, float | None]:
    """Divide the events by ``rule``, and return (the events with a column ``side``, the cut).

    ``side`` is "train", "history" or "test". Events of the side "history" are earlier events of
    test users, on which no model is trained; a rule that holds out users makes them. For a split by
    time the cut is the time at which test starts, in seconds since 1970. For other rules it is
    None. Events of ``ByFiles`` have their side already and are returned unchanged.

    Args:
        events: columns (user_id, item_id, value), and optionally timestamp and event.
        rule: the split rule.

    Raises:
        InputError: the rule needs timestamps and the events have none, or the rule is ``folds``,
            which is for ratings on the local engine.
    """
    if isinstance(rule, ByFiles):
        return events, None
    if isinstance(rule, ByTime | LastN) and TIME not in events.columns:
        raise InputError(missing_times_message(rule))
    if isinstance(rule, ByTime):
        cut = cut_time(events, rule.test) if rule.at is None else rule.at
        return _sides(events, F.col(TIME) >= cut), cut
    if isinstance(rule, Fraction):
        return _sides(events, row_hash_of(rule.seed)(USER, ITEM) < rule.test), None
    if isinstance(rule, ColdItems):
        return _sides(events, _id_hash(rule.seed)(ITEM) < rule.share), None
    if isinstance(rule, LastN):
        earlier, _, total = _event_counts(F.col(TIME))
        ranked = events.select("*", earlier.alias("earlier"), total.alias("total"))
        test = (F.col("total") - F.col("earlier") <= rule.n) & (F.col("total") > rule.n)
        return _sides(ranked, test).drop("earlier", "total"), None
    if isinstance(rule, Folds):
        raise InputError("rule = 'folds' is for [judge] task = 'ratings', on the local engine.")
    order = F.col(TIME) if TIME in events.columns else row_hash_of(rule.seed)(USER, ITEM)
    marked = events.withColumn("order", order).withColumn("held", _id_hash(rule.seed)(USER) < rule.share)
    _, cumulative, total = _event_counts(F.col("order"))
    ranked = marked.select("*", cumulative.alias("cumulative"), total.alias("total"))
    in_history = F.col("cumulative") <= F.floor(F.lit(rule.history) * F.col("total"))
    side = F.when(~F.col("held"), TRAIN).when(in_history, HISTORY).otherwise(TEST)
    return ranked.withColumn(SIDE, side).drop("order", "held", "cumulative", "total"), None


def _sides(events: DataFrame, test: Column) -> DataFrame:
    return events.withColumn(SIDE, F.when(test, TEST).otherwise(TRAIN))


def _event_counts(order: Column) -> tuple[Column, Column, Column]:
    """Return three columns of counts for each event, all over the events of its user.

    They are the number of earlier events, of earlier and equal events, and of all events. Two
    events are equal if they have the same ``order`` and item.
    """
    earlier = F.rank().over(Window.partitionBy(USER).orderBy(order, ITEM)) - 1
    equals = F.count(F.lit(1)).over(Window.partitionBy(USER, order, ITEM))
    return earlier, earlier + equals, F.count(F.lit(1)).over(Window.partitionBy(USER))


def row_hash_of(seed: int) -> Any:
    """Return a Spark function of two columns of ids that hashes each row to a number in [0, 1).

    The function takes a column of user ids and one of item ids. The hash is the same as on the
    local engine.

    Args:
        seed: the seed of the hash.
    """

    def hashed(user: pd.Series, item: pd.Series) -> pd.Series:
        prepare_task(kernels=False)
        return pd.Series(pair_hash(user, item, seed))

    return F.pandas_udf(hashed, "double")


def _id_hash(seed: int) -> Any:
    def hashed(ids: pd.Series) -> pd.Series:
        prepare_task(kernels=False)
        return pd.Series(id_hash(ids, seed))

    return F.pandas_udf(hashed, "double")


def cut_time(events: DataFrame, test: float) -> float:
    """Return the time at which test begins, in seconds since 1970.

    Events at this time or later are the test part. Events of one time are all on the same side, so
    the share of test may differ a little from ``test``. The result is that of the local
    ``cut_time``, but the log is not sorted.

    Args:
        events: the column timestamp, one row per event.
        test: in (0, 1), the share of the events in test.
    """
    days = _count_buckets(events, TIME, LEVELS[0])
    total = int(days["count"].sum())
    first = total - int(test * total)
    if first == total:
        return float(days["high"].max())
    boundary = _descend(events, TIME, days, first)
    # Events of one time must not be on both sides, so the cut moves past them if there are later
    # ones.
    if 0 < first != boundary.earlier and boundary.following is not None:
        return boundary.following
    return boundary.value


def keep_last_of_session(sided: DataFrame, weighting: WeightSettings) -> DataFrame:
    """Return only the last event of each session.

    A session has the events of one user on one item, of one type and on one side, in which no gap
    is longer than ``session_minutes``. Without ``session_minutes`` all events are returned. The
    result is that of the local ``keep_last_of_session``.

    Args:
        sided: the events, with the column side.
        weighting: the section ``[weigh]``.

    Raises:
        ConfigError: ``session_minutes`` is set and there are no timestamps.
    """
    if weighting.session_minutes is None:
        return sided
    if TIME not in sided.columns:
        raise ConfigError(weigh.SESSIONS_NEED_TIMES)
    key = [name for name in (SIDE, USER, ITEM, EVENT) if name in sided.columns]
    gap = F.lead(TIME).over(Window.partitionBy(*key).orderBy(TIME, VALUE)) - F.col(TIME)
    ends_session = gap.isNull() | (gap > 60 * weighting.session_minutes)
    return sided.withColumn("ends_session", ends_session).where("ends_session").drop("ends_session")


def order_statistic(
    frame: DataFrame, column: str, position_of: Callable[[int], int], days: pd.DataFrame | None = None
) -> float:
    """Return the value that is at a given position when a column of times is sorted.

    The column is not sorted for this. Rows are counted by day, then by second of the day that
    contains the position, then by distinct value within that second. The driver has only these
    counts in memory. The result for an empty column is infinity.

    Args:
        frame: the table.
        column: the name of the column, in seconds since 1970.
        position_of: a function from the number of rows to the position, counted from 0.
        days: the rows by day, if they are counted already: columns (bucket, count, low, high), the
            day since 1970, and the number of its rows, their smallest and their largest value. In
            ascending order of the days.
    """
    if days is None:
        days = _count_buckets(frame, column, LEVELS[0])
    if not len(days):
        return math.inf
    return _descend(frame, column, days, position_of(int(days["count"].sum()))).value


class _OrderStatistic(NamedTuple):
    """The value at a position of a column in ascending order.

    Attributes:
        value: the value.
        earlier: the number of rows with a smaller value.
        following: the smallest larger value, None if there is none.
    """

    value: float
    earlier: int
    following: float | None


def _descend(frame: DataFrame, column: str, days: pd.DataFrame, position: int) -> _OrderStatistic:
    """Return the value at a position of a column in ascending order.

    Args:
        days: the counts of :func:`_count_buckets` for the first of :data:`LEVELS`.
        position: the position, from 0.
    """
    counts = days
    earlier = 0
    following = None
    for level, bucket_of in enumerate(LEVELS):
        if level:
            counts = _count_buckets(frame, column, bucket_of)
        cumulative = counts["count"].cumsum().to_numpy()
        index = int(np.searchsorted(cumulative, position - earlier, side="right"))
        if index:
            earlier += int(cumulative[index - 1])
        # In the last bucket of a day or second, the next value is the first after that day or second.
        if index + 1 < len(counts):
            following = float(counts["low"].iloc[index + 1])
        low, high = counts["low"].iloc[index], counts["high"].iloc[index]
        if low == high:
            break
        frame = frame.where(bucket_of(F.col(column)) == counts["bucket"].iloc[index].item())
    return _OrderStatistic(float(low), earlier, following)


def _count_buckets(frame: DataFrame, column: str, bucket_of: Callable[[Column], Column]) -> pd.DataFrame:
    """Return (bucket, count, low, high), one row per bucket of values, in ascending order.

    ``low`` and ``high`` are the smallest and the largest value in the bucket.

    Args:
        bucket_of: a function from a column of values to a column of buckets, as in :data:`LEVELS`.
    """
    value = F.col(column)
    aggregates = (F.count(F.lit(1)).alias("count"), F.min(value).alias("low"), F.max(value).alias("high"))
    return frame.groupBy(bucket_of(value).alias("bucket")).agg(*aggregates).toPandas().sort_values("bucket")


def filter_events(
    events: DataFrame, filters: FilterSettings, work: Location
) -> tuple[DataFrame, dict[str, dict[str, int]]]:
    """Return the events that pass the filters, and how much each filter removed.

    The second result is a dict: name of the filter -> ``{"rows": …, "ids": …}``, the numbers of
    removed events and of removed users or items. Both results are those of the local
    :func:`recsys.data.weigh.filter_events`. With
    ``filters.repeat`` the events of each round are written to the folder ``work``, so that no
    round computes the earlier rounds again.
    """
    removed = zero_removal_counts()
    rounds = 0
    rows_before = -1
    while rows_before != _rows_removed(removed) and (rows_before < 0 or filters.repeat):
        rows_before = _rows_removed(removed)
        for name, column, least in filters.steps():
            counts = events.groupBy(column).count()
            row = counts.where(F.col("count") < least).agg(F.count(F.lit(1)), F.sum("count")).first()
            if row and row[0]:
                removed[name]["ids"] += int(row[0])
                removed[name]["rows"] += int(row[1])
                events = events.join(counts.where(F.col("count") >= least).select(column), column, "left_semi")
        rounds += 1
        if filters.repeat and rows_before != _rows_removed(removed):
            events = write_and_read(events, work / f"core_{rounds}")
    return events, removed


def aggregate_events(events: DataFrame, rule: Aggregate, *, exact: bool) -> DataFrame:
    """Add up the events of each (user, item) pair, and return one row per pair.

    The columns are user_id, item_id, user, item, value (float) and timestamp (long), and ``side`` if
    events have it: then the events of each side are added up by themselves. Values and times are
    bit for bit those of the local :func:`recsys.data.weigh.aggregate_events`, which defines the
    rules. The timestamp is -1 without timestamps.

    Args:
        events: columns (user_id, item_id, value, user, item), and optionally timestamp. ``user``
            and ``item`` are row numbers.
        rule: how the values of a pair are combined: "sum", "last", "max" or "count".
        exact: whether sums of the values are exact in any order. Otherwise values are added in
            the order of their times.

    Raises:
        ConfigError: ``last`` without timestamps.
    """
    if rule == "last" and TIME not in events.columns:
        raise ConfigError(weigh.LAST_NEEDS_TIMES)
    time = F.col(TIME) if TIME in events.columns else F.lit(-1.0)
    pairs = events.groupBy(*(name for name in (USER, ITEM, "user", "item", SIDE) if name in events.columns))
    value = {
        "sum": F.sum(VALUE) if exact else _sum_in_order(time),
        "last": F.max(F.struct(time.alias("t"), F.col(VALUE).alias("v")))["v"],
        "max": F.max(VALUE),
        "count": F.count(F.lit(1)).cast("double"),
    }
    return pairs.agg(value[rule].cast("float").alias(VALUE), F.floor(F.max(time)).cast("long").alias(TIME))


def _sum_in_order(time: Column) -> Column:
    """Return the sum of the values of a group, added in the order of (time, value)."""
    ordered = F.array_sort(F.collect_list(F.struct(time.alias("t"), F.col(VALUE).alias("v"))))
    return F.aggregate(ordered, F.lit(0.0), lambda sum_, event: sum_ + event["v"])


def number_ids(ids: DataFrame, column: str, path: Location, start: int = 0) -> tuple[DataFrame, int]:
    """Number ids in ascending order, and return their row numbers and the number of ids.

    The row numbers are a DataFrame with the columns ``column`` (the id) and ``row`` (int). They
    begin with ``start``. The sorted ids are written to ``path`` as Parquet files. The row of an id
    is ``start``, plus the number of ids in earlier files, plus its position in its own file. So a
    row stays the same if Spark computes it again. The driver receives the number of ids of each
    file, but no ids.

    Args:
        ids: a DataFrame with the column ``column``, in which no id is repeated.
        column: the name of the id column.
        path: a folder that does not exist yet.
        start: the first row number.
    """
    spark = ids.sparkSession
    ids.select(column).sort(column).write.parquet(str(path))
    # Spark names its files part-00000…, part-00001… in the order of the sorted ids.
    file_number = F.split_part("_metadata.file_name", F.lit("-"), F.lit(2)).cast("int")
    numbered = spark.read.schema(ids.select(column).schema).parquet(str(path))
    numbered = numbered.select(column, file_number.alias("file"), F.col("_metadata.row_index").alias("index"))
    sizes = numbered.groupBy("file").count().toPandas()
    if not len(sizes):
        return numbered.select(column, F.lit(0).alias("row")), 0
    rows_of_file = np.zeros(sizes["file"].max() + 1, dtype=np.int64)
    rows_of_file[sizes["file"]] = sizes["count"]
    offsets = start + np.cumsum(rows_of_file) - rows_of_file
    offset = F.get(F.lit(offsets), F.col("file"))
    return numbered.select(column, (offset + F.col("index")).cast("int").alias("row")), int(rows_of_file.sum())


def _changes_values(events: DataFrame, weighting: WeightSettings, reference: float | None) -> bool:
    """Return whether there is a decay, a weight or another scale to apply to values.

    Args:
        reference: as in :func:`_weigh`.

    Raises:
        ConfigError: ``half_life_days`` is set and there are no timestamps.
    """
    if weighting.half_life_days and TIME not in events.columns:
        raise ConfigError(weigh.DECAY_NEEDS_TIMES)
    decays = weighting.half_life_days is not None and reference is not None
    has_weights = bool(weighting.events) and EVENT in events.columns
    return decays or has_weights or weighting.rescales


def weigh_all(events: DataFrame, weighting: WeightSettings, reference: float | None, path: Location) -> DataFrame:
    """Check the event types, and return the events with weighted values, without ``event``.

    The arguments are those of :func:`_weigh`.

    Raises:
        ConfigError: an event type has no weight, or ``half_life_days`` is set and there are no
            timestamps.
    """
    _check_event_types(events, weighting)
    return _weigh(events, weighting, reference, path)


def _weigh(events: DataFrame, weighting: WeightSettings, reference: float | None, path: Location) -> DataFrame:
    """Return the events with weighted values and without the column ``event``.

    Values are bit for bit those of the local :func:`recsys.data.weigh.weigh_events`, which is
    called on batches. The result is written to ``path``, unless there is neither a decay nor a
    weight to apply.

    Args:
        reference: seconds since 1970 at which the age of an event is 0. None: no decay.

    Raises:
        ConfigError: ``half_life_days`` is set and there are no timestamps.
    """
    if not _changes_values(events, weighting, reference):
        return events.drop(EVENT)

    def weigh_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        prepare_task(kernels=False)
        for batch in batches:
            yield weigh.weigh_events(batch, weighting, reference=reference)

    return write_and_read(events.mapInPandas(weigh_batches, events.schema).drop(EVENT), path)


def _count_both_negative(events: DataFrame, weighting: WeightSettings) -> int:
    if EVENT not in events.columns or not weighting.negative_types:
        return 0
    return events.where((F.col(VALUE) < 0) & F.col(EVENT).isin(weighting.negative_types)).count()


def _check_event_types(events: DataFrame, weighting: WeightSettings) -> None:
    if EVENT in events.columns and weighting.events:
        kinds = events.groupBy(EVENT).count().toPandas()
        weigh.check_event_counts(dict(zip(kinds[EVENT], kinds["count"], strict=True)), weighting)


def _refuse_empty(
    rows: dict[str, RowCounts], events: DataFrame, rule: AnyRule, removed: dict[str, dict[str, int]]
) -> None:
    if not rows.get(TRAIN, NO_ROWS).rows and _rows_removed(removed):
        raise InputError(f"the filters removed every train event: {removed}. Use smaller minimum counts.")
    for name in (TRAIN, TEST):
        if not rows.get(name, NO_ROWS).rows:
            span = events.agg(F.min(TIME), F.max(TIME)).first() if isinstance(rule, ByTime) else None
            raise InputError(empty_side_message(name, events.count(), rule, tuple(span) if span else None))


def _rows_removed(removed: dict[str, dict[str, int]]) -> int:
    return sum(counts["rows"] for counts in removed.values())


def write_and_read(frame: DataFrame, path: Location) -> DataFrame:
    """Write a frame to ``path`` as Parquet and return the written table.

    Steps that read the result do not compute the earlier steps again.
    """
    frame.write.parquet(str(path))
    # With the schema, Spark starts no job to find it.
    return frame.sparkSession.read.schema(frame.schema).parquet(str(path))


def _first(frame: DataFrame) -> Any:
    row = frame.first()
    return row[0] if row else None
