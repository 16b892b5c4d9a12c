"""What Spark's own records say about the jobs of a step: rows, spilled memory, retries, the slowest
task.

The records are those of Spark's status store, which exists in every driver, also without the web
page. They have the names of Spark's monitoring API (stages, with the distribution of the task
metrics).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

PATIENCE_MS = 10_000
"""Number of milliseconds to wait until Spark has recorded all tasks that have ended."""


@contextmanager
def count_tasks(spark: SparkSession, name: str) -> Iterator[dict[str, Any]]:
    """Count the tasks of the Spark jobs that a ``with`` block starts.

    The block gets a dict, which has one key ``spark`` after the block has ended without an error.
    Its value is the result of :func:`summarise_stages` and ``jobs``, the number of jobs. It is None
    if Spark's records are not complete after :data:`PATIENCE_MS`. Jobs of other threads are not
    counted.

    Args:
        spark: the session.
        name: the name of the step, with which Spark's own pages describe its jobs.
    """
    context = spark.sparkContext
    context.setJobDescription(name)
    tag = f"recsys-{uuid.uuid4()}"
    context.addJobTag(tag)
    costs: dict[str, Any] = {}
    try:
        yield costs
    finally:
        context.removeJobTag(tag)
    costs["spark"] = _costs_of(spark, tag)


def _costs_of(spark: SparkSession, tag: str) -> dict[str, Any] | None:
    """Return the summary of the stages of all jobs with a tag, None if Spark's records are late."""
    context = spark.sparkContext
    scala = context._jsc.sc()
    try:
        scala.listenerBus().waitUntilEmpty(PATIENCE_MS)
    except Py4JJavaError:
        return None
    jobs = [context.statusTracker().getJobInfo(job) for job in scala.statusTracker().getJobIdsForTag(tag)]
    stage_ids = sorted({stage for job in jobs if job is not None for stage in job.stageIds})
    return {"jobs": len(jobs)} | summarise_stages(_stage_attempts(spark, stage_ids))


def _stage_attempts(spark: SparkSession, stage_ids: Iterable[int]) -> list[dict[str, Any]]:
    """Return every attempt of the stages, as Spark's monitoring API would describe it.

    The distributions of the task metrics have one quantile, the largest value.
    """
    jvm = spark._jvm
    gateway = spark.sparkContext._gateway
    quantiles = gateway.new_array(gateway.jvm.double, 1)
    quantiles[0] = 1.0
    any_status = jvm.java.util.ArrayList()
    attempts = jvm.java.util.ArrayList()
    store = spark.sparkContext._jsc.sc().statusStore()
    for stage in stage_ids:
        attempts.add(store.stageData(stage, False, any_status, True, quantiles))
    # One text for all stages: each call to Java costs time.
    scala_module = getattr(jvm.com.fasterxml.jackson.module.scala, "DefaultScalaModule$")
    mapper = jvm.com.fasterxml.jackson.databind.ObjectMapper()
    mapper.registerModule(getattr(scala_module, "MODULE$"))
    return [attempt for stage in json.loads(mapper.writeValueAsString(attempts)) for attempt in stage]


def summarise_stages(attempts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Summarise attempts of stages, and return the figures of a step.

    * ``tasks``: number of tasks that ended well;
    * ``rows_read``: rows that all tasks read from files and from cached tables, or generated;
    * ``rows_shuffled``: rows that tasks handed to later tasks;
    * ``rows_written``: rows that tasks wrote to files;
    * ``spilled_mb``: MiB that tasks wrote to disk because they did not fit in memory;
    * ``slowest_task_seconds``, ``slowest_stage``: the duration of the longest task, and the number
      of its stage on Spark's own pages (0.0 and None without a task);
    * ``failed_tasks``: attempts of tasks that failed, whether or not a later attempt succeeded;
    * ``retried_stages``: attempts of stages after the first one, because data of lost executors
      was computed again;
    * ``killed_tasks``: tasks that Spark ended early because their result was not needed any more: with
      ``spark.speculation``, the slower one of a task and its copy.

    Args:
        attempts: descriptions of stages in the form of Spark's monitoring API, with the
            distributions of the task metrics for one quantile, the largest value.
    """
    ran = [attempt for attempt in attempts if attempt["status"] != "SKIPPED"]
    slowest = max(ran, key=_slowest_ms, default=None)
    return {
        "tasks": _total(ran, "numCompleteTasks"),
        "rows_read": _total(ran, "inputRecords"),
        "rows_shuffled": _total(ran, "shuffleWriteRecords"),
        "rows_written": _total(ran, "outputRecords"),
        "spilled_mb": round(_total(ran, "diskBytesSpilled") / 2**20, 1),
        "slowest_task_seconds": 0.0 if slowest is None else _slowest_ms(slowest) / 1000,
        "slowest_stage": None if slowest is None else slowest["stageId"],
        "failed_tasks": _total(ran, "numFailedTasks"),
        "retried_stages": sum(attempt["attemptId"] > 0 for attempt in ran),
        "killed_tasks": _total(ran, "numKilledTasks"),
    }


def _total(attempts: Iterable[dict[str, Any]], key: str) -> int:
    return sum(attempt[key] for attempt in attempts)


def _slowest_ms(attempt: dict[str, Any]) -> float:
    """Return the duration of the longest task of an attempt in milliseconds, 0 without a task."""
    metrics = attempt["taskMetricsDistributions"] or {"duration": [0.0]}
    return float(metrics["duration"][0])
