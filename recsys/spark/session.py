"""Start the Spark session with the settings that the package relies on."""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from recsys.config import SparkSettings
from recsys.errors import ConfigError, MissingExtra
from recsys.java import find_java

try:
    from py4j.protocol import Py4JError
    from pyspark import SparkContext
    from pyspark.conf import SparkConf
    from pyspark.errors import PySparkException, PySparkRuntimeError
    from pyspark.sql import SparkSession

    from recsys.spark.hadoop_folder import read_runs_through
except ImportError as error:
    raise MissingExtra("this step needs pyspark: pip install 'recsys[spark]'") from error

DEFAULTS = {
    "spark.app.name": "recsys",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "8192",
    "spark.ui.showConsoleProgress": "false",
    # Otherwise Python functions of RDDs and of tables run in different processes, and each process
    # has to load the package and the kernels first.
    "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "false",
    # No limit: sums of the size of the item factors come to the driver, never more of them than
    # fit.
    "spark.driver.maxResultSize": "0",
}

"""Settings of Spark that hold unless the config or spark-submit sets them."""

MEMORY_SETTINGS = ("spark.driver.memory", "spark.executor.memory")
"""Settings of memory that are checked before Spark starts."""

LEAST_MEMORY_MB = 450
"""Smallest heap in MiB with which Spark starts: 1.5 times the 300 MiB that it reserves."""

UNITS = {"k": 2**-10, "m": 1, "g": 2**10, "t": 2**20, "p": 2**30}
"""Letter of a unit of memory -> its size in MiB."""

CONNECT_SECONDS = 5.0
"""Number of seconds within which a master must answer."""

EXECUTOR_SECONDS = 30.0
"""Number of seconds after which the user learns that a cluster has not given an executor yet."""

UNIX_SOCKETS = "spark.python.unix.domain.socket.enabled"
"""Setting by which Java and Python exchange rows through Unix sockets. Spark before 4.1 ignores it.

Through TCP each task with Python code waits some 50 ms for delayed acknowledgements. The path of a
Unix socket has at most 107 characters, and the temporary folder of a YARN container is too long for
that.
"""

SHUFFLE_PARTITIONS_PER_CORE = 32
"""Partitions of a shuffle per core on a local master.

They are enough for 100 million rows, and Spark merges small partitions.
"""

PARTITIONS = "spark.sql.shuffle.partitions"
"""Setting of the number of partitions of a shuffle."""

SMALL_INPUT_BYTES = 2**20
"""Largest size of all tables of a run for which :data:`SMALL_INPUT` holds."""

SMALL_INPUT = {
    # Each stage and each broadcast would be a job of its own, to learn sizes that do not matter here.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.sql.optimizer.disableHints": "true",
    # To compile the code of a query takes longer than to interpret it for a few rows.
    "spark.sql.codegen.wholeStage": "false",
}
"""Settings of queries for a small input on a local master, where planning takes most of the time."""

QUICK_START = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:MetaspaceSize=256m"
"""Options of Java for a small input on a local master.

By default, Java spends half of a short run on optimising code that runs only a few times. The first
option makes it compile without these optimisations. The second gives this code more memory than the
default of 48 MiB, which some hundred queries fill. The third prevents garbage collections when many
classes are loaded.
"""

CONNECT_VARIABLES = ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED")
"""Variables of the environment by which PySpark makes a session of Spark Connect."""

NO_CONNECT = (
    "Spark Connect has no Spark driver in this process, and recsys needs one: use [spark] master = 'spark://HOST:7077',"
    " or spark-submit --master"
)
"""The start of each error message about Spark Connect."""


def session(settings: SparkSettings, *, small: bool = False) -> SparkSession:
    """Return the running Spark session, or start one.

    Settings of spark-submit have precedence, then ``settings``, then :data:`DEFAULTS`.

    Args:
        settings: the section ``[spark]`` of a config.
        small: whether a local session that starts here is for a small input (:data:`QUICK_START`).

    Raises:
        MissingExtra: there is no Java 17 or newer.
        ConfigError: a size of memory is not valid or too small, the master cannot be reached or
            rejects a setting, or the session would be one of Spark Connect.
    """
    _require_no_connect(settings)
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
    _require_memory({key: submitted.get(key) or chosen.get(key) for key in MEMORY_SETTINGS})
    _require_reachable(master)
    if master.startswith(("local", "spark:")):
        chosen.setdefault(UNIX_SOCKETS, "true")
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        chosen.setdefault(PARTITIONS, _default_partitions(master))
        if small:
            # Spark puts the user's own spark.driver.extraJavaOptions after these.
            chosen.setdefault("spark.driver.defaultJavaOptions", QUICK_START)
    builder = SparkSession.builder
    for key, value in chosen.items():
        if not submitted.contains(key):
            builder = builder.config(key, value)
    # Py4J logs a traceback for each error that it raises, also for an interruption, in part with the
    # root logger. The error itself is what users are told.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_is_not_of_py4j)
    interrupt_handler = signal.getsignal(signal.SIGINT)
    try:
        spark = builder.getOrCreate()
    except (PySparkException, PySparkRuntimeError, Py4JError) as error:
        reason = str(getattr(error, "java_exception", None) or error).splitlines()[0]
        raise ConfigError(f"[spark]: no session on {master}: {reason}") from error
    atexit.register(_remove_socket, spark.sparkContext)
    if threading.current_thread() is threading.main_thread():
        # That of PySpark calls Java in the middle of another call, which fails with a traceback.
        signal.signal(signal.SIGINT, interrupt_handler)
    spark.sparkContext.setLogLevel("ERROR")
    if master.startswith("spark:"):
        patience = threading.Timer(EXECUTOR_SECONDS, _warn_without_executors, [spark.sparkContext])
        patience.daemon = True
        patience.start()
    # A default that nobody chose is no expectation to disappoint.
    if master.startswith("local") and "driver_memory" in settings.model_fields_set:
        _warn_if_heap_is_small(spark, chosen["spark.driver.memory"])
    read_runs_through(spark)
    return spark


@contextmanager
def small_input_settings(spark: SparkSession) -> Iterator[None]:
    """Set :data:`SMALL_INPUT` in a session for the duration of the block, on a local master.

    What is set in the session already stays. But a shuffle gets one partition instead of the
    default number, because without adaptive execution Spark does not merge small ones.
    """
    master = spark.sparkContext.master
    if not master.startswith("local"):
        yield
        return
    present = spark.conf.getAll
    changed = {key: value for key, value in SMALL_INPUT.items() if key not in present}
    partitions = present.get(PARTITIONS)
    if partitions == _default_partitions(master):
        changed[PARTITIONS] = "1"
    for key, value in changed.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        # After an interruption Java may not answer any more.
        with suppress(Py4JError, OSError):
            for key in changed:
                spark.conf.unset(key)
            if partitions is not None:
                spark.conf.set(PARTITIONS, partitions)


def require_classic(spark: SparkSession) -> None:
    """Raise ConfigError if a session that a caller has made is one of Spark Connect."""
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise ConfigError(f"{NO_CONNECT}.")


def _require_no_connect(settings: SparkSettings) -> None:
    """Raise ConfigError if the settings or the environment ask for a session of Spark Connect."""
    for variable in CONNECT_VARIABLES:
        if os.environ.get(variable):
            raise ConfigError(f"{NO_CONNECT}, and unset {variable}.")
    if (settings.master or "").startswith("sc://"):
        raise ConfigError(f"{NO_CONNECT} (it is '{settings.master}').")
    is_connect = settings.conf.get("spark.api.mode", os.environ.get("SPARK_API_MODE", "")).lower() == "connect"
    if is_connect or "spark.remote" in settings.conf:
        raise ConfigError(f"{NO_CONNECT}, and remove spark.remote and spark.api.mode.")


def _remove_socket(context: SparkContext) -> None:
    """Remove the Unix socket of the driver, which only ``stop()`` of the session would remove."""
    server = getattr(context, "_accumulatorServer", None)
    if server is not None and isinstance(server.server_address, str):
        Path(server.server_address).unlink(missing_ok=True)


def _require_reachable(master: str) -> None:
    """Check that a standalone master answers, because Spark would try for a minute.

    Raises:
        ConfigError: no host of the master accepts a connection.
    """
    if not master.startswith("spark://"):
        return
    problems = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(
                f"[spark] master '{master}': write it as spark://HOST:PORT, the port of a master is 7077."
            )
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
                return
        except (OSError, OverflowError) as error:
            problems.append(f"{address}: {error}")
    raise ConfigError(
        f"[spark] master '{master}' does not answer ({'; '.join(problems)}): start it, or correct the address."
    )


def _require_memory(settings: Mapping[str, str | None]) -> None:
    """Check that Spark can read the sizes of memory, and can start with them.

    Raises:
        ConfigError: a size is not valid or too small. The message names the setting and the
            smallest size.
    """
    for key, text in settings.items():
        if text is None:
            continue
        match = re.fullmatch(r"(\d+)\s*([kmgtp]?)b?", text.strip().lower())
        if match is None:
            raise ConfigError(f"{key} = '{text}' is not a size of memory: write it as '4g' or '900m'.")
        mebibytes = int(match[1]) * UNITS[match[2] or "m"]
        if mebibytes < LEAST_MEMORY_MB:
            raise ConfigError(f"{key} = '{text}' is too little: Spark starts with {LEAST_MEMORY_MB} MiB or more.")


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


def _warn_if_heap_is_small(spark: SparkSession, driver_memory: str) -> None:
    """Warn if the JVM has less memory than the config sets.

    This happens if spark-submit has started the JVM before the config is read.
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


def _warn_without_executors(context: SparkContext) -> None:
    """Warn if the cluster has given no executor, because Spark waits for one without a word."""
    # The session may have ended in the meantime.
    with suppress(Py4JError, AttributeError):
        # The driver is one of them.
        if context._jsc.sc().getExecutorMemoryStatus().size() < 2:
            memory = context.getConf().get("spark.executor.memory", "1g")
            print(
                f"warning: {context.master} has given no executor for {EXECUTOR_SECONDS:g} s, and Spark waits for one."
                f" Its workers are busy, or each of them has less than spark.executor.memory = '{memory}': the web"
                " page of the master shows them.",
                file=sys.stderr,
            )


def _session_settings(settings: SparkSettings) -> dict[str, str]:
    chosen = {"spark.driver.memory": settings.driver_memory} | settings.conf
    if settings.shuffle_partitions:
        chosen[PARTITIONS] = str(settings.shuffle_partitions)
    return chosen


def _cores(master: str) -> int:
    count = master.partition("[")[2].rstrip("]").partition(",")[0]
    return int(count) if count.isdigit() else (os.cpu_count() or 1)


def _default_partitions(master: str) -> str:
    return str(SHUFFLE_PARTITIONS_PER_CORE * _cores(master))
