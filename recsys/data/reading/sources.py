"""Locations of tables: a file, a folder of parts that are read as one table, or a member of a zip
archive.

Both engines use this module for the parts of a folder, their order and their format.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from recsys.data.reading.read_settings import COMPRESSED, SUFFIXES, ReadSettings
from recsys.errors import InputError


def no_such_file(location: object) -> str:
    """Return the error message for a file or folder that does not exist."""
    if set(str(location)) & set("*?["):
        return (
            f"{location}: no such file or folder, and patterns are not expanded: name a folder, and all its files are"
            " read."
        )
    return f"{location}: no such file or folder. Paths are relative to the folder you run in."


@dataclass(frozen=True)
class Source:
    """The location of a table: a file, a folder of parts, or a member of a zip archive.

    Its text is what messages show: the URI, the path of the member, or the path.

    Attributes:
        path: the file, the folder, or the archive.
        member: the name of the member of the archive. None for a file or a folder.
        uri: the URI of a table on another file system, which messages show instead of the path.
    """

    path: Path
    member: str | None = None
    uri: str | None = None

    def __str__(self) -> str:
        if self.uri:
            return self.uri
        if self.member:
            return f"{self.path}/{self.member}"
        return str(self.path)

    @property
    def name(self) -> str:
        """The file name, whose suffix gives the format."""
        return self.member or self.path.name

    @property
    def compression(self) -> str | None:
        """The compression of the file by the suffix of its name: ``gzip``, ``zstd``, or None."""
        return COMPRESSED.get(Path(self.name).suffix.lower())

    def open(self) -> BinaryIO:
        """Open the file as a stream of decompressed bytes. The caller closes it.

        Raises:
            InputError: a member of an archive is encrypted, or compressed by a method that Python
                does not support.
            OSError: the file cannot be opened.
        """
        if self.member:
            try:
                return zipfile.ZipFile(self.path).open(self.member)  # type: ignore[return-value]
            except (RuntimeError, NotImplementedError) as error:
                raise InputError(
                    f"{self.path}: {self.member} cannot be unpacked ({error}): unpack the archive with another program"
                    " and name the folder."
                ) from error
        if self.compression == "gzip":
            return gzip.open(self.path)  # type: ignore[return-value]
        if self.compression:
            return pa.CompressedInputStream(pa.OSFile(str(self.path)), self.compression)
        return self.path.open("rb")

    @cached_property
    def parts(self) -> list[Source]:
        """The files of the table, as Sources.

        For a folder, they are its files at any depth, in the order of their paths. Files and
        folders whose names begin with a dot or an underscore are left out, for example Spark's
        ``_SUCCESS``. For a file or a member of an archive, the list has one entry.

        Raises:
            InputError: the file or folder does not exist, cannot be read, is the root of the file
                system, or has no files.
        """
        if self.member:
            return [self]
        if not self.path.exists():
            raise InputError(no_such_file(self))
        if not self.path.is_dir():
            return [self]
        if self.path.resolve() == Path(self.path.resolve().anchor):
            raise InputError(
                f"{self}: the root of the file system is not a table: name the file, or a folder of its parts."
            )
        try:
            files = [
                file
                for file in sorted(self.path.rglob("*"))
                if file.is_file() and not any(part[0] in "._" for part in file.relative_to(self.path).parts)
            ]
        except OSError as error:
            raise InputError(f"{self}: the folder cannot be read: {error}") from error
        if not files:
            raise InputError(f"{self}: a folder without files.")
        return [Source(file, uri=self._part_uri(file)) for file in files]

    def _part_uri(self, file: Path) -> str | None:
        if self.uri is None:
            return None
        return f"{self.uri.rstrip('/')}/{file.relative_to(self.path).as_posix()}"

    def open_parquet(self) -> Any:
        """Return the path from which pyarrow reads the Parquet file. A subclass may return a stream."""
        return self.path

    def format(self, reading: ReadSettings) -> str:
        """Return the format of the table: ``csv``, ``tsv``, ``jsonl`` or ``parquet``.

        It is ``reading.format`` unless that is ``auto``. Then the suffix of the file name gives it.
        A file with an unknown suffix is ``csv`` if ``reading.delimiter`` is set.

        Raises:
            InputError: the file or folder does not exist, a suffix is unknown, or parts have
                different formats.
        """
        if reading.format != "auto":
            return reading.format
        formats: dict[str, Source] = {}
        for part in self.parts:
            formats.setdefault(self._part_format(part, reading), part)
        if len(formats) > 1:
            (first, first_part), (second, second_part) = list(formats.items())[:2]
            raise InputError(
                f"{self}: {first_part.path.name} is {first} and {second_part.path.name} is {second}. A folder is read"
                " as one table, so all its files must have one format: keep the others elsewhere."
            )
        return next(iter(formats))

    def _part_format(self, part: Source, reading: ReadSettings) -> str:
        name = Path(part.name)
        if part.compression:
            name = name.with_suffix("")
        suffix = name.suffix.lower()
        if suffix in SUFFIXES:
            return SUFFIXES[suffix]
        # Only delimited text has a delimiter, so a file with one needs no known name.
        if reading.delimiter:
            return "csv"
        advice = "Set the format ([data] format, or --format), or for delimited text the delimiter."
        if part.path != self.path and part.member is None:
            advice += " A folder is read as one table: keep files that do not belong to it elsewhere."
        raise InputError(f"{part}: the format cannot be told from the name. {advice}")


def is_utf8(reading: ReadSettings) -> bool:
    """Return whether the settings say that text files are UTF-8."""
    return codecs.lookup(reading.encoding).name == "utf-8"


def text_lines(source: Source, reading: ReadSettings) -> Iterator[str]:
    """Yield the lines of one text file, with their line ends.

    Invalid bytes become lone surrogates, which validation refuses. A byte order mark of UTF-8 is
    skipped.

    Raises:
        InputError: the file is UTF-16, but the settings say UTF-8.
    """
    stream = source.open()
    start = stream.read(2)
    stream.close()
    utf8 = is_utf8(reading)
    if utf8 and start in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{source}: this is UTF-16. Save it as UTF-8, or set [data] encoding = 'utf-16'.")
    encoding = reading.encoding
    if utf8:
        encoding = "utf-8-sig"
    with io.TextIOWrapper(source.open(), encoding=encoding, errors="surrogateescape", newline="") as text:
        yield from text


def open_as_utf8(source: Source, reading: ReadSettings) -> BinaryIO:
    """Open a text file as a stream of UTF-8 bytes. Text in another encoding is converted.

    Invalid bytes stay invalid. The caller closes the stream.
    """
    stream = source.open()
    if is_utf8(reading):
        return stream
    return _Recoded(stream, reading.encoding)  # type: ignore[return-value]


def recode(data: bytes, encoding: str) -> bytes:
    """Convert text of another encoding to UTF-8. Invalid bytes stay invalid."""
    return data.decode(encoding, "surrogateescape").encode("utf-8", "surrogatepass")


class _Recoded(io.RawIOBase):
    """A stream that converts text of another encoding to UTF-8. Invalid bytes stay invalid."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")

    def read(self, size: int = -1) -> bytes:
        while True:
            piece = self._stream.read(size)
            text = self._decoder.decode(piece, final=not piece)
            if text or not piece:
                return text.encode("utf-8", "surrogatepass")

    def close(self) -> None:
        self._stream.close()
        super().close()
