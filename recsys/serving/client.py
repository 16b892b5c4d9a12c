"""Ask for lists from Python: in this process, or from a server.

    import recsys
    model = recsys.load("bundles/demo")               # or recsys.connect("http://127.0.0.1:8000")
    model.recommend(user="u0001", k=5)["items"]
    model.recommend(history=["f0007", "f0021"])

Both give the same answers: those of :mod:`recsys.serving.answers`.
"""

from __future__ import annotations

import http.client
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlencode, urlsplit

from recsys.errors import ConfigError, InputError, RecsysError, suggest_nearest
from recsys.saved.pointer import follow_pointer
from recsys.serving.answers import (
    EventsAnswer,
    ExplainAnswer,
    ItemAnswer,
    ListAnswer,
    OnboardAnswer,
    SimilarAnswer,
)
from recsys.serving.limits import Limits
from recsys.serving.problems import Problem
from recsys.serving.requests import (
    BundleChoice,
    ExplainQuery,
    ListRequest,
    OnboardRequest,
    SimilarQuery,
    check_limits,
    parse_body,
)
from recsys.serving.served_model import ServedModel

Entry = str | int | Mapping[str, Any]
"""An item of a history: its id, or a mapping with item, value, timestamp and event."""


class Client(ABC):
    """Answers of one bundle. The fields of requests and answers are described in docs/serving.md.

    Every method raises InputError if the request cannot be answered.
    """

    def recommend(
        self,
        user: str | int | None = None,
        history: Sequence[Entry] = (),
        k: int = 10,
        **options: Any,
    ) -> ListAnswer:
        """Return the list of a user, of a history, or of a user with further events.

        Args:
            user: the id of a user. None: somebody of whom only the history is known.
            history: events that are added to the history of the user.
            k: the length of the list.
            options: the other fields of ``POST /recommend``: exclude, only, rules, attributes,
                reasons, details, model.
        """
        body = {"user": user, "history": list(history), "k": k, **options}
        return cast(ListAnswer, self._ask("POST", "recommend", body))

    def similar(self, item: str | int, k: int = 10) -> SimilarAnswer:
        """Return what goes with an item."""
        return cast(SimilarAnswer, self._ask("GET", "similar", {"item": item, "k": k}))

    def explain(self, user: str | int, item: str | int) -> ExplainAnswer:
        """Return why a user gets an item."""
        return cast(ExplainAnswer, self._ask("GET", "explain", {"user": user, "item": item}))

    def item(self, item: str | int) -> ItemAnswer:
        """Return one item with its attributes."""
        return cast(ItemAnswer, self._ask("GET", f"items/{quote(str(item), safe='')}", {}))

    def onboard(self, answers: Sequence[tuple[str | int, str]] = (), k: int = 10) -> OnboardAnswer:
        """Return the next question to a new user, and the list by the answers so far.

        Args:
            answers: (item, "like", "dislike" or "unknown").
        """
        body = {"answers": [{"item": item, "answer": answer} for item, answer in answers], "k": k}
        return cast(OnboardAnswer, self._ask("POST", "onboard", body))

    @abstractmethod
    def _ask(self, method: str, path: str, fields: dict[str, Any]) -> Any:
        """Return the answer to one request."""


class LocalClient(Client):
    """Answers in this process."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def _ask(self, method: str, path: str, fields: dict[str, Any]) -> Any:
        model = self._model
        if path.startswith("items/"):
            return model.item(self._row(unquote(path.removeprefix("items/"))))
        request = _parse(path, fields, Limits())
        if request.model not in (None, model.name):
            raise InputError(f"no model {request.model!r} is served.{suggest_nearest(request.model, [model.name])}")
        if isinstance(request, ListRequest):
            return model.recommend(request)
        if isinstance(request, SimilarQuery):
            items = model.similar(self._row(request.item), request)
            names = {
                "request_id": "",
                "item": request.item,
                "model": model.name,
                "version": model.version,
            }
            return {**names, "items": items}
        if isinstance(request, ExplainQuery):
            return model.explain(request.user, self._row(request.item))
        return model.onboard(cast(OnboardRequest, request))

    def _row(self, item: str) -> int:
        row = self._model.item_row(item)
        if row < 0:
            raise InputError(f"no item {item!r} in model {self._model.name!r}.")
        return row


class HttpClient(Client):
    """Answers of a server.

    Args:
        url: the URL of the server.
        model: the name of the served bundle. None: the first one.
        api_key: the key of the server. None: the variable RECSYS_API_KEY, if it is set.
        timeout: seconds to wait for an answer.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError(f"{url}: write the URL of a server, such as http://127.0.0.1:8000.")
        self._address = address
        self._name = model
        self._key = api_key or os.environ.get("RECSYS_API_KEY")
        self._timeout = timeout

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> EventsAnswer:
        """Store events durably: each has user and item, and optionally id, value, timestamp, event."""
        return cast(
            EventsAnswer,
            self._ask("POST", "events", {"events": [dict(event) for event in events]}),
        )

    def _ask(self, method: str, path: str, fields: dict[str, Any]) -> Any:
        target = f"{self._address.path.rstrip('/')}/{path}"
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["X-API-Key"] = self._key
        if self._name is not None and path != "events":
            fields = {"model": self._name} | fields
        body = None
        if method == "POST":
            body = _to_json(fields)
        elif fields:
            # A URL has text alone, so the server cannot tell 5 from 5.0 or "5".
            if path in _KINDS:
                _parse(path, fields, None)
            target += f"?{urlencode(fields)}"
        kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        try:
            with closing(kind(self._address.hostname or "", self._address.port, timeout=self._timeout)) as connection:
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise InputError(f"{self._address.geturl()}: no answer of recsys serve: {error}.") from error
        if response.status >= 500:
            raise RecsysError(f"{self._address.geturl()}: {answer.get('detail')}")
        if response.status >= 400:
            raise InputError(str(answer.get("detail")))
        return answer


_KINDS: dict[str, type[BundleChoice]] = {
    "recommend": ListRequest,
    "similar": SimilarQuery,
    "explain": ExplainQuery,
    "onboard": OnboardRequest,
}
"""Path of a request -> the class that checks its fields."""


def _parse(path: str, fields: dict[str, Any], limits: Limits | None) -> BundleChoice:
    """Return the checked fields of a request.

    They are checked as JSON, so that both clients take and refuse the same values.

    Args:
        limits: what one request may ask for. None: the server has its own limits.

    Raises:
        InputError: a field is unknown, missing, of a wrong type, or beyond a limit.
    """
    try:
        request = parse_body(_KINDS[path], _to_json(fields))
        if limits is not None:
            check_limits(request, limits)
    except Problem as problem:
        raise InputError(problem.detail) from None
    return request


def load(bundle: str | os.PathLike[str]) -> LocalClient:
    """Open a bundle, a run, or a pointer to a bundle, and return a client that answers in this process.

    Raises:
        RunFolderError: the folder cannot be opened.
    """
    path = follow_pointer(Path(bundle))
    return LocalClient(ServedModel.open(path.resolve().name, path))


def connect(url: str, model: str | None = None, api_key: str | None = None, timeout: float = 10.0) -> HttpClient:
    """Return a client of the server at a URL. The arguments are those of :class:`HttpClient`.

    Raises:
        ConfigError: the URL is not one of a server.
    """
    return HttpClient(url, model, api_key, timeout)


def _to_json(fields: dict[str, Any]) -> bytes:
    """Return the fields of a request as JSON, without those that are None.

    Raises:
        InputError: a value has no JSON.
    """
    try:
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"a request is made of text, numbers, lists and mappings: {error}.") from error
