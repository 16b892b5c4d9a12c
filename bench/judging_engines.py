"""One table of lists judged locally and on Spark: the largest difference of any user's value.

python bench/judging_engines.py [USERS]      300,000 users by default, 20 items each
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from results import write_section

from recsys.config import SparkSettings
from recsys.evaluation.evaluate import Judging, evaluate_tables
from recsys.spark import evaluate
from recsys.spark.session import session

K, ITEMS = 20, 10_000
METRICS = (
    "precision@10",
    "recall@20",
    "capped_recall@20",
    "hit_rate@5",
    "ndcg@20",
    "ndcg[gain=exp]@10",
    "map@20",
    "mrr",
)
METRICS += ("r_precision", "rbp@20")


def world(users: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (recs, truth): integer ids, tied scores, relevant items at random places and outside the lists."""
    rng = np.random.default_rng(seed)
    items = (rng.integers(0, ITEMS, size=(users, 1)) + 37 * np.arange(K)) % ITEMS
    score = np.sort(rng.integers(0, 12, size=(users, K)), axis=1)[:, ::-1] / 4
    user = np.repeat(np.arange(users), K)
    rank = np.tile(np.arange(1, K + 1), users)
    recs = pd.DataFrame({"user_id": user, "item_id": items.ravel(), "rank": rank, "score": score.ravel()})
    near = (items[:, :1] + 37 * rng.integers(0, 2 * K, size=(users, 5))) % ITEMS
    cells = pd.DataFrame({"user_id": np.repeat(np.arange(users), 5), "item_id": near.ravel()})
    cells["value"] = rng.integers(0, 5, size=len(cells)).astype(float)
    return recs, cells.drop_duplicates(["user_id", "item_id"], ignore_index=True)


def main(users: int) -> None:
    """Judge on both engines, stable and averaged over ties, and write the section."""
    recs, truth = world(users)
    spark = session(SparkSettings(master="local[2]", driver_memory="3g", conf={"spark.ui.enabled": "false"}))
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        frames = []
        for name, table in (("recs", recs), ("truth", truth)):
            table.rename(columns={"user_id": "user", "item_id": "item"}).to_parquet(Path(folder) / f"{name}.parquet")
            frames.append(spark.read.parquet(str(Path(folder) / f"{name}.parquet")))
        for ties in ("stable", "average"):
            judging = Judging(metrics=METRICS, ties=ties)
            start = time.perf_counter()
            here = evaluate_tables(recs, truth, judging).per_user.set_index("user_id")
            middle = time.perf_counter()
            relevant, tested, _ = evaluate.truth(frames[1], judging, frames[1].limit(0))
            there = evaluate.per_user(frames[0], relevant, tested, judging, K).toPandas().set_index("user")
            stop = time.perf_counter()
            there = there.loc[here.index, list(METRICS)]
            assert (there.isna() == here[list(METRICS)].isna()).all(axis=None)
            worst = float((there - here[list(METRICS)]).abs().max(axis=None))
            lines.append(
                f"- ties {ties}: {len(here):,} users × {len(METRICS)} metrics, largest difference {worst:.1e};"
                f" {middle - start:.1f} s locally, {stop - middle:.1f} s on Spark (two cores)."
            )
    spark.stop()
    body = f"{users:,} lists of {K} items, {len(truth):,} truth rows.\n\n" + "\n".join(lines)
    write_section(
        "judging_engines", "Judging: Spark against local, user by user", "python bench/judging_engines.py", body
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000)
