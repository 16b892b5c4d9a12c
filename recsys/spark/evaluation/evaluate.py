"""Compute metrics on the executors: the functions of ``recsys.evaluation`` are called on batches of
users.

The columns ``user`` and ``item`` of a frame may have ids of any kind, or rows. The driver gets only
sums over users.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.data.hashing import id_bits
from recsys.errors import InputError
from recsys.evaluation.evaluate import compute_metrics, no_shared_ids, sampled_definitions, sampled_name
from recsys.evaluation.groups import HISTORY, Groups, history_codes
from recsys.evaluation.judging.judge import Lists, RelevantItems, judge_lists
from recsys.evaluation.judging.metrics import Metric, parse_all
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.summary import Facts, Layout, document
from recsys.evaluation.testing.significance import Sums
from recsys.evaluation.topk_tables import require_finite_values
from recsys.schema import ITEM, RANK, SCORE, USER, VALUE
from recsys.spark.evaluation.truth import PROPENSITY, Truth
from recsys.spark.tasks import prepare_task

Measure = Callable[..., dict[str, np.ndarray]]
"""A function that :func:`recsys.spark.evaluation.beyond.columns_of` returns."""

NAME = "recs"
"""The name in metrics.json of lists that another system made."""

FEW_TASKS = 16
"""Largest number of tasks that send their sums directly to the driver."""

COUNTED = ("n_relevant", "n_history", "n_listed", "n_tied")
"""Counts per user: relevant items, entries of the history, listed items, and listed items whose
score another item of the list has too."""


def per_user(
    lists: DataFrame, truth: Truth, k: int, *, further: tuple[Measure, tuple[str, ...]] | None = None
) -> DataFrame:
    """Return the metrics of each tested user, as a DataFrame with one row per user.

    The columns are user (and user_id, if the truth has it), the counts :data:`COUNTED`, and one column
    per metric, NaN where it is undefined.

    Args:
        lists: columns (user, item, rank, score). Users who are not tested are ignored.
        truth: the relevant items and the histories.
        k: the length that lists should have.
        further: what ``beyond.columns_of`` returns, and the names of its columns. Items must then
            be rows.

    Raises:
        ConfigError: a metric is debiased, and ``truth`` has no propensities.
    """
    truth.require_propensity()
    settings = truth.settings
    metrics = [str(metric) for metric in _parse_metrics(settings)] + list(further[1] if further else ())
    ranked = F.array_sort(F.collect_list(F.struct(RANK, "item", SCORE)))
    listed = lists.groupBy("user").agg(ranked["item"].alias("listed"), ranked[SCORE].alias("scores"))
    judged_users = truth.add_relevant().join(listed, "user", "left")
    keys = [name for name in ("user", USER) if name in judged_users.columns]
    schema = ", ".join(
        [f"{key} {judged_users.schema[key].dataType.simpleString()}" for key in keys]
        + [f"{name} bigint" for name in COUNTED]
        + [f"`{metric}` double" for metric in metrics]
    )
    columns = judged_users.select(*keys, "n_history", "history", "listed", "scores", "relevant", "gain", PROPENSITY)
    return columns.mapInArrow(_judge_batches(settings, k, keys, further[0] if further else None), schema)


def _parse_metrics(settings: EvaluationSettings) -> list[Metric]:
    return parse_all(settings.metrics, complete=settings.all_candidates)


def shortfall(n_listed: Column, k: int, candidates: int) -> Column:
    """Return a column with the reason why each list is shorter than k, for a run without rules.

    The reason is a name of ``types.SHORTFALL``: "none", "cold_no_fallback", "small_catalogue" or
    "all_seen". With rules, ``recsys.spark.ranking.business_rules.shortfall_reasons`` gives it.

    Args:
        n_listed: the column with the length of each list.
        k: the length of a full list.
        candidates: the number of candidates.
    """
    return (
        F.when(n_listed >= k, "none")
        .when(n_listed == 0, "cold_no_fallback")
        .when(F.lit(candidates < k), "small_catalogue")
        .otherwise("all_seen")
    )


def _judge_batches(
    settings: EvaluationSettings, k: int, keys: list[str], measure: Measure | None
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task()
        metrics = _parse_metrics(settings)
        for batch in batches:
            if not batch.num_rows:
                continue
            listed, listed_offsets = _lists(batch.column("listed"))
            scores = _lists(batch.column("scores"))[0]
            relevant, offsets = _lists(batch.column("relevant"))
            gain = _lists(batch.column("gain"))[0].astype(np.float64)
            propensity = _lists(batch.column(PROPENSITY))[0]
            judged = judge_lists(
                Lists(listed, listed_offsets, scores),
                RelevantItems(relevant, offsets, gain, propensity if len(propensity) == len(relevant) else None),
                k=k,
                ties=settings.ties,
            )
            judged = replace(judged, complete=settings.all_candidates)
            n_history = batch.column("n_history").to_numpy(zero_copy_only=False)
            counts = [judged.n_relevant, n_history, judged.length, judged.n_tied]
            values = compute_metrics(judged, metrics, settings.missing_users)
            if measure:
                values |= measure(listed, listed_offsets, scores, (relevant, offsets), gain, batch.column("history"))
            arrays = [*map(batch.column, keys), *(pa.array(column, pa.int64()) for column in counts)]
            arrays += [pa.array(value, pa.float64()) for value in values.values()]
            yield pa.RecordBatch.from_arrays(arrays, names=[*keys, *COUNTED, *values])

    return run


def _lists(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of all lists of a column, and where each list begins, int[m + 1].

    A missing list is empty.
    """
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def evaluate_tables(
    recs: DataFrame,
    test: DataFrame,
    settings: EvaluationSettings,
    *,
    history: DataFrame | None = None,
    train: DataFrame | None = None,
    keep: Callable[[DataFrame], None] | None = None,
) -> tuple[DataFrame, dict[str, Any]]:
    """Evaluate the lists of any system against what users chose.

    The result is a pair. The first is a DataFrame with one row per user of ``test``: ``user_id``,
    the counts :data:`COUNTED`, and the metrics, NaN where they are undefined. It is computed again
    each time it is read. The second is the content of metrics.json, a dict.

    Args:
        recs: columns (user_id, item_id, rank, and optionally score). Without scores, the items are
            ordered by rank. Users who are not in ``test`` are ignored.
        test: columns (user_id, item_id, value), what users chose. Rows whose value is not a finite
            number are left out and counted.
        settings: the metrics and how to compute them. ``sampled`` is the number of sampled
            candidates, if the lists rank only those: the names of the metrics then say so, as those
            of ``recsys evaluate --sampled``.
        history: columns (user_id, item_id, value). A pair of it is removed from the truth;
            metrics.json has the number of removed pairs as ``seen_pairs_removed``.
        train: columns (user_id, item_id, value), for the item popularity that debiased metrics
            need.
        keep: a function that is called once with the frame while it is in memory, for example to
            write it.

    Raises:
        InputError: a user has an item or a rank twice in the lists, or an item twice in the truth;
            a rank is not a whole number from 1; the column ``score`` has an empty value or NaN;
            there are no lists; or no row of ``test`` has a finite value.
        ConfigError: a metric is debiased, and there is no ``train``.
    """
    test, n_refused = drop_refused_values(test)
    lists, chosen = (frame.withColumnsRenamed({USER: "user", ITEM: "item"}) for frame in (recs, test))
    past = chosen.limit(0) if history is None else history.withColumnsRenamed({USER: "user", ITEM: "item"})
    k = require_lists(lists, "the lists")
    lists = lists if SCORE in lists.columns else lists.withColumn(SCORE, -F.col(RANK).cast("double"))
    require_unique(lists, "item", "the lists")
    require_unique(lists, RANK, "the lists")
    require_unique(chosen, "item", "the truth")
    truth = Truth.from_pairs(chosen, past, settings, exclude_seen=history is not None)
    if train is not None:
        truth = truth.with_propensity(train.withColumnsRenamed({USER: "user", ITEM: "item"}))
    judged = per_user(lists, truth, k).withColumnRenamed("user", USER)
    definitions = {str(metric): metric.definition for metric in _parse_metrics(settings)}
    if settings.sampled is not None:
        names = {metric: sampled_name(metric, settings.sampled) for metric in definitions}
        judged = judged.withColumnsRenamed(names)
        definitions = sampled_definitions(definitions, settings.sampled)
    judged = judged.cache()
    try:
        result = _result_of(judged, truth, definitions, k)
        result["about"]["counts"][NAME]["refused_truth"] = n_refused
        if not any(cell["mean"] for cell in result["models"][NAME].values()):
            result["about"]["warnings"] = _unshared_ids(lists, chosen)
        if keep is not None:
            keep(judged)
    finally:
        # Spark would answer a later question about these files from the cache, whatever they hold by then.
        judged.unpersist()
    return judged, result


def require_lists(lists: DataFrame, label: str) -> int:
    """Check the ranks and scores of lists, and return the largest rank.

    Args:
        lists: the column ``rank``, and optionally ``score``.
        label: the name of the table, for error messages.

    Raises:
        InputError: there are no rows, a rank is not a whole number from 1, or a score is missing.
    """
    score = F.col(SCORE) if SCORE in lists.columns else F.lit(0.0)
    rank = F.col(RANK)
    is_bad = rank.isNull() | (rank < 1) | (rank != F.floor(rank))
    row = lists.agg(
        F.max(RANK).alias("longest"),
        F.count_if(is_bad).alias("bad_ranks"),
        F.count_if(score.isNull() | F.isnan(score)).alias("missing_scores"),
    ).collect()[0]
    if row["bad_ranks"]:
        raise InputError(f"{label}: ranks must be whole numbers from 1, best first")
    if row["missing_scores"]:
        raise InputError(f"{label}: {row['missing_scores']:,} rows have no score: fill or drop the column")
    if row["longest"] is None:
        raise InputError(f"{label}: no rows.")
    return int(row["longest"])


def require_unique(table: DataFrame, column: str, label: str) -> None:
    """Raise InputError if a user has two rows with the same value of ``column``.

    Args:
        table: the column ``user``, and ``column``.
        column: for example "item" or "rank".
        label: the name of the table, for the message.
    """
    repeated = table.groupBy("user", column).count().where("count > 1").first()
    if repeated is not None:
        raise InputError(
            f"{label}: {column} {repeated[column]!r} of user {repeated['user']!r} is there {repeated['count']} times:"
            " keep one row of each."
        )


def _result_of(judged: DataFrame, truth: Truth, definitions: dict[str, str], k: int) -> dict[str, Any]:
    """Return the content of metrics.json, computed from one row per user.

    Args:
        definitions: the names of the metrics in ``judged``, with their definitions.
        k: the length that lists should have if no metric has a cut.
    """
    settings = truth.settings
    layout = Layout((NAME,), tuple(definitions), settings.baseline)
    user_sums = sums({NAME: judged}, layout, resamples=settings.resamples, seed=0)
    expected_length = max([metric.k for metric in _parse_metrics(settings) if metric.k], default=k)
    about = {NAME: counts(judged, settings, expected_length) | truth.counts}
    result = document(layout, user_sums, Facts("spark", definitions, about))
    result["about"]["warnings"] = []
    return result


def drop_refused_values(truth: DataFrame) -> tuple[DataFrame, int]:
    """Return the rows whose value is a finite number, and the number of all other rows.

    A table without a column ``value`` is returned unchanged, with the number 0.

    Args:
        truth: what users chose, or their ratings.

    Raises:
        InputError: no row has a finite value.
    """
    if VALUE not in truth.columns:
        return truth, 0
    value = F.col(VALUE).cast("double")
    is_finite = F.coalesce(~F.isnan(value) & (F.abs(value) < F.lit(math.inf)), F.lit(False))
    refused = truth.where(~is_finite).count()
    if refused:
        require_finite_values(truth.where(is_finite).limit(1).count())
    return (truth.where(is_finite) if refused else truth), refused


def _unshared_ids(lists: DataFrame, chosen: DataFrame) -> list[str]:
    """Return a warning for each kind of id (user, item) that lists and truth do not share."""
    sentences = []
    for kind in ("user", "item"):
        if lists.join(chosen, kind, "left_semi").first() is None:
            listed, of_truth = (frame.select(kind).first() for frame in (lists, chosen))
            if listed is not None and of_truth is not None:
                sentences.append(no_shared_ids(kind, listed[0], of_truth[0]))
    return sentences


def counts(judged: DataFrame, settings: EvaluationSettings, k: int) -> dict[str, int]:
    """Return the counts of users and of listed items, as a dict: name -> count.

    The names are: ``evaluated``; ``undefined`` (users without relevant items); ``without_list``;
    ``short`` (a list of fewer than k items); ``listed_places`` (all listed items); and
    ``tied_places`` (listed items with a tied score). ``evaluated``, ``without_list`` and ``short``
    count only users with relevant items. The result is equal to that of the local engine.

    Args:
        judged: the result of :func:`per_user`.
        settings: says whether users without a list are evaluated (``missing_users``).
        k: the length of a full list.
    """
    return counts_of_sums(judged.agg(*count_columns(settings, k)).collect()[0].asDict())


def counts_of_sums(values: dict[str, int | None]) -> dict[str, int]:
    """Convert the values of :func:`count_columns` to the dict that :func:`counts` returns.

    Args:
        values: name -> sum. Spark gives None if there are no users, which becomes 0.
    """
    return {name: int(value or 0) for name, value in values.items()}


def count_columns(settings: EvaluationSettings, k: int) -> list[Column]:
    """Return the aggregates over the rows of :func:`per_user` that give the values of :func:`counts`.

    The arguments are those of :func:`counts`.
    """
    defined, listed = F.col("n_relevant") > 0, F.col("n_listed")
    evaluated = defined & (listed > 0) if settings.missing_users == "skip" else defined
    conditions = {
        "evaluated": evaluated,
        "undefined": ~defined,
        "without_list": defined & (listed == 0),
        "short": defined & (listed > 0) & (listed < k),
    }
    sums = {name: condition.cast("long") for name, condition in conditions.items()}
    sums |= {"listed_places": listed, "tied_places": F.col("n_tied")}
    return [F.sum(column).alias(name) for name, column in sums.items()]


def sums(
    judged: dict[str, DataFrame], layout: Layout, *, resamples: int, seed: int, membership: DataFrame | None = None
) -> Sums:
    """Return the sums over users from which means and intervals in metrics.json are computed.

    Each task adds up its users. The sums of many tasks are first added in groups, so that the
    driver never has many in memory.

    Args:
        judged: model -> the result of :func:`per_user` with the column ``user_id``. All models have
            the same users.
        layout: the models, metrics and groups of metrics.json. The first grouping of users, if there
            is any, is :data:`HISTORY`.
        membership: columns (key: user id as text, inside: array of bool), the groups of each user
            for the groupings after :data:`HISTORY`. A user without a row is in the last group,
            "unknown".
        resamples: the number of bootstrap resamples.
        seed: the seed of the resamples.
    """
    joined: Any = None
    for number, frame in enumerate(judged.values()):
        keep = [F.col(f"`{column}`").alias(f"m{number}_{j}") for j, column in enumerate(layout.columns)]
        part = frame.select(USER, *(["n_history"] if number == 0 and layout.groupings else []), *keep)
        joined = part if joined is None else joined.join(part, USER)
    if membership is not None:
        joined = joined.join(membership, F.col(USER).cast("string") == F.col("key"), "left").drop("key")
    parts = joined.mapInPandas(_sum_batches(layout, resamples, seed), "sums binary")
    tasks = parts.rdd.getNumPartitions()
    if tasks > FEW_TASKS:
        parts = parts.repartition(math.isqrt(tasks)).mapInPandas(_add_sums(resamples), "sums binary")
    total = next(_add_sums(resamples)(iter([parts.toPandas()])))
    return Sums.from_bytes(total["sums"][0], resamples)


def _sum_batches(layout: Layout, resamples: int, seed: int) -> Any:
    unknown = [j == len(g.levels) - 1 for g in layout.groupings[1:] for j in range(len(g.levels))]

    def run(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        total = None
        for batch in batches:
            membership = [np.empty((len(batch), 0), dtype=bool)]
            if layout.groupings:
                membership.append(Groups.from_codes(HISTORY, history_codes(batch["n_history"].to_numpy())).membership)
            if "inside" in batch:
                levels = [unknown if row is None else list(row) for row in batch["inside"]]
                membership.append(np.array(levels, dtype=bool))
            values = batch.drop(columns=[USER, "n_history", "inside"], errors="ignore").to_numpy(dtype=np.float64)
            part = layout.sums(values, np.hstack(membership), id_bits(batch[USER]), resamples=resamples, seed=seed)
            total = part if total is None else total + part
        if total is not None:
            yield pd.DataFrame({"sums": [total.to_bytes()]})

    return run


def _add_sums(resamples: int) -> Any:
    def run(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        total = None
        for part in (Sums.from_bytes(bytes(data), resamples) for batch in batches for data in batch["sums"]):
            total = part if total is None else total + part
        if total is not None:
            yield pd.DataFrame({"sums": [total.to_bytes()]})

    return run
