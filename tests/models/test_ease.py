"""EASE by calculus: at its solution no weight off the diagonal can improve the objective."""

import numpy as np
import pytest
from contract import world

from recsys.errors import InputError
from recsys.models import build


@pytest.mark.parametrize(("reg", "users", "items"), [(0.5, 60, 30), (20.0, 60, 30), (20.0, 9, 60)])
def test_the_gradient_is_zero_off_the_diagonal(reg, users, items):
    train, _ = world(users=users, items=items)
    model = build("ease", {"reg": reg}).fit(train)
    p = (train.matrix().toarray() > 0).astype(float)[:, model.known_]
    w = model.weights_.astype(float)
    gradient = p.T @ (p @ w - p) + reg * w  # half the derivative of |P − PW|² + reg |W|²
    off = ~np.eye(len(w), dtype=bool)
    assert np.abs(gradient[off]).max() < 1e-4
    assert (np.diag(w) == 0).all()
    assert np.abs(np.diag(gradient)).min() > 0.1  # the constraint binds: this check can tell


def test_scores_are_likes_times_weights():
    train, _ = world()
    model = build("ease", {}).fit(train)
    p = (train.matrix().toarray() > 0)[:, model.known_]
    found = model.score(train.histories())[1:, model.known_]
    np.testing.assert_allclose(found, p[1:] @ model.weights_, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused_with_a_way_out():
    train, _ = world(users=400, items=400)
    assert 14 * 399**2 > 2**20
    with pytest.raises(InputError, match=r"more than memory_mb = 1\. .*'spectral'"):
        build("ease", {"memory_mb": 1}).fit(train)
    assert build("ease", {"memory_mb": 8}).fit(train).can_score(train.histories()).any()
