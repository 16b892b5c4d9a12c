"""Jobs as a user starts them: under spark-submit, two at one folder, and on a cluster that loses workers or its driver.

The jobs are whole, so there are few: two side by side on this machine, whose lists are also what the cluster must
give; one on the cluster with copies of slow tasks; one whose driver is killed; and one that loses a worker twice.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import cluster as processes
import pandas as pd
import pytest

from recsys.errors import MissingExtra, RunFolderError
from recsys.java import find_java
from recsys.runfolder import RunFolder

pytestmark = [pytest.mark.spark, pytest.mark.subprocess]
ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "train_als.py"

CONFIG = """
out = '{out}'
[data]
events = '{events}'
[models.als]
rank = 4
iterations = 3
blocks = 2
[recommend]
k = 9
everyone = true
[judge]
metrics = ["ndcg@5"]
resamples = 100
"""
SET = ("--config", "job.toml", "--set", "recommend.k=5", "--set", "models.als.driver_pairs=0")


@pytest.fixture(scope="module", autouse=True)
def java():
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    try:
        find_java()
    except MissingExtra as error:
        pytest.skip(str(error))


def lists(out):
    table = pd.read_parquet(out / "topk" / "als.parquet").sort_values(["user_id", "rank"])
    return table.groupby("user_id")["item_id"].agg(list)


# --- On this machine -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(world_files, tmp_path_factory):
    """Start two jobs at one folder, one with the master that spark-submit chooses; return their place when they end."""
    place = tmp_path_factory.mktemp("both")
    (place / "job.toml").write_text(CONFIG.format(out="run", events=world_files["events"]))
    program = Path(sys.executable).with_name("spark-submit")
    conf = ("sql.shuffle.partitions=2", "default.parallelism=2", "ui.enabled=false")
    conf += (f"driver.extraJavaOptions={processes.SHORT_LIVED}",)
    small = ["--driver-memory", "1g", *(word for part in conf for word in ("--conf", f"spark.{part}"))]
    running = []
    for name, master in (("a", []), ("b", ["--master", "local[1]"])):
        with (place / f"{name}.log").open("w") as log:
            words = [program, *small, *master, JOB, *SET]
            running.append(subprocess.Popen(words, cwd=place, stdout=log, stderr=subprocess.STDOUT))
    codes = [process.wait(timeout=600) for process in running]
    assert codes == [0, 0], [(place / f"{name}.log").read_text()[-2000:] for name in "ab"]
    return place


def test_the_job_runs_under_spark_submit(both):
    run = RunFolder.open(both / "run")
    assert run.read_table("topk/als.parquet")["rank"].max() == 5
    assert run.read_json("metrics.json")["models"]["als"]
    assert (run.path / "report.html").exists()
    for name in "ab":
        assert "override: recommend.k=5" in (both / f"{name}.log").read_text()


def test_two_jobs_at_one_folder_leave_one_whole_run(both):
    assert sorted(path.name for path in both.iterdir()) == ["a.log", "b.log", "job.toml", "run"]
    assert lists(both / "run").map(len).eq(5).all()


def test_the_job_refuses_a_bad_config_before_it_starts_anything(tmp_path):
    (tmp_path / "job.toml").write_text("[data]\nevents = 'x.csv'\n[models.als]\nrnak = 4\n")
    words = [sys.executable, JOB, "--config", "job.toml"]
    found = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2
    assert "Did you mean 'rank'?" in found.stderr
    with pytest.raises(RunFolderError):
        RunFolder.open(tmp_path / "runs" / "run")


def test_the_job_says_which_python_would_do(tmp_path):
    found = subprocess.run([sys.executable, "-I", "-S", JOB], capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2
    assert "has no module recsys" in found.stderr
    assert "setup" in found.stderr or "spark-submit" in found.stderr


# --- On a cluster of processes, by the commands of docker-compose.yml ------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with processes.running(tmp_path_factory.mktemp("cluster")) as found:
        yield found


def start(cluster, events, out, *conf):
    for log in (cluster.place / "events").iterdir():
        log.unlink()
    (cluster.place / "job.toml").write_text(CONFIG.format(out=out, events=events))
    return cluster.submit("spark.default.parallelism=2", *conf, *SET)


def agree(run, expected):
    found = lists(run)
    assert len(found) > 100
    assert (found.reindex(expected.index) == expected).mean() >= 0.999


SPECULATION = (
    "",
    ".quantile=0.1",
    ".multiplier=1.001",
    ".minTaskRuntime=0",
    ".interval=10ms",
    ".task.duration.threshold=10ms",  # for stages of few tasks
)


def wait(cluster, process, condition=None):
    log = cluster.place / "submit.log"
    if condition is None:
        assert process.wait(timeout=450) == 0, log.read_text()[-3000:]
        return
    processes.wait_for(lambda: process.poll() is None and condition(cluster.events()), process, log)


@pytest.mark.long
def test_copies_of_slow_tasks_change_nothing_and_are_counted(cluster, both, world_files):
    out = cluster.place / "speculative"
    words = [f"spark.speculation{part or '=true'}" for part in SPECULATION]
    wait(cluster, start(cluster, world_files["events"], out, *words))
    ends = [event for event in cluster.events() if event["Event"] == "SparkListenerTaskEnd"]
    assert any(event["Task Info"]["Speculative"] for event in ends)
    killed = sum(event["Task End Reason"]["Reason"] == "TaskKilled" for event in ends)
    hops = [hop["spark"] for hop in RunFolder.open(out).read_json("manifest.json")["hops"] if "spark" in hop]
    # Tasks that are killed last are noted after their hop has ended.
    assert 0 < sum(hop["killed_tasks"] for hop in hops) <= killed
    agree(out, lists(both / "run"))


@pytest.mark.long
def test_a_killed_driver_leaves_nothing_whole_and_lost_workers_change_nothing(cluster, both, world_files):
    out = cluster.place / "run"
    driver = start(cluster, world_files["events"], out)
    wait(cluster, driver, lambda events: processes.jobs_described(events, "fit als"))
    processes.end(driver)
    with pytest.raises(RunFolderError):
        RunFolder.open(out)

    driver = start(cluster, world_files["events"], out)  # again, to the same folder
    wait(cluster, driver, lambda events: processes.jobs_described(events, "sweep 2"))
    cluster.lose_worker(driver)
    wait(cluster, driver, lambda events: processes.rerun_tasks(events) > 0)
    cluster.start()  # another worker takes the place of the lost one
    wait(cluster, driver, lambda events: processes.jobs_described(events, "recommend als"))
    in_training = processes.rerun_tasks(cluster.events())
    cluster.lose_worker(driver)
    wait(cluster, driver)

    events = cluster.events()
    assert processes.rerun_tasks(events) > in_training
    begun = next(event for event in events if event["Event"] == "SparkListenerApplicationStart")
    assert begun["App ID"].startswith("app-"), "it did not run on the master that spark-submit named"
    run = RunFolder.open(out)
    agree(run.path, lists(both / "run"))
    hops = {hop["name"]: hop.get("spark") for hop in run.read_json("manifest.json")["hops"]}
    assert hops["fit als"]["failed_tasks"] + hops["fit als"]["retried_stages"] > 0
    assert not list(cluster.place.glob(".run.*"))


def test_docker_compose_accepts_the_file():
    program = shutil.which("docker-compose")
    if not program:
        pytest.skip("no docker-compose here")
    words = [program, "-f", processes.ROOT / "docker-compose.yml", "config"]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    for service in ("master", "worker", "history", "submit"):
        assert f"  {service}:\n" in found.stdout
