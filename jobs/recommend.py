"""Recommend on Spark from a saved model, without training: for all or some users, any length of list, with rules.

    spark-submit jobs/recommend.py runs/als_demo --out lists.parquet -k 20 --users users.csv --rules rules.toml

RUN is a run folder of either engine, or a bundle, by path or URI: any model can be listed, also one that was fitted
without Spark. USERS is a table with a column user_id. If the fallback of the run is by segment, columns with the names
of the segments (country, say) give the segment of users that the run does not know. LATE has events (user_id,
item_id[, value, timestamp]) that came after the run, or of users whom the run does not know: they are added to the
histories. Tables are Parquet, or CSV when the name ends in .csv, at any URI that Spark reads.
"""

import argparse
import sys


def main() -> int:
    """Run the job and return its exit code: 0 done, 1 a fault of recsys, 2 wrong input or settings, 130 Ctrl-C."""
    from recsys.cli import exit_code_of

    return exit_code_of(lambda: work(parse_options()))


def parse_options() -> argparse.Namespace:
    """Return the options of the command line, checked by argparse, which exits with 2 if one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder of either engine, or a bundle")
    parser.add_argument("--out", required=True, help="the path of the table; must not exist")
    parser.add_argument("--model", help="which of its models; default: the pick of the run")
    parser.add_argument("-k", type=int, default=10, help="length of each list (10)")
    parser.add_argument("--users", help="the users to recommend to; default: all with a history")
    parser.add_argument("--late", help="events that the run does not have")
    parser.add_argument("--rules", help="a TOML file of rules: see docs/rules.md")
    parser.add_argument(
        "--keep-seen",
        action="store_true",
        help="also recommend what is in the history of the user, if the run does not",
    )
    parser.add_argument("--no-fallback", action="store_true", help="no list for users whom the model cannot score")
    parser.add_argument("--memory-mb", type=int, default=512, help="bound on the memory for scores in one task (512)")
    parser.add_argument(
        "--own-models", action="store_true", help="let models named package.module:Class run on the executors"
    )
    return parser.parse_args()


def work(options: argparse.Namespace) -> None:
    """Open the saved model, write the table of lists, and print the number of lists to stderr.

    Raises:
        RecsysError: the run, an option or a table is not valid, or ``--out`` exists already.
    """
    from recsys.config import SparkSettings
    from recsys.ranking.business_rules import describe_rules, load_rules
    from recsys.saved.on_spark import open_on_spark, read_config, recommend
    from recsys.saved.open_model import describe_other_ranking
    from recsys.spark.errors import spark_errors_explained
    from recsys.spark.saved import ListRequest
    from recsys.spark.session import session
    from recsys.spark.table_files import read_table, require_new_table, write_table

    # A run may be where only Spark has the right to read.
    spark = session(SparkSettings())
    config = read_config(options.run)
    request = ListRequest(
        options.k,
        rules=load_rules(options.rules) if options.rules else None,
        exclude_seen=config.recommend.exclude_seen and not options.keep_seen,
        fallback=not options.no_fallback,
        memory_mb=options.memory_mb,
    )
    require_new_table(spark, options.out)
    saved = open_on_spark(spark, options.run, options.model, own_models=options.own_models)
    if options.model is None:
        print(f"model: {saved.name} (another with --model)", file=sys.stderr)
    if note := describe_other_ranking(config):
        print(note, file=sys.stderr)
    users = None
    late_events = None
    with spark_errors_explained(options.out):
        if options.users:
            users = read_table(spark, options.users, like=saved.users, columns=("user_id",))
        if options.late:
            late_events = read_table(spark, options.late, like=saved.users, columns=("user_id", "item_id"))
        lists = recommend(saved, request, users=users, late_events=late_events)
        write_table(lists.table, options.out)
    if lists.rules:
        for line in describe_rules(lists.rules):
            print(line, file=sys.stderr)
    for reason, n_users in lists.shortfall().items():
        print(f"short lists, {reason}: {n_users:,}", file=sys.stderr)
    n_lists = read_table(spark, options.out).select("user_id").distinct().count()
    print(f"{options.out}: {n_lists:,} lists", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
