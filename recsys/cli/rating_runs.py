"""Compare runs with ``[judge] task = "ratings"``, for ``recsys compare``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recsys import run_files
from recsys.cli.console import log, out, print_table, short_labels
from recsys.errors import ConfigError, GateFired, suggest_nearest
from recsys.locations import Location, Uri
from recsys.runfolder import RunFolder, damage_explained, to_plain_json

if TYPE_CHECKING:
    import pandas as pd

    from recsys.evaluation.testing.compare import Comparison


def are_rating_runs(runs: Sequence[Location]) -> bool:
    """Return whether the runs predicted ratings. Paths that are not runs are ignored.

    Raises:
        ConfigError: only some of the runs did.
        RunFolderError: a run folder is incomplete or damaged.
    """
    tasks = {}
    for run in runs:
        if isinstance(run, Uri) or (run / run_files.METRICS).is_file():
            with damage_explained(run):
                about = RunFolder.open(run).read_object(run_files.METRICS, about=dict)["about"]
            tasks[run] = about.get("task", "lists")
    if "ratings" in tasks.values() and len({*tasks.values()}) > 1:
        described = ", ".join(f"{run}: {task}" for run, task in tasks.items())
        raise ConfigError(f"the runs have other tasks ({described}): compare runs with the same [judge] task.")
    return "ratings" in tasks.values()


def compare_rating_runs(
    runs: Sequence[Location],
    model: str | None,
    metrics: list[str] | None,
    fail_if: list[str],
    as_json: bool,
) -> None:
    """Print the errors of one model per run, or of all models of one run, and their differences.

    Args:
        runs: run folders. Several are compared with the first.
        model: for several runs, the model of each. None: the pick of each run.
        metrics: rmse, mae or both; the first decides. None: both.
        fail_if: conditions on these metrics, as for ``--fail-if``.
        as_json: whether to print JSON.

    Raises:
        ConfigError: a run has no such model or metric, or a condition is not valid.
        GateFired: one of the conditions holds.
    """
    from recsys.evaluation.settings import RATING_METRICS
    from recsys.evaluation.testing.compare_ratings import compare_predictions
    from recsys.evaluation.testing.gates import Gate, changes_from
    from recsys.evaluation.testing.pick import models_by_quality, pick_model

    metrics = metrics or list(RATING_METRICS)
    if unknown := [name for name in metrics if name not in RATING_METRICS]:
        raise ConfigError(f"-m {unknown[0]}: these runs predict ratings, whose metrics are rmse and mae.")
    gates = [Gate.parse(text, metrics) for text in fail_if]
    tables = _predictions_of_runs(runs, model)
    # Several runs are compared with the first, the models of one run all with each other.
    incumbent = next(iter(tables))
    compared_with: str | None = incumbent
    if len(runs) == 1:
        compared_with = None
        run_metrics = RunFolder.open(runs[0]).read_json(run_files.METRICS)
        incumbent = pick_model(run_metrics).baseline or incumbent
    comparison = compare_predictions(tables, metrics, against=compared_with)
    ranked = models_by_quality(comparison.means[metrics[0]].to_dict(), is_error=True)
    no_agreement = comparison.differences.iloc[:0]
    changes = changes_from(incumbent, comparison.differences, {}, no_agreement)
    fired = [
        gate.describe(change)
        for gate in gates
        for change in changes
        if gate.measure == change.measure and gate.fires(change)
    ]
    if as_json:
        record = {
            "means": comparison.means.to_dict(orient="index"),
            "differences": comparison.differences.to_dict(orient="records"),
            "pick": ranked[0],
            "fired": fired,
        }
        print(json.dumps(to_plain_json(record), ensure_ascii=False, allow_nan=False))
    else:
        _print(comparison, ranked)
    if fired:
        raise GateFired("; ".join(fired))


def _predictions_of_runs(runs: Sequence[Location], model: str | None) -> dict[str, pd.DataFrame]:
    """Return the predictions of all models of one run, by name, or of one model per run, by run."""
    from recsys.evaluation.testing.compare_ratings import read_predictions
    from recsys.evaluation.testing.pick import pick_model

    if len(runs) == 1:
        if model:
            raise ConfigError("--model chooses one model of each run: name at least two runs.")
        folder = RunFolder.open(runs[0])
        with damage_explained(runs[0]):
            names = folder.read_json(run_files.METRICS)["models"]
            return {name: read_predictions(folder, name) for name in names}
    tables = {}
    for run, label in zip(runs, short_labels(runs), strict=True):
        folder = RunFolder.open(run)
        with damage_explained(run):
            metrics = folder.read_json(run_files.METRICS)
            name = model or pick_model(metrics).name or next(iter(metrics["models"]))
        if not model:
            log.print(f"{run}: model {name}, the best of the run; --model takes another")
        if name not in metrics["models"]:
            raise ConfigError(f"{run}: no model '{name}'.{suggest_nearest(name, metrics['models'])}")
        with damage_explained(run):
            tables[label] = read_predictions(folder, name)
    return tables


def _print(comparison: Comparison, ranked: list[str]) -> None:
    """Print the table of errors, best model first, and the table of differences."""
    out.print(f"pick: {ranked[0]}")
    out.print()
    means = comparison.means.loc[ranked]
    rows = [[str(name), *(f"{value:.4f}" for value in row)] for name, row in zip(ranked, means.to_numpy(), strict=True)]
    print_table("Errors (the lower, the better)", ["model", *means.columns], rows)
    print_table(
        "Differences, of the same pairs",
        ["difference", "metric", "size [95 % over users]", "over ratings", "p (Holm)", "users"],
        [
            [
                f"{row.model} - {row.against}",
                row.metric,
                f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]",
                f"[{row.low_pairs:+.4f}, {row.high_pairs:+.4f}]",
                f"{row.p_holm:.4f}",
                f"{row.users:,}",
            ]
            for row in comparison.differences.itertuples()
        ],
    )
