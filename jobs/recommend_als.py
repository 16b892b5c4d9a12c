"""Recommend on Spark from a saved run, without training: for all or some users, any length of list, with rules.

    spark-submit jobs/recommend_als.py runs/als_demo --out lists.parquet -k 20 --users users.csv --rules rules.toml

USERS is a table with a column user_id. If the fallback of the run is by segment, columns with the names of the
segments (country, say) give the segment of users that the run does not know. LATE has events (user_id,
item_id[, value]) that came after the run; their users, known or new, are folded in. Tables are Parquet, or CSV when
the name ends in .csv, at any URI that Spark reads.
"""

import argparse
import sys


def main() -> int:
    """Run the job and return its exit code, with the same meaning as on the command line."""
    from recsys.cli import exit_code_of

    return exit_code_of(lambda: work(parse_options()))


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder of the Spark engine")
    parser.add_argument("--out", required=True, help="the path of the table; must not exist")
    parser.add_argument("--model", help="which of its models; default: the best by the first metric of the run")
    parser.add_argument("-k", type=int, default=10, help="length of each list (10)")
    parser.add_argument("--users", help="the users to recommend to; default: all with a factor or a history")
    parser.add_argument("--late", help="events that came after the run")
    parser.add_argument("--rules", help="a TOML file of rules: see docs/rules.md")
    parser.add_argument(
        "--keep-seen", action="store_true", help="also recommend items that are in the history of the user"
    )
    parser.add_argument("--no-fallback", action="store_true", help="no popular items for users without a factor")
    parser.add_argument("--memory-mb", type=int, default=512, help="bound on the memory for scores in one task (512)")
    return parser.parse_args()


def work(options: argparse.Namespace) -> None:
    """Open the run, write the lists, and print their number."""
    from recsys.config import SparkSettings
    from recsys.ranking.business_rules import load
    from recsys.spark import saved
    from recsys.spark.session import session
    from recsys.spark.table_files import read_table, require_new_table, write_table

    request = saved.ListRequest(
        options.k,
        rules=load(options.rules) if options.rules else None,
        exclude_seen=not options.keep_seen,
        fallback=not options.no_fallback,
        memory_mb=options.memory_mb,
    )
    spark = session(SparkSettings())
    require_new_table(spark, options.out)
    run = saved.open_spark_run(spark, options.run, options.model)
    if options.model is None:
        print(f"model: {run.name} (another with --model)", file=sys.stderr)
    lists, rules = saved.recommend(
        run,
        request,
        users=read_table(spark, options.users, like=run.users, columns=("user_id",)) if options.users else None,
        late=read_table(spark, options.late, like=run.users, columns=("user_id", "item_id")) if options.late else None,
    )
    write_table(lists, options.out)
    if rules:
        print(f"rules removed: {rules['removed']}", file=sys.stderr)
        for name, ids in rules["unknown"].items():
            print(f"rule {name}: unknown ids {ids[:10]}{' …' if len(ids) > 10 else ''}", file=sys.stderr)
    print(
        f"{options.out}: {read_table(spark, options.out).select('user_id').distinct().count():,} lists", file=sys.stderr
    )


if __name__ == "__main__":
    sys.exit(main())
