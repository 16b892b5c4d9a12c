"""Make the folds of a run's train part on Spark, each as a function that judges a trial.

The search itself is in ``recsys.tune``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys import run_files
from recsys.atomic_writing import scratch_folder
from recsys.config import Config
from recsys.errors import ConfigError, InputError
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.spark.data.split import number_ids, order_statistic, row_hash_of, write_and_read
from recsys.spark.evaluation import evaluate
from recsys.spark.evaluation.truth import Truth
from recsys.spark.ranking.popularity import count_likes, count_recent_likes
from recsys.spark.ranking.recommend import ListSettings, collect_seen_items, top_k
from recsys.spark.ranking.scorers import SharedScorer, factor_scorer
from recsys.spark.session import session
from recsys.spark.training.als import fit_als
from recsys.spark.training.parameters import model_parameters

Judge = Callable[[Config], float]
"""A function from the config of a trial to the mean of a metric on one fold."""


@contextmanager
def fold_judges(config: Config, name: str, metric: str, folder: Path) -> Iterator[list[Judge]]:
    """Prepare the folds of a tuning study, and yield one function per fold that judges a trial.

    The function takes the config of a trial, that is, of one setting of the model. It trains the
    model on the train part of the fold. It returns the mean of the metric over the users of the
    test part, NaN if the metric is undefined for all of them. The folds are those of local tuning.
    They are made from ``split/train.parquet`` of the run at ``config.out``; no other table is read.

    Args:
        config: the config of the run and of the study.
        name: the name of the model in ``[models]``.
        metric: the name of the metric, for example "ndcg@10".
        folder: intermediate tables are written below it and removed at the end. Executors must see
            it under the same path as the driver.

    Raises:
        InputError: the folds need times and the events have none, or a fold has no train pairs or
            no test pairs.
        ConfigError: the model is not of kind ``als``.
        MissingExtra: there is no Java 17 or newer.
    """
    parameters = model_parameters(config).get(name)
    if parameters is None or parameters.kind != "als":
        raise ConfigError(
            f"[tune] model '{name}': Spark tunes models of kind 'als' only."
            " Tune one of that kind, and copy the parameters to this model."
        )
    run = RunFolder.open(config.out)
    spark = session(config.spark)
    # Other processes may work on the same study, each in a folder of its own.
    with scratch_folder(folder.resolve() / "work", _holds_folds) as work:
        train = spark.read.parquet(str(run.uri_of(run_files.TRAIN)))
        yield [
            _judge(
                train.where(in_train),
                train.where(in_test),
                config,
                (name, metric),
                work / f"fold{fold}",
            )
            for fold, (in_train, in_test) in enumerate(fold_conditions(train, config))
        ]


def _holds_folds(folder: Path) -> bool:
    return all(re.fullmatch(r"fold\d+", path.name) for path in folder.iterdir())


def fold_conditions(train: DataFrame, config: Config) -> list[tuple[Column, Column]]:
    """Return for each fold two conditions on a row: that it is in train, and that it is in test.

    The folds are those of local tuning, by pairs or by time. Folds by items are not made, because
    Spark tunes only models of the kind ``als``, which cannot score an item without train events.

    Args:
        train: the train part of the run, with the columns user_id, item_id and timestamp (-1 where
            unknown).
        config: the config with the section ``[tune]``.

    Raises:
        InputError, ConfigError: as for :meth:`recsys.config.Config.fold_rule`.
    """
    settings = config.tune
    timed = train.where(F.col(TIME) < 0).isEmpty()
    if config.fold_rule(timed=timed) == "pairs":
        fold = F.floor(row_hash_of(config.seed)(ITEM, USER) * settings.folds)
        return [(fold != number, fold == number) for number in range(settings.folds)]
    shares = [(settings.folds - fold) * settings.share for fold in range(settings.folds)]
    starts = [order_statistic(train, TIME, partial(_first_of_newest, share)) for share in shares]
    time = F.col(TIME)
    ends = [*(time < start for start in starts[1:]), F.lit(True)]
    return [(time < start, (time >= start) & end) for start, end in zip(starts, ends, strict=True)]


def _first_of_newest(share: float, rows: int) -> int:
    """Return the position of the oldest of the newest rows, if ``rows`` rows are sorted by time.

    Positions are from 0.

    Args:
        share: the share of all rows that are called the newest.
    """
    return max(0, rows - round(share * rows))


def _judge(
    train_events: DataFrame,
    test_events: DataFrame,
    config: Config,
    target: tuple[str, str],
    work: Path,
) -> Judge:
    """Write the tables of one fold that all trials use, and return the function that judges a trial.

    Args:
        target: (name of the model, metric).
        work: the folder for the tables.

    Raises:
        InputError: the fold has no train pairs, or no test pairs with a value above 0.
    """
    name, metric = target
    candidates, width = number_ids(train_events.select(ITEM).distinct(), ITEM, work / "candidates")
    test_only = test_events.select(ITEM).distinct().join(candidates, ITEM, "left_anti")
    other_items, _ = number_ids(test_only, ITEM, work / "others", start=width)
    items = candidates.unionByName(other_items).withColumnRenamed("row", "item")
    user_ids = train_events.select(USER).union(test_events.select(USER)).distinct()
    users = number_ids(user_ids, USER, work / "users")[0].withColumnRenamed("row", "user")

    def in_rows(events: DataFrame, side: str) -> DataFrame:
        joined = events.join(users, USER).join(items, ITEM)
        return write_and_read(joined.select("user", "item", VALUE, TIME), work / side)

    train = in_rows(train_events, "train")
    test = in_rows(test_events, "test")
    if train.isEmpty() or test.where(F.col(VALUE) > 0).isEmpty():
        part = "train" if train.isEmpty() else "liked test"
        raise InputError(f"[tune]: a fold has no {part} pairs: use fewer folds, or another share or rule.")
    judging = config.judge.model_copy(update={"metrics": (metric,), "segments": ()})
    exclude_seen = config.recommend.exclude_seen
    truth = Truth.from_pairs(test, train, judging, exclude_seen=exclude_seen)
    if judging.debiased:
        truth = truth.with_propensity(train)
    truth = truth.write(work, users)
    listed = write_and_read(collect_seen_items(train, truth.tested.select("user")), work / "listed")
    # Segments need the users table, which folds do not have; popular items stand in for them in
    # every trial.
    fallback = config.recommend.fallback_model
    shared = None
    if fallback != "none":
        count = count_likes if fallback == "popular" else count_recent_likes
        shared = SharedScorer(fallback, count(train, width))
    settings = ListSettings(config.recommend.k, exclude_seen=exclude_seen, memory_mb=config.recommend.memory_mb)

    def judge(trial: Config) -> float:
        path = work / uuid4().hex
        train.sparkSession.sparkContext.setJobDescription(f"judge {trial.models[name]}")
        fitted = fit_als(train, width, model_parameters(trial)[name], path, config.spark.item_block_mb)
        scorer = factor_scorer(name, fitted.items, shared)
        lists = top_k(listed.join(fitted.users, "user", "left"), scorer, settings)
        per_user = evaluate.per_user(lists, truth, config.recommend.k)
        defined = F.nanvl(F.col(f"`{metric}`"), F.lit(None))
        row = per_user.agg(F.avg(defined)).first()
        shutil.rmtree(path, ignore_errors=True)
        return float(row[0]) if row and row[0] is not None else float("nan")

    return judge
