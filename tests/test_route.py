import gzip
import json

import pytest

from recsys import config, route
from recsys.cli import run_verb
from recsys.cli.run import choose_engine_and_models
from recsys.route import LogStatistics, available_mb, choose_route, estimate_local_mb, measure_log


def of(events, items=None, **settings):
    return config.parse_config({"data": {"events": str(events), "items": str(items) if items else None} | settings})


def test_statistics_are_those_of_the_log(world, world_files):
    found = measure_log(of(world_files["events"], world_files["items"]))
    assert (found.events, found.users, found.items) == (
        len(world.events),
        world.events["user_id"].nunique(),
        world.events["item_id"].nunique(),
    )
    assert found.timed
    assert found.attributes == len(world.items.columns) - 1
    assert not found.sampled


def test_a_log_that_brings_its_own_items(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,964982703\n1,11,4.0,964982704\n")
    (tmp_path / "movies.csv").write_text(
        "movieId,title,genres\n10,Toy Story (1995),Adventure|Comedy\n11,Heat (1995),Crime\n"
    )
    assert measure_log(of(tmp_path)).attributes >= 2


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_a_long_log_is_extrapolated(ending, world, tmp_path, monkeypatch):
    monkeypatch.setattr("recsys.data.reading.columnar.ROWS", 1 << 10)
    path = tmp_path / f"events.{ending}"
    if ending == "parquet":
        world.events.to_parquet(path, index=False)
    else:
        data = world.events.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    found = measure_log(of(path), sample=len(world.events) // 2)
    if found.sampled:  # text comes in one piece here: then there is nothing to extrapolate
        assert found.events == pytest.approx(len(world.events), rel=0.05)
        assert found.users >= world.events["user_id"].nunique()
    else:
        assert found.events == len(world.events)
    assert found.sampled == (ending == "parquet")


SMALL = LogStatistics(events=100_836, users=610, items=9_724, attributes=2)
GLOBO_100 = LogStatistics(events=298_818_100, users=32_289_700, items=46_033)


def test_movielens_small_goes_local_and_globo_times_100_to_spark():
    small, large = choose_route(SMALL, 8_000), choose_route(GLOBO_100, 24_000)
    assert small.engine == "local"
    assert "so this run stays local; Spark was 11x slower" in small.reasons[0]
    assert large.engine == "spark"
    assert large.models == ("als",)
    assert "24,000 MiB are free, of which at most 80% are used" in large.reasons[0]


def test_the_path_turns_exactly_where_memory_ends():
    needed = estimate_local_mb(SMALL)
    assert choose_route(SMALL, int(needed / route.HEADROOM) + 1).engine == "local"
    assert choose_route(SMALL, int(needed / route.HEADROOM) - 1).engine == "spark"


def test_more_of_anything_needs_more():
    assert estimate_local_mb(LogStatistics(2_000_000, 1000, 1000)) > estimate_local_mb(
        LogStatistics(1_000_000, 1000, 1000)
    )
    assert estimate_local_mb(LogStatistics(1000, 2_000_000, 1000)) > estimate_local_mb(
        LogStatistics(1000, 1_000_000, 1000)
    )


@pytest.mark.parametrize(
    ("found", "models"),
    [
        (LogStatistics(10_000, 1000, 500, attributes=3), ("hybrid", "ease")),
        (LogStatistics(1_000_000, 1000, 50_000), ("hybrid", "als")),
        (LogStatistics(20_000_000, 1000, 500), ("hybrid", "ease")),
        (LogStatistics(20_000_001, 1000, 500), ("ease", "rp3beta")),
        (LogStatistics(20_000_001, 1000, 50_000), ("als", "rp3beta")),
    ],
)
def test_which_models(found, models):
    assert choose_route(found, 80_000).models == models


def test_memory_is_some():
    assert 100 < available_mb() < 10_000_000


def test_the_command(world_files, capsys):
    assert run_verb(["route", str(world_files["events"]), "--items", str(world_files["items"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engine"] == "local"
    assert run_verb(["route", "--size", "events=3e8,users=3.2e7,items=46033", "--memory", "24000"]) == 0
    assert capsys.readouterr().out.startswith("engine: spark; models: als")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a file of events"),
        (["none.csv"], "no such file"),
        (["--size", "events=1"], "also give users, items"),
        (["--size", "event=1"], "Did you mean 'events'"),
        (["--size", "events=many"], "is not a number"),
        (["--size", "events=inf"], "is not a number"),
    ],
)
def test_what_is_wrong_is_said(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_verb(["route", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "recommend", "fallback"),
    [
        ("user_id,item_id,timestamp", {}, "recent"),
        ("user_id,item_id,timestamp", {"k": 5}, "recent"),
        ("user_id,item_id,timestamp", {"fallback": "popular"}, "popular"),
        ("user_id,item_id", {}, "popular"),
    ],
)
def test_users_without_a_history_get_what_is_liked_lately(columns, recommend, fallback, tmp_path):
    """Where nobody has named a model: with times, what is new is worth more than what was liked years ago."""
    path = tmp_path / "events.csv"
    rows = [(user, user % 3, 1_600_000_000 + user)[: columns.count(",") + 1] for user in range(9)]
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
    raw = {"data": {"events": str(path)}, "recommend": recommend}
    chosen = choose_engine_and_models(config.parse_config(raw))
    assert chosen.recommend.fallback == fallback
    assert "hybrid" in chosen.models
    named = choose_engine_and_models(config.parse_config(raw | {"models": {"als": {}}}))
    assert named.recommend.fallback == recommend.get("fallback", "popular")


@pytest.mark.slow
def test_run_without_a_path_asks_for_one(world_files, tmp_path, capsys, monkeypatch):
    path = tmp_path / "config.toml"
    path.write_text(
        f'out = "{tmp_path}/run"\n[data]\nevents = "{world_files["events"]}"\n[models.als]\nrank = 4\niterations = 1\n'
    )
    assert run_verb(["run", str(path), "--set", "judge.resamples=100"]) == 0
    assert "engine: local." in capsys.readouterr().err
    assert 'engine = "local"' in (tmp_path / "run" / "config.toml").read_text()
    monkeypatch.setattr("recsys.route.available_mb", lambda: 100)
    sent = []
    monkeypatch.setattr("recsys.flow.run", lambda settings, progress: sent.append(settings.engine))
    assert (
        run_verb(["run", str(path), "--set", f"out={tmp_path}/none"]) == 2
    )  # nothing ran, so there is no run to report
    assert sent == ["spark"]
