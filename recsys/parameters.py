"""Check the parameters of models in one way, for all engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError

from recsys.errors import ConfigError, describe_invalid_value, suggest_nearest

STRICT = ConfigDict(extra="forbid", strict=False)
"""The pydantic configuration of the dataclasses whose fields are a model's parameters.

Unknown parameters are refused. Values of a similar type are converted, for example "1" to 1.
"""


class NestedErrors(ValueError):
    """An error that says which models inside another model cannot be built.

    Attributes:
        lines: one message for each problem.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def is_class_path(kind: Any) -> bool:
    """Return whether a kind of model is the path of a custom class, ``package.module:Class``.

    Only text with a colon is such a path. It is not checked further.
    """
    return isinstance(kind, str) and ":" in kind


def build_from_parameters(
    cls: Any, params: Mapping[str, Any], label: str, elsewhere: Collection[str] = (), engine: str = ""
) -> Any:
    """Check the parameters of a model, and return ``cls(**params)``.

    Args:
        cls: a pydantic dataclass whose fields are the parameters.
        params: parameter -> value.
        label: the start of each line of an error message, for example ``model 'als'``.
        elsewhere: parameters that the model has only on the other engine.
        engine: the name of that other engine, "local" or "spark".

    Raises:
        ConfigError: a parameter is unknown (the message names the most similar one), belongs to the
            other engine, is missing, or has a value that is not allowed. The message has one line
            for each.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    unknown = [key for key in params if key not in names]
    lines = []
    for key in unknown:
        if key in elsewhere:
            lines.append(
                f"{label}: '{key}' is a parameter of the {engine} engine only: remove it, or set engine = '{engine}'."
            )
        else:
            lines.append(f"{label}: unknown parameter '{key}'.{_hint(key, names)}")
    try:
        built = cls(**{key: value for key, value in params.items() if key in names})
    except ValidationError as error:
        lines += _describe_problems(error, label)
    except ConfigError as error:
        lines += str(error).splitlines()
    if lines:
        raise ConfigError("\n".join(lines))
    return built


def _describe_problems(error: ValidationError, label: str) -> list[str]:
    """Return one line for each parameter about which pydantic reports errors."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for problem in error.errors():
        # The text after the name of a parameter is the name of one of its types.
        location: tuple[Any, ...] = (
            *problem["loc"][:1],
            *(part for part in problem["loc"][1:] if isinstance(part, int)),
        )
        groups.setdefault(location, []).append(problem)
    lines = []
    for location, problems in groups.items():
        if not location:
            lines += [f"{label}: {problem['msg'].removeprefix('Value error, ')}" for problem in problems]
            continue
        name = str(location[0])
        for entry in location[1:]:
            name = f"{name}, entry {entry + 1}"
        nested = problems[0].get("ctx", {}).get("error")
        if isinstance(nested, NestedErrors):
            lines += [f"{label}: {name}.{line}" for line in nested.lines]
        elif problems[0]["type"] == "missing":
            lines.append(f"{label}: {name}: missing; add it.")
        else:
            lines.append(f"{label}: {name}: {describe_invalid_value(problems)}")
    return lines


def build_each(build: Callable[[str], Any], names: Iterable[str]) -> dict[str, Any]:
    """Return a dict: name -> ``build(name)``, for the names of configured models.

    Args:
        build: returns the model of a name, or raises ConfigError.
        names: the names of the models.

    Raises:
        ConfigError: at least one model cannot be built. The message has the lines of all of them.
    """
    built = {}
    errors: dict[str, ConfigError] = {}
    for name in names:
        try:
            built[name] = build(name)
        except ConfigError as error:
            errors[name] = error
    if not errors:
        return built
    if len(errors) == 1:
        raise next(iter(errors.values()))
    # Sections of one kind have the same message, so it names the section too.
    raise ConfigError(
        "\n".join(f"[models.{name}] {line}" for name, error in errors.items() for line in str(error).splitlines())
    )


def check_nested(build: Callable[[str], Any], names: Iterable[str]) -> None:
    """Check that each model inside another model can be built.

    A validator of the parameter that names these models calls this function.

    Args:
        build: returns the model of a name, or raises ConfigError.
        names: the names of the inner models.

    Raises:
        NestedErrors: at least one model cannot be built. :func:`build_from_parameters` reports all
            errors.
    """
    lines = []
    for name in names:
        try:
            build(name)
        except ConfigError as error:
            lines += [f"{name}: {line}" for line in str(error).splitlines()]
    if lines:
        raise NestedErrors(lines)


def _hint(key: str, names: list[str]) -> str:
    if not names:
        return " It takes none."
    return suggest_nearest(key, names)
