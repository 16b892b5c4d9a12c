"""A saved Spark run, opened on Spark again: lists for anybody, of any length, under rules, without training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys import run_files
from recsys.errors import RunFolderError
from recsys.features.segment_popularity import Segments
from recsys.ranking.business_rules import Rules, compile_rules
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, RANK, SCORE, SOURCE, USER, VALUE
from recsys.spark.features import segment_popularity
from recsys.spark.features.attributes import parse
from recsys.spark.ranking.business_rules import deny, under_rules
from recsys.spark.ranking.recommend import Scorer, histories, popular, top_k
from recsys.spark.training.als import Params, fold_in
from recsys.types import IdMap


@dataclass(frozen=True)
class Saved:
    """A trained model with what it needs to answer.

    ``users``: (user: the id, features). ``history``: (user: the id, item: row, value). ``items``: the candidates, row
    by row, with their attributes. ``factors``: float32[candidates, rank], NaN where there is none. ``likes``:
    float32[candidates], popularity in train. ``segments``: who speaks for users that nothing is known of, or None;
    ``people``: (user: the id as text, segment), of the run's users table.
    """

    name: str
    params: Params
    users: DataFrame
    history: DataFrame
    items: pd.DataFrame
    factors: np.ndarray
    likes: np.ndarray
    segments: Segments | None = None
    people: DataFrame | None = None


def open_run(spark: SparkSession, run: str | Path, model: str | None = None) -> Saved:
    """Open a run folder.

    Raises:
        RunFolderError: not a whole run, or no such model of the Spark path in it.
    """
    folder = RunFolder.open(run)
    names = sorted(path.parent.name for path in folder.path.glob("model/*/params.json"))
    if not names or (model and model not in names):
        raise RunFolderError(
            f"{run}: no model {model or ''} of the Spark path; it has {', '.join(names) or 'none'}. "
            "For a run of the local engine:  recsys recommend RUN --users FILE"
        )
    name = model or names[-1]

    def read(part: str) -> DataFrame:
        return spark.read.parquet(str(folder.path.resolve() / part))

    items = folder.read_table(run_files.ITEMS)
    ids = IdMap.of(items[ITEM])
    rows = _item_rows(spark, items)
    found = read(run_files.item_factors(name)).toPandas()
    settings = folder.read_json(run_files.spark_params(name))
    params = parse(settings.pop("model", "als"), settings)
    factors = np.full((len(items), params.rank), np.nan, dtype=np.float32)
    factors[ids.rows(found[ITEM])] = np.stack(found["features"].to_list())
    history = read(run_files.HISTORY).join(rows, ITEM).withColumnRenamed(USER, "user")
    likes = popular(read(run_files.TRAIN).join(rows, ITEM), len(items))
    users = read(run_files.user_factors(name)).withColumnRenamed(USER, "user")
    segments = Segments.load(folder.path)
    people = None
    if segments is not None:
        people = segment_popularity.assigned(read(run_files.SEGMENT_USERS), segments).select(
            F.col(USER).alias("key"), "segment"
        )
    return Saved(name, params, users, history.select("user", "item", VALUE), items, factors, likes, segments, people)


def recommend(
    saved: Saved,
    k: int,
    *,
    users: DataFrame | None = None,
    late: DataFrame | None = None,
    rules: Rules | None = None,
    exclude_seen: bool = True,
    fallback: bool = True,
    memory_mb: int = 512,
) -> tuple[DataFrame, dict[str, int]]:
    """Return (user_id, item_id, rank, score, source), and what the rules removed.

    A user with a factor is asked by it; one with a history alone, or with late events, is folded in with all that is
    known of him; anybody else gets what his segment likes, where the run has segments, else popular items, or no list
    without ``fallback``.

    Args:
        users: (user_id) of whom to answer; None: everyone with a factor or a history. Columns of the segments' names
            say which segment a user is in, before the users table of the run does.
        late: (user_id, item_id, value), pairs that came after the run, added to the histories; items that the run does
            not know are left out.
    """
    spark = saved.users.sparkSession
    history, folded = saved.history, saved.history.join(saved.users, "user", "left_anti")
    factors = saved.users
    if late is not None:
        new = (
            late.withColumnRenamed(USER, "user")
            .join(_item_rows(spark, saved.items), ITEM)
            .select("user", "item", VALUE)
        )
        history = history.unionByName(new).groupBy("user", "item").agg(F.sum(VALUE).cast("float").alias(VALUE))
        changed = new.select("user").distinct()
        folded = folded.join(changed, "user", "left_anti").unionByName(history.join(changed, "user", "left_semi"))
        factors = factors.join(changed, "user", "left_anti")
    factors = factors.unionByName(fold_in(folded, saved.factors, saved.params))
    everyone = factors.select("user") if users is None else users.select(F.col(USER).alias("user")).distinct()
    asked = histories(history if exclude_seen else history.limit(0), everyone)
    scorer = Scorer(saved.name, saved.factors, "popular", saved.likes if fallback else None)
    if saved.segments is not None and fallback:
        scorer = replace(scorer, groups=(saved.segments.scores, saved.segments.row_sources))
    removed: dict[str, int] = {}
    if rules is not None:
        denied_of = IdMap.of(list(rules.deny_for))
        compiled = compile_rules(rules, denied_of, IdMap.of(saved.items[ITEM]), saved.items)
        scorer, removed = under_rules(scorer, compiled), compiled.removed
        asked = deny(asked, compiled.denied, list(denied_of.ids))
    known = _with_segments(asked.join(factors, "user", "left"), saved, users)
    lists = top_k(known, scorer, k, items=len(saved.items), memory_mb=memory_mb)
    named = lists.join(_item_rows(spark, saved.items), "item").withColumnRenamed("user", USER)
    return named.select(USER, ITEM, RANK, SCORE, SOURCE).sortWithinPartitions(USER, RANK), removed


def _with_segments(asked: DataFrame, saved: Saved, users: DataFrame | None) -> DataFrame:
    """Add the column ``segment`` where the run has segments: what ``users`` says of a user, else the users table."""
    if saved.segments is None or saved.people is None:
        return asked
    known = asked.withColumn("key", F.col("user").cast("string")).join(saved.people, "key", "left").drop("key")
    if users is None or not set(saved.segments.columns) & set(users.columns):
        return known
    own = segment_popularity.assigned(users.dropDuplicates([USER]), saved.segments)
    own = own.select(F.col(USER).alias("user"), F.col("segment").alias("own"))
    both = known.join(own, "user", "left")
    return both.withColumn("segment", F.when(F.col("own") >= 0, F.col("own")).otherwise(F.col("segment"))).drop("own")


def _item_rows(spark: SparkSession, items: pd.DataFrame) -> DataFrame:
    """Return (item_id, item: its row), for a broadcast join."""
    rows = pd.DataFrame({ITEM: items[ITEM], "item": np.arange(len(items), dtype=np.int32)})
    return F.broadcast(spark.createDataFrame(rows))
