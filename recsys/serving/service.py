"""What each endpoint does: checks, the work in the scoring thread or in the event loop, the answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numba
from threadpoolctl import threadpool_limits

from recsys.errors import InputError, RecsysError
from recsys.evaluation.agreement.measures import agree
from recsys.logging import logger
from recsys.saved.pointer import follow_pointer
from recsys.serving.answers import (
    AgreementAnswer,
    BatchAnswer,
    EventsAnswer,
    ExplainAnswer,
    HealthAnswer,
    ItemAnswer,
    ItemsAnswer,
    ListAnswer,
    ListedItem,
    OnboardAnswer,
    ReadyAnswer,
    SimilarAnswer,
    UsersAnswer,
)
from recsys.serving.event_store import EventConflict, EventStore, StoreError
from recsys.serving.histories import UserEvent
from recsys.serving.limits import Limits
from recsys.serving.metrics import Metrics
from recsys.serving.problems import Problem
from recsys.serving.registry import Registry
from recsys.serving.requests import (
    BatchRequest,
    EventsRequest,
    ExplainQuery,
    ItemQuery,
    ListRequest,
    OnboardRequest,
    SearchQuery,
    SimilarQuery,
    UserQuery,
)
from recsys.serving.served_model import Exploration, ServedModel

Result = TypeVar("Result")

WATCH_SECONDS = 1.0
"""How often pointers are looked at."""

FLUSH_SECONDS = 0.5
"""How long impressions are kept in memory. A killed server loses those of this time, and no event."""

MAX_IMPRESSIONS = 100_000
"""Largest number of impressions that wait for a slow store. Further ones are lost, and counted."""


_PLAIN_REQUEST = ListRequest()


@dataclass(frozen=True)
class Call:
    """One request: its checked query and body, the parts of its path, its id, and whether its answer shows anything.

    The answer to HEAD has no body, so nobody sees its list.
    """

    query: Any
    body: Any
    path: dict[str, str]
    request_id: str
    shows: bool = True


@dataclass
class Service:
    """The answers of one server process.

    A thread of its own scores, and the event loop stays free meanwhile. A list that takes less time than a change of
    threads is made in the event loop itself. Requests never run compiled parallel code at the same time, which not
    every threading layer of Numba allows.
    """

    registry: Registry
    limits: Limits = field(default_factory=Limits)
    store: EventStore | None = None
    explore: float | None = None
    metrics: Metrics = field(default_factory=Metrics)
    active: int = 0

    def __post_init__(self) -> None:
        # The event loop scores too, and it may do so before any of these threads has started.
        threadpool_limits(1)
        self._scoring = ThreadPoolExecutor(1, "scoring", initializer=_use_one_core)
        # Held by the thread that runs compiled code for a request.
        self._compiled_code = threading.Lock()
        # One thread writes and another reads, so that a slow commit delays no list.
        self._writing = ThreadPoolExecutor(1, "writing")
        self._reading = ThreadPoolExecutor(1, "reading")
        # A search looks at every id, and runs no compiled code. Lists must not wait for it.
        self._searching = ThreadPoolExecutor(1, "searching")
        self._loading = ThreadPoolExecutor(1, "loading", initializer=_use_one_core)
        # The first question to a new user needs a fit over the whole log. Lists must not wait for it.
        self._fitting = ThreadPoolExecutor(1, "fitting", initializer=_use_one_core)
        self._reload_lock = asyncio.Lock()
        self._impressions: list[dict[str, Any]] = []
        self._flush_is_planned = False
        self._storing: Future[None] | None = None

    def close(self) -> None:
        """Wait for the work that has begun, store the last impressions, and end the threads."""
        self._scoring.shutdown(wait=True, cancel_futures=True)
        self._hand_over_impressions()
        self._writing.shutdown(wait=True)
        self._reading.shutdown(wait=True, cancel_futures=True)
        self._searching.shutdown(wait=True, cancel_futures=True)
        self._loading.shutdown(wait=True, cancel_futures=True)
        self._fitting.shutdown(wait=True, cancel_futures=True)
        if self.store is not None:
            self.store.close()

    async def _score(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._scoring, self._score_alone, work, *arguments)

    def _score_alone(self, work: Callable[..., Result], *arguments: Any) -> Result:
        with self._compiled_code:
            return work(*arguments)

    async def _make_list(
        self, model: ServedModel, request: ListRequest, events: list[UserEvent], exploration: Exploration | None
    ) -> ListAnswer:
        """Return a list: made here if that is quick and the scoring thread has no work, or else by that thread."""
        if exploration is None and model.is_quick(request) and self._compiled_code.acquire(blocking=False):
            try:
                numba.set_num_threads(1)
                return model.recommend(request, events)
            finally:
                self._compiled_code.release()
        return await self._score(model.recommend, request, events, exploration)

    async def _search(self, work: Callable[[str, int], Result], query: SearchQuery) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._searching, work, query.search, query.limit)

    async def reload(self, names: Iterable[str] | None = None) -> None:
        """Open newer bundles beside the served ones, and swap each in between two requests.

        A bundle is read and checked in a thread of its own, and warmed in the scoring thread. Where
        new users were asked questions, it is prepared for that too. If anything of this fails, the
        served one goes on, and ``/ready`` and the log say why.

        Args:
            names: which ones to look at. None: all.
        """
        loop = asyncio.get_running_loop()
        async with self._reload_lock:
            for name in self.registry.paths if names is None else names:
                try:
                    model = await loop.run_in_executor(self._loading, self.registry.open_newer, name)
                    if model is None:
                        self.registry.refuse(name, "")
                        continue
                    await self._score(model.warm)
                    if self.registry.model(name).can_onboard:
                        # A bundle that is too large for questions still has lists.
                        with contextlib.suppress(InputError):
                            await loop.run_in_executor(self._fitting, model.prepare_onboarding)
                except Exception as error:
                    self.registry.refuse(name, _reason(error, self.registry.paths[name]))
                    self.metrics.refused_reloads += 1
                    logger.error(
                        "model %s: the newer bundle is refused, the older one goes on: %s",
                        name,
                        error,
                    )
                    continue
                self.registry.replace(model)
                self.metrics.reloads += 1
                logger.info("model %s: version %s is served from now on", name, model.version)

    async def watch_pointers(self, seconds: float = WATCH_SECONDS) -> None:
        """Reload whatever a pointer has moved to, until the task is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            names = self.registry.moved_pointers()
            if names:
                await self.reload(names)

    async def get_list(self, call: Call) -> ListAnswer:
        """Return the list of one user."""
        query: UserQuery = call.query
        request = _PLAIN_REQUEST.model_copy(update=dict(query))
        return await self._list(self.registry.model(query.model), request, call.request_id, call.shows)

    async def post_list(self, call: Call) -> ListAnswer:
        """Return the list that a body describes."""
        request: ListRequest = call.body
        return await self._list(self.registry.model(request.model), request, call.request_id, call.shows)

    async def post_batch(self, call: Call) -> BatchAnswer:
        """Return several lists, each as if it had been asked for alone."""
        batch: BatchRequest = call.body
        models = [self.registry.model(request.model) for request in batch.requests]
        lists = []
        for number, (model, request) in enumerate(zip(models, batch.requests, strict=True), start=1):
            lists.append(await self._list(model, request, f"{call.request_id}-{number}", call.shows))
            # Many quick lists must not keep the event loop from other requests.
            await asyncio.sleep(0)
        return {"request_id": call.request_id, "lists": lists}

    async def _list(self, model: ServedModel, request: ListRequest, request_id: str, shows: bool) -> ListAnswer:
        exploration = None
        if self.explore is not None and request.explore:
            exploration = Exploration(self.explore, secrets.randbits(63))
        events = await self._events_of(request.user)
        answer = await self._make_list(model, request, events, exploration)
        answer["request_id"] = request_id
        if shows:
            self._keep_impressions(answer, exploration)
        return answer

    async def _events_of(self, user: str | None) -> list[UserEvent]:
        """Return the events of a user in the store."""
        if self.store is None or user is None:
            return []
        return await asyncio.get_running_loop().run_in_executor(self._reading, self.store.events_of, user)

    def _keep_impressions(self, answer: ListAnswer, exploration: Exploration | None) -> None:
        """Plan to store what a list shows. A request does not wait for it."""
        if self.store is None:
            return
        if len(self._impressions) + len(answer["items"]) > MAX_IMPRESSIONS:
            self.metrics.lost_impressions += len(answer["items"])
            return
        now = time.time()
        for item in answer["items"]:
            self._impressions.append(
                {
                    "request_id": answer["request_id"],
                    "timestamp": now,
                    "user_id": answer["user"],
                    "model": answer["model"],
                    "version": answer["version"],
                    "rank": item["rank"],
                    "item_id": item["item"],
                    "score": item["score"],
                    "source": item["source"],
                    "explore": None if exploration is None else exploration.temperature,
                    "probability": item.get("probability"),
                }
            )
        if not self._flush_is_planned:
            self._plan_flush()

    def _plan_flush(self) -> None:
        self._flush_is_planned = True
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_impressions)

    def _flush_impressions(self) -> None:
        """Hand the impressions since the last call to the writing thread, if it has stored those of that call."""
        self._flush_is_planned = False
        if self._storing is not None and not self._storing.done():
            self._plan_flush()
            return
        self._hand_over_impressions()

    def _hand_over_impressions(self) -> None:
        # Only the event loop adds to them.
        impressions = self._impressions
        self._impressions = []
        if impressions:
            self._storing = self._writing.submit(self._store_impressions, impressions)

    def _store_impressions(self, impressions: list[dict[str, Any]]) -> None:
        if self.store is None:
            return
        try:
            self.store.add_impressions(impressions)
            self.metrics.impressions += len(impressions)
        except StoreError as error:
            logger.error("%d impressions are not stored: %s", len(impressions), error)
            self.metrics.lost_impressions += len(impressions)

    async def add_events(self, call: Call) -> EventsAnswer:
        """Store events durably, then say so."""
        if self.store is None:
            raise Problem(409, "this server keeps no events: start it with --store.")
        request: EventsRequest = call.body
        model = self.registry.model()
        for event_type in {event.event for event in request.events}:
            self.registry.check_event_type(event_type)
        now = time.time()
        rows = [
            {
                "event_id": event.id or secrets.token_hex(16),
                "user_id": event.user,
                "item_id": event.item,
                "value": event.value,
                "timestamp": now if event.timestamp is None else event.timestamp,
                "event": event.event,
            }
            for event in request.events
        ]
        loop = asyncio.get_running_loop()
        try:
            accepted = await loop.run_in_executor(self._writing, self.store.add_events, rows)
        except EventConflict as error:
            raise Problem(409, str(error)) from None
        self.metrics.events += accepted
        self.metrics.repeated_events += len(rows) - accepted
        items = dict.fromkeys(event.item for event in request.events)
        return {
            "request_id": call.request_id,
            "accepted": accepted,
            "repeated": len(rows) - accepted,
            "unknown_items": [item for item in items if model.item_row(item) < 0],
        }

    async def similar(self, call: Call) -> SimilarAnswer:
        """Return the items that go with an item."""
        query: SimilarQuery = call.query
        model = self.registry.model(query.model)
        items: list[ListedItem] = await self._score(model.similar, _item_row(model, query.item), query)
        return {
            "request_id": call.request_id,
            "item": query.item,
            "model": model.name,
            "version": model.version,
            "items": items,
        }

    async def explain(self, call: Call) -> ExplainAnswer:
        """Return why a user gets an item."""
        query: ExplainQuery = call.query
        model = self.registry.model(query.model)
        events = await self._events_of(query.user)
        answer = await self._score(model.explain, query.user, _item_row(model, query.item), events)
        return answer | {"request_id": call.request_id}  # type: ignore[return-value]

    async def item(self, call: Call) -> ItemAnswer:
        """Return one item with its attributes."""
        query: ItemQuery = call.query
        model = self.registry.model(query.model)
        return model.item(_item_row(model, call.path["item"]))

    async def items(self, call: Call) -> ItemsAnswer:
        """Return items whose id or title has a text."""
        query: SearchQuery = call.query
        model = self.registry.model(query.model)
        return {"items": await self._search(model.search_items, query)}

    async def users(self, call: Call) -> UsersAnswer:
        """Return ids of users that have a text."""
        query: SearchQuery = call.query
        model = self.registry.model(query.model)
        return {"users": await self._search(model.search_users, query)}

    async def onboard(self, call: Call) -> OnboardAnswer:
        """Return the next question to a new user, and the list that fits the answers so far.

        ``call.body`` is an ``OnboardRequest`` with these answers, or None before the first one. The
        question is None when there are no more.
        """
        request: OnboardRequest = call.body or OnboardRequest(model=call.query.model)
        model = self.registry.model(request.model)
        if not model.can_onboard:
            await asyncio.get_running_loop().run_in_executor(self._fitting, model.prepare_onboarding)
        answer = await self._score(model.onboard, request)
        return answer | {"request_id": call.request_id}  # type: ignore[return-value]

    async def agreement(self, call: Call) -> AgreementAnswer:
        """Return how far two lists agree."""
        return await self._score(measure_agreement, call.body.a, call.body.b)

    async def health(self, call: Call) -> HealthAnswer:
        """Return that the process answers."""
        return {"status": "ok"}

    async def readiness(self, call: Call) -> ReadyAnswer:
        """Return what is served."""
        return {
            "status": "ready",
            "models": self.registry.about(),
            "events": self.store is not None,
            "like_event": self.registry.like_event(),
            "explore": self.explore,
        }


def measure_agreement(a: list[str], b: list[str]) -> AgreementAnswer:
    """Return how far two lists of different items agree.

    Raises:
        InputError: a list has an item twice.
    """
    values = []
    for measure in ("tau_b[missing=bottom]", "rbo[p=0.9]"):
        value = agree(a, b, measure) if a and b else math.nan
        values.append(None if math.isnan(value) else value)
    return {"tau": values[0], "rbo": values[1], "common": len(set(a) & set(b))}


def _item_row(model: ServedModel, item: str) -> int:
    """Return the row of an item.

    Raises:
        Problem: there is no such item.
    """
    row = model.item_row(item)
    if row < 0:
        raise Problem(404, f"no item {item!r} in model {model.name!r}.")
    return row


def _reason(error: Exception, path: Path) -> str:
    """Return why a bundle is refused, for clients: its name and the kind of the error.

    Anybody may ask ``/ready``, so the message, which may have paths of files, is for the log alone.

    Args:
        path: the bundle, or the pointer to it.
    """
    try:
        name = follow_pointer(path).name
    except RecsysError:
        name = path.name
    return f"{type(error).__name__}: {name} cannot be served; the log says why."


def _use_one_core() -> None:
    """Let the scoring thread use one core. For one user, starting more threads takes longer than it saves."""
    numba.set_num_threads(1)
    threadpool_limits(1)
