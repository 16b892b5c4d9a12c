"""The verb that decides between runs: compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from recsys.cli.console import out
from recsys.errors import ConfigError, GateFired, nearest
from recsys.runfolder import RunFolder, plain

if TYPE_CHECKING:
    from recsys.evaluation.compare import Comparison
    from recsys.types import Evaluation


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("compare")(compare)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is what the others are compared with.")],
    model: Annotated[str | None, typer.Option(help="The model of each run; default: the only one it trained.")] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option(help='"ndcg@10 drops 0.01" or "ndcg@10 within 0.01" (repeatable): exit code 3.')
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Compare one model of each run, or all models of one run, on the same users, from either engine.

    Example: recsys compare runs/old runs/new --fail-if "ndcg@10 drops 0.01"
    """
    from recsys.evaluation.compare import compare as compare_evaluations
    from recsys.evaluation.gates import Gate

    evaluations = _evaluations(runs, model)
    gates = [Gate.parse(text, evaluations[0].metrics) for text in fail_if or []]
    found = compare_evaluations(evaluations, baseline=evaluations[0].name if len(runs) > 1 else None, seed=seed)
    rows = [row for row in found.differences.itertuples() if row.against == evaluations[0].name]
    fired = [gate.says(row) for gate in gates for row in rows if row.metric == gate.metric and gate.fires(row)]
    if as_json:
        means = found.means.to_dict(orient="index")
        result = {"means": means, "differences": found.differences.to_dict(orient="records"), "fired": fired}
        print(json.dumps(plain(result), ensure_ascii=False, allow_nan=False))
    else:
        _show(found)
    if fired:
        raise GateFired("; ".join(fired))


def _evaluations(runs: list[Path], model: str | None) -> list[Evaluation]:
    """Return all models of one run under their names, or one model of each of several under their runs' names."""
    from recsys.evaluation.compare import read_run

    if len(runs) == 1:
        if model:
            raise ConfigError("--model chooses one model of each run: name two runs or more.")
        return list(read_run(RunFolder.open(runs[0])).values())
    labels = [run.resolve().name for run in runs]
    if len(set(labels)) < len(labels):
        labels = [str(run) for run in runs]
    if len(set(labels)) < len(labels):
        raise ConfigError("a run is named twice: name different ones.")
    return [_one(RunFolder.open(run), label, model) for run, label in zip(runs, labels, strict=True)]


def _one(folder: RunFolder, label: str, model: str | None) -> Evaluation:
    from dataclasses import replace

    from recsys.evaluation.compare import read_run

    found = read_run(folder)
    own = [model] if model else [name for name in found if name not in ("random", "popular", "recent")]
    if len(own) != 1:
        raise ConfigError(f"{folder.path}: has {', '.join(own) or 'baselines only'}: choose with --model.")
    if own[0] not in found:
        raise ConfigError(f"{folder.path}: no model '{own[0]}'.{nearest(own[0], found)}")
    return replace(found[own[0]], name=label)


def _show(found: Comparison) -> None:
    means, differences = Table(title="Means (letters: beats)"), Table(title="Differences")
    shown = found.table()
    for head in ("model", *shown.columns):
        means.add_column(head)
    for name, cells in shown.iterrows():
        means.add_row(str(name), *cells)
    for head in ("difference", "metric", "size [95 %]", "p (Holm)", "effect size", "detectable", "users"):
        differences.add_column(head)
    for row in found.differences.itertuples():
        differences.add_row(*_cells(row))
    out.print(means)
    out.print(differences)


def _cells(row: Any) -> list[str]:
    return [
        f"{row.model} - {row.against}",
        row.metric,
        f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]",
        f"{row.p_holm:.4f}",
        f"{row.effect_size:+.2f}",
        f"{row.detectable:.4f}",
        f"{row.users:,}",
    ]
