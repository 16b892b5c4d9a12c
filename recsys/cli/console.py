"""What the verbs print with: logs and progress on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
log = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


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
    """Return one table of every run's models: mean and 95 % interval a metric.

    ``runs``: run name -> its metrics.json.
    """
    metrics = list(dict.fromkeys(m for run in runs.values() for model in run["models"].values() for m in model))
    table = Table(title="Means over users with 95 % intervals", title_justify="left")
    table.add_column("run")
    table.add_column("model")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name, run in runs.items():
        for model, values in run["models"].items():
            table.add_row(name, model, *(_cell(values.get(metric)) for metric in metrics))
        table.add_section()
    return table


def _cell(value: dict[str, Any] | None) -> str:
    if value is None or value["mean"] is None:
        return "–"
    low, high = value["ci95"]
    return f"{value['mean']:.4f}" if low is None else f"{value['mean']:.4f} [{low:.4f}, {high:.4f}]"
