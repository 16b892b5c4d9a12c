"""Hostile requests to a server: never an answer of 500 or more, never a hang, never a stack trace.

    PYTHONPATH=.:tests python bench/fuzz_serving.py BUNDLE [REQUESTS] [SEED]

Requests are random mixtures of what endpoints take and of what they must refuse: wrong types, huge numbers, NaN,
odd Unicode, deep nesting, long texts, broken bytes, wrong methods, paths and headers. Prints the statuses, and each
complaint with its request; the exit code is 1 if there is one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote, urlencode

from serving_process import ServerProcess

STRINGS = ["", " ", "u0001", "f001", "f0001", "nobody", "\0", "\ud800", "é" * 300, "x" * 600, "x" * 5000, "‮abc", "🙂"]
STRINGS += [
    "-1",
    "0",
    "1e999",
    "NaN",
    "true",
    "null",
    "../../etc/passwd",
    "'; DROP TABLE recsys_events; --",
    "<script>",
]
STRINGS += ["%00", "%", "a\nb", "item_id", "title", "genres", "als", "hybrid", "like", "9" * 5000, "1970-01-01"]
NUMBERS = [0, 1, -1, 3, 10, 1000, 1001, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 1e-308, 1e30]
LITERALS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-0",
    "1E400",
    "00",
    "tru",
    "[",
    "{",
    '{"a":',
    '"\\ud800"',
    "\ufeff{}",
]
FIELDS = ["user", "k", "history", "exclude", "only", "rules", "attributes", "reasons", "details", "model", "explore"]
FIELDS += ["requests", "events", "answers", "item", "id", "value", "timestamp", "event", "a", "b", "search", "limit"]
FIELDS += [
    "allow",
    "deny",
    "deny_for",
    "where",
    "available",
    "quota",
    "field",
    "any_of",
    "none_of",
    "at_least",
    "at_most",
]
FIELDS += ["from_field", "until_field", "at", "answer", "zzz", ""]
PATHS = ["/recommend", "/recommend/batch", "/events", "/similar", "/explain", "/items", "/items/f001", "/users"]
PATHS += [
    "/onboard",
    "/agreement",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/",
    "/page/page.js",
    "/page/../x",
]
POSTS = ["/recommend", "/recommend/batch", "/events", "/onboard", "/agreement"]


def value(rng: random.Random, depth: int = 0) -> object:
    """Return a random value of JSON."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind < 2:
        return rng.choice(STRINGS)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice([True, False, None, float("nan"), float("inf")])
    if kind == 5:
        return f"f{rng.randrange(400):03d}"
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 5, 30]))]
    return {rng.choice(FIELDS): value(rng, depth + 1) for _ in range(rng.randrange(5))}


def likely_body(rng: random.Random, path: str) -> object:
    """Return a body that is nearly what an endpoint takes: one part of it may be anything."""
    items = [f"f{rng.randrange(400):03d}" for _ in range(rng.randrange(6))]
    user = rng.choice(["u0001", "u0002", "nobody", 7])
    rules = {
        "deny": items,
        "where": [
            {"field": rng.choice(["genres", "year", "title", "zz"]), rng.choice(["any_of", "none_of"]): ["drama", 1]}
        ],
        "quota": [{"field": "genres", "at_most": rng.choice([0, 1, 5])}],
        "deny_for": {"u0001": items},
    }
    request = {"user": user, "history": items, "k": rng.choice([1, 10, 1000]), "rules": rules, "only": items}
    for name in list(request):
        if rng.random() < 0.4:
            del request[name]
    body = {
        "/recommend": request,
        "/recommend/batch": {"requests": [request, {}]},
        "/events": {"events": [{"user": user, "item": "f001", "value": rng.choice([1, -2.5]), "timestamp": 5}]},
        "/onboard": {"answers": [{"item": item, "answer": rng.choice(["like", "dislike"])} for item in items]},
        "/agreement": {"a": items, "b": items[::-1]},
    }[path]
    return spoil(rng, body)


def spoil(rng: random.Random, body: object) -> object:
    """Return a body of which one part may be replaced."""
    if rng.random() < 0.15:
        return value(rng)
    if isinstance(body, dict) and body and rng.random() < 0.7:
        name = rng.choice(list(body))
        return body | {rng.choice([name, name, name, rng.choice(FIELDS)]): spoil(rng, body[name])}
    if isinstance(body, list) and body and rng.random() < 0.7:
        place = rng.randrange(len(body))
        return [*body[:place], spoil(rng, body[place]), *body[place + 1 :]]
    return body


def body_bytes(rng: random.Random, path: str) -> bytes:
    """Return a body as bytes, which need not be JSON."""
    if rng.random() < 0.05:
        nested = rng.choice([50, 190, 250, 5_000, 100_000])
        return b'{"rules": ' + rng.choice([b"[" * nested, b'{"where":' * nested, b"[" * nested + b"]" * nested])
    if rng.random() < 0.05:
        return rng.choice(LITERALS).encode("utf-8", "surrogatepass")
    text = json.dumps(likely_body(rng, path), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        place = rng.randrange(len(text) + 1)
        text = (
            text[:place] + bytes(rng.randrange(256) for _ in range(rng.randrange(4))) + text[place + rng.randrange(3) :]
        )
    return text


def request_of(rng: random.Random) -> tuple[str, str, bytes | None, dict[str, str]]:
    """Return (method, target, body, headers) of one request."""
    headers = {
        "Content-Type": rng.choice(["application/json"] * 12 + ["text/plain", "", "application/json; charset=x"])
    }
    if rng.random() < 0.1:
        headers[rng.choice(["X-Request-ID", "Authorization", "X-API-Key", "Accept"])] = quote(
            rng.choice(STRINGS[:7]), ""
        )
    if rng.random() < 0.6:
        path = rng.choice(POSTS)
        return "POST", path, body_bytes(rng, path), headers
    path = rng.choice([*PATHS, "/items/" + quote(rng.choice(STRINGS).encode("utf-8", "surrogatepass"), "")])
    pairs = [(rng.choice(["user", "item", "k", "search", "limit", "model", "reasons", rng.choice(FIELDS)]), None)]
    pairs = [("user", "u0001"), ("item", "f001")] if rng.random() < 0.3 else pairs * rng.randrange(4)
    query = [(name, value(rng, 9) if text is None or rng.random() < 0.3 else text) for name, text in pairs]
    text = urlencode([(name, str(part).encode("utf-8", "surrogatepass")) for name, part in query])
    method = rng.choice(["GET"] * 9 + ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
    return method, f"{path}?{text}" if text else path, None, headers


def complaint_of(status: int, body: bytes, seconds: float) -> str:
    """Return what is wrong with an answer, or empty text."""
    if status >= 500:
        return f"status {status}: {body[:300]!r}"
    if b"Traceback" in body or b'File "/' in body:
        return f"a stack trace: {body[:300]!r}"
    if seconds > 10:
        return f"{seconds:.1f} s"
    return ""


def main(bundle: Path, requests: int, seed: int) -> int:
    """Send the requests and report."""
    rng = random.Random(seed)
    statuses: Counter[str] = Counter()
    complaints: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder, ServerProcess(bundle, "--store", f"{folder}/e.db") as server:
        connection = server.connect()
        for number in range(requests):
            method, target, body, headers = request_of(rng)
            start = time.perf_counter()
            try:
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                content = response.read()
                status = response.status
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                # A server may close the connection over a request that is no HTTP, or has a body that is too large.
                connection.close()
                statuses[type(error).__name__] += 1
                continue
            except (TimeoutError, http.client.HTTPException, ValueError) as error:
                connection.close()
                if not isinstance(error, ValueError):
                    complaints.append(f"{number}: {error!r}: {method} {target[:200]} {(body or b'')[:300]!r}")
                continue
            seconds = time.perf_counter() - start
            slowest = max(slowest, seconds)
            statuses[str(status)] += 1
            if problem := complaint_of(status, content, seconds):
                complaints.append(f"{number}: {problem}: {method} {target[:200]} {(body or b'')[:300]!r}")
        with contextlib.suppress(OSError):
            connection.close()
        alive = server.call("GET", "/health")[0] == 200
        code, printed = server.end(signal.SIGTERM)
    print(
        f"{requests:,} requests: {dict(sorted(statuses.items()))}; slowest {slowest * 1000:.0f} ms;"
        f" alive: {alive}, exit {code}"
    )
    print("\n".join(complaints[:20]))
    if "Traceback" in printed:
        print(printed[-3000:])
    return int(bool(complaints) or not alive or code != 0)


if __name__ == "__main__":
    arguments = sys.argv[2:]
    sys.exit(main(Path(sys.argv[1]), int(arguments[0]) if arguments else 10_000, int((arguments[1:] or ["0"])[0])))
