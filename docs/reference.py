"""Write docs/config.md from the settings classes themselves:  python docs/reference.py"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from recsys import models
from recsys.config import Config
from recsys.data.splitting.strategies import AnyRule
from recsys.spark.training.parameters import KINDS as SPARK_KINDS
from recsys.spark.training.parameters import kind_module

PAGE = Path(__file__).with_name("config.md")
HEAD = """# Every setting

Written by `python docs/reference.py` from the classes that read the settings; a test holds it to them. A config is a
TOML file; only `[data] events` is required, or the files of `[split] rule = "files"`. `--set section.key=value`
overrides a key; an unknown key is an error that names the nearest one. `recsys run` writes the whole, defaults spelled
out, into the run folder as `config.toml`.
"""


def page() -> str:
    """Return the page."""
    sections = [name for name, field in Config.model_fields.items() if _settings(field.annotation)]
    parts = [HEAD, _table("Top of the file", Config, but=[*sections, "split", "models"])]
    for name, field in Config.model_fields.items():
        section = _settings(field.annotation)
        if section:
            parts.append(_table(f"[{name}]", section))
        elif name == "split":
            parts.append("## [split]\n\nThe rule decides which further keys there are.\n")
            parts += [_rule(rule) for rule in _rules()]
        elif name == "models":
            parts.append(
                "## [models.NAME]\n\n`model` is the kind, by default NAME itself. Where `recsys tune` has a space of\n"
                "its own to search, it stands in the last column.\n"
            )
            parts += [_parameters(f"`{kind}`", models.kind_class(kind)) for kind in sorted(models.KINDS)]
            parts += [
                _parameters(f"`{kind}`, for ratings", models.kind_class(kind)) for kind in sorted(models.RATING_KINDS)
            ]
            parts += [_parameters(f"`{kind}` on Spark", kind_module(kind).PARAMETERS) for kind in SPARK_KINDS]
    return "\n".join(parts)


def _rules() -> list[type[BaseModel]]:
    return list(get_args(get_args(AnyRule)[0]))


def _settings(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _rule(rule: type[BaseModel]) -> str:
    """Return the table of a split rule; its name is the heading, and no key beside the others."""
    return _table(f'rule = "{rule.model_fields["rule"].default}"', rule, but=("rule",), level=3)


def _table(title: str, section: type[BaseModel], but: Sequence[str] = (), level: int = 2) -> str:
    rows = [
        [f"`{name}`", _field_type(field), _default(field), field.description or ""]
        for name, field in section.model_fields.items()
        if name not in but
    ]
    doc = _first_paragraph(section)
    return f"{'#' * level} {title}\n\n{doc}\n\n{_markdown(['key', 'type', 'default', 'meaning'], rows)}\n"


def _field_type(field: Any) -> str:
    """Return the type that a user writes, which a field names where it differs from its annotation."""
    schema = field.json_schema_extra or {}
    return schema.get("type") or _type(field.annotation)


def _parameters(title: str, found: Any) -> str:
    space, hints = getattr(found, "SPACE", {}), typing.get_type_hints(found, include_extras=True)
    rows = [
        [
            f"`{field.name}`",
            _type(hints[field.name]),
            _value(_of_field(field)),
            _meaning(hints[field.name]),
            _space(space.get(field.name)),
        ]
        for field in dataclasses.fields(found)
    ]
    doc = _first_paragraph(found)
    table = _markdown(["key", "type", "default", "meaning", "searched by tune"], rows) if rows else "It takes none."
    return f"### {title}\n\n{doc}\n\n{table}\n"


def _first_paragraph(documented: type) -> str:
    """Return the first paragraph of a docstring as one line."""
    lines = (documented.__doc__ or "").strip().partition("\n\n")[0].splitlines()
    return " ".join(line.strip() for line in lines)


def _of_field(field: Any) -> Any:
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory
    if hasattr(default, "get_default"):  # pydantic's FieldInfo
        return default.get_default(call_default_factory=True)
    return default() if callable(default) else default


def _meaning(annotation: Any) -> str:
    """Return the description that the annotation carries, or nothing."""
    descriptions = [getattr(part, "description", None) for part in getattr(annotation, "__metadata__", ())]
    return next(filter(None, descriptions), "")


def _space(values: Any) -> str:
    if values is None:
        return ""
    numbers = len(values) == 2 and all(isinstance(value, int | float) for value in values)
    return f"{values[0]:g} … {values[1]:g}" if numbers else ", ".join(map(str, values))


def _type(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return ", ".join(f'"{value}"' for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in inside if part is not type(None))
    if origin in (list, tuple):
        return f"list of {_type(inside[0])}"
    if origin is dict:
        return f"table of {_type(inside[1])}"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", ""), "anything"
    )


def _default(field: Any) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "**required**"
    return _value(field.get_default(call_default_factory=True))


def _value(value: Any) -> str:
    if value is None or value is dataclasses.MISSING or value is PydanticUndefined:
        return "unset" if value is None else "**required**"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return "{}" if value == {} else str(value)


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
