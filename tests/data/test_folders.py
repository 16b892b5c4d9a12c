"""A folder of parts is one table, whatever its format; parts that do not belong together are both named."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.reading.read import estimate_rows, read_events, read_items, read_tables
from recsys.data.reading.read_settings import ReadSettings
from recsys.errors import InputError

DAYS = {
    "2024-01-01": [("a", "x", 1.0), ("b", "y", 2.0)],
    "2024-01-02": [("a", "z", 3.0)],
    "2024-01-10": [("c", "x", 4.0)],
}
COLUMNS = ["user_id", "item_id", "value"]


def pack(data, how):
    if how == ".gz":
        return gzip.compress(data)
    if how == ".zst":
        return pa.Codec("zstd").compress(data, asbytes=True)
    return data


def write_day(folder, day, rows, suffix, packed=""):
    frame = pd.DataFrame(rows, columns=COLUMNS)
    path = folder / f"{day}.{suffix}{packed}"
    if suffix == "parquet":
        frame.to_parquet(path, index=False)
    elif suffix == "jsonl":
        path.write_bytes(pack(frame.to_json(orient="records", lines=True).encode(), packed))
    else:
        separator = "\t" if suffix == "tsv" else ","
        path.write_bytes(pack(frame.to_csv(index=False, sep=separator).encode(), packed))
    return path


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_folder_of_parts_is_read_as_one_log_in_the_order_of_names(tmp_path, suffix, packed):
    if packed and suffix == "parquet":
        pytest.skip("Parquet is compressed inside")
    for day in reversed(DAYS):
        write_day(tmp_path, day, DAYS[day], suffix, packed)
    (tmp_path / "_SUCCESS").write_bytes(b"")
    (tmp_path / f".{suffix}.crc").write_bytes(b"crc")
    events, refusals = read_events(tmp_path)
    assert list(events.itertuples(index=False, name=None)) == [row for rows in DAYS.values() for row in rows]
    assert (refusals.total, refusals.refused) == (4, 0)


def test_parts_at_any_depth_and_with_columns_in_another_order(tmp_path):
    (tmp_path / "2024" / "01").mkdir(parents=True)
    (tmp_path / "2024" / "01" / "a.csv").write_text("user_id,item_id,value\na,x,1\n")
    (tmp_path / "2024" / "b.csv").write_text("value,note,item_id,user_id\n2,hm,y,b\n")
    (tmp_path / "2024" / "c.csv").write_text("")
    (tmp_path / "2024" / "d.csv").write_text("user_id,item_id,value\n")
    events, _ = read_events(tmp_path)
    assert list(events.itertuples(index=False, name=None)) == [("a", "x", 1.0), ("b", "y", 2.0)]


def test_a_refused_row_is_named_with_its_part(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id\n" + "a,x\n" * 40)
    (tmp_path / "b.csv").write_text("user_id,item_id\na,x\n,lost\n")
    _, refusals = read_events(tmp_path)
    assert refusals.rows == [(str(tmp_path / "b.csv"), 3, "missing user id", ",lost")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_parts_of_which_one_has_no_values_are_both_named(tmp_path, suffix):
    frame = pd.DataFrame(DAYS["2024-01-01"], columns=COLUMNS)
    for name, part in {"a": frame.drop(columns="value"), "b": frame}.items():
        path = tmp_path / f"{name}.{suffix}"
        part.to_csv(path, index=False) if suffix == "csv" else part.to_parquet(path, index=False)
    with pytest.raises(InputError, match=rf"a\.{suffix}: no column 'value', which .*b\.{suffix} has\."):
        read_events(tmp_path)


def test_a_table_of_items_beside_the_events_is_named(tmp_path):
    (tmp_path / "events.csv").write_text("user_id,item_id\na,x\n")
    (tmp_path / "items.csv").write_text("item_id,title\nx,X\n")
    with pytest.raises(InputError, match=r"items\.csv: no column 'user_id', which .*events\.csv has\. .*elsewhere"):
        read_events(tmp_path)


def test_parts_of_two_formats_and_of_no_format_are_named(tmp_path):
    write_day(tmp_path, "a", DAYS["2024-01-01"], "csv")
    write_day(tmp_path, "b", DAYS["2024-01-02"], "parquet")
    with pytest.raises(InputError, match=r"a\.csv is csv and b\.parquet is parquet"):
        read_events(tmp_path)
    (tmp_path / "b.parquet").rename(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"notes\.txt: the format cannot be told from the name"):
        read_events(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="a folder without files"):
        read_events(tmp_path / "empty")


def test_parts_without_a_suffix_are_read_in_the_format_of_the_settings(tmp_path):
    (tmp_path / "000000_0").write_text("a\x01x\n")
    (tmp_path / "000001_0").write_text("b\x01y\n")
    by_position = ReadSettings(delimiter="\x01", columns={"user_id": "0", "item_id": "1"})
    for reading in (by_position, by_position.model_copy(update={"format": "csv"})):
        assert read_events(tmp_path, reading)[0]["user_id"].tolist() == ["a", "b"]


def test_integers_of_two_widths_are_their_union(tmp_path):
    for name, kind in {"a": np.int32, "b": np.int64}.items():
        number = np.iinfo(kind).max
        frame = pd.DataFrame({"user_id": np.array([number], dtype=kind), "item_id": [1]})
        frame.to_parquet(tmp_path / f"{name}.parquet")
    assert read_events(tmp_path)[0]["user_id"].tolist() == [2**31 - 1, 2**63 - 1]


def test_numbers_and_text_in_two_parts_are_both_named(tmp_path):
    pd.DataFrame({"user_id": [1], "item_id": [2]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"user_id": ["x"], "item_id": [2]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        InputError, match=r"b\.parquet: column 'user_id' has type .*string, but type int64 in .*a\.parquet"
    ):
        read_events(tmp_path)


def test_a_damaged_part_is_named(tmp_path):
    write_day(tmp_path, "a", DAYS["2024-01-01"], "parquet")
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"b\.parquet: not a readable Parquet file"):
        read_events(tmp_path)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_compressed_part_that_is_cut_short_is_named(tmp_path, packed):
    write_day(tmp_path, "a", DAYS["2024-01-01"], "csv", packed)
    path = write_day(tmp_path, "b", DAYS["2024-01-01"] * 5000, "csv", packed)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"b\.csv\.\w+: the archive is damaged or cut short"):
        read_events(tmp_path)


def test_the_names_of_partition_folders_are_text(tmp_path):
    for key in ("007", "7"):
        (tmp_path / f"item_id={key}").mkdir()
        pd.DataFrame({"user_id": [1]}).to_parquet(tmp_path / f"item_id={key}" / "a.parquet", index=False)
    assert sorted(read_events(tmp_path)[0]["item_id"]) == ["007", "7"]


def test_parts_of_items_may_have_different_columns(tmp_path):
    (tmp_path / "a.csv").write_text("item_id,title\nx,X\n")
    (tmp_path / "b.csv").write_text("item_id,year\ny,1999\n")
    items = read_items(tmp_path)
    assert items["title"].fillna("").tolist() == ["X", ""]
    assert items["year"].fillna("").tolist() == ["", "1999"]


def test_rows_of_a_folder_are_estimated_over_all_parts(tmp_path):
    for day in DAYS:
        write_day(tmp_path, day, DAYS[day] * 100, "csv")
    assert 350 <= estimate_rows(tmp_path) <= 450


def test_json_keys_of_later_lines_and_parts_count_for_all(tmp_path, monkeypatch):
    """A log whose first lines have no value has values all the same: those lines are refused, whatever the size of a
    chunk is."""
    monkeypatch.setattr("recsys.data.reading.files.JSON_LINES", 3)
    lines = [{"user_id": "a", "item_id": n} for n in range(10)]
    late = [{"user_id": "a", "item_id": n, "value": 2} for n in range(90)]
    for name, records in {"a": lines, "b": late}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    events, refusals = read_events(tmp_path, ReadSettings(max_refused_share=0.2))
    assert refusals.counts == {"unparsable value": 10}
    assert events["value"].tolist() == [2.0] * 90


def test_movielens_files_beside_the_ratings_are_no_parts(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,964982703\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,Heat,Crime\n")
    assert read_tables(tmp_path).items["title"].tolist() == ["Heat"]


def test_a_file_named_ratings_that_is_not_of_movielens_is_a_log(tmp_path):
    (tmp_path / "ratings.csv").write_text("user_id,item_id,value\na,x,4\n")
    assert read_events(tmp_path)[0]["value"].tolist() == [4.0]


def test_ratings_with_double_colons_that_are_not_of_movielens(tmp_path):
    """MovieTweetings has films without genres and users with two columns; others have no timestamps."""
    (tmp_path / "ratings.dat").write_text("1::0114508::8\n2::0208092::5\n")
    (tmp_path / "movies.dat").write_text("0114508::Species (1995)\n0208092::Snatch (2000)::Crime::Comedy\n")
    (tmp_path / "users.dat").write_text("1::139564917\n2::17528189\n")
    tables = read_tables(tmp_path)
    assert tables.events["item_id"].tolist() == ["0114508", "0208092"]
    assert tables.events["value"].tolist() == [8.0, 5.0]
    assert tables.items["title"].tolist() == ["Species (1995)", "Snatch (2000)"]
    assert tables.items["year"].tolist() == [1995, 2000]
    assert list(tables.users) == ["user_id", "column_1"]


def test_duplicate_column_names_that_nobody_maps_are_no_fault(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array([1]), pa.array([2]), pa.array([3]), pa.array([4])], ["user_id", "x", "item_id", "x"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_events(tmp_path / "a.parquet")[0]["item_id"].tolist() == [3]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_mapping_to_no_column_is_named_where_the_file_has_our_name(suffix, tmp_path):
    """The file has user_id; it is the mapping that is wrong."""
    frame = pd.DataFrame({"user_id": ["a"], "item_id": ["x"]})
    path = tmp_path / f"events.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    with pytest.raises(InputError, match=r"\[data\.columns\] maps user_id to 'uid', but there is no such column"):
        read_tables(path, reading=ReadSettings(columns={"user_id": "uid"}))


@pytest.mark.parametrize("pattern", ["parts/*.csv", "parts/a?.csv", "parts/[ab].csv"])
def test_a_pattern_is_answered_with_the_folder(pattern, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "ab.csv").write_text("user_id,item_id\na,x\n")
    with pytest.raises(InputError, match="patterns are not expanded: name a folder"):
        read_tables(str(tmp_path / pattern))


@pytest.mark.parametrize("part", [b"", b"PAR1 and nothing else PAR1"])
def test_a_part_that_is_no_parquet_is_named(part, tmp_path):
    pd.DataFrame({"user_id": ["a"], "item_id": ["x"]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(part)
    with pytest.raises(InputError, match=r"b\.parquet: not a readable Parquet file"):
        read_tables(tmp_path)
