"""Selection and TopK against a sort of every row, written without the code under test."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.errors import ConfigError, InputError
from recsys.kernels import select_top_k
from recsys.ranking.rank import RecommendOptions, recommend, topk_from_table, topk_table
from recsys.recommender import Recommender
from recsys.types import SHORTFALL, IdMap


class Fixed(Recommender):
    """A model with given scores; row i of a block is user ``users[i]``."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=np.float32)

    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        block = self.scores[users]
        block.flags.writeable = False  # a model may hand out a view that nobody else may change
        return block


def by_sorting(row, seen, k):
    """Return the expected list of one row: sort all, drop what may not be chosen."""
    allowed = [item for item in range(len(row)) if np.isfinite(row[item]) and item not in seen]
    return sorted(allowed, key=lambda item: (-row[item], item))[:k]


@given(st.data())
def test_selection_equals_a_full_sort(data):
    n, k = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 35))
    values = st.sampled_from([np.nan, -np.inf, -1.0, 0.0, 0.5, 1.0, 2.0])  # few values: many ties
    rows = data.draw(st.lists(st.lists(values, min_size=n, max_size=n), min_size=1, max_size=5))
    seen = [sorted(data.draw(st.sets(st.integers(0, n - 1)))) for _ in rows]
    indptr = np.cumsum([0] + [len(s) for s in seen])
    indices = np.array([item for s in seen for item in s], dtype=np.int32)
    items, scores = select_top_k(np.array(rows, dtype=np.float32), indptr, indices, k)
    for row, hidden, found, found_scores in zip(rows, seen, items, scores, strict=True):
        expected = by_sorting(row, set(hidden), k)
        assert found.tolist() == expected + [-1] * (k - len(expected))
        assert found_scores[: len(expected)].tolist() == [row[item] for item in expected]
        assert np.isnan(found_scores[len(expected) :]).all()


@pytest.mark.parametrize("n", [255, 256, 257, 1_000, 5_000])
@pytest.mark.parametrize("values", [40, 10**6])
@pytest.mark.parametrize("n_seen", [0, 3, 50])
def test_selection_from_a_long_row_equals_a_full_sort(n, values, n_seen):
    """With few values there are ties on both sides of every bound that the selection may use."""
    rng = np.random.default_rng(n)
    row = rng.integers(values, size=n).astype(np.float32)
    row[rng.random(n) < 0.1] = np.nan
    row[rng.random(n) < 0.1] = -np.inf
    seen = np.sort(rng.choice(n, n_seen, replace=False)).astype(np.int32)
    for k in (1, 10, 300):
        items, scores = select_top_k(row[None], np.array([0, len(seen)]), seen, k)
        expected = by_sorting(row, set(seen.tolist()), k)
        assert items[0].tolist() == expected + [-1] * (k - len(expected))
        assert scores[0, : len(expected)].tolist() == row[expected].tolist()


def test_blocks_do_not_change_the_result():
    rng = np.random.default_rng(0)
    model = Fixed(rng.standard_normal((50, 20_000)).round(1))  # 1 MiB holds four such rows
    seen = csr_array((rng.random((50, 20_000)) < 0.2).astype(np.float32))
    whole = recommend(model, seen, 7)
    done = [0]
    tiny = recommend(
        model, seen, 7, options=RecommendOptions(memory_mb=1), progress=lambda rows, total: done.append(rows)
    )
    assert np.diff(done).tolist() == [4] * 12 + [2]
    one_by_one = [recommend(model, seen[[row]], 7, users=np.array([row])) for row in range(50)]
    assert (whole.items == tiny.items).all()
    assert (whole.items == np.vstack([one.items for one in one_by_one])).all()


def test_each_reason_for_a_short_list():
    nan = np.nan
    scores = [[3, 2, 1, 0], [3, 2, 1, 0], [nan] * 4, [3, 2, 1, 0]]
    seen = csr_array(np.array([[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float32))
    lists = recommend(Fixed(scores), seen, 2)
    assert [SHORTFALL[s] for s in lists.shortfall] == ["none", "all_seen", "cold_no_fallback", "none"]
    allowed = np.array([True, False, False, True])
    ruled = recommend(Fixed(scores), seen, 2, options=RecommendOptions(candidates=allowed))
    assert [SHORTFALL[s] for s in ruled.shortfall] == ["none", "all_seen", "cold_no_fallback", "filtered"]
    assert ruled.items[0].tolist() == [0, 3]
    assert SHORTFALL[recommend(Fixed(scores), seen, 9).shortfall[0]] == "small_catalogue"


def test_a_list_that_is_short_for_what_is_seen_is_scored_once():
    rows_scored = []

    class Counted(Fixed):
        def score(self, histories, users=None):
            rows_scored.append(len(histories))
            return super().score(histories, users)

        def can_score(self, histories, users=None):
            return np.ones(len(histories), dtype=bool)

    lists = recommend(Counted(np.ones((3, 4))), csr_array(np.tril(np.ones((3, 4), dtype=np.float32), 1)), 3)
    assert [SHORTFALL[s] for s in lists.shortfall] == ["all_seen"] * 3
    assert rows_scored == [3]


def test_what_candidates_remove_is_the_reason_only_where_the_list_would_else_be_full():
    nan = np.nan
    scores = [[3, 2, nan, nan], [3, nan, nan, nan], [nan] * 4, [3, 2, nan, nan]]
    seen = csr_array(np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=np.float32))
    cold = np.array([False, False, True, True])  # two candidates, on which the model has no opinion
    lists = recommend(Fixed(scores), seen, 2, options=RecommendOptions(candidates=cold))
    assert [SHORTFALL[s] for s in lists.shortfall] == ["filtered", "all_seen", "cold_no_fallback", "all_seen"]
    one = np.array([True, False, False, False])  # fewer than k candidates, but not a small catalogue
    options = RecommendOptions(candidates=one)
    assert SHORTFALL[recommend(Fixed(scores), seen, 2, options=options).shortfall[0]] == "filtered"
    small = recommend(Fixed(scores), seen, 5, options=options)
    assert [SHORTFALL[s] for s in small.shortfall] == ["small_catalogue"] * 2 + ["cold_no_fallback", "small_catalogue"]


def test_an_explicit_zero_counts_as_seen():
    seen = csr_array((np.zeros(1, dtype=np.float32), [1], [0, 1]), shape=(1, 3))
    assert recommend(Fixed([[1, 9, 2]]), seen, 3).items.tolist() == [[2, 0, -1]]
    with_seen = RecommendOptions(exclude_seen=False)
    assert recommend(Fixed([[1, 9, 2]]), seen, 3, options=with_seen).items.tolist() == [[1, 2, 0]]


def test_wrong_arguments_are_refused():
    empty = csr_array((1, 3), dtype=np.float32)
    with pytest.raises(ConfigError, match="k is 0"):
        recommend(Fixed([[1, 2, 3]]), empty, 0)
    with pytest.raises(ConfigError, match=r"bool\[3\]"):
        recommend(Fixed([[1, 2, 3]]), empty, 1, options=RecommendOptions(candidates=np.array([True])))


def test_the_table_and_back():
    users, items = IdMap.from_ids(["ann", "bob", "eve"]), IdMap.from_ids(np.array([10, 20, 30], dtype=np.int32))
    seen = csr_array((3, 3), dtype=np.float32)
    lists = recommend(Fixed([[1, 3, 2], [np.nan] * 3, [5, 4, 6]]), seen, 2)
    table = topk_table(lists, users, items)
    assert table["user_id"].tolist() == ["ann", "ann", "eve", "eve"]
    assert table["item_id"].tolist() == [20, 30, 30, 10]
    assert table["item_id"].dtype == np.int32
    assert table["rank"].tolist() == [1, 2, 1, 2]
    assert set(table["source"]) == {"fixed"}
    back = topk_from_table(table.sample(frac=1, random_state=1), users, items)
    assert back.items.tolist() == lists.items.tolist()
    assert back.items[1].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x", 1), ("a", "y", 1)], r"repeat a \(user, rank\)"),
        ([("a", "x", 1), ("a", "x", 2)], r"repeat a \(user, item\)"),
        ([("a", "x", 0)], "start at 1"),
        ([("a", "z", 1)], "not in the id maps"),
    ],
)
def test_bad_tables_are_refused(rows, message):
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])
    with pytest.raises(InputError, match=message):
        topk_from_table(table, IdMap.from_ids(["a"]), IdMap.from_ids(["x", "y"]))


@pytest.mark.parametrize("shape", [(3, 6), (2, 7), (3,), (3, 8)])
def test_scores_of_another_shape_are_refused_with_both_shapes(shape):
    class Own(Recommender):
        def fit(self, train, features=None):
            return self

        def score(self, histories, users=None):
            return np.zeros(shape, dtype=np.float32)

    with pytest.raises(InputError, match=rf"Own.score returned scores of shape \({shape[0]},.*\(3, 7\)"):
        recommend(Own(), csr_array((3, 7), dtype=np.float32), 2)
