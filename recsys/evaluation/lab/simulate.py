"""Simulated rankings of n items with a known true order, to which different kinds of noise are added.

The items are 0, 1, …, n − 1, and this is also their true order, best first.
"""

from __future__ import annotations

import numpy as np

from recsys.evaluation.agreement.rankings import Rankings


def sample_mallows(rng: np.random.Generator, m: int, n: int, dispersion: float) -> np.ndarray:
    """Draw m orders of n items from the Mallows model, int64[m, n].

    The probability of an order is proportional to exp(−dispersion · d), where d is its Kendall
    distance from the true order. A dispersion of 0 gives uniformly random orders.

    The orders are sampled by repeated insertion: item j is inserted above v of the j items that are
    already in the order, with a probability proportional to exp(−dispersion · v). References:
    Mallows, Biometrika 1957; Doignon, Pekeč and Regenwetter, Psychometrika 2004.

    Args:
        rng: the source of random numbers.
        m: the number of orders.
        n: the number of items, at least 1.
        dispersion: ≥ 0. Larger values give orders that are closer to the true order.
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
    """Return the expected Kendall distance of a Mallows order from the true order, in closed form.

    The Kendall distance is the number of pairs of items that the two orders put in opposite order.
    Reference: Fligner and Verducci, JRSS B 1986.

    Args:
        n: the number of items.
        dispersion: as in :func:`sample_mallows`.

    >>> expected_mallows_distance(4, 0.0)
    3.0
    """
    if dispersion == 0:
        return n * (n - 1) / 4
    j = np.arange(1, n + 1)
    terms = j * np.exp(-j * dispersion) / -np.expm1(-j * dispersion)
    return float(n * np.exp(-dispersion) / -np.expm1(-dispersion) - terms.sum())


def sample_plackett_luce(rng: np.random.Generator, m: int, n: int, spread: float) -> np.ndarray:
    """Draw m orders of n items from the Plackett-Luce model, int64[m, n].

    The model chooses the items of an order one after another. It chooses among the remaining items
    with probabilities proportional to exp(utility). The utilities of items 0 … n − 1 fall in equal
    steps from ``spread`` to 0. The orders are drawn by sorting the utilities after Gumbel noise is
    added, which is equivalent. Reference: Plackett, Applied Statistics 1975.

    Args:
        rng: the source of random numbers.
        m: the number of orders.
        n: the number of items.
        spread: the utility of the first item, ≥ 0. 0 gives uniformly random orders; larger values
            give orders that are closer to the true order.
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
    """Draw the ratings of n items by m people, and return the m lists of items in rating order.

    A person has a preference for each item, which falls in equal steps from 1 for the first item to
    −1 for the last. Normal noise is added to the preference, and the sum is rounded to one of
    ``grades`` grades. Items with the same grade are tied.

    Args:
        rng: the source of random numbers.
        m: the number of people.
        n: the number of items.
        noise: the standard deviation of the noise, ≥ 0.
        grades: the number of grades, at least 1.
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
    """Return m copies of the true order, int64[m, n], with the items of some positions shuffled.

    Each copy is shuffled independently, at the positions ``start`` … ``stop`` − 1, counted from 0.

    Args:
        rng: the source of random numbers.
        m: the number of copies.
        n: the number of items.
        start, stop: the first shuffled position, and the one after the last.
    """
    orders = np.tile(np.arange(n), (m, 1))
    orders[:, start:stop] = rng.permuted(orders[:, start:stop], axis=1)
    return orders


def tie_positions(orders: np.ndarray, size: int) -> Rankings:
    """Return m orders as Rankings, with the items tied in groups of ``size``.

    The first ``size`` items of an order form a group of ties, the next ``size`` items another, and
    so on. The last group may be smaller.

    Args:
        orders: int[m, n], the items of each order, best first.
        size: the number of items of a group, at least 1.
    """
    dense_ranks = np.arange(orders.shape[1]) // size
    return Rankings.from_padded(orders, np.broadcast_to(dense_ranks, orders.shape))


def drop_items(rng: np.random.Generator, orders: np.ndarray, share: float) -> Rankings:
    """Return m orders as Rankings, with some items removed at random.

    Args:
        rng: the source of random numbers.
        orders: int[m, n], the items of each order, best first.
        share: the probability with which each item of each order is removed.
    """
    is_kept = rng.random(orders.shape) >= share
    return Rankings.from_padded(np.where(is_kept, orders, -1))
