"""Make lists on Spark with a model that was fitted elsewhere.

The folder of the model is sent to the executors. They get batches of users with their histories. A
function of the caller makes the lists of a batch, so this module does not depend on the model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from recsys.schema import RANK, SCORE, SOURCE, TIME
from recsys.spark.ranking.recommend import add_histories
from recsys.spark.ranking.scorers import FEATURES, HISTORY_COLUMNS, SEGMENT
from recsys.spark.tasks import prepare_task

SHORTFALL = "shortfall"
"""The column with the reason why a list is short."""

ScoreBatch = Callable[[Path, pa.RecordBatch], pa.RecordBatch]
"""A function (folder of the model, batch of users) -> lists of these users, one row per item.

Executors call it, so it must be picklable.
"""


def ship_folder(spark: SparkSession, folder: Path) -> str:
    """Send a folder to all executors, and return its name there, as :func:`list_users` needs it.

    Each executor unpacks the folder once. The archive is removed when the session ends.
    """
    # Executors fetch the archive when they start a task, so it lives as long as the session.
    scratch = Path(tempfile.mkdtemp(prefix="recsys-model-", dir=spark.sparkContext._temp_dir))
    archive = scratch / "model.zip"
    with ZipFile(archive, "w", ZIP_STORED, allowZip64=True) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    spark.sparkContext.addArchive(f"{archive}#{scratch.name}")
    return scratch.name


def has_times(history: DataFrame) -> bool:
    """Return whether any row of ``history`` has a known time, a ``timestamp`` of 0 or more."""
    return not history.where(F.col(TIME) >= 0).isEmpty()


def list_users(
    users: DataFrame,
    history: DataFrame,
    folder: str,
    score_batch: ScoreBatch,
) -> DataFrame:
    """Return the lists of users as a DataFrame with one row per listed item.

    The columns are user, item (a row number), rank (1 is the best), score, source, and shortfall
    (the reason why the list of the user is short). A user without a list has one row, in which only
    user and shortfall are not null.

    Args:
        users: columns (user: the id), optionally ``segment`` and ``features``.
        history: columns (user, item: row, value, timestamp), one row per pair.
        folder: the name that :func:`ship_folder` returned.
        score_batch: makes the lists of a batch of users, with the columns of the result.
    """
    frame = add_histories(users, history, HISTORY_COLUMNS)
    names = ("user", *HISTORY_COLUMNS, SEGMENT, FEATURES)
    columns = [name for name in names if name in frame.columns]
    user_type = frame.schema["user"].dataType.simpleString()
    schema = f"user {user_type}, item int, {RANK} int, {SCORE} float"
    schema += f", {SOURCE} string, {SHORTFALL} string"
    return frame.select(*columns).mapInArrow(partial(_list_batches, folder, score_batch), schema)


def observe_shortfall(lists: DataFrame, reasons: Sequence[str]) -> tuple[DataFrame, Observation]:
    """Return the lists, and an Observation that counts users by the reason of a short list.

    The counts are there after the returned lists have been written: reason -> number of users.

    Args:
        lists: the result of :func:`list_users`.
        reasons: the reasons to count, names of ``types.SHORTFALL``.
    """
    observation = Observation()
    is_first = (F.col(RANK) == 1) | F.col("item").isNull()
    reason_of_user = F.when(is_first, F.col(SHORTFALL))
    counts = [F.count_if(reason_of_user == reason).alias(reason) for reason in reasons]
    return lists.observe(observation, *counts), observation


def add_stored_factors(
    users: DataFrame,
    ids: Any,
    factors: np.ndarray,
    changed: DataFrame | None,
) -> DataFrame:
    """Return ``users`` with a column ``features``: the stored factor, or null if there is none.

    Args:
        users: columns (user, …).
        ids: [n], the ids of the users of ``factors``.
        factors: float32[n, rank], NaN rows for users without one.
        changed: columns (user), users whose factors are out of date.
    """
    is_stored = ~np.isnan(factors).any(axis=1)
    stored = np.ascontiguousarray(factors[is_stored])
    offsets = np.arange(0, stored.size + 1, factors.shape[1], dtype=np.int32)
    vectors = pa.ListArray.from_arrays(pa.array(offsets), pa.array(stored.ravel()))
    rows = pa.Table.from_arrays([pa.array(ids[is_stored]), vectors], names=["user", FEATURES])
    table = users.sparkSession.createDataFrame(rows)
    if changed is not None:
        table = table.join(changed, "user", "left_anti")
    return users.join(table, "user", "left")


def _list_batches(
    folder: str,
    score_batch: ScoreBatch,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Yield the lists of each batch of users. Executors call this function."""
    prepare_task()
    path = Path(SparkFiles.get(folder))
    for batch in batches:
        yield score_batch(path, batch)
