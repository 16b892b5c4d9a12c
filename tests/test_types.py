"""Ids in, ids out, and the invariants of the frozen types."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.schema import ITEMS, canonical_int64, unify_ids
from recsys.types import IdMap, Interactions, select_rows


@pytest.mark.parametrize(
    "ids",
    [
        np.array([5, 3, 9], dtype=np.int32),
        np.array([2**32 + 7, 7, 2**33 + 7], dtype=np.int64),  # equal modulo 2**32
        np.array([2**31, 2**31 + 1, 5], dtype=np.uint32),
        pd.Series(["007", "7", "b3f1c1e2-0000-4000-8000-000000000000"]),
        ["ärger", "zebra", "日本", "🎬"],
    ],
)
def test_ids_come_back_as_they_were(ids):
    known = IdMap.of(ids)
    rows = known.rows(ids)
    assert sorted(rows) == list(range(len(ids)))
    assert list(known.ids_of(rows)) == list(ids)
    if hasattr(ids, "dtype"):
        assert known.ids_of(rows).dtype == ids.dtype


def test_text_looked_up_among_numbers_must_be_canonical():
    assert IdMap.of([7, 8]).rows(["7", "007", "x"]).tolist() == [0, -1, -1]


def test_mixtures_are_refused():
    with pytest.raises(InputError, match="text"):
        IdMap.of(["a"]).rows([1])
    with pytest.raises(InputError, match="one kind"):
        IdMap.of(["a"], [1])
    with pytest.raises(InputError, match="missing"):
        IdMap.of(["a", None])
    with pytest.raises(InputError, match="integers"):
        IdMap.of([1.5])


def test_ids_become_numbers_only_together():
    numbers = unify_ids(pd.Series(["1", "2"]), pd.Series(["30", "-4"]))
    assert [column.dtype.kind for column in numbers] == ["i", "i"]
    text = unify_ids(pd.Series([1, 2], dtype=np.int32), pd.Series(["007", "7"]))
    assert [column.tolist() for column in text] == [["1", "2"], ["007", "7"]]
    kept = unify_ids(pd.Series([1], dtype=np.int32), pd.Series(["5"]))
    assert [str(column.dtype) for column in kept] == ["int32", "int64"]


@pytest.mark.parametrize("text", ["", "007", "+7", "7 ", "1e3", "1.0", "--1", "-0", "9223372036854775808", "٣"])
def test_not_canonical(text):
    assert not canonical_int64([text])[1][0]


@pytest.mark.parametrize("number", [0, 7, -7, 2**63 - 1, -(2**63)])
def test_canonical(number):
    numbers, fits = canonical_int64([str(number)])
    assert fits[0]
    assert numbers[0] == number


def test_missing_columns_are_named_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'itemid'"):
        ITEMS.require(["itemid", "title"], "films.csv")


def interactions(user, item):
    n = len(user)
    return Interactions(
        IdMap.of(list("abc")),
        IdMap.of(list("xyz")),
        np.array(user, dtype=np.int32),
        np.array(item, dtype=np.int32),
        np.zeros(n, dtype=np.float32),
        np.full(n, -1, dtype=np.int64),
    )


def test_the_matrix_keeps_explicit_zeros():
    matrix = interactions([0, 0, 2], [0, 2, 1]).matrix()
    assert matrix.nnz == 3
    assert matrix.indices.tolist() == [0, 2, 1]
    assert matrix.shape == (3, 3)


@pytest.mark.parametrize(("user", "item"), [([0, 0], [1, 1]), ([1, 0], [0, 0]), ([0, 0], [2, 1])])
def test_unsorted_or_repeated_entries_are_refused(user, item):
    with pytest.raises(ValueError, match="sorted"):
        interactions(user, item)


def test_a_row_of_minus_one_is_empty():
    matrix = csr_array(np.array([[1, 0, 2], [0, 3, 0]], dtype=np.float32))
    picked = select_rows(matrix, np.array([1, -1, 0]))
    assert picked.toarray().tolist() == [[0, 3, 0], [0, 0, 0], [1, 0, 2]]


def test_categories_are_one_kind_as_their_texts_are_and_null_stays_null():
    ids = ["10", None, "9", "10"]
    found = unify_ids(pd.Series(ids, dtype="category"), pd.Series([7]))[0]
    assert found.tolist()[0::2] == [10, 9]
    assert found.isna().tolist() == [False, True, False, False]
    assert found.cat.categories.tolist() == [9, 10]
    text = unify_ids(pd.Series(ids, dtype="category"), pd.Series(["a"]))[0]
    assert text.astype(object).tolist()[0::2] == ["10", "9"]
    assert text.isna().sum() == 1
