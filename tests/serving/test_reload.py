"""A newer bundle is swapped in between two requests; one that is not whole is refused, and the older one goes on."""

import asyncio
import contextlib
import json
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving_process import ServerProcess

from recsys.cli import run_verb
from recsys.errors import InputError, RunFolderError
from recsys.saved.pointer import follow_pointer, write_pointer
from recsys.serving.registry import Registry, parse_paths

pytestmark = pytest.mark.slow


@pytest.fixture
def pointed(make_client, bundles, tmp_path):
    """A client whose model "film" is what a pointer names: at first the bundle of ALS."""
    write_pointer(tmp_path / "current", bundles["als"])
    return make_client(registry=Registry({"film": tmp_path / "current"}))


def served(client):
    return client.get("/ready").json["models"][0]


def test_a_moved_pointer_is_followed_between_two_requests(pointed, bundles, tmp_path):
    before = served(pointed)
    assert before["kind"] == "als"

    async def move_under_load():
        watch = asyncio.create_task(pointed.service.watch_pointers(0.001))
        answers = []
        for move in range(20):
            target = bundles[("hybrid", "als")[move % 2]]
            write_pointer(tmp_path / "current", target)
            while pointed.service.registry.model().path.resolve() != target.resolve():
                answers.append(await pointed.acall("GET", "/recommend", query={"user": f"u{len(answers):04d}"}))
        watch.cancel()
        return answers

    answers = asyncio.run(move_under_load())
    assert {answer.status for answer in answers} == {200}
    by_version = {}
    for answer in answers:
        by_version.setdefault(answer.json["version"], set()).update(item["source"] for item in answer.json["items"])
    assert len(by_version) == 2
    # Each list is of one bundle: its sources are those of its version.
    assert by_version[before["version"]] <= {"als", "popular", "segment:country"}
    assert set.union(*by_version.values()) - by_version[before["version"]] == {"hybrid"}
    assert "recsys_reloads_total 20" in pointed.get("/metrics").body.decode()


def damage_cut(bundle):
    path = bundle / "split" / "history.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def damage_bit(bundle):
    path = next(bundle.rglob("*.npy"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_format(bundle):
    card = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(card | {"format": 99}))


def damage_whole(bundle):
    (bundle / "_SUCCESS").unlink()


@pytest.mark.parametrize("damage", [damage_cut, damage_bit, damage_format, damage_whole, shutil.rmtree])
def test_a_bundle_that_is_not_whole_is_refused(pointed, bundles, tmp_path, damage):
    before = served(pointed)
    expected = pointed.get("/recommend", user="u0001").json["items"]
    shutil.copytree(bundles["hybrid"], tmp_path / "next")
    damage(tmp_path / "next")
    write_pointer(tmp_path / "current", tmp_path / "next")
    asyncio.run(pointed.service.reload())
    after = served(pointed)
    assert after["version"] == before["version"]
    assert "next" in after["refused"]
    assert "/" not in after["refused"]
    assert pointed.get("/recommend", user="u0001").json["items"] == expected
    assert "recsys_reloads_refused_total 1" in pointed.get("/metrics").body.decode()
    # A whole one is taken again, and the complaint is gone.
    write_pointer(tmp_path / "current", bundles["hybrid"])
    asyncio.run(pointed.service.reload())
    assert (served(pointed)["kind"], served(pointed)["refused"]) == ("hybrid", "")


def test_a_bundle_that_opens_and_cannot_answer_is_refused(pointed, bundles, tmp_path, monkeypatch):
    from recsys.serving.served_model import ServedModel

    def fail(self):
        raise ValueError("no answer")

    monkeypatch.setattr(ServedModel, "warm", fail)
    write_pointer(tmp_path / "current", bundles["hybrid"])
    asyncio.run(pointed.service.reload())
    assert served(pointed)["kind"] == "als"
    assert served(pointed)["refused"].startswith("ValueError")
    assert "no answer" not in served(pointed)["refused"]


def test_lists_do_not_wait_for_the_first_question(pointed, monkeypatch):
    from recsys.models.onboarding import Onboarding

    fit = Onboarding.fit
    began, release = threading.Event(), threading.Event()

    def fit_slowly(self, train):
        began.set()
        release.wait(30)
        return fit(self, train)

    monkeypatch.setattr(Onboarding, "fit", fit_slowly)

    async def ask():
        question = asyncio.create_task(pointed.acall("GET", "/onboard"))
        await asyncio.get_running_loop().run_in_executor(None, began.wait, 30)
        try:
            answer = await asyncio.wait_for(pointed.acall("GET", "/recommend", query={"user": "u0001"}), 5)
            return answer, question.done()
        finally:
            release.set()
            assert (await question).json["question"]

    answer, question_came_first = asyncio.run(ask())
    assert (answer.status, question_came_first) == (200, False)


def test_a_newer_bundle_is_ready_for_questions_where_new_users_were_asked(pointed, bundles, tmp_path, monkeypatch):
    from recsys.models.onboarding import Onboarding
    from recsys.serving import served_model

    assert pointed.get("/onboard").json["question"]
    write_pointer(tmp_path / "current", bundles["hybrid"])
    asyncio.run(pointed.service.reload())
    fit = Onboarding.fit
    monkeypatch.setattr(Onboarding, "fit", lambda self, train: pytest.fail("fitted when the question came"))
    assert pointed.get("/onboard").json["question"]
    # A bundle that is too large for questions is served all the same.
    monkeypatch.setattr(Onboarding, "fit", fit)
    monkeypatch.setattr(served_model, "ONBOARDING_BYTES", 1)
    write_pointer(tmp_path / "current", bundles["als"])
    asyncio.run(pointed.service.reload())
    assert (served(pointed)["kind"], served(pointed)["refused"]) == ("als", "")
    assert "too many items" in pointed.get("/onboard").json["detail"]


def test_a_bundle_that_is_written_again_to_its_folder_is_taken(pointed, bundles, tmp_path):
    shutil.copytree(bundles["als"], tmp_path / "next")
    write_pointer(tmp_path / "current", tmp_path / "next")
    assert pointed.service.registry.moved_pointers() == ["film"]
    shutil.rmtree(tmp_path / "next")
    shutil.copytree(bundles["hybrid"], tmp_path / "next")
    write_pointer(tmp_path / "current", tmp_path / "next")
    assert pointed.service.registry.moved_pointers() == ["film"]
    assert pointed.service.registry.moved_pointers() == []


def test_a_pointer_may_come_before_its_bundle(pointed, bundles, tmp_path):
    write_pointer(tmp_path / "current", tmp_path / "next")
    assert pointed.service.registry.moved_pointers() == []
    assert "does not exist" in served(pointed)["refused"]
    shutil.copytree(bundles["hybrid"], tmp_path / "next")
    assert pointed.service.registry.moved_pointers() == ["film"]
    # Going back to the bundle that is served leaves nothing to complain of.
    write_pointer(tmp_path / "current", bundles["als"])
    asyncio.run(pointed.service.reload())
    assert served(pointed)["refused"] == ""


def test_publish_moves_the_pointer_and_nothing_of_somebody_else(bundles, tmp_path, capsys):
    run = bundles["als"].parent / "run"
    pointer = tmp_path / "current"
    for name in ("a", "b"):
        assert run_verb(["bundle", str(run), str(tmp_path / name), "--model", "als", "--publish", str(pointer)]) == 0
        assert follow_pointer(pointer).resolve() == tmp_path / name
    shutil.copytree(tmp_path, tmp_path.parent / "moved-away")
    assert follow_pointer(tmp_path.parent / "moved-away" / "current").resolve() == tmp_path.parent / "moved-away" / "b"
    (tmp_path / "mine").write_text("mine")
    assert (
        run_verb(["bundle", str(run), str(tmp_path / "c"), "--model", "als", "--publish", str(tmp_path / "mine")]) == 2
    )
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "c").exists()
    with pytest.raises(RunFolderError, match="neither a bundle nor a pointer"):
        follow_pointer(tmp_path / "mine")
    with pytest.raises((InputError, RunFolderError)):
        write_pointer(tmp_path / "a" / "current", tmp_path / "b")


def test_bundles_are_named_by_their_folder_or_by_the_user(tmp_path):
    from recsys.errors import ConfigError

    (tmp_path / "x=y").mkdir()
    paths = parse_paths([str(tmp_path / "a"), f"shop={tmp_path}/b", str(tmp_path / "x=y")])
    assert paths == {"a": tmp_path / "a", "shop": tmp_path / "b", "x=y": tmp_path / "x=y"}
    with pytest.raises(ConfigError, match="two bundles are named 'a'"):
        parse_paths([str(tmp_path / "a"), f"a={tmp_path}/b"])


def test_the_demo_ends_in_a_server_with_its_bundle(bundles, tmp_path, monkeypatch, capsys):
    from recsys.cli import demo
    from recsys.data import synthetic
    from recsys.serving import server
    from recsys.serving.requests import ListRequest

    film_world = synthetic.film_world
    answers = []

    def answer_once(application, service, listener, report_start):
        report_start()
        answers.append(service.registry.model("demo").recommend(ListRequest(user="u0001")))
        listener.close()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "film_world", lambda: film_world(users=20, items=20, events=200, seed=1))
    monkeypatch.setattr(demo, "run", lambda config: shutil.copytree(bundles["als"].parent / "run", "runs/demo"))
    monkeypatch.setattr(server, "serve", answer_once)
    monkeypatch.setattr("recsys.cli.serve.print_log", lambda: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    assert run_verb(["demo", "--serve", "--port", "0"]) == 0
    assert "serving at http://127.0.0.1:" in capsys.readouterr().err
    assert len(answers[0]["items"]) == 10
    with server.bind("127.0.0.1", 0) as taken:
        assert run_verb(["demo", "--serve", "--port", str(taken.getsockname()[1])]) == 2
    said = capsys.readouterr().err
    assert "cannot listen" in said
    assert "making a world" not in said


@pytest.mark.subprocess
def test_sighup_reloads_and_sigterm_ends_in_peace(bundles, tmp_path):
    shutil.copytree(bundles["als"], tmp_path / "bundle")
    with ServerProcess(f"film={tmp_path}/bundle", "--store", tmp_path / "events.db") as server:
        before = server.call("GET", "/ready")[1]["models"][0]
        shutil.rmtree(tmp_path / "bundle")
        shutil.copytree(bundles["hybrid"], tmp_path / "bundle")
        server.process.send_signal(signal.SIGHUP)
        line = server.process.stderr.readline()
        after = server.call("GET", "/ready")[1]["models"][0]
        assert after["version"] != before["version"]
        assert line.endswith(f" INFO model film: version {after['version']} is served from now on\n")
        assert (after["kind"], after["refused"]) == ("hybrid", "")
        code, printed = server.end(signal.SIGTERM)
    assert code == 0, printed
    assert printed.splitlines()[-1] == "ended"


@pytest.mark.subprocess
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_reloads_under_load_fail_no_request(bundles, tmp_path, workers):
    """Twenty moves of a pointer, while one client keeps its connection and another connects anew for each request."""
    write_pointer(tmp_path / "current", bundles["als"])
    answers = {"kept": [], "new": []}
    is_over = threading.Event()

    def ask(kind):
        with contextlib.closing(server.connect()) as connection:
            while not is_over.is_set():
                path = f"/recommend?user=u{len(answers[kind]) % 1100:04d}"
                status, answer = server.call("GET", path, None, connection if kind == "kept" else None)
                answers[kind].append((status, answer))

    with (
        ServerProcess(f"film={tmp_path}/current", "--workers", workers) as server,
        ThreadPoolExecutor(2) as clients,
    ):
        asked = [clients.submit(ask, kind) for kind in answers]
        try:
            for move in range(20):
                write_pointer(tmp_path / "current", bundles[("hybrid", "als")[move % 2]])
                server.process.send_signal(signal.SIGHUP)
                for _ in range(workers):
                    server.read_until("is served from now on")
        finally:
            is_over.set()
        for result in asked:
            result.result()
        code, printed = server.end(signal.SIGTERM)
    assert code == 0, printed
    for kind, of_kind in answers.items():
        assert {status for status, _ in of_kind} == {200}, kind
        assert len({answer["version"] for _, answer in of_kind}) == 2, kind
