"""What is searched: parameter -> listed values or a range, from TOML or, by default, from the model's ``SPACE``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from recsys import models
from recsys.errors import ConfigError, suggest_nearest

WIDE = 10
"""A range whose high is at least so many times its low is searched on a logarithmic scale."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones if both are, by factors if ``log``."""

    low: float
    high: float
    log: bool

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = dict[str, Range | list[Any]]


def space_of(kind: str, wanted: dict[str, Any], where: str = "[tune.space]") -> Space:
    """Return the space of a kind of model: ``wanted`` if it names any parameter, else the model's own.

    >>> space_of("als", {"rank": [16, 32], "reg": {"low": 0.01, "high": 1.0}})
    {'rank': [16, 32], 'reg': Range(low=0.01, high=1.0, log=True)}

    Raises:
        ConfigError: a parameter that the model does not have, an empty list, a range that is none; or nothing is wanted
            and the model suggests nothing.
    """
    known = [name for name in models.parameters(kind) if name != "seed"]
    suggested = getattr(models.kind_class(kind), "SPACE", {})
    if not wanted and not suggested:
        raise ConfigError(
            f"{where}: '{kind}' suggests no space to search: list values of {', '.join(known) or 'nothing'}."
        )
    found: Space = {}
    for name, values in (wanted or suggested).items():
        if name not in known:
            raise ConfigError(f"{where} {name}: '{kind}' has no such parameter.{suggest_nearest(name, known)}")
        found[name] = _parsed(values, f"{where} {name}")
    return found


def grid_of(space: Space, where: str = "[tune.space]") -> list[dict[str, Any]]:
    """Return every combination of the listed values, the last parameter changing fastest.

    Raises:
        ConfigError: a parameter has a range.
    """
    if ranges := [name for name, values in space.items() if isinstance(values, Range)]:
        raise ConfigError(f"{where}: sampler = 'grid' needs listed values, but {', '.join(ranges)} has a range.")
    lists = [values for values in space.values() if isinstance(values, list)]
    return [dict(zip(space, chosen, strict=True)) for chosen in product(*lists)]


def _parsed(values: Any, where: str) -> Range | list[Any]:
    if isinstance(values, dict):
        if unknown := set(values) - {"low", "high", "log"}:
            raise ConfigError(f"{where}: unknown key '{min(unknown)}': write low, high and, if you like, log.")
        ends = (values.get("low"), values.get("high"))
        if not all(isinstance(end, int | float) for end in ends) or not ends[0] < ends[1]:  # type: ignore[operator]
            raise ConfigError(f"{where}: a range needs numbers low < high; it is {values}.")
        return _range(*ends, values.get("log"), where)  # type: ignore[arg-type]
    if isinstance(values, tuple) and len(values) == 2 and all(isinstance(end, int | float) for end in values):
        return _range(*values, None, where)
    if not values:
        raise ConfigError(f"{where}: an empty list: name the values to try.")
    return list(values)


def _range(low: float, high: float, log: bool | None, where: str) -> Range:
    if log and low <= 0:
        raise ConfigError(f"{where}: a logarithmic range starts above 0; low is {low}.")
    return Range(low, high, (low > 0 and high >= WIDE * low) if log is None else log)
