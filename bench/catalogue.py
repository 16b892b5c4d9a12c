"""A large catalogue on Spark: ALS and lists with item factors in blocks, and what each process holds at its peak.

python bench/catalogue.py [MILLIONS]                    default 0.1 million items
python bench/catalogue.py 0.1 --compare                 trains with broadcast factors too, and compares the lists
python bench/catalogue.py 10 --rank 128 --tasks         the two heaviest tasks alone, without Spark, in blocks of 32 MiB

Two pairs per item, a hundred per user, more on the first items. Rank 16, two sweeps, lists of 20 for a thousand users,
one core. Blocks of 6.4 MiB for each million items (--block-mb), so that there are ten. Memory is the largest resident
set of the driver's Python process, of the JVM and of the largest Python worker, which is one task.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from results import table, write_section

from recsys.config import SparkSettings
from recsys.spark.item_blocks import FactorTable, describe_layout, items_per_block
from recsys.spark.ranking.recommend import ListSettings, collect_seen_items, top_k
from recsys.spark.ranking.scorers import factor_scorer
from recsys.spark.session import session
from recsys.spark.training.als import fit_als
from recsys.spark.training.blocked_trainer import Descent, ItemSystem, solve_users, take_step
from recsys.spark.training.blocks import HistoryBlock, UserBlock
from recsys.spark.training.parameters import SparkALSParameters
from recsys.spark.training.trainer import BLOCK_PAIRS

PAIRS_PER_ITEM, PAIRS_PER_USER, LISTED_USERS, K, SWEEPS = 2, 100, 1000, 20, 2
BROADCAST_MB = 2000


def main() -> None:
    """Train and list, print the peaks, and write the section."""
    words = argparse.ArgumentParser(description="A large catalogue on Spark.")
    words.add_argument("millions", nargs="?", type=float, default=0.1)
    words.add_argument("--rank", type=int, default=16)
    words.add_argument("--block-mb", type=float)
    words.add_argument("--driver-memory", default="3g")
    words.add_argument("--compare", action="store_true")
    words.add_argument("--tasks", action="store_true")
    given = words.parse_args()
    items = int(given.millions * 1e6)
    if given.tasks:
        measure_tasks(items, given.rank)
        return
    block_mb = given.block_mb or 6.4 * given.millions
    params = SparkALSParameters(rank=given.rank, iterations=SWEEPS, alpha=10.0)
    conf = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "8", "spark.default.parallelism": "2"}
    spark = session(SparkSettings(master="local[1]", driver_memory=given.driver_memory, conf=conf))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pairs = make(spark, items, place / "pairs")
        peaks = Peaks()
        with peaks.watched():
            seconds, blocked = fit_and_list(pairs, items, params, place / "blocks", block_mb)
        facts = {
            "items": f"{items:,}",
            "pairs": f"{pairs.count():,}",
            "layout": describe_layout(items, given.rank, block_mb),
            **{f"{step}, s": f"{value:,.0f}" for step, value in seconds.items()},
            **{f"peak of {role}, MiB": f"{value:,.0f}" for role, value in peaks.megabytes.items()},
        }
        if given.compare:
            _, whole = fit_and_list(pairs, items, params, place / "broadcast", BROADCAST_MB)
            facts["places of lists with the same item in both layouts"] = agreement(blocked, whole)
    name = f"catalogue-{given.millions:g}"
    options = " --compare" if given.compare else ""
    command = f"python bench/catalogue.py {given.millions:g} --block-mb {block_mb:g}{options}"
    body = table(["", "value"], [[key, value] for key, value in facts.items()])
    write_section(name, f"A catalogue of {given.millions:g} million items in blocks", command, body)


def measure_tasks(items: int, rank: int) -> None:
    """Write the peak of a task of each kind, for blocks of the size of ``item_block_mb = "auto"``."""
    rows = items_per_block(items, rank, "auto")
    assert rows is not None, "such item factors are broadcast"
    pairs = f"a user block, {BLOCK_PAIRS:,} pairs on as many items"
    peaks = []
    for name, size, task in [(f"an item block, {rows:,} items", rows, item_task), (pairs, items, user_task)]:
        # A process of its own, because a peak is that of a process.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peaks.append([name, f"{pool.submit(task, size, rank).result():,.0f}"])
    command = f"python bench/catalogue.py {items / 1e6:g} --rank {rank} --tasks"
    title = f"The tasks of {items / 1e6:g} million items at rank {rank} in blocks"
    write_section("catalogue-tasks", title, command, table(["task", "peak of the process, MiB"], peaks))


def item_task(rows: int, rank: int) -> float:
    """Take a conjugate gradient step of one item block, and return the peak in MiB."""
    rng = np.random.default_rng(0)
    params = SparkALSParameters(rank=rank)
    system = ItemSystem(np.eye(rank), np.ones(rank), np.eye(rank), 10**6, params)
    vectors = [rng.standard_normal((rows, rank)) for _ in range(3)]
    state = Descent(*vectors, np.ones(rows))
    part = np.arange(2**20 // (4 * rank), dtype=np.int32)
    sums = np.ones((len(part), rank), dtype=np.float32)
    messages = (((0, sender, 0), (part, sums)) for sender in range(100))
    counts = np.full(rows, 2)
    list(take_step(system)(chain([((0, -1, 0), counts), ((0, -1, 0), state)], messages)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def user_task(items: int, rank: int) -> float:
    """Solve one user block whose pairs have an item each, and return the peak in MiB."""
    rng = np.random.default_rng(0)
    params = SparkALSParameters(rank=rank)
    users = np.arange(BLOCK_PAIRS, dtype=np.int32) // PAIRS_PER_USER
    rows = rng.permutation(items)[:BLOCK_PAIRS].astype(np.int32)
    histories = HistoryBlock.from_pairs(users, rows, np.ones(BLOCK_PAIRS, dtype=np.float32), 0)
    block = UserBlock.from_histories(histories.to_bytes())
    axes = (np.ones(rank), np.eye(rank))
    size = 2**20 // (4 * rank)
    starts = range(0, len(block.items), size)
    messages = (
        ((0, 0, number), rng.standard_normal((min(size, len(block.items) - start), rank), dtype=np.float32))
        for number, start in enumerate(starts)
    )
    list(solve_users(params, 0, axes, items)(chain([((0, -1, 0), block)], messages)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def make(spark: SparkSession, items: int, path: Path) -> DataFrame:
    """Write made-up pairs: users at random, items by a law that prefers low rows."""
    n = items * PAIRS_PER_ITEM
    users = max(LISTED_USERS, n // PAIRS_PER_USER)
    frame = spark.range(n).select(
        F.floor(F.rand(1) * users).cast("int").alias("user"),
        F.floor(F.pow(F.rand(2), 2.0) * items).cast("int").alias("item"),
    )
    frame.distinct().withColumn("value", F.lit(1.0)).write.parquet(str(path))
    return spark.read.parquet(str(path))


def fit_and_list(
    pairs: DataFrame, items: int, params: SparkALSParameters, work: Path, item_block_mb: float
) -> tuple[dict[str, float], pd.DataFrame]:
    """Return the seconds of each step, and the lists of some users, sorted by user and rank."""
    started = time.perf_counter()
    fitted = fit_als(pairs, items, params, work, item_block_mb)
    trained = time.perf_counter()
    if item_block_mb < BROADCAST_MB:
        assert isinstance(fitted.items, FactorTable), "factors were broadcast: make blocks smaller"
    listed = fitted.users.orderBy("user").limit(LISTED_USERS)
    seen = collect_seen_items(pairs, listed.select("user"))
    lists = top_k(seen.join(listed, "user"), factor_scorer("als", fitted.items), ListSettings(K)).toPandas()
    seconds = {"training": trained - started, "lists": time.perf_counter() - trained}
    return seconds, lists.sort_values(["user", "rank"], ignore_index=True)


def agreement(lists: pd.DataFrame, whole: pd.DataFrame) -> str:
    """Return how many places of the lists have the same item, of how many."""
    both = lists.merge(whole, on=["user", "rank"], how="outer")
    same = (both["item_x"] == both["item_y"]).sum()
    difference = np.abs(both["score_x"] - both["score_y"]).max()
    return f"{same:,} of {len(both):,}, scores differ by at most {difference:.1e}"


class Peaks:
    """The largest resident sets of the processes of a session."""

    def __init__(self) -> None:
        self.megabytes = {"the driver's Python": 0.0, "the JVM": 0.0, "a task's Python": 0.0}

    @contextmanager
    def watched(self):
        """Look at all processes twice a second while the block runs."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                self._look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        yield
        done.set()
        thread.join()
        self.megabytes["the driver's Python"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def _look(self) -> None:
        session_id = Path("/proc/self/stat").read_text().split()[5]
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                command = (folder / "cmdline").read_text()
                peak = (folder / "status").read_text().partition("VmHWM:")[2].split()
                is_ours = (folder / "stat").read_text().rpartition(")")[2].split()[3] == session_id
            except OSError:
                continue  # it has ended
            role = "a task's Python" if "pyspark.daemon" in command else "the JVM" if "java" in command[:60] else None
            if is_ours and role and peak:
                self.megabytes[role] = max(self.megabytes[role], int(peak[0]) / 2**10)


if __name__ == "__main__":
    main()
