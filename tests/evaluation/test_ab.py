"""A/B hand-over: against scipy and statsmodels' formulas, and by simulation with known truth."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys.errors import ConfigError, InputError
from recsys.evaluation.testing.ab_test import (
    COVARIATE,
    OUTCOME,
    analyse_experiment,
    assign_arms,
    compare_arms,
    sample_ratio_pvalue,
    users_per_arm,
)

SIMULATIONS = 10_000


def simulated(n, effect, *, correlation=0.0, simulations=SIMULATIONS, seed=0):
    """Return the results of experiments with n users an arm, sd 1 and a covariate of that correlation."""
    rng, treated = np.random.default_rng(seed), np.arange(2 * n) % 2 == 1
    before = rng.normal(size=(simulations, 2 * n))
    noise = rng.normal(size=(simulations, 2 * n))
    y = correlation * before + math.sqrt(1 - correlation**2) * noise + effect * treated
    return [compare_arms(y[s], treated, before[s] if correlation else None) for s in range(simulations)]


def share(values):
    return float(np.mean(np.fromiter(values, dtype=float)))


@pytest.mark.slow
def test_size_is_the_level():
    found = simulated(50, 0.0)
    assert share(row["p"] <= 0.05 for row in found) == pytest.approx(0.05, abs=0.01)
    assert share(row["low"] <= 0 <= row["high"] for row in found) == pytest.approx(0.95, abs=0.01)
    assert share(row["p_always"] <= 0.05 for row in found) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_power_is_what_was_planned(correlation):
    effect = 0.35
    n = users_per_arm(1.0, effect, correlation=correlation)
    found = simulated(n, effect, correlation=correlation, seed=1)
    assert share(row["p"] <= 0.05 for row in found) == pytest.approx(0.8, abs=0.02)


@pytest.mark.slow
def test_cuped_takes_out_the_squared_correlation():
    correlation = 0.6
    found = simulated(100, 0.2, correlation=correlation, simulations=4000, seed=2)
    plain = simulated(100, 0.2, simulations=4000, seed=3)
    ratio = np.var([row["difference"] for row in found]) / np.var([row["difference"] for row in plain])
    assert ratio == pytest.approx(1 - correlation**2, abs=0.05)
    assert share(row["reduction"] for row in found) == pytest.approx(correlation**2, abs=0.01)
    assert share(row["difference"] for row in found) == pytest.approx(0.2, abs=0.01), "unbiased"


@pytest.mark.slow
def test_looking_every_day_keeps_the_level_always_and_breaks_it_otherwise():
    looks, simulations, n = 20, 1000, 50
    rng, treated = np.random.default_rng(4), np.arange(2 * n * looks) % 2 == 1
    ever = np.zeros((simulations, 2), dtype=bool)
    for s in range(simulations):
        y = rng.normal(size=len(treated))
        for look in range(1, looks + 1):
            row = compare_arms(y[: 2 * n * look], treated[: 2 * n * look], expected=0.2)
            ever[s] |= (row["p_always"] <= 0.05, row["p"] <= 0.05)
    assert ever[:, 0].mean() <= 0.05
    assert ever[:, 1].mean() > 0.15


def test_p_and_interval_say_the_same():
    for row in simulated(40, 0.4, simulations=300, seed=5):
        assert (row["p"] <= 0.05) == (not row["low"] <= 0 <= row["high"])
        assert (row["p_always"] <= 0.05) == (not row["always_low"] <= 0 <= row["always_high"])


def test_welch_is_scipys():
    rng = np.random.default_rng(6)
    y, treated = rng.exponential(size=300), rng.random(300) < 0.3
    ours, theirs = compare_arms(y, treated), stats.ttest_ind(y[treated], y[~treated], equal_var=False)
    interval = theirs.confidence_interval()
    assert ours["p"] == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours["low"], ours["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_the_mixture_ratio_is_the_integral():
    """Λ = ∫ N(d; θ, V) N(θ; 0, τ²) dθ / N(d; 0, V), by quadrature."""
    from scipy.integrate import quad

    from recsys.evaluation.testing.ab_test import always_valid_test

    d, v, tau = 0.3, 0.01, 0.2

    def density(theta):
        return stats.norm.pdf(d, theta, v**0.5) * stats.norm.pdf(theta, 0, tau)

    ratio = quad(density, -3, 3, points=[0, d])[0] / stats.norm.pdf(d, 0, v**0.5)
    p, reach = always_valid_test(d, v, tau)
    assert p == pytest.approx(1 / ratio, rel=1e-6)
    assert always_valid_test(reach, v, tau)[0] == pytest.approx(0.05, rel=1e-9)


def test_users_per_arm_of_the_textbook():
    """16 sd² / effect² is the rule of thumb (van Belle); exactly 15.70 at 80 %."""
    assert users_per_arm(1.0, 0.01) == math.ceil(2 * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 * 10_000)
    assert users_per_arm(1.0, 0.01, correlation=0.6) == pytest.approx(users_per_arm(1.0, 0.01) * 0.64, abs=1)
    with pytest.raises(ConfigError, match="effect other than 0"):
        users_per_arm(1.0, 0.0)


def test_assignment_is_deterministic_balanced_and_independent_between_experiments():
    users = pd.Series([f"u{n}" for n in range(40_000)], dtype=object)
    shares = {"control": 0.5, "a": 0.3, "b": 0.2}
    first, second = assign_arms(users, "one", shares), assign_arms(users, "two", shares)
    assert (assign_arms(users[::-1], "one", shares)[::-1] == first).all(), "the order of the users does not matter"
    assert (assign_arms(users[:10], "one", shares) == first[:10]).all(), "nor who else is asked for"
    for found in (first, second):
        assert sample_ratio_pvalue(pd.Series(found).value_counts().to_dict(), shares) > 0.001
    assert stats.chi2_contingency(pd.crosstab(first, second)).pvalue > 0.001
    for bad in ({"control": 1.0}, {"control": 0.5, "b": 0.6}, {"control": 1.5, "b": -0.5}):
        with pytest.raises(ConfigError, match="sum to 1"):
            assign_arms(users, "one", bad)


def test_a_mismatch_is_scipys_and_is_found():
    counts = {"control": 5000, "new": 5300}
    assert sample_ratio_pvalue(counts) == pytest.approx(stats.chisquare([5000, 5300]).pvalue, rel=1e-9)
    assert sample_ratio_pvalue({"control": 50_000, "new": 51_500}) < 0.001, "3 % of one arm lost"
    with pytest.raises(ConfigError, match="name the same"):
        sample_ratio_pvalue(counts, {"control": 0.5, "old": 0.5})


def outcomes(n=60, **changed):
    table = pd.DataFrame({"user_id": range(n), "arm": ["control", "new"] * (n // 2), OUTCOME: np.arange(n) % 7.0})
    return table.assign(**changed)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (outcomes(user_id=1), "59 rows repeat a user"),
        (outcomes(outcome=np.nan), "60 cells of 'outcome' are missing"),
        (outcomes(before=np.inf), "60 cells of 'before' are missing, infinite or no numbers"),
        (outcomes(outcome=["1", "2", "x"] * 20), "20 cells of 'outcome' are .* no numbers, first 'x' in row 3"),
        (outcomes(arm="new"), r"the arms are \['new'\]: 'control' and at least one other arm"),
        (outcomes(n=8), "arm 'control' has 4 users: at least 10 are needed"),
        (outcomes(outcome=3.0), "the same for every user"),
        (outcomes().drop(columns="arm"), "No column 'arm'"),
    ],
)
def test_a_table_that_cannot_be_analysed(table, message):
    with pytest.raises(InputError, match=message):
        analyse_experiment(table)


@pytest.mark.parametrize("expected", [0.0, np.inf, -np.inf, np.nan, 1e300, 1e-300])
def test_an_effect_that_no_outcome_can_have_is_refused(expected):
    table = outcomes(n=90, arm=["control", "new"] * 45)
    with pytest.raises(InputError, match="not an effect that these outcomes can have"):
        analyse_experiment(table, expected=expected)


def test_every_arm_meets_control():
    table = outcomes(n=90, arm=["control", "new", "other"] * 30, **{COVARIATE: np.arange(90) % 5})
    assert [row.arm for row in analyse_experiment(table)] == ["new", "other"]
