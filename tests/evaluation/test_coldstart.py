"""The cold-start curve: what each model is told at a cut, what stays out of the lists, whom it asks."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.evaluation.cold_start import ColdStart, summary
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.truth import Truth
from recsys.recommender import Recommender
from recsys.types import IdMap, Interactions, Split

ITEMS = 30


def split_of(lengths, timed=True, seed=0):
    """A user for each length: so many events of items in random order of time, one test item that is new to him."""
    rng = np.random.default_rng(seed)
    drawn = [(user, rng.permutation(ITEMS)[:n]) for user, n in enumerate(lengths)]
    rows = sorted((user, item, at) for user, own in drawn for at, item in enumerate(own))
    user, item, at = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    users, items = IdMap.from_ids(np.arange(len(lengths))), IdMap.from_ids(np.arange(ITEMS))
    ones = np.ones(len(user), dtype=np.float32)
    time = 1000 + at if timed else np.full(len(at), -1)
    history = Interactions(users, items, user.astype(np.int32), item.astype(np.int32), ones, time)
    taken = [set(item[user == u]) for u in range(len(lengths))]
    new = np.array([min(set(range(ITEMS)) - own) for own in taken], dtype=np.int32)
    people = np.arange(len(lengths), dtype=np.int32)
    test = Interactions(users, items, people, new, np.ones(len(new), np.float32), np.full(len(new), 9999))
    return Split(history, history, test, "made")


def curve_of(split, **settings):
    return ColdStart(Truth.from_split(split, EvaluationSettings(**settings)), 5)


class Told(Recommender):
    """Notes the histories that it is asked about; likes low rows best."""

    SOURCE = "told"

    def __init__(self):
        self.seen = []

    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        self.seen.append(histories.values.toarray())
        return np.tile(-np.arange(ITEMS, dtype=np.float32), (len(histories), 1))


def test_a_model_is_told_the_first_events_and_the_rest_stays_out_of_its_lists():
    split = split_of([12] * 25 + [3] * 5)
    curve = curve_of(split, metrics=("mrr@1",), cold_start=(0, 2, 12, 20))
    assert curve.cuts == (0, 2, 12)  # nobody has 20
    model = Told()
    values = curve.values(model)
    order = csr_array((split.history.time, (split.history.user, split.history.item)), shape=(30, ITEMS)).toarray()
    for cut, told in zip(curve.cuts, model.seen, strict=True):
        wanted = [set(np.flatnonzero((row > 0) & (row < 1000 + cut))) for row in order[:25]]
        assert [set(np.flatnonzero(row)) for row in told] == wanted
        # its first place is the lowest row that the user has not seen in all his events: the test item
        assert values[cut].tolist() == [1.0] * 25


def test_without_times_the_kept_events_are_random_but_always_the_same_and_nested():
    curve = curve_of(split_of([15] * 40, timed=False), cold_start=(3, 6))
    first, again = Told(), Told()
    curve.values(first)
    curve.values(again)
    for a, b in zip(first.seen, again.seen, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.seen[0] <= first.seen[1]).all()
    assert (first.seen[0].sum(axis=1) == 3).all()
    chosen = first.seen[0].sum(axis=0)
    assert chosen[:15].sum() < 100  # of 120: not simply the lowest rows


@pytest.mark.parametrize("lengths", [[5] * 10, []])
def test_too_few_users_give_no_curve(lengths):
    split = split_of(lengths or [1])
    assert curve_of(split).cuts == ()


def test_summary_names_who_leads_at_each_cut():
    values = {"a": {0: np.array([0.0, 0.2]), 5: np.array([0.9, 0.7])}, "b": {0: np.full(2, 0.5), 5: np.full(2, 0.5)}}
    found = summary(values, "ndcg@10")
    assert found["leads"] == {"0": "b", "5": "a"}
    assert [(row["model"], row["events"], round(row["mean"], 9)) for row in found["curve"]] == [
        ("a", 0, 0.1), ("a", 5, 0.8), ("b", 0, 0.5), ("b", 5, 0.5),
    ]  # fmt: skip
    assert found["users"] == 2
