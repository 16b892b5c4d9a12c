"""A cache of compiled kernels that all clones of the repository on a machine share, and the notice that
kernels are compiled.

Numba names the folder of compiled functions after the path of their source file. So each fresh
clone compiles all kernels again, which takes minutes. ``ByContent`` names the folder after the
content of the sources instead. It is used if two environment variables are set, as they are in the
tests:

    NUMBA_CACHE_DIR=$HOME/.cache/recsys/numba
    NUMBA_CACHE_LOCATOR_CLASSES=recsys.kernel_cache.ByContent

Processes that need the same kernel at the same moment would each compile it, and a process that
writes to the index of a function could lose what another one has just added. So ``ByContent`` also
makes Numba hold a lock while it compiles a function: the other processes wait, and load what the
first one has compiled.
"""

from __future__ import annotations

import fcntl
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba.core import dispatcher
from numba.core import event as numba_event
from numba.core.caching import FunctionCache, UserProvidedCacheLocator
from numba.core.dispatcher import Dispatcher

NOTICE = "Compiling kernels: the first time on this machine this can take a minute or two."
"""What the user reads while kernels are compiled."""

SILENT_SECONDS = 1.0
"""The notice is given only after compilation took this number of seconds in total."""


class ByContent(UserProvidedCacheLocator):
    """Names the folder of compiled functions after the content of all their sources, for Numba.

    These sources are the file of the function, and the files of the compiled functions that it may
    call. Numba itself checks only the function's own file. So a kernel that calls kernels of
    another module would keep their old code when that module changes.
    """

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        super().__init__(function, source)
        _compile_once()
        digest = sha256()
        for path in sorted(_sources(function), key=lambda path: path.name):
            digest.update(_digest(path))
        self._cache_path = str(Path(self._cache_path).with_name(f"{Path(source).stem}-{digest.hexdigest()[:16]}"))


def _sources(function: Callable[..., Any]) -> set[Path]:
    """Return the source file of a function, and the files of all compiled functions it may call.

    Those are the compiled functions that its module imports, directly or through another such
    module.
    """
    sources: set[Path] = set()
    functions = [function]
    while functions:
        current = functions.pop()
        path = Path(inspect.getfile(current))
        if path in sources:
            continue
        sources.add(path)
        named = current.__globals__.values()
        functions += [value.py_func for value in named if isinstance(value, Dispatcher)]
    return sources


@cache
def _digest(path: Path) -> bytes:
    return sha256(path.read_bytes()).digest()


class CompilationNotice(numba_event.Listener):
    """A listener of Numba that reports once that kernels are compiled, after ``SILENT_SECONDS``.

    Numba calls a listener for every compilation. It does not call it for a kernel that is loaded
    from the cache. The compilation of a kernel includes that of the kernels that it calls.

    Args:
        report: called with :data:`NOTICE`, at most once.
        clock: returns the time in seconds.
    """

    def __init__(self, report: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._depth = 0
        self._start = 0.0
        self._seconds = 0.0
        self._is_reported = False

    def on_start(self, event: numba_event.Event) -> None:
        """Call ``report`` if kernels were compiled for ``SILENT_SECONDS`` before this
        compilation starts.
        """
        now = self._clock()
        if self._depth == 0:
            self._start = now
        self._depth += 1
        if not self._is_reported and self._seconds + now - self._start >= SILENT_SECONDS:
            self._is_reported = True
            self._report(NOTICE)

    def on_end(self, event: numba_event.Event) -> None:
        """Add the seconds of the compilation that has ended."""
        self._depth -= 1
        if self._depth == 0:
            self._seconds += self._clock() - self._start


@contextmanager
def compilation_reported(report: Callable[[str], object]) -> Iterator[None]:
    """Call ``report`` once with a notice if compiling kernels takes a second or more in the block.

    The time is checked each time when a further compilation starts.
    """
    with numba_event.install_listener("numba:compile", CompilationNotice(report)):
        yield


class CompiledOnce(FunctionCache):  # type: ignore[misc]
    """The compiled versions of one function on disk. A lock keeps two processes from compiling the
    same one.

    The lock is held from a failed search in the cache until the compiled function is saved. A
    function waits only for the functions that it calls, and these never wait for it. So no two
    processes wait for each other. The operating system releases the lock when the process ends.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._lock: int | None = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function from the cache. If it is not there, take the lock and return
        None.

        The lock is then held until :meth:`save_overload`. If another process holds it, this one
        waits.

        Args:
            sig: the types of the arguments, as Numba passes them.
            target_context: the compilation target, as Numba passes it.
        """
        compiled = super().load_overload(sig, target_context)
        if compiled is not None or self._lock is not None:
            return compiled
        self._impl.locator.ensure_cache_path()
        self._lock = os.open(Path(self.cache_path, f"{self._impl.filename_base}.lock"), os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Another process may have compiled it while this one waited.
        compiled = super().load_overload(sig, target_context)
        if compiled is not None:
            self.release()
        return compiled

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save the compiled function in the cache, and release the lock.

        Args:
            sig: the types of the arguments, as Numba passes them.
            data: the compiled function.
        """
        try:
            super().save_overload(sig, data)
        finally:
            self.release()

    def release(self) -> None:
        """Release the lock. Nothing happens if it is not held."""
        if self._lock is not None:
            # A fork of this process has the same lock, and would keep it.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None


class _ReleaseAfterFailure(numba_event.Listener):  # type: ignore[misc]
    """Releases the lock of a function that cannot be compiled, which is never saved."""

    def on_start(self, event: Any) -> None:
        pass

    def on_end(self, event: Any) -> None:
        cache = getattr(event.data["dispatcher"], "_cache", None)
        # ``event.is_failed`` is true of what did not fail (Numba 0.68).
        if sys.exc_info()[0] and isinstance(cache, CompiledOnce):
            cache.release()


@cache
def _compile_once() -> None:
    """Make Numba use the lock for all functions that are decorated from now on."""
    vars(dispatcher)["FunctionCache"] = CompiledOnce
    numba_event.register("numba:compile", _ReleaseAfterFailure())
