"""The data card: what was read, what was refused, and how sparse and long-tailed it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.data.read import Tables
from recsys.data.rules import iso
from recsys.schema import ITEM, TIME, USER


def card(tables: Tables) -> dict[str, Any]:
    """Return JSON-able facts about the accepted events.

    ``sparsity``: share of (user, item) cells without an event, in [0, 1]. ``gini_items``: Gini coefficient of
    events per item that has any, 0 = all equal. ``top_1_percent_share``: share of events on the most popular
    1 % of items (at least one item). ``span``: ISO times of the first and last event.
    """
    events = tables.events
    per_item = np.sort(events[ITEM].value_counts().to_numpy())
    per_user = events[USER].value_counts().to_numpy()
    pairs = len(events[[USER, ITEM]].drop_duplicates())
    return facts(
        events=len(events),
        pairs=pairs,
        users=len(per_user),
        median_events_per_user=float(np.median(per_user)),
        per_item=per_item,
        span=[iso(events[TIME].min()), iso(events[TIME].max())] if TIME in events else None,
        tables={name: len(t) for name in ("items", "users") if (t := getattr(tables, name)) is not None},
        refused={"total": tables.refusals.refused, "by_reason": dict(tables.refusals.counts)},
    )


def facts(
    *,
    events: int,
    pairs: int,
    users: int,
    median_events_per_user: float,
    per_item: np.ndarray,
    span: list[str] | None,
    tables: dict[str, int],
    refused: dict[str, Any],
) -> dict[str, Any]:
    """Return the card from counts, which either engine can supply; ``per_item`` is sorted, fewest first."""
    items = len(per_item)
    head = max(1, items // 100)
    return {
        "events": events,
        "users": users,
        "items": items,
        "sparsity": 1 - pairs / (users * items),
        "median_events_per_user": median_events_per_user,
        "median_events_per_item": float(np.median(per_item)),
        "gini_items": gini(per_item),
        "top_1_percent_share": float(per_item[-head:].sum() / events),
        "span": span,
        "tables": tables,
        "refused": refused,
    }


def gini(sorted_counts: np.ndarray) -> float:
    """Return the Gini coefficient of ascending non-negative counts, in [0, 1 − 1/n]; NaN when all are zero.

    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    n, total = len(sorted_counts), float(np.sum(sorted_counts))
    if not total:
        return float("nan")
    ranks = np.arange(1, n + 1)
    return float(2 * np.dot(ranks, sorted_counts) / (n * total) - (n + 1) / n)
