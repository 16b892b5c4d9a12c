"""The bundles that a server has open, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recsys.errors import ConfigError, suggest_nearest
from recsys.serving.answers import LoadedModel
from recsys.serving.problems import Problem
from recsys.serving.served_model import ServedModel


class Registry:
    """The served bundles. A request takes one from it and keeps that one until its answer.

    Args:
        paths: name -> the folder of a bundle or a run. The first is the default.

    Raises:
        RunFolderError: a bundle cannot be opened.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = dict(paths)
        self._models = {name: ServedModel.open(name, path) for name, path in self.paths.items()}
        self._refused = dict.fromkeys(self.paths, "")

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
        """Check that a served model has a weight for a type of event.

        Raises:
            Problem: none has.
        """
        if not any(model.accepts_event(event) for model in self._models.values()):
            types = self.model().saved.config.weigh.events
            raise Problem(
                422, f"no served bundle gives events of type {event!r} a weight.{suggest_nearest(str(event), types)}"
            )

    def models(self) -> list[ServedModel]:
        """Return all served models, the default first."""
        return list(self._models.values())

    def about(self) -> list[LoadedModel]:
        """Return what ``/ready`` says of each model."""
        return [model.about(self._refused[name]) for name, model in self._models.items()]


def parse_paths(texts: list[str]) -> dict[str, Path]:
    """Return name -> path of arguments such as ``bundles/als`` or ``name=bundles/als``.

    A path without a name has the name of its folder.

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
