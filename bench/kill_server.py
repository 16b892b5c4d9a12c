"""Kill a server at random moments under writes: no acknowledged event is lost, none is stored twice.

    PYTHONPATH=.:tests python bench/kill_server.py [KILLS] [URL]

Writes to a new SQLite file and, at the same time, to the PostgreSQL database of URL, postgresql://…, if one is given.
The exit code is 1 if an event was lost or stored twice.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from results import table, write_section
from serving_memory import make_bundle
from serving_process import ServerProcess, send_events

from recsys.serving.application import make_application
from recsys.serving.event_store import EVENTS, EventStore
from recsys.serving.registry import Registry
from recsys.serving.server import bind, serve, url_of
from recsys.serving.service import Service

ITEMS = 1_000
"""The number of items of the bundle that is served."""

MAX_SECONDS = 0.5
"""A server is killed after a random time up to this, from the first event on."""


CONTEXT = multiprocessing.get_context("forkserver")
# The imports of a server take seconds, so it is forked from a process that has them.
CONTEXT.set_forkserver_preload(["builders", "recsys.serving.application", "recsys.serving.server"])


def serve_bundle(bundle: Path, store: str, pipe: Connection) -> None:
    """Serve a bundle on a free port until the process is killed, and send its URL."""
    service = Service(Registry({"als": bundle}), store=EventStore(store))
    listener = bind("127.0.0.1", 0)
    serve(make_application(service), service, listener, lambda: pipe.send(url_of(listener)))


class ForkedServer(ServerProcess):
    """A server with a store, in a process of its own, ready when this object is made."""

    def __init__(self, bundle: Path, store: str) -> None:
        receiver, sender = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=serve_bundle, args=(bundle, store, sender))
        self.process.start()
        sender.close()
        self.url = receiver.recv()

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.join()


def kill_once(bundle: Path, store: str, prefix: str, acknowledged: list[str], unanswered: list[dict]) -> list[dict]:
    """Start a server, send again what had no answer, and kill it while it writes; return what has no answer now."""
    with ForkedServer(bundle, store) as server:
        for event in unanswered:
            assert server.call("POST", "/events", {"events": [event]})[0] == 202
            acknowledged.append(event["id"])
        threading.Timer(random.random() * MAX_SECONDS, server.process.kill).start()
        return send_events(server, acknowledged, prefix, lambda sent: False)


def kill_often(bundle: Path, store: str, kills: int) -> tuple[int, int, int]:
    """Return how many events a store acknowledged over many kills, lost, and stored more than once."""
    acknowledged: list[str] = []
    unanswered: list[dict] = []
    # The database of a URL may have events of an earlier measurement.
    start = time.time_ns()
    for number in range(kills):
        unanswered = kill_once(bundle, store, f"{start}-{number}", acknowledged, unanswered)
    opened = EventStore(store)
    stored = [event_id for piece in opened.read(EVENTS) for event_id in piece["event_id"]]
    opened.close()
    return len(acknowledged), len(set(acknowledged) - set(stored)), len(stored) - len(set(stored))


def main(kills: int, url: str | None) -> int:
    """Kill, compare, and write the section."""
    rows = []
    is_wrong = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder, ITEMS)
        stores = {"SQLite": str(folder / "events.db")}
        if url is not None:
            stores["PostgreSQL"] = url
        with ThreadPoolExecutor(len(stores)) as executor:
            counts = list(executor.map(lambda store: kill_often(bundle, store, kills), stores.values()))
        for kind, (acknowledged, lost, doubled) in zip(stores, counts, strict=True):
            rows.append([kind, str(kills), f"{acknowledged:,}", str(lost), str(doubled)])
            is_wrong |= bool(lost or doubled)
    body = f"A server is killed (kill -9) up to {MAX_SECONDS:g} seconds after its first event, and started again.\n\n"
    body += table(["store", "kills", "events acknowledged", "lost", "stored twice"], rows)
    words = f"{kills} postgresql://…" if url is not None else str(kills)
    command = f"PYTHONPATH=.:tests python bench/kill_server.py {words}"
    write_section("kill_server", "Events under kill -9", command, body)
    return int(is_wrong)


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(int(words[0]) if words else 200, words[1] if len(words) > 1 else None))
