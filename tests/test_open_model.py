"""The one reader of saved models: which model is meant, and with which parameters it comes back."""

import json

import numpy as np
import pandas as pd
import pytest
from builders import run_locally

from recsys.errors import ConfigError, RunFolderError
from recsys.runfolder import RunFolder
from recsys.saved.open_model import open_item_side, open_model
from recsys.types import IdMap

ITEMS = IdMap.from_ids(["a", "b", "c"])


def spark_model(folder, **params):
    """Write what a run on Spark keeps of a model with factors for the items a and c."""
    place = folder / "model" / "als"
    place.mkdir(parents=True)
    settings = {"model": "als", "rank": 2, "implicit": True, "alpha": 3.0, "reg": 0.2, "nu": 1.0, "beta": 0.0}
    (place / "params.json").write_text(json.dumps(settings | params))
    factors = [np.array([1.0, 2.0], np.float32), np.array([3.0, 4.0], np.float32)]
    pd.DataFrame({"item_id": ["c", "a"], "features": factors}).to_parquet(place / "item_factors.parquet")
    return RunFolder(folder)


@pytest.mark.parametrize(("nu", "beta"), [(1.0, 0.0), (0.5, 0.1)])
def test_a_model_of_spark_scores_by_the_objective_it_was_trained_with(tmp_path, nu, beta):
    model = open_item_side(spark_model(tmp_path, nu=nu, beta=beta), "als", ITEMS)
    assert (model.alpha, model.reg, model.nu, model.beta) == (3.0, 0.2, nu, beta)
    assert model.item_factors_.tolist() == [[3, 4], [0, 0], [1, 2]]
    assert model.known_.tolist() == [True, False, True]


def test_a_model_that_predicts_ratings_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="predicts ratings"):
        open_item_side(spark_model(tmp_path, implicit=False), "als", ITEMS)


def two_factors(ids, *vectors):
    features = [np.array(vector, np.float32) for vector in vectors]
    return pd.DataFrame({"item_id": ids, "features": features})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (two_factors(["a", "c"], [1, 2, 3], [4, 5, 6]), "do not have 2 numbers"),
        (two_factors(["a", "c"], [1, 2], [3]), "do not have 2 numbers"),
        (two_factors(["a", "x"], [1, 2], [3, 4]), "ids that the run does not have"),
        (two_factors(["a", "c"], [1, 2], [3, np.nan]), "not finite"),
        (pd.DataFrame({"item_id": ["a"], "features": ["b"]}), "cannot be read"),
        (pd.DataFrame({"item_id": ["a"]}), "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_factors_of_another_shape_are_refused(tmp_path, table, message):
    run = spark_model(tmp_path)
    path = tmp_path / "model" / "als" / "item_factors.parquet"
    if table is None:
        path.write_bytes(path.read_bytes()[:-20])
    else:
        table.to_parquet(path)
    with pytest.raises(RunFolderError, match=message):
        open_item_side(run, "als", ITEMS)


@pytest.mark.parametrize("params", [{"rank": "2"}, {"rank": -1}, {"rank": 10**12}, {"implicit": 1}])
def test_parameters_of_another_shape_are_refused(tmp_path, params):
    with pytest.raises((RunFolderError, ConfigError)):
        open_item_side(spark_model(tmp_path, **params), "als", ITEMS)


@pytest.mark.parametrize("prefix", ["", "u"])
def test_a_saved_random_model_draws_the_lists_of_its_run(tmp_path, prefix):
    rng = np.random.default_rng(5)
    events = pd.DataFrame({"user_id": rng.integers(0, 40, 400), "item_id": rng.integers(0, 30, 400)})
    events = events.drop_duplicates().astype(str)
    events.user_id = prefix + events.user_id
    events["timestamp"] = np.arange(len(events))
    events.to_csv(tmp_path / "events.csv", index=False)
    run = run_locally(tmp_path / "run", {"events": tmp_path / "events.csv"}, {"random": {}}, recommend={"k": 5})
    listed = pd.read_parquet(run / "topk" / "random.parquet")
    users = listed.user_id.astype(str).unique()[::-1]
    lists = open_model(str(run), "random").recommend(users, 5)
    ids = open_model(str(run), "random").history.items.all_ids
    expected = listed.assign(user_id=listed.user_id.astype(str)).groupby("user_id").item_id.agg(list)
    assert [list(ids[row]) for row in lists.items] == [expected[user] for user in users]
