"""Tables on file systems that only Spark reads, by their URIs (``hdfs://``, ``s3a://`` ...).

Spark reads the rows. The driver also needs the names of the parts, the first row of a text file and
the footer of a Parquet file. It reads them through Hadoop's file systems in the JVM of Spark.
"""

from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from recsys.data.reading.sources import Source
from recsys.errors import InputError
from recsys.locations import is_remote, local_path
from recsys.spark.table_files import GLOB_CHARACTERS, hadoop_path, spark_path

BUFFER = 1 << 16
"""Number of bytes that the driver reads at a time."""


@dataclass(frozen=True)
class RemoteSource(Source):
    """A table on a file system that only Spark reads: one file, or a folder of files.

    Attributes:
        path: the path of the table on that file system, without scheme and host.
        uri: the whole URI.
        spark: the session, through which the driver reads.
    """

    spark: SparkSession | None = None

    @cached_property
    def parts(self) -> list[Source]:
        """The files of the table, chosen and ordered as in :attr:`Source.parts`.

        Raises:
            InputError: the file or folder does not exist, the folder has no files, or Spark cannot
                reach the file system.
        """
        with _hadoop_errors_explained(self):
            path, files = hadoop_path(self.spark, str(self))
            if not files.exists(path):
                raise InputError(f"{self}: no such file or folder.")
            if files.getFileStatus(path).isFile():
                return [self]
            root = path.toUri().getPath()
            listing = files.listFiles(path, True)
            names = []
            while listing.hasNext():
                name = PurePosixPath(listing.next().getPath().toUri().getPath()).relative_to(root)
                if not any(part[0] in "._" for part in name.parts):
                    names.append(name)
        if not names:
            raise InputError(f"{self}: a folder without files.")
        return [
            RemoteSource(self.path / name, uri=f"{str(self).rstrip('/')}/{name}", spark=self.spark)
            for name in sorted(names)
        ]

    def open(self) -> BinaryIO:
        """Open the file as a stream of its bytes, decompressed if the file is compressed."""
        stream = self.open_parquet()
        if self.compression == "gzip":
            return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
        if self.compression:
            return pa.CompressedInputStream(pa.PythonFile(stream), self.compression)
        return stream

    def open_parquet(self) -> Any:
        """Open the file as a stream of its bytes as they are, which can be read from any position."""
        return io.BufferedReader(_HadoopStream(self), BUFFER)


class _HadoopStream(io.RawIOBase):
    """A stream of the bytes of a file that Hadoop reads, which can be read from any position."""

    def __init__(self, source: RemoteSource) -> None:
        self._source = source
        with _hadoop_errors_explained(source):
            path, files = hadoop_path(source.spark, str(source))
            self._size = files.getFileStatus(path).getLen()
            self._stream = files.open(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        with _hadoop_errors_explained(self._source):
            self._stream.seek(start + offset)
        return start + offset

    def tell(self) -> int:
        return int(self._stream.getPos())

    def readinto(self, buffer: Any) -> int:
        with _hadoop_errors_explained(self._source):
            data = bytes(self._stream.readNBytes(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            # Java may have ended before this object is collected.
            with suppress(Py4JError, OSError, AttributeError):
                self._stream.close()
        super().close()


def make_source(spark: SparkSession | None, location: str) -> Source:
    """Return the source of a table.

    Args:
        spark: the session. It is only needed for a URI that only Spark reads.
        location: a path, a ``file:`` URI, or a URI of another file system, such as ``hdfs://…``.
    """
    if not is_remote(location):
        return Source(local_path(location))
    path_there = location.partition("://")[2].partition("/")[2]
    return RemoteSource(Path("/") / path_there, uri=location, spark=spark)


def spark_uri(source: Source) -> str:
    """Return the URI with which Spark reads exactly this file or folder.

    Characters that Spark would read as a pattern, such as ``*``, are escaped.
    """
    if source.uri:
        return source.uri.translate(GLOB_CHARACTERS)
    return spark_path(source.path)


def fetch_source(spark: SparkSession, location: str) -> Source:
    """Return the source of a small table, as a file or folder on this machine.

    A table on another file system is first copied to a temporary folder, which is removed when the
    session ends.

    Args:
        spark: the session.
        location: a path or a URI, as for :func:`make_source`.

    Raises:
        InputError: the table does not exist, or Spark cannot read it.
    """
    source = make_source(spark, location)
    if source.uri is None:
        return source
    folder = Path(tempfile.mkdtemp(prefix="recsys-table-", dir=spark.sparkContext._temp_dir))
    target = folder / (source.path.name or "table")
    with _hadoop_errors_explained(source):
        path, files = hadoop_path(spark, location)
        if not files.exists(path):
            raise InputError(f"{location}: no such file or folder.")
        copy, _ = hadoop_path(spark, f"file://{target.absolute()}")
        files.copyToLocalFile(False, path, copy, True)
    return Source(target, uri=location)


@contextmanager
def _hadoop_errors_explained(source: Source) -> Iterator[None]:
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        # Some errors of Java come as errors of PySpark, which have no ``java_exception``.
        reason = str(getattr(error, "java_exception", None) or error).partition("\n")[0]
        raise InputError(
            f"{source}: Spark cannot read it: {reason}. Check the URI, and that Spark has the library and the"
            " credentials of this file system."
        ) from error
