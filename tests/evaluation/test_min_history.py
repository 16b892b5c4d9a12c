"""From how many likes on a model scores users itself: the decision that both engines share."""

import numpy as np
import pytest

from recsys.evaluation.min_history import can_decide, choose_min_history

LIKES = {"0-1": 1, "2-4": 3, "5-19": 7, "20+": 40}


def values_of(differences, users=200):
    """Return (likes, model's NDCG, fallback's) of ``users`` per group, whose mean differences are as given."""
    rng = np.random.default_rng(0)
    n_liked = np.repeat([LIKES[group] for group in differences], users)
    fallback = rng.uniform(0.2, 0.8, len(n_liked))
    noise = rng.normal(0, 0.05, len(n_liked)).reshape(-1, users)
    noise -= noise.mean(axis=1, keepdims=True)
    return n_liked, fallback + np.repeat(list(differences.values()), users) + noise.ravel(), fallback


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({"0-1": 0.1, "2-4": 0.1, "5-19": 0.1, "20+": 0.1}, 0),
        ({"0-1": -0.1, "2-4": 0.1, "5-19": 0.1, "20+": 0.1}, 2),
        ({"0-1": -0.1, "2-4": -0.1, "5-19": 0.1, "20+": 0.1}, 5),
        ({"0-1": -0.1, "2-4": -0.1, "5-19": -0.1, "20+": 0.1}, 20),
        # Users with 20 likes or more always keep the model.
        ({"0-1": -0.1, "2-4": -0.1, "5-19": -0.1, "20+": -0.1}, 20),
        ({"0-1": 0.1, "2-4": 0.1, "5-19": 0.1, "20+": -0.1}, 0),
        # A model shown to be better with few likes is not taken away from users with more.
        ({"0-1": 0.1, "2-4": -0.1, "5-19": 0.1, "20+": 0.1}, 0),
        # Where nothing is shown, a group follows the next longer one.
        ({"0-1": 0.0, "2-4": -0.1, "5-19": 0.1, "20+": 0.1}, 5),
        ({"0-1": -0.1, "2-4": 0.0, "5-19": 0.0, "20+": 0.1}, 2),
        ({"2-4": -0.1, "20+": 0.1}, 5),
        ({"20+": 0.1}, 0),
    ],
)
def test_the_threshold_ends_the_longest_group_that_the_fallback_serves_better(differences, expected):
    assert choose_min_history(*values_of(differences))["min_history"] == expected


def test_a_group_of_29_users_decides_nothing_and_one_of_30_does():
    n_liked, model, fallback = values_of({"2-4": -0.3}, users=30)
    assert choose_min_history(n_liked, model, fallback)["min_history"] == 5
    choice = choose_min_history(n_liked[1:], model[1:], fallback[1:])
    assert choice["min_history"] == 0
    assert [(group["users"], group["difference"]) for group in choice["groups"]] == [
        (0, None),
        (29, None),
        (0, None),
        (0, None),
    ]
    assert can_decide(n_liked)
    assert not can_decide(n_liked[1:])
    assert not can_decide(np.full(500, 20))


def test_the_record_says_what_was_compared():
    n_liked, model, fallback = values_of({"0-1": -0.1, "5-19": 0.05})
    choice = choose_min_history(n_liked, model, fallback)
    shortest, _, longer, _ = choice["groups"]
    assert (shortest["history"], shortest["users"]) == ("0-1", 200)
    assert shortest["difference"]["mean"] == pytest.approx(-0.1)
    assert shortest["difference"]["low"] < -0.1 < shortest["difference"]["high"] < -0.09
    assert longer["model"] - longer["fallback"] == pytest.approx(0.05)
