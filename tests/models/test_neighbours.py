"""Neighbourhood models against loops over dictionaries."""

import math

import numpy as np
import pytest
from contract import world

from recsys.models import build

K1, B = 1.2, 0.75


def likes(train):
    """Return user -> {item: value > 0}."""
    found = {}
    for user, item, value in zip(train.user.tolist(), train.item.tolist(), train.value.tolist(), strict=True):
        if value > 0:
            found.setdefault(user, {})[item] = value
    return found


def transposed(table):
    found = {}
    for row, entries in table.items():
        for column, value in entries.items():
            found.setdefault(column, {})[row] = value
    return found


def weighted(documents, of, rows, how):
    """Return one document's terms by weight; ``of``: all documents, among ``rows`` rows, empty ones too."""
    df = {term: len(users) for term, users in transposed(of).items()}
    average = sum(sum(terms.values()) for terms in of.values()) / rows
    length = sum(documents.values())
    found = {}
    for term, value in documents.items():
        idf = math.log(1 + rows / df[term])
        saturated = value * (K1 + 1) / (value + K1 * (1 - B + B * length / average))
        found[term] = {"cosine": value, "tfidf": math.sqrt(value) * idf, "bm25": saturated * idf}[how]
    return found


def similarity(a, b, shrink):
    dot = sum(value * b[term] for term, value in a.items() if term in b)
    size = math.sqrt(sum(v * v for v in a.values())) * math.sqrt(sum(v * v for v in b.values()))
    return dot / (size + shrink) if dot else None


def nearest(candidates, k):
    """Return the k best of (score, row) pairs, ties to the lower row; those without a score are no candidates."""
    return sorted(((s, row) for s, row in candidates if s), key=lambda pair: (-pair[0], pair[1]))[:k]


WAYS = [("cosine", 0.0, 100), ("cosine", 3.0, 5), ("tfidf", 0.0, 5), ("bm25", 2.0, 4), ("bm25", 0.0, 100)]


@pytest.mark.parametrize(("how", "shrink", "k"), WAYS)
def test_item_neighbours_by_loops(how, shrink, k):
    train, _ = world()
    by_user, by_item = likes(train), transposed(likes(train))
    rows = {item: weighted(of, by_item, len(train.items), how) for item, of in by_item.items()}
    expected = np.full((len(train.users), len(train.items)), np.nan)
    for i in by_item:
        near = nearest([(similarity(rows[i], rows[j], shrink), j) for j in by_item if j != i], k)
        for user, history in by_user.items():
            expected[user, i] = sum(s * history[j] for s, j in near if j in history)
    model = build("itemknn", {"weighting": how, "shrink": shrink, "neighbours": k}).fit(train)
    np.testing.assert_allclose(model.score(train.histories()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("how", "shrink", "k"), WAYS)
def test_user_neighbours_by_loops(how, shrink, k):
    train, _ = world()
    others, _ = world(seed=3)
    by_user = likes(train)
    known = set(transposed(by_user))
    rows = {user: weighted(of, by_user, len(train.users), how) for user, of in by_user.items()}
    expected = np.full((len(others.users), len(train.items)), np.nan)
    for user, history in likes(others).items():
        own = weighted({j: v for j, v in history.items() if j in known}, by_user, len(train.users), how)
        near = nearest([(similarity(own, rows[v], shrink), v) for v in by_user], k)
        for item in known:
            expected[user, item] = sum(s * by_user[v].get(item, 0) for s, v in near)
    model = build("userknn", {"weighting": how, "shrink": shrink, "neighbours": k}).fit(train)
    np.testing.assert_allclose(model.score(others.histories()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("alpha", "beta", "k"), [(1.0, 0.0, 100), (0.7, 0.25, 100), (1.3, 0.6, 4)])
def test_walks_by_loops(alpha, beta, k):
    train, _ = world()
    by_user, by_item = likes(train), transposed(likes(train))
    expected = np.full((len(train.users), len(train.items)), np.nan)
    expected[np.ix_(list(by_user), list(by_item))] = 0
    for j in by_item:
        ends = {}
        for v in by_item[j]:
            for i in by_user[v]:
                step = len(by_item[j]) ** -alpha * len(by_user[v]) ** -alpha * len(by_item[i]) ** -beta
                ends[i] = ends.get(i, 0) + step
        for weight, i in nearest([(w, i) for i, w in ends.items() if i != j], k):
            for user in by_item[j]:
                expected[user, i] += weight
    model = build("rp3beta", {"alpha": alpha, "beta": beta, "neighbours": k}).fit(train)
    np.testing.assert_allclose(model.score(train.histories()), expected, rtol=1e-5, atol=1e-7)


def test_alpha_one_and_beta_zero_is_a_random_walk():
    """From each item the probabilities of where three steps end sum to one, own item included (P3alpha)."""
    train, _ = world()
    by_user, by_item = likes(train), transposed(likes(train))
    weights = build("rp3beta", {"alpha": 1.0, "beta": 0.0}).fit(train).weights_.toarray()
    for j, users in by_item.items():
        home = sum(1 / len(users) / len(by_user[v]) for v in users)
        assert weights[j].sum() + home == pytest.approx(1, rel=1e-5)
