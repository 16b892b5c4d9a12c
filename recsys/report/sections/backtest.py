"""The section on the rolling backtest, which repeats the run on earlier windows of time."""

from __future__ import annotations

from typing import Any

from recsys import run_files
from recsys.evaluation.testing.pick import pick_model
from recsys.report.parts import ReportTable, Section, best_places, format_mean
from recsys.report.run_reader import Run
from recsys.report.sections.verdict import compare_with_baseline


def backtest(run: Run) -> Section | None:
    """Return the section "Backtest": the primary metric of every model in every fold.

    A fold is a repetition of the run on another window of time. A second table has the differences
    from the baseline, in every fold and over all folds, where each user counts once. The result is
    None for a run without folds.
    """
    if not run.folder.has(run_files.BACKTEST):
        return None
    folds = run.folder.read_json(run_files.BACKTEST)["folds"]
    metric = run.about["primary"]
    heads = [f"{number}: from {fold['cut']}" for number, fold in enumerate(folds, start=1)]
    cells = {name: [fold["models"][name][metric] for fold in folds] for name in run.models}
    means = {name: _mean([cell["mean"] for cell in row]) for name, row in cells.items()}
    columns = [[cell["mean"] for cell in column] for column in zip(*cells.values(), strict=True)]
    bold = {
        (row, 1 + fold) for fold, column in enumerate([*columns, list(means.values())]) for row in best_places(column)
    }
    rows = [[name, *map(format_mean, row), _format(means[name])] for name, row in cells.items()]
    tables = [
        ReportTable(
            f"{metric} by fold", ["model", *heads, "mean of the folds"], rows, bold=frozenset(bold), notes=run.notes
        )
    ]
    if run.about["baseline"]:
        tables.append(_differences(run, folds, metric, heads))
    sizes = ", ".join(f"{fold['train_rows']:,} and {fold['test_rows']:,}" for fold in folds)
    text = (
        f"The run was repeated on {len(folds)} windows of time, the last of which is the split of the rest of this"
        " report. Each fold trains on all events before its window, and its models are paired by user. Events of train"
        f" and test: {sizes}. Folds share users and events, so they are not independent trials."
    )
    return Section("Backtest", [text, *_over_all_folds(run)], tables=tables)


def _over_all_folds(run: Run) -> list[str]:
    """Return a paragraph on the best model and the best baseline over all folds.

    The result is empty for a run of an older version, which pooled nothing.
    """
    pooled = run.metrics.get("backtest")
    if pooled is None:
        return []
    pick = pick_model(pooled)
    if pick.name is None:
        return []
    return [
        f"Over all {pooled['folds']} folds: {compare_with_baseline(pooled, pick)} A user counts once, with the mean of"
        " the folds in which the user is tested. The interval says what other users would give in the same windows, not"
        " what another season would."
    ]


def _differences(run: Run, folds: list[dict[str, Any]], metric: str, heads: list[str]) -> ReportTable:
    """Return the table with the differences of each model from the baseline, in every fold and over
    all folds.

    Args:
        folds: the folds, from the file of the backtest.
        metric: the name of the metric.
        heads: the head of the column of each fold.
    """
    baseline = run.about["baseline"]
    pooled = run.metrics.get("backtest")
    rows = []
    for name in run.models:
        if name != baseline:
            cells = [fold["differences"][name][metric] for fold in folds]
            n_better = sum((cell["mean"] or 0) > 0 for cell in cells)
            row = [name, *(format_mean(cell, sign=True) for cell in cells), f"{n_better} of {len(folds)}"]
            if pooled is not None:
                cell = pooled["differences"][name][metric]
                row += [format_mean(cell, sign=True), _format(cell["p_holm"]), f"{cell['users']:,}"]
            rows.append(row)
    heads = ["model", *heads, "better in"]
    if pooled is not None:
        heads += ["all folds, by user", "p (Holm)", "users"]
    return ReportTable(f"{metric} minus that of {baseline}, by fold", heads, rows, notes=run.notes)


def _mean(values: list[float | None]) -> float | None:
    """Return the mean over the folds in which a metric is defined, or None if there is no such fold."""
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    return sum(defined) / len(defined)


def _format(number: float | None) -> str:
    """Return a number with four decimals as text, or a dash (–) for None."""
    if number is None:
        return "–"
    return f"{number:.4f}"
