"""What the verbs print with: logs and progress on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from recsys.errors import InputError

out = Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 120)
log = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: --set recommend.k=20 (repeatable).")
]
"""Options that several verbs have."""

SHOWN = 4
"""Metrics in a table of the terminal: what fits into 80 columns."""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}. Choose another --out.") from error


def save_text(path: Path, text: str) -> None:
    """Write a file that a verb was asked for; InputError where it cannot be written."""
    with _writing(path):
        path.write_text(text, encoding="utf-8")


def made(folder: Path) -> None:
    """Make a folder that a verb was asked for; InputError where it cannot be made."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


class Steps:
    """Draws the progress of named steps: ``steps("fit als", done, total)``. Silent when stderr is no terminal."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is behind us."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)


@contextmanager
def progress() -> Iterator[Steps]:
    """Give a :class:`Steps`; the bars disappear when the block ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=log, transient=True, disable=not sys.stderr.isatty()) as bars:
        yield Steps(bars)


def models_table(runs: dict[str, dict[str, Any]]) -> Table:
    """Return one table of every run's models: the means, and the 95 % interval of the primary metric.

    ``runs``: run name -> its metrics.json. At most :data:`SHOWN` metrics: the reports have them all.
    """
    every = dict.fromkeys(m for run in runs.values() for model in run["models"].values() for m in model)
    metrics = list(every)[:SHOWN]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
        if metric == metrics[0]:
            table.add_column("95 % interval", no_wrap=True)
    for name, run in runs.items():
        for model, values in run["models"].items():
            cells = [_mean(values.get(metric)) for metric in metrics]
            table.add_row(escape(name), escape(model), cells[0], _interval(values.get(metrics[0])), *cells[1:])
        table.add_section()
    return table


def _mean(value: dict[str, Any] | None) -> str:
    return "–" if value is None or value["mean"] is None else f"{value['mean']:.4f}"


def _interval(value: dict[str, Any] | None) -> str:
    if value is None or value["ci95"][0] is None:
        return ""
    low, high = value["ci95"]
    return f"{low:.4f}–{high:.4f}"
