"""Tables in memory through the Arrow C interface: Polars' and pyarrow's, read as the same rows in a file are."""

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys.data.reading import columnar
from recsys.data.reading.read import read_events, read_tables
from recsys.data.reading.read_settings import ReadSettings
from recsys.errors import InputError

polars = pytest.importorskip("polars", reason="polars is not installed")

ROWS = {
    "user_id": ["u1", "007", None, "u1", "ü"],
    "item_id": [3, 1, 2, 3, 2**40],
    "value": [1.5, None, 2.0, 4.0, 0.1],
    "timestamp": [5, 6, 7, 8, 9],
    "event": ["view", "buy", "buy", None, "view"],
}
ACCEPTED = [
    ("u1", 3, 1.5, 5.0, "view"),
    ("u1", 3, 4.0, 8.0, ""),
    ("ü", 2**40, 0.1, 9.0, "view"),
]


def frames():
    return list(_frames())


def _frames():
    table = polars.DataFrame(ROWS)
    yield "strings", table
    yield "categories", table.with_columns(polars.col("user_id", "event").cast(polars.Categorical))
    yield "many chunks", polars.concat([table[:2], table[2:3], table[3:]], rechunk=False)
    yield (
        "small types",
        table.with_columns(polars.col("value").cast(polars.Float64), polars.col("timestamp").cast(polars.UInt16)),
    )
    yield "arrow", table.to_arrow()
    yield (
        "arrow, large text",
        pa.table(table).cast(pa.schema([("user_id", pa.large_string()), *list(pa.table(table).schema)[1:]])),
    )


@pytest.mark.parametrize(("kind", "table"), frames(), ids=[kind for kind, _ in frames()])
def test_a_table_in_memory_is_read_as_a_file_is(kind, table, tmp_path, monkeypatch):
    monkeypatch.setattr(columnar, "ROWS", 2)
    events, refusals = read_events(table, ReadSettings(max_refused_share=0.5))
    assert list(events.itertuples(index=False, name=None)) == ACCEPTED
    assert refusals.counts == {"missing user id": 1, "unparsable value": 1}
    assert [(file, line) for file, line, _, _ in refusals.rows] == [("events", 2), ("events", 3)]


def test_dates_and_text_numbers_of_polars():
    table = polars.DataFrame(
        {
            "user_id": ["1", "2"],
            "item_id": [1, 2],
            "timestamp": [datetime.datetime(1970, 1, 1, 0, 0, 5), datetime.datetime(1970, 1, 2)],
        }
    )
    events, _ = read_events(table)
    assert events["timestamp"].tolist() == [5.0, 86_400.0]
    assert events["user_id"].tolist() == [1, 2]


def test_items_and_users_of_polars_settle_the_kind_of_ids():
    events = polars.DataFrame({"user_id": [1, 2], "item_id": [3, 4]})
    items = polars.DataFrame({"item_id": ["3", "x"], "title": ["three", None]})
    users = polars.DataFrame({"user_id": [2], "age": [30]})
    tables = read_tables(events, items, users)
    assert tables.events["item_id"].tolist() == ["3", "4"]
    assert tables.items["item_id"].tolist() == ["3", "x"]
    assert tables.users["user_id"].tolist() == [2]


def test_a_polars_table_of_nested_ids_is_refused():
    with pytest.raises(InputError, match="'user_id' has type"):
        read_events(polars.DataFrame({"user_id": [[1]], "item_id": [1]}))


def test_a_partitioned_folder_is_one_table(tmp_path):
    """Hive folders: the key is a column like any other, here the user's id and the type of event."""
    frame = pd.DataFrame(ROWS).dropna(subset=["user_id", "event", "value"])
    pa.parquet.write_to_dataset(pa.Table.from_pandas(frame), tmp_path / "log", partition_cols=["event", "user_id"])
    (tmp_path / "log" / "_SUCCESS").touch()
    events, refusals = read_events(tmp_path / "log")
    found = sorted(events[["user_id", "item_id", "value", "timestamp", "event"]].itertuples(index=False, name=None))
    assert found == [ACCEPTED[0], ACCEPTED[2]]
    assert refusals.total == 2


def test_a_folder_partitioned_by_number(tmp_path):
    frame = pd.DataFrame({"user_id": [7, 7, 10], "item_id": np.array([1, 2, 3], dtype=np.int32)})
    pa.parquet.write_to_dataset(pa.Table.from_pandas(frame), tmp_path / "log", partition_cols=["user_id"])
    events, _ = read_events(tmp_path / "log")
    assert sorted(events.itertuples(index=False, name=None)) == [(7, 1, 1.0), (7, 2, 1.0), (10, 3, 1.0)]


def test_a_lazy_frame_is_collected():
    lazy = polars.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "kind": ["a", "b"]}).lazy()
    tables = read_tables(lazy, lazy.select("item_id", "kind"))
    assert tables.events[["user_id", "item_id"]].to_numpy().tolist() == [[1, 3], [2, 4]]
    assert tables.items.kind.tolist() == ["a", "b"]


EVENTS_OF_ONE = pd.DataFrame({"user_id": [1], "item_id": [2]})


@pytest.mark.parametrize("wrong", [5, [{"user_id": 1, "item_id": 2}], pd.Series([1]), b"events.csv"], ids=repr)
def test_what_is_neither_a_path_nor_a_table_is_named_by_its_type(wrong):
    message = rf": {type(wrong).__name__} is neither a path nor a table"
    with pytest.raises(InputError, match="events" + message):
        read_tables(wrong)
    with pytest.raises(InputError, match="items" + message):
        read_tables(EVENTS_OF_ONE, wrong)


@pytest.mark.parametrize(
    "empty", [pd.DataFrame(), pa.table({}), polars.DataFrame()], ids=lambda table: type(table).__module__
)
def test_a_table_without_columns_is_called_empty(empty):
    with pytest.raises(InputError, match="events: no columns: the table is empty"):
        read_tables(empty)
    with pytest.raises(InputError, match="items: no columns: the table is empty"):
        read_tables(EVENTS_OF_ONE, empty)
