"""A cache of compiled kernels that all clones of the repository on a machine share, and the notice that
kernels are compiled.

Numba names the folder of compiled functions after the path of their source file. So each fresh
clone compiles all kernels again, which takes minutes. ``ByContent`` names the folder after the
content of the sources instead. It is used if two environment variables are set, as they are in the
tests:

    NUMBA_CACHE_DIR=$HOME/.cache/recsys/numba
    NUMBA_CACHE_LOCATOR_CLASSES=recsys.kernel_cache.ByContent
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba.core import event as numba_event
from numba.core.caching import UserProvidedCacheLocator
from numba.core.dispatcher import Dispatcher

NOTICE = "Compiling kernels: the first time on this machine this can take a minute or two."

SILENT_SECONDS = 1.0
"""Compiling that takes less than this number of seconds in all is not worth a notice."""


class ByContent(UserProvidedCacheLocator):
    """Stores compiled functions in a folder that is named after the content of all their sources.

    These sources are the file of the function and the files of the compiled functions that it may
    call. Numba itself checks only the function's own file. So a kernel that calls kernels of
    another module would keep their old code when that module changes.
    """

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        super().__init__(function, source)
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
    """Reports once that kernels are compiled, when that has taken ``SILENT_SECONDS``.

    Numba tells a listener of every compilation, and of no kernel that its cache has. A kernel that
    calls others is compiled around them.
    """

    def __init__(self, report: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._depth = 0
        self._start = 0.0
        self._seconds = 0.0
        self._is_reported = False

    def on_start(self, event: numba_event.Event) -> None:
        """Report the notice if the compilations before this one have taken long enough."""
        now = self._clock()
        if self._depth == 0:
            self._start = now
        self._depth += 1
        if not self._is_reported and self._seconds + now - self._start >= SILENT_SECONDS:
            self._is_reported = True
            self._report(NOTICE)

    def on_end(self, event: numba_event.Event) -> None:
        """Add the time of the compilation that has ended."""
        self._depth -= 1
        if self._depth == 0:
            self._seconds += self._clock() - self._start


@contextmanager
def compilation_reported(report: Callable[[str], object]) -> Iterator[None]:
    """Call ``report`` with a notice, once, if kernels are compiled in the block for a second or more."""
    with numba_event.install_listener("numba:compile", CompilationNotice(report)):
        yield
