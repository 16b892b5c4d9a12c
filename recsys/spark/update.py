"""Add new events to a run on Spark without training, and measure how far the item factors drift.

It is :mod:`recsys.saved.update` for a run whose factors Spark trained, with the same equations. The
log is not read again: the histories are those of the run, one row per pair. Only the pairs that new
events touch are combined again, and only users with new events get new factors. The driver holds
the item factors. The drift takes two passes over the pairs, each of which sends the factor of the
user with every pair, 4 · rank bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys import run_files
from recsys.config import Config, load_config
from recsys.errors import ConfigError, InputError
from recsys.locations import is_remote
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.spark.data.read import read_tables
from recsys.spark.data.split import aggregate_events, weigh_all, write_and_read
from recsys.spark.ranking.popularity import count_likes
from recsys.spark.saved import SavedSparkModel, item_rows, open_spark_run, read_part
from recsys.spark.training.als import fold_in
from recsys.spark.training.parameters import SparkALSParameters
from recsys.types import RETRAIN_AT, IdMap, Update

PAIR = [USER, ITEM, VALUE, TIME]
"""The columns of a history by id."""


def update_run(
    spark: SparkSession, source: str, events: str, out: str, model: str, retrain_at: float = RETRAIN_AT
) -> Update:
    """Add new events to a factor model of a run, write the updated run to ``out``, and return what changed.

    The new run has the one model, its histories and candidates, and the config and metrics of the
    old run. It has no test part, no lists and no report.

    Args:
        spark: the session.
        source: the path or URI of the run, which is not changed.
        events: a file or folder with the columns and ids that the config of the run describes, at
            any URI that Spark reads.
        out: the path or URI of the updated run. An older run there is replaced, but not ``source``, whose
            other models and report would be lost.
        model: the name of a model whose factors Spark trained.
        retrain_at: growth of the drift above which to retrain.

    Raises:
        RunFolderError: the run or the model cannot be read, or ``out`` may not be replaced.
        ConfigError: the model predicts ratings, its item factors are in blocks, or the run has segments.
        InputError: the events cannot be read, or their ids are not of the type of the run's.
    """
    sources = [events, source]
    # A run at a URI is checked when it is opened for writing.
    if not is_remote(out):
        RunFolder.require_writable(out, "run", sources)
    run = RunFolder.open(source)
    saved = open_spark_run(spark, run, model)
    if not saved.params.implicit:
        raise ConfigError(f"{source}: model {model} predicts ratings (implicit = false): train again instead.")
    if saved.segments is not None:
        raise ConfigError(
            f"{source}: its fallback is by segment, which is counted again in one process: recsys bundle {source}"
            " BUNDLE, and recsys update BUNDLE."
        )
    if not isinstance(saved.factors, np.ndarray):
        raise ConfigError(
            f"{source}: the item factors of model {model} are in blocks, but an update holds all of them on the driver:"
            " train again instead."
        )
    with RunFolder.writing(out, "run", sources) as folder:
        result = replace(_update(spark, run, saved, saved.factors, events, folder), retrain_at=retrain_at)
        for name in (run_files.CONFIG, run_files.METRICS):
            shutil.copyfile(run.local(name), folder.path / name)
        folder.write_json(run_files.spark_params(model), run.read_json(run_files.spark_params(model)))
        folder.write_json(run_files.MANIFEST, run.read_manifest())
        folder.remove_work()
    return result


def _update(
    spark: SparkSession,
    run: RunFolder,
    saved: SavedSparkModel,
    old_factors: np.ndarray,
    location: str,
    folder: RunFolder,
) -> Update:
    """Write the histories, candidates and factors of the updated run, and return what changed.

    Args:
        run: the old run, from which ``saved`` was read.
        old_factors: the item factors of ``saved``, float32[candidates, rank].
        location: the file or folder of the new events.
        folder: the updated run.
    """
    config = load_config(run.local(run_files.CONFIG))
    work = folder.uri_of(run_files.WORK)
    only_events = config.data.model_copy(update={"items": None, "users": None})
    tables = read_tables(spark, only_events, work, location)
    tables.refusals.write_csv(folder.path / run_files.REFUSED_ROWS)
    candidates = F.broadcast(spark.createDataFrame(saved.items[[ITEM]]))
    old = read_part(spark, run, run_files.HISTORY).select(PAIR).join(candidates, ITEM, "left_semi")
    events = _with_ids_like(tables.events, old)
    newest = _largest_time(old)
    weighed = weigh_all(events, config.weigh, newest if config.weigh.half_life_days else None, work / "weighed")
    changed = write_and_read(weighed.select(F.col(USER).alias("user")).distinct(), work / "changed")
    merged = _merge(old, weighed, config)
    merged = write_and_read(merged.select(PAIR), folder.uri_of(run_files.HISTORY))
    merged.write.parquet(str(folder.uri_of(run_files.TRAIN)))

    new_ids = weighed.select(ITEM).distinct().toPandas()[ITEM]
    ids = IdMap.from_ids(saved.items[ITEM], new_ids)
    items = pd.DataFrame({ITEM: ids.all_ids}).merge(saved.items, on=ITEM, how="left")
    folder.write_table(run_files.ITEMS, items)
    factors = np.full((len(items), saved.params.rank), np.nan, dtype=np.float32)
    factors[ids.rows(saved.items[ITEM])] = old_factors
    old_pairs = _by_row(old, items)
    pairs = _by_row(merged, items)
    old_users = old_pairs.select("user").distinct()
    n_old_users = old_users.count()
    users_new = changed.join(old_users, "user", "left_anti").count()

    # Items that nobody had liked have, at most, the factors that their attributes predict: they do
    # not drift.
    trained = ~np.isnan(factors[:, 0]) & (count_likes(old_pairs, len(items)) > 0)
    solved = _solve_items(old_pairs, saved.users, n_old_users, len(items), saved.params)
    drift_before = _drift(factors, solved, trained)
    changed_pairs = pairs.join(F.broadcast(changed), "user", "left_semi")
    unchanged_users = saved.users.join(F.broadcast(changed), "user", "left_anti")
    users = unchanged_users.unionByName(_factors_of(changed_pairs, factors, saved.params))
    users = write_and_read(users, work / "users")
    solved = _solve_items(pairs, users, n_old_users + users_new, len(items), saved.params)
    is_new = (count_likes(pairs, len(items)) > 0) & ~trained
    updated = np.where(is_new[:, None], solved, factors).astype(np.float32)
    users = unchanged_users.unionByName(_factors_of(changed_pairs, updated, saved.params))
    _write_factors(users, updated, items, folder, saved.name)
    not_newer = 0
    if TIME in events.columns and newest is not None:
        not_newer = events.where(F.floor(TIME) <= newest).count()
    return Update(
        events=events.count(),
        users_new=users_new,
        users_changed=changed.count() - users_new,
        items_new=int(is_new.sum()),
        drift_before=drift_before,
        drift_after=_drift(factors, solved, trained),
        events_not_newer=not_newer,
    )


def _with_ids_like(events: DataFrame, history: DataFrame) -> DataFrame:
    """Return the events with the id types of a history.

    Raises:
        InputError: an id is not an integer, and all ids of the history are.
    """
    for column in (USER, ITEM):
        id_type = history.schema[column].dataType.simpleString()
        new_type = events.schema[column].dataType.simpleString()
        if new_type == id_type:
            continue
        if new_type == "string":
            raise InputError(f"the events: {column} is text, but the run has integers there: give ids of the run.")
        events = events.withColumn(column, F.col(column).cast(id_type))
    return events


def _largest_time(history: DataFrame) -> int | None:
    """Return the newest time of a history in seconds since 1970, or None without times."""
    row = history.agg(F.max(TIME)).first()
    if row is None or row[0] is None or row[0] < 0:
        return None
    return int(row[0])


def _merge(old: DataFrame, weighed: DataFrame, config: Config) -> DataFrame:
    """Return the pairs of a history and of weighed new events together, by id.

    The result is that of :func:`recsys.data.weigh.add_pairs`. Pairs without a new event are passed
    on, and not grouped.
    """
    method = config.weigh.aggregate
    new_pairs = _aggregate(weighed, method)
    touched = new_pairs.select(USER, ITEM)
    touched_pairs = old.join(touched, [USER, ITEM], "left_semi").unionByName(new_pairs)
    unchanged = old.join(touched, [USER, ITEM], "left_anti")
    if not old.where(F.col(TIME) < 0).isEmpty() or TIME not in weighed.columns:
        touched_pairs = touched_pairs.drop(TIME)
        unchanged = unchanged.withColumn(TIME, F.lit(-1).cast("long"))
    # Counts were made when the pairs were: from here on they add up.
    combined = _aggregate(touched_pairs, "sum" if method == "count" else method)
    return unchanged.unionByName(combined)


def _aggregate(events: DataFrame, method: Any) -> DataFrame:
    keyed = events.withColumn("user", F.col(USER)).withColumn("item", F.col(ITEM))
    return aggregate_events(keyed, method, exact=False).select(PAIR)


def _by_row(history: DataFrame, items: pd.DataFrame) -> DataFrame:
    """Return the columns (user: the id, item: the row in ``items``, value) of a history by id."""
    joined = history.join(item_rows(history.sparkSession, items), ITEM)
    return joined.select(F.col(USER).alias("user"), "item", VALUE)


def _factors_of(pairs: DataFrame, items: np.ndarray, params: SparkALSParameters) -> DataFrame:
    """Return the factors of users, columns (user, features), without those who cannot be scored."""
    return fold_in(pairs, items, params).where(F.col("features").isNotNull())


def _drift(factors: np.ndarray, solved: np.ndarray, trained: np.ndarray) -> float:
    """Return ‖Y' − Y‖ / ‖Y‖ over the trained items."""
    present = factors[trained].astype(np.float64)
    return float(np.linalg.norm(solved[trained] - present) / np.linalg.norm(present))


def _write_factors(users: DataFrame, factors: np.ndarray, items: pd.DataFrame, folder: RunFolder, name: str) -> None:
    """Write user_factors.parquet and item_factors.parquet: (external id, features)."""
    by_id = users.select(F.col("user").alias(USER), "features")
    by_id.write.parquet(str(folder.uri_of(run_files.user_factors(name))))
    has_factor = ~np.isnan(factors[:, 0])
    table = pd.DataFrame({ITEM: items[ITEM][has_factor], "features": factors[has_factor].tolist()})
    typed = users.sparkSession.createDataFrame(table).withColumn("features", F.col("features").cast("array<float>"))
    typed.write.parquet(str(folder.uri_of(run_files.item_factors(name))))


# --- All item factors for fixed user factors -----------------------------------------------------------------


def _solve_items(
    pairs: DataFrame, users: DataFrame, n_users: int, n_items: int, params: SparkALSParameters
) -> np.ndarray:
    """Return the item factors that minimise the loss of ALS for fixed user factors.

    The result is float64[n_items, rank], with zeros for an item that nobody likes. The pairs of an
    item pass through one task, which adds them to a rank × rank matrix, so an item may have any
    number of pairs.

    Args:
        pairs: columns (user, item: row, value).
        users: columns (user, features). A user who is not in it has a factor of zeros.
        n_users: the number of users of the pairs.
        n_items: the number of items.
        params: the parameters of ALS, for likes.
    """
    zeros = F.array_repeat(F.lit(0.0).cast("float"), params.rank)
    joined = pairs.join(users, "user", "left").select(
        "item", F.col(VALUE).cast("double").alias(VALUE), F.coalesce("features", zeros).alias("features"), "user"
    )
    shared = pairs.sparkSession.sparkContext.broadcast((_gram(users, params.rank), n_users))
    # Sorted by user, so that the sums are the same in every run.
    ordered = joined.repartition("item").sortWithinPartitions("item", "user").drop("user")
    table = ordered.mapInArrow(_solve_batches(shared, params), "item int, features array<double>").toPandas()
    shared.destroy()
    solved = np.zeros((n_items, params.rank))
    if len(table):
        solved[table["item"].to_numpy()] = np.stack(table["features"].to_numpy())
    return solved


def _gram(users: DataFrame, rank: int) -> np.ndarray:
    """Return Σ x xᵀ over the factors x of all users, float64[rank, rank]."""

    def sum_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total = np.zeros((rank, rank))
        for batch in batches:
            factors = _vectors(batch, rank)
            total += factors.T @ factors
        context = TaskContext.get()
        part = 0 if context is None else context.partitionId()
        yield pa.RecordBatch.from_arrays([pa.array([part], pa.int32()), pa.array([total.tobytes()])], ["part", "gram"])

    # The order of the additions is always that of the partitions.
    rows = sorted(users.select("features").mapInArrow(sum_batches, "part int, gram binary").collect())
    return sum((np.frombuffer(row["gram"]).reshape(rank, rank) for row in rows), np.zeros((rank, rank)))


def _vectors(batch: pa.RecordBatch, rank: int) -> np.ndarray:
    """Return the column ``features`` of a batch, float64[rows, rank]."""
    flat = batch.column("features").flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float64).reshape(-1, rank)


def _solve_batches(
    shared: Any, params: SparkALSParameters
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function with which executors solve the linear system of each item.

    It takes batches with the columns (item, value, features), in which the rows of an item follow
    each other, and yields (item, features).

    Args:
        shared: the broadcast of (the Gram matrix of all users, the number of users).
    """

    def solve(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        gram, n_users = shared.value
        system = _System(-1, params)
        for batch in batches:
            solved = []
            item = batch.column("item").to_numpy()
            value = batch.column(VALUE).to_numpy()
            factors = _vectors(batch, params.rank)
            starts = np.flatnonzero(np.diff(item, prepend=-1))
            for start, stop in pairwise([*starts, len(item)]):
                if item[start] != system.item:
                    solved.append(system)
                    system = _System(int(item[start]), params)
                system.add(value[start:stop], factors[start:stop])
            yield _to_batch([done.solve(gram, n_users) for done in solved if done.item >= 0])
        yield _to_batch([system.solve(gram, n_users)] if system.item >= 0 else [])

    return solve


class _System:
    """The linear system of one item, to which its pairs are added."""

    def __init__(self, item: int, params: SparkALSParameters) -> None:
        self.item = item
        self.params = params
        self.matrix = np.zeros((params.rank, params.rank))
        self.target = np.zeros(params.rank)
        self.likes = 0

    def add(self, values: np.ndarray, factors: np.ndarray) -> None:
        """Add pairs with these values, of users with these factors."""
        weight = self.params.alpha * np.abs(values)
        self.matrix += (factors * weight[:, None]).T @ factors
        self.target += np.where(values > 0, 1 + weight, 0) @ factors
        self.likes += int((values > 0).sum())

    def solve(self, gram: np.ndarray, n_users: int) -> tuple[int, np.ndarray]:
        """Return the item and its factor, zeros if nobody likes the item."""
        if not self.likes:
            return self.item, np.zeros(len(gram))
        penalty = self.params.penalty(np.array([self.likes]), n_users)
        matrix = gram + self.matrix + penalty * np.eye(len(gram))
        return self.item, np.linalg.solve(matrix, self.target)


def _to_batch(rows: list[tuple[int, np.ndarray]]) -> pa.RecordBatch:
    items = pa.array([item for item, _ in rows], pa.int32())
    features = pa.array([factor for _, factor in rows], pa.list_(pa.float64()))
    return pa.RecordBatch.from_arrays([items, features], ["item", "features"])
