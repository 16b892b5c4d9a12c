"""What every model must do. ``tests/models/test_contract.py`` holds every kind of ``recsys.models.KINDS`` to it.

A check takes ``make``, which returns a fresh unfitted model, and asserts; that file says which checks a kind must pass.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys import models
from recsys.data.synthetic import checkerboard
from recsys.errors import ConfigError, InputError
from recsys.models.combining.cascade import Cascade
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.types import Features, Histories, IdMap, Interactions

UNLIKED, UNSEEN = 28, 29
"""Rows of the world's items: one that was only disliked or shrugged at, and one without any event."""


def world(seed=0, users=60, items=30):
    """Return (train, features): two tastes, negatives, explicit zeros, a user without likes, values of 1 to 3."""
    rng = np.random.default_rng(seed)
    taste, kind = np.arange(users) % 2, np.arange(items) % 2
    chance = np.where(taste[:, None] == kind[None, :], 0.4, 0.1)
    value = np.where(rng.random((users, items)) < chance, rng.integers(1, 4, (users, items)), np.nan)
    value[rng.random((users, items)) < 0.03] = -1.0
    value[rng.random((users, items)) < 0.03] = 0.0
    value[0] = np.where(value[0] > 0, -1.0, value[0])
    value[:, UNLIKED] = np.where(value[:, UNLIKED] > 0, -1.0, value[:, UNLIKED])
    value[1, UNLIKED], value[2, UNLIKED] = -1.0, 0.0
    value[:, UNSEEN] = np.nan
    user, item = np.nonzero(~np.isnan(value))
    train = Interactions(
        IdMap.from_ids(np.arange(users)),
        IdMap.from_ids(np.arange(items)),
        user.astype(np.int32),
        item.astype(np.int32),
        value[user, item].astype(np.float32),
        rng.integers(0, 1000, len(user)),
    )
    about = np.column_stack([kind == 0, kind == 1, rng.integers(0, 3, (items, 4))]).astype(np.float32)
    return train, Features(csr_array(about), ("even", "odd", "a", "b", "c", "d"))


def with_empty_row(histories):
    """Return the histories and, last, one without any entry."""
    return histories.select(np.append(np.arange(len(histories)), -1))


def scores_have_the_promised_shape(make):
    train, features = world()
    scores = make().fit(train, features).score(train.histories())
    assert scores.dtype == np.float32
    assert scores.shape == (len(train.users), len(train.items))
    assert not np.isinf(scores).any()


def lists_beyond_the_catalogue_are_padded(make):
    train, features = world()
    histories = with_empty_row(train.histories())
    lists = recommend(make().fit(train, features), histories, len(train.items) + 5)
    assert (lists.items[:, -5:] == -1).all()
    assert np.isnan(lists.scores[:, -5:]).all()
    for row, items in enumerate(lists.items):
        listed = items[items >= 0].tolist()
        assert len(set(listed)) == len(listed)
        assert not set(listed) & set(histories[[row]].values.indices.tolist())


def lists_are_those_of_the_scores(make):
    """A model that makes lists without all scores makes the same lists."""
    train, features = world()
    model = make().fit(train, features)
    histories = with_empty_row(train.histories())
    candidates = np.random.default_rng(2).random(len(train.items)) < 0.7
    scores = np.where(candidates, model.score(histories), np.nan)
    row_of_entry = np.repeat(np.arange(len(histories)), np.diff(histories.values.indptr))
    scores[row_of_entry, histories.values.indices] = np.nan
    lists = recommend(model, histories, 8, options=RecommendOptions(candidates=candidates))
    for row, row_scores in enumerate(scores):
        ranked = np.lexsort((np.arange(len(row_scores)), -row_scores))
        expected = ranked[np.isfinite(row_scores[ranked])][:8].tolist()
        assert [item for item in lists.items[row].tolist() if item >= 0] == expected
        np.testing.assert_allclose(lists.scores[row, : len(expected)], row_scores[expected], rtol=1e-6)


def fit_twice_is_fit_once(make):
    train, features = world()
    other, other_features = world(seed=1, users=40)
    once = make().fit(train, features)
    twice = make().fit(other, other_features).fit(train, features)
    np.testing.assert_array_equal(once.score(train.histories()), twice.score(train.histories()))


def a_fit_changes_none_of_its_input(make):
    train, features = world()
    before, times, about = train.matrix(), train.time.copy(), features.matrix.toarray()
    model = make().fit(train, features)
    histories = train.histories()
    model.score(histories)
    np.testing.assert_array_equal(train.matrix().toarray(), before.toarray())
    np.testing.assert_array_equal(histories.values.toarray(), before.toarray())
    np.testing.assert_array_equal(histories.times, times)
    np.testing.assert_array_equal(features.matrix.toarray(), about)


def a_batch_is_one_by_one(make):
    train, features = world()
    model = make().fit(train, features)
    histories = with_empty_row(train.histories())
    users = np.arange(len(histories)) + 7
    batch = model.score(histories, users)
    single = np.vstack([model.score(histories[[row]], users[[row]]) for row in range(len(users))])
    np.testing.assert_allclose(single, batch, rtol=1e-5, atol=1e-5)


def saving_and_loading_changes_nothing(make, folder):
    train, features = world()
    model = make().fit(train, features)
    models.save(model, folder / "model")
    loaded = models.load(folder / "model")
    histories = with_empty_row(train.histories())
    np.testing.assert_array_equal(loaded.score(histories), model.score(histories))
    assert loaded.sources == model.sources


def can_score_is_having_an_opinion(make):
    """``can_score`` is a cheap way to ask whether any score of the row is a number."""
    train, features = world()
    model = make().fit(train, features)
    histories = with_empty_row(train.histories())
    np.testing.assert_array_equal(model.can_score(histories), np.isfinite(model.score(histories)).any(axis=1))


def histories_of_other_items_are_refused(make):
    """Histories of fewer or more items than the model was fitted with: an error that names the shape."""
    train, features = world()
    model = make().fit(train, features)
    for items in (27, 33):
        one = csr_array((np.ones(3, np.float32), [0, 1, items - 1], [0, 3]), shape=(1, items))
        with pytest.raises(InputError, match=rf"\(1, {items}\)"):
            recommend(model, one, 3)


def explanations_sum_to_the_score(make):
    """A model gives the kinds of part that its class claims, no others, and each kind sums to the score."""
    train, features = world()
    model = make().fit(train, features)
    histories = train.histories()
    scores = model.score(histories)
    explained = 0
    for row in range(12):
        history = histories[[row]]
        for item in (0, 1, 7, UNLIKED):
            explanation = model.explain(history, item, user=row)
            np.testing.assert_allclose(explanation.score, scores[row, item], rtol=1e-5, atol=1e-6)
            parts = {
                "history": [] if explanation.history is None else explanation.history.tolist(),
                "features": list(explanation.features.values()),
                "members": list(explanation.members.values()),
            }
            if np.isnan(scores[row, item]):
                assert list(parts.values()) == [[], [], []]
                continue
            explained += 1
            scorer = model.scoring_member(history, row)[1] if isinstance(model, Cascade) else model
            for kind, values in parts.items():
                if kind in scorer.EXPLAINS:
                    total = sum(values) + explanation.constant
                    np.testing.assert_allclose(total, scores[row, item], rtol=1e-4, atol=1e-5)
                else:
                    assert values == [], kind
            assert scorer.EXPLAINS or explanation.note
            if "history" in scorer.EXPLAINS:
                assert explanation.history.shape == (history.values.nnz,)
    assert explained > 10


def times_do_not_matter(make):
    """A model that ignores order scores the same whatever the times are, or without any."""
    train, features = world()
    model = make().fit(train, features)
    histories = train.histories()
    expected = model.score(histories)
    shuffled = np.random.default_rng(5).permutation(histories.times)
    for times in (shuffled, None):
        np.testing.assert_array_equal(model.score(Histories(histories.values, times)), expected)


def the_order_of_times_matters(make):
    """Other times give other scores; a log without times is refused; histories without times are scored."""
    train, features = world()
    model = make().fit(train, features)
    scores = model.score(train.histories())
    shuffled = replace(train, time=np.random.default_rng(5).permutation(train.time))
    changed = np.abs(make().fit(shuffled, features).score(shuffled.histories()) - scores)
    assert (changed[1:, :UNLIKED].max(axis=1) > 1e-4).mean() > 0.9
    undated = model.score(Histories(train.histories().values, None))
    np.testing.assert_array_equal(np.isfinite(undated), np.isfinite(scores))
    with pytest.raises(InputError, match="no event of train has a time"):
        make().fit(replace(train, time=np.full(len(train), -1)), features)


def capabilities_are_true(make):
    """What a class claims of itself is what its instances do."""
    train, features = world()
    model = make()
    if model.NEEDS_FEATURES:
        with pytest.raises(ConfigError, match="items"):
            make().fit(train)
    model.fit(train, features)
    scores = model.score(with_empty_row(train.histories()))
    if not model.members:  # what a model made of models can do depends on its members
        assert np.isfinite(scores[-1]).any() == model.SCORES_EVERYONE
        assert np.isfinite(scores[1:, UNSEEN]).any() == model.SCORES_NEW_ITEMS
    for name in model.STATE:
        getattr(model, name)


def everyone_is_answered(make):
    train, features = world()
    lists = recommend(make().fit(train, features), with_empty_row(train.histories()), 5)
    assert (lists.items >= 0).all()
    assert np.isfinite(lists.scores).all()


def the_withheld_diagonal_is_found(make):
    """User u likes every other item but u, and u is the one right answer. Ferrets out transposed or shifted ids."""
    board = checkerboard(16)
    lists = recommend(make().fit(board), board.matrix(), 1)
    assert lists.items[:, 0].tolist() == list(range(16))


def an_empty_history_is_unknown(make):
    train, features = world()
    model = make().fit(train, features)
    scores = model.score(with_empty_row(train.histories()))
    assert np.isnan(scores[-1]).all()
    assert np.isnan(scores[0]).all()  # dislikes alone say nothing about likes
    assert np.isfinite(scores[1:-1]).any(axis=1).all()


def an_item_nobody_liked_is_unknown(make):
    train, features = world()
    scores = make().fit(train, features).score(train.histories())
    assert np.isnan(scores[:, [UNLIKED, UNSEEN]]).all()
    assert np.isfinite(scores[1:, :UNLIKED]).all()
    only = Histories(csr_array((np.ones(1, dtype=np.float32), [UNSEEN], [0, 1]), shape=(1, len(train.items))))
    assert np.isnan(make().fit(train, features).score(only)).all()


def content_places_what_nobody_liked(make):
    """Features alone give an item a score, a user with a like gets scores, and an empty history gets none."""
    train, features = world()
    scores = make().fit(train, features).score(with_empty_row(train.histories()))
    assert np.isnan(scores[-1]).all()
    assert np.isfinite(scores[1:-1]).all()


ALL = (
    histories_of_other_items_are_refused,
    scores_have_the_promised_shape,
    lists_beyond_the_catalogue_are_padded,
    lists_are_those_of_the_scores,
    fit_twice_is_fit_once,
    a_fit_changes_none_of_its_input,
    a_batch_is_one_by_one,
    can_score_is_having_an_opinion,
    explanations_sum_to_the_score,
    capabilities_are_true,
)
WITH_ORDER = (the_order_of_times_matters,)
WITHOUT_ORDER = (times_do_not_matter,)
EVERYONE = (everyone_is_answered,)
CONTENT = (content_places_what_nobody_liked,)
COLLABORATIVE = (an_empty_history_is_unknown, an_item_nobody_liked_is_unknown)
DIAGONAL = (the_withheld_diagonal_is_found,)
