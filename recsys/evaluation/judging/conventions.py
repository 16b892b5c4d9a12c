"""The definitions of other libraries, to recompute a number that was published under one of them.

A convention gives each metric name the definition that the library uses, and treats ties, users
without a list and users without anything relevant as the library does. Metrics that the library
does not have are refused. The tests compare each convention with the library itself.
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
    """One library's definitions.

    ``metrics``: our name -> its definition. ``missing_users``: what a user with truth but no list
    counts. ``nothing_relevant``: how a user counts who has truth rows, but no relevant one.
    ``by_score``: lists are sorted by score (single precision), equal ones by item id, last in the
    alphabet first, whatever the ranks say. ``ungated``: metrics that take every truth row with a
    value above 0, also where a threshold says which rows are relevant to the others.
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
        """Return float64[m], NaN = undefined, of a metric under this convention."""
        values = self.metrics[metric.name](judged, **metric.arguments())
        if self.nothing_relevant != "zero":
            return values
        return np.where(judged.undefined, 0.0, values)

    def definition(self, metric: Metric) -> str:
        """One line that says what is computed, for metric cards."""
        function = self.metrics[metric.name]
        undecorated = function
        settings = {}
        if isinstance(function, partial):
            undecorated = function.func
            settings = function.keywords
        options = ", ".join(f"{key} = {value}" for key, value in settings.items())
        return (undecorated.__doc__ or "").split("\n")[0] + (f" With {options}." if options else "")

    def check(self, metrics: list[Metric]) -> None:
        """Raise ConfigError naming every metric that the library does not have, and every option."""
        problems = [
            f"{self.name} has no {m.name}.{suggest_nearest(m.name, self.metrics)}"
            for m in metrics
            if m.name not in self.metrics
        ]
        problems += [f"{m}: a convention sets the options; leave them out" for m in metrics if m.options]
        if problems:
            raise ConfigError("\n".join(f"convention {self.name}: {problem}" for problem in problems))


def pooled_precision(judged: Judged, k: int | None = None) -> np.ndarray:
    """Hits among the first k over the *mean* of min(k, relevant): in the mean Σ hits / Σ min(k, relevant)."""
    hits = precision(judged, k) * (k or judged.k)
    attainable = np.minimum(k or judged.k, judged.n_relevant)[~judged.undefined]
    if len(attainable):
        return hits / attainable.mean()
    return hits


def average_precision_by_score(judged: Judged, k: int | None = None) -> np.ndarray:
    """Mean over all relevant items of the precision at the end of each one's tie group (scikit-learn's steps)."""
    if k:
        raise ConfigError("scikit-learn's average precision has no cut-off: ask for 'map'")
    relevant_above, tied = judged.group
    at_end = (relevant_above + tied) / (judged.position.astype(np.float64) + judged.spread)
    listed = judged.total(np.where(judged.position < judged.k, at_end, 0.0))
    return np.divide(listed, judged.n_relevant, out=np.full(len(listed), np.nan), where=~judged.undefined)


def spark_map(judged: Judged, k: int | None = None) -> np.ndarray:
    """Mean of the precision at each relevant place, over min(k, relevant); without a cut over all relevant items."""
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
"""Other libraries' conventions by name; our own needs none."""


def named(name: str) -> Convention:
    """Return a convention, or raise ConfigError naming the nearest one."""
    if name not in CONVENTIONS:
        raise ConfigError(f"convention {name!r}: unknown.{suggest_nearest(name, CONVENTIONS)}")
    return CONVENTIONS[name]
