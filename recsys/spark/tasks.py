"""What a task on an executor does before its work."""

from __future__ import annotations

import gc
import os
from functools import cache
from typing import Any

from pyspark import TaskContext


def prepare_task(kernels: bool = True) -> None:
    """Prepare the process for a task: limit kernels to one thread, and speed up garbage collection.

    Spark runs one task per core, so kernels may use one thread only.

    After each task pyspark runs the garbage collector over all objects of the process. With the
    modules of recsys these are more than 100,000, and this takes longer than a small task. So the
    objects that exist before the work are excluded from garbage collection until the process ends.
    Outside of a task no objects are excluded.

    Args:
        kernels: whether the task uses kernels. Otherwise Numba is not loaded for it.
    """
    if kernels:
        # Imported here, because this module is also loaded where no kernel is used.
        import numba

        numba.set_num_threads(1)
    if TaskContext.get() is not None:
        gc.freeze()
        _end_quietly_when_idle()


@cache
def _end_quietly_when_idle() -> None:
    """Keep this process from printing a traceback when Spark ends it.

    Spark closes the connection of a process that has had no task for a minute, as happens while the
    driver trains. pyspark takes the end of the connection for an error of a task and writes it to
    the same connection. This fails, and the traceback of the failure goes to the user's terminal.
    Errors of tasks are reported as before.
    """
    from pyspark import worker

    report_error = getattr(worker, "handle_worker_exception", None)
    if report_error is None:
        return

    def report_error_of_task(error: BaseException, *arguments: Any, **options: Any) -> None:
        # Between two tasks there is no context, and an EOFError is the end of the connection.
        if isinstance(error, EOFError) and TaskContext.get() is None:
            os._exit(0)
        report_error(error, *arguments, **options)

    worker.handle_worker_exception = report_error_of_task
