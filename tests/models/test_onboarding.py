"""Asking newcomers: expected likes against a regression written out, each strategy's order, and the simulation."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.models.onboarding import STRATEGIES, Onboarding, simulate
from recsys.types import IdMap, Interactions


def train_of(values):
    """Interactions of a dense array: 0 not stored, else the value."""
    users, items = (IdMap.from_ids(np.arange(n)) for n in values.shape)
    user, item = (axis.astype(np.int32) for axis in np.nonzero(values))
    time = np.full(len(user), -1)
    return Interactions(users, items, user, item, values[values != 0].astype(np.float32), time)


def world(seed=0, users=60, items=12):
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(users, 2)) @ rng.normal(size=(2, items))
    known = rng.random((users, items)) < np.linspace(0.9, 0.2, items)
    return np.where(known, np.where(taste > 0, 1.0, -1.0), 0.0)


def regression(values, answers, item, shrink):
    """Ridge of one item's likes on the marks of the asked items but itself, by lstsq on stacked rows."""
    asked = [other for other in answers if other != item]
    likes = (values == 1).astype(float)
    marks = np.hstack([values[:, asked] == 1, values[:, asked] == -1]).astype(float)
    centre, penalty = marks.mean(axis=0), np.sqrt(shrink * len(values)) * np.eye(marks.shape[1])
    target = np.concatenate([likes[:, item] - likes[:, item].mean(), np.zeros(len(penalty))])
    weights = np.linalg.lstsq(np.vstack([marks - centre, penalty]), target, rcond=None)[0]
    said = np.array([answers[other] for other in asked])
    return likes[:, item].mean() + (np.concatenate([said == 1, said == -1]) - centre) @ weights


@given(st.dictionaries(st.integers(0, 11), st.sampled_from([1, -1, 0]), max_size=6))
def test_expected_likes_are_a_ridge_regression(answers):
    values = world()
    found = Onboarding(shrink=0.3).fit(train_of(values)).expected(answers)
    wanted = [regression(values, answers, item, 0.3) for item in range(values.shape[1])]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("like", [None, 3.0])
def test_products_are_those_of_the_centred_marks(like):
    values = np.round(3 * world(2, users=300)) + np.random.default_rng(2).integers(0, 2, (300, 12))
    values[:, 4] = 0  # nobody knows it
    model = Onboarding(candidates=7, shrink=0.3, like=like).fit(train_of(values))
    likes = (values > 0 if like is None else values >= like).astype(np.float64)
    known = (values != 0).sum(axis=0)
    assert model.items_.tolist() == sorted(range(12), key=lambda item: (-known[item], item))[:7]
    marks = np.hstack([part[:, model.items_] for part in (likes, (values != 0) - likes)])
    np.testing.assert_allclose(model.indicator_mean_, marks.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.mean_, likes.mean(axis=0), rtol=1e-12)
    marks -= marks.mean(axis=0)
    np.testing.assert_allclose(model.gram_, marks.T @ marks + 0.3 * 300 * np.eye(14), atol=1e-9)
    np.testing.assert_allclose(model.cross_, marks.T @ (likes - likes.mean(axis=0)), atol=1e-5)
    assert model.cross_.dtype == np.float32


def test_no_array_is_as_long_as_the_users_and_as_wide_as_the_candidates():
    rng, users = np.random.default_rng(0), 60_000
    item = (np.arange(0, 400, 100) + rng.integers(0, 100, (users, 4))).ravel().astype(np.int32)
    user, value = np.repeat(np.arange(users, dtype=np.int32), 4), rng.choice([-1, 1], 4 * users).astype(np.float32)
    train = Interactions(
        IdMap.from_ids(np.arange(users)), IdMap.from_ids(np.arange(400)), user, item, value, np.full(len(user), -1)
    )
    Onboarding().fit(train_of(world()))  # compile first
    tracemalloc.start()
    try:
        Onboarding(candidates=300).fit(train)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < users * 300  # a byte a cell


def test_without_answers_the_list_is_the_popular_one_and_what_is_known_is_not_recommended():
    values = world()
    model = Onboarding().fit(train_of(values))
    likes = (values == 1).sum(axis=0)
    assert model.recommend({}, 12).items[0].tolist() == np.argsort(-likes, kind="stable").tolist()
    lists = model.recommend({0: 1, 1: -1, 2: 0}, 12).items[0]
    assert set(lists[lists >= 0]) == set(range(12)) - {0, 1}


def test_orders_of_the_questions():
    values = np.zeros((40, 5))
    values[:, 0] = 1  # everybody knows it, everybody likes it: nothing to learn
    values[:30, 1] = np.where(np.arange(30) < 15, 1, -1)
    values[:20, 2] = np.where(np.arange(20) < 18, 1, -1)
    values[:30, 3] = values[:30, 1]  # what 1 says, once more
    values[30:, 4] = 1

    def asked(strategy):
        model = Onboarding(strategy=strategy).fit(train_of(values))
        answers = {}
        while (item := model.question(answers)) is not None:
            answers[item] = 0
        return list(answers)

    assert asked("popular") == [0, 1, 3, 2, 4]
    split = {0: (0, 1, 0), 1: (0.25, 0.375, 0.375), 2: (0.5, 0.45, 0.05), 3: (0.25, 0.375, 0.375), 4: (0.75, 0.25, 0)}
    worth = {
        item: sum(-w * p * np.log(p) for w, p in zip((0.5, 1, 1), parts, strict=True) if p)
        for item, parts in split.items()
    }
    assert asked("entropy0") == sorted(worth, key=lambda item: (-worth[item], item))
    assert asked("popular_entropy")[:2] == [1, 3]
    assert set(asked("popular_entropy")[3:]) == {0, 4}
    assert asked("coverage").index(3) > asked("coverage").index(2)  # 3 adds nothing to 1, 2 does
    assert asked("best_guess")[0] == 0


def test_coverage_is_greedily_d_optimal():
    """Each next item makes the determinant of the regularised covariance of likes the largest."""
    values = world(4)
    model = Onboarding(strategy="coverage", shrink=0.1).fit(train_of(values))
    likes = (values == 1) - (values == 1).mean(axis=0)
    covariance = likes.T @ likes + 0.1 * len(values) * np.eye(12)
    asked = {}
    for _ in range(12):
        grown = {j: np.linalg.det(covariance[np.ix_([*asked, j], [*asked, j])]) for j in set(range(12)) - set(asked)}
        item = model.question(asked)
        assert grown[item] == pytest.approx(max(grown.values()), rel=1e-4)
        asked[item] = 0
    assert list(asked) != np.argsort(-np.diag(covariance), kind="stable").tolist()  # variance alone says otherwise


def test_the_best_guess_follows_the_answers():
    values = np.zeros((60, 5))
    values[:40, 0] = 1
    values[:38, 1] = 1  # liked with 0
    values[40:, [2, 3]] = 1  # a camp of its own
    model = Onboarding(strategy="best_guess").fit(train_of(values))
    assert model.question({}) == 0
    assert model.question({0: 1}) == 1
    assert model.question({0: -1}) in (2, 3)
    assert model.question({0: 0, 1: 0}) in (2, 3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_simulation_asks_one_user_as_it_asks_many(strategy):
    values = world(1)
    model = Onboarding(strategy=strategy, candidates=8).fit(train_of(values[:40]))
    knowledge = csr_array(values[40:50])
    assert simulate(model, knowledge, questions=()) == {}
    together = simulate(model, knowledge, questions=(0, 2, 20), k=4)
    for row in range(10):
        alone = simulate(model, knowledge[[row]], questions=(0, 2, 20), k=4)
        answers = {}
        for count in range(21):
            if count in together:
                assert together[count].items[row].tolist() == alone[count].items[0].tolist()
                assert together[count].items[row].tolist() == model.recommend(answers, 4).items[0].tolist()
            if (item := model.question(answers)) is not None:
                answers[item] = int(values[40 + row, item])
        assert len(answers) == 8  # it runs out of candidates, and goes on


def test_a_threshold_tells_likes_from_dislikes():
    values = np.array([[5.0, 3.0], [4.0, 2.0]])
    graded = Onboarding(like=4.0).fit(train_of(values)).expected({})
    assert graded.tolist() == [1.0, 0.0]


def test_curiosity_is_the_spread_of_what_an_answer_adds():
    values = world(3)
    model = Onboarding(shrink=0.3).fit(train_of(values))
    asked = {0: 1, 4: -1}
    # whiten what is left of an item's marks: a mark one unit of it away moves the expected likes by this much
    rows = [0, 4, 12, 16]
    places = np.arange(12)
    for place in range(12):
        if int(model.items_[place]) in asked:
            continue
        own = [place, place + 12]
        order = [list(model.items_).index(item) + shift for shift in (0, 12) for item in asked]
        block = np.ix_(order + own, order + own)
        factor = np.linalg.cholesky(model.gram_[block])
        solved = np.linalg.solve(factor, model.cross_[order + own][:, places])[len(rows) :]
        wanted = np.sqrt((solved**2).sum(axis=0) / 60)
        np.testing.assert_allclose(model._answer_deviations(asked, places)[place], wanted, atol=1e-6)


def test_curiosity_prefers_the_question_that_tells_more():
    rng = np.random.default_rng(5)
    values = np.zeros((200, 12))
    values[:, 0] = np.where(rng.random(200) < 0.6, 1, -1)  # liked most, and says nothing of anything else
    camp = rng.random(200) < 0.5
    values[:, 1] = np.where(camp, 1, -1)  # says everything of the rest
    values[:, 2:] = np.where(camp[:, None], 1, -1) * (rng.random((200, 10)) < 0.8)
    train = train_of(values)
    assert Onboarding(curiosity=0).fit(train).question({}) == 0
    assert Onboarding(curiosity=0.5).fit(train).question({}) == 1
