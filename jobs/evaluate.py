"""Evaluate a table of lists against a truth on Spark, with the metrics of `recsys evaluate` and the same numbers.

    spark-submit jobs/evaluate.py lists.parquet truth.parquet -m ndcg@10 -m recall@20 --history history.parquet

RECS: user_id, item_id, rank[, score, source]; for rmse and mae, of predicted values: user_id, item_id, score. TRUTH,
HISTORY, TRAIN: user_id, item_id[, value, timestamp, event]. Parquet, or CSV when the name ends in .csv, at any URI that
Spark reads. Prints one JSON object with the keys of metrics.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def main() -> int:
    """Run the job and return its exit code: 0 done, 1 a fault of recsys, 2 wrong input or settings, 130 Ctrl-C."""
    from recsys.cli import exit_code_of

    return exit_code_of(lambda: work(parse_options()))


def parse_options() -> argparse.Namespace:
    """Return the options of the command line, checked by argparse, which exits with 2 if one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recs", help="top-N table")
    parser.add_argument("truth", help="what the users chose")
    parser.add_argument(
        "-m",
        "--metric",
        action="append",
        help="ndcg@10, recall@20, …; auc with --all-candidates; or rmse and mae, of predicted values (repeatable)",
    )
    parser.add_argument("--history", help="what users chose before; such pairs are removed from the truth, and counted")
    parser.add_argument("--train", help="item popularity for debiased metrics, recall[ips=0.5]@10")
    parser.add_argument("--relevant", type=float, help="a truth row is relevant if its value is at least this")
    parser.add_argument("--missing-users", choices=["zero", "skip"], default="zero")
    parser.add_argument("--ties", choices=["stable", "average", "pessimistic", "optimistic"], default="stable")
    parser.add_argument(
        "--sampled",
        type=int,
        help="the lists rank only this number of sampled candidates; metric names will say so",
    )
    parser.add_argument(
        "--all-candidates", action="store_true", help="the lists score every candidate of each user, as auc needs"
    )
    parser.add_argument("--per-user", help="write one row per user to this Parquet file")
    return parser.parse_args()


def work(options: argparse.Namespace) -> None:
    """Read the tables, compute the metrics, and print them as one JSON object.

    Raises:
        RecsysError: an option or a table is not valid, or ``--per-user`` exists already.
    """
    from recsys.config import SparkSettings
    from recsys.errors import ConfigError
    from recsys.evaluation.judging.metrics import parse_all
    from recsys.evaluation.judging.ratings import PREDICTIONS, RATINGS, error_metrics
    from recsys.evaluation.settings import AllCandidatesSettings, EvaluationSettings
    from recsys.evaluation.topk_tables import TRUTH
    from recsys.runfolder import to_plain_json
    from recsys.schema import TOPK
    from recsys.spark.errors import spark_errors_explained
    from recsys.spark.evaluation.evaluate import evaluate_tables
    from recsys.spark.evaluation.ratings import evaluate_ratings
    from recsys.spark.session import session
    from recsys.spark.table_files import read_table, require_new_table, write_table

    if options.sampled is not None and options.sampled < 1:
        raise ConfigError(f"--sampled: must be at least 1 (it is {options.sampled}).")
    if options.relevant is not None and not math.isfinite(options.relevant):
        raise ConfigError(f"--relevant: must be a finite number (it is {options.relevant}).")
    requested = options.metric or ["ndcg@10", "recall@10"]
    errors = error_metrics(requested)
    if not errors:
        kind = AllCandidatesSettings if options.all_candidates else EvaluationSettings
        judging = kind(
            metrics=tuple(map(str, parse_all(requested, complete=options.all_candidates))),
            relevant=options.relevant,
            missing_users=options.missing_users,
            ties=options.ties,
            sampled=options.sampled,
            resamples=1000,
        )
    spark = session(SparkSettings())
    if options.per_user:
        require_new_table(spark, options.per_user)

    def write_per_user(per_user: DataFrame) -> None:
        if options.per_user:
            write_table(per_user, options.per_user)

    with spark_errors_explained(options.per_user or options.recs):
        if errors:
            predictions = read_table(spark, options.recs, schema=PREDICTIONS)
            ratings = read_table(spark, options.truth, like=predictions, schema=RATINGS)
            result = evaluate_ratings(predictions, ratings, errors, keep=write_per_user)
        else:
            recs = read_table(spark, options.recs, schema=TOPK)
            truth = read_table(spark, options.truth, like=recs, schema=TRUTH)
            history = read_table(spark, options.history, like=recs, schema=TRUTH) if options.history else None
            train = read_table(spark, options.train, like=recs, schema=TRUTH) if options.train else None
            _, result = evaluate_tables(recs, truth, judging, history=history, train=train, keep=write_per_user)
    for warning in result["about"]["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(to_plain_json(result), ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
