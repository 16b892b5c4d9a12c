"""What a split did, counted by Spark: the keys of ``data.audit``, and the facts of the data card."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.data.audit import drift
from recsys.data.card import DAY, facts
from recsys.data.read import Refusals
from recsys.data.rules import iso
from recsys.schema import ITEM, TIME, USER, VALUE


def card(events: DataFrame, refusals: Refusals, tables: dict[str, int]) -> dict[str, Any]:
    """Return the data card, as ``data.card.card``; the driver holds one count an item."""
    per_item = events.groupBy(ITEM).count().select("count").toPandas()["count"].to_numpy()
    per_user = events.groupBy(USER).count().groupBy("count").agg(F.count(F.lit(1)).alias("users"))
    histogram = per_user.orderBy("count").toPandas()
    days, span = None, None
    if TIME in events.columns:
        ends = events.agg(F.min(TIME), F.max(TIME)).first()
        span = [iso(ends[0]), iso(ends[1])]
        days = np.sort(events.select(F.floor(F.col(TIME) / DAY).alias("day")).distinct().toPandas()["day"].to_numpy())
    return facts(
        pairs=events.select(USER, ITEM).distinct().count(),
        distinct=events.distinct().count(),
        per_item=per_item,
        per_user=(histogram["count"].to_numpy(), histogram["users"].to_numpy()),
        days=days,
        span=span,
        tables=tables,
        refused={"total": refusals.refused, "by_reason": dict(refusals.counts)},
    )


def describe_part(rows: DataFrame, pairs: DataFrame) -> dict[str, Any]:
    """Return events, (user, item) pairs, users, items and the span of time of one part."""
    sizes = pairs.agg(F.count(F.lit(1)), F.countDistinct("user"), F.countDistinct("item")).first()
    about: dict[str, Any] = {"rows": rows.count(), "pairs": sizes[0], "users": sizes[1], "items": sizes[2]}
    if TIME in rows.columns:
        ends = rows.agg(F.min(TIME), F.max(TIME)).first()
        about |= {"from": iso(ends[0]), "to": iso(ends[1])}
    return about


def describe_overlap(
    pairs: tuple[DataFrame, DataFrame, DataFrame],
    rows: tuple[DataFrame, DataFrame, DataFrame],
    item_rows: DataFrame,
    candidates: int,
) -> dict[str, Any]:
    """Return what the tested part shares with what is known, as ``data.audit.describe_overlap`` defines the keys.

    ``pairs``, ``rows``: train, history and test, as prepared pairs and as raw events.
    """
    train, history, test = pairs
    train_rows, history_rows, test_rows = rows
    timed = TIME in test_rows.columns
    early = None
    if timed:
        newest = train_rows.agg(F.max(TIME)).first()
        row = test_rows.agg(F.avg((F.col(TIME) < (newest[0])).cast("double"))).first()
        early = float(row[0])
    users = test.select("user").distinct()
    warm_users = users.join(history.select("user").distinct(), "user", "left_semi").count()
    items = test.select("item").distinct()
    warm_items = items.join(train.select("item").distinct(), "item", "left_semi").count()
    outside_items = items.where(F.col("item") >= candidates).count()
    outside_rows = test_rows.join(item_rows.where(F.col("row") >= candidates), ITEM, "left_semi").count()
    repeated = history.join(test.select("user", "item"), ["user", "item"], "left_semi").count()
    key = [USER, ITEM, *([TIME] if timed else [])]
    shared = test_rows.join(history_rows.select(key).distinct(), key, "left_semi").count() if repeated else 0
    return {
        "shared_rows": shared,
        "repeated_pairs": repeated,
        "test_rows_before_train_end": early,
        "test_users": {"warm": warm_users, "cold": users.count() - warm_users},
        "test_items": {"warm": warm_items, "cold": items.count() - warm_items},
        "test_outside_candidates": {
            "items": outside_items,
            "rows": outside_rows,
            "share_of_rows": outside_rows / test_rows.count(),
        },
        "drift": _drift(train_rows, test_rows),
    }


def _drift(train: DataFrame, test: DataFrame) -> dict[str, Any]:
    counts = [part.groupBy(ITEM).agg(F.count(F.lit(1)).alias(name)) for part, name in ((train, "a"), (test, "b"))]
    both = counts[0].join(counts[1], ITEM, "full_outer").fillna(0, ["a", "b"]).toPandas()
    means = [part.agg(F.avg(VALUE)).first()[0] for part in (train, test)]
    return drift(both["a"].to_numpy(), both["b"].to_numpy(), means)
