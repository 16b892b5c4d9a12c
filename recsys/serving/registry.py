"""The bundles that a server has open, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG

from recsys.errors import ConfigError, RunFolderError, suggest_nearest
from recsys.saved.pointer import follow_pointer
from recsys.serving.answers import LoadedModel
from recsys.serving.problems import Problem
from recsys.serving.served_model import ServedModel, version_of


class Registry:
    """The served bundles. A request takes one from it and keeps that one until its answer.

    Args:
        paths: name -> the folder of a bundle or a run, or a pointer to one. The first is the default.

    Raises:
        RunFolderError: a bundle cannot be opened.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = dict(paths)
        self._seen = {name: _look(path) for name, path in self.paths.items()}
        self._models = {name: ServedModel.open(name, follow_pointer(path)) for name, path in self.paths.items()}
        self._refused = dict.fromkeys(self.paths, "")
        for model in self._models.values():
            model.warm()

    def moved_pointers(self) -> list[str]:
        """Return the names whose pointer was written since the last call, or since the start.

        A pointer whose bundle does not exist yet is looked at again at the next call.
        """
        names = []
        for name, path in self.paths.items():
            now = _look(path)
            if now != self._seen[name]:
                if not _target_exists(path):
                    self._refused[name] = "the pointer names a bundle that does not exist"
                    continue
                self._seen[name] = now
                names.append(name)
        return names

    def open_newer(self, name: str) -> ServedModel | None:
        """Open the bundle that a name stands for now, or return None if it is the one that is served.

        Raises:
            RunFolderError: it cannot be opened.
        """
        path = follow_pointer(self.paths[name])
        served = self._models[name]
        if path == served.path and version_of(path) == served.version:
            return None
        return ServedModel.open(name, path)

    def replace(self, model: ServedModel) -> None:
        """Serve ``model`` in place of the model of the same name, to all later requests.

        Requests that have begun keep the older model.
        """
        self._models[model.name] = model
        self._refused[model.name] = ""

    def refuse(self, name: str, reason: str) -> None:
        """Keep the reason why a newer bundle is not served, for ``/ready``; empty: there is no newer one."""
        self._refused[name] = reason

    def model(self, name: str | None = None) -> ServedModel:
        """Return a served model, or the first if no name is given.

        Raises:
            Problem: there is no such model.
        """
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            raise Problem(404, f"no model {name!r} is served.{suggest_nearest(name, self._models)}")
        return self._models[name]

    def check_event_type(self, event: str | None) -> None:
        """Check that each served model with weights of types has one for a type of event.

        One stored event of another type would stop every later training of that model.

        Raises:
            Problem: a model lacks the type.
        """
        for model in self._models.values():
            if model.accepts_event(event):
                continue
            types = model.saved.config.weigh.events
            if event is None:
                raise Problem(422, f"an event needs a type, event: model {model.name!r} knows {', '.join(types)}.")
            raise Problem(
                422,
                f"model {model.name!r} gives events of type {event!r} no weight.{suggest_nearest(event, types)}",
            )

    def like_event(self) -> str | None:
        """Return the type of event with the largest weight above 0, or None if no model has weights of types."""
        for model in self._models.values():
            weights = model.saved.config.weigh.events
            if weights and max(weights.values()) > 0:
                return max(weights, key=weights.__getitem__)
        return None

    def models(self) -> list[ServedModel]:
        """Return all served models, the default first."""
        return list(self._models.values())

    def about(self) -> list[LoadedModel]:
        """Return what ``/ready`` says of each model."""
        return [model.about(self._refused[name]) for name, model in self._models.items()]


def parse_paths(texts: list[str]) -> dict[str, Path]:
    """Return name -> path of arguments such as ``bundles/als`` or ``name=bundles/als``.

    A path without a name gets its last part as its name: "als" for ``bundles/als``. If a path exists
    whose own name has a ``=``, the whole text is this path.

    Raises:
        ConfigError: two bundles have the same name.
    """
    paths: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        # A path may contain "=", and then it has no name before it.
        if not equals or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if name in paths:
            raise ConfigError(f"two bundles are named {name!r}: write NAME=BUNDLE for one of them.")
        paths[name] = Path(path)
    return paths


def _look(path: Path) -> tuple[int, int] | None:
    """Return what tells one writing of a pointer from the next, or None if the path is no file.

    The text would not do: a bundle that is published again has the same name.
    """
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_mtime_ns, state.st_ino) if S_ISREG(state.st_mode) else None


def _target_exists(path: Path) -> bool:
    """Return whether the bundle of a pointer exists. A pointer that cannot be read counts: opening it says why."""
    try:
        return follow_pointer(path).exists()
    except RunFolderError:
        return True
