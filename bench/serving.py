"""Answers per second and their times, beside a minimal server around implicit on the same stack.

    PYTHONPATH=.:tests python bench/serving.py [ITEMS ...] [--seconds SECONDS]

Items have random factors of rank 64, 2,000 users have 50 events each. Both servers are Starlette on uvicorn, one
process, and score in one thread on one core; the client is in a process of its own, with 1 and with 8 connections. Then
both get requests at one rate, half of what the slower one reached with 8 connections, whether or not the answers are
there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section
from scipy.sparse import csr_array

RANK, USERS, EVENTS = 64, 2_000, 50
ROUNDS = 5

LOADS = {"1 connection": 1, "8 connections": 8, "half of the lower peak": 8}
"""Name of a load -> number of connections, in the order in which the loads are measured."""


def world(items: int) -> tuple[np.ndarray, np.ndarray, csr_array]:
    """Return item factors, user factors and histories, all random."""
    rng = np.random.default_rng(0)
    item_factors = rng.normal(scale=0.1, size=(items, RANK)).astype(np.float32)
    user_factors = rng.normal(scale=0.1, size=(USERS, RANK)).astype(np.float32)
    rows = np.sort(np.array([rng.choice(items, EVENTS, replace=False) for _ in range(USERS)]), axis=1)
    indptr = np.arange(0, USERS * EVENTS + 1, EVENTS, dtype=np.int32)
    values = csr_array(
        (np.ones(USERS * EVENTS, np.float32), rows.ravel().astype(np.int32), indptr), shape=(USERS, items)
    )
    return item_factors, user_factors, values


def our_application(items: int) -> object:
    """Return the application of recsys around a saved model that is made here."""
    from recsys.config import parse_config
    from recsys.models.collaborative.als import ALS
    from recsys.report.reasons import Reasons
    from recsys.saved.open_model import SavedModel
    from recsys.serving.application import make_application
    from recsys.serving.registry import Registry
    from recsys.serving.served_model import ServedModel
    from recsys.serving.service import Service
    from recsys.types import IdMap, Interactions

    item_factors, user_factors, values = world(items)
    als = ALS.from_factors(item_factors, np.ones(items, dtype=bool), alpha=10.0, reg=0.1, nu=1.0, beta=0.0)
    ids = IdMap.from_ids(np.arange(items))
    user, item = np.repeat(np.arange(USERS), EVENTS).astype(np.int32), values.indices
    times = np.full(len(item), -1, dtype=np.int64)
    history = Interactions(IdMap.from_ids(np.arange(USERS)), ids, user, item, values.data, times)
    config = parse_config({"data": {"events": "none"}, "models": {"als": {}}})
    item_table = pd.DataFrame({"item_id": np.arange(items)})
    saved = SavedModel("als", als, history, item_table, config, user_factors)
    served = ServedModel("als", Path(), saved, "0", [str(n) for n in range(items)], None, Reasons(item_table), "now")
    served.warm()
    registry = Registry({})
    registry.replace(served)
    return make_application(Service(registry))


def implicit_application(items: int) -> object:
    """Return the smallest application around implicit that leaves out what was seen and folds in a history."""
    from concurrent.futures import ThreadPoolExecutor

    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route
    from threadpoolctl import threadpool_limits

    item_factors, user_factors, values = world(items)
    model = AlternatingLeastSquares(factors=RANK, num_threads=1)
    model.item_factors, model.user_factors = item_factors, user_factors
    seen = csr_matrix((values.data, values.indices, values.indptr), shape=values.shape)
    executor = ThreadPoolExecutor(1, initializer=lambda: threadpool_limits(1))

    def answer_of(rows: csr_matrix, user: int, recalculate: bool) -> bytes:
        listed, scores = model.recommend(user, rows, N=10, recalculate_user=recalculate)
        answer = [{"item": str(i), "score": float(s)} for i, s in zip(listed, scores, strict=True)]
        return json.dumps({"items": answer}).encode()

    async def of_user(request: object) -> Response:
        user = int(request.query_params["user"])
        loop = asyncio.get_running_loop()
        return Response(await loop.run_in_executor(executor, answer_of, seen[user], user, False))

    async def of_history(request: object) -> Response:
        rows = [int(item) for item in (await request.json())["history"]]
        history = csr_matrix((np.ones(len(rows), np.float32), rows, [0, len(rows)]), shape=(1, items))
        loop = asyncio.get_running_loop()
        return Response(await loop.run_in_executor(executor, answer_of, history, 0, True))

    return Starlette(routes=[Route("/recommend", of_user), Route("/recommend", of_history, methods=["POST"])])


def serve(name: str, items: int) -> None:
    """Serve one application on a free port, and print the port."""
    import uvicorn

    from recsys.serving.server import bind, make_config

    if name == "recsys":
        config = make_config(our_application(items), seconds=10)
    else:
        application = implicit_application(items)
        config = uvicorn.Config(
            application, log_config=None, access_log=False, lifespan="off", http="h11", loop="asyncio"
        )
    listener = bind("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    asyncio.run(uvicorn.Server(config).serve([listener]))


async def load(
    port: int, requests: list[bytes], connections: int, seconds: float, rate: float | None = None
) -> list[float]:
    """Send requests on some connections for a time, and return the seconds of each answer.

    Args:
        rate: the number of requests per second, at equal intervals. The time of an answer counts from the moment at
            which its request was due, so waiting for the answer before it counts. None: each connection sends its
            next request when it has an answer.
    """
    times: list[float] = []
    begin = time.perf_counter()

    async def one(number: int) -> None:
        rng = random.Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = begin + number / (rate or np.inf)
        while max(due, time.perf_counter()) < begin + seconds:
            start = time.perf_counter()
            if rate is not None:
                if start < due:
                    await asyncio.sleep(due - start)
                    # The client itself wakes up to a millisecond late, which is not the time of the answer.
                    start = time.perf_counter()
                else:
                    start = due
                # The next request is due at its time even so: otherwise all connections would soon ask at once.
                due += connections / rate
            writer.write(rng.choice(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            times.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(one(number) for number in range(connections)))
    return times


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in user and kernel mode, in seconds."""
    # The second field, the name of the command, may have blanks; it ends at the last parenthesis.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests_of(items: int) -> dict[str, list[bytes]]:
    """Return kind of request -> requests as bytes."""
    rng = random.Random(1)
    known = [
        f"GET /recommend?user={rng.randrange(USERS)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for _ in range(500)
    ]
    folded = []
    for _ in range(200):
        body = json.dumps({"history": [str(item) for item in rng.sample(range(items), EVENTS)]}).encode()
        head = "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        folded.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return {"known user": known, "fold-in of 50": folded}


@dataclass(frozen=True)
class Server:
    """A process that serves one of the two applications."""

    process: int
    port: int


@contextmanager
def running(name: str, items: int) -> Iterator[Server]:
    """Serve one of the two applications in a process of its own, for the time of the block."""
    command = [sys.executable, __file__, "--serve", name, str(items)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(process.pid, int(process.stdout.readline()))
        process.terminate()


def measure(
    servers: dict[str, Server], requests: list[bytes], connections: int, seconds: float, rate: float | None
) -> dict[str, np.ndarray]:
    """Return for each server: answers per second, p50, p99 and CPU time of an answer in ms, medians over the rounds.

    The servers take turns, because the speed of a shared machine changes within minutes.

    Args:
        rate: as for :func:`load`.
    """
    figures: dict[str, list[list[float]]] = {name: [] for name in servers}
    for _ in range(ROUNDS):
        for name, server in servers.items():
            before = cpu_seconds(server.process)
            times = 1000 * np.array(asyncio.run(load(server.port, requests, connections, seconds, rate)))
            cpu = 1000 * (cpu_seconds(server.process) - before) / len(times)
            figures[name].append([len(times) / seconds, *np.quantile(times, [0.5, 0.99]), cpu])
    return {name: np.median(rounds, axis=0) for name, rounds in figures.items()}


def main(seconds: float, sizes: list[int]) -> None:
    """Measure and write the section."""
    rows = []
    for items in sizes:
        with running("recsys", items) as ours, running("implicit", items) as theirs:
            servers = {"recsys": ours, "implicit": theirs}
            for kind, requests in requests_of(items).items():
                for server in servers.values():
                    asyncio.run(load(server.port, requests, 1, 1))
                rate = None
                for load_name, connections in LOADS.items():
                    medians = measure(servers, requests, connections, seconds, rate)
                    for name, (answers, *times) in medians.items():
                        label = f"{name}, {items:,} items, {kind}"
                        rows.append([label, load_name, f"{answers:,.0f}", *(f"{ms:.2f}" for ms in times)])
                    if connections > 1:
                        rate = min(answers for answers, *_ in medians.values()) / 2
    heads = ["", "load", "answers/s", "p50, ms", "p99, ms", "CPU of the server, ms"]
    rounds = f"Medians of {ROUNDS} rounds of {seconds:g} seconds, in which the two take turns"
    note = f"{rounds}; server and client share the cores."
    words = " ".join(map(str, sizes))
    command = f"PYTHONPATH=.:tests python bench/serving.py {words} --seconds {seconds:g}"
    write_section("serving", "Serving", command, f"{note}\n\n{table(heads, rows)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("items", nargs="*", type=int, default=[27_000, 1_000_000])
        parser.add_argument("--seconds", type=float, default=2.0)
        arguments = parser.parse_args()
        main(arguments.seconds, arguments.items)
