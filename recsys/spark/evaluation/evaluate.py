"""Judging on the executors: the metric functions of ``recsys.evaluation``, called on batches of users.

A frame's ``user`` and ``item`` may hold ids of any kind, or rows. What reaches the driver are sums over users.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.data.hashing import id_bits
from recsys.errors import InputError
from recsys.evaluation.evaluate import score
from recsys.evaluation.groups import HISTORY, Groups, history_codes
from recsys.evaluation.judging.judge import judge_lists
from recsys.evaluation.judging.metrics import parse_all
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.summary import Facts, Layout, document
from recsys.evaluation.testing.significance import Sums
from recsys.schema import ITEM, RANK, SCORE, USER, VALUE
from recsys.spark.evaluation.truth import PROPENSITY, Truth

Measure = Callable[..., dict[str, np.ndarray]]

FEW_TASKS = 16
"""Up to so many tasks send their sums straight to the driver."""

COUNTED = ("n_relevant", "n_history", "n_listed", "n_tied")


def per_user(
    lists: DataFrame, truth: Truth, k: int, *, further: tuple[Measure, tuple[str, ...]] | None = None
) -> DataFrame:
    """Return (user, n_relevant, n_history, n_listed, n_tied, metrics…), one row per tested user, NaN = undefined.

    Args:
        lists: (user, item, rank, score); users who are not tested do not matter.
        truth: what the lists are judged against.
        k: places that lists may have.
        further: what ``beyond.columns_of`` returns, and the names of its columns; items must be rows then.

    Raises:
        ConfigError: a metric is debiased, and ``truth`` has no propensities.
    """
    truth.require_propensity()
    settings, relevant = truth.settings, truth.relevant
    metrics = [str(metric) for metric in parse_all(settings.metrics)] + list(further[1] if further else ())
    ranked = F.array_sort(F.collect_list(F.struct(RANK, "item", SCORE)))
    listed = lists.groupBy("user").agg(ranked["item"].alias("listed"), ranked[SCORE].alias("scores"))
    wanted = relevant.groupBy("user").agg(
        F.collect_list("item").alias("relevant"),
        F.collect_list(F.col(VALUE).cast("double")).alias("gain"),
        F.collect_list(F.col(PROPENSITY) if PROPENSITY in relevant.columns else F.lit(None)).alias(PROPENSITY),
    )
    both = truth.tested.join(wanted, "user", "left").join(listed, "user", "left")
    schema = f"user {both.schema['user'].dataType.simpleString()}, " + ", ".join(
        [f"{name} bigint" for name in COUNTED] + [f"`{metric}` double" for metric in metrics]
    )
    columns = both.select("user", "n_history", "history", "listed", "scores", "relevant", "gain", PROPENSITY)
    return columns.mapInArrow(_Judge(settings, k, further[0] if further else None), schema)


def shortfall(n_listed: Column, k: int, candidates: int) -> Column:
    """Return why each list is shorter than k, a name of ``types.SHORTFALL``, for lists that no rules shortened.

    Under rules ``recsys.spark.ranking.business_rules.why_short`` says it.
    """
    return (
        F.when(n_listed >= k, "none")
        .when(n_listed == 0, "cold_no_fallback")
        .when(F.lit(candidates < k), "small_catalogue")
        .otherwise("all_seen")
    )


def _Judge(
    judging: EvaluationSettings, k: int, measure: Measure | None
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import numba

        numba.set_num_threads(1)
        metrics = parse_all(judging.metrics)
        for batch in batches:
            if not batch.num_rows:
                continue
            listed, listed_offsets = _lists(batch.column("listed"))
            scores = _lists(batch.column("scores"))[0]
            relevant, offsets = _lists(batch.column("relevant"))
            gain = _lists(batch.column("gain"))[0].astype(np.float64)
            chance = _lists(batch.column(PROPENSITY))[0]
            judged = judge_lists(
                listed,
                listed_offsets,
                relevant,
                offsets,
                gain,
                k=k,
                scores=scores,
                ties=judging.ties,
                propensity=chance if len(chance) == len(relevant) else None,
            )
            n_history = batch.column("n_history").to_numpy(zero_copy_only=False)
            counts = [judged.n_relevant, n_history, judged.length, judged.n_tied]
            values = score(judged, metrics, judging.missing_users)
            if measure:
                values |= measure(listed, listed_offsets, scores, (relevant, offsets), gain, batch.column("history"))
            arrays = [batch.column("user"), *(pa.array(column, pa.int64()) for column in counts)]
            arrays += [pa.array(value, pa.float64()) for value in values.values()]
            yield pa.RecordBatch.from_arrays(arrays, names=["user", *COUNTED, *values])

    return run


def _lists(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return (values of all lists, int[m + 1] offsets); a missing list is empty."""
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def evaluate_tables(
    recs: DataFrame,
    test: DataFrame,
    judging: EvaluationSettings,
    *,
    history: DataFrame | None = None,
    train: DataFrame | None = None,
    name: str = "recs",
) -> tuple[DataFrame, dict[str, Any]]:
    """Judge a table of lists from any system: return (one row a user, with ``user_id``; metrics.json).

    Args:
        recs: (user_id, item_id, rank, and perhaps score).
        test: (user_id, item_id, value): what users chose.
        history: (user_id, item_id, value): such pairs leave the truth, and are counted.
        train: (user_id, item_id, value): item popularity, which debiased metrics need.

    Raises:
        InputError: a user's list holds an item twice.
        ConfigError: a debiased metric, and no ``train``.
    """
    lists, chosen = (frame.withColumnsRenamed({USER: "user", ITEM: "item"}) for frame in (recs, test))
    before = chosen.limit(0) if history is None else history.withColumnsRenamed({USER: "user", ITEM: "item"})
    lists = lists if SCORE in lists.columns else lists.withColumn(SCORE, -F.col(RANK).cast("double"))
    twice = lists.groupBy("user", "item").count().where("count > 1").first()
    if twice is not None:
        raise InputError(f"the lists hold item {twice['item']!r} of user {twice['user']!r} {twice['count']} times.")
    longest = lists.agg(F.max(RANK)).first()
    k = int(longest[0] or 1) if longest else 1
    truth = Truth.of_pairs(chosen, before, judging, exclude_seen=history is not None)
    if train is not None:
        truth = truth.with_propensity(train.withColumnsRenamed({USER: "user", ITEM: "item"}))
    judged = per_user(lists, truth, k).withColumnRenamed("user", USER).cache()
    metrics = parse_all(judging.metrics)
    layout = Layout((name,), tuple(map(str, metrics)), judging.baseline)
    found = sums({name: judged}, layout, resamples=judging.resamples, seed=0)
    about = {name: counts(judged, judging, k) | truth.counts}
    definitions = {str(metric): metric.definition for metric in metrics}
    return judged, document(layout, found, Facts("spark", definitions, about))


def counts(judged: DataFrame, judging: EvaluationSettings, k: int) -> dict[str, int]:
    """Return the counts of ``evaluation.evaluate.build``, from a frame of :func:`per_user`."""
    defined, listed = F.col("n_relevant") > 0, F.col("n_listed")
    evaluated = defined & (listed > 0) if judging.missing_users == "skip" else defined
    wanted = {
        "evaluated": evaluated,
        "undefined": ~defined,
        "without_list": defined & (listed == 0),
        "short": defined & (listed > 0) & (listed < k),
    }
    sums = {name: condition.cast("long") for name, condition in wanted.items()}
    sums |= {"listed_places": listed, "tied_places": F.col("n_tied")}
    row = judged.agg(*(F.sum(column).alias(name) for name, column in sums.items())).first()
    return {name: int(row[name] or 0) for name in sums}


def sums(
    judged: dict[str, DataFrame], layout: Layout, *, resamples: int, seed: int, inside: DataFrame | None = None
) -> Sums:
    """Return the sums of which ``layout`` makes metrics.json.

    Each task adds up its users; tasks are added in two steps, so that the driver never holds many.

    Args:
        judged: model -> its frame of :func:`per_user` with ``user_id``, over the same users.
        inside: (key: user id as text, inside: array of bool) for the groupings after :data:`HISTORY`; users who are
            not there are in the last level, unknown.
    """
    wide: Any = None
    for place, frame in enumerate(judged.values()):
        keep = [F.col(f"`{column}`").alias(f"m{place}_{j}") for j, column in enumerate(layout.columns)]
        part = frame.select(USER, *(["n_history"] if place == 0 else []), *keep)
        wide = part if wide is None else wide.join(part, USER)
    if inside is not None:
        wide = wide.join(inside, F.col(USER).cast("string") == F.col("key"), "left").drop("key")
    parts = wide.mapInPandas(_Sums(layout, resamples, seed), "sums binary")
    tasks = parts.rdd.getNumPartitions()
    if tasks > FEW_TASKS:
        parts = parts.repartition(math.isqrt(tasks)).mapInPandas(_added(resamples), "sums binary")
    total = next(_added(resamples)(iter([parts.toPandas()])))
    return Sums.from_bytes(total["sums"][0], resamples)


def _Sums(layout: Layout, resamples: int, seed: int) -> Any:
    unknown = [j == len(g.levels) - 1 for g in layout.groupings[1:] for j in range(len(g.levels))]

    def run(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        total = None
        for batch in batches:
            inside = [Groups.of(HISTORY, history_codes(batch["n_history"].to_numpy())).inside]
            if "inside" in batch:
                inside.append(np.array([unknown if own is None else list(own) for own in batch["inside"]], dtype=bool))
            values = batch.drop(columns=[USER, "n_history", "inside"], errors="ignore").to_numpy(dtype=np.float64)
            part = layout.sums(values, np.hstack(inside), id_bits(batch[USER]), resamples=resamples, seed=seed)
            total = part if total is None else total + part
        if total is not None:
            yield pd.DataFrame({"sums": [total.to_bytes()]})

    return run


def _added(resamples: int) -> Any:
    def run(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        total = None
        for part in (Sums.from_bytes(bytes(data), resamples) for batch in batches for data in batch["sums"]):
            total = part if total is None else total + part
        if total is not None:
            yield pd.DataFrame({"sums": [total.to_bytes()]})

    return run
