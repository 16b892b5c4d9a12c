"""Sparse products of recsys.linalg against dense NumPy and plain loops. What only models use is in tests/models."""

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array, vstack

from recsys.linalg import PARTS, arrays, dense_product, multiply_dense, nearest_rows


def signed_matrix(shape, density, seed):
    """Return a csr matrix of small integers, so that products are exact and often cancel; some values are 0."""
    rng = np.random.default_rng(seed)
    matrix = csr_array(random_array(shape, density=density, format="csr", rng=rng))
    matrix.data = rng.integers(-2, 3, matrix.nnz).astype(np.float32)
    return matrix


def nearest_by_loops(a, b, a_scale, b_scale, shrink, k, excluded):
    """Return the k largest similarities of each row, as lists of (column, similarity)."""
    is_listed = has_entry(a) @ has_entry(b) > 0
    similarity = (a.toarray() @ b.toarray()) / (np.outer(a_scale, b_scale) + shrink)
    rows = []
    for i in range(a.shape[0]):
        columns = [j for j in range(b.shape[1]) if is_listed[i, j] and j != excluded[i]]
        best = sorted(columns, key=lambda j: (-np.float32(similarity[i, j]), j))[:k]
        rows.append([(j, np.float32(similarity[i, j])) for j in best])
    return rows


def has_entry(matrix):
    """Return whether each cell has a stored entry, also one of 0, as a dense matrix of 0 and 1."""
    return csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape).toarray()


@pytest.mark.parametrize("densities", [(0.03,), (0.2,), (0.6,), (0.6, 0.03, 0.6)])
def test_the_nearest_rows_are_those_of_loops(densities):
    """In sparse rows few columns get a value, in dense ones most. Each group of rows has one row in every part."""
    a = csr_array(vstack([signed_matrix((PARTS, 30), density, 1) for density in densities], format="csr"))
    b = signed_matrix((30, 200), 0.2, 2)
    rng = np.random.default_rng(3)
    a_scale, b_scale = rng.uniform(1, 2, a.shape[0]), rng.uniform(1, 2, 200)
    excluded = np.arange(a.shape[0])
    excluded[::5] = -1
    columns, values = nearest_rows(arrays(a), arrays(b), a_scale, b_scale, 0.5, 7, excluded)
    expected = nearest_by_loops(a, b, a_scale, b_scale, 0.5, 7, excluded)
    for i, pairs in enumerate(expected):
        assert columns[i, : len(pairs)].tolist() == [column for column, _ in pairs]
        np.testing.assert_allclose(values[i, : len(pairs)], [value for _, value in pairs], rtol=1e-6)
        assert (columns[i, len(pairs) :] == -1).all()
        assert np.isnan(values[i, len(pairs) :]).all()


def test_dense_rows_list_pairs_whose_products_cancel_and_no_others():
    """A product of 0, also one of -0.0, is a similarity; a pair without a common position has none."""
    a = csr_array(np.array([[1.0, 1.0, -1.0]]))
    b = csr_array((np.array([1.0, -1.0, 0.0, 2.0]), np.array([0, 0, 1, 2]), np.array([0, 1, 2, 4])), shape=(3, 4))
    ones = np.ones(4)
    columns, values = nearest_rows(arrays(a), arrays(b), ones[:1], ones, 0.0, 4, np.array([-1]))
    assert columns.tolist() == [[0, 1, 2, -1]]
    assert values[0, :3].tolist() == [0.0, 0.0, -2.0]


@pytest.mark.parametrize("density", [0.03, 0.4])
def test_products_are_those_of_numpy(density):
    """Rows have from 0 to more than four entries."""
    a, b = signed_matrix((40, 30), density, 4), signed_matrix((30, 17), 0.5, 5)
    expected = a.toarray() @ b.toarray()
    np.testing.assert_array_equal(dense_product(arrays(a), arrays(b), 17), expected)
    np.testing.assert_array_equal(multiply_dense(arrays(a), b.toarray()), expected)
