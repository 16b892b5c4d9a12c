"""Locations of tables and run folders: a path, a ``file:`` URI, or a URI of another file system.

Only Spark reads tables of events, items and users on other file systems, and only Spark writes a
run there. Every verb that reads a run takes its URI (:mod:`recsys.storage`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import InputError

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = re.compile(r"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)


@dataclass(frozen=True)
class Uri:
    """The URI of a file or folder on another file system, such as ``s3a://bucket/runs/first``.

    It has no ``/`` at its end. A ``Path`` cannot hold it, because a ``Path`` makes one slash of two.

    >>> print(Uri("s3a://bucket/runs/first") / "metrics.json")
    s3a://bucket/runs/first/metrics.json
    """

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.rstrip("/"))

    def __truediv__(self, name: str) -> Uri:
        return Uri(f"{self.text}/{name}")

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """The text after the last ``/``."""
        return self.text.rpartition("/")[2]

    def with_name(self, name: str) -> Uri:
        """Return the URI of a file or folder beside this one."""
        return Uri(f"{self.text.rpartition('/')[0]}/{name}")


Location = Path | Uri
"""A file or folder: on a disk of this machine, or on another file system."""


def parse_location(location: str | Location) -> Location:
    """Return the path of a location on this machine, or the :class:`Uri` of any other."""
    if isinstance(location, Uri):
        return location
    if is_remote(location):
        return Uri(str(location))
    return local_path(location)


def is_remote(location: str | Location) -> bool:
    """Return whether a location is a URI of another file system, for example
    ``hdfs://host/clicks``.

    Paths and ``file:`` URIs are not remote.
    """
    return bool(_URI.match(str(location))) and not _LOCAL.match(str(location))


def local_paths(locations: Iterable[str | Location]) -> list[Path]:
    """Return the paths of the locations that are on this machine. Remote locations are left out."""
    return [local_path(location) for location in locations if not is_remote(location)]


def local_path(location: str | Location) -> Path:
    """Return the path of a location on this machine.

    ``file:///logs/clicks`` becomes ``/logs/clicks``. As in Hadoop, ``%20`` in a URI is not decoded:
    a blank is written as a blank.

    Raises:
        InputError: the location is on another file system.
    """
    if is_remote(location):
        raise InputError(
            f'{location}: only Spark reads this file system: set engine = "spark" in a config, or copy the file to'
            " this machine and name the copy."
        )
    return Path(_LOCAL.sub("", str(location), count=1))
