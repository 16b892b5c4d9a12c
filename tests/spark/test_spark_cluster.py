"""A real cluster of processes that loses a worker or its driver, by the commands of docker-compose.yml."""

import shutil
import subprocess

import cluster as processes
import pandas as pd
import pytest

from recsys.errors import MissingExtra, RunFolderError
from recsys.java import find_java
from recsys.runfolder import RunFolder

pytestmark = pytest.mark.spark

CONFIG = """
out = '{out}'
[data]
events = '{events}'
[models.als]
rank = 4
iterations = 5
blocks = 2
[recommend]
k = 5
everyone = true
[judge]
metrics = ["ndcg@5"]
resamples = 100
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    try:
        find_java()
    except MissingExtra as error:
        pytest.skip(str(error))
    with processes.running(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def cluster(machines):
    """Master and two workers, whatever became of those of the test before."""
    machines.start()
    return machines


def start(cluster, events, out):
    for log in (cluster.place / "events").iterdir():
        log.unlink()
    (cluster.place / "job.toml").write_text(CONFIG.format(out=out, events=events))
    return cluster.submit("spark.default.parallelism=2", "--config", "job.toml")


def wait(cluster, process, condition=None):
    log = cluster.place / "submit.log"
    if condition is None:
        assert process.wait(timeout=450) == 0, log.read_text()[-3000:]
        return
    processes.wait_for(lambda: process.poll() is None and condition(cluster.events()), process, log)


def lists(out):
    table = pd.read_parquet(out / "topk" / "als.parquet").sort_values(["user_id", "rank"])
    return table.groupby("user_id")["item_id"].agg(list)


@pytest.fixture(scope="module")
def undisturbed(machines, world_files):
    out = machines.place / "undisturbed"
    wait(machines, start(machines, world_files["events"], out))
    return lists(RunFolder.open(out).path)


def same(a, b):
    return (a.reindex(b.index) == b).mean()


def test_the_commands_of_the_compose_file_run_a_job(cluster, undisturbed):
    started = next(event for event in cluster.events() if event["Event"] == "SparkListenerApplicationStart")
    assert started["App ID"].startswith("app-"), "it did not run on the master that spark-submit named"
    assert len(undisturbed) > 100
    assert undisturbed.map(len).eq(5).all()


def test_a_killed_driver_leaves_nothing_whole_and_a_lost_worker_changes_nothing(cluster, undisturbed, world_files):
    out = cluster.place / "run"
    driver = start(cluster, world_files["events"], out)
    wait(cluster, driver, lambda events: processes.jobs_described(events, "fit als"))
    processes.end(driver)
    with pytest.raises(RunFolderError):
        RunFolder.open(out)

    driver = start(cluster, world_files["events"], out)  # again, to the same folder
    wait(cluster, driver, lambda events: processes.jobs_described(events, "sweep 4"))
    cluster.lose_worker(driver)
    wait(cluster, driver)
    assert processes.rerun_tasks(cluster.events()) > 0
    assert same(lists(RunFolder.open(out).path), undisturbed) >= 0.999
    assert not list(cluster.place.glob(".run.*"))


def test_a_worker_lost_while_lists_are_made_changes_nothing(cluster, undisturbed, world_files):
    out = cluster.place / "lists"
    driver = start(cluster, world_files["events"], out)
    wait(cluster, driver, lambda events: processes.jobs_described(events, "recommend als"))
    cluster.lose_worker(driver)
    wait(cluster, driver)
    assert processes.rerun_tasks(cluster.events()) > 0
    assert same(lists(RunFolder.open(out).path), undisturbed) >= 0.999


def test_docker_compose_accepts_the_file():
    program = shutil.which("docker-compose")
    if not program:
        pytest.skip("no docker-compose here")
    found = subprocess.run(
        [program, "-f", processes.ROOT / "docker-compose.yml", "config"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    for service in ("master", "worker", "history", "submit"):
        assert f"  {service}:\n" in found.stdout
