"""Logs as they should not be: one huge user, one item everywhere, repeats, zeros, gaps, dislikes, changing sources."""

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from builders import ENGINES, run_spark_engine

from recsys.errors import RunFolderError
from recsys.runfolder import RunFolder

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]
HEAVY = 200_000


@pytest.fixture(scope="module")
def odd_log(tmp_path_factory):
    """One user with 200,000 events; an item in nine of ten histories; a tenth of rows twice; values of all kinds."""
    rng = np.random.default_rng(0)
    n, users, items = 20_000, 800, 300
    light = pd.DataFrame({"user_id": rng.integers(1, users, n), "item_id": rng.integers(1, items, n)})
    common = pd.DataFrame({"user_id": np.flatnonzero(rng.random(users) < 0.9), "item_id": 0})
    heavy = pd.DataFrame({"user_id": np.zeros(HEAVY, np.int64), "item_id": rng.integers(0, items, HEAVY)})
    log = pd.concat([light, common, heavy], ignore_index=True)
    log["value"] = rng.choice([1.0, 2.5, 0.0, -1.0, 0.1], len(log), p=[0.6, 0.2, 0.1, 0.05, 0.05])
    log["timestamp"] = 1_600_000_000.0 + rng.integers(0, 10**7, len(log))
    log = pd.concat([log, log.sample(frac=0.1, random_state=1)], ignore_index=True)
    log.loc[log.index[::997], "value"] = np.nan
    log = log.sample(frac=1, random_state=2)  # times in no order
    path = tmp_path_factory.mktemp("odd") / "events.parquet"
    log.to_parquet(path, index=False)
    return path, log


def test_an_odd_log_gives_both_engines_the_same_counts_lists_and_refusals(spark, odd_log, tmp_path):
    path, log = odd_log
    found = {}
    for engine, run in ENGINES.items():
        raw = {
            "out": str(tmp_path / engine),
            "data": {"events": str(path)},
            "models": {"als": {"rank": 4, "iterations": 2}},
            "recommend": {"k": 5},
            "judge": {"metrics": ["ndcg@5"], "resamples": 100},
        }
        run(raw)
        found[engine] = RunFolder.open(tmp_path / engine)
    local, large = found["local"], found["spark"]
    bad = int(log["value"].isna().sum())
    for folder in (local, large):  # Parquet keeps pandas' NaN as a gap
        assert folder.read_json("data.json")["refused"] == {"total": bad, "by_reason": {"unparsable value": bad}}
    assert large.read_json("split.json") == local.read_json("split.json")
    assert large.read_json("split.json")["train"]["rows"] > 0.7 * HEAVY
    order = ["user_id", "rank"]
    for model in ("popular", "recent"):
        lists = [folder.read_table(f"topk/{model}.parquet")[[*order, "item_id"]] for folder in (local, large)]
        a, b = (table.sort_values(order, ignore_index=True).astype("int64") for table in lists)
        pd.testing.assert_frame_equal(a, b)
    lists = large.read_table("topk/als.parquet")
    assert np.isfinite(lists["score"]).all()
    history = large.read_table("split/history.parquet")[["user_id", "item_id"]]
    assert lists.merge(history, on=["user_id", "item_id"]).empty
    assert not lists.duplicated(["user_id", "item_id"]).any()


@pytest.mark.parametrize("rule", ["time", "fraction"])
def test_a_source_that_changes_at_every_look_is_read_once(spark, monkeypatch, tmp_path, rule):
    """By time a side is a comparison on what was read, and nothing in between is kept: a second look would show."""
    from pyspark.sql.types import LongType

    from recsys.config import DataSettings
    from recsys.data.reading.columnar import RawChunk
    from recsys.data.splitting.strategies import ByTime, Fraction
    from recsys.data.weigh import FilterSettings, WeightSettings
    from recsys.spark.data import read
    from recsys.spark.data.split import split

    def raw(session, source, reading):
        def look(batches):
            rng = np.random.default_rng()  # of no seed: other rows at every look
            for batch in batches:
                most = {"user_id": 40, "item_id": 30, "timestamp": 10**6}
                columns = {name: pa.array(rng.integers(0, n, batch.num_rows)) for name, n in most.items()}
                chunk = RawChunk(
                    pd.DataFrame({name: column.to_numpy() for name, column in columns.items()}),
                    np.zeros(batch.num_rows, dtype=np.int8),
                    "a source that changes",
                    lambda row: 0,
                    lambda row: "",
                )
                yield chunk, columns

        id_types = dict.fromkeys(("user_id", "item_id"), LongType())
        return read.RawEvents([(session.range(3000), look)], ("user_id", "item_id", "timestamp"), id_types)

    (tmp_path / "any.csv").write_text("user_id,item_id,timestamp\n1,1,1\n")
    monkeypatch.setattr(read, "_read_raw", raw)
    data = DataSettings(events=str(tmp_path / "any.csv"), time_unit="s")
    events = read.read_tables(spark, data, tmp_path / "work").events
    chosen = ByTime() if rule == "time" else Fraction(test=0.3)
    found = split(
        events, chosen, weighting=WeightSettings(), filters=FilterSettings(), items=None, work=tmp_path / "work"
    )
    train, test = (found.by_id[side].toPandas() for side in ("train", "test"))
    assert train["value"].sum() + test["value"].sum() == 3000
    assert found.about["train"]["rows"] == train["value"].sum()
    assert found.about["test"]["pairs"] == len(test)
    if rule == "time":
        assert train["timestamp"].max() < test["timestamp"].min()
    else:
        assert train.merge(test, on=["user_id", "item_id"]).empty


@pytest.mark.long
def test_two_hundred_iterations_of_mllib_do_not_outgrow_the_stack(spark, tmp_path):

    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"user": rng.integers(0, 30, 300), "item": rng.integers(0, 20, 300)}).drop_duplicates()
    train = spark.createDataFrame(pairs.assign(value=1.0)).selectExpr("int(user) user", "int(item) item", "value")
    from recsys.spark.training.als import fit_als
    from recsys.spark.training.parameters import SparkALSParameters

    params = SparkALSParameters(rank=2, iterations=200, trainer="mllib", blocks=1)
    model = fit_als(train, 20, params, tmp_path / "als")
    assert np.isfinite(model.items).all()
    assert model.users.count() == pairs["user"].nunique()


def test_a_folder_that_may_not_be_written_is_named(spark, world_files, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a read-only file system here")
    try:
        raw = {"out": str(place / "run"), "data": {"events": str(world_files["events"])}}
        with pytest.raises(RunFolderError, match=r"the run folder cannot be written: .*Read-only file system"):
            run_spark_engine(raw | {"models": {"als": {}}}, spark)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
