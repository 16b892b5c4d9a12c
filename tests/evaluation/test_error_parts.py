"""The parts of a squared error on a world with a known truth, and in a run."""

import numpy as np
import pandas as pd
import pytest

from recsys import run_files
from recsys.config import parse_config
from recsys.errors import ConfigError, InputError
from recsys.evaluation.error_parts import decompose_error, describe_refits
from recsys.flow import run
from recsys.ratings_engine import REFIT_QUARTERS, quarter_of_entries
from recsys.types import IdMap, Interactions

SHRINK, NOISE, SIZE = 0.6, 0.8, 12


def fits_of(rng, truth, fits):
    """Return predictions of shrunken means: each fit sees SIZE new ratings of every pair."""
    seen = truth + rng.normal(0, NOISE, (fits, SIZE, len(truth)))
    return SHRINK * seen.mean(axis=1)


def test_the_parts_are_those_of_shrunken_means():
    """bias² = (1 − shrink)² E[truth²], variance = shrink² noise² / size; the parts sum to the error."""
    rng = np.random.default_rng(0)
    truth = rng.normal(1.0, 1.0, 20_000)
    rating = truth + rng.normal(0, NOISE, len(truth))
    parts = decompose_error(fits_of(rng, truth, 4), rating, truth)
    assert parts.variance == pytest.approx(SHRINK**2 * NOISE**2 / SIZE, rel=0.03)
    assert parts.bias2 == pytest.approx((1 - SHRINK) ** 2 * np.mean(truth**2), rel=0.03)
    assert parts.noise == pytest.approx(NOISE**2, rel=0.03)
    assert parts.bias2 + parts.variance + parts.noise == pytest.approx(parts.error, rel=0.02)
    assert parts.remainder == pytest.approx(parts.bias2 + parts.noise, rel=0.02)
    unknown = decompose_error(fits_of(rng, truth, 4), rating)
    assert np.isnan([unknown.bias2, unknown.noise]).all()


def test_two_fits_are_corrected_for_their_number():
    """Without the correction the bias of two fits would be too large by half of the variance."""
    rng = np.random.default_rng(1)
    truth = np.zeros(40_000)
    parts = decompose_error(rng.normal(0, 2.0, (2, len(truth))), truth, truth)
    assert parts.variance == pytest.approx(4.0, rel=0.03)
    assert parts.bias2 == pytest.approx(0.0, abs=0.06)


def test_the_learning_curve():
    rating = np.array([1.0, 2.0])
    quarters = np.array([[[2.0, 3.0], [4.0, 2.0]]])
    # Two divisions: the halves of the first differ by 1 for one of two pairs, those of the second not at all.
    halves = np.array([[[1.0, 2.0], [2.0, 2.0]], [[3.0, 2.0], [3.0, 2.0]]])
    record = describe_refits({0.25: quarters, 0.5: halves}, np.array([1.0, 2.5]), rating)
    assert record["rmse"] == pytest.approx(
        {"0.25": np.sqrt((1 + 1 + 9) / 4), "0.5": np.sqrt((1 + 4 + 4) / 8), "1": np.sqrt(0.25 / 2)}
    )
    assert record["variance"] == pytest.approx((1 / 2 + 0 + 0 + 0) / 4)
    assert record["remainder"] == pytest.approx(9 / 8 - 1 / 8)


def test_the_two_parts_of_a_division_share_no_rating():
    user, item = np.divmod(np.arange(30, dtype=np.int32), 6)
    value = np.ones(30, dtype=np.float32)
    train = Interactions(IdMap.from_ids(np.arange(5)), IdMap.from_ids(np.arange(6)), user, item, value, np.full(30, -1))
    quarter = quarter_of_entries(train, seed=0, number=0)
    assert sorted(np.bincount(quarter)) == [7, 7, 8, 8]
    for share, (one, other) in REFIT_QUARTERS.items():
        assert not set(one) & set(other)
        assert len(one) == len(other) == 4 * share
    for changed in ({"seed": 1, "number": 0}, {"seed": 0, "number": 1}):
        assert (quarter_of_entries(train, **changed) != quarter).any()


def test_the_variance_is_that_of_a_mean_of_half_of_the_ratings(tmp_path):
    """It is s² / (n / 2), over all divisions of n ratings with the variance s²."""
    rng = np.random.default_rng(3)
    user, item = np.divmod(np.arange(400), 20)
    log = pd.DataFrame({"user_id": user, "item_id": item, "value": rng.normal(3, 1, 400)})
    log.to_csv(tmp_path / "log.csv", index=False)
    raw = {
        "out": str(tmp_path / "run"),
        "data": {"events": str(tmp_path / "log.csv")},
        "judge": {"task": "ratings", "refits": 100},
        "split": {"rule": "fraction"},
        "models": {"biases": {"iterations": 1}},
    }
    of_mean = run(parse_config(raw))["about"]["refits"]["models"]["mean"]
    values = pd.read_parquet(tmp_path / "run" / run_files.TRAIN)["value"]
    # The mean of 100 squared normal numbers has a standard error of 14 %.
    assert of_mean["variance"] == pytest.approx(values.var() / (len(values) / 2), rel=0.3)


def test_models_are_fitted_on_quarters_of_four_ratings_and_not_of_three(tmp_path):
    log = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": [1, 2, 1, 3, 3], "value": [1.0, 4.0, 2.0, 5.0, 3.0]})
    log.tail(1).to_csv(tmp_path / "test.csv", index=False)
    raw = {
        "out": str(tmp_path / "run"),
        "judge": {"task": "ratings", "refits": 1},
        "split": {"rule": "files", "train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")},
        "models": {"rating_als": {"rank": 2}, "rating_knn": {}, "stack": {"parts": {"rating_als": {"rank": 2}}}},
    }
    log.head(4).to_csv(tmp_path / "train.csv", index=False)
    models = run(parse_config(raw))["about"]["refits"]["models"]
    assert np.isfinite([record["variance"] for record in models.values()]).all()
    log.head(3).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InputError, match="refits = 1 fits models on quarters of train, and train has 3 ratings"):
        run(parse_config(raw | {"out": str(tmp_path / "small")}))


def test_a_run_fits_again_and_reports_it(tmp_path):
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((80, 40)) < 0.5)
    value = 3 + rng.normal(0, 0.7, 80)[user] + rng.normal(0, 0.7, 40)[item] + rng.normal(0, 0.5, len(user))
    pd.DataFrame({"user_id": user, "item_id": item, "value": value}).to_csv(tmp_path / "log.csv", index=False)
    raw = {
        "out": str(tmp_path / "run"),
        "data": {"events": str(tmp_path / "log.csv")},
        "judge": {"task": "ratings", "refits": 3},
        "split": {"rule": "folds", "folds": 4},
        "models": {"rating_als": {"rank": 8, "reg": 0.1, "bias_reg": 0.1, "iterations": 5}},
    }
    record = run(parse_config(raw))["about"]["refits"]
    assert record["divisions"] == 3
    curve = record["models"]["biases"]["rmse"]
    assert curve["0.25"] > curve["0.5"] > curve["1"] > 0.5
    # Eight factors without much regularization learn noise: their error is mostly variance.
    assert record["models"]["rating_als"]["variance"] > 5 * record["models"]["biases"]["variance"]
    assert record["models"]["mean"]["variance"] < 0.001
    assert "## Bias, variance and more data" in (tmp_path / "run" / run_files.REPORT_MARKDOWN).read_text("utf-8")
    with pytest.raises(ConfigError, match="refits is"):
        parse_config(raw | {"judge": {"refits": 3}, "split": {"rule": "fraction"}})
