"""Add new events to a run of Spark without training, and say whether to train again.

    spark-submit jobs/update.py runs/als_demo yesterday.csv runs/als_demo-updated

RUN has a model whose factors Spark trained. EVENTS have the layout of the events of the run, at any URI that Spark
reads. Users with new events get new factors, items that are liked for the first time get one, and the histories of
the run grow. OUT is a run with this one model: for jobs/recommend.py, recsys bundle, and the next update. Another run
that is there is replaced. It is `recsys update` where the users do not fit in one process.
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
    parser.add_argument("run", help="the run folder")
    parser.add_argument("events", help="the new events")
    parser.add_argument("out", help="the folder of the updated run")
    parser.add_argument("--model", help="which of its models; default: the pick of the run")
    parser.add_argument(
        "--retrain-at", type=float, default=0.05, help="recommend a retrain when the drift grows by more (0.05)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def work(options: argparse.Namespace) -> None:
    """Update the run, and print what has changed.

    Raises:
        RecsysError: the run or the events cannot be used, or the folder may not be written.
    """
    from recsys.cli.update import print_update
    from recsys.config import SparkSettings
    from recsys.runfolder import RunFolder
    from recsys.saved.open_model import choose_saved_model
    from recsys.spark.errors import spark_errors_explained
    from recsys.spark.session import session
    from recsys.spark.update import update_run

    # A run may be where only Spark has the right to read.
    spark = session(SparkSettings())
    name = choose_saved_model(RunFolder.open(options.run), options.model)
    with spark_errors_explained(options.out):
        result = update_run(spark, options.run, options.events, options.out, name, options.retrain_at)
    print_update(result, options.run, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
