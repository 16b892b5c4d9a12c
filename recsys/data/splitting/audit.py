"""Numbers that describe a split: sizes, overlap, leakage in time, cold users and items (plain
values for JSON).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.data import pairs
from recsys.data.splitting.strategies import AnyRule, ByFiles, ByTime, to_iso
from recsys.data.weigh import WeightSettings
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import IdMap, Interactions, Split

PIECE = 1 << 24
"""Rows per piece, where one more full column would take too much memory."""


def rule_parameters(rule: AnyRule) -> dict[str, Any]:
    """Return the settings of a rule that were used."""
    unused = {"rule"}
    # A split by time has either a date or a share, and the other setting has no effect.
    if isinstance(rule, ByTime) and rule.at is not None:
        unused.add("test")
    elif isinstance(rule, ByTime):
        unused.add("at")
    if isinstance(rule, ByTime) and rule.until is None:
        unused.add("until")
    if isinstance(rule, ByTime) and rule.folds == 1:
        unused.add("folds")
    return rule.model_dump(exclude=unused)


def cut_as_iso(rule: AnyRule, first_test: float | None) -> str | None:
    """Return the start of the test of a split by time, as an ISO time; None for other rules."""
    if not isinstance(rule, ByTime) or first_test is None:
        return None
    if rule.at is not None:
        return to_iso(rule.at)
    return to_iso(first_test)


def split_warnings(facts: dict[str, Any], rule: AnyRule, weighting: WeightSettings, has_types: bool) -> list[str]:
    """Return warnings about a split as sentences; ``facts``: the contents of split.json."""
    messages = []
    if facts["shared_rows"]:
        messages.append(f"{facts['shared_rows']:,} rows are in both history and test: the split leaks.")
    early_share = facts["test_rows_before_train_end"]
    if early_share and not isinstance(rule, ByTime):
        advice = " Prefer rule = 'time'."
        if isinstance(rule, ByFiles):
            advice = ""
        messages.append(
            f"rule = '{rule.rule}' leaks the future: {early_share:.0%} of test rows are earlier than the latest"
            f" train row, so models learn from events that were not known yet.{advice}"
        )
    if weighting.events and not has_types:
        messages.append("event weights are set, but the events have no `event` column: only the values were used.")
    if facts["both_negative"]:
        messages.append(
            f"{facts['both_negative']:,} events of {', '.join(weighting.negative_types)} have a negative value and a"
            " negative weight; they count as dislikes, as the sign is that of the type."
        )
    return messages


def describe_part(rows: pd.DataFrame, interactions: Interactions) -> dict[str, Any]:
    """Return the numbers of events, (user, item) pairs, users and items of one part, and its span
    of time.

    ``rows`` counts raw events; the other counts are those after weighting and aggregation.
    """
    about: dict[str, Any] = {
        "rows": len(rows),
        "pairs": len(interactions),
        "users": int(np.count_nonzero(np.bincount(interactions.user))),
        "items": int(np.count_nonzero(np.bincount(interactions.item))),
    }
    if TIME in rows and len(rows):
        about |= {"from": to_iso(rows[TIME].min()), "to": to_iso(rows[TIME].max())}
    return about


def describe_overlap(split: Split, train: pd.DataFrame, history: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Describe the overlap of the test with train and history, from the raw events of each part.

    Keys: ``shared_rows``, equal in (user, item, timestamp) between history and test (must be 0);
    ``repeated_pairs``, in both at any time; ``test_rows_before_train_end``, the share of test rows
    strictly earlier than the latest train row (None without timestamps); ``test_users``, warm (with
    history) and cold; ``test_items``, warm (with train events) and cold;
    ``test_outside_candidates``: items, rows, their share.
    """
    candidates = split.train.items
    known_user = split.history.users.rows(split.test.users.ids) >= 0
    candidate = candidates.rows(split.test.items.ids)
    trained = np.bincount(split.train.item, minlength=len(candidates)) > 0
    # An item that is no candidate has row -1, whose look-up in ``trained`` means nothing.
    warm_item = candidate >= 0
    if len(candidates):
        warm_item &= trained[candidate]
    rows_outside = int((candidates.rows_int32(test[ITEM]) < 0).sum())
    repeated = _repeated_pairs(split.history, split.test)
    shared_rows = 0
    # Rows can only be shared in a pair that is repeated, and the search over all rows is slow.
    if len(repeated):
        shared_rows = _shared_rows(history, test, split, repeated)
    early_share = None
    if TIME in test:
        early_share = float((test[TIME] < train[TIME].max()).mean())
    return {
        "shared_rows": shared_rows,
        "repeated_pairs": len(repeated),
        "test_rows_before_train_end": early_share,
        "test_users": {"warm": int(known_user.sum()), "cold": int((~known_user).sum())},
        "test_items": {"warm": int(warm_item.sum()), "cold": int((~warm_item).sum())},
        "test_outside_candidates": {
            "items": int((candidate < 0).sum()),
            "rows": rows_outside,
            "share_of_rows": rows_outside / len(test),
        },
        "drift": _measure_drift(train, test),
    }


def _measure_drift(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    counts = [_count_items(part[ITEM]) for part in (train, test)]
    either = counts[0].index.union(counts[1].index)
    a, b = (count.reindex(either, fill_value=0).to_numpy() for count in counts)
    return describe_drift(a, b, [float(part[VALUE].to_numpy().mean(dtype=np.float64)) for part in (train, test)])


def _count_items(ids: pd.Series) -> pd.Series:
    id_map = IdMap.of(ids)
    return pd.Series(np.bincount(id_map.rows_int32(ids), minlength=len(id_map)), index=id_map.ids)


def describe_drift(train: np.ndarray, test: np.ndarray, means: list[float]) -> dict[str, Any]:
    """Describe how far the events of the test are from those of train.

    ``train``, ``test``: int[n], raw events of the same n items.

    ``items_moved``: half the sum of |share of train − share of test|, in [0, 1]: the part of the
    test's events that lie on other items than train's would. ``items_moved_by_chance``: about what
    two random parts of these sizes would show, ½ Σ E|difference| with the difference of an item's
    shares taken as normal, and never more than its two means. ``mean_value``: of train and of test.
    """
    n = int(train.sum())
    m = int(test.sum())
    pooled = (train + test) / (n + m)
    chance = np.minimum(np.sqrt(2 / np.pi * pooled * (1 - pooled) * (1 / n + 1 / m)), 2 * pooled)
    return {
        "items_moved": round(float(np.abs(train / n - test / m).sum() / 2), 9),
        "items_moved_by_chance": round(float(chance.sum() / 2), 9),
        "mean_value": [round(mean, 9) for mean in means],
    }


def _repeated_pairs(history: Interactions, test: Interactions) -> np.ndarray:
    """Return int64 keys (row of history user × candidates + item) of the pairs in both history and
    test.
    """
    user = history.users.rows(test.users.ids)[test.user]
    item = history.items.rows(test.items.ids)[test.item]
    in_history = np.zeros(len(test), dtype=bool)
    both_known = np.flatnonzero((user >= 0) & (item >= 0))
    begins = np.searchsorted(history.user, np.arange(len(history.users) + 1, dtype=np.int32))
    in_history[both_known] = pairs.contains_pairs(begins, history.item, user[both_known], item[both_known])
    return user[in_history] * len(history.items) + item[in_history]


def _shared_rows(history: pd.DataFrame, test: pd.DataFrame, split: Split, repeated: np.ndarray) -> int:
    """Count the test rows that equal a history row in user, item and (if there is one)
    timestamp.
    """
    users = split.history.users
    items = split.history.items
    repeated = np.sort(repeated)

    def in_repeated_pairs(events: pd.DataFrame) -> pd.DataFrame:
        user = users.rows_int32(events[USER])
        item = items.rows_int32(events[ITEM])
        rows = np.flatnonzero(pairs.keys_contain(user, item, len(items), repeated))
        time: Any = 0.0
        if TIME in events:
            time = events[TIME].to_numpy()[rows]
        return pd.DataFrame({"user": user[rows], "item": item[rows], "time": time})

    def of_all(events: pd.DataFrame) -> pd.DataFrame:
        return pd.concat(
            [in_repeated_pairs(events.iloc[start : start + PIECE]) for start in range(0, len(events), PIECE)]
        )

    return len(of_all(test).merge(of_all(history).drop_duplicates(), on=["user", "item", "time"]))
