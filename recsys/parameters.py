"""Check the parameters of models in one way, for all engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError

from recsys.errors import ConfigError, suggest_nearest

STRICT = ConfigDict(extra="forbid", strict=False)
"""Configuration of the pydantic dataclasses whose fields are a model's parameters."""


def is_class_path(kind: Any) -> bool:
    """Return whether a kind of model is the path of a user's own class: ``package.module:Class``."""
    return isinstance(kind, str) and ":" in kind


def build_from_parameters(
    cls: Any, params: Mapping[str, Any], label: str, elsewhere: Collection[str] = (), engine: str = ""
) -> Any:
    """Return ``cls(**params)`` after checking the parameters.

    Args:
        cls: a pydantic dataclass whose fields are the parameters.
        label: the start of an error message, for example ``model 'als'``.
        elsewhere: parameters that the model has only on the other engine.
        engine: the name of that other engine.

    Raises:
        ConfigError: a parameter is unknown (the message names the most similar one), belongs to the
            other engine, or is out of range.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    unknown = [key for key in params if key not in names]
    if misplaced := [key for key in unknown if key in elsewhere]:
        raise ConfigError(
            f"{label}: '{misplaced[0]}' is a parameter of the {engine} engine only: remove it, or set engine ="
            f" '{engine}'."
        )
    if unknown:
        hints = " ".join(f"unknown parameter '{key}'.{_hint(key, names)}" for key in unknown)
        raise ConfigError(f"{label}: {hints}")
    try:
        return cls(**params)
    except ValidationError as error:
        problems = "; ".join(
            f"{problem['loc'][0]}: {problem['msg']} (it is {problem['input']!r})" for problem in error.errors()
        )
        raise ConfigError(f"{label}: {problems}") from None


def _hint(key: str, names: list[str]) -> str:
    if not names:
        return " It takes none."
    return suggest_nearest(key, names)
