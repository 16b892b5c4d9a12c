"""Compiled loops against plain twins. Selection is in test_rank.py, recsys.linalg in tests/models."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.hashing import random_scores
from recsys.kernels import NOWHERE, count_equal_neighbours, count_repeats, find_relevant, group_rows, sort_groups
from recsys.linalg import one_blas_thread, product


@given(st.data())
def test_relevant_items_are_found_in_order_of_place(data):
    n = data.draw(st.integers(1, 12))
    subset = st.lists(st.integers(0, n - 1), unique=True)
    users = data.draw(st.lists(st.tuples(subset, subset), min_size=1, max_size=40))
    listed, relevant = (np.array([item for user in users for item in user[side]], dtype=np.int64) for side in (0, 1))
    offsets, indptr = (np.cumsum([0] + [len(user[side]) for user in users]) for side in (0, 1))
    entry, place = find_relevant(listed, offsets, relevant, indptr, n)
    for i, (own, wanted) in enumerate(users):
        part = slice(indptr[i], indptr[i + 1])
        expected = [(own.index(item) if item in own else NOWHERE, item) for item in wanted]
        assert place[part].tolist() == sorted(where for where, _ in expected)
        assert sorted(zip(place[part].tolist(), relevant[entry[part]].tolist(), strict=True)) == sorted(expected)


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 3))))
def test_rows_are_grouped_and_sorted_stably(rows):
    group, key = (np.array([row[side] for row in rows], dtype=np.int64) for side in (0, 1))
    order, offsets = group_rows(group, 5)
    kept = [row for row in range(len(rows)) if 0 <= group[row] < 5]
    assert order.tolist() == sorted(kept, key=lambda row: group[row])
    assert np.diff(offsets).tolist() == [int((group == g).sum()) for g in range(5)]
    sort_groups(order, offsets, key.astype(np.float64))
    assert order.tolist() == sorted(kept, key=lambda row: (group[row], key[row]))
    seen = [[key[row] for row in order[offsets[g] : offsets[g + 1]]] for g in range(5)]
    assert count_repeats(key[order], offsets, 4).tolist() == [len(keys) - len(set(keys)) for keys in seen]


def test_the_blocked_product_is_the_product():
    rng = np.random.default_rng(0)
    for shape in ((1, 3, 2), (128, 5, 7), (300, 40, 9)):
        a, b = rng.normal(size=shape[:2]), rng.normal(size=shape[1:])
        with one_blas_thread():
            np.testing.assert_allclose(product(a, b), np.einsum("ij,jk->ik", a, b), rtol=1e-12, atol=1e-12)


def test_equal_neighbours_equals_a_loop():
    rng = np.random.default_rng(5)
    lengths = rng.integers(0, 7, 200)
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
    key = rng.choice([0.0, 1.0, np.nan], offsets[-1])
    for (again, tied), start, stop in zip(count_equal_neighbours(key, offsets), offsets, offsets[1:], strict=False):
        own = key[start:stop].tolist()
        before = [place > 0 and own[place] == own[place - 1] for place in range(len(own))]
        after = [place + 1 < len(own) and own[place] == own[place + 1] for place in range(len(own))]
        assert again == sum(before)
        assert tied == sum(a or b for a, b in zip(before, after, strict=True))


def test_random_scores_are_splitmix_in_whole_numbers():
    def mixed(state, word):
        bits = ((state ^ word) + 0x9E3779B97F4A7C15) % 2**64
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        return bits ^ (bits >> 31)

    found = random_scores(5, np.array([0, 7, 2**40]), 50)
    first = mixed(0, 5)  # the seed is the first word
    for row, user in enumerate((0, 7, 2**40)):
        for item in range(50):
            assert found[row, item] == np.float32((mixed(mixed(first, user), item) >> 11) * 2.0**-53)
