"""Top-20 for everyone: this project's blocks against MLlib's recommendForAllUsers, side by side in one warm session.

python bench/topn.py [LIBBLAS]

138,000 users × 27,000 items, rank 64, 19.2 M seen pairs drawn by popularity. Both read the same factors from Parquet
and write their lists to Parquet; ours removes what was seen, from histories grouped by user before, which a run does
once for all its models, or from raw pairs, grouped in the measured time. LIBBLAS: a
libblas.so.3 (OpenBLAS) for MLlib through JNI; without one only Java BLAS is measured.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.recommendation import ALSModel
from pyspark.sql import DataFrame, SparkSession
from results import table, write_section

from recsys.config import SparkSettings
from recsys.spark.ranking.recommend import ListSettings, collect_seen_items, top_k
from recsys.spark.ranking.scorers import FactorScorer
from recsys.spark.session import session

USERS, ITEMS, RANK, K, PAIRS, FILES = 138_000, 27_000, 64, 20, 19_200_000, 8
REPEATS = 3


def main(libblas: str | None = None) -> None:
    """Time both, three rounds in turn, and write the section."""
    with tempfile.TemporaryDirectory() as place:
        factors = make(Path(place))
        found = measure(Path(place), factors, None)
        report(found)
        if libblas:
            found["jni"] = measure(Path(place), factors, libblas)["mllib"]
            report(found)


def report(found: dict[str, list[tuple[float, float]]]) -> None:
    """Write what there is so far."""
    names = {
        "mllib": "MLlib, Java BLAS (keeps seen items)",
        "jni": "MLlib, OpenBLAS by JNI (keeps seen items)",
        "ours": "`recsys.spark.ranking.recommend.top_k`, seen removed",
        "pairs": "the same, grouping the raw pairs by user first",
    }
    rows = []
    for key, name in names.items():
        if key not in found:
            rows.append([name, *["not available"] * 4])
            continue
        ratios = [np.median(found[key], axis=0)[j] / np.median(found["ours"], axis=0)[j] for j in (0, 1)]
        cells = [f"{np.median(part):.1f} ({', '.join(f'{x:.1f}' for x in part)})" for part in np.transpose(found[key])]
        rows.append([name, cells[0], f"{ratios[0]:.1f}", cells[1], f"{ratios[1]:.1f}"])
    body = (
        f"{USERS:,} users × {ITEMS:,} items, rank {RANK}, {PAIRS / 1e6:.1f} M seen pairs, top {K}, Parquet to Parquet,"
        f" MLlib by `recommendForAllUsers`; a warm local session; median of {REPEATS} (all of them), in turn. CPU: of"
        " all processes, which others on the machine do not change.\n\n"
        + table(["who", "seconds", "× ours", "CPU seconds", "× ours"], rows)
    )
    write_section("topn", "Top-N for everyone against MLlib", "python bench/topn.py LIBBLAS", body)


def measure(place: Path, factors: np.ndarray, libblas: str | None) -> dict[str, list[tuple[float, float]]]:
    """Return (seconds, CPU seconds) of each round of each contender in a session of its own, warmed by some users."""
    option = f"nativeLibPath={libblas}" if libblas else "nativeLib=none"
    conf = {"spark.ui.enabled": "false", "spark.driver.extraJavaOptions": f"-Ddev.ludovic.netlib.blas.{option}"}
    spark = session(SparkSettings(master="local[*]", driver_memory="5g", conf=conf))
    print("MLlib multiplies with", blas(spark))
    contenders: dict[str, Callable[[str], DataFrame]] = {"mllib": lambda who: mllib(spark, place, who)}
    if not libblas:
        grouped(spark, place).write.parquet(str(place / "grouped"))
        contenders["ours"] = lambda who: ours(spark, place, factors, who, spark.read.parquet(str(place / "grouped")))
        contenders["pairs"] = lambda who: ours(spark, place, factors, who, grouped(spark, place))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for round_ in range(REPEATS + 1):
        for name, lists in contenders.items():
            started, worked = time.perf_counter(), cpu()
            lists("id >= 0" if round_ else "id % 16 = 0").write.mode("overwrite").parquet(str(place / "lists" / name))
            cost = (time.perf_counter() - started, cpu() - worked)
            print(f"round {round_} {name} {cost[0]:.1f} s, CPU {cost[1]:.1f} s", flush=True)
            if round_:
                found[name].append(cost)
    spark.stop()
    return found


def cpu() -> float:
    """Return the CPU seconds that this process and everything it started have used."""
    ticks, parent = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = place.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        pid = int(place.parent.name)
        parent[pid], ticks[pid] = int(words[1]), sum(map(int, words[11:15]))
    tree = {os.getpid()}
    while more := {pid for pid, up in parent.items() if up in tree} - tree:
        tree |= more
    return sum(ticks[pid] for pid in tree) / os.sysconf("SC_CLK_TCK")


def grouped(spark: SparkSession, place: Path) -> DataFrame:
    """Return (user, seen) of everyone, from the pairs."""
    everyone = spark.read.parquet(str(place / "als" / "userFactors")).selectExpr("id AS user")
    return collect_seen_items(spark.read.parquet(str(place / "pairs")), everyone)


def ours(spark: SparkSession, place: Path, factors: np.ndarray, who: str, seen: DataFrame) -> DataFrame:
    """Return our lists."""
    features = spark.read.parquet(str(place / "als" / "userFactors")).where(who).withColumnRenamed("id", "user")
    return top_k(seen.join(features, "user"), FactorScorer("als", factors), ListSettings(K))


def mllib(spark: SparkSession, place: Path, who: str) -> DataFrame:
    """Return MLlib's lists."""
    users, items = (spark.read.parquet(str(place / "als" / side)) for side in ("userFactors", "itemFactors"))
    sides = (users.where(who)._jdf, items._jdf)
    model = spark._jvm.org.apache.spark.ml.recommendation.ALSModel("als", RANK, *sides)
    return ALSModel(model.setUserCol("user").setItemCol("item")).recommendForAllUsers(K)


def blas(spark: SparkSession) -> str:
    """Return the class that MLlib's products run in."""
    found = spark._jvm.dev.ludovic.netlib.blas.BLAS.getInstance()
    return str(found.getClass().getSimpleName())


def make(place: Path) -> np.ndarray:
    """Write pairs, and factors in the format of ALSModel; return the item factors."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.8
    items = (rng.standard_normal((ITEMS, RANK)) / RANK**0.5 + popularity[:, None] ** 0.3 * 0.1).astype(np.float32)
    users = (rng.standard_normal((USERS, RANK)) / RANK**0.5 + 0.1).astype(np.float32)
    for name, rows in (("userFactors", users), ("itemFactors", items)):
        _write(place / "als" / name, rows=rows)
    length = np.maximum(1, rng.lognormal(0, 1, USERS))
    length = np.maximum(1, (length * PAIRS * 1.25 / length.sum()).astype(np.int64))
    for part, who in enumerate(np.array_split(np.arange(USERS), FILES)):
        user = np.repeat(who, length[who])
        item = np.searchsorted(np.cumsum(popularity) / popularity.sum(), rng.random(len(user))).clip(max=ITEMS - 1)
        pairs = np.unique(user * ITEMS + item)
        (place / "pairs").mkdir(exist_ok=True)
        columns = {"user": pa.array(pairs // ITEMS, pa.int32()), "item": pa.array(pairs % ITEMS, pa.int32())}
        pq.write_table(pa.table(columns), place / "pairs" / f"{part}.parquet")
    return items


def _write(folder: Path, rows: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for part, ids in enumerate(np.array_split(np.arange(len(rows)), FILES)):
        flat = pa.array(rows[ids].ravel())
        features = pa.ListArray.from_arrays(pa.array(np.arange(len(ids) + 1) * rows.shape[1], pa.int32()), flat)
        pq.write_table(pa.table({"id": pa.array(ids, pa.int32()), "features": features}), folder / f"{part}.parquet")


if __name__ == "__main__":
    main(*sys.argv[1:2])
