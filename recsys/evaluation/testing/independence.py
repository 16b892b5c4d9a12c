"""Could this agreement be chance? Two-sided tests that two rankings have nothing to do with each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from recsys.evaluation.agreement.measures import spearman, tau_b
from recsys.evaluation.agreement.rankings import ConcordanceCounts, Pairs, RankedList, make_pair

EXACT_ITEMS = 33
"""Without ties, the exact distribution of tau is used up to here, as in scipy; beyond it the normal one is as good."""


@dataclass(frozen=True)
class Test:
    """``statistic``: the measure; ``pvalue``: chance of one as far from 0 without any relation; ``items``: compared."""

    statistic: float
    pvalue: float
    items: int


def kendall_test(a: RankedList, b: RankedList, *, missing: str = "intersection") -> Test:
    """Test Kendall's tau-b of two ranked lists: exactly for few items without ties, else by the normal distribution.

    The normal distribution's variance is corrected for ties. NaN where tau is undefined. Equals
    ``scipy.stats.kendalltau``. Reference: Kendall, Rank correlation methods, 4th edition 1970.

    >>> kendall_test("abcde", "abced")
    Test(statistic=0.8, pvalue=0.08333333333333333, items=5)
    """
    pairs = make_pair(a, b)
    return _single(tau_b(pairs, missing), kendall_pvalues(pairs, missing), pairs.aligned(missing).sizes)


def spearman_test(a: RankedList, b: RankedList, *, missing: str = "intersection") -> Test:
    """Test Spearman's rho of two ranked lists by Student's t with n − 2 degrees of freedom, as scipy does.

    NaN where rho is undefined and for two items.
    """
    pairs = make_pair(a, b)
    return _single(spearman(pairs, missing), spearman_pvalues(pairs, missing), pairs.aligned(missing).sizes)


def kendall_pvalues(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Return float64[m], the p-values of :func:`kendall_test` for many pairs."""
    counts = pairs.aligned(missing).counts
    fewest = np.minimum(counts.discordant, counts.pairs - counts.discordant)
    untied = (counts.tied_a == 0) & (counts.tied_b == 0)
    exact = untied & ((counts.items <= EXACT_ITEMS) | (fewest <= 1)) & ~counts.undefined
    found = np.where(counts.undefined, np.nan, _normal(counts))
    for n in np.unique(counts.items[exact]):
        rows = exact & (counts.items == n)
        tail = _cumulative_inversions(int(n), int(fewest[rows].max()))
        found[rows] = np.minimum(1.0, 2 * tail[fewest[rows]])
    return found


def spearman_pvalues(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Return float64[m], the p-values of :func:`spearman_test` for many pairs."""
    rho, freedom = spearman(pairs, missing), pairs.aligned(missing).sizes - 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = rho * np.sqrt(np.maximum(freedom / ((rho + 1) * (1 - rho)), 0))
        return np.where(freedom > 0, 2 * stats.t.sf(np.abs(t), np.maximum(freedom, 1)), np.nan)


def _normal(counts: ConcordanceCounts) -> np.ndarray:
    """Return two-sided p-values of concordant − discordant, whose variance is corrected for the ties of both lists."""
    n = counts.items.astype(np.float64)
    a, b = counts.moments_a, counts.moments_b
    m = n * (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (m * (2 * n + 5) - a[1] - b[1]) / 18
        variance += 2 * counts.tied_a * counts.tied_b / m + np.where(n > 2, a[0] * b[0] / (9 * m * (n - 2)), 0.0)
        return special.erfc(np.abs(counts.balance) / np.sqrt(variance) / np.sqrt(2))


def _cumulative_inversions(n: int, most: int) -> np.ndarray:
    """Return float64[most + 1]: the chance that a random order of n items has at most 0, 1, … inversions.

    The j-th item adds 0 … j − 1 inversions, each as likely (Mahon's numbers over n!).
    """
    chance = np.zeros(most + 1)
    chance[0] = 1.0
    for j in range(2, n + 1):
        total = np.cumsum(chance)
        total[j:] -= total[:-j].copy() if j <= most else 0.0
        chance = total / j
    return np.cumsum(chance)


def _single(statistic: np.ndarray, pvalue: np.ndarray, items: np.ndarray) -> Test:
    return Test(float(statistic[0]), float(pvalue[0]), int(items[0]))
