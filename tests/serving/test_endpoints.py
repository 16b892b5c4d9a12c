"""What every endpoint keeps: problems, limits, the API key, the OpenAPI document, metrics."""

import asyncio
import json
import logging
import re
import threading

import pytest
from pydantic import TypeAdapter
from threadpoolctl import ThreadpoolController
from uvicorn.server import ServerState

from recsys.serving.endpoints import ENDPOINTS
from recsys.serving.limits import Limits
from recsys.serving.problems import ProblemDetails
from recsys.serving.requests import ListRequest
from recsys.serving.server import make_config

pytestmark = pytest.mark.slow


def check_problem(answer, status, text=""):
    """Check that an answer is a problem of RFC 9457, with a status and a text."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem = TypeAdapter(ProblemDetails).validate_python(answer.json, strict=True)
    assert problem["status"] == status
    assert answer.headers["x-request-id"] == problem["request_id"]
    assert text in problem["detail"]
    return problem


REFUSED = {
    "no user": ("GET", "/recommend", {}, None, 422, "user: is missing"),
    "a blank user": ("GET", "/recommend", {"user": " "}, None, 422, "user:"),
    "a long user": ("GET", "/recommend", {"user": "x" * 600}, None, 422, "user:"),
    "k of 0": ("GET", "/recommend", {"user": "a", "k": 0}, None, 422, "k: must be at least 1"),
    "a large k": ("GET", "/recommend", {"user": "a", "k": 1001}, None, 422, "k: at most 1,000"),
    "a huge k": ("GET", "/recommend", {"user": "a", "k": "9" * 5000}, None, 422, "k:"),
    "k of text": ("GET", "/recommend", {"user": "a", "k": "ten"}, None, 422, "k: must be a whole number"),
    "an unknown parameter": ("GET", "/recommend", {"user": "a", "limit": 3}, None, 422, "limit: there is no such"),
    "a repeated parameter": ("GET", "/recommend", {"user": ["a", "b"]}, None, 422, "occurs twice"),
    "an unknown model": ("GET", "/recommend", {"user": "a", "model": "asl"}, None, 404, "Did you mean 'als'?"),
    "no JSON": ("POST", "/recommend", {}, b"{", 400, "not JSON"),
    "not UTF-8": ("POST", "/recommend", {}, b'{"user": "\xff"}', 400, "not JSON"),
    "a list": ("POST", "/recommend", {}, [], 422, "body:"),
    "NaN": ("POST", "/recommend", {}, b'{"history": [{"item": 1, "value": NaN}]}', 422, "finite"),
    "a time of the future": ("POST", "/recommend", {}, {"history": [{"item": 1, "timestamp": 1e30}]}, 422, "timestamp"),
    "text for k": ("POST", "/recommend", {}, {"k": "3"}, 422, "k: must be a whole number"),
    "a long history": ("POST", "/recommend", {}, {"history": ["f001"] * 1001}, 422, "history: at most 1,000"),
    "a large batch": ("POST", "/recommend/batch", {}, {"requests": [{}] * 101}, 422, "requests: at most 100"),
    "an empty batch": ("POST", "/recommend/batch", {}, {"requests": []}, 422, "requests: must be"),
    "a long list in a batch": ("POST", "/recommend/batch", {}, {"requests": [{"k": 2000}]}, 422, "k: at most"),
    "deep nesting": ("POST", "/recommend", {}, b'{"rules": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, "not JSON"),
    "an unknown field of a rule": ("POST", "/recommend", {}, {"rules": {"where": [{"field": "x"}]}}, 422, "'x'"),
    "a rule on ids": ("POST", "/recommend", {}, {"rules": {"where": [{"field": "item_id"}]}}, 422, "not an attribute"),
    "a wrong time": ("POST", "/recommend", {}, {"rules": {"available": {"at": "now"}}}, 422, "ISO date"),
    "a time beyond numbers": (
        "POST",
        "/recommend",
        {},
        b'{"rules": {"available": {"from_field": "from", "at": 1%s}}}' % (b"0" * 400),
        422,
        "seconds",
    ),
    "many rules": (
        "POST",
        "/recommend",
        {},
        {"rules": {"where": [{"field": "year"}] * 21}},
        422,
        "rules.where: at most",
    ),
    "many quotas": (
        "POST",
        "/recommend",
        {},
        {"rules": {"quota": [{"field": "year", "at_most": 1}] * 6}},
        422,
        "rules.quota: at most 5",
    ),
    "many denials": (
        "POST",
        "/recommend",
        {},
        {"rules": {"deny_for": {str(user): [] for user in range(1001)}}},
        422,
        "rules.deny_for: at most 1,000",
    ),
    "many reasons": ("GET", "/recommend", {"user": "a", "k": 101, "reasons": "true"}, None, 422, "k with reasons"),
    "an unknown item": ("GET", "/items/zzz", {}, None, 404, "no item 'zzz'"),
    "similar to nothing": ("GET", "/similar", {"item": "zzz"}, None, 404, "no item 'zzz'"),
    "a path": ("GET", "/items/../../etc/passwd", {}, None, 404, "no item"),
    "another path": ("GET", "/recommender", {}, None, 404, "/openapi.json"),
    "a slash at the end": ("GET", "/recommend/", {}, None, 404, "/openapi.json"),
    "another method": ("DELETE", "/recommend", {}, None, 405, "DELETE"),
    "an answer about no candidate": (
        "POST",
        "/onboard",
        {},
        {"answers": [{"item": "z", "answer": "like"}]},
        422,
        "'z'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_a_problem(client, case):
    method, path, query, body, status, text = REFUSED[case]
    check_problem(client.call(method, path, body, query), status, text)


def test_messages_are_short(client):
    answer = client.post("/recommend", {"history": [{"item": "x", "value": "y" * 100_000}] * 10})
    assert answer.status == 422
    assert len(answer.body) < 30_000
    assert all(len(error["message"]) <= 300 for error in answer.json["errors"])


MANY_FAULTS = {
    "events": ("/events", {"events": [1] * 50_000}),
    "a history": ("/recommend", {"history": [[]] * 50_000}),
    "items": ("/recommend", {"exclude": [[]] * 50_000, "only": [[]] * 50_000}),
    "a batch": ("/recommend/batch", {"requests": [1] * 50_000}),
    "two lists": ("/agreement", {"a": [[]] * 1000, "b": [[]] * 1000}),
    "answers": ("/onboard", {"answers": [1] * 100}),
    "rules": ("/recommend", {"rules": {"deny": [[]] * 50_000, "where": [1] * 50_000, "quota": [1] * 50_000}}),
    "values of a rule": ("/recommend", {"rules": {"where": [{"field": "year", "any_of": [[]] * 50_000}]}}),
    "unknown fields": ("/recommend", {str(number): 1 for number in range(50_000)}),
}


@pytest.mark.parametrize("case", MANY_FAULTS)
def test_a_body_with_many_faults_has_a_short_answer(client, case):
    path, body = MANY_FAULTS[case]
    answer = client.post(path, body)
    check_problem(answer, 422)
    assert len(answer.json.get("errors", [])) <= 20
    assert len(answer.body) < 10_000


def test_a_body_is_limited_whether_it_says_its_size_or_not(make_client):
    client = make_client(limits=Limits(body_bytes=100))
    check_problem(client.post("/recommend", b"x" * 101), 413, "100 bytes")
    check_problem(client.call("POST", "/recommend", b"{}", headers={"content-length": "1000000"}), 413)
    check_problem(client.call("POST", "/recommend", b"{}", headers={"content-type": "text/plain"}), 415)
    assert client.post("/recommend", b"{}" + b" " * 98).status == 200


def test_a_key_is_asked_for(make_client):
    client = make_client(api_key="sécret")
    for headers in ({}, {"authorization": "Bearer other"}, {"x-api-key": ""}, {"authorization": "Basic secret"}):
        problem = client.call("GET", "/recommend", query={"user": "a"}, headers=headers)
        check_problem(problem, 401, "API key")
        assert problem.headers["www-authenticate"] == "Bearer"
        check_problem(client.call("GET", "/metrics", headers=headers), 401)
    assert client.get("/health").status == 200
    key = "sécret".encode().decode("latin-1")
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        assert client.call("GET", "/recommend", query={"user": "a"}, headers=headers).status == 200


def test_a_page_of_another_site_is_refused(make_client):
    client = make_client(hosts=["shop.example"])
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "shop.example:80"):
        assert client.call("GET", "/ready", headers={"host": host}).status == 200, host
    for host in ("rebound.example", "127.0.0.1.rebound.example", "", "[", "shop.example.rebound.example"):
        for path in ("/ready", "/", "/openapi.json", "/nothing"):
            check_problem(client.call("GET", path, headers={"host": host}), 421, "--allow-host")
    foreign = {"host": "localhost", "sec-fetch-site": "cross-site"}
    check_problem(client.call("GET", "/users", headers=foreign), 403, "another site")
    # A link to the page is no harm.
    assert client.call("GET", "/", headers=foreign).status == 200
    assert client.call("GET", "/users", headers=foreign | {"sec-fetch-site": "same-origin"}).status == 200


def test_an_unexpected_error_tells_the_client_nothing(make_client, monkeypatch, caplog):
    client = make_client()

    def fail(*arguments):
        raise RuntimeError("the secret of the server")

    model = client.service.registry.model("als")
    monkeypatch.setattr(model, "recommend", fail)
    with caplog.at_level(logging.ERROR, "recsys"):
        answer = client.call(
            "GET", "/recommend", query={"user": "a", "model": "als"}, headers={"x-request-id": "abc-1"}
        )
    problem = check_problem(answer, 500)
    assert problem["request_id"] == "abc-1"
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert "abc-1" in caplog.text
    assert "the secret of the server" in caplog.text


def test_a_slow_answer_ends_and_the_event_loop_stays_free(make_client, monkeypatch):
    client = make_client(limits=Limits(seconds=0.2))
    release = threading.Event()
    model = client.service.registry.model("als")
    monkeypatch.setattr(model, "recommend", lambda *arguments: release.wait(20))
    monkeypatch.setattr(model, "is_quick", lambda request: False)

    async def both():
        slow = asyncio.create_task(client.acall("GET", "/recommend", query={"user": "a", "model": "als"}))
        await asyncio.sleep(0)
        fast = await client.acall("GET", "/health")
        assert not slow.done()
        return fast, await slow

    try:
        fast, slow = asyncio.run(both())
    finally:
        release.set()
    assert fast.status == 200
    check_problem(slow, 503, "no answer within 0.2 seconds")


def test_more_requests_than_may_wait_are_refused_at_once(make_client, monkeypatch):
    client = make_client(limits=Limits(waiting=2))
    release = threading.Event()
    model = client.service.registry.model("als")
    plain = model.recommend

    def wait(*arguments):
        release.wait(20)
        return plain(*arguments)

    monkeypatch.setattr(model, "recommend", wait)
    monkeypatch.setattr(model, "is_quick", lambda request: False)

    async def four():
        query = {"user": "a", "model": "als"}
        tasks = [asyncio.create_task(client.acall("GET", "/recommend", query=query)) for _ in range(4)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        release.set()
        first = next(iter(done)).result()
        return first, sorted(answer.status for answer in await asyncio.gather(*tasks))

    first, statuses = asyncio.run(four())
    check_problem(first, 503, "too many")
    assert first.headers["retry-after"] == "1"
    assert statuses == [200, 200, 503, 503]
    assert client.service.active == 0


@pytest.mark.parametrize("given", ["a b", "x" * 65, "ü", "<script>"])
def test_a_request_id_of_another_form_is_replaced(client, given):
    answer = client.call("GET", "/health", headers={"x-request-id": given.encode().decode("latin-1")})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


def test_the_document_describes_every_endpoint_and_every_answer(client):
    document = client.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == {(re.sub(":path", "", e.path), e.method) for e in ENDPOINTS}
    text = json.dumps(document)
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in document["components"]["schemas"]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for endpoint, path, query in [
        ("/recommend", "/recommend", {"user": "u0001", "reasons": True, "details": True}),
        ("/similar", "/similar", {"item": "f001", "model": "als"}),
        ("/explain", "/explain", {"item": "f001", "user": "u0001"}),
        ("/items", "/items", {"search": "the", "limit": 3}),
        ("/items/{item:path}", "/items/f001", {}),
        ("/users", "/users", {"search": "U000"}),
        ("/onboard", "/onboard", {}),
        ("/ready", "/ready", {}),
    ]:
        kind = next(e.answer for e in ENDPOINTS if e.path == endpoint and e.method == "GET")
        answer = client.get(path, **query)
        assert answer.status == 200, answer.body
        TypeAdapter(kind).validate_json(answer.body, strict=True)


def test_searches_find_parts_of_ids_and_titles(client, bundles):
    import pandas as pd

    items = pd.read_csv(bundles["als"].parent / "data" / "items.csv")
    title = items.title[7]
    assert client.get("/items", search=title.upper()).json["items"][0]["title"] == title
    assert [item["item"] for item in client.get("/items", search="F00", limit=4).json["items"]] == [
        "f000", "f001", "f002", "f003",
    ]  # fmt: skip
    assert client.get("/users", search="u000", limit=100).json["users"] == sorted(
        set(pd.read_parquet(bundles["als"] / "split" / "history.parquet").user_id[lambda ids: ids.str.contains("u000")])
    )


def test_a_quick_list_is_made_at_once_and_never_beside_another_one(make_client, monkeypatch):
    client = make_client()
    release = threading.Event()
    threads = []
    for name, is_quick in (("als", True), ("hybrid", False)):
        model = client.service.registry.model(name)

        def record(*arguments, make_list=model.recommend, waits=not is_quick):
            threads.append(threading.current_thread())
            assert not waits or release.wait(20)
            return make_list(*arguments)

        monkeypatch.setattr(model, "recommend", record)
        monkeypatch.setattr(model, "is_quick", lambda request, is_quick=is_quick: is_quick)

    def get_list(name):
        return asyncio.create_task(client.acall("GET", "/recommend", query={"user": "u00001", "model": name}))

    async def three():
        first = await get_list("als")
        slow = get_list("hybrid")
        while len(threads) < 2:
            await asyncio.sleep(0)
        second = get_list("als")
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(threads) == 2
        release.set()
        return first, await slow, await second

    first, slow, second = asyncio.run(three())
    assert threads[0] is threading.main_thread()
    assert threads[1] is threads[2] is not threading.main_thread()
    assert first.json["items"] == second.json["items"]
    assert slow.status == 200


def test_a_service_uses_one_thread_of_blas_from_its_start_on(make_client):
    blas = ThreadpoolController().select(user_api="blas")
    with blas.limit(limits=2):
        make_client()
        assert {library["num_threads"] for library in blas.info()} == {1}


@pytest.mark.parametrize(
    "wish",
    [{"reasons": True}, {"details": True}, {"k": 500}, {"only": ["f001"]}, {"rules": {}}, {"history": ["f001"] * 500}],
    ids=lambda wish: next(iter(wish)),
)
def test_only_a_plain_request_is_quick(registry, monkeypatch, wish):
    model = registry.model("als")
    monkeypatch.setattr(model, "_seconds", 1e-4)
    assert model.is_quick(ListRequest(user="u00001"))
    assert not model.is_quick(ListRequest(user="u00001", **wish))
    monkeypatch.setattr(model, "_seconds", 1.0)
    assert not model.is_quick(ListRequest(user="u00001"))


def test_a_search_does_not_wait_for_lists(make_client):
    client = make_client(limits=Limits(seconds=5))
    release = threading.Event()
    client.service._scoring.submit(release.wait, 20)
    try:
        assert client.get("/items", search="f00").status == 200
        assert client.get("/users", search="u00").status == 200
    finally:
        release.set()


def test_metrics_count_requests_by_route_and_not_by_what_clients_send(make_client):
    client = make_client()
    for item in ("f001", "f002", "zzz"):
        client.get(f"/items/{item}")
    client.get("/nothing/here")
    text = client.get("/metrics").body.decode()
    assert 'recsys_requests_total{route="/items/{item:path}",method="GET",status="200"} 2' in text
    assert 'recsys_requests_total{route="/items/{item:path}",method="GET",status="404"} 1' in text
    assert 'recsys_request_seconds_count{route="/items/{item:path}"} 3' in text
    assert "zzz" not in text
    assert "nothing" not in text
    assert 'recsys_model_info{model="als",kind="als",version="' in text
    buckets = [int(n) for n in re.findall(r'bucket\{route="/items/\{item:path\}",le="[^"]*"\} (\d+)', text)]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3
    for line in text.splitlines():
        assert re.fullmatch(r'# TYPE \w+ (counter|gauge|histogram)|\w+(\{(\w+="[^"\n]*",?)*\})? [-+.e\d]+', line), line


class RecordedTransport(asyncio.Transport):
    """A connection that keeps what is sent, one entry per call."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def write(self, data):
        self.sent.append(data)

    def is_closing(self):
        return False

    def close(self):
        self.sent.append("closed")


@pytest.mark.parametrize("is_last", [False, True])
def test_an_answer_is_sent_at_once(client, is_last):
    config = make_config(client.application, 10)
    config.load()
    transport = RecordedTransport()

    async def ask():
        protocol = config.http_protocol_class(config, ServerState(), {})
        protocol.connection_made(transport)
        connection = b"Connection: close\r\n" if is_last else b""
        protocol.data_received(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + connection + b"\r\n")
        async with asyncio.timeout(20):
            while not transport.sent:
                await asyncio.sleep(0)

    asyncio.run(ask())
    answer = transport.sent[0]
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'\r\n\r\n{"status":"ok"}')
    assert transport.sent[1:] == ["closed"] * is_last
