"""The data card's numbers against plain counting, and odd users and drift that are really there or really not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.card import data_card, find_busiest_users, gini_coefficient, median_of_counts
from recsys.data.reading.read import read_tables
from recsys.data.splitting.audit import describe_drift

DAY = 86_400


def test_a_small_card_by_hand():
    events = pd.DataFrame(
        [
            ("a", "x", 1.0, 0.0),
            ("a", "x", 1.0, 0.0),  # an exact duplicate
            ("a", "x", 1.0, 5.0),  # a repeat
            ("a", "y", 1.0, 1 * DAY),
            ("b", "x", 1.0, 4 * DAY),
        ],
        columns=["user_id", "item_id", "value", "timestamp"],
    )
    facts = data_card(read_tables(events))
    assert (facts["events"], facts["users"], facts["items"]) == (5, 2, 2)
    assert facts["sparsity"] == 1 - 3 / 4
    assert facts["median_events_per_user"] == (4 + 1) / 2
    assert (facts["repeats"], facts["exact_duplicates"]) == (2, 1)
    assert facts["top_1_percent_share"] == 4 / 5
    assert facts["gaps"] == {"empty_days": 2, "longest": 2, "from": "1970-01-03", "to": "1970-01-04"}
    assert facts["span"] == ["1970-01-01", "1970-01-05"]


def test_the_card_describes_values():
    values = [-2.0, 0.0, 1.0, 1.0, 1e6]
    facts = data_card(read_tables(pd.DataFrame({"user_id": 1, "item_id": [1, 2, 3, 4, 5], "value": values})))
    centred = np.array(values) - np.mean(values)
    skew = (centred**3).mean() / (centred**2).mean() ** 1.5
    assert facts["values"] == {
        "smallest": -2.0,
        "mean": 200_000.0,
        "largest": 1e6,
        "skew": pytest.approx(skew, rel=5e-3),
        "negative": 1,
        "zero": 1,
    }
    equal = data_card(read_tables(pd.DataFrame({"user_id": [1, 2], "item_id": [1, 1]})))
    assert equal["values"]["skew"] is None


def test_without_times_there_are_no_gaps():
    facts = data_card(read_tables(pd.DataFrame({"user_id": [1, 2], "item_id": [1, 1]})))
    assert facts["gaps"] is facts["span"] is None


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_the_median_of_a_histogram_is_the_median(values):
    assert median_of_counts(*np.unique(values, return_counts=True)) == np.median(values)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30).filter(any))
def test_gini_is_the_mean_difference_of_all_pairs(counts):
    counts = np.sort(counts)
    mean_difference = np.abs(np.subtract.outer(counts, counts)).mean()
    assert gini_coefficient(counts) == pytest.approx(mean_difference / (2 * counts.mean()), abs=1e-12)


def histogram(counts):
    return np.unique(counts, return_counts=True)


def test_machines_are_found_among_people():
    rng = np.random.default_rng(0)
    people = np.maximum(1, rng.lognormal(2.5, 0.8, 5000).astype(int))
    found = find_busiest_users(*histogram(np.append(people, [50_000, 80_000])))
    assert 2 <= found["users"] <= 10
    assert people.max() * 0.5 < found["more_than"] < 50_000
    assert found["share_of_events"] >= 130_000 / (130_000 + people.sum())


def test_people_alone_raise_hardly_an_alarm():
    rng = np.random.default_rng(1)
    people = np.maximum(1, rng.lognormal(3, 1, 20_000).astype(int))
    assert (
        find_busiest_users(*histogram(people))["users"] <= 20
    )  # 3.5 sigma of a normal, one side: 0.02 % of 20,000 are 5
    assert find_busiest_users(*histogram([7] * 100))["users"] == 0


def test_a_machine_among_users_who_are_all_alike():
    assert find_busiest_users(*histogram([10] * 500 + [9000]))["users"] == 1


def test_no_drift_is_what_chance_gives_and_drift_is_more():
    rng = np.random.default_rng(2)
    popularity = rng.pareto(1.2, 500)
    popularity /= popularity.sum()
    train = rng.multinomial(80_000, popularity)
    same, other = rng.multinomial(20_000, popularity), rng.multinomial(20_000, np.roll(popularity, 1))
    still = describe_drift(train, same, [1.0, 1.0])
    assert still["items_moved"] == pytest.approx(still["items_moved_by_chance"], rel=0.1)
    assert describe_drift(train, other, [1.0, 1.0])["items_moved"] > 5 * still["items_moved_by_chance"]


def test_drift_has_its_ends():
    assert describe_drift(np.array([3, 3]), np.array([1, 1]), [0.0, 0.0])["items_moved"] == 0
    assert describe_drift(np.array([3, 0]), np.array([0, 9]), [0.0, 0.0])["items_moved"] == 1
