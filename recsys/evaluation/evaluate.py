"""TopK and truth -> Evaluation: which users count, what is relevant, one number a user and metric."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.evaluation.judge import Judged, judge
from recsys.evaluation.metrics import Metric, parse_all
from recsys.rank import topk_from_table
from recsys.schema import ITEM, TOPK, USER, VALUE, Table
from recsys.types import SHORTFALL, Evaluation, IdMap, Interactions, Split, TopK

TRUTH = Table("truth", (USER, ITEM), (VALUE,))
DEFAULT_METRICS = ("ndcg@10", "recall@10", "precision@10", "map@10", "mrr@10", "hit_rate@10")


class Judging(BaseModel):
    """What is measured, and what counts as relevant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[str, ...] = Field(DEFAULT_METRICS, min_length=1, description="the first is the primary one")
    relevant: float | None = Field(
        None, description="a test pair is relevant when its value is at least this; unset: value > 0"
    )
    missing_users: Literal["zero", "skip"] = Field(
        "zero", description="users with something relevant but no list: count them as 0, or leave them out"
    )
    baseline: str = Field("popular", description="the model that differences are taken from")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of an interval")

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(map(str, parse_all(metrics)))
        except Exception as error:
            raise ValueError(str(error)) from error


def evaluate(
    topk: TopK, split: Split, judging: Judging | None = None, *, name: str, exclude_seen: bool = True
) -> Evaluation:
    """Judge the lists of ``split.test`` users.

    Args:
        topk: one list a row of ``split.test.users``, in that order; items are rows of ``split.train.items``.
        exclude_seen: what the history holds could not be recommended, so it leaves the truth, and is counted.

    Truth: test pairs with value ≥ ``judging.relevant`` (unset: > 0), never one whose value is 0 or negative. Test items
    that are no candidates stay relevant: nobody could recommend them, and every denominator has them.

    Returns:
        per_user: user_id, n_relevant, n_history, shortfall, then the metrics; a row for every tested user.
    """
    judging = judging or Judging()
    histories = split.histories()
    relevant, removed = _truth(split, judging.relevant, histories if exclude_seen else None)
    judged = judge(topk, relevant)
    columns = {
        "n_relevant": judged.n_relevant,
        "n_history": np.diff(histories.indptr).astype(np.int64),
        "shortfall": np.array(SHORTFALL, dtype=object)[topk.shortfall],
    }
    counts = {"seen_pairs_removed": removed, "relevant_outside_candidates": _outside(relevant, len(split.train.items))}
    return build(name, split.test.users.names(topk.users), columns, judged, judging, counts)


def evaluate_tables(
    recs: pd.DataFrame, truth: pd.DataFrame, judging: Judging | None = None, *, name: str = "recs"
) -> Evaluation:
    """Judge a topk table from any system against a table of what users chose (user_id, item_id[, value]).

    Every user of ``truth`` with something relevant counts; lists of other users are counted and left out.

    Raises:
        InputError: a missing column, ids of two kinds, an item twice in a list or in a user's truth, NaN scores.
    """
    judging = judging or Judging()
    TOPK.require(recs.columns, name)
    TRUTH.require(truth.columns)
    if "score" in recs and recs["score"].isna().any():
        raise InputError(f"{name}: {int(recs['score'].isna().sum()):,} rows have no score: fill or drop the column")
    if repeated := int(truth.duplicated([USER, ITEM]).sum()):
        raise InputError(f"truth: {repeated:,} rows repeat a (user, item) pair: keep one of each")
    users, items = IdMap.of(truth[USER]), IdMap.of(truth[ITEM], recs[ITEM])
    known = users.rows(recs[USER]) >= 0
    topk = topk_from_table(recs[known], users, items)
    value = truth[VALUE].to_numpy(dtype=np.float64) if VALUE in truth else np.ones(len(truth))
    keep = _is_relevant(value, judging.relevant)
    cell = (users.rows(truth[USER])[keep], items.rows(truth[ITEM])[keep])
    judged = judge(topk, csr_array((value[keep], cell), shape=(len(users), len(items))))
    counts = {"listed_without_truth": int(recs[USER][~known].nunique())}
    return build(name, users.names(topk.users), {"n_relevant": judged.n_relevant}, judged, judging, counts)


def build(
    name: str,
    users: np.ndarray,
    columns: dict[str, np.ndarray],
    judged: Judged,
    judging: Judging,
    counts: dict[str, int],
) -> Evaluation:
    """Return the Evaluation of judged lists; ``columns`` stand before the metrics."""
    metrics = parse_all(judging.metrics)
    values = score(judged, metrics, judging.missing_users)
    per_user = pd.DataFrame({USER: users, **columns, **values})
    about = {
        "definitions": {str(metric): metric.definition for metric in metrics},
        "counts": count(judged, judging.missing_users) | counts,
    }
    return Evaluation(name, per_user, about)


def score(judged: Judged, metrics: list[Metric], missing_users: str) -> dict[str, np.ndarray]:
    """Return metric name -> float64[m]; both engines call this."""
    skip = (judged.length == 0) & (missing_users == "skip")
    return {str(metric): np.where(skip, np.nan, metric(judged)) for metric in metrics}


def count(judged: Judged, missing_users: str) -> dict[str, int]:
    """Return how many users were evaluated, had nothing relevant, no list, or a list shorter than the longest."""
    defined = ~judged.undefined
    absent = defined & (judged.length == 0)
    return {
        "evaluated": int((defined & ~absent).sum() if missing_users == "skip" else defined.sum()),
        "undefined": int((~defined).sum()),
        "without_list": int(absent.sum()),
        "short": int((defined & (judged.length > 0) & (judged.length < judged.k)).sum()),
    }


def _is_relevant(value: np.ndarray, least: float | None) -> np.ndarray:
    return (value > 0) if least is None else (value > 0) & (value >= least)


def _truth(split: Split, least: float | None, seen: csr_array | None) -> tuple[csr_array, int]:
    """Return csr (tested users, candidates + other test items) of relevant values, and the seen pairs removed."""
    test, candidates = split.test, split.train.items
    column = candidates.rows(test.items.ids)
    others = column < 0
    column[others] = len(candidates) + np.arange(others.sum())
    relevant = _is_relevant(test.value, least)
    keep = relevant & ~_stored(seen, test, column) if seen is not None else relevant
    shape = (len(test.users), len(candidates) + int(others.sum()))
    cell = (test.user[keep], column[test.item[keep]])
    return csr_array((test.value[keep].astype(np.float64), cell), shape=shape), int(relevant.sum() - keep.sum())


def _stored(matrix: csr_array, test: Interactions, column: np.ndarray) -> np.ndarray:
    """Return bool[n]: which test pairs ``matrix`` (rows = test users) stores."""
    width = matrix.shape[1] + len(column)  # wide enough for the columns of other test items too
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    known = row * width + matrix.indices
    return np.isin(test.user.astype(np.int64) * width + column[test.item], known)


def _outside(relevant: csr_array, candidates: int) -> int:
    return int((relevant.indices >= candidates).sum())
