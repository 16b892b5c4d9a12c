"""Stored factors and segments as members of a cascade: who is scored by what."""

import numpy as np
import pandas as pd
import pytest
from contract import world

from recsys.errors import RunFolderError
from recsys.features.segment_popularity import fit_segments
from recsys.models import build
from recsys.models.combining.cascade import Cascade
from recsys.models.combining.wrappers import SegmentMember, StoredFactors, with_segment_rows, with_stored_factors


def als_and_factors():
    """Return (fitted ALS, histories of five users, stored factors): users 0 and 3 have a factor, the rest have NaN."""
    train, _ = world()
    als = build("als", {"rank": 4, "iterations": 3}).fit(train)
    factors = np.full((5, 4), np.nan, dtype=np.float32)
    factors[0], factors[3] = [1, 2, 3, 4], [0, -1, 0, 2]
    return als, train.histories()[:5], factors


def test_a_stored_factor_scores_its_user_and_the_rest_are_folded_in():
    als, histories, factors = als_and_factors()
    model = StoredFactors(als, factors)
    known = als.known_
    scores = model.score(histories)
    for user in (0, 3):
        expected = [
            sum(factors[user, f] * als.item_factors_[item, f] for f in range(4)) for item in np.flatnonzero(known)
        ]
        np.testing.assert_allclose(scores[user, known], expected, rtol=1e-5)
    np.testing.assert_allclose(scores[[1, 2, 4]], als.score(histories[np.array([1, 2, 4])]), rtol=1e-5, atol=1e-6)
    assert np.isnan(scores[:, ~known]).all()
    assert (~known).any()


def test_stored_factors_are_looked_up_by_user_number():
    als, histories, factors = als_and_factors()
    scores = StoredFactors(als, factors).score(histories[[1, 2]], np.array([3, 2]))
    np.testing.assert_allclose(scores[0, als.known_], als.item_factors_[als.known_] @ factors[3], rtol=1e-5)
    np.testing.assert_allclose(scores[1], als.score(histories[[2]])[0], rtol=1e-5, atol=1e-6)


def test_a_stored_factor_scores_a_user_without_a_history():
    als, histories, factors = als_and_factors()
    empty = histories.select(np.full(5, -1))
    assert StoredFactors(als, factors).can_score(empty).tolist() == [True, False, False, True, False]
    assert StoredFactors(als, factors).can_score(histories).tolist() == [True] * 5  # user 0 has dislikes alone


def test_stored_factors_go_before_the_fallback_and_to_als_alone():
    als, histories, factors = als_and_factors()
    train, _ = world()
    popular = build("popular", {}).fit(train)
    cascade = Cascade({"als": als, "popular": popular})
    assert with_stored_factors(cascade, None) is cascade
    wrapped = with_stored_factors(cascade, factors)
    assert list(wrapped.members) == ["als", "popular"]
    assert wrapped.sources == ("als", "popular")
    empty = histories.select(np.full(5, -1))
    assert wrapped.member_of(empty).tolist() == [0, 1, 1, 0, 1]
    with pytest.raises(RunFolderError, match="belong to ALS, not to Popular"):
        with_stored_factors(popular, factors)
    with pytest.raises(RunFolderError, match="not trained again"):
        StoredFactors(als, factors).fit(train)


def two_columns():
    """Return segments of country, and of country and age, with likes that a reader can count."""
    train, _ = world()
    users = pd.DataFrame({"user_id": np.arange(60), "country": ["x", "y"] * 30, "age": ["old", "young", "old"] * 20})
    return train, fit_segments(train, users, ("country", "age"), prior=1, memory_mb=10)


def test_a_segment_scores_its_users_and_no_one_else():
    train, segments = two_columns()
    rows = np.array([1, -1, 0])
    member = SegmentMember(segments, rows)
    empty = train.histories().select(np.full(3, -1))
    scores = member.score(empty)
    np.testing.assert_array_equal(scores[0], segments.scores[1])
    np.testing.assert_array_equal(scores[2], segments.scores[0])
    assert np.isnan(scores[1]).all()
    assert member.can_score(empty).tolist() == [True, False, True]
    assert member.can_score(empty[:1], np.array([1])).tolist() == [False]
    np.testing.assert_array_equal(member.score(empty[:1], np.array([2]))[0], segments.scores[0])


def test_the_source_of_a_segment_is_its_number_of_columns():
    train, segments = two_columns()
    assert [len(key) for key in segments.keys[:2]] == [1, 2]
    member = SegmentMember(segments, np.array([1, 0]))
    assert member.sources == ("segment:country", "segment:country+age")
    items = np.zeros((2, 3), dtype=np.int32)
    assert member.source(train.histories()[:2], items).tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_segment_explains_whose_likes_it_counts():
    train, segments = two_columns()
    member = SegmentMember(segments, np.array([1, -1]))
    country, age = segments.keys[1]
    explanation = member.explain(train.histories()[[0]], 5)
    assert explanation.score == explanation.constant == pytest.approx(float(segments.scores[1, 5]))
    assert f"country={country}, age={age}" in explanation.note
    assert np.isnan(member.explain(train.histories()[[0]], 5, user=1).score)
    with pytest.raises(RunFolderError, match="not trained as a model"):
        member.fit(train)


def test_segments_come_between_a_model_and_its_fallback():
    train, segments = two_columns()
    als, popular = build("als", {"rank": 2, "iterations": 2}).fit(train), build("popular", {}).fit(train)
    assert with_segment_rows(als, segments, np.array([0])) is als
    cascade = with_segment_rows(Cascade({"als": als, "popular": popular}), segments, np.array([0, -1, 0]))
    assert list(cascade.members) == ["als", "segment:country", "popular"]
    assert cascade.sources == ("als", "segment:country", "segment:country+age", "popular")
    histories = train.histories().select(np.array([-1, -1, 5]))
    assert cascade.member_of(histories).tolist() == [1, 2, 0]


def test_users_with_fewer_likes_go_to_the_next_member_that_can_score_them():
    als, histories, _ = als_and_factors()
    train, _ = world()
    popular = build("popular", {}).fit(train)
    liked = (histories.values.toarray() > 0).sum(axis=1)
    at = int(np.median(liked))
    cascade = Cascade({"als": als, "popular": popular}, min_history=at)
    assert cascade.member_of(histories).tolist() == [int(n < at or n == 0) for n in liked]
    assert set(cascade.member_of(histories)) == {0, 1}
    # Segments come between: only users without a segment go on to the fallback.
    _, segments = two_columns()
    short = np.flatnonzero(liked < at)
    rows = np.full(5, -1)
    rows[short[0]] = 0
    with_segments = with_segment_rows(cascade, segments, rows)
    expected = [2 if n < at else 0 for n in liked]
    expected[short[0]] = 1
    assert with_segments.member_of(histories).tolist() == expected
    assert with_stored_factors(cascade, np.ones((5, 4), dtype=np.float32)).min_history == at
    # Where no other member can score the user, the first one does.
    alone = Cascade({"als": als}, min_history=at)
    assert alone.member_of(histories).tolist() == [-1 if n == 0 else 0 for n in liked]
