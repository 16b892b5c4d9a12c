"""Folds of a run's train part on Spark, each as what judges a setting on it; ``recsys.tune`` does the searching."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys import run_files
from recsys.config import Config, TuneSettings
from recsys.errors import ConfigError, InputError
from recsys.replacing import remove_orphans
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.spark.data.split import keep, number, order_statistic, row_hash_of
from recsys.spark.engine import als_params
from recsys.spark.evaluation import evaluate
from recsys.spark.evaluation.truth import Truth
from recsys.spark.ranking.recommend import Scorer, histories, popular, recent, top_k
from recsys.spark.session import session
from recsys.spark.training import als

Judge = Callable[[Config], float]


@contextmanager
def judges(config: Config, name: str, metric: str, place: Path) -> Iterator[list[Judge]]:
    """Yield one function per fold of ``tune.folds.make_folds``: from a config to the mean of the metric.

    Only ``split/train.parquet`` of the run at ``config.out`` is read. What comes between lies under ``place``, which
    the executors must see as the driver does, and is removed at the end.

    Raises:
        InputError: no times for windows, or a fold without train or test pairs.
        ConfigError: a model that is more than ALS; folds know no attributes.
    """
    if als_params(config)[name].kind != "als":
        raise ConfigError(f"[tune] model '{name}': on Spark tune one of kind 'als', and take over what it finds.")
    run = RunFolder.open(config.out)
    spark = session(config.spark)
    work = place.resolve() / f".work.{os.getpid()}.part"  # of this process: others may be at the same study
    remove_orphans(place.resolve() / "work", is_ours=_holds_folds)
    try:
        train = spark.read.parquet(str(run.path.resolve() / run_files.TRAIN))
        yield [
            _judge(train.where(known), train.where(tested), config, name, metric, work / f"fold{fold}")
            for fold, (known, tested) in enumerate(sides(train, config.tune, config.seed))
        ]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _holds_folds(folder: Path) -> bool:
    return all(re.fullmatch(r"fold\d+", path.name) for path in folder.iterdir())


def sides(train: DataFrame, wanted: TuneSettings, seed: int) -> list[tuple[Column, Column]]:
    """Return (in train, in test) of each fold, as conditions on a row: the folds of ``tune.folds.make_folds``."""
    timed = train.where(F.col(TIME) < 0).isEmpty()
    if wanted.rule == "time" and not timed:
        raise InputError("[tune] rule = 'time' needs events with timestamps: use 'pairs'.")
    if wanted.rule == "pairs" or not timed:
        fold = F.floor(row_hash_of(seed)(USER, ITEM) * wanted.folds)
        return [(fold != place, fold == place) for place in range(wanted.folds)]
    n = train.count()
    places = [max(0, n - round((wanted.folds - fold) * wanted.share * n)) for fold in range(wanted.folds)]
    starts = [order_statistic(train, TIME, place) for place in places]
    time = F.col(TIME)
    ends = [*(time < start for start in starts[1:]), F.lit(True)]
    return [(time < start, (time >= start) & end) for start, end in zip(starts, ends, strict=True)]


def _judge(known: DataFrame, tested: DataFrame, config: Config, name: str, metric: str, work: Path) -> Judge:
    """Write what all settings share on one fold, and return what judges a setting."""
    candidates = number(known.select(ITEM).distinct(), ITEM, work / "candidates")
    width = candidates.count()
    others = tested.select(ITEM).distinct().join(candidates, ITEM, "left_anti")
    items = candidates.unionByName(number(others, ITEM, work / "others", start=width)).withColumnRenamed("row", "item")
    users = number(known.select(USER).union(tested.select(USER)).distinct(), USER, work / "users")
    users = users.withColumnRenamed("row", "user")
    train, test = (
        keep(part.join(users, USER).join(items, ITEM).select("user", "item", VALUE, TIME), work / side)
        for part, side in ((known, "train"), (tested, "test"))
    )
    if train.isEmpty() or test.where(F.col(VALUE) > 0).isEmpty():
        part = "train" if train.isEmpty() else "liked test"
        raise InputError(f"[tune]: a fold has no {part} pairs: use fewer folds, or another share or rule.")
    judging = config.judge.model_copy(update={"metrics": (metric,), "segments": ()})
    seen = config.recommend.exclude_seen
    truth = Truth.of_pairs(test, train, judging, exclude_seen=seen)
    if judging.debiased:
        truth = truth.with_propensity(train)
    truth = truth.write(work)
    past = keep(histories(train, truth.tested.select("user")), work / "past")
    fallback = (
        "popular" if config.recommend.fallback == "segment" else config.recommend.fallback
    )  # alike for all trials
    same = None if fallback == "none" else (popular if fallback == "popular" else recent)(train, width)

    def judge(settings: Config) -> float:
        place = work / uuid4().hex
        train.sparkSession.sparkContext.setJobDescription(f"judge {settings.models[name]}")
        model = als.fit(train, width, als_params(settings)[name], place)
        scorer = Scorer(name, factors=model.items, fallback="" if fallback == "none" else fallback, same=same)
        lists = top_k(
            past.join(model.users, "user", "left"),
            scorer,
            config.recommend.k,
            items=width,
            exclude_seen=seen,
            memory_mb=config.recommend.memory_mb,
        )
        per_user = evaluate.per_user(lists, truth, config.recommend.k)
        defined = F.nanvl(F.col(f"`{metric}`"), F.lit(None))
        found = per_user.agg(F.avg(defined)).first()
        shutil.rmtree(place, ignore_errors=True)
        return float(found[0]) if found and found[0] is not None else float("nan")

    return judge
