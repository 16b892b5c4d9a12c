"""The plan: what it counts, what it refuses, and that its numbers move with what they depend on."""

import json

import pandas as pd
import pytest

from recsys import config
from recsys.cli import run_verb
from recsys.errors import InputError

pytestmark = pytest.mark.spark


def planned(rows=1_000_000, users=50_000, items=5_000, heaviest=(500, 900), machine=None, **raw):
    from recsys.spark.plan import LogFacts, Machine, plan
    from recsys.spark.training.parameters import model_parameters

    settings = config.parse_config({"data": {"events": "x.csv"}, **raw})
    machine = machine or Machine(cores=2, heap=4096, free=100_000, score=5e-9, pair={"als": 1e-6})
    return plan(settings, LogFacts(rows, users, items, *heaviest), machine, model_parameters(settings))


def test_counts_are_those_of_the_log(spark, world):
    from recsys.spark.plan import count_log

    events = world.events[["user_id", "item_id"]]
    found = count_log(spark.createDataFrame(events))
    assert (found.rows, found.users, found.items) == (len(events), *events.nunique())
    assert found.heaviest_user == events.user_id.value_counts().iloc[0]
    assert found.heaviest_item == events.item_id.value_counts().iloc[0]
    with pytest.raises(InputError, match="no rows"):
        count_log(spark.createDataFrame(events).limit(0))


def test_ten_times_the_log_and_twice_the_rank_cost_accordingly():
    mllib = {"als": {"trainer": "mllib"}}
    one, ten = planned(models=mllib), planned(rows=10_000_000, users=500_000, models=mllib)
    fit, more = (found.seconds["fit als"] - 12 for found in (one, ten))
    assert 8 < more / fit < 10.1  # the items' part stays
    twice = planned(models={"als": {"rank": 128, "trainer": "mllib"}}).seconds["fit als"] - 12
    assert 3.5 < twice / fit < 8  # between rank² and rank³
    one, ten, hundred = (planned(rows=n * 1_000_000, users=n * 50_000) for n in (10, 100, 1_000))
    first, second, third = (found.seconds["fit als"] for found in (one, ten, hundred))
    assert third - second == pytest.approx(10 * (second - first))  # jobs have a part that stays
    small = {rows: planned(rows=rows, users=rows // 20).seconds["fit als"] - 12 for rows in (1_000, 2**22, 2**22 + 1)}
    assert small[2**22] == pytest.approx(2**22 / 1_000 * small[1_000], rel=0.01), "the driver trains without jobs"
    assert small[2**22 + 1] > 1.5 * small[2**22], "jobs move the factors of users"
    assert ten.memory["python"] == one.memory["python"], "the driver must not grow with the users"
    assert ten.memory["workers"] == one.memory["workers"]


def test_what_cannot_fit_is_refused_with_advice():
    from recsys.spark.plan import Machine

    assert planned().refusals == []
    small = Machine(cores=2, heap=1024, free=100_000, score=5e-9, pair={"als": 1e-6})
    mllib = {"als": {"trainer": "mllib"}}
    assert "raise spark.driver.memory" in planned(rows=30_000_000, machine=small, models=mllib).refusals[0]
    assert any("read from disk" in note for note in planned(rows=60_000_000, machine=small).notes)
    assert "lower rank" in planned(users=30, models={"als": {"rank": 64}}).refusals[0]
    assert "raise recommend.memory_mb" in planned(items=5_000_000, recommend={"memory_mb": 8}).refusals[0]
    full = Machine(cores=2, heap=4096, free=10, score=5e-9, pair={"als": 1e-6})
    assert "spark.local.dir" in planned(machine=full).refusals[0]


def test_large_item_factors_are_planned_in_blocks():
    """Rank 64, 256 bytes per item: 4,194,304 items are 1,024 MiB, and 1,048,576 are 256."""
    broadcast, blocked = planned(items=4_194_304), planned(items=4_194_305)
    assert "are broadcast: 1,024.00 MiB" in broadcast.sizes["layout of als"]
    assert "in 33 blocks of 131,072 items" in blocked.sizes["layout of als"]
    assert blocked.memory["python"] < broadcast.memory["python"] / 20
    assert blocked.memory["workers"] < broadcast.memory["workers"]
    forced = planned(items=1_048_576, spark={"item_block_mb": 64})
    assert "in 4 blocks of 262,144 items" in forced.sizes["layout of als"]
    assert "are broadcast" in planned(items=1_048_576, spark={"item_block_mb": 256}).sizes["layout of als"]
    huge = planned(items=8_400_000, recommend={"memory_mb": 512}, spark={"item_block_mb": 4000})
    assert "above 2047" in huge.sizes["layout of als"]


def test_skew_and_checkpoints_are_noted():
    from recsys.spark.plan import Machine

    mllib = {"als": {"trainer": "mllib"}}
    assert "one user has 400,000" in planned(heaviest=(400_000, 10)).notes[0]
    assert "one item has 400,000" in planned(heaviest=(10, 400_000), models=mllib).notes[0]
    assert planned(heaviest=(10, 400_000)).notes == [], "our trainer gives no task a whole item"
    cluster = Machine(cores=8, heap=4096, free=100_000, score=5e-9, pair={"als": 1e-6}, local=False)
    assert any("checkpoint_dir" in note for note in planned(machine=cluster, models=mllib).notes)
    assert not any("checkpoint_dir" in note for note in planned(machine=cluster).notes)


def test_the_verb_prints_json_or_refuses(spark, world_files, tmp_path, capsys):
    (tmp_path / "job.toml").write_text(f"[data]\nevents = '{world_files['events']}'\n[models.als]\nrank = 8\n")
    assert run_verb(["plan", str(tmp_path / "job.toml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["rows"] == len(pd.read_csv(world_files["events"]))
    assert found["memory"]["total"] > 0
    assert run_verb(["plan", str(tmp_path / "job.toml"), "--set", "models.als.rank=1000000"]) == 2
    assert "lower rank" in capsys.readouterr().err
