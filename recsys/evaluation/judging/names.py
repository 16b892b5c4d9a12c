"""Parse and write the names of metrics and measures of agreement: ``name[option=value,…]@k``.

A user asks for a measure by such a name, and results are labelled with the same name. A measure is
computed by a function. Its first parameter is the data. The other parameters have defaults and are
the options of the measure. The parameter ``k``, if there is one, is the cut-off.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from recsys.errors import ConfigError, RecsysError, suggest_nearest

_NAME = re.compile(r"(?P<name>[a-z_]+)(\[(?P<options>[^\[\]]*)\])?(@(?P<k>\d+))?")


@dataclass(frozen=True)
class MeasureName:
    """The parsed name of a measure. ``str`` returns it as text.

    Attributes:
        name: the measure, for example "ndcg".
        options: the (name, value) of each option that the text names, in the same order. Options
            that are not named have the defaults of the measure's function.
        k: the cut-off, ≥ 1, or None.

    >>> str(MeasureName("ndcg", (("gain", "exp"),), 10))
    'ndcg[gain=exp]@10'
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    k: int | None = None

    def __str__(self) -> str:
        options = ",".join(f"{key}={_written(value)}" for key, value in self.options)
        return self.name + (f"[{options}]" if options else "") + (f"@{self.k}" if self.k else "")

    def arguments(self) -> dict[str, Any]:
        """Return the options and the cut-off as keyword arguments of the measure's function.

        >>> MeasureName("ndcg", (("gain", "exp"),), 10).arguments()
        {'gain': 'exp', 'k': 10}
        """
        return dict(self.options) | ({"k": self.k} if self.k else {})

    def describe(self, function: Callable[..., Any], meanings: Mapping[str, str] | None = None) -> str:
        """Return one line of text that says what ``function`` computes with these options.

        The text is the first line of the function's docstring, then one sentence for each option in
        the name.

        Args:
            function: the function that computes the measure.
            meanings: ``option=value`` or ``option`` -> the text that explains it. An option without
                such a text is only named.
        """
        sentences = [(inspect.getdoc(function) or "").split("\n")[0]]
        for key, value in self.options:
            setting = f"{key}={_written(value)}"
            meaning = (meanings or {}).get(setting) or (meanings or {}).get(key)
            sentences.append(f"With {setting}: {meaning}." if meaning else f"With {setting}.")
        return " ".join(sentences)


NameT = TypeVar("NameT", bound=MeasureName)


def parse_name(text: str, functions: Mapping[str, Callable[..., Any]], kind: type[NameT]) -> NameT:
    """Parse the name of a measure, and return it as an object of the class ``kind``.

    The value of each option is converted to the type of the option's default. A default of None
    stands for a float.

    Args:
        text: the name, for example ``ndcg[gain=exp]@10``.
        functions: name -> function of every known measure. The parameters of the function after the
            first one are the options and ``k``.
        kind: :class:`MeasureName`, or a class that inherits from it.

    Raises:
        ConfigError: the text does not follow the grammar, the name or an option is unknown (the
            message suggests the nearest one), an option has a bad value, the cut-off is below 1, or
            the measure has no cut-off.
    """
    match = _NAME.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"metric {text!r}: write it as name@k or name[option=value]@k, for example ndcg@10")
    name = match["name"]
    k = match["k"]
    if name not in functions:
        raise ConfigError(f"metric {text!r}: unknown name.{suggest_nearest(name, functions)}")
    parameters = dict(list(inspect.signature(functions[name]).parameters.items())[1:])
    if k and "k" not in parameters:
        raise ConfigError(f"metric {text!r}: {name} takes no cut-off; leave '@{k}' out")
    if k and int(k) < 1:
        raise ConfigError(f"metric {text!r}: the cut-off must be at least 1")
    parameters.pop("k", None)
    options: dict[str, Any] = {}
    for option in filter(None, (match["options"] or "").split(",")):
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in parameters:
            if parameters:
                hint = suggest_nearest(key, parameters)
            else:
                hint = f" {name} takes none."
            raise ConfigError(f"metric {text!r}: unknown option '{key}'.{hint}")
        if key in options:
            raise ConfigError(f"metric {text!r}: {key} is given twice")
        options[key] = _read(text, key, value, parameters[key].default)
    return kind(name, tuple(options.items()), int(k) if k else None)


def parse_names(texts: Iterable[str], parse: Callable[[str], NameT]) -> list[NameT]:
    """Parse several names with the function ``parse``, and return its results in the same order.

    Args:
        texts: the names.
        parse: a function from the text of one name to the parsed name.

    Raises:
        ConfigError: some names cannot be parsed (one message has all the errors), or two results
            are equal.
    """
    names: list[NameT] = []
    problems = []
    for text in texts:
        try:
            names.append(parse(text))
        except RecsysError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    repeated = {str(name) for name in names if names.count(name) > 1}
    if repeated:
        raise ConfigError(f"metrics named twice: {', '.join(sorted(repeated))}")
    return names


def _read(text: str, key: str, value: str, default: Any) -> Any:
    """Convert the text of an option's value to the type of the option's default.

    If the default is None, the value is converted to float.
    """
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise ConfigError(f"metric {text!r}: {key} is {value!r}; it must be true or false")
        return value == "true"
    try:
        if default is None:
            return float(value)
        return type(default)(value)
    except ValueError:
        raise ConfigError(f"metric {text!r}: {key} is {value!r}, which is not a number") from None


def _written(value: Any) -> str:
    """Return the value of an option as it is written in a name: true or false for a bool."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
