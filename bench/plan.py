"""The plan against runs that were made on this machine:  python bench/plan.py RUN…

Each RUN is a whole run folder of the Spark path whose events are still where its config says; relative paths are
relative to the folder in which this is started.
"""

from __future__ import annotations

import sys

from results import table, write_section

from recsys.config import load_config
from recsys.runfolder import RunFolder
from recsys.spark.data.read import accepted_pairs
from recsys.spark.plan import count_log, measure_machine, plan
from recsys.spark.session import session
from recsys.spark.training.parameters import model_parameters


def main(runs: list[str]) -> None:
    """Plan every run again, compare, and write the section."""
    rows = []
    for place in runs:
        folder = RunFolder.open(place)
        config = load_config(folder.path / "config.toml")
        params = model_parameters(config)
        spark = session(config.spark)
        facts = count_log(accepted_pairs(spark, config.data, config.event_files))
        found = plan(config, facts, measure_machine(spark, facts, params), params)
        spark.stop()
        hops = folder.read_json("manifest.json")["hops"]
        fits = [hop["seconds"] for hop in hops if hop["name"].startswith("fit als")]
        pairs = (
            ("seconds", sum(found.seconds.values()), sum(hop["seconds"] for hop in hops)),
            ("seconds, fit", sum(s for name, s in found.seconds.items() if name.startswith("fit")), sum(fits)),
            ("peak MiB", found.memory["total"], max(hop["peak_mb"]["total"] for hop in hops)),
        )
        for name, planned, measured in pairs:
            rows.append(
                [f"{facts.rows:,} events", name, f"{planned:,.0f}", f"{measured:,.0f}", f"{planned / measured:.2f}"]
            )
    body = table(["log", "what", "planned", "measured", "planned / measured"], rows)
    write_section("plan", "`recsys plan` against what runs took", "python bench/plan.py RUN…", body)


if __name__ == "__main__":
    main(sys.argv[1:])
