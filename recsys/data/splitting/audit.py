"""Describe a split in numbers: sizes, overlap, leakage in time, cold users and cold items.

All results are plain values for JSON.
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
"""The number of rows that are processed at a time, to limit memory."""


def rule_parameters(rule: AnyRule) -> dict[str, Any]:
    """Return the settings of a split rule that have an effect, as a dict: key -> value.

    The name of the rule is not among them.
    """
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
    """Return the start of the test as an ISO time, or None for a rule other than by time.

    It is ``at`` if the rule sets it, else the time of the first test event.

    Args:
        rule: the split rule.
        first_test: the time of the first test event in seconds since 1970. None without timestamps.
    """
    if not isinstance(rule, ByTime) or first_test is None:
        return None
    if rule.at is not None:
        return to_iso(rule.at)
    return to_iso(first_test)


def split_warnings(facts: dict[str, Any], rule: AnyRule, weighting: WeightSettings, has_types: bool) -> list[str]:
    """Return warnings about a split, one sentence each. The list is empty if there are none.

    Args:
        facts: the content of split.json.
        rule: the split rule.
        weighting: the settings by which events were weighted.
        has_types: whether the events have a column ``event``.
    """
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
    """Return the sizes of one part of a split, and its first and last time, as a dict for JSON.

    The keys are:

    * ``rows``: the number of raw events;
    * ``pairs``, ``users``, ``items``: numbers after weighting and aggregation;
    * ``from``, ``to``: ISO times of the first and the last raw event. These keys are absent without
      timestamps or without rows.

    Args:
        rows: the raw events of the part.
        interactions: the entries that were made of them.
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
    """Return how the test overlaps with train and history, as a dict for JSON.

    Its keys:

    * ``shared_rows``: the number of test rows with the user, item and timestamp of a history row.
      It is 0 in a sound split.
    * ``repeated_pairs``: the number of (user, item) pairs that are in both history and test, at any
      time.
    * ``test_rows_before_train_end``: the share of test rows that are strictly earlier than the
      latest train row, in [0, 1]. None without timestamps.
    * ``test_users``: the numbers of users with a history (``warm``) and without one (``cold``).
    * ``test_items``: the numbers of items with train events (``warm``) and without any (``cold``).
    * ``test_outside_candidates``: the number of test ``items`` that are not candidates, the number
      of their test ``rows``, and their ``share_of_rows``.
    * ``drift``: the result of :func:`describe_drift`.

    Args:
        split: the parts after weighting and aggregation.
        train, history, test: the raw events of each part. Train and test are not empty.
    """
    candidates = split.train.items
    known_user = split.history.users.rows(split.test.users.ids) >= 0
    candidate = candidates.rows(split.test.items.ids)
    trained = np.bincount(split.train.item, minlength=len(candidates)) > 0
    # An item that is not a candidate has row -1, whose look-up in ``trained`` means nothing.
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
    id_map = IdMap.from_ids(ids)
    return pd.Series(np.bincount(id_map.rows_int32(ids), minlength=len(id_map)), index=id_map.ids)


def describe_drift(train: np.ndarray, test: np.ndarray, means: list[float]) -> dict[str, Any]:
    """Return how much the events of the test differ from those of train, as a dict for JSON.

    Its keys:

    * ``items_moved``: half the sum of |share in train − share in test| over items, in [0, 1]. It is
      the share of test events that would have to move to other items to be distributed as in train.
    * ``items_moved_by_chance``: approximately what two random parts of these sizes would show, ½ Σ
      E|difference|. The difference of an item's shares is taken as normal, and its expectation is
      at most twice the item's share in both parts together.
    * ``mean_value``: the mean value in train and in test, as a list of two.

    Args:
        train, test: int[n], the number of raw events of each of the same n items. Neither sum is 0.
        means: the mean values in train and in test.
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
    """Return int64, one key for each (user, item) pair that is in both history and test.

    A key is the row of the user in history × number of candidates + the row of the item.
    """
    user = history.users.rows(test.users.ids)[test.user]
    item = history.items.rows(test.items.ids)[test.item]
    in_history = np.zeros(len(test), dtype=bool)
    both_known = np.flatnonzero((user >= 0) & (item >= 0))
    begins = np.searchsorted(history.user, np.arange(len(history.users) + 1, dtype=np.int32))
    in_history[both_known] = pairs.contains_pairs(begins, history.item, user[both_known], item[both_known])
    return user[in_history] * len(history.items) + item[in_history]


def _shared_rows(history: pd.DataFrame, test: pd.DataFrame, split: Split, repeated: np.ndarray) -> int:
    """Return the number of test rows that equal a history row in user, item and timestamp (if any).

    Args:
        repeated: the result of :func:`_repeated_pairs`. Only rows of these pairs are compared.
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
