"""What each endpoint does: checks, the work in the scoring thread, the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numba
from threadpoolctl import threadpool_limits

from recsys.serving.answers import (
    BatchAnswer,
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
from recsys.serving.limits import Limits
from recsys.serving.metrics import Metrics
from recsys.serving.problems import Problem
from recsys.serving.registry import Registry
from recsys.serving.requests import (
    BatchRequest,
    ExplainQuery,
    ItemQuery,
    ListRequest,
    OnboardRequest,
    SearchQuery,
    SimilarQuery,
    UserQuery,
)
from recsys.serving.served_model import ServedModel

Result = TypeVar("Result")


@dataclass(frozen=True)
class Call:
    """One request: its checked query and body, the parts of its path, and its id."""

    query: Any
    body: Any
    path: dict[str, str]
    request_id: str


@dataclass
class Service:
    """The answers of one server process.

    One thread scores, so that requests never run compiled parallel code at the same time, which not
    every threading layer of Numba allows. The event loop stays free meanwhile.
    """

    registry: Registry
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    active: int = 0

    def __post_init__(self) -> None:
        self._scoring = ThreadPoolExecutor(1, "scoring", initializer=_use_one_core)

    def close(self) -> None:
        """Wait for the work that has begun, and end the threads."""
        self._scoring.shutdown(wait=True, cancel_futures=True)

    async def _score(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._scoring, work, *arguments)

    async def get_list(self, call: Call) -> ListAnswer:
        """Return the list of one user."""
        query: UserQuery = call.query
        request = ListRequest.model_construct(**query.model_dump())
        return await self._list(self.registry.model(query.model), request, call.request_id)

    async def post_list(self, call: Call) -> ListAnswer:
        """Return the list that a body describes."""
        request: ListRequest = call.body
        return await self._list(self.registry.model(request.model), request, call.request_id)

    async def post_batch(self, call: Call) -> BatchAnswer:
        """Return several lists, each as if it had been asked for alone."""
        batch: BatchRequest = call.body
        models = [self.registry.model(request.model) for request in batch.requests]
        lists = [
            await self._list(model, request, call.request_id)
            for model, request in zip(models, batch.requests, strict=True)
        ]
        return {"request_id": call.request_id, "lists": lists}

    async def _list(self, model: ServedModel, request: ListRequest, request_id: str) -> ListAnswer:
        answer = await self._score(model.recommend, request)
        return answer | {"request_id": request_id}  # type: ignore[return-value]

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
        answer = await self._score(model.explain, query.user, _item_row(model, query.item))
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
        return {"items": await self._score(model.search_items, query.search, query.limit)}

    async def users(self, call: Call) -> UsersAnswer:
        """Return ids of users that have a text."""
        query: SearchQuery = call.query
        model = self.registry.model(query.model)
        return {"users": await self._score(model.search_users, query.search, query.limit)}

    async def onboard(self, call: Call) -> OnboardAnswer:
        """Return the next question to a new user, and the list by the answers so far."""
        request: OnboardRequest = call.body or OnboardRequest(model=call.query.model)
        model = self.registry.model(request.model)
        answer = await self._score(model.onboard, request)
        return answer | {"request_id": call.request_id}  # type: ignore[return-value]

    async def health(self, call: Call) -> HealthAnswer:
        """Return that the process answers."""
        return {"status": "ok"}

    async def readiness(self, call: Call) -> ReadyAnswer:
        """Return what is served."""
        return {"status": "ready", "models": self.registry.about(), "events": False, "explore": None}


def _item_row(model: ServedModel, item: str) -> int:
    """Return the row of an item.

    Raises:
        Problem: there is no such item.
    """
    row = model.item_row(item)
    if row < 0:
        raise Problem(404, f"no item {item!r} in model {model.name!r}.")
    return row


def _use_one_core() -> None:
    """Let the scoring thread use one core. For one user, starting more threads takes longer than it saves."""
    numba.set_num_threads(1)
    threadpool_limits(1)
