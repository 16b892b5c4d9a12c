"""The run folder, which is either complete or absent.

A run is written to a scratch folder beside its target (:mod:`recsys.atomic_writing`). When it is
complete, ``_SUCCESS`` is written as the last file, and the folder is moved to the target. So an
interrupted run leaves the previous run unchanged, and never a folder that looks complete. A folder
without ``_SUCCESS`` is not read.

A run of the Spark engine may also be at a URI (:mod:`recsys.run_versions`). Its files are copied to
this machine when they are first needed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from recsys.atomic_writing import NO_SPACE, new_file, new_folder, scratch_folder, write_text, write_texts
from recsys.errors import RunFolderError
from recsys.locations import Location, Uri, is_remote, parse_location
from recsys.replacing import KIND, MANIFEST_KEYS, Kind, is_unfinished, require_replaceable, resolve_target
from recsys.run_files import MANIFEST, SUCCESS, WORK
from recsys.run_versions import Version, new_version, open_version

PACKAGES = ("numpy", "scipy", "pandas", "pyarrow", "numba", "scikit-learn", "implicit", "pyspark")
"""The packages whose versions the manifest of a run has, if they are installed."""

DAMAGE = (LookupError, TypeError, ValueError, AttributeError, NotImplementedError, RecursionError, MemoryError)
"""The exceptions that reading a file may raise if recsys did not write its content."""


class RunFolder:
    """A run folder at ``path``, made by :meth:`writing` or :meth:`open`.

    Names of files are relative to this folder. :mod:`recsys.run_files` has them.

    Attributes:
        path: the folder. While a run is written, it is a scratch folder. Of a run at a URI it has
            only those files that were copied to this machine or are written by this process.
        name: the name of the folder when the run is complete.
        version: for a run at a URI, where its files are. None for a folder of this machine.
        location: the path or URI of the run, for messages.
    """

    def __init__(
        self,
        path: Path,
        name: str | None = None,
        version: Version | None = None,
        location: Location | None = None,
    ) -> None:
        self.path = path
        self.name = name or path.resolve().name
        self.version = version
        self.location: Location = location or path

    @classmethod
    @contextmanager
    def writing(
        cls, target: str | Location, kind: Kind = "run", sources: Iterable[str | Location] = ()
    ) -> Iterator[RunFolder]:
        """Yield an empty run folder to fill, and move it to ``target`` at the end of the block.

        If the block raises an exception, the new folder is removed and ``target`` stays as it is.

        Args:
            target: where the folder will be. An existing folder is replaced as a whole, but only if
                it is of the same kind. A run may be at a URI; a Spark session must be running then.
            kind: the kind of the new folder, "run" or "bundle".
            sources: files and folders from which the new folder is made. A target that contains one
                of them is not replaced.

        Raises:
            RunFolderError: ``target`` cannot be written, or may not be replaced
                (:mod:`recsys.replacing`).
        """
        with _write_errors_explained(target, kind):
            if kind == "run" and is_remote(target):
                uri = Uri(str(target))
                with new_version(uri, sources) as (scratch, folder):
                    yield cls(scratch, uri.name, Version(folder), uri)
                return
            final = resolve_target(target)
            check = partial(require_replaceable, kind=kind, sources=list(sources))
            with new_folder(final, check, is_unfinished) as part:
                yield cls(part, final.name)
                (part / SUCCESS).touch()

    @classmethod
    def require_writable(
        cls, target: str | Location, kind: Kind = "run", sources: Iterable[str | Location] = ()
    ) -> None:
        """Check that :meth:`writing` will be possible, before work that may take hours.

        The arguments are those of :meth:`writing`.

        Raises:
            RunFolderError: ``target`` cannot be written, or may not be replaced.
        """
        with _write_errors_explained(target, kind):
            final = resolve_target(target)
            require_replaceable(final, kind, sources)
            with scratch_folder(final, is_unfinished):
                pass

    @classmethod
    def open(cls, path: str | Location) -> RunFolder:
        """Return a complete run folder for reading.

        Args:
            path: a path, or the URI of a run on another file system.

        Raises:
            RunFolderError: there is no such folder, or it has no file ``_SUCCESS``.
        """
        path = parse_location(path)
        if isinstance(path, Uri):
            version = open_version(path)
            return cls(version.mirror, path.name, version, path)
        if not path.is_dir():
            raise RunFolderError(f"{path}: no such run folder. `recsys run CONFIG` makes one.")
        if not (path / SUCCESS).exists():
            raise RunFolderError(f"{path}: not a whole run (no {SUCCESS}): it is another folder, or was cut short.")
        return cls(path)

    def has(self, name: str) -> bool:
        """Return whether the folder has a file or a folder of this name."""
        return (self.path / name).exists() or (self.version is not None and self.version.has(name))

    def local(self, name: str) -> Path:
        """Return the path on this machine of a file or folder of the run, for reading.

        Of a run at a URI it is first copied to this machine. The path does not exist if the run has
        no such file.

        Raises:
            RunFolderError: a file cannot be copied.
        """
        path = self.path / name
        if self.version is None or (path.exists() and self.version.mirror != self.path):
            return path
        with damage_explained(self.location):
            return self.version.fetch(name)

    def uri_of(self, name: str) -> Location:
        """Return where a table of the run is, for Spark: an absolute path, or a URI."""
        if self.version is None:
            return self.path.resolve() / name
        return self.version.folder.uri / name

    def subfolder(self, name: str) -> RunFolder:
        """Make a folder inside this one, for the files of a fold, and return it.

        Raises:
            FileExistsError: the folder exists.
        """
        path = self.path / name
        path.mkdir(parents=True)
        version = None
        if self.version is not None:
            version = Version(self.version.folder.subfolder(name))
        return RunFolder(path, version=version, location=self.location)

    def remove_work(self) -> None:
        """Remove the folder of tables that only the run itself reads."""
        shutil.rmtree(self.path / WORK, ignore_errors=True)
        if self.version is not None:
            self.version.folder.remove(WORK)

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` as UTF-8 to the file ``name`` of this folder.

        Folders in ``name`` are created. An existing file is replaced, but only when the new one is
        complete.

        Args:
            name: the path of the file, relative to this folder.
            text: the whole content.

        Raises:
            OSError: the file cannot be written. An existing file is then unchanged.
        """
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)

    def write_texts(self, texts: Mapping[str, str], obsolete: Iterable[str] = ()) -> None:
        """Write several files that belong together, as :func:`recsys.atomic_writing.write_texts`
        does.

        In a complete run at a URI, one file after the other is replaced.

        Args:
            texts: file name -> text. At least one file.
            obsolete: the names of old files that are removed.

        Raises:
            RunFolderError: a file cannot be written. On this machine, all files are then as they
                were. At a URI, the files before it are already replaced.
        """
        try:
            if self.version is None or self.version.files is None:
                write_texts(self.path, texts, obsolete)
                return
            for name, text in texts.items():
                self.version.folder.write_text(name, text)
            for name in obsolete:
                self.version.folder.remove(name)
        except OSError as error:
            raise RunFolderError(f"{self.location}: cannot be written: {error}. Free some space.") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as JSON to the file ``name``, as :meth:`write_text` does.

        Values are converted by :func:`to_plain_json`, so NaN and infinity become null.

        Raises:
            OSError: the file cannot be written. An existing file is then unchanged.
            TypeError: ``value`` contains an object that JSON does not have, such as a date.
        """
        self.write_text(name, to_json_text(value))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as Parquet to the file ``name``, without its index.

        Folders in ``name`` are created. An existing file is replaced, but only when the new one is
        complete. In an empty table, columns of objects are written as text.

        Raises:
            OSError: the file cannot be written. An existing file is then unchanged.
        """
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        schema = None
        if table.empty:
            # A column of texts without a text would have no type, and readers compare ids with it.
            texts = [name for name in table if table[name].dtype == object]
            schema = pa.Schema.from_pandas(table.astype(dict.fromkeys(texts, "string")), preserve_index=False)
        with new_file(target) as part:
            table.to_parquet(part, index=False, schema=schema)

    def read_json(self, name: str) -> Any:
        """Return the value in the JSON file ``name``.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        with self._read_errors_explained(name):
            return json.loads(self.local(name).read_text(encoding="utf-8"))

    def read_object(self, name: str, **types: type) -> dict[str, Any]:
        """Return the JSON object in the file ``name`` as a dict, after checking some of its keys.

        Args:
            name: the path of the file, relative to this folder.
            types: key -> the type that its value must have. Keys without a type are not checked.

        Raises:
            RunFolderError: the file is missing or damaged, or a key is missing or has another type.
        """
        value = self.read_json(name)
        if not isinstance(value, dict):
            raise RunFolderError(f"{self._describe(name)}: damaged: it should be a JSON object. Run it again.")
        for key, expected in types.items():
            if not isinstance(value.get(key), expected):
                raise RunFolderError(
                    f"{self._describe(name)}: damaged: {key} should be of type {expected.__name__}. Run it again."
                )
        return value

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest as a dict. Its keys are described in :meth:`write_manifest`.

        Raises:
            RunFolderError: the manifest is missing or damaged, or a key is missing.
        """
        manifest = self.read_object(MANIFEST)
        missing = sorted(MANIFEST_KEYS - manifest.keys())
        if missing:
            raise RunFolderError(f"{self._describe(MANIFEST)}: damaged: it has no {missing[0]}. Run it again.")
        return manifest

    def read_table(
        self, name: str, columns: list[str] | None = None, row_filter: ds.Expression | None = None
    ) -> pd.DataFrame:
        """Return the table in the Parquet file, or folder of Parquet files, ``name``.

        Args:
            name: the path of the file or folder, relative to this folder.
            columns: the columns to read. None: all of them.
            row_filter: a condition on columns. Only rows for which it is true are read. None: all
                rows.

        Raises:
            RunFolderError: the file or folder is missing or damaged, or lacks one of the columns.
        """
        with self._read_errors_explained(name):
            if columns is None and row_filter is None:
                return pd.read_parquet(self.local(name))
            return ds.dataset(self.local(name)).to_table(columns=columns, filter=row_filter).to_pandas()

    def _describe(self, name: str) -> Location:
        """Return the path or URI of a file, for messages."""
        return self.location / name

    @contextmanager
    def _read_errors_explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (*DAMAGE, OSError) as error:
            raise RunFolderError(f"{self._describe(name)}: cannot be read: {error}. Run it again.") from error

    def write_manifest(
        self, *, seed: int, inputs: Mapping[str, str], hops: list[dict[str, Any]], started: datetime
    ) -> None:
        """Write the manifest, which says how to repeat the run, as ``manifest.json``.

        Its keys are:

        * ``kind``: "run";
        * ``recsys``, ``python``, ``packages``, ``platform``: versions, and the machine;
        * ``commit``: the commit of the code, or null;
        * ``command``: the command line;
        * ``seed``: the seed of the run;
        * ``data``: location of each input -> its fingerprint, if it is on this machine;
        * ``hops``: the seconds and memory of each step;
        * ``started``, ``finished``: ISO times.

        Args:
            seed: the seed of the run.
            inputs: path or URI of each file or folder that the run read -> its fingerprint
                (:func:`recsys.fingerprint.fingerprint_in_background`).
            hops: :attr:`recsys.meter.Meter.hops`.
            started: when the run started.

        Raises:
            OSError: the file cannot be written.
        """
        self.write_json(
            MANIFEST,
            {
                KIND: "run",
                "recsys": metadata.version("recsys"),
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                "packages": {name: version for name in PACKAGES if (version := _version(name))},
                "commit": _commit(),
                "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                "seed": seed,
                "data": dict(inputs),
                "hops": hops,
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )


def to_json_text(value: Any) -> str:
    """Return ``value`` as strict JSON text with a line end. :func:`to_plain_json` converts it
    first.

    Raises:
        TypeError: ``value`` contains an object that JSON does not have, such as a date.
    """
    return json.dumps(to_plain_json(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_plain_json(value: Any) -> Any:
    """Return ``value`` converted to types that JSON has.

    NumPy scalars become Python numbers. Arrays and tuples become lists. Keys of dicts become text.
    NaN and infinity become None. Everything else stays as it is.

    >>> to_plain_json({1: np.array([0.5, np.nan])})
    {'1': [0.5, None]}
    """
    if isinstance(value, dict):
        return {str(key): to_plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_plain_json(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    # JSON has no NaN and no infinity, and other languages refuse Python's spelling of them.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def damage_explained(folder: str | Location) -> Iterator[None]:
    """Convert an error that a damaged file causes in the block into a RunFolderError that names the
    folder.

    Args:
        folder: the folder that is read in the block.

    Raises:
        RunFolderError: the block raised one of :data:`DAMAGE`, or an OSError.
    """
    try:
        yield
    except (*DAMAGE, OSError) as error:
        raise RunFolderError(
            f"{folder}: one of its files is damaged or of another version ({type(error).__name__}: {error})."
            " Copy the folder again, or run it again."
        ) from error


@contextmanager
def _write_errors_explained(target: str | Location, kind: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "Choose another folder."
        if error.errno in NO_SPACE:
            advice = "Free some space, or choose a folder on another disk."
        raise RunFolderError(
            f"{target}: the {kind} folder cannot be written: {error}. What was there is unchanged. {advice}"
        ) from error


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source tree that contains this code, as 12 hexadecimal digits.

    A ``+`` at the end means that the working tree has uncommitted changes. The result is None if
    this is not a Git repository.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    version = commit.stdout.strip()[:12]
    # The code that ran is not that of the commit if there are changes in the working tree.
    if status.stdout.strip():
        version += "+"
    return version
