"""What a team writes with plain Spark and MLlib, beside jobs/train_als.py: the same log, rank, objective and lists.

    python bench/mllib_pipeline.py CLICKS [--blas java FILE] [--iterations N]

CLICKS is a Parquet file or folder with user_id, item_id and timestamp in milliseconds. FILE is a libblas.so.3 of
OpenBLAS for MLlib through JNI; the LAPACK of the same folder is used too. ``java`` is the BLAS of Java. Each has a row.

The plain pipeline reads, splits at a time, numbers ids with a window, trains MLlib's ALS, makes lists of ten for all
training users, and judges them by joins. Each pipeline is a process of its own on local[2] with the same heap. Our run
does more in its time: it checks every row, hides pairs to watch its training, adds the baselines, judges six metrics
with intervals, and writes a report. Both ALS minimise the same objective, but our run hands users with few events to
the fallback where its validation users say so. In the end one judge, `evaluate_tables`, reads the lists of both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
from results import table, write_section

from recsys import run_files
from recsys.evaluation.evaluate import evaluate_tables
from recsys.evaluation.settings import EvaluationSettings
from recsys.meter import Meter
from recsys.runfolder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "als_large.toml"
CORES, HEAP = 2, "6g"
TEST, K = 0.1, 10
JAVA = "java"
SPARE = 50
"""Places that MLlib ranks beyond K, for the items that the user has already; MLlib cannot leave them out."""
STEPS = {"read": "read", "split": "split", "fit als": "fit", "recommend als": "recommend", "judge als": "judge"}
"""Steps of our run -> steps of the plain pipeline that do the same."""


def main() -> None:
    """Run every pipeline in a process of its own, judge the lists, and write the section."""
    options = argparse.ArgumentParser(description="Plain Spark with MLlib beside train_als.py.")
    options.add_argument("clicks", type=Path)
    options.add_argument("--blas", nargs="+", default=[JAVA], metavar="BLAS", help="java, or a libblas.so.3")
    options.add_argument("--iterations", type=int, default=15)
    options.add_argument("--plain", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    settings = options.parse_args()
    if settings.plain:
        run_plain_pipeline(settings)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        costs = {"train_als.py": run_our_job(folder / "ours", settings)}
        lists = {"train_als.py": our_lists(folder / "ours")}
        for number, blas in enumerate(settings.blas):
            plain = folder / str(number)
            name = "MLlib, Java BLAS" if blas == JAVA else "MLlib, OpenBLAS by JNI"
            costs[name] = start_plain_pipeline(plain, settings, blas)
            lists[name] = pd.read_parquet(plain / "lists")
        quality = judge(lists, pd.read_parquet(folder / "0" / "relevant"))
    body = describe(costs, quality, settings.iterations)
    command = "python bench/mllib_pipeline.py CLICKS --blas " + " ".join(
        JAVA if blas == JAVA else "FILE" for blas in settings.blas
    )
    write_section("mllib_pipeline", "A whole pipeline against plain Spark", command, body)


def run_our_job(out: Path, settings: argparse.Namespace) -> list[dict[str, Any]]:
    """Run train_als.py by spark-submit; return the steps of its manifest."""
    overrides = [
        f"data.events={settings.clicks.resolve()}",
        f"out={out}",
        f"models.als.iterations={settings.iterations}",
    ]
    submit = [Path(sys.executable).with_name("spark-submit"), "--master", f"local[{CORES}]", "--driver-memory", HEAP]
    job = [ROOT / "jobs" / "train_als.py", "--config", CONFIG]
    subprocess.run([*submit, *job, *(word for key in overrides for word in ("--set", key))], check=True)
    return RunFolder.open(out).read_json("manifest.json")["hops"]


def our_lists(out: Path) -> pd.DataFrame:
    """Return the lists of ALS in our run."""
    return RunFolder.open(out).read_table(run_files.topk("als"))


def start_plain_pipeline(folder: Path, settings: argparse.Namespace, blas: str) -> list[dict[str, Any]]:
    """Run the plain pipeline in a process of its own; return its steps."""
    command = [sys.executable, __file__, str(settings.clicks), "--iterations", str(settings.iterations), "--blas", blas]
    one_thread = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([*command, "--plain", str(folder)], check=True, env=one_thread)
    return json.loads((folder / "hops.json").read_text())


def run_plain_pipeline(settings: argparse.Namespace) -> None:
    """Do in plain Spark what the run does: the code that a team would write, in the steps of our run."""
    folder = settings.plain
    parameters = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["models"]["als"]
    with Meter() as meter:
        with meter.hop("start"):
            spark = open_session(settings.blas[0])
        from pyspark.ml.recommendation import ALS
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        with meter.hop("read"):
            clicks = spark.read.parquet(str(settings.clicks)).select("user_id", "item_id", "timestamp").dropna().cache()
            clicks.count()
        with meter.hop("split"):
            [cut] = clicks.approxQuantile("timestamp", [1 - TEST], 1e-4)
            train = clicks.where(F.col("timestamp") < cut).groupBy("user_id", "item_id").count()
            test = clicks.where(F.col("timestamp") >= cut).select("user_id", "item_id").distinct()
            ids = {}
            for side in ("user", "item"):
                rows = train.select(f"{side}_id").distinct()
                numbered = rows.withColumn(side, F.row_number().over(Window.orderBy(f"{side}_id")) - 1)
                ids[side] = numbered.cache()
            pairs = (
                train.join(ids["user"], "user_id").join(ids["item"], "item_id").select("user", "item", "count").cache()
            )
            relevant = test.join(ids["user"], "user_id").join(ids["item"], "item_id")
            relevant = relevant.join(pairs, ["user", "item"], "left_anti").cache()
            relevant.count()
        with meter.hop("fit"):
            als = ALS(
                rank=parameters["rank"],
                maxIter=settings.iterations,
                alpha=parameters["alpha"],
                regParam=parameters["reg"],
                implicitPrefs=True,
                userCol="user",
                itemCol="item",
                ratingCol="count",
                numUserBlocks=2 * CORES,
                numItemBlocks=2 * CORES,
                seed=0,
            )
            model = als.fit(pairs)
            model.userFactors.count()
        with meter.hop("recommend"):
            ranked = model.recommendForAllUsers(K + SPARE).select("user", F.explode("recommendations").alias("entry"))
            ranked = ranked.select("user", "entry.item", F.col("entry.rating").alias("score"))
            unseen = ranked.join(pairs, ["user", "item"], "left_anti")
            best_first = Window.partitionBy("user").orderBy(F.desc("score"), "item")
            lists = unseen.withColumn("rank", F.row_number().over(best_first)).where(F.col("rank") <= K)
            lists.join(ids["user"], "user").join(ids["item"], "item").select(
                "user_id", "item_id", "rank", "score"
            ).write.parquet(str(folder / "lists"))
        with meter.hop("judge"):
            lists = spark.read.parquet(str(folder / "lists"))
            gains = lists.join(relevant, ["user_id", "item_id"]).groupBy("user_id")
            gains = gains.agg(F.sum(F.log(F.lit(2.0)) / F.log(F.col("rank") + 1)).alias("gain"))
            ideal = F.aggregate(
                F.sequence(F.lit(1), F.least(F.col("count"), F.lit(K)).cast("int")),
                F.lit(0.0),
                lambda total, rank: total + F.log(F.lit(2.0)) / F.log(rank + 1),
            )
            users = relevant.groupBy("user_id").count().join(gains, "user_id", "left")
            print("NDCG by joins:", users.select(F.avg(F.coalesce("gain", F.lit(0.0)) / ideal)).first()[0])
    relevant.select("user_id", "item_id").write.parquet(str(folder / "relevant"))
    (folder / "hops.json").write_text(json.dumps(meter.hops))
    spark.stop()


def open_session(blas: str) -> Any:
    """Return a Spark session whose MLlib multiplies with Java BLAS, or through JNI with a library."""
    from pyspark.sql import SparkSession

    natives = "-Ddev.ludovic.netlib.blas.nativeLib=none -Ddev.ludovic.netlib.lapack.nativeLib=none"
    if blas != JAVA:
        lapack = Path(blas).with_name("liblapack.so.3")
        natives = f"-Ddev.ludovic.netlib.blas.nativeLibPath={blas} -Ddev.ludovic.netlib.lapack.nativeLibPath={lapack}"
    builder = SparkSession.builder.master(f"local[{CORES}]").config("spark.driver.memory", HEAP)
    builder = builder.config("spark.driver.extraJavaOptions", natives).config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.shuffle.partitions", str(4 * CORES)).config(
        "spark.ui.showConsoleProgress", "false"
    )
    spark = builder.config("spark.serializer", "org.apache.spark.serializer.KryoSerializer").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    print("MLlib multiplies with", spark._jvm.dev.ludovic.netlib.blas.BLAS.getInstance().getClass().getSimpleName())
    return spark


def judge(lists: dict[str, pd.DataFrame], relevant: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return (NDCG@K, share of full lists) of each pipeline's lists, on the users and pairs of the plain pipeline."""
    quality = {}
    for name, topk in lists.items():
        of_tested = topk[topk["user_id"].isin(relevant["user_id"])]
        evaluation = evaluate_tables(of_tested, relevant, EvaluationSettings(metrics=(f"ndcg@{K}",)))
        sizes = topk.groupby("user_id").size()
        quality[name] = (evaluation.per_user[f"ndcg@{K}"].mean(), (sizes == K).mean())
    return quality


def describe(costs: dict[str, list[dict[str, Any]]], quality: dict[str, tuple[float, float]], iterations: int) -> str:
    """Return the table: seconds by step, the whole, the peak memory and the quality of each pipeline."""
    rows = []
    for name, hops in costs.items():
        seconds = {STEPS.get(hop["name"], hop["name"]): hop["seconds"] for hop in hops}
        total = sum(seconds.values())
        peak = max(hop["peak_mb"]["total"] for hop in hops)
        steps = [f"{seconds[step]:.0f}" for step in STEPS.values()]
        rest = total - sum(seconds[step] for step in STEPS.values())
        ndcg, full = quality[name]
        rows.append([name, *steps, f"{rest:.0f}", f"{total:.0f}", f"{peak:,.0f}", f"{ndcg:.5f}", f"{full:.1%}"])
    heads = ["pipeline", *STEPS.values(), "all else", "seconds", "peak MiB", f"NDCG@{K}", "full lists"]
    return (
        f"Rank and objective of configs/{CONFIG.name}, {iterations} iterations, lists of {K} for every user of train;"
        f" local[{CORES}], heap {HEAP}. Peak resident memory of all processes together. MLlib ranks {K + SPARE} items,"
        " then drops those of the user by an anti-join.\n\n" + table(heads, rows)
    )


if __name__ == "__main__":
    main()
