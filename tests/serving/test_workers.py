"""Several processes behind one socket answer as one server, and outlive each other but not their parent."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from serving_process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]


def worker_of(server, connection):
    """Return the number of the worker at the other end of a connection, by the label of its metrics."""
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    numbers = set(re.findall(r'^[a-z_]+\{worker="(\d)"', text, re.MULTILINE))
    assert len(numbers) == 1, text
    assert all(line.startswith("#") or "{worker=" in line for line in text.splitlines()), text
    return int(numbers.pop())


@contextlib.contextmanager
def connected_to(server, processes, worker):
    """Connect to one worker, while the others are stopped and cannot accept."""
    others = [process for number, process in processes.items() if number != worker]
    for process in others:
        process.suspend()
    try:
        connection = server.connect()
        assert worker_of(server, connection) == worker
    finally:
        for process in others:
            process.resume()
    with contextlib.closing(connection):
        yield connection


def started(lines):
    """Return number of worker -> its process, from what the server prints."""
    found = re.findall(r"worker (\d): process (\d+)", "".join(lines))
    return {int(number): psutil.Process(int(process_id)) for number, process_id in found}


def test_workers_are_one_server(bundles, tmp_path):
    shutil.copytree(bundles["als"], tmp_path / "bundle")
    with ServerProcess(f"film={tmp_path}/bundle", "--store", tmp_path / "e.db", "--workers", 2) as server:
        processes = started(server.lines)
        assert sorted(processes) == [1, 2]
        with connected_to(server, processes, 1) as one, connected_to(server, processes, 2) as two:
            # What one worker stores is in the next list of the other.
            events = {"events": [{"id": "1", "user": "u0001", "item": "f003"}]}
            assert server.call("POST", "/events", events, one)[1]["accepted"] == 1
            assert server.call("GET", "/recommend?user=u0001", None, two)[1]["new_events"] == 1
            assert server.call("POST", "/events", events, two)[1]["repeated"] == 1
            # SIGHUP reaches all of them.
            before = server.call("GET", "/ready", None, one)[1]["models"][0]["version"]
            shutil.rmtree(tmp_path / "bundle")
            shutil.copytree(bundles["hybrid"], tmp_path / "bundle")
            server.process.send_signal(signal.SIGHUP)
            for _ in processes:
                server.read_until("is served from now on")
            for connection in (one, two):
                model = server.call("GET", "/ready", None, connection)[1]["models"][0]
                assert (model["kind"], model["version"] == before) == ("hybrid", False)
        # A worker that dies is started again, and the other one answers meanwhile.
        processes[1].kill()
        assert server.call("GET", "/recommend?user=u0001")[0] == 200
        restarted = started(server.read_until("worker 1: process"))
        with connected_to(server, {2: processes[2]} | restarted, 1) as one:
            assert server.call("GET", "/recommend?user=u0001", None, one)[1]["new_events"] == 1
        code, printed = server.end(signal.SIGTERM)
        assert (code, printed.splitlines()[-1]) == (0, "ended")
        assert not psutil.pid_exists(processes[2].pid)


def test_workers_end_with_their_parent(bundles):
    with ServerProcess(bundles["als"], "--workers", 2) as server:
        processes = started(server.lines)
        server.process.kill()
        # Processes that are no children of this one cannot be waited for, so psutil polls them.
        _, alive = psutil.wait_procs(list(processes.values()), timeout=60)
        assert alive == []


def test_workers_that_cannot_start_say_why_once(tmp_path):
    program = [sys.executable, "-c", "from recsys.cli import main; main()"]
    words = ["serve", tmp_path / "nothing", "--workers", "2", "--port", "0"]
    ended = subprocess.run([*program, *words], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("error: ") == len(ended.stderr.splitlines()) == 1
