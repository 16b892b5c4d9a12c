"""The folds of a backtest together, with the user as the unit."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys.evaluation.pooling import describe_pooled, pool_folds, pooled_layout, sum_users
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.testing.significance import mean_ci

JUDGING = EvaluationSettings(metrics=("ndcg@10", "recall@10"), baseline="popular", resamples=400)
MODELS = ["popular", "als"]


def tables_of(values, is_tested):
    """Return one table per fold of values[model, fold, user, metric] for the tested users of the fold."""
    tables = []
    for fold, tested in enumerate(is_tested):
        users = np.flatnonzero(tested)
        for model, name in enumerate(MODELS):
            part = pd.DataFrame(values[model, fold, users], columns=list(JUDGING.metrics))
            tables.append((fold, part.assign(user_id=[f"u{user:03}" for user in users], model=name, n_history=3)))
    return [
        pd.concat([part for number, part in tables if number == fold], ignore_index=True)
        for fold in range(len(is_tested))
    ]


def describe(values, is_tested, seed=0):
    layout = pooled_layout(MODELS, JUDGING)
    pooled = pool_folds(tables_of(values, is_tested), JUDGING.metrics)
    sums = sum_users(pooled, layout, resamples=JUDGING.resamples, seed=seed)
    return pooled, describe_pooled(layout, sums, "local", len(is_tested))


def test_a_user_counts_once_with_the_mean_of_the_users_folds():
    rng = np.random.default_rng(4)
    folds, users = 3, 40
    values = rng.random((2, folds, users, 2))
    values[:, 1, :9, 0] = np.nan  # nothing relevant in fold 1
    values[:, :, 7, 1] = np.nan  # never anything relevant
    is_tested = rng.random((folds, users)) < 0.6
    is_tested[:, :2] = True
    is_tested[:, 2] = False
    pooled, found = describe(values, is_tested)
    for metric, name in enumerate(JUDGING.metrics):
        means = {model: {} for model in MODELS}
        for user in range(users):
            for model, label in enumerate(MODELS):
                of_user = [
                    values[model, fold, user, metric]
                    for fold in range(folds)
                    if is_tested[fold, user] and not np.isnan(values[model, fold, user, metric])
                ]
                if of_user:
                    means[label][user] = sum(of_user) / len(of_user)
        differences = [means["als"][user] - means["popular"][user] for user in means["als"]]
        cell = found["differences"]["als"][name]
        assert cell["users"] == len(differences) < users
        assert cell["mean"] == pytest.approx(np.mean(differences), abs=1e-12)
        assert cell["p"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=1e-9)
        expected = stats.bootstrap(
            (np.array(differences),), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        width = expected.high - expected.low
        assert cell["ci95"] == pytest.approx([expected.low, expected.high], abs=0.15 * width)
        for label in MODELS:
            assert found["models"][label][name]["mean"] == pytest.approx(np.mean(list(means[label].values())))
    assert found["folds"] == 3
    assert len(pooled) == len(MODELS) * int(is_tested.any(axis=0).sum())
    assert set(found["about"]["baseline_differences"]["popular"]["all"]) == {"als"}


@pytest.mark.slow
def test_the_interval_keeps_its_promise_when_users_come_back():
    """Without any difference, 95 % of the intervals hold 0; those with user and fold as the unit hold it less often."""
    rng = np.random.default_rng(11)
    worlds, folds, users = 400, 4, 150
    held = held_by_pairs = 0
    for _ in range(worlds):
        differences = rng.normal(size=users) + 0.5 * rng.normal(size=(folds, users))
        values = np.zeros((2, folds, users, 2))
        values[1] = differences[:, :, None]
        is_tested = rng.random((folds, users)) < 0.7
        _, found = describe(values, is_tested)
        low, high = found["differences"]["als"]["ndcg@10"]["ci95"]
        held += low <= 0 <= high
        _, low, high = mean_ci(differences[is_tested], resamples=400)
        held_by_pairs += low <= 0 <= high
    # The standard error of a share of 400 worlds is 0.011 at 0.95.
    assert 0.925 <= held / worlds <= 0.98
    assert held_by_pairs / worlds < 0.85
