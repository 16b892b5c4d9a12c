"""Whether order matters: logs whose order is the whole truth, or none of it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from contract import world
from test_sequential import chain

from recsys.cli import run_verb
from recsys.models.sequential.order_effect import measure_order


def test_order_matters_where_each_item_follows_the_one_before():
    effect = measure_order(chain(users=300, items=40))
    assert effect.matters
    assert effect.ordered > 0.95
    assert 0.3 < effect.low < effect.difference < effect.high
    assert effect.difference == pytest.approx(effect.ordered - effect.shuffled)
    assert 250 < effect.users <= 300


def test_order_does_not_matter_where_times_are_random():
    """Of twenty logs with random times about one may have an interval above 0 by chance."""
    found = 0
    for seed in range(20):
        log = chain(users=200, items=40, seed=seed)
        times = np.random.default_rng(seed).integers(0, 10**9, len(log))
        effect = measure_order(replace(log, time=times), seed)
        found += effect.matters
        assert abs(effect.difference) < 0.1
    assert found <= 3


def test_the_order_of_ids_is_no_order_of_time():
    """Each item follows the one before it in the rows of items, but all events of a user have one time."""
    generator = np.random.default_rng(3)
    user = np.repeat(np.arange(300), 6)
    item = np.repeat(generator.integers(0, 35, 300), 6) + np.tile(np.arange(6), 300)
    log = chain(users=300, items=41)
    one_basket = replace(
        log, user=user, item=item, value=np.ones(1800), time=np.full(1800, 5), users=log.users, items=log.items
    )
    effect = measure_order(one_basket)
    assert effect.users > 250
    assert not effect.matters


def test_a_log_of_few_users_or_without_times_says_nothing():
    log = chain(users=300)
    assert measure_order(replace(log, time=np.full(len(log), -1))) is None
    assert measure_order(world()[0]) is None


def write_events(path, log):
    names = {"user_id": log.user, "item_id": log.item, "timestamp": 1_500_000_000 + log.time}
    pd.DataFrame(names).to_csv(path, index=False)


def test_check_says_whether_order_matters(tmp_path, capsys):
    write_events(tmp_path / "songs.csv", chain(users=300, items=40))
    assert run_verb(["check", str(tmp_path / "songs.csv"), "--json"]) == 0
    order = json.loads(capsys.readouterr().out)["order"]
    assert order["matters"] is True
    assert order["ordered"] > order["shuffled"] + 0.3
    assert run_verb(["check", str(tmp_path / "songs.csv")]) == 0
    assert "order matters: a model of order (transitions, next_item) is worth a trial" in " ".join(
        capsys.readouterr().out.split()
    )


def test_check_of_a_small_log_says_nothing_of_order(tmp_path, capsys):
    write_events(tmp_path / "few.csv", chain(users=30))
    assert run_verb(["check", str(tmp_path / "few.csv"), "--json"]) == 0
    assert "order" not in json.loads(capsys.readouterr().out)
