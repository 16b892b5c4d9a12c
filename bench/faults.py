"""Faults on a real log: a standalone cluster of processes that loses workers and drivers while Globo's clicks run.

python bench/faults.py DATA

A master and two workers of one core each, started by the commands of docker-compose.yml, as in tests/cluster.py. One
undisturbed run; one that loses a worker after the third training iteration, and one that loses it while lists are made;
then a driver killed in each of five hops, always over the same folder, and a last run there that may finish.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from results import table, write_section

from recsys.errors import RunFolderError
from recsys.runfolder import RunFolder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import cluster as processes

MEMORY = "2g"
MOMENTS = ("read", "split", "fit als", "recommend als", "judge als")
PATIENCE = 3600

CONFIG = """
out = '{out}'
[data]
events = '{events}'
time_unit = "ms"
[models.als]
rank = 32
iterations = 5
[recommend]
k = 10
everyone = true
[judge]
metrics = ["ndcg@10", "recall@10"]
resamples = 200
"""


class Runs:
    """The cluster, and what became of each run."""

    def __init__(self, cluster: processes.Cluster, events: Path) -> None:
        self.cluster, self.events = cluster, events
        self.place = cluster.place
        self.log = cluster.place / "submit.log"

    def start(self, out: Path) -> Any:
        """Submit the job, with two workers whatever became of those before."""
        self.cluster.start()
        for log in (self.place / "events").iterdir():
            log.unlink()
        (self.place / "job.toml").write_text(CONFIG.format(out=out, events=self.events))
        return self.cluster.submit("spark.sql.shuffle.partitions=6", "--config", "job.toml")

    def until(self, job: Any, condition: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Wait for the event log to say so."""
        processes.wait_for(lambda: condition(self.cluster.events()), job, self.log, PATIENCE)

    def end(self, job: Any) -> None:
        """Wait for the job's end, which must be a good one."""
        if job.wait(timeout=PATIENCE):
            raise SystemExit(self.log.read_text()[-3000:])

    def kill_worker(self, out: Path, condition: Callable[[list[dict[str, Any]]], Any]) -> tuple[float, int]:
        """Run, losing a worker when ``condition`` holds; return seconds and tasks that ran again."""
        started = time.perf_counter()
        job = self.start(out)
        self.until(job, condition)
        self.cluster.lose_worker(job)
        self.end(job)
        return time.perf_counter() - started, processes.rerun_tasks(self.cluster.events())


def main(data: str) -> None:
    """Run everything and write the section."""
    rows = []
    with tempfile.TemporaryDirectory() as place, processes.running(Path(place), MEMORY) as cluster:
        runs = Runs(cluster, Path(data) / "globo-clicks" / "clicks.parquet")
        started = time.perf_counter()
        runs.end(runs.start(cluster.place / "undisturbed"))
        seconds = time.perf_counter() - started
        expected = lists(cluster.place / "undisturbed")
        rows.append(["nothing", f"{seconds:.0f}", "0", f"{len(expected):,} lists", "100 %"])
        print(rows[-1], flush=True)

        for name, condition in (
            ("a worker, after training iteration 3", lambda e: processes.jobs_described(e, "sweep 4")),
            ("a worker, while lists are made", lambda e: processes.jobs_described(e, "recommend als")),
        ):
            out = cluster.place / "worker"
            seconds, again = runs.kill_worker(out, condition)
            rows.append([name, f"{seconds:.0f}", f"{again}", "finished", f"{same(lists(out), expected):.2%}"])
            print(rows[-1], flush=True)

        out = cluster.place / "driver"
        for moment in MOMENTS:
            started = time.perf_counter()
            job = runs.start(out)
            runs.until(job, partial(processes.jobs_described, words=moment))
            processes.end(job)
            seconds = time.perf_counter() - started
            rows.append([f"the driver, in `{moment}`", f"{seconds:.0f}", "", refused(out), ""])
            print(rows[-1], flush=True)
        started = time.perf_counter()
        runs.end(runs.start(out))
        left = [path.name for path in cluster.place.glob(".driver.*")]
        finished = "finished, nothing of the five is left" if not left else f"finished, left behind: {left}"
        seconds = time.perf_counter() - started
        agree = f"{same(lists(out), expected):.2%}"
        rows.append(["nothing, over the same folder", f"{seconds:.0f}", "", finished, agree])
        print(rows[-1], flush=True)
    body = (
        "Globo's clicks, ALS of rank 32, 5 iterations, the ten best for every user, on a master and two workers of one"
        f" core and {MEMORY} each. Killed by SIGKILL; a worker is killed while it holds a task.\n\n"
        + table(["killed", "seconds", "tasks again", "outcome", "users with the very list of the first run"], rows)
    )
    write_section("faults", "Workers and drivers lost on a cluster", "python bench/faults.py DATA", body)


def lists(out: Path) -> dict[Any, tuple[Any, ...]]:
    """Return user -> items, best first, of a whole run."""
    folder = RunFolder.open(out).path / "topk" / "als.parquet"
    found = pq.read_table(folder, columns=["user_id", "item_id", "rank"]).to_pandas().sort_values(["user_id", "rank"])
    return {user: tuple(own) for user, own in found.groupby("user_id")["item_id"]}


def same(found: dict[Any, tuple[Any, ...]], expected: dict[Any, tuple[Any, ...]]) -> float:
    """Return the share of expected users with the same list."""
    return sum(found.get(user) == own for user, own in expected.items()) / len(expected)


def refused(out: Path) -> str:
    """Say what a reader is told who opens the folder."""
    try:
        RunFolder.open(out)
    except RunFolderError:
        return "no run to open"
    return "LOOKS WHOLE"


if __name__ == "__main__":
    main(sys.argv[1])
