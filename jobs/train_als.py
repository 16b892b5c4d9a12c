"""Train ALS on Spark, recommend, evaluate, and write the run folder with its report.

    spark-submit jobs/train_als.py --config configs/als_demo.toml --set models.als.rank=64

Without --config this is the demo, which makes its events first. What spark-submit sets (--master, --conf,
--driver-memory) overrides [spark].
"""

import argparse
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO_EVENTS = Path("runs/demo-data/events.csv")


def main() -> int:
    """Run the job and return its exit code: 0 done, 1 a fault of recsys, 2 wrong input or settings, 130 Ctrl-C."""
    try:
        from recsys.cli import run_verb
    except ModuleNotFoundError as missing:
        python = ROOT / ".venv" / "bin" / "python"
        again = shlex.join([str(python.with_name("spark-submit")), *sys.argv])
        remedy = f"Type:  PYSPARK_PYTHON={python} {again}" if python.exists() else f"Type first:  make -C {ROOT} setup"
        print(f"error: {sys.executable} has no module {missing.name}. {remedy}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="a TOML file; configs/ has commented examples")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key (repeatable)")
    options = parser.parse_args()
    if (
        options.config is None
        and not DEMO_EVENTS.exists()
        and (code := run_verb(["data", "make", str(DEMO_EVENTS.parent)]))
    ):
        return code
    config = options.config or str(ROOT / "configs" / "als_demo.toml")
    return run_verb(["run", config, *(word for key in options.set for word in ("--set", key)), "--set", "engine=spark"])


if __name__ == "__main__":
    sys.exit(main())
