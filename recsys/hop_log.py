"""A file of JSON lines, one per step of a run, for dashboards that watch runs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.errors import ConfigError
from recsys.locations import is_remote, local_path
from recsys.logging import logger

LINE_BYTES = 2**16
"""Largest number of bytes of a line."""


@dataclass(frozen=True)
class HopLog:
    """A file to which each step (*hop*) of a run adds a line when it ends.

    Several runs may share a file, also at the same time.

    Attributes:
        path: the file.
        run: the run folder, as the config names it.
    """

    path: Path
    run: str

    @classmethod
    def open(cls, location: str, run: str) -> HopLog:
        """Check that lines can be added to a file, make it if there is none, and return its log.

        Args:
            location: the file. Its folder must exist.
            run: the run folder.

        Raises:
            ConfigError: the file is on another file system, is inside the run folder (which is
                replaced as a whole), has something other than such lines, or cannot be written.
        """
        if is_remote(location):
            raise ConfigError(f"hop_log '{location}': only a file on this machine can grow line by line: name a path.")
        path = local_path(location)
        if not is_remote(run) and path.resolve().is_relative_to(local_path(run).resolve()):
            raise ConfigError(
                f"hop_log '{location}': it is inside the run folder, which is replaced: name another path."
            )
        try:
            with path.open("ab+") as file:
                file.seek(0)
                first_line = file.readline(LINE_BYTES)
                if first_line and not _is_hop(first_line):
                    raise ConfigError(
                        f"hop_log '{location}': it has something other than steps of runs: name a new file."
                    )
                if first_line:
                    file.seek(-1, os.SEEK_END)
                    # A line that was cut off is kept apart from the next one.
                    if file.read(1) != b"\n":
                        file.write(b"\n")
        except OSError as error:
            raise ConfigError(
                f"hop_log '{location}': no line can be added to it: {error.strerror or error}."
            ) from error
        return cls(path, run)

    def add(self, hop: dict[str, Any]) -> None:
        """Add a line: the time at which the step ended (UTC), the run folder, and what ``hop`` has.

        A file that can no longer be written does not end the run.

        Args:
            hop: an entry of :attr:`recsys.meter.Meter.hops`, or one with the key ``error``.
        """
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "run": self.run} | hop
        text = json.dumps(line, ensure_ascii=False) + "\n"
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                # One call, so that lines of several runs do not mix.
                os.write(file, text.encode())
            finally:
                os.close(file)
        except OSError as error:
            logger.warning("%s: no line can be added to it: %s", self.path, error.strerror)


def _is_hop(line: bytes) -> bool:
    try:
        content = json.loads(line)
    except ValueError:
        return False
    return isinstance(content, dict) and {"time", "run", "name", "seconds"} <= content.keys()
