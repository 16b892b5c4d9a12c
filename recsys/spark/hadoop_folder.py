"""Run folders on other file systems, through Hadoop's file systems in a JVM."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from recsys.errors import MissingExtra, RunFolderError
from recsys.locations import Uri
from recsys.spark.hadoop_client import HadoopClient, start_client
from recsys.storage import FileStatus, RemoteFolder, use_spark

RENAMING_SCHEMES = ("file", "hdfs", "viewfs", "webhdfs", "swebhdfs", "ofs", "o3fs")
"""Schemes of file systems that rename a file in one step, over an older one.

On these, a reader sees a file while it is written. All other file systems are treated as object
stores, which show a file only when it is complete, and on which a rename is a copy.
"""


@dataclass(frozen=True)
class HadoopFolder:
    """A folder on a file system that Hadoop reads (:class:`recsys.storage.RemoteFolder`).

    Attributes:
        uri: the URI of the folder.
        client: the JVM, with the settings and the credentials of the file system.
    """

    uri: Uri
    client: HadoopClient

    def subfolder(self, name: str) -> HadoopFolder:
        """Return a folder inside this one."""
        return HadoopFolder(self.uri / name, self.client)

    def list_files(self) -> dict[str, FileStatus]:
        """Return the files below this folder: name -> status."""
        files = {}
        with _java_errors_converted():
            path, system = self.client.resolve(str(self.uri))
            if not system.exists(path):
                return {}
            prefix = len(path.toUri().getPath().rstrip("/")) + 1
            listing = system.listFiles(path, True)
            while listing.hasNext():
                status = listing.next()
                name = status.getPath().toUri().getPath()[prefix:]
                files[name] = FileStatus(int(status.getLen()), status.getModificationTime() / 1000)
        # If the URI is that of a file, Hadoop lists the file itself.
        files.pop("", None)
        return files

    def is_file(self) -> bool:
        """Return whether a file has the URI of this folder."""
        with _java_errors_converted():
            path, system = self.client.resolve(str(self.uri))
            return bool(system.exists(path) and system.getFileStatus(path).isFile())

    def read_text(self, name: str) -> str:
        """Return the content of a file."""
        with _java_errors_converted():
            path, system = self._path_of(name)
            stream = system.open(path)
            try:
                return bytes(stream.readAllBytes()).decode("utf-8")
            finally:
                stream.close()

    def write_text(self, name: str, text: str) -> None:
        """Write a file, or replace it in one step."""
        with _java_errors_converted():
            path, system = self._path_of(name)
            if system.getScheme() not in RENAMING_SCHEMES:
                _write(system, path, text)
                return
            hadoop = self.client.hadoop
            part = hadoop.Path(path.getParent(), f".{path.getName()}.recsys-{secrets.token_hex(8)}.part")
            _write(system, part, text)
            context = hadoop.FileContext.getFileContext(path.toUri(), self.client.configuration)
            options = self.client.gateway.new_array(hadoop.Options.Rename, 1)
            options[0] = hadoop.Options.Rename.OVERWRITE
            context.rename(part, path, options)

    def download(self, name: str, target: Path) -> None:
        """Copy a file to a path on this machine."""
        with _java_errors_converted():
            path, system = self._path_of(name)
            # The raw file system writes no checksum file beside the copy.
            system.copyToLocalFile(False, path, self._local_path(target), True)

    def upload(self, source: Path, name: str) -> None:
        """Copy a file of this machine to this folder."""
        with _java_errors_converted():
            path, system = self._path_of(name)
            system.copyFromLocalFile(False, True, self._local_path(source), path)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        with _java_errors_converted():
            path, system = self._path_of(name)
            system.delete(path, True)

    def _path_of(self, name: str) -> tuple[Any, Any]:
        return self.client.resolve(str(self.uri / name))

    def _local_path(self, path: Path) -> Any:
        return self.client.hadoop.Path(f"file://{path.absolute()}")


def read_runs_through(spark: SparkSession) -> None:
    """Let runs at URIs be read and written through a session, until it ends."""
    use_spark(partial(_open_if_running, spark))


def _open_if_running(spark: SparkSession, uri: Uri) -> RemoteFolder | None:
    if spark.sparkContext._jsc is None:
        return None
    return HadoopFolder(uri, HadoopClient.of_session(spark))


def open_without_session(uri: Uri) -> HadoopFolder:
    """Return the folder of a URI, read through a JVM without a Spark session.

    Raises:
        RunFolderError: Java does not start, or Hadoop cannot reach the file system.
    """
    try:
        client = start_client()
        client.resolve(str(uri))
    except (MissingExtra, PySparkException, Py4JError) as error:
        reason = str(getattr(error, "java_exception", None) or error).partition("\n")[0]
        raise RunFolderError(
            f"{uri}: this file system cannot be read through Java: {reason}. Check the URI and HADOOP_CONF_DIR, or copy"
            " the folder to this machine and name the copy."
        ) from error
    return HadoopFolder(uri, client)


def _write(system: Any, path: Any, text: str) -> None:
    stream = system.create(path, True)
    stream.write(bytearray(text.encode("utf-8")))
    # An error while closing means that the file is not whole, so it is not suppressed.
    stream.close()


@contextmanager
def _java_errors_converted() -> Iterator[None]:
    """Convert an error of Java into an OSError, as the methods of a RemoteFolder raise it."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        # Some errors of Java come as errors of PySpark, which have no ``java_exception``.
        reason = str(getattr(error, "java_exception", None) or error).partition("\n")[0]
        if "FileNotFoundException" in reason:
            raise FileNotFoundError(reason) from error
        raise OSError(reason) from error
    except Py4JError as error:
        raise OSError(f"Spark has ended: {error}") from error
