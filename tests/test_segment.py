"""Popular by segment: scores against a loop, lists whose best order is known, what is refused, what a run carries."""

import io

import numpy as np
import pandas as pd
import pytest

from recsys import config, flow
from recsys.cli import run_verb
from recsys.data.weigh import interactions_from_table
from recsys.errors import ConfigError
from recsys.features.segment_popularity import Segments, fit_segments
from recsys.models.combining.wrappers import insert_segment_fallback
from recsys.ranking.business_rules import Rules, compile_rules
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.runfolder import RunFolder
from recsys.saved.open_model import read_history_and_items
from recsys.types import IdMap, select_rows

LARGE, SMALL, EACH = 60, 30, 10
"""Users of country x, who like films a0 … a9, and of country y, who like b0 … b9."""


def log_of(likes):
    """Return interactions of (user, item, value) rows."""
    table = pd.DataFrame(likes, columns=["user_id", "item_id", "value"]).assign(timestamp=1)
    return interactions_from_table(table, items=IdMap.from_ids(table["item_id"]))


def random_log(seed):
    rng = np.random.default_rng(seed)
    rows = [(u, i, float(rng.integers(-1, 3))) for u in range(40) for i in range(12) if rng.random() < 0.3]
    table = pd.DataFrame(
        {
            "user_id": np.arange(50),
            "country": rng.choice(["x", "y", "z", None], 50, p=[0.5, 0.3, 0.1, 0.1]),
            "sex": rng.choice(["f", "m", " "], 50),
        }
    )
    return log_of(rows), table[table["user_id"] != 7]


def by_loop(train, table, key, columns, prior):
    """Return the scores of a segment from its definition, one item at a time."""
    people = {
        int(row.user_id)
        for row in table.itertuples()
        if all(getattr(row, c) == v for c, v in zip(columns, key, strict=False))
    }
    liked = {(int(train.users.ids[u]), i) for u, i, v in zip(train.user, train.item, train.value, strict=True) if v > 0}
    likers = {u for u, _ in liked}
    scores = [sum((u, i) in liked for u in likers) / len(likers) for i in range(len(train.items))]
    if key:
        inside = likers & people
        wider = by_loop(train, table, key[:-1], columns, prior)
        count = [sum((u, i) in liked for u in inside) for i in range(len(train.items))]
        scores = [(n + prior * w) / (len(inside) + prior) for n, w in zip(count, wider, strict=True)]
    return scores


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("prior", [0, 5])
def test_scores_are_those_of_the_definition(seed, prior):
    train, table = random_log(seed)
    columns = ("country", "sex")
    found = fit_segments(train, table, columns, prior=prior, memory_mb=1)
    assert found.scores.dtype == np.float32
    assert {len(key) for key in found.keys} == {1, 2}
    for key, scores in zip(found.keys, found.scores, strict=True):
        assert "" not in [part.strip() for part in key]
        np.testing.assert_allclose(scores, by_loop(train, table, key, columns, prior), rtol=1e-6)


def test_a_large_prior_is_popularity_and_a_small_segment_is_drawn_to_it():
    train, table = random_log(0)
    share = np.bincount(train.item[train.value > 0], minlength=12) / len(np.unique(train.user[train.value > 0]))
    far = fit_segments(train, table, ["country"], prior=1e9, memory_mb=1)
    np.testing.assert_allclose(far.scores, np.tile(share, (len(far.keys), 1)), rtol=1e-5)
    apart = {}
    for prior in (1, 20):
        found = fit_segments(train, table, ["country"], prior=prior, memory_mb=1)
        apart[prior] = np.abs(found.scores - share).sum(axis=1)
    assert (apart[20] < apart[1]).all()


def test_a_user_is_in_the_narrowest_segment_that_train_knows():
    likes = [(0, "a", 1.0), (1, "b", 1.0), (2, "b", -1.0)]
    table = pd.DataFrame({"user_id": [0, 1, 2], "country": ["x", "y", "z"], "age": [25.0, None, 30.0]})
    found = fit_segments(log_of(likes), table, ["country", "age"], prior=1, memory_mb=1)
    assert found.keys == (("x",), ("x", "25"), ("y",))  # nobody of z likes anything
    asked = pd.DataFrame({"country": ["x", "x", "x", "y", "z", None, "q"], "age": [25, 99, None, 1, 30, 25, None]})
    assert found.rows(asked).tolist() == [1, 0, 0, 2, -1, -1, -1]
    assert found.rows(asked[["age"]]).tolist() == [-1] * 7
    assert found.of_users([0, 1, 2, 3, "0"]).tolist() == [1, 2, -1, -1, 1]
    assert found.sources == ("segment:country", "segment:country+age")
    assert found.row_sources == ("segment:country", "segment:country+age", "segment:country")


def test_what_makes_no_groups_is_refused():
    train = log_of([(u, "a", 1.0) for u in range(60)])
    table = pd.DataFrame(
        {"user_id": np.arange(60), "age": np.arange(60), "likes": ["a|b"] * 60, "towns": [["p", "q"]] * 60}
    )
    refused = {
        "age": "60 distinct numbers.*ranges",
        "likes": "several values",
        "towns": "several values",
        "user_id": "no column 'user_id' to group by",
        "aeg": "Did you mean 'age'",
    }
    for column, why in refused.items():
        with pytest.raises(ConfigError, match=why):
            fit_segments(train, table, [column], prior=1, memory_mb=1)
    with pytest.raises(ConfigError, match="no users table"):
        fit_segments(train, None, ["age"], prior=1, memory_mb=1)


def test_scores_that_would_not_fit_are_refused_before_they_are_made():
    train = log_of([(u, i, 1.0) for u in range(300) for i in range(u, u + 4)])
    table = pd.DataFrame({"user_id": np.arange(300), "town": [f"t{u}" for u in range(300)], "land": ["x", "y"] * 150})
    assert len(fit_segments(train, table, ["land"], prior=1, memory_mb=1).keys) == 2
    assert len(fit_segments(train, table, ["town"], prior=1, memory_mb=1).keys) == 300  # 300 · 303 · 4 bytes: 0.35 MiB
    wide = pd.DataFrame({"user_id": np.arange(900), "town": [f"t{u}" for u in range(900)]})
    with pytest.raises(ConfigError, match=r"900 segments × 303 items are 1 MiB .* memory_mb = 1:.*wider"):
        fit_segments(train, wide, ["town"], prior=1, memory_mb=1)


def test_the_config_wants_both_keys_or_none():
    raw = {"data": {"events": "e.csv"}}
    for half in ({"fallback": "segment"}, {"segment": "country"}, {"fallback": "popular", "segment": ["country"]}):
        with pytest.raises(ConfigError, match="segment"):
            config.parse_config(raw | {"recommend": half})
    found = config.parse_config(raw | {"recommend": {"fallback": "segment", "segment": "country"}})
    assert found.recommend.segment == ("country",)
    assert (
        config.parse_config(raw | {"recommend": {"fallback": "segment", "segment": ["a", "b"]}}).recommend.segment[1]
        == "b"
    )


def tastes(place):
    """Write a log in which two countries like different films; four users of each, and one of none, come late.

    Early users of a country like its ten films but one each, so that there is no tie but within a country.
    """
    rows, people = [], []
    for country, film, size in (("x", "a", LARGE), ("y", "b", SMALL)):
        for n in range(size):
            people.append((f"{country}{n:02}", country))
            rows += [(f"{country}{n:02}", f"{film}{i}", 1.0, n) for i in range(EACH) if i != n % EACH]
        for n in range(4):
            people.append((f"new-{country}{n}", country))
            rows += [(f"new-{country}{n}", f"{film}{i}", 1.0, 1000) for i in range(EACH)]
    rows += [("new-stranger", "a0", 1.0, 1000)]
    people += [("idle-y", "y"), ("idle-nowhere", None)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "value", "timestamp"]).to_csv(place / "events.csv", index=False)
    pd.DataFrame(people, columns=["user_id", "country"]).to_csv(place / "users.csv", index=False)


def settings(place, **recommending):
    return {
        "out": str(place / "run"),
        "data": {"events": str(place / "events.csv"), "users": str(place / "users.csv"), "time_unit": "s"},
        "split": {"rule": "time", "at": 1000},
        "models": {"als": {"rank": 4, "iterations": 3}},
        "recommend": {"k": EACH, "fallback": "segment", "segment": "country"} | recommending,
        "judge": {"metrics": [f"ndcg@{EACH}"], "resamples": 100},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("tastes")
    tastes(place)
    flow.run(config.parse_config(settings(place)))
    return place / "run"


@pytest.mark.slow
def test_where_segments_differ_their_lists_are_the_best_and_popular_is_not(run):
    per_user = pd.read_parquet(run / "per_user.parquet").set_index(["model", "user_id"])[f"ndcg@{EACH}"]
    for n in range(4):
        assert per_user["als", f"new-x{n}"] == per_user["als", f"new-y{n}"] == 1.0
        assert per_user["popular", f"new-x{n}"] == 1.0  # the larger country's films are all more popular
        assert per_user["popular", f"new-y{n}"] == 0.0
    lists = pd.read_parquet(run / "topk" / "als.parquet")
    assert lists.score.notna().all()
    assert set(lists.groupby("user_id").size()) == {EACH}
    by_user = lists.groupby("user_id").source.agg(set)
    assert by_user["new-y1"] == {"segment:country"}
    assert by_user["new-stranger"] == {"popular"}
    own = lists[lists.user_id == "new-y0"]
    liked, share = SMALL - SMALL // EACH, (SMALL - SMALL // EACH) / (LARGE + SMALL)
    np.testing.assert_allclose(own.score, (liked + 20 * share) / (SMALL + 20), rtol=1e-6)
    assert own.item_id.tolist() == [f"b{i}" for i in range(EACH)]  # all tied: the lower row first


@pytest.mark.slow
def test_everybody_with_a_history_is_still_the_models(run, tmp_path):
    opened = read_history_and_items(RunFolder.open(run))[0]
    from recsys.models import load

    model = load(run / "model" / "als")
    segments = Segments.load(run)
    answering = insert_segment_fallback(model, segments, opened.users.ids)
    histories = opened.histories()
    with_segments, without = (recommend(each, histories, 5) for each in (answering, model))
    assert (with_segments.items == without.items).all()
    assert set(np.unique(with_segments.source)) == {0}


@pytest.mark.slow
def test_rules_hold_for_segments(run):
    segments = Segments.load(run)
    from recsys.models import load

    items = pd.read_parquet(run / "split" / "items.parquet")
    asked = IdMap.from_ids(["new-x0", "new-y0"])
    compiled = compile_rules(Rules(deny=("b0",)), asked, IdMap.from_ids(items["item_id"]), items)
    answering = insert_segment_fallback(load(run / "model" / "als"), segments, asked.ids)
    history = select_rows(read_history_and_items(RunFolder.open(run))[0].matrix(), np.array([-1, -1]))
    found = recommend(answering, history, 3, options=RecommendOptions(rules=compiled))
    assert items["item_id"].to_numpy()[found.items[1]].tolist() == ["b1", "b2", "b3"]


def asked(capsys, *words, code=0):
    assert run_verb([str(word) for word in words]) == code
    said = capsys.readouterr()
    return (pd.read_csv(io.StringIO(said.out), dtype=str) if code == 0 else None), said.err


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_new_users_are_answered_by_what_is_told_of_them(run, tmp_path, capsys, packed):
    place = run
    if packed:
        place = tmp_path / "bundle"
        assert run_verb(["bundle", str(run), str(place), "--model", "als"]) == 0
    of = ["recommend", place, "--model", "als", "-k", 2]
    table, _ = asked(capsys, *of, "--user", "idle-y", "--user", "nobody", "--user", "idle-nowhere", "--user", "x00")
    first = table.groupby("user_id").first()
    assert first.loc["idle-y", ["item_id", "source"]].tolist() == ["b0", "segment:country"]
    assert first.loc["nobody", ["item_id", "source"]].tolist() == ["a0", "popular"]
    assert first.loc["idle-nowhere", "source"] == "popular"
    assert first.loc["x00", "source"] == "als"
    table, _ = asked(capsys, *of, "--user", "nobody", "--user", "x00", "--with", "country=y")
    assert table.item_id[table.user_id == "nobody"].tolist() == ["b0", "b1"]
    assert set(table.source[table.user_id == "x00"]) == {"als"}
    file = tmp_path / "people.csv"
    file.write_text("country,user_id\ny,one\nx,two\n,idle-y\n")
    table, _ = asked(capsys, *of, "--users", file)
    assert table.groupby("user_id").item_id.first().to_dict() == {"one": "b0", "two": "a0", "idle-y": "b0"}


@pytest.mark.slow
def test_a_segment_is_named_as_the_reason(run, capsys):
    of = ["explain", str(run), "--model", "als", "--item", "b3", "--user"]
    assert run_verb([*of, "idle-y"]) == 0
    share = (SMALL - SMALL // EACH) / (LARGE + SMALL)
    said = capsys.readouterr().out
    assert f"segment:country: score {(SMALL - SMALL // EACH + 20 * share) / (SMALL + 20):.6g}" in said
    assert "users of country=y" in said
    for user, speaker in (("nobody", "popular"), ("y01", "als")):
        assert run_verb([*of, user]) == 0
        assert any(line.startswith(f"{speaker}: score") for line in capsys.readouterr().out.splitlines())


@pytest.mark.slow
def test_what_cannot_be_told_is_refused_or_warned_of(run, tmp_path, capsys):
    of = ["recommend", run, "--model", "als", "--user", "nobody"]
    for wrong in ("contry=y", "country", "=y"):
        assert "country" in asked(capsys, *of, "--with", wrong, code=2)[1]
    table, said = asked(capsys, *of, "--with", "country=atlantis")
    assert "no such segment" in said
    assert set(table.source) == {"popular"}
    broken = tmp_path / "people.csv"
    broken.write_text("user_id,country\none\n")
    assert "row 2" in asked(capsys, "recommend", run, "--users", broken, code=2)[1]


@pytest.mark.slow
def test_a_run_without_segments_says_so(tmp_path, capsys):
    tastes(tmp_path)
    raw = settings(tmp_path) | {"recommend": {"k": 3}}
    flow.run(config.parse_config(raw))
    said = asked(capsys, "recommend", tmp_path / "run", "--user", "u", "--with", "country=y", code=2)[1]
    assert "fallback = 'segment'" in said


@pytest.mark.slow
def test_segments_come_back_as_they_were_saved(run, tmp_path):
    found = Segments.load(run)
    found.save(tmp_path)
    again = Segments.load(tmp_path)
    assert (again.columns, again.keys) == (found.columns, found.keys)
    assert (again.scores == found.scores).all()
    assert again.users.equals(found.users)
    assert Segments.load(tmp_path / "elsewhere") is None
