"""TopK and truth -> Evaluation: which users count, what is relevant, one number a user and metric."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.sparse import csr_array

from recsys import kernels
from recsys.errors import InputError, RecsysError
from recsys.evaluation.judging import conventions
from recsys.evaluation.judging.conventions import Convention
from recsys.evaluation.judging.judge import Judged, Ties, judge, judge_codes
from recsys.evaluation.judging.metrics import Metric, parse_all
from recsys.evaluation.topk_tables import LISTS, TRUTH, codes, lists
from recsys.schema import ITEM, USER, VALUE, unify_ids
from recsys.types import SHORTFALL, Evaluation, Interactions, Split, TopK

CAUTION = (
    " Caution: ranked among {} sampled candidates only. Such numbers are biased, cannot be compared with full ranking,"
    " and can order models wrongly (Krichene and Rendle, KDD 2020)."
)
DEFAULT_METRICS = ("ndcg@10", "recall@10", "precision@10", "map@10", "mrr@10", "hit_rate@10")


class EvaluationSettings(BaseModel):
    """What is measured, and what counts as relevant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[str, ...] = Field(DEFAULT_METRICS, min_length=1, description="the first is the primary one")
    relevant: float | None = Field(
        None, description="a test pair is relevant when its value is at least this; unset: value > 0"
    )
    missing_users: Literal["zero", "skip"] = Field(
        "zero", description="users with something relevant but no list: count them as 0, or leave them out"
    )
    ties: Ties = Field(
        "stable", description="equal scores: the order as it is, the average over all orders, the worst, or the best"
    )
    baseline: str = Field("popular", description="the model that differences are taken from")
    segments: tuple[str, ...] = Field(
        (), description="columns of the users or items table: results are shown for each of their groups too"
    )
    attribute: str | None = Field(
        None, description="column of the items table for diversity and calibration; unset: the first that holds lists"
    )
    cold_start: tuple[int, ...] = Field(
        (0, 1, 2, 5, 10),
        description="numbers of events that histories are cut to, for the cold-start curve; local runs only; none: no"
        " curve",
    )
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of an interval")

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(map(str, parse_all(metrics)))
        except RecsysError as error:
            raise ValueError(str(error)) from error


def evaluate(
    topk: TopK, split: Split, judging: EvaluationSettings | None = None, *, name: str, exclude_seen: bool = True
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
    judging = judging or EvaluationSettings()
    histories = split.histories()
    relevant, removed = truth_of(split, judging.relevant, histories if exclude_seen else None)
    propensity = train_propensity(split, relevant.shape[1])
    judged = judge(topk, relevant, ties=judging.ties, propensity=propensity)
    columns = {
        "n_relevant": judged.n_relevant,
        "n_history": np.diff(histories.indptr).astype(np.int64),
        "shortfall": np.array(SHORTFALL, dtype=object)[topk.shortfall],
    }
    counts = {"seen_pairs_removed": removed, "relevant_outside_candidates": outside(relevant, len(split.train.items))}
    return build(name, split.test.users.ids_of(topk.users), columns, judged, judging, counts)


def evaluate_tables(
    recs: pd.DataFrame,
    truth: pd.DataFrame,
    judging: EvaluationSettings | None = None,
    *,
    name: str = "recs",
    convention: str | None = None,
    propensity: pd.Series | None = None,
    sampled: int | None = None,
) -> Evaluation:
    """Judge a topk table from any system against a table of what users chose (user_id, item_id[, value]).

    Every user of ``truth`` with something relevant counts; lists of other users are counted and left out.

    Args:
        recs: user_id, item_id, rank; or a score instead of the rank, or beside it for ``judging.ties``. Categorical
            ids are quickest.
        convention: a name of :data:`~recsys.evaluation.judging.conventions.CONVENTIONS`: the definitions of other
            libraries, which then settle ties and missing users too.
        propensity: item id -> chance in (0, 1] that its relevance is observed, for metrics with ``ips``; see
            :func:`popularity`.
        sampled: the lists rank relevant items among this many sampled others only: the names will say so.

    Returns:
        per_user: user_id, n_relevant, then the metrics; one row for every user of ``truth``, sorted by id.

    Raises:
        InputError: a missing column, ids of two kinds, an item twice in a list or in a user's truth, NaN scores.
        ConfigError: a metric that the convention, or a table without all scores, cannot give.
    """
    judging = judging or EvaluationSettings()
    theirs = conventions.named(convention) if convention else None
    if theirs:
        judging = judging.model_copy(update={"ties": theirs.ties, "missing_users": theirs.missing_users})
    LISTS.require(recs.columns, name)
    TRUTH.require(truth.columns)
    users, (chooser, reader) = codes(truth[USER], recs[USER])
    items, (chosen, listed) = codes(truth[ITEM], recs[ITEM])
    m = int(chooser.max(initial=-1)) + 1  # the users of the truth come first
    order, bounds = kernels.group_rows(chooser, m)
    if repeated := int(kernels.count_repeats(chosen[order], bounds, len(items)).sum()):
        raise InputError(f"truth: {repeated:,} rows repeat a (user, item) pair: keep one of each")
    value = truth[VALUE].to_numpy(dtype=np.float64) if VALUE in truth else np.ones(len(truth))
    kept = order[_is_relevant(value, judging.relevant)[order]]
    ranked = lists(recs, reader, listed, m, where=name, names=items if theirs and theirs.by_score else None)
    judged = judge_codes(
        ranked.item,
        ranked.offsets,
        chosen[kept],
        np.append(0, np.cumsum(np.bincount(chooser[kept], minlength=m))),
        value[kept],
        width=len(items),
        k=ranked.depth,
        scores=ranked.score,
        ties=judging.ties,
        propensity=None if propensity is None else _aligned(propensity, items)[chosen[kept]],
    )
    counts = {"listed_without_truth": len(users) - m}
    found = build(name, users[:m], {"n_relevant": judged.n_relevant}, judged, judging, counts, theirs)
    found = Evaluation(name, found.per_user.sort_values(USER, ignore_index=True), found.about)
    return as_sampled(found, sampled) if sampled else found


def as_sampled(evaluation: Evaluation, n: int) -> Evaluation:
    """Return the evaluation with ``[sampled=n]`` behind every metric's name and a caution behind its definition."""
    names = {metric: f"{metric}[sampled={n}]" for metric in evaluation.metrics}
    definitions = {names[metric]: text + CAUTION.format(n) for metric, text in evaluation.about["definitions"].items()}
    per_user = evaluation.per_user.rename(columns=names)
    return Evaluation(evaluation.name, per_user, evaluation.about | {"definitions": definitions})


def popularity(train: pd.DataFrame, items: pd.Series | None = None) -> pd.Series:
    """Return item id -> propensity (n + 1) / (max n + 1), n the train rows of the item with a value > 0.

    ``items``: ids that get a number too, though train may lack them (n = 0). Raised to a power by metrics with ``ips``;
    reference: Yang et al., RecSys 2018.
    """
    positive = train[train[VALUE] > 0] if VALUE in train else train
    chosen, asked = positive[ITEM], train[ITEM] if items is None else pd.concat([train[ITEM], items])
    names, (row, _) = codes(chosen, asked)
    return pd.Series(from_counts(np.bincount(row, minlength=len(names))), index=names)


def from_counts(counts: Any) -> Any:
    """Return (n + 1) / (max n + 1) of an array or Series of counts: never 0, 1 for the most popular item."""
    return (counts + 1) / (counts.max() + 1)


def _aligned(propensity: pd.Series, items: np.ndarray) -> np.ndarray:
    """Return float64[items]; an item that the Series does not name has its smallest value."""
    if not ((propensity > 0) & (propensity <= 1)).all():
        raise InputError("propensities must lie in (0, 1]")
    named, wanted = unify_ids(pd.Series(propensity.index), pd.Series(items))
    return propensity.set_axis(named).reindex(wanted).fillna(propensity.min()).to_numpy(dtype=np.float64)


def build(
    name: str,
    users: np.ndarray,
    columns: dict[str, np.ndarray],
    judged: Judged,
    judging: EvaluationSettings,
    counts: dict[str, int],
    convention: Convention | None = None,
) -> Evaluation:
    """Return the Evaluation of judged lists; ``columns`` stand before the metrics."""
    metrics = parse_all(judging.metrics)
    if convention:
        convention.check(metrics)
    values = score(judged, metrics, judging.missing_users, convention)
    per_user = pd.DataFrame({USER: users, **columns, **values})
    tallies = {"listed_places": int(judged.length.sum()), "tied_places": judged.tied_places}
    about = {
        "definitions": {str(m): convention.definition(m) if convention else m.definition for m in metrics},
        "counts": count(judged, judging.missing_users) | tallies | counts,
        "ties": judging.ties,
        "missing_users": judging.missing_users,
        "convention": convention.says if convention else "recsys",
    }
    return Evaluation(name, per_user, about)


def score(
    judged: Judged, metrics: list[Metric], missing_users: str, convention: Convention | None = None
) -> dict[str, np.ndarray]:
    """Return metric name -> float64[m]; both engines call this."""
    skip = (judged.length == 0) & (missing_users == "skip")
    value = convention.value if convention else Metric.__call__
    return {str(metric): np.where(skip, np.nan, value(metric, judged)) for metric in metrics}


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


def truth_of(split: Split, least: float | None, seen: csr_array | None) -> tuple[csr_array, int]:
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


def train_propensity(split: Split, width: int) -> np.ndarray:
    """Return float64[width] from popularity in train; items outside it were never chosen."""
    train = split.train
    return from_counts(np.bincount(train.item[train.value > 0], minlength=width))


def _stored(matrix: csr_array, test: Interactions, column: np.ndarray) -> np.ndarray:
    """Return bool[n]: which test pairs ``matrix`` (rows = test users) stores."""
    width = matrix.shape[1] + len(column)  # wide enough for the columns of other test items too
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    known = row * width + matrix.indices
    return np.isin(test.user.astype(np.int64) * width + column[test.item], known)


def outside(relevant: csr_array, candidates: int) -> int:
    """Return how many relevant pairs lie in columns past the candidates."""
    return int((relevant.indices >= candidates).sum())
