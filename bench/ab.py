"""Does the A/B hand-over keep its promises? Simulated experiments with known truth.

python bench/ab.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from results import table, write_section

from recsys.evaluation.testing.ab_test import SAMPLE_RATIO_ALPHA, compare_arms, sample_ratio_pvalue, users_per_arm

SIMULATIONS = 10_000
Draw = Callable[[np.random.Generator, int], np.ndarray]

OUTCOMES: dict[str, tuple[Draw, float, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 1.0, 0.2),
    "bought or not, 10 %": (lambda rng, n: (rng.random(n) < 0.1).astype(float), 0.3, 0.06),
    "revenue: 90 % zeros, else exponential": (
        lambda rng, n: np.where(rng.random(n) < 0.1, rng.exponential(1.0, n), 0.0),
        (2 * 0.1 - 0.01) ** 0.5,
        0.06,
    ),
}
"""Name -> (draw of outcomes, their sd, the effect to find)."""


def rates(draw: Draw, n: int, effect: float, seed: int) -> tuple[float, float, float]:
    """Return the shares of experiments with p ≤ 0.05, with p_always ≤ 0.05, and whose interval holds the truth."""
    rng, treated = np.random.default_rng(seed), np.arange(2 * n) % 2 == 1
    found = np.zeros(3)
    for _ in range(SIMULATIONS):
        row = compare_arms(draw(rng, 2 * n) + effect * treated, treated, expected=effect or None)
        found += (row["p"] <= 0.05, row["p_always"] <= 0.05, row["low"] <= effect <= row["high"])
    return tuple(found / SIMULATIONS)


def cuped(correlation: float) -> tuple[float, float]:
    """Return the ratio of the estimates' variances with and without CUPED, and 1 - correlation²."""
    rng, treated = np.random.default_rng(7), np.arange(400) % 2 == 1
    pairs = []
    for _ in range(SIMULATIONS):
        before = rng.normal(size=400)
        y = correlation * before + (1 - correlation**2) ** 0.5 * rng.normal(size=400)
        pairs.append([compare_arms(y, treated, x)["difference"] for x in (before, None)])
    adjusted, plain = np.var(pairs, axis=0)
    return adjusted / plain, 1 - correlation**2


def peeking(looks: int, n: int) -> tuple[float, float]:
    """Return how often p and p_always were ever ≤ 0.05 in so many looks at an experiment without effect."""
    rng, treated, ever = np.random.default_rng(8), np.arange(2 * n * looks) % 2 == 1, np.zeros(2)
    for _ in range(SIMULATIONS // 5):
        y = rng.normal(size=len(treated))
        rows = [compare_arms(y[: 2 * n * s], treated[: 2 * n * s], expected=0.2) for s in range(1, looks + 1)]
        ever += [any(row[key] <= 0.05 for row in rows) for key in ("p", "p_always")]
    return tuple(ever / (SIMULATIONS // 5))


def main() -> None:
    """Simulate and write the section."""
    rows = []
    for place, (name, (draw, sd, effect)) in enumerate(OUTCOMES.items()):
        n = users_per_arm(sd, effect)
        null, power = rates(draw, n, 0.0, place), rates(draw, n, effect, 10 + place)
        rows.append([name, f"{n:,}", f"{null[0]:.4f}", f"{null[1]:.4f}", f"{power[0]:.4f}", f"{power[2]:.4f}"])
    heads = ["outcome", "users an arm", "size", "size, always-valid", "power (planned 0.8)", "coverage of 95 %"]
    reduced = [[f"{rho:.1f}", *(f"{value:.4f}" for value in cuped(rho))] for rho in (0.3, 0.6, 0.9)]
    once, always = peeking(20, 50)
    rng = np.random.default_rng(9)
    fair, lost = (
        np.mean(
            [
                sample_ratio_pvalue({"a": int(a), "b": 20_000 - int(a)}) < SAMPLE_RATIO_ALPHA
                for a in rng.binomial(20_000, share, 10_000)
            ]
        )
        for share in (0.5, 0.48)
    )
    write_section(
        "ab",
        "Experiments: size, power, CUPED, looking early",
        "python bench/ab.py",
        f"{SIMULATIONS:,} simulated experiments a cell.\n\n{table(heads, rows)}\n\n"
        + table(["correlation", "variance with CUPED / without", "1 - correlation²"], reduced)
        + f"\n\nLooking 20 times at an experiment without effect: p is ≤ 0.05 at some look in {once:.1%}, the"
        f" always-valid p in {always:.1%}. Sample-ratio check at {SAMPLE_RATIO_ALPHA:g}, 20,000 users: alarms in"
        f" {fair:.2%} when the arms are fair, in {lost:.1%} when one gets 48 %.",
    )


if __name__ == "__main__":
    main()
