"""The endpoints: path, what they read, what they answer. Routes and the OpenAPI document come from this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from recsys.serving import answers, requests
from recsys.serving.service import Call, Service


@dataclass(frozen=True)
class Endpoint:
    """One method of one path.

    Attributes:
        answer: the type of the JSON of an answer.
        query, body: the classes that check the parameters of the URL, and the body.
        is_open: whether it is answered without an API key.
        is_bounded: whether it is refused while too many requests are waiting.
    """

    method: str
    path: str
    work: Callable[[Service, Call], Awaitable[Any]]
    answer: Any
    query: type[BaseModel] = requests.NoQuery
    body: type[BaseModel] | None = None
    status: int = 200
    is_open: bool = False
    is_bounded: bool = True

    @property
    def summary(self) -> str:
        """What the endpoint does, in one sentence."""
        return (self.work.__doc__ or "").splitlines()[0]


ENDPOINTS = [
    Endpoint("GET", "/recommend", Service.get_list, answers.ListAnswer, requests.UserQuery),
    Endpoint("POST", "/recommend", Service.post_list, answers.ListAnswer, body=requests.ListRequest),
    Endpoint(
        "POST",
        "/recommend/batch",
        Service.post_batch,
        answers.BatchAnswer,
        body=requests.BatchRequest,
    ),
    Endpoint(
        "POST",
        "/events",
        Service.add_events,
        answers.EventsAnswer,
        body=requests.EventsRequest,
        status=202,
    ),
    Endpoint("GET", "/similar", Service.similar, answers.SimilarAnswer, requests.SimilarQuery),
    Endpoint("GET", "/explain", Service.explain, answers.ExplainAnswer, requests.ExplainQuery),
    Endpoint("GET", "/items", Service.items, answers.ItemsAnswer, requests.SearchQuery),
    Endpoint("GET", "/items/{item:path}", Service.item, answers.ItemAnswer, requests.ItemQuery),
    Endpoint("GET", "/users", Service.users, answers.UsersAnswer, requests.SearchQuery),
    Endpoint("GET", "/onboard", Service.onboard, answers.OnboardAnswer, requests.BundleChoice),
    Endpoint("POST", "/onboard", Service.onboard, answers.OnboardAnswer, body=requests.OnboardRequest),
    Endpoint(
        "POST",
        "/agreement",
        Service.agreement,
        answers.AgreementAnswer,
        body=requests.AgreementRequest,
    ),
    Endpoint("GET", "/health", Service.health, answers.HealthAnswer, is_open=True, is_bounded=False),
    Endpoint("GET", "/ready", Service.readiness, answers.ReadyAnswer, is_open=True, is_bounded=False),
]
"""All endpoints that answer with JSON."""
