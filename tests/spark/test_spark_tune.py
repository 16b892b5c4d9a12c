"""The search on Spark: the folds and the numbers of the local path, several settings at a time, and its job."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import run_job

from recsys import config, flow, models
from recsys.errors import ConfigError, InputError
from recsys.models.combining.cascade import Cascade
from recsys.recommender import Recommender
from recsys.tune import tune
from recsys.tune.folds import fit_and_judge, make_folds

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def raw(world_files, tmp_path_factory):
    """The settings of a finished run."""
    found = {
        "out": str(tmp_path_factory.mktemp("tune") / "run"),
        "data": {"events": str(world_files["events"])},
        "models": {"als": {"rank": 2, "iterations": 1}},
        "judge": {"metrics": ["ndcg@10"], "relevant": 3.5, "resamples": 100},
        "tune": {
            "folds": 2,
            "sampler": "random",
            "prune": "none",
            "space": {"rank": [2, 3, 4], "reg": [0.01, 0.1, 1.0]},
        },
        "spark": {"driver_memory": "1g", "conf": {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"}},
    }
    flow.run(config.parse_config(found))
    return found


def on_spark(raw, **tuning):
    als = {"als": raw["models"]["als"] | {"blocks": 2}}
    return config.parse_config(raw | {"engine": "spark", "models": als, "tune": raw["tune"] | tuning})


@pytest.mark.parametrize("rule", ["time", "pairs"])
def test_the_folds_are_those_of_the_local_path(spark, raw, rule):
    from recsys.spark.tune import fold_conditions

    settings = config.parse_config(raw | {"seed": 4, "tune": {"rule": rule, "folds": 3, "share": 0.2}})
    table = pd.read_parquet(Path(raw["out"], "split", "train.parquet"))
    there = spark.createDataFrame(table)
    local = [fold.split for fold in make_folds(table, settings, "ndcg@10")]
    conditions = fold_conditions(there, settings)
    for (known, tested), split in zip(conditions, local, strict=True):
        for condition, own in ((known, split.train), (tested, split.test)):
            expected = set(zip(own.users.ids_of(own.user), own.items.ids_of(own.item), strict=True))
            found = there.where(condition).select("user_id", "item_id").collect()
            assert {(row.user_id, row.item_id) for row in found} == expected
            assert len(found) == len(expected)


def test_windows_need_times(spark, raw):
    from recsys.spark.tune import fold_conditions

    there = spark.createDataFrame([("u", "i", 1.0, -1)], ["user_id", "item_id", "value", "timestamp"])
    with pytest.raises(InputError, match="needs events with timestamps"):
        fold_conditions(there, config.parse_config(raw | {"tune": {"rule": "time"}}))


class Fixed(Recommender):
    """A model of which both engines have the same factors: it likes items by their row."""

    SOURCE = "als"

    def fit(self, train, features=None):
        self.scores = np.sin(np.arange(len(train.items)), dtype=np.float32)
        return self

    def can_score(self, histories, users=None):
        return histories.lengths > 0

    def score(self, histories, users=None):
        return np.where(self.can_score(histories)[:, None], self.scores, np.float32(np.nan))


def test_a_setting_is_worth_what_it_is_on_the_local_path(spark, raw, tmp_path, monkeypatch):
    from pyspark.sql import functions as F

    from recsys.spark import tune as spark_tune
    from recsys.spark.training.trainer import FittedALS

    def fit(train, candidates, params, work, item_block_mb):
        users = train.select("user").distinct().withColumn("features", F.array(F.lit(1.0).cast("float")))
        return FittedALS(users, np.sin(np.arange(candidates), dtype=np.float32)[:, None])

    monkeypatch.setattr(spark_tune, "fit_als", fit)
    table = pd.read_parquet(Path(raw["out"], "split", "train.parquet"))
    settings = on_spark(raw)
    with spark_tune.fold_judges(settings, "als", "ndcg@10", tmp_path) as found:
        values = [judge(settings) for judge in found]
    expected = [
        np.nanmean(
            fit_and_judge(Cascade({"als": Fixed(), "popular": models.build("popular", {})}), fold, settings.recommend)
        )
        for fold in make_folds(table, settings, "ndcg@10")
    ]
    assert values == pytest.approx(expected, rel=1e-12)
    assert not list(tmp_path.iterdir()), "what was written on the way is gone"


@pytest.mark.long
def test_the_job_is_resumed_with_settings_side_by_side(spark, raw, tmp_path, capsys):
    settings = tmp_path / "job.toml"
    settings.write_text(on_spark(raw).to_toml())
    words = ["--config", settings, "--out", tmp_path / "study", "--set", "tune.trials=2"]
    assert run_job("tune_als", *words) == 0
    assert "als: ndcg@10 on folds of train" in capsys.readouterr().out
    best = config.load_config(tmp_path / "study" / "best.toml")
    assert best.engine == "spark"
    assert best.out == raw["out"] + "-tuned"
    first = json.loads((tmp_path / "study" / "tuning.json").read_text())["trials"]
    found = tune(on_spark(raw, trials=4, parallel=2), tmp_path / "study" / "study.log").trials
    assert found[:2] == first, "what was judged before is not judged again"
    assert [row["state"] for row in found] == ["complete"] * 4
    assert all(len(row["folds"]) == 2 and 0 < row["value"] < 1 for row in found)


def test_threads_are_of_spark(raw, tmp_path):
    with pytest.raises(ConfigError, match=r"\[tune\] parallel is for the Spark path"):
        tune(config.parse_config(raw | {"tune": raw["tune"] | {"parallel": 2}}), tmp_path / "study.log")
