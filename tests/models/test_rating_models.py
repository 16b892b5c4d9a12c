"""Models of ratings against loops, closed forms and conditions of optimality."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import nnls
from scipy.sparse import csr_array

from recsys import models
from recsys.errors import ConfigError, InputError
from recsys.models.ratings.bpmf import (
    describe_items,
    draw_noise_precision,
    draw_prior,
    draw_weights,
    principal_components,
)
from recsys.models.ratings.common_raters import predict_deviations
from recsys.models.ratings.gibbs import draw_factors, pair_scores
from recsys.models.ratings.stack import HOLD_OUT_SALT
from recsys.rating_model import RatingModel, predict_ratings
from recsys.types import Features, IdMap, Interactions, Reviews

KINDS = sorted(models.RATING_KINDS)
SMALL = {"bpmf": {"rank": 2, "burn_in": 3, "samples": 4}, "stack": {"parts": {"rating_als": {"rank": 2}}}}


def ratings(users=40, items=25, share=0.3, seed=0, noise=0.5):
    """Return ratings of a world with biases and two factors; the last item and the last user have none."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(users, 2)), rng.normal(size=(items, 2))
    value = 3.5 + 0.5 * rng.normal(size=(users, 1)) + 0.5 * rng.normal(size=(1, items)) + 0.5 * x @ y.T
    value += rng.normal(0, noise, value.shape)
    present = rng.random((users, items)) < share
    present[-1] = present[:, -1] = False
    user, item = np.nonzero(present)
    return Interactions(
        IdMap.from_ids(np.arange(users)),
        IdMap.from_ids(np.arange(items)),
        user.astype(np.int32),
        item.astype(np.int32),
        value[user, item].astype(np.float32),
        np.full(len(user), -1),
    )


def features_of(train):
    """Return reviews by every third rater that say the rating in words."""
    rows = np.arange(0, len(train), 3)
    text = [f"stars{value:.0f} and more {row % 7}" for row, value in zip(rows, train.value[rows], strict=True)]
    reviews = Reviews(
        user=train.user[rows].astype(np.int64),
        item=train.item[rows].astype(np.int64),
        text=np.array(text, dtype=object),
        score=train.value[rows].astype(np.float64),
        is_filled=np.zeros(len(rows), dtype=bool),
        user_ids=pd.Series(train.user[rows]).astype("category"),
    )
    return Features(csr_array((len(train.items), 0)), (), reviews=reviews)


def fitted(kind, train):
    return models.build_rating_model(kind, SMALL.get(kind, {})).fit(train, features_of(train))


@pytest.mark.parametrize("kind", KINDS)
def test_what_every_model_keeps_to(kind, tmp_path):
    train = ratings()
    model = fitted(kind, train)
    users = np.array([0, 1, 2, -1, 3, 39, -1])
    items = np.array([0, 1, -1, 2, 24, 4, -1])
    predicted = predict_ratings(model, users, items)
    assert not np.isnan(predicted[:2]).any()
    if kind in ("mean", "biases", "stack", "text_score"):
        assert not np.isnan(predicted).any()
    else:
        assert np.isnan(predicted[2:]).all()
    order = np.array([1, 0])
    np.testing.assert_array_equal(model.predict(users[order], items[order]), predicted[order])
    again = models.build_rating_model(kind, SMALL.get(kind, {}))
    again.fit(ratings(seed=5), features_of(ratings(seed=5))).fit(train, features_of(train))
    np.testing.assert_array_equal(again.predict(users, items), predicted)
    models.save(model, tmp_path / "model")
    loaded = models.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(users, items), predicted)
    np.testing.assert_array_equal(loaded.spread(users, items), model.spread(users, items))
    assert np.isfinite(model.spread(users, items)).any() == model.HAS_SPREAD


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_prediction_add_up_to_it(kind):
    train = ratings()
    model = fitted(kind, train)
    pairs = [(0, 0), (1, 1), (7, 3), (30, 12), (-1, 2), (3, -1), (39, 4), (3, 24)]
    for user, item in pairs:
        explanation = model.explain(user, item)
        [predicted] = model.predict(np.array([user]), np.array([item]))
        if np.isnan(predicted):
            assert explanation.parts == {}
            continue
        assert sum(explanation.parts.values()) == pytest.approx(predicted, abs=2e-6)
        assert (kind == "rating_knn") == bool(explanation.ratings)
        if explanation.ratings:
            assert sum(explanation.ratings.values()) == pytest.approx([*explanation.parts.values()][-1], abs=1e-12)
            assert set(explanation.ratings) <= set(train.item[train.user == user])


def test_few_neighbours_explain_by_the_most_similar_items():
    """With two neighbours the two ratings that count are among those of the model without a limit."""
    train = ratings()
    every = models.build_rating_model("rating_knn", {"neighbours": 99, "damping": 0.0}).fit(train)
    two = models.build_rating_model("rating_knn", {"neighbours": 2, "damping": 0.0}).fit(train)
    for user, item in [(0, 0), (5, 9), (20, 3)]:
        explained = two.explain(user, item)
        [predicted] = two.predict(np.array([user]), np.array([item]))
        assert len(explained.ratings) == 2
        assert set(explained.ratings) == set(list(every.explain(user, item).ratings)[:2])
        assert sum(explained.parts.values()) == pytest.approx(predicted, abs=1e-12)


def test_kinds_of_lists_and_of_ratings_are_told_apart():
    with pytest.raises(ConfigError, match="predicts ratings and makes no lists"):
        models.build("bpmf", {})
    with pytest.raises(ConfigError, match="ranks items and predicts no ratings"):
        models.build_rating_model("als", {})
    with pytest.raises(ConfigError, match="Did you mean 'bpmf'"):
        models.build_rating_model("bpfm", {})
    with pytest.raises(ConfigError, match=r"parts.rating_knn: .*unknown parameter 'neighbors'"):
        models.build_rating_model("stack", {"parts": {"rating_knn": {"neighbors": 3}}})


def test_a_model_that_returns_something_else_is_refused():
    class Wrong(RatingModel):
        def fit(self, train, features=None):
            return self

        def predict(self, users, items):
            return np.zeros(len(users), dtype=self.dtype) / self.divisor

    wrong = Wrong()
    wrong.dtype, wrong.divisor = np.float32, np.float32(1)
    with pytest.raises(InputError, match="float32"):
        predict_ratings(wrong, np.arange(3), np.arange(3))
    wrong.dtype = np.float64
    assert (predict_ratings(wrong, np.arange(3), np.arange(3)) == 0).all()
    wrong.predict = lambda users, items: np.full(len(users), np.inf)
    with pytest.raises(InputError, match="infinite"):
        predict_ratings(wrong, np.arange(3), np.arange(3))


def test_biases_solve_the_normal_equations():
    train = ratings()
    model = models.build_rating_model("biases", {"iterations": 300, "user_shrink": 4, "item_shrink": 2}).fit(train)
    users, items = len(train.users), len(train.items)
    design = np.zeros((len(train), users + items))
    design[np.arange(len(train)), train.user] = 1
    design[np.arange(len(train)), users + train.item] = 1
    value = train.value.astype(np.float64)
    penalty = np.diag(np.repeat([4.0, 2.0], [users, items]))
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ (value - value.mean()))
    np.testing.assert_allclose(model.user_bias_, solution[:users], atol=1e-9)
    np.testing.assert_allclose(model.item_bias_, solution[users:], atol=1e-9)
    assert model.predict(np.array([-1]), np.array([-1]))[0] == pytest.approx(value.mean())


def test_rating_als_ends_where_the_gradient_is_zero():
    train = ratings()
    reg, bias_reg = 0.7, 0.3
    model = models.build_rating_model(
        "rating_als", {"rank": 2, "iterations": 3000, "reg": reg, "bias_reg": bias_reg}
    ).fit(train)
    x, y = model.user_factors_, model.item_factors_
    error = train.value - model.predict(train.user, train.item)
    gradient = np.zeros_like(x)
    for user, item, e in zip(train.user, train.item, error, strict=True):
        gradient[user] -= e * np.append(1.0, y[item, 1:])
    gradient += x * np.append(bias_reg, np.full(2, reg))
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert np.abs(x[:, 1:]).max() > 0.1


def knn_by_loops(model, train, u, i):
    """Return the prediction of one pair as the definition says it."""
    mean, b_u, b_i = model.mean_[0], model.user_bias_, model.item_bias_
    deviation = {}
    for user, item, value in zip(train.user, train.item, train.value, strict=True):
        deviation[user, item] = float(value) - (mean + b_u[user] + b_i[item])
    neighbours = []
    for j in sorted({item for user, item in deviation if user == u} - {i}):
        common = [c for c in range(len(train.users)) if (c, i) in deviation and (c, j) in deviation]
        product = sum(deviation[c, i] * deviation[c, j] for c in common)
        if product > 0:
            squares = sum(deviation[c, i] ** 2 for c in common) * sum(deviation[c, j] ** 2 for c in common)
            similarity = len(common) / (len(common) + model.shrink) * product / np.sqrt(squares)
            neighbours.append((similarity, deviation[u, j]))
    nearest = sorted(neighbours, reverse=True)[: model.neighbours]
    if not nearest:
        return np.nan
    total = sum(s * e for s, e in nearest) / (model.damping + sum(s for s, _ in nearest))
    return mean + b_u[u] + b_i[i] + total


def test_rating_knn_is_the_loop_over_common_users():
    train = ratings(users=20, items=12)
    model = models.build_rating_model("rating_knn", {"neighbours": 3, "shrink": 2, "damping": 0.4}).fit(train)
    users, items = (rows.ravel() for rows in np.meshgrid(np.arange(20), np.arange(12), indexing="ij"))
    expected = [knn_by_loops(model, train, u, i) for u, i in zip(users, items, strict=True)]
    np.testing.assert_allclose(model.predict(users, items), expected, rtol=1e-12)
    assert 0 < np.isnan(expected).sum() < 100


def test_equal_similarities_keep_the_items_of_the_lower_rows():
    """Items 1, 2 and 3 are equally similar to item 0; two neighbours are kept."""
    user_indptr, user_items = np.array([0, 4, 7]), np.array([0, 1, 2, 3, 1, 2, 3])
    item_indptr, item_users = np.array([0, 1, 3, 5, 7]), np.array([0, 0, 1, 0, 1, 0, 1])
    by_user = np.array([1.0, 1.0, 1.0, 1.0, 5.0, 7.0, 100.0])
    by_item = np.array([1.0, 1.0, 5.0, 1.0, 7.0, 1.0, 100.0])
    pair = np.array([1]), np.array([0])
    deviation = predict_deviations(
        user_indptr, user_items, by_user, item_indptr, item_users, by_item, *pair, 2, 0.0, 0.0
    )
    assert deviation[0] == pytest.approx(6.0)


@pytest.mark.parametrize("seed", range(30))
def test_neighbours_are_the_first_by_similarity_and_row(seed):
    """Deviations of 1 and -1 have many equal similarities."""
    rng = np.random.default_rng(seed)
    dense = rng.choice([-1.0, 0.0, 1.0], (8, 25), p=[0.35, 0.3, 0.35])
    user, item = np.nonzero(dense)
    by_user = np.append(0, np.cumsum(np.bincount(user, minlength=8)))
    by_item = np.append(0, np.cumsum(np.bincount(item, minlength=25)))
    order = np.argsort(item, kind="stable")
    deviation = dense[user, item]
    pairs = np.arange(8), np.zeros(8, dtype=np.int64)
    predicted = predict_deviations(
        by_user, item, deviation, by_item, user[order], deviation[order], *pairs, 2, 1.0, 0.0
    )
    for u in range(8):
        neighbours = []
        for j in np.flatnonzero(dense[u])[np.flatnonzero(dense[u]) > 0]:
            common = (dense[:, 0] != 0) & (dense[:, j] != 0)
            count, product = common.sum(), dense[common, 0] @ dense[common, j]
            if product > 0:
                neighbours.append((-(count / (count + 1.0) * product / count), j))
        nearest = sorted(neighbours)[:2]
        weights = np.array([-similarity for similarity, _ in nearest])
        expected = weights @ dense[u, [j for _, j in nearest]] / weights.sum() if nearest else np.nan
        assert predicted[u] == pytest.approx(expected, nan_ok=True)


def test_a_draw_of_a_factor_has_the_mean_and_the_covariance_of_its_posterior():
    rng = np.random.default_rng(0)
    fixed = rng.normal(size=(6, 3))
    indices, target = np.array([0, 2, 5, 1]), rng.normal(size=4)
    precision = np.diag([1.0, 2.0, 3.0]) + 0.3
    shift = precision @ np.array([0.5, -1.0, 0.2])
    noise_precision = 2.5
    y = fixed[indices]
    posterior_precision = precision + noise_precision * y.T @ y
    mean = np.linalg.solve(posterior_precision, shift + noise_precision * y.T @ target)
    copies = 40_000
    draws = draw_factors(
        np.arange(copies + 1) * 4,
        np.tile(indices, copies),
        np.tile(target, copies),
        fixed,
        precision,
        np.tile(shift, (copies, 1)),
        noise_precision,
        rng.normal(size=(copies, 3)),
    )
    covariance = np.linalg.inv(posterior_precision)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * np.sqrt(covariance.max() / copies))
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.03 * covariance.max())
    exact = draw_factors(
        np.array([0, 4, 4]),
        indices,
        target,
        fixed,
        precision,
        np.tile(shift, (2, 1)),
        noise_precision,
        np.zeros((2, 3)),
    )
    np.testing.assert_allclose(exact[0], mean, rtol=1e-12)
    np.testing.assert_allclose(exact[1], [0.5, -1.0, 0.2], rtol=1e-12)


def test_the_prior_and_the_noise_are_drawn_from_their_posteriors():
    """The mean of a Wishart is ν W, that of the normal nX̄/(β + n), that of a Gamma is shape / rate."""
    rng = np.random.default_rng(0)
    factors = rng.normal([1.0, -2.0], [1.0, 0.5], (50, 2))
    draws = [draw_prior(factors, rng) for _ in range(3000)]
    average = factors.mean(axis=0)
    scatter = (factors - average).T @ (factors - average)
    scale = np.linalg.inv(np.eye(2) + scatter + 2 * 50 / 52 * np.outer(average, average))
    precision = np.mean([draw for _, draw in draws], axis=0)
    np.testing.assert_allclose(precision, 52 * scale, rtol=0.03, atol=0.02)
    np.testing.assert_allclose(np.mean([mean for mean, _ in draws], axis=0), average * 50 / 52, atol=0.015)
    errors = rng.normal(0, 2.0, 400)
    noise = [draw_noise_precision(errors, rng) for _ in range(3000)]
    shape, rate = 1 + 400 / 2, 1 + (errors**2).sum() / 2
    assert np.mean(noise) == pytest.approx(shape / rate, rel=0.01)
    assert np.var(noise) == pytest.approx(shape / rate**2, rel=0.15)


def test_pair_scores():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    users, items = np.array([0, 3, 3]), np.array([4, 0, 4])
    expected = [x[u, 0] + y[i, 0] + x[u, 1:] @ y[i, 1:] for u, i in zip(users, items, strict=True)]
    np.testing.assert_allclose(pair_scores(x, y, users, items), expected)


def test_bpmf_on_a_world_with_factors():
    """Errors near the noise, below those of the biases, and a spread whose 90 % intervals hold 90 %."""
    train = ratings(users=300, items=80, share=0.4, noise=0.5)
    rng = np.random.default_rng(1)
    hidden = rng.random(len(train)) < 0.2
    kept = Interactions(
        train.users, train.items, *(getattr(train, name)[~hidden] for name in ("user", "item", "value", "time"))
    )
    users, items, value = train.user[hidden], train.item[hidden], train.value[hidden]
    model = models.build_rating_model("bpmf", {"rank": 3, "burn_in": 30, "samples": 60}).fit(kept)
    error = model.predict(users, items) - value
    of_biases = models.build_rating_model("biases", {}).fit(kept).predict(users, items) - value
    assert np.sqrt(np.mean(error**2)) < 0.58
    assert np.sqrt(np.mean(of_biases**2)) > 0.8
    covered = np.mean(np.abs(error) < 1.6449 * model.spread(users, items))
    assert 0.88 < covered < 0.92
    assert model.noise_.mean() == pytest.approx(0.25, rel=0.1)


def test_weights_of_features_are_drawn_from_their_posterior():
    """With a precision matrix that is diagonal, each column is a ridge regression of its own."""
    rng = np.random.default_rng(0)
    side = rng.normal(size=(40, 3))
    factors = side @ rng.normal(size=(3, 2)) + rng.normal(size=(40, 2))
    precision = np.diag([2.0, 0.5])
    draws = np.array([draw_weights(factors, side, precision, 1.5, rng) for _ in range(4000)])
    for column, alpha in enumerate((2.0, 0.5)):
        a = alpha * side.T @ side + 1.5 * np.eye(3)
        expected = np.linalg.solve(a, alpha * side.T @ factors[:, column])
        np.testing.assert_allclose(draws[:, :, column].mean(axis=0), expected, atol=0.02)
        np.testing.assert_allclose(np.cov(draws[:, :, column].T), np.linalg.inv(a), atol=0.005)
    correlated = np.array([[2.0, 0.9], [0.9, 1.0]])
    draws = np.array([draw_weights(factors, side, correlated, 1.5, rng) for _ in range(4000)])
    # The mean solves FᵀF W Λ + λ W = Fᵀ Y Λ.
    mean = draws.mean(axis=0)
    left = side.T @ side @ mean @ correlated + 1.5 * mean
    np.testing.assert_allclose(left, side.T @ factors @ correlated, rtol=0.02, atol=1.0)


def test_bpmf_predicts_new_items_by_their_attributes():
    """Items of eight kinds, of which each has its own mean and factors: new items are as their kind."""
    rng = np.random.default_rng(2)
    users, items, kinds = 150, 160, 8
    kind = np.arange(items) % kinds
    mean, y = rng.normal(0, 0.5, kinds)[kind], rng.normal(0, 0.6, (kinds, 2))[kind]
    x = rng.normal(size=(users, 2))
    value = 3 + mean + x @ y.T + rng.normal(0, 0.5, (users, items))
    present = rng.random((users, items)) < 0.3
    is_cold = np.arange(items) >= 120
    user, item = np.nonzero(present & ~is_cold)
    ids = IdMap.from_ids(np.arange(users)), IdMap.from_ids(np.arange(items))
    columns = (
        user.astype(np.int32),
        item.astype(np.int32),
        value[user, item].astype(np.float32),
        np.full(len(user), -1),
    )
    train = Interactions(*ids, *columns)
    one_hot = csr_array((np.ones(items, np.float32), (np.arange(items), kind)), shape=(items, kinds))
    features = Features(one_hot, tuple(f"kind={number}" for number in range(kinds)))
    settings = {"rank": 2, "burn_in": 30, "samples": 60, "use_features": True}
    model = models.build_rating_model("bpmf", settings).fit(train, features)
    user, item = np.nonzero(present & is_cold)
    error = model.predict(user, item) - value[user, item]
    assert np.sqrt(np.mean(error**2)) < 0.55
    assert 0.86 < np.mean(np.abs(error) < 1.6449 * model.spread(user, item)) < 0.95
    of_biases = models.build_rating_model("biases", {}).fit(train).predict(user, item) - value[user, item]
    assert np.sqrt(np.mean(of_biases**2)) > 0.8
    without = models.build_rating_model("bpmf", settings | {"use_features": False}).fit(train, features)
    assert np.isnan(without.predict(user, item)).all()


@pytest.mark.parametrize(("n_terms", "is_centred"), [(30, True), (1200, False)], ids=["few terms", "many terms"])
def test_principal_components_are_those_of_a_dense_decomposition(n_terms, is_centred):
    rng = np.random.default_rng(6)
    terms = rng.random((90, n_terms)) * (rng.random((90, n_terms)) < 0.2) * rng.random(n_terms)
    terms[[3, 50]] = 0
    described = np.delete(terms, [3, 50], axis=0)
    left, values, _ = np.linalg.svd(described - is_centred * described.mean(axis=0), full_matrices=False)
    expected = left[:, :4] * values[:4]
    components = principal_components(csr_array(terms), 4)
    assert np.flatnonzero(np.isnan(components).any(axis=1)).tolist() == [3, 50]
    actual = np.delete(components, [3, 50], axis=0) - is_centred * np.nanmean(components, axis=0)
    # The sign and the order of components mean nothing.
    correlation = np.abs(np.corrcoef(actual.T, expected.T)[:4, 4:])
    assert correlation.max(axis=0) == pytest.approx(1, abs=1e-6)
    assert np.sort(np.linalg.norm(actual, axis=0)) == pytest.approx(np.sort(values[:4]), rel=1e-6)


def test_principal_components_tell_kinds_of_equal_size_apart():
    """Four directions of equal variance, beside the constant: none may be missing."""
    kinds = csr_array(np.tile(np.eye(5), (6, 1)))
    components = principal_components(kinds, 16)
    assert np.linalg.matrix_rank(np.column_stack([np.ones(30), components]), tol=1e-8) == 5
    assert components.shape == (30, 4)
    assert principal_components(csr_array(np.ones((1, 1200))), 3).shape == (1, 0)


def test_what_is_known_of_items_is_standardized_and_must_differ():
    train = ratings()
    both = features_of(train)
    terms = csr_array(np.repeat(np.eye(5, dtype=np.float32), 5, axis=0))
    features = Features(terms, tuple(f"kind={number}" for number in range(5)), reviews=both.reviews)
    side = describe_items(features, train.items, 3)
    assert side.shape == (25, 4)
    np.testing.assert_allclose(side[:, :3].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(side[:, :3].std(axis=0), 1, rtol=1e-9)
    np.testing.assert_allclose(side[:5, :3], np.tile(side[0, :3], (5, 1)), atol=1e-9)
    for nothing in (None, Features(csr_array((25, 0)), ())):
        with pytest.raises(ConfigError, match="use_features needs something that differs"):
            describe_items(nothing, train.items, 3)


def test_the_stack_solves_its_hold_out():
    from recsys.data.hashing import hash_words, to_unit_interval

    train = ratings(users=120, items=40, share=0.4)
    parts = {"first": {"model": "rating_als", "rank": 2, "reg": 3.0}, "second": {"model": "rating_knn"}}
    model = models.build_rating_model("stack", {"parts": parts, "share": 0.25, "seed": 3}).fit(train)
    held = to_unit_interval(hash_words(3 ^ HOLD_OUT_SALT, train.user, train.item)) < 0.25
    kept = Interactions(
        train.users, train.items, *(getattr(train, name)[~held] for name in ("user", "item", "value", "time"))
    )
    at = train.user[held], train.item[held]
    biases = models.build_rating_model("biases", {}).fit(kept).predict(*at)
    columns = [
        models.build_rating_model("rating_als", {"rank": 2, "reg": 3.0, "seed": 3}).fit(kept).predict(*at) - biases,
        models.build_rating_model("rating_knn", {}).fit(kept).predict(*at) - biases,
    ]
    weights = nnls(np.nan_to_num(np.column_stack(columns)), train.value[held] - biases)[0]
    np.testing.assert_allclose(model.weights_, weights, rtol=1e-9)
    assert model.record["held_out"] == held.sum()
    assert model.record["rmse"]["stack"] <= min(model.record["rmse"].values()) + 1e-12


@pytest.mark.parametrize(("pairs", "held_out"), [(1, 0), (2, 1)])
def test_the_stack_keeps_a_pair_to_learn_from(pairs, held_out):
    rows = np.arange(pairs, dtype=np.int32)
    ids = IdMap.from_ids(np.arange(3))
    train = Interactions(ids, ids, rows, rows, np.array([3.0, 4.0][:pairs], np.float32), np.full(pairs, -1))
    parts = {"parts": {"rating_als": {"rank": 2}}, "share": 1 - 1e-9}
    model = models.build_rating_model("stack", parts).fit(train)
    assert model.record["held_out"] == held_out
    assert model.weights_.tolist() == [0.0]
    biases = models.build_rating_model("biases", {}).fit(train)
    at = np.array([0, 1, -1]), np.array([0, 2, -1])
    np.testing.assert_array_equal(model.predict(*at), biases.predict(*at))
