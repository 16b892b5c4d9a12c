"""Confidence intervals of means over users, tests of differences between models, and their power.

Read the results in this order: the difference, its interval, then the p-value. With many users any
difference is "significant". Whether it matters depends on its size.

Everything that an interval or a t-test needs is a sum over users (:class:`Sums`). So a cluster adds
the sums of its partitions and gets the results of one machine. The bootstrap gives every user a
Poisson(1) weight in every resample, and the randomisation test gives every user a random sign. Both
are hashes of (seed, user, resample). So the results do not depend on the order of users, on the
blocks or on the engine. Two models that are judged on the same users are resampled in the same way.

References: Efron and Tibshirani 1993, chapters 13-14 (percentile, BCa). Chamandy et al. 2012
(Poisson weights). Smucker, Allan and Carterette 2007 (comparison of the randomisation test and the
t-test). Ihemelandu and Ekstrand 2023 (with thousands of users, Wilcoxon and sign tests reject too
often, unlike the tests of this module). Holm 1979.
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
"""How the ends of a bootstrap interval are computed: as percentiles of the resampled means, or as
:func:`bca_interval` does."""

_POISSON_CDF = np.cumsum([math.exp(-1) / math.factorial(n) for n in range(12)])
_POISSON_QUANTILES = np.searchsorted(_POISSON_CDF, (np.arange(2**16) + 0.5) / 2**16).astype(
    np.float32,
)
"""The Poisson(1) quantile of each 16-bit number. Probabilities are exact to 2^-17."""

BLOCK_CELLS = 1 << 22
"""The number of random cells (users × resamples) per block, which limits the memory."""


@dataclass(frozen=True)
class Sums:
    """Sums over users of c columns of values, from which means, intervals and t-tests are computed.

    A column has one value per user, for example a metric of a model. A value that is NaN is undefined
    and not part of any sum. If users are divided into parts, the Sums of the parts add up to the Sums
    of all users.

    Attributes:
        moments: float64[4, c], for each column: the number of defined values, the sum of the values,
            of their squares and of their cubes.
        resampled: float64[resamples, c], the weighted sum of the values in each bootstrap resample.
        weights: float64[resamples, c], the sum of the weights in each bootstrap resample.
    """

    moments: np.ndarray
    resampled: np.ndarray
    weights: np.ndarray

    def __add__(self, addend: Sums) -> Sums:
        return Sums(
            self.moments + addend.moments,
            self.resampled + addend.resampled,
            self.weights + addend.weights,
        )

    @classmethod
    def hstack(cls, parts: list[Sums]) -> Sums:
        """Return Sums with the columns of all parts, one part after the other.

        The parts must have the same number of resamples. They may be sums over different users.
        """
        columns = zip(*((part.moments, part.resampled, part.weights) for part in parts), strict=True)
        return cls(*(np.concatenate(arrays, axis=1) for arrays in columns))

    def to_bytes(self) -> bytes:
        """Return the sums as bytes, to send them from an executor to the driver."""
        return np.concatenate([self.moments, self.resampled, self.weights]).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, resamples: int) -> Sums:
        """Return the sums that :meth:`to_bytes` wrote.

        Args:
            data: the bytes.
            resamples: the number of resamples of the sums.
        """
        rows = np.frombuffer(data, dtype=np.float64).reshape(4 + 2 * resamples, -1)
        return cls(rows[:4], rows[4 : 4 + resamples], rows[4 + resamples :])

    @property
    def count(self) -> np.ndarray:
        """Return the number of users with a defined value in each column, float64[c]."""
        return self.moments[0]

    @cached_property
    def mean(self) -> np.ndarray:
        """Return the mean of the defined values of each column, float64[c].

        NaN for a column without a defined value.
        """
        return _ratio(self.moments[1], self.count)

    @cached_property
    def resampled_means(self) -> np.ndarray:
        """Return the weighted mean of each resample, float64[resamples, c].

        If all weights of a resample are 0, its mean is that of the data.
        """
        return np.where(self.weights > 0, _ratio(self.resampled, self.weights), self.mean)

    @cached_property
    def sd(self) -> np.ndarray:
        """Return the standard deviation over users, with the denominator n − 1, float64[c].

        NaN for fewer than two users.
        """
        squares = self.moments[2] - self.count * self.mean**2
        # The difference of two sums is exact to about one part in 10^12. Below that, values count
        # as constant.
        squares = np.where(squares > 1e-12 * self.moments[2], squares, 0.0)
        freedom = np.where(self.count > 1, self.count - 1, 0)
        return np.sqrt(_ratio(squares, freedom))

    @cached_property
    def acceleration(self) -> np.ndarray:
        """Return the jackknife acceleration of the mean, skewness / (6 √n), float64[c].

        It is 0 for constant values.
        """
        n = self.count
        mean = self.mean
        cubes = self.moments[3] - 3 * mean * self.moments[2] + 2 * n * mean**3
        squares = self.sd**2 * (n - 1)
        return np.where(squares > 0, _ratio(cubes, 6 * squares**1.5), 0.0)

    def intervals(
        self,
        level: float = 0.95,
        method: Method = "percentile",
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean of each column and its bootstrap interval, as (mean, low, high).

        All three are float64[c], NaN for a column without a defined value.

        Args:
            level: confidence level in (0, 1).
            method: ``percentile`` or ``bca`` (:func:`bca_interval`).
        """
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "percentile":
            low, high = np.quantile(self.resampled_means, tails, axis=0)
        else:
            low, high = bca_interval(self.resampled_means, self.mean, self.acceleration, tails)
        return self.mean, low, high

    def t_test(self) -> np.ndarray:
        """Return the two-sided p-value of Student's t-test that the mean is 0, float64[c].

        If the values are the differences of two models per user, this is the paired t-test. NaN for
        fewer than two users. If all values are equal, p is 1 if they are 0, and otherwise 0.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            t = self.mean * np.sqrt(self.count) / self.sd
        p = 2 * special.stdtr(np.maximum(self.count - 1, 1), -np.abs(t))
        # All values 0 give t = 0 / 0.
        p = np.where((self.sd == 0) & (self.mean == 0), 1.0, p)
        return np.where(self.count < 2, np.nan, p)


def bootstrap_sums(
    values: np.ndarray,
    users: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Sums:
    """Return the Sums of c values per user over m users, with bootstrap resamples.

    Args:
        values: float64[m, c]. NaN is an undefined value, which is left out of the sums of its
            column.
        users: uint64[m], a number that identifies each user (``data.hashing.id_bits``).
        resamples: the number of resamples.
        seed: the seed of the random weights.
    """
    columns = values.shape[1]
    is_defined = ~np.isnan(values)
    filled = np.where(is_defined, values, 0.0)
    resampled = np.zeros((resamples, columns))
    weights = np.zeros((resamples, columns))
    for rows in _user_blocks(len(values), resamples):
        drawn = poisson_weights(users[rows], resamples, seed).T.astype(np.float64)
        resampled += drawn @ filled[rows]
        weights += drawn @ is_defined[rows].astype(np.float64)
    powers = [(filled**power).sum(axis=0) for power in (1, 2, 3)]
    moments = np.stack([is_defined.sum(axis=0), *powers]).astype(np.float64)
    return Sums(moments, resampled, weights)


def poisson_weights(users: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return random weights from the Poisson distribution with mean 1, float32[m, resamples].

    A weight depends on the user, the number of the resample and the seed only.

    Args:
        users: uint64[m], a number that identifies each user.
    """
    return _POISSON_QUANTILES[_random_bits(users, resamples * 16, seed).view(np.uint16)][:, :resamples]


def mean_ci(
    values: np.ndarray,
    users: np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    method: Method = "percentile",
) -> tuple[float, float, float]:
    """Return the mean of one value per user and its bootstrap interval, as (mean, low, high).

    NaN values are left out. All three results are NaN if no value is left. To compare two models,
    pass the differences of their values per user.

    Args:
        values: float64[m], one value per user.
        users: uint64[m], a number that identifies each user. None: 0 … m - 1.
        resamples: the number of resamples of the bootstrap.
        seed: the seed of the random weights.
        level: confidence level in (0, 1).
        method: ``percentile``, or ``bca``, which corrects the percentiles for bias and skewness
            (:func:`bca_interval`). With hundreds of users both agree. With few users and values
            that are mostly 0, as those of ranking metrics are, the interval of ``bca`` misses the
            true mean more often (bench/RESULTS.md).

    >>> mean_ci(np.array([1.0, 1.0, np.nan]))
    (1.0, 1.0, 1.0)
    """
    if users is None:
        users = np.arange(len(values), dtype=np.uint64)
    sums = bootstrap_sums(
        np.asarray(values, dtype=np.float64)[:, None],
        users,
        resamples=resamples,
        seed=seed,
    )
    mean, low, high = sums.intervals(level, method)
    return float(mean[0]), float(low[0]), float(high[0])


def bca_interval(
    resampled_means: np.ndarray,
    mean: np.ndarray,
    acceleration: np.ndarray,
    tails: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias-corrected and accelerated (BCa) bootstrap interval of c means: (low, high).

    ``low`` and ``high`` are float64[c], quantiles of the resampled means. The level of each
    quantile is corrected for bias and skewness: it is Φ(z₀ + (z₀ + z) / (1 - a (z₀ + z))) with
    z = Φ⁻¹(tail), where Φ is the normal distribution function and a the acceleration. Φ(z₀) is the
    share of resampled means below the mean; those equal to the mean count half. So that z₀ is
    finite, the share is limited to at least 0.5 / resamples and at most 1 - 0.5 / resamples. If all
    resampled means equal the mean, both ends equal it too. If they are NaN, both ends are NaN.

    References: Efron 1987; Efron and Tibshirani 1993, section 14.3.

    Args:
        resampled_means: float64[resamples, c].
        mean: float64[c], the mean of the data.
        acceleration: float64[c], see :attr:`Sums.acceleration`.
        tails: float64[2], the probabilities of the lower and the upper end, for example 0.025 and
            0.975.
    """
    strictly_below = (resampled_means < mean).mean(axis=0)
    share_below = (strictly_below + (resampled_means <= mean).mean(axis=0)) / 2
    # Clipped, because z₀ is infinite where all resamples are on one side of the mean.
    margin = 0.5 / len(resampled_means)
    z0 = special.ndtri(np.clip(share_below, margin, 1 - margin))
    shifted = z0 + special.ndtri(tails)[:, None]
    levels = special.ndtr(z0 + shifted / (1 - acceleration * shifted))
    columns = range(resampled_means.shape[1])
    low, high = (np.array([np.quantile(resampled_means[:, c], levels[tail, c]) for c in columns]) for tail in (0, 1))
    return low, high


def sign_flip_test(
    differences: np.ndarray,
    users: np.ndarray | None = None,
    *,
    resamples: int = 9999,
    seed: int = 0,
) -> np.ndarray:
    """Return the two-sided p-values of the paired randomisation test, float64[c].

    The hypothesis is that the two models do not differ. Then both signs of the difference of a user
    are equally probable. A sign assignment gives each of the m differences a sign. The p-value is
    the share of sign assignments, the observed one included, whose |sum| is at least the observed
    |sum|. The test is exact for any distribution. If 2^m is at most ``resamples``, all 2^m
    assignments are tried. Otherwise ``resamples`` random assignments are tried, and p is at least
    1 / (resamples + 1).

    Args:
        differences: float64[m, c], or float64[m] for one column. NaN is an undefined difference,
            which is left out of its column. p is NaN for a column without a defined difference.
        users: uint64[m], a number that identifies each user. None: 0 … m - 1.
        resamples: the largest number of sign assignments that are tried.
        seed: the seed of the random signs.

    >>> sign_flip_test(np.array([0.1, 0.2, 0.3])).tolist()
    [0.25]
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    m, columns = values.shape
    filled = np.nan_to_num(values)
    # Slightly lowered, so that sums that differ by rounding alone count as equal.
    observed = np.abs(filled.sum(axis=0)) * (1 - 1e-12)
    if m < 63 and 2**m <= resamples:
        signs = 1.0 - 2.0 * ((np.arange(2**m)[:, None] >> np.arange(m)) & 1)
        p = (np.abs(signs @ filled) >= observed).mean(axis=0)
    else:
        if users is None:
            users = np.arange(m, dtype=np.uint64)
        sums = np.zeros((resamples, columns))
        for rows in _user_blocks(m, resamples):
            packed = _random_bits(users[rows], resamples, seed).view(np.uint8)
            bits = np.unpackbits(packed, axis=1)[:, :resamples]
            sums += (1.0 - 2.0 * bits).T @ filled[rows]
        p = (1 + (np.abs(sums) >= observed).sum(axis=0)) / (1 + resamples)
    return np.where(np.isnan(values).all(axis=0), np.nan, p)


def holm_adjust(p: np.ndarray) -> np.ndarray:
    """Adjust p-values for multiple tests by Holm's step-down procedure, and return them.

    The result has the shape of ``p``. If every hypothesis with an adjusted p-value ≤ α is rejected,
    the probability of one or more false rejections is ≤ α, under any dependence of the tests. The
    i-th smallest of n p-values is multiplied by n - i + 1. If the product is less than the adjusted
    value of a smaller p-value, it is raised to that value. No result is above 1. NaN stays NaN and
    does not count in n. Reference: Holm, Scandinavian Journal of Statistics 1979.

    >>> holm_adjust(np.array([0.01, 0.04, 0.03, 0.005])).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p, dtype=np.float64)
    flat = p.ravel()
    adjusted = np.full(p.size, np.nan)
    # argsort puts NaN last.
    order = np.argsort(flat, kind="stable")[: int((~np.isnan(flat)).sum())]
    steps = flat[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.reshape(p.shape)


def detectable_effect(
    sd: np.ndarray,
    users: np.ndarray,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
) -> np.ndarray:
    """Return the minimal detectable effect of a paired two-sided test.

    It is the true difference that the test detects with the probability ``power``:
    (z_{1-α/2} + z_power) · sd / √users. NaN for 0 users. The result has the shape of ``sd``.

    Args:
        sd: the standard deviation of the paired differences.
        users: the number of users, in the same shape as ``sd``.
        power: the probability with which the test detects the difference, in (0, 1).
        alpha: the level of the test, in (0, 1).

    >>> float(detectable_effect(np.array(0.2), np.array(400)).round(4))
    0.028
    """
    z = special.ndtri(1 - alpha / 2) + special.ndtri(power)
    return _ratio(z * np.asarray(sd), np.sqrt(users))


def users_needed(sd: float, difference: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return the number of users, at least 2, that a paired two-sided test needs.

    With this number the test detects the true difference ``difference`` with the probability
    ``power``. The number comes from a normal approximation.

    Args:
        sd: the standard deviation of the paired differences.
        difference: the true difference to detect; its sign does not count.
        power: the probability with which the test detects it, in (0, 1).
        alpha: the level of the test, in (0, 1).

    Raises:
        ValueError: ``difference`` is 0.

    >>> users_needed(0.2, 0.028)
    401
    """
    if not difference:
        raise ValueError("no number of users is enough to detect a difference of 0")
    effect_of_one = float(detectable_effect(np.array(sd), np.array(1.0), power=power, alpha=alpha))
    return max(2, math.ceil((effect_of_one / difference) ** 2))


def _user_blocks(m: int, resamples: int) -> list[slice]:
    """Return slices that divide m users into blocks of at most :data:`BLOCK_CELLS` random cells each.

    A block of n users has n · resamples random cells.
    """
    size = max(1, BLOCK_CELLS // resamples)
    return [slice(start, start + size) for start in range(0, m, size)]


def _random_bits(users: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return at least n random bits for each of m users, uint64[m, ⌈n / 64⌉].

    The bits of a user depend on the user and the seed only.
    """
    words = np.arange(-(-n // 64), dtype=np.uint64)
    return np.ascontiguousarray(
        hash_words(seed, np.asarray(users, dtype=np.uint64)[:, None], words[None, :]),
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, NaN where the denominator is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(denominator) > 0, np.divide(numerator, denominator), np.nan)
