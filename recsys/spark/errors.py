"""Explain failures of Spark that are not bugs: a full disk, missing rights, too little memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from recsys.errors import ConfigError, InputError, RecsysError, RunFolderError

SPACE = ("No space left on device", "Disk quota exceeded", "File too large")
RIGHTS = ("Permission denied", "Read-only file system", "Mkdirs failed")
MEMORY = ("OutOfMemoryError", "GC overhead limit", "Cannot allocate memory")
UNREADABLE = re.compile(r"\[FAILED_READ_FILE[.\w]*\] Encountered error while reading file (?:file:(?://)?)?(.+?)\. ")
"""Pattern of the message in which Spark names a file that it could not read."""

LOST = (
    "ExecutorLostFailure",
    "All masters are unresponsive",
    "Master removed our application",
    "SparkContext was shut",
)


@contextmanager
def spark_errors_explained(out: str) -> Iterator[None]:
    """Convert a failure of Spark in a ``with`` block into an error that says what to do.

    A failure whose cause this module does not recognise is raised unchanged.

    Args:
        out: the folder or table that is being written, for the message.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be written.
        InputError: a file cannot be read.
        ConfigError: there is too little memory, or executors are lost.
    """
    try:
        yield
    except (PySparkException, Py4JError) as error:
        explained = explain_spark_error(str(error), out)
        if explained is None:
            raise
        raise explained from error


def explain_spark_error(text: str, out: str) -> RecsysError | None:
    """Find a known cause in the text of a failure of Spark, and return an error that explains it.

    The result is None if the text has no cause that this module recognises.

    Args:
        text: the message of the failure.
        out: the folder or table that was being written, for the new message.

    >>> print(explain_spark_error("No space left on device", "a"))  # doctest: +NORMALIZE_WHITESPACE
    a: writing the run failed: No space left on device. Free some space, or choose another `out` or
    spark.local.dir.
    """
    if match := UNREADABLE.search(text):
        return InputError(
            f"{match[1]}: Spark cannot read this file: it is damaged, or not what its name says. Write it again, or"
            " leave it out."
        )
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
    return RunFolderError(f"{out}: writing the run failed: {cause}. Let the user that runs the executors write there.")


def _memory(cause: str, out: str) -> RecsysError:
    return ConfigError(
        f"{out}: {cause}. Raise [spark] driver_memory on a local master, or spark.executor.memory and"
        " spark.executor.memoryOverhead on a cluster; or lower recommend.memory_mb. `recsys plan CONFIG` estimates"
        " what is needed."
    )


def _lost(cause: str, out: str) -> RecsysError:
    return ConfigError(
        f"{out}: {cause}: Spark gave up after losing executors. Their logs name the cause; if it is memory, raise"
        " spark.executor.memoryOverhead."
    )
