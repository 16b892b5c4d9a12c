"""Counters and times of requests, as text for Prometheus."""

from __future__ import annotations

import time
from collections import Counter

from recsys.serving.answers import LoadedModel

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper limits of the buckets of the times, in seconds."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What has happened since the start of the process. It is used in one thread, that of the event loop.

    Args:
        worker: the number of the process among the workers of a server, a label of all metrics. None: it
            is the only one.
    """

    def __init__(self, worker: int | None = None) -> None:
        self._worker = worker
        self.started = time.time()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._in_bucket: Counter[tuple[str, float]] = Counter()
        self.events = 0
        self.repeated_events = 0
        self.impressions = 0
        self.lost_impressions = 0
        self.reloads = 0
        self.refused_reloads = 0

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request. ``route`` is a pattern such as ``/items/{item}``, never what a client sent."""
        self._requests[route, method, status] += 1
        # Counter holds any number, and its annotation says int.
        self._seconds[route] += seconds  # type: ignore[assignment]
        limit = next((limit for limit in BUCKETS if seconds <= limit), float("inf"))
        self._in_bucket[route, limit] += 1

    def text(self, active: int, models: list[LoadedModel]) -> str:
        """Return all metrics in the text format of Prometheus."""
        lines = ["# TYPE recsys_requests_total counter"]
        for (route, method, status), count in sorted(self._requests.items()):
            labels = _labels(route=route, method=method, status=str(status))
            lines.append(f"recsys_requests_total{labels} {count}")
        lines.append("# TYPE recsys_request_seconds histogram")
        for route in sorted(self._seconds):
            total = 0
            for limit in (*BUCKETS, float("inf")):
                total += self._in_bucket[route, limit]
                le = "+Inf" if limit == float("inf") else f"{limit:g}"
                lines.append(f"recsys_request_seconds_bucket{_labels(route=route, le=le)} {total}")
            lines.append(f"recsys_request_seconds_sum{_labels(route=route)} {self._seconds[route]:.6f}")
            lines.append(f"recsys_request_seconds_count{_labels(route=route)} {total}")
        counters = {
            "recsys_events_total": self.events,
            "recsys_events_repeated_total": self.repeated_events,
            "recsys_impressions_total": self.impressions,
            "recsys_impressions_lost_total": self.lost_impressions,
            "recsys_reloads_total": self.reloads,
            "recsys_reloads_refused_total": self.refused_reloads,
        }
        for name, count in counters.items():
            lines += [f"# TYPE {name} counter", f"{name} {count}"]
        lines += ["# TYPE recsys_requests_active gauge", f"recsys_requests_active {active}"]
        lines += [
            "# TYPE recsys_start_time_seconds gauge",
            f"recsys_start_time_seconds {self.started:.3f}",
        ]
        lines.append("# TYPE recsys_model_info gauge")
        for model in models:
            labels = _labels(model=model["model"], kind=model["kind"], version=model["version"])
            lines.append(f"recsys_model_info{labels} 1")
        lines.append("# TYPE recsys_model_items gauge")
        lines += [f"recsys_model_items{_labels(model=model['model'])} {model['items']}" for model in models]
        if self._worker is not None:
            lines = [_with_worker(line, self._worker) for line in lines]
        return "\n".join(lines) + "\n"


def _with_worker(line: str, worker: int) -> str:
    """Return a line of metrics with the label ``worker``, the first of its labels."""
    if line.startswith("#"):
        return line
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{worker="{worker}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{worker="{worker}"}} {value}'


def _labels(**values: str) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in values.items())
    return f"{{{pairs}}}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
