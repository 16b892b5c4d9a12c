"""Blends against loops; the hybrid's choice, and that it does no harm."""

import json
from dataclasses import replace

import contract
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.data.hashing import hash_words, to_unit_interval
from recsys.errors import ConfigError, InputError
from recsys.models import build
from recsys.models.combining import blend as blend_module
from recsys.models.combining import hybrid
from recsys.models.combining import trial as trial_module
from recsys.models.combining.blend import reassign_scores, rescale_rows, weighted_mean
from recsys.models.combining.search import Deadline, Search, kind_of
from recsys.models.combining.trial import Trial, hide_items, hide_pairs, subset
from recsys.recommender import Recommender
from recsys.types import Features, Histories, IdMap, Interactions

SMALL = {"parts": ["popular", "rp3beta", "content", "side_ease"], "placebo": True}


@pytest.mark.parametrize("scaling", ["standard", "rrf"])
def test_users_are_rescaled_one_by_one_whatever_the_size_of_a_block(scaling, monkeypatch):
    scores = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    scores[::2, 1] = np.nan
    one_by_one = np.concatenate([rescale_rows(row[None], scaling) for row in scores])
    for cells in (1, 10, 12, 1000):
        monkeypatch.setattr(blend_module, "BLOCK_CELLS", cells)
        np.testing.assert_array_equal(rescale_rows(scores, scaling), one_by_one)
    assert rescale_rows(scores[:, :0], scaling).shape == (7, 0)
    assert rescale_rows(scores[:0], scaling).shape == (0, 5)


@given(st.integers(0, 10_000))
def test_standard_scores_and_their_mean_are_what_a_loop_finds(seed):
    rng = np.random.default_rng(seed)
    parts = [np.where(rng.random((3, 6)) < 0.3, np.nan, rng.normal(size=(3, 6))).astype(np.float32) for _ in range(2)]
    weights = [rng.integers(0, 3, 3).astype(float) for _ in range(2)]
    z = [rescale_rows(part) for part in parts]
    found = weighted_mean(zip(z, weights, strict=True), (3, 6))
    for u in range(3):
        for i in range(6):
            total = weight = 0.0
            for part, w in zip(parts, weights, strict=True):
                own = part[u][np.isfinite(part[u])].astype(float)
                if np.isfinite(part[u, i]) and w[u] > 0:
                    spread = own.std()
                    total += w[u] * ((part[u, i] - own.mean()) / spread if spread > 1e-9 else 0.0)
                    weight += w[u]
            expected = total / weight if weight else np.nan
            np.testing.assert_allclose(found[u, i], expected, rtol=1e-4, atol=1e-4)


def test_reciprocal_ranks_and_new_places():
    found = rescale_rows(np.array([[0.5, np.nan, 2.0, 0.5]], np.float32), "rrf")
    np.testing.assert_allclose(found, [[1 / 62, np.nan, 1 / 61, 1 / 63]], rtol=1e-6)
    scores, order = np.array([[0.1, np.nan, 0.9, 0.5, 0.7]]), np.array([[3.0, 7.0, 4.0, np.nan]])
    np.testing.assert_allclose(reassign_scores(scores, np.arange(4), order), [[0.1, -0.9, 0.9, 0.5, 0.7]])
    np.testing.assert_allclose(reassign_scores(scores, np.arange(4), -order), [[0.9, -0.9, 0.1, 0.5, 0.7]])


def test_trials_hide_without_taking_everything():
    train, _ = contract.world(users=80)
    trial = hide_pairs(train, 0.3, 50, seed=1)
    assert len(trial.users) <= 50
    assert (np.diff(trial.relevant.indptr) > 0).all()
    kept = np.bincount(trial.train.user[trial.train.value > 0], minlength=80)
    assert (kept[np.bincount(train.user[train.value > 0], minlength=80) > 0] > 0).all()
    assert len(trial.train) + trial.hidden.nnz == len(train)
    items = hide_items(train, 0.3, 50, seed=1)
    assert not np.isin(items.train.item, np.flatnonzero(items.candidates)).any()
    assert items.candidates[items.relevant.indices].all()


def test_a_trial_of_new_items_is_as_large_after_a_split_by_the_same_hash():
    train, _ = contract.world(users=80)
    low = to_unit_interval(hash_words(1, np.arange(len(train.items)))) < 0.3
    rest = subset(train, ~low[train.item])
    liked = np.unique(rest.item[rest.value > 0])
    assert hide_items(rest, 0.3, 50, seed=1).candidates.sum() == np.ceil(0.3 * len(liked))


@pytest.mark.slow
def test_the_choice_is_recorded_with_its_ablation():
    train, features = contract.world(users=400, items=30)
    model = build("hybrid", SMALL).fit(train, features)
    record = json.loads(json.dumps(model.record))
    assert {kind_of(name) for name in record["parts"]} == set(SMALL["parts"])
    assert record["why"]
    told = set(record["weights"]) & {"content", "side_ease"}
    assert {"hybrid", "collaborative", "content"} | ({"shuffled"} if told else set()) == set(record["ablation"])
    best = max(part["ndcg@100"] for part in record["parts"].values())
    assert record["ablation"]["hybrid"] >= best - 0.02
    assert np.isfinite(model.score(train.histories()[1:])).all()  # new items too


@pytest.mark.slow
def test_features_of_noise_are_not_used_to_rank_what_people_chose():
    train, _ = contract.world(users=400, items=30)
    noise = Features(csr_array(np.random.default_rng(2).random((30, 5)).astype(np.float32)), tuple("abcde"))
    model = build("hybrid", SMALL).fit(train, noise)
    ablation = model.record["ablation"]
    assert ablation["collaborative"]["hybrid_minus_it"]["high"] >= 0


def test_one_event_a_user_leans_on_content_and_says_so():
    train, features = contract.world(users=300)
    _, first = np.unique(np.where(train.value > 0, train.user, -1), return_index=True)
    one = subset(train, np.isin(np.arange(len(train)), first[1:]))
    model = build("hybrid", {}).fit(one, features)
    assert "content is used without a choice" in model.record["why"]
    assert set(model.members) == {"side_ease", "content_als"}
    assert np.isfinite(model.score(one.histories()[1:])).all()


def refusing(monkeypatch, kind, most):
    """Let a part refuse to fit on more than so many events."""
    whole = hybrid.fit_part

    def fitted(name, params, train, told, seed):
        if name == kind and len(train) > most:
            raise InputError("too large")
        return whole(name, params, train, told, seed)

    monkeypatch.setattr(hybrid, "fit_part", fitted)


@pytest.mark.slow
def test_a_part_that_only_fits_on_the_trial_is_left_out(monkeypatch):
    train, features = contract.world(users=300)
    settings = {"parts": ["side_ease", "popular"], "placebo": False}
    assert "side_ease" in build("hybrid", settings).fit(train, features).members
    refusing(monkeypatch, "side_ease", len(train) - 1)
    model = build("hybrid", settings).fit(train, features)
    assert model.record["parts"]["side_ease"]
    assert model.record["left_out"] == {"side_ease": "too large"}
    assert model.record["weights"] == {"popular": 1.0}
    np.testing.assert_allclose(
        model.score(train.histories()), rescale_rows(model.members["popular"].score(train.histories())), rtol=1e-5
    )


def test_what_leans_on_content_goes_without_the_part_that_does_not_fit(monkeypatch):
    train, features = contract.world(users=40)
    refusing(monkeypatch, "side_ease", 0)
    model = build("hybrid", {}).fit(train, features)
    assert model.record["weights"] == {"content_als": 1.0}
    with pytest.raises(ConfigError, match="too large"):
        build("hybrid", {"parts": ["side_ease"]}).fit(train, features)


def test_new_items_stay_last_where_no_part_that_fits_knows_them(monkeypatch):
    train, features = contract.world(users=300)
    monkeypatch.setattr(Search, "start", refuse(Search.start, "side_ease"))
    model = build("hybrid", {"parts": ["popular", "side_ease"]}).fit(train, features)
    assert list(model.members) == ["popular"]


def refuse(climb, kind):
    """Return a search in which a part does not fit."""

    def search(self, name):
        if name == kind:
            raise InputError("too large")
        return climb(self, name)

    return search


@pytest.mark.parametrize(("high", "is_used"), [(-0.0019, True), (-0.0021, False)])
def test_new_items_have_weights_of_their_own_unless_much_is_lost_among_all_items(monkeypatch, high, is_used):
    """Half a percent of .4 is .002."""
    train, features = contract.world(users=300)
    effect = {"mean": high - 0.001, "low": high - 0.002, "high": high, "without": 0.4}
    monkeypatch.setattr(hybrid.Hybrid, "_effect_on_all_items", lambda *_: effect)
    model = build("hybrid", {"parts": ["popular", "content"]}).fit(train, features)
    assert model.cold_weights_.any() == is_used


def test_one_part_for_new_items_is_a_part_like_any_other():
    train, features = contract.world(users=300)
    model = build("hybrid", {"parts": ["attributes"]}).fit(train, features)
    assert list(model.members) == ["attributes"]
    assert np.isfinite(model.score(train.histories()[1:])).all()


@pytest.mark.parametrize("scaling", ["standard", "rrf"])
def test_what_a_trial_values_is_what_the_blend_scores(scaling):
    train, features = contract.world(users=100)
    trial = replace(hide_pairs(train, 0.3, 100, seed=1), scaling=scaling)
    weights = {"popular": 1.0, "content": 0.5}
    model = build("blend", {"parts": {p: {} for p in weights}, "weights": weights, "scaling": scaling})
    model.fit(trial.train, features)
    for name, part in model.members.items():
        trial.cache_scores(name, part)
    np.testing.assert_allclose(trial.blend_scores(weights), model.score(trial.histories), rtol=1e-5)


def test_the_rank_fused_hybrid_chooses_by_rank_fused_scores(monkeypatch):
    train, features = contract.world(users=300)
    seen = []
    cache_scores = Trial.cache_scores
    monkeypatch.setattr(
        Trial, "cache_scores", lambda self, *part: (cache_scores(self, *part), seen.append(self.scores[part[0]]))[0]
    )
    build("hybrid", {"parts": ["popular", "content"], "scaling": "rrf"}).fit(train, features)
    assert all(np.nanmax(z) == np.float32(1 / 61) for z in seen)
    assert len({z.shape for z in seen}) == 2  # both trials: known items, new items


def test_shares_of_the_parts_sum_to_the_score():
    train, features = contract.world()
    model = build("blend", {"parts": {"als": {"rank": 4}, "content": {}}, "weights": {"content": 2}})
    model.fit(train, features)
    history = train.histories()[[5]]
    for item in (0, 3, 29):
        told = model.explain(history, item).members
        np.testing.assert_allclose(sum(told.values()), model.score(history)[0, item], rtol=1e-4)
    assert set(model.explain(history, 29).members) == {"content"}  # nobody liked it: ALS has no opinion


def test_weights_depend_on_history_length_and_new_items_keep_their_places():
    train, features = contract.world()
    model = build("blend", {"parts": {"popular": {}, "content": {}}}).fit(train, features)
    model.weights_ = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    one = Histories(csr_array(np.eye(1, 30, 4, dtype=np.float32)))
    many = Histories(csr_array(np.array([[1.0] * 6 + [0.0] * 24], np.float32)))
    popular, content = model.members.values()
    np.testing.assert_allclose(model.score(one), rescale_rows(popular.score(one)), rtol=1e-5)
    np.testing.assert_allclose(model.score(many), rescale_rows(content.score(many)), rtol=1e-5)
    before = model.score(one)
    model.cold_weights_ = np.array([0.0, 1.0])
    after = model.score(one)
    np.testing.assert_array_equal(np.sort(after), np.sort(before))
    assert model.source(one, np.array([[0, 29]])).tolist() == [[0, 1]]


def test_who_is_known_only_by_what_orders_new_items_is_known():
    train, features = contract.world()
    model = build("blend", {"parts": {"als": {"rank": 4}, "content": {}}, "weights": {"content": 0}})
    model.fit(train, features)
    stranger = csr_array(np.eye(1, 30, 29, dtype=np.float32))  # likes what nobody liked: ALS has no opinion
    both = Histories(csr_array(np.vstack([stranger.toarray(), train.matrix()[[5]].toarray()])))
    assert model.can_score(both).tolist() == [False, True]
    model.cold_weights_ = np.array([0.0, 1.0])
    assert model.can_score(both).tolist() == [True, True]
    assert np.isfinite(model.score(both)).any(axis=1).all()


class Fixed(Recommender):
    """Scores everyone alike."""

    def __init__(self, *scores):
        self.scores = np.array([scores], dtype=np.float32)

    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        return np.repeat(self.scores, len(histories), axis=0)


def test_new_items_are_compared_among_new_items():
    """Beside the known items' scores those of the new ones hardly differ; among themselves both parts count."""
    model = build("blend", {"parts": {"a": {"model": "popular"}, "b": {"model": "popular"}}})
    model.members = {"a": Fixed(0, 100, 50, 1, 2, 3), "b": Fixed(0, 1, 0.5, 30, 20, -10)}
    model.weights_, model.cold_weights_ = np.ones((4, 2)), np.ones(2)
    model.cold_ = np.array([False] * 3 + [True] * 3)
    history = Histories(csr_array(np.eye(1, 6, dtype=np.float32)))
    a, b = (np.array(own, dtype=float) for own in ((1, 2, 3), (30, 20, -10)))
    mean = ((a - a.mean()) / a.std() + (b - b.mean()) / b.std()) / 2
    assert np.argsort(-model.score(history)[0, 3:]).tolist() == np.argsort(-mean).tolist() == [1, 2, 0]
    for place in range(3):
        assert sum(model.explain(history, 3 + place).members.values()) == pytest.approx(mean[place], abs=1e-6)


def test_a_new_item_that_is_not_reordered_is_explained_as_any_other():
    """Where no part that orders new items has an opinion, the score stays that of the first weights."""
    model = build("blend", {"parts": {"a": {"model": "popular"}, "b": {"model": "popular"}}})
    model.members = {"a": Fixed(0, 100, 1, 2, 3), "b": Fixed(0, 1, np.nan, 20, -10)}
    model.weights_, model.cold_weights_ = np.ones((4, 2)), np.array([0.0, 1.0])
    model.cold_ = np.array([False] * 2 + [True] * 3)
    history = Histories(csr_array(np.eye(1, 5, dtype=np.float32)))
    told = model.explain(history, 2).members
    assert set(told) == {"a"}
    assert sum(told.values()) == pytest.approx(model.score(history)[0, 2], abs=1e-6)
    assert set(model.explain(history, 3).members) == {"b"}


def test_a_part_takes_the_field_weights_or_leaves_them():
    """Taste decides what is liked and the other field is noise: to drown taste harms, to drown noise does not."""
    train, features = contract.world(users=200)
    names = tuple(f"{'taste' if name in ('even', 'odd') else 'noise'}={name}" for name in features.names)
    told = replace(features, names=names)
    trial = hide_pairs(train, 0.3, 200, seed=1)
    rows = np.arange(len(trial.users))
    for weights, taken in (({"taste": 0.001}, False), ({"noise": 0.001}, True)):
        attempt = Search(trial, told, rows, 0, weights, Deadline(60)).start("content")
        Search(trial, told, rows, 0, weights, Deadline(60)).climb(attempt)
        assert attempt.params.get("fields") == (weights if taken else None)


def test_parts_that_are_none_are_refused():
    train, _ = contract.world()
    with pytest.raises(ConfigError) as refusal:
        build("hybrid", {"parts": ["asl", "popular", "contnet"]})
    assert str(refusal.value).splitlines() == [
        "model 'hybrid': parts: it cannot use 'asl'. Did you mean 'als'?",
        "model 'hybrid': parts: it cannot use 'contnet'. Did you mean 'content'?",
    ]
    with pytest.raises(ConfigError, match="need item features"):
        build("hybrid", {"parts": ["content"]}).fit(train)
    with pytest.raises(ConfigError) as refusal:
        build("blend", {"parts": {"als": {}}, "weights": {"alss": 1, "als": 0}, "scalling": "rrf"})
    assert str(refusal.value).splitlines() == [
        "model 'blend': unknown parameter 'scalling'. Did you mean 'scaling'?",
        "model 'blend': weights: there is no part 'alss'. Did you mean 'als'?",
        "model 'blend': no part has a weight above 0: name a part with one.",
    ]
    with pytest.raises(ConfigError, match="no part has a weight above 0"):
        build("blend", {"parts": {}})


def test_all_that_is_wrong_with_the_parts_is_said_at_once():
    inner = {"model": "blend", "parts": {"als": {"reg": -1}}}
    parts = {"als": {"rnak": 4, "iterations": "many"}, "mine": {"model": "eas"}, "inner": inner, "popular": {}}
    with pytest.raises(ConfigError) as refusal:
        build("blend", {"parts": parts, "scaling": "rff", "weight": {}})
    lines = str(refusal.value).splitlines()
    expected = [
        "model 'blend': unknown parameter 'weight'. Did you mean 'weights'?",
        "model 'blend': parts.als: model 'als': unknown parameter 'rnak'. Did you mean 'rank'?",
        "model 'blend': parts.als: model 'als': iterations: must be a whole number (it is 'many')",
        "model 'blend': parts.mine: unknown model 'eas'. Did you mean 'ease'?",
        "model 'blend': parts.inner: model 'blend': parts.als: model 'als': reg: must be greater than 0 (it is -1)",
        "model 'blend': scaling: must be 'standard' or 'rrf' (it is 'rff'). Did you mean 'rrf'?",
    ]
    assert lines == expected


def test_bases_without_features_are_answered_by_the_crowd():
    train, _ = contract.world(users=200)
    model = build("hybrid", {"parts": ["popular", "rp3beta", "content"]}).fit(replace(train))
    assert "content" not in model.record["parts"]


def test_kinds_of_order_take_part_where_they_are_named_and_events_have_times():
    train, _ = contract.world(users=200)
    model = build("hybrid", {"parts": ["popular", "transitions"]}).fit(train)
    assert set(model.record["parts"]) == {"popular", "transitions"}
    undated = replace(train, time=np.full(len(train), -1))
    without = build("hybrid", {"parts": ["popular", "transitions"]}).fit(undated)
    assert "no event of train has a time" in without.record["left_out"]["transitions"]
    assert set(without.record["parts"]) == {"popular"}


def test_a_trial_asks_as_many_users_as_its_memory_holds():
    train, _ = contract.world(users=200, items=2000)
    record = build("hybrid", {"parts": ["popular"], "memory_mb": 4}).fit(train).record
    # Scores of one kind and of a second member, and six arrays to work with.
    assert record["users"] == 4 * 2**20 // (4 * 8 * 2000)
    assert build("hybrid", {"parts": ["popular"], "users": 62, "memory_mb": 4}).fit(train).record["users"] == 62


def test_chosen_weights_are_better_than_any_next_step_and_take_a_part_that_helps_a_little():
    train, features = contract.world(users=300)
    trial = hide_pairs(train, 0.3, 300, seed=1)
    for kind in ("popular", "itemknn", "content"):
        trial.cache_scores(kind, build(kind, {}).fit(trial.train, features))
    rows = np.arange(len(trial.users))
    weights = trial.choose(rows, steps=50)
    best = trial.blend_ndcg(weights, rows).mean()
    for part in trial.scores:
        assert trial.blend_ndcg({part: 1.0}, rows).mean() <= best
        for share in (0.25, 0.5, 1.0):
            more = weights | {part: weights.get(part, 0.0) + share * sum(weights.values())}
            assert trial.blend_ndcg(more, rows).mean() <= best + 1e-12
    assert len(weights) > 1


@pytest.mark.parametrize("seed", range(4))
def test_every_member_is_tried_in_every_step_with_a_small_weight(seed):
    train, _ = contract.world(users=100)
    trial = hide_pairs(train, 0.3, 100, seed=1)
    rows = np.arange(len(trial.users))
    rng = np.random.default_rng(seed)
    hidden = trial.relevant.toarray()
    # Three members each know the same quarter of the hidden likes, among more and more noise. So those that help next
    # are not those that helped most before.
    quarter = rng.integers(0, 4, hidden.shape)
    for number in range(12):
        scores = hidden * (quarter == number % 4) + (1 + number / 10) * rng.random(hidden.shape)
        trial.scores[f"member {number}"] = rescale_rows(scores.astype(np.float32))
    weights = trial.choose(rows, steps=50)
    best = trial.blend_ndcg(weights, rows).mean()
    for name in trial.scores:
        more = weights | {name: weights.get(name, 0.0) + sum(weights.values()) / 4}
        assert trial.blend_ndcg(more, rows).mean() <= best + 1e-12


def test_a_blend_may_be_the_best_without_its_best_member(monkeypatch):
    # Nobody has seen anything; the hidden likes of two users are the items 0 and 1.
    users, items = 2, 300
    train = Interactions(
        IdMap.from_ids(np.arange(users)),
        IdMap.from_ids(np.arange(items)),
        *(np.array([], dtype) for dtype in (np.int32, np.int32, np.float32, np.int64)),
    )
    hidden = csr_array(np.eye(users, items, dtype=np.float32))
    trial = Trial(train, hidden, np.arange(users), np.ones(items, dtype=bool))
    scores = {name: np.zeros((users, items), dtype=np.float32) for name in ("first", "second", "third")}
    # The best member puts one item before each hidden like, and scores it so high that no other member
    # corrects it with an equal weight. The other two are each right for one user and know nothing of the other.
    for user, name in enumerate(("second", "third")):
        scores["first"][user, 10] = 100.0
        scores["first"][user, user] = 50.0
        scores[name][user, user] = 1.0
        scores[("third", "second")[user]][user, 20:] = 0.1
    trial.scores |= scores
    rows = np.arange(users)
    assert trial.choose(rows) == {"second": 1.0, "third": 0.25}
    assert trial.choose(rows, {"first": 1.0}) == {"first": 1.0}
    monkeypatch.setattr(trial_module, "CELLS_OF_STARTS", users * items)
    assert trial.choose(rows) == {"first": 1.0}


@pytest.mark.parametrize("gain", [0.05, -0.05])
@pytest.mark.parametrize("conclusive", [True, False])
def test_a_blend_that_is_only_likely_to_help_orders_new_items_and_nothing_else(gain, conclusive):
    class Noisy:
        """A blend that helps every other user and harms the rest: ten users show nothing."""

        def choose(self, rows, start=None, steps=6):
            return {"a": 1.0, "b": 0.5 if rows[0] == 0 else 1.5} if steps else {"a": 1.0}

        def blend_ndcg(self, weights, rows):
            return 0.5 + ("b" in weights) * (gain + np.where(rows % 2, 0.3, -0.3))

    rows = np.arange(10)
    chosen, why = build("hybrid", {})._checked_choice(
        Noisy(), rows[::3], np.setdiff1d(rows, rows[::3]), None, conclusive
    )
    # a + b/2 on one half and a + 3b/2 on the other are 2/3 and 2/5 of a; the mean is 8/15.
    assert chosen == ({"a": 0.5333, "b": 0.4667} if gain > 0 and not conclusive else {"a": 1.0})
    assert f"{gain:+.4f} [" in why
