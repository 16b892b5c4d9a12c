"""What a request may say, as classes that check it.

Ids may be text or whole numbers. Inside the server they are text, as in files of ids.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    WithJsonSchema,
)

from recsys.data.reading.validate import LATEST
from recsys.ranking.business_rules import Rules
from recsys.serving.limits import MAX_AHEAD, MAX_ID_LENGTH, Limits
from recsys.serving.problems import Problem, invalid_fields


def _check_id(value: Any) -> str:
    text = value
    if not isinstance(value, str):
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("an id is text or a whole number")
        text = str(value)
    if not text.strip() or len(text) > MAX_ID_LENGTH:
        raise ValueError(f"an id has 1 to {MAX_ID_LENGTH} characters, of which one is no blank")
    # PostgreSQL cannot store this character in a text.
    if "\0" in text:
        raise ValueError("an id has no character of code 0")
    return text


Id = Annotated[
    str,
    BeforeValidator(_check_id),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
                {"type": "integer"},
            ]
        }
    ),
]
"""The id of a user or of an item."""

Word = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\x00]+$")]
Count = Annotated[int, Field(ge=1)]


def _check_clock(seconds: float) -> float:
    if seconds > time.time() + MAX_AHEAD:
        raise ValueError("a time is at most a day after the clock of the server")
    return seconds


Seconds = Annotated[FiniteFloat, Field(ge=0, lt=LATEST), AfterValidator(_check_clock)]
"""A time in seconds since 1970."""

Value = Annotated[FiniteFloat, Field(ge=-1e30, le=1e30)]
"""A value of an event. Sums of larger ones would not fit in float32."""


Checked = TypeVar("Checked", bound=BaseModel)
Element = TypeVar("Element")

Several = Annotated[list[Element], Field(fail_fast=True)]
"""A list whose check ends at its first wrong element: collecting the faults of a long list takes seconds."""


class Strict(BaseModel):
    """A class that refuses unknown fields and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BundleChoice(Strict):
    """Which of the served bundles answers."""

    model: Word | None = Field(default=None, description="the name of a served bundle; unset: the first")


class ListOptions(BundleChoice):
    """What every request for a list may say."""

    k: Count = Field(default=10, description="the length of the list")
    reasons: bool = Field(default=False, description="whether each item has a sentence that says why it is listed")
    details: bool = Field(default=False, description="whether each item has its attributes")


class UserListOptions(ListOptions):
    """What every request for the list of a user may say."""

    explore: bool = Field(default=True, description="whether a server that explores may draw this list at random")


class UserQuery(UserListOptions):
    """The query of ``GET /recommend``."""

    user: Id = Field(description="the id of a user; an unknown user gets the fallback")


class HistoryEntry(Strict):
    """One event of a history that comes with the request."""

    item: Id
    value: Value = Field(default=1.0, description="above 0: a like; below 0: a dislike; 0: seen")
    timestamp: Seconds | None = Field(
        default=None,
        description="seconds since 1970; unset: entries are in their order, a second apart, the last one now",
    )
    event: Word | None = Field(default=None, description="the type of the event; unset: its weight is 1")


# Most histories are ids, so an entry is first read as one.
Entry = Annotated[Id | HistoryEntry, Field(union_mode="left_to_right")]
"""An entry of a history: an id, or an event."""


class ListRequest(UserListOptions):
    """The body of ``POST /recommend``: for whom, from what, and which items."""

    user: Id | None = Field(default=None, description="the id of a user; unset: somebody of whom only this is known")
    history: Several[Entry] = Field(default=[], description="events that are added to the user's history")
    attributes: dict[Word, Word] = Field(
        default={}, description="column -> value, the segment of a user without a history"
    )
    exclude: Several[Id] = Field(default=[], description="items that the list leaves out")
    only: Several[Id] | None = Field(default=None, description="the only items that the list may name")
    rules: Rules | None = Field(default=None, description="business rules for this list (docs/rules.md)")


class BatchRequest(Strict):
    """The body of ``POST /recommend/batch``."""

    requests: Several[ListRequest] = Field(min_length=1)


class Event(Strict):
    """Something that a user did."""

    id: Id | None = Field(default=None, description="an event is stored once per id; unset: each time it is sent")
    user: Id
    item: Id
    value: Value = Field(default=1.0, description="above 0: a like; below 0: a dislike; 0: seen")
    timestamp: Seconds | None = Field(default=None, description="seconds since 1970; unset: now")
    event: Word | None = Field(
        default=None, description="the type of the event; needed if a served bundle gives types a weight"
    )


class EventsRequest(Strict):
    """The body of ``POST /events``."""

    events: Several[Event] = Field(min_length=1)


class SimilarQuery(ListOptions):
    """The query of ``GET /similar``."""

    item: Id


class ExplainQuery(BundleChoice):
    """The query of ``GET /explain``."""

    user: Id
    item: Id


class ItemQuery(BundleChoice):
    """The query of ``GET /items/{id}``."""


class SearchQuery(BundleChoice):
    """The query of ``GET /items`` and of ``GET /users``."""

    search: Annotated[str, Field(max_length=MAX_ID_LENGTH)] = Field(
        default="", description="part of an id or a title; upper and lower case are equal"
    )
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class Answer(Strict):
    """What a new user says about one item."""

    item: Id
    answer: Literal["like", "dislike", "unknown"]


class OnboardRequest(ListOptions):
    """The body of ``POST /onboard``: the answers so far."""

    answers: Several[Answer] = Field(default=[], max_length=100)


class AgreementRequest(Strict):
    """The body of ``POST /agreement``: two lists of items, best first."""

    a: Several[Id] = Field(max_length=1000)
    b: Several[Id] = Field(max_length=1000)


class NoQuery(Strict):
    """A query without parameters."""


def parse_query(kind: type[Checked], pairs: list[tuple[str, str]]) -> Checked:
    """Return the checked parameters of a URL.

    Raises:
        Problem: a parameter is unknown, missing, repeated, or of a wrong type.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Problem(422, "a parameter of the URL occurs twice.")
    try:
        return kind.model_validate_strings(values)
    except ValidationError as error:
        raise invalid_fields(error) from None


def parse_body(kind: type[Checked], body: bytes) -> Checked:
    """Return the checked content of a JSON body.

    Raises:
        Problem: the body is not JSON, or a field is unknown, missing, or of a wrong type.
    """
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid_fields(error) from None


def check_limits(request: BaseModel, limits: Limits) -> None:
    """Check that a request is within the limits of the server.

    Raises:
        Problem: a list, a history, a batch or a kind of rules is too long.
    """
    sizes: list[tuple[str, int, int]] = []
    if isinstance(request, BatchRequest):
        sizes.append(("requests", len(request.requests), limits.batch))
        for part in request.requests:
            check_limits(part, limits)
    if isinstance(request, ListOptions):
        sizes.append(("k", request.k, limits.k))
        if request.reasons:
            sizes.append(("k with reasons", request.k, limits.k_with_reasons))
    if isinstance(request, EventsRequest):
        sizes.append(("events", len(request.events), limits.history))
    if isinstance(request, ListRequest):
        sizes.append(("history", len(request.history), limits.history))
        if request.rules is not None:
            sizes.append(("rules.where", len(request.rules.where), limits.where))
            sizes.append(("rules.quota", len(request.rules.quota), limits.quotas))
            sizes.append(("rules.deny_for", len(request.rules.deny_for), limits.history))
    for field, size, limit in sizes:
        if size > limit:
            message = f"at most {limit:,} (it is {size:,})"
            raise Problem(422, f"{field}: {message}.", [{"field": field, "message": message}])
