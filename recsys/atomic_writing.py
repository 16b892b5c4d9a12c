"""Atomic writing: a file or a folder gets its name only when all of it has been written.

Everything is written first into a scratch folder beside its target::

    .NAME.recsys-TOKEN.part    what is being written; TOKEN is random
    .NAME.recsys-TOKEN.lock    locked by the process that writes it
    .NAME.recsys-TOKEN.old     the old folder, only where two folders cannot change places

The operating system releases the lock when the process ends, however it ends. So a scratch folder
whose lock is free belongs to no living process, whatever the process ids are, also of containers
that share a disk. The next writer of the same target removes it.

A full disk, an error or Ctrl-C leaves the target as it was. After SIGKILL a scratch folder may
remain too.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_TOKEN = r"recsys-[0-9a-f]{16}"  # noqa: S105 - the pattern of a name, no secret

SCRATCH_NAME = re.compile(rf"\..+\.{_TOKEN}\.(part|lock|old)", re.DOTALL)
"""Names that only this module gives."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk."""

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def scratch_folder(target: Path, is_ours: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a new empty folder beside ``target``; what is in it at the end of the block is removed.

    Parents of ``target`` that are missing are made, and removed if they are still empty at the end.

    Args:
        is_ours: as for :func:`remove_leftovers`, which is called first.

    Raises:
        OSError: the folder cannot be made.
    """
    made_folders = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target, is_ours)
        lock, descriptor = _take_new_lock(target)
        part = lock.with_suffix(".part")
        try:
            part.mkdir()
            yield part
        finally:
            _clean_up(part, lock)
            os.close(descriptor)
    finally:
        with suppress(OSError):
            for folder in made_folders:
                folder.rmdir()


@contextmanager
def new_folder(
    target: Path, require_replaceable: Callable[[Path], None], is_ours: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends well, it takes the place of ``target``.

    Args:
        require_replaceable: raises an error if a folder may not be replaced. It is called before
            the block, after it, and on the old folder before that is removed.
        is_ours: as for :func:`remove_leftovers`.

    Raises:
        OSError: the folder cannot be written; ``target`` is unchanged.
    """
    require_replaceable(target)
    with scratch_folder(target, is_ours) as part:
        yield part
        # The block may have taken hours: files that came into the old folder meanwhile are kept.
        require_replaceable(target)
        replace_folder(part, target)
        try:
            require_replaceable(part)
        except Exception:
            # A file of the user came into the old folder in the last moment.
            replace_folder(part, target)
            require_replaceable(target)
            raise


@contextmanager
def new_file(target: str | Path) -> Iterator[Path]:
    """Yield a path to write a file to; when the block ends well, the file is moved to ``target``.

    A file that is there keeps its permissions. A link keeps leading to the new file. A device or a
    pipe, such as /dev/stdout, is written directly.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file() and not target.is_dir():
        yield target
        return
    with scratch_folder(target, lambda folder: set(os.listdir(folder)) <= {target.name}) as folder:
        part = folder / target.name
        yield part
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)


def write_text(target: str | Path, text: str) -> None:
    """Write a file as UTF-8, whole or not at all."""
    with new_file(target) as part:
        part.write_text(text, encoding="utf-8")


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write several files into ``folder``; none of them is replaced before all have been written.

    Args:
        texts: name, relative to the folder, -> text.
    """
    first = next(iter(texts))
    with scratch_folder(folder / Path(first).name) as scratch:
        parts = {}
        for number, (name, text) in enumerate(texts.items()):
            parts[name] = scratch / str(number)
            parts[name].write_text(text, encoding="utf-8")
        for name, part in parts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, folder / name)


def replace_folder(part: Path, target: Path) -> None:
    """Move the scratch folder ``part`` to ``target``; an older folder at ``target`` is then at ``part``.

    Where the file system can exchange two folders in one step (Linux: ext4, XFS, Btrfs, tmpfs),
    ``target`` is a whole folder at every moment. Elsewhere there is a moment without one, and
    :func:`remove_leftovers` puts the old one back if the process is killed just then. Of several
    writers at the same time, the last one wins.

    Raises:
        OSError: ``target`` cannot be replaced; it is unchanged.
    """
    while True:
        try:
            os.rename(part, target)
            return
        except OSError as error:
            # The target is a folder with files in it.
            if error.errno not in _NOT_EMPTY:
                raise
        try:
            _exchange(part, target)
            return
        except FileNotFoundError:
            # Another writer has just moved the target aside.
            continue
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
        if _move_aside_and_in(part, target):
            return


def remove_leftovers(target: Path, is_ours: Callable[[Path], bool] | None = None) -> None:
    """Remove the scratch folders of ``target`` whose process has ended.

    An old folder that was moved aside is put back if there is no ``target``.

    Args:
        is_ours: whether the content of such a folder lets it be removed; unset: any content.
    """
    pattern = re.compile(rf"(\.{re.escape(target.name)}\.{_TOKEN})\.(?:part|lock|old)")
    try:
        names = os.listdir(target.parent)
    except OSError:
        return
    for stem in {match[1] for name in names if (match := pattern.fullmatch(name))}:
        lock = target.with_name(f"{stem}.lock")
        with _lock_of_ended_process(lock) as is_free:
            if is_free:
                _remove_leftover(target, stem, is_ours or (lambda folder: True))
                lock.unlink(missing_ok=True)


@contextmanager
def mark_as_running(target: Path) -> Iterator[str]:
    """Yield a name that :func:`is_running` recognises in other processes until the block ends."""
    remove_leftovers(target)
    lock, descriptor = _take_new_lock(target)
    try:
        yield lock.name
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def is_running(folder: Path, name: str) -> bool:
    """Return whether the process that got ``name`` from :func:`mark_as_running` is in its block."""
    if not SCRATCH_NAME.fullmatch(name):
        return False
    with _lock_of_ended_process(folder / name) as is_free:
        return not is_free


def _clean_up(part: Path, lock: Path) -> None:
    """Remove a scratch folder and its lock, also if Ctrl-C comes while they are removed."""
    try:
        shutil.rmtree(part, ignore_errors=True)
        lock.unlink(missing_ok=True)
    except KeyboardInterrupt:
        _clean_up(part, lock)
        raise


def _take_new_lock(target: Path) -> tuple[Path, int]:
    """Make a lock file with a new name, lock it, and return its path and its open descriptor."""
    while True:
        lock = target.with_name(f".{target.name}.recsys-{secrets.token_hex(8)}.lock")
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        try:
            _lock(descriptor)
            # A writer that looked between the two calls above has taken the file for a leftover.
            if os.fstat(descriptor).st_nlink:
                return lock, descriptor
        except BlockingIOError:
            pass
        except BaseException:
            lock.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock an open file; do nothing where the file system has no locks.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        # Other writers get this error too, so none of them removes what may belong to this one.
        return


@contextmanager
def _lock_of_ended_process(lock: Path) -> Iterator[bool]:
    """Yield whether no living process holds a lock, and hold it during the block."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        # The lock file is made before its scratch folder, and removed after it.
        yield True
        return
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = True
        except OSError:
            is_free = False
        yield is_free
    finally:
        os.close(descriptor)


def _remove_leftover(target: Path, stem: str, is_ours: Callable[[Path], bool]) -> None:
    """Put back the old folder of an ended process if there is no target, and remove the rest."""
    for suffix in ("old", "part"):
        leftover = target.with_name(f"{stem}.{suffix}")
        if leftover.is_symlink() or not leftover.is_dir():
            continue
        if suffix == "old" and not target.exists():
            # Another writer may put its folder there just now: the next one removes this leftover.
            with suppress(OSError):
                leftover.rename(target)
        elif is_ours(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def _move_aside_and_in(part: Path, target: Path) -> bool:
    """Replace a folder in two steps; return whether ``target`` is the new one now."""
    old = part.with_suffix(".old")
    try:
        os.rename(target, old)
    except FileNotFoundError:
        return False
    try:
        os.rename(part, target)
    except BaseException as error:
        # Another writer has put its folder there in between, which may be replaced in turn.
        if isinstance(error, OSError) and error.errno in _NOT_EMPTY:
            shutil.rmtree(old, ignore_errors=True)
            return False
        # If another writer's folder is there by now, it stays: the later one wins.
        with suppress(OSError):
            os.rename(old, target)
        raise
    os.rename(old, part)
    return True


def _exchange(a: Path, b: Path) -> None:
    """Exchange two paths in one step.

    Raises:
        OSError: one of them is missing, or the system or the file system cannot do it.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(a), None, str(b))
