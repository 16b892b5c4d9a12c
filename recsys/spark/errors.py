"""What a Spark job can die of that is no bug: a full disk, missing rights, too little memory. Said in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from recsys.errors import ConfigError, RecsysError, RunFolderError

SPACE = ("No space left on device", "Disk quota exceeded", "File too large")
RIGHTS = ("Permission denied", "Read-only file system", "Mkdirs failed")
MEMORY = ("OutOfMemoryError", "GC overhead limit", "Cannot allocate memory")
LOST = (
    "ExecutorLostFailure",
    "All masters are unresponsive",
    "Master removed our application",
    "SparkContext was shut",
)


@contextmanager
def told(out: str) -> Iterator[None]:
    """Turn a failure of Spark whose cause is known into an error that says what to do; others pass as they are.

    Raises:
        RunFolderError: the disk is full, or may not be written. ConfigError: too little memory, or executors lost.
    """
    try:
        yield
    except (PySparkException, Py4JError) as error:
        known = explain(str(error), out)
        if known is None:
            raise
        raise known from error


def explain(text: str, out: str) -> RecsysError | None:
    """Return the error of a stack trace, by the first cause that it names, or None.

    >>> print(explain("java.io.IOException: No space left on device", "a"))
    a: writing the run failed: No space left on device. Free some space, or choose another `out` or spark.local.dir.
    """
    for causes, make in (
        (SPACE, _space),
        (RIGHTS, _rights),
        (MEMORY, _memory),
        (LOST, _lost),
    ):
        for cause in causes:
            if cause in text:
                return make(cause, out)
    return None


def _space(cause: str, out: str) -> RecsysError:
    return RunFolderError(
        f"{out}: writing the run failed: {cause}. Free some space, or choose another `out` or spark.local.dir."
    )


def _rights(cause: str, out: str) -> RecsysError:
    return RunFolderError(f"{out}: writing the run failed: {cause}. The executors' user must be able to write there.")


def _memory(cause: str, out: str) -> RecsysError:
    return ConfigError(
        f"{out}: {cause}. Raise [spark] driver_memory on a local master, or spark.executor.memory and"
        " spark.executor.memoryOverhead on a cluster; or lower recommend.memory_mb. `recsys plan CONFIG` says how much."
    )


def _lost(cause: str, out: str) -> RecsysError:
    return ConfigError(
        f"{out}: {cause}: Spark gave up after losing executors. Their logs say why; memory is the usual reason,"
        " which spark.executor.memoryOverhead raises."
    )
