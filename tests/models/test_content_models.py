"""Content and the models with content inside: closed forms, loop twins, and what explains a score."""

import contract
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys import linalg
from recsys.als import definition
from recsys.errors import ConfigError, InputError
from recsys.features.encoding import shuffle_features
from recsys.features.terms import add_constant_column, weigh_terms
from recsys.models import build
from recsys.models.combining.trial import subset
from recsys.models.content import similar
from recsys.types import Features, Histories


def ridge_twin(x, y, reg, weight):
    """As one least-squares problem: rows scaled by √weight, and √reg·I below."""
    stacked = np.vstack([np.sqrt(weight)[:, None] * x, np.sqrt(reg) * np.eye(x.shape[1])])
    return np.linalg.lstsq(stacked, np.vstack([np.sqrt(weight)[:, None] * y, np.zeros((x.shape[1], y.shape[1]))]))[0]


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
@pytest.mark.parametrize("direct", [4096, 0], ids=["closed form", "conjugate gradients"])
def test_ridge_is_the_least_squares_solution(shape, direct):
    rng = np.random.default_rng(1)
    x, y, weight = rng.normal(size=shape), rng.normal(size=(shape[0], 3)), rng.uniform(0.5, 9, shape[0])
    found = linalg.ridge(csr_array(x), y, 0.7, weight, direct)
    np.testing.assert_allclose(found, ridge_twin(x, y, 0.7, weight), rtol=1e-6, atol=1e-8)


def test_a_new_item_gets_the_factor_that_its_features_predict():
    train, features = contract.world()
    model = build("attributes", {"rank": 4, "ridge": 2.0}).fit(train, features)
    plain = build("als", {"rank": 4}).fit(train)
    known = plain.known_
    x = add_constant_column(weigh_terms(features)).toarray()
    count = np.bincount(train.item[train.value > 0], minlength=len(known))
    learned = ridge_twin(x[known], plain.item_factors_[known], 2.0, np.sqrt(count[known]))
    np.testing.assert_array_equal(model.item_factors_[known], plain.item_factors_[known])
    np.testing.assert_allclose(model.item_factors_[~known], x[~known] @ learned, rtol=1e-4, atol=1e-5)


def test_content_als_is_als_with_the_made_up_users_among_the_others():
    train, features = contract.world()
    params = {"rank": 3, "iterations": 4, "neighbours": 2, "content": 2.0, "terms": 0.5, "solver": "cholesky"}
    model = build("content_als", params).fit(train, features)
    likes, terms = train.matrix().toarray(), weigh_terms(features).toarray()
    usual, near = np.median(likes[likes > 0]), terms @ terms.T
    rows = list(likes)
    for item in np.flatnonzero(terms.any(axis=1)):
        others = sorted((j for j in range(len(terms)) if j != item and near[item, j] > 0), key=lambda j: -near[item, j])
        rows.append(np.zeros(len(terms)))
        rows[-1][[item, *others[:2]]] = 2 * usual
    rows += list(0.5 * usual * terms.T / terms[terms > 0].mean())
    y = definition.fit(csr_array(np.array(rows)), 3, 4, model.objective, length=0.1)[1]
    assert model.known_.sum() > len(likes.any(axis=0).nonzero()[0])
    np.testing.assert_allclose(model.item_factors_[model.known_], y[model.known_], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("likes", [True, False])
@pytest.mark.parametrize("dims", [3, 6])
def test_side_ease_minimises_what_it_says_on_either_side(dims, likes):
    """Without a like in train too: then whoever comes later and likes something is answered by content alone."""
    train, features = contract.world(users=12 if dims == 3 else 60)
    learned = train if likes else subset(train, train.value < 0)
    model = build("side_ease", {"dims": dims, "reg": 0.5, "content": 2.0}).fit(learned, features)
    x = np.vstack([model.rows_.toarray(), model.latent_.T]).astype(np.float64)
    assert x.any()
    reg = 0.5 * (x**2).sum() / len(x)
    gram = x.T @ x
    twin = np.zeros_like(gram)  # item by item, least squares on the other items
    for item in range(len(gram)):
        others = np.arange(len(gram)) != item
        left = gram[np.ix_(others, others)] + reg * np.eye(len(gram) - 1)
        twin[others, item] = np.linalg.solve(left, gram[others, item])
    liked = np.where(train.matrix().toarray() > 0, 1.0, 0.0)
    scores = model.score(train.histories())
    rows = np.isfinite(scores).any(axis=1)
    assert rows.any()
    np.testing.assert_allclose(scores[rows], (liked @ twin)[rows], rtol=1e-3, atol=1e-4)


def test_side_ease_of_nothing_has_no_opinion_or_none_that_differs():
    train, features = contract.world()
    model = build("side_ease", {"content": 0.0}).fit(subset(train, train.value < 0), features)
    assert set(np.unique(model.score(train.histories())[1:])) <= {0.0}


def test_side_ease_states_the_memory_it_would_need():
    train, features = contract.world(users=400, items=30)
    model = build("side_ease", {"memory_mb": 1})
    wide = Features(csr_array(np.ones((30, 400), np.float32)), tuple(map(str, range(400))))
    model.fit(train, features)
    with pytest.raises(InputError, match="MiB"):
        build("side_ease", {"memory_mb": 1}).fit(*many_items(wide))


def many_items(wide):
    from recsys.data.synthetic import checkerboard

    board = checkerboard(400)
    return board, Features(csr_array(np.vstack([wide.matrix.toarray()] * 14)[:400]), wide.names)


def test_content_scores_are_cosines_and_dislikes_push_away():
    features = Features(csr_array(np.array([[1.0, 0], [0, 1], [1, 1], [0, 0]], np.float32)), ("f=a", "f=b"))
    train, _ = contract.world(users=4, items=30)
    model = build("content", {"scheme": "raw"}).fit(train, features)
    history = csr_array(np.array([[2.0, 0, 0, 0]], np.float32))
    np.testing.assert_allclose(model.score(Histories(history)), [[1, 0, np.sqrt(0.5), np.nan]], atol=1e-6)
    torn = csr_array(np.array([[2.0, -2.0, 0, 0]], np.float32))
    assert model.score(Histories(torn))[0, 1] < 0
    assert not model.can_score(Histories(csr_array(np.array([[0, 0, 0, 1.0]], np.float32))))[0]
    explanation = model.explain(Histories(torn), 3)
    assert np.isnan(explanation.score)
    assert explanation.history is None  # no opinion, not 0


@pytest.mark.parametrize("params", [{}, {"dims": 3}, {"scheme": "bm25", "fields": {"odd": 3}}])
def test_terms_sum_to_the_score(params):
    train, features = contract.world()
    model = build("content", params).fit(train, features)
    histories = train.histories()
    scores = model.score(histories)
    for row, item in [(1, 0), (5, 7), (9, 29)]:
        told = model.explain(histories[[row]], item).features
        assert list(told.values()) == sorted(told.values(), reverse=True)
        np.testing.assert_allclose(sum(told.values()), scores[row, item], rtol=1e-5, atol=1e-6)


def test_a_field_without_a_value_leaves_rows_of_length_one_and_a_strange_field_is_refused():
    features = Features(csr_array(np.array([[1.0, 2, 0], [3, 0, 0], [0, 0, 0]], np.float32)), ("a=x", "b=y", "b=z"))
    np.testing.assert_allclose((weigh_terms(features).toarray() ** 2).sum(axis=1), [1, 1, 0], rtol=1e-6)
    assert weigh_terms(features, weights={"b": 0.0}).toarray()[0].tolist() == [1, 0, 0]
    with pytest.raises(ConfigError, match="no features of field 'c'"):
        weigh_terms(features, weights={"c": 1.0})


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_similar_rows_are_what_a_loop_finds(seed, k):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(9, 3)).astype(np.float32)
    found, value = similar(vectors, np.arange(9), k, block=4)
    near = vectors @ vectors.T
    for row in range(9):
        others = sorted((j for j in range(9) if j != row and near[row, j] > 0), key=lambda j: (-near[row, j], j))[:k]
        assert found[row][found[row] >= 0].tolist() == others
        np.testing.assert_allclose(value[row, : len(others)], near[row, others], rtol=1e-5)


def test_a_shuffle_keeps_empty_rows_empty_and_the_rest_the_same_rows():
    _, features = contract.world()
    matrix = features.matrix.toarray()
    matrix[3:6] = 0
    mixed = shuffle_features(Features(csr_array(matrix), features.names), seed=1).matrix.toarray()
    assert not mixed[3:6].any()
    assert sorted(map(tuple, mixed)) == sorted(map(tuple, matrix))
    assert (mixed != matrix).any()
