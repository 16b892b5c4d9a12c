"""Memory of a server: over many requests, and of several workers that share one bundle.

    PYTHONPATH=.:tests python bench/serving_memory.py [REQUESTS] [ITEMS]

Serves a bundle of ITEMS × 64 random factors, with a store. REQUESTS lists of known users and of histories of 50 are
asked for on four connections (default: 20,000 lists, 200,000 items); resident memory is read before, and after each
tenth of them. Then the same bundle is served by one and by two workers: their memory without and with what they
share (the unique and the proportional set size).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import psutil
from builders import run_locally
from results import table, write_section
from serving_process import ServerProcess

from recsys import run_files
from recsys.config import load_config
from recsys.data.synthetic import film_world, write_world
from recsys.models.collaborative.als import ALS
from recsys.runfolder import RunFolder
from recsys.saved.bundle import write_bundle
from recsys.saved.open_model import SavedModel
from recsys.types import IdMap, Interactions

RANK, USERS, EVENTS, CONNECTIONS = 64, 2_000, 50, 4
MIB = 2**20


def make_bundle(folder: Path, items: int) -> Path:
    """Write a bundle of random factors. Its config is that of a small run."""
    rng = np.random.default_rng(0)
    world = film_world(users=50, items=40, events=500, seed=1)
    small = {"als": {"rank": 4, "iterations": 1}}
    run = run_locally(folder / "run", write_world(world, folder / "data"), small, ("events",))
    factors = rng.normal(scale=0.1, size=(items, RANK)).astype(np.float32)
    als = ALS.from_factors(factors, np.ones(items, dtype=bool), alpha=10.0, reg=0.1, nu=1.0, beta=0.0)
    rows = np.sort(np.array([rng.choice(items, EVENTS, replace=False) for _ in range(USERS)]), axis=1).ravel()
    user = np.repeat(np.arange(USERS), EVENTS).astype(np.int32)
    value, time = np.ones(len(user), dtype=np.float32), np.arange(len(user), dtype=np.int64)
    ids = IdMap.from_ids(np.arange(items))
    history = Interactions(IdMap.from_ids(np.arange(USERS)), ids, user, rows.astype(np.int32), value, time)
    source = RunFolder.open(run)
    config = load_config(source.path / run_files.CONFIG)
    saved = SavedModel("als", als, history, pd.DataFrame({"item_id": ids.all_ids}), config)
    write_bundle(saved, folder / "bundle", source, sources=[run])
    return folder / "bundle"


def requests_of(items: int, seed: int) -> Iterator[bytes]:
    """Yield requests without end: lists of known users and of histories, in turn."""
    rng = random.Random(seed)
    while True:
        yield f"GET /recommend?user={rng.randrange(USERS)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        body = json.dumps({"history": rng.sample(range(items), EVENTS)}).encode()
        head = "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        yield f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(port: int, items: int, count: int, seed: int) -> None:
    """Ask for lists on several connections. Every answer must be a list."""

    async def one(number: int) -> None:
        requests = requests_of(items, CONNECTIONS * seed + number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count // CONNECTIONS):
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = re.search(rb"content-length: (\d+)", head.lower())
            await reader.readexactly(int(length[1]))
        writer.close()

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))


def memory_over_requests(bundle: Path, store: Path, items: int, requests: int) -> list[list[str]]:
    """Return rows: requests so far, resident MiB of the server."""
    rows = []
    with ServerProcess(bundle, "--store", store) as server:
        process = psutil.Process(server.process.pid)
        port = urlsplit(server.url).port
        # The first lists fill caches and start threads.
        asyncio.run(ask(port, items, 400, 0))
        for part in range(11):
            if part:
                asyncio.run(ask(port, items, requests // 10, part))
            rows.append([f"{requests * part // 10:,}", f"{process.memory_info().rss / MIB:,.0f}"])
        server.end(signal.SIGTERM)
    return rows


def memory_of_workers(bundle: Path, items: int, count: int) -> list[str]:
    """Return a row: the workers, and the MiB of all of them after some lists: resident, unique, proportional."""
    with ServerProcess(bundle, "--workers", count) as server:
        printed = "".join(server.lines)
        processes = [psutil.Process(int(number)) for number in re.findall(r"process (\d+)", printed)]
        processes = processes or [psutil.Process(server.process.pid)]
        asyncio.run(ask(urlsplit(server.url).port, items, 400, 0))
        sizes = [process.memory_full_info() for process in processes]
        server.end(signal.SIGTERM)
    sums = [sum(getattr(size, name) for size in sizes) / MIB for name in ("rss", "uss", "pss")]
    return [str(count), *(f"{size:,.0f}" for size in sums)]


def main(requests: int, items: int) -> None:
    """Measure and write the section."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder, items)
        rows = memory_over_requests(bundle, folder / "events.db", items, requests)
        workers = [memory_of_workers(bundle, items, count) for count in (1, 2)]
    size = items * RANK * 4 / MIB
    body = f"{items:,} items × {RANK} ({size:,.0f} MiB of factors), {CONNECTIONS} connections, with a store.\n\n"
    body += table(["lists so far", "resident, MiB"], rows) + "\n\n"
    body += table(["workers", "resident, MiB", "unique, MiB", "proportional, MiB"], workers)
    command = f"PYTHONPATH=.:tests python bench/serving_memory.py {requests} {items}"
    write_section("serving_memory", "Memory of a server", command, body)


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    main(words[0] if words else 20_000, words[1] if len(words) > 1 else 200_000)
