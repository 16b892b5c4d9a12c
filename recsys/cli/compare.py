"""The verb that decides between runs: compare."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from recsys import run_files
from recsys.cli.console import Json, log, out
from recsys.errors import ConfigError, GateFired
from recsys.runfolder import RunFolder, to_plain_json

if TYPE_CHECKING:
    import pandas as pd

    from recsys.types import Evaluation

LISTS = (".csv", ".tsv", ".parquet", ".gz", ".pq")


@dataclass(frozen=True)
class Candidate:
    """A model to compare: its per-user values, its lists, what it costs, and on which machine."""

    evaluation: Evaluation
    lists: pd.DataFrame
    guards: dict[str, float] = field(default_factory=dict)
    platform: str = ""


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("compare")(compare)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or top-N tables; the others are compared with the first.")
    ],
    model: Annotated[str | None, typer.Option(help="The model of each run; default: the only one it trained.")] = None,
    truth: Annotated[Path | None, typer.Option(help="For top-N tables: what the users chose.")] = None,
    metrics: Annotated[list[str] | None, typer.Option("-m", "--metric", help="For top-N tables (repeatable).")] = None,
    relevant: Annotated[float | None, typer.Option(help="For top-N tables: least value of a truth row.")] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option(help='"ndcg@10 drops 0.01" or "ndcg@10 within 0.01" (repeatable): exit code 3.')
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare one model of each run, all models of one run, or top-N tables, on the same users; say which to take.

    Example: recsys compare runs/old runs/new --fail-if "ndcg@10 drops 0.01"
    """
    from recsys.evaluation.testing.choose import agreement, choose, most_changed
    from recsys.evaluation.testing.compare import compare as compare_evaluations
    from recsys.evaluation.testing.gates import Gate

    found = _tables(runs, truth, metrics, relevant) if truth else _runs(runs, model)
    evaluations = [candidate.evaluation for candidate in found]
    first, primary = evaluations[0], evaluations[0].metrics[0]
    gates = [Gate.parse(text, first.metrics) for text in fail_if or []]
    whole = len(runs) == 1
    result = compare_evaluations(evaluations, baseline=None if whole else first.name, seed=seed)
    incumbent = "popular" if whole and "popular" in result.means.index else first.name
    against = result if not whole else compare_evaluations(evaluations, baseline=incumbent, seed=seed)
    rows = [row for row in result.differences.itertuples() if row.against == first.name]
    fired = [gate.says(row) for gate in gates for row in rows if row.metric == gate.metric and gate.fires(row)]
    guards = {candidate.evaluation.name: candidate.guards for candidate in found}
    if len({candidate.platform for candidate in found}) > 1:
        log.print("the runs are of different machines: their time and memory are not compared", markup=False)
        costs = ("ms_a_user", "peak_mb")
        guards = {name: {k: v for k, v in own.items() if k not in costs} for name, own in guards.items()}
    lists = {candidate.evaluation.name: candidate.lists for candidate in found}
    choice = choose(against, incumbent, primary, guards)
    other = next(e for e in evaluations if e.name == choice.pick) if choice.pick != incumbent else evaluations[-1]
    base = next(e for e in evaluations if e.name == incumbent)
    tables = {
        "means": result.means,
        "differences": result.differences,
        "agreement": agreement(lists),
        "guardrails": _guards(guards),
        "most_changed": most_changed(base, other, primary, lists).rename(columns={"a": base.name, "b": other.name}),
    }
    if as_json:
        told = {name: table.to_dict(orient="index" if name == "means" else "records") for name, table in tables.items()}
        told |= {"pick": choice.pick, "sure": choice.sure, "reasons": choice.reasons, "fired": fired}
        print(json.dumps(to_plain_json(told), ensure_ascii=False, allow_nan=False))
    else:
        _show(tables | {"means": result.table()}, primary)
        out.print(f"pick: {choice.pick}", markup=False)
        for reason in choice.reasons:
            out.print(f"  {reason}", markup=False)
    if fired:
        raise GateFired("; ".join(fired))


def _runs(runs: list[Path], model: str | None) -> list[Candidate]:
    """Return all models of one run under their names, or one model of each of several under their runs' names."""
    from recsys.evaluation.testing.compare import read_run

    if odd := [run for run in runs if run.is_file() or run.suffix in LISTS]:
        raise ConfigError(f"{odd[0]}: a table, not a run folder: say what the users chose with --truth FILE.")
    if len(runs) == 1:
        if model:
            raise ConfigError("--model chooses one model of each run: name two runs or more.")
        folder = RunFolder.open(runs[0])
        return [_candidate(folder, evaluation, name) for name, evaluation in read_run(folder).items()]
    found = []
    for run, label in zip(runs, _labels(runs), strict=True):
        folder = RunFolder.open(run)
        evaluations = read_run(folder)
        own = [model] if model else [name for name in evaluations if name not in ("random", "popular", "recent")]
        if len(own) != 1:
            raise ConfigError(f"{run}: has {', '.join(own) or 'baselines only'}: choose with --model.")
        if own[0] not in evaluations:
            raise ConfigError(f"{run}: no model '{own[0]}'.{suggest_nearest(own[0], evaluations)}")
        found.append(_candidate(folder, replace(evaluations[own[0]], name=label), own[0]))
    return found


def _candidate(folder: RunFolder, evaluation: Evaluation, name: str) -> Candidate:
    """Read a model's lists of the tested users, and its guardrails off the run's files."""
    lists = folder.read_table(run_files.topk(name))
    tested = evaluation.per_user["user_id"]
    guards: dict[str, float] = {}
    for measure, cell in folder.read_json(run_files.METRICS)["about"]["beyond"].get(name, {}).items():
        value = cell.get("value", cell.get("mean"))
        if measure in ("coverage", "tail_share") and value is not None:
            guards[measure] = float(value)
    manifest = folder.read_json(run_files.MANIFEST)
    hops = {hop["name"]: hop for hop in manifest["hops"]}
    if f"recommend {name}" in hops:
        guards["ms_a_user"] = 1000 * hops[f"recommend {name}"]["seconds"] / max(lists["user_id"].nunique(), 1)
        of_model = [hops[hop] for hop in (f"fit {name}", f"recommend {name}") if hop in hops]
        guards["peak_mb"] = max(hop["peak_mb"].get("total", 0.0) for hop in of_model)
    return Candidate(evaluation, lists[lists["user_id"].isin(tested)], guards, manifest["platform"])


def _tables(tables: list[Path], truth: Path, metrics: list[str] | None, relevant: float | None) -> list[Candidate]:
    """Judge top-N tables of any systems against one truth."""
    from recsys.evaluation.evaluate import EvaluationSettings, evaluate_tables
    from recsys.evaluation.judging.metrics import parse_all
    from recsys.evaluation.topk_tables import read_topk, read_truth

    if len(tables) < 2:
        raise ConfigError("name two tables or more.")
    judging = EvaluationSettings(
        metrics=tuple(map(str, parse_all(metrics or ["ndcg@10", "recall@10"]))), relevant=relevant
    )
    chosen, lists = (
        read_truth(truth),
        {label: read_topk(path) for path, label in zip(tables, _labels(tables), strict=True)},
    )
    catalogue = len(set().union(*(table["item_id"].unique() for table in lists.values())))
    return [
        Candidate(
            evaluate_tables(table, chosen, judging, name=label),
            _ranked(table),
            {"coverage": table["item_id"].nunique() / catalogue},
        )
        for label, table in lists.items()
    ]


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with ranks, which a table of scores does without."""
    table = table.astype({column: object for column in ("user_id", "item_id") if table[column].dtype == "category"})
    if "rank" in table:
        return table
    ranks = table.groupby("user_id")["score"].rank(ascending=False, method="first").astype(int)
    return table.assign(rank=ranks)


def _labels(places: list[Path]) -> list[str]:
    """Return the shortest names that tell the places apart."""
    for labels in ([p.resolve().stem if p.is_file() else p.resolve().name for p in places], [str(p) for p in places]):
        if len(set(labels)) == len(labels):
            return labels
    raise ConfigError("a run is named twice: name different ones.")


def _guards(guards: dict[str, dict[str, float]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([{"model": name, **found} for name, found in guards.items()])


def _show(tables: dict[str, pd.DataFrame], primary: str) -> None:
    titles = {
        "means": "Means (letters: beats)",
        "differences": "Differences",
        "agreement": "Agreement of the lists",
        "guardrails": "Guardrails",
        "most_changed": f"Users whose {primary} differs most",
    }
    for name, title in titles.items():
        table = tables[name]
        if name == "means":
            table = table.reset_index(names="model")
        if name == "differences":
            rows = [_cells(row) for row in table.itertuples()]
            heads = ["difference", "metric", "size [95 %]", "p (Holm)", "effect size", "detectable", "users"]
        else:
            rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
            heads = [str(column) for column in table.columns]
        shown = Table(*map(escape, heads), title=title, title_justify="left")
        for cells in rows:
            shown.add_row(*map(escape, cells))
        out.print(shown)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
