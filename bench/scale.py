"""How the Spark path scales: made-up logs of 1, 3, 10, … million events, each a job of its own.

python bench/scale.py MILLION…              default 1 3 10 30 100
python bench/scale.py --keep FOLDER …       logs and runs stay there, for bench/plan.py; whole ones are not run again

Users grow with the events (100 each), 27,000 items stay; rank 32, 10 iterations, lists of 20 for every user. Every size
is made in chunks, run by spark-submit in processes of its own, measured by the run's manifest, and removed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from results import RESULTS, table, write_section

from recsys.data.synthetic import Recipe, generate_world
from recsys.runfolder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
ITEMS, PER_USER, CORES, DRIVER = 27_000, 100, 2, "8g"
STAGES = ("read", "split", "fit als", "recommend als", "judge als")

CONFIG = """
out = "{place}/run"
[data]
events = "{place}/events.parquet"
[split]
rule = "time"
[models.als]
rank = 32
iterations = 10
[recommend]
k = 20
everyone = true
[judge]
metrics = ["ndcg@10", "recall@10"]
resamples = 200
"""


def main() -> None:
    """Run every size and write table and figure."""
    words = argparse.ArgumentParser(description="How the Spark path scales.")
    words.add_argument("millions", nargs="*", type=float, default=[1, 3, 10, 30, 100])
    words.add_argument("--keep", type=Path)
    given = words.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        run(Path(temporary), 100_000)  # compiled code is kept on disk: let nobody wait for it below
    for million in given.millions:
        with tempfile.TemporaryDirectory() as temporary:
            place = given.keep / f"{million:g}" if given.keep else Path(temporary)
            place.mkdir(parents=True, exist_ok=True)
            found[million] = run(place, int(million * 1e6))
        report(found)


def run(place: Path, events: int) -> dict[str, dict[str, float]]:
    """Return stage -> seconds and peak MiB by role of one size."""
    if not (place / "run").exists():
        submit_job(place, events)
    hops = RunFolder.open(place / "run").read_json("manifest.json")["hops"]
    return {hop["name"]: {"seconds": hop["seconds"], **hop["peak_mb"]} for hop in hops}


def submit_job(place: Path, events: int) -> None:
    """Make the log and run the job over it."""
    generate_world(Recipe(events // PER_USER, ITEMS, events, 0, 4.0), place, "parquet")
    (place / "job.toml").write_text(CONFIG.format(place=place))
    submit = Path(sys.executable).with_name("spark-submit")
    words = ["--master", f"local[{CORES}]", "--driver-memory", DRIVER, "--conf", "spark.log.level=ERROR"]
    subprocess.run([submit, *words, ROOT / "jobs" / "train_als.py", "--config", place / "job.toml"], check=True)


def report(found: dict[float, dict[str, dict[str, float]]]) -> None:
    """Write what there is so far."""
    rows = []
    for million, hops in found.items():
        seconds = [hops[stage]["seconds"] for stage in STAGES]
        top_n, everything = hops["recommend als"], max(hop["total"] for hop in hops.values())
        memory = [
            top_n["python"],
            max(hop["jvm"] for hop in hops.values()),
            max(hop.get("workers", 0) for hop in hops.values()),
        ]
        rows.append([f"{million:g} M", *(f"{x:,.0f}" for x in [*seconds, *memory, everything])])
    if len(found) > 1:
        rows.append(["log–log slope", *(f"{slope(found, stage):.2f}" for stage in STAGES), "", "", "", ""])
        largest = dict(list(found.items())[-2:])
        rows.append(["of the two largest", *(f"{slope(largest, stage):.2f}" for stage in STAGES), "", "", "", ""])
    heads = [
        "events",
        *(f"{stage}, s" for stage in STAGES),
        "driver Python in top-N, MiB",
        "JVM",
        "workers",
        "together",
    ]
    figure(found)
    body = (
        f"Users are a hundredth of the events, {ITEMS:,} items, rank 32, 10 iterations, top 20 for everyone;"
        f" local[{CORES}], driver heap {DRIVER}. Peak resident MiB by role.\n\n{table(heads, rows)}\n\n"
        "![seconds by stage](scale.svg)"
    )
    write_section(
        "scale", "How the Spark path scales", f"python bench/scale.py {' '.join(f'{m:g}' for m in found)}", body
    )


def slope(found: dict[float, dict[str, dict[str, float]]], stage: str) -> float:
    """Return the exponent of seconds ~ events."""
    seconds = [hops[stage]["seconds"] for hops in found.values()]
    return float(np.polyfit(np.log(list(found)), np.log(seconds), 1)[0])


def figure(found: dict[float, dict[str, dict[str, float]]]) -> None:
    """Draw seconds by stage against events, both logarithmic, beside RESULTS.md."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "recsys"
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(figsize=(6, 4))
    for stage in STAGES:
        axes.loglog(list(found), [hops[stage]["seconds"] for hops in found.values()], marker="o", label=stage)
    axes.set(xlabel="million events", ylabel="seconds")
    axes.legend()
    axes.grid(alpha=0.3)
    drawn.savefig(RESULTS.with_name("scale.svg"), metadata={"Date": None})
    pyplot.close(drawn)


if __name__ == "__main__":
    main()
