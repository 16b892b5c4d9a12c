"""Tests of independence: two-sided p-values of the hypothesis that two rankings are unrelated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from recsys.evaluation.agreement.measures import spearman, tau_b
from recsys.evaluation.agreement.rankings import ConcordanceCounts, Pairs, RankedList, make_pair

MAX_EXACT_ITEMS = 33
"""The largest number of items without ties for which the exact distribution of tau is used,
as in scipy."""


@dataclass(frozen=True)
class IndependenceTest:
    """The result of a test of independence.

    Attributes:
        statistic: the correlation.
        pvalue: the probability of a correlation at least as far from 0 if the rankings are
            unrelated.
        items: the number of items compared.
    """

    statistic: float
    pvalue: float
    items: int


def kendall_test(
    a: RankedList,
    b: RankedList,
    *,
    missing: str = "intersection",
) -> IndependenceTest:
    """Test Kendall's tau-b of two ranked lists.

    The distribution is exact for few items without ties. Otherwise it is approximated by a normal
    distribution whose variance is corrected for ties. NaN where tau is undefined. Equals
    ``scipy.stats.kendalltau``. Reference: Kendall, Rank correlation methods, 4th edition 1970.

    >>> kendall_test("abcde", "abced")
    IndependenceTest(statistic=0.8, pvalue=0.08333333333333333, items=5)
    """
    pairs = make_pair(a, b)
    return IndependenceTest(
        float(tau_b(pairs, missing)[0]),
        float(kendall_pvalues(pairs, missing)[0]),
        int(pairs.aligned(missing).sizes[0]),
    )


def spearman_test(
    a: RankedList,
    b: RankedList,
    *,
    missing: str = "intersection",
) -> IndependenceTest:
    """Test Spearman's rho of two ranked lists by Student's t with n − 2 degrees of freedom.

    NaN where rho is undefined, and for two items. Equals ``scipy.stats.spearmanr``.
    """
    pairs = make_pair(a, b)
    return IndependenceTest(
        float(spearman(pairs, missing)[0]),
        float(spearman_pvalues(pairs, missing)[0]),
        int(pairs.aligned(missing).sizes[0]),
    )


def kendall_pvalues(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Return float64[m], the p-values of :func:`kendall_test` for many pairs."""
    counts = pairs.aligned(missing).counts
    # Without ties the distribution is symmetric, so the smaller count of the two is looked up.
    inversions = np.minimum(counts.discordant, counts.pairs - counts.discordant)
    is_untied = (counts.tied_a == 0) & (counts.tied_b == 0)
    is_small = (counts.items <= MAX_EXACT_ITEMS) | (inversions <= 1)
    is_exact = is_untied & is_small & ~counts.undefined
    pvalues = np.where(counts.undefined, np.nan, _normal_pvalues(counts))
    for n in np.unique(counts.items[is_exact]):
        rows = is_exact & (counts.items == n)
        distribution = _inversion_distribution(int(n), int(inversions[rows].max()))
        pvalues[rows] = np.minimum(1.0, 2 * distribution[inversions[rows]])
    return pvalues


def spearman_pvalues(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Return float64[m], the p-values of :func:`spearman_test` for many pairs."""
    rho = spearman(pairs, missing)
    freedom = pairs.aligned(missing).sizes - 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = rho * np.sqrt(np.maximum(freedom / ((rho + 1) * (1 - rho)), 0))
        pvalues = 2 * stats.t.sf(np.abs(t), np.maximum(freedom, 1))
    return np.where(freedom > 0, pvalues, np.nan)


def _normal_pvalues(counts: ConcordanceCounts) -> np.ndarray:
    """Return two-sided p-values of concordant − discordant from its normal approximation.

    The variance is corrected for the ties of both lists. Reference: Kendall 1970, chapter 4.
    """
    n = counts.items.astype(np.float64)
    third_a, variance_a = counts.moments_a
    third_b, variance_b = counts.moments_b
    m = n * (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (m * (2 * n + 5) - variance_a - variance_b) / 18
        third = np.where(n > 2, third_a * third_b / (9 * m * (n - 2)), 0.0)
        variance += 2 * counts.tied_a * counts.tied_b / m + third
        return special.erfc(np.abs(counts.balance) / np.sqrt(variance) / np.sqrt(2))


def _inversion_distribution(n: int, largest: int) -> np.ndarray:
    """Return float64[largest + 1]: the probability that a random order of n items has at most 0, 1,
    … inversions.

    The j-th inserted item adds 0, 1, …, j − 1 inversions with equal probability. So the number of
    orders with a given number of inversions is a Mahonian number, and the probability is that
    number over n!.
    """
    probability = np.zeros(largest + 1)
    probability[0] = 1.0
    for j in range(2, n + 1):
        window_sum = np.cumsum(probability)
        if j <= largest:
            window_sum[j:] -= window_sum[:-j].copy()
        probability = window_sum / j
    return np.cumsum(probability)
