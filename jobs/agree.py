"""Compare two tables of lists on Spark, user by user, with the measures of `recsys agree` and the same numbers.

    spark-submit jobs/agree.py old.parquet new.parquet -m rbo -m overlap@10 --per-user agreement.parquet

A, B: user_id, item_id, rank[, score, source], as jobs/recommend.py writes them. Parquet, or CSV when the name ends in
.csv, at any URI that Spark reads. Prints one JSON object with the keys of `recsys agree --json`.
"""

import argparse
import json
import sys


def main() -> int:
    """Run the job and return its exit code: 0 done, 1 a fault of recsys, 2 wrong input or settings, 130 Ctrl-C."""
    from recsys.cli import exit_code_of

    return exit_code_of(lambda: work(parse_options()))


def parse_options() -> argparse.Namespace:
    """Return the options of the command line, checked by argparse, which exits with 2 if one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="top-N table")
    parser.add_argument("b", metavar="B", help="the other top-N table")
    parser.add_argument("-m", "--measure", action="append", help="tau_b, rbo[p=0.8], overlap@10, … (repeatable)")
    parser.add_argument("--per-user", help="write one row per user to this table, Parquet or CSV; must not exist")
    return parser.parse_args()


def work(options: argparse.Namespace) -> None:
    """Read the two tables, compare the lists of each user, and print the means as one JSON object.

    Raises:
        RecsysError: a measure or a table is not valid, or ``--per-user`` exists already.
    """
    from recsys.config import SparkSettings
    from recsys.evaluation.agreement.measures import parse_measures
    from recsys.runfolder import to_plain_json
    from recsys.schema import TOPK
    from recsys.spark.errors import spark_errors_explained
    from recsys.spark.evaluation.agreement import agree_tables
    from recsys.spark.session import session
    from recsys.spark.table_files import read_table, require_new_table, write_table

    measures = [str(measure) for measure in parse_measures(options.measure or ["tau_b", "rbo"])]
    spark = session(SparkSettings())
    if options.per_user:
        require_new_table(spark, options.per_user)
    keep = (lambda per_user: write_table(per_user, options.per_user)) if options.per_user else None
    with spark_errors_explained(options.per_user or options.a):
        a = read_table(spark, options.a, schema=TOPK)
        b = read_table(spark, options.b, like=a, schema=TOPK)
        result = agree_tables(a, b, measures, keep=keep)
    print(json.dumps(to_plain_json(result), ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
