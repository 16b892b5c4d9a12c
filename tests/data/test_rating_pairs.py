"""One rating per pair, and the folds of pairs."""

import numpy as np
import pandas as pd
import pytest

from recsys.data.hashing import pair_hash
from recsys.data.rating_pairs import rating_per_pair
from recsys.data.splitting.strategies import Folds, Fraction, assign_sides, fold_of_pairs
from recsys.errors import InputError


def loop(rows):
    """Return pair -> the mean of its latest values, from rows (user, item, value, time)."""
    ratings = {}
    for user, item in {(user, item) for user, item, _, _ in rows}:
        of_pair = [(value, time) for u, i, value, time in rows if (u, i) == (user, item)]
        latest = max(time for _, time in of_pair)
        values = [value for value, time in of_pair if time == latest]
        ratings[user, item] = sum(values) / len(values)
    return ratings


@pytest.mark.parametrize("timed", [True, False])
def test_the_latest_rating_of_a_pair_counts(timed):
    rng = np.random.default_rng(0)
    columns = (rng.integers(0, 6, 300), rng.integers(0, 9, 300), rng.integers(1, 6, 300).astype(float))
    rows = list(zip(*columns, rng.integers(0, 5, 300) * timed, strict=True))
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "value", "timestamp"]).assign(event="rate")
    if not timed:
        events = events.drop(columns="timestamp")
    merged, count = rating_per_pair(events)
    expected = loop(rows)
    found = {(u, i): v for u, i, v in merged[["user_id", "item_id", "value"]].itertuples(index=False)}
    assert found == pytest.approx(expected)
    assert len(merged) == len(expected)
    assert count == 300 - len(expected)
    assert "event" not in merged


def test_a_log_without_repeats_is_unchanged_and_equal_values_are_refused():
    events = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "value": [3.0, 4.0, 0.0]})
    merged, count = rating_per_pair(events)
    pd.testing.assert_frame_equal(merged, events)
    assert count == 0
    with pytest.raises(InputError, match="every rating is 1, so there is nothing to predict"):
        rating_per_pair(events.assign(value=1.0))


def test_parts_of_files_are_merged_apart():
    events = pd.DataFrame(
        {"user_id": [1, 1, 1], "item_id": [1, 1, 1], "value": [3.0, 5.0, 1.0], "side": np.array([0, 0, 2], np.int8)}
    )
    merged, _ = rating_per_pair(events)
    assert merged["value"].tolist() == [4.0, 1.0]


def test_folds_are_equal_in_size_disjoint_and_not_the_hash_of_a_fraction():
    users, items = (rows.ravel() for rows in np.meshgrid(np.arange(200), np.arange(150)))
    events = pd.DataFrame({"user_id": users, "item_id": items, "value": 1.0})
    fold = fold_of_pairs(users, items, Folds(folds=5))
    share = np.bincount(fold)[1:] / len(fold)
    assert len(share) == 5
    assert np.abs(share - 0.2).max() < 0.01
    tested = [assign_sides(events, Folds(folds=5, fold=number)) == 2 for number in range(1, 6)]
    np.testing.assert_array_equal(np.sum(tested, axis=0), 1)
    for number, of_fold in enumerate(tested, start=1):
        np.testing.assert_array_equal(of_fold, fold == number)
    in_fraction = assign_sides(events, Fraction(test=0.2)) == 2
    by_pair_hash = (pair_hash(items, users, 0) * 5).astype(int)  # the folds of a search
    for of_fold in tested:
        assert abs(np.corrcoef(of_fold, in_fraction)[0, 1]) < 0.03
        assert max(abs(np.corrcoef(of_fold, by_pair_hash == other)[0, 1]) for other in range(5)) < 0.03
    assert (fold_of_pairs(users, items, Folds(seed=1)) != fold).mean() > 0.7
    order = np.random.default_rng(0).permutation(len(users))
    np.testing.assert_array_equal(fold_of_pairs(users[order], items[order], Folds()), fold[order])
