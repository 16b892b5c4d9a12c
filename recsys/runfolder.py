"""The run folder, which is either complete or absent.

A run is written to the folder ``.NAME.PID.part`` beside its target. When it is complete,
``_SUCCESS`` is written as the last file and the folder is renamed to the target. So a run that is
interrupted leaves the previous run unchanged, and no folder that looks complete. A folder without
``_SUCCESS`` is not read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.errors import RunFolderError
from recsys.replacing import KIND, Kind, remove_orphans, require_replaceable
from recsys.run_files import MANIFEST, SUCCESS

PACKAGES = ("numpy", "scipy", "pandas", "pyarrow", "numba", "scikit-learn", "implicit", "pyspark")


class RunFolder:
    """A run folder at ``path``: get one from :meth:`writing` or :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def writing(cls, target: str | Path, kind: Kind = "run", sources: Iterable[str | Path] = ()) -> Iterator[RunFolder]:
        """Give a ``with`` block an empty folder to fill.

        At the end of the block the folder replaces ``target``. If the block raises an exception,
        the folder is removed and ``target`` stays as it is.

        Args:
            kind: the kind of the new folder. An existing folder is replaced only if it is of the
                same kind.
            sources: files and folders from which the new folder is made. A target that contains
                one of them is not replaced.

        Raises:
            RunFolderError: ``target`` cannot be written, or may not be replaced
                (:mod:`recsys.replacing`).
        """
        target = Path(target)
        sources = list(sources)
        part = target.parent / f".{target.name}.{os.getpid()}.part"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_orphans(target)
            require_replaceable(target, kind, sources)
            part.mkdir()
        except OSError as error:
            raise RunFolderError(
                f"{target}: cannot write the run folder: {error.strerror}. Choose another `out`."
            ) from error
        try:
            yield cls(part)
            (part / SUCCESS).touch()
            # The work may have taken hours: files that came into the old folder meanwhile are kept.
            require_replaceable(target, kind, sources)
            _swap(part, target)
        except OSError as error:
            raise RunFolderError(
                f"{target}: writing the run failed: {error}. Free some space or choose another `out`."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Return a complete run folder for reading.

        Raises:
            RunFolderError: there is no such folder, or it has no file ``_SUCCESS``.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunFolderError(f"{path}: no such run folder. `recsys run CONFIG` makes one.")
        if not (path / SUCCESS).exists():
            raise RunFolderError(f"{path}: not a whole run (no {SUCCESS}): it is another folder, or was cut short.")
        return cls(path)

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` as UTF-8 to the file ``name`` of this folder, replacing an existing file.

        Folders in ``name`` are created. The text is written to a temporary file beside the target,
        which then takes its name. So the file ``name`` is never half-written.
        """
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, target)

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as JSON to the file ``name``, as :meth:`write_text` does.

        Values are converted by :func:`to_plain_json`, so NaN and infinity become null.
        """
        self.write_text(
            name,
            json.dumps(to_plain_json(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        )

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as Parquet to the file ``name``, without its index.

        As with :meth:`write_text`, an existing file is replaced and never half-written.
        """
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        table.to_parquet(part, index=False)
        os.replace(part, target)

    def read_json(self, name: str) -> Any:
        """Return the value in the JSON file ``name``.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name}: cannot be read: {error}. Run it again.") from error

    def read_table(self, name: str) -> pd.DataFrame:
        """Return the table in the Parquet file or folder ``name``.

        Raises:
            RunFolderError: the file or folder is missing or damaged.
        """
        try:
            return pd.read_parquet(self.path / name)
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name}: cannot be read: {error}. Run it again.") from error

    def write_manifest(self, *, seed: int, inputs: list[Path], hops: list[dict[str, Any]], started: datetime) -> None:
        """Write the manifest, which says how to repeat the run.

        It has the versions of the packages, the commit, the command, the seed, a fingerprint of
        each input, and the cost of each step (*hop*).
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
                "data": {str(path): fingerprint(path) for path in inputs},
                "hops": hops,
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )


def to_plain_json(value: Any) -> Any:
    """Return ``value`` with only types that JSON has.

    NumPy scalars become Python numbers, arrays and tuples become lists, keys become text, and NaN
    and infinity become None.
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


def fingerprint(path: Path) -> str:
    """Return "sha256:" and the SHA-256 hash of a file or folder in hexadecimal digits.

    For a folder, the hash is over the relative paths and the contents of all files in it.
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


def _swap(part: Path, target: Path) -> None:
    """Rename ``part`` to ``target``, and replace an existing folder.

    The old folder is removed only after the new one is in its place.
    """
    if target.exists():
        old = part.with_suffix(".old")
        target.rename(old)
        try:
            part.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        part.rename(target)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source tree that contains this code, 12 hexadecimal digits.

    A ``+`` at the end says that the working tree has changes. None if there is no Git repository.
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
