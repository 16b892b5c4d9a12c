"""What a run will need, before it runs: rows, skew, memory, shuffle, blocks and time, and what cannot fit.

Times come from operation counts and from costs that are measured here in a second: a pair of a training sweep, and a
score, multiplied and passed by in the selection. The other constants are core-seconds of Java code, fitted to one
run; ``bench/plan.py`` holds the plan against runs of other sizes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys import kernels, linalg
from recsys.config import Config
from recsys.errors import InputError
from recsys.schema import ITEM, USER
from recsys.spark.ranking.recommend import BLOCK
from recsys.spark.training.als import Params
from recsys.spark.training.trainer import BLOCKS, PAIRS

READ, SPLIT, JUDGE = 4.2e-6, 5.7e-6, 0.55e-6
"""Core-seconds a row: parse and check; split, number and aggregate; judge a model."""
PACK, MOVE = 2.8e-6, 20e-9
"""Core-seconds a row: to bring a user's pairs together and write the factors; to hand a pair to Python once."""
LIST = 60e-6
"""Core-seconds a list, besides its scores."""
START, READ_HOP, SPLIT_HOP, FIT_HOP, HOP, JOB = 3.0, 11.0, 20.0, 12.0, 2.0, 0.25
"""Seconds whatever the size: of Spark's start, of hops, and of each job of a training sweep."""
PAIR, SOLVE = 0.38e-9, 1.2e-9
"""Core-seconds of MLlib: rank² times this for a pair and side, rank³/3 times this for a row's system."""
PYTHON, JVM, WORKER = 350, 900, 1000
"""MiB of an idle driver Python, JVM, and Python workers of one core with their compiled code."""
GARBAGE, BEHIND = 0.5, 150
"""A local JVM grows to this share of its heap on any log, and by so many bytes a row, before it collects garbage."""
CATALOGUE = 1024
"""MiB of item factors from which a task's memory is worth a word."""
PASSED = 2048
"""MiB that PySpark cannot pass as one value any more: it writes the length as 32 bits with a sign."""


@dataclass(frozen=True)
class Facts:
    """What the log holds. ``heaviest_user``, ``heaviest_item``: the most rows of one."""

    rows: int
    users: int
    items: int
    heaviest_user: int
    heaviest_item: int


@dataclass(frozen=True)
class Machine:
    """``cores`` that work at once; ``heap``: MiB of one JVM; ``free``: MiB of disk; ``score``: core-seconds a score;
    ``pair``: model -> core-seconds a pair in a sweep of our own trainer.
    """

    cores: int
    heap: int
    free: int
    score: float
    pair: dict[str, float]
    local: bool = True


@dataclass
class Plan:
    """``seconds`` by hop; ``memory``: MiB by role at the peak; ``notes``: advice; ``refusals``: what cannot fit."""

    facts: Facts
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


def count(events: DataFrame) -> Facts:
    """Count a log (user_id, item_id); two shuffles of ids, nothing is written.

    Raises:
        InputError: no rows.
    """
    found = []
    for column in (USER, ITEM):
        per_id = events.groupBy(column).count()
        row = per_id.agg(F.count(F.lit(1)), F.max("count"), F.sum("count")).first()
        found.append([int(value or 0) for value in row] if row else [0, 0, 0])
    (users, most_user, rows), (items, most_item, _) = found
    if not rows:
        raise InputError("the log has no rows to plan for")
    return Facts(rows, users, items, most_user, most_item)


def machine(spark: SparkSession, facts: Facts, params: dict[str, Params]) -> Machine:
    """Look at the session, and measure what a pair and a score cost at these ranks."""
    context = spark.sparkContext
    heap = context._jvm.java.lang.Runtime.getRuntime().maxMemory() // 2**20  # type: ignore[union-attr]
    local = context.master.startswith("local")
    folder = Path(context.getConf().get("spark.local.dir", None) or tempfile.gettempdir())
    free = shutil.disk_usage(folder if folder.exists() else Path("/")).free // 2**20
    if not local:
        text = context.getConf().get("spark.executor.memory", "1g") or "1g"
        heap = context._jvm.org.apache.spark.network.util.JavaUtils.byteStringAsMb(text)  # type: ignore[union-attr]
    score = cost_of_a_score(max((p.rank for p in params.values()), default=1), facts.items)
    length = max(1, round(facts.rows / facts.users))
    pair = {name: cost_of_a_pair(p, length, facts.items) for name, p in params.items() if p.trainer == "recsys"}
    return Machine(context.defaultParallelism, int(heap), free, score, pair, local)


def cost_of_a_score(rank: int, items: int) -> float:
    """Return core-seconds to compute one score and to pass it by in the selection; CPU time, of one thread."""
    rng = np.random.default_rng(0)
    m = max(1, min(256, BLOCK // (4 * items)))
    x, y = (rng.standard_normal((n, rank), dtype=np.float32) for n in (m, items))
    none = np.zeros(m + 1, dtype=np.int64)
    costs = []
    with linalg.one_blas_thread():
        for _ in range(4):  # the first compiles
            started = time.thread_time()
            scores = x @ y.T
            for row in range(m):
                kernels.select_top_k_of_row(scores[row], none[:0], np.empty(10, np.int32), np.empty(10, np.float32))
            costs.append((time.thread_time() - started) / (m * items))
    return min(costs[1:])


def cost_of_a_pair(params: Params, length: int, items: int) -> float:
    """Return core-seconds of a pair in a sweep, at ``length`` pairs a user: solved once, summed up four times."""
    users = max(1, 100_000 // length)
    rng = np.random.default_rng(0)
    indptr = np.arange(users + 1, dtype=np.int64) * length
    columns = rng.integers(0, items, users * length).astype(np.int32)
    values = np.ones(len(columns), dtype=np.float32)
    y = rng.standard_normal((items, params.rank), dtype=np.float32)
    axes = linalg.principal_axes(y) if params.implicit else None
    costs = []
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        for _ in range(3):  # the first compiles
            started = time.thread_time()
            x = params.solve((indptr, columns, values), y, axes)
            for _ in range(1 + linalg.STEPS):
                linalg.add_left_over(indptr, columns, values, values, x, y, np.zeros_like(y))
            costs.append((time.thread_time() - started) / len(columns))
    finally:
        numba.set_num_threads(threads)
    return min(costs[1:])


def plan(config: Config, facts: Facts, machine: Machine, params: dict[str, Params]) -> Plan:
    """Return what the run needs."""
    found = Plan(facts)
    cores = machine.cores
    models = 3 + len(params)
    listed = facts.users if config.recommend.everyone else min(facts.users, facts.rows // 5)
    row = {"read": (READ_HOP, READ), "split": (SPLIT_HOP, SPLIT)}
    found.seconds = {"start": START} | {n: hop + facts.rows * cost / cores for n, (hop, cost) in row.items()}
    rank = 1
    for name, settings in params.items():
        rank = max(rank, settings.rank)
        if settings.trainer == "recsys":
            sweep = (2 + linalg.STEPS) * JOB + facts.rows * (machine.pair[name] + (2 + linalg.STEPS) * MOVE) / cores
        else:
            pairs = 2 * facts.rows * settings.rank**2 * PAIR
            sweep = (pairs + (facts.users + facts.items) * settings.rank**3 / 3 * SOLVE) / cores
        found.seconds[f"fit {name}"] = FIT_HOP + facts.rows * PACK / cores + (settings.iterations + 1) * sweep
        found.seconds[f"recommend {name}"] = HOP + listed * (facts.items * machine.score + LIST) / cores
    found.seconds["baselines"] = 3 * HOP + 3 * min(listed, facts.rows // 10) * (facts.items * 1.5e-9 + LIST) / cores
    found.seconds["judge and summarise"] = models * (HOP + facts.rows * JUDGE / cores)
    _memory(found, config, machine, params, rank)
    _sizes(found, config, machine, params, rank)
    _advise(found, config, machine, params)
    return found


def _memory(found: Plan, config: Config, machine: Machine, params: dict[str, Params], rank: int) -> None:
    facts = found.facts
    users, catalogue = (n * rank * 4 / 2**20 for n in (facts.users, facts.items))
    block = max(min(config.recommend.memory_mb / 3, BLOCK / 2**20), 64 * PAIRS / 2**20)
    kept = facts.rows * 2 * 8 / 2**20 + users  # packed pairs, with and without their users' factors
    live = facts.rows * 2 * 24 / 2**20 + users + catalogue
    need = JVM + kept
    if any(p.trainer == "mllib" for p in params.values()):
        found.sizes["live heap of MLlib's training, MiB"] = round(live)
        need = JVM + 3 * live
    grown = min(1.1 * machine.heap, GARBAGE * machine.heap + BEHIND * facts.rows / 2**20)
    need = min(need, 1.1 * machine.heap) if machine.local else need
    found.memory = {
        "python": PYTHON + 10 * catalogue,  # conjugate gradients in float64
        "jvm": max(need, grown) if machine.local else need,
        "workers": machine.cores * (WORKER + 3 * catalogue + 2 * block),
    }
    found.memory["total"] = sum(found.memory.values())
    found.sizes["kept while training, MiB"] = round(kept)


def _sizes(found: Plan, config: Config, machine: Machine, params: dict[str, Params], rank: int) -> None:
    facts = found.facts
    mllib = [p for p in params.values() if p.trainer == "mllib"]
    shuffled = facts.rows * 12
    if mllib:
        blocks = max(p.blocks or max(10, machine.cores) for p in mllib)
        sends = min(facts.users * blocks, facts.rows) + min(facts.items * blocks, facts.rows)
        found.sizes |= {
            "MLlib's user and item blocks": blocks,
            "checkpoint directory": config.spark.checkpoint_dir or f"{config.out}/.work",
        }
        shuffled = max(shuffled, sends * rank * 4 * 2)
    tasks = max(machine.cores, facts.rows // PAIRS // BLOCKS)
    found.sizes |= {
        "shuffle files of training, MiB": round(shuffled / 2**20),
        "sent by the tasks of a sweep, MiB": round((1 + linalg.STEPS) * tasks * facts.items * rank * 4 / 2**20),
        "users in a block of top-N": max(
            1, int(min(config.recommend.memory_mb * 2**20 / 3, BLOCK) / (4 * facts.items))
        ),
        "lists": facts.users if config.recommend.everyone else "of tested users",
    }


def _advise(found: Plan, config: Config, machine: Machine, params: dict[str, Params]) -> None:
    facts = found.facts
    for name, settings in params.items():
        if settings.rank > min(facts.users, facts.items):
            found.refusals.append(
                f"{name}: rank {settings.rank} is more than the {min(facts.users, facts.items):,} users or items there"
                " are: lower rank."
            )
        if settings.trainer == "mllib" and settings.checkpoint_every > 25:
            found.notes.append(f"{name}: checkpoint_every above 25 lets the lineage grow: 10 is safe.")
    heap = 0.6 * machine.heap * (1 if machine.local else machine.cores)
    live, kept = found.sizes.get("live heap of MLlib's training, MiB", 0), found.sizes["kept while training, MiB"]
    if live > heap:
        found.refusals.append(
            f"MLlib's training holds {live:,} MiB, but the heap is {machine.heap:,} MiB: raise spark.driver.memory"
            " (local) or the number or spark.executor.memory of executors; lower rank; or use trainer = 'recsys'."
        )
    if kept > heap:
        found.notes.append(f"training keeps {kept:,} MiB, and {heap:,.0f} fit in memory: the rest is read from disk.")
    ours = [p.rank for p in params.values() if p.trainer == "recsys"]
    catalogue = facts.items * max(ours, default=0) * 4 / 2**20
    if catalogue >= PASSED:
        found.refusals.append(
            f"item factors of {catalogue:,.0f} MiB: PySpark passes no value of {PASSED:,} MiB or more; lower rank, or"
            " use trainer = 'mllib'."
        )
    elif catalogue > CATALOGUE:
        found.notes.append(
            f"every task holds item factors of {catalogue:,.0f} MiB three times: fewer tasks with more memory each"
            " (spark.task.cpus), a lower rank, or trainer = 'mllib'."
        )
    if 4 * facts.items > config.recommend.memory_mb * 2**20 / 3:
        found.refusals.append(f"one user's scores take {4 * facts.items / 2**20:.0f} MiB: raise recommend.memory_mb.")
    shuffled = found.sizes["shuffle files of training, MiB"]
    if shuffled > 0.9 * machine.free:
        found.refusals.append(f"shuffle files need {shuffled:,} MiB, {machine.free:,} are free: set spark.local.dir.")
    alone = [("user", facts.heaviest_user)]
    if any(p.trainer == "mllib" for p in params.values()):  # ours adds an item's pairs up where its users are
        alone.append(("item", facts.heaviest_item))
    for kind, most in alone:
        if most > max(1000, 0.05 * facts.rows):
            found.notes.append(
                f"one {kind} has {most:,} of {facts.rows:,} rows: one task does all of it. Is it a robot, or a default?"
            )
    if not machine.local and not config.spark.checkpoint_dir and live:
        found.notes.append("on a cluster set [spark] checkpoint_dir to a disk that all executors share.")
    if (total := found.memory["total"]) > (memory := _installed()):
        found.refusals.append(f"about {total:,.0f} MiB at the peak, but this machine has {memory:,.0f}: use a cluster.")


def _installed() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
