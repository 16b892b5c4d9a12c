"""Ranking quality: a metric is a function of a :class:`Judged` that gives one number per user, NaN = undefined.

A name is both the request and the label: ``name[option=value,…]@k``, read by :func:`parse`. Every
metric is undefined for a user without any relevant item. An empty list scores 0. Without a cut-off
a list is taken whole: the ideal list and the denominators then hold every relevant item. Where the
judge left items tied (``ties = "average"``), a metric is its exact expectation over all orders of
the tied items. Each costs one pass over the relevant items, not over the lists. Definitions side by
side with other libraries': docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from recsys import kernels
from recsys.errors import ConfigError, suggest_nearest
from recsys.evaluation.judging.judge import Judged
from recsys.evaluation.judging.names import MeasureName, parse_name, parse_names


def precision(judged: Judged, k: int | None = None, ips: float = 0.0) -> np.ndarray:
    """Relevant items among the first k, divided by k; in [0, 1]. Missing places count as misses.

    ``ips``: each relevant item weighs its propensity^-ips, weights scaled to mean 1 per user:
    debiased for items that are observed by chance. Differs from: LensKit divides by the length of
    the list; ``implicit`` pools hits over users and divides by Σ min(k, relevant).
    """
    return recall(judged, k, ips) * judged.n_relevant / (k or judged.k)


def recall(judged: Judged, k: int | None = None, ips: float = 0.0) -> np.ndarray:
    """Relevant items among the first k, divided by all relevant ones; in [0, 1].

    ``ips``: both sums weigh each relevant item by its propensity^-ips. Differs from: LensKit, Liang
    et al. 2018 and google-research/ials divide by min(k, relevant): ``capped_recall``. Reference
    for ``ips``: Yang et al., RecSys 2018 (self-normalised); Steck, RecSys 2011.
    """
    k = _cut(judged, k)
    if not ips:
        return _share(judged, judged.hits(k), judged.n_relevant)
    weight = _weights(judged, ips)
    return _share(judged, judged.total(judged.mean_over_places(np.ones(k)) * weight), judged.total(weight))


def capped_recall(judged: Judged, k: int | None = None) -> np.ndarray:
    """Relevant items among the first k, divided by min(k, relevant); in [0, 1]: a perfect list reaches 1."""
    k = _cut(judged, k)
    return _share(judged, judged.hits(k), np.minimum(k, judged.n_relevant))


def hit_rate(judged: Judged, k: int | None = None) -> np.ndarray:
    """1 when any of the first k items is relevant, else 0; over tied scores, the chance of it.

    A tie group of g places, t of them within the cut, misses its r relevant items with chance
    C(g−t, r) / C(g, r).
    """
    if not judged.tied:
        return _defined(judged, np.minimum(judged.hits(_cut(judged, k)), 1.0))
    relevant_above, _ = judged.group
    ordinal_in_group = judged.ordinal - relevant_above
    in_cut = np.clip(_cut(judged, k) - judged.position.astype(np.int64), 0, judged.spread)
    below_cut = np.where(in_cut > 0, np.maximum(judged.spread - in_cut - ordinal_in_group, 0), 1)
    group_size = np.where(in_cut > 0, judged.spread - ordinal_in_group, 1)
    miss = np.ones(len(judged.length))
    # C(g - t, r) / C(g, r) is a product with one factor for each of the r relevant items.
    np.multiply.at(miss, judged.user, below_cut / group_size)
    return _defined(judged, 1 - miss)


def ndcg(judged: Judged, k: int | None = None, gain: str = "binary", ips: float = 0.0) -> np.ndarray:
    """Discounted gain of the first k places over that of the best possible list; in [0, 1].

    DCG = Σ_r g_r / log2(r + 1) for ranks r from 1; the ideal list holds the user's min(k, relevant)
    best items, whether or not they were retrieved. ``gain``: binary (g = 1), linear (g = value),
    exp (g = 2^value − 1). ``ips``: each gain is multiplied by propensity^-ips, in both lists.

    Differs from: RecTools' default divides by k hits however few are relevant; trec_eval's gain is
    linear.
    Reference: Järvelin and Kekäläinen, TOIS 2002; Burges et al., ICML 2005 (exponential gain).
    """
    if gain not in GAINS:
        raise ConfigError(f"ndcg: gain is {gain!r}.{suggest_nearest(gain, GAINS)}")
    gains = GAINS[gain](judged.value, _exponents(judged, gain)) * _weights(judged, ips)
    discount = 1 / np.log2(np.arange(2, _cut(judged, k) + 2))
    ideal_discount = np.append(discount, 0.0)[np.minimum(judged.ordinal, len(discount))]
    # Every gain grows with the value, so the order by value is the ideal one unless propensities
    # change it.
    order = judged.by_value
    if ips:
        order = np.lexsort((-gains, judged.user))
    ideal_gain = judged.total(gains[order] * ideal_discount)
    return _share(judged, judged.total(gains * judged.mean_over_places(discount)), ideal_gain)


def average_precision(judged: Judged, k: int | None = None, over: str = "capped") -> np.ndarray:
    """Mean over min(k, relevant) of the precision at each relevant place, missed ones counting 0; in [0, 1].

    ``over``: capped divides by min(k, relevant); relevant divides by all relevant items, as
    trec_eval does. Over tied scores: a relevant item at offset i of g tied places, r of them
    relevant and h before, finds h + 1 + i(r − 1)/(g − 1) relevant ones up to its place in the mean
    (McSherry and Najork, ECIR 2008).
    """
    if over not in ("capped", "relevant"):
        raise ConfigError(f"map: over is {over!r}.{suggest_nearest(over, ('capped', 'relevant'))}")
    k = _cut(judged, k)
    relevant_above, tied = judged.group
    reciprocal = judged.mean_over_places(1 / np.arange(1, k + 1))
    places = (relevant_above + 1) * reciprocal
    if judged.tied:
        slope = (tied - 1) / np.maximum(judged.spread - 1, 1)
        places += slope * (judged.mean_over_places(np.ones(k)) - (judged.position + 1.0) * reciprocal)
    divisor = judged.n_relevant
    if over == "capped":
        divisor = np.minimum(k, judged.n_relevant)
    return _share(judged, judged.total(places), divisor)


def reciprocal_rank(judged: Judged, k: int | None = None) -> np.ndarray:
    """1 / rank of the first relevant item among the first k, 0 when there is none; in [0, 1]."""
    _, tied = judged.group
    first = judged.indptr[:-1][~judged.undefined]
    value = np.zeros(len(judged.length))
    value[~judged.undefined] = kernels.expected_reciprocal_rank(
        judged.position[first], judged.spread[first], tied[first], _cut(judged, k)
    )
    return _defined(judged, value)


def r_precision(judged: Judged) -> np.ndarray:
    """Relevant items among the first R places, divided by R, the number of relevant items; in [0, 1].

    Places past the end of the list count as misses, so lists should be at least R long.
    """
    cut = judged.n_relevant[judged.user]
    places_in_cut = np.minimum(judged.position + judged.spread, cut) - np.minimum(judged.position, cut)
    return _share(judged, judged.total(places_in_cut / judged.spread), judged.n_relevant)


def rbp(judged: Judged, k: int | None = None, p: float = 0.8) -> np.ndarray:
    """Rank-biased precision (1 − p) Σ_r p^(r−1) hit_r over the first k places; in [0, 1).

    ``p``: chance that the reader continues to the next place, in (0, 1). Reference: Moffat and
    Zobel, TOIS 2008.
    """
    if not 0 < p < 1:
        raise ConfigError(f"rbp: p is {p}; it must lie strictly between 0 and 1")
    return _defined(judged, judged.total(judged.mean_over_places((1 - p) * p ** np.arange(_cut(judged, k)))))


def auc(judged: Judged) -> np.ndarray:
    """Chance that a relevant item ranks above one that is not, ties counting half; in [0, 1].

    Needs the scores of all candidates (:func:`~recsys.evaluation.judging.judge.judge_scores`).
    Relevant items that are no candidates rank below everything. Undefined also when every candidate
    is relevant.
    """
    if not judged.complete:
        raise ConfigError(NEEDS_ALL)
    ranked = judged.position < kernels.NOWHERE
    n_irrelevant = judged.length - judged.total(ranked).astype(np.int64)
    relevant_above, tied = judged.group
    irrelevant_above = judged.position - relevant_above
    # The irrelevant items of the tie group count half.
    irrelevant_below = n_irrelevant[judged.user] - irrelevant_above - (judged.spread - tied) / 2
    pairs = np.where(n_irrelevant > 0, judged.n_relevant * n_irrelevant, np.nan)
    return _share(judged, judged.total(np.where(ranked, irrelevant_below, 0.0)), pairs)


def _exponential_gain(value: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Return (2^value − 1) / 2^exponent for each element, float64.

    Values below 1 are computed by ``expm1``, because the subtraction would lose digits near 0.
    """
    gain = np.exp2(value - exponent) - np.exp2(-exponent)
    small = value < 1
    if small.any():
        exact = np.expm1(value[small] * np.log(2))
        gain[small] = exact * np.exp2(-np.broadcast_to(exponent, value.shape)[small])
    return gain


GAINS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "binary": lambda value, exponent: (value > 0).astype(np.float64),
    "linear": lambda value, exponent: np.ldexp(value, -exponent.astype(np.int64)),
    "exp": _exponential_gain,
}
"""Name -> function (value, exponent) that returns the gain of each value, divided by 2^exponent."""

LARGEST_EXPONENT = 900
"""Gains are scaled to at most 2^900, so that their sum over a user's items is finite in float64."""


def _exponents(judged: Judged, gain: str) -> np.ndarray:
    """Return the exponent e of each relevant item: all gains of its user are divided by 2^e.

    The result is float64[nnz], or a single 0 if e is 0 for all users. e is above 0 only for a user
    whose largest gain exceeds 2^900 (:data:`LARGEST_EXPONENT`), because the sum of such gains could
    overflow. NDCG does not change, because it is a ratio of two sums of gains of one user.
    """
    exponent = judged.value if gain == "exp" else np.frexp(judged.value)[1].astype(np.float64)
    if exponent.max(initial=0.0) <= LARGEST_EXPONENT:
        return np.zeros(1)
    largest = np.zeros(len(judged.length))
    np.maximum.at(largest, judged.user, exponent)
    return np.maximum(np.ceil(largest) - LARGEST_EXPONENT, 0.0)[judged.user]


NEEDS_ALL = "AUC needs the scores of all items, and a top-N table has only the best"

METRICS: dict[str, Callable[..., np.ndarray]] = {
    "precision": precision,
    "recall": recall,
    "capped_recall": capped_recall,
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "r_precision": r_precision,
    "rbp": rbp,
    "auc": auc,
}

OPTION_MEANINGS = {
    "gain=binary": "the gain of a relevant item is 1",
    "gain=linear": "the gain of a relevant item is its value",
    "gain=exp": "the gain of a relevant item is 2^value − 1",
    "ips": "each relevant item weighs its propensity^-ips, above and below the line",
    "over=capped": "the divisor is min(k, relevant)",
    "over=relevant": "the divisor is the number of all relevant items",
    "p": "the chance that the reader continues to the next place",
}
"""Option, or option=value -> what it means, for metric cards."""


@dataclass(frozen=True)
class Metric(MeasureName):
    """A metric with its options and cut-off. Call it with a Judged; ``str`` returns its name.

    >>> str(parse("ndcg[gain=exp]@10"))
    'ndcg[gain=exp]@10'
    """

    def __call__(self, judged: Judged) -> np.ndarray:
        """Return the value of the metric for each of m users, float64[m]; NaN where it is undefined."""
        return METRICS[self.name](judged, **self.arguments())

    @property
    def definition(self) -> str:
        """One line of text that says what the metric computes."""
        return self.describe(METRICS[self.name], OPTION_MEANINGS)


_ONE = Judged(
    np.array([0, 1]),
    np.zeros(1, dtype=np.int32),
    np.ones(1, dtype=np.int32),
    np.ones(1),
    np.full(1, 2),
    2,
    complete=True,
    propensity=np.ones(1),
)
"""One user with one relevant item, in first place.
Calling a metric on it checks the range of its options."""


def parse(text: str) -> Metric:
    """Parse a name such as ``ndcg[gain=exp]@10``, and return its metric.

    Raises:
        ConfigError: the name or an option is unknown (the message suggests the nearest one), an
            option has a bad value, or the metric has no cut-off.
    """
    metric = parse_name(text, METRICS, Metric)
    metric(_ONE)
    return metric


def parse_all(texts: Iterable[str], *, complete: bool = False) -> list[Metric]:
    """Parse every name, and return the metrics in the same order.

    Args:
        complete: whether the scores of all candidates are available, which AUC needs.

    Raises:
        ConfigError: bad names, all in one message, or AUC without ``complete``.
    """

    def read(text: str) -> Metric:
        metric = parse(text)
        if metric.name == "auc" and not complete:
            raise ConfigError(
                f"metric {text!r}: {NEEDS_ALL}: give recsys evaluate a table with all of them and --all-candidates, or"
                " use evaluation.judging.full_ranking.evaluate_scores"
            )
        return metric

    return parse_names(texts, read)


def _cut(judged: Judged, k: int | None) -> int:
    """Return the cut-off k, limited to the length of the longest list or the largest number of relevant items.

    The limit is the larger of the two. A larger cut-off would give the same metrics.
    """
    longest = max(judged.k, int(judged.n_relevant.max(initial=1)))
    return min(k or longest, longest)


def _weights(judged: Judged, ips: float) -> np.ndarray:
    if not ips:
        return np.ones(len(judged.position))
    if judged.propensity is None:
        raise ConfigError("ips weighs items by propensity^-ips: give the items' popularity or propensities")
    return judged.propensity**-ips


def _share(judged: Judged, part: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(part, total, out=np.full(len(part), np.nan), where=~judged.undefined)


def _defined(judged: Judged, values: np.ndarray) -> np.ndarray:
    return np.where(judged.undefined, np.nan, values)
