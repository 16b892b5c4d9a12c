"""p-values against scipy, and against counting all orders of a few items."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.evaluation.testing.independence import kendall_pvalues, kendall_test, spearman_pvalues, spearman_test

pytestmark = pytest.mark.filterwarnings("ignore:An input array is constant")


def cases(seed, count=1000):
    """Yield vectors of 2 … 45 scores, from no ties (exact up to 33 items) to nothing but ties."""
    rng = np.random.default_rng(seed)
    for case in range(count):
        n = int(rng.integers(2, 46))
        if case % 2:
            yield rng.permutation(n), rng.permutation(n)
        else:
            yield rng.integers(0, rng.integers(1, 60), n), rng.integers(0, rng.integers(1, 60), n)


def close(found, expected):
    return np.allclose(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def by_id(values):
    return dict(enumerate(values))


@pytest.mark.slow
def test_kendall_equals_scipy():
    for x, y in cases(1):
        expected = scipy.stats.kendalltau(x, y)
        found = kendall_test(by_id(x), by_id(y))
        assert close([found.statistic, found.pvalue], [expected.statistic, expected.pvalue])
        assert found.items == len(x)


@pytest.mark.slow
def test_spearman_equals_scipy():
    for x, y in cases(2):
        if len(x) == 2:
            continue  # scipy: 0 degrees of freedom
        expected = scipy.stats.spearmanr(x, y)
        found = spearman_test(by_id(x), by_id(y))
        assert close([found.statistic, found.pvalue], [expected.statistic, expected.pvalue])
    assert math.isnan(spearman_test("ab", "ba").pvalue)


def test_kendall_counts_all_orders():
    orders = list(itertools.permutations(range(6)))
    far = [sum(x > y for x, y in itertools.combinations(order, 2)) for order in orders]
    for order, inversions in zip(orders[::37], far[::37], strict=True):
        share = np.mean([abs(15 - 2 * other) >= abs(15 - 2 * inversions) for other in far])
        assert kendall_test(list(range(6)), list(order)).pvalue == pytest.approx(share, abs=1e-12)


def test_nearly_perfect_order_of_many_items_is_exact():
    n = 60
    swapped = [1, 0, *range(2, n)]
    expected = scipy.stats.kendalltau(range(n), swapped)
    assert kendall_test(list(range(n)), swapped).pvalue == pytest.approx(expected.pvalue, rel=1e-9)
    assert expected.pvalue < 1e-70


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 30])
def test_size_under_the_null(n):
    """One test in twenty calls independent orders related; 10,000 of them, fixed by the seed."""
    rng = np.random.default_rng(7)
    orders = np.argsort(rng.random((10_000, n)), axis=1)
    pairs = Pairs.row_by_row(Rankings.from_padded(np.tile(np.arange(n), (10_000, 1))), Rankings.from_padded(orders))
    for pvalues in (kendall_pvalues(pairs), spearman_pvalues(pairs)):
        assert 0.04 <= np.mean(pvalues <= 0.05) <= 0.06
