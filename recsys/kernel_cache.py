"""Keeps compiled kernels by the content of their sources, so that the clones on a machine share
them.

Numba names the folder of compiled functions after the path of their source file, so each fresh
clone compiles all kernels again, which takes minutes. ``ByContent`` names the folder after the
content of the sources. It is used where two environment variables say so, as they do in the tests:

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
    """Locates compiled functions in a folder named after their source files and the files of their
    callees.

    Numba itself compares only the function's own source file with the one it compiled. A kernel
    that calls kernels of another module would keep the old code of its callees when that module
    changes.
    """

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        super().__init__(function, source)
        digest = sha256()
        for path in sorted(_sources(function), key=lambda path: path.name):
            digest.update(_digest(path))
        self._cache_path = str(Path(self._cache_path).with_name(f"{Path(source).stem}-{digest.hexdigest()[:16]}"))


def _sources(function: Callable[..., Any]) -> set[Path]:
    """Return the source file of a function and those of the compiled functions its module imports,
    at any depth.
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
