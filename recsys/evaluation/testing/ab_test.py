"""From an offline difference to an experiment: how many users, who sees what, and what came of it.

Offline numbers choose what is worth trying; only users who really see one or the other system can say what it does to
them. The outcome is one number a user (bought or not, minutes, revenue), so the user is the unit here too.

References: Deng, Xu, Kohavi and Walker, WSDM 2013 (CUPED); Johari, Koomen, Pekelis and Walsh, KDD 2017 and Operations
Research 2022 (always-valid p-values from the mixture sequential probability ratio test of Robbins 1970); Fabijan et
al., KDD 2019 (sample-ratio mismatch).
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

ARM, OUTCOME, BEFORE = "arm", "outcome", "before"
OUTCOMES = TableSchema("outcomes", (USER, ARM, OUTCOME), (BEFORE,))
MISMATCH = 0.001
"""Below this p-value the arms' sizes do not fit the plan: look for the fault before anything else."""
LEAST = 10
"""Users an arm, at least: below, no interval of a mean can be trusted."""


def users_per_arm(
    sd: float, effect: float, *, correlation: float = 0.0, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Return how many users each of two equal arms needs to find a true difference of means with ``power``.

    2 (z_{1-α/2} + z_power)² sd² (1 - correlation²) / effect²; ``correlation``: of the outcome with the same user's
    value from before, which CUPED takes out. For a rate r, sd is √(r (1 - r)).

    Raises:
        ConfigError: an effect of 0, a negative sd, a correlation outside (-1, 1).

    >>> users_per_arm(sd=1.0, effect=0.1)
    1570
    """
    if not effect or sd <= 0 or not -1 < correlation < 1:
        raise ConfigError("an experiment needs an effect other than 0, sd > 0 and a correlation between -1 and 1")
    z = special.ndtri(1 - alpha / 2) + special.ndtri(power)
    return max(LEAST, math.ceil(2 * (z * sd / effect) ** 2 * (1 - correlation**2)))


def assign(users: Any, name: str, shares: dict[str, float]) -> np.ndarray:
    """Return object[n], the arm of each user: by a hash of (experiment's ``name``, user id) alone.

    The same user is always in the same arm, whoever asks and when; another experiment's name cuts the users anew,
    independently. ``shares``: arm -> share of the users; they sum to 1.

    Raises:
        ConfigError: fewer than two arms, or shares that are not positive or do not sum to 1.
    """
    sizes = np.array(list(shares.values()), dtype=np.float64)
    if len(shares) < 2 or not (sizes > 0).all() or abs(sizes.sum() - 1) > 1e-9:
        raise ConfigError(f"arms {shares}: name two or more, with positive shares that sum to 1.")
    bounds = np.cumsum(sizes)[:-1]
    place = np.searchsorted(bounds, id_hash(users, zlib.crc32(name.encode())), side="right")
    return np.array(list(shares), dtype=object)[place]


@dataclass(frozen=True)
class Outcome:
    """What :func:`analyse` found of one arm against control.

    ``difference`` = mean in the arm - mean in control, with its interval ``low``, ``high`` and ``p`` (Welch's t):
    for one look, at the planned number of users. ``p_always``, ``always_low``, ``always_high``: may be looked at
    every day, and the experiment stopped at will. ``reduction``: share of the variance that CUPED took out.
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


def analyse(
    table: pd.DataFrame,
    *,
    control: str = "control",
    expected: float | None = None,
    alpha: float = 0.05,
) -> list[Outcome]:
    """Compare every other arm with ``control``.

    Args:
        table: user_id, arm, outcome, and optionally ``before``: the same user's value from before the experiment, the
            best of CUPED's covariates; it may be any number that the experiment cannot have changed.
        expected: the effect that was planned for; sets where the always-valid test looks hardest, and must not come
            from these outcomes. None: a tenth of the outcome's standard deviation.

    Raises:
        InputError: a user twice, a missing or infinite number, no such arm, fewer than :data:`LEAST` users in one.
    """
    _check(table, control)
    found = []
    for arm in sorted(set(table[ARM]) - {control}):
        pair = table[table[ARM].isin([arm, control])]
        y, treated = pair[OUTCOME].to_numpy(dtype=np.float64), (pair[ARM] == arm).to_numpy()
        before = pair[BEFORE].to_numpy(dtype=np.float64) if BEFORE in pair else None
        found.append(Outcome(arm, **measure(y, treated, before, expected=expected, alpha=alpha)))
    return found


def measure(
    y: np.ndarray,
    treated: np.ndarray,
    before: np.ndarray | None = None,
    *,
    expected: float | None = None,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Return the fields of :class:`Outcome`, but its arm, from float64[n] outcomes, bool[n] arms, float64[n] before.

    CUPED: y - θ (x - mean x) with θ = cov(x, y) / var(x) within the arms: it has the same mean difference in
    expectation, for the arms were drawn without regard to x, and (1 - correlation²) of the variance.
    """
    arms = (treated, ~treated)
    plain = _variance(y, arms)
    adjusted = y if before is None else y - _slope(y, before, arms) * (before - before.mean())
    one, two = (adjusted[arm] for arm in arms)
    difference, parts = float(one.mean() - two.mean()), [side.var(ddof=1) / len(side) for side in (one, two)]
    variance = float(sum(parts))
    if variance == 0:
        raise InputError("the outcome is the same for every user: there is nothing to compare")
    freedom = variance**2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (one, two), strict=True))
    half = float(special.stdtrit(freedom, 1 - alpha / 2)) * math.sqrt(variance)
    p = float(2 * special.stdtr(freedom, -abs(difference) / math.sqrt(variance)))
    tau = abs(expected) if expected else 0.1 * float(np.std(y))
    p_always, reach = always_valid(difference, variance, tau, alpha)
    return {
        "users": int(treated.sum()),
        "control_users": int((~treated).sum()),
        "mean": float(y[treated].mean()),
        "control_mean": float(y[~treated].mean()),
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "p": p,
        "p_always": p_always,
        "always_low": difference - reach,
        "always_high": difference + reach,
        "reduction": 1 - variance / plain if plain else 0.0,
    }


def always_valid(difference: float, variance: float, tau: float, alpha: float = 0.05) -> tuple[float, float]:
    """Return (p, half width of the 1 - α interval) that stay valid however often one looks: mixture SPRT.

    The likelihood ratio of effects drawn from N(0, τ²) against none is
    Λ = √(V / (V + τ²)) · exp(τ² d² / (2 V (V + τ²))), V the variance of the difference d. Under "no effect" Λ is a
    martingale of mean 1, so it ever exceeds 1/α with probability ≤ α (Ville): p = min(1, 1/Λ). The interval holds all
    effects whose Λ is below 1/α. Valid for normal means with known variance, hence for large samples.
    """
    total = variance + tau**2
    log_ratio = 0.5 * math.log(variance / total) + tau**2 * difference**2 / (2 * variance * total)
    reach = math.sqrt(variance * total / tau**2 * (math.log(total / variance) - 2 * math.log(alpha)))
    return math.exp(-max(log_ratio, 0.0)), reach


def mismatch(counts: dict[str, int], shares: dict[str, float] | None = None) -> float:
    """Return the χ² p-value of the arms' sizes against the planned shares (default: equal).

    Below :data:`MISMATCH` users were lost on one side, or counted twice: no difference can be trusted.

    >>> mismatch({"control": 5000, "new": 5300}) < 0.01
    True
    """
    shares = shares or dict.fromkeys(counts, 1 / len(counts))
    if set(shares) != set(counts):
        raise ConfigError(f"the arms are {sorted(counts)}, the planned shares are of {sorted(shares)}: name the same.")
    total = sum(counts.values())
    chi2 = sum((counts[arm] - total * share) ** 2 / (total * share) for arm, share in shares.items())
    return float(special.chdtrc(len(counts) - 1, chi2))


def _check(table: pd.DataFrame, control: str) -> None:
    if missing := [name for name in OUTCOMES.required if name not in table]:
        hints = "".join(f" No column '{name}'.{suggest_nearest(name, map(str, table.columns))}" for name in missing)
        raise InputError(f"outcomes: the table needs {', '.join(OUTCOMES.required)}.{hints} Rename the columns.")
    if repeated := int(table[USER].duplicated().sum()):
        raise InputError(f"outcomes: {repeated:,} rows repeat a user: add up one number a user first.")
    for column in (OUTCOME, BEFORE):
        if column in table and (bad := int((~np.isfinite(table[column].to_numpy(dtype=np.float64))).sum())):
            raise InputError(
                f"outcomes: {bad:,} cells of '{column}' are missing or infinite: a user without one is a 0."
            )
    sizes = table[ARM].value_counts()
    if control not in sizes.index or len(sizes) < 2:
        raise InputError(
            f"outcomes: the arms are {sorted(sizes.index)}: one must be '{control}', and there must be another."
        )
    if (small := sizes[sizes < LEAST]).size:
        raise InputError(f"outcomes: arm '{small.index[0]}' has {small.iloc[0]} users: {LEAST} are the least.")


def _variance(y: np.ndarray, arms: tuple[np.ndarray, np.ndarray]) -> float:
    return float(sum(y[arm].var(ddof=1) / arm.sum() for arm in arms))


def _slope(y: np.ndarray, x: np.ndarray, arms: tuple[np.ndarray, np.ndarray]) -> float:
    """Return cov(x, y) / var(x) within the arms; 0 for a constant x."""
    centred = np.concatenate([x[arm] - x[arm].mean() for arm in arms])
    squares = float(centred @ centred)
    return float(centred @ np.concatenate([y[arm] for arm in arms])) / squares if squares else 0.0
