"""Metrics of ranking quality: each function takes a :class:`Judged` and returns one number per user.

All metrics return float64[m], one value for each of the m users of the Judged. The value is NaN
(undefined) for a user without relevant items. An empty list has the value 0. The user writes a
metric as ``name[option=value,…]@k``, which :func:`parse` reads. The same text is the name of its
column in results. The first line of a metric's docstring is printed in reports as its definition.

``k`` is the number of first places of a list that count. Without a cut-off ``k``, the whole list
counts, and ideal lists and denominators have all relevant items. If tied items were left tied
(``ties = "average"``), the value is the exact expectation of the metric over all orders of the tied
items. The computation takes one pass over the relevant items, and does not read the lists.
docs/metrics.md compares the definitions with those of other libraries.
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
    """Number of relevant items among the first k, divided by k, even if the list is shorter; in [0, 1].

    The result is float64[m], NaN for a user without relevant items. Without a cut-off, k is the
    number of positions of the longest possible list (``Judged.k``). Other libraries: LensKit
    divides by the length of the list; ``implicit`` divides the relevant items in all lists by the
    sum of min(k, number of relevant items) over the users.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: the cut-off. None: the whole list.
        ips: if above 0, each relevant item has the weight propensity^-ips, divided by the mean
            weight of the user's relevant items. This corrects the bias towards popular items, whose
            relevance is observed more often. The value can then exceed 1.

    Raises:
        ConfigError: ``ips`` is above 0 without propensities.
    """
    return recall(judged, k, ips) * judged.n_relevant / (k or judged.k)


def recall(judged: Judged, k: int | None = None, ips: float = 0.0) -> np.ndarray:
    """Number of relevant items among the first k, divided by the number of all relevant items; in [0, 1].

    The result is float64[m], NaN for a user without relevant items. LensKit, Liang et al. 2018 and
    google-research/ials divide by the smaller of k and the number of relevant items, as
    :func:`capped_recall` does.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: the cut-off. None: the whole list.
        ips: if above 0, each relevant item counts with the weight propensity^-ips in the numerator
            and in the denominator. References: Yang et al., RecSys 2018 (self-normalised
            estimator); Steck, RecSys 2011.

    Raises:
        ConfigError: ``ips`` is above 0 without propensities.
    """
    k = _cut(judged, k)
    if not ips:
        return _share(judged, judged.hits(k), judged.n_relevant)
    weight = _weights(judged, ips)
    return _share(judged, judged.total(judged.mean_over_places(np.ones(k)) * weight), judged.total(weight))


def capped_recall(judged: Judged, k: int | None = None) -> np.ndarray:
    """Number of relevant items among the first k, divided by min(k, number of all relevant items); in [0, 1].

    A list whose first k places have as many relevant items as possible has the value 1. The result
    is float64[m], NaN for a user without relevant items.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: the cut-off. None: the whole list.
    """
    k = _cut(judged, k)
    return _share(judged, judged.hits(k), np.minimum(k, judged.n_relevant))


def hit_rate(judged: Judged, k: int | None = None) -> np.ndarray:
    """1 if at least one of the first k items is relevant, else 0; with averaged ties, the probability of 1.

    The result is float64[m], NaN for a user without relevant items.

    With averaged ties: take a group of g tied items, r of them relevant, t of whose positions are
    among the first k. With probability C(g−t, r) / C(g, r), none of its relevant items is among the
    first k. C(n, r) is the binomial coefficient.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: the cut-off. None: the whole list.
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
    """Discounted gain (DCG) of the first k items, divided by the DCG of the best possible list; in [0, 1].

    DCG = Σ_r g_r / log2(r + 1) over the ranks r = 1 … k, where g_r is the gain of the item at rank
    r, and 0 if the item is not relevant. The best possible list has the user's relevant items, the
    largest gain first, whether or not the judged list has them. It also counts up to rank k. The
    value is NaN for a user without relevant items.

    Other libraries: RecTools divides by default by the DCG of k relevant items, even if the user
    has fewer; trec_eval uses the linear gain. References: Järvelin and Kekäläinen, TOIS 2002;
    Burges et al., ICML 2005 (exponential gain).

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: the cut-off. None: the whole list, and the ideal list has all relevant items.
        gain: the gain of a relevant item. "binary": 1. "linear": its value. "exp": 2^value − 1.
        ips: if above 0, each gain is multiplied by propensity^-ips, in both lists.

    Raises:
        ConfigError: ``gain`` is unknown, or ``ips`` is above 0 without propensities.
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
    """Sum of the precision at each relevant item of the first k, divided by min(k, relevant items); in [0, 1].

    The precision at an item of rank r is the number of relevant items among the first r, divided
    by r. The result is float64[m], NaN for a user without relevant items.

    With averaged ties: take a group of g tied items, r of them relevant, with h relevant items
    above the group. If a relevant item is at position i of the group (from 0), the expected number
    of relevant items down to this position is h + 1 + i(r − 1)/(g − 1). Source: McSherry and
    Najork, ECIR 2008.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: the cut-off. None: the whole list, and the divisor is the number of all relevant items.
        over: the divisor. "capped": min(k, number of relevant items). "relevant": the number of
            all relevant items, as in trec_eval.

    Raises:
        ConfigError: ``over`` is unknown.
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
    """1 / rank of the first relevant item, if it is among the first k, else 0; in [0, 1].

    The result is float64[m], NaN for a user without relevant items.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: the cut-off. None: the whole list.
    """
    _, tied = judged.group
    first = judged.indptr[:-1][~judged.undefined]
    value = np.zeros(len(judged.length))
    value[~judged.undefined] = kernels.expected_reciprocal_rank(
        judged.position[first], judged.spread[first], tied[first], _cut(judged, k)
    )
    return _defined(judged, value)


def r_precision(judged: Judged) -> np.ndarray:
    """Share of relevant items in the first R places, where R is the number of the user's relevant items; in [0, 1].

    A list with fewer than R items counts as if items that are not relevant followed it. So lists
    should have at least R items. The result is float64[m], NaN for a user without relevant items.

    Args:
        judged: the positions of the relevant items in the lists of m users.
    """
    cut = judged.n_relevant[judged.user]
    places_in_cut = np.minimum(judged.position + judged.spread, cut) - np.minimum(judged.position, cut)
    return _share(judged, judged.total(places_in_cut / judged.spread), judged.n_relevant)


def rbp(judged: Judged, k: int | None = None, p: float = 0.8) -> np.ndarray:
    """Rank-biased precision: the sum of (1 − p) p^(r−1) over the ranks r ≤ k of the relevant items; in [0, 1).

    The result is float64[m], NaN for a user without relevant items. Reference: Moffat and Zobel,
    TOIS 2008.

    Args:
        judged: the positions of the relevant items in the lists of m users.
        k: the cut-off. None: the whole list.
        p: the probability that a reader goes on from one item of the list to the next, in (0, 1).

    Raises:
        ConfigError: ``p`` is not between 0 and 1.
    """
    if not 0 < p < 1:
        raise ConfigError(f"rbp: p is {p}; it must lie strictly between 0 and 1")
    return _defined(judged, judged.total(judged.mean_over_places((1 - p) * p ** np.arange(_cut(judged, k)))))


def auc(judged: Judged) -> np.ndarray:
    """Probability that a relevant item ranks above an item that is not relevant, a tie counting half; in [0, 1].

    The result is float64[m]. The metric needs the scores of all candidates
    (:func:`~recsys.evaluation.judging.judge.judge_scores`). A candidate is an item with a score. Relevant
    items that are not candidates rank below all candidates. The value is NaN (undefined) for a user
    without relevant items, and for a user who has candidates that are all relevant. A user who has
    relevant items but no candidates, because the model cannot score the user, has the value 0.

    Args:
        judged: the positions of the relevant items in the lists of m users.

    Raises:
        ConfigError: only the best candidates were ranked.
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
    # Nothing of such a user is above anything, so the share is 0 of any number.
    pairs = np.where(judged.length == 0, 1.0, pairs)
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
"""Name of a gain -> function that takes the values of relevant items and an exponent for each (or one
for all), and returns the gains, divided by 2^exponent."""

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
"""The beginning of the error message if AUC is asked for without the scores of all candidates."""

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
"""Name of a metric -> the function that computes it."""

OPTION_MEANINGS = {
    "gain=binary": "the gain of a relevant item is 1",
    "gain=linear": "the gain of a relevant item is its value",
    "gain=exp": "the gain of a relevant item is 2^value − 1",
    "ips": "each relevant item weighs its propensity^-ips, above and below the line",
    "over=capped": "the divisor is min(k, relevant)",
    "over=relevant": "the divisor is the number of all relevant items",
    "p": "the chance that the reader continues to the next place",
}
"""Option, or option=value -> the text that explains it in the definition of a metric."""


@dataclass(frozen=True)
class Metric(MeasureName):
    """A metric with its options and cut-off.

    Calling it with a :class:`Judged` returns its values. ``str`` returns its name.

    >>> str(parse("ndcg[gain=exp]@10"))
    'ndcg[gain=exp]@10'
    """

    def __call__(self, judged: Judged) -> np.ndarray:
        """Return the value of the metric for each of m users, float64[m]; NaN where it is undefined."""
        return METRICS[self.name](judged, **self.arguments())

    @property
    def definition(self) -> str:
        """The definition of the metric, in one line for reports.

        It is the first line of the docstring of the metric's function, then a sentence for each
        option in the name.
        """
        return self.describe(METRICS[self.name], OPTION_MEANINGS)


def cut_off_caution(metrics: Iterable[str], length: int) -> str:
    """Return a text that names the metrics whose cut-off is larger than the length of the lists.

    The text is empty if there are none.

    Args:
        metrics: names of metrics.
        length: the length of the lists, ``[recommend] k``.

    >>> cut_off_caution(["ndcg@10", "recall@20"], 10)
    'recall@20: lists have 10 places ([recommend] k), so no later place is judged. Raise k for more.'
    """
    too_deep = [name for name in metrics if (parse(name).k or 0) > length]
    if not too_deep:
        return ""
    return (
        f"{', '.join(too_deep)}: lists have {length} places ([recommend] k), so no later place is judged. Raise k for"
        " more."
    )


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
"""One user with a list of two items, the first of which is relevant. A metric that is called with it
checks the values of its options."""


def parse(text: str) -> Metric:
    """Parse the name of a metric, and return the metric.

    Args:
        text: the name, such as ``ndcg[gain=exp]@10``.

    Raises:
        ConfigError: the name or an option is unknown (the message suggests the most similar one), the
            value of an option is not valid, a cut-off is given for a metric that has none, or the
            name is that of an error of predicted ratings (``ratings.DEFINITIONS``).
    """
    name = text.strip().partition("@")[0]
    if name not in METRICS:
        # Imported here, because the readers of tables take a while to load.
        from recsys.evaluation.judging.ratings import DEFINITIONS

        if name in DEFINITIONS:
            raise ConfigError(
                f"metric {text!r}: it judges predicted ratings, but scores that order lists are not ratings. Write a"
                " table of predictions (user_id, item_id, score) and one of ratings (user_id, item_id, value), and"
                f" type: recsys evaluate PREDICTIONS RATINGS -m {name}"
            )
    metric = parse_name(text, METRICS, Metric)
    metric(_ONE)
    return metric


def parse_all(texts: Iterable[str], *, complete: bool = False) -> list[Metric]:
    """Parse the names of several metrics, and return the metrics in the same order.

    Args:
        texts: names as :func:`parse` reads them, for example ``["ndcg@10", "recall@20"]``.
        complete: whether the scores of all candidates are available, which AUC needs.

    Raises:
        ConfigError: names are not valid (one message lists all of them), a metric is named twice,
            or AUC is one of the metrics and ``complete`` is False.
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
    """Return the cut-off k, or a smaller one that gives the same metrics.

    The cut-off is limited to the length of the longest list, or to the largest number of relevant
    items of a user if that is larger. The result is this limit if k is None.
    """
    longest = max(judged.k, int(judged.n_relevant.max(initial=1)))
    return min(k or longest, longest)


def _weights(judged: Judged, ips: float) -> np.ndarray:
    """Return the weight propensity^-ips of each relevant item, float64[nnz]; 1 if ``ips`` is 0.

    Raises:
        ConfigError: ``ips`` is not 0, and the propensities are not known.
    """
    if not ips:
        return np.ones(len(judged.position))
    if judged.propensity is None:
        raise ConfigError("ips weighs items by propensity^-ips: give the items' popularity or propensities")
    return judged.propensity**-ips


def _share(judged: Judged, part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return part / total of each user, float64[m], NaN for a user without relevant items."""
    return np.divide(part, total, out=np.full(len(part), np.nan), where=~judged.undefined)


def _defined(judged: Judged, values: np.ndarray) -> np.ndarray:
    """Return the value of each user, float64[m], replaced by NaN for a user without relevant items."""
    return np.where(judged.undefined, np.nan, values)
