"""A lock for the log of a study, which ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from optuna.storages.journal import JournalFileOpenLock


class StudyLock(JournalFileOpenLock):
    """Lets one process or thread at a time write into the log of a study.

    The operating system releases the lock when the process that holds it ends, for any reason.
    Optuna's own lock is a file that remains if this process is killed, and then the next search
    would wait for half a minute.
    """

    def __init__(self, log: Path) -> None:
        """Store the path of the log, which need not exist yet."""
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
        """Release the lock, so that another process or thread can take it."""
        os.close(self._descriptor)
