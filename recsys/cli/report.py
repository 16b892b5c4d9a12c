"""The verb report: the reports of runs, written again, and one table of all their models."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from recsys import run_files
from recsys.cli.application import RUNS, app
from recsys.cli.console import MAX_METRICS, metrics_of, models_table, out, winners_table
from recsys.cli.options import OwnModels, run_argument
from recsys.locations import Location


@app.command(rich_help_panel=RUNS)
def report(
    runs: Annotated[list[Path], run_argument("Run folders, by path or URI; their reports are written again.")],
    own_models: OwnModels = False,
) -> None:
    """Write the reports of runs again, and print one table of all their models.

    The reports are report.html and report.md in each run folder. A verdict per run, and which model
    is best for whom, are printed too.

    Example: recsys report runs/demo runs/als_demo
    """
    from recsys.report import write_report

    for path in runs:
        write_report(path)
    print_results(runs, own_models)


def print_results(runs: Sequence[Location], own_models: bool) -> None:
    """Print a verdict per run, one table of all models, and which model is best for which users.

    The last lines name the reports and the next command.

    Args:
        runs: run folders.
        own_models: whether the next command needs ``--own-models`` too.

    Raises:
        RunFolderError: a run folder is incomplete or damaged.
    """
    from recsys.report.sections.verdict import verdict
    from recsys.runfolder import RunFolder

    names = [path.name for path in runs]
    metrics = {}
    for path in runs:
        # Two runs may have the same name in different folders.
        name = path.name
        if names.count(name) > 1:
            name = str(path)
        metrics[name] = RunFolder.open(path).read_object(run_files.METRICS, models=dict, about=dict)
    for path, (name, values) in zip(runs, metrics.items(), strict=True):
        out.print(f"{name}: {verdict(values)}")
        if refused := describe_refused(path):
            out.print(refused)
    out.print()
    names_of_metrics = metrics_of(metrics)
    out.print(models_table(metrics, names_of_metrics[:MAX_METRICS]))
    if len(names_of_metrics) > MAX_METRICS:
        out.print(f"further metrics, in the report: {', '.join(names_of_metrics[MAX_METRICS:])}")
    out.print()
    out.print(winners_table(metrics))
    out.print()
    for path in runs:
        out.print(f"report: {path / run_files.REPORT_HTML}")
    if any(values["about"].get("task") == "ratings" for values in metrics.values()):
        out.print(f"next: recsys predict {runs[0]} PAIRS, or recsys compare {runs[0]} OTHER_RUN")
        return
    option = " --own-models" if own_models else ""
    run = shlex.quote(str(runs[0]))
    out.print(f"next: recsys recommend {run}{option} --user ID, or recsys compare {run} OTHER_RUN")


def describe_refused(run: Location) -> str:
    """Return a sentence on the refused rows of a run: how many, why, and where they are.

    It is "" if no row was refused.
    """
    from recsys.runfolder import RunFolder

    refused = RunFolder.open(run).read_object(run_files.DATA_CARD, refused=dict)["refused"]
    if not refused.get("total"):
        return ""
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in refused["by_reason"].items())
    return f"{refused['total']:,} rows were refused ({reasons}); see {run / run_files.REFUSED_ROWS}"
