"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

MAX_ID_LENGTH = 512
"""Largest number of characters of an id."""


@dataclass(frozen=True)
class Limits:
    """The limits of one request. A request beyond them is refused with a problem, not cut short.

    Attributes:
        k: the length of a list.
        history: the number of entries of a history, and of events in one request.
        batch: the number of lists in one request.
        body_bytes: the size of the body.
        seconds: the time from the first byte of the request to its answer.
        waiting: the number of requests that are answered or wait at the same time.
    """

    k: int = 1_000
    history: int = 1_000
    batch: int = 100
    body_bytes: int = 2**20
    seconds: float = 10.0
    waiting: int = 128
