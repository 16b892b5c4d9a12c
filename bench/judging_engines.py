"""One table of lists judged, and compared with another, locally and on Spark: the largest difference of any value.

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
from recsys.evaluation.agreement.measures import agree_tables
from recsys.evaluation.evaluate import evaluate_tables, item_propensities
from recsys.evaluation.settings import EvaluationSettings
from recsys.spark.evaluation import agreement, evaluate
from recsys.spark.evaluation.truth import Truth
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
METRICS += ("r_precision", "rbp@20", "recall[ips=0.5]@20", "ndcg[ips=0.5]@10")
MEASURES = (
    *("tau_a", "tau_b", "tau_c", "weighted_tau", "tau_ap", "spearman", "footrule", "rbo", "rbo[score=min]"),
    *("kendall_topk", "footrule_topk", "overlap@10", "jaccard@10", "tau_b[missing=intersection]"),
)


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


def another(recs: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Return other lists for nine users in ten: items shifted by a few places and shuffled a little."""
    rng = np.random.default_rng(seed)
    other = recs[recs["user_id"] % 10 > 0].copy()
    other["item_id"] = (other["item_id"] + 37 * (other["user_id"] % 7)) % ITEMS
    other["near"] = other["rank"] + rng.normal(0, 5, size=len(other))
    other["rank"] = other.groupby("user_id")["near"].rank(method="first").astype(int)
    return other.drop(columns=["near", "score"])


def difference(here: pd.DataFrame, there: pd.DataFrame, names: tuple[str, ...]) -> float:
    """Return the largest difference of any user's value; undefined ones must be the same."""
    here, there = (
        here.set_index("user_id")[list(names)],
        there.set_index("user").loc[list(here["user_id"]), list(names)],
    )
    assert (there.isna().to_numpy() == here.isna().to_numpy()).all()
    return float(np.nanmax(np.abs(there.to_numpy(dtype=float) - here.to_numpy())))


def main(users: int) -> None:
    """Judge on both engines, stable and averaged over ties, compare two tables there, and write the section."""
    recs, truth = world(users)
    tables = {"recs": recs, "truth": truth, "other": another(recs)}
    train = pd.DataFrame({"item_id": np.random.default_rng(2).zipf(1.3, size=1_000_000) % ITEMS})
    tables["train"] = train.assign(user_id=train.index, value=1.0)
    spark = session(SparkSettings(master="local[2]", driver_memory="3g", conf={"spark.ui.enabled": "false"}))
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        frames = {}
        for name, table in tables.items():
            table.rename(columns={"user_id": "user", "item_id": "item"}).to_parquet(Path(folder) / f"{name}.parquet")
            frames[name] = spark.read.parquet(str(Path(folder) / f"{name}.parquet"))
        for ties in ("stable", "average"):
            judging = EvaluationSettings(metrics=METRICS, ties=ties)
            start = time.perf_counter()
            here = evaluate_tables(
                recs, truth, judging, propensity=item_propensities(tables["train"], truth["item_id"])
            ).per_user
            middle = time.perf_counter()
            truth = Truth.from_pairs(frames["truth"], frames["truth"].limit(0), judging)
            there = evaluate.per_user(frames["recs"], truth.with_propensity(frames["train"]), K).toPandas()
            stop = time.perf_counter()
            lines.append(
                f"- ties {ties}: {len(here):,} users × {len(METRICS)} metrics, largest difference"
                f" {difference(here, there, METRICS):.1e};"
                f" {middle - start:.1f} s locally, {stop - middle:.1f} s on Spark (two cores)."
            )
        start = time.perf_counter()
        here = agree_tables(tables["recs"].drop(columns="score"), tables["other"], MEASURES).per_user
        middle = time.perf_counter()
        there = agreement.per_user(frames["recs"], frames["other"], MEASURES).toPandas()
        stop = time.perf_counter()
        lines.append(
            f"- agreement with another table: {len(here):,} users × {len(MEASURES)} measures, largest difference"
            f" {difference(here, there, MEASURES):.1e};"
            f" {middle - start:.1f} s locally, {stop - middle:.1f} s on Spark."
        )
    spark.stop()
    body = f"{users:,} lists of {K} items, {len(truth):,} truth rows.\n\n" + "\n".join(lines)
    write_section(
        "judging_engines", "Judging: Spark against local, user by user", "python bench/judging_engines.py", body
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000)
