"""Compare two tables of lists on Spark, with the measures of ``recsys.evaluation.agreement``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.errors import InputError
from recsys.evaluation.agreement.measures import compute_measures, describe_agreement, parse_measures
from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.evaluation.summary import Layout
from recsys.schema import ITEM, RANK, USER
from recsys.spark.evaluation.evaluate import _lists, require_lists, require_unique, sums
from recsys.spark.tasks import prepare_task

COUNTED = ("n_a", "n_b", "n_common")
"""Columns with the lengths of the two lists of a user, and with their number of common items."""


def per_user(a: DataFrame, b: DataFrame, measures: Iterable[str], *, missing: str = "bottom") -> DataFrame:
    """Compare the two lists of each user, and return one row per user of either table.

    The columns are user, the lengths n_a and n_b of the two lists, n_common (the number of items in
    both lists), and one column per measure, NaN where it is undefined.

    Args:
        a, b: columns (user, item, rank). Users and items are ids of any kind, or row numbers, the
            same in both tables. An item is in a list at most once.
        measures: the names of the measures, for example "tau_b" or "overlap@10".
        missing: how correlations treat an item that is in one list only, as in ``rankings.Pairs``.
            It holds for measures whose name does not set it.

    Raises:
        ConfigError: the name of a measure is not valid.
    """
    names = [str(measure) for measure in parse_measures(measures)]
    lists_of_users = _listed(a, "a").join(_listed(b, "b"), "user", "full")
    schema = f"user {lists_of_users.schema['user'].dataType.simpleString()}, " + ", ".join(
        [f"{name} bigint" for name in COUNTED] + [f"`{name}` double" for name in names]
    )
    return lists_of_users.select("user", "a", "b").mapInArrow(_compare_batches(names, missing), schema)


def agree_tables(
    a: DataFrame, b: DataFrame, measures: Iterable[str], *, keep: Callable[[DataFrame], None] | None = None
) -> dict[str, Any]:
    """Compare two tables of lists user by user, and return the dict that ``recsys agree --json`` prints.

    Args:
        a, b: columns (user_id, item_id, rank), with ids of the same types.
        measures: the names of the measures. Correlations use ``missing=bottom`` by default.
        keep: a function that is called once with one row per user (``user_id``, ``n_a``, ``n_b``,
            ``n_common``, and the measures) while it is in memory, for example to write it.

    Raises:
        InputError: a list has an item or a rank twice, a rank is not a whole number from 1, or a
            table has no rows.
        ConfigError: the name of a measure is not valid.
    """
    parsed = parse_measures(measures)
    names = tuple(map(str, parsed))
    tables = []
    for table, label in ((a, "the first table"), (b, "the second table")):
        lists = table.select(F.col(USER).alias("user"), F.col(ITEM).alias("item"), RANK)
        require_lists(lists, label)
        require_unique(lists, "item", label)
        require_unique(lists, RANK, label)
        tables.append(lists)
    for column in ("user", "item"):
        kinds = [table.schema[column].dataType.simpleString() for table in tables]
        if kinds[0] != kinds[1]:
            raise InputError(f"ids of the two tables are of two types, {kinds[0]} and {kinds[1]}: convert one of them.")
    judged = per_user(tables[0], tables[1], names).withColumnRenamed("user", USER).cache()
    try:
        has_no_list = {"without_a": F.count_if(F.col("n_a") == 0), "without_b": F.count_if(F.col("n_b") == 0)}
        row = judged.agg(F.count("*").alias("users"), *(count.alias(name) for name, count in has_no_list.items()))
        # Lists are not grouped by the length of a history, which is unknown here.
        layout = Layout(("agreement",), names, baseline="")
        totals = sums({"agreement": judged.withColumn("n_history", F.lit(-1))}, layout, resamples=1000, seed=0)
        result = describe_agreement(parsed, totals, row.collect()[0].asDict())
        if keep is not None:
            keep(judged)
    finally:
        judged.unpersist()
    return result


def _listed(frame: DataFrame, name: str) -> DataFrame:
    """Return (user, ``name``), the items of each user as an array, best first."""
    return frame.groupBy("user").agg(F.array_sort(F.collect_list(F.struct(RANK, "item")))["item"].alias(name))


def _compare_batches(names: list[str], missing: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task()
        measures = parse_measures(names)
        for batch in batches:
            if not batch.num_rows:
                continue
            (items_a, offsets_a), (items_b, offsets_b) = (_lists(batch.column(side)) for side in ("a", "b"))
            codes, _ = pd.factorize(np.concatenate([items_a, items_b]))
            lists_a = Rankings.from_flat(codes[: len(items_a)], offsets_a)
            lists_b = Rankings.from_flat(codes[len(items_a) :], offsets_b)
            pairs = Pairs.row_by_row(lists_a, lists_b, missing)
            values = compute_measures(pairs, measures)
            arrays = [batch.column("user"), *(pa.array(count, pa.int64()) for count in (*pairs.lengths, pairs.common))]
            arrays += [pa.array(value, pa.float64()) for value in values.values()]
            yield pa.RecordBatch.from_arrays(arrays, names=["user", *COUNTED, *values])

    return run
