"""Predict memory, shuffle files, blocks and time of a run on Spark, and whether it fits.

A time is a number of operations multiplied by the cost of one operation. Two costs are measured on
this machine in about a second: that of one pair in a training sweep, and that of one score. All
other costs are constants that were fitted to one run. ``bench/plan.py`` compares the plan with runs
of other sizes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys import kernels, linalg
from recsys.als import solvers
from recsys.config import Config
from recsys.errors import InputError
from recsys.schema import ITEM, USER
from recsys.spark.item_blocks import describe_layout, items_per_block
from recsys.spark.ranking.recommend import BLOCK_BYTES
from recsys.spark.training.parameters import SparkALSParameters
from recsys.spark.training.trainer import BLOCK_PAIRS, MAX_BLOCKS_PER_TASK

READ_ROW = 4.2e-6
"""Seconds of one core to parse and check a row."""

SPLIT_ROW = 5.7e-6
"""Seconds of one core to split, number and aggregate a row."""

JUDGE_ROW = 0.55e-6
"""Seconds of one core per row of the log to judge the lists of one model."""

PACK_ROW = 2.8e-6
"""Seconds of one core per row to group the pairs by user before a training and to write the factors after
it.
"""

MOVE_ROW = 20e-9
"""Seconds of one core to pass one pair from the JVM to Python."""

LIST = 60e-6
"""Seconds of one core per list, without the computation of its scores."""

START_SECONDS = 3.0
"""Seconds that Spark needs to start."""

READ_SECONDS, SPLIT_SECONDS, FIT_SECONDS, HOP_SECONDS = 11.0, 20.0, 12.0, 2.0
"""Seconds that a step of a run takes on a tiny log: reading, splitting, a fit, any other step."""

JOB_SECONDS = 0.25
"""Seconds of each job of a training sweep on a tiny log."""

MLLIB_PAIR = 0.38e-9
"""Seconds of one core of MLlib's training per pair and side, divided by rank²."""

MLLIB_SOLVE = 1.2e-9
"""Seconds of one core of MLlib's training per user or item, divided by rank³/3."""

PYTHON_MB, JVM_MB, WORKER_MB = 350, 900, 1000
"""MiB of the idle Python process of the driver, of an idle JVM, and of the Python workers of one
core with their compiled code.
"""

GARBAGE_SHARE = 0.5
"""The share of its heap to which a local JVM grows before it collects garbage, on any log."""

GARBAGE_BYTES = 150
"""Bytes per row by which a local JVM grows in addition."""

ParametersByName = dict[str, SparkALSParameters]
"""Name of a model -> its parameters."""


@dataclass(frozen=True)
class LogFacts:
    """The size of a log.

    Attributes:
        rows, users, items: number of rows, of distinct users and of distinct items.
        heaviest_user, heaviest_item: the largest number of rows of one user and of one item.
    """

    rows: int
    users: int
    items: int
    heaviest_user: int
    heaviest_item: int


@dataclass(frozen=True)
class Machine:
    """The limits of the machine or cluster, and the costs that were measured on it.

    Attributes:
        cores: number of tasks that run at the same time.
        heap: maximum heap of one JVM, in MiB.
        free: free disk space for shuffle files, in MiB.
        score: seconds of one core to compute one score.
        pair: model -> seconds of one core per pair in a training sweep, for models with ``trainer =
            "recsys"``.
        local: whether Spark runs in one JVM on this machine.
    """

    cores: int
    heap: int
    free: int
    score: float
    pair: dict[str, float]
    local: bool = True


@dataclass
class Plan:
    """The predicted needs of a run.

    Attributes:
        facts: the size of the log.
        seconds: step of the run, for example "read" or "fit als" -> seconds.
        memory: ``python``, ``jvm``, ``workers`` and ``total`` -> MiB at the peak.
        sizes: name -> further counts and sizes.
        notes: advice.
        refusals: reasons why the run cannot fit. Empty if it fits.
    """

    facts: LogFacts
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


def count_log(events: DataFrame) -> LogFacts:
    """Count the rows, users and items of a log, and the rows of its heaviest user and item.

    Spark shuffles the ids twice. Nothing is written.

    Args:
        events: a table with the columns ``user_id`` and ``item_id``.

    Raises:
        InputError: the log has no rows.
    """
    users, heaviest_user, rows = _count_ids(events, USER)
    items, heaviest_item, _ = _count_ids(events, ITEM)
    if not rows:
        raise InputError("the log has no rows to plan for")
    return LogFacts(rows, users, items, heaviest_user, heaviest_item)


def _count_ids(events: DataFrame, column: str) -> tuple[int, int, int]:
    """Return the number of distinct ids, the largest number of rows of one id, and the number of
    all rows.
    """
    row = events.groupBy(column).count().agg(F.count(F.lit(1)), F.max("count"), F.sum("count")).first()
    ids, largest, rows = (int(value or 0) for value in row or (0, 0, 0))
    return ids, largest, rows


def measure_machine(spark: SparkSession, facts: LogFacts, params: ParametersByName) -> Machine:
    """Measure what this machine can do, and return it as a Machine.

    The limits are the number of cores, the heap of one JVM and the free disk space. The costs are
    measured in the process of the driver, in core-seconds: ``score``, the cost of one score, with
    the largest rank in ``params`` (1 if there are no models); and ``pair``, model name -> the cost
    of one (user, item) pair in one training sweep, for each model with ``trainer = "recsys"``.

    Args:
        spark: the session.
        facts: the size of the log.
        params: name -> parameters of each model to train.
    """
    context = spark.sparkContext
    heap = context._jvm.java.lang.Runtime.getRuntime().maxMemory() // 2**20  # type: ignore[union-attr]
    local = context.master.startswith("local")
    folder = Path(context.getConf().get("spark.local.dir", None) or tempfile.gettempdir())
    free = shutil.disk_usage(folder if folder.exists() else Path("/")).free // 2**20
    if not local:
        text = context.getConf().get("spark.executor.memory", "1g") or "1g"
        heap = context._jvm.org.apache.spark.network.util.JavaUtils.byteStringAsMb(text)  # type: ignore[union-attr]
    # A larger rank is refused by the plan. Its costs would take minutes and gigabytes to measure.
    largest = min(facts.users, facts.items)
    bounded = {name: replace(p, rank=min(p.rank, largest)) for name, p in params.items()}
    score = measure_score_cost(max((p.rank for p in bounded.values()), default=1), facts.items)
    length = max(1, round(facts.rows / facts.users))
    pair = {name: measure_pair_cost(p, length, facts.items) for name, p in bounded.items() if p.trainer == "recsys"}
    return Machine(context.defaultParallelism, int(heap), free, score, pair, local)


def measure_score_cost(rank: int, items: int) -> float:
    """Measure the CPU time of one score, and return it in core-seconds.

    A core-second is one second of one core. The time includes the comparison of the score when the
    best items are selected.

    Args:
        rank: the length of a factor.
        items: the number of items.
    """
    rng = np.random.default_rng(0)
    m = max(1, min(256, BLOCK_BYTES // (4 * items)))
    x, y = (rng.standard_normal((n, rank), dtype=np.float32) for n in (m, items))
    none = np.zeros(m + 1, dtype=np.int64)
    costs = []
    with linalg.one_blas_thread():
        for _ in range(4):
            started = time.thread_time()
            scores = x @ y.T
            for row in range(m):
                kernels.select_top_k_of_row(scores[row], none[:0], np.empty(10, np.int32), np.empty(10, np.float32))
            costs.append((time.thread_time() - started) / (m * items))
    return min(costs[1:])


def measure_pair_cost(params: SparkALSParameters, length: int, items: int) -> float:
    """Measure the CPU time per pair in one training sweep, and return it in core-seconds.

    A core-second is one second of one core. A sweep solves for the users once and computes
    ``1 + CG_STEPS`` = 4 sums of residuals.

    Args:
        params: the parameters of the model.
        length: number of pairs per user.
        items: the number of items.
    """
    users = max(1, 100_000 // length)
    rng = np.random.default_rng(0)
    indptr = np.arange(users + 1, dtype=np.int64) * length
    columns = rng.integers(0, items, users * length).astype(np.int32)
    values = np.ones(len(columns), dtype=np.float32)
    y = rng.standard_normal((items, params.rank), dtype=np.float32)
    axes = solvers.principal_axes(y) if params.implicit else None
    costs = []
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        for _ in range(3):
            started = time.thread_time()
            x = params.solve_rows((indptr, columns, values), y, axes)
            for _ in range(1 + solvers.CG_STEPS):
                solvers.add_residual(indptr, columns, values, values, x, y, np.zeros_like(y))
            costs.append((time.thread_time() - started) / len(columns))
    finally:
        numba.set_num_threads(threads)
    return min(costs[1:])


def plan(config: Config, facts: LogFacts, machine: Machine, params: ParametersByName) -> Plan:
    """Predict the time, memory and disk space that a run on Spark needs, and whether it fits.

    The plan is computed from the arguments. No log is read and no job is started.

    Args:
        config: the config of the run.
        facts: the size of the log, from :func:`count_log`.
        machine: limits and costs, from :func:`measure_machine`.
        params: name -> parameters of each model to train.
    """
    result = Plan(facts)
    cores = machine.cores
    models = 3 + len(params)
    # Without `everyone` only tested users get lists; how many they are is known after the split.
    listed = facts.users if config.recommend.everyone else min(facts.users, facts.rows // 5)
    result.seconds = {
        "start": START_SECONDS,
        "read": READ_SECONDS + facts.rows * READ_ROW / cores,
        "split": SPLIT_SECONDS + facts.rows * SPLIT_ROW / cores,
    }
    rank = 1
    for name, settings in params.items():
        rank = max(rank, settings.rank)
        if settings.trainer == "recsys":
            sweep = _sweep_seconds(config, facts, machine, name, settings)
        else:
            pairs = 2 * facts.rows * settings.rank**2 * MLLIB_PAIR
            sweep = (pairs + (facts.users + facts.items) * settings.rank**3 / 3 * MLLIB_SOLVE) / cores
        result.seconds[f"fit {name}"] = FIT_SECONDS + facts.rows * PACK_ROW / cores + (settings.iterations + 1) * sweep
        result.seconds[f"recommend {name}"] = HOP_SECONDS + listed * (facts.items * machine.score + LIST) / cores
    # Of the three baselines, only random lists need a score for each item.
    baseline_seconds = min(listed, facts.rows // 10) * (facts.items * 1.5e-9 + 3 * LIST) / cores
    result.seconds["baselines"] = 3 * HOP_SECONDS + baseline_seconds
    result.seconds["judge and summarise"] = models * (HOP_SECONDS + facts.rows * JUDGE_ROW / cores)
    _add_memory(result, config, machine, params, rank)
    _add_sizes(result, config, machine, params, rank)
    _add_advice(result, config, machine, params)
    return result


def _sweep_seconds(config: Config, facts: LogFacts, machine: Machine, name: str, settings: SparkALSParameters) -> float:
    """Return the seconds of a sweep of the model ``name``, whose trainer is "recsys"."""
    in_blocks = items_per_block(facts.items, settings.rank, config.spark.item_block_mb) is not None
    if facts.rows <= settings.driver_pairs and not in_blocks:
        # How many cores the driver of a cluster has is not known here.
        return facts.rows * machine.pair[name] / (machine.cores if machine.local else 1)
    jobs = 2 + solvers.CG_STEPS
    return jobs * JOB_SECONDS + facts.rows * (machine.pair[name] + jobs * MOVE_ROW) / machine.cores


def _add_memory(result: Plan, config: Config, machine: Machine, params: ParametersByName, rank: int) -> None:
    facts = result.facts
    users, catalogue = (n * rank * 4 / 2**20 for n in (facts.users, facts.items))
    block = max(min(config.recommend.memory_mb / 3, BLOCK_BYTES / 2**20), 64 * BLOCK_PAIRS / 2**20)
    driver_factors, task_factors = _memory_of_item_factors(config, facts, rank)
    # Packed pairs are persisted twice: alone, and with their users' factors.
    persisted = facts.rows * 2 * 8 / 2**20 + users
    live = facts.rows * 2 * 24 / 2**20 + users + catalogue
    need = JVM_MB + persisted
    if any(p.trainer == "mllib" for p in params.values()):
        result.sizes["live heap of MLlib's training, MiB"] = round(live)
        need = JVM_MB + 3 * live
    grown = min(1.1 * machine.heap, GARBAGE_SHARE * machine.heap + GARBAGE_BYTES * facts.rows / 2**20)
    need = min(need, 1.1 * machine.heap) if machine.local else need
    result.memory = {
        "python": PYTHON_MB + driver_factors,
        "jvm": max(need, grown) if machine.local else need,
        "workers": machine.cores * (WORKER_MB + task_factors + 2 * block),
    }
    result.memory["total"] = sum(result.memory.values())
    result.sizes["kept while training, MiB"] = round(persisted)


def _memory_of_item_factors(config: Config, facts: LogFacts, rank: int) -> tuple[float, float]:
    """Return the MiB of item factors, and of sums as large, on the driver and in one task."""
    item_mb = rank * 4 / 2**20
    rows = items_per_block(facts.items, rank, config.spark.item_block_mb)
    if rows is None:
        # Ten: conjugate gradients hold the item factors several times, in float64.
        return 10 * facts.items * item_mb, 3 * facts.items * item_mb
    items_of_user_block = min(facts.items, BLOCK_PAIRS)
    return 2 * rows * item_mb, max(12 * rows, 6 * items_of_user_block) * item_mb


def _add_sizes(result: Plan, config: Config, machine: Machine, params: ParametersByName, rank: int) -> None:
    facts = result.facts
    for name, settings in params.items():
        layout = describe_layout(facts.items, settings.rank, config.spark.item_block_mb)
        result.sizes[f"layout of {name}"] = layout
    mllib = [p for p in params.values() if p.trainer == "mllib"]
    shuffled = facts.rows * 12
    if mllib:
        blocks = max(p.blocks or max(10, machine.cores) for p in mllib)
        sends = min(facts.users * blocks, facts.rows) + min(facts.items * blocks, facts.rows)
        result.sizes |= {
            "MLlib's user and item blocks": blocks,
            "checkpoint directory": config.spark.checkpoint_dir or f"{config.out}/.work",
        }
        shuffled = max(shuffled, sends * rank * 4 * 2)
    tasks = max(machine.cores, facts.rows // BLOCK_PAIRS // MAX_BLOCKS_PER_TASK)
    rows = items_per_block(facts.items, rank, config.spark.item_block_mb)
    sent_factors = (1 + solvers.CG_STEPS) * tasks * facts.items
    if rows is not None:
        user_blocks = max(4 * machine.cores, -(-facts.rows // BLOCK_PAIRS))
        sent_factors = 2 * (1 + solvers.CG_STEPS) * min(facts.rows, user_blocks * facts.items)
    result.sizes |= {
        "shuffle files of training, MiB": round(shuffled / 2**20),
        "sent by the tasks of a sweep, MiB": round(sent_factors * rank * 4 / 2**20),
        "users in a block of top-N": max(
            1, int(min(config.recommend.memory_mb * 2**20 / 3, BLOCK_BYTES) / (4 * (rows or facts.items)))
        ),
        "lists": facts.users if config.recommend.everyone else "of tested users",
    }


def _add_advice(result: Plan, config: Config, machine: Machine, params: ParametersByName) -> None:
    facts = result.facts
    for name, settings in params.items():
        if settings.rank > min(facts.users, facts.items):
            result.refusals.append(
                f"{name}: rank {settings.rank} is more than the number of users or items,"
                f" {min(facts.users, facts.items):,}: lower rank."
            )
        if settings.trainer == "mllib" and settings.checkpoint_every > 25:
            result.notes.append(f"{name}: checkpoint_every above 25 lets the lineage grow: 10 is safe.")
    heap = 0.6 * machine.heap * (1 if machine.local else machine.cores)
    live = result.sizes.get("live heap of MLlib's training, MiB", 0)
    persisted = result.sizes["kept while training, MiB"]
    if live > heap:
        result.refusals.append(
            f"MLlib's training holds {live:,} MiB, but the heap is {machine.heap:,} MiB: raise spark.driver.memory"
            " (local) or the number or spark.executor.memory of executors; lower rank; or use trainer = 'recsys'."
        )
    if persisted > heap:
        result.notes.append(
            f"training keeps {persisted:,} MiB, and {heap:,.0f} fit in memory:"
            " the rest is read from disk in every sweep."
        )
    if 4 * facts.items > config.recommend.memory_mb * 2**20 / 3:
        result.refusals.append(f"one user's scores take {4 * facts.items / 2**20:.0f} MiB: raise recommend.memory_mb.")
    shuffled = result.sizes["shuffle files of training, MiB"]
    if shuffled > 0.9 * machine.free:
        result.refusals.append(f"shuffle files need {shuffled:,} MiB, {machine.free:,} are free: set spark.local.dir.")
    # One task holds all pairs of a user. Only MLlib also brings all pairs of an item together.
    heaviest = [("user", facts.heaviest_user)]
    if any(p.trainer == "mllib" for p in params.values()):
        heaviest.append(("item", facts.heaviest_item))
    for kind, most in heaviest:
        if most > max(1000, 0.05 * facts.rows):
            result.notes.append(
                f"one {kind} has {most:,} of {facts.rows:,} rows, and one task processes all of them."
                f" Check that it is a real {kind}, not a robot or a default value."
            )
    if not machine.local and not config.spark.checkpoint_dir and live:
        result.notes.append("on a cluster set [spark] checkpoint_dir to a disk that all executors share.")
    total = result.memory["total"]
    installed = _installed_memory()
    if total > installed:
        result.refusals.append(
            f"the run needs about {total:,.0f} MiB at the peak and this machine has {installed:,.0f}: use a cluster."
        )


def _installed_memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
