"""Split raw events into a :class:`recsys.types.Split` without leaks, and report its numbers."""

from __future__ import annotations

import pandas as pd

from recsys.data.reading.log import keep_rows
from recsys.data.splitting.audit import (
    cut_as_iso,
    describe_overlap,
    describe_part,
    rule_parameters,
    split_warnings,
)
from recsys.data.splitting.strategies import (
    HISTORY,
    TEST,
    TRAIN,
    AnyRule,
    ByFiles,
    assign_sides,
    keep_until,
    to_iso,
)
from recsys.data.weigh import (
    DECAY_NEEDS_TIMES,
    FilterSettings,
    WeightSettings,
    aggregate_events,
    check_event_types,
    count_both_negative,
    filter_events,
    keep_last_of_session,
    weigh_events,
)
from recsys.errors import ConfigError, InputError
from recsys.schema import EVENT, ITEM, SIDE, TIME, USER
from recsys.types import IdMap, Split

WEIGHTLESS = "every event of train or of test has weight 0: give some event types another weight."
"""The error message for a train or a test part without entries."""


def split(
    events: pd.DataFrame,
    rule: AnyRule,
    *,
    weighting: WeightSettings | None = None,
    filters: FilterSettings | None = None,
    items: pd.DataFrame | None = None,
) -> Split:
    """Split raw events into train, history and test, and prepare each part.

    The steps are:

    1. Keep the events before the end of the test, if the rule sets one.
    2. Assign each event to a part (:func:`~recsys.data.splitting.strategies.assign_sides`).
    3. Keep the last event of each session within a part, if ``session_minutes`` is set.
    4. Filter train.
    5. Weigh the events. Ages count from the latest train event. Test events do not decay.
    6. Aggregate the events of each (user, item) pair.

    Candidates are the items of train and of the ``items`` table. History events on other items are
    removed and counted.

    ``Split.about`` is the content of split.json: ``rule``, ``parameters``, ``cut``,
    ``decay_reference``, the sizes of ``train``, ``history`` and ``test``, the number of
    ``candidates``, what ``filters`` removed, ``warnings`` and others.
    :func:`~recsys.data.splitting.audit.describe_overlap` defines the numbers on the overlap of the
    parts.

    Args:
        events: user_id, item_id, value, and optionally timestamp (seconds since 1970) and event
            (the type).
        rule: the split rule with its settings.
        weighting: how events are weighted and aggregated. None: the defaults.
        filters: the smallest numbers of events per item and user. None: no filters.
        items: the items table, or None.

    Raises:
        InputError: the rule needs timestamps and there are none; train or test is empty, also after
            filters and weights; or a value does not fit in float32.
        ConfigError: an event type has no weight, or there are no timestamps and sessions, a
            half-life or the aggregate ``last`` are set.
    """
    weighting = weighting or WeightSettings()
    filters = filters or FilterSettings()
    check_event_types(events, weighting)
    if weighting.half_life_days and TIME not in events:
        raise ConfigError(DECAY_NEEDS_TIMES)
    events = keep_until(events, rule)
    side = assign_sides(events, rule)
    if isinstance(rule, ByFiles):
        events = events[[name for name in events if name != SIDE]]
    train_rows, history_only, test_rows = (
        keep_last_of_session(keep_rows(events, side == part), weighting) for part in (TRAIN, HISTORY, TEST)
    )
    repeats = len(events) - len(train_rows) - len(history_only) - len(test_rows)
    has_types = EVENT in events
    both_negative = count_both_negative(events, weighting)
    # The raw events are as large as the three parts together, so they are freed here.
    del events, side
    train_rows, removed = filter_events(train_rows, filters)
    if weighting.session_minutes is not None:
        removed["session_minutes"] = {"rows": repeats, "ids": 0}
    if not len(train_rows):
        raise InputError(f"the filters removed every train event: {removed}. Use smaller minimum counts.")
    # Ages count from the latest train event, so that no time of the test reaches the weights.
    reference = None
    if TIME in train_rows:
        reference = float(train_rows[TIME].max())

    weighed = weigh_events(train_rows, weighting, reference=reference)
    # Items of the items table are candidates too, so that a model can recommend what nobody used.
    candidate_ids = [weighed[ITEM]]
    if items is not None:
        candidate_ids.append(items[ITEM])
    candidates = IdMap.from_ids(*candidate_ids)
    train = aggregate_events(weighed, weighting.aggregate, IdMap.from_ids(weighed[USER]), candidates)
    history = train
    history_rows = train_rows
    dropped = 0
    if rule.has_history_events:
        held_out = weigh_events(history_only, weighting, reference=reference)
        is_candidate = candidates.rows(held_out[ITEM]) >= 0
        dropped = int((~is_candidate).sum())
        all_known = pd.concat([weighed, keep_rows(held_out, is_candidate)])
        history = aggregate_events(all_known, weighting.aggregate, IdMap.from_ids(all_known[USER]), candidates)
        history_rows = pd.concat([train_rows, history_only])
    tested = weigh_events(test_rows, weighting)
    test = aggregate_events(tested, weighting.aggregate, IdMap.from_ids(tested[USER]), IdMap.from_ids(tested[ITEM]))
    del weighed, tested
    if not len(train) or not len(test):
        raise InputError(WEIGHTLESS)

    first_test = None
    if TIME in test_rows:
        first_test = test_rows[TIME].min()
    decay_reference = None
    if weighting.half_life_days and reference is not None:
        decay_reference = to_iso(reference)
    parts = Split(train=train, history=history, test=test, rule=rule.rule)
    parts.about.update(
        rule=rule.rule,
        parameters=rule_parameters(rule),
        cut=cut_as_iso(rule, first_test),
        decay_reference=decay_reference,
        train=describe_part(train_rows, train),
        history=describe_part(history_rows, history),
        test=describe_part(test_rows, test),
        candidates=len(candidates),
        users_wholly_in_train=int((test.users.rows(train.users.ids) < 0).sum()),
        filters=removed,
        history_rows_outside_candidates=dropped,
        both_negative=both_negative,
        **describe_overlap(parts, train_rows, history_rows, test_rows),
    )
    parts.about["warnings"] = split_warnings(parts.about, rule, weighting, has_types)
    return parts
