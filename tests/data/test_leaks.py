"""The auditor: silent on an honest split, and finds each leak planted in it, and no other than what it implies."""

import json

import numpy as np
import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.data.splitting.leaks import LEAKS, find_leaks, split_overview
from recsys.data.splitting.strategies import TEST, TRAIN, ByTime, LastN, assign_sides
from recsys.data.synthetic import film_world


@pytest.fixture(scope="module")
def honest():
    """A split by time with honest columns: release year, hour, a noisy expert's score, the film's mean in train."""
    world = film_world(users=400, items=100, events=10_000, seed=5)
    side = assign_sides(world.events, ByTime(test=0.2))
    train, test = (world.events[side == code].reset_index(drop=True) for code in (TRAIN, TEST))
    year = world.items.set_index("item_id")["year"]
    rng = np.random.default_rng(1)
    expert = pd.Series(world.truth.quality + rng.normal(0, 0.5, 100), index=world.items["item_id"])
    mean = train.groupby("item_id")["value"].mean()
    parts = [
        part.assign(
            year=part["item_id"].map(year),
            hour=part["timestamp"] // 3600 % 24,
            expert=part["item_id"].map(expert),
            train_mean=part["item_id"].map(mean),
            country=part["user_id"].map(world.users.set_index("user_id")["country"]),
        )
        for part in (train, test)
    ]
    return tuple(parts)


def found(train, test):
    return {finding.leak for finding in find_leaks(train, test)}


def test_silent_on_an_honest_split(honest):
    assert find_leaks(*honest) == []


def moved(train, test, rows):
    """Plant: these test rows are in train too."""
    return pd.concat([train, rows], ignore_index=True), test


def of_known_users(train, test):
    return test[test["user_id"].isin(train["user_id"]) & test["item_id"].isin(train["item_id"])]


def shared(train, test):
    return moved(train, test, of_known_users(train, test).iloc[100:103])


def respelt(train, test):
    rows = of_known_users(train, test).iloc[100:103]
    return moved(train, test, rows.assign(user_id=rows["user_id"].str.upper() + " "))


def future(train, test):
    """One stranger's row, of a known item, after the cut."""
    row = test.iloc[[5]].assign(user_id="known", timestamp=test["timestamp"].max())
    return moved(train, test, pd.concat([row, row.assign(timestamp=train["timestamp"].min())]))


def own_future(train, test):
    """A tested user's later row is trained on."""
    user = of_known_users(train, test)["user_id"].value_counts().index[0]
    rows = test[(test["user_id"] == user)].sort_values("timestamp")
    last = rows.index[-1]
    return pd.concat([train, rows.tail(1)], ignore_index=True), test.drop(index=last)


def new_user(train, test):
    row = test.iloc[[5]].assign(user_id="nobody knew me", timestamp=test["timestamp"].max())
    return moved(train, test, row)


def new_item(train, test):
    row = test.iloc[[5]].assign(item_id="not out yet", timestamp=test["timestamp"].max())
    return moved(train, test, row)


def copied(train, test):
    return train.assign(label=2 * train["value"]), test.assign(label=2 * test["value"])


def column_of(key, statistic):
    def plant(train, test):
        both = pd.concat([train, test])
        values = statistic(both.groupby(key))
        return train.assign(feature=train[key].map(values)), test.assign(feature=test[key].map(values))

    return plant


def renumbered(train, test):
    """Items numbered by how popular they are, tests included."""
    rank = pd.concat([train, test])["item_id"].value_counts().rank(method="first").astype(int)
    return train.assign(item_id=train["item_id"].map(rank)), test.assign(item_id=test["item_id"].map(rank))


PLANTED = {
    "shared rows": (shared, {"shared rows", "future events", "own future"}),
    "shared rows, respelt": (respelt, {"shared rows, respelt", "future events", "users from the future"}),
    "future events": (future, {"future events"}),
    "own future": (own_future, {"own future", "future events"}),
    "users from the future": (new_user, {"users from the future", "future events"}),
    "items from the future": (new_item, {"items from the future", "future events", "own future"}),
    "copied outcome": (copied, {"copied outcome"}),
    "feature: popularity": (column_of("item_id", lambda g: g.size()), {"feature from test rows"}),
    "feature: mean of the item": (column_of("item_id", lambda g: g["value"].mean()), {"feature from test rows"}),
    "feature: mean of the user": (column_of("user_id", lambda g: g["value"].mean()), {"feature from test rows"}),
    "feature: activity": (column_of("user_id", lambda g: g.size()), {"feature from test rows"}),
    "feature: last seen": (column_of("user_id", lambda g: g["timestamp"].max()), {"feature from test rows"}),
    "id order": (renumbered, {"id order"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_finds_what_is_planted_and_nothing_that_is_not(honest, name):
    plant, expected = PLANTED[name]
    assert found(*plant(*honest)) == expected


def test_every_leak_has_been_planted():
    assert set().union(*(expected for _, expected in PLANTED.values())) == set(LEAKS)


def test_findings_count_and_show(honest):
    train, test = shared(*honest)
    finding = next(finding for finding in find_leaks(train, test) if finding.leak == "shared rows")
    assert finding.count == 3
    assert repr(of_known_users(*honest)["user_id"].iloc[100]) in finding.message


def test_a_pair_that_comes_back_is_no_leak_with_times_and_is_one_without(honest):
    train, test = honest
    again = test.assign(user_id=train["user_id"].iloc[0], item_id=train["item_id"].iloc[0])[-1:]
    test = pd.concat([test, again], ignore_index=True)
    assert found(train, test) == set()
    assert split_overview(train, test)["test_rows_of_pairs_in_train"] == 1
    assert found(train.drop(columns="timestamp"), test.drop(columns="timestamp")) == {"shared rows"}


def test_a_split_by_last_events_is_told_that_it_knows_the_future(honest):
    log = pd.concat(honest)[["user_id", "item_id", "value", "timestamp"]]
    side = assign_sides(log, LastN(n=1))
    assert "future events" in found(log[side == TRAIN], log[side == TEST])


@pytest.mark.slow
def test_chance_raises_no_alarm_in_small_splits():
    """Two hundred random splits of 60 rows with a random column: none is accused of more than its repeats."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        log = pd.DataFrame(
            {"user_id": rng.integers(0, 15, 60), "item_id": rng.integers(0, 15, 60), "value": rng.integers(1, 6, 60)}
        ).assign(timestamp=np.arange(60.0), feature=rng.normal(size=60))
        assert find_leaks(log[:45], log[45:]) == []


@pytest.mark.slow
@pytest.mark.parametrize("leaky", [False, True])
def test_the_command(honest, tmp_path, capsys, leaky):
    train, test = shared(*honest) if leaky else honest
    train.to_csv(tmp_path / "train.csv", index=False)
    test.to_parquet(tmp_path / "test.parquet")
    arguments = ["check", "--split", str(tmp_path / "train.csv"), str(tmp_path / "test.parquet")]
    assert run_verb([*arguments, "--json"]) == (3 if leaky else 0)
    said = json.loads(capsys.readouterr().out)
    assert said["about"]["test"]["rows"] == len(test)
    assert [leak["leak"] for leak in said["leaks"]] == (["shared rows", "future events", "own future"] if leaky else [])
    assert run_verb(arguments) == (3 if leaky else 0)
    assert ("no leaks found" in capsys.readouterr().out) is not leaky


def test_the_command_needs_something_to_check(capsys):
    assert run_verb(["check"]) == 2
    assert "--split TRAIN TEST" in capsys.readouterr().err
