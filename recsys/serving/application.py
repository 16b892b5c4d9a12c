"""The ASGI application: routes, limits, the API key, problems, metrics. What endpoints do is in ``service``."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.errors import ConfigError, InputError
from recsys.logging import logger
from recsys.serving import metrics, problems
from recsys.serving.endpoints import ENDPOINTS, Endpoint
from recsys.serving.event_store import StoreError
from recsys.serving.openapi import openapi_document
from recsys.serving.problems import Problem
from recsys.serving.requests import check_limits, parse_body, parse_query
from recsys.serving.service import Call, Service

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What the id of a request looks like, if a client gives one in the header X-Request-ID."""

JSON = TypeAdapter(Any)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every answer. Answers are of one user and one moment, so no cache may keep them."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own files, and answers of this server. No script or style inside the page."""

PAGE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

Handler = Callable[[Request], Awaitable[Response]]


class _HostCheck:
    """Refuses requests that a foreign web page sends through the browser of somebody who can reach the server.

    Such a page may let its own name stand for the address of the server (DNS rebinding), and then
    reads the answers. The name is in the header Host.
    """

    def __init__(self, application: ASGIApp, service: Service, hosts: Collection[str]) -> None:
        self._application = application
        self._service = service
        self._hosts = {host.lower() for host in hosts} | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it with a problem."""
        request = Request(scope)
        problem = None
        if not self._is_allowed(request.headers.get("host", "")):
            problem = Problem(421, "this server does not answer to this name: start it with --allow-host NAME.")
        elif request.headers.get("sec-fetch-site") == "cross-site" and request.url.path != "/":
            problem = Problem(403, "the page of another site may not ask this server.")
        if problem is None:
            await self._application(scope, receive, send)
            return
        self._service.metrics.observe("none", "any", problem.status, 0.0)
        await _problem_response(problem, _request_id(request))(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._hosts:
                return True
            # An address is no name that somebody could let stand for another one.
            ip_address(name)
            return True
        except ValueError:
            return False


def make_application(service: Service, api_key: str | None = None, hosts: Collection[str] | None = None) -> Starlette:
    """Return the ASGI application of a service.

    Args:
        api_key: what clients must send as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``. None:
            nobody is asked for a key.
        hosts: the names, besides localhost and all IP addresses, that the header Host may have. None:
            any.
    """
    document = JSON.dump_json(openapi_document())

    async def openapi(request: Request) -> Response:
        return Response(document, media_type="application/json", headers=HEADERS)

    async def prometheus(request: Request) -> Response:
        require_key(request, api_key)
        text = service.metrics.text(service.active, service.registry.about())
        return Response(text, media_type=metrics.CONTENT_TYPE, headers=HEADERS)

    async def no_route(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        detail = f"there is no {request.url.path[:100]!r} here; /openapi.json lists what there is."
        if status == 405:
            detail = f"{request.method} is not a method of this path."
        headers = dict(getattr(error, "headers", None) or {})
        service.metrics.observe("none", "any", status, 0.0)
        return _problem_response(Problem(status, detail, headers=headers), _request_id(request))

    routes = [Route(path, _handler_of(path, service, api_key)) for path in dict.fromkeys(e.path for e in ENDPOINTS)]
    for path, route in zip(dict.fromkeys(e.path for e in ENDPOINTS), routes, strict=True):
        route.methods = {e.method for e in ENDPOINTS if e.path == path} | {"HEAD"}
    for name, content in read_page().items():
        path = "/" if name == "index.html" else f"/page/{name}"
        routes.append(Route(path, _file_handler(content, PAGE_TYPES[Path(name).suffix])))
    routes.append(Route("/openapi.json", openapi))
    routes.append(Route("/metrics", _guarded(prometheus, "/metrics", service)))
    checks = [] if hosts is None else [Middleware(_HostCheck, service=service, hosts=hosts)]
    application = Starlette(routes=routes, exception_handlers={HTTPException: no_route}, middleware=checks)
    # A redirection would be no problem of RFC 9457, and would repeat the Host of the client.
    application.router.redirect_slashes = False
    return application


def read_page() -> dict[str, bytes]:
    """Return name -> content of the files of the page."""
    folder = Path(__file__).with_name("page")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in PAGE_TYPES}


def _file_handler(content: bytes, media_type: str) -> Handler:
    """Return the function that answers with one file of the page."""
    headers = HEADERS | {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}

    async def answer(request: Request) -> Response:
        return Response(content, 200, headers, media_type)

    return answer


def _handler_of(path: str, service: Service, api_key: str | None) -> Handler:
    """Return the function that answers all methods of a path."""
    by_method = {endpoint.method: endpoint for endpoint in ENDPOINTS if endpoint.path == path}

    async def answer(request: Request) -> Response:
        endpoint = by_method.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            raise Problem(
                405,
                f"{request.method} is not a method of this path.",
                headers={"Allow": ", ".join(by_method)},
            )
        if not endpoint.is_open:
            require_key(request, api_key)
        if not endpoint.is_bounded:
            return await _answer(endpoint, request, service)
        if service.active >= service.limits.waiting:
            raise Problem(
                503,
                "too many requests are waiting: try again soon.",
                headers={"Retry-After": "1"},
            )
        service.active += 1
        try:
            return await _answer(endpoint, request, service)
        finally:
            service.active -= 1

    return _guarded(answer, path, service)


async def _answer(endpoint: Endpoint, request: Request, service: Service) -> Response:
    """Check one request, answer it, and return the answer as JSON."""
    query = parse_query(endpoint.query, request.query_params.multi_items())
    check_limits(query, service.limits)
    body = None
    if endpoint.body is not None:
        body = parse_body(endpoint.body, await _read_body(request, service.limits.body_bytes))
        check_limits(body, service.limits)
    call = Call(query, body, request.path_params, _request_id(request), request.method != "HEAD")
    result = await endpoint.work(service, call)
    return Response(JSON.dump_json(result), endpoint.status, HEADERS, "application/json")


def _guarded(handler: Handler, route: str, service: Service) -> Handler:
    """Return a handler that answers within the time limit, with a problem instead of any error."""

    async def guarded(request: Request) -> Response:
        start = time.perf_counter()
        request_id = _request_id(request)
        try:
            async with asyncio.timeout(service.limits.seconds):
                response = await handler(request)
        except Problem as problem:
            response = _problem_response(problem, request_id)
        except (InputError, ConfigError) as error:
            response = _problem_response(Problem(422, str(error)), request_id)
        except StoreError as error:
            logger.error("request %s: the store failed: %s", request_id, error)
            detail = "the store cannot be used now. Send events again with the same ids: each is stored once."
            response = _problem_response(Problem(503, detail, headers={"Retry-After": "1"}), request_id)
        except TimeoutError:
            detail = f"no answer within {service.limits.seconds:g} seconds: ask for less, or try again."
            response = _problem_response(Problem(503, detail, headers={"Retry-After": "1"}), request_id)
        except ClientDisconnect:
            response = _problem_response(Problem(400, "the body ended early."), request_id)
        except Exception:
            # The log is for the operator. What went wrong is nothing that a client could use.
            logger.exception("request %s: %s %s failed", request_id, request.method, route)
            detail = "an unexpected error; the log of the server has it under this request_id."
            response = _problem_response(Problem(500, detail), request_id)
        response.headers["X-Request-ID"] = request_id
        service.metrics.observe(route, request.method, response.status_code, time.perf_counter() - start)
        return response

    return guarded


async def _read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request.

    Raises:
        Problem: the body is too large, or is not declared as JSON.
    """
    # Another type is also what a form on a foreign web page would send without being asked.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "the body must be JSON, with the header Content-Type: application/json.")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > limit:
        raise _body_too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _body_too_large(limit)
    return bytes(body)


def _body_too_large(limit: int) -> Problem:
    return Problem(413, f"the body has more than {limit:,} bytes.", headers={"Connection": "close"})


def require_key(request: Request, api_key: str | None) -> None:
    """Check the API key of a request in constant time.

    Raises:
        Problem: the key is missing or wrong.
    """
    if api_key is None:
        return
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    sent = token.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", "")
    # Headers are bytes, which Starlette reads as Latin-1. Digests have one length, so the time tells
    # nothing of the length of the key either.
    if not hmac.compare_digest(sha256(sent.encode("latin-1")).digest(), sha256(api_key.encode()).digest()):
        raise Problem(401, "this server asks for an API key.", headers={"WWW-Authenticate": "Bearer"})


def _request_id(request: Request) -> str:
    """Return the id of a request: that of the client if it has the right form, otherwise a new one."""
    if "recsys.request_id" not in request.scope:
        sent = request.headers.get("x-request-id", "")
        request.scope["recsys.request_id"] = sent if REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)
    return request.scope["recsys.request_id"]


def _problem_response(problem: Problem, request_id: str) -> Response:
    body = JSON.dump_json(problem.body(request_id))
    headers = HEADERS | problem.headers | {"X-Request-ID": request_id}
    return Response(body, problem.status, headers, problems.CONTENT_TYPE)
