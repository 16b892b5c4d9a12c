"""Nearest users against comparing every two users with scipy."""

import numpy as np
import pytest
import scipy.stats
from scipy.sparse import csr_array

from recsys.errors import ConfigError
from recsys.evaluation.agreement import similar_users
from recsys.evaluation.agreement.similar_users import nearest_users


@pytest.fixture(scope="module")
def ratings():
    rng = np.random.default_rng(4)
    dense = rng.integers(1, 6, (40, 25)) * (rng.random((40, 25)) < 0.5)
    dense[7] = 0  # a user without ratings
    dense[8, :20] = 3  # and one without an opinion
    return csr_array(dense.astype(np.float32))


def by_loops(ratings, k, min_common):
    dense, found = ratings.toarray(), []
    for u in range(len(dense)):
        near = []
        for v in range(len(dense)):
            both = (dense[u] > 0) & (dense[v] > 0)
            if v != u and both.sum() >= min_common:
                value = scipy.stats.kendalltau(dense[u, both], dense[v, both]).statistic
                if not np.isnan(value):
                    near.append((round(-value, 12), -int(both.sum()), v))
        found.append([v for _, _, v in sorted(near)[:k]])
    return found


@pytest.mark.parametrize(("block", "min_common"), [(1, 6), (100, 6), (1 << 19, 6), (1 << 19, 2)])
def test_equals_comparing_every_two_users(ratings, monkeypatch, block, min_common):
    """With two common items values are often equal, so that the number in common and the row decide."""
    monkeypatch.setattr(similar_users, "BLOCK_PAIRS", block)
    if min_common == 2:
        ratings = ratings[:, :8]
    found = nearest_users(ratings, 4, min_common=min_common)
    assert [[v for v in row if v >= 0] for row in found.neighbours.tolist()] == by_loops(ratings, 4, min_common)
    assert (found.neighbours[7] == -1).all()
    assert np.isnan(found.values[7]).all()
    assert (found.common[found.neighbours >= 0] >= min_common).all()


def test_some_users_and_distances(ratings):
    every, some = nearest_users(ratings, 3), nearest_users(ratings, 3, users=np.array([5, 2]))
    assert (some.neighbours == every.neighbours[[5, 2]]).all()
    far = nearest_users(ratings, 3, measure="kendall_topk")
    assert (np.diff(far.values[0]) >= 0).all()
    with pytest.raises(ConfigError, match="min_common"):
        nearest_users(ratings, min_common=1)
