"""Hadoop's file systems in a JVM: that of a Spark session, or one that is started for them alone."""

from __future__ import annotations

import atexit
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from recsys.java import find_java


@dataclass(frozen=True)
class HadoopClient:
    """The file systems that a JVM reads, with their settings and credentials.

    Attributes:
        gateway: the connection to the JVM.
        configuration: the settings, a ``Configuration`` of Hadoop.
    """

    gateway: Any
    configuration: Any

    @classmethod
    def of_session(cls, spark: SparkSession) -> HadoopClient:
        """Return the client of a Spark session, which has the settings of the cluster."""
        context = spark.sparkContext
        return cls(context._gateway, context._jsc.hadoopConfiguration())

    @property
    def hadoop(self) -> Any:
        """The Java package ``org.apache.hadoop.fs``."""
        return self.gateway.jvm.org.apache.hadoop.fs

    def resolve(self, uri: str) -> tuple[Any, Any]:
        """Return (path, file system) of a URI, as the Java objects Path and FileSystem of Hadoop.

        Raises:
            Py4JJavaError: Hadoop has no file system for the scheme, or cannot reach it.
        """
        path = self.hadoop.Path(uri)
        system = path.getFileSystem(self.configuration)
        return system.makeQualified(path), system


@cache
def start_client() -> HadoopClient:
    """Start a JVM that ends with this process, and return its client.

    It is the JVM that PySpark would start, without a session in it: it has the settings of
    ``HADOOP_CONF_DIR``, of ``spark-defaults.conf`` and of ``PYSPARK_SUBMIT_ARGS``. That takes two
    seconds. Later calls return the same client.

    Raises:
        MissingExtra: there is no Java 17 or newer.
        PySparkRuntimeError: the JVM does not start.
    """
    os.environ["JAVA_HOME"] = find_java().home
    # What the JVM logs while it starts says nothing about the file systems.
    gateway = launch_gateway(popen_kwargs={"stderr": subprocess.DEVNULL})
    atexit.register(_end, gateway)
    spark = gateway.jvm.org.apache.spark
    return HadoopClient(gateway, spark.deploy.SparkHadoopUtil.get().newConfiguration(spark.SparkConf()))


def _end(gateway: Any) -> None:
    """End the JVM of a gateway, which ends when its input does."""
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()
