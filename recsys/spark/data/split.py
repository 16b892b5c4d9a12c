"""Split the events on Spark, weigh them, and number users and items, with the local engine's
results.

Each step writes its result as Parquet and reads it again. If an executor is lost, Spark then
computes the lost rows from these files, and not from a source that may have changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

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
    count_item_rows,
    count_rows,
    describe_overlap,
    describe_part,
)

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
    rows = count_rows(sided)
    rows_of_sessions = sum(counts.rows for counts in rows.values())
    raw[TRAIN], removed = filter_events(raw[TRAIN], filters, work)
    if _rows_removed(removed):
        raw[TRAIN] = write_and_read(raw[TRAIN], work / "train_rows")
        rows |= {TRAIN: NO_ROWS} | count_rows(raw[TRAIN].withColumn(SIDE, F.lit(TRAIN)))
    if weighting.session_minutes is not None:
        removed["session_minutes"] = {"rows": events.count() - rows_of_sessions, "ids": 0}
    _refuse_empty(rows, events, rule, removed)

    newest = rows[TRAIN].last if timed else None
    weighed = {
        TRAIN: _weigh(raw[TRAIN], weighting, newest, work / "weighed_train"),
        TEST: _weigh(raw[TEST], weighting, None, work / "weighed_test"),
    }
    item_rows = count_item_rows(raw[TRAIN], raw[TEST], work / "item_rows")
    weighed_item_rows = item_rows
    if weighting.events:
        # Event types of weight 0 leave the log here, and with them perhaps items.
        weighed_item_rows = count_item_rows(weighed[TRAIN], weighed[TEST], work / "weighed_item_rows")
    catalogue = _number_items(weighed_item_rows, items, work)
    dropped = 0
    if rule.has_history_events:
        weighed_history = _weigh(raw[HISTORY], weighting, newest, work / "weighed_history")
        usable = weighed_history.join(F.broadcast(catalogue.candidates), ITEM, "left_semi")
        dropped = weighed_history.count() - usable.count()
        weighed[HISTORY] = weighed[TRAIN].unionByName(usable)
        raw[HISTORY] = raw[TRAIN].unionByName(raw[HISTORY])
        rows[HISTORY] = rows[TRAIN] + rows.get(HISTORY, NO_ROWS)
    else:
        raw[HISTORY] = raw[TRAIN]
        rows[HISTORY] = rows[TRAIN]
    history_users = weighed.get(HISTORY, weighed[TRAIN]).select(USER)
    users, _ = number_ids(history_users.union(weighed[TEST].select(USER)).distinct(), USER, work / "users")
    item = F.broadcast(catalogue.items.withColumnRenamed("row", "item"))
    user = users.withColumnRenamed("row", "user")
    # Each pair is written by row and by id, so that neither has to be looked up again.
    pairs = {}
    for side, part in weighed.items():
        # Counted before the joins, which change no value.
        exact = weighting.aggregate == "sum" and _adds_exactly(part)
        numbered = part.join(item, ITEM).join(user, USER)
        pairs[side] = write_and_read(aggregate_events(numbered, weighting.aggregate, exact=exact), work / side)
    by_row = {side: table.select("user", "item", VALUE, TIME) for side, table in pairs.items()}
    result = SparkSplit(
        train=by_row[TRAIN],
        history=by_row.get(HISTORY, by_row[TRAIN]),
        test=by_row[TEST],
        users=users,
        items=catalogue.items,
        candidates=catalogue.n_candidates,
        timed=timed,
        by_id={side: table.select(USER, ITEM, VALUE, TIME) for side, table in pairs.items()},
    )
    counts = SplitCounts(rows, item_rows, weighed_item_rows, catalogue.other_items, catalogue.n_other_items)
    result.about.update(_describe(result, raw, counts, rule))
    result.about.update(
        decay_reference=to_iso(newest) if weighting.half_life_days and newest is not None else None,
        filters=removed,
        history_rows_outside_candidates=dropped,
        both_negative=_count_both_negative(events, weighting),
    )
    result.about["warnings"] = split_warnings(result.about, rule, weighting, EVENT in events.columns)
    return result


@dataclass(frozen=True)
class NumberedItems:
    """All items with their row numbers.

    Attributes:
        candidates: columns (item_id, row) of the items that can be recommended, with rows from 0.
        n_candidates: the number of candidates.
        other_items: columns (item_id, row) of the items that occur only in test. Their rows follow
            those of the candidates.
        n_other_items: the number of these other items.
    """

    candidates: DataFrame
    n_candidates: int
    other_items: DataFrame
    n_other_items: int

    @property
    def items(self) -> DataFrame:
        """All items with their row numbers, as a DataFrame with the columns item_id and row."""
        return self.candidates.unionByName(self.other_items)


def _number_items(item_rows: DataFrame, items: DataFrame | None, work: Location) -> NumberedItems:
    """Give each item a row number: first the candidates, then the items that occur only in test.

    The candidates are the items of train and of the items table. Each group is numbered in
    ascending order of the ids.

    Args:
        item_rows: one row per item: item_id, ``train`` (the number of its events in train) and
            ``test`` (the number of its events in test).
        items: the items table, or None without one.
        work: folder to which the sorted ids are written.
    """
    ids = item_rows.where(F.col(TRAIN) > 0).select(ITEM)
    if items is not None:
        ids = ids.union(items.select(ITEM)).distinct()
    candidates, n_candidates = number_ids(ids, ITEM, work / "candidates")
    test_items = item_rows.where((F.col(TEST) > 0) & (F.col(TRAIN) == 0)).select(ITEM)
    if items is not None:
        test_items = test_items.join(F.broadcast(candidates), ITEM, "left_anti")
    other_items, n_other_items = number_ids(test_items, ITEM, work / "other_items", start=n_candidates)
    return NumberedItems(candidates, n_candidates, other_items, n_other_items)


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
    table = counts.weighed_item_rows.select(TRAIN, TEST).toPandas()
    trained = table[TRAIN].to_numpy() > 0
    tested = table[TEST].to_numpy() > 0
    train = describe_part(counts.rows[TRAIN], split.train, int(trained.sum()))
    test = describe_part(counts.rows[TEST], split.test, int(tested.sum()))
    history = train
    if rule.has_history_events:
        n_items = split.history.select("item").distinct().count()
        history = describe_part(counts.rows[HISTORY], split.history, n_items)
    if not train["pairs"] or not test["pairs"]:
        raise InputError(WEIGHTLESS)
    overlap = describe_overlap((split.history, split.test), raw, counts)
    if rule.has_history_events:
        train_only = split.train.select("user").distinct().join(split.test, "user", "left_anti").count()
    else:
        train_only = train["users"] - overlap["test_users"]["warm"]
    return {
        "rule": rule.rule,
        "parameters": rule_parameters(rule),
        "cut": describe_cut(rule, counts.rows[TEST].first if split.timed else None),
        "decay_reference": None,
        TRAIN: train,
        HISTORY: history,
        TEST: test,
        "candidates": split.candidates,
        "users_wholly_in_train": train_only,
        "filters": {},
        "history_rows_outside_candidates": 0,
        **overlap,
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
        return pd.Series(pair_hash(user, item, seed))

    return F.pandas_udf(hashed, "double")


def _id_hash(seed: int) -> Any:
    def hashed(ids: pd.Series) -> pd.Series:
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
    cut, earlier = _descend(events, TIME, days, first)
    # Events of one time must not be on both sides, so the cut moves past them if there are later
    # ones.
    if 0 < first != earlier:
        next_time = _first(events.where(F.col(TIME) > cut).agg(F.min(TIME)))
        return cut if next_time is None else next_time
    return cut


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


def order_statistic(frame: DataFrame, column: str, position_of: Callable[[int], int]) -> float:
    """Return the value that is at a given position when a column of times is sorted.

    The column is not sorted for this. Rows are counted by day, then by second of the day that
    contains the position, then by distinct value within that second. The driver has only these
    counts in memory. The result for an empty column is infinity.

    Args:
        frame: the table.
        column: the name of the column, in seconds since 1970.
        position_of: a function from the number of rows to the position, counted from 0.
    """
    days = _count_buckets(frame, column, LEVELS[0])
    if not len(days):
        return math.inf
    return _descend(frame, column, days, position_of(int(days["count"].sum())))[0]


def _descend(frame: DataFrame, column: str, days: pd.DataFrame, position: int) -> tuple[float, int]:
    """Return the value at a position of a column in ascending order, and the number of smaller
    rows.

    Args:
        days: the counts of :func:`_count_buckets` for the first of :data:`LEVELS`.
        position: the position, from 0.
    """
    counts = days
    earlier = 0
    for level, bucket_of in enumerate(LEVELS):
        if level:
            counts = _count_buckets(frame, column, bucket_of)
        cumulative = counts["count"].cumsum().to_numpy()
        index = int(np.searchsorted(cumulative, position - earlier, side="right"))
        if index:
            earlier += int(cumulative[index - 1])
        low, high = counts["low"].iloc[index], counts["high"].iloc[index]
        if low == high:
            break
        frame = frame.where(bucket_of(F.col(column)) == counts["bucket"].iloc[index].item())
    return float(low), earlier


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

    The columns are user_id, item_id, user, item, value (float) and timestamp (long). Values and
    times are bit for bit those of the local :func:`recsys.data.weigh.aggregate_events`, which
    defines the rules. The timestamp is -1 without timestamps.

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
    pairs = events.groupBy(USER, ITEM, "user", "item")
    value = {
        "sum": F.sum(VALUE) if exact else _sum_in_order(time),
        "last": F.max(F.struct(time.alias("t"), F.col(VALUE).alias("v")))["v"],
        "max": F.max(VALUE),
        "count": F.count(F.lit(1)).cast("double"),
    }
    return pairs.agg(value[rule].cast("float").alias(VALUE), F.floor(F.max(time)).cast("long").alias(TIME))


def _adds_exactly(events: DataFrame) -> bool:
    """Return whether sums of the values are exact in float64 in any order of addition.

    This is true for ratings, because they are multiples of 2^-10 and not too large.
    """
    value = F.col(VALUE) * 2**10
    row = events.agg(F.count(F.lit(1)), F.max(F.abs(value)), F.min(value == F.rint(value))).first()
    return bool(row and row[2] and row[0] * row[1] < 2**53)


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
    decays = weighting.half_life_days and reference is not None
    if weighting.half_life_days and TIME not in events.columns:
        raise ConfigError(weigh.DECAY_NEEDS_TIMES)
    has_weights = weighting.events and EVENT in events.columns
    if not decays and not has_weights and not weighting.rescales:
        return events.drop(EVENT)

    def weigh_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
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
    return frame.sparkSession.read.parquet(str(path))


def _first(frame: DataFrame) -> Any:
    row = frame.first()
    return row[0] if row else None
