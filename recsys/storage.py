"""Run folders on other file systems: the few operations that a run folder needs, by URI.

There are two implementations of :class:`RemoteFolder`:

* :class:`recsys.spark.hadoop_folder.HadoopFolder`, through the JVM of a running Spark session. It
  reaches every file system that the cluster reads, with the settings and credentials of the cluster.
  The executors write the tables through the same libraries. Without a session it can start a JVM of
  its own.
* :class:`ArrowFolder`, through ``pyarrow.fs``, in a process without Spark. pyarrow is installed with
  recsys and has clients for S3, Google Cloud Storage, Azure and HDFS. fsspec would need one more
  package for each of these stores.

:func:`open_folder` takes the first while a Spark session of recsys runs, or else the second, or else
the first with a JVM of its own. pyarrow reads HDFS only with ``libhdfs``, which few machines have,
while Hadoop's client for it is a part of pyspark.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow.fs as pafs

from recsys.errors import RunFolderError
from recsys.locations import Location, Uri, parse_location

ARROW_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
"""Scheme of Hadoop -> the scheme by which pyarrow reads the same store, where they differ."""

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Environment variables with the URL of an S3 server that is not Amazon's. pyarrow does not read
them.
"""

BUFFER = 1 << 20
"""Number of bytes that are copied at a time."""

MAX_TEXT = 256 << 20
"""The largest number of bytes of a text of settings (:func:`read_text`). Rules may list millions of ids."""

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class FileStatus:
    """The size of a file in bytes, and the time of its last change in seconds since 1970."""

    size: int
    changed: float


class RemoteFolder(Protocol):
    """A folder on another file system. Names of files are relative to it, with ``/`` as separator.

    All methods raise OSError if the file system cannot be reached or refuses the operation.
    """

    @property
    def uri(self) -> Uri:
        """The URI of the folder."""
        ...

    def subfolder(self, name: str) -> RemoteFolder:
        """Return a folder inside this one. It need not exist."""
        ...

    def list_files(self) -> dict[str, FileStatus]:
        """Return the files below this folder: name -> status. It is empty if there is no folder."""
        ...

    def is_file(self) -> bool:
        """Return whether a file has the URI of this folder."""
        ...

    def read_text(self, name: str) -> str:
        """Return the content of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def write_text(self, name: str, text: str) -> None:
        """Write a file, or replace it in one step: a reader sees the whole old or new content."""
        ...

    def download(self, name: str, target: Path) -> None:
        """Copy a file to the path ``target`` on this machine, whose folder exists.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def upload(self, source: Path, name: str) -> None:
        """Copy the file at the path ``source`` to this folder. An existing file is replaced."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it. Nothing happens if there is none."""
        ...


_spark_opener: Callable[[Uri], RemoteFolder | None] | None = None


def use_spark(opener: Callable[[Uri], RemoteFolder | None]) -> None:
    """Let :func:`open_folder` read and write through a Spark session from now on.

    Args:
        opener: a function that returns the folder of a URI, or None if the session has ended.
    """
    global _spark_opener
    _spark_opener = opener


_java_opener: Callable[[Uri], RemoteFolder | None] | None = None


def use_java(opener: Callable[[Uri], RemoteFolder | None]) -> None:
    """Let :func:`open_folder` read through Java what pyarrow cannot read, from now on.

    Args:
        opener: a function that returns the folder of a URI, or None if pyspark is not installed.
    """
    global _java_opener
    _java_opener = opener


def open_folder(uri: Uri) -> RemoteFolder:
    """Return the folder of a URI, which need not exist.

    Raises:
        RunFolderError: no library of this process reads the file system.
    """
    folder = None
    if _spark_opener is not None:
        folder = _spark_opener(uri)
    if folder is not None:
        return folder
    try:
        return ArrowFolder.open(uri)
    except RunFolderError:
        if _java_opener is not None:
            folder = _java_opener(uri)
        if folder is None:
            raise
        return folder


def read_text(location: str | Location) -> str:
    """Return the content of a small text file, such as a config, at a path or a URI.

    Raises:
        OSError: the file cannot be read, or a path has more than :data:`MAX_TEXT` bytes.
        UnicodeDecodeError: it is not UTF-8.
        RunFolderError: no library of this process reads the file system.
    """
    location = parse_location(location)
    if isinstance(location, Path):
        # A log that is named instead of its config could fill the memory before the mistake is noticed.
        with location.open("rb") as stream:
            content = stream.read(MAX_TEXT + 1)
        if len(content) > MAX_TEXT:
            raise OSError(f"it has more than {MAX_TEXT // 2**20} MiB. Is it a log?")
        return content.decode("utf-8")
    return open_folder(location.with_name("")).read_text(location.name)


@dataclass(frozen=True)
class ArrowFolder:
    """A folder that is read and written through ``pyarrow.fs``.

    Attributes:
        uri: the URI of the folder.
        files: the file system of pyarrow.
        path: the path of the folder in ``files``.
    """

    uri: Uri
    files: pafs.FileSystem
    path: str

    @classmethod
    def open(cls, uri: Uri) -> ArrowFolder:
        """Return the folder of a URI.

        Raises:
            RunFolderError: pyarrow has no client for the file system, or cannot connect to it.
        """
        match = _URI.fullmatch(str(uri))
        if match is None:
            raise RunFolderError(f"{uri}: not a URI. Write it as scheme://host/path.")
        scheme = match[1].lower()
        root = f"{ARROW_SCHEMES.get(scheme, scheme)}://{match[2]}/"
        if root.startswith("s3:"):
            root += _endpoint_query()
        try:
            files, path = pafs.FileSystem.from_uri(root)
        except (OSError, ValueError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise RunFolderError(
                f"{uri}: this file system cannot be read without Spark: {reason}. Check the URI and the credentials,"
                " install recsys[spark], or copy the folder to this machine and name the copy."
            ) from error
        # Hadoop takes the path as it is written, while pyarrow would decode %20 in a URI.
        return cls(uri, files, path.rstrip("/") + match[3])

    def subfolder(self, name: str) -> ArrowFolder:
        """Return a folder inside this one."""
        return ArrowFolder(self.uri / name, self.files, f"{self.path}/{name}")

    def list_files(self) -> dict[str, FileStatus]:
        """Return the files below this folder: name -> status."""
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=True)
        infos = [info for info in self.files.get_file_info(selector) if info.type == pafs.FileType.File]
        prefix = len(self.path) + 1
        return {
            info.path[prefix:]: FileStatus(info.size, (info.mtime or datetime.fromtimestamp(0, UTC)).timestamp())
            for info in infos
        }

    def is_file(self) -> bool:
        """Return whether a file has the URI of this folder."""
        return bool(self.files.get_file_info(self.path).type == pafs.FileType.File)

    def read_text(self, name: str) -> str:
        """Return the content of a file."""
        with self.files.open_input_stream(f"{self.path}/{name}", compression=None) as stream:
            return str(stream.read().decode("utf-8"))

    def write_text(self, name: str, text: str) -> None:
        """Write or replace a file. In an object store, readers see it only when it is complete."""
        with self.files.open_output_stream(f"{self.path}/{name}", compression=None) as stream:
            stream.write(text.encode("utf-8"))

    def download(self, name: str, target: Path) -> None:
        """Copy a file to a path on this machine."""
        with (
            self.files.open_input_stream(f"{self.path}/{name}", compression=None) as stream,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(stream, file, BUFFER)

    def upload(self, source: Path, name: str) -> None:
        """Copy a file of this machine to this folder."""
        with (
            source.open("rb") as file,
            self.files.open_output_stream(f"{self.path}/{name}", compression=None) as stream,
        ):
            shutil.copyfileobj(file, stream, BUFFER)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        path = f"{self.path}/{name}"
        kind = self.files.get_file_info(path).type
        if kind == pafs.FileType.File:
            self.files.delete_file(path)
        elif kind == pafs.FileType.Directory:
            self.files.delete_dir(path)


def _endpoint_query() -> str:
    """Return the query of an S3 URI that names another server, or "" for that of Amazon."""
    for variable in ENDPOINT_VARIABLES:
        scheme, _, host = os.environ.get(variable, "").rpartition("://")
        if host:
            return f"?endpoint_override={host.rstrip('/')}&scheme={scheme or 'https'}"
    return ""
