"""The log of the package: the sizes and the seconds of each phase, under the name ``recsys`` of the standard library.

INFO has one line per phase, DEBUG one per step of an iterative fit. Nothing is printed unless the
caller asks for it::

    import logging

    logging.basicConfig(level=logging.INFO)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("recsys")
logger.addHandler(logging.NullHandler())


@contextmanager
def log_phase(phase: str, **sizes: int) -> Iterator[None]:
    """Log the seconds of the block when it ends, with the sizes of what it works on; a block that raises logs nothing.

    A line reads ``als: train factors (users 900, items 300, rank 64): 1.23 s``.
    """
    start = time.perf_counter()
    yield
    described = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    logger.info("%s (%s): %.2f s", phase, described, time.perf_counter() - start)
