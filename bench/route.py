"""Local path against Spark on this machine: seconds, peak memory, and whether `route` chooses well.

    python bench/route.py            # some ten minutes; as root also under three limits of memory (control groups, v1)

Each run is a process of its own, so that one does not warm the other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from results import table, write_section

from recsys.data.synthetic import film_world, write_world
from recsys.route import HEADROOM, LogStatistics, choose_route, estimate_local_mb
from recsys.runfolder import RunFolder

WORK = Path("runs/bench-route")
SIZES = (30_000, 300_000)
LIMITS_MB = (900, 2_000, 6_000)
GROUPS = Path("/sys/fs/cgroup/memory")
PATIENCE = 900
"""Seconds after which a run counts as one that does not finish."""
CONFIG = """out = "{out}"
engine = "{engine}"
[data]
events = "{events}"
[models.als]
rank = 32
iterations = 5
[spark]
driver_memory = "1g"
"""


def run(events: Path, engine: str, limit_mb: int | None = None) -> tuple[float | None, float]:
    """Return (seconds, peak MiB) of a run in a process of its own; None seconds when it does not finish.

    A run that is there already, from a call that was cut short, is not repeated.
    """
    out = WORK / f"{events.parent.name}-{engine}-{limit_mb or 'free'}"
    config = WORK / f"{out.name}.toml"
    config.write_text(CONFIG.format(out=out, engine=engine, events=events))
    if not (out / "_SUCCESS").exists() and not _finishes(config, limit_mb):
        return None, 0.0
    hops = RunFolder.open(out).read_json("manifest.json")["hops"]
    return sum(hop["seconds"] for hop in hops), max(hop["peak_mb"]["total"] for hop in hops)


def _finishes(config: Path, limit_mb: int | None) -> bool:
    process = subprocess.Popen(
        [sys.executable, "-c", "from recsys.cli import main; main()", "run", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=(lambda: _confine(limit_mb)) if limit_mb else None,
        start_new_session=True,
    )
    try:
        return process.wait(timeout=PATIENCE) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


def _confine(limit_mb: int) -> None:
    group = GROUPS / f"recsys-route-{limit_mb}"
    group.mkdir(exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(str(limit_mb << 20))
    (group / "cgroup.procs").write_text(str(os.getpid()))


def main() -> None:
    """Measure and write the section."""
    rows, seen = [], {}
    warm = write_world(film_world(users=100, items=50, events=1_000, seed=0), WORK / "warm")
    run(Path(warm["events"]), "local")  # compiled loops are kept on disk: a first run ever would pay for them
    for size in SIZES:
        files = write_world(film_world(users=size // 50, items=2_000, events=size, seed=1), WORK / f"world{size}")
        events = Path(files["events"])
        found = LogStatistics(size, size // 50, 2_000)
        both = {engine: run(events, engine) for engine in ("local", "spark")}
        (local, local_peak), (spark, spark_peak) = both["local"], both["spark"]
        seen[size] = events
        rows.append(
            [
                f"{size:,}",
                f"{local:.0f}",
                f"{spark:.0f}",
                f"{spark / local:.1f}",
                f"{local_peak:,.0f}",
                f"{estimate_local_mb(found):,}",
                f"{spark_peak:,.0f}",
            ]
        )
    heads = ["events", "local, s", "Spark, s", "ratio", "local, peak MiB", "estimated", "Spark, peak MiB"]
    text = table(heads, rows)
    if GROUPS.exists() and os.geteuid() == 0:
        text += "\n\n" + _limits(seen[SIZES[0]], SIZES[0])
    load = f"Load average when it ended: {os.getloadavg()[2]:.0f}; read the ratios. "
    text = f"{load}Seconds are those of all hops.\n\n{text}"
    write_section("route", "Which path: local against Spark", "python bench/route.py", text)


def _limits(events: Path, size: int) -> str:
    rows = []
    for limit in LIMITS_MB:
        chosen = choose_route(LogStatistics(size, size // 50, 2_000), limit)
        seconds = {engine: run(events, engine, limit)[0] for engine in ("local", "spark")}
        told = [f"{value:.0f}" if value else "does not finish" for value in seconds.values()]
        rows.append([f"{limit:,}", chosen.engine, *told])
    heads = ["limit, MiB", "chosen", "local, s", "Spark, s"]
    return (
        f"{size:,} events under limits of memory, set on the whole process tree; `route` wants a path to fill at most"
        f" {HEADROOM:.0%}.\n\n" + table(heads, rows)
    )


if __name__ == "__main__":
    main()
