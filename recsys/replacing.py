"""Rules for which files and folders recsys may replace or remove: only those that it wrote itself.

A run folder and a bundle are replaced as a whole, so everything in the old folder is lost. A folder
is replaceable only if all of these are true:

* it is empty; or it has a ``_SUCCESS``, and a ``manifest.json`` with the keys that
  :class:`recsys.runfolder.RunFolder` writes and with the kind of the folder (``run`` or ``bundle``);
* the kind is the kind of the new folder: a run replaces a run, a bundle replaces a bundle;
* every file in it has a name that recsys writes there;
* nothing that the new folder is made from is inside it;
* it is not inside another run or bundle, which would not be whole any more;
* it can be renamed: it is not a mount point and not the working folder, and its files can be
  removed.

A made-up world is replaced only if its files are unchanged. A file that the user names, for example
with ``--out``, is replaced only if it begins as the files that this command writes.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from recsys import run_files
from recsys.atomic_writing import SCRATCH_NAME
from recsys.errors import InputError, RunFolderError
from recsys.fingerprint import fingerprint
from recsys.locations import Location, Uri, local_paths, parse_location
from recsys.run_files import MANIFEST, SUCCESS

Kind = Literal["run", "bundle"]

KIND = "kind"
"""The key of a manifest or card that has the kind of the folder."""

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
"""Keys that every manifest has besides ``kind``. Version 0.1.0 wrote manifests without ``kind``."""

# A table is one Parquet file of the local engine, or a folder of part files that Spark writes.
_SPARK_PARTS = r"(/(\.?(part-[^/]+|_(SUCCESS|metadata|common_metadata)(\.crc)?)))?"


def _any_of(*names: str) -> str:
    """Return a regular expression that matches any of these file names."""
    return "|".join(map(re.escape, names))


def _any_model(name_of: Callable[[str], str]) -> str:
    """Return a regular expression that matches the file name that ``name_of`` gives for any model."""
    return re.escape(name_of("MODEL")).replace("MODEL", "[^/]+")


_SEGMENT_FILES = _any_of(run_files.SEGMENTS, run_files.SEGMENT_SCORES, run_files.SEGMENT_USERS)

# The names in a run folder, of both engines and of `recsys report`. `recsys tune` writes a folder
# of its own: its study is not part of a run, so a folder that holds one is not replaced.
_RUN_FILES = (
    _any_of(SUCCESS, MANIFEST, run_files.CONFIG, run_files.REFUSED_ROWS),
    _any_of(run_files.REPORT_MARKDOWN, run_files.REPORT_HTML),
    _any_of(run_files.DATA_CARD, run_files.SPLIT_CARD, run_files.RULES_CARD),
    _any_of(
        run_files.METRICS,
        run_files.COLD_START,
        run_files.BACKTEST,
        run_files.SAMPLED,
        run_files.TRAINING,
        run_files.WATCHED,
    ),
    rf"({_any_of(run_files.ITEMS, run_files.TRAIN, run_files.HISTORY, run_files.TEST)}){_SPARK_PARTS}",
    rf"({_any_of(run_files.PER_USER, run_files.POOLED_PER_USER)}|{_any_model(run_files.topk)}){_SPARK_PARTS}",
    _any_model(run_files.predictions),
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
_UNFINISHED_FILES = (r"\.work/.*", r".+\.parquet/(_temporary|__magic[^/]*)/.*")

_WORLD_FILES = re.compile(rf"(events|items|users)\.(csv|parquet)|{re.escape(run_files.WORLD_CARD)}")

_FILES = {
    "run": re.compile("|".join(_RUN_FILES)),
    "bundle": re.compile("|".join(_BUNDLE_FILES)),
    "unfinished": re.compile("|".join((*_RUN_FILES, *_BUNDLE_FILES, *_UNFINISHED_FILES))),
}


def resolve_target(target: str | Location) -> Path:
    """Return the absolute path of a new folder, with all symbolic links followed.

    The folder itself need not exist.

    Raises:
        RunFolderError: ``target`` is on another file system, cannot be the name of a folder, or contains a symbolic
            link to a path that does not exist.
    """
    target = parse_location(target)
    if isinstance(target, Uri) or _is_uri(target):
        raise RunFolderError(
            f"{target}: this is a URI, but a folder is written to a path on a disk. Choose a path; only a run with"
            ' engine = "spark" is written to a URI.'
        )
    if problem := _problem_of_name(target):
        raise RunFolderError(f"{str(target)!r}: the name of a folder {problem}. Choose another folder.")
    for path in (target, *target.parents):
        if path.is_symlink() and not path.exists():
            raise RunFolderError(
                f"{path}: a link to {os.readlink(path)}, which does not exist. Make that folder, or choose another one."
            )
    return Path(os.path.realpath(target))


def _is_uri(target: str | Path) -> bool:
    # A Path has lost one of the two slashes.
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(target)) is not None


def _problem_of_name(path: Path) -> str | None:
    """Return the reason why a file cannot have this name, as the end of a sentence, or None.

    The result is None if the name can be used.
    """
    if "\0" in str(path):
        return "cannot have a NUL character"
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "must be UTF-8 text"
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "is longer than this file system allows"
    return None


def require_replaceable(target: Path, kind: Kind, sources: Iterable[str | Location] = ()) -> None:
    """Check that a new run or bundle may be written at ``target``.

    It may if ``target`` does not exist, is an empty folder, or is an older folder of the same kind
    with only its own files.

    Args:
        target: as :func:`resolve_target` returns it.
        kind: the kind of the new folder, "run" or "bundle".
        sources: files and folders that the new folder is made from.

    Raises:
        RunFolderError: ``target`` is a file; is inside a run or a bundle; was not written by
            recsys; is of another kind; contains other files or one of the sources; or cannot be
            renamed.
    """
    _require_outside(target, "Choose another folder.")
    if not target.exists():
        return
    if not target.is_dir():
        raise RunFolderError(f"{target}: a file is where the {kind} folder should go. Choose another folder.")
    if any(target.iterdir()):
        _require_older(target, kind, sources)
    _require_movable(target, kind)


def _require_outside(target: Path, advice: str) -> None:
    """Check that a new file or folder does not lie in a complete run or bundle.

    Raises:
        RunFolderError: it does. A bundle with a further file is refused by its readers, and a run
            with one is not replaced.
    """
    for folder in Path(os.path.realpath(target)).parents:
        if kind := kind_of(folder):
            raise RunFolderError(
                f"{target}: {folder} is a {kind}, which holds only its own files, so it is left alone. {advice}"
            )


def _require_older(target: Path, kind: Kind, sources: Iterable[str | Location]) -> None:
    """Check that a folder is an older run or bundle of this kind, and has nothing else in it."""
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
    for source in local_paths(sources):
        if source.resolve().is_relative_to(target.resolve()):
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


def _require_movable(target: Path, kind: str) -> None:
    """Check that a folder can be renamed, and that its files can be removed."""
    if Path.cwd().is_relative_to(target):
        raise RunFolderError(
            f"{target}: this is the working folder or one above it, which a {kind} cannot replace."
            " Choose another folder."
        )
    if os.path.ismount(target):
        raise RunFolderError(
            f"{target}: a disk is mounted here, so the {kind} folder cannot be put in its place."
            " Choose a folder inside it."
        )
    parent = target.parent.stat()
    is_owner = os.geteuid() in (0, parent.st_uid, target.stat().st_uid)
    folders = [parent_folder for parent_folder, _, _ in os.walk(target)]
    if not all(os.access(folder, os.W_OK | os.X_OK) for folder in folders) or (
        # In a folder with the sticky bit, such as /tmp, only the owner may rename a folder.
        parent.st_mode & stat.S_ISVTX and not is_owner
    ):
        raise RunFolderError(f"{target}: you have no right to replace this folder. Choose another folder.")


def kind_of(folder: Path) -> Kind | None:
    """Return "run" or "bundle" for a complete folder that recsys wrote, and None for any other
    path.
    """
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
    """Return the files in ``folder`` that recsys never writes in a folder of this kind.

    The result is a sorted list of paths relative to ``folder``, with ``/`` as separator. A symbolic
    link to a folder counts as a file. Scratch files of an interrupted write are not listed.

    Args:
        kind: "run", "bundle", or "unfinished" for a run or a bundle whose writing was interrupted.
    """
    foreign = []
    for parent, folders, files in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        # A killed `recsys report` may have left these.
        folders[:] = [name for name in folders if not SCRATCH_NAME.fullmatch(name)]
        # A link to a folder counts as a file: the files that it leads to are not in this folder.
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            path = (relative / name).as_posix()
            if not SCRATCH_NAME.fullmatch(name) and not is_name_in(kind, path):
                foreign.append(path)
    return sorted(foreign)


def is_name_in(kind: Literal["run", "bundle", "unfinished"], name: str) -> bool:
    """Return whether recsys writes a file of this name, relative to the folder, in such a folder.

    Args:
        kind: as in :func:`foreign_files`.
    """
    return _FILES[kind].fullmatch(name) is not None


def is_unfinished(folder: Path) -> bool:
    """Return whether a folder has only files that an interrupted run or bundle may leave.

    It is True for an empty folder.
    """
    return not foreign_files(folder, "unfinished")


def is_unfinished_world(folder: Path) -> bool:
    """Return whether a folder has only files that an interrupted ``recsys data make`` may leave.

    It is True for an empty folder.
    """
    return all(_WORLD_FILES.fullmatch(name) or SCRATCH_NAME.fullmatch(name) for name in os.listdir(folder))


def require_replaceable_world(target: Path) -> None:
    """Check that new synthetic data (a *made-up world*) may be written at ``target``.

    It may if ``target`` does not exist, is an empty folder, or contains only unchanged synthetic
    data that recsys wrote.

    Raises:
        RunFolderError: ``target`` is a file, is inside a run or a bundle, contains other or changed
            files, or cannot be renamed.
    """
    _require_outside(target, "Choose another folder.")
    if not target.exists():
        return
    if not target.is_dir():
        raise RunFolderError(f"{target}: a file is where the folder should go. Choose another folder.")
    names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*"))
    sums = _world_sums(target)
    foreign = [name for name in names if name not in (run_files.WORLD_CARD, *sums)]
    if names and (foreign or not sums):
        name = next(iter(foreign), names[0])
        raise RunFolderError(
            f"{target}: holds {name}, which is not of a made-up world, so the folder is left alone."
            " Choose another folder."
        )
    for name, expected in sums.items():
        if (target / name).is_symlink() or not (target / name).is_file() or fingerprint(target / name) != expected:
            raise RunFolderError(
                f"{target}: {name} was changed after it was made, so the folder is left alone. Choose another folder."
            )
    _require_movable(target, "world")


def _world_sums(folder: Path) -> dict[str, str]:
    """Return file name -> fingerprint, as the card of a folder with synthetic data records them.

    The result is empty for any other folder.
    """
    try:
        card = json.loads((folder / run_files.WORLD_CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(card, dict) or card.get(KIND) != "world" or not isinstance(card.get("files"), dict):
        return {}
    return card["files"]


def require_study_folder(folder: Path) -> None:
    """Check that ``recsys tune`` may write its study into ``folder``.

    A study is the log and the results of one search. An older study in the folder is continued.

    Raises:
        InputError: ``folder`` is a URI.
        RunFolderError: ``folder`` is a file; is a run or a bundle or inside one; has a log that
            another program wrote; or has results of a search without its log.
    """
    require_output_path(folder / run_files.STUDY_LOG, "--out")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: a file is where the folder should go. Choose another --out.")
    log = folder / run_files.STUDY_LOG
    has_study = log.exists() and _is_study_log(log)
    if log.exists() and not has_study:
        raise RunFolderError(f"{log}: not the log of a search by recsys, so it is left alone. Choose another --out.")
    for name in (run_files.BEST_CONFIG, run_files.STUDY_RESULT, run_files.REPORT_HTML):
        if (folder / name).exists() and not has_study:
            raise RunFolderError(
                f"{folder / name}: exists already, and no search of recsys wrote it, so it is left alone."
                " Choose another --out."
            )


def _is_study_log(log: Path) -> bool:
    """Return whether a file is empty, or starts as the Optuna journal of a recsys search does."""
    try:
        with log.open("rb") as file:
            first_line = file.readline(2**16)
        # A search that was killed in its first moment leaves an empty file.
        if not first_line:
            return True
        record = json.loads(first_line)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("study_name") == run_files.STUDY_NAME


def require_output_path(path: Path, option: str) -> None:
    """Check that a file may have this path, before any folder is made for it.

    Args:
        path: the path of the file.
        option: the option that names the file or its folder, for the error message.

    Raises:
        InputError: ``path`` is a URI.
        RunFolderError: ``path`` is inside a run or a bundle.
    """
    if _is_uri(path):
        raise InputError(
            f"{path}: this is a URI, but the file is written to a path on a disk. Choose another {option}."
        )
    _require_outside(path, f"Choose another {option}.")


def require_replaceable_file(
    path: Path, is_ours: Callable[[bytes], bool], option: str, sources: Iterable[Path | None] = ()
) -> None:
    """Check that a command may write the file that the user named.

    It may write a new file, an empty file, a device, a pipe, or a file that the same command wrote.

    Args:
        path: the path of the file.
        is_ours: a function that returns whether the same command wrote a file. It is called with
            the first bytes of the file, at most 1 MiB.
        option: the option that names the file, for the error message.
        sources: files that the command reads. None is ignored.

    Raises:
        InputError: ``path`` is a folder, a URI, a link to nothing, in a folder that does not exist,
            write-protected, one of the sources, or a file of another program.
        RunFolderError: ``path`` is inside a run or a bundle.
    """
    require_output_path(path, option)
    advice = f"Choose another {option}."
    if problem := _problem_of_name(path):
        raise InputError(f"{str(path)!r}: the name of a file {problem}. {advice}")
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: a link to {os.readlink(path)}, which does not exist. {advice}")
    try:
        if path.is_dir():
            raise InputError(f"{path}: a folder is where the file should go. {advice}")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}. Make it, or choose another {option}.")
        if not path.exists():
            if not os.access(path.parent, os.W_OK | os.X_OK):
                raise InputError(f"{path}: you have no right to write in {path.parent}. {advice}")
            return
        if not os.access(path, os.W_OK):
            raise InputError(f"{path}: this file is write-protected. {advice}")
        if not path.is_file():
            return
        if any(source is not None and source.exists() and path.samefile(source) for source in sources):
            raise InputError(f"{path}: this file is read, so it is not replaced. {advice}")
        with path.open("rb") as file:
            start = file.read(2**20)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}. {advice}") from error
    if start and not is_ours(start):
        raise InputError(
            f"{path}: exists already, and recsys did not write it, so it is left alone."
            f" Remove it, or choose another {option}."
        )


def starts_with(text: str) -> Callable[[bytes], bool]:
    """Return a test for :func:`require_replaceable_file`: whether a file begins with ``text``
    (UTF-8).
    """
    return lambda start: start.startswith(text.encode())


def has_first_line(*lines: str) -> Callable[[bytes], bool]:
    """Return a test for :func:`require_replaceable_file`: whether the first line of a file is in
    ``lines``.

    Lines are compared as UTF-8 and without their line ends.
    """
    return lambda start: start.partition(b"\n")[0].rstrip(b"\r") in [line.encode() for line in lines]
