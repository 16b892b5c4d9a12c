"""Kill a server at random moments under writes: no acknowledged event is lost, none is stored twice.

    PYTHONPATH=.:tests python bench/kill_server.py [KILLS] [URL]

Writes to a new SQLite file, and then to the PostgreSQL database of URL, postgresql://…, if there is one. The exit
code is 1 if an event was lost or stored twice.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from results import table, write_section
from serving_memory import make_bundle
from serving_process import ServerProcess, send_events

from recsys.serving.event_store import EVENTS, EventStore

ITEMS = 1_000
"""The number of items of the bundle that is served."""

MAX_SECONDS = 0.5
"""A server is killed after a random time up to this, from the first event on."""


def kill_once(bundle: Path, store: str, prefix: str, acknowledged: list[str], unanswered: list[dict]) -> list[dict]:
    """Start a server, send again what had no answer, and kill it while it writes; return what has no answer now."""
    with ServerProcess(bundle, "--store", store) as server:
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
        for kind, store in stores.items():
            acknowledged, lost, doubled = kill_often(bundle, store, kills)
            rows.append([kind, str(kills), f"{acknowledged:,}", str(lost), str(doubled)])
            is_wrong |= bool(lost or doubled)
    body = f"A server is killed (kill -9) up to {MAX_SECONDS:g} seconds after its first event is sent, and started again.\n\n"
    body += table(["store", "kills", "events acknowledged", "lost", "stored twice"], rows)
    words = f"{kills} postgresql://…" if url is not None else str(kills)
    command = f"PYTHONPATH=.:tests python bench/kill_server.py {words}"
    write_section("kill_server", "Events under kill -9", command, body)
    return int(is_wrong)


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(int(words[0]) if words else 200, words[1] if len(words) > 1 else None))
