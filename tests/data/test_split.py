"""Every rule against a slow loop over its definition, its drawn timeline, and what the audit counts."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.hashing import id_hash, pair_hash
from recsys.data.splitting import audit, strategies
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import (
    ByFiles,
    ByTime,
    ColdItems,
    Fraction,
    HeldOutUsers,
    LastN,
    assign_sides,
    cut_time,
)
from recsys.data.weigh import FilterSettings, WeightSettings, aggregate_events, interactions_to_table
from recsys.errors import ConfigError, InputError
from recsys.types import IdMap, Split

SIDES = {"o": strategies.TRAIN, "h": strategies.HISTORY, "x": strategies.TEST}


def events(rows, columns=("user_id", "item_id", "value", "timestamp")):
    return pd.DataFrame(rows, columns=list(columns))


# --- the drawings in the docstrings --------------------------------------------------------------------------


def drawing(rule):
    """Return (events, the drawn side of each) of a rule's docstring; every event has an item of its own."""
    rows, sides = [], []
    for line in rule.__doc__.splitlines():
        name, _, marks = line.strip().partition(" ")
        if name in ("Alice", "Bob", "Carol") and set(marks) <= set(" oxh.|"):
            for time, mark in enumerate(marks.replace("|", " ").split()):
                if mark != ".":
                    rows.append((name, f"film {len(rows)}", 1.0, float(time)))
                    sides.append(SIDES[mark])
    return events(rows), np.array(sides)


def test_the_drawing_of_time():
    log, drawn = drawing(ByTime)
    assert assign_sides(log, ByTime(at=4)).tolist() == drawn.tolist()


def test_the_drawing_of_last():
    log, drawn = drawing(LastN)
    assert assign_sides(log, LastN(n=1)).tolist() == drawn.tolist()


def test_the_drawing_of_files():
    log, drawn = drawing(ByFiles)
    assert set(drawn) == {strategies.TRAIN, strategies.HISTORY, strategies.TEST}
    rule = ByFiles(train="o", history="h", test="x")
    assert assign_sides(log.assign(side=drawn), rule).tolist() == drawn.tolist()


@pytest.mark.parametrize("rule", [Fraction, HeldOutUsers, ColdItems])
def test_the_drawings_by_hash(rule, monkeypatch):
    """Whatever the hash says: here it says what the drawing shows."""
    log, drawn = drawing(rule)
    shown = {"Alice": 0.9, "Carol": 0.9, "Bob": 0.0}
    of_item = dict(zip(log["item_id"], np.where(drawn == strategies.TEST, 0.0, 0.9), strict=True))
    monkeypatch.setattr(strategies, "pair_hash", lambda users, items, seed: items.map(of_item).to_numpy())
    of_id = shown if rule is HeldOutUsers else of_item
    monkeypatch.setattr(strategies, "id_hash", lambda ids, seed: ids.map(of_id).to_numpy())
    assert assign_sides(log, rule()).tolist() == drawn.tolist()


# --- the definitions, as loops -------------------------------------------------------------------------------


def loop_time(log, rule):
    times = sorted(log["timestamp"])
    limit = int(rule.test * len(times))
    fitting = [t for t in times if sum(other >= t for other in times) <= limit]
    cut = min(fitting) if fitting else times[-1]
    return [strategies.TEST if t >= cut else strategies.TRAIN for t in log["timestamp"]]


def loop_last(log, rule):
    sides = []
    for row in log.itertuples(index=False):
        own = [(r.timestamp, r.item_id) for r in log.itertuples(index=False) if r.user_id == row.user_id]
        from_here_on = sum(event >= (row.timestamp, row.item_id) for event in own)
        sides.append(strategies.TEST if len(own) > rule.n and from_here_on <= rule.n else strategies.TRAIN)
    return sides


def loop_fraction(log, rule):
    return [
        strategies.TEST if pair_hash([u], [i], rule.seed)[0] < rule.test else 0
        for u, i in log[["user_id", "item_id"]].values
    ]


def loop_items(log, rule):
    return [strategies.TEST if id_hash([i], rule.seed)[0] < rule.share else strategies.TRAIN for i in log["item_id"]]


def loop_users(log, rule):
    sides = []
    for row in log.itertuples(index=False):
        if id_hash([row.user_id], rule.seed)[0] >= rule.share:
            sides.append(strategies.TRAIN)
            continue
        own = [(r.timestamp, r.item_id) for r in log.itertuples(index=False) if r.user_id == row.user_id]
        up_to_here = sum(event <= (row.timestamp, row.item_id) for event in own)
        sides.append(strategies.HISTORY if up_to_here <= int(rule.history * len(own)) else strategies.TEST)
    return sides


LOOPS = [
    (ByTime(test=0.3), loop_time),
    (ByTime(test=0.01), loop_time),
    (LastN(n=1), loop_last),
    (LastN(n=3), loop_last),
    (Fraction(test=0.4, seed=2), loop_fraction),
    (HeldOutUsers(share=0.5, history=0.5, seed=1), loop_users),
    (ColdItems(share=0.4, seed=3), loop_items),
]
logs = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.just(1.0), st.integers(0, 6).map(float)), min_size=1, max_size=40
)


@pytest.mark.parametrize(("rule", "loop"), LOOPS, ids=lambda value: getattr(value, "rule", ""))
@given(logs, st.randoms(), st.booleans())
def test_rules_are_their_loops_in_any_order_of_rows(rule, loop, rows, random, as_text):
    log = events(rows)
    if as_text:
        log = log.astype({"user_id": str, "item_id": str}).astype({"user_id": object, "item_id": object})
    wanted = loop(log, rule)
    if strategies.TEST not in wanted or strategies.TRAIN not in wanted:
        with pytest.raises(InputError):
            assign_sides(log, rule)
        return
    assert assign_sides(log, rule).tolist() == wanted
    order = list(range(len(log)))
    random.shuffle(order)
    assert assign_sides(log.iloc[order], rule).tolist() == [wanted[place] for place in order]


@given(st.lists(st.integers(0, 8).map(float), min_size=2, max_size=30), st.floats(0.01, 0.99))
def test_a_cut_takes_at_most_its_share_and_as_much_as_ties_allow(times, share):
    cut = cut_time(np.array(times), share)
    assert cut in times
    taken, limit = sum(t >= cut for t in times), int(share * len(times))
    earlier = [t for t in times if t < cut]
    assert taken <= limit or cut == max(times)
    if earlier and taken <= limit:
        assert sum(t >= max(earlier) for t in times) > limit


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        ("2016-01-01", 1_451_606_400.0),
        ("2016-01-01T01:00:00+01:00", 1_451_606_400.0),
        (datetime(2016, 1, 1, tzinfo=UTC), 1_451_606_400.0),
        (datetime(2016, 1, 1).date(), 1_451_606_400.0),
        (1_451_606_400, 1_451_606_400.0),
    ],
)
def test_a_cut_may_be_given_as_a_date(at, seconds):
    assert ByTime(at=at).at == seconds


def test_fraction_hits_its_share_and_keeps_pairs_together():
    rng = np.random.default_rng(0)
    log = events(
        zip(rng.integers(0, 300, 20_000), rng.integers(0, 300, 20_000), [1.0] * 20_000, [0.0] * 20_000, strict=True)
    )
    side = assign_sides(log, Fraction(test=0.2))
    assert abs((side == strategies.TEST).mean() - 0.2) < 0.01
    assert log.assign(side=side).groupby(["user_id", "item_id"])["side"].nunique().max() == 1


@pytest.mark.parametrize("rule", [ByTime(), LastN()])
def test_rules_of_time_say_when_there_is_none(rule):
    with pytest.raises(InputError, match=rf"rule = '{rule.rule}' needs timestamps"):
        assign_sides(events([(1, 1)], columns=("user_id", "item_id")), rule)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (ByTime(at="2021-01-01"), r"no events at or after 2021-01-01; the log ends 1970-01-01T00:00:03Z"),
        (ByTime(at=0), r"all 4 events are at or after 1970-01-01\. Use a later `at`"),
        (LastN(n=9), r"leaves no test events of 4\. Use another `n`"),
        (Fraction(test=0.0001), r"leaves no test events of 4\. Use another `test` or seed"),
    ],
)
def test_an_empty_side_is_an_error_with_a_remedy(rule, says):
    with pytest.raises(InputError, match=says):
        assign_sides(events([(1, item, 1.0, float(item)) for item in range(4)]), rule)


# --- the whole hop -------------------------------------------------------------------------------------------

LOG = events(
    [
        ("ann", "x", 2.0, 10.0),
        ("ann", "y", 3.0, 20.0),
        ("bob", "x", 1.0, 20.0),
        ("bob", "rare", 1.0, 20.0),
        ("ann", "x", 5.0, 40.0),  # a repeat, after the cut
        ("bob", "new", 4.0, 40.0),  # a cold item
        ("eve", "y", 4.0, 50.0),  # a cold user
    ]
)


def rows(interactions):
    return [tuple(row) for row in interactions_to_table(interactions).itertuples(index=False, name=None)]


def test_a_split_by_time_and_all_its_numbers():
    parts = split(LOG, ByTime(at=30), items=pd.DataFrame({"item_id": ["x", "shelf"]}))
    assert rows(parts.train) == [
        ("ann", "x", 2.0, 10),
        ("ann", "y", 3.0, 20),
        ("bob", "rare", 1.0, 20),
        ("bob", "x", 1.0, 20),
    ]
    assert rows(parts.test) == [("ann", "x", 5.0, 40), ("bob", "new", 4.0, 40), ("eve", "y", 4.0, 50)]
    assert parts.history is parts.train
    assert list(parts.train.items.ids) == ["rare", "shelf", "x", "y"]
    about = parts.about
    assert about["train"] == {
        "rows": 4, "pairs": 4, "users": 2, "items": 3, "from": "1970-01-01T00:00:10Z", "to": "1970-01-01T00:00:20Z",
    }  # fmt: skip
    assert about["cut"] == "1970-01-01T00:00:30Z"
    assert about["candidates"] == 4
    assert (about["shared_rows"], about["repeated_pairs"]) == (0, 1)
    assert about["test_rows_before_train_end"] == 0.0
    assert about["test_users"] == {"warm": 2, "cold": 1}
    assert about["test_items"] == {"warm": 2, "cold": 1}
    assert about["test_outside_candidates"] == {"items": 1, "rows": 1, "share_of_rows": 1 / 3}
    assert about["users_wholly_in_train"] == 0
    assert about["warnings"] == []


def test_filters_touch_train_only():
    parts = split(LOG, ByTime(at=30), filters=FilterSettings(min_item_events=2))
    assert [row[:2] for row in rows(parts.train)] == [("ann", "x"), ("bob", "x")]
    assert len(parts.test) == 3
    with pytest.raises(InputError, match="the filters removed every train event"):
        split(LOG, ByTime(at=30), filters=FilterSettings(min_user_events=99))


def test_decay_refers_to_the_newest_train_event_and_never_to_the_test():
    day = 86_400.0
    log = events([("a", "x", 8.0, 0.0), ("b", "x", 8.0, 2 * day), ("a", "y", 8.0, 10 * day)])
    parts = split(log, ByTime(at=3 * day), weighting=WeightSettings(half_life_days=2))
    assert parts.train.value.tolist() == [4.0, 8.0]
    assert parts.test.value.tolist() == [8.0]
    assert parts.about["decay_reference"] == "1970-01-03"


def test_a_decay_without_times_is_refused():
    log = events([("a", "x", 8.0, 0.0), ("a", "y", 8.0, 1.0), ("b", "x", 8.0, 2.0)]).drop(columns="timestamp")
    with pytest.raises(ConfigError, match="half_life_days needs timestamps"):
        split(log, Fraction(test=0.5), weighting=WeightSettings(half_life_days=1))


def test_test_events_are_never_decayed_even_when_they_are_old():
    log = events([("a", "x", 8.0, 0.0), ("a", "y", 8.0, 86_400.0), ("b", "x", 8.0, 9 * 86_400.0)])
    parts = split(log, LastN(n=1), weighting=WeightSettings(half_life_days=1))
    assert rows(parts.test) == [("a", "y", 8.0, 86_400)]
    assert rows(parts.train) == [("a", "x", 8.0 / 2**9, 0), ("b", "x", 8.0, 9 * 86_400)]


def test_held_out_users_have_a_history_that_nobody_trained_on():
    rng = np.random.default_rng(1)
    log = events([(u, int(i), 1.0, float(t)) for u in range(40) for t, i in enumerate(rng.permutation(30)[:10])])
    parts = split(log, HeldOutUsers(share=0.3, history=0.8))
    trained, known, tested = (set(part.users.ids) for part in (parts.train, parts.history, parts.test))
    assert tested
    assert not tested & trained
    assert known == trained | tested
    for user in tested:
        own = interactions_to_table(parts.history)[lambda t, user=user: t["user_id"] == user]
        after = interactions_to_table(parts.test)[lambda t, user=user: t["user_id"] == user]
        assert len(own) == 8
        assert len(after) == 2
        assert own["timestamp"].max() < after["timestamp"].min()


def test_history_outside_the_candidates_is_dropped_and_counted():
    log = events([(user, item, 1.0, float(item)) for user in range(30) for item in range(4)])
    held = id_hash(np.arange(30), 0) < 0.2
    log = pd.concat([log, events([(user, 99, 1.0, -1.0) for user in np.flatnonzero(held)])])
    parts = split(log, HeldOutUsers(share=0.2, history=0.5))
    assert parts.about["history_rows_outside_candidates"] == held.sum()


def test_cold_items_are_candidates_only_through_the_items_table():
    rng = np.random.default_rng(2)
    log = events(
        [(int(u), int(i), 1.0, 0.0) for u, i in zip(rng.integers(0, 30, 400), rng.integers(0, 50, 400), strict=True)]
    )
    bare = split(log, ColdItems(share=0.3))
    assert bare.about["test_outside_candidates"]["share_of_rows"] == 1.0
    told = split(log, ColdItems(share=0.3), items=pd.DataFrame({"item_id": np.arange(50)}))
    assert told.about["test_outside_candidates"]["rows"] == 0
    assert told.about["test_items"]["warm"] == 0


def test_leaks_are_said():
    log = events([(u, i, 1.0, float(10 * u + i)) for u in range(5) for i in range(6)])
    about = split(log, LastN(n=1)).about
    early = np.mean([10 * u + 5 < 10 * 4 + 4 for u in range(5)])
    assert about["test_rows_before_train_end"] == early
    assert any("leaks the future: 80% of test rows" in line for line in about["warnings"])


def test_weights_without_types_and_types_without_weights():
    about = split(LOG, ByTime(at=30), weighting=WeightSettings(events={"buy": 2})).about
    assert any("no `event` column" in line for line in about["warnings"])
    with pytest.raises(ConfigError, match="event types without a weight: 'view'"):
        split(LOG.assign(event="view"), ByTime(at=30), weighting=WeightSettings(events={"buy": 2}))
    with pytest.raises(InputError, match="has weight 0"):
        split(LOG.assign(event="ad"), ByTime(at=30), weighting=WeightSettings(events={"ad": 0}))


@given(logs, st.sampled_from([ByTime(test=0.3), Fraction(test=0.4), LastN(), ColdItems(share=0.4)]))
def test_the_counts_of_the_audit_are_those_of_sets(rows_, rule):
    log = events(rows_)
    try:
        side = assign_sides(log, rule)
    except InputError:
        return
    about = split(log, rule).about
    train, test = log[side == strategies.TRAIN], log[side == strategies.TEST]
    pairs = [set(map(tuple, part[["user_id", "item_id"]].values)) for part in (train, test)]
    exact = set(map(tuple, train[["user_id", "item_id", "timestamp"]].values))
    assert about["repeated_pairs"] == len(pairs[0] & pairs[1])
    assert about["shared_rows"] == sum(tuple(row) in exact for row in test[["user_id", "item_id", "timestamp"]].values)
    warm = set(train["user_id"])
    assert about["test_users"]["warm"] == len(set(test["user_id"]) & warm)
    assert about["test_items"]["cold"] == len(set(test["item_id"]) - set(train["item_id"]))
    assert about["test_rows_before_train_end"] == np.mean([t < train["timestamp"].max() for t in test["timestamp"]])


@given(logs, st.lists(st.booleans(), min_size=40, max_size=40))
def test_rows_on_both_sides_are_counted_however_long_the_log(rows_, both):
    """No rule of ours puts a row on both sides, so the sides are made here: all in train, some of them in the test too.

    Looked at three rows at a time.
    """
    train = events(rows_)
    test = train[np.resize(both, len(train))]
    if not len(test):
        return
    items, users = (IdMap.from_ids(train[column]) for column in ("item_id", "user_id"))
    known = aggregate_events(train, "sum", users, items)
    parts = Split(train=known, history=known, test=aggregate_events(test, "sum", users, items), rule="by hand")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "PIECE", 3)
        assert audit.describe_overlap(parts, train, train, test)["shared_rows"] == len(test)
        later = test.assign(timestamp=test["timestamp"] + 1_000_000)
        assert audit.describe_overlap(parts, train, train, later)["shared_rows"] == 0
