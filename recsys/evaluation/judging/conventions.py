"""Compute metrics as other libraries define them, to reproduce numbers that were published with one.

A convention defines each metric as the library does. It also treats ties, users without a list and
users without relevant items as the library does. Metrics that the library does not have are
refused. The tests compare each convention with the library itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from recsys.errors import ConfigError, suggest_nearest
from recsys.evaluation.judging.judge import Judged, Ties
from recsys.evaluation.judging.metrics import (
    Metric,
    average_precision,
    hit_rate,
    ndcg,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
)


@dataclass(frozen=True)
class Convention:
    """How one library defines its metrics.

    Attributes:
        name: the name of the convention, for example "trec".
        metrics: the name of a metric in recsys -> the function that computes it as the library
            does. The function takes a ``Judged`` and the cut-off k, and returns one value per user,
            float64[users].
        ties: how equal scores are treated, see :data:`~recsys.evaluation.judging.judge.Ties`.
        missing_users: how a user with relevant items but without a list counts: "zero" (as 0) or
            "skip" (left out of means).
        nothing_relevant: how a user without relevant items counts: "zero" (as 0) or "skip" (left
            out of means). A user who has no list either counts as ``missing_users`` says.
        says: one line that describes the convention.
        by_score: whether lists are sorted by score (as float32) instead of by rank. Equal scores
            are then sorted by item id as text, descending.
        ungated: the metrics for which every truth row with a value above 0 is relevant, even if the
            threshold ``[judge] relevant`` is higher. The threshold applies to the other metrics.
    """

    name: str
    metrics: Mapping[str, Callable[..., np.ndarray]]
    ties: Ties
    missing_users: str
    nothing_relevant: str
    says: str
    by_score: bool = False
    ungated: frozenset[str] = frozenset()

    def value(self, metric: Metric, judged: Judged) -> np.ndarray:
        """Return the value of a metric for each of m users under this convention.

        The result is float64[m]. For a user without relevant items it is 0 or NaN, as
        ``nothing_relevant`` says. For any other user without a list it is 0;
        ``evaluate.compute_metrics`` applies ``missing_users``.

        Args:
            metric: a metric that :meth:`check` accepts.
            judged: the positions of the relevant items in the lists of the users.
        """
        values = self.metrics[metric.name](judged, **metric.arguments())
        if self.nothing_relevant != "zero":
            return values
        return np.where(judged.undefined, 0.0, values)

    def definition(self, metric: Metric) -> str:
        """Return one line of text that says how this convention computes a metric."""
        function = self.metrics[metric.name]
        undecorated = function
        settings = {}
        if isinstance(function, partial):
            undecorated = function.func
            settings = function.keywords
        options = ", ".join(f"{key} = {value}" for key, value in settings.items())
        return (undecorated.__doc__ or "").split("\n")[0] + (f" With {options}." if options else "")

    def check(self, metrics: list[Metric]) -> None:
        """Check that the library has each of the metrics, and that no metric has options.

        Raises:
            ConfigError: the library does not have a metric, or a metric has options. The message
                lists all problems.
        """
        problems = [
            f"{self.name} has no {m.name}.{suggest_nearest(m.name, self.metrics)}"
            for m in metrics
            if m.name not in self.metrics
        ]
        problems += [f"{m}: a convention sets the options; leave them out" for m in metrics if m.options]
        if problems:
            raise ConfigError("\n".join(f"convention {self.name}: {problem}" for problem in problems))


def pooled_precision(judged: Judged, k: int | None = None) -> np.ndarray:
    """Number of relevant items among the first k, divided by the mean of min(k, relevant items) over all users.

    The mean of this value over users is the number of relevant items in the first k items of all
    lists, divided by the sum of min(k, relevant items) over the users. The value of a single user
    can exceed 1. The result is float64[m], NaN for a user without relevant items. Without a
    cut-off, k is ``judged.k``.
    """
    hits = precision(judged, k) * (k or judged.k)
    attainable = np.minimum(k or judged.k, judged.n_relevant)[~judged.undefined]
    if len(attainable):
        return hits / attainable.mean()
    return hits


def average_precision_by_score(judged: Judged, k: int | None = None) -> np.ndarray:
    """Average precision as in scikit-learn: each relevant item has the precision at the last item that ties with it.

    The mean is over all relevant items of the user; one that is not in the list counts as 0. The
    result is float64[m], NaN for a user without relevant items.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: must be None.

    Raises:
        ConfigError: ``k`` is given. scikit-learn's average precision has no cut-off.
    """
    if k:
        raise ConfigError("scikit-learn's average precision has no cut-off: ask for 'map'")
    relevant_above, tied = judged.group
    at_end = (relevant_above + tied) / (judged.position.astype(np.float64) + judged.spread)
    listed = judged.total(np.where(judged.position < judged.k, at_end, 0.0))
    return np.divide(listed, judged.n_relevant, out=np.full(len(listed), np.nan), where=~judged.undefined)


def spark_map(judged: Judged, k: int | None = None) -> np.ndarray:
    """Sum of the precision at each relevant item of the first k, divided by min(k, relevant); without k, by relevant.

    ``relevant`` is the number of all relevant items of the user. The result is float64[m] in
    [0, 1], NaN for a user without relevant items.
    """
    return average_precision(judged, k, "capped" if k else "relevant")


_TREC = Convention(
    "trec",
    {
        "precision": precision,
        "recall": recall,
        "hit_rate": hit_rate,
        "ndcg": partial(ndcg, gain="linear"),
        "map": partial(average_precision, over="relevant"),
        "mrr": reciprocal_rank,
        "r_precision": r_precision,
    },
    ties="stable",
    missing_users="skip",
    nothing_relevant="zero",
    says="trec_eval: sorted by score, ties by item id descending; linear gain; map divides by all relevant items",
    by_score=True,
    ungated=frozenset({"ndcg"}),
)
_SKLEARN = Convention(
    "sklearn",
    {"ndcg": partial(ndcg, gain="linear"), "map": average_precision_by_score},
    ties="average",
    missing_users="skip",
    nothing_relevant="zero",
    says="scikit-learn: ndcg_score (linear gain, averaged over ties) and average_precision_score of all candidates",
)
_SPARK = Convention(
    "spark",
    {"precision": precision, "recall": recall, "ndcg": ndcg, "map": spark_map},
    ties="stable",
    missing_users="zero",
    nothing_relevant="zero",
    says="Spark's RankingEvaluator: binary; a user with nothing relevant counts 0; map without a cut divides by all",
)
_IMPLICIT = Convention(
    "implicit",
    {"precision": pooled_precision, "ndcg": ndcg, "map": average_precision},
    ties="stable",
    missing_users="zero",
    nothing_relevant="skip",
    says="implicit: precision pools hits over users and divides by the sum of min(k, relevant)",
)
CONVENTIONS = {convention.name: convention for convention in (_TREC, _SKLEARN, _SPARK, _IMPLICIT)}
"""The conventions of other libraries by name. The definitions of recsys need no convention."""


def named(name: str) -> Convention:
    """Return the convention with this name, one of :data:`CONVENTIONS`, such as "trec".

    Raises:
        ConfigError: the name is unknown. The message suggests the most similar one.
    """
    if name not in CONVENTIONS:
        raise ConfigError(f"convention {name!r}: unknown.{suggest_nearest(name, CONVENTIONS)}")
    return CONVENTIONS[name]
