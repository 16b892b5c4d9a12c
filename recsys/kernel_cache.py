"""A cache of compiled kernels that all clones of the repository on a machine share.

Numba names the folder of compiled functions after the path of their source file. So each fresh
clone compiles all kernels again, which takes minutes. ``ByContent`` names the folder after the
content of the sources instead. It is used if two environment variables are set, as they are in the
tests:

    NUMBA_CACHE_DIR=$HOME/.cache/recsys/numba
    NUMBA_CACHE_LOCATOR_CLASSES=recsys.kernel_cache.ByContent
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba.core.caching import UserProvidedCacheLocator
from numba.core.dispatcher import Dispatcher


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
