"""The run folder: written aside, swapped in whole, read back only when whole.

A run is built in ``.NAME.PID.part`` beside its target and renamed there when it is complete, with
``_SUCCESS`` written last. So a run that is cut short leaves the previous one untouched and nothing
that looks whole.
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
        """Give a folder to fill; when the block ends well it replaces ``target``, else it is
        removed.

        Args:
            kind: what the folder will be; it replaces only a folder of this kind.
            sources: files and folders that it is made from; a target that holds one is not
                replaced.

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
        """Return a whole run folder for reading.

        Raises:
            RunFolderError: no folder there, or no ``_SUCCESS`` in it.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunFolderError(f"{path}: no such run folder. `recsys run CONFIG` makes one.")
        if not (path / SUCCESS).exists():
            raise RunFolderError(f"{path}: not a whole run (no {SUCCESS}): it is another folder, or was cut short.")
        return cls(path)

    def write_text(self, name: str, text: str) -> None:
        """Write ``name`` atomically."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, target)

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as strict JSON: NaN becomes null, NumPy scalars become numbers."""
        self.write_text(
            name,
            json.dumps(to_plain_json(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        )

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write ``name`` as Parquet, atomically."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        table.to_parquet(part, index=False)
        os.replace(part, target)

    def read_json(self, name: str) -> Any:
        """Return the JSON of ``name``; a missing or damaged file is a RunFolderError."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name}: cannot be read: {error}. Run it again.") from error

    def read_table(self, name: str) -> pd.DataFrame:
        """Return the Parquet file or folder ``name``; a missing or damaged one is a
        RunFolderError.
        """
        try:
            return pd.read_parquet(self.path / name)
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name}: cannot be read: {error}. Run it again.") from error

    def write_manifest(self, *, seed: int, inputs: list[Path], hops: list[dict[str, Any]], started: datetime) -> None:
        """Write what one needs to know to run this again: versions, commit, seed, inputs, cost of
        each hop.
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
    """Return ``value`` with NumPy scalars and arrays as Python's, and every non-finite float as
    None.
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
    """Return a SHA-256 over the contents of a file, or over names and contents below a folder."""
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
    """Put ``part`` at ``target``; what stood there goes only once the new run is in."""
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
    """Return the commit of the source tree that this code runs from, with ``+`` when it has
    changes.
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
