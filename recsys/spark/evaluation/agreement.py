"""Compare two tables of lists on the executors, with the measures of
``recsys.evaluation.agreement``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys.evaluation.agreement.measures import compute_measures, parse_measures
from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.schema import RANK
from recsys.spark.evaluation.evaluate import _lists

COUNTED = ("n_a", "n_b", "n_common")


def per_user(a: DataFrame, b: DataFrame, measures: Iterable[str], *, missing: str = "bottom") -> DataFrame:
    """Compare the lists of each user in two tables, and return one row for every user of either
    table.

    The columns are user, the lengths n_a and n_b of the two lists, n_common (the number of items in
    both lists), and one column per measure, NaN where it is undefined.

    Args:
        a, b: (user, item, rank), with ids of any kind, or rows. An item is in a list at most once.
        measures: the names of the measures.
        missing: as in ``rankings.Pairs``, for measures whose name does not set it.
    """
    names = [str(measure) for measure in parse_measures(measures)]
    lists_of_users = _listed(a, "a").join(_listed(b, "b"), "user", "full")
    schema = f"user {lists_of_users.schema['user'].dataType.simpleString()}, " + ", ".join(
        [f"{name} bigint" for name in COUNTED] + [f"`{name}` double" for name in names]
    )
    return lists_of_users.select("user", "a", "b").mapInArrow(_compare_batches(names, missing), schema)


def _listed(frame: DataFrame, name: str) -> DataFrame:
    """Return (user, ``name``), the items of each user as an array, best first."""
    return frame.groupBy("user").agg(F.array_sort(F.collect_list(F.struct(RANK, "item")))["item"].alias(name))


def _compare_batches(names: list[str], missing: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import numba

        numba.set_num_threads(1)
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
