"""Search for the settings of an ALS on Spark, on the train part of a run; after a kill, call it again to go on.

    spark-submit jobs/tune_als.py --config configs/als_demo.toml --out runs/als_demo-tune --set tune.parallel=2

[tune] says what is searched, how, and on which folds. The study, a report and best.toml, the config of a run with the
best settings, go to --out. What spark-submit sets (--master, --conf, --driver-memory) wins over [spark].
"""

import argparse
import sys


def main() -> int:
    """Run the job and return its exit code, which means the same as the command line's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the config of a run of jobs/train_als.py that has ended")
    parser.add_argument("--out", help="where the study goes, on a disk that executors share; default: OUT-tune")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key (repeatable)")
    asked = parser.parse_args()
    from recsys.cli import run_verb

    overrides = [word for key in [*asked.set, "engine=spark"] for word in ("--set", key)]
    return run_verb(["tune", asked.config, *overrides, *(["--out", asked.out] if asked.out else [])])


if __name__ == "__main__":
    sys.exit(main())
