"""Rules on Spark: compiled once on the driver, kept by every list, and named where they leave a list short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from recsys.ranking.business_rules import CompiledRules, Rules, compile_rules
from recsys.schema import ITEM, USER
from recsys.spark.ranking.recommend import Scorer, with_opinions
from recsys.types import SHORTFALL, IdMap

Ruled = tuple[CompiledRules, list[int]]
"""Rules in rows: those of ``denied`` stand for these users of the run."""


def in_rows(rules: Rules, users: DataFrame, items: pd.DataFrame) -> Ruled:
    """Compile rules for the users they name, of ``users`` (row, user_id), and the candidates ``items``, row by row."""
    named = users.sparkSession.createDataFrame([(name,) for name in rules.deny_for], "name string")
    known = users.join(F.broadcast(named), F.col(USER).cast("string") == F.col("name")).toPandas()
    known = known.sort_values("row")  # rows ascend with the ids, as in an IdMap
    return compile_rules(rules, IdMap.of(known[USER]), IdMap.of(items[ITEM]), items), known["row"].tolist()


def under_rules(scorer: Scorer, rules: CompiledRules) -> Scorer:
    """Return a scorer without an opinion on items that the rules remove; what is denied to a user is for the caller."""
    keep = rules.candidates
    own = None if scorer.factors is None else np.where(keep[:, None], scorer.factors, np.float32(np.nan))
    same = None if scorer.same is None else np.where(keep, scorer.same, np.float32(np.nan))
    groups = None
    if scorer.groups is not None:
        groups = np.where(keep, scorer.groups[0], np.float32(np.nan)), scorer.groups[1]
    return replace(scorer, factors=own, same=same, groups=groups, keep=keep, quotas=tuple(rules.quotas))


def deny(asked: DataFrame, denied: csr_array, users: Sequence[Any]) -> DataFrame:
    """Return (user, seen) with what is denied to a user among what he has seen.

    Args:
        asked: (user, seen array<int>), ``user`` a row or an id of any kind.
        denied: csr (users, items), row i of the i-th of ``users``, as ``user`` names him.
    """
    if not denied.nnz:
        return asked
    rows = [
        (str(user), denied.indices[denied.indptr[i] : denied.indptr[i + 1]].tolist()) for i, user in enumerate(users)
    ]
    table = F.broadcast(asked.sparkSession.createDataFrame(rows, "key string, denied array<int>"))
    both = asked.join(table, F.col("user").cast("string") == F.col("key"), "left")
    seen = F.coalesce(F.array_sort(F.array_union("seen", "denied")), F.col("seen"))
    return both.select("user", seen.alias("seen"))


def why_short(users: DataFrame, scorer: Scorer, k: int, items: int) -> DataFrame:
    """Return (user, why): the shortfall of each user's list if rules left it short, as ``rank.recommend`` names it.

    Args:
        users: as for :func:`top_k`, ``seen`` without what rules deny.
        scorer: as it is without the rules.
    """
    shared = users.sparkSession.sparkContext.broadcast(_Opinions.of(scorer, items))
    frame = with_opinions(users)

    def reasons(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            why = pa.array(shared.value.reasons(batch, k))
            yield pa.RecordBatch.from_arrays([batch.column("user"), why], names=["user", "why"])

    kind = frame.schema["user"].dataType.simpleString()
    return frame.mapInArrow(reasons, f"user {kind}, why string")


@dataclass(frozen=True)
class _Opinions:
    """The items on which a scorer has an opinion: bool[items] for users with features, bool[items] for users without,
    bool[segments, items] for those of them with a segment.
    """

    own: np.ndarray
    same: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, scorer: Scorer, items: int) -> _Opinions:
        every = np.ones(items, dtype=bool)
        groups = np.isfinite(scorer.groups[0]) if scorer.groups else np.empty((0, items), dtype=bool)
        if scorer.seed is not None:
            return cls(every, every, groups[:0])
        same = ~every if scorer.same is None else np.isfinite(scorer.same)
        return cls(same if scorer.factors is None else np.isfinite(scorer.factors[:, 0]), same, groups)

    def reasons(self, batch: pa.RecordBatch, k: int) -> np.ndarray:
        seen, known = batch.column("seen"), batch.column("features").is_valid().to_numpy(zero_copy_only=False)
        row = np.repeat(np.arange(len(known)), seen.value_lengths().to_numpy(zero_copy_only=False))
        item = seen.flatten().to_numpy(zero_copy_only=False)
        kinds = np.vstack([self.same, self.own, self.groups])
        kind = known.astype(np.int64)
        if len(self.groups):
            segment = batch.column("segment").fill_null(-1).to_numpy(zero_copy_only=False)
            kind = np.where(~known & (segment >= 0), 2 + segment, kind)
        scored = kinds.sum(axis=1)[kind]
        met = np.bincount(row, kinds[kind[row], item], len(known))
        reason = np.where(scored - met >= k, SHORTFALL.index("filtered"), SHORTFALL.index("all_seen"))
        if len(self.own) < k:
            reason[:] = SHORTFALL.index("small_catalogue")
        reason[scored == 0] = SHORTFALL.index("cold_no_fallback")
        return np.array(SHORTFALL, dtype=object)[reason]
