"""A standalone Spark cluster as processes on loopback: the very commands of docker-compose.yml, with other ports."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml

ROOT = Path(__file__).resolve().parent.parent
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def command(service: str, values: dict[str, str]) -> list[str]:
    """Return the words of a service's command, its variables filled in as docker-compose does."""
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: values.get(m[1], m[2]), SERVICES[service]["command"])
    program, *rest = shlex.split(text)
    return [str(Path(sys.executable).with_name(program)), *rest]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Cluster:
    """A master and workers; ``submit`` runs the job of the compose file with further words."""

    def __init__(self, place: Path, memory: str = "1g") -> None:
        self.place = place
        (place / "events").mkdir(parents=True, exist_ok=True)
        self.values = {
            "SPARK_HOST": "127.0.0.1",
            "SPARK_PORT": str(free_port()),
            "SPARK_WEB": "0",
            "WORKER_WEB": "0",
            "WORKER_CORES": "1",
            "WORKER_MEMORY": memory,
            "DRIVER_MEMORY": memory,
            "EXECUTOR_MEMORY": memory,
            "WORKER_DIR": str(place / "work"),
            "DATA_DIR": str(place / "events"),
            "RECSYS_HOME": str(ROOT),
        }
        self.environment = os.environ | {
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "JAVA_HOME": _java(),
            "SPARK_DAEMON_JAVA_OPTS": SHORT_LIVED,
        }
        self.processes: list[subprocess.Popen[bytes]] = []  # the master first, then workers, the oldest first
        self.workers_started = 0
        self.jobs: list[subprocess.Popen[bytes]] = []
        self.web = ""

    def start(self, workers: int = 2) -> None:
        """Start the master if there is none, and workers, one after the other, until there are so many."""
        if not self.processes:
            self._start("master", "master.log", "New state: ALIVE|I have been elected leader")
        while len(self.processes) < 1 + workers:
            self.workers_started += 1
            self._start("worker", f"worker{self.workers_started}.log", "Successfully registered")

    def submit(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the job in ``place``; conf words go before the job, others after it."""
        own = command("submit", self.values)
        self.web = f"127.0.0.1:{free_port()}"
        conf = [word for word in words if word.startswith("spark.")]
        rest = [word for word in words if not word.startswith("spark.")]
        flags = [part for word in [*conf, *QUIET, f"spark.ui.port={self.web[10:]}"] for part in ("--conf", word)]
        self.jobs.append(self._launch([*own[:-1], *flags, own[-1], *rest], "submit.log"))
        return self.jobs[-1]

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the newest job's log, which may still be growing."""
        logs = [path for path in (self.place / "events").iterdir() if path.is_file()]
        if not logs:
            return []
        lines = max(logs, key=lambda path: path.stat().st_mtime).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def lose_worker(self, job: subprocess.Popen[bytes]) -> None:
        """Kill the oldest worker and its executors in the middle of a task, as when a machine is lost.

        The oldest has run since before the job began: its executor holds data, so tasks are given to it. A worker
        that has just started might get no task before the job ends. They are halted first: a task given to a halted
        executor cannot end before the kill, however short it is.
        """
        worker = self.processes.pop(1)
        log = self.place / "submit.log"
        try:
            executors = wait_for(lambda: _executors_of(worker.pid) & self._active_tasks().keys(), job, log)
            os.killpg(worker.pid, signal.SIGSTOP)
            wait_for(lambda: any(self._active_tasks().get(executor) for executor in executors), job, log)
        finally:
            end(worker)

    def stop(self) -> None:
        """Kill everything: a job that a failed test left running, then workers and master."""
        for process in [*self.jobs, *reversed(self.processes)]:
            end(process)

    def _active_tasks(self) -> dict[str, int]:
        """Return the running tasks of each executor of the job, by its own web page; empty once the job is over."""
        start = f"http://{self.web}/api/v1/applications"
        try:
            with urlopen(start, timeout=30) as page:
                (job,) = json.load(page)
            with urlopen(f"{start}/{job['id']}/executors", timeout=30) as page:
                return {executor["id"]: executor["activeTasks"] for executor in json.load(page)}
        except URLError:
            return {}

    def _start(self, service: str, log: str, ready: str) -> None:
        # Each worker has an address of its own, because Spark runs no copy of a slow task on the same machine.
        address = f"127.0.0.{max(1, self.workers_started)}"
        process = self._launch(command(service, self.values), log, address)
        self.processes.append(process)
        wait_for(lambda: re.search(ready, (self.place / log).read_text()), process, self.place / log)

    def _launch(self, words: list[str], log: str, address: str = "127.0.0.1") -> subprocess.Popen[bytes]:
        with (self.place / log).open("wb") as stream:
            return subprocess.Popen(
                words,
                env=self.environment | {"SPARK_LOCAL_IP": address},
                cwd=self.place,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:MetaspaceSize=256m -XX:+UseSerialGC"
"""Tells Java to compile fast rather than well, since most code of a test runs seldom.

Java would keep only 48 MiB of such code, which some hundred queries fill: it would throw code away and compile it
again. Loaded classes start no garbage collection before they take 256 MiB. The serial collector needs no threads
beside those of the program, which would take a tenth of the time of two cores.
"""

QUIET = (
    f"spark.driver.extraJavaOptions={SHORT_LIVED}",
    f"spark.executor.extraJavaOptions={SHORT_LIVED}",
    "spark.eventLog.rolling.enabled=false",
    "spark.eventLog.compress=false",
    "spark.driver.host=127.0.0.1",
    "spark.driver.bindAddress=127.0.0.1",
    "spark.sql.shuffle.partitions=2",
)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> Any:
    """Return what ``condition`` returns once that is true; AssertionError when the process ends or time is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        if process.poll() is not None:
            if found := condition():
                return found
            raise AssertionError(f"ended with {process.returncode}: {log.read_text()[-2000:]}")
        time.sleep(0.05)  # between two looks; nothing depends on its length
    raise AssertionError(f"not within {seconds:.0f} s: {log.read_text()[-2000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def running(place: Path, memory: str = "1g") -> Iterator[Cluster]:
    """Give a cluster of two workers, and leave no process behind."""
    cluster = Cluster(place, memory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def jobs_described(events: list[dict[str, Any]], words: str) -> list[dict[str, Any]]:
    """Return the starts of jobs whose description contains ``words``."""
    starts = [event for event in events if event["Event"] == "SparkListenerJobStart"]
    return [start for start in starts if words in (start["Properties"] or {}).get("spark.job.description", "")]


def rerun_tasks(events: list[dict[str, Any]]) -> int:
    """Return how many tasks ran again: failed attempts, and partitions of stages that were tried again."""
    ends = [event for event in events if event["Event"] == "SparkListenerTaskEnd"]
    failed = sum(event["Task End Reason"]["Reason"] != "Success" for event in ends)
    return failed + sum(event["Stage Attempt ID"] > 0 for event in ends)


def _executors_of(worker: int) -> set[str]:
    """Return the ids of the executors that a worker has started."""
    return {match[1] for words in _commands(worker) if (match := re.search(r"--executor-id (\d+)", words))}


def _commands(group: int) -> list[str]:
    """Return the command lines of a process group."""
    found = subprocess.run(["ps", "-eo", "pgid=,args=", "-ww"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 1) for line in found.splitlines()]
    return [words for pgid, words in rows if int(pgid) == group]


def _java() -> str:
    from recsys.java import find_java

    return find_java().home
