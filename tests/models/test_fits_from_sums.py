"""Models that are fitted from sums: any groups of users give the same fit as all users at once."""

import numpy as np
import pytest
from contract import world

from recsys.errors import ConfigError
from recsys.models import KINDS, build, kind_class
from recsys.recommender import FitsFromSums

SUMMED = sorted(kind for kind in KINDS if issubclass(kind_class(kind), FitsFromSums))
PARAMS = [(kind, {}) for kind in SUMMED]
PARAMS += [("itemknn", {"weighting": "tfidf", "shrink": 0.0, "neighbours": 3, "max_likes": 9}), ("ease", {"reg": 2.0})]


@pytest.mark.parametrize(("kind", "params"), PARAMS)
def test_sums_of_groups_of_users_give_the_same_weights(kind, params):
    train, _ = world(users=90)
    histories = train.histories()
    model = build(kind, params)
    model.prepare_sums(np.bincount(train.item[train.value > 0], minlength=len(train.items)))
    groups = [np.arange(0, 50), np.arange(50, 51), np.arange(51, 90), np.arange(0)]
    sums = [model.sum_users(histories[rows]) for rows in groups]
    model.fit_sums({name: sum(group[name] for group in sums[1:]) + sums[0][name] for name in sums[0]})
    reference = build(kind, params).fit(train)
    np.testing.assert_allclose(model.score(histories), reference.score(histories), rtol=1e-4, atol=1e-6)
    assert np.nanmax(np.abs(reference.score(histories))) > 0.01


@pytest.mark.parametrize(("kind", "params"), PARAMS)
def test_sums_over_nobody_have_the_form_of_all_sums(kind, params):
    histories = world(users=90)[0].histories()
    model = build(kind, params)
    model.prepare_sums(np.full(histories.shape[1], 9))
    sums, nobody = model.sum_users(histories), model.sum_users(histories[np.arange(0)])
    forms = {name: (part.shape, part.dtype) for name, part in sums.items()}
    assert {name: (part.shape, part.dtype) for name, part in nobody.items()} == forms


def test_spark_fits_every_such_kind():
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from recsys.spark.training.parameters import SUMMED_KINDS

    assert sorted(SUMMED_KINDS) == SUMMED


def test_users_with_too_many_likes_do_not_count():
    train, _ = world()
    likes = np.bincount(train.user[train.value > 0], minlength=len(train.users))
    cap = int(np.median(likes))
    counted = likes <= cap
    assert 0 < counted.sum() < len(counted)
    model = build("itemknn", {"max_likes": cap, "shrink": 0.0, "neighbours": 1000}).fit(train)
    values = np.maximum(train.matrix().toarray(), 0).astype(float)[counted]
    norms = np.linalg.norm(values, axis=0)
    cosines = values.T @ values / np.maximum(np.outer(norms, norms), 1e-9)
    np.fill_diagonal(cosines, 0)
    np.testing.assert_allclose(model.weights_.toarray(), cosines, atol=1e-6)
    assert model.can_score(train.histories())[likes > cap].all()


def test_bm25_is_refused_for_sums_before_any_data_is_seen():
    model = build("itemknn", {"weighting": "bm25"})
    with pytest.raises(ConfigError, match=r"weighting = 'bm25' cannot be fitted from sums.*'tfidf'"):
        model.prepare_sums(np.zeros(0, dtype=np.int64))
