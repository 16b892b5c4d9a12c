"""How far a mean over users could be off, and whether two models differ: intervals, tests, and what a test can see.

Read them in this order: the difference, its interval, then the p-value. With many users any difference is
"significant"; whether it matters is for the size to say.

Everything an interval or a t-test needs is a sum over users (:class:`Sums`), so that a cluster adds up its parts and
gets what one machine gets. The bootstrap gives every user a Poisson(1) weight in every resample and the randomisation
test a sign, both drawn by hashing (seed, user, resample): they depend on the users and their values alone, not on
order, blocks or engine, and two models judged on the same users are resampled alike.

References: Efron and Tibshirani 1993, chapters 13-14 (percentile, BCa); Chamandy et al. 2012 (Poisson weights);
Smucker, Allan and Carterette 2007 (randomisation against t); Ihemelandu and Ekstrand 2023
(with thousands of users Wilcoxon and sign tests err too often; these do not); Holm 1979.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import special

from recsys.data.hashing import hash_words

Method = Literal["percentile", "bca"]

_CUMULATIVE = np.cumsum([math.exp(-1) / math.factorial(n) for n in range(12)])
_POISSON = np.searchsorted(_CUMULATIVE, (np.arange(2**16) + 0.5) / 2**16).astype(np.float32)
"""The Poisson(1) quantile of each 16-bit number: exact to 2^-17."""


@dataclass(frozen=True)
class Sums:
    """Sums over users that give means, intervals and t-tests: add the parts of any partition of the users.

    ``moments``: float64[4, c], the number of defined values and the sums of their first three powers.
    ``resampled``, ``weight``: float64[resamples, c], the weighted sum of the values and of the weights.
    """

    moments: np.ndarray
    resampled: np.ndarray
    weight: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.moments + other.moments, self.resampled + other.resampled, self.weight + other.weight)

    @classmethod
    def beside(cls, parts: list[Sums]) -> Sums:
        """Return the sums of other columns, or of some of the users, next to each other."""
        columns = zip(*((p.moments, p.resampled, p.weight) for p in parts), strict=True)
        return cls(*(np.concatenate(arrays, axis=1) for arrays in columns))

    def to_bytes(self) -> bytes:
        """Return the sums as bytes, for the way from an executor to the driver."""
        return np.concatenate([self.moments, self.resampled, self.weight]).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, resamples: int) -> Sums:
        """Undo :meth:`to_bytes`."""
        rows = np.frombuffer(data, dtype=np.float64).reshape(4 + 2 * resamples, -1)
        return cls(rows[:4], rows[4 : 4 + resamples], rows[4 + resamples :])

    @property
    def count(self) -> np.ndarray:
        """Return float64[c]: users with a defined value."""
        return self.moments[0]

    @cached_property
    def mean(self) -> np.ndarray:
        """Return float64[c], NaN without a defined value."""
        return _ratio(self.moments[1], self.count)

    @cached_property
    def means(self) -> np.ndarray:
        """Return float64[resamples, c], the mean of each resample; the mean itself where all weights are 0."""
        return np.where(self.weight > 0, _ratio(self.resampled, self.weight), self.mean)

    @cached_property
    def sd(self) -> np.ndarray:
        """Return float64[c], the standard deviation over users (n - 1); NaN for fewer than two.

        Exactly 0 where the values are constant to rounding: the sums know it to one part in 10^12 only.
        """
        squares = self.moments[2] - self.count * self.mean**2
        squares = np.where(squares > 1e-12 * self.moments[2], squares, 0.0)
        return np.sqrt(_ratio(squares, np.where(self.count > 1, self.count - 1, 0)))

    @cached_property
    def acceleration(self) -> np.ndarray:
        """Return float64[c], the jackknife's acceleration of a mean: skewness / (6 √n); 0 for constant values."""
        n, mean = self.count, self.mean
        cubes = self.moments[3] - 3 * mean * self.moments[2] + 2 * n * mean**3
        squares = self.sd**2 * (n - 1)
        return np.where(squares > 0, _ratio(cubes, 6 * squares**1.5), 0.0)

    def intervals(
        self, level: float = 0.95, method: Method = "percentile"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (mean, low, high), float64[c] each; NaN for a column without any defined value."""
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "percentile":
            low, high = np.quantile(self.means, tails, axis=0)
        else:
            low, high = bca_ends(self.means, self.mean, self.acceleration, tails)
        return self.mean, low, high

    def t_test(self) -> np.ndarray:
        """Return float64[c], the two-sided p-value of "the mean is 0" (of differences: the paired t-test).

        Undefined (NaN) for fewer than two users; 1 when all values are 0, 0 when they are one other constant.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            t = self.mean * np.sqrt(self.count) / self.sd
        p = 2 * special.stdtr(np.maximum(self.count - 1, 1), -np.abs(t))
        return np.where(self.count < 2, np.nan, np.where((self.sd == 0) & (self.mean == 0), 1.0, p))


def bootstrap_sums(values: np.ndarray, users: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Sums:
    """Return the sums of float64[m, c] per-user values, NaN = undefined and left out of its column.

    ``users``: uint64[m], a number that stands for each user (``data.hashing.id_bits``).
    """
    columns = values.shape[1]
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    resampled, weight = np.zeros((resamples, columns)), np.zeros((resamples, columns))
    for rows in _blocks(len(values), resamples):
        drawn = poisson_weights(users[rows], resamples, seed).T.astype(np.float64)
        resampled += drawn @ filled[rows]
        weight += drawn @ defined[rows].astype(np.float64)
    moments = np.stack([defined.sum(axis=0), *((filled**power).sum(axis=0) for power in (1, 2, 3))]).astype(np.float64)
    return Sums(moments, resampled, weight)


def poisson_weights(users: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return float32[m, resamples] of Poisson(1) weights: whole numbers that depend on user, resample and seed."""
    return _POISSON[_bits(users, resamples * 16, seed).view(np.uint16)][:, :resamples]


def mean_ci(
    values: np.ndarray,
    users: np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    method: Method = "percentile",
) -> tuple[float, float, float]:
    """Return (mean, low, high) of float64[m]: the mean of the defined values and its bootstrap interval.

    Undefined (all NaN) without a defined value. A difference of two models is the mean of their difference.
    ``bca`` corrects the percentiles for bias and skewness (:func:`bca_ends`); with hundreds of users they agree, with
    few it errs more often on values that are mostly 0, as those of ranking metrics are (bench/RESULTS.md).

    >>> mean_ci(np.array([1.0, 1.0, np.nan]))
    (1.0, 1.0, 1.0)
    """
    users = np.arange(len(values), dtype=np.uint64) if users is None else users
    sums = bootstrap_sums(np.asarray(values, dtype=np.float64)[:, None], users, resamples=resamples, seed=seed)
    mean, low, high = sums.intervals(level, method)
    return float(mean[0]), float(low[0]), float(high[0])


def bca_ends(
    means: np.ndarray, mean: np.ndarray, acceleration: np.ndarray, tails: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high), float64[c]: quantiles of the resamples, moved for bias and skewness.

    Quantile Φ(z₀ + (z₀ + z) / (1 - a (z₀ + z))) for z = Φ⁻¹(tail), where Φ(z₀) is the share of resamples below the
    mean (half of the equal ones) and a the jackknife's acceleration. Efron 1987; Efron and Tibshirani 1993, 14.3.

    Args:
        means: float64[resamples, c]; ``mean``, ``acceleration``: float64[c]; ``tails``: the two tails' shares.
    """
    below = ((means < mean).mean(axis=0) + (means <= mean).mean(axis=0)) / 2
    edge = 0.5 / len(means)  # without it one-sided resamples give an infinite z₀
    z0 = special.ndtri(np.clip(below, edge, 1 - edge))
    z = z0 + special.ndtri(tails)[:, None]
    wanted = special.ndtr(z0 + z / (1 - acceleration * z))
    ends = [np.array([np.quantile(means[:, c], wanted[t, c]) for c in range(means.shape[1])]) for t in (0, 1)]
    return ends[0], ends[1]


def sign_flip_test(
    differences: np.ndarray, users: np.ndarray | None = None, *, resamples: int = 9999, seed: int = 0
) -> np.ndarray:
    """Return float64[c], the two-sided p-value of the paired randomisation test for float64[m, c] differences.

    If two models are exchangeable for each user, the sign of his difference is a coin flip. p is the share of flips,
    the observed one included, whose |sum| is at least the observed: exact, whatever the distribution. All 2^m flips
    are tried when there are no more than ``resamples`` of them, else so many random ones and p ≥ 1 / (resamples + 1).

    NaN = undefined, left out of its column; a column without any is NaN. One column may come as float64[m].
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    m, columns = values.shape
    filled = np.nan_to_num(values)
    observed = np.abs(filled.sum(axis=0)) * (1 - 1e-12)  # sums that differ by rounding alone are equal
    if m < 63 and 2**m <= resamples:
        signs = 1.0 - 2.0 * ((np.arange(2**m)[:, None] >> np.arange(m)) & 1)
        p = (np.abs(signs @ filled) >= observed).mean(axis=0)
    else:
        users = np.arange(m, dtype=np.uint64) if users is None else users
        flipped = np.zeros((resamples, columns))
        for rows in _blocks(m, resamples):
            bits = np.unpackbits(_bits(users[rows], resamples, seed).view(np.uint8), axis=1)[:, :resamples]
            flipped += (1.0 - 2.0 * bits).T @ filled[rows]
        p = (1 + (np.abs(flipped) >= observed).sum(axis=0)) / (1 + resamples)
    return np.where(np.isnan(values).all(axis=0), np.nan, p)


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values of any shape: reject where they are ≤ α, and the family errs with ≤ α.

    The i-th smallest of n is multiplied by n - i + 1, and none may be less than one before it. NaN stays out of
    the family. Holds under any dependence. Reference: Holm 1979.

    >>> holm(np.array([0.01, 0.04, 0.03, 0.005])).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p, dtype=np.float64)
    flat, adjusted = p.ravel(), np.full(p.size, np.nan)
    order = np.argsort(flat, kind="stable")[: int((~np.isnan(flat)).sum())]
    steps = flat[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.reshape(p.shape)


def detectable(sd: np.ndarray, users: np.ndarray, *, power: float = 0.8, alpha: float = 0.05) -> np.ndarray:
    """Return the minimal detectable effect: the true difference that a two-sided test finds with ``power``.

    (z_{1-α/2} + z_power) · sd / √users, where sd is that of the paired differences. Undefined without users.

    >>> float(detectable(np.array(0.2), np.array(400)).round(4))
    0.028
    """
    return _ratio((special.ndtri(1 - alpha / 2) + special.ndtri(power)) * np.asarray(sd), np.sqrt(users))


def users_needed(sd: float, difference: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return how many users a paired two-sided test needs to find a true ``difference`` with ``power``.

    Raises:
        ValueError: ``difference`` is 0.

    >>> users_needed(0.2, 0.028)
    401
    """
    if not difference:
        raise ValueError("no number of users shows a difference of 0")
    return max(
        2, math.ceil((float(detectable(np.array(sd), np.array(1.0), power=power, alpha=alpha)) / difference) ** 2)
    )


def _blocks(m: int, resamples: int) -> list[slice]:
    size = max(1, (1 << 22) // resamples)
    return [slice(start, start + size) for start in range(0, m, size)]


def _bits(users: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return uint64[m, ⌈n / 64⌉] of random bits, the same for a user whoever stands beside him."""
    words = np.arange(-(-n // 64), dtype=np.uint64)
    return np.ascontiguousarray(hash_words(seed, np.asarray(users, dtype=np.uint64)[:, None], words[None, :]))


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Return over / under, NaN where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(under) > 0, np.divide(over, under), np.nan)
