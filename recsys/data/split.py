"""Splits that do not leak, and the numbers that show it: raw events in, a :class:`recsys.types.Split` out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from recsys.data.audit import describe_overlap, describe_part, iso
from recsys.data.hashing import row_hash
from recsys.data.rules import (
    HISTORY,
    TEST,
    TRAIN,
    AnyRule,
    ByTime,
    ColdItems,
    Fraction,
    HeldOutUsers,
    LastN,
    assign,
    cut_time,
    default_rule,
)
from recsys.data.weigh import Filters, Weighting, aggregate, check_event_types, filter_events, weigh
from recsys.errors import InputError
from recsys.schema import EVENT, ITEM, TIME, USER
from recsys.types import IdMap, Split

__all__ = [
    "HISTORY",
    "TEST",
    "TRAIN",
    "AnyRule",
    "ByTime",
    "ColdItems",
    "Fraction",
    "HeldOutUsers",
    "LastN",
    "assign",
    "cut_time",
    "default_rule",
    "row_hash",
    "split",
]


def split(
    events: pd.DataFrame,
    rule: AnyRule,
    *,
    weighting: Weighting | None = None,
    filters: Filters | None = None,
    items: pd.DataFrame | None = None,
) -> Split:
    """Split raw events, filter train, weigh, decay (reference = latest train event) and aggregate each part.

    Candidates are the items of train and of the ``items`` table. Test events get type weights but no decay.
    ``Split.about`` holds what the report prints; :func:`~recsys.data.audit.describe_overlap` defines it.

    Raises:
        InputError: no timestamps where the rule needs them, or an empty train or test part.
        ConfigError: an event type without a weight, or decay without timestamps.
    """
    weighting, filters = weighting or Weighting(), filters or Filters()
    check_event_types(events, weighting)
    side = assign(events, rule)
    train_rows, removed = filter_events(events[side == TRAIN], filters)
    test_rows = events[side == TEST]
    if not len(train_rows):
        raise InputError(f"the filters removed every train event: {removed}. Use smaller minimum counts.")
    reference = float(train_rows[TIME].max()) if TIME in events else None

    weighed = weigh(train_rows, weighting, reference=reference)
    candidates = IdMap.of(weighed[ITEM], [] if items is None else items[ITEM])
    train = aggregate(weighed, weighting.aggregate, IdMap.of(weighed[USER]), candidates)
    history, history_rows, dropped = train, train_rows, 0
    if isinstance(rule, HeldOutUsers):
        own = weigh(events[side == HISTORY], weighting, reference=reference)
        known = candidates.rows(own[ITEM]) >= 0
        dropped = int((~known).sum())
        both = pd.concat([weighed, own[known]])
        history = aggregate(both, weighting.aggregate, IdMap.of(both[USER]), candidates)
        history_rows = pd.concat([train_rows, events[side == HISTORY]])
    tested = weigh(test_rows, weighting)
    test = aggregate(tested, weighting.aggregate, IdMap.of(tested[USER]), IdMap.of(tested[ITEM]))
    if not len(train) or not len(test):
        raise InputError(
            "every event of train or of test has weight 0: give some event types another weight."
        )

    parts = Split(train=train, history=history, test=test, rule=rule.rule)
    parts.about.update(
        rule=rule.rule,
        parameters=_parameters(rule),
        cut=_cut(rule, test_rows),
        decay_reference=iso(reference) if weighting.half_life_days and reference is not None else None,
        train=describe_part(train_rows, train),
        history=describe_part(history_rows, history),
        test=describe_part(test_rows, test),
        candidates=len(candidates),
        users_wholly_in_train=int((test.users.rows(train.users.ids) < 0).sum()),
        filters=removed,
        history_rows_outside_candidates=dropped,
        **describe_overlap(parts, train_rows, history_rows, test_rows),
    )
    parts.about["warnings"] = _warnings(parts.about, rule, weighting, events)
    return parts


def _parameters(rule: AnyRule) -> dict[str, Any]:
    unused = {"rule"} | ({"test" if rule.at is not None else "at"} if isinstance(rule, ByTime) else set())
    return rule.model_dump(exclude=unused)


def _cut(rule: AnyRule, test: pd.DataFrame) -> str | None:
    if not isinstance(rule, ByTime):
        return None
    return iso(test[TIME].min() if rule.at is None else rule.at)


def _warnings(about: dict[str, Any], rule: AnyRule, weighting: Weighting, events: pd.DataFrame) -> list[str]:
    warnings = []
    if about["shared_rows"]:
        warnings.append(f"{about['shared_rows']:,} rows are in both history and test: the split leaks.")
    early = about["test_rows_before_train_end"]
    if early and not isinstance(rule, ByTime):
        warnings.append(
            f"rule = '{rule.rule}' leaks the future: {early:.0%} of test rows are earlier than the latest"
            " train row, so models learn from events that were not known yet. Prefer rule = 'time'."
        )
    if weighting.events and EVENT not in events:
        warnings.append(
            "event weights were given, but the events have no `event` column: values were used alone."
        )
    return warnings
