"""The Typer application with which every verb registers, and the groups of `recsys --help`."""

from __future__ import annotations

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


def build_command() -> Any:
    """Return the command line as a callable, with help texts that show square brackets as they are
    written.
    """
    command = typer.main.get_command(app)
    _escape_help(command)
    return command


def _escape_help(command: Any) -> None:
    """Escape the square brackets in the help texts of a command.

    Otherwise the library Rich would read ``[judge]`` as markup and not print it.
    """
    for part in (command, *command.params):
        if getattr(part, "help", None):
            part.help = escape(part.help)
    for subcommand in getattr(command, "commands", {}).values():
        _escape_help(subcommand)
