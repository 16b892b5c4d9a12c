"""Which folders recsys may replace or remove: those that it wrote itself and that hold nothing
else.

A run folder and a bundle are replaced as a whole, so everything in the old folder is lost. A folder
is replaceable only if all of these are true:

* it is empty, or its ``manifest.json`` has the keys that :class:`recsys.runfolder.RunFolder` writes,
  with the kind of the folder (``run`` or ``bundle``), and ``_SUCCESS`` is there;
* the kind is the kind of the new folder: a run replaces a run, a bundle replaces a bundle;
* every file in it has a name that recsys writes there;
* nothing that the new folder is made from is inside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from recsys import run_files
from recsys.errors import RunFolderError
from recsys.run_files import MANIFEST, SUCCESS

Kind = Literal["run", "bundle"]

KIND = "kind"

MANIFEST_KEYS = frozenset(
    {
        "recsys",
        "python",
        "platform",
        "packages",
        "commit",
        "command",
        "seed",
        "data",
        "hops",
        "started",
        "finished",
    }
)
"""Keys of every manifest besides ``kind``; the manifests of version 0.1.0 have no ``kind``."""

# A table is one Parquet file of the local engine, or a folder of part files that Spark writes.
_SPARK_PARTS = r"(/(\.?(part-[^/]+|_(SUCCESS|metadata|common_metadata)(\.crc)?)))?"


def _any_of(*names: str) -> str:
    """Return the pattern of these file names."""
    return "|".join(map(re.escape, names))


def _any_model(name_of: Callable[[str], str]) -> str:
    """Return the pattern of the names that a function of :mod:`recsys.run_files` gives for any
    model.
    """
    return re.escape(name_of("MODEL")).replace("MODEL", "[^/]+")


_SEGMENT_FILES = _any_of(run_files.SEGMENTS, run_files.SEGMENT_SCORES, run_files.SEGMENT_USERS)

# The names in a run folder, of both engines and of `recsys report`. `recsys tune` writes a folder
# of its own: its study is not part of a run, so a folder that holds one is not replaced.
_RUN_FILES = (
    _any_of(SUCCESS, MANIFEST, run_files.CONFIG, run_files.REFUSED_ROWS),
    _any_of(run_files.REPORT_MARKDOWN, run_files.REPORT_HTML),
    _any_of(run_files.DATA_CARD, run_files.SPLIT_CARD, run_files.RULES_CARD),
    _any_of(run_files.METRICS, run_files.COLD_START, run_files.TRAINING, run_files.WATCHED),
    rf"({_any_of(run_files.ITEMS, run_files.TRAIN, run_files.HISTORY, run_files.TEST)}){_SPARK_PARTS}",
    rf"({_any_of(run_files.PER_USER)}|{_any_model(run_files.topk)}){_SPARK_PARTS}",
    _SEGMENT_FILES,
    rf"{run_files.REPORT_TABLES}/\d+-[a-z0-9-]*\.(csv|tex)",
    r"model/(.+/)?(model\.json|params\.json|\w+_\.np[yz])",
    rf"({_any_model(run_files.user_factors)}|{_any_model(run_files.item_factors)}){_SPARK_PARTS}",
)
_BUNDLE_FILES = (
    _any_of(SUCCESS, MANIFEST, run_files.CONFIG, run_files.METRICS),
    _any_of(run_files.BUNDLE_CARD, run_files.BUNDLE_USER_FACTORS),
    _any_of(run_files.ITEMS, run_files.HISTORY),
    _SEGMENT_FILES,
    r"model/(.+/)?(model\.json|\w+_\.np[yz])",
)
# What Spark leaves behind when it is killed while it writes.
_UNFINISHED_FILES = (r"\.work/.*", r".+\.parquet/_temporary/.*")

_FILES = {
    "run": re.compile("|".join(_RUN_FILES)),
    "bundle": re.compile("|".join(_BUNDLE_FILES)),
    "unfinished": re.compile("|".join((*_RUN_FILES, *_BUNDLE_FILES, *_UNFINISHED_FILES))),
}
_TEMPORARY = re.compile(r"\.([^/]+)\.part")


def require_replaceable(target: Path, kind: Kind, sources: Iterable[str | Path] = ()) -> None:
    """Refuse a place that a new folder of ``kind`` may not take.

    Args:
        sources: files and folders that the new folder is made from.

    Raises:
        RunFolderError: a file, a folder that recsys did not write, one of another kind, one that
            holds other files too, or one that holds a source.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise RunFolderError(f"{target}: a file is where the {kind} folder should go. Choose another folder.")
    if not any(target.iterdir()):
        return
    actual_kind = kind_of(target)
    if actual_kind is None:
        raise RunFolderError(
            f"{target}: not empty and not a folder that recsys wrote (no {MANIFEST} of a run or a"
            f" bundle with {SUCCESS}), so it is left alone. Choose another folder."
        )
    if actual_kind != kind:
        raise RunFolderError(
            f"{target}: this is a {actual_kind}, and a {kind} replaces only a {kind}. Choose another folder."
        )
    for source in sources:
        if Path(source).resolve().is_relative_to(target.resolve()):
            raise RunFolderError(
                f"{target}: {source} is read from this folder, so the {kind} cannot replace it. Choose another folder."
            )
    foreign = foreign_files(target, kind)
    if foreign:
        more = ""
        if len(foreign) > 1:
            more = f" and {len(foreign) - 1:,} more"
        raise RunFolderError(
            f"{target}: holds {foreign[0]}{more}, which no {kind} has, so the folder is left alone."
            " Move them out of it, or choose another folder."
        )


def kind_of(folder: Path) -> Kind | None:
    """Return the kind of a folder that recsys wrote and finished, None for any other folder."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or not (folder / SUCCESS).is_file():
        return None
    keys = set(manifest)
    if KIND in keys:
        if keys >= MANIFEST_KEYS and manifest[KIND] in ("run", "bundle"):
            return manifest[KIND]
        return None
    # Version 0.1.0 copied the manifest of the run into a bundle. Only bundles have a card.
    if keys == MANIFEST_KEYS:
        if (folder / run_files.BUNDLE_CARD).is_file():
            return "bundle"
        return "run"
    return None


def foreign_files(folder: Path, kind: Literal["run", "bundle", "unfinished"]) -> list[str]:
    """Return the paths, relative to ``folder``, of files that a folder of ``kind`` never has.

    ``unfinished`` is a run or a bundle whose writing was cut short.
    """
    foreign = []
    for parent, folders, files in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        # A link to a folder counts as a file: the files that it leads to are not in this folder.
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            temporary = _TEMPORARY.fullmatch(name)
            final_name = name
            if temporary:
                final_name = temporary[1]
            if not _FILES[kind].fullmatch((relative / final_name).as_posix()):
                foreign.append((relative / name).as_posix())
    return sorted(foreign)


def remove_orphans(target: Path, is_ours: Callable[[Path], bool] | None = None) -> None:
    """Remove what killed processes left beside ``target``; the folder of a killed swap is put back.

    Only ``.NAME.PID.part`` and ``.NAME.PID.old`` of a dead process are looked at, and only if their
    contents are those of a run or a bundle.

    Args:
        is_ours: decides by the contents in place of that rule.
    """
    orphan_name = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\.(part|old)")
    for orphan in list(target.parent.iterdir()):
        match = orphan_name.fullmatch(orphan.name)
        if match is None or Path(f"/proc/{match[1]}").exists():
            continue
        if orphan.is_symlink() or not orphan.is_dir():
            continue
        was_whole = match[2] == "old"
        # A folder that was moved aside was finished; one that was being written was not.
        if is_ours is not None:
            may_remove = is_ours
        elif was_whole:
            may_remove = _is_whole
        else:
            may_remove = _is_unfinished
        if not may_remove(orphan):
            continue
        if was_whole and not target.exists():
            orphan.rename(target)
        else:
            shutil.rmtree(orphan, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    kind = kind_of(folder)
    return kind is not None and not foreign_files(folder, kind)


def _is_unfinished(folder: Path) -> bool:
    return not foreign_files(folder, "unfinished")
