"""Cold items on Spark: factors from attributes, the ridge of the local model, through lists, saved run and bundle."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from builders import run_on_spark

from recsys import config
from recsys.errors import ConfigError
from recsys.features.encoding import encode_features
from recsys.features.terms import weigh_terms
from recsys.models.combining.wrappers import with_stored_factors
from recsys.models.content_collaborative import Attributes
from recsys.ranking import rank
from recsys.report import write_report
from recsys.runfolder import RunFolder
from recsys.saved.bundle import bundle_run
from recsys.saved.open_model import open_model
from recsys.saved.update import update
from recsys.types import Histories, IdMap

pytestmark = pytest.mark.spark
HYBRID = {"model": "attributes", "rank": 5, "iterations": 3, "alpha": 3.0, "reg": 0.02, "ridge": 2.0}
HYBRID |= {"scheme": "bm25", "fields": {"overview": 0.5}}


@pytest.fixture(scope="module")
def run(spark, world_files, tmp_path_factory):
    place = run_on_spark(
        spark,
        tmp_path_factory.mktemp("cold") / "run",
        world_files,
        {"hybrid": HYBRID},
        tables=("events", "items"),
        split={"rule": "items", "share": 0.3},
        recommend={"k": 20, "everyone": True},
        judge={"metrics": ["ndcg@10"], "candidates": "items"},
    )
    return RunFolder.open(place)


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    place = tmp_path_factory.mktemp("packed") / "bundle"
    bundle_run(run.path, place)
    return open_model(place)


@pytest.fixture(scope="module")
def likes(run):
    """Item -> users who like it in train."""
    train = run.read_table("split/train.parquet")
    return train[train["value"] > 0].groupby("item_id").size()


def factors(run):
    found = run.read_table("model/hybrid/item_factors.parquet").set_index("item_id")["features"]
    return pd.DataFrame(np.stack(found), index=found.index)


def lists(table):
    return {user: rows["item_id"].tolist() for user, rows in table.sort_values(["user_id", "rank"]).groupby("user_id")}


def test_cold_factors_are_the_ridge_of_the_local_model_on_the_trained_ones(run, likes, world):
    found, ids = factors(run), IdMap.from_ids(run.read_table("split/items.parquet")["item_id"])
    names = ids.all_ids
    assert len(found) == len(names), "an item with attributes has no factor"
    warm, y = np.isin(names, likes.index), found.loc[names].to_numpy(dtype=float)
    told = weigh_terms(encode_features(world.items, "item_id", ids), "bm25", {"overview": 0.5}).toarray().astype(float)
    x = np.column_stack([told, np.ones(len(told))])
    by = np.sqrt(likes.loc[names[warm]].to_numpy(dtype=float))[:, None]
    gram = x[warm].T @ (by * x[warm]) + HYBRID["ridge"] * np.eye(x.shape[1])
    wanted = x @ np.linalg.solve(gram, x[warm].T @ (by * y[warm]))
    assert 10 < (~warm).sum() < 30
    assert np.abs(y[~warm] - wanted[~warm]).max() <= 1e-5
    assert np.abs(y[warm] - wanted[warm]).max() > 0.01, "warm items got the ridge's factors too"


def test_warm_factors_stay_and_users_are_folded_in_anew(spark, run, likes):
    from recsys.spark.features import attributes
    from recsys.spark.training.parameters import parse_parameters
    from recsys.spark.training.trainer import FittedALS

    params = parse_parameters("attributes", {key: value for key, value in HYBRID.items() if key != "model"})
    items = run.read_table("split/items.parquet")
    rng = np.random.default_rng(3)
    y = rng.standard_normal((len(items), params.rank)).astype(np.float32)
    warm = items["item_id"].isin(likes.index).to_numpy()
    y[~warm] = np.nan
    train = spark.createDataFrame([(0, 1, 1.0), (0, 2, -1.0), (1, 2, 0.0)], "user int, item int, value float")
    count = items["item_id"].map(likes).fillna(0).to_numpy()
    for place, settings in enumerate(({}, {"nonnegative": True}, {"implicit": False})):
        chosen = dataclasses.replace(params, **settings)
        own, work = attributes.item_terms(items, chosen), run.path.parent / f"work{place}"
        learned = np.maximum(y - 1, 0) if chosen.nonnegative else y
        model = FittedALS(spark.createDataFrame([(7, y[1].tolist())], "user int, features array<float>"), learned)
        placed = attributes.predict_cold_items(model, train, own, count, chosen, work)
        assert np.array_equal(placed.items[warm], learned[warm])
        assert np.isfinite(placed.items).all()
        if settings:
            assert placed.users is model.users
            assert "nonnegative" not in settings or placed.items[~warm].min() == 0
            continue
        users = placed.users.toPandas().set_index("user")["features"]
        local = Attributes.from_factors(placed.items, np.ones(len(y), bool), alpha=3.0, reg=0.02)
        history = np.zeros((1, len(y)), dtype=np.float32)
        history[0, [1, 2]] = 1.0, -1.0
        assert users.index.tolist() == [0], "a user without likes has a factor"
        assert np.allclose(users[0], local.user_factors(Histories(_sparse(history)))[0], rtol=1e-4, atol=1e-6)


def _sparse(dense):
    from scipy.sparse import csr_array

    return csr_array(dense)


def test_cold_items_stand_in_lists_that_the_local_model_makes_of_these_factors(run, packed, likes):
    table = run.read_table("topk/hybrid.parquet")
    assert not set(table["item_id"]) <= set(likes.index), "no cold item in any list"
    assert set(table["source"]) == {"hybrid"}
    ids = packed.history.users
    local = packed.model.members["hybrid"]
    assert isinstance(local, Attributes)
    assert (local.ridge, local.scheme, local.fields) == (2.0, "bm25", {"overview": 0.5})
    own = lists(table)
    rows = ids.rows(list(own))
    stored = rank.recommend(
        with_stored_factors(packed.model, packed.user_factors[rows]), packed.history.histories().select(rows), 20
    )
    names = packed.history.items.all_ids
    assert [names[row[row >= 0]].tolist() for row in stored.items] == list(own.values())
    folded = local.user_factors(packed.history.histories().select(rows))
    assert np.abs(folded - packed.user_factors[rows]).max() <= 1e-4 * np.abs(packed.user_factors[rows]).max()


def test_the_saved_run_gives_the_lists_of_the_run_and_its_report_opens(spark, run):
    from recsys.spark.saved import ListRequest, open_spark_run, recommend

    saved = open_spark_run(spark, run.path)
    assert saved.params.kind == "attributes"
    assert np.isfinite(saved.factors).all()
    assert lists(recommend(saved, ListRequest(20))[0].toPandas()) == lists(run.read_table("topk/hybrid.parquet"))
    write_report(run.path)
    assert "hybrid" in (run.path / "report.md").read_text()


def test_an_update_learns_a_cold_item_once_somebody_likes_it(packed, run, likes, tmp_path):
    place = tmp_path / "bundle"
    bundle_run(run.path, place)
    names = packed.history.items.all_ids
    cold, other = names[~np.isin(names, likes.index)][:2]
    late = pd.DataFrame({"user_id": ["new1", "new2"], "item_id": cold, "value": 5.0, "timestamp": 1_700_000_000})
    late.to_csv(tmp_path / "late.csv", index=False)
    found = update(place, tmp_path / "late.csv", tmp_path / "new")
    assert found.items_new == 1
    new = open_model(tmp_path / "new").model.members["hybrid"]
    before, row = packed.model.members["hybrid"].item_factors_, packed.history.items.rows([cold, other])
    assert np.abs(new.item_factors_[row[0]] - before[row[0]]).max() > 1e-3
    assert np.array_equal(new.item_factors_[row[1]], before[row[1]])
    assert new.ridge == 2.0


def test_what_cannot_be_done_is_refused(world, tmp_path):
    from recsys.spark.features import attributes
    from recsys.spark.training.parameters import model_parameters
    from recsys.spark.tune import fold_judges

    raw = {"data": {"events": "events.csv"}, "models": {"attributes": {}}}
    params = model_parameters(config.parse_config(raw))
    with pytest.raises(ConfigError, match="'attributes' needs item features"):
        attributes.require_items(params.values(), None)
    attributes.require_items(model_parameters(config.parse_config({"data": raw["data"]})).values(), None)
    with pytest.raises(ConfigError, match="'attributes' needs item features"):
        attributes.item_terms(pd.DataFrame({"item_id": ["a", "b"]}), params["attributes"])
    chosen = dataclasses.replace(params["attributes"], fields={"genre": 2.0})
    with pytest.raises(ConfigError, match="no features of field 'genre'"):
        attributes.item_terms(world.items, chosen)
    with pytest.raises(ConfigError, match="model 'attributes' on Spark: unknown parameter 'ridgee'"):
        model_parameters(config.parse_config(raw | {"models": {"attributes": {"ridgee": 1.0}}}))
    with pytest.raises(ConfigError, match="use 'als', 'attributes', 'transitions', 'next_item', 'itemknn' or 'ease'"):
        model_parameters(config.parse_config(raw | {"models": {"bpr": {}}}))
    with (
        pytest.raises(ConfigError, match="kind 'als' only"),
        fold_judges(config.parse_config(raw), "attributes", "ndcg", tmp_path),
    ):
        pass
