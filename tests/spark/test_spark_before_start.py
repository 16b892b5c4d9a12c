"""What is refused before Spark starts, and what Spark says about files that it cannot read."""

import json
import logging
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from builders import settings_of
from cluster import Cluster

from recsys.cli import run_verb
from recsys.config import SparkSettings, parse_config
from recsys.errors import InputError

pytestmark = pytest.mark.spark


@pytest.fixture
def no_session(monkeypatch):
    from recsys.spark import engine

    def refuse(settings):
        raise AssertionError("Spark was started")

    monkeypatch.setattr(engine, "session", refuse)


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def error_of_session(**settings):
    """Return the message of the error that a session with these settings ends in.

    It starts in a process of its own, because a running session is returned whatever the settings are.
    """
    code = """
import json, sys
from recsys.config import SparkSettings
from recsys.errors import ConfigError
from recsys.spark.session import session
try:
    session(SparkSettings(**json.loads(sys.argv[1])))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, json.dumps(settings)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.subprocess
def test_a_master_that_does_not_answer_is_named():
    address = f"127.0.0.1:{closed_port()}"
    assert f"master 'spark://{address}' does not answer" in error_of_session(master=f"spark://{address}")
    assert "write it as spark://HOST:PORT" in error_of_session(master="spark://somewhere")


@pytest.mark.subprocess
def test_a_cluster_that_gives_no_executor_is_named(tmp_path):
    code = """
import sys, threading
from recsys.config import SparkSettings
from recsys.spark import session
session.EXECUTOR_SECONDS = 0.1
session.session(SparkSettings(master=sys.argv[1], conf={"spark.executor.memory": "900g"}))
for thread in threading.enumerate():
    if isinstance(thread, threading.Timer):
        thread.join()
"""
    cluster = Cluster(tmp_path)
    try:
        cluster.start(workers=0)
        master = f"spark://127.0.0.1:{cluster.values['SPARK_PORT']}"
        words = [sys.executable, "-c", code, master]
        done = subprocess.run(words, capture_output=True, text=True, env=cluster.environment)
    finally:
        cluster.stop()
    assert done.returncode == 0, done.stderr
    assert f"warning: {master} has given no executor" in done.stderr
    assert "spark.executor.memory = '900g'" in done.stderr


def test_one_of_several_masters_is_enough():
    from recsys.spark.session import _require_reachable

    with socket.create_server(("127.0.0.1", 0)) as server:
        _require_reachable(f"spark://127.0.0.1:{closed_port()},127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"driver_memory": "300m"}, "spark.driver.memory = '300m' is too little: Spark starts with 450 MiB"),
        ({"driver_memory": "lots"}, "spark.driver.memory = 'lots' is not a size of memory"),
        ({"conf": {"spark.executor.memory": "0.2g"}}, "spark.executor.memory = '0.2g' is not a size of memory"),
        ({"conf": {"spark.executor.memory": "200000k"}}, "spark.executor.memory = '200000k' is too little"),
    ],
)
@pytest.mark.subprocess
def test_memory_that_spark_cannot_start_with_is_named(settings, message):
    assert message in error_of_session(**settings)


@pytest.mark.parametrize("text", ["450m", "1g", "1048576k", "2GB", "600"])
def test_other_sizes_of_memory_are_left_to_spark(text):
    from recsys.spark.session import _require_memory

    _require_memory({"spark.driver.memory": text, "spark.executor.memory": None})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.events=none.csv"], "none.csv: no such file or folder"),
        (["data.items=none.csv"], "none.csv: no such file or folder"),
        (["models.als.solver=cholesky"], "'solver' is a parameter of the local engine only"),
        (["judge.cold_start=[0, 3]"], "[judge] cold_start is a curve of the local engine only"),
    ],
)
def test_a_run_says_what_is_wrong_before_spark_starts(no_session, world_files, tmp_path, capsys, overrides, message):
    words = [f"out={tmp_path}/run", "engine=spark", "models.als.rank=4", *overrides]
    assert run_verb(["run", str(world_files["events"]), *(word for key in words for word in ("--set", key))]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_settings_that_a_run_has_written_run_on_spark_too(tmp_path):
    """config.toml of a local run spells out every default, cold_start too."""
    from recsys.spark.engine import SparkEngine

    config = parse_config(settings_of(tmp_path / "run", {"events": "e.csv"}, {"als": {}}))
    SparkEngine(parse_config(config.model_dump(mode="json", exclude_none=True) | {"engine": "spark"}))


def test_a_default_of_memory_that_nobody_set_is_no_reason_for_a_warning(spark, capsys):
    from recsys.spark.session import session

    session(SparkSettings())
    assert capsys.readouterr().err == ""
    session(SparkSettings(driver_memory="900g"))
    assert "driver_memory is '900g'" in capsys.readouterr().err


def test_a_damaged_page_is_named_by_its_file(spark, tmp_path):
    from recsys.spark.errors import spark_errors_explained

    path = tmp_path / "part 1.parquet"
    frame = pd.DataFrame({"user_id": np.random.default_rng(0).integers(0, 10**9, 5000)})
    frame.to_parquet(path, compression="zstd")
    whole = bytearray(path.read_bytes())
    whole[40:4000] = bytes(3960)
    path.write_bytes(whole)
    with (
        pytest.raises(InputError, match=r"part.*1\.parquet: Spark cannot read this file"),
        spark_errors_explained("out"),
    ):
        spark.read.parquet(str(tmp_path)).agg({"user_id": "sum"}).collect()


def test_all_that_does_not_run_on_spark_is_named_at_once(no_session, tmp_path, capsys):
    raw = """
        engine = "spark"
        data.events = "events.csv"
        models.als.rank = 0
        models.transitions.rank = 3
        judge.sampled = 5
        judge.metrics = ["ndcg@10", "auc"]
    """
    (tmp_path / "c.toml").write_text(raw)
    assert run_verb(["run", str(tmp_path / "c.toml")]) == 2
    error = capsys.readouterr().err
    for part in ("[judge] sampled", "[judge] metrics: auc", "rank: must be at least 1", "unknown parameter 'rank'"):
        assert part in error


def test_no_traceback_of_py4j_is_logged_while_a_session_starts(monkeypatch, caplog):
    from pyspark.sql import SparkSession

    from recsys.spark import session

    def interrupted(builder):
        logging.getLogger("py4j.clientserver").info("Error while receiving.", exc_info=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(SparkSession.Builder, "getOrCreate", interrupted)
    monkeypatch.setattr(logging.getLogger("py4j"), "level", logging.INFO)
    logging.getLogger("py4j").manager._clear_cache()
    with pytest.raises(KeyboardInterrupt):
        session.session(SparkSettings(master="local[1]"))
    assert caplog.records == []
