"""The Spark session, with the few settings that everything here relies on."""

from __future__ import annotations

import os
import sys

from recsys.config import SparkSettings
from recsys.errors import ConfigError, MissingExtra
from recsys.java import find_java

try:
    from pyspark import SparkContext
    from pyspark.conf import SparkConf
    from pyspark.errors import PySparkException, PySparkRuntimeError
    from pyspark.sql import SparkSession
except ImportError as error:
    raise MissingExtra("this step needs pyspark: pip install 'recsys[spark]'") from error

OURS = {
    "spark.app.name": "recsys",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "8192",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.maxResultSize": "0",  # sums of the size of the item factors come here, and no more of them than fit
}

SHUFFLE = 32
"""Partitions a core of what is shuffled on a local master: enough for 100 million rows; Spark merges small ones."""


def session(settings: SparkSettings) -> SparkSession:
    """Return the session that runs, or a new one: what spark-submit set, then ``settings``, then our defaults.

    Raises:
        MissingExtra: no Java 17 or newer.
        ConfigError: the master cannot be reached, or refuses a setting.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit has started a Java, which knows what was asked of it
        SparkContext._ensure_initialized()
    else:
        os.environ["JAVA_HOME"] = find_java().home
    given = SparkConf()
    wanted = OURS | _settings(settings)
    if not given.contains("spark.master"):
        wanted["spark.master"] = settings.master or "local[*]"
    master = given.get("spark.master") or wanted["spark.master"]
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers on this machine: the same interpreter
        wanted.setdefault("spark.sql.shuffle.partitions", str(SHUFFLE * _cores(master)))  # merged where small
    builder = SparkSession.builder
    for key, value in wanted.items():
        if not given.contains(key):
            builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except (PySparkException, PySparkRuntimeError) as error:
        raise ConfigError(f"[spark]: no session on {master}: {str(error).splitlines()[0]}") from error
    spark.sparkContext.setLogLevel("ERROR")
    if master.startswith("local"):
        _compare_heap(spark, wanted["spark.driver.memory"])
    return spark


def _compare_heap(spark: SparkSession, wanted: str) -> None:
    """Say so when the JVM has less memory than the config asks for: spark-submit starts it before we are asked."""
    heap = spark._jvm.java.lang.Runtime.getRuntime().maxMemory()
    asked = spark._jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(wanted)
    if heap < 0.8 * asked:
        print(
            f"warning: the driver's JVM has {heap / 2**30:.1f} GiB of heap, but [spark] driver_memory = '{wanted}'."
            f" spark-submit starts it before the config is read:  spark-submit --driver-memory {wanted} …",
            file=sys.stderr,
        )


def _settings(settings: SparkSettings) -> dict[str, str]:
    chosen = {"spark.driver.memory": settings.driver_memory} | settings.conf
    if settings.shuffle_partitions:
        chosen["spark.sql.shuffle.partitions"] = str(settings.shuffle_partitions)
    return chosen


def _cores(master: str) -> int:
    inside = master.partition("[")[2].rstrip("]").partition(",")[0]
    return int(inside) if inside.isdigit() else (os.cpu_count() or 1)
