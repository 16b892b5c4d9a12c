"""Make lists on Spark from a saved run: for everybody or some users, of any length, under rules. Nothing is trained.

    spark-submit jobs/recommend_als.py runs/als_demo --out lists.parquet -k 20 --users users.csv --rules rules.toml

USERS is a table with a column user_id; where the run falls back on segments, columns of their names (country, say) tell
the segment of users that the run has not met. LATE holds events (user_id, item_id[, value]) that came after the run:
their users, known or new, are folded in. Tables are Parquet, or CSV when the name ends in .csv, at any URI that Spark
reads.
"""

import argparse
import sys


def main() -> int:
    """Run the job and return its exit code, which means the same as the command line's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder of the Spark path")
    parser.add_argument("--out", required=True, help="where the table goes; must not exist")
    parser.add_argument("--model", help="which of its models; default: the last by name")
    parser.add_argument("-k", type=int, default=10, help="length of each list (10)")
    parser.add_argument("--users", help="of whom to answer; default: everybody with a factor or a history")
    parser.add_argument("--late", help="events that came after the run")
    parser.add_argument("--rules", help="a TOML file of rules: see recsys/ranking/business_rules.py")
    parser.add_argument("--keep-seen", action="store_true", help="do not leave out what a user has seen")
    parser.add_argument("--no-fallback", action="store_true", help="no popular items for users without a factor")
    parser.add_argument("--memory-mb", type=int, default=512, help="bound on the scores that one task holds (512)")
    asked = parser.parse_args()
    from recsys.cli import exit_code_of

    return exit_code_of(lambda: work(asked))


def work(asked: argparse.Namespace) -> None:
    """Open, recommend, write, and say how many lists there are."""
    from recsys.config import SparkSettings
    from recsys.ranking.business_rules import load
    from recsys.spark import saved
    from recsys.spark.session import session
    from recsys.spark.table_files import read_table, write_table

    rules = load(asked.rules) if asked.rules else None
    spark = session(SparkSettings())
    run = saved.open_run(spark, asked.run, asked.model)
    lists, removed = saved.recommend(
        run,
        asked.k,
        users=read_table(spark, asked.users, like=run.users, columns=("user_id",)) if asked.users else None,
        late=read_table(spark, asked.late, like=run.users, columns=("user_id", "item_id")) if asked.late else None,
        rules=rules,
        exclude_seen=not asked.keep_seen,
        fallback=not asked.no_fallback,
        memory_mb=asked.memory_mb,
    )
    write_table(lists, asked.out)
    if removed:
        print(f"rules removed: {removed}", file=sys.stderr)
    print(f"{asked.out}: {read_table(spark, asked.out).select('user_id').distinct().count():,} lists", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
