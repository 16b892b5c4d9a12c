import numpy as np
import pytest
from scipy import stats

from recsys.data.hashing import hash_words
from recsys.evaluation.testing.significance import (
    Sums,
    bca_interval,
    bootstrap_sums,
    detectable_effect,
    holm_adjust,
    mean_ci,
    poisson_weights,
    sign_flip_test,
    users_needed,
)


def draws(rng, m, columns=1):
    """Skewed per-user differences with many zeros, as those of ranking metrics are; their true mean is 0."""
    return np.where(rng.random((m, columns)) < 0.5, 0.0, rng.exponential(0.2, (m, columns)) - 0.2)


def ids(m):
    return np.arange(m, dtype=np.uint64)


def sums_of(values, resamples=500, seed=3):
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    return bootstrap_sums(values, ids(len(values)), resamples=resamples, seed=seed)


def test_parts_of_the_users_in_any_order_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    values = rng.random((300, 3))
    values[rng.random((300, 3)) < 0.2] = np.nan
    whole = bootstrap_sums(values, ids(300), resamples=200, seed=1)
    order = rng.permutation(300)
    parts = [bootstrap_sums(values[rows], ids(300)[rows], resamples=200, seed=1) for rows in np.split(order, [20, 170])]
    added = parts[0] + parts[1] + Sums.from_bytes(parts[2].to_bytes(), 200)
    for name in ("mean", "sd", "acceleration"):
        np.testing.assert_allclose(getattr(added, name), getattr(whole, name), rtol=1e-9)
    np.testing.assert_allclose(added.intervals(), whole.intervals(), rtol=1e-9)
    np.testing.assert_allclose(added.t_test(), whole.t_test(), rtol=1e-9)


def test_moments_are_those_of_the_defined_values():
    values = np.array([[0.1, np.nan], [0.5, 0.25], [0.7, np.nan], [0.0, np.nan]])
    sums = sums_of(values)
    np.testing.assert_allclose(sums.mean, [1.3 / 4, 0.25])
    np.testing.assert_allclose(sums.sd[0], np.std([0.1, 0.5, 0.7, 0], ddof=1))
    assert np.isnan(sums.sd[1])
    np.testing.assert_array_equal(sums.count, [4, 1])
    skew = stats.skew([0.1, 0.5, 0.7, 0])
    np.testing.assert_allclose(sums.acceleration[0], skew / (6 * np.sqrt(4)))


def test_the_bootstrap_weighs_each_user_by_poisson_one():
    weights = poisson_weights(ids(2000), 500, seed=9)
    share = np.bincount(weights.astype(int).ravel(), minlength=8) / weights.size
    np.testing.assert_allclose(share[:8], stats.poisson(1).pmf(np.arange(8)), atol=2e-3)
    np.testing.assert_array_equal(weights[5:9, :80], poisson_weights(ids(2000)[5:9], 80, seed=9))
    assert not np.array_equal(weights, poisson_weights(ids(2000), 500, seed=10))
    between = np.corrcoef(weights[:50].astype(float))
    assert np.abs(between - np.eye(50)).max() < 0.25


def test_a_resampled_mean_is_the_weighted_mean():
    values = np.array([0.3, np.nan, 0.9, 0.1])
    sums = sums_of(values, resamples=7, seed=2)
    weights = poisson_weights(ids(4), 7, seed=2)
    for r in range(7):
        total = sum(w for w, v in zip(weights[:, r], values, strict=True) if not np.isnan(v))
        expected = np.nansum(weights[:, r] * values) / total if total else np.nanmean(values)
        assert sums.resampled_means[r, 0] == pytest.approx(expected)


def test_t_test_equals_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.random((40, 6)), rng.random((40, 6))
    np.testing.assert_allclose(sums_of(a - b).t_test(), stats.ttest_rel(a, b).pvalue, rtol=1e-10)
    a[rng.random(a.shape) < 0.3] = np.nan
    expected = stats.ttest_rel(a, b, nan_policy="omit").pvalue
    np.testing.assert_allclose(sums_of(a - b).t_test(), expected, rtol=1e-10)


@pytest.mark.parametrize(("values", "p"), [([0.0] * 5, 1.0), ([0.1] * 5, 0.0), ([0.3], np.nan), ([np.nan] * 3, np.nan)])
def test_t_test_without_spread_or_users(values, p):
    np.testing.assert_array_equal(sums_of(values).t_test(), [p])


def test_bca_equals_scipy_on_its_own_resamples():
    values = np.random.default_rng(2).exponential(size=30)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(3))
    sums = sums_of(values)
    ends = bca_interval(
        theirs.bootstrap_distribution[:, None], values.mean(keepdims=True), sums.acceleration, np.array([0.025, 0.975])
    )
    np.testing.assert_allclose(np.ravel(ends), theirs.confidence_interval, rtol=1e-9)


def test_intervals_agree_with_scipy_within_resampling_noise():
    values = np.random.default_rng(4).exponential(size=400)
    for method, name in (("percentile", "percentile"), ("bca", "BCa")):
        theirs = stats.bootstrap((values,), np.mean, n_resamples=9999, method=name, rng=np.random.default_rng(5))
        ours = mean_ci(values, resamples=9999, method=method)[1:]
        np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.08 * values.std() / np.sqrt(400))


def test_an_interval_without_values_or_spread():
    assert np.isnan(mean_ci(np.array([np.nan, np.nan]))).all()
    assert mean_ci(np.full(5, 0.25), method="bca") == (0.25, 0.25, 0.25)


def test_randomisation_of_few_users_is_scipys_exact_test():
    rng = np.random.default_rng(6)
    a, b = rng.random((10, 4)).round(1), rng.random((10, 4)).round(1)
    exact = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf, axis=0
    )
    np.testing.assert_allclose(sign_flip_test(a - b), exact.pvalue, rtol=1e-12)


def test_random_flips_come_close_to_the_exact_test_and_depend_on_users_alone():
    rng = np.random.default_rng(7)
    differences = rng.normal(0.25, 1, (16, 3))
    exact = sign_flip_test(differences, resamples=2**16)
    users = hash_words(0, np.arange(16))
    random = sign_flip_test(differences, users, resamples=19_999, seed=1)
    np.testing.assert_allclose(random, exact, atol=4 * np.sqrt(0.25 / 19_999))
    order = rng.permutation(16)
    np.testing.assert_array_equal(sign_flip_test(differences[order], users[order], resamples=19_999, seed=1), random)


def test_a_difference_that_every_user_shows_has_the_least_p():
    assert sign_flip_test(np.full(30, 0.1), resamples=999) == pytest.approx(1 / 1000)
    assert sign_flip_test(np.full(6, 0.1)) == pytest.approx(2 / 2**6)
    assert sign_flip_test(np.zeros(30)) == 1.0
    assert np.isnan(sign_flip_test(np.full(30, np.nan)))


def test_undefined_users_change_no_p():
    differences = np.random.default_rng(8).normal(0.2, 1, 9)
    with_gaps = np.r_[differences, np.nan, np.nan]
    np.testing.assert_allclose(sign_flip_test(with_gaps), sign_flip_test(differences))


@pytest.mark.parametrize("m", [30, 200])
def test_size_under_the_null(m):
    """1,000 pairs of equal models each: the tests reject 5 % of them, within four standard errors."""
    differences = draws(np.random.default_rng(m), m, 1000)
    differences *= np.where(np.random.default_rng(1).random(differences.shape) < 0.5, 1, -1)  # models are exchangeable
    slack = 4 * np.sqrt(0.05 * 0.95 / 1000)
    sums = sums_of(differences, resamples=999)
    low, high = sums.intervals()[1:]
    for p in (sums.t_test(), sign_flip_test(differences, resamples=1999)):
        assert abs((p <= 0.05).mean() - 0.05) < slack
    assert abs(((low > 0) | (high < 0)).mean() - 0.05) < slack + 0.5 / m  # the percentile interval is a little short


def test_holm_by_hand():
    # sorted .005 .01 .03 .04 -> ×4 ×3 ×2 ×1 = .02 .03 .06 .04, the last raised to the one before it
    np.testing.assert_allclose(holm_adjust(np.array([[0.01, 0.04], [0.03, 0.005]])), [[0.03, 0.06], [0.06, 0.02]])
    np.testing.assert_allclose(holm_adjust(np.array([0.02, np.nan, 0.9])), [0.04, np.nan, 0.9])
    np.testing.assert_allclose(holm_adjust(np.array([0.6, 0.7])), [1, 1])
    assert holm_adjust(np.array([])).shape == (0,)


def test_holm_rejects_as_its_procedure_does():
    rng = np.random.default_rng(11)
    for _ in range(200):
        p = rng.random(6) ** 3
        rejected = np.zeros(6, dtype=bool)
        for step, place in enumerate(np.argsort(p)):
            if p[place] > 0.05 / (6 - step):
                break
            rejected[place] = True
        np.testing.assert_array_equal(holm_adjust(p) <= 0.05, rejected)


def test_the_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(12)
    sd, m, simulations = 0.3, 150, 4000
    true = float(detectable_effect(np.array(sd), np.array(m)))
    assert users_needed(sd, true) in (m, m + 1)
    p = sums_of(rng.normal(true, sd, (m, simulations)), resamples=1).t_test()
    assert abs((p <= 0.05).mean() - 0.8) < 4 * np.sqrt(0.16 / simulations) + 0.005


def test_users_needed():
    assert users_needed(1.0, 1.0) == 8  # (1.960 + 0.842)² = 7.85
    assert users_needed(0.5, -0.1) == 197
    assert users_needed(0.1, 5.0) == 2
    with pytest.raises(ValueError, match="difference of 0"):
        users_needed(1.0, 0.0)
