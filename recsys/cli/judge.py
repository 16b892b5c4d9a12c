"""Verbs that judge lists: evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from recsys.cli.console import Json, models_table, out


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("evaluate")(evaluate)


def evaluate(
    recs: Annotated[Path, typer.Argument(help="Top-N table (CSV or Parquet): user_id, item_id, rank[, score].")],
    truth: Annotated[Path, typer.Argument(help="What the users chose: user_id, item_id[, value].")],
    metrics: Annotated[
        list[str] | None, typer.Option("-m", "--metric", help="ndcg@10, recall@20, … (repeatable).")
    ] = None,
    relevant: Annotated[float | None, typer.Option(help="A truth row counts when its value is at least this.")] = None,
    missing_users: Annotated[
        Literal["zero", "skip"], typer.Option(help="Users with truth but no list: count 0, or leave out.")
    ] = "zero",
    ties: Annotated[
        Literal["stable", "average", "pessimistic", "optimistic"],
        typer.Option(help="Equal scores: as ranked, the mean over all their orders, the worst, or the best."),
    ] = "stable",
    convention: Annotated[
        Literal["recsys", "trec", "sklearn", "spark", "implicit"],
        typer.Option(help="Whose definitions; another library's settle ties and missing users too."),
    ] = "recsys",
    train: Annotated[
        Path | None,
        typer.Option(help="What users chose before: item popularity for debiased metrics, recall[ips=0.5]@10."),
    ] = None,
    sampled: Annotated[
        int | None, typer.Option(min=1, help="The lists rank only this many sampled candidates: names will say so.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge a table of recommendations, from any system, against what users chose.

    Example: recsys evaluate recs.csv truth.csv -m ndcg@10 -m recall@20 --json
    """
    from recsys.evaluation.evaluate import EvaluationSettings, evaluate_tables, popularity
    from recsys.evaluation.judging.metrics import parse_all
    from recsys.evaluation.summary import summarise
    from recsys.evaluation.topk_tables import read_topk, read_truth
    from recsys.runfolder import to_plain_json
    from recsys.schema import ITEM

    names = tuple(map(str, parse_all(metrics or ["ndcg@10", "recall@10"])))
    judging = EvaluationSettings(metrics=names, relevant=relevant, missing_users=missing_users, ties=ties)
    chosen = read_truth(truth)
    evaluation = evaluate_tables(
        read_topk(recs),
        chosen,
        judging,
        name=recs.stem,
        convention=None if convention == "recsys" else convention,
        propensity=popularity(read_truth(train), chosen[ITEM]) if train else None,
        sampled=sampled,
    )
    result = to_plain_json(summarise([evaluation], judging))
    result["about"] |= {key: evaluation.about[key] for key in ("ties", "missing_users", "convention")}
    if as_json:
        print(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    out.print(models_table({recs.stem: result}))
    counts = evaluation.about["counts"]
    out.print(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count))
    for name, text in evaluation.about["definitions"].items():
        out.print(f"{name}: {text}", markup=False)
