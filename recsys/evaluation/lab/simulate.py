"""Made-up pairs of rankings whose truth is known: orders around 0, 1, … n − 1, best first, disturbed in stated ways."""

from __future__ import annotations

import numpy as np

from recsys.evaluation.agreement.rankings import Rankings


def mallows(rng: np.random.Generator, m: int, n: int, dispersion: float) -> np.ndarray:
    """Return int64[m, n] orders; an order at Kendall distance d from the truth has chance ∝ exp(−dispersion · d).

    Repeated insertion: item j goes before v of the j items placed so far, with chance ∝ exp(−dispersion · v).
    Reference: Mallows, Biometrika 1957; Doignon, Pekeč and Regenwetter, Psychometrika 2004.
    """
    orders = np.zeros((m, n), dtype=np.int64)
    place = np.arange(n)
    for j in range(1, n):
        u = rng.random(m)
        if dispersion > 0:
            before = np.floor(-np.log1p(-u * -np.expm1(-dispersion * (j + 1))) / dispersion)
        else:
            before = np.floor(u * (j + 1))
        at = j - np.minimum(before, j).astype(np.int64)[:, None]
        moved = np.roll(orders, 1, axis=1)
        orders = np.where(place < at, orders, np.where(place == at, j, moved))
    return orders


def expected_distance(n: int, dispersion: float) -> float:
    """Return the mean Kendall distance of :func:`mallows` from the truth (closed form: Fligner and Verducci 1986)."""
    if dispersion == 0:
        return n * (n - 1) / 4
    j = np.arange(1, n + 1)
    shares = j * np.exp(-j * dispersion) / -np.expm1(-j * dispersion)
    return float(n * np.exp(-dispersion) / -np.expm1(-dispersion) - shares.sum())


def plackett_luce(rng: np.random.Generator, m: int, n: int, spread: float) -> np.ndarray:
    """Return int64[m, n] orders drawn item by item with chance ∝ exp(worth); worths go evenly from ``spread`` to 0.

    Reference: Plackett, Applied Statistics 1975.
    """
    worth = np.linspace(spread, 0, n)
    return np.argsort(-(worth + rng.gumbel(size=(m, n))), axis=1)


def rated(rng: np.random.Generator, m: int, n: int, noise: float, grades: int = 5) -> Rankings:
    """Return m people's ratings of the items: liking from 1 to −1, normal noise, rounded to grades, so with ties."""
    liking = np.linspace(1, -1, n) + noise * rng.standard_normal((m, n))
    grade = np.clip(np.floor((liking + 1) / 2 * grades), 0, grades - 1)
    items = np.argsort(-grade, axis=1, kind="stable")
    return Rankings.from_padded(items, grades - np.take_along_axis(grade, items, axis=1).astype(np.int64))


def shuffled(rng: np.random.Generator, m: int, n: int, start: int, stop: int) -> np.ndarray:
    """Return int64[m, n] orders that are true except for places start … stop − 1, which are shuffled."""
    orders = np.tile(np.arange(n), (m, 1))
    orders[:, start:stop] = rng.permuted(orders[:, start:stop], axis=1)
    return orders


def tied(orders: np.ndarray, size: int) -> Rankings:
    """Return the orders with every ``size`` places in a row tied."""
    return Rankings.from_padded(orders, np.broadcast_to(np.arange(orders.shape[1]) // size, orders.shape))


def without(rng: np.random.Generator, orders: np.ndarray, share: float) -> Rankings:
    """Return the orders without a random ``share`` of the items, drawn anew for each list."""
    keep = rng.random(orders.shape) >= share
    return Rankings.from_padded(np.where(keep, orders, -1))
