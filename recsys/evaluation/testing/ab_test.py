"""A/B tests: the number of users, the assignment of users to arms,
and the analysis of the outcomes.

Offline results choose what is worth trying; only an experiment shows the effect on users. The
outcome is one number per user (bought or not, minutes, revenue), so the user is the unit of
analysis here as well.

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
OUTCOME = "outcome"
COVARIATE = "before"
OUTCOMES = TableSchema("outcomes", (USER, ARM, OUTCOME), (COVARIATE,))
SAMPLE_RATIO_ALPHA = 0.001
"""A smaller p-value means that the sizes of the arms do not fit the plan;
find the fault before anything else."""
MIN_ARM_USERS = 10
"""The smallest arm that is analysed; with fewer users the interval of a mean cannot be trusted."""


def users_per_arm(
    sd: float,
    effect: float,
    *,
    correlation: float = 0.0,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int:
    """Return the number of users per arm (of two)
    that detects a difference of means ``effect`` with this ``power``.

    2 (z_{1-α/2} + z_power)² sd² (1 - correlation²) / effect², at least :data:`MIN_ARM_USERS`.
    ``correlation`` is that of the outcome with the covariate, whose variance CUPED removes. For a
    rate r, sd is √(r (1 - r)).

    Raises:
        ConfigError: an effect of 0, an sd that is not positive, or a correlation outside (-1, 1).

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
    """Return object[n], the arm of each user, from a hash of (name of the experiment, user id).

    A user is always in the same arm of an experiment. Experiments with different names divide the
    users independently.

    Args:
        shares: arm -> share of the users; they sum to 1.

    Raises:
        ConfigError: fewer than two arms, or shares that are not positive or do not sum to 1.
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
        mean, control_mean: mean outcomes, without CUPED.
        difference, low, high, p: mean in the arm − mean in control, its interval and the p-value of
            Welch's t-test. They are valid for one analysis at the planned number of users.
        p_always, always_low, always_high: p-value and interval that stay valid if the experiment is
            analysed every day and stopped at any time.
        reduction: the share of the variance that CUPED removed.
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
    """Compare each other arm with ``control``.

    Args:
        table: user_id, arm, outcome, and optionally ``before``, the covariate of CUPED: best the
            same user's outcome before the experiment, but any number works that the experiment
            cannot have changed.
        expected: the effect that was planned for. The always-valid test is most sensitive to
            effects of this size. It must not be computed from these outcomes. None: a tenth of the
            outcome's standard deviation.

    Raises:
        InputError: a user twice, a missing or infinite number, no arm ``control``, or fewer than
            :data:`MIN_ARM_USERS` users in an arm.
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
    """Return the fields of :class:`ArmResult` except ``arm``.

    CUPED replaces the outcome y by y - θ (x - mean x) with θ = cov(x, y) / var(x) within the arms,
    where x is the covariate. Users are assigned to arms independently of x, so the expected
    difference of means is the same, and the variance is (1 - correlation²) of the variance of y.

    Args:
        outcome: float64[n].
        is_treated: bool[n], false for users in control.
        covariate: float64[n], or None for an analysis without CUPED.
        expected, alpha: as in :func:`analyse_experiment`.

    Raises:
        InputError: all outcomes are equal.
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
    if expected:
        tau = abs(expected)
    else:
        tau = 0.1 * float(np.std(outcome))
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
    """Return (p, half width of the 1 - α interval) of the mixture sequential probability ratio test (SPRT),
    valid however often they are computed.

    The likelihood ratio of effects drawn from N(0, τ²) to no effect is Λ = √(V / (V + τ²)) · exp(τ²
    d² / (2 V (V + τ²))), where V is the variance of the difference d. Without an effect, Λ is a
    martingale of mean 1, so the probability that it ever exceeds 1/α is at most α (Ville's
    inequality). Hence p = min(1, 1/Λ), and the interval contains all effects whose Λ is below 1/α.
    Valid for normal means with known variance, hence approximately for large samples.
    """
    total = variance + tau**2
    log_ratio = 0.5 * math.log(variance / total) + tau**2 * difference**2 / (2 * variance * total)
    half_width = math.sqrt(
        variance * total / tau**2 * (math.log(total / variance) - 2 * math.log(alpha)),
    )
    return math.exp(-max(log_ratio, 0.0)), half_width


def sample_ratio_pvalue(counts: dict[str, int], shares: dict[str, float] | None = None) -> float:
    """Return the p-value of the χ² test that the sizes
    of the arms fit the planned shares (default: equal shares).

    Below :data:`SAMPLE_RATIO_ALPHA`, users of one arm were lost or counted twice, and no difference
    can be trusted.

    Raises:
        ConfigError: the arms and the planned arms are not the same.

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
    """Raise InputError unless the table is as :func:`analyse_experiment` needs it."""
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
        if bad := int((~np.isfinite(table[column].to_numpy(dtype=np.float64))).sum()):
            raise InputError(
                f"outcomes: {bad:,} cells of '{column}' are missing or infinite: write 0 for a user without any."
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
    """Return the variance of the difference of means of two arms, given as bool[n] masks."""
    return float(sum(outcome[arm].var(ddof=1) / arm.sum() for arm in arms))


def _within_arm_slope(
    outcome: np.ndarray,
    covariate: np.ndarray,
    arms: tuple[np.ndarray, np.ndarray],
) -> float:
    """Return cov(x, y) / var(x) within the arms, x the covariate and y the outcome;
    0 for a constant covariate.
    """
    centred = np.concatenate([covariate[arm] - covariate[arm].mean() for arm in arms])
    squares = float(centred @ centred)
    if not squares:
        return 0.0
    return float(centred @ np.concatenate([outcome[arm] for arm in arms])) / squares
