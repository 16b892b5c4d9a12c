"""Open a factor model that Spark trained, and make lists from it on Spark without training.

Lists can be made for any user, of any length, and under rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys import run_files
from recsys.array_files import read_factors
from recsys.config import load_config
from recsys.errors import RunFolderError
from recsys.evaluation.testing.pick import pick_model
from recsys.features.segment_popularity import Segments
from recsys.locations import Location
from recsys.ranking.business_rules import Rules, compile_rules
from recsys.runfolder import RunFolder, damage_explained
from recsys.schema import ITEM, RANK, SCORE, SOURCE, TIME, USER, VALUE
from recsys.spark.features import segment_popularity
from recsys.spark.item_blocks import FactorTable, items_per_block
from recsys.spark.ranking.business_rules import exclude_denied_items
from recsys.spark.ranking.popularity import count_likes, count_recent_likes
from recsys.spark.ranking.recommend import (
    ListSettings,
    add_histories,
    collect_seen_items,
    keep_long_histories,
    top_k,
)
from recsys.spark.ranking.scorers import Scorer, SegmentScores, SharedScorer, factor_scorer
from recsys.spark.table_files import spark_path
from recsys.spark.training.als import fold_in
from recsys.spark.training.parameters import SparkALSParameters, parse_parameters
from recsys.types import IdMap


@dataclass(frozen=True)
class SavedSparkModel:
    """A saved factor model, with all that is needed to make lists.

    Attributes:
        name: the name of the model.
        params: the parameters with which it was trained.
        users: columns (user: the id, features), the factors of the users.
        history: columns (user: the id, item: row, value, timestamp).
        items: the candidates in row order, with their attributes.
        factors: float32[candidates, rank], NaN rows for items without a factor; or the table of the
            factors in blocks, as ``[spark] item_block_mb`` of the run says.
        fallback: the fallback of the run for users without a factor: "popular" or "recent", or "none".
            It is "popular" for the fallback "segment", whose segments come first.
        fallback_scores: float32[candidates], the scores of the fallback: the number of train users who
            like each item, or for "recent" the number of recent likes. None for "none".
        segments: the popularity by user segment, or None.
        user_segments: columns (key: the id as text, segment), from the users table of the run. None
            if the run has no segments.
        min_history: the smallest number of liked items with which a user is scored by the factor,
            and not by the fallback.
    """

    name: str
    params: SparkALSParameters
    users: DataFrame
    history: DataFrame
    items: pd.DataFrame
    factors: np.ndarray | FactorTable
    fallback: str
    fallback_scores: np.ndarray | None
    segments: Segments | None = None
    user_segments: DataFrame | None = None
    min_history: int = 0


@dataclass(frozen=True)
class ListRequest:
    """Settings of the lists to make.

    Attributes:
        k: the length of the lists.
        rules: business rules, or None.
        exclude_seen: whether to leave out the items of the user's history.
        fallback: whether users without a factor get the list of the run's fallback (that of their
            segment if the run has segments). Otherwise such users get no list.
        memory_mb: largest memory for a block of scores in a task, in MiB.
    """

    k: int
    rules: Rules | None = None
    exclude_seen: bool = True
    fallback: bool = True
    memory_mb: int = 512


def open_spark_run(spark: SparkSession, run: str | Location | RunFolder, model: str | None = None) -> SavedSparkModel:
    """Open a model that Spark trained, from a run folder.

    Args:
        spark: the session.
        run: the path or URI of the run folder, or the folder when it is open.
        model: the name of the model. None: the pick of the run among the models that Spark trained.

    Raises:
        RunFolderError: the folder is not a complete run, or has no such model that Spark trained.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    with damage_explained(folder.location):
        return _open_spark_run(spark, folder, model)


def _open_spark_run(spark: SparkSession, folder: RunFolder, model: str | None) -> SavedSparkModel:
    run = folder.location
    models = folder.read_object(run_files.METRICS, models=dict)["models"]
    names = sorted(name for name in models if folder.has(run_files.spark_params(name)))
    if not names or (model and model not in names):
        raise RunFolderError(
            f"{run}: no model {model or ''} that Spark trained; it has {', '.join(names) or 'none'}. "
            "For a run of the local engine:  recsys recommend RUN --users FILE"
        )
    name = model or pick_model(folder.read_json(run_files.METRICS), names).name or names[0]

    items = folder.read_table(run_files.ITEMS)
    settings = folder.read_object(run_files.spark_params(name))
    min_history = settings.pop("min_history", 0)
    params = parse_parameters(settings.pop("model", "als"), settings)
    config = load_config(folder.local(run_files.CONFIG))
    rows = items_per_block(len(items), params.rank, config.spark.item_block_mb)
    segments = Segments.load(folder.local(run_files.SEGMENT_FOLDER).parent)
    users = read_part(spark, folder, run_files.user_factors(name))
    train = read_part(spark, folder, run_files.TRAIN).join(item_rows(spark, items), ITEM)
    fallback = config.recommend.fallback_model
    return SavedSparkModel(
        name,
        params,
        users=users.withColumnRenamed(USER, "user"),
        history=read_history(spark, folder, items),
        items=items,
        factors=_item_factors(spark, folder, name, items, (params.rank, rows)),
        fallback=fallback,
        fallback_scores=_fallback_scores(train, len(items), fallback),
        segments=segments,
        user_segments=read_user_segments(spark, folder, segments),
        min_history=min_history,
    )


def _item_factors(
    spark: SparkSession, folder: RunFolder, name: str, items: pd.DataFrame, shape: tuple[int, int | None]
) -> np.ndarray | FactorTable:
    """Read the item factors of a model, in blocks or as an array.

    Args:
        items: the candidates, in row order.
        shape: the rank, and the number of items in a block; None: an array.
    """
    rank, rows = shape
    part = run_files.item_factors(name)
    if rows is None:
        factors, has_factor = read_factors(folder.local(part), ITEM, IdMap.from_ids(items[ITEM]), rank)
        factors[~has_factor] = np.nan
        return factors
    factors_by_row = read_part(spark, folder, part).join(item_rows(spark, items), ITEM).select("item", "features")
    # Sorted on disk, so that who reads a block reads little else.
    by_item = factors_by_row.repartitionByRange(-(-len(items) // rows), "item").sortWithinPartitions("item")
    return FactorTable(by_item.persist(StorageLevel.DISK_ONLY), len(items), rank, rows)


def _fallback_scores(train: DataFrame, candidates: int, fallback: str) -> np.ndarray | None:
    """Return the scores of a fallback, float32[candidates], or None for "none".

    Without times "recent" has the scores of "popular".
    """
    if fallback == "none":
        return None
    if fallback == "recent" and not train.where(F.col(TIME) >= 0).isEmpty():
        return count_recent_likes(train, candidates)
    return count_likes(train, candidates)


def read_part(spark: SparkSession, folder: RunFolder, part: str) -> DataFrame:
    """Return a Parquet table of a run or a bundle as a DataFrame.

    Args:
        spark: the session.
        folder: the run or the bundle.
        part: the name of the file, relative to the folder.

    Raises:
        RunFolderError: the table cannot be read.
    """
    try:
        return spark.read.parquet(spark_path(folder.uri_of(part)))
    except PySparkException as error:
        reason = str(error).splitlines()[0]
        raise RunFolderError(f"{folder.location}: {part} cannot be read: {reason} Run it again.") from error


def read_history(spark: SparkSession, folder: RunFolder, items: pd.DataFrame) -> DataFrame:
    """Return the history of a run or a bundle as a DataFrame with one row per pair.

    The columns are user (the id), item (the row in ``items``), value and timestamp.

    Args:
        spark: the session.
        folder: the run or the bundle.
        items: the candidates, in row order.

    Raises:
        RunFolderError: the table cannot be read.
    """
    history = read_part(spark, folder, run_files.HISTORY).join(item_rows(spark, items), ITEM)
    return history.withColumnRenamed(USER, "user").select("user", "item", VALUE, TIME)


def read_user_segments(
    spark: SparkSession,
    folder: RunFolder,
    segments: Segments | None,
) -> DataFrame | None:
    """Return the segment of each user in the users table of a run.

    The result is a DataFrame with the columns ``key`` (the user id as text) and ``segment`` (a row
    of ``segments``, or -1 for none). It is None if ``segments`` is None.

    Raises:
        RunFolderError: the users table of the run cannot be read.
    """
    if segments is None:
        return None
    users = read_part(spark, folder, run_files.SEGMENT_USERS)
    assigned = segment_popularity.assign_segments(users, segments)
    return assigned.select(F.col(USER).alias("key"), "segment")


def recommend(
    saved: SavedSparkModel,
    request: ListRequest,
    *,
    users: DataFrame | None = None,
    late_events: DataFrame | None = None,
) -> tuple[DataFrame, dict[str, Any]]:
    """Make lists with a saved model, and return them with the content of rules.json.

    The lists are a DataFrame with the columns user_id, item_id, rank, score and source. rules.json
    is a dict that says how many items each rule removed, and which ids of the rules the run does
    not have. It is empty without rules.

    A user with a stored factor is scored by it. For a user with a history but no factor, or with
    late events, the factor is computed from the history (fold-in). All other users, and those with
    fewer likes than ``saved.min_history``, get the list of the fallback. If ``request.fallback`` is
    False, ``saved.min_history`` is not used, and users who cannot be scored get no list.

    Args:
        saved: the model.
        request: the settings of the lists.
        users: columns (user_id), the users to make lists for. None: all users with a factor or a
            history. Columns of the segments take precedence over the users table of the run.
        late_events: columns (user_id, item_id, value), pairs that came after the run. They are added to
            the histories. Items that the run does not have are left out.

    Raises:
        ConfigError: a rule names a field that the items table does not have.
        InputError: a time in the rules is neither an ISO date nor a number.
    """
    history, factors = _with_late_events(saved, late_events)
    listed_users = factors.select("user")
    if users is not None:
        listed_users = users.select(F.col(USER).alias("user")).distinct()
    if request.fallback:
        factors = keep_long_histories(factors, history, saved.min_history)
    listed = collect_seen_items(history if request.exclude_seen else history.limit(0), listed_users)
    scorer: Scorer = _scorer(saved, request)
    settings = ListSettings(request.k, memory_mb=request.memory_mb)
    about: dict[str, Any] = {}
    if request.rules is not None:
        denied_users = IdMap.from_ids(list(request.rules.deny_for))
        compiled = compile_rules(request.rules, denied_users, IdMap.from_ids(saved.items[ITEM]), saved.items)
        about = compiled.about
        scorer = scorer.restricted_to(compiled.candidates)
        settings = ListSettings(request.k, memory_mb=request.memory_mb, quotas=tuple(compiled.quotas))
        listed = exclude_denied_items(listed, compiled.denied, list(denied_users.ids))
    listed = add_segments(listed.join(factors, "user", "left"), saved.segments, saved.user_segments, users)
    lists = top_k(add_histories(listed, history, scorer.columns), scorer, settings)
    return with_ids(lists, saved.items), about


def with_ids(lists: DataFrame, items: pd.DataFrame) -> DataFrame:
    """Return lists with item ids instead of item rows: (user_id, item_id, rank, score, source).

    Args:
        lists: columns (user: the id, item: row, rank, score, source).
        items: the candidates, in the order of their rows.
    """
    named = lists.join(item_rows(lists.sparkSession, items), "item").withColumnRenamed("user", USER)
    return named.select(USER, ITEM, RANK, SCORE, SOURCE).sortWithinPartitions(USER, RANK)


def _with_late_events(saved: SavedSparkModel, late_events: DataFrame | None) -> tuple[DataFrame, DataFrame]:
    """Add late events, and return the histories and the factors of users.

    The factors are (user, features), for all users with a factor or a history.
    """
    history = saved.history
    factors = saved.users
    to_fold_in = history.join(factors, "user", "left_anti")
    if late_events is not None:
        history, changed = add_late_events(history, late_events, saved.items)
        to_fold_in = to_fold_in.join(changed, "user", "left_anti")
        to_fold_in = to_fold_in.unionByName(history.join(changed, "user", "left_semi"))
        factors = factors.join(changed, "user", "left_anti")
    return history, factors.unionByName(fold_in(to_fold_in, saved.factors, saved.params))


def add_late_events(history: DataFrame, late_events: DataFrame, items: pd.DataFrame) -> tuple[DataFrame, DataFrame]:
    """Add late events to histories, and return the new histories and the users who changed.

    The histories have the columns of ``history``. The users are a DataFrame with the one column
    ``user``. Values of a pair are added up, and its time is the latest. Events on items that are
    not candidates are left out.

    Args:
        history: columns (user, item: row, value, timestamp).
        late_events: columns (user_id, item_id, value), optionally ``timestamp``: events that came after
            the run.
        items: the candidates, in row order.
    """
    times = F.expr(f"try_cast({TIME} AS bigint)") if TIME in late_events.columns else F.lit(None).cast("bigint")
    new = (
        late_events.withColumn(TIME, times)
        .withColumnRenamed(USER, "user")
        .join(item_rows(late_events.sparkSession, items), ITEM)
        .select("user", "item", VALUE, TIME)
    )
    pairs = history.unionByName(new).groupBy("user", "item")
    all_pairs = pairs.agg(F.sum(VALUE).cast("float").alias(VALUE), F.max(TIME).alias(TIME))
    return all_pairs, new.select("user").distinct()


def _scorer(saved: SavedSparkModel, request: ListRequest) -> Scorer:
    if not request.fallback or saved.fallback_scores is None:
        return factor_scorer(saved.name, saved.factors)
    segments = None
    if saved.segments is not None:
        segments = SegmentScores(saved.segments.scores, saved.segments.row_sources)
    return factor_scorer(saved.name, saved.factors, SharedScorer(saved.fallback, saved.fallback_scores), segments)


def add_segments(
    listed: DataFrame,
    segments: Segments | None,
    user_segments: DataFrame | None,
    users: DataFrame | None,
) -> DataFrame:
    """Return ``listed`` with a further column ``segment``: the number of the segment of each user.

    The segment is looked up by the columns of ``users``. If they give none, it is that of the users
    table of the run. A user without a segment has null or -1. ``listed`` is returned unchanged if
    the run has no segments.

    Args:
        listed: columns (user: the id, …).
        segments: the segments of the run, or None.
        user_segments: the result of :func:`read_user_segments`.
        users: columns (user_id, …), with or without columns of the segments, or None.
    """
    if segments is None or user_segments is None:
        return listed
    keyed = listed.withColumn("key", F.col("user").cast("string"))
    joined = keyed.join(user_segments, "key", "left").drop("key")
    if users is None or not set(segments.columns) & set(users.columns):
        return joined
    assigned = segment_popularity.assign_segments(users.dropDuplicates([USER]), segments)
    assigned = assigned.select(F.col(USER).alias("user"), F.col("segment").alias("own_segment"))
    own_segment = F.col("own_segment")
    segment = F.when(own_segment >= 0, own_segment).otherwise(F.col("segment"))
    return joined.join(assigned, "user", "left").withColumn("segment", segment).drop("own_segment")


def item_rows(spark: SparkSession, items: pd.DataFrame) -> DataFrame:
    """Return the columns (item_id, item): the id and the row number of each candidate.

    The table is marked for a broadcast join.

    Args:
        spark: the session.
        items: the candidates, in row order.
    """
    rows = pd.DataFrame({ITEM: items[ITEM], "item": np.arange(len(items), dtype=np.int32)})
    return F.broadcast(spark.createDataFrame(rows))
