"""Fingerprints of files: a SHA-256 of their contents."""

from __future__ import annotations

import hashlib
from pathlib import Path


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
