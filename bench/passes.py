"""What a run on Spark does over and over: its Spark jobs, queries, scans of the checked log, tables and CPU seconds.

    python bench/passes.py                       this code, printed
    python bench/passes.py --compare CHECKOUT    an older checkout before it, and the section in RESULTS.md

Two made-up logs, each a run of its own on local[1] with ALS and the baselines, all other settings as they come: one of
a shop, and one so small that it shows what any run costs. Spark's event log has the jobs and the plans; the CPU
seconds are those of the driver, its Java and its Python workers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import table, write_section

ROOT = Path(__file__).resolve().parent.parent
LOGS = {"shop": (4_300, 3_700, 400_000), "tiny": (40, 25, 400)}
"""Name -> users, items, events."""
COLUMNS = ("jobs", "queries", "scans of the log", "tables", "CPU seconds")


def main() -> None:
    """Measure every log with every checkout, and print or write the table."""
    options = argparse.ArgumentParser(description="Jobs, scans and CPU seconds of runs on Spark.")
    options.add_argument("logs", nargs="*", default=list(LOGS), help=f"of {', '.join(LOGS)}; default: all")
    options.add_argument("--compare", type=Path, metavar="CHECKOUT")
    options.add_argument("--plans", action="store_true", help="print what each query read and wrote")
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        run_one(Path(given.logs[0]))
        return
    checkouts = [ROOT] if given.compare is None else [given.compare.resolve(), ROOT]
    tables = []
    for name in given.logs:
        with tempfile.TemporaryDirectory() as temporary:
            write_log(*LOGS[name], Path(temporary))
            hops = []
            for checkout in checkouts:
                hops.append(measure(checkout, Path(temporary), plans=given.plans))
                print(name, checkout, dict(sum(hops[-1].values(), Counter())), file=sys.stderr, flush=True)
        tables.append(f"{name}: {LOGS[name][2]:,} events of {LOGS[name][0]:,} users on {LOGS[name][1]:,} items\n")
        tables.append(describe(hops) + "\n")
    body = "\n".join(tables)
    if given.compare is None:
        print(body)
        return
    intro = (
        "One run of `popular`, `recent`, `random` and `als` per log and checkout, on local[1]. A job is one of Spark's,"
        " a query is what Spark plans as one, and a scan reads the checked events from end to end or a part of them."
        " In each cell: the older checkout → this one.\n\n"
    )
    write_section("passes", "What a run on Spark does", "python bench/passes.py --compare CHECKOUT", intro + body)


def write_log(n_users: int, n_items: int, n_events: int, folder: Path) -> None:
    """Write a log in which pairs repeat: 55 % of its events are of a film world, the others come again later."""
    from recsys.data.synthetic import film_world

    first = film_world(n_users, n_items, int(0.55 * n_events), seed=1).events
    rng = np.random.default_rng(1)
    again = first.iloc[rng.integers(len(first), size=n_events - len(first))].copy()
    again["timestamp"] += rng.integers(1, 90 * 86_400, size=len(again))
    log = pd.concat([first, again]).sort_values(["user_id", "timestamp"])
    log.to_csv(folder / "events.csv", index=False)


def measure(checkout: Path, folder: Path, *, plans: bool) -> dict[str, Counter[str]]:
    """Run a checkout on the log in a folder, and return hop -> the numbers of :data:`COLUMNS`."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0"}
        # Spark's workers look for modules in the current folder first.
        subprocess.run([sys.executable, __file__, "--one", work], check=True, env=environment, cwd=checkout)
        hops = {
            name: Counter({"CPU seconds": seconds}) for name, seconds in json.loads(cpu_file(Path(work)).read_text())
        }
        (event_log,) = (Path(work) / "log").iterdir()
        for hop, column in count_events(event_log, plans=plans):
            hops.setdefault(hop, Counter())[column] += 1
    return hops


def cpu_file(work: Path) -> Path:
    """Return where the process of a run leaves its CPU seconds."""
    return work / "cpu.json"


def run_one(work: Path) -> None:
    """Run the log beside a folder, in this process, and leave the CPU seconds of each hop in the folder."""
    from recsys import config, flow, meter

    (work / "log").mkdir()
    conf = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{work}/log",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
        # Else the places of tables are cut off.
        "spark.sql.maxMetadataStringLength": "2000",
        "spark.ui.enabled": "false",
    }
    seconds: list[tuple[str, float]] = []

    class CPUMeter(meter.Meter):
        """A meter that also keeps the CPU seconds of each hop."""

        @contextmanager
        def hop(self, name: str) -> Iterator[None]:
            """Measure the block as one hop."""
            start = cpu_seconds()
            with super().hop(name):
                yield
            seconds.append((name, cpu_seconds() - start))

    flow.Meter = CPUMeter
    settings = config.parse_config(
        {
            "out": str(work / "run"),
            "engine": "spark",
            "data": {"events": str(work.parent / "events.csv")},
            "models": {"als": {}},
            "spark": {"master": "local[1]", "driver_memory": "2g", "conf": conf},
        }
    )
    start = cpu_seconds()
    flow.run(settings)
    rest = cpu_seconds() - start - sum(spent for _, spent in seconds)
    cpu_file(work).write_text(json.dumps([*seconds, ("between and after hops", rest)]))


def cpu_seconds() -> float:
    """Return the CPU seconds so far of this process and all its descendants."""
    ticks: dict[int, tuple[int, int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                # The process ended after it was listed.
                continue
            # Those of children that have ended are in the second pair.
            ticks[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    tree: set[int] = set()
    children = {os.getpid()}
    while children:
        tree |= children
        children = {pid for pid, (parent, _) in ticks.items() if parent in tree} - tree
    return sum(ticks[pid][1] for pid in tree) / os.sysconf("SC_CLK_TCK")


def count_events(event_log: Path, *, plans: bool) -> Iterator[tuple[str, str]]:
    """Yield (hop, one of :data:`COLUMNS`) for each job, query, scan of the checked log and written table."""
    queries: dict[int, dict[str, Any]] = {}
    with event_log.open() as lines:
        for line in lines:
            event = json.loads(line)
            kind = event["Event"].rpartition(".")[2]
            if kind == "SparkListenerJobStart":
                yield hop_of(event["Properties"].get("spark.job.description", "?")), "jobs"
            elif kind == "SparkListenerSQLExecutionStart":
                queries[event["executionId"]] = event
            elif kind == "SparkListenerSQLAdaptiveExecutionUpdate":
                # What was left out while the query ran is not in the later plan.
                queries[event["executionId"]]["sparkPlanInfo"] = event["sparkPlanInfo"]
    for query in queries.values():
        hop = hop_of(query["description"])
        nodes = list(plan_nodes(query["sparkPlanInfo"]))
        reads = [node["metadata"]["Location"] for node in nodes if "Location" in node["metadata"]]
        written = [node["simpleString"] for node in nodes if "InsertIntoHadoopFs" in node["nodeName"]]
        yield hop, "queries"
        yield from ((hop, "scans of the log") for place in reads if "/checked" in place)
        yield from ((hop, "tables") for _ in written)
        if plans:
            inputs = [place.rpartition("/")[2].rstrip("]") for place in reads]
            outputs = [text.partition("file:")[2].partition(",")[0].rpartition("/")[2] for text in written]
            print(f"{hop}: {' + '.join(inputs)} -> {' '.join(outputs)}   {call_site(query)}")


def call_site(query: dict[str, Any]) -> str:
    """Return the line of Python, or of Spark, that started a query."""
    return query["details"].partition("\n")[0][:60]


def hop_of(description: str) -> str:
    """Return the hop in the description of a job; ALS adds to it after a colon."""
    return description.partition(":")[0]


def plan_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a node of a plan and all below it. What is used again is there once."""
    yield node
    if not node["nodeName"].startswith("Reused"):
        for child in node["children"]:
            yield from plan_nodes(child)


def describe(checkouts: list[dict[str, Counter[str]]]) -> str:
    """Return the table of one log: a row per hop, in each cell the numbers of the checkouts."""
    names = list(dict.fromkeys(name for hops in checkouts for name in hops))
    totals = [sum(hops.values(), Counter()) for hops in checkouts]
    rows = []
    for name, parts in [
        *((name, [hops.get(name, Counter()) for hops in checkouts]) for name in names),
        ("all", totals),
    ]:
        rows.append([name, *(" → ".join(f"{part[column]:.0f}" for part in parts) for column in COLUMNS)])
    return table(["hop", *COLUMNS], rows)


if __name__ == "__main__":
    main()
