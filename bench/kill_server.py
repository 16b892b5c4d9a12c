"""Kill a server at random moments under writes: no acknowledged event is lost, none is stored twice.

    PYTHONPATH=.:tests python bench/kill_server.py BUNDLE [KILLS] [STORE]

STORE is a file, or a URL postgresql://…; default: a new SQLite file. The exit code is 1 if an event was lost or
stored twice.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
from pathlib import Path

from serving_process import ServerProcess, send_events

from recsys.serving.event_store import EVENTS, EventStore


def kill_once(bundle: Path, store: str, number: int, acknowledged: list[str], unanswered: list[dict]) -> list[dict]:
    """Start a server, send again what had no answer, and kill it while it writes; return what has no answer now."""
    with ServerProcess(bundle, "--store", store) as server:
        for event in unanswered:
            assert server.call("POST", "/events", {"events": [event]})[0] == 202
            acknowledged.append(event["id"])
        threading.Timer(random.random() * 0.5, server.process.kill).start()
        return send_events(server, acknowledged, f"{store}-{number}-{random.random()}", lambda sent: False)


def main(bundle: Path, kills: int, store: str | None) -> int:
    """Kill, compare, report."""
    with tempfile.TemporaryDirectory() as folder:
        location = store or f"{folder}/events.db"
        acknowledged: list[str] = []
        unanswered: list[dict] = []
        for number in range(kills):
            unanswered = kill_once(bundle, location, number, acknowledged, unanswered)
        opened = EventStore(location)
        stored = [event_id for piece in opened.read(EVENTS) for event_id in piece["event_id"]]
        opened.close()
    lost = set(acknowledged) - set(stored)
    doubled = len(stored) - len(set(stored))
    print(f"{kills} kills, {len(acknowledged):,} events acknowledged: {len(lost)} lost, {doubled} twice")
    return int(bool(lost or doubled))


if __name__ == "__main__":
    words = sys.argv[2:]
    sys.exit(main(Path(sys.argv[1]), int(words[0]) if words else 200, words[1] if len(words) > 1 else None))
