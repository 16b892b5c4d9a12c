"""AUC as a metric of a run, from the scores of all candidates, and what a run says about errors of ratings."""

import numpy as np
import pandas as pd
import pytest
import reference

from recsys.cli import run_verb
from recsys.config import parse_config
from recsys.errors import ConfigError
from recsys.flow import run
from recsys.saved.open_model import open_model


def config_of(out, world_files, **judge):
    return {
        "out": str(out),
        "data": {"events": str(world_files["events"]), "items": str(world_files["items"])},
        "split": {"rule": "time", "test": 0.3},
        "models": {"itemknn": {"neighbours": 9}},
        "recommend": {"min_history": 0, "fallback": "none"},
        "judge": {"metrics": ["ndcg@5", "auc"], "cold_start": []} | judge,
    }


@pytest.mark.slow
def test_it_equals_a_loop_over_all_candidates(tmp_path, world_files):
    out = tmp_path / "run"
    metrics = run(parse_config(config_of(out, world_files)))
    saved = open_model(out, "itemknn")
    items = saved.items["item_id"].to_numpy()
    history = pd.read_parquet(out / "split" / "history.parquet").groupby("user_id")["item_id"].apply(set)
    test = pd.read_parquet(out / "split" / "test.parquet").query("value > 0")
    per_user = pd.read_parquet(out / "per_user.parquet").query("model == 'itemknn'").set_index("user_id")
    values = {}
    for user, chosen in test.groupby("user_id")["item_id"]:
        seen = history.get(user, set())
        relevant = {item: 1.0 for item in chosen if item not in seen}
        if not relevant:
            continue
        row = saved.recommender(pd.DataFrame({"user_id": [user]})).score(saved.histories([user]))[0]
        scores = {
            item: score for item, score in zip(items, row, strict=True) if item not in seen and np.isfinite(score)
        }
        values[user] = reference.auc(scores, relevant) if scores else 0.0
        assert per_user.loc[user, "auc"] == pytest.approx(values[user], abs=1e-12, nan_ok=True), user
    unscored = set(per_user.index[per_user["shortfall"] == "cold_no_fallback"]) & set(values)
    assert unscored, "no user is without a history: this test shows less than it says"
    assert metrics["models"]["itemknn"]["auc"]["mean"] == pytest.approx(np.nanmean(list(values.values())), abs=1e-12)
    of_random = metrics["models"]["random"]["auc"]
    assert of_random["ci95"][0] < 0.5 < of_random["ci95"][1]
    difference = metrics["differences"]["itemknn"]["auc"]
    assert difference["users"] == metrics["models"]["itemknn"]["auc"]["users"]
    assert "auc" in (out / "report.md").read_text()


@pytest.mark.slow
def test_metrics_of_lists_are_the_same_beside_it(tmp_path, world_files):
    with_auc = run(parse_config(config_of(tmp_path / "one", world_files, missing_users="skip")))
    without = run(parse_config(config_of(tmp_path / "two", world_files, missing_users="skip", metrics=["ndcg@5"])))
    for model, cells in without["models"].items():
        assert with_auc["models"][model]["ndcg@5"] == cells["ndcg@5"]
    per_user = pd.read_parquet(tmp_path / "one" / "per_user.parquet").query("model == 'itemknn'")
    unscored = per_user["shortfall"] == "cold_no_fallback"
    assert unscored.any()
    assert per_user.loc[unscored, "auc"].isna().all(), "users without a list are left out"


def test_it_is_never_the_first_metric():
    with pytest.raises(ConfigError, match=r"\[judge\] metrics: the first metric is auc, but .* such as ndcg@10"):
        parse_config({"data": {"events": "e.csv"}, "judge": {"metrics": ["auc", "ndcg@10"]}})


def test_a_search_refuses_it_before_it_reads_anything(tmp_path):
    from recsys.tune import tune

    raw = {"data": {"events": "e.csv"}, "models": {"itemknn": {}}, "tune": {"metric": "auc"}}
    with pytest.raises(ConfigError, match=r"\[tune\] metric: auc needs the scores of all candidates"):
        tune(parse_config(raw), tmp_path / "study.log")


def test_spark_refuses_it_before_it_starts(tmp_path, world_files):
    pytest.importorskip("pyspark")
    from recsys.spark.engine import SparkEngine

    raw = config_of(tmp_path / "run", world_files, cold_start=[0, 1, 2, 5, 10])
    config = parse_config(raw | {"models": {"popular": {}}, "engine": "spark"})
    with pytest.raises(ConfigError, match=r"\[judge\] metrics: auc .* local engine"):
        SparkEngine(config)


@pytest.mark.parametrize("name", ["rmse", "mae"])
def test_errors_of_ratings_name_the_command_that_computes_them(name, tmp_path, world_files, capsys):
    words = ["run", str(world_files["events"]), "--set", f"out={tmp_path / 'run'}"]
    assert run_verb([*words, "--set", f'judge.metrics=["ndcg@10", "{name}"]']) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"type: recsys evaluate PREDICTIONS RATINGS -m {name}" in printed
    assert not (tmp_path / "run").exists()
    (tmp_path / "p.csv").write_text("user_id,item_id,score\na,x,3\n")
    (tmp_path / "r.csv").write_text("user_id,item_id,value\na,x,4\n")
    # What the message says to type works.
    assert run_verb(["evaluate", str(tmp_path / "p.csv"), str(tmp_path / "r.csv"), "-m", name]) == 0
    assert f"over all pairs: {name} 1.0000" in capsys.readouterr().out
