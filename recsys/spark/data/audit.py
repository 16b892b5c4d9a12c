"""What a split did, counted by Spark: the keys of ``data.audit``, and the facts of the data card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.data.card import DAY, CardCounts, card_from_counts
from recsys.data.reading.read import Refusals
from recsys.data.splitting.audit import describe_drift
from recsys.data.splitting.strategies import to_iso
from recsys.schema import ITEM, TIME, USER, VALUE


def card(events: DataFrame, refusals: Refusals, tables: dict[str, int]) -> dict[str, Any]:
    """Return the data card, as ``data.card.data_card``; the driver holds one count an item."""
    per_item = events.groupBy(ITEM).count().select("count").toPandas()["count"].to_numpy()
    per_user = events.groupBy(USER).count().groupBy("count").agg(F.count(F.lit(1)).alias("users"))
    histogram = per_user.orderBy("count").toPandas()
    days, span = None, None
    if TIME in events.columns:
        ends = events.agg(F.min(TIME), F.max(TIME)).first()
        span = [to_iso(ends[0]), to_iso(ends[1])]
        days = np.sort(events.select(F.floor(F.col(TIME) / DAY).alias("day")).distinct().toPandas()["day"].to_numpy())
    rows = events.repartition(USER, ITEM).groupBy(*events.columns).count()  # moved once, for both counts
    of_pairs = rows.groupBy(USER, ITEM).agg(F.count(F.lit(1)).alias("rows"))
    pairs, distinct = of_pairs.agg(F.count(F.lit(1)), F.sum("rows")).first()
    counts = CardCounts(
        pairs=pairs,
        distinct=distinct,
        per_item=per_item,
        per_user=(histogram["count"].to_numpy(), histogram["users"].to_numpy()),
        days=days,
        span=span,
        tables=tables,
        refused={"total": refusals.refused, "by_reason": dict(refusals.counts)},
    )
    return card_from_counts(counts)


@dataclass(frozen=True)
class Part:
    """A part of a split. ``about``: what split.json says of it. Of its events: how many, the mean value, and the times
    of the first and the last (NaN without times).
    """

    about: dict[str, Any]
    rows: int
    mean: float
    first: float
    last: float


def describe_part(rows: DataFrame, pairs: DataFrame) -> Part:
    """Count events, (user, item) pairs, users and items of one part; ``rows``: raw events, ``pairs``: prepared."""
    timed = TIME in rows.columns
    count, mean, *span = rows.agg(
        F.count(F.lit(1)), F.avg(VALUE), *((F.min(TIME), F.max(TIME)) if timed else ())
    ).first()
    users, n = pairs.groupBy("user").count().agg(F.count(F.lit(1)), F.sum("count")).first()
    about = {"rows": count, "pairs": n or 0, "users": users, "items": pairs.select("item").distinct().count()}
    first, last = span if timed else (math.nan, math.nan)
    return Part(about | ({"from": to_iso(first), "to": to_iso(last)} if timed else {}), count, mean, first, last)


def describe_overlap(
    pairs: tuple[DataFrame, DataFrame, DataFrame],
    rows: tuple[DataFrame, DataFrame, DataFrame],
    shown: tuple[Part, Part, Part],
    outside: DataFrame,
) -> dict[str, Any]:
    """Return what the tested part shares with what is known, as ``data.audit.describe_overlap`` defines the keys.

    ``pairs``, ``rows``, ``shown``: train, history and test, as prepared pairs, as raw events, and counted. ``outside``:
    (item_id, row) of the items that are no candidates.
    """
    train, history, test = pairs
    train_rows, history_rows, test_rows = rows
    of_train, of_history, of_test = shown
    timed = TIME in test_rows.columns
    early = test_rows.where(F.col(TIME) < of_train.last).count() if of_test.first < of_train.last else 0
    outside_items = outside.count()
    outside_rows = test_rows.join(F.broadcast(outside), ITEM, "left_semi").count() if outside_items else 0
    repeated = history.join(test.select("user", "item"), ["user", "item"], "left_semi").count()
    key = [USER, ITEM, *([TIME] if timed else [])]
    apart = of_test.first > of_history.last  # in time: no row can be in both
    known = history_rows.select(key).distinct()
    shared = test_rows.join(known, key, "left_semi").count() if repeated and not apart else 0
    return {
        "shared_rows": shared,
        "repeated_pairs": repeated,
        "test_rows_before_train_end": early / of_test.rows if timed else None,
        "test_users": _warm(test, history, "user"),
        "test_items": _warm(test, train, "item"),
        "test_outside_candidates": {
            "items": outside_items,
            "rows": outside_rows,
            "share_of_rows": outside_rows / of_test.rows,
        },
        "drift": _drift(train_rows, test_rows, [of_train.mean, of_test.mean]),
    }


def _warm(test: DataFrame, known: DataFrame, column: str) -> dict[str, int]:
    """Return how many of test's users, or items, are known, and how many are not."""
    there = known.select(column).distinct().withColumn("warm", F.lit(1))
    both = test.select(column).distinct().join(there, column, "left")
    warm, everyone = both.agg(F.count("warm"), F.count(F.lit(1))).first()
    return {"warm": warm, "cold": everyone - warm}


def _drift(train: DataFrame, test: DataFrame, means: list[float]) -> dict[str, Any]:
    counts = [part.groupBy(ITEM).agg(F.count(F.lit(1)).alias(name)) for part, name in ((train, "a"), (test, "b"))]
    both = counts[0].join(counts[1], ITEM, "full_outer").fillna(0, ["a", "b"]).toPandas()
    return describe_drift(both["a"].to_numpy(), both["b"].to_numpy(), means)
