"""Fingerprints of files: a SHA-256 of their contents."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from recsys.locations import is_remote, local_path


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file or a folder, as ``sha256:`` and 64 hexadecimal digits.

    For a file, it is the hash of the content. For a folder, it is the hash of the relative paths
    and contents of all files in it and in its subfolders, in ascending order of the paths.

    Raises:
        OSError: the path does not exist, or a file cannot be read.
    """
    digest = hashlib.sha256()
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def fingerprint_in_background(locations: Sequence[str]) -> Future[dict[str, str]]:
    """Start to compute the fingerprints of tables, and return a Future of a dict: location ->
    fingerprint.

    A background thread reads the files; it does not keep the process alive. For a table that is on
    another file system or cannot be read, the dict has the reason in place of the fingerprint.

    Args:
        locations: paths or URIs of files and folders.
    """
    result: Future[dict[str, str]] = Future()

    def compute() -> None:
        try:
            result.set_result({location: _fingerprint_or_reason(location) for location in locations})
        except BaseException as error:
            # The caller would wait forever for a result.
            result.set_exception(error)

    threading.Thread(target=compute, name="recsys-fingerprint", daemon=True).start()
    return result


def _fingerprint_or_reason(location: str) -> str:
    if is_remote(location):
        return "not computed: on another file system"
    try:
        return fingerprint(local_path(location))
    except OSError as error:
        # The run itself says what is wrong with a table that it cannot read.
        return f"not computed: {error}"
