"""The log of the package: the sizes and the seconds of each phase, in the logger ``recsys``.

INFO has one line per phase that has ended. DEBUG has one line per step of an iterative fit, and names
the step that runs: ``fit als …``. Nothing is printed unless the
caller configures the standard library's logging::

    import logging
    logging.basicConfig(level=logging.INFO)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("recsys")
logger.addHandler(logging.NullHandler())

_running: ContextVar[str] = ContextVar("running", default="")
"""The name of the innermost step that runs, "" if there is none."""


@contextmanager
def running_step(name: str) -> Iterator[None]:
    """Log at level DEBUG that a step runs. After the block, log that the enclosing step runs again.

    So the latest line always names the step that runs now. A line reads ``fit als …``. After the
    block of an outermost step, nothing is logged.

    Args:
        name: the name of the step, for example ``fit als``.
    """
    enclosing = _running.get()
    token = _running.set(name)
    logger.debug("%s …", name)
    try:
        yield
    finally:
        _running.reset(token)
        if enclosing:
            logger.debug("%s …", enclosing)


@contextmanager
def log_phase(phase: str, **sizes: int) -> Iterator[None]:
    """Log the name, the sizes and the duration of a block, at level INFO.

    A line reads ``als: train factors (users 900, items 300, rank 64): 1.23 s``. It is missing if
    the block raises an error. While the block runs, it is the :func:`running_step`.

    Args:
        phase: the name of the phase, for example ``als: train factors``.
        sizes: name -> a number, in the order of the line.
    """
    described = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    with running_step(f"{phase} ({described})"):
        start = time.perf_counter()
        yield
        logger.info("%s (%s): %.2f s", phase, described, time.perf_counter() - start)
