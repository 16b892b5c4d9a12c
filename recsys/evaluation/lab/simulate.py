"""Simulated rankings whose truth is known: orders of 0, 1, …, n − 1, disturbed in stated ways.

The true order is 0, 1, …, n − 1, best first.
"""

from __future__ import annotations

import numpy as np

from recsys.evaluation.agreement.rankings import Rankings


def sample_mallows(rng: np.random.Generator, m: int, n: int, dispersion: float) -> np.ndarray:
    """Return m orders, int64[m, n]: an order at Kendall distance d has a probability ∝
    exp(−dispersion · d).

    Sampled by repeated insertion: item j is inserted above v of the j items already placed, with a
    probability ∝ exp(−dispersion · v). References: Mallows, Biometrika 1957; Doignon, Pekeč and
    Regenwetter, Psychometrika 2004.
    """
    orders = np.zeros((m, n), dtype=np.int64)
    positions = np.arange(n)
    for j in range(1, n):
        u = rng.random(m)
        if dispersion > 0:
            # The inverse of the distribution function of the truncated geometric distribution.
            overtaken = np.floor(-np.log1p(-u * -np.expm1(-dispersion * (j + 1))) / dispersion)
        else:
            overtaken = np.floor(u * (j + 1))
        inserted = j - np.minimum(overtaken, j).astype(np.int64)[:, None]
        shifted = np.roll(orders, 1, axis=1)
        orders = np.where(positions < inserted, orders, np.where(positions == inserted, j, shifted))
    return orders


def expected_mallows_distance(n: int, dispersion: float) -> float:
    """Return the mean Kendall distance of Mallows orders from the truth, in closed form.

    Reference: Fligner and Verducci, JRSS B 1986.
    """
    if dispersion == 0:
        return n * (n - 1) / 4
    j = np.arange(1, n + 1)
    terms = j * np.exp(-j * dispersion) / -np.expm1(-j * dispersion)
    return float(n * np.exp(-dispersion) / -np.expm1(-dispersion) - terms.sum())


def sample_plackett_luce(rng: np.random.Generator, m: int, n: int, spread: float) -> np.ndarray:
    """Return m orders, int64[m, n], drawn item by item with a probability ∝ exp(utility).

    The utilities of the items fall evenly from ``spread`` to 0. Sorting utilities with Gumbel noise
    is an equivalent way to draw. Reference: Plackett, Applied Statistics 1975.
    """
    utility = np.linspace(spread, 0, n)
    return np.argsort(-(utility + rng.gumbel(size=(m, n))), axis=1)


def sample_ratings(
    rng: np.random.Generator,
    m: int,
    n: int,
    noise: float,
    grades: int = 5,
) -> Rankings:
    """Return the rankings of n items by m people, from noisy ratings in whole grades,
    hence with ties.

    The preference falls from 1 for the first item to −1 for the last; normal noise with standard
    deviation ``noise`` is added before rounding.
    """
    preference = np.linspace(1, -1, n) + noise * rng.standard_normal((m, n))
    grade = np.clip(np.floor((preference + 1) / 2 * grades), 0, grades - 1)
    items = np.argsort(-grade, axis=1, kind="stable")
    sorted_grades = np.take_along_axis(grade, items, axis=1).astype(np.int64)
    return Rankings.from_padded(items, grades - sorted_grades)


def shuffle_positions(
    rng: np.random.Generator,
    m: int,
    n: int,
    start: int,
    stop: int,
) -> np.ndarray:
    """Return m copies of the true order 0 … n − 1 as int64[m, n], each with the positions start, …,
    stop − 1 in random order.
    """
    orders = np.tile(np.arange(n), (m, 1))
    orders[:, start:stop] = rng.permuted(orders[:, start:stop], axis=1)
    return orders


def tie_positions(orders: np.ndarray, size: int) -> Rankings:
    """Return the orders with each ``size`` consecutive positions tied."""
    dense_ranks = np.arange(orders.shape[1]) // size
    return Rankings.from_padded(orders, np.broadcast_to(dense_ranks, orders.shape))


def drop_items(rng: np.random.Generator, orders: np.ndarray, share: float) -> Rankings:
    """Return the orders without a random ``share`` of the items,
    drawn for each list independently.
    """
    is_kept = rng.random(orders.shape) >= share
    return Rankings.from_padded(np.where(is_kept, orders, -1))
