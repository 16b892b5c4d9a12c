"""Search for the settings of ALS on Spark, on the train part of a run. Call it again after an interruption.

    spark-submit jobs/tune_als.py --config configs/als_demo.toml --out runs/als_demo-tune --set tune.parallel=2

The section [tune] says what is searched, how, and on which folds. The study, a report and best.toml, the config of a
run with the best settings, are written to --out. What spark-submit sets (--master, --conf, --driver-memory) overrides
[spark].
"""

import argparse
import sys


def main() -> int:
    """Run the job and return its exit code: 0 done, 1 a fault of recsys, 2 wrong input or settings, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the config of a finished run of jobs/train_als.py")
    parser.add_argument("--out", help="the folder of the study, on a disk that executors share; default: OUT-tune")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key (repeatable)")
    options = parser.parse_args()
    from recsys.cli import run_verb

    overrides = [word for key in [*options.set, "engine=spark"] for word in ("--set", key)]
    return run_verb(["tune", options.config, *overrides, *(["--out", options.out] if options.out else [])])


if __name__ == "__main__":
    sys.exit(main())
