"""``decay`` and ``recency_days``: what an old entry of a history still counts, against loops over the definition."""

from dataclasses import replace

import numpy as np
import pytest
from contract import world
from scipy.sparse import csr_array

from recsys.errors import ConfigError
from recsys.models import build
from recsys.types import Histories

HALF_LIFE = 3.0
SETTINGS = {"itemknn": {"neighbours": 100, "shrink": 0.0}, "ease": {"reg": 20.0}}


def hourly_world():
    """Return interactions whose entries lie up to 40 days apart."""
    train, _ = world()
    return replace(train, time=train.time * 3600)


def item_weights(kind, train):
    """Return the matrix W of a model over all items, by its formula; 0 for items that nobody liked."""
    value = np.maximum(train.matrix().toarray().astype(float), 0)
    if kind == "itemknn":
        norm = np.sqrt((value**2).sum(axis=0))
        norm[norm == 0] = 1  # nobody liked it: its products are 0
        weights = value.T @ value / np.outer(norm, norm)
        np.fill_diagonal(weights, 0)
        return weights
    liked = value.any(axis=0)
    likes = (value[:, liked] > 0).astype(float)
    inverse = np.linalg.inv(likes.T @ likes + 20.0 * np.eye(liked.sum()))
    weights = np.zeros((len(liked), len(liked)))
    weights[np.ix_(liked, liked)] = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def score_by_loops(kind, train, histories, half_life):
    """Return Σ_j 2^(−age of j in days / half-life) · r_uj · W_ji over the liked items j; NaN without a like."""
    weights = item_weights(kind, train)
    known = np.bincount(train.item[train.value > 0], minlength=len(train.items)) > 0
    scores = np.full(histories.shape, np.nan)
    for user in range(len(histories)):
        inside = slice(histories.values.indptr[user], histories.values.indptr[user + 1])
        rows = list(
            zip(histories.values.indices[inside], histories.values.data[inside], histories.times[inside], strict=True)
        )
        likes = [(item, value, time) for item, value, time in rows if value > 0]
        if not likes:
            continue
        latest = max(time for _, _, time in rows)  # a dislike is an event of the user too
        total = np.zeros(len(train.items))
        for item, value, time in likes:
            strength = 2.0 ** (-(latest - time) / 86_400 / half_life)
            total += strength * (value if kind == "itemknn" else 1.0) * weights[item]
        scores[user, known] = total[known]
    return scores


@pytest.mark.parametrize("kind", SETTINGS)
def test_old_entries_count_by_their_half_life(kind):
    train = hourly_world()
    histories = train.histories()
    model = build(kind, SETTINGS[kind] | {"recency_days": HALF_LIFE}).fit(train)
    expected = score_by_loops(kind, train, histories, HALF_LIFE)
    np.testing.assert_allclose(model.score(histories), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_entries_count_alike_without_a_half_life_and_without_times(kind):
    train = hourly_world()
    histories = train.histories()
    expected = score_by_loops(kind, train, histories, np.inf)
    unset = build(kind, SETTINGS[kind]).fit(train)
    np.testing.assert_allclose(unset.score(histories), expected, rtol=1e-4, atol=1e-5)
    halved = build(kind, SETTINGS[kind] | {"recency_days": HALF_LIFE}).fit(train)
    np.testing.assert_allclose(halved.score(Histories(histories.values)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_recency_explains_what_it_scores(kind):
    train = hourly_world()
    histories = train.histories()
    model = build(kind, SETTINGS[kind] | {"recency_days": HALF_LIFE}).fit(train)
    scores = model.score(histories)
    for user in range(1, 12):
        explanation = model.explain(histories[[user]], 7)
        assert explanation.score == pytest.approx(scores[user, 7], rel=1e-5)
        assert explanation.history.sum() == pytest.approx(scores[user, 7], rel=1e-4)
        assert (explanation.history != 0).sum() > 1


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_order_of_a_history_matters(kind):
    train = hourly_world()
    histories = train.histories()
    model = build(kind, SETTINGS[kind] | {"recency_days": HALF_LIFE}).fit(train)
    shuffled = Histories(histories.values, np.random.default_rng(1).permutation(histories.times))
    difference = np.nanmax(np.abs(model.score(histories) - model.score(shuffled)), axis=1, where=True, initial=0)
    assert (difference[1:] > 1e-3).mean() > 0.9


DECAY = 0.6
BY_VALUE = ("als", "content_als", "attributes", "itemknn", "userknn")
BY_LIKE = ("ease", "rp3beta", "spectral", "side_ease", "transitions")


def fade_by_loops(histories, days=None):
    """Return float[nnz]: DECAY for each later like of the user, and a half for every ``days`` of age."""
    weights = np.ones(histories.values.nnz)
    for user in range(len(histories)):
        inside = range(histories.values.indptr[user], histories.values.indptr[user + 1])
        likes = [entry for entry in inside if histories.values.data[entry] > 0]
        for entry in likes:
            later = sum((histories.times[other], other) > (histories.times[entry], entry) for other in likes)
            weights[entry] = DECAY**later
            if days:
                age = max(histories.times[other] for other in inside) - histories.times[entry]
                weights[entry] *= 0.5 ** (age / 86_400 / days)
    return weights


def fitted(kind, **params):
    train = hourly_world()
    _, features = world()
    return build(kind, params).fit(train, features), train.histories()


@pytest.mark.parametrize("days", [None, HALF_LIFE])
@pytest.mark.parametrize("kind", BY_VALUE)
def test_a_faded_like_is_a_like_of_less_value(kind, days):
    model, histories = fitted(kind, decay=DECAY, recency_days=days)
    plain, _ = fitted(kind)
    faded = histories.values.copy()
    faded.data = (faded.data * fade_by_loops(histories, days)).astype(np.float32)
    np.testing.assert_allclose(model.score(histories), plain.score(Histories(faded)), rtol=1e-3, atol=1e-5)
    assert np.nanmax(np.abs(model.score(histories) - plain.score(histories))) > 1e-2


@pytest.mark.parametrize("days", [None, HALF_LIFE])
@pytest.mark.parametrize("kind", BY_LIKE)
def test_a_faded_history_is_the_weighted_sum_of_its_likes(kind, days):
    model, histories = fitted(kind, decay=DECAY, recency_days=days)
    plain, _ = fitted(kind, decay=1.0)
    weights = fade_by_loops(histories, days)
    scores = model.score(histories)
    for user in range(1, 12):
        inside = np.arange(histories.values.indptr[user], histories.values.indptr[user + 1])
        likes = inside[histories.values.data[inside] > 0]
        alone = csr_array(
            (np.ones(len(likes), np.float32), histories.values.indices[likes], np.arange(len(likes) + 1)),
            shape=(len(likes), histories.shape[1]),
        )
        expected = weights[likes] @ np.nan_to_num(plain.score(Histories(alone)).astype(float))
        is_scored = np.isfinite(scores[user])
        np.testing.assert_allclose(scores[user, is_scored], expected[is_scored], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", BY_VALUE + BY_LIKE)
def test_nothing_fades_without_times(kind):
    model, histories = fitted(kind, decay=DECAY, recency_days=HALF_LIFE)
    plain, _ = fitted(kind, decay=1.0)
    untimed = Histories(histories.values)
    np.testing.assert_array_equal(model.score(untimed), plain.score(untimed))


@pytest.mark.parametrize("kind", ["als", "ease", "rp3beta", "transitions"])
def test_a_faded_history_explains_what_it_scores(kind):
    model, histories = fitted(kind, decay=DECAY)
    scores = model.score(histories)
    for user in range(1, 12):
        explanation = model.explain(histories[[user]], 7)
        assert explanation.history.sum() == pytest.approx(scores[user, 7], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_half_life_is_above_zero(kind):
    with pytest.raises(ConfigError, match="recency_days"):
        build(kind, {"recency_days": 0})
