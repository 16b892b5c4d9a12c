"""The parts of a squared error on a world with a known truth, and in a run."""

import numpy as np
import pandas as pd
import pytest

from recsys import run_files
from recsys.config import parse_config
from recsys.errors import ConfigError
from recsys.evaluation.error_parts import decompose_error, describe_refits
from recsys.flow import run

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
    quarters = np.array([[2.0, 3.0], [4.0, 2.0]])
    halves = np.array([[1.0, 2.0], [2.0, 2.0]])
    record = describe_refits({0.25: quarters, 0.5: halves}, np.array([1.0, 2.5]), rating)
    assert record["rmse"] == pytest.approx(
        {"0.25": np.sqrt((1 + 1 + 9) / 4), "0.5": np.sqrt(1 / 4), "1": np.sqrt(0.25 / 2)}
    )
    assert record["variance"] == pytest.approx(0.25)
    assert record["remainder"] == pytest.approx(0.25 - 0.25)


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
    assert record["fits"] == 3
    curve = record["models"]["biases"]["rmse"]
    assert curve["0.25"] > curve["0.5"] > curve["1"] > 0.5
    # Eight factors without much regularization learn noise: their error is mostly variance.
    assert record["models"]["rating_als"]["variance"] > 5 * record["models"]["biases"]["variance"]
    assert record["models"]["mean"]["variance"] < 0.001
    assert "## Bias, variance and more data" in (tmp_path / "run" / run_files.REPORT_MARKDOWN).read_text("utf-8")
    for judge in ({"task": "ratings", "refits": 1}, {"refits": 3}):
        with pytest.raises(ConfigError, match="refits is"):
            parse_config(raw | {"judge": judge, "split": {"rule": "fraction"}})
