"""The verb evaluate: the metrics of a table of recommendations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recsys.cli.application import DECISIONS, app
from recsys.cli.console import log, metrics_table, out
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Json,
    config_of,
    reading_overrides,
    require_finite,
)

if TYPE_CHECKING:
    from recsys.data.reading.read_settings import ReadSettings
    from recsys.evaluation.settings import EvaluationSettings
    from recsys.types import Evaluation


@app.command(rich_help_panel=DECISIONS)
def evaluate(
    recs: Annotated[
        str,
        typer.Argument(help="A table of lists, in any format of a log: user_id, item_id, rank[, score]."),
    ],
    truth: Annotated[str, typer.Argument(help="What the users chose: user_id, item_id[, value].")],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--metric",
            help="ndcg@10, recall@20, …; auc with --all-candidates; or rmse and mae, of predicted values (repeatable).",
        ),
    ] = None,
    relevant: Annotated[
        float | None,
        typer.Option(callback=require_finite, help="A row of TRUTH is relevant if its value is at least this."),
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
        str | None,
        typer.Option(help="What users chose before: item popularity for debiased metrics, recall[ips=0.5]@10."),
    ] = None,
    sampled: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The lists rank only this number of sampled candidates; metric names will say so.",
        ),
    ] = None,
    all_candidates: Annotated[
        bool,
        typer.Option("--all-candidates", help="The lists score every candidate of each user, as auc needs."),
    ] = False,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Evaluate a table of recommendations, made by any system, against what users chose.

    Example: recsys evaluate recs.csv truth.csv -m ndcg@10 -m recall@20 --json
    """
    from recsys.evaluation.evaluate import evaluate_tables, item_propensities, mark_sampled
    from recsys.evaluation.judging.metrics import parse_all
    from recsys.evaluation.judging.ratings import error_metrics
    from recsys.evaluation.settings import AllCandidatesSettings, EvaluationSettings
    from recsys.evaluation.topk_tables import read_topk, read_truth
    from recsys.schema import ITEM

    reading = config_of(recs, reading_overrides(columns, file_format, delimiter, encoding)).data.reading
    requested = metrics or ["ndcg@10", "recall@10"]
    if errors := error_metrics(requested):
        print_errors(recs, truth, errors, reading, as_json)
        return
    names = tuple(map(str, parse_all(requested, complete=all_candidates)))
    kind = AllCandidatesSettings if all_candidates else EvaluationSettings
    settings = kind(metrics=names, relevant=relevant, missing_users=missing_users, ties=ties)
    truth_table = read_truth(truth, reading)
    propensity = None
    if train:
        propensity = item_propensities(read_truth(train, reading), truth_table[ITEM])
    evaluation = evaluate_tables(
        read_topk(recs, reading),
        truth_table,
        settings,
        name=Path(recs).stem,
        convention=None if convention == "recsys" else convention,
        propensity=propensity,
    )
    for warning in evaluation.about["warnings"]:
        log.print(f"warning: {warning}")
    if sampled:
        evaluation = mark_sampled(evaluation, sampled)
    about = {key: evaluation.about[key] for key in ("ties", "missing_users", "convention")}
    print_evaluation(evaluation, settings, about, as_json)


def print_errors(predictions: str, truth: str, names: list[str], reading: ReadSettings, as_json: bool) -> None:
    """Print the errors of predicted values: their mean over users, and the error over all pairs.

    Args:
        predictions: the file with the predicted values, in the column ``score``.
        truth: the file with the true values.
        names: the metrics, ``rmse`` or ``mae`` or both.
        reading: how the files are read.
        as_json: whether to print JSON.

    Raises:
        InputError: a file cannot be read.
    """
    from dataclasses import replace

    from recsys.evaluation.judging.ratings import evaluate_ratings
    from recsys.evaluation.settings import EvaluationSettings
    from recsys.evaluation.topk_tables import drop_refused_values, read_topk, read_truth

    truth_table, n_refused = drop_refused_values(read_truth(truth, reading))
    evaluation = evaluate_ratings(read_topk(predictions, reading), truth_table, name=Path(predictions).stem)
    pooled = {name: evaluation.about["pooled"][name] for name in names}
    about = evaluation.about | {
        "definitions": {name: evaluation.about["definitions"][name] for name in names},
        "counts": evaluation.about["counts"] | {"refused_truth": n_refused},
    }
    print_evaluation(replace(evaluation, about=about), EvaluationSettings(), {"pooled": pooled}, as_json)


def print_evaluation(
    evaluation: Evaluation, settings: EvaluationSettings, about: dict[str, Any], as_json: bool
) -> None:
    """Print the mean, the interval and the definition of each metric, and the counts.

    Args:
        evaluation: the metrics of each user.
        settings: the settings of the evaluation.
        about: further entries for the part ``about`` of the JSON object. Without JSON only its entry
            ``pooled`` is printed, if there is one: metric -> its value over all pairs.
        as_json: whether to print one JSON object, with the same content, instead of tables.
    """
    from recsys.evaluation.summary import summarise
    from recsys.runfolder import to_plain_json

    result = to_plain_json(summarise([evaluation], settings))
    result["about"] |= to_plain_json(about)
    if as_json:
        print(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    out.print(metrics_table(result["models"][evaluation.name]))
    if "pooled" in about:
        out.print("over all pairs: " + ", ".join(f"{name} {value:.4f}" for name, value in about["pooled"].items()))
    counts = evaluation.about["counts"]
    out.print(", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in counts.items() if count))
    for name, text in evaluation.about["definitions"].items():
        out.print(f"{name}: {text}")
