"""The log of the package: the sizes and the seconds of each phase, in the logger ``recsys``.

INFO has one line per phase, DEBUG one per step of an iterative fit. Nothing is printed unless the
caller configures the standard library's logging::

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
    """Log the name, the sizes and the duration of a block, at level INFO.

    A line reads ``als: train factors (users 900, items 300, rank 64): 1.23 s``. Nothing is logged
    if the block raises an error.

    Args:
        phase: the name of the phase, for example ``als: train factors``.
        sizes: name -> a number, in the order of the line.
    """
    start = time.perf_counter()
    yield
    described = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    logger.info("%s (%s): %.2f s", phase, described, time.perf_counter() - start)
