"""Counts of a log and of its split on Spark: the numbers of the data card, and the keys of
``split.json``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.data.card import DAY, CardCounts, card_from_counts, describe_values
from recsys.data.reading.read import Refusals
from recsys.data.splitting.audit import describe_drift
from recsys.data.splitting.strategies import to_iso
from recsys.schema import ITEM, TIME, USER, VALUE


def card(events: DataFrame, refusals: Refusals, tables: dict[str, int], duplicates: dict[str, int]) -> dict[str, Any]:
    """Return the data card, as the local engine does; the driver holds one count per item."""
    per_item = events.groupBy(ITEM).count().select("count").toPandas()["count"].to_numpy()
    per_user = events.groupBy(USER).count().groupBy("count").agg(F.count(F.lit(1)).alias("users"))
    histogram = per_user.orderBy("count").toPandas()
    days = None
    span = None
    if TIME in events.columns:
        first, last = events.agg(F.min(TIME), F.max(TIME)).first()
        span = [to_iso(first), to_iso(last)]
        days = np.sort(events.select(F.floor(F.col(TIME) / DAY).alias("day")).distinct().toPandas()["day"].to_numpy())
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
    value = F.col(VALUE)
    smallest, largest, mean, skew, negative, zero = events.agg(
        F.min(value), F.max(value), F.avg(value), F.skewness(value), F.count_if(value < 0), F.count_if(value == 0)
    ).first()
    return describe_values(smallest=smallest, largest=largest, mean=mean, skew=skew, negative=negative, zero=zero)


@dataclass(frozen=True)
class PartCounts:
    """Counts of one part of a split.

    ``about``: its entry in split.json. ``rows``: number of events. ``mean``: their mean value.
    ``first``, ``last``: times of the first and the last event, NaN without times.
    """

    about: dict[str, Any]
    rows: int
    mean: float
    first: float
    last: float


def describe_part(rows: DataFrame, pairs: DataFrame) -> PartCounts:
    """Count the events, pairs, users and items of one part.

    Args:
        rows: raw events.
        pairs: prepared (user, item, value), one row per pair.
    """
    timed = TIME in rows.columns
    count, mean, *span = rows.agg(
        F.count(F.lit(1)), F.avg(VALUE), *((F.min(TIME), F.max(TIME)) if timed else ())
    ).first()
    users, n = pairs.groupBy("user").count().agg(F.count(F.lit(1)), F.sum("count")).first()
    about = {
        "rows": count,
        "pairs": n or 0,
        "users": users,
        "items": pairs.select("item").distinct().count(),
    }
    first, last = span if timed else (math.nan, math.nan)
    return PartCounts(
        about | ({"from": to_iso(first), "to": to_iso(last)} if timed else {}),
        count,
        mean,
        first,
        last,
    )


def describe_overlap(
    pairs: tuple[DataFrame, DataFrame, DataFrame],
    rows: tuple[DataFrame, DataFrame, DataFrame],
    counts: tuple[PartCounts, PartCounts, PartCounts],
    other_items: DataFrame,
) -> dict[str, Any]:
    """Return what test shares with train and history; the local ``describe_overlap`` defines the
    keys.

    Args:
        pairs, rows, counts: train, history and test, as prepared pairs, as raw events, and counted.
        other_items: (item_id, row) of the items that are no candidates.
    """
    train, history, test = pairs
    train_rows, history_rows, test_rows = rows
    train_counts, history_counts, test_counts = counts
    timed = TIME in test_rows.columns
    early_rows = 0
    if test_counts.first < train_counts.last:
        early_rows = test_rows.where(F.col(TIME) < train_counts.last).count()
    n_other_items = other_items.count()
    other_rows = 0
    if n_other_items:
        other_rows = test_rows.join(F.broadcast(other_items), ITEM, "left_semi").count()
    repeated = history.join(test.select("user", "item"), ["user", "item"], "left_semi").count()
    shared = 0
    # If test begins after the history ends, no event can be in both.
    if repeated and not test_counts.first > history_counts.last:
        key = [USER, ITEM, TIME] if timed else [USER, ITEM]
        shared = test_rows.join(history_rows.select(key).distinct(), key, "left_semi").count()
    return {
        "shared_rows": shared,
        "repeated_pairs": repeated,
        "test_rows_before_train_end": early_rows / test_counts.rows if timed else None,
        "test_users": _count_warm(test, history, "user"),
        "test_items": _count_warm(test, train, "item"),
        "test_outside_candidates": {
            "items": n_other_items,
            "rows": other_rows,
            "share_of_rows": other_rows / test_counts.rows,
        },
        "drift": _drift(train_rows, test_rows, [train_counts.mean, test_counts.mean]),
    }


def _count_warm(test: DataFrame, history: DataFrame, column: str) -> dict[str, int]:
    """Return the number of test's users, or items, that are in ``history`` (warm), and of those
    that are not (cold).
    """
    marked = history.select(column).distinct().withColumn("warm", F.lit(1))
    joined = test.select(column).distinct().join(marked, column, "left")
    warm, total = joined.agg(F.count("warm"), F.count(F.lit(1))).first()
    return {"warm": warm, "cold": total - warm}


def _drift(train: DataFrame, test: DataFrame, means: list[float]) -> dict[str, Any]:
    train_counts = train.groupBy(ITEM).agg(F.count(F.lit(1)).alias("train"))
    test_counts = test.groupBy(ITEM).agg(F.count(F.lit(1)).alias("test"))
    counts = train_counts.join(test_counts, ITEM, "full_outer").fillna(0, ["train", "test"]).toPandas()
    return describe_drift(counts["train"].to_numpy(), counts["test"].to_numpy(), means)
