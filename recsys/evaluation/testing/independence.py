"""Tests of independence: two-sided p-values of the hypothesis that two rankings are unrelated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from recsys.evaluation.agreement.measures import spearman, tau_b
from recsys.evaluation.agreement.rankings import ConcordanceCounts, Pairs, RankedList, make_pair

MAX_EXACT_ITEMS = 33
"""The largest number of items for which the exact distribution of tau is used, as in scipy, if no
items are tied. For more items it is used only for (nearly) equal or opposite orders."""


@dataclass(frozen=True)
class IndependenceTest:
    """The result of a test of whether two rankings are unrelated.

    Attributes:
        statistic: the correlation of the two rankings, in [−1, 1]. NaN if it is undefined.
        pvalue: the probability of a correlation at least as far from 0 if the rankings are
            unrelated. NaN if it is undefined.
        items: the number of compared items.
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
    """Test whether two ranked lists are unrelated, by Kendall's tau-b.

    The p-value is two-sided. It comes from the exact distribution of tau if no items are tied, and
    the items are at most :data:`MAX_EXACT_ITEMS`, or at most one pair of items is discordant, or at
    most one is concordant. Otherwise it comes from a normal distribution whose variance is
    corrected for ties. Statistic and p-value are NaN if fewer than two items are compared, or if
    all items of a list are tied. They equal those of ``scipy.stats.kendalltau``. Reference:
    Kendall, Rank correlation methods, 4th edition 1970.

    Args:
        a, b: two ranked lists, as for :func:`~recsys.evaluation.agreement.measures.agree`.
        missing: which items are compared. "intersection": the items that both lists have. "bottom":
            the items that at least one list has; the items that a list lacks are tied below its
            end.

    Raises:
        ConfigError: ``missing`` is neither of the two.
        InputError: a list has an id twice, or a score is NaN.

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
    """Test whether two ranked lists are unrelated, by Spearman's rho.

    The p-value is two-sided. It comes from Student's t distribution with n − 2 degrees of freedom
    for n compared items. It is NaN if n is 2 or less, or if all items of a list are tied. Statistic
    and p-value equal those of ``scipy.stats.spearmanr``. Arguments and errors raised are those of
    :func:`kendall_test`.
    """
    pairs = make_pair(a, b)
    return IndependenceTest(
        float(spearman(pairs, missing)[0]),
        float(spearman_pvalues(pairs, missing)[0]),
        int(pairs.aligned(missing).sizes[0]),
    )


def kendall_pvalues(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Return the p-value of :func:`kendall_test` for each of m pairs of lists, float64[m].

    Args:
        pairs: the pairs of lists.
        missing: "intersection" or "bottom", as in :func:`kendall_test`. "": as ``pairs`` says.
    """
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
    """Return the p-value of :func:`spearman_test` for each of m pairs of lists, float64[m].

    Args:
        pairs: the pairs of lists.
        missing: "intersection" or "bottom", as in :func:`kendall_test`. "": as ``pairs`` says.
    """
    rho = spearman(pairs, missing)
    freedom = pairs.aligned(missing).sizes - 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = rho * np.sqrt(np.maximum(freedom / ((rho + 1) * (1 - rho)), 0))
        pvalues = 2 * stats.t.sf(np.abs(t), np.maximum(freedom, 1))
    return np.where(freedom > 0, pvalues, np.nan)


def _normal_pvalues(counts: ConcordanceCounts) -> np.ndarray:
    """Return the two-sided p-value of each pair of lists from a normal approximation, float64[m].

    The statistic is the number of concordant minus the number of discordant pairs of items. The
    variance is corrected for the ties of both lists. Reference: Kendall 1970, chapter 4.
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
    """Return the distribution function of the number of inversions of a random order of n items.

    The result is float64[largest + 1]. Element i is the probability of at most i inversions. If the
    items are inserted one after the other, the j-th item adds 0, 1, …, or j − 1 inversions with equal
    probability. So the distribution is computed by one sum over a window per item. (The number of
    orders with a given number of inversions is known as a Mahonian number.)
    """
    probability = np.zeros(largest + 1)
    probability[0] = 1.0
    for j in range(2, n + 1):
        window_sum = np.cumsum(probability)
        if j <= largest:
            window_sum[j:] -= window_sum[:-j].copy()
        probability = window_sum / j
    return np.cumsum(probability)
