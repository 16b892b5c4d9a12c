"""Ids in, ids out, and the invariants of the frozen types."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.schema import FEW, ITEMS, canonical_int64, unify_ids
from recsys.types import Histories, IdMap, Interactions, select_rows


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
    known = IdMap.from_ids(ids)
    rows = known.rows(ids)
    assert sorted(rows) == list(range(len(ids)))
    assert list(known.ids_of(rows)) == list(ids)
    if hasattr(ids, "dtype"):
        assert known.ids_of(rows).dtype == ids.dtype


def test_text_looked_up_among_numbers_must_be_canonical():
    assert IdMap.from_ids([7, 8]).rows(["7", "007", "x"]).tolist() == [0, -1, -1]


def test_mixtures_are_refused():
    with pytest.raises(InputError, match="text"):
        IdMap.from_ids(["a"]).rows([1])
    with pytest.raises(InputError, match="one kind"):
        IdMap.from_ids(["a"], [1])
    with pytest.raises(InputError, match="missing"):
        IdMap.from_ids(["a", None])
    with pytest.raises(InputError, match="integers"):
        IdMap.from_ids([1.5])


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
        IdMap.from_ids(list("abc")),
        IdMap.from_ids(list("xyz")),
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
    one_by_one = [select_rows(matrix, np.array([row])).toarray().tolist() for row in (1, -1, 0)]
    assert one_by_one == [[[0, 3, 0]], [[0, 0, 0]], [[1, 0, 2]]]


@pytest.mark.parametrize(("ids", "asked"), [([30, 10], ["10", "30", "010", "7"]), (["b", "a"], ["a", "b", "c", ""])])
def test_one_id_has_the_row_that_it_has_among_others(ids, asked):
    ids = IdMap.from_ids(np.array(ids))
    assert [ids.rows([name]).tolist() for name in asked] == [[0], [1], [-1], [-1]]
    assert ids.rows(asked).tolist() == [0, 1, -1, -1]
    # A short list of texts has a look-up of its own.
    for many in (asked * FEW, np.array(asked, dtype=object)):
        assert ids.rows(many)[:4].tolist() == [0, 1, -1, -1]
    assert IdMap.from_ids().rows(asked).tolist() == [-1] * 4


def test_a_null_among_categories_is_no_id():
    column = pd.Series(pd.Categorical(["a", None], categories=["a", "b"]))
    assert IdMap.from_ids(column).all_ids.tolist() == ["a"]


def test_categories_are_one_kind_as_their_texts_are_and_null_stays_null():
    ids = ["10", None, "9", "10"]
    found = unify_ids(pd.Series(ids, dtype="category"), pd.Series([7]))[0]
    assert found.tolist()[0::2] == [10, 9]
    assert found.isna().tolist() == [False, True, False, False]
    assert found.cat.categories.tolist() == [9, 10]
    text = unify_ids(pd.Series(ids, dtype="category"), pd.Series(["a"]))[0]
    assert text.astype(object).tolist()[0::2] == ["10", "9"]
    assert text.isna().sum() == 1


DAY = 86_400


def three_histories():
    """Return histories over five items: three users, the second without entries; values are 10 · user + item."""
    rows = [[0, 1, 2, 0, 4], [0, 0, 0, 0, 0], [20, 0, 22, 23, 0]]
    times = [50, 20, 20, 7 * DAY, -1, 5 * DAY]
    return Histories(csr_array(np.array(rows, dtype=np.float32)), np.array(times))


def entries(histories):
    """Return one {item: (value, time)} per user."""
    values = histories.values
    return [
        {
            int(values.indices[entry]): (float(values.data[entry]), int(histories.times[entry]))
            for entry in range(values.indptr[row], values.indptr[row + 1])
        }
        for row in range(len(histories))
    ]


FIRST = {1: (1.0, 50), 2: (2.0, 20), 4: (4.0, 20)}
THIRD = {0: (20.0, 7 * DAY), 2: (22.0, -1), 3: (23.0, 5 * DAY)}


def test_times_follow_their_entries():
    histories = three_histories()
    assert entries(histories) == [FIRST, {}, THIRD]
    assert entries(histories.select(np.array([2, -1, 0, 2]))) == [THIRD, {}, FIRST, THIRD]
    assert entries(histories[np.array([2, 0])]) == [THIRD, FIRST]
    for rows in (slice(1, 3), slice(None, None, 2), slice(None, None, -1), slice(3, 1), slice(-1, None)):
        assert entries(histories[rows]) == [FIRST, {}, THIRD][rows]
    keep = np.array([True, False, True, False, True, True])
    kept = [{1: FIRST[1], 4: FIRST[4]}, {}, {2: THIRD[2], 3: THIRD[3]}]
    assert entries(histories.keep_entries(keep)) == kept


def test_histories_without_times_are_selected_by_their_values():
    values = three_histories().values
    histories = Histories(values)
    for part in (histories.select(np.array([-1, 2])), histories.keep_entries(values.data > 2)[1:], histories[1:]):
        assert part.times is None
    np.testing.assert_array_equal(histories.select(np.array([-1, 2])).values.toarray(), [[0] * 5, values.toarray()[2]])


def test_selection_keeps_stored_zeros():
    values = csr_array((np.zeros(2, dtype=np.float32), [0, 2], [0, 2]), shape=(1, 3))
    for times in (None, np.array([5, 3])):
        assert Histories(values, times).select(np.array([0, -1, 0])).values.nnz == 4


def test_lengths_and_rows_of_entries():
    histories = three_histories()
    assert len(histories) == 3
    assert histories.shape == (3, 5)
    assert histories.lengths.tolist() == [3, 0, 3]
    assert histories.row_of_entry.tolist() == [0, 0, 0, 2, 2, 2]
    assert histories.count_entries(np.array([True, False, True, False, True, False])).tolist() == [2, 0, 1]


def test_positions_count_from_the_oldest_and_ties_are_in_item_order():
    histories = three_histories()
    assert histories.positions().tolist() == [2, 0, 1, 2, 0, 1]
    assert Histories(histories.values).positions().tolist() == [0, 1, 2, 0, 1, 2]


def test_the_first_entries_are_the_oldest():
    oldest = [{2: FIRST[2], 4: FIRST[4]}, {}, {2: THIRD[2], 3: THIRD[3]}]
    assert entries(three_histories().first(2)) == oldest
    assert entries(three_histories().first(0)) == [{}, {}, {}]
    assert entries(three_histories().first(9)) == [FIRST, {}, THIRD]


def test_ages_are_days_before_the_latest_entry_of_the_row():
    histories = three_histories()
    np.testing.assert_allclose(histories.ages(), [0, 30 / DAY, 30 / DAY, 0, 0, 2])
    assert Histories(histories.values).ages().tolist() == [0] * 6


def test_a_wrong_number_of_times_is_refused():
    with pytest.raises(ValueError, match="5 times for 6 history entries"):
        Histories(three_histories().values, np.zeros(5, dtype=np.int64))


def test_unsorted_entries_are_sorted_unless_times_follow_them():
    def unsorted():
        return csr_array((np.array([1, 2], dtype=np.float32), [3, 1], [0, 2]), shape=(1, 4))

    assert Histories(unsorted()).values.indices.tolist() == [1, 3]
    with pytest.raises(ValueError, match="sorted by item"):
        Histories(unsorted(), np.array([1, 2]))


def test_interactions_without_a_known_time_have_histories_without_times():
    pairs = interactions([0, 0, 2], [0, 2, 1])
    assert pairs.histories().times is None
    timed = Interactions(pairs.users, pairs.items, pairs.user, pairs.item, pairs.value, np.array([-1, 7, -1]))
    assert timed.histories().times.tolist() == [-1, 7, -1]


ODD_NUMBERS = [
    "7",
    "-3",
    "0",
    "-0",
    "007",
    "+7",
    " 7",
    "7 ",
    "7\n",
    "",
    "x",
    "1_000",
    "٣",
    "7.0",
    "1e3",
    "9" * 30,
    "9" * 5000,
]
ODD_NUMBERS += [str(2**63 - 1), str(2**63), str(-(2**63)), str(-(2**63) - 1), "-", "--3", "nan", "\u00b2"]


def test_few_texts_and_many_are_parsed_alike():
    many = canonical_int64(ODD_NUMBERS * (FEW // len(ODD_NUMBERS) + 2))
    few = canonical_int64(ODD_NUMBERS)
    for whole, part in zip(many, few, strict=True):
        assert whole[: len(ODD_NUMBERS)].tolist() == part.tolist()
        assert whole.dtype == part.dtype
    assert canonical_int64([])[0].dtype == np.int64
