"""What a run cost, hop by hop, from its manifest into bench/RESULTS.md:  python bench/costs.py NAME RUN "TITLE"."""

from __future__ import annotations

import sys

from results import table, write_section

from recsys.runfolder import RunFolder


def main(name: str, run: str, title: str) -> None:
    """Write the section ``name``."""
    folder = RunFolder.open(run)
    manifest, split, metrics = (folder.read_json(f"{part}.json") for part in ("manifest", "split", "metrics"))
    roles = ("python", "jvm", "workers", "total")
    rows = [
        [hop["name"], f"{hop['seconds']:.0f}", *(f"{hop['peak_mb'].get(role, 0):,.0f}" for role in roles)]
        for hop in manifest["hops"]
    ]
    total = sum(hop["seconds"] for hop in manifest["hops"])
    peak = max(hop["peak_mb"]["total"] for hop in manifest["hops"])
    rows.append(["all", f"{total:.0f}", "", "", "", f"{peak:,.0f}"])
    primary = metrics["about"]["primary"]
    means = ", ".join(f"{model} {cells[primary]['mean']:.4f}" for model, cells in metrics["models"].items())
    train = split["train"]
    body = (
        f"{train['rows']:,} train and {split['test']['rows']:,} test events, {train['users']:,} training users,"
        f" {split['candidates']:,} candidates; {primary}: {means}. Peak resident MiB by role; pages that forked workers"
        " share count once for each.\n\n" + table(["hop", "seconds", *roles], rows)
    )
    write_section(name, title, manifest["command"], body)


if __name__ == "__main__":
    main(*sys.argv[1:4])
