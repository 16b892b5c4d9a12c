"""What can go wrong, as a tree.

    RecsysError                 exit code 1 unless a child says otherwise
    ├── InputError              2   the data: a file, a row, a column, an id
    ├── ConfigError             2   the config file, a parameter, a metric name, a command-line option
    ├── MissingExtra            2   an optional package or program that this step needs
    ├── RunFolderError          2   a run folder that is not whole, not ours, or not writable
    └── GateFired               3   a comparison that was asked to fail did, or a split leaks

Every message says what is wrong, where, and what to do. The command line prints it without a traceback and
exits with ``exit_code``; anything that is not a ``RecsysError`` is a bug of ours and exits with 1.
"""

import difflib
from collections.abc import Iterable


class RecsysError(Exception):
    """The root: catch it to catch everything that recsys raises on purpose."""

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
    """A run folder is incomplete, foreign or cannot be written."""

    exit_code = 2


class GateFired(RecsysError):
    """A condition of ``compare --fail-if`` holds, or ``check --split`` found a leak."""

    exit_code = 3


SHOWN = 30
"""Known words that an error lists, at most."""


def suggest_nearest(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known word, or the known words when none is close.

    >>> suggest_nearest("metrcs", ["metrics", "k"])
    " Did you mean 'metrics'?"
    >>> suggest_nearest("zzz", ["metrics", "k"])
    ' Known: k, metrics.'
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    more = f" … and {len(known) - SHOWN:,} more" if len(known) > SHOWN else ""
    return f" Known: {', '.join(known[:SHOWN])}{more}."
