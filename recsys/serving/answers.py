"""The JSON of answers, as types from which the OpenAPI document is made."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict


class ListedItem(TypedDict):
    """One item of a list. ``rank`` starts at 1."""

    item: str
    rank: int
    score: float
    source: str
    title: NotRequired[str]
    attributes: NotRequired[dict[str, Any]]
    reason: NotRequired[str]
    probability: NotRequired[float]


class ListAnswer(TypedDict):
    """A list, best first.

    ``shortfall`` says why the list is shorter than k, or is "none". ``has_history`` says whether the
    bundle knows the user. ``new_events`` is the number of events that were added to the history of the
    bundle. ``unknown_items`` are ids of the request that the bundle does not have. ``removed`` says how
    many items each rule alone removes.
    """

    request_id: str
    user: str | None
    model: str
    version: str
    items: list[ListedItem]
    shortfall: str
    has_history: bool
    new_events: int
    unknown_items: list[str]
    removed: NotRequired[dict[str, int]]


class SimilarAnswer(TypedDict):
    """The items that go with an item, best first."""

    request_id: str
    item: str
    model: str
    version: str
    items: list[ListedItem]


class EventsAnswer(TypedDict):
    """What was stored: the number of new events, and of events that were in the store already.

    ``unknown_items`` are items that the default bundle does not have. Their events are kept for the
    next training, and change no list until then.
    """

    request_id: str
    accepted: int
    repeated: int
    unknown_items: list[str]


class BatchAnswer(TypedDict):
    """The lists of a batch, in the order of its requests."""

    request_id: str
    lists: list[ListAnswer]


class ItemAnswer(TypedDict):
    """One item with its attributes."""

    item: str
    title: NotRequired[str]
    attributes: dict[str, Any]


class ItemsAnswer(TypedDict):
    """Items that a search found."""

    items: list[ItemAnswer]


class UsersAnswer(TypedDict):
    """Ids of users that a search found."""

    users: list[str]


class Part(TypedDict):
    """What one part adds to a score."""

    name: str
    value: float


class ExplainAnswer(TypedDict):
    """Why a user gets an item.

    ``score`` is null if the model has no opinion; ``missing`` then says what it knows too little of.
    The entries of ``history`` and ``constant`` together sum to the score, and so do ``features``, and
    so do ``members``, where the model has them.
    """

    request_id: str
    user: str
    item: str
    model: str
    version: str
    scored_by: str
    score: float | None
    reason: str
    missing: str
    note: str
    constant: float
    history: list[Part]
    features: list[Part]
    members: list[Part]


class OnboardAnswer(TypedDict):
    """The next question to a new user, null if there is none, and the list by the answers so far."""

    request_id: str
    model: str
    version: str
    question: ItemAnswer | None
    items: list[ListedItem]


class AgreementAnswer(TypedDict):
    """How far two lists agree. A measure is null where it is undefined.

    ``tau`` is Kendall's tau-b over the items of either list, those that a list lacks tied below its
    last; ``rbo`` is the rank-biased overlap with p = 0.9; ``common`` is the number of items in both.
    """

    tau: float | None
    rbo: float | None
    common: int


class HealthAnswer(TypedDict):
    """The process answers."""

    status: str


class LoadedModel(TypedDict):
    """One served bundle. ``refused`` says why the newest bundle was not taken, or is empty."""

    model: str
    kind: str
    version: str
    users: int
    items: int
    loaded: str
    refused: str


class ReadyAnswer(TypedDict):
    """What is served. ``like_event`` is the type of event with the largest weight, null without types."""

    status: str
    models: list[LoadedModel]
    events: bool
    like_event: str | None
    explore: float | None
