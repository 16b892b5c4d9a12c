"""The Typer application with which every verb registers, and the groups of `recsys --help`."""

from __future__ import annotations

from functools import wraps
from typing import Any

import typer
from rich.markup import escape

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train, evaluate and compare recommenders, on one machine or on Spark.",
)

RUNS = "Train and evaluate"
DATA = "Data"
LISTS = "Recommend from a run or a bundle"
DECISIONS = "Compare and decide"
DEPLOYMENT = "Carry a run elsewhere"
SETUP = "Installation"

WITHOUT_KERNELS = ("ab", "data", "doctor")
"""The verbs that do not print a notice while kernels are compiled.

``ab`` and ``data`` use no compiled kernels, so they need not wait for Numba. ``doctor`` finds out
whether Numba works.
"""


def build_command() -> Any:
    """Return the command line as a function that can be called.

    Help texts fill the width of the terminal, and their square brackets are shown as they are
    written. Every verb that uses compiled kernels prints a notice while they are compiled.
    """
    command: Any = typer.main.get_command(app)
    _prepare_help(command)
    for name, verb in command.commands.items():
        if name not in WITHOUT_KERNELS:
            _report_compilation(verb)
    return command


def _report_compilation(verb: Any) -> None:
    """Let a verb print a notice on stderr while kernels are compiled."""
    work = verb.callback

    @wraps(work)
    def work_with_notice(*arguments: Any, **options: Any) -> Any:
        # Imported here, because Numba takes half a second to load, which help texts need not wait for.
        from recsys.cli.console import log
        from recsys.kernel_cache import compilation_reported

        with compilation_reported(log.print):
            return work(*arguments, **options)

    verb.callback = work_with_notice


def _prepare_help(command: Any) -> None:
    """Make the help texts of a command, its options and its subcommands ready for Rich.

    Each paragraph becomes one line, because Rich keeps the line breaks of a docstring and would break
    its lines a second time. Square brackets are escaped: Rich would read ``[judge]`` as markup and not
    print it.
    """
    for part in (command, *command.params):
        if getattr(part, "help", None):
            paragraphs = [" ".join(lines.split()) for lines in part.help.split("\n\n")]
            part.help = escape("\n\n".join(paragraphs))
    for subcommand in getattr(command, "commands", {}).values():
        _prepare_help(subcommand)
