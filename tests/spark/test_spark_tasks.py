"""What a task does before its work."""

import gc
import os
import subprocess
import sys

import pytest

from recsys.spark.tasks import prepare_task

pytestmark = pytest.mark.spark

IDLE_PROCESS = """
import os, socket, sys
from pyspark import TaskContext, daemon
from recsys.spark.tasks import prepare_task

os.environ["PYTHON_DAEMON_KILL_WORKER_ON_FLUSH_FAILURE"] = "1"  # the default of Spark 4.3
sys.argv = ["pyspark.daemon", "pyspark.worker"]
if "prepared" in os.environ["MODE"]:
    TaskContext._setTaskContext(TaskContext())
    prepare_task(kernels=False)
    TaskContext._setTaskContext(None)
java, python = socket.socketpair()
java.close()
daemon.worker(python, True)
"""
"""A process between two tasks, as pyspark runs it, whose connection Spark closes."""


def test_what_a_task_finds_is_no_longer_searched_for_garbage(spark):
    def count_searched(_):
        import numba

        prepare_task()
        yield len(gc.get_objects()), numba.get_num_threads()

    [(searched, threads)] = spark.sparkContext.parallelize([0], 1).mapPartitions(count_searched).collect()
    assert searched < 1_000
    assert threads == 1


def test_outside_of_a_task_all_objects_are_searched():
    cycle = []
    cycle.append(cycle)
    prepare_task()
    assert any(found is cycle for found in gc.get_objects())


@pytest.mark.subprocess
@pytest.mark.parametrize(("mode", "is_silent"), [("prepared", True), ("as it is", False)])
def test_a_process_that_spark_ends_between_tasks_prints_nothing(mode, is_silent):
    environment = os.environ | {"MODE": mode}
    ended = subprocess.run([sys.executable, "-c", IDLE_PROCESS], env=environment, capture_output=True, text=True)
    assert ("BrokenPipeError" not in ended.stderr) == is_silent
    assert (ended.stderr == "") == is_silent


def test_an_end_of_file_in_a_task_is_an_error_of_the_task(spark):
    def read_nothing(_):
        prepare_task()
        raise EOFError("the file is damaged")

    with pytest.raises(Exception, match="EOFError: the file is damaged"):
        spark.sparkContext.parallelize([0], 1).mapPartitions(read_nothing).collect()
