"""Business rules on Spark: they are compiled once on the driver and applied to every list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from recsys.ranking.business_rules import CompiledRules, Rules, compile_rules
from recsys.schema import ITEM, USER
from recsys.spark.ranking.recommend import select_columns
from recsys.spark.ranking.scorers import Scorer
from recsys.spark.tasks import prepare_task
from recsys.types import SHORTFALL, IdMap


@dataclass(frozen=True)
class RulesInRows:
    """The compiled rules of a run, for tables in which users are row numbers.

    Attributes:
        compiled: the compiled rules. Rows of ``compiled.denied`` are only those users whom the
            rules name.
        users: the row number in the run of the user of each row of ``compiled.denied``.
    """

    compiled: CompiledRules
    users: list[int]


def compile_rules_in_rows(rules: Rules, users: DataFrame, items: pd.DataFrame) -> RulesInRows:
    """Compile rules for the users and candidates of a run.

    Args:
        rules: the rules.
        users: columns (row, user_id) of all users; the driver reads those that the rules name.
        items: the candidates in row order: ``item_id``, and the columns of the items table.

    Raises:
        ConfigError: a rule needs a field that the items do not have.
        InputError: a time is neither an ISO date nor a number.
    """
    named = users.sparkSession.createDataFrame([(name,) for name in rules.deny_for], "name string")
    table = users.join(F.broadcast(named), F.col(USER).cast("string") == F.col("name")).toPandas()
    # Rows ascend with the ids, and an IdMap needs ascending ids.
    table = table.sort_values("row")
    compiled = compile_rules(rules, IdMap.from_ids(table[USER]), IdMap.from_ids(items[ITEM]), items)
    return RulesInRows(compiled, table["row"].tolist())


def exclude_denied_items(users: DataFrame, denied: csr_array, denied_users: Sequence[Any]) -> DataFrame:
    """Return ``users``, where ``seen`` also has the items that rules deny to the user.

    So these items are left out of lists like seen ones. If nothing is denied, ``users`` is returned
    unchanged.

    Args:
        users: columns (user, seen array<int>, …), where ``user`` is a row or an id of any kind.
        denied: csr (denied users, items), the denied items.
        denied_users: the user of each row of ``denied``, as in the column ``user``.
    """
    if not denied.nnz:
        return users
    rows = [
        (str(user), denied.indices[denied.indptr[row] : denied.indptr[row + 1]].tolist())
        for row, user in enumerate(denied_users)
    ]
    table = F.broadcast(users.sparkSession.createDataFrame(rows, "key string, denied array<int>"))
    joined = users.join(table, F.col("user").cast("string") == F.col("key"), "left")
    seen = F.coalesce(F.array_sort(F.array_union("seen", "denied")), F.col("seen"))
    return joined.withColumn("seen", seen).drop("key", "denied")


def shortfall_reasons(users: DataFrame, scorer: Scorer, k: int) -> DataFrame:
    """Return the columns (user, shortfall): the reason why the list of each user would be short.

    The function is for runs with rules, or in which lists rank only a part of the items. Use the
    reason only for lists of fewer than k items. The reasons are those of ``rank.recommend``:
    "cold_no_fallback", "small_catalogue", "filtered" or "all_seen".

    Args:
        users: as for ``top_k``, but ``seen`` has no items that rules deny.
        scorer: the scorer of all items, without the rules.
        k: the length of a full list.
    """
    shared = users.sparkSession.sparkContext.broadcast((scorer, scorer.scored_items()))
    frame = select_columns(users, scorer)

    def reasons(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task(kernels=False)
        for batch in batches:
            names = pa.array(_reasons_of_batch(batch, shared.value[0].kinds(batch), shared.value[1], k))
            yield pa.RecordBatch.from_arrays([batch.column("user"), names], names=["user", "shortfall"])

    user_type = frame.schema["user"].dataType.simpleString()
    return frame.mapInArrow(reasons, f"user {user_type}, shortfall string")


def _reasons_of_batch(
    users: pa.RecordBatch,
    kinds: np.ndarray,
    scored_items: np.ndarray,
    k: int,
) -> np.ndarray:
    """Return the shortfall of each user of a batch.

    Args:
        kinds: int64[users], the kind of each user.
        scored_items: bool[kinds, items], whether an item has a score for users of a kind.
    """
    seen = users.column("seen")
    row = np.repeat(np.arange(users.num_rows), seen.value_lengths().to_numpy(zero_copy_only=False))
    item = seen.flatten().to_numpy(zero_copy_only=False)
    n_scored = scored_items.sum(axis=1)[kinds]
    n_seen = np.bincount(row, scored_items[kinds[row], item], users.num_rows)
    reason = np.where(n_scored - n_seen >= k, SHORTFALL.index("filtered"), SHORTFALL.index("all_seen"))
    if scored_items.shape[1] < k:
        reason[:] = SHORTFALL.index("small_catalogue")
    reason[n_scored == 0] = SHORTFALL.index("cold_no_fallback")
    return np.array(SHORTFALL, dtype=object)[reason]
