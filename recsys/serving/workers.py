"""Several server processes behind one listening socket, and the parent that keeps them running.

Each worker is a whole server that accepts connections from the same socket, so the kernel gives each
new connection to a worker that is free. The parent opens no bundle. It starts a worker again when one
has died, hands SIGHUP on to all, and ends all of them at SIGINT and SIGTERM. Workers share the mapped
factors of a bundle (:func:`recsys.array_files.read_npy`) and the store.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from recsys.errors import RecsysError
from recsys.logging import logger

RESTART_SECONDS = 1.0
"""The shortest time between two starts of one worker."""

Work = Callable[[socket.socket, int, Callable[[], object]], object]
"""What a worker does until it ends: (listening socket, number of the worker, what to call when it listens)."""


class Workers:
    """Worker processes, numbered from 1.

    Args:
        work: what each worker does. It and the socket are sent to new processes, so it must be picklable.
        listener: the socket.
        count: the number of workers.
        report_worker: called with (number, process id) when a worker listens.
    """

    def __init__(
        self, work: Work, listener: socket.socket, count: int, report_worker: Callable[[int, int], object]
    ) -> None:
        self._work = work
        self._listener = listener
        self._numbers = range(1, count + 1)
        self._report_worker = report_worker
        # A fork of a process that has used compiled threads may not use them.
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, BaseProcess] = {}
        self._started: dict[int, float] = {}
        self._ready: dict[int, Any] = {}
        self._should_end = False

    def run(self, report_start: Callable[[], object]) -> int:
        """Run until SIGINT or SIGTERM, and return the exit code.

        Workers are started one after the other. If one of them ends before it listens, for example
        because a bundle is not whole, all are ended, and the exit code of that worker is returned
        (1 in place of 0). Otherwise the code is 0. A worker that dies later is started again.

        Args:
            report_start: called when all workers listen.
        """
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, self._end)
        signal.signal(signal.SIGHUP, self._reload)
        try:
            for number in self._numbers:
                self._start(number)
                # One after the other: the first one makes the tables of a new store, and if it cannot
                # start, its message is printed once.
                if not self._wait_until_ready(number):
                    return 0 if self._should_end else self._processes[number].exitcode or 1
            report_start()
            while not self._should_end:
                self._restart_dead()
        finally:
            self._end_all()
        return 0

    def _start(self, number: int) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_run_worker, args=(self._work, self._listener, number, sender), name=f"worker {number}"
        )
        process.start()
        sender.close()
        self._processes[number] = process
        self._started[number] = time.monotonic()
        self._ready[number] = receiver

    def _wait_until_ready(self, number: int) -> bool:
        """Return whether a worker came to listen, which is False if it ended before."""
        while not self._should_end:
            if self._ready[number].poll(0.1):
                return self._report_if_ready(number)
        return False

    def _report_if_ready(self, number: int) -> bool:
        """Read what a worker says when it listens. It says nothing if it ended before."""
        report = self._ready.pop(number)
        try:
            report.recv()
        except EOFError:
            self._processes[number].join()
            return False
        finally:
            report.close()
        self._report_worker(number, self._processes[number].pid or 0)
        return True

    def _restart_dead(self) -> None:
        """Wait a moment for a worker to begin or to end, and start a worker again that has ended."""
        sentinels = [process.sentinel for process in self._processes.values()]
        # Signals are handled between two calls.
        connection.wait([*sentinels, *self._ready.values()], timeout=0.2)
        for number, report in list(self._ready.items()):
            if report.poll():
                self._report_if_ready(number)
        for number, process in list(self._processes.items()):
            if self._should_end or process.is_alive():
                continue
            if time.monotonic() - self._started[number] < RESTART_SECONDS:
                time.sleep(0.1)
                continue
            logger.error("worker %d ended with code %s: it is started again", number, process.exitcode)
            if number in self._ready:
                self._ready.pop(number).close()
            process.close()
            self._start(number)

    def _reload(self, number: int, frame: FrameType | None) -> None:
        for worker, process in self._processes.items():
            # A worker that does not listen yet reads the newest bundle anyway.
            if worker not in self._ready and process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._should_end = True

    def _end_all(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join()


def _run_worker(work: Work, listener: socket.socket, number: int, sender: connection.Connection) -> None:
    """Run one worker, and end the process with its exit code."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Ctrl-C reaches the parent too, which then ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def report_start() -> None:
        end_with_parent()
        sender.send(number)
        sender.close()

    try:
        work(listener, number, report_start)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def end_with_parent() -> None:
    """End this worker, with the answers that it owes, when its parent has died. Called in the event loop."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(parent.sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(parent.sentinel, end)
