"""TopK and truth -> Evaluation: which users count, what is relevant, one number a user and metric."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys import kernels
from recsys.errors import InputError
from recsys.evaluation.judging import conventions
from recsys.evaluation.judging.conventions import Convention
from recsys.evaluation.judging.judge import Judged, judge_codes
from recsys.evaluation.judging.metrics import Metric, parse_all
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.topk_tables import LISTS, TRUTH, codes, lists
from recsys.evaluation.truth import Truth, propensity_of_counts
from recsys.schema import ITEM, USER, VALUE, unify_ids
from recsys.types import SHORTFALL, Evaluation, TopK

CAUTION = (
    " Caution: ranked among {} sampled candidates only. Such numbers are biased, cannot be compared with full ranking,"
    " and can order models wrongly (Krichene and Rendle, KDD 2020)."
)


def evaluate(topk: TopK, truth: Truth, *, name: str) -> Evaluation:
    """Judge the lists of all tested users.

    Args:
        topk: one list per tested user; ``topk.users`` are rows of ``truth.users``, items are rows of
            ``truth.candidates``.
        truth: what is relevant, and the settings, which :meth:`.truth.Truth.of` explains.

    Returns:
        per_user: user_id, n_relevant, n_history, shortfall, then the metrics; one row per tested user.

    Raises:
        ValueError: lists and tested users differ in number.
    """
    if len(topk.users) != len(truth):
        raise ValueError(f"{len(topk.users):,} lists for {len(truth):,} tested users: give one list per user")
    judged = truth.judge(topk)
    columns = {
        "n_relevant": judged.n_relevant,
        "n_history": truth.histories.lengths.astype(np.int64)[topk.users],
        "shortfall": np.array(SHORTFALL, dtype=object)[topk.shortfall],
    }
    return build(name, truth.users.ids_of(topk.users), columns, judged, truth.settings, truth.counts)


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
    kept = order[judging.is_relevant(value)[order]]
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
    return pd.Series(propensity_of_counts(np.bincount(row, minlength=len(names))), index=names)


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
