"""The log of a store as Parquet, which ``recsys run`` reads as any other log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sql

from recsys.atomic_writing import new_folder
from recsys.data.reading.read import read_events
from recsys.data.reading.read_settings import ReadSettings
from recsys.errors import InputError, RunFolderError
from recsys.replacing import KIND, require_output_path
from recsys.schema import ITEM, TIME, USER
from recsys.serving.event_store import EVENTS, IMPRESSIONS, EventStore, StoreError

CARD = "log.json"
EVENTS_FILE = "events.parquet"
IMPRESSIONS_FILE = "impressions.parquet"

_TYPES: dict[type, pa.DataType] = {
    sql.BigInteger: pa.int64(),
    sql.Integer: pa.int64(),
    sql.Text: pa.string(),
    sql.Double: pa.float64(),
}

_LEFT_OUT = ("number", "received")
"""Columns of the store that say nothing to a reader of the log."""


def export_log(
    store: EventStore, out: Path, base: str | None = None, reading: ReadSettings | None = None
) -> dict[str, int]:
    """Write the events and the impressions of a store into a folder, and return the number of each.

    Args:
        base: an older log, whose events are written before those of the store. None: no such log.
        reading: how the older log is read. None: the defaults.

    ``events.parquet`` has user_id, item_id, value, timestamp (seconds since 1970), event (if any event
    has a type) and event_id. ``impressions.parquet`` has one row per listed item: request_id,
    timestamp, user_id (null for somebody unknown), model, version, rank, item_id, score, source,
    explore (the temperature, null where the list was not drawn) and probability: that this item is
    drawn at this rank, given the items above it.

    Raises:
        RunFolderError: ``out`` is a folder of something else, or cannot be written.
        InputError: the store or the older log cannot be read, or the older log has no times.
    """
    require_output_path(out / CARD, "OUT")
    older_events = None if base is None else _read_base(base, reading)
    try:
        with new_folder(out, _require_log_folder, _is_unfinished) as folder:
            counts = {
                "events": _write_table(store, EVENTS, folder / EVENTS_FILE, older_events),
                "impressions": _write_table(store, IMPRESSIONS, folder / IMPRESSIONS_FILE),
            }
            (folder / CARD).write_text(json.dumps({KIND: "log", **counts}) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be written: {error}. Choose another folder.") from error
    except StoreError as error:
        raise InputError(f"the store cannot be read: {error}.") from error
    return counts


def _read_base(base: str, reading: ReadSettings | None) -> pd.DataFrame:
    """Return the events of an older log, with the columns of the store.

    Raises:
        InputError: it cannot be read, or has no times.
    """
    events, _ = read_events(base, reading)
    if TIME not in events:
        raise InputError(
            f"{base}: an older log without times cannot come before events with times: name its column of times,"
            " --column timestamp=NAME, or leave out --base."
        )
    texts = {name: events[name].astype(str) for name in (USER, ITEM)}
    return events.assign(**texts).reindex(columns=[column.name for column in EVENTS.c])


def _write_table(store: EventStore, table: sql.Table, path: Path, older_rows: pd.DataFrame | None = None) -> int:
    """Write a table of the store as Parquet, after some older rows, and return the number of all rows."""
    columns = [column for column in table.c if column.name not in _LEFT_OUT]
    if table is EVENTS and not any(piece["event"].notna().any() for piece in _pieces(store, table, older_rows)):
        # A log without types has no such column: with one, every row would be of an unknown type.
        columns.remove(table.c.event)
    schema = pa.schema([(column.name, _TYPES[type(column.type)]) for column in columns])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for piece in _pieces(store, table, older_rows):
            part = piece[[column.name for column in columns]]
            writer.write_table(pa.Table.from_pandas(_without_nan(part), schema, preserve_index=False))
            count += len(part)
    return count


def _pieces(store: EventStore, table: sql.Table, older_rows: pd.DataFrame | None) -> Iterator[pd.DataFrame]:
    if older_rows is not None:
        yield older_rows
    yield from store.read(table)


def _without_nan(part: pd.DataFrame) -> pd.DataFrame:
    return part.astype(object).where(part.notna(), None)


def _require_log_folder(folder: Path) -> None:
    """Raise RunFolderError if a folder has anything but an older export."""
    if not folder.exists():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise RunFolderError(f"{folder}: something is where the folder should go. Choose another folder.")
    names = {path.name for path in folder.iterdir()}
    if names and (CARD not in names or names - {CARD, EVENTS_FILE, IMPRESSIONS_FILE}):
        raise RunFolderError(f"{folder}: holds what is no export of a log, so it is left alone. Choose another folder.")


def _is_unfinished(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {CARD, EVENTS_FILE, IMPRESSIONS_FILE}
