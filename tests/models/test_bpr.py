"""BPR's fold-in by calculus, and what the library learns by its effect."""

import numpy as np
import pytest
from contract import UNLIKED, world
from scipy.optimize import minimize

from recsys.linalg import logistic_rows
from recsys.models import build
from recsys.models.collaborative.linear import liked


def value(x, y, b, reg):
    """Return what a user's factor minimises, as the docstring has it."""
    return -np.log(1 / (1 + np.exp(-(y @ x + b)))).sum() + reg / 2 * len(y) * x @ x


@pytest.mark.parametrize("rank", [6, 24])  # histories are longer than the one and shorter than the other
def test_a_fold_in_is_a_minimum(rank):
    train, _ = world()
    model = build("bpr", {"rank": rank, "reg": 0.05}).fit(train)
    likes = liked(train.matrix(), model.known_, binary=True)
    y, b = model.item_factors_.astype(float), model.bias_.astype(float)
    y, b = y - y[model.known_].mean(axis=0), b - b[model.known_].mean()
    x = model.user_factors(train.histories()).astype(float)
    assert not x[0].any()  # no likes
    for user in range(1, 8):
        items = likes[[user]].indices
        at = value(x[user], y[items], b[items], 0.05)
        for f in range(rank):
            aside = np.eye(rank)[f]
            up, down = (value(x[user] + step * aside, y[items], b[items], 0.05) for step in (1e-4, -1e-4))
            assert abs(up - down) / 2e-4 < 1e-4
            assert value(x[user] + 0.1 * aside, y[items], b[items], 0.05) > at


@pytest.mark.parametrize("rank", [3, 12])  # rows are longer than the one and shorter than the other
def test_a_row_is_at_its_minimum_where_newton_goes_too_far(rank):
    """Large factors and offsets: from zeros, whole steps would overshoot. SciPy finds the same minimum."""
    rng = np.random.default_rng(0)
    fixed, offset = rng.normal(0, 3, (40, rank)), rng.normal(0, 3, 40)
    columns = [rng.choice(40, size, replace=False) for size in rng.integers(4, 11, 60)]
    indptr = np.cumsum([0, *map(len, columns)])
    x = logistic_rows(indptr, np.concatenate(columns).astype(np.int32), fixed, offset, 0.01)
    for row, items in zip(x, columns, strict=True):
        expected = minimize(value, np.zeros(rank), (fixed[items], offset[items], 0.01), tol=1e-9).x
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-3)


def test_likes_score_above_the_rest():
    train, _ = world()
    model = build("bpr", {"rank": 6}).fit(train)
    scores, matrix = model.score(train.histories()), train.matrix().toarray()
    known = model.known_
    better = [
        scores[u, known & (matrix[u] > 0)].mean() - scores[u, known & (matrix[u] <= 0)].mean() for u in range(1, 60)
    ]
    assert np.mean(np.array(better) > 0) > 0.95


@pytest.mark.parametrize("rank", [6, 24])
def test_an_entry_adds_what_its_doubt_pulls(rank):
    """By hand from the stored factors: every liked item pulls the user by its doubt, and nothing else does."""
    train, _ = world()
    model = build("bpr", {"rank": rank, "reg": 0.05}).fit(train)
    y, b, known = model.item_factors_.astype(float), model.bias_.astype(float), model.known_
    for user in (1, 2, 5):
        history = train.histories()[[user]]
        values = history.values
        x, items = model.user_factors(history)[0].astype(float), values.indices
        own, likes = y[items] - y[known].mean(axis=0), (values.data > 0) & known[items]
        doubt = 1 / (1 + np.exp(own @ x + b[items] - b[known].mean()))
        explanation = model.explain(history, 7)
        parts = explanation.history
        np.testing.assert_allclose(parts, likes * doubt * (own @ y[7]) / (0.05 * likes.sum()), rtol=1e-4, atol=1e-6)
        assert not parts[~likes].any()
        assert (~likes).any()
        assert explanation.constant == pytest.approx(b[7])
        assert parts.sum() + b[7] == pytest.approx(model.score(history)[0, 7], abs=1e-5)
    assert np.isnan(model.explain(history, UNLIKED).score)
