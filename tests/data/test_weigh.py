"""Weights, decay, dislikes and aggregation, each against a loop over the events."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.data.weigh import (
    FilterSettings,
    WeightSettings,
    add_pairs,
    aggregate_events,
    check_event_types,
    count_both_negative,
    filter_events,
    interactions_from_table,
    interactions_to_table,
    keep_last_of_session,
    weigh_events,
)
from recsys.errors import ConfigError, InputError
from recsys.types import IdMap

DAY = 86_400


def events(*rows, columns=("user_id", "item_id", "value", "timestamp", "event")):
    return pd.DataFrame(rows, columns=list(columns))


SOME = events(
    ("a", "x", 1.0, 0 * DAY, "view"),
    ("a", "x", 2.0, 10 * DAY, "buy"),
    ("a", "y", 1.0, 20 * DAY, "return"),
    ("b", "x", 0.0, 5 * DAY, "buy"),
    ("b", "y", 3.0, 20 * DAY, "ad"),
)
WEIGHTS = {"view": 1, "buy": 5, "return": -5, "ad": 0}


def entries(interactions):
    """Return {(user, item): (value, time)}."""
    return {
        (row.user_id, row.item_id): (row.value, row.timestamp)
        for row in interactions_to_table(interactions).itertuples(index=False)
    }


def combined(frame, how):
    users, items = IdMap.from_ids(frame["user_id"]), IdMap.from_ids(frame["item_id"])
    return entries(aggregate_events(frame, how, users, items))


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from("xy"), st.integers(-1, 1), st.integers(0, 9), st.sampled_from("vb")
        ),
        max_size=30,
    ),
    st.integers(1, 4),
)
def test_the_last_event_of_a_session_stands_for_it(rows, minutes):
    frame = events(*((user, item, float(value), 60.0 * time, kind) for user, item, value, time, kind in rows))
    frame = frame.astype({"value": float, "timestamp": float})
    expected = []
    for group in {(user, item, kind) for user, item, _, _, kind in rows}:
        own = sorted((time, value) for user, item, value, time, kind in rows if (user, item, kind) == group)
        for place, (time, value) in enumerate(own):
            if place + 1 == len(own) or own[place + 1][0] - time > minutes:
                expected.append((*group, value, time))
    found = keep_last_of_session(frame, WeightSettings(session_minutes=minutes))
    got = found[["user_id", "item_id", "event", "value", "timestamp"]].itertuples(index=False, name=None)
    assert sorted((*ids, value, time / 60) for *ids, value, time in got) == sorted(expected)


def test_sessions_need_timestamps_and_none_leaves_all():
    assert keep_last_of_session(SOME, WeightSettings()) is SOME
    with pytest.raises(ConfigError, match="session_minutes needs timestamps"):
        keep_last_of_session(SOME.drop(columns="timestamp"), WeightSettings(session_minutes=30))


def test_type_weights_multiply_values_and_zero_leaves_out():
    weighed = weigh_events(SOME, WeightSettings(events=WEIGHTS))
    assert weighed["value"].tolist() == [1.0, 10.0, -5.0, 0.0]
    assert combined(weighed, "sum") == {
        ("a", "x"): (11.0, 10 * DAY),
        ("a", "y"): (-5.0, 20 * DAY),  # a dislike stays negative
        ("b", "x"): (0.0, 5 * DAY),  # a zero stays: the pair was seen
    }


@given(st.floats(0.1, 1000), st.integers(0, 3000), st.integers(0, 3000))
def test_decay_halves_every_half_life_and_never_grows(half_life, then, now):
    one = events(("a", "x", 3.0, then * DAY, "buy"))
    value = weigh_events(one, WeightSettings(half_life_days=half_life), reference=now * DAY)["value"].iloc[0]
    assert value == pytest.approx(3.0 * 0.5 ** (max(now - then, 0) / half_life), rel=1e-12)


def test_no_reference_no_decay():
    assert weigh_events(SOME, WeightSettings(half_life_days=1))["value"].tolist() == SOME["value"].tolist()


def test_decay_needs_times():
    with pytest.raises(ConfigError, match="half_life_days needs timestamps"):
        weigh_events(SOME.drop(columns="timestamp"), WeightSettings(half_life_days=1), reference=5.0)


def test_types_without_a_weight_are_listed_with_their_rows():
    with pytest.raises(ConfigError, match=r"'view' \(1 rows\), 'return' \(1 rows\), 'ad' \(1 rows\)"):
        check_event_types(SOME, WeightSettings(events={"buy": 1}))


def test_count_ignores_weights_so_weights_are_refused():
    assert WeightSettings(events={"view": 1, "ad": 0}, aggregate="count")
    for settings in ({"events": {"buy": 2}}, {"half_life_days": 3}):
        with pytest.raises(ValidationError, match="counts events and ignores their values"):
            WeightSettings(**settings, aggregate="count")


def loop(frame, how):
    """Aggregate one event after the other, in the order (time, value), as the docstring defines it."""
    found = {}
    ordered = sorted(frame.itertuples(index=False), key=lambda event: (event.timestamp, event.value))
    for event in ordered:
        value, _, count = found.get((event.user_id, event.item_id), (None, -1, 0))
        if how == "sum":
            value = (value or 0.0) + event.value
        elif how == "last":
            value = event.value
        elif how == "max":
            value = event.value if value is None else max(value, event.value)
        else:
            value = count + 1.0
        found[event.user_id, event.item_id] = (value, event.timestamp, count + 1)
    return {pair: (float(np.float32(value)), int(np.floor(time))) for pair, (value, time, _) in found.items()}


random_events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([-2.5, 0.0, 0.1, 0.3, 7.0]), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("how", ["sum", "last", "max", "count"])
@given(random_events, st.randoms())
def test_aggregation_is_the_loop_whatever_the_order_of_rows(how, rows, random):
    frame = events(*rows, columns=("user_id", "item_id", "value", "timestamp"))
    random.shuffle(rows)
    shuffled = events(*rows, columns=("user_id", "item_id", "value", "timestamp"))
    assert combined(frame, how) == combined(shuffled, how) == loop(frame, how)


def test_sums_add_in_order_so_that_engines_agree_to_the_bit():
    """0.1 added ten times is not 1.0 in float64; the float32 of it is what the loop gives."""
    values = [1e16, 1.0, -1e16]  # by time: 1e16 swallows the 1
    frame = events(*(("a", "x", v, t, "") for t, v in enumerate(values)))
    assert combined(frame, "sum")["a", "x"][0] == 0.0
    frame["timestamp"] = [0, 2, 1]
    assert combined(frame, "sum")["a", "x"][0] == 1.0


def test_last_needs_times_and_without_times_time_is_minus_one():
    bare = SOME[["user_id", "item_id", "value"]]
    with pytest.raises(ConfigError, match="aggregate = 'last' needs timestamps"):
        combined(bare, "last")
    assert combined(bare, "sum")["a", "x"] == (3.0, -1)


def test_a_sum_past_float32_is_an_error_not_infinity():
    with pytest.raises(InputError, match="does not fit in float32"):
        combined(events(("a", "x", 1e39, 0, "")), "sum")


def test_ids_outside_the_map_are_named():
    with pytest.raises(InputError, match="1 rows have a item_id outside the id map, first 'y'"):
        aggregate_events(SOME.iloc[[0, 2]], "sum", IdMap.from_ids(["a"]), IdMap.from_ids(["x"]))


@pytest.mark.parametrize("how", ["sum", "last", "max", "count"])
def test_newer_pairs_add_up_with_older_ones_as_if_all_events_had_come_at_once(how):
    older = events(("a", "x", 1.0, 3, ""), ("a", "z", 4.0, 5, ""), ("b", "z", 2.0, 4, ""))
    newer = events(("a", "x", 3.0, 9, ""), ("a", "x", 2.0, 8, ""), ("a", "y", 1.0, 6, ""), ("c", "z", 7.0, 7, ""))
    both = pd.concat([older, newer])
    history = aggregate_events(older, how, IdMap.from_ids(older["user_id"]), IdMap.from_ids(older["item_id"]))
    users, items = IdMap.from_ids(both["user_id"]), IdMap.from_ids(both["item_id"])
    new_pairs = aggregate_events(newer, how, users, items)
    assert entries(add_pairs(history, new_pairs, how)) == combined(both, how)
    with pytest.raises(InputError, match="1 ids of the older interactions are outside the id map, first 'z'"):
        add_pairs(history, aggregate_events(newer[:3], how, users, IdMap.from_ids(["x", "y"])), how)


def test_of_pairs_without_times_none_is_the_last():
    undated = SOME.drop(columns="timestamp")
    users, items = IdMap.from_ids(SOME["user_id"]), IdMap.from_ids(SOME["item_id"])
    history = aggregate_events(undated, "sum", users, items)
    new_pairs = aggregate_events(SOME, "sum", users, items)
    assert set(add_pairs(history, new_pairs, "sum").time) == {-1}
    with pytest.raises(ConfigError, match="aggregate = 'last' needs timestamps"):
        add_pairs(history, new_pairs, "last")


def test_table_and_back():
    weighed = weigh_events(SOME, WeightSettings())
    there = aggregate_events(weighed, "sum", IdMap.from_ids(SOME["user_id"]), IdMap.from_ids(SOME["item_id"]))
    again = interactions_from_table(interactions_to_table(there).sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(interactions_to_table(again), interactions_to_table(there))
    with pytest.raises(InputError, match="1 \\(user, item\\) pairs occur twice"):
        interactions_from_table(pd.concat([interactions_to_table(there), interactions_to_table(there)[:1]]))


def test_filters_take_items_first_then_users_once():
    rows = [("a", "x"), ("a", "rare"), ("b", "x"), ("b", "x"), ("c", "x"), ("c", "y"), ("d", "y")]
    frame = events(*rows, columns=("user_id", "item_id"))
    left, removed = filter_events(frame, FilterSettings(min_item_events=2, min_user_events=2))
    assert list(left.itertuples(index=False, name=None)) == [("b", "x"), ("b", "x"), ("c", "x"), ("c", "y")]
    assert removed == {"min_item_events": {"rows": 1, "ids": 1}, "min_user_events": {"rows": 2, "ids": 2}}


pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


@given(pairs, st.integers(1, 4), st.integers(1, 4))
def test_the_core_is_what_is_left_when_one_removes_whoever_is_too_small(rows, per_item, per_user):
    left = list(rows)
    while True:  # one id at a time, in no order of ours: the core is the same
        small = [("u", u) for u, _ in left if sum(u == v for v, _ in left) < per_user]
        small += [("i", i) for _, i in left if sum(i == j for _, j in left) < per_item]
        if not small:
            break
        kind, gone = small[-1]
        left = [(u, i) for u, i in left if (u if kind == "u" else i) != gone]
    frame = events(*rows, columns=("user_id", "item_id"))
    core, removed = filter_events(
        frame, FilterSettings(min_item_events=per_item, min_user_events=per_user, repeat=True)
    )
    assert sorted(core.itertuples(index=False, name=None)) == sorted(left)
    assert len(rows) - len(left) == removed["min_item_events"]["rows"] + removed["min_user_events"]["rows"]


def test_the_sign_of_a_return_is_that_of_its_type():
    """A shop that writes returns with negative quantities must not turn them into likes."""
    rows = events(("a", "x", 6.0, 0, "buy"), ("a", "x", -6.0, 1, "return"), ("a", "y", 2.0, 2, "return"))
    weighting = WeightSettings(events={"buy": 1, "return": -1})
    assert weigh_events(rows, weighting)["value"].tolist() == [6.0, -6.0, -2.0]
    assert count_both_negative(rows, weighting) == 1
    assert count_both_negative(rows.drop(columns="event"), weighting) == 0
    lost = weigh_events(rows.assign(event="buy"), weighting)
    assert lost["value"].tolist() == [6.0, -6.0, 2.0]


def test_values_are_rescaled_before_they_are_weighted():
    rows = events(("a", "x", 1e8, 0, "buy"), ("a", "y", -3.0, 0, "buy"), ("b", "x", 0.0, 0, "buy"))
    doubled = WeightSettings(events={"buy": 2}, transform="log1p")
    assert weigh_events(rows, doubled)["value"].tolist() == [2 * np.log1p(1e8), -2 * np.log1p(3.0), 0.0]
    capped = WeightSettings(events={"buy": 2}, cap=10)
    assert weigh_events(rows, capped)["value"].tolist() == [20.0, -6.0, 0.0]
    both = WeightSettings(transform="log1p", cap=1.5)
    assert weigh_events(rows, both)["value"].tolist() == [1.5, -np.log1p(3.0), 0.0]
    assert rows["value"].tolist() == [1e8, -3.0, 0.0]


def test_a_count_has_nothing_to_rescale():
    with pytest.raises(ValidationError, match="transform and cap would do nothing"):
        WeightSettings(aggregate="count", cap=3)
