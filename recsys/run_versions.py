"""A run folder on another file system: whole versions, and a small file that names the current one.

A folder cannot be renamed in one step in an object store, so a run is never moved. At its URI are::

    current.json                            names the current version, and its files with their sizes
    run-20260131T235959Z-0123456789abcdef/  a version: the files of a run folder, never changed
    run-…/                                  the version before it, or one that is being written

A version is written under a name of its own. When all its files are there, ``current.json`` is
replaced as the last step. So at every moment a reader finds a whole old or a whole new run:

* A reader reads ``current.json`` once, and then only files of that version, by name. So it needs no
  list of the folder to know what belongs to the run, and files of two runs are never mixed.
* A file that is missing or has another size, for example in a copy that was cut short, is an error.
* A driver that is killed leaves ``current.json`` as it was. Its version is not named by it.
* Of several writers, the last one that replaces ``current.json`` wins, as on a disk.

The version before the current one is kept, because jobs may still read it; the next run removes it.
A version that ``current.json`` does not name may belong to a running writer, and an object store has
no locks. So it is removed only after :data:`ABANDONED_DAYS` without any change.

The rules for what may be replaced are those of :mod:`recsys.replacing`. Only the files of the report
may change in a version: ``recsys report`` writes them again.
"""

from __future__ import annotations

import atexit
import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from recsys import run_files
from recsys.errors import RunFolderError
from recsys.locations import Location, Uri, is_remote
from recsys.replacing import KIND, is_name_in
from recsys.run_files import CURRENT, MANIFEST, SUCCESS, WORK
from recsys.storage import FileStatus, RemoteFolder, open_folder

ABANDONED_DAYS = 7
"""Days without any change after which a version that ``current.json`` does not name is removed.

Its driver was probably killed.
"""

_VERSION = re.compile(r"run-\d{8}T\d{6}Z-[0-9a-f]{16}")
_REPORT = re.compile(
    rf"{re.escape(run_files.REPORT_HTML)}|{re.escape(run_files.REPORT_MARKDOWN)}|{run_files.REPORT_TABLES}/.*"
)


@dataclass(frozen=True)
class Current:
    """The content of ``current.json``.

    Attributes:
        version: the name of the current version.
        previous: the name of the version before it, or None.
        files: file name -> size in bytes, of all files of the version. Only the files of the report
            may have other sizes, because ``recsys report`` writes them again.
    """

    version: str
    previous: str | None
    files: dict[str, int]

    @classmethod
    def parse(cls, text: str) -> Current | None:
        """Return the content of ``current.json``, or None for a file that recsys did not write."""
        try:
            card = json.loads(text)
            current = cls(card["version"], card["previous"], card["files"])
            is_ours = card[KIND] == "run" and all(isinstance(size, int) for size in current.files.values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        names = [current.version] + [current.previous] * (current.previous is not None)
        if is_ours and all(isinstance(name, str) and _VERSION.fullmatch(name) for name in names):
            return current
        return None

    def to_json(self) -> str:
        """Return the text of ``current.json``."""
        card = {
            KIND: "run",
            "recsys": metadata.version("recsys"),
            "version": self.version,
            "previous": self.previous,
            "files": self.files,
        }
        return json.dumps(card, indent=1, ensure_ascii=False) + "\n"

    def first_damage(self, files: dict[str, FileStatus]) -> str | None:
        """Return the first file name, in ascending order, that is missing or has another size.

        The files of the report are not looked at. None: no file is damaged.

        Args:
            files: the files that the version has now, by name.
        """
        for name, size in sorted(self.files.items()):
            if not _REPORT.fullmatch(name) and (name not in files or files[name].size != size):
                return name
        return None


@dataclass
class Version:
    """One version of a run, whose files are copied to this machine when they are first needed.

    Attributes:
        folder: the folder of the version.
        files: file name -> size in bytes. None for a version that is being written.
        mirror: the folder on this machine with the copies. It is removed when the process ends.
    """

    folder: RemoteFolder
    files: dict[str, int] | None = None
    mirror: Path = field(default_factory=lambda: _temporary_folder())

    def has(self, name: str) -> bool:
        """Return whether the version has a file or a folder of this name."""
        return bool(self.names(name))

    def names(self, name: str) -> list[str]:
        """Return the sorted names of the files in the folder ``name``; of a file, ``[name]``.

        Names are relative to the folder of the version. The empty text names that folder itself.
        The list is empty if there is neither a file nor a folder of this name.
        """
        if self.files is not None:
            return sorted(file for file in self.files if f"{file}/".startswith(f"{name}/" if name else ""))
        part = self.folder.subfolder(name)
        if part.is_file():
            return [name]
        return sorted(f"{name}/{file}" for file in part.list_files())

    def fetch(self, name: str) -> Path:
        """Copy a file or folder to this machine, unless it is there, and return its path.

        The path does not exist if the version has no such file.

        Raises:
            RunFolderError: a file is gone or was cut short.
        """
        for file in self.names(name):
            target = self.mirror / file
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.part")
            try:
                self.folder.download(file, part)
            except FileNotFoundError as error:
                raise RunFolderError(
                    f"{self.folder.uri}: {file} is gone: newer runs have replaced this one while it was read."
                    " Start the command again."
                ) from error
            expected = part.stat().st_size if self.files is None else self.files[file]
            if part.stat().st_size != expected and not _REPORT.fullmatch(file):
                raise RunFolderError(f"{self.folder.uri}: {file} was cut short or changed. Copy the run again.")
            part.rename(target)
        return self.mirror / name


def open_version(uri: Uri) -> Version:
    """Return the current version of the run at a URI, after a check that all its files are there.

    A folder without ``current.json`` is read too, if it has a ``_SUCCESS``: a run folder that was
    copied from a disk, or a single version.

    Raises:
        RunFolderError: there is no whole run, or the file system cannot be reached.
    """
    folder = open_folder(uri)
    with _unreachable_explained(uri):
        current = _read_current(folder)
        while current is not None:
            version = folder.subfolder(current.version)
            files = version.list_files()
            damage = current.first_damage(files)
            if damage is None:
                sizes = {name: size for name, size in current.files.items() if not _REPORT.fullmatch(name)}
                sizes |= {name: status.size for name, status in files.items() if _REPORT.fullmatch(name)}
                return Version(version, sizes)
            # A run that was replaced twice since then has been removed, so the newer one is read.
            older, current = current, _read_current(folder)
            if current == older:
                raise RunFolderError(
                    f"{uri}: not a whole run: {damage} is missing or was cut short. Copy the folder again, or run it"
                    " again."
                )
        sizes = {name: status.size for name, status in folder.list_files().items()}
    if not sizes:
        raise RunFolderError(f"{uri}: no such run folder.")
    if SUCCESS not in sizes:
        raise RunFolderError(
            f"{uri}: not a whole run (neither {CURRENT} nor {SUCCESS}): it is another folder, or was cut short."
        )
    return Version(folder, sizes)


@contextmanager
def new_version(uri: Uri, sources: Iterable[str | Location]) -> Iterator[tuple[Path, RemoteFolder]]:
    """Yield where a new run is written, and make it the current version at the end of the block.

    Yields two folders: one on this machine for the files that the driver writes, and the folder of
    the version, to which the executors write tables. The files of the first are copied to the
    second at the end. If the block raises an exception, the new version is removed.

    Args:
        uri: the URI of the run.
        sources: files and folders from which the run is made. A run that contains one of them is
            not replaced.

    Raises:
        RunFolderError: what is at the URI may not be replaced.
        OSError: the file system cannot be written.
    """
    folder = open_folder(uri)
    sources = list(sources)
    require_replaceable_run(folder, sources)
    name = f"run-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
    version = folder.subfolder(name)
    try:
        with tempfile.TemporaryDirectory(prefix="recsys-run-") as local:
            yield Path(local), version
            uploaded = _upload(Path(local), version)
        version.remove(WORK)
        version.write_text(SUCCESS, "")
        files = {file: status.size for file, status in version.list_files().items()}
        if missing := sorted({SUCCESS, *uploaded} - files.keys()):
            raise OSError(f"the file system does not list {missing[0]}, which has just been written")
        # The run may have taken hours: files that came to the URI meanwhile are kept.
        older = require_replaceable_run(folder, sources)
    except BaseException:
        with suppress(OSError):
            folder.remove(name)
        raise
    previous = None if older is None else older.version
    folder.write_text(CURRENT, Current(name, previous, files).to_json())
    with suppress(OSError):
        _remove_old_versions(folder, {name, previous}, None if older is None else older.previous)


def require_replaceable_run(folder: RemoteFolder, sources: Iterable[str | Location]) -> Current | None:
    """Check that a new run may be written at a URI, and return the current one, or None.

    It may if there is nothing, or a whole older run, or only versions that were never finished.

    Raises:
        RunFolderError: a file has this URI; or it is inside a run or bundle; or it holds anything
            else, an older run that is not whole, or one of the sources.
        OSError: the file system cannot be reached.
    """
    uri = folder.uri
    _require_outside_runs(uri)
    if folder.is_file():
        raise RunFolderError(f"{uri}: a file is where the run folder should go. Choose another folder.")
    files = folder.list_files()
    current = None
    if CURRENT in files:
        current = _read_current(folder)
    for name in sorted(files.keys() - {CURRENT} if current else files):
        version, _, file = name.partition("/")
        if not _VERSION.fullmatch(version) or not is_name_in("unfinished", file):
            raise RunFolderError(
                f"{uri}: holds {name}, which no run has, so the folder is left alone. Move it out, or choose another"
                " folder."
            )
    if current is None:
        return None
    if damage := current.first_damage(_files_of(files, current.version)):
        raise RunFolderError(
            f"{uri}: not a whole run ({damage} is missing or was cut short), so it is left alone. Choose another"
            " folder."
        )
    for source in sources:
        if is_remote(source) and f"{source}/".startswith(f"{uri}/"):
            raise RunFolderError(
                f"{uri}: {source} is read from this folder, so the run cannot replace it. Choose another folder."
            )
    return current


def _require_outside_runs(uri: Uri) -> None:
    """Check that no folder above a URI is a run or a bundle."""
    scheme, _, rest = str(uri).partition("://")
    parts = rest.split("/")
    for depth in range(2, len(parts)):
        above = Uri(f"{scheme}://{'/'.join(parts[:depth])}")
        # Whoever may write in a folder need not have the right to look at those above it.
        with suppress(OSError):
            folder = open_folder(above)
            is_copy = all(folder.subfolder(name).is_file() for name in (SUCCESS, MANIFEST))
            if is_copy or _read_current(folder) is not None:
                raise RunFolderError(
                    f"{uri}: {above} is a run or a bundle, which holds only its own files, so it is left alone."
                    " Choose another folder."
                )


def _read_current(folder: RemoteFolder) -> Current | None:
    """Return the content of ``current.json``, or None if it is missing or not of recsys."""
    try:
        return Current.parse(folder.read_text(CURRENT))
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _upload(local: Path, version: RemoteFolder) -> list[str]:
    """Copy the files that the driver wrote to the version, and return their names."""
    paths = {path.relative_to(local).as_posix(): path for path in local.rglob("*") if path.is_file()}
    names = sorted(name for name in paths if not name.startswith(f"{WORK}/"))
    for name in names:
        version.upload(paths[name], name)
    return names


def _files_of(files: dict[str, FileStatus], version: str) -> dict[str, FileStatus]:
    """Return the files of one version, by their names inside it."""
    prefix = f"{version}/"
    return {name.removeprefix(prefix): status for name, status in files.items() if name.startswith(prefix)}


def _remove_old_versions(folder: RemoteFolder, kept_versions: set[str | None], replaced: str | None) -> None:
    """Remove the versions that nobody needs any more.

    Args:
        folder: the folder of the run.
        kept_versions: the current version and the one before it.
        replaced: the version before these, or None. It is removed at once, the others when they are
            abandoned.
    """
    files = folder.list_files()
    # The clock of the store counts, which may differ from that of this machine.
    now = max((status.changed for status in files.values()), default=0.0)
    versions = {name.partition("/")[0] for name in files} - kept_versions
    for version in versions:
        old = _files_of(files, version)
        is_abandoned = max(status.changed for status in old.values()) < now - ABANDONED_DAYS * 86_400 if old else False
        is_ours = _VERSION.fullmatch(version) and all(is_name_in("unfinished", name) for name in old)
        if is_ours and (version == replaced or is_abandoned):
            folder.remove(version)


@contextmanager
def _unreachable_explained(uri: Uri) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{uri}: cannot be read: {error}. Check the URI and the credentials.") from error


def _temporary_folder() -> Path:
    """Make a folder on this machine that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="recsys-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
