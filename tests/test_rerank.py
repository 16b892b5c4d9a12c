"""Re-ranking and exploration against loops and exact probabilities."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import chisquare

from recsys.errors import ConfigError, InputError
from recsys.ranking.rerank import calibrated, explore, mmr, sample
from recsys.types import TopK


def lists(seed, m=3, n=8):
    rng = np.random.default_rng(seed)
    items = np.array([rng.permutation(20)[:n] for _ in range(m)], dtype=np.int32)
    scores = -np.sort(-rng.normal(size=(m, n)), axis=1).astype(np.float32)
    items[-1, 5:], scores[-1, 5:] = -1, np.nan
    source = np.where(items >= 0, 0, -1).astype(np.int8)
    return TopK(np.arange(m), items, scores, source, ("x",), np.array([0, 0, 1], dtype=np.int8)), rng


def unit_rows(rng):
    vectors = rng.normal(size=(20, 4))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_mmr_is_the_greedy_loop(seed, weight):
    topk, rng = lists(seed)
    vectors = unit_rows(rng)
    found = mmr(topk, vectors, 4, weight)
    for row in range(3):
        listed = topk.items[row][topk.items[row] >= 0].tolist()
        score = topk.scores[row, : len(listed)].astype(float)
        relevance = (score - score.min()) / (score.max() - score.min())
        chosen = []
        while len(chosen) < 4:
            values = [
                -np.inf if i in chosen else weight * relevance[p] - (1 - weight) * max(
                    (vectors[i] @ vectors[j] for j in chosen), default=0.0
                )
                for p, i in enumerate(listed)
            ]  # fmt: skip
            chosen.append(listed[int(np.argmax(values))])
        assert found.items[row].tolist() == chosen


@given(st.integers(0, 10_000))
def test_a_weight_of_one_changes_nothing(seed):
    topk, rng = lists(seed)
    genres = np.eye(4)[rng.integers(0, 4, 20)]
    histories = csr_array(rng.integers(0, 2, (3, 20)).astype(np.float32))
    for found in (mmr(topk, csr_array(unit_rows(rng)), 6, 1.0), calibrated(topk, genres, histories, 6, 1.0)):
        np.testing.assert_array_equal(found.items, topk.items[:, :6])
        np.testing.assert_array_equal(found.scores, topk.scores[:, :6])
        np.testing.assert_array_equal(found.shortfall, [0, 0, 1])


def test_a_calibrated_list_has_the_mix_of_the_history():
    items = np.arange(12, dtype=np.int32)[None, :]
    genres = np.eye(2)[np.r_[np.zeros(8, int), np.ones(4, int)]]
    scores = np.linspace(1, 0.9, 12, dtype=np.float32)[None, :]
    topk = TopK(np.zeros(1, int), items, scores, np.zeros_like(items, dtype=np.int8), ("x",), np.zeros(1, np.int8))
    history = csr_array(np.array([[1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]], np.float32))
    found = calibrated(topk, genres, history, 6, 0.01)
    assert sorted(found.items[0].tolist()) == [0, 1, 2, 8, 9, 10]
    assert calibrated(topk, genres, csr_array((1, 12), dtype=np.float32), 6, 0.0).items[0].tolist() == list(range(6))


@pytest.mark.slow
def test_the_draw_has_the_exact_probabilities():
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    exact = {}
    for order in permutations(weights):
        chance, left = 1.0, sum(weights.values())
        for key in order[:2]:
            chance, left = chance * weights[key] / left, left - weights[key]
        exact[order[:2]] = exact.get(order[:2], 0.0) + chance
    draws = 6000
    counts = dict.fromkeys(exact, 0)
    for user in range(draws):
        counts[tuple(sample(weights, 2, user=user))] += 1
    assert chisquare(list(counts.values()), [draws * p for p in exact.values()]).pvalue > 1e-3


def test_weights_of_any_size():
    assert sample({"big": 1e308, "small": 1e-308, "none": 0.0}, 5) == ["big", "small"]
    assert sample({}, 3) == []
    assert sample({"a": 1.0}, 0) == []
    again = [sample({"a": 1.0, "b": 1.0, "c": 1.0}, 3, seed=s) for s in (1, 1)]
    assert again[0] == again[1] == sample({"c": 1.0, "b": 1.0, "a": 1.0}, 3, seed=1)
    assert sample({"a": np.float32(2), "b": np.int64(1), "c": Fraction(1, 3), "d": True}, 0) == []
    for bad in (-1.0, np.nan, np.inf, None, "3", [1.0], 10**400, 10**5000, -(10**400), 1j):
        with pytest.raises(InputError, match="weight of 'x'"):
            sample({"x": bad}, 1)
    with pytest.raises(ConfigError):
        sample({"x": 1.0}, -1)


def test_exploration_depends_on_the_user_alone_and_cools_to_the_list():
    topk, _ = lists(3)
    cold = explore(topk, 4, 1e-6, seed=1)
    np.testing.assert_array_equal(cold.items, topk.items[:, :4])
    warm = explore(topk, 4, 1.0, seed=1)
    one = TopK(*(getattr(topk, n)[1:2] for n in ("users", "items", "scores", "source")), ("x",), topk.shortfall[1:2])
    np.testing.assert_array_equal(explore(one, 4, 1.0, seed=1).items, warm.items[1:2])
    assert (warm.items != cold.items).any()
    with pytest.raises(ConfigError, match="above 0"):
        explore(topk, 4, 0.0, seed=1)
