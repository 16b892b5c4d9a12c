"""The five split rules on Spark, the weighing of events, and rows for ids: the definitions of ``recsys.data``.

Every step leaves Parquet behind and goes on from there: a lost executor then recomputes from files, not from a source
that may have changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys.data import weigh
from recsys.data.hashing import id_hash, pair_hash
from recsys.data.splitting.audit import cut_as_iso as cut_shown
from recsys.data.splitting.audit import rule_parameters, split_warnings
from recsys.data.splitting.split import WEIGHTLESS
from recsys.data.splitting.strategies import (
    AnyRule,
    ByTime,
    ColdItems,
    Fraction,
    HeldOutUsers,
    LastN,
    empty_side_message,
    to_iso,
)
from recsys.data.weigh import Aggregate, FilterSettings, WeightSettings, zero_removal_counts
from recsys.errors import ConfigError, InputError
from recsys.schema import EVENT, ITEM, TIME, USER, VALUE
from recsys.spark.data.audit import describe_overlap, describe_part

TRAIN, HISTORY, TEST = "train", "history", "test"
SIDE = "side"


@dataclass(frozen=True)
class Split:
    """Prepared tables of int rows: ``user``, ``item``, ``value`` (float), ``timestamp`` (long), one row a pair.

    ``users``: (row, user_id) of every user. ``items``: (row, item_id); rows below ``candidates`` are the items of
    train and of the items table, those from there on are known from test alone. ``timed``: events have timestamps.
    ``named``: side -> the same pairs by id: (user_id, item_id, value, timestamp); no history where it is train.
    ``about``: what ``split.json`` holds, as ``data.split`` defines it.
    """

    train: DataFrame
    history: DataFrame
    test: DataFrame
    users: DataFrame
    items: DataFrame
    candidates: int
    timed: bool
    named: dict[str, DataFrame]
    about: dict[str, Any] = field(default_factory=dict)


def split(
    events: DataFrame,
    rule: AnyRule,
    *,
    weighting: WeightSettings,
    filters: FilterSettings,
    items: DataFrame | None,
    work: Path,
) -> Split:
    """Split, filter train, weigh, decay, aggregate, and number users and items; as ``data.split.split``.

    Raises:
        InputError: no timestamps where the rule needs them, or an empty train or test part.
        ConfigError: an event type without a weight, or decay or sessions without timestamps.
    """
    _check_event_types(events, weighting)
    timed = TIME in events.columns
    sided, cut = assign(events, rule)
    if cut is None or weighting.session_minutes is not None:  # a comparison of times costs less than a copy of the log
        sided = keep(keep_last_of_session(sided, weighting), work / "sided")
    parts = {side: sided.where(F.col(SIDE) == side).drop(SIDE) for side in (TRAIN, HISTORY, TEST)}
    train_rows, removed = filter_events(parts[TRAIN], filters, work)
    train_rows = keep(train_rows, work / "train_rows") if _rows_removed(removed) else train_rows
    newest = _first(train_rows.agg(F.max(TIME))) if timed else None
    if weighting.session_minutes is not None:
        removed["session_minutes"] = {"rows": events.count() - sided.count(), "ids": 0}
    _refuse_empty(train_rows, parts[TEST], events, rule, cut, removed)

    weighed = {
        TRAIN: _weigh(train_rows, weighting, newest, work / "weighed_train"),
        TEST: _weigh(parts[TEST], weighting, None, work / "weighed_test"),
    }
    candidates = weighed[TRAIN].select(ITEM)
    candidates = candidates if items is None else candidates.union(items.select(ITEM))
    candidate_rows = number(candidates.distinct(), ITEM, work / "candidates")
    width = candidate_rows.count()
    others = weighed[TEST].select(ITEM).distinct().join(F.broadcast(candidate_rows), ITEM, "left_anti")
    item_rows = candidate_rows.unionByName(number(others, ITEM, work / "other_items", start=width))
    history_rows, dropped = train_rows, 0
    if isinstance(rule, HeldOutUsers):
        own = _weigh(parts[HISTORY], weighting, newest, work / "weighed_history")
        known = own.join(F.broadcast(candidate_rows), ITEM, "left_semi")
        dropped = own.count() - known.count()
        weighed[HISTORY] = weighed[TRAIN].unionByName(known)
        history_rows = train_rows.unionByName(parts[HISTORY])
    everyone = weighed.get(HISTORY, weighed[TRAIN]).select(USER).union(weighed[TEST].select(USER)).distinct()
    user_rows = number(everyone, USER, work / "users")
    item = F.broadcast(item_rows.withColumnRenamed("row", "item"))
    user = user_rows.withColumnRenamed("row", "user")
    both = {  # by row and by id, so that neither is looked up again
        side: keep(aggregate(part.join(item, ITEM).join(user, USER), weighting.aggregate, with_rows=True), work / side)
        for side, part in weighed.items()
    }
    rows = {side: pairs.select("user", "item", VALUE, TIME) for side, pairs in both.items()}
    named = {side: pairs.select(USER, ITEM, VALUE, TIME) for side, pairs in both.items()}
    train, history, test = rows[TRAIN], rows.get(HISTORY, rows[TRAIN]), rows[TEST]
    found = Split(train, history, test, user_rows, item_rows, width, timed, named)
    if found.train.isEmpty() or found.test.isEmpty():
        raise InputError(WEIGHTLESS)

    shown = {TRAIN: describe_part(train_rows, train), TEST: describe_part(parts[TEST], test)}
    shown[HISTORY] = describe_part(history_rows, history) if isinstance(rule, HeldOutUsers) else shown[TRAIN]
    found.about.update(
        rule=rule.rule,
        parameters=rule_parameters(rule),
        cut=cut_shown(rule, shown[TEST].first if timed else None),
        decay_reference=to_iso(newest) if weighting.half_life_days and newest is not None else None,
        **{side: shown[side].about for side in (TRAIN, HISTORY, TEST)},
        candidates=width,
        users_wholly_in_train=train.select("user").distinct().join(test, "user", "left_anti").count(),
        filters=removed,
        history_rows_outside_candidates=dropped,
        **describe_overlap(
            (train, history, test),
            (train_rows, history_rows, parts[TEST]),
            (shown[TRAIN], shown[HISTORY], shown[TEST]),
            item_rows.where(F.col("row") >= width),
        ),
    )
    found.about["warnings"] = split_warnings(found.about, rule, weighting, EVENT in events.columns)
    return found


def assign(events: DataFrame, rule: AnyRule) -> tuple[DataFrame, float | None]:
    """Return events with a column ``side`` (train, history, test), and the cut of a split by time."""
    if isinstance(rule, ByTime | LastN) and TIME not in events.columns:
        raise InputError(
            f"rule = '{rule.rule}' needs timestamps and the events have none."
            " Map a column to `timestamp` under [data.columns], or use rule = 'fraction'."
        )
    if isinstance(rule, ByTime):
        cut = cut_time(events, rule.test) if rule.at is None else rule.at
        return _sides(events, F.col(TIME) >= cut), cut
    if isinstance(rule, Fraction):
        return _sides(events, row_hash_of(rule.seed)(USER, ITEM) < rule.test), None
    if isinstance(rule, ColdItems):
        return _sides(events, _id_hash(rule.seed)(ITEM) < rule.share), None
    if isinstance(rule, LastN):
        before, _, total = _standing(F.col(TIME))
        ranked = events.select("*", before.alias("before"), total.alias("total"))
        test = (F.col("total") - F.col("before") <= rule.n) & (F.col("total") > rule.n)
        return _sides(ranked, test).drop("before", "total"), None
    order = F.col(TIME) if TIME in events.columns else row_hash_of(rule.seed)(USER, ITEM)
    marked = events.withColumn("order", order).withColumn("held", _id_hash(rule.seed)(USER) < rule.share)
    _, upto, total = _standing(F.col("order"))
    ranked = marked.select("*", upto.alias("upto"), total.alias("total"))
    known = F.col("upto") <= F.floor(F.lit(rule.history) * F.col("total"))
    side = F.when(~F.col("held"), TRAIN).when(known, HISTORY).otherwise(TEST)
    return ranked.withColumn(SIDE, side).drop("order", "held", "upto", "total"), None


def _sides(events: DataFrame, test: Column) -> DataFrame:
    return events.withColumn(SIDE, F.when(test, TEST).otherwise(TRAIN))


def _standing(order: Column) -> tuple[Column, Column, Column]:
    """Return, of the row's user: events before it, events up to it with its equals, and all (``rules._standing``)."""
    before = F.rank().over(Window.partitionBy(USER).orderBy(order, ITEM)) - 1
    equals = F.count(F.lit(1)).over(Window.partitionBy(USER, order, ITEM))
    return before, before + equals, F.count(F.lit(1)).over(Window.partitionBy(USER))


def row_hash_of(seed: int) -> Any:
    """Return the function of columns (user, item) that hashes a row as the local path does, on batches of rows."""

    def hashed(user: pd.Series, item: pd.Series) -> pd.Series:
        return pd.Series(pair_hash(user, item, seed))

    return F.pandas_udf(hashed, "double")


def _id_hash(seed: int) -> Any:
    def hashed(ids: pd.Series) -> pd.Series:
        return pd.Series(id_hash(ids, seed))

    return F.pandas_udf(hashed, "double")


def cut_time(events: DataFrame, test: float) -> float:
    """Return the cut of ``rules.cut_time``, exactly, without sorting the log."""
    total = events.count()
    first = total - int(test * total)
    if not total or first == total:
        return _first(events.agg(F.max(TIME)))
    cut = order_statistic(events, TIME, first)
    if 0 < first != events.where(F.col(TIME) < cut).count():  # a tie may not straddle: go past it, if one can
        later = _first(events.where(F.col(TIME) > cut).agg(F.min(TIME)))
        return cut if later is None else later
    return cut


def keep_last_of_session(sided: DataFrame, weighting: WeightSettings) -> DataFrame:
    """Leave out repeats within a session of each side; as ``data.weigh.keep_last_of_session``."""
    if weighting.session_minutes is None:
        return sided
    if TIME not in sided.columns:
        raise ConfigError(weigh.SESSIONS_NEED_TIMES)
    alike = [name for name in (SIDE, USER, ITEM, EVENT) if name in sided.columns]
    following = F.lead(TIME).over(Window.partitionBy(*alike).orderBy(TIME, VALUE)) - F.col(TIME)
    kept = following.isNull() | (following > 60 * weighting.session_minutes)
    return sided.withColumn("kept", kept).where("kept").drop("kept")


def order_statistic(frame: DataFrame, column: str, place: int) -> float:
    """Return the value at ``place`` (from 0) in ascending order: counts by day, then by second, then by value.

    The driver holds one count a day of the log, one a second of one day, one a distinct value of one second.
    """
    value = F.col(column)
    for bucket in (F.floor(value / 86400), F.floor(value), value):
        counts = frame.groupBy(bucket.alias("bucket")).count().toPandas().sort_values("bucket")
        upto = counts["count"].cumsum().to_numpy()
        chosen = int(np.searchsorted(upto, place, side="right"))
        place -= int(upto[chosen - 1]) if chosen else 0
        found = counts["bucket"].iloc[chosen].item()
        frame = frame.where(bucket == found)
    return float(found)


def filter_events(
    events: DataFrame, filters: FilterSettings, work: Path
) -> tuple[DataFrame, dict[str, dict[str, int]]]:
    """Return the events that pass, and the rows and ids that each filter removed; as ``data.weigh.filter_events``.

    Each round of a k-core is written under ``work``, so that no round computes those before it again.
    """
    removed, rounds, before = zero_removal_counts(), 0, -1
    while before != _rows_removed(removed) and (before < 0 or filters.repeat):
        before = _rows_removed(removed)
        for name, column, least in filters.steps():
            counts = events.groupBy(column).count()
            few = counts.where(F.col("count") < least)
            row = few.agg(F.count(F.lit(1)), F.sum("count")).first()
            if row and row[0]:
                removed[name]["ids"] += int(row[0])
                removed[name]["rows"] += int(row[1])
                events = events.join(counts.where(F.col("count") >= least).select(column), column, "left_semi")
        rounds += 1
        if filters.repeat and before != _rows_removed(removed):
            events = keep(events, work / f"core_{rounds}")
    return events, removed


def aggregate(events: DataFrame, how: Aggregate, *, with_rows: bool = False) -> DataFrame:
    """Return (user_id, item_id, value float, timestamp long), one row a pair; as
    ``data.weigh.aggregate_events``, bit for bit.

    ``with_rows``: keep the columns ``user`` and ``item``, which the ids determine.
    """
    if how == "last" and TIME not in events.columns:
        raise ConfigError("aggregate = 'last' needs timestamps: map a timestamp column, or use 'sum' or 'max'.")
    time = F.col(TIME) if TIME in events.columns else F.lit(-1.0)
    pairs = events.groupBy(USER, ITEM, *(("user", "item") if with_rows else ()))
    value = {
        "last": F.max(F.struct(time.alias("t"), F.col(VALUE).alias("v")))["v"],
        "max": F.max(VALUE),
        "count": F.count(F.lit(1)).cast("double"),
    }
    if how == "sum":
        value["sum"] = F.sum(VALUE) if _adds_exactly(events) else _sum_in_order(time)
    return pairs.agg(value[how].cast("float").alias(VALUE), F.floor(F.max(time)).cast("long").alias(TIME))


def _adds_exactly(events: DataFrame) -> bool:
    """Return whether sums of these values are exact in float64, so that order does not matter: of ratings, say."""
    value = F.col(VALUE) * 2**10
    row = events.agg(F.count(F.lit(1)), F.max(F.abs(value)), F.min(value == F.floor(value))).first()
    return bool(row and row[2] and row[0] * row[1] < 2**53)


def _sum_in_order(time: Column) -> Column:
    ordered = F.array_sort(F.collect_list(F.struct(time.alias("t"), F.col(VALUE).alias("v"))))
    return F.aggregate(ordered, F.lit(0.0), lambda sum_, event: sum_ + event["v"])


def number(ids: DataFrame, column: str, place: Path, start: int = 0) -> DataFrame:
    """Return (id, row): the rank of each distinct id in ascending order, from ``start``. Nothing passes the driver.

    The ids are sorted into files; a file's name and the row in it give the rank, for files do not move.
    """
    spark = ids.sparkSession
    ids.select(column).sort(column).write.parquet(str(place))
    found = spark.read.schema(ids.select(column).schema).parquet(str(place))
    found = found.select(
        column, F.col("_metadata.file_name").alias("file"), F.col("_metadata.row_index").alias("index")
    )
    sizes = found.groupBy("file").count().toPandas().sort_values("file")  # part-00000…, part-00001…: in order
    sizes["offset"] = start + sizes["count"].cumsum() - sizes["count"]
    if not len(sizes):
        return found.select(column, F.lit(0).alias("row"))
    offsets = F.broadcast(spark.createDataFrame(sizes[["file", "offset"]]))
    return found.join(offsets, "file").select(column, (F.col("offset") + F.col("index")).cast("int").alias("row"))


def _weigh(events: DataFrame, weighting: WeightSettings, reference: float | None, place: Path) -> DataFrame:
    """Run ``data.weigh.weigh_events`` on batches of rows: the same bits as the local path.

    The result is in ``place`` if there is work to do.
    """
    decays = weighting.half_life_days and reference is not None
    if weighting.half_life_days and TIME not in events.columns:
        raise ConfigError("half_life_days needs timestamps: map a timestamp column, or remove half_life_days.")
    if not decays and not (weighting.events and EVENT in events.columns):
        return events.drop(EVENT)

    def run(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            yield weigh.weigh_events(batch, weighting, reference=reference)

    return keep(events.mapInPandas(run, events.schema).drop(EVENT), place)


def _check_event_types(events: DataFrame, weighting: WeightSettings) -> None:
    if EVENT in events.columns and weighting.events:
        kinds = events.groupBy(EVENT).count().toPandas()
        weigh.check_event_counts(dict(zip(kinds[EVENT], kinds["count"], strict=True)), weighting)


def _refuse_empty(
    train: DataFrame, test: DataFrame, events: DataFrame, rule: AnyRule, cut: float | None, removed: dict[str, Any]
) -> None:
    if train.isEmpty() and _rows_removed(removed):
        raise InputError(f"the filters removed every train event: {removed}. Use smaller minimum counts.")
    for name, part in ((TRAIN, train), (TEST, test)):
        if part.isEmpty():
            span = events.agg(F.min(TIME), F.max(TIME)).first() if isinstance(rule, ByTime) else None
            raise InputError(empty_side_message(name, events.count(), rule, tuple(span) if span else None))


def _rows_removed(removed: dict[str, Any]) -> int:
    return sum(gone["rows"] for gone in removed.values())


def keep(frame: DataFrame, place: Path) -> DataFrame:
    """Write a frame to ``place`` and return what stands there, so that nothing before it is computed again."""
    frame.write.parquet(str(place))
    return frame.sparkSession.read.parquet(str(place))


def _first(frame: DataFrame) -> Any:
    row = frame.first()
    return row[0] if row else None
