"""``repeat``: what the user had before, against a walk over each history."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from builders import run_locally, settings_of
from contract import with_empty_row, world

import recsys
from recsys.cli import run_verb
from recsys.config import parse_config
from recsys.errors import ConfigError
from recsys.runfolder import RunFolder
from recsys.types import Histories


def expected_order(values, ages, likers, half_life=None):
    """Return the items of one user, best first: likes of the history by value, then all others by their likers.

    ``values``: item -> value of the history. Ties: the lower item.
    """
    strength = {
        item: value * (0.5 ** (ages[item] / half_life) if half_life else 1.0)
        for item, value in values.items()
        if value > 0
    }
    had = sorted(strength, key=lambda item: (-strength[item], item))
    rest = sorted(set(range(len(likers))) - set(had), key=lambda item: (-likers[item], item))
    return had + rest


@pytest.mark.parametrize("recency_days", [None, 3.0])
def test_the_lists_are_the_own_history_and_then_what_is_popular(recency_days):
    train, _ = world()
    train = replace(train, time=train.time * 3600)
    likers = [sum(1 for i, v in zip(train.item, train.value, strict=True) if i == item and v > 0) for item in range(30)]
    histories = with_empty_row(train.histories())
    model = recsys.build("repeat", {"recency_days": recency_days}).fit(train)
    lists = recsys.recommend(model, histories, 30, options=recsys.RecommendOptions(exclude_seen=False))
    for user in range(len(histories)):
        mine = train.user == user
        values = dict(zip(train.item[mine].tolist(), train.value[mine].tolist(), strict=True))
        latest = train.time[mine].max(initial=0)
        ages = dict(zip(train.item[mine].tolist(), ((latest - train.time[mine]) / 86_400).tolist(), strict=True))
        assert lists.items[user].tolist() == expected_order(values, ages, likers, recency_days)


def test_it_is_popular_where_lists_leave_out_what_was_seen():
    train, _ = world()
    lists = [
        recsys.recommend(recsys.build(kind, {}).fit(train), train.histories(), 10).items
        for kind in ("repeat", "popular")
    ]
    np.testing.assert_array_equal(*lists)


def test_however_old_what_a_user_had_is_above_what_is_popular():
    train, _ = world()
    model = recsys.build("repeat", {"recency_days": 0.001}).fit(train)
    histories = train.histories()
    old = Histories(histories.values, np.arange(histories.values.nnz) * 86_400 * 1000)
    scores = model.score(old)
    liked = histories.values.toarray() > 0
    assert (scores[liked] > 0).all()
    assert (scores[~liked] < 0).all()


def events_bought_again(folder):
    """Write a log in which each of thirty users buys two items of their own again and again, and one other."""
    rows = []
    for user in range(30):
        for week in range(10):
            rows += [(f"u{user:02}", f"i{(user + step) % 12:02}", 10 * week + step) for step in (0, 5)]
        rows.append((f"u{user:02}", f"i{(7 * user) % 12:02}", user % 70))
    path = folder / "events.csv"
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(path, index=False)
    return {"events": path}


@pytest.mark.slow
def test_a_run_that_lists_what_was_seen_has_the_baseline(tmp_path, capsys):
    files = events_bought_again(tmp_path)
    models = {"popular": {}, "itemknn": {}}
    judge = {"metrics": ["ndcg@2"]}
    run = run_locally(tmp_path / "run", files, models, judge=judge, recommend={"exclude_seen": False})
    metrics = RunFolder.open(run).read_json("metrics.json")
    assert metrics["models"]["repeat"]["ndcg@2"]["mean"] == 1.0  # the two items of a user are all of the test
    assert "repeat" in metrics["about"]["baseline_differences"]
    assert "Repeat purchases: " in (run / "report.md").read_text()
    assert run_verb(["recommend", str(run), "--user", "u03", "-k", "2"]) == 0
    assert "u03,i03," in capsys.readouterr().out
    unseen = run_locally(tmp_path / "unseen", files, models, judge=judge)
    assert "repeat" not in RunFolder.open(unseen).read_json("metrics.json")["models"]


def test_spark_scores_a_batch_as_the_local_engine_does():
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from recsys.features.segment_popularity import popularity_below_zero
    from recsys.spark.ranking.scorers import RepeatScorer

    train, _ = world()
    histories = with_empty_row(train.histories())
    likers = np.bincount(train.item[train.value > 0], minlength=30).astype(np.float32)
    offsets = pa.array(histories.values.indptr, pa.int32())
    batch = pa.record_batch(
        {
            "items": pa.ListArray.from_arrays(offsets, pa.array(histories.values.indices, pa.int32())),
            "values": pa.ListArray.from_arrays(offsets, pa.array(histories.values.data, pa.float32())),
        }
    )
    scorer = RepeatScorer("repeat", popularity_below_zero(likers))
    scores = np.empty(histories.shape, dtype=np.float32)
    scorer.fill(scores, batch)
    np.testing.assert_array_equal(scores, recsys.build("repeat", {}).fit(train).score(histories))
    allowed = np.arange(30) % 3 > 0
    scorer.restricted_to(allowed).fill(scores, batch)
    assert np.isnan(scores[:, ~allowed]).all()
    assert np.isfinite(scores[:, allowed]).all()


@pytest.mark.parametrize("settings", [{"repeat": {"recency_days": 9.0}}, {"mine": {"model": "recent"}}], ids=str)
def test_spark_refuses_a_baseline_that_it_would_ignore(settings, tmp_path):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from recsys.spark.training.parameters import model_parameters

    def config(models):
        return parse_config(settings_of(tmp_path / "run", {"events": "e.csv"}, models))

    assert model_parameters(config({"popular": {}})) == {}
    with pytest.raises(ConfigError, match=r"on Spark the baseline .* has no parameters and no other name"):
        model_parameters(config(settings))
