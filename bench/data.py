"""Reading a log and numbering its ids, beside pandas and Polars: `python bench/data.py [ROWS]` (100,000,000)."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
TOOLS = ("recsys", "pandas", "polars")
"""All give int32 rows of sorted user and item ids, values and times; recsys validates every row as well."""


def with_recsys(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read, validate and number with this package."""
    from recsys.data.read import read_events
    from recsys.types import IdMap

    events, refusals = read_events(path)
    assert not refusals.refused
    return tuple(IdMap.of(events[column]).rows(events[column]).astype(np.int32) for column in ("user_id", "item_id"))


def with_pandas(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read and number with pandas."""
    import pandas as pd

    events = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    return tuple(pd.factorize(events[column], sort=True)[0].astype(np.int32) for column in ("user_id", "item_id"))


def with_polars(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read and number with Polars, lazily."""
    import polars as pl

    events = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path)
    rows = (pl.col(column).rank("dense").cast(pl.Int32) - 1 for column in ("user_id", "item_id"))
    table = events.with_columns(*rows).collect()
    return table["user_id"].to_numpy(), table["item_id"].to_numpy()


def measure(tool: str, path: Path) -> dict[str, float]:
    """Run one tool in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", tool, str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{tool} on {path.name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def one(tool: str, path: Path) -> None:
    """Read, number, and print seconds, peak GiB and a checksum that all tools must share."""
    started = time.perf_counter()
    user, item = globals()[f"with_{tool}"](path)
    seconds = time.perf_counter() - started
    weight = np.arange(len(user), dtype=np.int64) % 1009
    checksum = int(user.astype(np.int64) @ weight) + int(item.astype(np.int64) @ weight)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak": peak, "checksum": checksum}))


def write_log(folder: Path, rows: int) -> list[Path]:
    """Write a log with a long tail as CSV and as Parquet, a piece at a time."""
    import pandas as pd

    from recsys.data.writing import appending

    paths = {kind: folder / f"events.{kind}" for kind in ("csv", "parquet")}
    rng = np.random.default_rng(0)
    for kind, path in paths.items():
        with appending({"events": path}, kind) as append:
            for at in range(0, rows, 2_000_000):
                n = min(2_000_000, rows - at)
                frame = {
                    "user_id": (rng.random(n) ** 2 * (rows // 40)).astype(np.int64),
                    "item_id": (rng.random(n) ** 4 * 200_000).astype(np.int64),
                    "value": rng.integers(1, 11, n) / 2,
                    "timestamp": 1_500_000_000 + rng.integers(0, 10**8, n),
                }
                append["events"](pd.DataFrame(frame))
    return list(paths.values())


def main(rows: int) -> None:
    """Measure every tool on both files, in turns, and write the section."""
    from results import table, write_section

    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for path in write_log(Path(folder), rows):
            runs = {tool: [measure(tool, path) for _ in range(3)] for tool in TOOLS}
            assert len({run["checksum"] for tool in TOOLS for run in runs[tool]}) == 1, "the tools disagree"
            seconds = {tool: float(np.median([run["seconds"] for run in runs[tool]])) for tool in TOOLS}
            for tool in TOOLS:
                peak = max(run["peak"] for run in runs[tool])
                ratio = seconds[tool] / min(seconds[peer] for peer in TOOLS if peer != "recsys")
                lines.append([f"{path.suffix[1:]}, {tool}", f"{seconds[tool]:.1f}", f"{ratio:.2f}", f"{peak:.2f}"])
    body = (
        f"{rows:,} rows, integer ids with a long tail: read and number users and items (sorted). Medians of three runs,"
        " each in a process of its own; recsys validates every row as well. All give the same numbers.\n\n"
        + table(["file, tool", "seconds", "× the faster peer", "peak GiB"], lines)
    )
    write_section("data", "Reading and numbering a log", f"python bench/data.py {rows}", body)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000_000)
