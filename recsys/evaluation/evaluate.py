"""Evaluate lists against the items that users chose: one number per user and metric, and counts of
users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from recsys import kernels
from recsys.errors import InputError
from recsys.evaluation.judging import conventions
from recsys.evaluation.judging.conventions import Convention
from recsys.evaluation.judging.judge import Judged, RelevantItems, judge_codes
from recsys.evaluation.judging.metrics import Metric
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.topk_tables import LISTS, TRUTH, as_frame, codes, drop_refused_values, lists
from recsys.evaluation.truth import Truth, propensity_of_counts
from recsys.schema import ITEM, USER, VALUE, unify_ids
from recsys.types import SHORTFALL, Evaluation, TopK

CAUTION = (
    " Caution: ranked among {} sampled candidates only. Such numbers are biased, cannot be compared with full ranking,"
    " and can order models wrongly (Krichene and Rendle, KDD 2020)."
)
"""The end of the definition of a metric among sampled candidates; {} is their number."""


def evaluate(topk: TopK, truth: Truth, *, name: str) -> Evaluation:
    """Compute the metrics of the lists of all tested users, and return an Evaluation.

    Its ``per_user`` table has one row per list, in the order of ``topk``. The columns are user_id;
    n_relevant, the number of relevant items; n_history, the number of items in the history;
    shortfall, the reason why the list is short (one of ``types.SHORTFALL``); and one column per
    metric, NaN where it is undefined.

    Args:
        topk: one list per tested user. ``topk.users`` are rows of ``truth.users``, items are rows
            of ``truth.candidates``.
        truth: the relevant items, the histories and the settings, see
            :meth:`.truth.Truth.from_split`.
        name: the name of the result, usually that of the model.

    Raises:
        ValueError: the number of lists is not the number of tested users, or an item occurs twice
            in a list.
        InputError: ``settings.ties`` of the truth is not ``stable``, and a score is missing or
            scores rise along a list.
    """
    if len(topk.users) != len(truth):
        raise ValueError(f"{len(topk.users):,} lists for {len(truth):,} tested users: give one list per user")
    judged = truth.judge(topk)
    per_user = pd.DataFrame(
        {
            USER: truth.users.ids_of(topk.users),
            "n_relevant": judged.n_relevant,
            "n_history": truth.histories.lengths.astype(np.int64)[topk.users],
            "shortfall": np.array(SHORTFALL, dtype=object)[topk.shortfall],
        }
    )
    return assemble_evaluation(name, per_user, judged, truth.settings, truth.counts)


def evaluate_tables(
    recs: pd.DataFrame,
    truth: pd.DataFrame,
    settings: EvaluationSettings | None = None,
    *,
    name: str = "recs",
    convention: str | None = None,
    propensity: pd.Series | None = None,
) -> Evaluation:
    """Compute the metrics of the lists in one table by the items that users chose in another table.

    The tables may come from any system. The metrics are means over the users of ``truth`` who have
    a relevant item. Users of ``recs`` who are not in ``truth`` are left out, and counted in
    ``about["counts"]`` as ``listed_without_truth``. Rows of ``truth`` whose value is missing or
    infinite are left out, and counted as ``refused_truth``. If the lists rank the relevant items
    among sampled candidates only, use :func:`mark_sampled` on the result.

    The ``per_user`` table of the result has one row for every user with a row of ``truth`` that is
    not left out, sorted by id. The columns are user_id, n_relevant (the number of relevant items),
    and one per metric, NaN where it is undefined. ``about["warnings"]`` is a list of sentences: it
    is not empty if the two tables have no user id or no item id in common.

    Args:
        recs: user_id, item_id and rank (1 for the best item), as a pandas, Polars or Arrow table. A
            score may replace the rank. With a rank, scores are used for ``settings.ties`` alone.
            Categorical ids are fastest.
        truth: user_id, item_id, and optionally value. Without values, every value is 1.
        settings: the metrics and how to compute them. Use ``AllCandidatesSettings`` if the lists
            have every candidate, which AUC needs. None: the default settings.
        name: the name of the result, also used in error messages.
        convention: a name of :data:`~recsys.evaluation.judging.conventions.CONVENTIONS`: compute
            the metrics as another library defines them. It then also sets the treatment of ties, of
            users without a list, and of users without relevant items, who count as 0 in some
            conventions.
        propensity: item id -> chance in (0, 1] that its relevance is observed, for metrics with
            ``ips``, see :func:`item_propensities`. An item that it does not have gets the smallest
            propensity of all.

    Raises:
        InputError: an argument is not a table, a column is missing, ids are neither text nor
            integers, an item is twice in a list or in a user's truth, a rank is twice in a list, a
            propensity is not in (0, 1], or the scores that are needed are missing or NaN.
        ConfigError: the convention does not have a metric, or a metric has ``ips`` and
            ``propensity`` is None.

    >>> recs = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    >>> truth = pd.DataFrame({"user_id": [1, 2], "item_id": [8, 7]})
    >>> settings = EvaluationSettings(metrics=("mrr@10",))
    >>> evaluate_tables(recs, truth, settings).per_user.values.tolist()
    [[1.0, 1.0, 0.5], [2.0, 1.0, 0.0]]
    """
    settings = settings or EvaluationSettings()
    rules = None
    if convention:
        rules = conventions.named(convention)
        settings = settings.model_copy(update={"ties": rules.ties, "missing_users": rules.missing_users})
    recs = as_frame(recs, name)
    truth = as_frame(truth, "truth")
    LISTS.require(recs.columns, name)
    TRUTH.require(truth.columns)
    truth, n_refused = drop_refused_values(truth)
    # Codes count in order of first appearance, so the users of the truth come before those of the
    # lists alone.
    users, (truth_user, list_user) = codes(truth[USER], recs[USER])
    items, (truth_item, list_item) = codes(truth[ITEM], recs[ITEM])
    n_users = int(truth_user.max(initial=-1)) + 1
    order, bounds = kernels.group_rows(truth_user, n_users)
    if repeated := int(kernels.count_repeats(truth_item[order], bounds, len(items)).sum()):
        raise InputError(f"truth: {repeated:,} rows repeat a (user, item) pair: keep one of each")
    value = np.ones(len(truth))
    if VALUE in truth:
        value = truth[VALUE].to_numpy(dtype=np.float64)
    item_propensity = None if propensity is None else _propensity_by_code(propensity, items)
    ids_for_ties = None
    if rules and rules.by_score:
        ids_for_ties = items
    ranked = lists(recs, list_user, list_item, n_users, label=name, names=ids_for_ties)

    def judge_rows(is_relevant: np.ndarray) -> Judged:
        rows = order[is_relevant[order]]
        relevant = RelevantItems(
            truth_item[rows],
            np.append(0, np.cumsum(np.bincount(truth_user[rows], minlength=n_users))),
            value[rows],
            None if item_propensity is None else item_propensity[truth_item[rows]],
        )
        judged = judge_codes(ranked, relevant, width=len(items), k=ranked.depth, ties=settings.ties)
        return replace(judged, complete=settings.all_candidates)

    # A value above the range of float32 becomes infinite, which reaches any threshold as it should.
    with np.errstate(over="ignore"):
        single = value.astype(np.float32)
    judged = judge_rows(settings.is_relevant(single))
    per_user = pd.DataFrame({USER: users[:n_users], "n_relevant": judged.n_relevant})
    counts = {
        "short": count_short_lists(judged, _largest_cut(settings) or judged.k),
        "listed_without_truth": len(users) - n_users,
        "refused_truth": n_refused,
    }
    evaluation = assemble_evaluation(name, per_user, judged, settings, counts, rules)
    if rules and rules.ungated and settings.relevant is not None:
        # The library takes the gains of all rows with a value above 0, whatever the threshold.
        ungated = [metric for metric in settings.parsed_metrics if metric.name in rules.ungated]
        values = compute_metrics(judge_rows(single > 0), ungated, settings.missing_users, rules)
        evaluation = replace(evaluation, per_user=evaluation.per_user.assign(**values))
    about = evaluation.about | {
        "warnings": [
            *_unshared_ids("user", truth_user, list_user, users),
            *_unshared_ids("item", truth_item, list_item, items),
        ]
    }
    return replace(evaluation, per_user=evaluation.per_user.sort_values(USER, ignore_index=True), about=about)


def _largest_cut(settings: EvaluationSettings) -> int:
    """Return the largest cut-off of the metrics, or 0 if none has one."""
    return max(metric.k or 0 for metric in settings.parsed_metrics)


def _unshared_ids(kind: str, of_truth: np.ndarray, of_lists: np.ndarray, names: np.ndarray) -> list[str]:
    """Return a list with one warning if lists and truth have no id of a kind in common, else [].

    Args:
        kind: "user" or "item".
        of_truth, of_lists: the codes of this kind in the truth and in the lists.
        names: the id of each code.
    """
    if not len(of_truth) or not len(of_lists) or np.isin(of_truth, of_lists).any():
        return []
    return [no_shared_ids(kind, names[of_lists[0]], names[of_truth[0]])]


def no_shared_ids(kind: str, listed: object, chosen: object) -> str:
    """Return the text of the warning that lists and truth have no id of a kind in common.

    Args:
        kind: "user" or "item".
        listed, chosen: an example id of the lists, and one of the truth.
    """
    return (
        f"no {kind} of the lists is in the truth, so every metric is 0: {kind} ids are like {str(listed)!r} in the"
        f" lists and like {str(chosen)!r} in the truth. Write them alike in both tables."
    )


def mark_sampled(evaluation: Evaluation, n: int) -> Evaluation:
    """Return the evaluation with its metrics renamed, to show that candidates were sampled.

    The name of every metric gets the ending ``[sampled=n]``, and its definition ends in a caution.
    Call this function if the lists ranked each user's relevant items together with ``n`` sampled
    candidates only.

    Args:
        n: the number of sampled candidates per user.
    """
    per_user = evaluation.per_user.rename(columns={metric: sampled_name(metric, n) for metric in evaluation.metrics})
    definitions = sampled_definitions(evaluation.about["definitions"], n)
    return Evaluation(evaluation.name, per_user, evaluation.about | {"definitions": definitions})


def sampled_name(metric: str, n: int) -> str:
    """Return the name of a metric of lists that rank ``n`` sampled candidates only.

    >>> sampled_name("ndcg@10", 100)
    'ndcg@10[sampled=100]'
    """
    return f"{metric}[sampled={n}]"


def sampled_definitions(definitions: Mapping[str, str], n: int) -> dict[str, str]:
    """Return the definitions of metrics among sampled candidates: sampled name -> definition.

    A name gets the ending of :func:`sampled_name`, and a definition ends in :data:`CAUTION`.

    Args:
        definitions: name of a metric -> its definition.
        n: the number of sampled candidates per user.
    """
    return {sampled_name(metric, n): text + CAUTION.format(n) for metric, text in definitions.items()}


def item_propensities(train: pd.DataFrame, items: pd.Series | None = None) -> pd.Series:
    """Return the propensity of each item, a float64 Series by item id: (n + 1) / (max n + 1).

    The propensity is the probability that the relevance of an item is observed. n is the number of
    rows of the item in ``train`` that are likes.

    Args:
        train: a table of events with the column item_id, and optionally value. Rows with a value
            > 0 are likes. Without a column ``value``, all rows are.
        items: the ids of the items in the result, in addition to the liked ones. An item without a
            like has n = 0. None: the items of ``train``.

    Raises:
        InputError: there are no items.
    """
    likes = train
    if VALUE in train:
        likes = train[train[VALUE] > 0]
    if items is None:
        all_items = train[ITEM]
    else:
        all_items = pd.concat([train[ITEM], items])
    if not len(all_items):
        raise InputError("propensities need at least one item, and the table of events is empty.")
    names, (row, _) = codes(likes[ITEM], all_items)
    return pd.Series(propensity_of_counts(np.bincount(row, minlength=len(names))), index=names)


def _propensity_by_code(propensity: pd.Series, items: np.ndarray) -> np.ndarray:
    """Return the propensity of each item, float64[items].

    An item that ``propensity`` does not have gets the smallest propensity of all.

    Args:
        propensity: the propensities by item id.
        items: the ids of the items.

    Raises:
        InputError: a propensity is not in (0, 1].
    """
    if not ((propensity > 0) & (propensity <= 1)).all():
        raise InputError("propensities must lie in (0, 1]")
    index, ids = unify_ids(pd.Series(propensity.index), pd.Series(items))
    return propensity.set_axis(index).reindex(ids).fillna(propensity.min()).to_numpy(dtype=np.float64)


def assemble_evaluation(
    name: str,
    per_user: pd.DataFrame,
    judged: Judged,
    settings: EvaluationSettings,
    counts: dict[str, int],
    convention: Convention | None = None,
) -> Evaluation:
    """Return the Evaluation of judged lists: metrics per user, definitions and counts.

    ``about`` has the keys ``definitions`` (metric -> text), ``counts`` (those of
    :func:`count_users`, ``listed_places``, ``tied_places`` and the argument ``counts``), ``ties``,
    ``missing_users``, and ``convention`` (a text).

    Args:
        name: the name of the result.
        per_user: the table to which one column per metric is added, one row per user of ``judged``.
        judged: the positions of the relevant items in the lists.
        settings: the metrics, and how users without a list count.
        counts: further counts for ``about["counts"]``.
        convention: the other library whose definitions are used. None: those of recsys.

    Raises:
        ConfigError: the convention does not have a metric, or a metric with ``ips`` has no
            propensities.
    """
    metrics = settings.parsed_metrics
    if convention:
        convention.check(metrics)
    values = compute_metrics(judged, metrics, settings.missing_users, convention)
    tallies = {"listed_places": int(judged.length.sum()), "tied_places": judged.tied_places}
    about = {
        "definitions": {str(m): convention.definition(m) if convention else m.definition for m in metrics},
        "counts": count_users(judged, settings.missing_users) | tallies | counts,
        "ties": settings.ties,
        "missing_users": settings.missing_users,
        "convention": convention.says if convention else "recsys",
    }
    return Evaluation(name, per_user.assign(**values), about)


def compute_metrics(
    judged: Judged, metrics: list[Metric], missing_users: str, convention: Convention | None = None
) -> dict[str, np.ndarray]:
    """Return the value of each metric for each user, as a dict: metric name -> float64[m].

    The name of a metric includes its options and its cut-off. The value is NaN where the metric is
    undefined or the user is left out. The local engine and the Spark engine both call this
    function.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        metrics: the metrics to compute.
        missing_users: "skip" leaves out users without a list, "zero" counts them as 0.
        convention: the other library whose definitions are used. None: those of recsys.

    Raises:
        ConfigError: a metric with ``ips`` has no propensities.
    """
    skip = (judged.length == 0) & (missing_users == "skip")
    compute: Callable[[Metric, Judged], np.ndarray] = Metric.__call__
    if convention:
        compute = convention.value
    return {str(metric): np.where(skip, np.nan, compute(metric, judged)) for metric in metrics}


def count_users(judged: Judged, missing_users: str) -> dict[str, int]:
    """Return a dict with four numbers of users.

    * ``evaluated``: users with relevant items who count in the means;
    * ``undefined``: users without relevant items;
    * ``without_list``: users with relevant items whose list is empty;
    * ``short``: users with relevant items whose list has at least one item, but fewer than
      ``judged.k``.

    Args:
        missing_users: "skip" if users without a list do not count in means, "zero" if they do.
    """
    defined = ~judged.undefined
    without_list = defined & (judged.length == 0)
    return {
        "evaluated": int((defined & ~without_list).sum() if missing_users == "skip" else defined.sum()),
        "undefined": int((~defined).sum()),
        "without_list": int(without_list.sum()),
        "short": count_short_lists(judged, judged.k),
    }


def count_short_lists(judged: Judged, expected_length: int) -> int:
    """Return the number of users with relevant items whose list is short, but not empty.

    Args:
        judged: the positions of the relevant items in the lists.
        expected_length: a list is short if it has fewer items than this.
    """
    has_list = ~judged.undefined & (judged.length > 0)
    return int((has_list & (judged.length < expected_length)).sum())
