"""A/B tests: the number of users, the assignment of users to arms, the analysis of the outcomes.

Offline results show which model to try. Only an experiment shows the effect on users. The outcome
is one number per user (bought or not, minutes, revenue), so the user is the unit of analysis, as in
offline evaluation.

References: Deng, Xu, Kohavi and Walker, WSDM 2013 (CUPED); Johari, Koomen, Pekelis and Walsh, KDD
2017 and Operations Research 2022 (always-valid p-values from the mixture sequential probability
ratio test of Robbins 1970); Fabijan et al., KDD 2019 (sample-ratio mismatch).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from recsys.data.hashing import id_hash
from recsys.errors import ConfigError, InputError, suggest_nearest
from recsys.schema import USER, TableSchema

ARM = "arm"
"""The column with the name of the arm of each user."""
OUTCOME = "outcome"
"""The column with the outcome of each user, a number."""
COVARIATE = "before"
"""The column with the covariate of CUPED, usually the outcome of the user before the experiment."""
MIN_EXPECTED = 1e-6
"""The smallest expected effect that is accepted, in standard deviations of the outcome."""
MAX_EXPECTED = 1e6
"""The largest expected effect that is accepted, in standard deviations of the outcome."""

OUTCOMES = TableSchema("outcomes", (USER, ARM, OUTCOME), (COVARIATE,))
"""The columns of a table of outcomes."""
SAMPLE_RATIO_ALPHA = 0.001
"""If the p-value of :func:`sample_ratio_pvalue` is smaller, the sizes of the arms do not fit the
plan. Find the fault before you use any result."""
MIN_ARM_USERS = 10
"""The smallest number of users in an arm. With fewer, the interval of a mean is not reliable."""


def users_per_arm(
    sd: float,
    effect: float,
    *,
    correlation: float = 0.0,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int:
    """Return the number of users that each of two arms needs.

    With this number a two-sided test detects a difference of means of ``effect`` with the
    probability ``power``. It is 2 (z_{1-α/2} + z_power)² sd² (1 - correlation²) / effect², rounded
    up, and at least :data:`MIN_ARM_USERS`.

    Args:
        sd: standard deviation of the outcome over users. For a rate r it is √(r (1 - r)).
        effect: difference of means to detect, in the unit of the outcome.
        correlation: correlation of the outcome with the covariate of CUPED. CUPED reduces the
            variance by the factor 1 - correlation². 0: without CUPED.
        power: probability with which the effect is detected.
        alpha: level of the test.

    Raises:
        ConfigError: the effect is 0, sd is not positive, or the correlation is outside (-1, 1).

    >>> users_per_arm(sd=1.0, effect=0.1)
    1570
    """
    if not effect or sd <= 0 or not -1 < correlation < 1:
        raise ConfigError(
            "an experiment needs an effect other than 0, sd > 0 and a correlation between -1 and 1",
        )
    z = special.ndtri(1 - alpha / 2) + special.ndtri(power)
    return max(MIN_ARM_USERS, math.ceil(2 * (z * sd / effect) ** 2 * (1 - correlation**2)))


def assign_arms(users: Any, name: str, shares: dict[str, float]) -> np.ndarray:
    """Assign users to arms, and return the name of the arm of each user, object[n].

    The arm depends on a hash of the name of the experiment and the user id. So a user is always in
    the same arm of an experiment. Experiments with different names divide the users independently.
    The sizes of the arms are random: a share is the probability of an arm.

    Args:
        users: n user ids, all integers or all text.
        name: name of the experiment.
        shares: arm -> share of the users. The shares must sum to 1.

    Raises:
        ConfigError: there are fewer than two arms, a share is not positive, or the shares do not
            sum to 1.
    """
    sizes = np.array(list(shares.values()), dtype=np.float64)
    if len(shares) < 2 or not (sizes > 0).all() or abs(sizes.sum() - 1) > 1e-9:
        raise ConfigError(f"arms {shares}: name two or more, with positive shares that sum to 1.")
    bounds = np.cumsum(sizes)[:-1]
    arm_indices = np.searchsorted(bounds, id_hash(users, zlib.crc32(name.encode())), side="right")
    return np.array(list(shares), dtype=object)[arm_indices]


@dataclass(frozen=True)
class ArmResult:
    """The comparison of one arm with control, from :func:`analyse_experiment`.

    Attributes:
        arm: name of the arm.
        users, control_users: number of users in the arm and in control.
        mean, control_mean: means of the outcomes in the arm and in control, without CUPED.
        difference: mean in the arm − mean in control. If there is a covariate, these means are
            adjusted by CUPED, so the difference is not exactly ``mean − control_mean``.
        low, high, p: 1 − α interval of the difference, and two-sided p-value of Welch's t-test.
            They are valid for one analysis at the planned number of users.
        p_always, always_low, always_high: p-value and interval of the difference that stay valid if
            the experiment is analysed every day and stopped at any time.
        reduction: the share of the variance of the difference that CUPED removed, 0 without a
            covariate.
    """

    arm: str
    users: int
    control_users: int
    mean: float
    control_mean: float
    difference: float
    low: float
    high: float
    p: float
    p_always: float
    always_low: float
    always_high: float
    reduction: float


def analyse_experiment(
    table: pd.DataFrame,
    *,
    control: str = "control",
    expected: float | None = None,
    alpha: float = 0.05,
) -> list[ArmResult]:
    """Compare every arm except ``control`` with the arm ``control``.

    The results are in alphabetical order of the arms.

    Args:
        table: one row per user with the columns user_id, arm, outcome, and optionally ``before``,
            the covariate of CUPED. The best covariate is the outcome of the same user before the
            experiment. Any number that the experiment cannot have changed is allowed.
        control: name of the arm to compare with.
        expected: the effect for which the experiment was planned, in the unit of the outcome. The
            always-valid test is most sensitive to effects of this size. It must not be computed
            from these outcomes. None: a tenth of the standard deviation of the outcome.
        alpha: 1 − the confidence level of the intervals.

    Raises:
        InputError: a required column is missing, a user occurs twice, a number is missing or
            infinite, there is no arm ``control`` or no other arm, an arm has fewer than
            :data:`MIN_ARM_USERS` users, all outcomes within the arms are equal, or ``expected`` is
            not a possible effect (:func:`compare_arms`).
    """
    _check_outcomes(table, control)
    results = []
    for arm in sorted(set(table[ARM]) - {control}):
        rows = table[table[ARM].isin([arm, control])]
        outcome = rows[OUTCOME].to_numpy(dtype=np.float64)
        is_treated = (rows[ARM] == arm).to_numpy()
        covariate = None
        if COVARIATE in rows:
            covariate = rows[COVARIATE].to_numpy(dtype=np.float64)
        result = compare_arms(outcome, is_treated, covariate, expected=expected, alpha=alpha)
        results.append(ArmResult(arm, **result))
    return results


def compare_arms(
    outcome: np.ndarray,
    is_treated: np.ndarray,
    covariate: np.ndarray | None = None,
    *,
    expected: float | None = None,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Compare the outcomes of an arm with those of control.

    The result is a dict with the fields of :class:`ArmResult` except ``arm``. CUPED replaces the
    outcome y by y - θ (x - mean x), where x is the covariate and θ = cov(x, y) / var(x) is computed
    within the arms. Users are assigned to arms independently of x. So the expected difference of
    means stays the same, and the variance becomes (1 - correlation²) times the variance of y.

    Args:
        outcome: float64[n].
        is_treated: bool[n], True for users in the arm, False for users in control.
        covariate: float64[n], or None for an analysis without CUPED.
        expected, alpha: as in :func:`analyse_experiment`.

    Raises:
        InputError: the outcome has no variance within the arms, or ``expected`` is not finite, or not
            between :data:`MIN_EXPECTED` and :data:`MAX_EXPECTED` standard deviations of the outcome.
    """
    arms = (is_treated, ~is_treated)
    unadjusted_variance = _difference_variance(outcome, arms)
    adjusted = outcome
    if covariate is not None:
        slope = _within_arm_slope(outcome, covariate, arms)
        adjusted = outcome - slope * (covariate - covariate.mean())
    treatment, control = (adjusted[arm] for arm in arms)
    difference = float(treatment.mean() - control.mean())
    mean_variances = [values.var(ddof=1) / len(values) for values in (treatment, control)]
    variance = float(sum(mean_variances))
    if variance == 0:
        raise InputError("the outcome is the same for every user: there is nothing to compare")
    # Degrees of freedom of Welch and Satterthwaite.
    freedom = variance**2 / sum(
        mean_variance**2 / (len(values) - 1)
        for mean_variance, values in zip(mean_variances, (treatment, control), strict=True)
    )
    half_width = float(special.stdtrit(freedom, 1 - alpha / 2)) * math.sqrt(variance)
    p = float(2 * special.stdtr(freedom, -abs(difference) / math.sqrt(variance)))
    deviation = float(np.std(outcome))
    tau = 0.1 * deviation
    if expected is not None:
        tau = abs(expected)
        if not MIN_EXPECTED * deviation <= tau <= MAX_EXPECTED * deviation:
            raise InputError(
                f"expected: {expected:g} is not an effect that these outcomes can have: their standard deviation is"
                f" {deviation:g}. Give the expected difference of the means, or leave it out."
            )
    p_always, always_half_width = always_valid_test(difference, variance, tau, alpha)
    return {
        "users": int(is_treated.sum()),
        "control_users": int((~is_treated).sum()),
        "mean": float(outcome[is_treated].mean()),
        "control_mean": float(outcome[~is_treated].mean()),
        "difference": difference,
        "low": difference - half_width,
        "high": difference + half_width,
        "p": p,
        "p_always": p_always,
        "always_low": difference - always_half_width,
        "always_high": difference + always_half_width,
        "reduction": 1 - variance / unadjusted_variance if unadjusted_variance else 0.0,
    }


def always_valid_test(
    difference: float,
    variance: float,
    tau: float,
    alpha: float = 0.05,
) -> tuple[float, float]:
    """Test a difference so that the result stays valid if the test is repeated while data arrive.

    The function returns (p-value, half width of the 1 - α interval of the difference). The test is
    the mixture sequential probability ratio test. The likelihood ratio of effects drawn from
    N(0, τ²) to no effect is

        Λ = √(V / (V + τ²)) · exp(τ² d² / (2 V (V + τ²)))

    where d is the difference of means and V its variance. Without an effect, Λ is a martingale of
    mean 1, so the probability that it ever exceeds 1/α is at most α (Ville's inequality). Hence
    p = min(1, 1/Λ), and the interval contains all effects whose Λ is below 1/α. The test is valid
    for normal means with a known variance, and so approximately for large samples.

    Args:
        difference: d.
        variance: V, > 0.
        tau: τ, the expected size of effects, > 0.
        alpha: α, 1 − the confidence level of the interval.
    """
    total = variance + tau**2
    log_ratio = 0.5 * math.log(variance / total) + tau**2 * difference**2 / (2 * variance * total)
    half_width = math.sqrt(
        variance * total / tau**2 * (math.log(total / variance) - 2 * math.log(alpha)),
    )
    return math.exp(-max(log_ratio, 0.0)), half_width


def sample_ratio_pvalue(counts: dict[str, int], shares: dict[str, float] | None = None) -> float:
    """Return the p-value of the χ² test of whether the sizes of the arms fit the planned shares.

    If the p-value is below :data:`SAMPLE_RATIO_ALPHA`, users of one arm were probably lost or
    counted twice, and no difference between the arms can be trusted.

    Args:
        counts: arm -> number of users, for two or more arms.
        shares: arm -> planned share of the users, > 0; they sum to 1. None: equal shares.

    Raises:
        ConfigError: ``counts`` and ``shares`` do not have the same arms.

    >>> sample_ratio_pvalue({"control": 5000, "new": 5300}) < 0.01
    True
    """
    if not shares:
        shares = dict.fromkeys(counts, 1 / len(counts))
    if set(shares) != set(counts):
        raise ConfigError(
            f"the arms are {sorted(counts)}, but shares are planned for {sorted(shares)}: name the same arms."
        )
    total = sum(counts.values())
    chi2 = sum((counts[arm] - total * share) ** 2 / (total * share) for arm, share in shares.items())
    return float(special.chdtrc(len(counts) - 1, chi2))


def _check_outcomes(table: pd.DataFrame, control: str) -> None:
    """Raise InputError if the table does not have what :func:`analyse_experiment` needs."""
    if missing := [name for name in OUTCOMES.required if name not in table]:
        columns = list(map(str, table.columns))
        hints = "".join(f" No column '{name}'.{suggest_nearest(name, columns)}" for name in missing)
        raise InputError(
            f"outcomes: the table needs {', '.join(OUTCOMES.required)}.{hints} Rename the columns.",
        )
    if repeated := int(table[USER].duplicated().sum()):
        raise InputError(
            f"outcomes: {repeated:,} rows repeat a user: aggregate to one row per user first.",
        )
    for column in (OUTCOME, COVARIATE):
        if column not in table:
            continue
        numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
        is_bad = ~np.isfinite(numbers)
        if is_bad.any():
            first = int(is_bad.argmax())
            raise InputError(
                f"outcomes: {int(is_bad.sum()):,} cells of '{column}' are missing, infinite or no numbers, first"
                f" {str(table[column].iloc[first])!r} in row {first + 1}: write 0 for a user without any."
            )
    sizes = table[ARM].value_counts()
    if control not in sizes.index or len(sizes) < 2:
        raise InputError(
            f"outcomes: the arms are {sorted(sizes.index)}: '{control}' and at least one other arm are needed.",
        )
    small = sizes[sizes < MIN_ARM_USERS]
    if small.size:
        raise InputError(
            f"outcomes: arm '{small.index[0]}' has {small.iloc[0]} users: at least {MIN_ARM_USERS} are needed.",
        )


def _difference_variance(outcome: np.ndarray, arms: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the variance of the difference of the means of two arms.

    Args:
        outcome: float64[n].
        arms: two masks, bool[n] each.
    """
    return float(sum(outcome[arm].var(ddof=1) / arm.sum() for arm in arms))


def _within_arm_slope(
    outcome: np.ndarray,
    covariate: np.ndarray,
    arms: tuple[np.ndarray, np.ndarray],
) -> float:
    """Return cov(x, y) / var(x) within the arms, where x is the covariate and y the outcome.

    It is 0 if the covariate is constant within each arm.
    """
    centred = np.concatenate([covariate[arm] - covariate[arm].mean() for arm in arms])
    squares = float(centred @ centred)
    if not squares:
        return 0.0
    return float(centred @ np.concatenate([outcome[arm] for arm in arms])) / squares
