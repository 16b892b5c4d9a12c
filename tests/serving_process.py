"""``recsys serve`` as a process of its own, for tests and benchmarks."""

import contextlib
import http.client
import json
import re
import subprocess
import sys
from urllib.parse import urlsplit


class ServerProcess:
    """A server on a free port, ready when this object is made.

    Args:
        words: the arguments of ``recsys serve``.
    """

    def __init__(self, *words):
        command = [
            sys.executable,
            "-c",
            "from recsys.cli import main; main()",
            "serve",
            *map(str, words),
            "--port",
            "0",
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.url = ""
        while not self.url:
            line = self.process.stderr.readline()
            if not line:
                raise RuntimeError(f"the server did not start: {''.join(self.lines)}")
            self.lines.append(line)
            if match := re.search(r"serving at (http://\S+)", line):
                self.url = match[1]

    def call(self, method, path, body=None, connection=None):
        """Return (status, JSON) of one request, on a connection of its own unless one is handed over."""
        if connection is None:
            with contextlib.closing(self.connect()) as own:
                return self.call(method, path, body, own)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")

    def connect(self):
        """Return a connection that stays open."""
        address = urlsplit(self.url)
        return http.client.HTTPConnection(address.hostname, address.port, timeout=30)

    def read_until(self, text):
        """Return the lines that the server prints until one has a text."""
        lines = [self.process.stderr.readline()]
        while text not in lines[-1]:
            if not lines[-1]:
                raise RuntimeError(f"the server ended: {''.join(lines)}")
            lines.append(self.process.stderr.readline())
        return lines

    def end(self, signal):
        """Send a signal, and return the exit code and what the server printed since its start."""
        self.process.send_signal(signal)
        rest = self.process.stderr.read()
        self.process.stderr.close()
        return self.process.wait(30), rest

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        if not self.process.stderr.closed:
            self.process.stderr.close()


def send_events(server, acknowledged, prefix, stop):
    """Send events one by one until ``stop(number of acknowledged events)`` or the connection breaks.

    Ids of acknowledged events are added to ``acknowledged``. Returns the events that were sent and not answered.
    """
    number = 0
    with contextlib.closing(server.connect()) as connection:
        while not stop(number):
            event = {"id": f"{prefix}-{number}", "user": f"u{number % 7:04d}", "item": f"f{number % 50:03d}"}
            try:
                status, answer = server.call("POST", "/events", {"events": [event]}, connection)
            except (OSError, http.client.HTTPException, ValueError):
                return [event]
            assert status == 202, answer
            acknowledged.append(event["id"])
            number += 1
    return []
