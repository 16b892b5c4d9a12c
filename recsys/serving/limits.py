"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

MAX_ID_LENGTH = 512
"""Largest number of characters of an id."""

MAX_AHEAD = 86_400.0
"""How many seconds the time of an event may be after the clock of the server.

Decay and splits by time count from the newest event, so one in the far future would make all others worthless."""


@dataclass(frozen=True)
class Limits:
    """The limits of one request. A request beyond them is refused with a problem, not cut short.

    Attributes:
        k: the length of a list.
        k_with_reasons: the length of a list whose items have reasons, each of which is computed alone.
        history: the number of entries of a history, of events in one request, and of users in a rule ``deny_for``.
        batch: the number of lists in one request.
        where, quotas: the number of these rules in one request; each looks at all items.
        body_bytes: the size of the body.
        seconds: the time from the end of the headers of the request to its answer.
        waiting: the number of requests that are answered or wait at the same time.
    """

    k: int = 1_000
    k_with_reasons: int = 100
    history: int = 1_000
    batch: int = 100
    where: int = 20
    quotas: int = 5
    body_bytes: int = 2**20
    seconds: float = 10.0
    waiting: int = 128
