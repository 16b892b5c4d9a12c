"""The server process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from recsys.errors import ConfigError
from recsys.serving.service import Service


class _JoinedWrites:
    """A transport that sends all that is written in one step of the event loop at once.

    The head and the body of an answer are written one after the other. Sent alone, each would cost a
    system call, which wakes the client for a head without a body.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Plan to send some bytes, after those that were written before."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written, and close the connection."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        if data:
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(H11Protocol):
    """HTTP/1.1 whose answers are sent at once."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to read requests from a connection."""
        super().connection_made(cast(asyncio.Transport, _JoinedWrites(transport)))


class _Server(uvicorn.Server):
    """A server that ends in peace after SIGINT or SIGTERM: with the answers it owes, and exit code 0."""

    def __init__(self, config: uvicorn.Config, service: Service, report_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._service = service
        self._report_start = report_start
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and report it. Signals are handled from here on: SIGHUP reloads."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._start_task(self._service.reload()))
        self._start_task(self._service.watch_pointers())
        self._report_start()

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        # The loop itself keeps no reference to a task.
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the watch, and answer what has begun."""
        for task in list(self._tasks):
            task.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End after the requests that have begun. A second Ctrl-C ends at once."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: the address cannot be used, for example because another process has the port.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except (OSError, UnicodeError, OverflowError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{host}:{port}: cannot listen: {reason}. Choose another --host or --port.") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/"


def make_config(application: ASGIApp, seconds: float) -> uvicorn.Config:
    """Return the settings of the server of an application.

    Args:
        seconds: the time that one request may take.
    """
    return uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(seconds) + 1,
        http=_Protocol,
        loop="asyncio",
    )


def serve(
    application: ASGIApp,
    service: Service,
    listener: socket.socket,
    report_start: Callable[[], object],
) -> None:
    """Answer requests until SIGINT or SIGTERM. Requests that have begun then get their answers.

    Args:
        report_start: called when the server listens.
    """
    config = make_config(application, service.limits.seconds)
    asyncio.run(_Server(config, service, report_start).serve([listener]))
