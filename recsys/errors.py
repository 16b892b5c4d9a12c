"""The exceptions of recsys, as a tree.

    RecsysError                 exit code 1, unless a class below says otherwise
    ├── InputError              2   the data: a file, a row, a column, an id
    ├── ConfigError             2   the config file, a parameter, a metric name, an option
    ├── MissingExtra            2   an optional package or program that this step needs
    ├── RunFolderError          2   a run folder that is incomplete, foreign, or not writable
    └── GateFired               3   a condition of `compare --fail-if` holds, or a split leaks

Every message says what is wrong, where, and what to do. The command line prints it without a
traceback and exits with ``exit_code``. Any other exception is a bug in recsys, and the command line
exits with 1.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class RecsysError(Exception):
    """The base class of all errors that recsys raises on purpose."""

    exit_code = 1


class InputError(RecsysError):
    """The user's data cannot be used as it is."""

    exit_code = 2


class ConfigError(RecsysError):
    """A setting is unknown, out of range, or contradicts another."""

    exit_code = 2


class MissingExtra(RecsysError):
    """A package or a program that a step needs is not installed."""

    exit_code = 2


class RunFolderError(RecsysError):
    """A run folder is incomplete, was not written by recsys, or cannot be written."""

    exit_code = 2


class GateFired(RecsysError):
    """A condition of ``compare --fail-if`` holds, or ``check --split`` found a leak."""

    exit_code = 3


SHOWN = 30
"""The largest number of names that an error message lists."""


def suggest_nearest(word: str, candidates: Iterable[str]) -> str:
    """Return a hint for an unknown word, as text to append to an error message.

    The hint is the most similar candidate. If none is similar, it lists the candidates in ascending
    order, at most :data:`SHOWN`. Similar means a ratio of at least 0.6 by :mod:`difflib`.

    >>> suggest_nearest("metrcs", ["metrics", "k"])
    " Did you mean 'metrics'?"
    >>> suggest_nearest("zzz", ["metrics", "k"])
    ' Known: k, metrics.'
    """
    candidates = sorted(candidates)
    close = difflib.get_close_matches(word, candidates, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {list_names(candidates)}."


def suggest_columns(words: Iterable[str], columns: Iterable[str]) -> str:
    """Return a hint for missing columns, as text to append to an error message.

    The hint names up to two similar columns for each missing one. Then it lists the columns in
    their order, at most :data:`SHOWN`.

    Args:
        words: the names of the missing columns.
        columns: the names of the columns that exist.

    >>> suggest_columns(["usr"], ["user", "item"])
    " No column 'usr'. Did you mean 'user'? Columns: user, item."
    """
    columns = list(columns)
    hints = ""
    for word in words:
        hints += f" No column '{word}'."
        if close := difflib.get_close_matches(word, columns, n=2):
            hints += f" Did you mean {' or '.join(map(repr, close))}?"
    return f"{hints} Columns: {list_names(columns)}."


def list_names(names: Sequence[str]) -> str:
    """Return the first :data:`SHOWN` names as one text, then the number of names that are left out.

    >>> list_names(["user", "item"])
    'user, item'
    """
    more = ""
    if len(names) > SHOWN:
        more = f" … and {len(names) - SHOWN:,} more"
    return f"{', '.join(names[:SHOWN])}{more}"


_REQUIREMENTS = {
    "int_": "a whole number",
    "float_": "a number",
    "bool_": "true or false",
    "string_type": "text",
    "finite_number": "a finite number",
    "dict_type": "a table of keys and values",
    "model_type": "a table of keys and values",
    "model_attributes_type": "a table of keys and values",
    "dataclass_type": "a table of keys and values",
    "list_type": "a list",
    "tuple_type": "a list",
    "greater_than_equal": "at least {ge:.15g}",
    "greater_than": "greater than {gt:.15g}",
    "less_than_equal": "at most {le:.15g}",
    "less_than": "less than {lt:.15g}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
    "string_too_short": "text of {min_length} or more characters",
    "literal_error": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
}
"""Start of the type of a pydantic error -> what the value must be."""


def describe_invalid_value(problems: Sequence[Mapping[str, Any]]) -> str:
    """Return a message about one invalid value: what it must be, and what it is.

    Args:
        problems: at least one error of pydantic (``ValidationError.errors()``), all about the same
            value. There are several if the value may have several types.

    >>> describe_invalid_value([{"type": "int_type", "msg": "", "input": "x"}])
    "must be a whole number (it is 'x')"
    """
    value = problems[0]["input"]
    requirements = [_requirement(problem) for problem in problems]
    if None in requirements:
        message = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in problems)
        return f"{message} (it is {value!r})"
    expected = " or ".join(dict.fromkeys(map(str, requirements)))
    choices = re.findall("'([^']*)'", expected)
    tag = problems[0].get("ctx", {}).get("tag")
    if tag is not None:
        value = tag
    hint = ""
    if isinstance(value, str) and difflib.get_close_matches(value, choices, n=1):
        hint = f".{suggest_nearest(value, choices)}"
    return f"must be {expected} (it is {value!r}){hint}"


def _requirement(problem: Mapping[str, Any]) -> str | None:
    """Return what a value must be, or None for an error that has a message of our own."""
    for start, requirement in _REQUIREMENTS.items():
        if problem["type"].startswith(start):
            return requirement.format(**problem.get("ctx", {}))
    return None
