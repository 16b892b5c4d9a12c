"""The same ALS on both engines, on MovieLens: is either better? Five seeds, one split each, users paired.

python bench/engines.py FOLDER      FOLDER holds ml-latest-small (recsys data fetch ml-latest-small)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section

from recsys import config, flow
from recsys.runfolder import RunFolder

SEEDS = range(5)
METRIC = "ndcg@10"


def main(folder: str) -> None:
    """Run both engines for every seed and write the section."""
    rows = []
    differences = []
    with tempfile.TemporaryDirectory() as place:
        for seed in SEEDS:
            found = {engine: run(folder, Path(place), engine, seed) for engine in ("local", "spark")}
            same = found["local"]["test"].equals(found["spark"]["test"])
            paired = found["spark"]["als"] - found["local"]["als"]
            differences.append(paired.mean())
            means = [f"{found[engine][model].mean():.4f}" for model in ("popular", "als") for engine in found]
            rows.append(
                [str(seed), "yes" if same else "NO", *means, f"{paired.mean():+.1e}", f"{paired.abs().max():.1e}"]
            )
    rows.append(["mean", "", "", "", "", "", f"{np.mean(differences):+.1e}", ""])
    heads = ["seed", "same test rows", "popular, local", "popular, Spark", "als, local", "als, Spark"]
    heads += ["Spark − local", "largest of a user"]
    body = (
        f"ml-latest-small, 20 % of each user's rows by hash, ratings from 4 relevant, {METRIC}; als:"
        " rank 32, 15 iterations, α 10, λ 0.05. Both engines draw the same random factors to start from; Spark then"
        " solves users exactly, and all items together.\n\n" + table(heads, rows)
    )
    write_section("engines", "Two engines, one answer", "python bench/engines.py FOLDER", body)


def run(folder: str, place: Path, engine: str, seed: int) -> dict[str, pd.Series | pd.DataFrame]:
    """Return the test rows and each model's per-user metric."""
    settings = config.parse_config(
        {
            "out": str(place / f"{engine}-{seed}"),
            "seed": seed,
            "engine": engine,
            "data": {"events": folder},
            "split": {"rule": "fraction", "test": 0.2, "seed": seed},
            "models": {"als": {"rank": 32, "iterations": 15, "alpha": 10.0, "reg": 0.05}},
            "judge": {"relevant": 4.0, "metrics": [METRIC]},
            "spark": {"driver_memory": "2g", "conf": {"spark.ui.enabled": "false"}},
        }
    )
    flow.run(settings)
    written = RunFolder.open(settings.out)
    test = written.read_table("split/test.parquet").sort_values(["user_id", "item_id"], ignore_index=True)
    per_user = written.read_table("per_user.parquet").pivot(index="user_id", columns="model", values=METRIC)
    return {"test": test.astype({"timestamp": np.int64}), **{model: per_user[model] for model in per_user}}


if __name__ == "__main__":
    main(sys.argv[1])
