"""Where events and impressions are kept: an SQLite file, or a PostgreSQL database that several servers share.

Tables, all with the prefix ``recsys_``:

    store          one row: the version of these tables
    events         what users did, one row per event, at most one per ``event_id``
    impressions    what was shown, one row per listed item

An event is on the disk before :meth:`EventStore.add_events` returns: SQLite writes a log ahead
(``journal_mode = WAL``) and waits for the disk at each commit (``synchronous = FULL``), PostgreSQL does
so by default.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from recsys.errors import ConfigError, InputError, MissingExtra
from recsys.replacing import require_output_path

FORMAT = 1
"""Version of the tables."""

MAX_EVENTS_OF_USER = 10_000
"""Largest number of events of one user that a request reads: the latest."""

_LOCK = 0x7265_6373_7973
"""The key of the advisory lock of PostgreSQL under which tables are made."""

STATEMENT_SECONDS = 30
"""How long PostgreSQL may take for one statement, and the network to confirm what is sent."""

CHUNK = 50_000
"""Number of rows that an export reads at a time."""

_TABLES = sql.MetaData()
# SQLite numbers rows by itself only in a column of this very type.
_NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")
_REAL = sql.Double

STORE = sql.Table("recsys_store", _TABLES, sql.Column("format", sql.Integer, nullable=False))

EVENTS = sql.Table(
    "recsys_events",
    _TABLES,
    sql.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sql.Column("event_id", sql.Text, nullable=False, unique=True),
    sql.Column("user_id", sql.Text, nullable=False),
    sql.Column("item_id", sql.Text, nullable=False),
    sql.Column("value", _REAL, nullable=False),
    sql.Column("timestamp", _REAL, nullable=False),
    sql.Column("event", sql.Text),
    sql.Column("received", _REAL, nullable=False),
    sql.Index("recsys_events_of_user", "user_id", "timestamp"),
)

IMPRESSIONS = sql.Table(
    "recsys_impressions",
    _TABLES,
    sql.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sql.Column("request_id", sql.Text, nullable=False),
    sql.Column("timestamp", _REAL, nullable=False),
    sql.Column("user_id", sql.Text),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("version", sql.Text, nullable=False),
    sql.Column("rank", sql.Integer, nullable=False),
    sql.Column("item_id", sql.Text, nullable=False),
    sql.Column("score", _REAL, nullable=False),
    sql.Column("source", sql.Text, nullable=False),
    sql.Column("explore", _REAL),
    sql.Column("probability", _REAL),
)

_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class StoreError(Exception):
    """The store cannot be read or written now. Nothing of the request was acknowledged."""


class EventConflict(Exception):
    """Two different events have one id."""


class EventStore:
    """Events and impressions in a database. Its methods may be called in any thread.

    Args:
        location: the path of an SQLite file, which is made if it does not exist, or a URL of
            SQLAlchemy such as ``postgresql://user@host/database``.
        create: whether the tables are made where there are none. An SQLite file of another program
            is refused in any case.

    Raises:
        ConfigError: the URL is wrong, or its kind of database is not supported.
        InputError: the database cannot be opened, or is of another program or version.
        MissingExtra: the driver of the database is not installed.
    """

    def __init__(self, location: str, *, create: bool = True) -> None:
        if "://" not in location:
            _require_store_file(Path(location), create)
        self._engine = _engine_of(location)
        self._insert: Any = _INSERT[self._engine.dialect.name]
        formats = []
        try:
            with self._engine.begin() as connection:
                if create and self._engine.dialect.name == "postgresql":
                    # Two servers that start together would both make the tables.
                    connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
                if create:
                    _TABLES.create_all(connection)
                if sql.inspect(connection).has_table(STORE.name):
                    formats = list(connection.scalars(sql.select(STORE.c.format)))
                if create and not formats:
                    connection.execute(STORE.insert().values(format=FORMAT))
                    formats = [FORMAT]
        except SQLAlchemyError as error:
            self.close()
            raise InputError(f"{_without_password(location)}: the store cannot be opened: {_reason(error)}.") from None
        if not formats:
            self.close()
            raise InputError(f"{_without_password(location)}: there is no store of recsys serve in this database.")
        if set(formats) != {FORMAT}:
            self.close()
            raise InputError(
                f"{_without_password(location)}: a store of format {formats[0]}, but this recsys has {FORMAT}."
            )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> int:
        """Store events durably, and return how many of them are new.

        All are stored, or none. An event whose ``event_id`` is in the store already is left out. Its
        time may differ then, because one that is sent without a time gets the time of its arrival.

        Args:
            events: the columns of :data:`EVENTS` without ``number`` and ``received``.

        Raises:
            StoreError: they cannot be stored.
            EventConflict: an ``event_id`` is of an event with another user, item, value or type.
        """
        received = time.time()
        statement = self._insert(EVENTS).on_conflict_do_nothing(index_elements=["event_id"])
        # Not every driver counts the rows of an insertion, but each returns those that were inserted.
        statement = statement.returning(EVENTS.c.event_id)
        count = 0
        with _errors_explained(), self._engine.begin() as connection:
            # One order in all transactions: two of them never wait for each other in a circle.
            for event in sorted(events, key=lambda event: event["event_id"]):
                if connection.execute(statement, {**event, "received": received}).all():
                    count += 1
                else:
                    _require_same_event(connection, event)
        return count

    def events_of(self, user: str) -> list[tuple[str, float, float, str | None]]:
        """Return the latest events of a user, oldest first: item_id, value, timestamp, event.

        Raises:
            StoreError: they cannot be read.
        """
        columns = (EVENTS.c.item_id, EVENTS.c.value, EVENTS.c.timestamp, EVENTS.c.event)
        latest = (
            sql.select(*columns)
            .where(EVENTS.c.user_id == user)
            .order_by(EVENTS.c.timestamp.desc(), EVENTS.c.number.desc())
            .limit(MAX_EVENTS_OF_USER)
        )
        with _errors_explained(), self._engine.connect() as connection:
            return [tuple(row) for row in reversed(connection.execute(latest).all())]

    def add_impressions(self, impressions: Sequence[Mapping[str, Any]]) -> None:
        """Store impressions.

        Args:
            impressions: the columns of :data:`IMPRESSIONS` without ``number``.

        Raises:
            StoreError: they cannot be stored.
        """
        with _errors_explained(), self._engine.begin() as connection:
            connection.execute(IMPRESSIONS.insert(), list(impressions))

    def read(self, table: sql.Table) -> Iterator[pd.DataFrame]:
        """Yield the rows of a table in pieces, in the order in which they were stored.

        Raises:
            StoreError: they cannot be read.
        """
        last = -1
        while True:
            rows = sql.select(table).where(table.c.number > last).order_by(table.c.number).limit(CHUNK)
            with _errors_explained(), self._engine.connect() as connection:
                piece = pd.DataFrame(connection.execute(rows).all(), columns=[column.name for column in table.c])
            if piece.empty:
                return
            last = int(piece["number"].iat[-1])
            yield piece


def _require_same_event(connection: sql.Connection, event: Mapping[str, Any]) -> None:
    """Check that the stored event with the id of an event says the same.

    Raises:
        EventConflict: it is of another user, item, value or type.
    """
    names = ("user_id", "item_id", "value", "event")
    same_id = sql.select(*(EVENTS.c[name] for name in names)).where(EVENTS.c.event_id == event["event_id"])
    if tuple(connection.execute(same_id).one()) != tuple(event[name] for name in names):
        raise EventConflict(f"another event has the id {event['event_id']!r}: give each event an id of its own.")


def _require_store_file(path: Path, create: bool) -> None:
    """Check that an SQLite file is a store, or may become one. Nothing is written into it.

    Raises:
        InputError: the file has tables of another program, is no database, or is missing and may not be made.
    """
    if not path.is_file():
        if create or path.exists():
            return
        raise InputError(f"{path}: there is no such store. `recsys serve --store {path}` makes one.")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise InputError(f"{path}: the store cannot be opened: {error}.") from None
    if tables and STORE.name not in tables:
        raise InputError(f"{path}: a database of another program, which is left alone. Choose another file.")


def _engine_of(location: str) -> sql.Engine:
    """Return an engine for a path or a URL."""
    if "://" not in location:
        path = Path(location)
        require_output_path(path, "--store")
        if not path.resolve().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}. Make it, or choose another --store.")
        engine = sql.create_engine(sql.URL.create("sqlite", database=str(path)), connect_args={"timeout": 5})
        sql.event.listen(engine, "connect", _wait_for_the_disk)
        return engine
    try:
        url = sql.make_url(location)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() != "postgresql":
            raise ConfigError(
                f"{_without_password(location)}: the store is a file, or a URL that begins with postgresql://."
            )
        # A database that hangs must not hang the server with it.
        timeouts = {"connect_timeout": 5, "tcp_user_timeout": 1_000 * STATEMENT_SECONDS}
        engine = sql.create_engine(url, pool_pre_ping=True, connect_args=timeouts)
        sql.event.listen(engine, "connect", _limit_statements)
        return engine
    except (SQLAlchemyError, ValueError):
        # What SQLAlchemy says may repeat the password.
        raise ConfigError(
            f"{_without_password(location)}: not a URL of a database, such as postgresql://user@host:5432/database."
        ) from None
    except ImportError as error:
        raise MissingExtra(f"a PostgreSQL store needs {error.name}: pip install 'recsys[postgres]'.") from None


def _wait_for_the_disk(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _limit_statements(connection: Any, record: Any) -> None:
    # Within a transaction, its end could undo the setting.
    connection.autocommit = True
    connection.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
    connection.autocommit = False


@contextmanager
def _errors_explained() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return what a database says, in one line and without the statement."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0].rstrip(".")


def _without_password(location: str) -> str:
    """Return the location without what may be secret: its user, its password and its options."""
    if "://" not in location:
        return location
    try:
        url = sql.make_url(location)
        return str(sql.URL.create(url.drivername, host=url.host, port=url.port, database=url.database))
    except (SQLAlchemyError, ValueError):
        return "the URL of the store"
