"""Choose the engine and the models for a log by its size, and give the reasons in sentences.

The local engine is faster than Spark for every log that fits into memory, because it moves nothing
between processes (``MEASURED``). It is chosen if its peak memory, estimated from the size of the
log, fits into the free memory. For larger logs the choice is Spark, which writes to disk what does
not fit.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from recsys.config import Config
from recsys.data.hashing import id_bits
from recsys.data.reading.read import estimate_rows, read_items_of_log, scan_log
from recsys.errors import InputError
from recsys.schema import ITEM, TIME, USER

SAMPLE = 20_000_000
"""About the largest number of rows that are read to measure a log. A longer log is extrapolated."""

MEASURED = ((30_000, 4.9, 51.6), (300_000, 2.5, 62.7))
"""(events, seconds on the local engine, seconds on Spark), measured by bench/route.py on two cores."""

BASE_MB = 600.0
"""The memory of a local run for an empty log, in MiB. See :func:`estimate_local_mb`."""
EVENT_BYTES = 300.0
"""The additional peak memory of a local run per event, in bytes."""
USER_BYTES = 1500.0
"""The additional peak memory of a local run per user, in bytes."""
ITEM_BYTES = 600.0
"""The additional peak memory of a local run per item, in bytes.

This number and the three above it were fitted to runs of bench/route.py.
"""

HEADROOM = 0.8
"""Largest share of the free memory that the estimated memory of a local run may take."""

SPARK_MB = 6_000
"""Memory in MiB that Spark on one machine needs with its default settings, for a log of any size.

It is the sum for the heap of the driver, Python, and the Python workers.
"""

DEFAULT_MB = 4_096
"""Assumed free memory in MiB if the operating system does not report it."""

HYBRID_EVENTS = 20_000_000
"""The largest number of events for which a hybrid is proposed.

A hybrid tries several models within a time limit of some minutes. With more events it could try too
few.
"""

DENSE_ITEMS = 12_000
"""The largest number of items for which EASE is proposed.

EASE inverts a dense matrix of items × items. With this number of items it takes seconds, and about
1 GB of memory.
"""


@dataclass(frozen=True)
class LogStatistics:
    """The size of a log, from which the engine and the models are chosen.

    Attributes:
        events: the number of events.
        users: the number of users.
        items: the number of items that have events.
        timed: whether all events have timestamps.
        attributes: the number of columns of the items table besides the id; 0 without such a table.
        sampled: whether the numbers are extrapolated from the first rows.
    """

    events: int
    users: int
    items: int
    timed: bool = True
    attributes: int = 0
    sampled: bool = False


@dataclass(frozen=True)
class Route:
    """The chosen engine and models, with the reasons and the numbers behind the choice.

    Attributes:
        engine: "local" or "spark".
        models: the kinds of models, in the order in which to try them.
        reasons: the reasons for the choice, one sentence each.
        local_mb: the estimated peak memory of a local run, in MiB.
        memory_mb: the free memory, in MiB.
        statistics: the size of the log.
    """

    engine: str
    models: tuple[str, ...]
    reasons: tuple[str, ...]
    local_mb: int
    memory_mb: int
    statistics: LogStatistics

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as a dict: field name -> value. ``statistics`` becomes a dict too."""
        return asdict(self)


def measure_log(config: Config, sample: int = SAMPLE) -> LogStatistics:
    """Count the events, users and items of a log. At most about ``sample`` rows are read.

    A longer log is extrapolated. Its number of events is estimated from the size of its files in
    bytes; a Parquet file declares its number of rows. The numbers of users and items are multiplied
    by the same factor. This gives too many users and items, because ids repeat. So the chosen
    engine is never too small for the log.

    Args:
        config: names the log and the items table, and says how they are read.
        sample: reading stops after the first piece of the log with which this number of rows is
            reached.

    Raises:
        InputError: the log cannot be read, or has no events.
    """
    reading = config.data.reading
    seen: dict[str, set[int]] = {USER: set(), ITEM: set()}
    rows = 0
    timed = True
    cut = False
    for piece in chain.from_iterable(scan_log(file, reading) for file in config.event_files):
        if cut := rows >= sample:
            break
        rows += len(piece)
        timed = timed and TIME in piece
        for column, ids in seen.items():
            ids.update(id_bits(pd.Index(piece[column].dropna().unique())).tolist())
    if not rows:
        raise InputError(f"{config.event_files[0]}: no events in it.")
    scale = 1.0
    if cut:
        scale = max(1.0, sum(estimate_rows(file, reading) for file in config.event_files) / rows)
    events, users, items = (round(n * scale) for n in (rows, len(seen[USER]), len(seen[ITEM])))
    table = read_items_of_log(config.event_files[0], config.data.items, reading)
    features = 0
    # One column of the table is the id, which describes nothing.
    if table is not None:
        features = len(table.columns) - 1
    return LogStatistics(events, users, items, timed, features, cut)


def choose_route(log: LogStatistics, memory_mb: int | None = None) -> Route:
    """Return the engine and the models for a log of this size, with reasons.

    The engine is local if its estimated memory is at most the share :data:`HEADROOM` of the free
    memory.

    Args:
        log: the size of the log.
        memory_mb: the free memory in MiB. None: the memory that this process may use.
    """
    memory = memory_mb
    if memory is None:
        memory = available_mb()
    needed = estimate_local_mb(log)
    fits_locally = needed <= HEADROOM * memory
    extrapolated = ""
    if log.sampled:
        extrapolated = ", extrapolated"
    size = f"{log.events:,} events ({log.users:,} users, {log.items:,} items{extrapolated})"
    need = f"{size} need about {needed:,} MiB locally and {memory:,} MiB are free"
    reasons = []
    if fits_locally:
        reasons.append(f"{need}, so this run stays local; {measured_slowdown()}")
    else:
        reasons.append(
            f"{need}, of which at most {HEADROOM:.0%} are used, so this run goes to Spark, which works in pieces and"
            " spills to disk."
        )
        if memory < SPARK_MB:
            reasons.append(
                f"Spark on this machine alone will be short of memory too (it needs {SPARK_MB:,} MiB by default): set"
                " [spark] driver_memory low, or use a cluster."
            )
        if not shutil.which("java"):
            reasons.append("Spark needs Java, and there is none on this machine: `recsys doctor` says how to get it.")
    chosen, reason = _choose_models(log, fits_locally)
    engine = "spark"
    if fits_locally:
        engine = "local"
    return Route(engine, chosen, (*reasons, reason), needed, memory, log)


def _choose_models(log: LogStatistics, fits_locally: bool) -> tuple[tuple[str, ...], str]:
    """Return the models to try besides the baselines, the most promising first, and the reason."""
    if not fits_locally:
        reason = "Models: als, which Spark trains; users without a history get the items of its fallback."
        return ("als",), reason
    simple, simple_reason = _choose_single_model(log)
    if log.events > HYBRID_EVENTS:
        reason = f"Models: {simple} first, because {simple_reason}; a hybrid would not get far with so many events."
        return (simple, "rp3beta"), reason
    features = ""
    if log.attributes:
        features = f", with and without the {log.attributes} columns of the items table,"
    reason = (
        f"Models: hybrid first, which tries the others{features} on a part of train and keeps what helps, within"
        f" [models.hybrid] minutes; beside it {simple}, because {simple_reason}."
    )
    return ("hybrid", simple), reason


def _choose_single_model(log: LogStatistics) -> tuple[str, str]:
    """Return the kind of the single model that suits a log best, and the reason."""
    if log.items <= DENSE_ITEMS:
        return "ease", f"{log.items:,} items are few enough for its closed form"
    return "als", f"its memory grows with users + items; the matrix of ease would have {log.items:,}² cells"


def estimate_local_mb(log: LogStatistics) -> int:
    """Return the estimated peak memory of a local run, in MiB.

    It is :data:`BASE_MB`, plus a number of bytes per event, user and item.
    """
    size = EVENT_BYTES * log.events + USER_BYTES * log.users + ITEM_BYTES * log.items
    return round(BASE_MB + size / 2**20)


def available_mb() -> int:
    """Return the memory that this process may use, in MiB.

    It is the free memory of the machine. If the container or cgroup of the process has a limit, it
    is at most what is left of this limit. It is :data:`DEFAULT_MB` if the system reports neither.
    """
    free = [int(line.split()[1]) // 1024 for line in _read_lines("/proc/meminfo") if line.startswith("MemAvailable")]
    limits = [
        (int(limit) - int(used)) // 2**20
        for limit, used in (
            (
                "".join(_read_lines(f"/sys/fs/cgroup/{high}")),
                "".join(_read_lines(f"/sys/fs/cgroup/{now}")),
            )
            for high, now in (
                ("memory.max", "memory.current"),
                ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
            )
        )
        if limit.isdigit() and used.isdigit()
    ]
    return min([*free, *limits], default=DEFAULT_MB)


def measured_slowdown() -> str:
    """Return a sentence that says how much slower Spark was than the local engine on one machine."""
    slowdowns = [f"{spark / local:.0f}x slower at {events:,} events" for events, local, spark in MEASURED]
    return f"Spark was {' and '.join(slowdowns)} (two cores, bench/RESULTS.md)."


def _read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
