"""Events are kept before they are acknowledged, once per id, and change the next list; what is shown is kept too."""

import asyncio
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from serving_process import ServerProcess, send_events

from recsys.cli import run_verb
from recsys.errors import ConfigError, InputError
from recsys.serving.event_store import EVENTS, IMPRESSIONS, EventConflict, EventStore, StoreError
from recsys.serving.registry import Registry

pytestmark = pytest.mark.slow


def postgres_program(name):
    """Return the path of a program of PostgreSQL, or None."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda path: path.name)
    return shutil.which(name, path=os.pathsep.join([*(str(path / "bin") for path in versions), os.environ["PATH"]]))


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """The URL of a PostgreSQL server of these tests alone; skipped, with the reason, where there is none."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    if not initdb or not server:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    place = tmp_path_factory.mktemp("postgres")
    ids = {}
    if os.getuid() == 0:
        # PostgreSQL refuses to run as root.
        try:
            shutil.chown(place, "postgres")
        except LookupError:
            pytest.skip("tests run as root, and there is no user postgres, as whom PostgreSQL could run")
        for folder in place.parents:
            if folder.stat().st_uid == 0 and len(folder.parts) > 2:
                folder.chmod(folder.stat().st_mode | 0o011)
        ids = {"user": "postgres", "group": "postgres", "extra_groups": []}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | ids
    subprocess.run([initdb, "-D", place / "data", "-U", "recsys", "-A", "trust", "-N"], check=True, cwd="/", **quiet)
    words = [server, "-D", place / "data", "-k", place, "-c", "listen_addresses="]
    process = subprocess.Popen(words, cwd="/", **quiet)
    try:
        url = f"postgresql://recsys@/postgres?host={place}"
        for _ in range(200):
            try:
                EventStore(url).close()
                break
            except InputError:
                assert process.poll() is None
                threading.Event().wait(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(30)


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    """Where an empty store may be."""
    if request.param == "sqlite":
        return str(tmp_path / "events.db")
    import psycopg

    url = request.getfixturevalue("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS recsys_store, recsys_events, recsys_impressions")
    return url


def event(number, user="u1", **values):
    row = {"event_id": f"e{number}", "user_id": user, "item_id": f"i{number}", "value": 1.0, "timestamp": 5.0}
    return row | {"event": None} | values


def test_an_event_is_stored_once_per_id(location):
    store = EventStore(location)
    assert store.add_events([event(2, timestamp=2.5), event(1), event(2, timestamp=7.0)]) == 2
    for conflict in ({"value": 9.0}, {"user": "u2"}, {"item_id": "other"}, {"event": "view"}):
        with pytest.raises(EventConflict, match="'e2'"):
            store.add_events([event(4), event(2, **conflict)])
    assert store.add_events([event(2), event(3, user="ü'; DROP TABLE recsys_events")]) == 1
    assert store.events_of("u1") == [("i2", 1.0, 2.5, None), ("i1", 1.0, 5.0, None)]
    store.close()
    again = EventStore(location)
    assert again.events_of("ü'; DROP TABLE recsys_events") == [("i3", 1.0, 5.0, None)]
    assert sum(len(piece) for piece in again.read(EVENTS)) == 3
    again.close()


def test_writers_at_the_same_time_lose_and_repeat_nothing(location):
    stores = [EventStore(location) for _ in range(3)]

    def write(writer):
        order = random.Random(writer).sample(range(60), 60)
        return sum(stores[writer].add_events([event(n) for n in order[start : start + 4]]) for start in range(0, 60, 4))

    with ThreadPoolExecutor(3) as threads:
        counts = list(threads.map(write, range(3)))
    assert sum(counts) == 60
    ids = [event_id for piece in stores[0].read(EVENTS) for event_id in piece["event_id"]]
    assert sorted(ids) == sorted(f"e{n}" for n in range(60))
    for store in stores:
        store.close()


def test_a_commit_of_sqlite_waits_for_the_disk(tmp_path):
    store = EventStore(str(tmp_path / "events.db"))
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


def test_a_store_that_cannot_be_used_is_refused(tmp_path, bundles):
    (tmp_path / "text.db").write_text("this is no database, but a file of somebody\n" * 100)
    with pytest.raises(InputError, match="not a database"):
        EventStore(str(tmp_path / "text.db"))
    assert (tmp_path / "text.db").read_text().startswith("this is no database")
    with pytest.raises(InputError, match="no folder"):
        EventStore(str(tmp_path / "missing" / "events.db"))
    with pytest.raises(Exception, match="Choose another --store"):
        EventStore(str(bundles["als"] / "events.db"))
    with pytest.raises(ConfigError, match="begins with postgresql"):
        EventStore("mysql://me:secret@host/db")
    with pytest.raises(InputError, match=r"postgresql://127.0.0.1:1/db: the store cannot be opened") as refused:
        EventStore("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(refused.value)
    for url in ("postgresql://127.0.0.1:1/db?password=secret", "postgresql://me:secret@h:port/db", "me:secret@://h"):
        with pytest.raises((ConfigError, InputError)) as refused:
            EventStore(url)
        assert "secret" not in str(refused.value)
    store = EventStore(str(tmp_path / "events.db"))
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recsys_store SET format = 99")
    store.close()
    with pytest.raises(InputError, match="format 99"):
        EventStore(str(tmp_path / "events.db"))


def test_a_database_of_another_program_is_left_alone(tmp_path, monkeypatch, capsys):
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (number INTEGER)")
    content = path.read_bytes()
    with pytest.raises(InputError, match="another program"):
        EventStore(str(path))
    monkeypatch.setenv("RECSYS_STORE", str(path))
    assert run_verb(["log", "export", str(tmp_path / "out")]) == 2
    assert "another program" in capsys.readouterr().err
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["other.db"]
    # An export makes no store.
    (tmp_path / "empty.db").touch()
    for store in ("empty.db", "missing.db"):
        monkeypatch.setenv("RECSYS_STORE", str(tmp_path / store))
        assert run_verb(["log", "export", str(tmp_path / "out")]) == 2
        assert "no " in capsys.readouterr().err
    monkeypatch.delenv("RECSYS_STORE")
    assert run_verb(["log", "export", str(tmp_path / "out")]) == 2


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
def test_servers_that_start_together_share_a_store(location):
    with ThreadPoolExecutor(8) as threads:
        stores = list(threads.map(lambda _: EventStore(location), range(8)))
    with stores[0]._engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "30s"
    for store in stores:
        store.close()


@pytest.fixture
def stored(make_client, tmp_path):
    """A client of a service with a store."""
    return make_client(store=EventStore(str(tmp_path / "events.db")))


def items_of(answer):
    assert answer.status == 200, answer.body
    return [item["item"] for item in answer.json["items"]]


def post_events(client, *events):
    answer = client.post("/events", {"events": list(events)})
    assert answer.status == 202, answer.body
    return answer.json


@pytest.mark.parametrize("model", ["als", "hybrid"])
def test_the_next_list_knows_the_events(stored, bundles, tmp_path, model):
    """The list is that of a bundle to which ``recsys update`` has added the same events."""
    from recsys.saved.open_model import open_model
    from recsys.saved.update import update

    history = pd.read_parquet(bundles[model] / "split" / "history.parquet")
    user = history.user_id.value_counts().index[0]
    before = items_of(stored.get("/recommend", user=user, model=model))
    new = before[:4]
    late = int(history.timestamp.max())
    events = [
        {"id": str(n), "user": user, "item": item, "value": 4.5, "timestamp": late + 1 + n}
        for n, item in enumerate(new)
    ]
    answer = post_events(stored, *events, {"user": user, "item": "a new film"})
    assert (answer["accepted"], answer["repeated"], answer["unknown_items"]) == (5, 0, ["a new film"])
    answer = stored.get("/recommend", user=user, model=model)
    assert answer.json["new_events"] == 4
    after = items_of(answer)
    assert after != before
    assert not set(after) & set(new)
    table = pd.DataFrame(events).rename(columns={"user": "user_id", "item": "item_id"})
    table[["user_id", "item_id", "value", "timestamp"]].to_csv(tmp_path / "late.csv", index=False)
    update(bundles[model], tmp_path / "late.csv", tmp_path / "updated")
    updated = open_model(tmp_path / "updated")
    expected = updated.recommend(pd.DataFrame({"user_id": [user]}), 10)
    if model == "als":
        assert after == updated.history.items.ids_of(expected.items[0]).tolist()
    explained = stored.get("/explain", user=user, item=after[0], model="als").json
    assert len(explained["history"]) == min(21, len(history[history.user_id == user]) + 4)


def test_repeated_events_count_once(stored):
    first = {"id": "x", "user": "new", "item": "f005"}
    assert post_events(stored, first)["accepted"] == 1
    once = stored.get("/recommend", user="new", model="als", k=5).json["items"]
    again = post_events(stored, first, first)
    assert (again["accepted"], again["repeated"]) == (0, 2)
    assert stored.post("/events", {"events": [first | {"item": "f006"}]}).status == 409
    assert stored.get("/recommend", user="new", model="als", k=5).json["items"] == once


def test_events_that_the_bundle_has_do_not_count_again(stored, bundles):
    history = pd.read_parquet(bundles["als"] / "split" / "history.parquet")
    user = history.user_id.value_counts().index[1]
    rows = history[history.user_id == user]
    plain = stored.get("/recommend", user=user, model="als").json["items"]
    events = [
        {"user": user, "item": item, "value": value, "timestamp": time + 0.25}
        for item, value, time in zip(rows.item_id, rows.value.tolist(), rows.timestamp.tolist(), strict=True)
    ]
    assert post_events(stored, *events)["accepted"] == len(rows)
    answer = stored.get("/recommend", user=user, model="als").json
    assert answer["new_events"] == 0
    assert answer["items"] == plain
    post_events(stored, events[0] | {"timestamp": events[0]["timestamp"] + 1})
    assert stored.get("/recommend", user=user, model="als").json["new_events"] == 1
    # Of events that the bundle has and new ones, in any order, the new ones count.
    plain_items = [item["item"] for item in plain]
    post_events(stored, {"user": user, "item": plain_items[0]}, {"user": user, "item": plain_items[2]})
    listed = [item["item"] for item in stored.get("/recommend", user=user, model="als", k=100).json["items"]]
    assert [item in listed for item in plain_items[:3]] == [False, True, False]


def test_without_a_store_events_are_refused(client):
    answer = client.post("/events", {"events": [{"user": "a", "item": "b"}]})
    assert answer.status == 409
    assert "--store" in answer.json["detail"]


def run_popular(log, out, sections=""):
    """Make a run of a log with the model ``popular``, and return the exit code."""
    config = out.with_suffix(".toml")
    config.write_text(
        f"out = '{out}'\n[data]\nevents = '{log}'\n[judge]\nresamples = 100\n[models.popular]\n{sections}"
    )
    return run_verb(["run", str(config)])


def test_an_event_that_would_stop_the_next_training_is_refused(make_client, tmp_path):
    """A run with weights of types, its server, an export with the older log, and the next run."""
    users, items = np.divmod(np.arange(60), 6)
    log = pd.DataFrame({"user_id": users, "item_id": (users + items) % 9, "timestamp": 1e9 + np.arange(60)})
    log.assign(event=np.where(items % 2, "view", "buy")).to_csv(tmp_path / "typed.csv", index=False)
    weights = "[weigh.events]\nview = 1\nbuy = 5\n"
    assert run_popular(tmp_path / "typed.csv", tmp_path / "first", weights) == 0
    store = EventStore(str(tmp_path / "events.db"))
    client = make_client(registry=Registry({"shop": tmp_path / "first"}), store=store)
    answer = client.post("/events", {"events": [{"user": "1", "item": "3"}]})
    assert (answer.status, "view, buy" in answer.json["detail"]) == (422, True)
    assert client.post("/events", {"events": [{"user": "1", "item": "3", "event": "bay"}]}).status == 422
    like = client.get("/ready").json["like_event"]
    assert like == "buy"
    post_events(client, {"user": "1", "item": "3", "event": like}, {"user": "1", "item": "4", "event": "view"})
    export = [
        "log",
        "export",
        str(tmp_path / "events.db"),
        str(tmp_path / "log"),
        "--base",
        str(tmp_path / "typed.csv"),
    ]
    assert run_verb(export) == 0
    assert run_popular(tmp_path / "log" / "events.parquet", tmp_path / "second", weights) == 0
    assert json.loads((tmp_path / "second" / "data.json").read_text())["users"] == 10


def test_a_store_with_and_without_types_is_a_log_where_types_have_no_weights(stored, tmp_path):
    assert stored.get("/ready").json["like_event"] is None
    events = [
        {"user": f"u{n % 7}", "item": f"f{n % 11:03d}", "timestamp": 1e9 + n} | ({"event": "view"} if n % 2 else {})
        for n in range(70)
    ]
    post_events(stored, *events)
    assert run_verb(["log", "export", str(tmp_path / "events.db"), str(tmp_path / "log")]) == 0
    assert run_popular(tmp_path / "log" / "events.parquet", tmp_path / "run") == 0


BAD_EVENTS = [
    {"user": "a"},
    {"user": "a", "item": "b", "value": "1"},
    {"user": "a\0", "item": "b"},
    {"user": True, "item": 1},
]
BAD_EVENTS += [
    {"user": "a", "item": "b", "timestamp": -1},
    {"user": "a", "item": "b", "timestamp": time.time() + 90_000},
    {"user": "a", "item": "b", "value": 1e300},
]


def test_one_wrong_event_refuses_all(stored):
    for bad in BAD_EVENTS:
        answer = stored.post("/events", {"events": [{"user": "ok", "item": "f001"}, bad]})
        assert answer.status == 422, answer.body
    assert stored.service.store.events_of("ok") == []


def test_a_store_that_fails_acknowledges_nothing(stored, monkeypatch):
    def fail(*arguments):
        raise StoreError("database or disk is full")

    monkeypatch.setattr(stored.service.store, "add_events", fail)
    answer = stored.post("/events", {"events": [{"user": "a", "item": "f001"}]})
    assert answer.status == 503
    assert "same ids" in answer.json["detail"]


def test_impressions_say_what_was_shown(stored, bundles):
    answer = stored.call("GET", "/recommend", query={"user": "u0001", "k": 3}, headers={"x-request-id": "seen-1"}).json
    stored.post("/recommend", {"history": ["f001"], "k": 2, "model": "als"})
    # Nobody sees the list of HEAD.
    stored.call("HEAD", "/recommend", query={"user": "u0001", "k": 3})
    batch = {"requests": [{"user": "u0001", "k": 1}, {"user": "u0002", "k": 1}]}
    lists = stored.call("POST", "/recommend/batch", batch, headers={"x-request-id": "many"}).json["lists"]
    assert [part["request_id"] for part in lists] == ["many-1", "many-2"]
    stored.service._flush_impressions()
    stored.service._writing.submit(int).result()
    table = pd.concat(stored.service.store.read(IMPRESSIONS))
    assert table.request_id.tolist()[:3] == ["seen-1"] * 3
    assert table.request_id.tolist()[5:] == ["many-1", "many-2"]
    first = table.iloc[:3]
    assert first.item_id.tolist() == [item["item"] for item in answer["items"]]
    assert first["rank"].tolist() == [1, 2, 3]
    assert first.source.tolist() == [item["source"] for item in answer["items"]]
    assert set(first.version) == {answer["version"]}
    assert first.user_id.tolist() == ["u0001"] * 3
    assert table.model.tolist()[3:5] == ["als", "als"]
    assert table.user_id[3:5].isna().all()
    assert table.probability.isna().all()


def test_impressions_that_a_slow_store_cannot_take_are_counted(stored, monkeypatch):
    monkeypatch.setattr("recsys.serving.service.MAX_IMPRESSIONS", 5)
    release = threading.Event()
    stored.service._writing.submit(release.wait, 20)

    async def lists():
        for _ in range(3):
            await stored.acall("GET", "/recommend", query={"user": "u0001", "k": 2})
            # Nothing more is handed to the writing thread while it stores what it has.
            stored.service._flush_impressions()
        return stored.service._writing._work_queue.qsize()

    assert asyncio.run(lists()) == 1
    assert stored.service.metrics.lost_impressions == 0
    stored.get("/recommend", user="u0001", k=2)
    assert stored.service.metrics.lost_impressions == 2
    release.set()
    stored.service.close()
    assert stored.service.metrics.impressions == 6


def test_an_older_log_of_another_form_comes_before_a_store(stored, tmp_path, capsys, monkeypatch):
    post_events(stored, {"user": "u1", "item": "f001"})
    export = ["log", "export", str(tmp_path / "events.db"), str(tmp_path / "log"), "--base", str(tmp_path / "old.csv")]
    (tmp_path / "old.csv").write_text("who;what;when\nu2;f002;1000\n")
    columns = ["--column", "user_id=who", "--column", "item_id=what", "--delimiter", ";"]
    assert run_verb([*export, *columns]) == 2
    assert "without times" in capsys.readouterr().err
    assert run_verb([*export, *columns, "--column", "timestamp=when"]) == 0
    table = pd.read_parquet(tmp_path / "log" / "events.parquet")
    assert table.user_id.tolist() == ["u2", "u1"]
    assert table.timestamp[0] == 1000
    assert run_verb([*export[:4], *columns]) == 2
    # The store may be named by the environment, so that its password is no argument.
    monkeypatch.setenv("RECSYS_STORE", str(tmp_path / "events.db"))
    assert run_verb(["log", "export", str(tmp_path / "log")]) == 0
    assert pd.read_parquet(tmp_path / "log" / "events.parquet").user_id.tolist() == ["u1"]


def test_the_log_of_a_store_is_a_log(stored, tmp_path, capsys):
    events = [
        {"id": f"{user}-{item}", "user": f"v{user}", "item": f"f{item:03d}", "value": 4.0, "timestamp": 1e9 + 7 * item}
        for user in range(30)
        for item in range(user % 5, 40, 5)
    ]
    post_events(stored, *events)
    stored.get("/recommend", user="v1", k=4)
    stored.service._flush_impressions()
    stored.service._writing.submit(int).result()
    out = tmp_path / "log"
    assert run_verb(["log", "export", str(tmp_path / "events.db"), str(out)]) == 0
    assert f"{len(events)} events, 4 impressions" in capsys.readouterr().err
    table = pd.read_parquet(out / "events.parquet")
    assert sorted(table.event_id) == sorted(event["id"] for event in events)
    assert "event" not in table
    shown = pd.read_parquet(out / "impressions.parquet")
    assert shown["rank"].tolist() == [1, 2, 3, 4]
    (tmp_path / "run.toml").write_text(
        f"out = '{tmp_path}/run'\n[data]\nevents = '{out}/events.parquet'\n[judge]\nresamples = 100\n[models.popular]\n"
    )
    assert run_verb(["run", str(tmp_path / "run.toml")]) == 0
    card = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (card["users"], card["items"]) == (30, 40), card
    # Again over the older export, and never over anything else.
    assert run_verb(["log", "export", str(tmp_path / "events.db"), str(out)]) == 0
    (out / "mine.txt").write_text("mine")
    assert run_verb(["log", "export", str(tmp_path / "events.db"), str(out)]) == 2
    assert run_verb(["log", "export", str(tmp_path / "nothing.db"), str(tmp_path / "o")]) == 2
    assert (out / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "nothing.db").exists()


@pytest.mark.long
def test_the_log_has_the_probability_with_which_a_server_shows_each_item(make_client, tmp_path, monkeypatch):
    """Ten thousand lists of two of four items, against the formula of Plackett and Luce and against their counts."""
    draws = 10_000
    rng = np.random.default_rng(5)
    seeded = SimpleNamespace(randbits=lambda bits: int(rng.integers(2**62)), token_hex=secrets.token_hex)
    monkeypatch.setattr("recsys.serving.service.secrets", seeded)
    client = make_client(store=EventStore(str(tmp_path / "e.db")), explore=0.5)
    best = client.get("/recommend", user="u0001", model="als", explore=False).json["items"][:4]
    scores = np.array([item["score"] for item in best])
    weights = np.exp((scores - scores.min()) / (scores.max() - scores.min()) / 0.5)
    weight_of = dict(zip([item["item"] for item in best], weights.tolist(), strict=True))
    total = weights.sum()
    expected = {
        (a, b): (weight_of[a] / total, weight_of[b] / (total - weight_of[a])) for a, b in permutations(weight_of, 2)
    }

    request = {"user": "u0001", "model": "als", "only": list(weight_of), "k": 2}
    for _ in range(draws // 100):
        assert client.post("/recommend/batch", {"requests": [request] * 100}).status == 200
    client.service._flush_impressions()
    client.service._writing.submit(int).result()
    log = pd.concat(client.service.store.read(IMPRESSIONS)).dropna(subset="explore")
    log = log.sort_values(["request_id", "rank"])
    pairs = list(map(tuple, log.item_id.to_numpy().reshape(-1, 2)))
    logged = log.probability.to_numpy().reshape(-1, 2)

    assert len(pairs) == draws
    np.testing.assert_allclose(logged, [expected[pair] for pair in pairs], rtol=1e-4)
    counts = Counter(pairs)
    assert counts.keys() == expected.keys()
    for pair, chances in expected.items():
        chance = np.prod(chances)
        assert abs(counts[pair] - draws * chance) < 4 * np.sqrt(draws * chance * (1 - chance)), pair
    # The mean importance weight is 1, of any policy against the one that is logged: here of one that shows each
    # of the twelve lists alike.
    importance = 1 / 12 / logged.prod(axis=1)
    assert abs(importance.mean() - 1) < 3 * importance.std() / np.sqrt(draws)


def test_probabilities_of_a_list_that_is_short_or_certain(registry):
    from recsys.ranking import rerank

    pool = registry.model("als").saved.recommend(pd.DataFrame({"user_id": ["u0001"]}), 5)
    everything = rerank.draw_probabilities(pool, rerank.explore(pool, 9, 1.0, 3), 1.0)[0]
    assert everything[4] == pytest.approx(1.0)
    certain = rerank.draw_probabilities(pool, rerank.explore(pool, 3, 1e-6, 3), 1e-6)[0]
    np.testing.assert_allclose(certain, 1.0)


def test_a_server_that_explores_logs_probabilities(make_client, tmp_path):
    client = make_client(store=EventStore(str(tmp_path / "e.db")), explore=0.3)
    lists = [items_of(client.get("/recommend", user="u0001")) for _ in range(4)]
    assert len(set(map(tuple, lists))) > 1
    plain = client.get("/recommend", user="u0001", explore=False)
    assert "probability" not in plain.json["items"][0]
    client.service._flush_impressions()
    client.service._writing.submit(int).result()
    table = pd.concat(client.service.store.read(IMPRESSIONS))
    assert table.explore[:40].eq(0.3).all()
    assert table.explore[40:].isna().all()
    assert table.probability[:40].between(0, 1).all()
    assert table.probability[40:].isna().all()


@pytest.mark.subprocess
def test_a_killed_server_has_kept_what_it_acknowledged(bundles, tmp_path):
    location = tmp_path / "events.db"
    acknowledged, retried = [], []
    rng = random.Random(11)
    for round_ in range(2):
        with ServerProcess(bundles["als"], "--store", location) as server:
            for event in retried:
                assert server.call("POST", "/events", {"events": [event]})[0] == 202
                acknowledged.append(event["id"])
            last = rng.randrange(20, 90)

            def kill_at(number, last=last, server=server):
                if number == last:
                    # The next event is under way when the signal comes.
                    threading.Timer(rng.random() * 0.01, server.process.kill).start()
                return number > 10_000

            retried = send_events(server, acknowledged, f"round{round_}", kill_at)
            assert server.process.wait(30) == -signal.SIGKILL
    store = EventStore(str(location))
    ids = [event_id for piece in store.read(EVENTS) for event_id in piece["event_id"]]
    store.close()
    assert len(acknowledged) > 40
    assert len(ids) == len(set(ids))
    assert set(acknowledged) <= set(ids)
    assert set(ids) <= set(acknowledged) | {event["id"] for event in retried}


def test_a_port_in_use_is_one_sentence(bundles, capsys):
    from recsys.serving.server import bind

    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert run_verb(["serve", str(bundles["als"]), "--port", str(port)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == [f"error: 127.0.0.1:{port}: cannot listen: Address already in use. Choose another --host or --port."]


def test_sighup_while_bundles_are_loading_does_no_harm(monkeypatch):
    def load(paths):
        os.kill(os.getpid(), signal.SIGHUP)
        raise InputError("this bundle is not whole.")

    monkeypatch.setattr("recsys.serving.registry.Registry", load)
    monkeypatch.setattr("recsys.serving.server.bind", lambda host, port: None)
    before = signal.getsignal(signal.SIGHUP)
    try:
        assert run_verb(["serve", "bundle", "--port", "0"]) == 2
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_key_of_the_environment_has_no_blanks_around_it(monkeypatch):
    from recsys.cli.serve import read_api_key

    monkeypatch.setenv("RECSYS_API_KEY", " key\n")
    assert read_api_key(None) == "key"


def test_requests_and_events_at_the_same_time(stored):
    async def storm():
        calls = [stored.acall("GET", "/recommend", query={"user": f"u{n:04d}", "model": "als"}) for n in range(30)]
        calls += [
            stored.acall("POST", "/events", {"events": [{"id": str(n % 20), "user": f"u{n % 20:04d}", "item": "f003"}]})
            for n in range(30)
        ]
        return await asyncio.gather(*calls)

    answers = asyncio.run(storm())
    assert {answer.status for answer in answers} == {200, 202}
    assert sum(answer.json.get("accepted", 0) for answer in answers) == 20
