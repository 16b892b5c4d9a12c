"""What a task on an executor does before its work."""

from __future__ import annotations

import gc

from pyspark import TaskContext


def prepare_task() -> None:
    """Prepare the process for a task: kernels use one thread, and modules are no longer searched for garbage.

    Spark runs one task per core, so a task has one thread.

    After each task pyspark searches all objects of the process for garbage. With the modules of recsys
    these are more than 100,000, and the search takes longer than a small task. Objects that exist
    before the work are therefore left out of it; they stay until the process ends. Outside of a task
    nothing is left out.
    """
    # Imported here, because this module is also loaded where no kernel is used.
    import numba

    numba.set_num_threads(1)
    if TaskContext.get() is not None:
        gc.freeze()
