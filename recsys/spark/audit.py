"""What a split did, counted by Spark: the keys of ``data.audit``, and the facts of the data card."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.data.card import facts
from recsys.data.read import Refusals
from recsys.data.rules import iso
from recsys.schema import ITEM, TIME, USER


def card(events: DataFrame, refusals: Refusals, tables: dict[str, int]) -> dict[str, Any]:
    """Return the data card, as ``data.card.card``; the driver holds one count an item."""
    per_item = events.groupBy(ITEM).count().select("count").toPandas()["count"].to_numpy()
    users = (
        events.groupBy(USER)
        .count()
        .agg(F.count(F.lit(1)).alias("n"), F.percentile("count", F.lit(0.5)).alias("m"))
        .first()
    )
    total, span = int(per_item.sum()), None
    if TIME in events.columns:
        ends = events.agg(F.min(TIME), F.max(TIME)).first()
        span = [iso(ends[0]), iso(ends[1])]
    return facts(
        events=total,
        pairs=events.select(USER, ITEM).distinct().count(),
        users=users["n"],
        median_events_per_user=float(users["m"]),
        per_item=np.sort(per_item),
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
    }
