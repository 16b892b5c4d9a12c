"""Things that go wrong on the way: full disks, rights, killed drivers, lost workers."""

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys import config
from recsys.errors import ConfigError, RunFolderError
from recsys.flow import run
from recsys.runfolder import RunFolder

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]


def settings(events, out):
    raw = {"out": str(out), "data": {"events": str(events)}, "models": {"als": {"rank": 4, "iterations": 2}}}
    return config.parse_config(raw | {"judge": {"resamples": 100}})


@pytest.fixture
def small_disk(tmp_path, request):
    """A file system of so many kB as the test asks for, or a skip where nothing may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a small file system here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("small_disk", [64], indirect=True)  # full when the checked events are written
def test_a_full_disk_is_named_and_leaves_nothing(spark, world_files, small_disk):
    from recsys.spark.engine import SparkEngine

    small_run = settings(world_files["events"], small_disk / "run")
    with pytest.raises(RunFolderError, match=r"No space left on device.*Free some space"):
        run(small_run, engine=SparkEngine(small_run, spark))
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("small_disk", [100], indirect=True)  # full somewhat later
def test_a_full_disk_leaves_the_run_that_was_there(spark, world_files, small_disk):
    with RunFolder.writing(small_disk / "run") as folder:
        folder.write_manifest(seed=7, inputs={}, hops=[], started=datetime.now(UTC))
    from recsys.spark.engine import SparkEngine

    small_run = settings(world_files["events"], small_disk / "run")
    with pytest.raises(RunFolderError, match="No space left"):
        run(small_run, engine=SparkEngine(small_run, spark))
    assert RunFolder.open(small_disk / "run").read_json("manifest.json")["seed"] == 7


@pytest.mark.parametrize(
    ("text", "kind", "advice"),
    [
        ("java.io.IOException: Mkdirs failed to create file:/x", RunFolderError, "executors write there"),
        ("java.lang.OutOfMemoryError: Java heap space", ConfigError, "driver_memory"),
        ("Lost task 0.3: ExecutorLostFailure (executor 1 exited)", ConfigError, "losing executors"),
    ],
)
def test_known_causes_become_advice(text, kind, advice):
    from recsys.spark.errors import explain_spark_error

    found = explain_spark_error(f"An error occurred while calling o1.parquet.\n: {text}", "out")
    assert isinstance(found, kind)
    assert advice in str(found)


def test_a_bug_stays_a_bug(spark):
    from pyspark.errors import PySparkException

    from recsys.spark.errors import spark_errors_explained

    with pytest.raises(PySparkException), spark_errors_explained("out"):
        spark.sql("select nothing from nowhere")


ENDLESS_JOB = """
import sys
from recsys.cli import exit_code_of

def work():
    from recsys.config import SparkSettings
    from recsys.spark.session import session

    spark = session(SparkSettings(master="local[1]", driver_memory="1g", conf={"spark.ui.enabled": "false"}))
    print("started", flush=True)
    while True:
        spark.range(10**8).selectExpr("sum(id % 7)").collect()

sys.exit(exit_code_of(work))
"""


@pytest.mark.subprocess
def test_an_interrupt_of_a_job_is_one_line():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", ENDLESS_JOB], **pipes) as job:
        try:
            assert job.stdout.readline() == "started\n"
            job.send_signal(signal.SIGINT)
            said = job.communicate(timeout=120)[1]
        finally:
            job.kill()
    assert job.returncode == 130
    assert said.splitlines()[-1] == "interrupted: no result is half-written"
    assert "Traceback" not in said
