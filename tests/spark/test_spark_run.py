"""Whole runs on both engines over the same files: what does not depend on ALS's random start must be equal."""

import re
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import ENGINES

from recsys.report import write_report
from recsys.runfolder import RunFolder

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]
OF_LOCAL_RUNS = ("## Cold start", "## Training")
METRICS = ["ndcg@5", "recall@5", "ndcg[gain=exp]@3"]
SPARK = {"driver_memory": "1g", "conf": {"spark.ui.enabled": "false"}}


def ids(kind, rows):
    """Return ids of a kind for row numbers."""
    if kind == "text":  # "007" beside "7"
        return [str(row) if row % 2 else f"00{row + 1}" for row in rows]
    if kind == "uuid":
        return [str(uuid.UUID(int=int(row) * 7919)) for row in rows]
    if kind == "int64":  # pairs that are equal modulo 2^32
        return np.where(rows % 2, rows, rows - 1 + 2**32).astype(np.int64)
    return rows.astype(np.int32)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("int64", "int32"), id="integers"),
        # Most other runs of the tests have ids of text.
        pytest.param(("text", "uuid"), id="texts", marks=pytest.mark.long),
    ],
)
def runs(request, spark, world, tmp_path_factory):
    """One run a engine, over the film world under other ids."""
    place = tmp_path_factory.mktemp("runs")
    user, item = request.param
    item_codes, item_names = pd.factorize(world.events["item_id"], sort=True)
    events = world.events.assign(
        user_id=ids(user, pd.factorize(world.events["user_id"], sort=True)[0]), item_id=ids(item, item_codes)
    )
    events.to_parquet(place / "events.parquet", index=False)
    # In a text file every id is text, also one that is an integer in the events.
    rows = np.flatnonzero(world.items["item_id"].isin(item_names))
    items = world.items.iloc[rows].assign(item_id=ids(item, item_names.get_indexer(world.items["item_id"].iloc[rows])))
    items.to_csv(place / "items.csv", index=False)
    found = {"events": events}
    for engine, run in ENGINES.items():
        raw = {
            "out": str(place / engine),
            "data": {"events": str(place / "events.parquet"), "items": str(place / "items.csv")},
            "split": {"rule": "time", "test": 0.25},
            "models": {"als": {"rank": 4, "iterations": 3}},
            "recommend": {"k": 5, "everyone": True, "min_history": 0},
            "judge": {"metrics": METRICS, "relevant": 3.5, "resamples": 200},
            "spark": SPARK,
        }
        run(raw)
        write_report(place / engine)
        found[engine] = RunFolder.open(place / engine)
        found["settings"] = raw
    return found


def table(run, name, by):
    found = run.read_table(name)
    return found.sort_values(by, ignore_index=True)


def test_both_reports_have_the_same_sections(runs):
    heads = []
    for engine in ("local", "spark"):
        lines = (runs[engine].path / "report.md").read_text().splitlines()
        heads.append([line for line in lines if line.startswith("## ") and line not in OF_LOCAL_RUNS])
    assert heads[0] == heads[1]
    assert "## Item map" in heads[0]


def test_candidates_are_described_alike(runs):
    local, spark = (runs[engine].read_table("split/items.parquet") for engine in ("local", "spark"))
    pd.testing.assert_frame_equal(local, spark, check_dtype=False)


def test_data_and_split_are_described_alike(runs):
    for name in ("data.json", "split.json"):
        assert runs["spark"].read_json(name) == runs["local"].read_json(name)


def test_ids_come_back_distinct_and_of_their_dtype(runs):
    for engine in ("local", "spark"):
        lists = table(runs[engine], "topk/als.parquet", ["user_id", "rank"])
        for column in ("user_id", "item_id"):
            # Integers of any width are int64, as those of the items table, which is a text file.
            expected = object if runs["events"][column].dtype == object else np.int64
            assert lists[column].dtype == expected
            assert set(lists[column]) <= set(runs["events"][column])
        assert not lists.duplicated(["user_id", "item_id"]).any()
        known = table(runs[engine], "split/train.parquet", ["user_id", "item_id"])
        assert lists.merge(known, on=["user_id", "item_id"]).empty, "a seen item was recommended"
        assert set(lists["user_id"]) >= set(known["user_id"]), "recommend.everyone leaves somebody out"


@pytest.mark.parametrize("model", ["popular", "recent"])
def test_baselines_are_the_same_lists(runs, model):
    local, spark = (table(runs[e], f"topk/{model}.parquet", ["user_id", "rank"]) for e in ("local", "spark"))
    pd.testing.assert_frame_equal(local, spark)


def test_their_metrics_are_the_same_numbers(runs):
    local, spark = (table(runs[e], "per_user.parquet", ["model", "user_id"]) for e in ("local", "spark"))
    for model in ("popular", "recent"):
        a, b = (frame[frame["model"] == model].reset_index(drop=True) for frame in (local, spark))
        pd.testing.assert_frame_equal(a[b.columns], b, check_exact=False, rtol=0, atol=1e-12, check_dtype=False)
    a, b = (runs[e].read_json("metrics.json") for e in ("local", "spark"))
    for model in ("popular", "recent"):
        for metric in METRICS:
            assert a["models"][model][metric]["mean"] == pytest.approx(b["models"][model][metric]["mean"], abs=1e-12)
            assert a["models"][model][metric]["ci95"] == pytest.approx(b["models"][model][metric]["ci95"], abs=1e-9)
    assert a["about"]["counts"]["popular"] == b["about"]["counts"]["popular"]


def test_als_is_trained_and_reported_on_both(runs):
    for engine in ("local", "spark"):
        models = runs[engine].read_json("metrics.json")["models"]
        assert models["als"]["ndcg@5"]["mean"] > models["random"]["ndcg@5"]["mean"]
        page = (runs[engine].path / "report.html").read_text()
        assert f"on the {engine} engine" in page
    assert runs["spark"].read_json("manifest.json")["hops"][-1]["peak_mb"]["jvm"] > 0


def test_a_small_run_makes_few_spark_jobs(runs):
    hops = runs["spark"].read_json("manifest.json")["hops"]
    # How many jobs training takes is for the tests of ALS.
    outside_training = {hop["name"]: hop["spark"]["jobs"] for hop in hops if hop["name"] not in ("start", "fit als")}
    assert 0 < sum(outside_training.values()) <= 40, outside_training


def test_settings_for_a_small_input_end_with_it(spark):
    from recsys.spark.session import SMALL_INPUT, small_input_settings

    key = "spark.sql.autoBroadcastJoinThreshold"
    with small_input_settings(spark):
        during = spark.conf.getAll
    assert during == spark.conf.getAll | SMALL_INPUT
    assert not SMALL_INPUT.keys() & spark.conf.getAll.keys()
    # What a user has set holds for every input.
    spark.conf.set(key, "1000")
    try:
        with small_input_settings(spark):
            assert spark.conf.get(key) == "1000"
        assert spark.conf.get(key) == "1000"
    finally:
        spark.conf.unset(key)


def names(files):
    """Return the names of files, with one name for all files of a table that Spark wrote."""
    return {re.sub(r"part-.*", "part", str(name)) for name in files if not str(name).endswith(".crc")}


def test_a_run_at_a_uri_is_the_run_on_a_disk(runs, spark, mount):
    from recsys.saved.on_spark import open_on_spark, recommend
    from recsys.spark.saved import ListRequest

    disk = runs["spark"]
    folder, uri = mount
    ENGINES["spark"](runs["settings"] | {"out": f"{uri}/run", "engine": "spark"})
    run = RunFolder.open(f"{uri}/run")
    files = {path.relative_to(disk.path) for path in disk.path.rglob("*") if path.is_file()}
    assert names(run.version.files) == names(files)
    assert names(path.name for path in (folder / "run").iterdir()) == {"current.json", run.version.folder.uri.name}
    for part in ("train", "history", "test", "items"):
        by = ["item_id"] if part == "items" else ["user_id", "item_id"]
        pd.testing.assert_frame_equal(*(table(each, f"split/{part}.parquet", by) for each in (run, disk)))
    lists = [table(each, "topk/als.parquet", ["user_id", "rank"]) for each in (run, disk)]
    pd.testing.assert_frame_equal(*lists)
    assert run.read_json("metrics.json") == disk.read_json("metrics.json")
    assert run.local("report.md").read_text().count("\n## ") == (disk.path / "report.md").read_text().count("\n## ")
    saved = open_on_spark(spark, f"{uri}/run", "als")
    again = recommend(saved, ListRequest(5)).table.toPandas().sort_values(["user_id", "rank"], ignore_index=True)
    expected = lists[0][lists[0]["source"] == "als"]
    again = again.merge(expected[["user_id"]].drop_duplicates())
    assert again["item_id"].tolist() == expected["item_id"].tolist()
