"""The verb evaluate: the metrics of a table of recommendations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from recsys.cli.application import DECISIONS, app
from recsys.cli.console import log, models_table, out
from recsys.cli.options import Json


@app.command(rich_help_panel=DECISIONS)
def evaluate(
    recs: Annotated[
        Path,
        typer.Argument(help="A table of lists (CSV or Parquet): user_id, item_id, rank[, score]."),
    ],
    truth: Annotated[Path, typer.Argument(help="What the users chose: user_id, item_id[, value].")],
    metrics: Annotated[
        list[str] | None, typer.Option("-m", "--metric", help="ndcg@10, recall@20, … (repeatable).")
    ] = None,
    relevant: Annotated[
        float | None, typer.Option(help="A row of TRUTH is relevant if its value is at least this.")
    ] = None,
    missing_users: Annotated[
        Literal["zero", "skip"],
        typer.Option(help="Users in TRUTH without a list: their metrics are 0 (zero), or they are left out (skip)."),
    ] = "zero",
    ties: Annotated[
        Literal["stable", "average", "pessimistic", "optimistic"],
        typer.Option(help="Items with equal scores: as ranked, the mean over all orders, the worst or the best order."),
    ] = "stable",
    convention: Annotated[
        Literal["recsys", "trec", "sklearn", "spark", "implicit"],
        typer.Option(help="The library whose definitions to use; those of others also set ties and missing users."),
    ] = "recsys",
    train: Annotated[
        Path | None,
        typer.Option(help="What users chose before: item popularity for debiased metrics, recall[ips=0.5]@10."),
    ] = None,
    sampled: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The lists rank only this number of sampled candidates; metric names will say so.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a table of recommendations, made by any system, against what users chose.

    Example: recsys evaluate recs.csv truth.csv -m ndcg@10 -m recall@20 --json
    """
    from recsys.evaluation.evaluate import evaluate_tables, item_propensities, mark_sampled
    from recsys.evaluation.judging.metrics import parse_all
    from recsys.evaluation.settings import EvaluationSettings
    from recsys.evaluation.summary import summarise
    from recsys.evaluation.topk_tables import read_topk, read_truth
    from recsys.runfolder import to_plain_json
    from recsys.schema import ITEM

    names = tuple(map(str, parse_all(metrics or ["ndcg@10", "recall@10"])))
    settings = EvaluationSettings(metrics=names, relevant=relevant, missing_users=missing_users, ties=ties)
    truth_table = read_truth(truth)
    propensity = None
    if train:
        propensity = item_propensities(read_truth(train), truth_table[ITEM])
    evaluation = evaluate_tables(
        read_topk(recs),
        truth_table,
        settings,
        name=recs.stem,
        convention=None if convention == "recsys" else convention,
        propensity=propensity,
    )
    for warning in evaluation.about["warnings"]:
        log.print(f"warning: {warning}")
    if sampled:
        evaluation = mark_sampled(evaluation, sampled)
    result = to_plain_json(summarise([evaluation], settings))
    result["about"] |= {key: evaluation.about[key] for key in ("ties", "missing_users", "convention")}
    if as_json:
        print(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    out.print(models_table({recs.stem: result}))
    counts = evaluation.about["counts"]
    out.print(", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in counts.items() if count))
    for name, text in evaluation.about["definitions"].items():
        out.print(f"{name}: {text}")
