"""Pseudo-random numbers that depend only on a seed and on the hashed values.

They never depend on the order of rows, the batch or the engine. Splits hash ids, so that a row
stays on the same side after a shuffle, a repartition or a restart, on either engine. The synthetic
world hashes (purpose, user, draw), so that it is the same if it is generated in chunks of another
size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pandas.util import hash_array

from recsys.schema import is_category

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT = (np.uint64(30), np.uint64(27), np.uint64(31))


def hash_words(seed: int, *words: np.ndarray) -> np.ndarray:
    """Return uint64 hashes of a seed and of integer arrays (*words*).

    The arrays are broadcast against each other, and the result has the common shape. They are
    hashed one after another, so another order of them gives other hashes. The hash is SplitMix64.
    Reference: Steele, Lea and Flood, OOPSLA 2014 (the finaliser, variant 13).

    Args:
        seed: any integer. Seeds that are equal modulo 2^64 give equal hashes.
        words: integer arrays, at least one.
    """
    state = _mix_bits(np.array([seed % 2**64], dtype=np.uint64) + GOLDEN)
    for word in words:
        state = _mix_bits((state ^ np.asarray(word).astype(np.uint64)) + GOLDEN)
    return state


def _mix_bits(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> _SHIFT[0])) * _MULTIPLY[0]
    bits = (bits ^ (bits >> _SHIFT[1])) * _MULTIPLY[1]
    return bits ^ (bits >> _SHIFT[2])


def to_unit_interval(bits: np.ndarray) -> np.ndarray:
    """Convert random uint64 numbers to float64 in [0, 1), by their upper 53 bits."""
    return (bits >> np.uint64(11)) * 2.0**-53


def random_scores(seed: int, users: np.ndarray, items: int) -> np.ndarray:
    """Return random scores in [0, 1] for m users and all items, float32[m, items].

    A score depends only on the seed, the number of the user and the row of the item. It is
    ``to_unit_interval(hash_words(seed, user, item))``, rounded to float32. The rounding gives
    exactly 1 about once in 30 million scores.

    Args:
        seed: the seed of the hash.
        users: int[m], a number that identifies each user.
        items: the number of items.
    """
    # Imported here because it takes a second to load, and only this function needs it.
    from recsys import kernels

    return kernels.hash_last_word(hash_words(seed, users), items)


def id_bits(ids: Any) -> np.ndarray:
    """Return uint64[n], the bits of each id that are hashed.

    For an integer they are the number itself, whatever its dtype. For text they are pandas' SipHash
    of the text. So the number 7 and the text "7" have different bits. This does no harm, because
    all ids of a column have one type when they are hashed.

    Args:
        ids: an array, Series or list of n integers or texts, or a categorical. No id may be
            missing.
    """
    if is_category(ids):
        return id_bits(ids.array.categories)[ids.array.codes]
    if hasattr(ids, "to_numpy"):
        values = ids.to_numpy()
    else:
        values = np.asarray(ids)
    if values.dtype.kind in "iu":
        return values.astype(np.int64).view(np.uint64)
    return hash_array(values.astype(object), categorize=True)


def id_hash(ids: Any, seed: int) -> np.ndarray:
    """Return a uniform hash of each id, float64[n] in [0, 1). Equal ids have equal hashes.

    Args:
        ids: as for :func:`id_bits`.
        seed: another seed gives other hashes.

    >>> id_hash(["alice", "bob", "alice"], seed=0).round(4)
    array([0.4485, 0.4119, 0.4485])
    """
    return to_unit_interval(hash_words(seed, id_bits(ids)))


def pair_hash(user_ids: Any, item_ids: Any, seed: int) -> np.ndarray:
    """Return a uniform hash of each (user, item) pair, float64[n] in [0, 1).

    The hash depends only on the ids and the seed. It does not depend on the other rows, their
    order, the batch, or whether an integer id is an int32 or an int64. Both engines call this
    function.

    Args:
        user_ids, item_ids: n ids each, as for :func:`id_bits`.
        seed: another seed gives other hashes.
    """
    return to_unit_interval(hash_words(seed, id_bits(user_ids), id_bits(item_ids)))
