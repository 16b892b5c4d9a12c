"""Evaluate a table of lists against a truth on Spark, with the metrics of `recsys evaluate` and the same numbers.

    spark-submit jobs/evaluate.py lists.parquet truth.parquet -m ndcg@10 -m recall@20 --history history.parquet

RECS: user_id, item_id, rank[, score]. TRUTH, HISTORY, TRAIN: user_id, item_id[, value]. Parquet, or CSV when the name
ends in .csv, at any URI that Spark reads. Prints one JSON object with the keys of metrics.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def main() -> int:
    """Run the job and return its exit code, with the same meaning as on the command line."""
    from recsys.cli import exit_code_of

    return exit_code_of(lambda: work(parse_options()))


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recs", help="top-N table")
    parser.add_argument("truth", help="what the users chose")
    parser.add_argument("-m", "--metric", action="append", help="ndcg@10, recall@20, … (repeatable)")
    parser.add_argument("--history", help="what users chose before; such pairs are removed from the truth, and counted")
    parser.add_argument("--train", help="item popularity for debiased metrics, recall[ips=0.5]@10")
    parser.add_argument("--relevant", type=float, help="a truth row is relevant if its value is at least this")
    parser.add_argument("--missing-users", choices=["zero", "skip"], default="zero")
    parser.add_argument("--ties", choices=["stable", "average", "pessimistic", "optimistic"], default="stable")
    parser.add_argument("--per-user", help="write one row per user to this Parquet file")
    return parser.parse_args()


def work(options: argparse.Namespace) -> None:
    """Read the tables, compute the metrics, and print them as JSON."""
    from recsys.config import SparkSettings
    from recsys.evaluation.judging.metrics import parse_all
    from recsys.evaluation.settings import EvaluationSettings
    from recsys.runfolder import to_plain_json
    from recsys.spark.evaluation.evaluate import evaluate_tables
    from recsys.spark.session import session
    from recsys.spark.table_files import read_table, require_new_table, write_table

    names = tuple(map(str, parse_all(options.metric or ["ndcg@10", "recall@10"])))
    judging = EvaluationSettings(
        metrics=names, relevant=options.relevant, missing_users=options.missing_users, ties=options.ties, resamples=1000
    )
    spark = session(SparkSettings())
    if options.per_user:
        require_new_table(spark, options.per_user)
    pair = ("user_id", "item_id")
    recs = read_table(spark, options.recs, columns=(*pair, "rank"))
    truth = read_table(spark, options.truth, like=recs, columns=pair)
    history = read_table(spark, options.history, like=recs, columns=pair) if options.history else None
    train = read_table(spark, options.train, like=recs, columns=pair) if options.train else None

    def write_per_user(per_user: DataFrame) -> None:
        if options.per_user:
            write_table(per_user, options.per_user)

    _, result = evaluate_tables(recs, truth, judging, history=history, train=train, keep=write_per_user)
    for warning in result["about"]["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(to_plain_json(result), ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
