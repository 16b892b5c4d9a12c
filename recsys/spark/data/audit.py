"""Count the events of a log and of its split on Spark, for the data card and for ``split.json``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.data import weigh
from recsys.data.card import DAY, CardCounts, card_from_counts, describe_values
from recsys.data.reading.read import Refusals
from recsys.data.splitting.audit import describe_drift
from recsys.data.splitting.strategies import to_iso
from recsys.errors import InputError
from recsys.locations import Location
from recsys.schema import ITEM, SIDE, TIME, USER, VALUE

TRAIN, HISTORY, TEST = "train", "history", "test"
"""The values of the column ``side``, and the keys of the parts of a split."""


def card(events: DataFrame, refusals: Refusals, tables: dict[str, int], duplicates: dict[str, int]) -> dict[str, Any]:
    """Return the data card of the accepted events: the dict that becomes ``data.json``.

    It has the contents of the card of the local engine (:mod:`recsys.data.card`). The driver
    receives one count per item, one count per number of events of a user, and one row per day with
    events.

    Args:
        events: the accepted events: columns (user_id, item_id, value), and optionally timestamp,
            event and side.
        refusals: the refused rows.
        tables: name -> number of rows of the items and users tables.
        duplicates: name -> number of rows of these tables that ``[data] duplicates`` merged into
            others.
    """
    events = events.drop(SIDE)
    per_item = events.groupBy(ITEM).count().select("count").toPandas()["count"].to_numpy()
    per_user = events.groupBy(USER).count().groupBy("count").agg(F.count(F.lit(1)).alias("users"))
    histogram = per_user.orderBy("count").toPandas()
    days = None
    span = None
    if TIME in events.columns:
        by_day = events.groupBy(F.floor(F.col(TIME) / DAY).alias("day")).agg(F.min(TIME), F.max(TIME)).toPandas()
        span = [to_iso(by_day[f"min({TIME})"].min()), to_iso(by_day[f"max({TIME})"].max())]
        days = np.sort(by_day["day"].to_numpy())
    # One shuffle serves both counts: of distinct rows, and of distinct pairs.
    rows = events.repartition(USER, ITEM).groupBy(*events.columns).count()
    pair_counts = rows.groupBy(USER, ITEM).agg(F.count(F.lit(1)).alias("rows"))
    pairs, distinct = pair_counts.agg(F.count(F.lit(1)), F.sum("rows")).first()
    counts = CardCounts(
        pairs=pairs,
        distinct=distinct,
        per_item=per_item,
        per_user=(histogram["count"].to_numpy(), histogram["users"].to_numpy()),
        days=days,
        span=span,
        tables=tables,
        refused={"total": refusals.refused, "by_reason": dict(refusals.counts)},
        values=_describe_values(events),
        duplicates={name: count for name, count in duplicates.items() if count},
    )
    return card_from_counts(counts)


def _describe_values(events: DataFrame) -> dict[str, Any]:
    """Return the entry ``values`` of the data card (:func:`recsys.data.card.describe_values`)."""
    value = F.col(VALUE)
    smallest, largest, mean, skew, negative, zero = events.agg(
        F.min(value), F.max(value), F.avg(value), F.skewness(value), F.count_if(value < 0), F.count_if(value == 0)
    ).first()
    return describe_values(smallest=smallest, largest=largest, mean=mean, skew=skew, negative=negative, zero=zero)


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

    def __add__(self, other: RowCounts) -> RowCounts:
        """Return the counts of the events of two sides together."""
        rows = self.rows + other.rows
        mean = float(np.nansum([self.rows * self.mean, other.rows * other.mean]) / max(1, rows))
        first = float(np.fmin(self.first, other.first))
        return RowCounts(rows, mean, first, float(np.fmax(self.last, other.last)))


NO_ROWS = RowCounts(0, math.nan, math.nan, math.nan)
"""The counts of a side without events."""


def count_rows(sided: DataFrame) -> dict[str, RowCounts]:
    """Count the events of each side in one pass, and return side -> counts.

    A side without events has no entry.

    Args:
        sided: the columns value and side, and optionally timestamp; one row per event.
    """
    times = [F.min(TIME), F.max(TIME)] if TIME in sided.columns else [F.lit(math.nan), F.lit(math.nan)]
    rows = sided.groupBy(SIDE).agg(F.count(F.lit(1)), F.avg(VALUE), *times).collect()
    return {side: RowCounts(*counts) for side, *counts in rows}


def count_item_rows(train: DataFrame, test: DataFrame, path: Location) -> DataFrame:
    """Count the events of each item in train and in test.

    The result is a DataFrame with the columns item_id, train and test, where train and test have
    the numbers of events. It is written to ``path`` and read from there.

    Args:
        train, test: the column item_id, one row per event.
        path: the folder of the result, which must not exist.
    """
    union = train.select(ITEM, F.lit(1).alias(TRAIN)).unionByName(test.select(ITEM, F.lit(0).alias(TRAIN)))
    counts = union.groupBy(ITEM).agg(F.sum(TRAIN).alias(TRAIN), F.sum(1 - F.col(TRAIN)).alias(TEST))
    counts.write.parquet(str(path))
    return train.sparkSession.read.parquet(str(path))


@dataclass(frozen=True)
class SplitCounts:
    """Numbers of the events and items of a split.

    Attributes:
        rows: side -> counts of its raw events.
        item_rows: columns (item_id, train, test), the number of raw events of each item on both
            sides.
        weighed_item_rows: the same without the event types of weight 0.
        other_items: columns (item_id, row) of the items that are not candidates.
        n_other_items: the number of items that are not candidates.
    """

    rows: dict[str, RowCounts]
    item_rows: DataFrame
    weighed_item_rows: DataFrame
    other_items: DataFrame
    n_other_items: int


def describe_part(rows: RowCounts, pairs: DataFrame, n_items: int) -> dict[str, Any]:
    """Return the entry that describes one part (train, history or test) in ``split.json``.

    The dict has the keys rows, pairs, users and items, with numbers. If events have times, it also
    has from and to, the ISO times of the first and the last event.

    Args:
        rows: counts of the raw events of the part.
        pairs: columns (user, item, value), one row per pair of the part.
        n_items: number of items of the part.

    Raises:
        InputError: a value of a pair is too large for float32.
    """
    per_user = pairs.groupBy("user").agg(F.count(F.lit(1)).alias("pairs"), F.max(F.abs(VALUE)).alias("largest"))
    users, n_pairs, largest = per_user.agg(F.count(F.lit(1)), F.sum("pairs"), F.max("largest")).first()
    if largest == math.inf:
        raise InputError(weigh.TOO_LARGE)
    about = {"rows": rows.rows, "pairs": n_pairs or 0, "users": users, "items": n_items}
    if not math.isnan(rows.first):
        about |= {"from": to_iso(rows.first), "to": to_iso(rows.last)}
    return about


def describe_overlap(
    pairs: tuple[DataFrame, DataFrame], raw: dict[str, DataFrame], counts: SplitCounts
) -> dict[str, Any]:
    """Count what test shares with train and history, and return the counts for ``split.json``.

    The keys are those of :func:`recsys.data.splitting.audit.describe_overlap`, where they are
    defined, except ``test_items``.

    Args:
        pairs: the pairs (user, item, value) of history, and those of test.
        raw: side -> raw events.
        counts: the counts of the same split.
    """
    history, test = pairs
    train_rows, history_rows, test_rows = (counts.rows[side] for side in (TRAIN, HISTORY, TEST))
    timed = TIME in raw[TEST].columns
    early_rows = 0
    if test_rows.first < train_rows.last:
        early_rows = raw[TEST].where(F.col(TIME) < train_rows.last).count()
    outside_rows = 0
    if counts.n_other_items:
        outside = counts.item_rows.join(F.broadcast(counts.other_items), ITEM, "left_semi")
        outside_rows = outside.agg(F.sum(TEST)).first()[0] or 0
    repeated = history.join(test.select("user", "item"), ["user", "item"], "left_semi").count()
    shared = 0
    # If test begins after the history ends, no event can be in both.
    if repeated and not test_rows.first > history_rows.last:
        key = [USER, ITEM, TIME] if timed else [USER, ITEM]
        shared = raw[TEST].join(raw[HISTORY].select(key).distinct(), key, "left_semi").count()
    item_rows = counts.item_rows.select(TRAIN, TEST).toPandas()
    return {
        "shared_rows": shared,
        "repeated_pairs": repeated,
        "test_rows_before_train_end": early_rows / test_rows.rows if timed else None,
        "test_users": _count_warm_users(test, history),
        "test_outside_candidates": {
            "items": counts.n_other_items,
            "rows": outside_rows,
            "share_of_rows": outside_rows / test_rows.rows,
        },
        "drift": describe_drift(
            item_rows[TRAIN].to_numpy(), item_rows[TEST].to_numpy(), [train_rows.mean, test_rows.mean]
        ),
    }


def _count_warm_users(test: DataFrame, history: DataFrame) -> dict[str, int]:
    """Count the users of ``test`` that occur in ``history`` (warm) and those that do not (cold)."""
    marked = history.select("user").distinct().withColumn("warm", F.lit(1))
    joined = test.select("user").distinct().join(marked, "user", "left")
    warm, total = joined.agg(F.count("warm"), F.count(F.lit(1))).first()
    return {"warm": warm, "cold": total - warm}
