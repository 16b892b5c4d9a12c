"""Verbs that judge lists: evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from recsys.cli.console import models_table, out


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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Judge a table of recommendations, from any system, against what users chose.

    Example: recsys evaluate recs.csv truth.csv -m ndcg@10 -m recall@20 --json
    """
    from recsys.evaluation.evaluate import Judging, evaluate_tables
    from recsys.evaluation.metrics import parse_all
    from recsys.evaluation.summary import summarise
    from recsys.evaluation.tables import read_topk, read_truth
    from recsys.runfolder import plain

    names = tuple(map(str, parse_all(metrics or ["ndcg@10", "recall@10"])))
    judging = Judging(metrics=names, relevant=relevant, missing_users=missing_users)
    evaluation = evaluate_tables(read_topk(recs), read_truth(truth), judging, name=recs.stem)
    result = plain(summarise([evaluation], judging))
    if as_json:
        print(json.dumps(result, ensure_ascii=False, allow_nan=False))
    else:
        out.print(models_table({recs.stem: result}))
