"""RMSE and MAE against scikit-learn, and what they refuse."""

import numpy as np
import pandas as pd
import pytest

from recsys.errors import InputError
from recsys.evaluation.judging.ratings import evaluate_ratings, mae, rmse


def test_against_scikit_learn():
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    rng = np.random.default_rng(0)
    for n in rng.integers(1, 50, size=100):
        actual, predicted = rng.normal(size=n), rng.normal(size=n)
        assert rmse(predicted, actual) == pytest.approx(root_mean_squared_error(actual, predicted), rel=1e-14)
        assert mae(predicted, actual) == pytest.approx(mean_absolute_error(actual, predicted), rel=1e-14)


@pytest.mark.parametrize(
    ("predicted", "actual", "says"),
    [
        ([1.0], [1.0, 2.0], "one of each per pair"),
        ([], [], "no pairs"),
        ([np.nan, 1.0], [1.0, 2.0], "1 of 2 are not finite"),
        ([1.0, 2.0], [np.inf, 2.0], "ratings: 1 of 2"),
    ],
)
def test_refusals(predicted, actual, says):
    for measure in (rmse, mae):
        with pytest.raises(InputError, match=says):
            measure(predicted, actual)


def test_tables():
    truth = pd.DataFrame(
        {"user_id": ["b", "b", "a", "c"], "item_id": ["x", "y", "x", "x"], "value": [4.0, 2.0, 3.0, 1.0]}
    )
    guess = pd.DataFrame(
        {"user_id": ["b", "a", "b", "z"], "item_id": ["y", "x", "x", "x"], "score": [4.0, 2.0, 4.0, 9.0]}
    )
    found = evaluate_ratings(guess, truth)
    assert found.per_user["user_id"].tolist() == ["a", "b", "c"]
    assert found.per_user["n_rated"].tolist() == [1, 2, 0]
    np.testing.assert_array_equal(found.per_user["rmse"], [1.0, np.sqrt(4 / 2), np.nan])
    np.testing.assert_array_equal(found.per_user["mae"], [1.0, 1.0, np.nan])
    assert found.about["pooled"] == {"rmse": np.sqrt(5 / 3), "mae": 1.0}
    assert found.about["counts"] == {"pairs": 3, "ratings_without_prediction": 1, "predictions_without_rating": 1}
    with pytest.raises(InputError, match="repeat"):
        evaluate_ratings(pd.concat([guess, guess]), truth)
    with pytest.raises(InputError, match="check the ids"):
        evaluate_ratings(guess.assign(item_id="q", user_id=list("uvwx")), truth)
