"""Compiled loops against plain twins. Selection is in test_rank.py, least squares in models/test_als.py."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.kernels import gains, one_blas_thread, product


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_gains_look_every_listed_item_up(data):
    n, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 15))
    rows = data.draw(st.lists(st.dictionaries(st.integers(0, n - 1), st.sampled_from([0.5, 1.0, 3.0])), min_size=1))
    lists = [data.draw(st.permutations(range(n)))[:k] for _ in rows]
    items = np.full((len(rows), k), -1, dtype=np.int32)
    for row, listed in enumerate(lists):
        items[row, : len(listed)] = listed
    indptr = np.cumsum([0] + [len(row) for row in rows])
    indices = np.array([item for row in rows for item in sorted(row)], dtype=np.int32)
    values = np.array([row[item] for row in rows for item in sorted(row)], dtype=np.float64)
    found, ideal = gains(items, indptr, indices, values)
    for row, listed in enumerate(lists):
        missing = k - len(listed)
        assert found[row].tolist() == [rows[row].get(item, 0.0) for item in listed] + [0.0] * missing
        best = sorted(rows[row].values(), reverse=True)[:k]
        assert ideal[row].tolist() == best + [0.0] * (k - len(best))


def test_the_blocked_product_is_the_product():
    rng = np.random.default_rng(0)
    for shape in ((1, 3, 2), (128, 5, 7), (300, 40, 9)):
        a, b = rng.normal(size=shape[:2]), rng.normal(size=shape[1:])
        with one_blas_thread():
            np.testing.assert_allclose(product(a, b), np.einsum("ij,jk->ik", a, b), rtol=1e-12, atol=1e-12)
