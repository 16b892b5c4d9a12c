"""``transitions`` and ``next_item``, against walks over each sequence and least squares on explicit histories."""

from dataclasses import replace

import numpy as np
import pytest
from contract import with_empty_row, world

import recsys
from recsys.errors import InputError
from recsys.models.sequential import next_item
from recsys.types import IdMap, Interactions

LARGE = 12
"""Items of the world whose order is random."""


def sequences_of(train):
    """Return for each user the liked items, oldest first, ties by item."""
    sequences = []
    for user in range(len(train.users)):
        mine = (train.user == user) & (train.value > 0)
        likes = zip(train.time[mine].tolist(), train.item[mine].tolist(), strict=True)
        sequences.append([item for _, item in sorted(likes)])
    return sequences


def chain(users=40, items=LARGE, seed=0):
    """Return a log in which item i is followed by i + 1 (modulo items), each user from another start on."""
    rng = np.random.default_rng(seed)
    user, item, time = [], [], []
    for row in range(users):
        length = int(rng.integers(2, items))
        start = int(rng.integers(items))
        user += [row] * length
        item += [(start + step) % items for step in range(length)]
        time += [1_000 * row + 10 * step for step in range(length)]
    order = np.lexsort((item, user))
    user, item, time = (np.array(column)[order] for column in (user, item, time))
    ids = IdMap.from_ids(np.arange(users)), IdMap.from_ids(np.arange(items))
    return Interactions(
        *ids, user.astype(np.int32), item.astype(np.int32), np.ones(len(user), np.float32), time.astype(np.int64)
    )


def transition_weights(train, window, backward, source_power, target_power):
    items = len(train.items)
    counts = np.zeros((items, items))
    for sequence in sequences_of(train):
        for p, j in enumerate(sequence):
            for q, i in enumerate(sequence):
                if 0 < q - p <= window:
                    counts[j, i] += 1 / (q - p)
                elif 0 < p - q <= window:
                    counts[j, i] += backward / (p - q)
    likes = np.array([max(sum(item in s for s in sequences_of(train)), 1) for item in range(items)])
    return counts / likes[:, None] ** source_power / likes[None, :] ** target_power


@pytest.mark.parametrize(
    ("window", "backward", "decay"),
    [(1, 0.0, 0.5), (3, 0.5, 0.5), (100, 1.0, 0.9), (4, 0.25, 0.0), (10, 0.5, 1.0)],
)
def test_transitions_are_what_a_walk_over_each_sequence_counts(window, backward, decay):
    train, _ = world()
    parameters = {"window": window, "backward": backward, "source_power": 0.5, "target_power": 0.25}
    model = recsys.build("transitions", parameters | {"decay": decay}).fit(train)
    weights = transition_weights(train, **parameters)
    np.testing.assert_allclose(model.weights_.toarray(), weights, rtol=1e-5, atol=1e-7)
    liked = np.isin(np.arange(len(train.items)), train.item[train.value > 0])
    expected = np.full((len(train.users) + 1, len(train.items)), np.nan)
    for user, sequence in enumerate(sequences_of(train)):
        if sequence:
            score = sum(decay**place * weights[item] for place, item in enumerate(reversed(sequence)))
            expected[user] = np.where(liked, score, np.nan)
    np.testing.assert_allclose(model.score(with_empty_row(train.histories())), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("decays", "train"),
    [
        *[(decays, world()[0]) for decays in [(0.8,), (0.3, 0.8, 0.98), (0.0,), (0.0, 0.5)]],
        # Histories that are longer than a like has any weight: 24 places at .5, 14 at .3.
        ((0.3, 0.5), chain(users=30, items=50)),
    ],
)
@pytest.mark.parametrize("dense_share", [0.0, 1.0])
def test_next_item_is_the_ridge_regression_on_explicit_histories(decays, train, dense_share, monkeypatch):
    monkeypatch.setattr(next_item, "DENSE_SHARE", dense_share)
    reg = 7.0
    model = recsys.build("next_item", {"decays": decays, "reg": reg}).fit(train)
    liked = np.flatnonzero(np.isin(np.arange(len(train.items)), train.item[train.value > 0]))
    column = {item: position for position, item in enumerate(liked.tolist())}

    def memories(past):
        x = np.zeros((len(decays), len(liked)))
        for place, item in enumerate(reversed(past)):
            x[:, column[item]] += np.array(decays) ** place
        return x.ravel()

    inputs, targets = [], []
    for sequence in sequences_of(train):
        for t, item in enumerate(sequence):
            inputs.append(memories(sequence[:t]))
            targets.append(np.eye(len(liked))[column[item]])
    x, y = np.array(inputs), np.array(targets)
    # Ridge as ordinary least squares with rows of √reg below.
    rows = np.vstack([x, np.sqrt(reg) * np.eye(x.shape[1])])
    weights = np.linalg.lstsq(rows, np.vstack([y, np.zeros((x.shape[1], len(liked)))]), rcond=None)[0]
    np.testing.assert_allclose(model.weights_.reshape(weights.shape), weights, rtol=1e-3, atol=2e-5)
    scores = model.score(with_empty_row(train.histories()))
    for user, sequence in enumerate(sequences_of(train)):
        if sequence:
            np.testing.assert_allclose(scores[user, liked], memories(sequence) @ weights, rtol=1e-3, atol=1e-4)
    assert np.isnan(scores[-1]).all()


@pytest.mark.parametrize("kind", ["transitions", "next_item"])
def test_the_next_item_of_a_chain_comes_first(kind):
    train = chain()
    lists = recsys.recommend(recsys.build(kind, {}).fit(train), train.histories(), 1)
    following = [(sequence[-1] + 1) % LARGE for sequence in sequences_of(train)]
    assert lists.items[:, 0].tolist() == following


@pytest.mark.parametrize("kind", ["transitions", "next_item"])
def test_only_the_order_of_times_counts(kind):
    """Other times in the same order change nothing; the same times in another order do."""
    train = chain()
    scores = recsys.build(kind, {}).fit(train).score(train.histories())
    later = replace(train, time=train.time**2 + 5)
    np.testing.assert_array_equal(recsys.build(kind, {}).fit(later).score(later.histories()), scores)
    reversed_ = replace(train, time=train.time.max() - train.time)
    changed = recsys.build(kind, {}).fit(reversed_)
    assert np.abs(changed.score(reversed_.histories()) - scores).max() > 0.05


@pytest.mark.parametrize("kind", ["transitions", "next_item"])
def test_a_log_without_times_is_refused(kind):
    train = chain()
    timeless = replace(train, time=np.full(len(train), -1))
    with pytest.raises(InputError, match=f"model '{kind}' learns from the order of events"):
        recsys.build(kind, {}).fit(timeless)


def test_a_history_without_times_counts_every_like_alike():
    """A newcomer's list of films has no order: each like has the weight of the last one."""
    train = chain()
    model = recsys.build("transitions", {"decay": 0.25}).fit(train)
    undated = replace(train, time=np.full(len(train), -1)).histories()
    assert undated.times is None
    likes = (undated.values > 0).astype(np.float32)
    np.testing.assert_allclose(model.score(undated), (likes @ model.weights_).toarray(), rtol=1e-5)


def test_next_item_refuses_a_matrix_beyond_its_memory():
    train, _ = world()
    with pytest.raises(InputError, match=r"model 'next_item': 2\d liked items and 200 decays need .* memory_mb = 1"):
        recsys.build("next_item", {"decays": (0.5,) * 200, "memory_mb": 1}).fit(train)


@pytest.mark.parametrize("kind", ["transitions", "next_item"])
def test_explanations_sum_to_the_score_where_some_items_have_no_like(kind):
    train, _ = world()
    train = replace(train, value=np.where(np.isin(train.item, [0, 4]), np.float32(-1), train.value))
    model = recsys.build(kind, {}).fit(train)
    histories = train.histories()
    scores = model.score(histories)
    for user in range(1, 10):
        for item in (1, 7, 20):
            added = model.explain(histories[[user]], item).history
            assert added.sum() == pytest.approx(scores[user, item], rel=1e-4, abs=1e-5)
            assert not added[histories[[user]].values.data <= 0].any()
