"""Re-rank lists, to make them more diverse, closer to the genres of the history, or partly random.

Each function takes the lists of a model and returns lists of ``k`` items that it chooses from them.
So make longer lists with ``rank.recommend`` than you want to show.
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

MIN_POOL = 100
"""Smallest number of items from which a list is chosen."""


def mmr(topk: TopK, vectors: np.ndarray | csr_array, k: int, weight: float) -> TopK:
    """Return lists that are re-ranked by maximal marginal relevance (MMR), which makes them diverse.

    Each next position goes to the item with the largest

        λ · relevance − (1 − λ) · (its largest similarity to the items chosen before)

    λ is ``weight``, in [0, 1]. Relevance is the score, scaled to [0, 1] within the list (all 1 if
    the scores are equal). λ = 1 keeps the first k items as they are. Of equal items, the one with
    the earlier position is chosen.

    Args:
        topk: the lists to choose from.
        vectors: one row of length 1 per item, dense or csr. The similarity of two items is the dot
            product of their rows.
        k: the length of the new lists. They are not longer than the lists of ``topk``.
        weight: λ.

    Raises:
        ConfigError: ``weight`` is outside [0, 1].

    Reference: Carbonell and Goldstein, SIGIR 1998.
    """
    _check_share(weight, "weight")
    positions = np.full((len(topk.items), min(k, topk.items.shape[1])), -1, dtype=np.int64)
    for row, items in enumerate(topk.items):
        listed = items[items >= 0]
        similarity = _dense(vectors[listed] @ vectors[listed].T)
        relevance = _scaled(topk.scores[row, : len(listed)])
        # Similarities may be below 0, so the largest one starts there and not at 0.
        max_similarity = np.full(len(listed), -np.inf)
        value = weight * relevance
        is_available = np.ones(len(listed), dtype=bool)
        for position in range(min(k, len(listed))):
            chosen = int(np.argmax(np.where(is_available, value, -np.inf)))
            positions[row, position] = chosen
            is_available[chosen] = False
            max_similarity = np.maximum(max_similarity, similarity[chosen])
            value = weight * relevance - (1 - weight) * max_similarity
    return _take_positions(topk, positions)


def calibrated(topk: TopK, genres: np.ndarray | csr_array, histories: csr_array, k: int, weight: float) -> TopK:
    """Return lists whose shares of genres are close to those of the items that the user likes.

    Items are chosen one after the other, each time the item for which the list so far, with this
    item added, has the largest value of

        λ · (sum of relevance) − (1 − λ) · KL(p | 0.99 q + 0.01 p)

    λ is ``weight``. Relevance is the score, scaled to [0, 1] within the list. KL is the
    Kullback–Leibler divergence. p has the mean genre shares of the liked items of the history, and
    q those of the items of the list. If λ = 1, or if the history has no genres, the first k items
    stay as they are. Of items with equal values, the one with the earlier position is chosen.

    Args:
        topk: the lists to choose from.
        genres: float[items, g], dense or csr: the share of each of g genres in each item. A row sums
            to 1, or to 0 for an item without genres.
        histories: csr (m, items), row i for list i. Values above 0 are likes.
        k: the length of the new lists. They are not longer than the lists of ``topk``.
        weight: λ, in [0, 1].

    Raises:
        ConfigError: ``weight`` is outside [0, 1].

    Reference: Steck, RecSys 2018.
    """
    _check_share(weight, "weight")
    positions = np.full((len(topk.items), min(k, topk.items.shape[1])), -1, dtype=np.int64)
    for row, items in enumerate(topk.items):
        listed = items[items >= 0]
        history = histories[[row]]
        p = genres[history.indices[history.data > 0]].sum(axis=0)
        if p.sum() > 0:
            p = p / p.sum()
        item_genres = _dense(genres[listed])
        relevance = _scaled(topk.scores[row, : len(listed)])
        list_genres = np.zeros(genres.shape[1])
        is_available = np.ones(len(listed), dtype=bool)
        for position in range(min(k, len(listed))):
            # One row per candidate: the genre shares of the list with this candidate added.
            q = (list_genres + item_genres) / (position + 1)
            smooth = 0.99 * q + 0.01 * p
            with np.errstate(divide="ignore", invalid="ignore"):
                divergence = np.where(p > 0, p * np.log(p / smooth), 0.0).sum(axis=1)
            value = np.where(is_available, weight * relevance - (1 - weight) * divergence, -np.inf)
            chosen = int(np.argmax(value))
            positions[row, position] = chosen
            is_available[chosen] = False
            list_genres += item_genres[chosen]
    return _take_positions(topk, positions)


def explore(topk: TopK, k: int, temperature: float, seed: int, users: np.ndarray | None = None) -> TopK:
    """Return lists of items that are drawn at random. Higher scores are drawn more often.

    Items are drawn without replacement, in proportion to exp(relevance / ``temperature``), where
    relevance is the score, scaled to [0, 1] within the list. The draw depends on the seed, the
    number of the user and the item, and not on the other users. A temperature near 0 gives the k
    items with the highest scores, best first; items with equal scores stay in random order.

    Args:
        topk: the lists to draw from.
        k: the length of the new lists. They are not longer than the lists of ``topk``.
        temperature: above 0. A higher temperature makes the draw more even.
        seed: the seed of the draw.
        users: numbers that identify the users for the draw. None: ``topk.users``.

    Raises:
        ConfigError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}: it must be above 0; leave exploration out for none")
    users = topk.users if users is None else users
    positions = np.full((len(topk.items), min(k, topk.items.shape[1])), -1, dtype=np.int64)
    for row, items in enumerate(topk.items):
        listed = items[items >= 0]
        log_weight = _scaled(topk.scores[row, : len(listed)]) / temperature
        chance = to_unit_interval(hash_words(seed, np.full(len(listed), users[row]), listed))
        order = _order(log_weight, chance)[:k]
        positions[row, : len(order)] = order
    return _take_positions(topk, positions)


def draw_probabilities(topk: TopK, drawn: TopK, temperature: float) -> np.ndarray:
    """Return the probability with which :func:`explore` draws each item, given the items above it.

    The result is float64[m, k], NaN for padding. An item of weight w = exp(relevance / temperature) has the
    probability w / (the sum of the weights of the items of the row of ``topk`` that are not drawn
    above it). The product of a row is the probability of the whole list (Plackett 1975, Luce 1959).

    Args:
        topk: the lists that were drawn from.
        drawn: the lists that ``explore`` returned for them and this temperature.
    """
    probabilities = np.full(drawn.items.shape, np.nan)
    for row, items in enumerate(topk.items):
        listed = items[items >= 0]
        drawn_items = drawn.items[row][drawn.items[row] >= 0]
        position_of = {int(item): position for position, item in enumerate(listed)}
        positions = np.array([position_of[int(item)] for item in drawn_items], dtype=np.int64)
        log_weight = _scaled(topk.scores[row, : len(listed)]) / temperature
        never_drawn = np.ones(len(listed), dtype=bool)
        never_drawn[positions] = False
        rest = np.logaddexp.reduce(log_weight[never_drawn], initial=-np.inf)
        # From the end of the list: each sum has one item more than the sum before.
        from_end = np.logaddexp.accumulate(np.append(rest, log_weight[positions[::-1]]))[1:]
        probabilities[row, : len(positions)] = np.exp(log_weight[positions] - from_end[::-1])
    return probabilities


def pool_size(k: int) -> int:
    """Return the length of the lists from which lists of ``k`` items are chosen.

    It is 5 · k, but at least :data:`MIN_POOL`.
    """
    return max(MIN_POOL, 5 * k)


def sample(weights: Mapping[Any, float], k: int, *, seed: int = 0, user: Hashable = 0) -> list[Any]:
    """Return ``k`` different keys, drawn at random one after the other in proportion to their weights.

    At each draw, the probability of a key is its weight divided by the sum of the weights of all keys
    that are not drawn yet. Weights may be huge or tiny, because only their logarithms are used. A key
    with the weight 0 is never drawn, so the result may have fewer than ``k`` keys. The same seed and
    user give the same keys, even if the dictionary has another order.

    Args:
        weights: key -> weight, a finite number ≥ 0.
        k: the largest number of keys, ≥ 0.
        seed: the seed of the draw.
        user: a value that identifies the user, so that users get different keys.

    Method: keys are sorted by log weight + Gumbel noise, and the ``k`` largest are taken. This is
    equivalent to the exponential keys of Efraimidis and Spirakis (2006).

    Raises:
        ConfigError: k is negative.
        InputError: a weight is negative, infinite as a float, or not a number.

    >>> sample({"a": 1.0, "b": 0.0}, 2)
    ['a']
    """
    from recsys.data.hashing import id_bits

    if k < 0:
        raise ConfigError(f"k is {k}: ask for 0 or more")
    checked = {key: _weight(key, weight) for key, weight in weights.items()}
    keys = [key for key, weight in checked.items() if weight > 0]
    key_bits = id_bits(np.array([str(key) for key in keys], dtype=object))
    user_bits = id_bits(np.array([str(user)], dtype=object))
    chance = to_unit_interval(hash_words(seed, np.repeat(user_bits, len(keys)), key_bits))
    log_weight = np.log(np.array([checked[key] for key in keys]))
    return [keys[position] for position in _order(log_weight, chance)[:k]]


def _weight(key: Any, weight: Any) -> float:
    """Return a weight as a float.

    Raises:
        InputError: the weight is not a number, not finite or negative.
    """
    if not isinstance(weight, Real):
        raise InputError(f"the weight of {key!r} is {weight!r}: weights are numbers")
    try:
        number = float(weight)
    except OverflowError:
        # An integer beyond the largest float.
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"the weight of {key!r} is {number}: weights are finite and not negative")
    return number


def _order(log_weight: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return the positions 0 … n − 1 in descending order of log weight + Gumbel noise, int64[n].

    Args:
        log_weight: float64[n].
        chance: float64[n], random numbers in [0, 1), from which the noise is computed.
    """
    noise = -np.log(-np.log(np.clip(chance, 2.0**-60, 1 - 2.0**-53)))
    return np.argsort(-(log_weight + noise), kind="stable")


def _check_share(weight: float, name: str) -> None:
    """Raise ConfigError if a weight is outside [0, 1]."""
    if not 0 <= weight <= 1:
        raise ConfigError(f"{name} is {weight}: it must be between 0 (only variety) and 1 (only relevance)")


def _scaled(scores: np.ndarray) -> np.ndarray:
    """Return the scores of one list, scaled to [0, 1] as float64; all 1 if the scores are equal."""
    scores = scores.astype(np.float64)
    if not len(scores) or scores.max() == scores.min():
        return np.ones(len(scores))
    return (scores - scores.min()) / (scores.max() - scores.min())


def _dense(matrix: np.ndarray | csr_array) -> np.ndarray:
    return matrix.toarray() if isinstance(matrix, csr_array) else matrix


def _take_positions(topk: TopK, positions: np.ndarray) -> TopK:
    """Return new lists with the items at some positions of the given lists.

    Args:
        positions: int64[m, k], for each list, the positions of the items to take, in the new order.
            -1 is padding.
    """
    is_listed = positions >= 0
    row = np.arange(len(positions))[:, None]
    column = np.where(is_listed, positions, 0)
    return TopK(
        topk.users,
        np.where(is_listed, topk.items[row, column], -1).astype(np.int32),
        np.where(is_listed, topk.scores[row, column], np.nan).astype(np.float32),
        np.where(is_listed, topk.source[row, column], -1).astype(np.int8),
        topk.sources,
        # A list that is full now has no reason to be short.
        np.where(is_listed[:, -1], 0, topk.shortfall).astype(np.int8),
    )
