"""What a task on an executor does before its work."""

from __future__ import annotations

import gc

from pyspark import TaskContext


def prepare_task() -> None:
    """Prepare the process for a task: limit kernels to one thread, and speed up garbage collection.

    Spark runs one task per core, so kernels may use one thread only.

    After each task pyspark runs the garbage collector over all objects of the process. With the
    modules of recsys these are more than 100,000, and this takes longer than a small task. So the
    objects that exist before the work are excluded from garbage collection until the process ends.
    Outside of a task no objects are excluded.
    """
    # Imported here, because this module is also loaded where no kernel is used.
    import numba

    numba.set_num_threads(1)
    if TaskContext.get() is not None:
        gc.freeze()
