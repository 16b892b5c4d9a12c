"""Which path and which models for a log: decided from its size, and said in a sentence.

The local path is the faster one wherever it fits into memory: it moves nothing between processes (``MEASURED``). So it
is taken while its peak, estimated from the log's size, stays below the memory there is; beyond it Spark, which spills.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from recsys.config import Config
from recsys.data.hashing import id_bits
from recsys.data.reading.read import estimate_rows, read_items_of_log, scan_log
from recsys.errors import InputError
from recsys.schema import ITEM, TIME, USER

SAMPLE = 20_000_000
"""Rows that are looked at; of a longer log the rest is extrapolated by its bytes."""

MEASURED = ((30_000, 4.9, 51.6), (300_000, 2.5, 62.7))
"""(events, seconds on the local path, seconds on Spark) of a machine with two cores: bench/route.py."""

BASE_MB, EVENT_BYTES, USER_BYTES, ITEM_BYTES = 600.0, 300.0, 1500.0, 600.0
"""Peak memory of the local path: this much anyway, and for each event, user and item. Fitted by bench/route.py."""

HEADROOM = 0.8
"""Share of the memory that an estimate may fill."""

SPARK_MB = 6_000
"""What Spark on one machine needs with its default settings, whatever the log: driver heap, Python and its workers."""

DEFAULT_MB = 4_096
"""Taken for the memory there is where the system does not tell."""

FEW = 50
"""Events a user below which content has much to add, where there is any."""

DENSE_ITEMS = 12_000
"""Items up to which an items × items matrix (EASE) is a matter of seconds and of a gigabyte."""


@dataclass(frozen=True)
class LogStatistics:
    """What a path is chosen from. ``attributes``: columns of the items table. ``sampled``: partly extrapolated."""

    events: int
    users: int
    items: int
    timed: bool = True
    attributes: int = 0
    sampled: bool = False


@dataclass(frozen=True)
class Route:
    """``engine``, ``models`` in the order to try them, ``why`` in sentences, and the figures behind it."""

    engine: str
    models: tuple[str, ...]
    why: tuple[str, ...]
    estimate_local_mb: int
    memory_mb: int
    measure_log: LogStatistics

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


def measure_log(config: Config, sample: int = SAMPLE) -> LogStatistics:
    """Count events, users and items in one pass over the log, or over its first ``sample`` rows.

    Of a longer log, events are extrapolated by bytes (Parquet says how many rows it has) and users and items in
    proportion: at most so many, for a log repeats its ids, and too many is the safe side.

    Raises:
        InputError: a log that cannot be read, or without events.
    """
    seen: dict[str, set[int]] = {USER: set(), ITEM: set()}
    rows, timed, cut = 0, True, False
    for piece in scan_log(config.data.events, config.data.reading):
        if cut := rows >= sample:
            break
        rows, timed = rows + len(piece), timed and TIME in piece
        for column, ids in seen.items():
            ids.update(id_bits(pd.Index(piece[column].dropna().unique())).tolist())
    if not rows:
        raise InputError(f"{config.data.events}: no events in it.")
    more = max(1.0, estimate_rows(config.data.events, config.data.reading) / rows) if cut else 1.0
    events, users, items = (round(n * more) for n in (rows, len(seen[USER]), len(seen[ITEM])))
    table = read_items_of_log(config.data.events, config.data.items, config.data.reading)
    return LogStatistics(events, users, items, timed, 0 if table is None else len(table.columns) - 1, cut)


def choose_route(found: LogStatistics, memory_mb: int | None = None) -> Route:
    """Choose a path and models for a log of this size; ``memory_mb``: default, what this process may use."""
    memory = available_mb() if memory_mb is None else memory_mb
    needed = estimate_local_mb(found)
    fits = needed <= HEADROOM * memory
    size = f"{found.events:,} events of {found.users:,} users on {found.items:,} items" + (
        " (extrapolated)" if found.sampled else ""
    )
    if fits:
        why = [
            f"{size} need about {needed:,} MiB on the local path; {memory:,} MiB are there. Where it fits it is the"
            f" faster one: {measured_slowdown()}"
        ]
    else:
        why = [
            f"{size} need about {needed:,} MiB on the local path, more than {HEADROOM:.0%} of the {memory:,} MiB"
            " there are: Spark works in pieces and spills to disk."
        ]
        if memory < SPARK_MB:
            why.append(
                f"On this machine alone Spark will be short of memory too (it likes {SPARK_MB:,} MiB): set"
                " [spark] driver_memory low, or use a cluster."
            )
        if not shutil.which("java"):
            why.append("There is no Java here, which Spark needs: `recsys doctor` says how to get it.")
    chosen, reason = _models(found, fits)
    return Route("local" if fits else "spark", chosen, (*why, reason), needed, memory, found)


def _models(found: LogStatistics, fits: bool) -> tuple[tuple[str, ...], str]:
    """Return the models to try, best guess first, and why; ``popular`` and ``recent`` stand in every run anyway."""
    if not fits:
        return (
            "als",
        ), "Models: als, the one that is trained on Spark; its fallback answers for users without history."
    each = found.events / max(found.users, 1)
    if found.attributes and each < FEW:
        return ("hybrid", "als"), (
            f"Models: hybrid first, for {each:.0f} events a user are few and the items table has"
            f" {found.attributes} columns to learn from; per user it chooses itself who speaks (`source` in its lists)."
        )
    if found.items <= DENSE_ITEMS:
        return ("ease", "als"), f"Models: ease first, for {found.items:,} items are few enough for its closed form."
    return (
        "als",
        "rp3beta",
    ), f"Models: als first, for its memory grows with users + items; ease would need {found.items:,}²."


def estimate_local_mb(found: LogStatistics) -> int:
    """Return the estimated peak memory of a local run in MiB."""
    size = EVENT_BYTES * found.events + USER_BYTES * found.users + ITEM_BYTES * found.items
    return round(BASE_MB + size / 2**20)


def available_mb() -> int:
    """Return the MiB that this process may use: what is free, or what its control group still allows, if less."""
    free = [int(line.split()[1]) // 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")]
    limits = [
        (int(limit) - int(used)) // 2**20
        for limit, used in (
            ("".join(_lines(f"/sys/fs/cgroup/{high}")), "".join(_lines(f"/sys/fs/cgroup/{now}")))
            for high, now in (
                ("memory.max", "memory.current"),
                ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
            )
        )
        if limit.isdigit() and used.isdigit()
    ]
    return min([*free, *limits], default=DEFAULT_MB)


def measured_slowdown() -> str:
    """Return what was measured of both paths on one machine, as the end of a sentence."""
    each = [f"{spark / local:.0f} times as long at {events:,} events" for events, local, spark in MEASURED]
    return f"Spark took {' and '.join(each)} on two cores (bench/RESULTS.md)."


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
