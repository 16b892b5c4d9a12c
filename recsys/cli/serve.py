"""The verb serve: answer requests over HTTP."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.application import DEPLOYMENT, app
from recsys.cli.console import log
from recsys.cli.options import OwnModels
from recsys.errors import ConfigError, MissingExtra
from recsys.logging import logger

if TYPE_CHECKING:
    from recsys.serving.limits import Limits

API_KEY = "RECSYS_API_KEY"
"""The environment variable that may hold the API key."""

STORE = "RECSYS_STORE"
"""The environment variable that may name the store.

A URL with a password belongs here, because other users of the machine can see the command line.
"""


@app.command(rich_help_panel=DEPLOYMENT)
def serve(
    bundles: Annotated[
        list[str],
        typer.Argument(
            help="A bundle or a pointer to one, or NAME=BUNDLE (several). The first is the default.",
            metavar="BUNDLE...",
        ),
    ],
    host: Annotated[
        str,
        typer.Option(help="The address to listen at. 0.0.0.0: every address of this machine."),
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0: any free one.")] = 8000,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where events and impressions are kept: an SQLite file, or a URL postgresql://… Default:"
            f" the variable {STORE}, if set."
        ),
    ] = None,
    explore: Annotated[
        float | None,
        typer.Option(help="Draw lists at random, as recommend --explore does, and log each item's probability."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with the key that clients must send. Default: the variable {API_KEY}, if set."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A further name by which clients call the server (repeatable). localhost, addresses and --host are"
            " always allowed."
        ),
    ] = None,
    max_k: Annotated[int, typer.Option(min=1, max=1_000_000, help="The longest list.")] = 1_000,
    max_history: Annotated[int, typer.Option(min=1, help="The longest history of a request.")] = 1_000,
    max_batch: Annotated[int, typer.Option(min=1, help="The largest number of lists in a request.")] = 100,
    max_body: Annotated[int, typer.Option(min=1, help="The largest body, in bytes.")] = 2**20,
    timeout: Annotated[float, typer.Option(min=0.001, max=3_600, help="Seconds until a request is given up.")] = 10.0,
    workers: Annotated[
        int,
        typer.Option(min=1, max=64, help="The number of processes that answer. They share the factors of a bundle."),
    ] = 1,
    own_models: OwnModels = False,
) -> None:
    """Serve bundles over HTTP, until Ctrl-C: lists, explanations, onboarding, as JSON.

    The lists are those of recsys recommend. docs/serving.md describes requests and answers;
    /openapi.json has them for programs. SIGHUP opens newer bundles; a pointer is watched.

    Example: recsys serve bundles/als_demo --port 8000
    """
    require_server()
    from recsys.serving.limits import Limits
    from recsys.serving.registry import parse_paths
    from recsys.serving.server import bind, url_of
    from recsys.serving.workers import Workers

    if explore is not None and not 0 < explore < float("inf"):
        raise ConfigError(f"--explore is {explore}: it must be above 0; leave it out for the best items.")
    settings = ServerSettings(
        paths=parse_paths(bundles),
        limits=Limits(k=max_k, history=max_history, batch=max_batch, body_bytes=max_body, seconds=timeout),
        store=store or os.environ.get(STORE),
        explore=explore,
        api_key=read_api_key(api_key_file),
        hosts=[host, *(allow_host or [])],
        own_models=own_models,
    )
    listener = bind(host, port)
    # Until the server listens, nothing is there to reload, and SIGHUP would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def report_start() -> None:
        log.print(f"serving at {url_of(listener)} (Ctrl-C ends)")

    if workers == 1:
        run_server(settings, listener, None, report_start)
    else:
        print_log()
        processes = Workers(
            partial(run_server, settings),
            listener,
            workers,
            lambda number, process_id: log.print(f"worker {number}: process {process_id}"),
        )
        if code := processes.run(report_start):
            raise typer.Exit(code)
    log.print("ended")


@dataclass(frozen=True)
class ServerSettings:
    """The settings of one server process. A worker gets them from its parent.

    Attributes:
        paths: name -> the folder of a bundle or a run, or a pointer to one.
        limits: what one request may ask for.
        store: the file or URL of the store. None: no store.
        explore: the temperature with which lists are drawn at random. None: the best items.
        api_key: the key that clients must send, or None.
        hosts: the names that the header Host may have, besides localhost and addresses.
        own_models: whether models of the user's own may run.
    """

    paths: dict[str, Path]
    limits: Limits
    store: str | None
    explore: float | None
    api_key: str | None
    hosts: list[str]
    own_models: bool


def run_server(
    settings: ServerSettings, listener: socket.socket, worker: int | None, report_start: Callable[[], object]
) -> None:
    """Open the bundles and the store, and answer requests until a signal ends the server.

    Args:
        settings: the bundles, the store and the limits.
        listener: the socket, which listens already.
        worker: the number of the worker process. None: the server is a single process.
        report_start: called when the server answers requests.
    """
    from recsys.models.own_model import allow_own_models
    from recsys.serving.application import make_application
    from recsys.serving.event_store import EventStore
    from recsys.serving.metrics import Metrics
    from recsys.serving.registry import Registry
    from recsys.serving.server import serve as serve_until_signal
    from recsys.serving.service import Service

    with ExitStack() as stack:
        # A worker is a process of its own, in which nothing has been allowed yet.
        if settings.own_models:
            stack.enter_context(allow_own_models())
        opened = EventStore(settings.store) if settings.store else None
        service = Service(Registry(settings.paths), settings.limits, opened, settings.explore, Metrics(worker))
        stack.callback(service.close)
        if worker in (None, 1):
            for model in service.registry.about():
                log.print(f"{model['model']}: {model['kind']}, {model['users']:,} users, {model['items']:,} items")
        print_log()
        application = make_application(service, settings.api_key, settings.hosts)
        serve_until_signal(application, service, listener, report_start)


def require_server() -> None:
    """Check that the packages of the server are installed.

    Raises:
        MissingExtra: a package is not installed. The message names it.
    """
    try:
        import sqlalchemy  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"serve needs the package {error.name}: pip install 'recsys[serve]'.") from error


def print_log() -> None:
    """Print the log of the package on stderr: failed requests by their ids, and reloads."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def read_api_key(path: Path | None) -> str | None:
    """Return the API key in a file or in the environment, or None if there is none.

    Raises:
        ConfigError: the file cannot be read, or has no key.
    """
    if path is None:
        return os.environ.get(API_KEY, "").strip() or None
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the API key cannot be read: {error}.") from error
    if not key:
        raise ConfigError(f"{path}: the file has no API key. Write one line into it.")
    return key
