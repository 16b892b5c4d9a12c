"""Locations of tables: a path, a ``file:`` URI, or a URI of another file system.

Only Spark reads tables on other file systems.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from recsys.errors import InputError

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = re.compile(r"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)


def is_remote(location: str | Path) -> bool:
    """Return whether a location is a URI of another file system, for example
    ``hdfs://host/clicks``.

    Paths and ``file:`` URIs are not remote.
    """
    return bool(_URI.match(str(location))) and not _LOCAL.match(str(location))


def local_paths(locations: Iterable[str | Path]) -> list[Path]:
    """Return the paths of the locations that are on this machine. Remote locations are left out."""
    return [local_path(location) for location in locations if not is_remote(location)]


def local_path(location: str | Path) -> Path:
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
