"""Rules inside runs: both engines make equal lists, call short ones alike, and record the same of what rules did."""

import pandas as pd
import pytest
import tomli_w
from builders import ENGINES, run_spark_engine

from recsys.errors import ConfigError
from recsys.runfolder import RunFolder

pytestmark = pytest.mark.spark
BASELINES = ("random", "popular", "recent")
YEAR = 2014
DENIED = {"u003": ["f01", "f02"], "u007": ["f05", "nothing"], "nobody": ["f01"]}


@pytest.fixture(scope="module")
def items(world, tmp_path_factory):
    """The items table with lists in its cells and no row for one film, so that its integers become floats."""
    place = tmp_path_factory.mktemp("ruled") / "items.parquet"
    world.items.assign(genres=world.items["genres"].str.split("|")).iloc[:-1].to_parquet(place)
    return place


@pytest.fixture(scope="module")
def rules(world, tmp_path_factory):
    """A file of rules of every kind; one user may be shown nothing at all."""
    films = world.items["item_id"].tolist()
    place = tmp_path_factory.mktemp("rules") / "rules.toml"
    found = {
        "allow": [film for film in films if film not in ("f10", "f11")],
        "deny": ["f12", "unheard-of"],
        "deny_for": DENIED | {"u000": films},
        "where": [{"field": "genres", "none_of": ["horror"]}, {"field": "year", "at_least": 1975, "none_of": [YEAR]}],
        "quota": [{"field": "genres", "at_most": 3}],
    }
    place.write_text(tomli_w.dumps(found))
    return place


@pytest.fixture(scope="module")
def runs(spark, world_files, items, rules, tmp_path_factory):
    """One run an engine."""
    place, found = tmp_path_factory.mktemp("ruled"), {}
    for engine, run in ENGINES.items():
        raw = {
            "out": str(place / engine),
            "data": {"events": str(world_files["events"]), "items": str(items)},
            "split": {"rule": "last", "n": 1},
            "models": {"als": {"rank": 4, "iterations": 2}},
            "recommend": {"k": 12, "rules": str(rules)},
            "judge": {"metrics": ["ndcg@5"], "resamples": 100},
        }
        run(raw)
        found[engine] = RunFolder.open(place / engine)
    return found


def both(runs, name, by):
    return [runs[engine].read_table(name).sort_values(by, ignore_index=True) for engine in ("local", "spark")]


@pytest.mark.parametrize("model", BASELINES)
def test_lists_of_baselines_are_equal(runs, model):
    local, spark = both(runs, f"topk/{model}.parquet", ["user_id", "rank"])
    pd.testing.assert_frame_equal(local, spark)
    assert len(local) > 600


def test_short_lists_are_called_alike(runs):
    columns = ["model", "user_id", "n_relevant", "shortfall"]
    local, spark = (
        frame.loc[frame["model"] != "als", columns].reset_index(drop=True)
        for frame in both(runs, "per_user.parquet", ["model", "user_id"])
    )
    pd.testing.assert_frame_equal(local, spark, check_dtype=False)
    assert set(local["shortfall"]) == {"none", "filtered"}
    assert (local[local["user_id"] == "u000"]["shortfall"] == "filtered").all()


def test_short_lists_of_als_are_called_by_what_it_knows(runs):
    run = runs["spark"]
    known = set(run.read_table("model/als/item_factors.parquet")["item_id"])
    every = set(run.read_table("split/items.parquet")["item_id"])
    speaks = set(run.read_table("model/als/user_factors.parquet")["user_id"])
    seen = run.read_table("split/history.parquet").groupby("user_id")["item_id"].agg(set)
    listed = run.read_table("topk/als.parquet").groupby("user_id").size()
    per_user = run.read_table("per_user.parquet")
    for _, row in per_user[per_user["model"] == "als"].iterrows():
        user = row["user_id"]
        open_ = (known if user in speaks else every) - seen.get(user, set())
        short = "filtered" if len(open_) >= 12 else "all_seen"
        assert row["shortfall"] == ("none" if listed.get(user, 0) == 12 else short)


def test_what_rules_did_is_recorded_alike(runs):
    local, spark = (runs[engine].read_json("rules.json") for engine in ("local", "spark"))
    assert spark == local
    assert local["removed"]["allow"] == 2
    assert local["removed"]["deny_for"] == 60 + 3
    assert local["unknown"] == {
        "deny": ["unheard-of"],
        "deny_for": ["nothing"],
        "deny_for users": ["nobody"],
    }


def test_lists_of_als_keep_the_rules(runs, world):
    lists = runs["spark"].read_table("topk/als.parquet")
    assert "als" in set(lists["source"])
    told = lists.merge(world.items, on="item_id")
    genres = told["genres"].str.split("|")
    assert not set(lists["item_id"]) & {"f10", "f11", "f12"}
    assert not genres.map(lambda own: "horror" in own).any()
    assert told["year"].min() >= 1975
    assert YEAR not in set(told["year"])
    assert told.assign(genre=genres).explode("genre").groupby(["user_id", "genre"]).size().max() <= 3
    denied = [(user, film) for user, films in DENIED.items() for film in films]
    assert not set(denied) & set(zip(lists["user_id"], lists["item_id"], strict=True))
    assert "u000" not in set(lists["user_id"])


def test_a_bad_file_of_rules_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "rules.toml").write_text("[[where]]\nfeild = 'genres'\n")
    raw = {
        "out": str(tmp_path / "run"),
        "data": {"events": "nothing"},
        "recommend": {"rules": str(tmp_path / "rules.toml")},
    }
    with pytest.raises(ConfigError, match="toml: where"):
        run_spark_engine(raw)
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_without_rules_too(spark, world_files, tmp_path):
    """Lists longer than the catalogue, and users without a history or a fallback, who are told apart from them."""
    found = {}
    for engine, run in ENGINES.items():
        raw = {
            "out": str(tmp_path / engine),
            "data": {"events": str(world_files["events"])},
            "split": {"rule": "time", "test": 0.3},
            "models": {"als": {"rank": 4, "iterations": 2}},
            "recommend": {"k": 500, "fallback": "none"},
            "judge": {"metrics": ["ndcg@5"], "resamples": 100},
        }
        run(raw)
        per_user = RunFolder.open(tmp_path / engine).read_table("per_user.parquet")
        found[engine] = per_user.set_index(["model", "user_id"])["shortfall"].astype(str).sort_index()
    pd.testing.assert_series_equal(found["local"], found["spark"])
    assert set(found["local"]) == {"small_catalogue", "cold_no_fallback"}
