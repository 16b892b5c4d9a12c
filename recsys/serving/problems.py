"""Problem details (RFC 9457): the JSON that says why a request is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import groupby
from typing import Any, NotRequired

from pydantic import ValidationError
from typing_extensions import TypedDict

from recsys.errors import describe_invalid_value

CONTENT_TYPE = "application/problem+json"

MAX_MESSAGE = 300
"""Largest number of characters of a message. Messages repeat the value that they are about."""

MAX_ERRORS = 20
"""Largest number of faults that an answer describes. A small body may have a hundred thousand."""


class FieldProblem(TypedDict):
    """What is wrong with one field of a request."""

    field: str
    message: str


class ProblemDetails(TypedDict):
    """The body of every answer that is not a success."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: NotRequired[list[FieldProblem]]


class Problem(Exception):
    """A request that cannot be answered, with the HTTP status that says so.

    Attributes:
        detail: what is wrong, and what to do.
        errors: what is wrong with each field.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Iterable[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> ProblemDetails:
        """Return the body of the answer."""
        body: ProblemDetails = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": _shorten(self.detail),
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = self.errors
        return body


def invalid_fields(error: ValidationError) -> Problem:
    """Return the problem of a request whose fields are not what they must be.

    A field that may have several types has one message for all of them. More than ``MAX_ERRORS`` faults
    are counted and not described, because describing them would block the server.
    """
    if error.error_count() > MAX_ERRORS:
        return Problem(
            422, f"the request has {error.error_count():,} faults, such as unknown fields: see /openapi.json."
        )
    problems = error.errors(include_url=False)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return Problem(400, f"the body is not JSON: {problems[0]['ctx']['error']}")
    errors: list[FieldProblem] = []
    for field, group in groupby(problems, key=lambda problem: _field_name(problem["loc"])):
        errors.append({"field": field, "message": _shorten(_describe(list(group)))})
    return Problem(422, "; ".join(f"{error['field']}: {error['message']}" for error in errors[:3]), errors)


def _describe(problems: list[Any]) -> str:
    kinds = {problem["type"] for problem in problems}
    if "extra_forbidden" in kinds:
        return "there is no such field"
    if "missing" in kinds:
        return "is missing"
    return describe_invalid_value(problems)


def _field_name(location: tuple[int | str, ...]) -> str:
    """Return the name of a field such as ``history.3.item``, or ``body`` for the whole of it."""
    # Pydantic adds the names of the types of a union, which have brackets or capitals.
    names = [str(part) for part in location if not isinstance(part, str) or (part.isidentifier() and part.islower())]
    return ".".join(name for name in names if name not in ("str", "int", "float", "bool", "date", "datetime")) or "body"


def _shorten(text: str) -> str:
    if len(text) <= MAX_MESSAGE:
        return text
    return f"{text[: MAX_MESSAGE - 2]} …"
