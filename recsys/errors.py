"""The exceptions of recsys, as a tree.

    RecsysError                 exit code 1 unless a child says otherwise ├── InputError
    2   the data: a file, a row, a column, an id ├── ConfigError             2   the config file, a
    parameter, a metric name, a command-line option ├── MissingExtra            2   an optional
    package or program that this step needs ├── RunFolderError          2   a run folder that is
    incomplete, foreign, or not writable └── GateFired               3   a condition of `compare
    --fail-if` holds, or a split leaks

Every message says what is wrong, where, and what to do. The command line prints it without a
traceback and exits with ``exit_code``; any other exception is a bug in recsys and exits with 1.
"""

import difflib
from collections.abc import Iterable


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
    """A step needs something that is not installed."""

    exit_code = 2


class RunFolderError(RecsysError):
    """A run folder is incomplete, was not written by recsys, or cannot be written."""

    exit_code = 2


class GateFired(RecsysError):
    """A condition of ``compare --fail-if`` holds, or ``check --split`` found a leak."""

    exit_code = 3


SHOWN = 30
"""Largest number of known words that an error lists."""


def suggest_nearest(word: str, candidates: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest candidate, or list the candidates if none is
    close.

    >>> suggest_nearest("metrcs", ["metrics", "k"])
    " Did you mean 'metrics'?"
    >>> suggest_nearest("zzz", ["metrics", "k"])
    ' Known: k, metrics.'
    """
    candidates = sorted(candidates)
    close = difflib.get_close_matches(word, candidates, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    more = ""
    if len(candidates) > SHOWN:
        more = f" … and {len(candidates) - SHOWN:,} more"
    return f" Known: {', '.join(candidates[:SHOWN])}{more}."
