"""Download public data sets from their own site, check the published MD5, and unpack them.

An interrupted download is resumed, within a call and by the next call. An archive is unpacked only
if its checksum is the published one.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from recsys.atomic_writing import scratch_folder
from recsys.errors import ConfigError, InputError, suggest_nearest

SITE = "https://files.grouplens.org/datasets/movielens/"
MD5: dict[str, str | None] = {
    "ml-latest-small": None,
    "ml-latest": None,
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": None,
}
"""Data set -> the MD5 of its archive.

None means that the archive changes, so its MD5 is read from the .md5 file of the site.
"""

TRIES = 5
"""The number of attempts in a row without a new byte after which a download fails."""

PAUSE = 2.0
"""The number of seconds between two attempts."""

TIMEOUT = 30.0
"""The number of seconds without an answer from the site after which an attempt fails."""

BLOCK = 1 << 18
"""The number of bytes that are read at a time."""

Progress = Callable[[int, int], None]
"""A function that reports progress. It is called with (bytes done, total bytes)."""


def fetch_data_set(name: str, folder: str | Path, *, progress: Progress | None = None) -> Path:
    """Download a public data set into ``folder/name``, and return this path.

    If this folder exists, nothing is downloaded. An interrupted download is resumed by the next
    call.

    Args:
        name: one of the keys of :data:`MD5`.
        folder: the parent folder. It is made if it does not exist.
        progress: called after each block of bytes. None: no progress is reported.

    Raises:
        ConfigError: the data set is unknown.
        InputError: the site cannot be reached, the connection breaks repeatedly, the checksum is
            wrong, or the folder cannot be written.
    """
    if name not in MD5:
        raise ConfigError(f"{name}: not a data set that can be fetched.{suggest_nearest(name, MD5)}")
    folder = Path(folder)
    target = folder / name
    archive = folder / f"{name}.zip.part"
    if target.is_dir():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        url = f"{SITE}{name}.zip"
        expected = MD5[name] or _published_md5(url + ".md5")
        _download(url, archive, progress or (lambda done, total: None))
        actual = _file_md5(archive)
        if actual != expected:
            archive.unlink()
            raise InputError(
                f"{url}: this is not the published archive: its MD5 is {actual}, it should be {expected}."
                " It was deleted. A proxy may have changed it; try again later."
            )
        _unpack(archive, target)
        archive.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}. Choose another --folder.") from error
    return target


def _published_md5(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 (SITE is https)
            text = response.read(1000).decode("ascii", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise _fetch_error(url, error) from error
    digest = re.search(r"\b[0-9a-f]{32}\b", text.lower())
    if not digest:
        raise InputError(f"{url}: it contains no MD5, so the archive cannot be checked. Try again later.")
    return digest.group()


def _download(url: str, path: Path, progress: Progress) -> None:
    """Download ``url`` to ``path``, continuing after the bytes that ``path`` already has."""
    tries = 0
    while True:
        size_before = _file_size(path)
        try:
            if _resume(url, path, size_before, progress):
                return
            error: Exception | None = None
        except urllib.error.HTTPError as problem:
            problem.close()
            # The server has nothing after our last byte. The checksum decides if the file is right.
            if problem.code == 416 and size_before:
                return
            if problem.code < 500:
                raise _fetch_error(url, problem) from problem
            error = problem
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
            ssl.SSLError,
        ) as problem:
            error = problem
        size_after = _file_size(path)
        # Only tries in a row that brought nothing count: a slow line may break many times.
        if size_after > size_before:
            tries = 0
        else:
            tries += 1
        if tries == TRIES or (error and isinstance(getattr(error, "reason", None), OSError) and not size_after):
            raise _fetch_error(url, error)
        time.sleep(PAUSE)


def _file_size(path: Path) -> int:
    if not path.exists():
        return 0
    return path.stat().st_size


def _resume(url: str, path: Path, start: int, progress: Progress) -> bool:
    """Download the bytes from position ``start`` on, and return whether the file is complete.

    A server that does not support ranges sends the whole file (status 200), which then replaces
    ``path``.
    """
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range") or "")
        if response.status == 206 and span and int(span.group(1)) == start:
            total = int(span.group(2))
        else:
            start = 0
            total = int(response.headers.get("Content-Length") or 0)
        with path.open("r+b" if start else "wb") as file:
            file.seek(start)
            while block := response.read(BLOCK):
                file.write(block)
                progress(file.tell(), max(total, file.tell()))
            return file.tell() >= total


def _fetch_error(url: str, error: Exception | None) -> InputError:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
    cause = getattr(error, "reason", None) or error or "the connection keeps breaking"
    return InputError(
        f"{url}: cannot be fetched: {cause}. The downloaded part is kept, and the same command resumes it."
        " Offline, download the archive elsewhere and pass the zip as [data] events, or use `recsys data make`."
    )


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    """Unpack an archive into a temporary folder, and move the result to ``target`` when it is
    complete.

    If the archive has a single folder, this folder becomes ``target``.
    """
    with scratch_folder(target) as temporary:
        try:
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(temporary)
        except zipfile.BadZipFile as error:
            raise InputError(f"{archive}: not a complete zip archive ({error}), although its MD5 is right.") from error
        entries = list(temporary.iterdir())
        # An archive with a single folder in it becomes that folder, not a folder in a folder.
        unpacked = temporary
        if len(entries) == 1 and entries[0].is_dir():
            unpacked = entries[0]
        os.replace(unpacked, target)
