"""Ranking quality: a metric is a function of a :class:`Judged` that gives one number a user, NaN = undefined.

A name is both the request and the label: ``name[option=value,…]@k``, read by :func:`parse`. Every metric is
undefined for a user without any relevant item. An empty list scores 0. Places are taken as they are: ``rank``
has settled ties by then. Definitions side by side with other libraries': docs/metrics.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from recsys.errors import ConfigError, nearest
from recsys.evaluation.judge import Judged
from recsys.evaluation.names import Name, parse_name, parse_names


def precision(judged: Judged, k: int | None = None) -> np.ndarray:
    """Relevant items among the first k, divided by k, in [0, 1]; missing places count as misses.

    Differs from: LensKit divides by the length of the list; ``implicit`` pools hits over users and divides by
    Σ min(k, relevant).
    """
    return _defined(judged, _hits(judged, k) / (k or judged.k))


def recall(judged: Judged, k: int | None = None) -> np.ndarray:
    """Relevant items among the first k, divided by all relevant ones, in [0, 1].

    Differs from: LensKit, Liang et al. 2018 and google-research/ials divide by min(k, relevant): ``capped_recall``.
    """
    return _defined(judged, _hits(judged, k) / _at_least_one(judged))


def capped_recall(judged: Judged, k: int | None = None) -> np.ndarray:
    """Relevant items among the first k, divided by min(k, relevant), in [0, 1]: a perfect list reaches 1."""
    return _defined(judged, _hits(judged, k) / np.minimum(k or judged.k, _at_least_one(judged)))


def hit_rate(judged: Judged, k: int | None = None) -> np.ndarray:
    """1 when any of the first k items is relevant, else 0."""
    return _defined(judged, (_hits(judged, k) > 0).astype(np.float64))


def ndcg(judged: Judged, k: int | None = None, gain: str = "binary") -> np.ndarray:
    """Discounted gain of the first k places over that of the best possible list, in [0, 1].

    DCG = Σ_r g_r / log2(r + 1) for ranks r from 1; the ideal list holds the user's min(k, relevant) best items,
    whether or not they were retrieved. ``gain``: binary (g = 1), linear (g = value), exp (g = 2^value − 1).

    Differs from: RecTools' default divides by k hits however few are relevant; scikit-learn averages over ties.
    Reference: Järvelin and Kekäläinen, TOIS 2002; Burges et al., ICML 2005 (exponential gain).
    """
    shape = {"binary": lambda g: (g > 0).astype(np.float64), "linear": lambda g: g, "exp": lambda g: np.exp2(g) - 1}
    if gain not in shape:
        raise ConfigError(f"ndcg: gain is {gain!r}.{nearest(gain, shape)}")
    k = min(k or judged.k, judged.k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    reached = shape[gain](judged.gains[:, :k]) @ discount
    if gain == "binary":  # the ideal needs no list: it is the sum of the first min(k, relevant) discounts
        best = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(judged.n_relevant, k)]
    else:
        best = shape[gain](judged.ideal[:, :k]) @ discount
    return _defined(judged, reached / np.where(best > 0, best, 1.0))


def average_precision(judged: Judged, k: int | None = None) -> np.ndarray:
    """Mean of the precision at each relevant place, missed ones counting 0, over min(k, relevant); in [0, 1].

    Differs from: trec_eval's map divides by all relevant items.
    """
    k = min(k or judged.k, judged.k)
    places = judged.hits_so_far[:, :k] / np.arange(1, k + 1)
    return _defined(judged, (places * judged.hits[:, :k]).sum(axis=1) / np.minimum(k, _at_least_one(judged)))


def reciprocal_rank(judged: Judged, k: int | None = None) -> np.ndarray:
    """1 / rank of the first relevant item among the first k, 0 when there is none; in [0, 1]."""
    hits = judged.hits[:, : k or judged.k]
    return _defined(judged, np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0))


def r_precision(judged: Judged) -> np.ndarray:
    """Relevant items among the first R places, divided by R, the number of relevant items; in [0, 1].

    Places past the end of the list count as misses, so lists should be at least R long.
    """
    place = np.minimum(_at_least_one(judged), judged.k) - 1
    return _defined(judged, judged.hits_so_far[np.arange(len(place)), place] / _at_least_one(judged))


def rbp(judged: Judged, k: int | None = None, p: float = 0.8) -> np.ndarray:
    """Rank-biased precision (1 − p) Σ_r p^(r−1) hit_r over the first k places, in [0, 1).

    ``p``: chance that the reader goes on to the next place, in (0, 1). Reference: Moffat and Zobel, TOIS 2008.
    """
    if not 0 < p < 1:
        raise ConfigError(f"rbp: p is {p}; it must lie strictly between 0 and 1")
    k = min(k or judged.k, judged.k)
    return _defined(judged, judged.hits[:, :k] @ ((1 - p) * p ** np.arange(k)))


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
}


@dataclass(frozen=True)
class Metric(Name):
    """A metric with its options and cut-off; call it on a Judged, ``str`` gives the name back.

    >>> str(parse("ndcg[gain=exp]@10"))
    'ndcg[gain=exp]@10'
    """

    def __call__(self, judged: Judged) -> np.ndarray:
        """Return float64[m]; NaN = undefined."""
        return METRICS[self.name](judged, **self.arguments())

    @property
    def definition(self) -> str:
        """One line that says what is computed, for metric cards."""
        return (inspect.getdoc(METRICS[self.name]) or "").split("\n")[0]


def parse(text: str) -> Metric:
    """Return the metric that a name asks for.

    Raises:
        ConfigError: unknown name or option (the nearest one is named), a bad value, or a needless cut-off.
    """
    if text.strip().partition("[")[0].partition("@")[0] == "auc":
        raise ConfigError(f"metric {text!r}: AUC needs the scores of all items, and a top-N table has only the best")
    metric = parse_name(text, METRICS, Metric)
    metric(Judged(np.ones((1, 1)), np.ones((1, 1)), np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64)))
    return metric


def parse_all(texts: Iterable[str]) -> list[Metric]:
    """Parse every name; all bad ones are reported in one ConfigError."""
    return parse_names(texts, parse)


def _hits(judged: Judged, k: int | None) -> np.ndarray:
    return judged.hits_so_far[:, min(k or judged.k, judged.k) - 1]


def _at_least_one(judged: Judged) -> np.ndarray:
    return np.maximum(judged.n_relevant, 1)


def _defined(judged: Judged, values: np.ndarray) -> np.ndarray:
    return np.where(judged.undefined, np.nan, values)
