"""The Typer application that every verb registers itself with,
and the groups that `recsys --help` shows.
"""

from __future__ import annotations

import typer

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
