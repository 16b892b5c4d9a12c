"""Functions with which verbs print: results on stdout, logs and progress on stderr."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from recsys import atomic_writing
from recsys.errors import ConfigError, InputError
from recsys.locations import Location, Uri
from recsys.logging import logger

# Names of metrics, models and files may hold square brackets, which Rich would take for markup.
out = Console(
    highlight=False,
    markup=False,
    soft_wrap=not sys.stdout.isatty(),
    width=None if sys.stdout.isatty() else 120,
)
log = Console(stderr=True, highlight=False, markup=False, soft_wrap=not sys.stderr.isatty())

MAX_METRICS = 4
"""The largest number of metrics in a table on the terminal, so that it fits into 80 columns."""

LOG_WIDTH = 60
"""The largest number of characters of a log line that a terminal shows."""

STATUS_SECONDS = 10.0
"""The number of seconds between two lines of progress if stderr is not a terminal."""


def save_text(path: Path, text: str, option: str = "--out") -> None:
    """Write text to a file that the user named, replacing it only when the new file is complete.

    The verb has already checked that the file may be replaced
    (``replacing.require_replaceable_file``).

    Args:
        path: the file.
        text: its whole content.
        option: the option that names the file, for the error message.

    Raises:
        InputError: the file cannot be written.
    """
    with write_errors_explained(path, option):
        atomic_writing.write_text(path, text)


def print_or_save(text: str, path: Path | None) -> None:
    """Print text to stdout, or write it to ``path`` if that is not None.

    Raises:
        InputError: the file cannot be written.
    """
    if path:
        save_text(path, text)
    else:
        print(text, end="")


def print_rules(about: dict[str, Any]) -> None:
    """Print to stderr what each business rule removes, and the ids in rules that are not in the data.

    Args:
        about: the content of rules.json (``CompiledRules.about``).
    """
    from recsys.ranking.business_rules import describe_rules

    for line in describe_rules(about):
        log.print(line)


def make_folder(folder: Path, option: str = "--out") -> None:
    """Make a folder that the user named, with its parents. An existing folder is not an error.

    Args:
        folder: the folder.
        option: the option that names the folder, for the error message.

    Raises:
        InputError: the folder cannot be made.
    """
    with write_errors_explained(folder, option):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def write_errors_explained(path: Path, option: str = "--out") -> Iterator[None]:
    """Convert an OSError in the block into an InputError that names the path and says what to do.

    Args:
        path: the file or folder that the block writes.
        option: the option by which the user can choose another path.

    Raises:
        InputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}. What was there is unchanged."
            f" Choose another {option}."
        ) from error


class Steps(logging.Handler):
    """Shows on a terminal the progress of the steps of a run, and the latest line of the log.

    Call it to report progress: ``steps("recommend als", done, total)``.
    """

    def __init__(self, bars: Progress) -> None:
        super().__init__(logging.DEBUG)
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of the step ``name`` are done."""
        self._draw(name, f"{name}: {done:,} of {total:,}", completed=done, total=total)

    def emit(self, record: logging.LogRecord) -> None:
        """Show the text of a log record, cut to :data:`LOG_WIDTH` characters."""
        # A bar without a total moves to and fro.
        self._draw("log", record.getMessage()[:LOG_WIDTH], total=None)

    def _draw(self, key: str, description: str, **progress: Any) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(description, total=progress["total"])
        self._bars.update(self._tasks[key], description=description, **progress)


class StatusLines(logging.Handler):
    """Stores the current step of a run, and prints it as one line by :meth:`print_status`.

    It is used if stderr is not a terminal. The current step is the last one that reported progress
    or wrote a line to the log. When all units of a step are done, it is the latest line of the log
    again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.DEBUG)
        self._clock = clock
        self._start = clock()
        self._status = ""
        self._latest_line = ""

    def __call__(self, name: str, done: int, total: int) -> None:
        """Store that ``done`` of ``total`` units of the step ``name`` are done."""
        self._status = f"{name}: {done:,} of {total:,}"
        if done >= total and self._latest_line:
            self._status = self._latest_line

    def emit(self, record: logging.LogRecord) -> None:
        """Store the text of a log record as the current step."""
        self._latest_line = record.getMessage()
        self._status = self._latest_line

    def print_status(self) -> None:
        """Print to stderr the seconds since this object was made, and the current step.

        Nothing is printed before the first step.
        """
        if self._status:
            log.print(f"{self._clock() - self._start:,.0f} s  {self._status}")


@contextmanager
def progress() -> Iterator[Steps | StatusLines]:
    """Show the progress of steps during the block, and yield the object to report it to.

    Progress is reported by calling this object with (name of the step, units done, total units).
    On a terminal it is shown as bars, which disappear when the block ends. If stderr is not a
    terminal, it is one line every :data:`STATUS_SECONDS` seconds.
    """
    if not sys.stderr.isatty():
        with _status_lines() as lines:
            yield lines
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=log, transient=True) as bars:
        steps = Steps(bars)
        with _listening(steps):
            yield steps


@contextmanager
def _status_lines() -> Iterator[StatusLines]:
    lines = StatusLines()
    ended = threading.Event()

    def print_regularly() -> None:
        while not ended.wait(STATUS_SECONDS):
            lines.print_status()

    printer = threading.Thread(target=print_regularly, name="recsys-status", daemon=True)
    printer.start()
    try:
        with _listening(lines):
            yield lines
    finally:
        ended.set()
        printer.join()


@contextmanager
def _listening(handler: logging.Handler) -> Iterator[None]:
    """Send the log of the package to a handler during the block, from the handler's level on."""
    level = logger.level
    logger.setLevel(handler.level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def metrics_of(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the metrics of some runs, each once.

    They are in the order in which they first appear.

    Args:
        runs: run name -> the content of its metrics.json.
    """
    all_cells = [cells for run in runs.values() for cells in run["models"].values()]
    return list(dict.fromkeys(metric for cells in all_cells for metric in cells))


def models_table(runs: dict[str, dict[str, Any]], metrics: list[str]) -> Table:
    """Return a table of all models of some runs: the mean of each metric, one row per model.

    The first metric also has its 95 % interval. The models of a run are sorted by the first metric,
    the best first, which is bold.

    Args:
        runs: run name -> the content of its metrics.json.
        metrics: the metrics to show, at least one. More than :data:`MAX_METRICS` do not fit.
    """
    from recsys.evaluation.testing.pick import lower_is_better, models_by_quality

    table = _plain_table()
    table.add_column("run", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
        if metric == metrics[0]:
            table.add_column("95 % interval", no_wrap=True)
    for name, run in runs.items():
        table.add_section()
        primary_cells = {model: cells.get(metrics[0], {"mean": None}) for model, cells in run["models"].items()}
        means_of_primary = {model: cell["mean"] for model, cell in primary_cells.items()}
        ranked = models_by_quality(means_of_primary, is_error=lower_is_better(run))
        for model in ranked:
            means = [_format_mean(run["models"][model].get(metric)) for metric in metrics]
            style = ""
            if model == ranked[0]:
                style = "bold"
            table.add_row(name, model, means[0], _format_interval(primary_cells[model]), *means[1:], style=style)
    return table


def metrics_table(cells: dict[str, dict[str, Any]]) -> Table:
    """Return a table of all metrics of one model: one row with mean and 95 % interval per metric.

    Args:
        cells: metric -> its entry for this model in metrics.json.
    """
    table = _plain_table()
    table.add_column("metric", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    for metric, cell in cells.items():
        table.add_row(metric, _format_mean(cell), _format_interval(cell))
    return table


def winners_table(runs: dict[str, dict[str, Any]]) -> Table:
    """Return a table of the best model of each run in each group, with one row per run.

    The groups are users by the length of their history, and rare items.

    Args:
        runs: run name -> the content of its metrics.json.
    """
    from recsys.report.winners import best_models

    winners_by_run = {name: best_models(metrics) for name, metrics in runs.items()}
    groups = list(dict.fromkeys(group for winners in winners_by_run.values() for group in winners))
    table = _plain_table()
    table.add_column("best by items in the history", no_wrap=True)
    for group in groups:
        table.add_column(group, no_wrap=True)
    for name, winners in winners_by_run.items():
        cells = []
        for group in groups:
            model, mean = winners.get(group, ("–", None))
            cells.append(model if mean is None else f"{model} {mean:.4f}")
        table.add_row(name, *cells)
    return table


def _plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))


def _format_mean(cell: dict[str, Any] | None) -> str:
    if cell is None or cell["mean"] is None:
        return "–"
    return f"{cell['mean']:.4f}"


def _format_interval(cell: dict[str, Any]) -> str:
    if cell["mean"] is None or cell["ci95"][0] is None:
        return ""
    low, high = cell["ci95"]
    return f"{low:.4f}–{high:.4f}"


def print_table(title: str, heads: Any, rows: list[list[str]]) -> None:
    """Print one table of text to stdout.

    Args:
        title: the line above the table.
        heads: the names of the columns.
        rows: the cells of each row.
    """
    table = Table(*map(str, heads), title=title, title_justify="left")
    for cells in rows:
        table.add_row(*cells)
    out.print(table)


def short_labels(paths: Sequence[Location]) -> list[str]:
    """Return one label per path: the names of the folders, and of the files without suffix.

    If two names are equal, all labels are the whole paths.

    Raises:
        ConfigError: a path occurs twice.
    """
    short = [path.name if isinstance(path, Uri) else _short_label(path) for path in paths]
    for labels in (short, [str(path) for path in paths]):
        if len(set(labels)) == len(labels):
            return labels
    raise ConfigError("the same run is named twice. Name different runs.")


def _short_label(path: Path) -> str:
    path = path.resolve()
    return path.stem if path.is_file() else path.name
