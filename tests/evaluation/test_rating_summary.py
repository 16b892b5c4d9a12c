"""Errors of predicted ratings with their intervals: against scipy, simulations and closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys.evaluation.rating_summary import (
    PredictedRatings,
    RatedPairs,
    describe_calibration,
    error_and_influence,
    error_cell,
    errors_per_user,
    paired_difference,
    spread_coverage,
    summarise_ratings,
)
from recsys.evaluation.settings import RunEvaluationSettings
from recsys.evaluation.testing.compare_ratings import compare_predictions


def test_the_model_with_the_smaller_errors_wins_and_a_constant_difference_is_no_chance():
    """Every user has an error of 0.2 by one model, and of 0.5 by the other."""
    table = pd.DataFrame({"user_id": [1, 2, 3], "item_id": [7, 8, 9], "value": [3.0, 4.0, 5.0]})
    tables = {name: table.assign(score=table["value"] + error) for name, error in (("poor", 0.5), ("good", 0.2))}
    comparison = compare_predictions(tables, ["mae"])
    assert comparison.differences["p"].tolist() == [0.0]
    assert comparison.table()["mae"].tolist() == ["0.5000", "0.2000 a"]
    assert "0.2000 a" in str(comparison)


def pairs_of(user, rating, support=None, fold=None):
    """Return rated pairs of users 0, 1, …; every pair has an item of its own."""
    n = len(user)
    support = np.full(n, 7) if support is None else support
    fold = np.ones(n, dtype=int) if fold is None else fold
    users = np.arange(user.max() + 1)
    return RatedPairs(user, users, np.arange(n), np.arange(n), rating, support, support, fold)


def predicted_of(predicted, spread=None):
    no = np.zeros(len(predicted), dtype=bool)
    return PredictedRatings(predicted, no, no, spread)


def test_with_one_rating_per_user_the_intervals_of_mae_are_those_of_the_t_test():
    rng = np.random.default_rng(0)
    errors, others = rng.normal(size=(2, 30))
    cell = paired_difference("mae", errors, others, np.arange(30))
    peer = stats.ttest_rel(np.abs(errors), np.abs(others))
    assert cell["mean"] == pytest.approx(np.abs(errors).mean() - np.abs(others).mean())
    np.testing.assert_allclose(cell["ci95"], peer.confidence_interval(0.95))
    np.testing.assert_allclose(cell["ci95_pairs"], peer.confidence_interval(0.95))
    assert cell["p"] == pytest.approx(peer.pvalue)
    assert (cell["users"], cell["pairs"]) == (30, 30)


def test_the_influence_is_the_derivative_of_the_measure_by_the_weight_of_a_pair():
    errors = np.array([0.5, -1.0, 2.0, 0.1, -0.7])
    step = 1e-6
    for metric in ("rmse", "mae"):
        value, influence = error_and_influence(metric, errors)
        for pair in range(len(errors)):
            weights = np.full(len(errors), (1 - step) / len(errors))
            weights[pair] += step
            moved = weights @ np.abs(errors) if metric == "mae" else np.sqrt(weights @ errors**2)
            assert (moved - value) / step == pytest.approx(influence[pair], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_intervals_over_users_hold_the_truth_where_the_errors_of_a_user_are_alike(metric):
    """95 % intervals of the measure and of a difference, in 1,500 worlds of 60 users of 1 to 12 ratings."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(60), rng.integers(1, 13, 60))
    scale = np.sqrt(1.5)  # of an error: a part of the user and a part of the pair
    truth = scale if metric == "rmse" else scale * np.sqrt(2 / np.pi)
    over_users = over_pairs = difference = 0
    for _ in range(1500):
        of_user = rng.normal(0, np.sqrt(0.5), (2, 60))
        errors, others = of_user[:, user] + rng.normal(size=(2, len(user)))
        cell = error_cell(*error_and_influence(metric, errors), user)
        over_users += cell["ci95"][0] <= truth <= cell["ci95"][1]
        over_pairs += cell["ci95_pairs"][0] <= truth <= cell["ci95_pairs"][1]
        low, high = paired_difference(metric, errors, others, user)["ci95"]
        difference += low <= 0 <= high
    assert 0.92 < over_users / 1500 < 0.97
    assert 0.93 < difference / 1500 < 0.975
    assert over_pairs < over_users


def test_undefined_cases():
    assert np.isnan(error_cell(1.0, np.array([]), np.array([], dtype=int))["mean"])
    one = error_cell(1.0, np.array([0.0]), np.array([0]))
    assert one["mean"] == 1.0
    assert np.isnan(one["ci95"]).all()
    assert error_and_influence("rmse", np.zeros(3))[0] == 0.0
    same = paired_difference("rmse", np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([0, 1]))
    assert (same["mean"], same["ci95"], same["p"]) == (0.0, [0.0, 0.0], 1.0)


def test_calibration_is_the_least_squares_line():
    rng = np.random.default_rng(2)
    predicted = rng.normal(3, 1, 500)
    rating = 1.0 + 0.6 * predicted + rng.normal(size=500)
    record = describe_calibration(predicted, rating)
    np.testing.assert_allclose([record["slope"], record["intercept"]], np.polyfit(predicted, rating, 1))
    assert [group["pairs"] for group in record["bins"]] == [50] * 10
    in_lowest = np.argsort(predicted)[:50]
    assert record["bins"][0]["predicted"] == pytest.approx(predicted[in_lowest].mean())
    assert record["bins"][0]["given"] == pytest.approx(rating[in_lowest].mean())
    by_fold = describe_calibration(np.repeat([3.0, 3.001], 250), rating)
    assert np.isnan([by_fold["slope"], by_fold["intercept"]]).all()
    equal = describe_calibration(np.full(4, 3.0), np.arange(4.0))
    assert np.isnan(equal["slope"])
    assert [group["pairs"] for group in equal["bins"]] == [4]


def test_a_normal_spread_covers_what_it_says():
    rng = np.random.default_rng(3)
    spread = rng.uniform(0.5, 2.0, 20_000)
    rating = rng.normal(0, spread)
    spread[:100] = np.nan
    record = spread_coverage(np.zeros(20_000), spread, rating)
    assert record["pairs"] == 19_900
    assert record["covered"]["0.5"] == pytest.approx(0.5, abs=0.015)
    assert record["covered"]["0.9"] == pytest.approx(0.9, abs=0.01)


def test_the_summary_of_two_models():
    user = np.array([0, 0, 1, 1, 2, 2])
    rating = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 3.0])
    pairs = pairs_of(user, rating, support=np.array([0, 3, 3, 7, 7, 40]), fold=np.array([1, 2, 1, 2, 1, 2]))
    predictions = {
        "biases": predicted_of(np.full(6, 3.0)),
        "better": predicted_of(rating + np.array([0.1, -0.1, 0.2, -0.2, 0.3, -0.3])),
    }
    judging = RunEvaluationSettings(task="ratings")
    metrics = summarise_ratings(pairs, predictions, judging, (1.0, 5.0))
    assert metrics["models"]["biases"]["rmse"]["mean"] == pytest.approx(np.sqrt(10 / 6))
    assert metrics["models"]["better"]["mae"]["mean"] == pytest.approx(0.2)
    assert metrics["differences"]["better"]["mae"]["mean"] == pytest.approx(0.2 - 1.0)
    about = metrics["about"]
    assert about["segments"]["history"]["0"]["biases"]["rmse"]["mean"] == 2.0
    assert about["segments"]["item ratings"]["1-4"]["biases"]["mae"]["mean"] == pytest.approx(0.5)
    assert about["segments"]["history"]["20+"]["better"]["rmse"]["mean"] == pytest.approx(0.3)
    assert [fold["pairs"] for fold in about["folds"]] == [3, 3]
    assert about["folds"][1]["models"]["biases"]["mae"] == pytest.approx(2 / 3)
    assert list(about["leads"]) == ["better"]
    table = errors_per_user(pairs, predictions).set_index(["model", "user_id"])
    assert table.loc[("biases", 0), "rmse"] == pytest.approx(np.sqrt(5 / 2))
    assert table.loc[("biases", 2), "n_history"] == 40
