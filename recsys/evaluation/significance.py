"""Intervals: how far a mean over users could be off.

The bootstrap gives every user a Poisson(1) weight in every resample, drawn by hashing (seed, user, resample).
So an interval depends on the users and their values alone: not on their order, their blocks or the engine, and
two models judged on the same users are resampled alike. Partial sums add up, which is all a cluster needs.
Reference: Efron and Tibshirani 1993, chapter 13 (percentile interval); Chamandy et al. 2012 (Poisson weights).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recsys.data.hashing import combine

_CUMULATIVE = np.cumsum([math.exp(-1) / math.factorial(n) for n in range(12)])
_POISSON = np.searchsorted(_CUMULATIVE, (np.arange(2**16) + 0.5) / 2**16).astype(np.float32)
"""The Poisson(1) quantile of each 16-bit number: exact to 2^-17."""


@dataclass(frozen=True)
class Sums:
    """Sums over users that give means and intervals: add the parts of any partition of the users.

    ``total``, ``count``: float64[c] over defined values; ``resampled``, ``weight``: float64[resamples, c].
    """

    total: np.ndarray
    count: np.ndarray
    resampled: np.ndarray
    weight: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.total + other.total,
            self.count + other.count,
            self.resampled + other.resampled,
            self.weight + other.weight,
        )

    def to_bytes(self) -> bytes:
        """Return the sums as bytes, for the way from an executor to the driver."""
        return np.concatenate([self.total[None], self.count[None], self.resampled, self.weight]).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, resamples: int) -> Sums:
        """Undo :meth:`to_bytes`."""
        rows = np.frombuffer(data, dtype=np.float64).reshape(2 + 2 * resamples, -1)
        return cls(rows[0], rows[1], rows[2 : 2 + resamples], rows[2 + resamples :])

    def intervals(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (mean, low, high), float64[c] each; NaN for a column without any defined value."""
        with np.errstate(invalid="ignore"):
            mean = np.divide(self.total, self.count)
            means = np.where(self.weight > 0, self.resampled / self.weight, mean)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return mean, low, high


def bootstrap_sums(values: np.ndarray, users: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Sums:
    """Return the sums of float64[m, c] per-user values, NaN = undefined and left out of its column.

    ``users``: uint64[m], a number that stands for each user (``data.hashing.id_bits``).
    """
    columns = values.shape[1]
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    resampled, weight = np.zeros((resamples, columns)), np.zeros((resamples, columns))
    block = max(1, (1 << 22) // resamples)
    for start in range(0, len(values), block):
        rows = slice(start, start + block)
        drawn = poisson_weights(users[rows], resamples, seed).T.astype(np.float64)
        resampled += drawn @ filled[rows]
        weight += drawn @ defined[rows].astype(np.float64)
    return Sums(filled.sum(axis=0), defined.sum(axis=0).astype(np.float64), resampled, weight)


def poisson_weights(users: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return float32[m, resamples] of Poisson(1) weights: whole numbers that depend on user, resample and seed."""
    words = np.arange(-(-resamples // 4), dtype=np.uint64)
    bits = combine(seed, np.asarray(users, dtype=np.uint64)[:, None], words[None, :])
    return _POISSON[np.ascontiguousarray(bits).view(np.uint16)][:, :resamples]


def mean_ci(
    values: np.ndarray, users: np.ndarray | None = None, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Return (mean, low, high) of float64[m]: the mean of the defined values and its percentile interval.

    Undefined (all NaN) without a defined value. A difference of two models is the mean of their difference.

    >>> mean_ci(np.array([1.0, 1.0, np.nan]))
    (1.0, 1.0, 1.0)
    """
    users = np.arange(len(values), dtype=np.uint64) if users is None else users
    sums = bootstrap_sums(np.asarray(values, dtype=np.float64)[:, None], users, resamples=resamples, seed=seed)
    mean, low, high = sums.intervals(level)
    return float(mean[0]), float(low[0]), float(high[0])
