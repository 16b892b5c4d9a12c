"""A lock for the log of a study, which ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from optuna.storages.journal import JournalFileOpenLock


class StudyLock(JournalFileOpenLock):
    """Lets one process or thread at a time write into the log of a study.

    The operating system releases the lock when its holder ends, however it ends. The lock of Optuna
    is a file, which a killed process leaves behind; the next search would wait half a minute for
    it.
    """

    def __init__(self, log: Path) -> None:
        """Name the log, which need not exist yet."""
        super().__init__(str(log))
        self.log = log
        self._descriptor = -1

    def acquire(self) -> bool:
        """Wait until the lock is free, take it, and return True."""
        descriptor = os.open(self.log, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another thread may share this object, so it is changed only by the holder of the lock.
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let others take the lock."""
        os.close(self._descriptor)
