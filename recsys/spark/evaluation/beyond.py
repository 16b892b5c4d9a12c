"""Measures beyond accuracy, and groups, on Spark.

The driver reads the items and users tables and counts per item. Data per user stays on the
executors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from recsys.evaluation.beyond import Catalogue, of_all_lists, per_user
from recsys.evaluation.groups import Groups, assign_columns, column_groups
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.truth import Truth as LocalTruth
from recsys.evaluation.truth import propensity_of_counts
from recsys.schema import RANK, USER
from recsys.spark.data.read import SparkTables
from recsys.spark.data.split import SparkSplit
from recsys.spark.evaluation.truth import Truth
from recsys.types import Histories, IdMap, TopK


def catalogue(
    split: SparkSplit, tables: SparkTables, item_ids: pd.Series, likes: np.ndarray, settings: EvaluationSettings
) -> Catalogue:
    """Return the catalogue of the candidates: their likes, attributes and groups, for the measures.

    Args:
        split: the split, for the number of train users.
        tables: the items table and the users table, which may be None.
        item_ids: the ids of the candidates, in row order.
        likes: float32[candidates], the number of train users who like each candidate
            (``popularity.count_likes``).
        settings: the section ``[judge]``, for the columns of the groups.

    Raises:
        ConfigError: a column of ``[judge] segments`` is in neither table or in both, or has the
            name of a built-in grouping.
    """
    table = tables.item_table
    columns = [() if one is None else tuple(one.columns) for one in (tables.user_table, table)]
    users = split.about["train"]["users"]
    assign_columns(settings.segments, *columns)
    return Catalogue.from_items(likes.astype(np.int64), users, settings, IdMap.from_ids(item_ids), table)


def user_groups(
    spark: SparkSession, tables: SparkTables, settings: EvaluationSettings
) -> tuple[list[Groups], DataFrame | None]:
    """Return the groups of users by columns of the users table, and the members of each group.

    The members are a DataFrame with two columns. ``key`` is the user id as text. ``inside`` is an
    array of booleans, which says for each group whether the user is in it. If the users table has
    no column of ``[judge] segments``, or there is no such table, the result is an empty list and
    None.

    Args:
        spark: the session.
        tables: the tables of the run, of which the users table is used.
        settings: the section ``[judge]``.
    """
    table = tables.user_table
    names = [] if table is None else [name for name in settings.segments if name in table]
    if table is None or not names:
        return [], None
    groups = [column_groups(name, table[name]) for name in names]
    membership = np.hstack([one.membership for one in groups]).tolist()
    frame = pd.DataFrame({"key": table[USER].astype(str), "inside": membership})
    return groups, spark.createDataFrame(frame, "key string, inside array<boolean>")


def exposure(lists: DataFrame, items: int, ranked_items: np.ndarray | None = None) -> dict[str, dict[str, float]]:
    """Return the measures that describe all lists of the tested users together, such as coverage.

    The result is a dict of the form that ``recsys.evaluation.beyond.of_all_lists`` returns.

    Args:
        lists: columns (user, item, rank, …), the lists of the tested users; items are rows.
        items: the number of candidates.
        ranked_items: bool[candidates], the items that lists may have. None: all.
    """
    length = F.count(F.lit(1)).over(Window.partitionBy("user"))
    per_item = (
        lists.select("user", "item", RANK)
        .withColumn("weight", F.lit(1.0) / F.sqrt(length))
        .groupBy("item")
        .agg(
            F.count(F.lit(1)).alias("n"),
            F.sum("weight").alias("w"),
            # Every list has one first place, so these counts add up to the number of lists.
            F.count_if(F.col(RANK) == 1).alias("first_places"),
        )
    )
    counted = per_item.toPandas().sort_values("item")
    times = np.zeros(items, dtype=np.int64)
    weights = np.zeros(items)
    rows = counted["item"].to_numpy(dtype=np.int64)
    times[rows] = counted["n"]
    weights[rows] = counted["w"]
    return of_all_lists(times, weights, int(counted["first_places"].sum()), ranked_items)


def columns_of(catalogue: Catalogue, truth: Truth, k: int) -> Callable[..., dict[str, np.ndarray]]:
    """Return a function that computes the measures beyond accuracy for a batch of users.

    The function returns measure -> float64[m] for m users, NaN where a measure is undefined. The
    measures are those of :func:`recsys.evaluation.beyond.per_user`. An item is given by its row in
    the catalogue. A relevant item that is not in the catalogue has a number after its last row. The
    arguments are, in this order:

    1. ``listed``, int32[n], the items of all lists, one list after the other;
    2. ``offsets``, int64[m + 1]: the list of user u is ``listed[offsets[u]:offsets[u + 1]]``;
    3. ``scores``, float32[n], the scores of the listed items;
    4. ``relevant``, a tuple: the relevant items of all users, and their offsets as for the lists;
    5. ``gain``, float64, the gain of each relevant item, in the order of ``relevant``;
    6. ``history``, an Arrow column: the history of each user as a list of (item, value). Null is an
       empty history.

    Args:
        catalogue: the catalogue of the candidates.
        truth: its settings are used, and whether lists leave out seen items.
        k: the largest length of a list.
    """
    n = len(catalogue.likes)
    candidates = IdMap.from_ids(np.arange(n))
    # The function travels to executors, so it must not hold the truth, whose frames live on the
    # driver.
    settings, exclude_seen = truth.settings, truth.exclude_seen

    def measure(
        listed: np.ndarray, offsets: np.ndarray, scores: np.ndarray, relevant: Any, gain: np.ndarray, history: pa.Array
    ) -> dict[str, np.ndarray]:
        m = len(offsets) - 1
        row = np.repeat(np.arange(m), np.diff(offsets))
        position = np.arange(len(listed)) - offsets[row]
        items = np.full((m, k), -1, dtype=np.int32)
        items[row, position] = listed
        score = np.full((m, k), np.nan, dtype=np.float32)
        score[row, position] = scores
        blank = np.full((m, k), -1, dtype=np.int8)
        topk = TopK(np.arange(m), items, score, blank, (), np.zeros(m, dtype=np.int8))
        chosen, starts = relevant
        width = max(n, int(chosen.max(initial=0)) + 1)
        cells = history.flatten()
        lengths = history.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        # Copies, because the memory of an Arrow batch is read-only.
        data = [np.array(cells.field(i)) for i in (1, 0)]
        batch_truth = LocalTruth(
            users=IdMap.from_ids(np.arange(m)),
            candidates=candidates,
            histories=Histories(csr_array((*data, np.concatenate([[0], np.cumsum(lengths)])), shape=(m, n))),
            relevant=csr_array((gain, np.array(chosen), starts), shape=(m, width)),
            propensity=propensity_of_counts(np.pad(catalogue.likes, (0, width - n))),
            counts={},
            settings=settings,
            exclude_seen=exclude_seen,
        )
        return per_user(topk, batch_truth, catalogue)

    return measure
