import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys.errors import ConfigError
from recsys.evaluation.groups import (
    POPULARITY,
    Groups,
    assign_columns,
    by_item_group,
    column_groups,
    group_column,
    popularity_codes,
    table_groups,
)
from recsys.evaluation.judging.metrics import parse
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.truth import Truth
from recsys.types import IdMap, TopK


def lists(rows, k):
    items = np.full((len(rows), k), -1, dtype=np.int32)
    for i, row in enumerate(rows):
        items[i, : len(row)] = row
    blank = np.zeros(len(rows), dtype=np.int8)
    return TopK(np.arange(len(rows)), items, np.zeros_like(items, dtype=np.float32), np.zeros_like(items), (), blank)


def members(groups):
    return {level: np.flatnonzero(groups.membership[:, i]).tolist() for i, level in enumerate(groups.grouping.levels)}


def test_each_third_of_the_likes_by_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        likes = rng.geometric(0.3, 40) - 1
        expected = []
        for n in likes:
            before = sum(int(other) for other in likes if other > n)
            expected.append(2 if n == 0 or 3 * before >= 2 * likes.sum() else int(3 * before >= likes.sum()))
        np.testing.assert_array_equal(popularity_codes(likes), expected)


def test_without_likes_everything_is_tail():
    np.testing.assert_array_equal(popularity_codes(np.zeros(3, dtype=int)), [2, 2, 2])


def test_texts_lists_and_missing_cells():
    groups = column_groups("genres", pd.Series(["drama|war", "war", None, "", ["drama", "noir"], np.nan]))
    assert members(groups) == {"drama": [0, 4], "noir": [4], "war": [0, 1], "unknown": [2, 3, 5]}


def test_few_numbers_are_groups_in_their_order():
    assert members(column_groups("age", pd.Series([35, 5, 35, 18]))) == {
        "5": [1],
        "18": [3],
        "35": [0, 2],
        "unknown": [],
    }
    assert list(members(column_groups("age", pd.Series([1.0, np.nan, 10.0])))) == ["1", "10", "unknown"]


def test_many_numbers_are_cut_at_their_quartiles():
    groups = column_groups("year", pd.Series(np.arange(1900, 2000)).astype(str))
    assert groups.grouping.levels == ("1900 to 1924", "1925 to 1949", "1950 to 1974", "1975 to 1999", "unknown")
    np.testing.assert_array_equal(groups.membership.sum(axis=0), [25, 25, 25, 25, 0])


def test_the_rarest_of_many_texts_are_other():
    groups = column_groups("country", pd.Series([f"c{i:02}" for i in range(20) for _ in range(20 - i)]))
    assert groups.grouping.levels == (*(f"c{i:02}" for i in range(11)), "other", "unknown")
    assert groups.membership[:, 11].sum() == sum(20 - i for i in range(11, 20))
    assert column_groups("c", pd.Series(list("abcdefghijkl"))).grouping.levels == (*"abcdefghijkl", "unknown")


def test_ids_outside_the_table_are_unknown():
    table = pd.DataFrame({"user_id": [7, 3], "age": ["old", "young"]})
    (groups,) = table_groups(["age"], table, "user_id", np.array([3, 5, 7]))
    assert members(groups) == {"old": [2], "young": [0], "unknown": [1]}


def test_whose_column_it_is():
    assert assign_columns(["genres", "age"], ["user_id", "age"], ["item_id", "genres"]) == (["age"], ["genres"])
    for wanted, message in (
        ("genre", "Did you mean 'genres'"),
        ("history", "always shown"),
        ("name", "both have a column 'name'"),
        ("item_id", "no column 'item_id'"),
    ):
        with pytest.raises(ConfigError, match=message):
            assign_columns([wanted], ["user_id", "age", "name"], ["item_id", "genres", "name"])
    with pytest.raises(ConfigError, match="There is no users or items table"):
        assign_columns(["age"], [], [])


def test_a_metric_within_item_groups_by_hand():
    # items 0-1 head, 2 mid, 3-5 tail; 6 is relevant but no candidate, so tail
    groups = Groups.from_codes(POPULARITY, np.array([0, 0, 1, 2, 2, 2]))
    topk = lists([[0, 3, 2], [4, 1]], 3)
    relevant = csr_array(np.array([[1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 0, 1, 0, 1.0]]))
    truth = Truth(
        users=IdMap.from_ids(np.arange(2)),
        candidates=IdMap.from_ids(np.arange(6)),
        histories=csr_array((2, 6)),
        relevant=relevant,
        propensity=np.ones(7),
        counts={},
        settings=EvaluationSettings(),
        exclude_seen=True,
    )
    found = by_item_group(topk, truth, groups, parse("recall@3"))
    np.testing.assert_allclose(found[group_column("recall@3", POPULARITY, "head")], [1, np.nan])
    np.testing.assert_allclose(found[group_column("recall@3", POPULARITY, "mid")], [np.nan, 0])
    np.testing.assert_allclose(found[group_column("recall@3", POPULARITY, "tail")], [1 / 2, 1 / 2])
    found = by_item_group(topk, truth, groups, parse("ndcg@3"))
    best = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(found["ndcg@3[popularity=tail]"], [1 / np.log2(3) / best, 1 / best])
