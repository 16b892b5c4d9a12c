"""Models that Spark fits from sums over users: the sums, the weights and the lists are those of the local engine."""

import json

import numpy as np
import pandas as pd
import pytest
from builders import run_job, run_locally, run_on_spark
from scipy.sparse import issparse

from recsys.array_files import read_array
from recsys.cli import run_verb
from recsys.errors import ConfigError, InputError
from recsys.models import build
from recsys.saved.open_model import open_model

pytestmark = pytest.mark.spark

MODELS = {
    "transitions": {"window": 4, "decay": 0.6},
    "next": {"model": "next_item", "decays": [0.5, 0.9], "reg": 5.0},
    "itemknn": {"weighting": "tfidf", "max_likes": 25},
    "ease": {"reg": 50.0},
}


def settings():
    return {
        "tables": ("events", "items"),
        "split": {"rule": "time", "test": 0.2},
        "recommend": {"k": 5, "min_history": 3, "rules": None},
        "judge": {"metrics": ["ndcg@5"], "relevant": 3.5},
    }


@pytest.fixture(scope="module")
def runs(spark, world_files, tmp_path_factory):
    """One run per engine, with a rule, so that the reasons of short lists are counted too."""
    folder = tmp_path_factory.mktemp("sums")
    (folder / "rules.toml").write_text('deny = ["f03"]\n[[quota]]\nfield = "director"\nat_most = 1\n')
    sections = settings()
    sections["recommend"]["rules"] = str(folder / "rules.toml")
    local = run_locally(folder / "local", world_files, MODELS, **sections)
    on_spark = run_on_spark(spark, folder / "spark", world_files, MODELS, **sections)
    return {"local": local, "spark": on_spark}


def weights(run, name):
    return read_array(run / "model" / name / name / "weights_")


@pytest.mark.parametrize("name", MODELS)
def test_both_engines_learn_the_same(runs, name):
    local, on_spark = (weights(runs[engine], name) for engine in ("local", "spark"))
    if issparse(local):
        assert np.array_equal(local.indices, on_spark.indices)
        local, on_spark = local.toarray(), on_spark.toarray()
    np.testing.assert_allclose(on_spark, local, rtol=1e-5, atol=1e-6)
    assert np.abs(local).max() > 0.01
    cards = [(runs[engine] / "model" / name / "model.json").read_text() for engine in ("local", "spark")]
    assert json.loads(cards[0]) == json.loads(cards[1])


@pytest.mark.parametrize("name", MODELS)
def test_both_engines_list_the_same(runs, name):
    tables = []
    for engine in ("local", "spark"):
        table = pd.read_parquet(runs[engine] / "topk" / f"{name}.parquet")
        tables.append(table.sort_values(["user_id", "rank"], ignore_index=True))
    columns = ["user_id", "item_id", "rank", "source"]
    pd.testing.assert_frame_equal(tables[1][columns], tables[0][columns], check_dtype=False)
    assert set(tables[0]["source"]) == {name, "popular"}
    reasons = []
    for engine in ("local", "spark"):
        results = pd.read_parquet(runs[engine] / "per_user.parquet")
        results = results[results["model"] == name].sort_values("user_id", ignore_index=True)
        reasons.append(results[["user_id", "shortfall", "ndcg@5"]])
    pd.testing.assert_frame_equal(reasons[1], reasons[0], check_dtype=False)


def test_sums_are_added_up_from_any_blocks_and_partitions(spark, runs, monkeypatch):
    from recsys.models.sequential.next_item import NextItem
    from recsys.spark.training.sums import fit_from_sums

    # The default model need not be one of these two.
    train = open_model(runs["local"], "next").history
    rows = pd.DataFrame({"user": train.user, "item": train.item, "value": train.value, "timestamp": train.time})
    model = build("next_item", {"decays": [0.5, 0.9]})
    likes = np.bincount(train.item[train.value > 0], minlength=len(train.items))
    model.prepare_sums(likes)
    expected = model.sum_users(train.histories())
    summed = {}
    monkeypatch.setattr(NextItem, "fit_sums", lambda self, sums: summed.update(sums))
    fit_from_sums(model, spark.createDataFrame(rows), likes, timed=True, block_bytes=2_000)
    np.testing.assert_allclose(summed["gram"], expected["gram"], rtol=1e-6, atol=1e-6)
    assert summed["gram"].dtype == np.float32
    targets = expected["targets"].toarray()
    np.testing.assert_allclose(summed["targets"].toarray(), targets, rtol=1e-6, atol=1e-6)
    assert summed["targets"].nnz == expected["targets"].nnz > 100

    with pytest.raises(InputError, match="no event of train has a time"):
        fit_from_sums(model, spark.createDataFrame(rows), likes, timed=False)
    small = build("next_item", {"decays": [0.1] * 99, "memory_mb": 1})
    with pytest.raises(InputError, match="memory_mb = 1"):
        fit_from_sums(small, spark.createDataFrame(rows), likes, timed=True)


@pytest.mark.parametrize("kind", [settings.get("model", name) for name, settings in MODELS.items()])
def test_three_fits_are_equal_bit_for_bit(spark, runs, kind):
    from recsys.spark.training.sums import fit_from_sums

    train = open_model(runs["local"], "next").history
    rows = pd.DataFrame({"user": train.user, "item": train.item, "value": train.value, "timestamp": train.time})
    likes = np.bincount(train.item[train.value > 0], minlength=len(train.items))
    weights = []
    for order in (slice(None), slice(None, None, -1), slice(None)):
        model = build(kind, {})
        fit_from_sums(model, spark.createDataFrame(rows[order]), likes, timed=True)
        arrays = [model.weights_.data, model.weights_.indices] if issparse(model.weights_) else [model.weights_]
        weights.append([array.tobytes() for array in arrays])
    assert weights[0] == weights[1] == weights[2]


def test_a_saved_run_lists_and_explains_without_training(runs, tmp_path, capsys):
    run = runs["spark"]
    users = tmp_path / "users.csv"
    ids = sorted(pd.read_parquet(run / "split" / "history.parquet")["user_id"].unique())
    pd.DataFrame({"user_id": [*ids[:20], "stranger"]}).to_csv(users, index=False)
    words = ["-k", "4", "--users", str(users), "--model", "next"]
    assert run_job("recommend", run, "--out", tmp_path / "lists", *words) == 0
    assert run_verb(["recommend", str(run), "--out", str(tmp_path / "lists.csv"), *words]) == 0
    on_spark = pd.read_parquet(tmp_path / "lists").sort_values(["user_id", "rank"], ignore_index=True)
    local = pd.read_csv(tmp_path / "lists.csv", dtype={"user_id": str, "item_id": str})
    columns = ["user_id", "item_id", "rank", "source"]
    pd.testing.assert_frame_equal(on_spark[columns], local[columns], check_dtype=False)
    assert run_verb(["report", str(run)]) == 0
    assert "next" in (run / "report.md").read_text()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"transitions": {"windw": 3}}, r"'windw'\. Did you mean 'window'"),
        ({"itemknn": {"weighting": "bm25"}}, "'bm25' cannot be fitted from sums"),
    ],
)
def test_a_wrong_parameter_is_refused_before_spark_starts(models, message):
    from recsys.config import parse_config
    from recsys.flow import make_engine

    raw = {"engine": "spark", "data": {"events": "x.csv"}, "models": models}
    with pytest.raises(ConfigError, match=message):
        make_engine(parse_config(raw))
