"""MLlib against the definition in als/definition.py, by the conditions of optimality and not by closeness of scores."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys.als.definition import Objective, residual
from recsys.data.synthetic import low_rank
from recsys.errors import ConfigError

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def trained(spark, tmp_path_factory):
    """Values with dislikes and explicit zeros; user 0 likes nothing, item 0 is liked by nobody."""
    from recsys.spark.training.als import fit_als
    from recsys.spark.training.parameters import SparkALSParameters

    rng = np.random.default_rng(1)
    dense = np.where(rng.random((60, 40)) < 0.25, rng.integers(-2, 6, (60, 40)), 99)
    dense[0] = np.where(dense[0] == 99, 99, -1)
    dense[:, 0] = np.where(dense[:, 0] == 99, 99, -1)
    dense[0, 1] = dense[1, 0] = -1
    user, item = np.nonzero(dense != 99)
    value = dense[user, item].astype(np.float32)
    matrix = csr_array((value, (user, item)), shape=dense.shape)
    rows = pd.DataFrame({"user": user.astype(np.int32), "item": item.astype(np.int32), "value": value})
    params = SparkALSParameters(rank=8, iterations=4, alpha=2.0, reg=0.03)
    work = tmp_path_factory.mktemp("als")
    model = fit_als(spark.createDataFrame(rows), dense.shape[1], params, work)
    users = model.users.toPandas()
    x = np.full((dense.shape[0], 8), np.nan)
    x[users["user"]] = np.stack(users["features"])
    return matrix, x, model.items, Objective(alpha=2.0, reg=0.03, nu=1.0, beta=0.0)


def test_user_factors_solve_their_normal_equations(trained):
    matrix, x, y, objective = trained
    known = ~np.isnan(x).any(axis=1)
    found = residual(np.nan_to_num(x), np.nan_to_num(y), matrix, objective)[known]
    assert known.sum() >= 58
    assert np.nanmax(found) <= 1e-6


def test_another_penalty_would_not_fit(trained):
    matrix, x, y, objective = trained
    other = Objective(objective.alpha, objective.reg, nu=0.0, beta=0.0)
    assert np.nanmedian(residual(np.nan_to_num(x), np.nan_to_num(y), matrix, other)) > 1e-3


def test_nothing_liked_means_no_factor(trained):
    _, x, y, _ = trained
    assert np.isnan(x[0]).all()
    assert np.isnan(y[0]).all()
    assert not np.isnan(y[1:]).any()


def test_misspelt_and_foreign_parameters_are_named():
    from recsys.spark.training.parameters import parse_parameters

    with pytest.raises(ConfigError, match=r"'rnak'.*Did you mean 'rank'"):
        parse_parameters("als", {"rnak": 3})
    with pytest.raises(ConfigError, match="nu = 1"):
        parse_parameters("als", {"nu": 0.5, "trainer": "mllib"})
    with pytest.raises(ConfigError, match="mllib"):
        parse_parameters("als", {"nonnegative": True})
    with pytest.raises(ConfigError, match="alpha"):
        parse_parameters("als", {"alpha": -1.0})


def test_explicit_factors_solve_their_normal_equations(spark, tmp_path):
    """Ratings: with the items fixed, (Σ y yᵀ + λ n I) x = Σ r y over a user's own n ratings."""
    from recsys.spark.training.als import fit_als
    from recsys.spark.training.parameters import SparkALSParameters

    ratings, *_ = low_rank(40, 30, 2, density=0.5, seed=4)
    rows = pd.DataFrame({"user": ratings.user, "item": ratings.item, "value": ratings.value})
    params = SparkALSParameters(rank=3, iterations=5, reg=0.02, implicit=False)
    model = fit_als(spark.createDataFrame(rows), len(ratings.items), params, tmp_path)
    factors = {row["user"]: np.array(row["features"]) for row in model.users.collect()}
    assert sorted(factors) == sorted(set(ratings.user.tolist()))
    for user, x in factors.items():
        own = ratings.user == user
        y, r = model.items[ratings.item[own]].astype(np.float64), ratings.value[own].astype(np.float64)
        a, b = y.T @ y + 0.02 * own.sum() * np.eye(3), y.T @ r
        assert np.linalg.norm(a @ x - b) <= 1e-6 * np.linalg.norm(b)


def test_models_of_one_run_with_equal_parameters_of_als_train_it_once(monkeypatch, tmp_path):
    from recsys.spark.training import als
    from recsys.spark.training.parameters import SparkALSParameters, SparkAttributesParameters, TrainingData

    ranks = []

    def train(pairs, candidates, params, work, item_block_mb):
        ranks.append(params.rank)
        return work

    monkeypatch.setattr(als, "fit_als", train)
    trained = {}

    def fit(params, name):
        return als.fit_als_once(params, TrainingData(None, 3, None, None, tmp_path / name, "auto", trained))

    first = fit(SparkALSParameters(rank=4), "als")
    assert fit(SparkAttributesParameters(rank=4, ridge=9.0), "attributes") == first == tmp_path / "als"
    assert fit(SparkALSParameters(rank=4, reg=0.5), "other") == tmp_path / "other"
    assert fit(SparkALSParameters(rank=5), "wide") == tmp_path / "wide"
    assert ranks == [4, 4, 5]


@pytest.mark.parametrize("trainer", ["recsys", "mllib"])
def test_predictions_of_explicit_factors_have_the_errors_of_the_local_engine(spark, tmp_path, trainer):
    """Factors learned on ratings predict hidden ones, and both engines give the same numbers for them to 1e-12."""
    from recsys.evaluation.judging.ratings import evaluate_ratings as evaluate_locally
    from recsys.spark.evaluation.ratings import evaluate_ratings
    from recsys.spark.training.als import fit_als
    from recsys.spark.training.parameters import SparkALSParameters

    ratings, *_ = low_rank(60, 40, 2, density=0.5, seed=4)
    table = pd.DataFrame({"user": ratings.user, "item": ratings.item, "value": ratings.value.astype(np.float64)})
    hidden = np.random.default_rng(0).random(len(table)) < 0.2
    params = SparkALSParameters(rank=3, iterations=5, reg=0.02, implicit=False, trainer=trainer)
    model = fit_als(spark.createDataFrame(table[~hidden]), len(ratings.items), params, tmp_path)
    factors = {row["user"]: np.array(row["features"]) for row in model.users.collect()}
    truth = table[hidden].rename(columns={"user": "user_id", "item": "item_id"}).reset_index(drop=True)
    score = [factors[user] @ model.items[item] for user, item in zip(truth["user_id"], truth["item_id"], strict=True)]
    predictions = truth.drop(columns="value").assign(score=np.array(score, dtype=np.float64))
    error = predictions["score"] - truth["value"]
    assert np.sqrt(np.mean(error**2)) < 0.7 * truth["value"].std()
    on_spark = evaluate_ratings(spark.createDataFrame(predictions), spark.createDataFrame(truth))
    local = evaluate_locally(predictions, truth)
    expected = {"rmse": np.sqrt(np.mean(error**2)), "mae": error.abs().mean()}
    for metric, value in expected.items():
        assert on_spark["about"]["pooled"][metric] == pytest.approx(value, rel=1e-12)
        assert local.about["pooled"][metric] == pytest.approx(value, rel=1e-12)
        cell = on_spark["models"]["predictions"][metric]
        assert cell["mean"] == pytest.approx(np.nanmean(local.per_user[metric]), rel=1e-12)
