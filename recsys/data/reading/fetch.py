"""Public data sets from their own site: downloaded, checked against the published MD5, unpacked.

An interrupted download goes on where it stopped, in the same call and in the next one. What does not have the
published checksum is never unpacked.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

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
"""Data set -> MD5 of its archive; None: the site's own .md5 file beside the archive tells (``latest`` changes)."""

TRIES, PAUSE, TIMEOUT, BLOCK = 5, 2.0, 30.0, 1 << 18
"""Attempts without a new byte before giving up; seconds between two; seconds of silence; bytes a read."""

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


def fetch_data_set(name: str, folder: str | Path, *, progress: Progress | None = None) -> Path:
    """Return ``folder/name``, holding the unpacked data set; what is there already is not fetched again.

    Raises:
        ConfigError: no such data set.
        InputError: the site cannot be reached, breaks off again and again, or serves something else.
    """
    if name not in MD5:
        raise ConfigError(f"{name}: no data set that can be fetched.{suggest_nearest(name, MD5)}")
    folder = Path(folder)
    place, archive = folder / name, folder / f"{name}.zip.part"
    if place.is_dir():
        return place
    try:
        folder.mkdir(parents=True, exist_ok=True)
        url = f"{SITE}{name}.zip"
        expected = MD5[name] or _published_md5(url + ".md5")
        _download(url, archive, progress or (lambda done, total: None))
        found = _md5(archive)
        if found != expected:
            archive.unlink()
            raise InputError(
                f"{url}: what came is not the published archive: its MD5 is {found}, it should be {expected}."
                " It was deleted. Something between here and the site may have changed it; try again later."
            )
        _unpack(archive, place)
        archive.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot write here: {error.strerror or error}. Choose another --folder.") from error
    return place


def _published_md5(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 (SITE is https)
            text = response.read(1000).decode("ascii", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, error) from error
    digest = re.search(r"\b[0-9a-f]{32}\b", text.lower())
    if not digest:
        raise InputError(f"{url}: no MD5 in it, so the archive could not be checked. Try again later.")
    return digest.group()


def _download(url: str, path: Path, progress: Progress) -> None:
    """Bring ``path`` to the full length of ``url``, going on where it stops."""
    tries = 0
    while True:
        before = path.stat().st_size if path.exists() else 0
        try:
            if _go_on(url, path, before, progress):
                return
            error: Exception | None = None
        except urllib.error.HTTPError as problem:
            problem.close()
            if problem.code == 416 and before:  # nothing after what we have: whole, or something else
                return
            if problem.code < 500:
                raise _unreachable(url, problem) from problem
            error = problem
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
            ssl.SSLError,
        ) as problem:
            error = problem
        after = path.stat().st_size if path.exists() else 0
        tries = 0 if after > before else tries + 1
        if tries == TRIES or (error and isinstance(getattr(error, "reason", None), OSError) and not after):
            raise _unreachable(url, error)
        time.sleep(PAUSE)


def _go_on(url: str, path: Path, start: int, progress: Progress) -> bool:
    """Fetch what follows the first ``start`` bytes; True when that was all of it.

    A server without ranges sends everything from the beginning (200), and so the file is begun anew.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range") or "")
        if response.status == 206 and span and int(span.group(1)) == start:
            total = int(span.group(2))
        else:
            start, total = 0, int(response.headers.get("Content-Length") or 0)
        with path.open("r+b" if start else "wb") as file:
            file.seek(start)
            while block := response.read(BLOCK):
                file.write(block)
                progress(file.tell(), max(total, file.tell()))
            return file.tell() >= total


def _unreachable(url: str, error: Exception | None) -> InputError:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
    why = getattr(error, "reason", None) or error or "the connection breaks off again and again"
    return InputError(
        f"{url}: cannot be fetched: {why}. What came so far is kept, and the same command goes on from there."
        " Offline, download the archive elsewhere and pass the zip as [data] events, or use `recsys data make`."
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, place: Path) -> None:
    """Unpack aside and rename, so that ``place`` is whole or absent; archives hold one folder, of any name."""
    aside = place.with_name(f".{place.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(aside)
        inside = list(aside.iterdir())
        os.replace(inside[0] if len(inside) == 1 and inside[0].is_dir() else aside, place)
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive}: not a whole zip archive ({error}), although its MD5 is right.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
