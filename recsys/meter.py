"""Measure the seconds and the peak memory of each step (*hop*) of a run.

Memory is reported for three roles: this Python process, Java virtual machines (JVM), and the Python
workers of Spark. It is resident memory (RSS), which is read from ``/proc`` at regular intervals for
this process and all its descendants. Pages that forked workers share are counted once per worker. A
process that has just been forked, such as a JVM that is about to run a command, is still a copy of
its parent and is not counted. Without ``/proc``, the only number is the largest memory of this
process so far.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from recsys.hop_log import HopLog
from recsys.logging import logger, running_step

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
FORKED = 0.01
"""Largest relative difference between the address spaces of a process that was just forked and of
its parent.

A child process with a difference of at most this share counts as a copy of its parent.
"""


class Meter:
    """A meter of the seconds and the memory of the steps (*hops*) of a run.

    Use it as ``with Meter() as meter:``, and inside it ``with meter.hop("fit"):`` for each step.

    Args:
        interval: the number of seconds between two readings of the memory.
        log: the file to which each hop is added when it ends, also one that raises an error. None:
            no such file.

    Attributes:
        hops: one ``{"name", "seconds", "peak_mb": {role: MiB, …, "total": MiB}}`` per hop, in the
            order in which hops end. The roles are those of :func:`memory_mb`. The total is the peak
            of the sum, not the sum of the peaks.
        further_costs: a function that an engine sets to measure more of each hop. It is called with
            the name of the hop and returns a context manager, inside which the hop runs. ``with …
            as`` of this context manager gives a dict. When the hop ends, the entries of this dict
            are added to those of the hop.
    """

    def __init__(self, interval: float = 0.2, log: HopLog | None = None) -> None:
        self.hops: list[dict[str, Any]] = []
        self.further_costs: Callable[[str], AbstractContextManager[dict[str, Any]]] = _no_further_costs
        self._log = log
        self._interval = interval
        self._peak: dict[str, float] = {}
        self._unrelated: set[int] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="recsys-meter", daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def hop(self, name: str) -> Iterator[None]:
        """Measure the block as one hop, and add it to :attr:`hops`.

        A block that raises an error is not added.
        """
        with running_step(name):
            with self._lock:
                self._peak = {}
            start = time.perf_counter()
            self._sample()
            try:
                with self.further_costs(name) as further:
                    yield
                    seconds = time.perf_counter() - start
            except BaseException as error:
                if self._log is not None:
                    self._log.add(self._entry(name, time.perf_counter() - start) | {"error": describe_error(error)})
                raise
            hop = self._entry(name, seconds) | further
            logger.info("%s", describe_hop(hop))
            self.hops.append(hop)
            if self._log is not None:
                self._log.add(hop)

    def _entry(self, name: str, seconds: float) -> dict[str, Any]:
        """Return the entry of a hop that has just ended."""
        self._sample()
        with self._lock:
            peak = {role: round(mb, 1) for role, mb in self._peak.items()}
        return {"name": name, "seconds": round(seconds, 3), "peak_mb": peak}

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            now = memory_mb(self._unrelated)
            for role, mb in now.items():
                self._peak[role] = max(mb, self._peak.get(role, 0.0))


def _no_further_costs(name: str) -> AbstractContextManager[dict[str, Any]]:
    return nullcontext({})


def describe_error(error: BaseException) -> str:
    """Return the class and the first line of the message of an error, as ``InputError: no events``."""
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}"


def describe_hop(hop: dict[str, Any]) -> str:
    """Return the entry of a hop as one line for the log.

    On Spark a line reads ``fit als: 12.30 s, peak 2,345 MiB; Spark: 340 tasks, 1,000,000 rows read,
    0 MiB spilled, slowest task 2.1 s``. Tasks that failed, ran again or were ended early are named
    after that, if there are any.
    """
    line = f"{hop['name']}: {hop['seconds']:.2f} s, peak {hop['peak_mb']['total']:,.0f} MiB"
    spark = hop.get("spark")
    if not spark or not spark["tasks"]:
        return line
    line += (
        f"; Spark: {spark['tasks']:,} tasks, {spark['rows_read']:,} rows read, {spark['spilled_mb']:,.0f} MiB"
        f" spilled, slowest task {spark['slowest_task_seconds']:.1f} s"
    )
    for key in ("failed_tasks", "retried_stages", "killed_tasks"):
        if spark[key]:
            line += f", {spark[key]:,} {key.replace('_', ' ')}"
    return line


def _is_java(pid: int, processes: dict[int, tuple[int, str]]) -> bool:
    return processes.get(pid, (0, ""))[1] == "java"


def memory_mb(unrelated: set[int] | None = None) -> dict[str, float]:
    """Return the resident memory in MiB at this moment, as a dict: role -> MiB.

    The roles are ``python`` (this process), ``jvm`` (Java), ``workers`` (all other descendants),
    and ``total``. A role without a process is missing. Without ``/proc``, the roles are ``python``
    and ``total``, and the number is the largest memory of this process so far.

    Args:
        unrelated: ids of running processes that do not descend from this one. These processes are
            not read again, because no process becomes a descendant later. The function updates the
            set, so the next call with the same set is much faster. None: all processes are read.
    """
    if not _PROC.is_dir():
        # macOS reports bytes, other systems without /proc report KiB.
        unit = 2**10
        if sys.platform == "darwin":
            unit = 2**20
        mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return {"python": mb, "total": mb}
    if unrelated is None:
        unrelated = set()
    running = {int(name) for name in os.listdir(_PROC) if name.isdigit()}
    unrelated.intersection_update(running)
    processes = dict(_read_processes(running - unrelated))
    me = os.getpid()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    parent = processes.get(me, (0, ""))[0]
    # Under spark-submit, the JVM is the parent of this process.
    root = me
    if _is_java(parent, processes):
        root = parent
    unrelated.update(processes)
    used: dict[str, float] = {}
    todo = [(root, 0)]
    while todo:
        pid, above = todo.pop()
        unrelated.discard(pid)
        size, resident = _pages(pid)
        todo += [(child, size) for child in children.get(pid, [])]
        if abs(size - above) <= FORKED * above:
            continue
        if pid == me:
            role = "python"
        elif _is_java(pid, processes):
            role = "jvm"
        else:
            role = "workers"
        used[role] = used.get(role, 0.0) + resident * _PAGE / 2**20
    used["total"] = sum(used.values())
    return used


def _read_processes(pids: set[int]) -> Iterator[tuple[int, tuple[int, str]]]:
    """Yield (pid, (pid of the parent, name of the command)) of each process that still runs."""
    for pid in pids:
        try:
            stat = (_PROC / str(pid) / "stat").read_text()
        except (OSError, UnicodeDecodeError):
            # The process ended after it was listed.
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        yield pid, (int(rest.split()[1]), name)


def _pages(pid: int) -> tuple[int, int]:
    """Return the number of pages in a process's address space, and how many of them are in memory."""
    try:
        size, resident = (_PROC / str(pid) / "statm").read_text().split()[:2]
    except (OSError, ValueError):
        # The process ended after it was listed.
        return 0, 0
    return int(size), int(resident)
