"""The hash: fixed numbers (splits must never move between versions), uniform, blind to dtype, order and batch."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys.data.hashing import hash_words, id_hash, pair_hash, to_unit_interval

MASK = 2**64 - 1


def splitmix(state):
    """SplitMix64's next output from Python integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_splitmix_has_its_published_outputs():
    """The first two outputs of the reference generator from state 0 …"""
    assert splitmix(0) == 0xE220A8397B1DCDAF
    assert splitmix(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_combine_is_splitmix_chained_over_the_words(seed):
    """… and ours is that, chained: each word is mixed into the state before the next output."""
    words = [3, 2**64 - 1]
    state = splitmix(seed)
    assert hash_words(seed)[0] == state
    for word in words:
        state = splitmix(state ^ word)
    assert hash_words(seed, *(np.array([word], dtype=np.uint64) for word in words))[0] == state


def test_the_hash_of_a_row_is_that_of_its_two_numbers():
    state = splitmix(splitmix(splitmix(9) ^ 5) ^ 8)
    assert pair_hash([5], [8], seed=9)[0] == (state >> 11) / 2**53


def test_unit_reaches_0_and_stays_below_1():
    assert to_unit_interval(np.array([0, MASK], dtype=np.uint64)).tolist() == [0.0, 1 - 2.0**-53]


def test_dtype_order_and_batch_do_not_matter():
    users, items = np.arange(1000) % 37, np.arange(1000) % 101
    whole = pair_hash(users, items, seed=3)
    for dtype in ("int8", "int16", "int32", "uint64"):
        np.testing.assert_array_equal(pair_hash(users.astype(dtype), items.astype(dtype), seed=3), whole)
    np.testing.assert_array_equal(pair_hash(users[::-1], items[::-1], seed=3), whole[::-1])
    parts = [pair_hash(users[at : at + 7], items[at : at + 7], seed=3) for at in range(0, 1000, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    text = pd.Series(users).astype(str).astype(object)
    assert pair_hash(text[:5], text[:5], 3).tolist() == pair_hash(list(text[:5]), list(text[:5]), 3).tolist()


def test_user_and_item_do_not_change_places():
    assert pair_hash([1], [2], 0) != pair_hash([2], [1], 0)
    assert pair_hash([1], [2], 0) != pair_hash([1], [2], 1)


@pytest.mark.parametrize("ids", [np.arange(20_000), np.arange(20_000).astype(str)])
def test_uniform(ids):
    assert stats.kstest(id_hash(ids, seed=1), "uniform").pvalue > 1e-3
    assert stats.kstest(pair_hash(ids, ids[::-1], seed=1), "uniform").pvalue > 1e-3


def test_ids_equal_modulo_2_to_32_differ():
    assert id_hash([7], 0) != id_hash([7 + 2**32], 0)
