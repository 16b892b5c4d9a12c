"""Start the Spark session with the settings that the package relies on."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

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

DEFAULTS = {
    "spark.app.name": "recsys",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "8192",
    "spark.ui.showConsoleProgress": "false",
    # No limit: sums of the size of the item factors come to the driver, never more of them than
    # fit.
    "spark.driver.maxResultSize": "0",
}

SHUFFLE_PARTITIONS_PER_CORE = 32
"""On a local master: enough for 100 million rows; Spark merges small partitions."""


def session(settings: SparkSettings) -> SparkSession:
    """Return the running session, or start one. Settings of spark-submit come first, then
    ``settings``, then defaults.

    Raises:
        MissingExtra: no Java 17 or newer.
        ConfigError: the master cannot be reached, or rejects a setting.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        # spark-submit has started a JVM, which holds the settings of its command line.
        SparkContext._ensure_initialized()
    else:
        os.environ["JAVA_HOME"] = find_java().home
    submitted = SparkConf()
    chosen = DEFAULTS | _session_settings(settings)
    if not submitted.contains("spark.master"):
        chosen["spark.master"] = settings.master or "local[*]"
    master = submitted.get("spark.master") or chosen["spark.master"]
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        chosen.setdefault("spark.sql.shuffle.partitions", str(SHUFFLE_PARTITIONS_PER_CORE * _cores(master)))
    builder = SparkSession.builder
    for key, value in chosen.items():
        if not submitted.contains(key):
            builder = builder.config(key, value)
    interrupt_handler = signal.getsignal(signal.SIGINT)
    try:
        spark = builder.getOrCreate()
    except (PySparkException, PySparkRuntimeError) as error:
        raise ConfigError(f"[spark]: no session on {master}: {str(error).splitlines()[0]}") from error
    # Py4J logs a traceback for each error that it raises, also for an interruption, in part with the
    # root logger. The error itself is what users are told.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_is_not_of_py4j)
    if threading.current_thread() is threading.main_thread():
        # That of PySpark calls Java in the middle of another call, which fails with a traceback.
        signal.signal(signal.SIGINT, interrupt_handler)
    spark.sparkContext.setLogLevel("ERROR")
    if master.startswith("local"):
        _warn_if_heap_is_small(spark, chosen["spark.driver.memory"])
    return spark


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


def _warn_if_heap_is_small(spark: SparkSession, driver_memory: str) -> None:
    """Warn if the JVM has less memory than the config sets: spark-submit starts it before the
    config is read.
    """
    heap = spark._jvm.java.lang.Runtime.getRuntime().maxMemory()
    configured = spark._jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(driver_memory)
    if heap < 0.8 * configured:
        print(
            f"warning: the driver's JVM has {heap / 2**30:.1f} GiB of heap, but [spark] driver_memory is"
            f" '{driver_memory}'."
            f" spark-submit starts it before the config is read:  spark-submit --driver-memory {driver_memory} …",
            file=sys.stderr,
        )


def _session_settings(settings: SparkSettings) -> dict[str, str]:
    chosen = {"spark.driver.memory": settings.driver_memory} | settings.conf
    if settings.shuffle_partitions:
        chosen["spark.sql.shuffle.partitions"] = str(settings.shuffle_partitions)
    return chosen


def _cores(master: str) -> int:
    count = master.partition("[")[2].rstrip("]").partition(",")[0]
    return int(count) if count.isdigit() else (os.cpu_count() or 1)
