"""Popular by segment on Spark: segments and lists as on the local path, in a run and in what is asked of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import ENGINES, run_job

from recsys.cli import run_verb
from recsys.errors import ConfigError
from recsys.features.segment_popularity import Segments
from recsys.ranking.business_rules import Rules
from recsys.saved.update import update

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["country", "age_group"]


def settings(world_files, place, **recommending):
    return {
        "out": str(place),
        "data": {name: str(world_files[name]) for name in ("events", "items", "users")},
        "split": {"rule": "time", "test": 0.4},
        "models": {"als": {"rank": 4, "iterations": 2}},
        "recommend": {"min_history": 0, "k": 5, "fallback": "segment", "segment": COLUMNS, "segment_prior": 3}
        | recommending,
        "judge": {"metrics": ["ndcg@5"], "relevant": 3.5, "resamples": 100},
        "spark": {"driver_memory": "1g", "conf": {"spark.ui.enabled": "false"}},
    }


@pytest.fixture(scope="module")
def runs(spark, world_files, tmp_path_factory):
    """One run a engine over the film world; a user in five has no country, and some are not in the users table."""
    place = tmp_path_factory.mktemp("segments")
    people = pd.read_csv(world_files["users"], dtype=str)
    people.loc[::5, "country"] = None
    people.loc[::7, "age_group"] = " "
    people[people.index % 11 > 0].to_csv(place / "users.csv", index=False)
    files = world_files | {"users": place / "users.csv"}
    for engine, run in ENGINES.items():
        run(settings(files, place / engine))
    return {engine: place / engine for engine in ("local", "spark")}


def test_both_engines_learn_the_same_segments(runs):
    local, spark = (Segments.load(runs[engine]) for engine in ("local", "spark"))
    assert (local.columns, local.keys) == (spark.columns, spark.keys)
    assert {len(key) for key in local.keys} == {1, 2}
    np.testing.assert_array_equal(local.scores, spark.scores)
    pd.testing.assert_frame_equal(local.users, spark.users)


def test_both_engines_give_newcomers_the_same_lists(runs):
    found = []
    for engine in ("local", "spark"):
        lists = pd.read_parquet(runs[engine] / "topk" / "als.parquet")
        others = lists[lists.source != "als"].sort_values(["user_id", "rank"], ignore_index=True)
        found.append(others.astype({"rank": int}))
    pd.testing.assert_frame_equal(*found)
    assert set(found[0].source) == {"popular", "segment:country", "segment:country+age_group"}
    assert found[0].user_id.nunique() > 10


def asked_local(capsys, run, *words):
    capsys.readouterr()
    assert run_verb(["recommend", str(run), "-k", "5", *map(str, words)]) == 0
    from io import StringIO

    return pd.read_csv(StringIO(capsys.readouterr().out), dtype={"user_id": str})


@pytest.fixture(scope="module")
def people(runs, tmp_path_factory):
    """Strangers told by columns, one told nothing, one of the users table without a history, one with."""
    users, keys = Segments.load(runs["spark"]).users, Segments.load(runs["spark"]).keys
    met = set(pd.read_parquet(runs["spark"] / "split" / "history.parquet").user_id)
    idle = users[~users.user_id.isin(met) & (users.country != "")].user_id.iloc[0]
    deep = next(key for key in keys if len(key) == 2)
    rows = [("s-deep", *deep), ("s-wide", deep[0], None), ("s-odd", deep[0], "900"), ("s-nowhere", "atlantis", deep[1])]
    rows += [("s-nothing", None, None), (idle, None, None), (sorted(met)[0], *deep)]
    place = tmp_path_factory.mktemp("people") / "people.csv"
    pd.DataFrame(rows, columns=["user_id", *COLUMNS]).to_csv(place, index=False)
    return place


def test_a_saved_run_and_its_bundle_answer_strangers_alike(runs, people, tmp_path, capsys):
    assert run_job("recommend", runs["spark"], "--out", tmp_path / "lists", "-k", 5, "--users", people) == 0
    on_spark = pd.read_parquet(tmp_path / "lists").sort_values(["user_id", "rank"], ignore_index=True)
    assert run_verb(["bundle", str(runs["spark"]), str(tmp_path / "bundle")]) == 0
    local = asked_local(capsys, tmp_path / "bundle", "--users", people)
    columns = ["user_id", "item_id", "source"]
    pd.testing.assert_frame_equal(on_spark[columns], local[columns])
    source = on_spark.groupby("user_id").source.first()
    told = source[source.index.str.startswith("s-")].to_dict()
    wide, deep = "segment:country", "segment:country+age_group"
    assert told == {"s-deep": deep, "s-wide": wide, "s-odd": wide, "s-nowhere": "popular", "s-nothing": "popular"}
    assert sorted(source[~source.index.str.startswith("s-")])[0] == "als"
    assert sorted(source[~source.index.str.startswith("s-")])[1].startswith(wide)


def test_rules_and_no_fallback_hold_for_segments(spark, runs, people):
    from recsys.spark.saved import ListRequest, open_spark_run, recommend
    from recsys.spark.table_files import read_table

    saved = open_spark_run(spark, runs["spark"])
    users = read_table(spark, str(people), like=saved.users, columns=("user_id",))
    plain = recommend(saved, ListRequest(3), users=users)[0].toPandas()
    best = plain[plain.user_id == "s-deep"].sort_values("rank").item_id.tolist()
    ruled = recommend(saved, ListRequest(3, rules=Rules(deny=(best[0],))), users=users)[0].toPandas()
    ruled = ruled[ruled.user_id == "s-deep"].sort_values("rank")
    assert ruled.item_id.tolist()[:2] == best[1:]
    assert set(ruled.source) == {"segment:country+age_group"}
    none = recommend(saved, ListRequest(3, fallback=False), users=users)[0].toPandas()
    assert set(none.source) == {"als"}


def test_an_updated_bundle_counts_its_segments_anew(runs, tmp_path):
    assert run_verb(["bundle", str(runs["spark"]), str(tmp_path / "old")]) == 0
    old = Segments.load(tmp_path / "old")
    user = old.users[(old.users.country != "") & (old.users.age_group.str.strip() != "")].iloc[0]
    late = pd.DataFrame(
        {"user_id": [user.user_id], "item_id": ["brand-new"], "value": [5.0], "timestamp": [2_000_000_000]}
    )
    late.to_csv(tmp_path / "late.csv", index=False)
    update(tmp_path / "old", tmp_path / "late.csv", tmp_path / "new")
    new = Segments.load(tmp_path / "new")
    items = pd.read_parquet(tmp_path / "new" / "split" / "items.parquet").item_id
    column = new.scores[:, items.tolist().index("brand-new")]
    own = new.rows(pd.DataFrame([user]))[0]
    wide = new.keys.index(new.keys[own][:1])
    assert set(np.argsort(-column)[:2]) == {own, wide}
    assert new.scores.shape[1] == old.scores.shape[1] + 1


def test_what_is_refused_on_one_engine_is_refused_on_the_other(spark, world_files, tmp_path):
    raw = settings(world_files, tmp_path / "run", segment="contry")
    said = []
    for run in ENGINES.values():
        with pytest.raises(ConfigError) as error:
            run(raw)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "Did you mean 'country'" in said[0]
    assert not (tmp_path / "run").exists()
