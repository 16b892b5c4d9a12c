"""Do the tests keep their level, do intervals cover, does the sample-size formula hold? Simulated, with known truth.

    python bench/significance.py

Differences look like those of ranking metrics: half of the users are not touched at all, the others skewed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from results import table, write_section

from recsys.data.hashing import hash_words
from recsys.evaluation.groups import gap
from recsys.evaluation.testing.significance import bootstrap_sums, detectable_effect, holm_adjust, sign_flip_test

SIMULATIONS, BLOCK, RESAMPLES = 10_000, 1000, 999


def skewed(rng: np.random.Generator, m: int, columns: int) -> np.ndarray:
    """Return differences of mean 0: half zeros, else exponential; skewness 2.1."""
    return np.where(rng.random((m, columns)) < 0.5, 0.0, rng.exponential(0.2, (m, columns)) - 0.2)


def symmetric(rng: np.random.Generator, m: int, columns: int) -> np.ndarray:
    """Return differences of two exchangeable models: each user's sign is a coin flip."""
    return skewed(rng, m, columns) * rng.choice([-1.0, 1.0], (m, columns))


def rejections(draw: Callable[[np.random.Generator, int, int], np.ndarray], m: int, shift: float = 0.0) -> np.ndarray:
    """Return the share of simulations in which t, sign flip, percentile and BCa find a difference."""
    found = np.zeros(4)
    for block in range(SIMULATIONS // BLOCK):
        rng = np.random.default_rng([m, block])
        values = draw(rng, m, BLOCK) + shift
        users = hash_words(block, np.arange(m))
        sums = bootstrap_sums(values, users, resamples=RESAMPLES, seed=block)
        flips = sign_flip_test(values, users, resamples=RESAMPLES, seed=block)
        outside = [(low > 0) | (high < 0) for _, low, high in (sums.intervals(), sums.intervals(method="bca"))]
        found += [hits.sum() for hits in (sums.t_test() <= 0.05, flips <= 0.05, *outside)]
    return found / SIMULATIONS


def sizes() -> str:
    """Return how often equal models are told apart."""
    rows = []
    for name, draw in (("exchangeable", symmetric), ("skewed, mean 0", skewed)):
        for m in (20, 50, 200, 1000):
            rows.append([f"{name}, {m} users", *(f"{share:.2%}" for share in rejections(draw, m))])
    heads = ["true difference 0", "t", "sign flip", "percentile interval", "BCa interval"]
    return f"Rejections at 5 % in {SIMULATIONS:,} simulations ({RESAMPLES} resamples):\n\n" + table(heads, rows)


def power() -> str:
    """Return how often the detectable difference is found."""
    rows = []
    for m in (50, 200, 1000):
        sd = float(symmetric(np.random.default_rng(0), 1_000_000, 1).std())
        shift = float(detectable_effect(np.array(sd), np.array(m)))
        rows.append(
            [f"{m} users, difference {shift:.4f}", *(f"{share:.1%}" for share in rejections(symmetric, m, shift))]
        )
    heads = ["true difference = detectable", "t", "sign flip", "percentile interval", "BCa interval"]
    return "Power where the formula promises 80 %:\n\n" + table(heads, rows)


def families() -> str:
    """Return how often a family of 24 true nulls (6 metrics that correlate × 4 models) has any rejection."""
    plain = corrected = 0
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=(100, 4, 1))
        p = bootstrap_sums(
            (0.8 * common + 0.6 * rng.normal(size=(100, 4, 6))).reshape(100, 24), np.arange(100), resamples=1
        ).t_test()
        plain += (p <= 0.05).any()
        corrected += (holm_adjust(p) <= 0.05).any()
    rows = [["none", f"{plain / SIMULATIONS:.1%}"], ["Holm", f"{corrected / SIMULATIONS:.2%}"]]
    return "Any false finding among 24 comparisons of equal models:\n\n" + table(["correction", "share"], rows)


def gaps() -> str:
    """Return how often groups that are alike show a gap."""
    rows, simulations = [], SIMULATIONS // 5
    for groups in (2, 4, 8):
        label = np.repeat(np.arange(groups), 60)
        excluded = 0
        for seed in range(simulations):
            values = np.random.default_rng(seed).random(60 * groups)
            columns = np.where(label[:, None] == np.arange(groups), values[:, None], np.nan)
            sums = bootstrap_sums(columns, hash_words(seed, np.arange(60 * groups)), resamples=300, seed=seed)
            excluded += gap(sums, np.arange(groups), tuple(map(str, range(groups))))["ci95"][0] > 0
        rows.append([f"{groups} groups of 60", f"{excluded / simulations:.1%}"])
    return f"Gaps between equal groups whose interval excludes 0 ({simulations:,} simulations):\n\n" + table(
        ["groups", "share"], rows
    )


if __name__ == "__main__":
    body = "\n\n".join([sizes(), power(), families(), gaps()])
    write_section(
        "significance",
        "Tests, intervals and sample sizes against simulations with known truth",
        "python bench/significance.py",
        body,
    )
