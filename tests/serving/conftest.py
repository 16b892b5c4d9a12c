"""What the tests of serving share: two bundles of one run, and a client that calls an application without a socket."""

import asyncio
import json
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest
from builders import run_locally

MARKUP = "<img src=x onerror=document.title='attacked'> & \"so\""
"""A title that a page must show as it is."""

pytest.importorskip("starlette", reason="the extra serve is not installed")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Name -> bundle: a hybrid with cold items and an ALS, over 1,100 users, 100 of them without a history."""
    from recsys.data.synthetic import film_world, write_world
    from recsys.saved.bundle import bundle_run

    place = tmp_path_factory.mktemp("bundles")
    world = film_world(users=1100, items=120, events=9000, seed=3)
    world.items.loc[7, "title"] = MARKUP
    files = write_world(world, place / "data")
    models = {"hybrid": {"parts": ["popular", "rp3beta", "content"]}, "als": {"rank": 4, "iterations": 3}}
    fallback = {"fallback": "segment", "segment": ["country"]}
    run = run_locally(place / "run", files, models, ("events", "items", "users"), recommend=fallback)
    for name in models:
        bundle_run(run, place / name, name)
    return {name: place / name for name in models}


@dataclass
class Answer:
    """One answer of an application."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Client:
    """Calls an ASGI application in this process."""

    application: object
    headers: dict = field(default_factory=dict)

    def call(self, method, path, body=None, query=(), headers=()):
        """Send one request. A body that is not bytes is sent as JSON."""
        return asyncio.run(self.acall(method, path, body, query, headers))

    async def acall(self, method, path, body=None, query=(), headers=()):
        sent = {"host": "test"} | self.headers | dict(headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("content-type", "application/json")
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"}
        scope |= {"path": path, "raw_path": path.encode(), "query_string": urlencode(query, doseq=True).encode()}
        scope |= {"root_path": "", "client": ("127.0.0.1", 1), "server": ("test", 80), "state": {}}
        scope["headers"] = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()]
        messages = []

        async def receive():
            # The event loop has a turn for its other tasks, as when a server waits for a socket.
            await asyncio.sleep(0)
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message):
            await asyncio.sleep(0)
            messages.append(message)

        await self.application(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return Answer(messages[0]["status"], headers, b"".join(m.get("body", b"") for m in messages[1:]))

    def get(self, path, **query):
        return self.call("GET", path, query=query)

    def post(self, path, body, **headers):
        return self.call("POST", path, body, headers=headers)


@pytest.fixture(scope="session")
def registry(bundles):
    """Both bundles, opened once."""
    from recsys.serving.registry import Registry

    return Registry(bundles)


@pytest.fixture
def make_client(registry):
    """Return a function that makes a client of a service with some settings; what it starts is ended."""
    from recsys.serving.application import make_application
    from recsys.serving.service import Service

    services = []

    def make(api_key=None, hosts=None, **settings):
        services.append(Service(settings.pop("registry", registry), **settings))
        client = Client(make_application(services[-1], api_key, hosts))
        client.service = services[-1]
        return client

    yield make
    for service in services:
        service.close()


@pytest.fixture
def client(make_client):
    """A client of a service with its defaults."""
    return make_client()
