"""A pointer: a small file that names the bundle to serve, and is replaced in one step.

``recsys bundle RUN OUT --publish POINTER`` writes it when the bundle is complete. A server that
serves the pointer instead of a bundle reads it every second.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from recsys.atomic_writing import write_text
from recsys.errors import RunFolderError
from recsys.replacing import require_replaceable_file, starts_with

_START = '{"recsys": "pointer"'


def require_pointer(pointer: Path) -> None:
    """Check that a pointer may be written, before work that takes long.

    Raises:
        InputError: the path is a folder, a URI, a file that is not a pointer, or cannot be written.
        RunFolderError: the path is inside a run or a bundle.
    """
    require_replaceable_file(pointer, starts_with(_START), "--publish")


def write_pointer(pointer: Path, bundle: Path) -> None:
    """Write the path of a bundle into a pointer. An older pointer is replaced in one step.

    The path is stored relative to the folder of the pointer, so both can be moved together.

    Raises:
        InputError, RunFolderError: as for :func:`require_pointer`.
        OSError: the file cannot be written.
    """
    require_pointer(pointer)
    target = os.path.relpath(bundle.resolve(), pointer.resolve().parent)
    write_text(pointer, json.dumps({"recsys": "pointer", "bundle": target}, ensure_ascii=False) + "\n")


def follow_pointer(path: Path) -> Path:
    """Return the bundle that a pointer names. Any path that is not a file is returned unchanged.

    Raises:
        RunFolderError: the file is not a pointer.
    """
    if not path.is_file():
        return path
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return path.parent / card["bundle"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path}: neither a bundle nor a pointer to one. `recsys bundle RUN OUT --publish {path}` writes a pointer."
        ) from error
