"""Events in order and one entry a pair, on one core and on many, against plain Python."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import pairs
from recsys.data.card import data_card
from recsys.data.reading.log import Log
from recsys.data.reading.read import Refusals, Tables
from recsys.types import IdMap

EVENTS = st.lists(st.tuples(*(st.integers(0, n) for n in (5, 4, 3, 3))), min_size=1, max_size=60)


@pytest.fixture(params=[1, 1 << 18], ids=["many parts", "one part"])
def cores(request, monkeypatch):
    monkeypatch.setattr(pairs, "LONG", request.param)


def columns_of(rows):
    return [np.array(column, dtype=np.int32) for column in zip(*rows, strict=True)]


def shuffled_log():
    rng = np.random.default_rng(5)
    return [tuple(row) for row in rng.integers(0, [40, 9, 4, 3], (3000, 4))]


def test_order_and_entries(cores):
    rows = shuffled_log()
    user, item, time, value = columns_of(rows)
    begins, order = pairs.sort_events(user, item, 41, time, value)
    assert [rows[row] for row in order] == sorted(rows)
    assert begins.tolist() == [sum(row[0] < user for row in rows) for user in range(42)]
    found = pairs.aggregate_pairs(begins, order, item, time, value, pairs.SUM)
    wanted = {}
    for u, i, t, v in rows:
        total, latest = wanted.get((u, i), (0, 0))
        wanted[u, i] = (total + v, max(latest, t))
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [
        (*pair, *wanted[pair]) for pair in sorted(wanted)
    ]
    assert pairs.count_distinct(begins, order, [item]) == len(wanted)
    assert pairs.count_distinct(begins, order, [item, time, value]) == len(set(rows))


def test_search(cores):
    rows = sorted({row[:2] for row in shuffled_log()})
    user, item = columns_of(rows)
    begins = np.searchsorted(user, np.arange(42))
    asked = [(u, i) for u in range(41) for i in range(11)]
    users, items = columns_of(asked)
    assert pairs.contains_pairs(begins, item, users, items).tolist() == [pair in rows for pair in asked]
    keys = np.array([u * 11 + i for u, i in rows[::3]])
    assert pairs.keys_contain(users, items, 11, keys).tolist() == [pair in rows[::3] for pair in asked]
    assert not pairs.keys_contain(np.array([-1, 0]), np.array([0, -1]), 11, np.array([-11, -1])).any()


@given(EVENTS)
def test_the_card_counts_pairs_and_duplicates(rows):
    names = ["user_id", "item_id", "timestamp", "event"]
    log = Log()
    log.append(pd.DataFrame(rows, columns=names).astype({"timestamp": float, "event": str}).assign(value=1.0))
    facts = data_card(Tables(log.table(), None, None, {"events": Refusals(total=len(rows))}))
    assert facts["repeats"] == len(rows) - len({row[:2] for row in rows})
    assert facts["exact_duplicates"] == len(rows) - len(set(rows))
    assert (facts["users"], facts["items"]) == tuple(len({row[place] for row in rows}) for place in (0, 1))


def test_rows_of_categories_are_those_of_their_ids():
    ids = pd.Series(pd.Categorical(["b", None, "x", "b"], categories=["a", "b", "x", "unused"]))
    known = IdMap.from_ids(pd.Series(["b", "c"], dtype=object))
    assert known.rows(ids).tolist() == [0, -1, -1, 0]
    assert known.rows_int32(ids).dtype == np.int32
    assert IdMap.from_ids(ids[[0, 2, 3]]).ids.tolist() == ["b", "x"]
    numbers = pd.Series(pd.Categorical(np.array([9, 4], dtype=np.int16)))
    assert IdMap.from_ids(numbers).ids_of([1, 0]).tolist() == [9, 4]
    assert IdMap.from_ids(numbers).dtype == np.int16
