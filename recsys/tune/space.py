"""The search space: parameter -> list of values or range, from TOML or from the model's ``SPACE``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from recsys import models
from recsys.errors import ConfigError, suggest_nearest

LOG_RATIO = 10
"""A range with low > 0 and high / low of at least this is searched on a logarithmic scale by
default."""


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both included.

    Attributes:
        low, high: the smallest and the largest number, low < high.
        log: whether numbers are drawn uniformly on a logarithmic scale. False: on a linear scale.
    """

    low: float
    high: float
    log: bool

    @property
    def is_integer(self) -> bool:
        """Whether only integers are drawn, because both ends are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = dict[str, Range | list[Any]]
"""A search space: name of a parameter -> the range or the list of values to try."""


def search_space(kind: str, requested: dict[str, Any], location: str = "[tune.space]") -> Space:
    """Return the search space of a kind of model: the requested one, or else the model's own.

    The model's own space is the attribute ``SPACE`` of its class.

    Args:
        kind: the kind of the model, such as "als".
        requested: parameter -> list of values, or a dict with ``low``, ``high`` and optionally
            ``log``. Empty: the model's own space is used.
        location: where the space was written, for error messages.

    Raises:
        ConfigError: the model does not have a parameter, a list is empty, a range is not valid, or
            nothing is requested and the model has no space of its own.

    >>> search_space("als", {"rank": [16, 32], "reg": {"low": 0.01, "high": 1.0}})
    {'rank': [16, 32], 'reg': Range(low=0.01, high=1.0, log=True)}
    """
    parameters = [name for name in models.parameters(kind) if name != "seed"]
    space = requested or models.kind_class(kind).SPACE
    if not space:
        raise ConfigError(
            f"{location}: '{kind}' suggests no space to search: list values of {', '.join(parameters) or 'nothing'}.",
        )
    parsed: Space = {}
    for name, values in space.items():
        if name not in parameters:
            raise ConfigError(
                f"{location} {name}: '{kind}' has no such parameter.{suggest_nearest(name, parameters)}",
            )
        parsed[name] = _parse_values(values, f"{location} {name}")
    return parsed


def grid_points(space: Space, location: str = "[tune.space]") -> list[dict[str, Any]]:
    """Return all combinations of the listed values of a space, one dict parameter -> value each.

    The value of the last parameter changes fastest.

    Args:
        space: a search space of lists alone.
        location: where the space was written, for error messages.

    Raises:
        ConfigError: a parameter has a range.

    >>> grid_points({"rank": [16, 32], "seed": [1]})
    [{'rank': 16, 'seed': 1}, {'rank': 32, 'seed': 1}]
    """
    if ranges := [name for name, values in space.items() if isinstance(values, Range)]:
        raise ConfigError(
            f"{location}: sampler = 'grid' needs listed values, but {', '.join(ranges)} has a range.",
        )
    lists = [values for values in space.values() if isinstance(values, list)]
    return [dict(zip(space, point, strict=True)) for point in product(*lists)]


def at_most(values: Range | list[Any], limit: int) -> Range | list[Any]:
    """Return the numbers to try for a parameter, with those above ``limit`` lowered to it.

    Values of a list that become equal are listed once. The upper end of a range is lowered. A range
    whose lower end is ``limit`` or more becomes the list with ``limit`` alone.

    Args:
        values: the numbers to try, as a list or a range.
        limit: the largest number that is allowed.

    >>> at_most([16, 100, 200], 64)
    [16, 64]
    """
    if isinstance(values, list):
        return list(dict.fromkeys(min(value, limit) for value in values))
    if values.low >= limit:
        return [limit]
    return Range(values.low, min(values.high, limit), values.log)


def _parse_values(values: Any, location: str) -> Range | list[Any]:
    """Return the values of one parameter as a list or a Range.

    A dict is a range of TOML, a tuple of two numbers is a range of a model's ``SPACE``, and
    anything else is a list.
    """
    if isinstance(values, dict):
        if unknown := set(values) - {"low", "high", "log"}:
            raise ConfigError(
                f"{location}: unknown key '{min(unknown)}': write low, high and optionally log.",
            )
        low = values.get("low")
        high = values.get("high")
        if not isinstance(low, int | float) or not isinstance(high, int | float) or not low < high:
            raise ConfigError(f"{location}: a range needs numbers low < high; it is {values}.")
        return _make_range(low, high, values.get("log"), location)
    if isinstance(values, tuple) and len(values) == 2 and all(isinstance(end, int | float) for end in values):
        return _make_range(*values, None, location)
    if not values:
        raise ConfigError(f"{location}: an empty list: name the values to try.")
    return list(values)


def _make_range(low: float, high: float, log: bool | None, location: str) -> Range:
    if log and low <= 0:
        raise ConfigError(f"{location}: a logarithmic range starts above 0; low is {low}.")
    if log is None:
        log = low > 0 and high >= LOG_RATIO * low
    return Range(low, high, log)
