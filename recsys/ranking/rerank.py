"""Lists made anew from lists: more diverse, more like the user's own mix, or with some chance in them.

Each takes a model's best ``n`` (ask ``rank.recommend`` for more than you show) and returns ``k`` of them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recsys.data.hashing import hash_words, to_unit_interval
from recsys.errors import ConfigError, InputError
from recsys.types import TopK


def mmr(topk: TopK, vectors: np.ndarray | csr_array, k: int, weight: float) -> TopK:
    """Return lists by maximal marginal relevance: each place goes to the item with the largest

        λ · relevance − (1 − λ) · (its largest similarity to those already chosen)

    with λ = ``weight`` in [0, 1] and relevance the list's scores scaled to [0, 1] (all 1 when they are equal). λ = 1
    is the list's own head. Ties: the earlier place.

    Args:
        vectors: rows of length 1 of every item, dense or csr: similarity is their dot product.

    Reference: Carbonell and Goldstein, SIGIR 1998.
    """
    _check_share(weight, "weight")
    places = np.full((len(topk.items), min(k, topk.items.shape[1])), -1, dtype=np.int64)
    for row, items in enumerate(topk.items):
        listed = items[items >= 0]
        near = vectors[listed] @ vectors[listed].T
        near = near.toarray() if isinstance(near, csr_array) else near
        relevance = _scaled(topk.scores[row, : len(listed)])
        worst = np.zeros(len(listed))
        value = weight * relevance
        left = np.ones(len(listed), dtype=bool)
        for place in range(min(k, len(listed))):
            chosen = int(np.argmax(np.where(left, value, -np.inf)))
            places[row, place], left[chosen] = chosen, False
            worst = near[chosen] if place == 0 else np.maximum(worst, near[chosen])
            value = weight * relevance - (1 - weight) * worst
    return _taken(topk, places)


def calibrated(topk: TopK, genres: np.ndarray | csr_array, histories: csr_array, k: int, weight: float) -> TopK:
    """Return lists whose mix of genres is like that of the liked items, chosen greedily by

        λ · (sum of relevance) − (1 − λ) · KL(p | 0.99 q + 0.01 p)

    with λ = ``weight``, p the mean genre shares of the history and q those of the list so far. λ = 1 is the list's own
    head; a history without genres leaves the list as it is. Ties: the earlier place.

    Args:
        genres: float[items, g], dense or csr, rows that sum to 1 (or to 0).

    Reference: Steck, RecSys 2018.
    """
    _check_share(weight, "weight")
    places = np.full((len(topk.items), min(k, topk.items.shape[1])), -1, dtype=np.int64)
    for row, items in enumerate(topk.items):
        listed = items[items >= 0]
        own = histories[[row]]
        p = genres[own.indices[own.data > 0]].sum(axis=0)
        p = p / p.sum() if p.sum() > 0 else p
        mix = genres[listed]
        mix = mix.toarray() if isinstance(mix, csr_array) else mix
        relevance = _scaled(topk.scores[row, : len(listed)])
        mixed, left = np.zeros(genres.shape[1]), np.ones(len(listed), dtype=bool)
        for place in range(min(k, len(listed))):
            q = (mixed + mix) / (place + 1)
            smooth = 0.99 * q + 0.01 * p
            with np.errstate(divide="ignore", invalid="ignore"):
                gap = np.where(p > 0, p * np.log(p / smooth), 0.0).sum(axis=1)
            value = np.where(left, weight * relevance - (1 - weight) * gap, -np.inf)
            chosen = int(np.argmax(value))
            places[row, place], left[chosen] = chosen, False
            mixed += mix[chosen]
    return _taken(topk, places)


def explore(topk: TopK, k: int, temperature: float, seed: int, users: np.ndarray | None = None) -> TopK:
    """Return lists drawn without replacement in proportion to exp(relevance / ``temperature``), relevance in [0, 1].

    The draw depends on the seed, the user's number and the item alone, not on who else is asked. A temperature near
    0 is the list's own head. ``users``: other numbers than the list's own, bits of ids say.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}: it must be above 0; leave exploration out for none")
    users = topk.users if users is None else users
    places = np.full((len(topk.items), min(k, topk.items.shape[1])), -1, dtype=np.int64)
    for row, items in enumerate(topk.items):
        listed = items[items >= 0]
        log_weight = _scaled(topk.scores[row, : len(listed)]) / temperature
        chance = to_unit_interval(hash_words(seed, np.full(len(listed), users[row]), listed))
        order = _order(log_weight, chance)[:k]
        places[row, : len(order)] = order
    return _taken(topk, places)


def sample(weights: Mapping[Any, float], k: int, *, seed: int = 0, user: Hashable = 0) -> list[Any]:
    """Return ``k`` different keys, drawn one after the other in proportion to their weights; fewer when fewer have any.

    The next key is each remaining one with probability weight / sum of the remaining weights. Weights may be huge or
    tiny: only their logarithms are used. A weight of 0 is never drawn. The same seed and user give the same keys,
    whatever the order of the dictionary.

    Method: the largest of log w + Gumbel noise, which is the exponential keys of Efraimidis and Spirakis (2006).

    Raises:
        ConfigError: k is negative.
        InputError: a weight is negative, infinite as a float, or not a number (text and None are none).

    >>> sample({"a": 1.0, "b": 0.0}, 2)
    ['a']
    """
    from recsys.data.hashing import id_bits

    if k < 0:
        raise ConfigError(f"k is {k}: ask for 0 or more")
    known = {key: _weight(key, weight) for key, weight in weights.items()}
    keys = [key for key, weight in known.items() if weight > 0]
    bits = id_bits(np.array([str(key) for key in keys], dtype=object))
    whom = id_bits(np.array([str(user)], dtype=object))
    chance = to_unit_interval(hash_words(seed, np.repeat(whom, len(keys)), bits))
    log_weight = np.log(np.array([known[key] for key in keys]))
    return [keys[place] for place in _order(log_weight, chance)[:k]]


def _weight(key: Any, weight: Any) -> float:
    if not isinstance(weight, Real):
        raise InputError(f"the weight of {key!r} is {weight!r}: weights are numbers")
    try:
        found = float(weight)
    except OverflowError:  # an integer beyond the largest float
        found = math.inf
    if not (math.isfinite(found) and found >= 0):
        raise InputError(f"the weight of {key!r} is {found}: weights are finite and not negative")
    return found


def _order(log_weight: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return all places by log weight + Gumbel noise from ``chance`` in [0, 1), largest first."""
    noise = -np.log(-np.log(np.clip(chance, 2.0**-60, 1 - 2.0**-53)))
    return np.argsort(-(log_weight + noise), kind="stable")


def _check_share(weight: float, name: str) -> None:
    if not 0 <= weight <= 1:
        raise ConfigError(f"{name} is {weight}: it must be between 0 (only variety) and 1 (only relevance)")


def _scaled(scores: np.ndarray) -> np.ndarray:
    """Return float64 scores moved to [0, 1]; all 1 when they are equal."""
    scores = scores.astype(np.float64)
    if not len(scores) or scores.max() == scores.min():
        return np.ones(len(scores))
    return (scores - scores.min()) / (scores.max() - scores.min())


def _taken(topk: TopK, places: np.ndarray) -> TopK:
    """Return the items at ``places`` (-1: padding) of every list, in that order, with their scores and sources."""
    given = places >= 0
    row = np.arange(len(places))[:, None]
    at = np.where(given, places, 0)
    return TopK(
        topk.users,
        np.where(given, topk.items[row, at], -1).astype(np.int32),
        np.where(given, topk.scores[row, at], np.nan).astype(np.float32),
        np.where(given, topk.source[row, at], -1).astype(np.int8),
        topk.sources,
        np.where(given[:, -1], 0, topk.shortfall).astype(np.int8),
    )
