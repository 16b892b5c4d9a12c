"""Lists of sorted items are those of all scores: the same items in the same order, whatever the factors."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys import linalg
from recsys.models import build
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.ranking.sorted_items import ITEMS_PER_BLOCK, USERS_PER_BLOCK, SortedItems
from recsys.types import IdMap, Interactions, Selection


def reference_lists(scores, excluded, k):
    """The k largest scores of each row that are not NaN or left out, the lower item first among equal ones."""
    scores = scores.astype(np.float64)
    scores[excluded.nonzero()] = np.nan
    items = np.full((len(scores), k), -1)
    for row, row_scores in enumerate(scores):
        ranked = np.lexsort((np.arange(len(row_scores)), -row_scores))
        ranked = ranked[~np.isnan(row_scores[ranked])][:k]
        items[row, : len(ranked)] = ranked
    return items


def whole_numbers(rng, shape, largest):
    """Random factors whose products are exact in float32, so that equal scores are equal."""
    return rng.integers(-largest, largest + 1, size=shape).astype(np.float32)


def nothing(users, items):
    return csr_array((users, items), dtype=np.int8)


def check(user_factors, item_factors, excluded, k):
    items, scores = SortedItems.from_factors(item_factors).top_k(user_factors, Selection(k, excluded))
    exact = user_factors.astype(np.float64) @ item_factors.astype(np.float64).T
    expected = reference_lists(exact, excluded, k)
    np.testing.assert_array_equal(items, expected)
    expected_scores = np.where(expected >= 0, np.take_along_axis(exact, np.maximum(expected, 0), axis=1), np.nan)
    np.testing.assert_array_equal(scores, expected_scores.astype(np.float32))


@pytest.mark.parametrize("kind", ["alike", "skewed", "equal scores", "zeros", "one number"])
@pytest.mark.parametrize("items", [ITEMS_PER_BLOCK - 1, ITEMS_PER_BLOCK, 2 * ITEMS_PER_BLOCK + 1])
def test_lists_are_those_of_all_scores(kind, items):
    rng = np.random.default_rng(items)
    users = 3 * USERS_PER_BLOCK + 3
    rank = 1 if kind == "one number" else 6
    item_factors = whole_numbers(rng, (items, rank), 20)
    user_factors = whole_numbers(rng, (users, rank), 20)
    if kind == "skewed":
        item_factors *= 2.0 ** rng.integers(0, 8, size=(items, 1)).astype(np.float32)
    elif kind == "equal scores":
        # Items that differ only in what no user looks at have equal scores and other lengths.
        item_factors[:, :4] = whole_numbers(rng, (items, 4), 1)
        user_factors[:, 4:] = 0
    elif kind == "zeros":
        user_factors[::3] = 0
        item_factors[rng.random(items) < 0.5] = 0
    item_factors[rng.random(items) < 0.1] = np.nan
    excluded = csr_array(rng.random((users, items)) < 0.05)
    excluded.sort_indices()
    for k in (1, 10):
        check(user_factors, item_factors, excluded, k)


def test_a_list_without_enough_items_is_short():
    item_factors = np.array([[1.0], [np.nan], [3.0], [-2.0]], dtype=np.float32)
    excluded = csr_array(np.array([[0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]]))
    check(np.ones((3, 1), dtype=np.float32), item_factors, excluded, 5)


def test_only_candidates_with_a_factor_are_listed():
    factors = np.array([[5.0], [4.0], [3.0], [2.0]], dtype=np.float32)
    items = SortedItems.from_factors(factors, np.array([True, False, True, True]))
    assert items.shared_lists(Selection(4, nothing(1, 4)))[0].tolist() == [[0, 2, 3, -1]]
    candidates = np.array([False, True, True, True])
    assert items.shared_lists(Selection(4, nothing(1, 4), candidates))[0].tolist() == [[2, 3, -1, -1]]


def test_there_may_be_no_users_and_no_items():
    no_items = SortedItems.from_factors(np.full((4, 2), np.nan, dtype=np.float32))
    items, scores = no_items.top_k(np.ones((2, 2), np.float32), Selection(3, nothing(2, 4)))
    assert items.tolist() == [[-1] * 3] * 2
    assert np.isnan(scores).all()
    items, _ = no_items.top_k(np.empty((0, 2), np.float32), Selection(3, nothing(0, 4)))
    assert items.shape == (0, 3)


def test_a_bound_allows_for_the_rounding_of_scores():
    """Users and items in one direction reach their bound, and rounding takes computed scores above it."""
    rng = np.random.default_rng(5)
    direction = rng.normal(size=64)
    items = 4 * ITEMS_PER_BLOCK
    # All lengths are equal but for the last digits, and scores differ by their rounding alone.
    noise = 6e-8 * rng.integers(-1, 2, size=(items, 64))
    item_factors = (direction * (1 + noise)).astype(np.float32)
    user_factors = (rng.uniform(0.5, 2, size=(50, 1)) * direction).astype(np.float32)
    _, scores = SortedItems.from_factors(item_factors).top_k(user_factors, Selection(10, nothing(50, items)))
    all_scores = linalg.product(user_factors, item_factors.T)
    np.testing.assert_array_equal(scores, -np.sort(-all_scores, axis=1)[:, :10])


def test_a_score_that_overflows_is_listed_only_if_it_is_the_largest():
    item_factors = np.array([[1e30], [-1e30], [1.0]], dtype=np.float32)
    user_factors = np.array([[1e30]], dtype=np.float32)
    items, scores = SortedItems.from_factors(item_factors).top_k(user_factors, Selection(3, nothing(1, 3)))
    assert items.tolist() == [[0, 2, -1]]
    assert scores[0, 0] == np.inf


def test_a_model_that_is_fitted_again_lists_by_its_new_scores():
    """The sorted items that a model keeps are those of its last fit, also if the arrays have one shape."""
    likes = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32)
    for kind, params in (("popular", {}), ("als", {"rank": 2, "iterations": 2})):
        model = build(kind, params)
        lists = []
        for matrix in (likes, likes[:, ::-1]):
            user, item = np.nonzero(matrix)
            rows = IdMap.from_ids(np.arange(3))
            cells = (user.astype(np.int32), item.astype(np.int32))
            train = Interactions(rows, rows, *cells, np.ones(len(user), np.float32), np.full(len(user), -1))
            model.fit(train)
            lists.append(
                recommend(model, csr_array(matrix[1:2]), 1, options=RecommendOptions(exclude_seen=False)).items.tolist()
            )
        assert lists == [[[0]], [[2]]], kind
