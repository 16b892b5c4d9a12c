"""Count the events of a log and of its split on Spark, for the data card and for ``split.json``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.data import weigh
from recsys.data.card import DAY, CardCounts, card_from_counts, describe_values
from recsys.data.splitting.audit import describe_drift
from recsys.data.splitting.strategies import to_iso
from recsys.errors import InputError
from recsys.schema import ITEM, SIDE, TIME, USER, VALUE
from recsys.spark.data.check import aggregate_values
from recsys.spark.data.read import SparkTables

TRAIN, HISTORY, TEST = "train", "history", "test"
"""The values of the column ``side``, and the keys of the parts of a split."""


def card(tables: SparkTables) -> dict[str, Any]:
    """Return the data card of the accepted events: the dict that becomes ``data.json``.

    It has the contents of the card of the local engine (:mod:`recsys.data.card`). The driver
    receives one count per item, one count per number of events of a user, and one row per day with
    events.

    Args:
        tables: the accepted events, the refused rows, and the items and users tables.
    """
    events = tables.events.drop(SIDE)
    refusals = tables.refusals
    side_tables = {"items": tables.item_table, "users": tables.user_table}
    values = tables.values
    if values is None:
        values = _aggregate_values(events)
    per_item, by_day = _count_items_and_days(events)
    days = None
    span = None
    if TIME in events.columns:
        span = [to_iso(by_day["first"].min()), to_iso(by_day["last"].max())]
        days = np.sort(by_day["day"].to_numpy())
    per_user = _count_users(events)
    counts = CardCounts(
        pairs=int(per_user["pairs"].sum()),
        distinct=int(per_user["distinct"].sum()),
        per_item=per_item,
        per_user=(per_user["rows"].to_numpy(), per_user["users"].to_numpy()),
        days=days,
        span=span,
        tables={name: len(table) for name, table in side_tables.items() if table is not None},
        refused={"total": refusals.refused, "by_reason": dict(refusals.counts)},
        values=describe_values(**values),
        duplicates={name: count for name, count in tables.duplicates.items() if count},
    )
    return card_from_counts(counts)


def _count_items_and_days(events: DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the number of events of each item, and the days with events, from one pass.

    The days have the columns ``day`` (days since 1970), ``first`` and ``last`` (the times of the
    first and the last event). There are none without times.
    """
    if TIME not in events.columns:
        per_item = events.groupBy(ITEM).agg(F.count(F.lit(1)).alias("rows")).select("rows").toPandas()
        return per_item["rows"].to_numpy(), pd.DataFrame()
    dated = events.select(ITEM, TIME, F.floor(F.col(TIME) / DAY).alias("day"))
    counts = (
        dated.groupingSets([[ITEM], ["day"]], ITEM, "day")
        .agg(
            F.grouping("day").alias("is_item"),
            F.count(F.lit(1)).alias("rows"),
            F.min(TIME).alias("first"),
            F.max(TIME).alias("last"),
        )
        .drop(ITEM)
        .toPandas()
    )
    is_item = counts["is_item"] == 1
    return counts["rows"][is_item].to_numpy(), counts[~is_item]


def _count_users(events: DataFrame) -> pd.DataFrame:
    """Return the users by their number of events, in ascending order of this number.

    The columns are ``rows`` (the number of events), and for all users with this number: ``users``
    (how many there are), ``pairs`` (their (user, item) pairs) and ``distinct`` (their different
    rows).
    """
    # All groups of a user are in one partition, so one shuffle serves all three counts.
    one = F.lit(1)
    by_row = events.repartition(USER).groupBy(*events.columns).agg(F.count(one).alias("rows"))
    by_pair = by_row.groupBy(USER, ITEM).agg(F.sum("rows").alias("rows"), F.count(one).alias("distinct"))
    by_user = by_pair.groupBy(USER).agg(
        F.sum("rows").alias("rows"), F.sum("distinct").alias("distinct"), F.count(one).alias("pairs")
    )
    histogram = by_user.groupBy("rows").agg(
        F.count(one).alias("users"), F.sum("distinct").alias("distinct"), F.sum("pairs").alias("pairs")
    )
    return histogram.toPandas().sort_values("rows", ignore_index=True)


def _aggregate_values(events: DataFrame) -> dict[str, Any]:
    """Return the aggregates :data:`VALUE_AGGREGATES` of the values of all events."""
    return events.agg(*aggregate_values(F.col(VALUE))).collect()[0].asDict()


@dataclass(frozen=True)
class RowCounts:
    """Counts of the raw events of one side of a split.

    Attributes:
        rows: number of events.
        mean: mean value of the events, NaN without events.
        first, last: times of the first and the last event, in seconds since 1970, NaN without
            times.
    """

    rows: int
    mean: float
    first: float
    last: float

    def __add__(self, counts: RowCounts) -> RowCounts:
        """Return the counts of the events of two sides together."""
        rows = self.rows + counts.rows
        mean = float(np.nansum([self.rows * self.mean, counts.rows * counts.mean]) / max(1, rows))
        first = float(np.fmin(self.first, counts.first))
        return RowCounts(rows, mean, first, float(np.fmax(self.last, counts.last)))


NO_ROWS = RowCounts(0, math.nan, math.nan, math.nan)
"""The counts of a side without events."""


def count_items(sided: DataFrame) -> pd.DataFrame:
    """Count the events of each item on each side in one pass, for the driver.

    The result has one row per item and side with events, with the columns ``item_id`` and ``side``
    and:

    * ``rows``: the number of events;
    * ``sum``: the sum of their values;
    * ``first``, ``last``: the times of the first and the last of them, in seconds since 1970, NaN
      without times;
    * ``largest``, ``whole``: the largest absolute value, and whether all values are integers, when
      values are counted in units of 2^-10.

    Args:
        sided: the columns item_id, value and side, and optionally timestamp; one row per event.
    """
    times = [F.lit(math.nan), F.lit(math.nan)]
    if TIME in sided.columns:
        times = [F.min(TIME), F.max(TIME)]
    units = F.col(VALUE) * 2**10
    return (
        sided.groupBy(ITEM, SIDE)
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.sum(VALUE).alias("sum"),
            times[0].alias("first"),
            times[1].alias("last"),
            F.max(F.abs(units)).alias("largest"),
            F.min(units == F.rint(units)).alias("whole"),
        )
        .toPandas()
    )


def count_rows(item_counts: pd.DataFrame) -> dict[str, RowCounts]:
    """Add up the counts of the items of each side, and return side -> counts.

    A side without events has no entry.

    Args:
        item_counts: the result of :func:`count_items`.
    """
    counts = {}
    for side, part in item_counts.groupby(SIDE):
        rows = int(part["rows"].sum())
        mean = float(part["sum"].sum()) / rows
        counts[str(side)] = RowCounts(rows, mean, float(part["first"].min()), float(part["last"].max()))
    return counts


def adds_exactly(item_counts: pd.DataFrame) -> bool:
    """Return whether sums of the values are exact in float64 in any order of addition.

    This is true for ratings, because they are multiples of 2^-10 and not too large.

    Args:
        item_counts: the result of :func:`count_items`.
    """
    is_small = item_counts["rows"].sum() * item_counts["largest"].max() < 2**53
    return bool(item_counts["whole"].all() and is_small)


def item_table(item_counts: pd.DataFrame) -> pd.DataFrame:
    """Return the number of events of each item on the sides ``train`` and ``test``, as two columns.

    The index has the ids in ascending order.

    Args:
        item_counts: the result of :func:`count_items`.
    """
    table = item_counts.pivot(index=ITEM, columns=SIDE, values="rows")
    return table.reindex(columns=[TRAIN, TEST]).fillna(0).astype(np.int64).sort_index()


@dataclass(frozen=True)
class PairCounts:
    """Numbers of the pairs and users of a split.

    Attributes:
        pairs, users: side -> the number of its (user, item) pairs, and of the users that have any.
        warm_users: the number of test users that are in history too.
        train_only_users: the number of train users that are not in test.
        repeated: the number of pairs that are in both history and test.
    """

    pairs: dict[str, int]
    users: dict[str, int]
    warm_users: int
    train_only_users: int
    repeated: int


def count_pairs(pairs: DataFrame, history: str) -> PairCounts:
    """Count the pairs and the users of each side, and what the sides share, with one shuffle.

    Args:
        pairs: columns (side, user, item, value), each pair of a side once.
        history: the side of the history: ``train`` if no user is held out.

    Raises:
        InputError: a value of a pair is too large for float32.
    """
    sides = {TRAIN: F.col(SIDE) == TRAIN, HISTORY: F.col(SIDE) == history, TEST: F.col(SIDE) == TEST}
    marked = pairs.select(
        "user", "item", F.abs(VALUE).alias("size"), *(is_side.alias(side) for side, is_side in sides.items())
    )
    # All groups of a user are in one partition, so the groups below need no other shuffle.
    largest = F.max("size").alias("size")
    by_pair = (
        marked.repartition("user").groupBy("user", "item").agg(largest, *(F.max(side).alias(side) for side in sides))
    )
    repeated = F.count_if(F.col(HISTORY) & F.col(TEST)).alias("repeated")
    by_user = by_pair.groupBy("user").agg(largest, repeated, *(F.count_if(side).alias(side) for side in sides))
    in_test = F.col(TEST) > 0
    row = by_user.agg(
        largest,
        F.sum("repeated").alias("repeated"),
        F.count_if(in_test & (F.col(HISTORY) > 0)).alias("warm"),
        F.count_if(~in_test & (F.col(TRAIN) > 0)).alias("train only"),
        *(F.sum(side).alias(side) for side in sides),
        *(F.count_if(F.col(side) > 0).alias(f"users of {side}") for side in sides),
    ).collect()[0]
    if row["size"] == math.inf:
        raise InputError(weigh.TOO_LARGE)
    return PairCounts(
        pairs={side: row[side] or 0 for side in sides},
        users={side: row[f"users of {side}"] for side in sides},
        warm_users=row["warm"],
        train_only_users=row["train only"],
        repeated=row["repeated"] or 0,
    )


@dataclass(frozen=True)
class SplitCounts:
    """Numbers of the events, items and pairs of a split.

    Attributes:
        rows: side -> counts of its raw events.
        item_rows: columns train and test, the number of raw events of each item on both sides, by
            item id.
        weighed_item_rows: the same without the event types of weight 0.
        other_items: the ids of the items that are not candidates.
        pairs: the numbers of pairs and users.
    """

    rows: dict[str, RowCounts]
    item_rows: pd.DataFrame
    weighed_item_rows: pd.DataFrame
    other_items: pd.Index
    pairs: PairCounts


def describe_part(side: str, counts: SplitCounts, n_items: int) -> dict[str, Any]:
    """Return the entry that describes one part (train, history or test) in ``split.json``.

    The dict has the keys rows, pairs, users and items, with numbers. If events have times, it also
    has from and to, the ISO times of the first and the last event.

    Args:
        side: the name of the part.
        counts: the numbers of the split.
        n_items: number of items of the part.
    """
    rows = counts.rows[side]
    pairs = counts.pairs
    about: dict[str, Any] = {
        "rows": rows.rows,
        "pairs": pairs.pairs[side],
        "users": pairs.users[side],
        "items": n_items,
    }
    if not math.isnan(rows.first):
        about |= {"from": to_iso(rows.first), "to": to_iso(rows.last)}
    return about


def describe_overlap(raw: dict[str, DataFrame], counts: SplitCounts) -> dict[str, Any]:
    """Count what test shares with train and history, and return the counts for ``split.json``.

    The keys are those of :func:`recsys.data.splitting.audit.describe_overlap`, where they are
    defined, except ``test_items``.

    Args:
        raw: side -> raw events.
        counts: the numbers of the same split.
    """
    train_rows, history_rows, test_rows = (counts.rows[side] for side in (TRAIN, HISTORY, TEST))
    timed = TIME in raw[TEST].columns
    early_rows = 0
    if test_rows.first < train_rows.last:
        early_rows = raw[TEST].where(F.col(TIME) < train_rows.last).count()
    shared = 0
    # If test begins after the history ends, no event can be in both.
    if counts.pairs.repeated and not test_rows.first > history_rows.last:
        key = [USER, ITEM, TIME] if timed else [USER, ITEM]
        shared = raw[TEST].join(raw[HISTORY].select(key).distinct(), key, "left_semi").count()
    outside_rows = int(counts.item_rows[TEST].reindex(counts.other_items).sum())
    warm_users = counts.pairs.warm_users
    return {
        "shared_rows": shared,
        "repeated_pairs": counts.pairs.repeated,
        "test_rows_before_train_end": early_rows / test_rows.rows if timed else None,
        "test_users": {"warm": warm_users, "cold": counts.pairs.users[TEST] - warm_users},
        "test_outside_candidates": {
            "items": len(counts.other_items),
            "rows": outside_rows,
            "share_of_rows": outside_rows / test_rows.rows,
        },
        "drift": describe_drift(
            counts.item_rows[TRAIN].to_numpy(), counts.item_rows[TEST].to_numpy(), [train_rows.mean, test_rows.mean]
        ),
    }
