"""Write files and folders atomically: a target changes only when its new content is complete.

Everything is written first into a scratch folder beside its target::

    .NAME.recsys-TOKEN.part    what is being written; TOKEN is random
    .NAME.recsys-TOKEN.lock    locked by the process that writes it
    .NAME.recsys-TOKEN.old     the old folder, where two folders cannot be exchanged in one step

The operating system releases the lock when the process ends for any reason. So a scratch folder
whose lock is free belongs to a process that has ended. This also holds for containers that share a
disk, where process ids would mean nothing. The next process that writes the same target removes
such a folder.

A full disk, an error or Ctrl-C leaves the target unchanged. After SIGKILL a scratch folder may also
remain.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_TOKEN = r"recsys-[0-9a-f]{16}"  # noqa: S105 - the pattern of a name, no secret

SCRATCH_NAME = re.compile(rf"\..+\.{_TOKEN}\.(part|lock|old)", re.DOTALL)
"""Pattern of the names of scratch folders and locks. Nothing else has such a name."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers that mean that the disk, or the user's share of it, is full."""

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def scratch_folder(target: Path, is_ours: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a new empty folder beside ``target``, and remove it at the end of the block.

    Missing parent folders of ``target`` are made. Those that are still empty at the end of the
    block are removed.

    Args:
        target: the path that will be written. It need not exist.
        is_ours: passed to :func:`remove_leftovers`, which is called first.

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
    """Yield an empty folder to fill, and move it to ``target`` if the block ends without an error.

    An existing folder at ``target`` is replaced. If the block raises an error, ``target`` is
    unchanged.

    Args:
        target: where the folder will be.
        require_replaceable: a function that raises an error if a folder may not be replaced. It is
            called with ``target`` before and after the block, and with the old folder just before
            that folder is removed.
        is_ours: passed to :func:`remove_leftovers`.

    Raises:
        OSError: the folder cannot be written. ``target`` is then unchanged.
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
    """Yield a path to write to, and move that file to ``target`` if the block ends without an
    error.

    If ``target`` exists, the new file has the same permissions. If ``target`` is a symbolic link,
    the file that it leads to is replaced. A device or a pipe, such as /dev/stdout, is written
    directly.

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
    """Write ``text`` as UTF-8 to the file ``target``.

    An existing file is replaced, but only when the new file is complete.

    Raises:
        OSError: the file cannot be written. An existing file is then unchanged.
    """
    with new_file(target) as part:
        part.write_text(text, encoding="utf-8")


def write_texts(folder: Path, texts: Mapping[str, str], obsolete: Iterable[str] = ()) -> None:
    """Write several files that belong together into ``folder``, so that new files are never mixed
    with old ones.

    First, all new files are written under temporary names. Then the old files are moved aside. Only
    then do the new files get their names. If the process is killed in between, some files are
    missing. After an error or Ctrl-C the old files are moved back. If several processes write the
    same files, the last one wins.

    Args:
        folder: the folder. Missing folders are made.
        texts: file name, relative to the folder, -> the text of the file. At least one file.
        obsolete: the names of old files that are removed.

    Raises:
        OSError: a file cannot be written. All files are then as they were.
    """
    first = next(iter(texts))
    with scratch_folder(folder / Path(first).name) as scratch:
        parts = {}
        for number, (name, text) in enumerate(texts.items()):
            parts[folder / name] = scratch / str(number)
            (scratch / str(number)).write_text(text, encoding="utf-8")
        for target in parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        with _locked_folder(folder):
            _replace_files(parts, [folder / name for name in obsolete], scratch)


def _replace_files(parts: Mapping[Path, Path], obsolete: Iterable[Path], scratch: Path) -> None:
    """Give files their names, after all files that have these names were moved to ``scratch``.

    Args:
        parts: name -> file that gets it.
        obsolete: files that are moved to ``scratch`` too.
    """
    older = {target: scratch / f"{number}.old" for number, target in enumerate([*parts, *obsolete])}
    try:
        for target, aside in older.items():
            with suppress(FileNotFoundError):
                os.rename(target, aside)
        for target, part in parts.items():
            os.rename(part, target)
    except BaseException:
        for target, aside in older.items():
            if aside.exists():
                os.replace(aside, target)
            elif target in parts and not parts[target].exists():
                # A new file that no older one takes the place of.
                target.unlink()
        raise


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of the same block for a folder, if the file system supports locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_folder(part: Path, target: Path) -> None:
    """Move the scratch folder ``part`` to ``target``, and an existing folder at ``target`` to
    ``part``.

    Some file systems exchange two folders in one step (Linux: ext4, XFS, Btrfs, tmpfs). On these, a
    complete folder is at ``target`` at every moment. On others, ``target`` is missing for a moment.
    If the process is killed in that moment, :func:`remove_leftovers` puts the old folder back. If
    several processes write the same target, the last one wins.

    Raises:
        OSError: ``target`` cannot be replaced. It is then unchanged.
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
    """Remove the scratch folders of ``target`` whose processes have ended.

    If ``target`` is missing, an old folder that was moved aside is put back. Nothing happens if the
    parent folder of ``target`` cannot be read.

    Args:
        target: the path beside which the scratch folders are.
        is_ours: a function that returns whether a leftover folder may be removed, given its path.
            None allows it for every folder.
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
    """Hold a lock beside ``target`` during the block, and yield the name of its file.

    Other processes pass this name to :func:`is_running`.
    """
    remove_leftovers(target)
    lock, descriptor = _take_new_lock(target)
    try:
        yield lock.name
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def is_running(folder: Path, name: str) -> bool:
    """Return whether the :func:`mark_as_running` block that yielded ``name`` is still running.

    It is False if its process has ended for any reason, or if ``name`` is not the name of such a
    lock.

    Args:
        folder: the parent folder of the ``target`` of that block.
        name: the name of the lock.
    """
    if not SCRATCH_NAME.fullmatch(name):
        return False
    with _lock_of_ended_process(folder / name) as is_free:
        return not is_free


def _clean_up(part: Path, lock: Path) -> None:
    """Remove a scratch folder and its lock, and finish the removal even if Ctrl-C interrupts it."""
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
    """Lock an open file, or do nothing if the file system does not support locks.

    Raises:
        BlockingIOError: another process holds the lock.
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
    """Yield whether the process that made a lock has ended.

    If it has ended, the lock is held during the block. A lock whose file is missing also belongs to
    a process that has ended.
    """
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
    """Remove the scratch folders that an ended process left beside ``target``.

    If ``target`` is missing, the old folder that was moved aside is moved back to ``target``. A
    folder is removed only if ``is_ours`` returns True for it.

    Args:
        stem: the name of the scratch folders without their suffix ``.old`` or ``.part``.
    """
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
    """Replace a folder in two steps, and return whether the new folder is now at ``target``.

    False means that another process changed ``target`` in between, so the caller has to try again.
    """
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
    """Exchange two paths in one step of the file system.

    Raises:
        OSError: a path is missing, or the operating system or the file system does not support it.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(a), None, str(b))
