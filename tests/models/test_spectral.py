"""The spectral filter against dense NumPy, every singular vector exact."""

import numpy as np
import pytest
from contract import world

from recsys.models import build
from recsys.models.collaborative import spectral


def dense(train, rank, low):
    """Return the scores by the formula of the paper."""
    p = (train.matrix().toarray() > 0).astype(float)
    users, items = np.maximum(p.sum(axis=1), 1), np.maximum(p.sum(axis=0), 1)
    r = np.diag(users**-0.5) @ p @ np.diag(items**-0.5)
    v = np.linalg.svd(r)[2][:rank].T
    return p @ (r.T @ r + low * np.diag(items**-0.5) @ v @ v.T @ np.diag(items**0.5)), p


@pytest.mark.parametrize("most_items", [0, 8192])
@pytest.mark.parametrize(("rank", "low"), [(1, 0.3), (6, 0.3), (30, 1.0), (6, 0.0)])
def test_scores_by_the_formula(rank, low, most_items, monkeypatch):
    """With 0 no graph is dense."""
    monkeypatch.setattr(spectral, "MOST_ITEMS_OF_GRAPH", most_items)
    train, _ = world()
    model = build("spectral", {"rank": rank, "low": low}).fit(train)
    expected, p = dense(train, rank, low)
    found = model.score(train.histories())
    liking, known = p.any(axis=1), p.any(axis=0)
    np.testing.assert_allclose(found[np.ix_(liking, known)], expected[np.ix_(liking, known)], rtol=1e-3, atol=1e-4)


def test_a_second_fit_has_a_graph_of_its_own():
    first, second = world(seed=1)[0], world(seed=2)[0]
    model = build("spectral", {"rank": 6}).fit(first)
    model.score(first.histories())
    model.fit(second)
    expected, p = dense(second, 6, 0.3)
    rows, known = p.any(axis=1), p.any(axis=0)
    scores = model.score(second.histories())
    np.testing.assert_allclose(scores[np.ix_(rows, known)], expected[np.ix_(rows, known)], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_on_larger_data_the_vectors_are_nearly_the_best():
    """|R V|² of any orthonormal V is at most the sum of the largest squared singular values."""
    train, _ = world(users=300, items=200)
    model = build("spectral", {"rank": 20}).fit(train)
    p = (train.matrix().toarray() > 0).astype(float)
    r = p / np.sqrt(np.maximum(p.sum(axis=1, keepdims=True), 1)) / np.sqrt(np.maximum(p.sum(axis=0), 1))
    best = (np.linalg.svd(r)[1][:20] ** 2).sum()
    v = model.vectors_.astype(float)
    np.testing.assert_allclose(v.T @ v, np.eye(20), atol=1e-5)
    assert 0.99 * best < ((r @ v) ** 2).sum() <= best * (1 + 1e-6)
