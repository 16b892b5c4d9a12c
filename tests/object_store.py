"""An object store for tests: files by name, no folders, no rename, a listing that may lag, and a writer that dies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from recsys.locations import Uri
from recsys.storage import FileStatus


class Killed(BaseException):
    """Ends a writer as SIGKILL does: nothing that it does afterwards has any effect."""


@dataclasses.dataclass
class Store:
    """The objects, key -> (content, time of the last change), and what happens to those who use them."""

    objects: dict[str, tuple[bytes, float]] = dataclasses.field(default_factory=dict)
    clock: float = 1e9
    lag: bool = False
    """Whether objects that were written since this was set are missing in listings."""
    unlisted: set[str] = dataclasses.field(default_factory=set)
    changes: int = 0
    killed_after: int | None = None
    """The number of changes after which the writer is killed."""

    def change(self) -> None:
        if self.killed_after is not None and self.changes >= self.killed_after:
            raise Killed
        self.changes += 1

    def put(self, key: str, content: bytes) -> None:
        self.change()
        self.clock += 1
        self.objects[key] = (content, self.clock)
        if self.lag:
            self.unlisted.add(key)

    def open(self, uri: Uri) -> Folder:
        return Folder(uri, self)


@dataclasses.dataclass(frozen=True)
class Folder:
    """A RemoteFolder on a Store."""

    uri: Uri
    store: Store

    def _key(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def subfolder(self, name: str) -> Folder:
        return Folder(self.uri / name, self.store)

    def list_files(self) -> dict[str, FileStatus]:
        prefix = f"{self.uri}/"
        return {
            key.removeprefix(prefix): FileStatus(len(content), changed)
            for key, (content, changed) in self.store.objects.items()
            if key.startswith(prefix) and key not in self.store.unlisted
        }

    def is_file(self) -> bool:
        return str(self.uri) in self.store.objects

    def read_text(self, name: str) -> str:
        if self._key(name) not in self.store.objects:
            raise FileNotFoundError(self._key(name))
        return self.store.objects[self._key(name)][0].decode()

    def write_text(self, name: str, text: str) -> None:
        self.store.put(self._key(name), text.encode())

    def download(self, name: str, target: Path) -> None:
        if self._key(name) not in self.store.objects:
            raise FileNotFoundError(self._key(name))
        target.write_bytes(self.store.objects[self._key(name)][0])

    def upload(self, source: Path, name: str) -> None:
        self.store.put(self._key(name), source.read_bytes())

    def remove(self, name: str) -> None:
        # One object after the other, so that a killed writer leaves some of them.
        for key in sorted(self.store.objects):
            if key == self._key(name) or key.startswith(f"{self._key(name)}/"):
                self.store.change()
                del self.store.objects[key]


def copy_run(folder: Path, store: Store, uri: str) -> None:
    """Copy the files of a folder of this machine to a store, as `aws s3 cp --recursive` does."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        store.put(f"{uri}/{path.relative_to(folder).as_posix()}", path.read_bytes())
