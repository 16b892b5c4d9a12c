"""A log from file to one entry a (user, item), beside pandas and Polars: `python bench/data.py [ROWS] [RUNS]`.

A hundred million rows and one run by default. A tool that needs more than LIMIT_GIB is stopped, and the table says so.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT_GIB = 13
TOOLS = ("recsys", "pandas", "polars")
"""All give int32 rows of sorted users and items, the sum of values and the latest time, one entry a pair, in order."""
FLOW = "recsys, read + data card + split by time"


def with_recsys(path: Path) -> list[np.ndarray]:
    """Read, check, number and aggregate with this package."""
    from recsys.data.reading.read import read_tables
    from recsys.data.weigh import aggregate_events
    from recsys.types import IdMap

    log = read_tables(path).take_log()
    users, items = (IdMap.from_ids(log[column]) for column in ("user_id", "item_id"))
    pairs = aggregate_events(log, "sum", users, items)
    return [pairs.user, pairs.item, pairs.value, pairs.time]


def flow(path: Path) -> int:
    """Do what `recsys run` does before it fits: read, check, number, describe, split, filter, weigh, aggregate."""
    from recsys.data.card import data_card
    from recsys.data.reading.read import read_tables
    from recsys.data.splitting.split import split
    from recsys.data.splitting.strategies import ByTime

    tables = read_tables(path)
    data_card(tables)
    parts = split(tables.take_log(), ByTime())
    return len(parts.train) + len(parts.test)


def with_pandas(path: Path) -> list[np.ndarray]:
    """Read, number and aggregate with pandas."""
    import pandas as pd

    events = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    for column in ("user_id", "item_id"):
        events[column] = pd.factorize(events[column], sort=True)[0].astype(np.int32)
    pairs = events.groupby(["user_id", "item_id"]).agg({"value": "sum", "timestamp": "max"}).reset_index()
    return [pairs[name].to_numpy() for name in ("user_id", "item_id", "value", "timestamp")]


def with_polars(path: Path) -> list[np.ndarray]:
    """Read, aggregate and number with Polars' streaming engine: the fastest of the four ways that were tried."""
    import polars as pl

    events = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path)
    both = events.group_by("user_id", "item_id").agg(pl.col("value").sum(), pl.col("timestamp").max())
    pairs = both.sort("user_id", "item_id").collect(engine="streaming")
    items = pairs.select("item_id").unique().sort("item_id").with_row_index("item")
    pairs = pairs.with_columns(user=pl.col("user_id").rle_id()).join(items, on="item_id", maintain_order="left")
    return [pairs[name].to_numpy() for name in ("user", "item", "value", "timestamp")]


def measure(tool: str, path: Path) -> dict[str, float] | None:
    """Run one tool in a process of its own; None when it needs more than LIMIT_GIB."""
    command = [sys.executable, __file__, "--one", tool, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            held = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            if held > LIMIT_GIB * 2**30:
                process.kill()
                return None
            time.sleep(0.2)
        if process.returncode:
            raise RuntimeError(f"{tool} on {path.name} failed")
        return json.loads(process.stdout.read())


def one(tool: str, path: Path) -> None:
    """Do the work; print seconds, peak GiB and a checksum that all tools must share."""
    started = time.perf_counter()
    found = flow(path) if tool == FLOW else globals()[f"with_{tool}"](path)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    checksum = found if tool == FLOW else sum(_checksum(column) for column in found)
    print(json.dumps({"seconds": seconds, "peak": peak, "checksum": checksum}))


def _checksum(column: np.ndarray) -> int:
    """Return a number that changes with every entry and with their order; values here are halves."""
    total = 0
    for start in range(0, len(column), 1 << 20):
        part = (column[start : start + (1 << 20)] * (2 if column.dtype.kind == "f" else 1)).astype(np.int64)
        total += int(part @ (np.arange(start, start + len(part)) % 1009))
    return total


def write_log(folder: Path, rows: int) -> list[Path]:
    """Write a log with a long tail as CSV and as Parquet, a piece at a time."""
    import pandas as pd

    from recsys.data.writing import open_appenders

    paths = {kind: folder / f"events.{kind}" for kind in ("csv", "parquet")}
    rng = np.random.default_rng(0)
    with (
        open_appenders({"csv": paths["csv"]}, "csv") as text,
        open_appenders({"parquet": paths["parquet"]}, "parquet") as typed,
    ):
        for at in range(0, rows, 2_000_000):
            n = min(2_000_000, rows - at)
            columns = {
                "user_id": (rng.random(n) ** 2 * (rows // 40)).astype(np.int64),
                "item_id": (rng.random(n) ** 4 * 200_000).astype(np.int64),
                "value": rng.integers(1, 11, n) / 2,
                "timestamp": 1_500_000_000 + rng.integers(0, 10**8, n),
            }
            text["csv"](pd.DataFrame(columns))
            typed["parquet"](pd.DataFrame(columns))
    return list(paths.values())


def main(rows: int, runs: int) -> None:
    """Measure every tool on both files, in turns, and write the section."""
    from results import table, write_section

    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for path in write_log(Path(folder), rows):
            found: dict[str, list] = {tool: [] for tool in (*TOOLS, FLOW)}
            for _ in range(runs):
                for tool in found:
                    if None not in found[tool]:
                        found[tool].append(measure(tool, path))
                        print(path.suffix, tool, found[tool][-1], file=sys.stderr, flush=True)
            checksums = {run["checksum"] for tool in TOOLS for run in found[tool] if run}
            assert len(checksums) == 1, "the tools disagree"
            lines += rows_of(path, found)
    body = (
        f"{rows:,} rows of integer ids with a long tail, {rows // 40:,} users and 200,000 items: read, number users and"
        " items in order, one entry a (user, item) with the sum of values and the latest time. Medians of"
        f" {runs} run{'s' * (runs > 1)}, each in a process of its own, in turns; recsys also checks every row."
        " The three give the same entries. The last line of each file is what `recsys run` does before it fits.\n\n"
        + table(["file, tool", "seconds", "× the faster peer", "peak GiB"], lines)
    )
    write_section("data", "A log from file to entries", f"python bench/data.py {rows} {runs}", body)


def rows_of(path: Path, found: dict[str, list]) -> list[list[str]]:
    """Return a table's lines for one file."""
    done = {tool: runs for tool, runs in found.items() if None not in runs}
    seconds = {tool: float(np.median([run["seconds"] for run in runs])) for tool, runs in done.items()}
    fastest = min((seconds[peer] for peer in TOOLS[1:] if peer in seconds), default=np.nan)
    lines = []
    for tool in found:
        if tool not in done:
            lines.append([f"{path.suffix[1:]}, {tool}", "out of memory", "", f"> {LIMIT_GIB}"])
            continue
        ratio = "" if tool == FLOW else f"{seconds[tool] / fastest:.2f}"
        peak = max(run["peak"] for run in done[tool])
        lines.append([f"{path.suffix[1:]}, {tool}", f"{seconds[tool]:.1f}", ratio, f"{peak:.2f}"])
    return lines


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]))
    else:
        numbers = [int(argument) for argument in sys.argv[1:]]
        main(*(numbers + [100_000_000, 1][len(numbers) :]))
