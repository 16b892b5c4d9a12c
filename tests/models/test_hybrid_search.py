"""The search of a hybrid: its ladders, its trials, its deadline, and how it judges."""

from dataclasses import replace
from types import SimpleNamespace

import contract
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from threadpoolctl import threadpool_info, threadpool_limits

from recsys import config
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByTime
from recsys.data.synthetic import film_world
from recsys.local_engine import configured_model
from recsys.models import build, load, save
from recsys.models.combining import hybrid
from recsys.models.combining import search as search_module
from recsys.models.combining.blend import rescale_rows
from recsys.models.combining.hidden_likes import ndcg_after_addition, ndcg_of_hidden
from recsys.models.combining.search import (
    FADING,
    LADDERS,
    LEAST_GAIN,
    PENALTY,
    RANK,
    SCALED,
    Attempt,
    Deadline,
    Search,
    settings_at,
)
from recsys.models.combining.trial import Trial, climb, hide_items, hide_latest, hide_pairs
from recsys.recommender import Recommender


def ndcg_by_loops(scores, seen, hidden, depth):
    """Return the NDCG of one row: sort all that may be listed, and look up each place."""
    listed = [(-score, item) for item, score in enumerate(scores) if np.isfinite(score) and item not in seen]
    order = [item for _, item in sorted(listed)][:depth]
    gain = sum(1 / np.log2(place + 2) for place, item in enumerate(order) if item in hidden)
    ideal = sum(1 / np.log2(place + 2) for place in range(min(len(hidden), depth)))
    return gain / ideal if ideal else 0.0


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 700]), st.sampled_from([12, 600]))
def test_the_ndcg_of_hidden_likes_is_that_of_sorted_lists(seed, depth, items):
    rng = np.random.default_rng(seed)
    # Few different scores, so that there are ties; some that are none.
    scores = rng.integers(0, 9, (4, items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    kind = rng.choice(3, size=scores.shape, p=[0.6, 0.2, 0.2])
    kind[3] = 0
    seen, hidden = (csr_array((kind == value).astype(np.float32)) for value in (1, 2))
    expected = [
        ndcg_by_loops(scores[row], set(seen[[row]].indices), set(hidden[[row]].indices), depth) for row in range(4)
    ]
    np.testing.assert_allclose(ndcg_of_hidden(scores, seen, hidden, depth), expected, rtol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 700]), st.sampled_from([0.25, 1.0]))
def test_an_addition_to_a_blend_is_judged_by_the_lists_of_the_weighted_mean(seed, depth, weight):
    rng = np.random.default_rng(seed)
    # Small whole numbers and halves, so that the means are exact and there are ties.
    members = rng.integers(0, 9, (3, 4, 60)).astype(np.float32)
    members[rng.random(members.shape) < 0.3] = np.nan
    weights = np.array([1.0, 0.5, weight], dtype=np.float32)[:, None, None]
    is_scored = np.isfinite(members)
    weighted, used = np.where(is_scored, members * weights, 0), is_scored * weights
    with np.errstate(invalid="ignore"):
        means = weighted.sum(0) / used.sum(0)
    kind = rng.choice(3, size=means.shape, p=[0.6, 0.2, 0.2])
    seen, hidden = (csr_array((kind == value).astype(np.float32)) for value in (1, 2))
    expected = [
        ndcg_by_loops(means[row], set(seen[[row]].indices), set(hidden[[row]].indices), depth) for row in range(4)
    ]
    sums = weighted[:2].sum(0), used[:2].sum(0)
    # The rows of the new member stand in another array in another order.
    new_member = np.concatenate([members[0], members[2][::-1]]), np.array([7, 6, 5, 4])
    values = ndcg_after_addition(sums, new_member, weight, seen, hidden, depth)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_climbing_goes_on_while_it_helps_and_asks_once_for_each_position():
    asked = []

    def value(position):
        asked.append(position)
        return -((position[0] - 6) ** 2) - (position[1] - 1) ** 2

    assert climb((2, 2), [8, 3], value) == (6, 1)
    assert len(asked) == len(set(asked))
    assert climb((2, 2), [8, 3], value, rounds=[[(1,)]]) == (2, 1)
    assert climb((2, 2), [5, 3], value) == (4, 1)
    # A ridge, along which each ladder by itself leads down.
    assert climb((1, 0), [8, 5], lambda p: p[0] - 9 * abs(p[0] - p[1] - 1)) == (1, 0)
    assert climb((1, 0), [8, 5], lambda p: p[0] - 9 * abs(p[0] - p[1] - 1), rounds=[[(0,), (0, 1)]]) == (5, 4)
    assert climb((0,), [5], lambda position: 1 + 0.01 * position[0], least_gain=0.02) == (0,)


def test_the_latest_events_of_all_users_are_hidden_together():
    train, _ = contract.world(users=200)
    trial = hide_latest(train, 0.2, 50, seed=1)
    visible = set(zip(trial.train.user.tolist(), trial.train.item.tolist(), strict=True))
    is_visible = np.array([pair in visible for pair in zip(train.user.tolist(), train.item.tolist(), strict=True)])
    assert train.time[is_visible].max() < train.time[~is_visible].min()
    assert 0.1 < (~is_visible).mean() <= 0.21
    assert 10 < len(trial.users) <= 50
    assert (trial.histories.n_liked > 0).all()
    assert (np.diff(trial.relevant.indptr) > 0).all()
    # What is relevant is what was liked after the cut, and nothing else.
    later = {
        (user, item)
        for user, item, value, old in zip(train.user, train.item, train.value, is_visible, strict=True)
        if value > 0 and not old
    }
    rows, columns = trial.relevant.nonzero()
    assert set(zip(trial.users[rows], columns, strict=True)) <= later


def test_likes_are_hidden_by_time_or_at_random():
    train, _ = contract.world(users=200)
    ages = {}
    for newest in (True, False):
        trial = hide_pairs(train, 0.3, 200, seed=1, newest=newest)
        row, column = trial.hidden.nonzero()
        time = train.matrix()
        time.data = np.arange(train.matrix().nnz)
        hidden = set(zip(row.tolist(), column.tolist(), strict=True))
        pairs = zip(train.user.tolist(), train.item.tolist(), strict=True)
        is_hidden = np.array([pair in hidden for pair in pairs])
        likes = train.value > 0
        ages[newest] = np.mean(
            [
                np.mean(train.time[likes & is_hidden & (train.user == user)])
                > np.mean(train.time[likes & ~is_hidden & (train.user == user)])
                for user in trial.users
            ]
        )
    assert ages[True] == 1.0
    assert 0.3 < ages[False] < 0.7


def search_on(trial, features=None, minutes=60.0):
    return Search(trial, features, np.arange(len(trial.users)), 0, {}, Deadline(minutes))


def test_what_only_matters_at_prediction_needs_no_other_fit(monkeypatch):
    train, _ = contract.world(users=200)
    trial = hide_pairs(train, 0.3, 200, seed=1)
    fits = []
    fit_part = search_module.fit_part
    monkeypatch.setattr(search_module, "fit_part", lambda kind, *rest: fits.append(rest[0]) or fit_part(kind, *rest))
    attempt = search_on(trial).start("ease")
    assert len(fits) == 1
    assert len(attempt.values) >= 2
    # Every value is that of a model which is fitted with these settings.
    rows = np.arange(len(trial.users))
    for position, value in attempt.values.items():
        fitted = build("ease", settings_at(attempt.steps, position)).fit(trial.train)
        assert trial.judge(fitted, rows).mean() == pytest.approx(value)
    assert len(set(attempt.values.values())) >= 2
    assert trial.ndcg_per_user(trial.scores["ease"]).mean() == pytest.approx(attempt.value)


def test_attributes_of_new_items_need_no_other_fit_of_all_factors(monkeypatch):
    train, features = contract.world(users=200)
    names = tuple(f"{'taste' if name in ('even', 'odd') else 'noise'}={name}" for name in features.names)
    fields = replace(features, names=names)
    trial = hide_items(train, 0.3, 200, seed=1)
    fits = []
    fit_part = search_module.fit_part

    def count_fit(kind, params, *rest):
        fits.append((params["reg"], params["alpha"]))
        return fit_part(kind, params, *rest)

    monkeypatch.setattr(search_module, "fit_part", count_fit)
    search = replace(search_on(trial, fields), field_weights={"noise": 0.1})
    attempt = search.start("attributes")
    search.climb(attempt)
    tried = [settings_at(attempt.steps, position) for position in attempt.values]
    assert len(tried) >= 4
    assert {"fields" in params for params in tried} == {True, False}
    # One fit for the first settings, and one for each regularization and weight of likes when all are searched.
    assert sorted(fits) == sorted([(0.3, 10.0), *{(params["reg"], params["alpha"]) for params in tried}])
    assert len(fits) < len(tried)
    for params, value in zip(tried, attempt.values.values(), strict=True):
        fitted = fit_part("attributes", params, trial.train, fields, 0)
        assert trial.judge(fitted, search.rows).mean() == pytest.approx(value)
    assert len(set(attempt.values.values())) >= 3


def test_a_climb_ends_above_its_start_and_below_no_neighbour():
    train, _ = contract.world(users=300)
    trial = hide_pairs(train, 0.3, 300, seed=1)
    search = search_on(trial)
    attempt = search.start("rp3beta")
    start = attempt.value
    search.climb(attempt)
    assert attempt.value >= start
    assert attempt.value >= max(attempt.values.values()) / (1 + LEAST_GAIN)
    assert trial.ndcg_per_user(trial.scores["rp3beta"]).mean() == pytest.approx(attempt.value)


@pytest.mark.parametrize(("kind", "rank"), [("als", 1024), ("content_als", 256)])
def test_ladders_whose_best_values_depend_on_the_rank_are_searched_again(kind, rank, monkeypatch):
    train, features = contract.world(users=200)
    trial = hide_pairs(train, 0.3, 200, seed=1)
    alphas = [rung["alpha"] for rung in SCALED.rungs]
    monkeypatch.setattr(search_module, "ladders", lambda kind, max_rank: LADDERS[kind])

    def judge(self, model, rows):
        # A model is better with a higher rank, and the best weight of likes falls with the rank.
        doublings = np.log2(model.rank / 16)
        likes = alphas.index(model.alpha)
        return np.array([np.exp(doublings - (doublings + likes - 8) ** 2 / 2)])

    monkeypatch.setattr(search_module, "fit_part", lambda kind, params, *rest: SimpleNamespace(**params))
    monkeypatch.setattr(Trial, "judge", judge)
    monkeypatch.setattr(Trial, "cache_scores", lambda self, name, model: None)
    search = search_on(trial, features)
    attempt = search.start(kind)
    search.climb(attempt)
    # The highest rank and the weight that fits it best have the highest value of all pairs.
    assert (attempt.params["rank"], attempt.params["alpha"]) == (rank, alphas[8 - RANK.rungs.index({"rank": rank})])


def test_heavier_likes_are_tried_with_a_larger_penalty(monkeypatch):
    train, _ = contract.world(users=200)
    trial = hide_pairs(train, 0.3, 200, seed=1)
    penalties = [rung["penalty"] for rung in PENALTY.rungs]
    alphas = [rung["alpha"] for rung in SCALED.rungs]

    def judge(self, model, rows):
        likes = alphas.index(model.alpha) - SCALED.start
        penalty = penalties.index(min(penalties, key=lambda value: abs(value * (1 + model.alpha) - model.reg)))
        return np.array([np.exp(likes - 9 * abs(likes - (penalty - PENALTY.start)))])

    monkeypatch.setattr(search_module, "fit_part", lambda kind, params, *rest: SimpleNamespace(**params))
    monkeypatch.setattr(Trial, "judge", judge)
    monkeypatch.setattr(Trial, "cache_scores", lambda self, name, model: None)
    attempt = search_on(trial).start("als")
    assert attempt.params["alpha"] == alphas[-1]
    assert attempt.params["reg"] == pytest.approx(penalties[-1] * (1 + alphas[-1]))


@pytest.mark.parametrize(
    ("kind", "position", "last_rungs"),
    [
        ("ease", (0, 6), {"reg": 12800.0}),
        ("ease", (6, 0), {"decay": 0.3, "reg": 3.0}),
        ("ease", (1, 3), {}),
        # No shrinkage, no fading and a name are where a ladder ends by itself.
        ("itemknn", (0, 2, 0, 4), {"neighbours": 800}),
        ("itemknn", (0, 2, 3, 2), {"shrink": 80.0}),
        # The end of a ladder of λ* is one of `reg`.
        ("als", (0, 5, 3, 2), {"reg": 0.1 * (1 + 1 / 0.03)}),
        ("als", (0, 2, 3, 2), {}),
    ],
)
def test_the_last_rungs_are_those_beyond_which_there_are_other_values(kind, position, last_rungs):
    assert Attempt(kind, LADDERS[kind], position).last_rungs == last_rungs


def test_when_time_is_over_the_best_so_far_is_the_choice():
    train, _ = contract.world(users=200)
    parts = ["popular", "itemknn", "ease"]
    model = build("hybrid", {"parts": parts, "minutes": 1e-9}).fit(train)
    assert list(model.record["parts"]) == ["popular"]
    assert model.record["stopped"]
    assert "raise `minutes`" in model.record["left_out"]["ease"]
    assert np.isfinite(model.score(train.histories()[1:2])).any()
    unhurried = build("hybrid", {"parts": parts}).fit(train)
    assert set(unhurried.record["parts"]) == set(parts)
    assert "stopped" not in unhurried.record


def test_a_matrix_too_large_to_invert_in_time_is_left_out(monkeypatch):
    train, _ = contract.world(users=200, items=600)
    # A tenth of the ten minutes of the search inverts a matrix of 400 × 400, and ease has one of about 600 × 600.
    monkeypatch.setattr(search_module, "SMALL_SIDE", 1)
    monkeypatch.setattr(search_module, "INVERSION_SPEED", 400**3 / 60)

    def left_out(parts, minutes):
        return build("hybrid", {"parts": parts, "minutes": minutes}).fit(train).record["left_out"]

    hurried = left_out(["popular", "ease"], minutes=20.0)
    assert list(hurried) == ["ease"]
    assert "raise `minutes`" in hurried["ease"]
    # Eight times the time for a side that is twice as long; and what is tried first has no limit.
    assert left_out(["popular", "ease"], minutes=160.0) == {}
    assert left_out(["ease"], minutes=20.0) == {}


def test_a_kind_that_is_not_cheap_and_helps_no_blend_keeps_its_first_settings(monkeypatch):
    train, _ = contract.world(users=400)
    choose = Trial.choose
    # Each blend is the best member alone.
    monkeypatch.setattr(Trial, "choose", lambda self, rows, start=None, steps=6: choose(self, rows, start, 0))
    tried = {}
    for share in (1.0, 0.0):
        monkeypatch.setattr(hybrid, "CHEAP_SHARE", share)
        parts = build("hybrid", {"parts": ["itemknn", "rp3beta"]}).fit(train).record["parts"]
        tried[share] = {kind: part["tried"] for kind, part in parts.items()}
    fewer = [kind for kind in parts if tried[0.0][kind] < tried[1.0][kind]]
    assert len(fewer) == 1
    # Of the fading of histories alone, all settings may have been tried.
    assert tried[0.0][fewer[0]] <= len(FADING.rungs)
    part = parts[fewer[0]]["params"]
    first = {"itemknn": {"weighting": "cosine", "shrink": 5.0, "neighbours": 200}}
    first["rp3beta"] = {"alpha": 0.7, "beta": 0.2, "neighbours": 200}
    assert part == first[fewer[0]] | {"decay": part["decay"]}


def test_the_best_kind_with_and_the_best_without_features_are_always_searched(monkeypatch):
    train, features = contract.world(users=400)
    monkeypatch.setattr(hybrid, "CHEAP_SHARE", 0.0)
    first_values, searched = {}, []
    choose = Trial.choose

    def start(self, kind, original=Search.start):
        attempt = original(self, kind)
        first_values[kind] = attempt.value
        return attempt

    monkeypatch.setattr(Search, "start", start)
    monkeypatch.setattr(Search, "climb", lambda self, attempt: searched.append(attempt.kind))
    monkeypatch.setattr(Trial, "choose", lambda self, rows, start=None, steps=6: choose(self, rows, start, 0))
    build("hybrid", {"parts": ["itemknn", "rp3beta", "content", "side_ease"]}).fit(train, features)
    families = (("itemknn", "rp3beta"), ("content", "side_ease"))
    assert sorted(searched) == sorted(max(family, key=first_values.get) for family in families)


def test_a_member_is_fitted_without_the_objective_and_has_the_factors_of_its_kind():
    train, features = contract.world()
    for kind in ("als", "attributes", "content_als"):
        params = {"rank": 4}
        member = search_module.fit_part(kind, params, train, features, 3)
        alone = build(kind, params | {"seed": 3, "iterations": search_module.SWEEPS}).fit(train, features)
        assert member.losses_ is None
        assert np.isfinite(alone.losses_).all()
        np.testing.assert_array_equal(member.item_factors_, alone.item_factors_)


def test_blas_has_one_thread_while_a_hybrid_is_fitted(monkeypatch):
    train, _ = contract.world(users=200)
    threads = []

    def fit_part(*args, original=search_module.fit_part):
        threads.extend(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return original(*args)

    for module in (hybrid, search_module):
        monkeypatch.setattr(module, "fit_part", fit_part)
    with threadpool_limits(2, "blas"):
        build("hybrid", {"parts": ["popular", "itemknn"]}).fit(train)
    assert set(threads) == {1}


def test_kinds_that_are_cheap_to_fit_are_searched_whatever_they_promise(monkeypatch):
    train, _ = contract.world(users=400)
    seconds = {"popular": 1.0, "itemknn": 0.9, "rp3beta": 1.1, "ease": 3.0}
    searched = []

    def start(self, kind, original=Search.start):
        attempt = original(self, kind)
        attempt.seconds = seconds[kind]
        # The best of all is searched in any case.
        attempt.values[attempt.position] = {"ease": 1.0}.get(kind, 0.1)
        return attempt

    monkeypatch.setattr(Search, "start", start)
    monkeypatch.setattr(Search, "climb", lambda self, attempt: searched.append(attempt.kind))
    monkeypatch.setattr(Trial, "choose", lambda self, rows, start=None, steps=6: {"ease": 1.0})
    # A search of 1,000 seconds, of which one second is the largest share of a cheap fit.
    build("hybrid", {"parts": list(seconds), "minutes": 2000 / 60}).fit(train)
    assert searched == ["ease", "popular", "itemknn"]


def test_a_step_in_the_weight_of_likes_keeps_the_penalty_of_the_literature():
    for kind in ("als", "content_als"):
        steps = LADDERS[kind]
        scaled, penalty = (steps.index(step) for step in (SCALED, PENALTY))
        start = [step.start for step in steps]
        for rung in range(len(SCALED.rungs)):
            start[scaled] = rung
            for number, star in enumerate((0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)):
                start[penalty] = number
                settings = settings_at(steps, tuple(start))
                alpha_0 = settings["beta"]
                # Rendle et al. 2021: weight 1 of a like, α0 of any pair, and λ*; here scaled by 1 / α0.
                assert settings["alpha"] == pytest.approx(1 / alpha_0)
                assert settings["reg"] == pytest.approx(star * (1 + alpha_0) / alpha_0)
                build(kind, settings)


def test_als_is_searched_to_at_least_the_popular_list_on_a_small_dense_log():
    tables = film_world(users=400, items=300, events=12_000)
    parts = split(tables.events, ByTime(), items=tables.items)
    trial = hide_latest(parts.train, 0.2, 400, seed=0)
    search = search_on(trial)
    values = {}
    for kind in ("popular", "als"):
        attempt = search.start(kind)
        search.climb(attempt)
        values[kind] = attempt.value
    assert values["als"] >= values["popular"]


def test_a_member_of_the_blend_is_searched_however_little_it_promises(monkeypatch):
    train, _ = contract.world(users=400)
    monkeypatch.setattr(hybrid, "CHEAP_SHARE", 0.0)
    searched = []

    def climb(self, attempt):
        # The blend is chosen after the search of the best kind.
        assert (attempt.kind == "rp3beta") == bool(chosen)
        searched.append(attempt.kind)

    def start(self, kind, original=Search.start):
        attempt = original(self, kind)
        attempt.values[attempt.position] = {"ease": 1.0}.get(kind, 0.1)
        return attempt

    chosen = []

    def choose(self, rows, start=None, steps=6):
        chosen.append(rows)
        return {"ease": 1.0, "rp3beta": 0.5}

    monkeypatch.setattr(Search, "climb", climb)
    monkeypatch.setattr(Search, "start", start)
    monkeypatch.setattr(Trial, "choose", choose)
    build("hybrid", {"parts": ["itemknn", "rp3beta", "ease"]}).fit(train)
    assert searched == ["ease", "rp3beta"]


class PerUser(Recommender):
    """Has scores for each user."""

    def __init__(self, scores):
        self.scores = scores.astype(np.float32)

    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        return self.scores[users]


@pytest.mark.parametrize("second", [(64, 5), (128, 4)])
def test_the_second_member_of_a_kind_is_the_one_that_adds_most_to_the_best(second, monkeypatch):
    train, _ = contract.world(users=200)
    trial = hide_pairs(train, 0.5, 200, seed=1)
    rng = np.random.default_rng(1)
    hidden = trial.hidden.toarray() > 0
    is_first = rng.random(hidden.shape) < 0.5
    noise = rng.random(hidden.shape)
    # By rank and the rung of the weight of likes. The best model ranks half of what is hidden first, one of two others
    # the other half, and a worse one all of it.
    scores = dict.fromkeys([(64, 4), (128, 4), (64, 5)], noise + 3 * (hidden & is_first))
    scores |= {second: noise + 3 * (hidden & ~is_first), (64, 6): noise + 3 * hidden}
    alphas = [rung["alpha"] for rung in SCALED.rungs]
    fitted = []

    def fit_part(kind, params, *_):
        fitted.append((params["rank"], alphas.index(params["alpha"])))
        return PerUser(scores[fitted[-1]])

    monkeypatch.setattr(search_module, "fit_part", fit_part)
    attempt = Attempt("als", LADDERS["als"], (0, 2, 4, 2))
    # Neither another fading nor another penalty makes a second member.
    attempt.values = {
        (0, 2, 4, 2): 0.9, (1, 2, 4, 2): 0.8, (0, 1, 4, 2): 0.7,
        (0, 2, 4, 3): 0.6, (0, 2, 5, 2): 0.5, (0, 2, 6, 2): 0.4,
    }  # fmt: skip
    trial.cache_scores("als", PerUser(scores[64, 4]))
    search = search_on(trial)
    chosen = search.add_second(attempt)
    assert (chosen["rank"], alphas.index(chosen["alpha"])) == second
    assert sorted(fitted) == [(64, 5), (128, 4)]
    np.testing.assert_array_equal(trial.scores["als_2"], rescale_rows(scores[second][trial.users].astype(np.float32)))
    assert replace(search, deadline=Deadline(0.0)).add_second(attempt) is None
    assert len(fitted) == 2
    assert Attempt("ease", LADDERS["ease"], (0, 3), {(0, 3): 0.5, (0, 2): 0.4}).runners_up == []


def test_two_members_of_a_kind_have_settings_of_their_own_wherever_the_model_is_used(monkeypatch, tmp_path):
    train, features = contract.world(users=200)
    weights = {"content_als": 1.0, "content_als_2": 0.5}
    monkeypatch.setattr(Trial, "choose", lambda self, rows, start=None, steps=6: dict(weights))
    monkeypatch.setattr(hybrid, "gain", lambda *_: {"mean": 1.0, "low": 1.0, "high": 1.0})
    monkeypatch.setattr(hybrid.Hybrid, "_new_item_trial", lambda *_: None)
    shuffled = []

    def fit_part(kind, params, train, item_features, seed, original=hybrid.fit_part):
        if item_features is not features:
            shuffled.append(params)
        return original(kind, params, train, item_features, seed)

    monkeypatch.setattr(hybrid, "fit_part", fit_part)
    model = build("hybrid", {"parts": ["content_als"]}).fit(train, features)
    assert model.record["weights"] == weights
    parts = model.record["parts"]
    assert list(model.members) == list(parts) == list(weights)
    for name, member in model.members.items():
        assert {key: getattr(member, key) for key in parts[name]["params"]} == parts[name]["params"]
    assert parts["content_als"]["params"] != parts["content_als_2"]["params"]
    assert model.record["ablation"]["content"]["part"] in weights
    assert "collaborative" not in model.record["ablation"]
    # The placebo has both with shuffled features.
    assert shuffled == [part["params"] for part in parts.values()]
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    history = train.histories()[[5]]
    np.testing.assert_array_equal(loaded.score(history), model.score(history))
    explanation = loaded.explain(history, 3)
    assert set(explanation.members) == set(weights)
    assert sum(explanation.members.values()) == pytest.approx(model.score(history)[0, 3], abs=1e-5)


@pytest.mark.parametrize(
    ("rule", "hold_out"),
    [("time", "latest"), ("last", "newest"), ("fraction", "random"), ("users", "random"), ("items", "random")],
)
def test_a_run_hides_what_is_like_its_split(rule, hold_out):
    raw = {"data": {"events": "events.csv"}, "split": {"rule": rule}, "recommend": {"fallback": "none"}}
    chosen = configured_model("hybrid", config.parse_config(raw | {"models": {"hybrid": {}}}))
    assert chosen.hold_out == hold_out
    named = configured_model("hybrid", config.parse_config(raw | {"models": {"hybrid": {"hold_out": "newest"}}}))
    assert named.hold_out == "newest"
