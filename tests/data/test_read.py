"""Readers: the same table from every format, by every mapping; ids that stay what they were; bad rows named."""

import gzip
import io
import json
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys.data.reading.files import READERS
from recsys.data.reading.read import MAX_REFUSED_ROWS, read_events, read_items, read_tables
from recsys.data.reading.read_settings import SUFFIXES, ReadSettings
from recsys.errors import InputError

ROWS = [
    ("ann", "film, the", 4.5, 1_500_000_000.0),
    ("bob", "x", 1.0, 1_500_000_060.0),
    ("ann", "x", 3.0, 1_600_000_000.0),
]
COLUMNS = ["user_id", "item_id", "value", "timestamp"]


def frame(rows=ROWS, columns=COLUMNS):
    return pd.DataFrame(rows, columns=columns)


def text(delimiter=",", header=COLUMNS):
    lines = [delimiter.join(header)] if header else []
    for user, item, value, time in ROWS:
        item = f'"{item}"' if delimiter in item else item
        lines.append(delimiter.join([user, item, str(value), str(int(time))]))
    return "\n".join(lines) + "\n"


def same(events, rows=ROWS):
    assert list(events.itertuples(index=False, name=None)) == rows
    assert events["value"].dtype == events["timestamp"].dtype == np.float64


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# --- formats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_events(tmp_path, ending, packed):
    if ending == "parquet":
        data = io.BytesIO()
        frame().to_parquet(data, index=False)
        data = data.getvalue()
    elif ending == "jsonl":
        data = "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in ROWS).encode()
    else:
        data = text("\t" if ending == "tsv" else ",").encode()
    if packed and ending == "parquet":
        pytest.skip("Parquet is compressed inside")
    name = f"events.{ending}{'.gz' if packed else ''}"
    events, refusals = read_events(write(tmp_path / name, gzip.compress(data) if packed else data))
    same(events)
    assert (refusals.total, refusals.refused) == (3, 0)


def test_an_unknown_format_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"unknown format 'parket': use one of auto, csv.*Did you mean 'parquet'"):
        ReadSettings(format="parket")


def test_every_suffix_has_a_reader():
    assert set(SUFFIXES.values()) == set(READERS)


def test_a_bad_row_changes_nothing_for_the_good_ones(tmp_path):
    """The fast reader gives way to the careful one, which must see the same table."""
    good = text() * 1
    path = write(tmp_path / "events.csv", good + "carol,,1,5\n")
    events, refusals = read_events(path, ReadSettings(max_refused_share=0.5))
    same(events)
    assert refusals.rows == [(str(path), 5, "missing item id", "carol,,1,5")]


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_any_delimiter(tmp_path, delimiter):
    same(read_events(write(tmp_path / "e.csv", text(delimiter)), ReadSettings(delimiter=delimiter))[0])


def test_mapping_by_name_and_by_position(tmp_path):
    columns = {"user_id": "who", "item_id": "what", "value": "stars", "timestamp": "when"}
    same(
        read_events(write(tmp_path / "named.csv", text(header=list(columns.values()))), ReadSettings(columns=columns))[
            0
        ]
    )
    places = {"user_id": "0", "item_id": "1", "value": "2", "timestamp": "3"}
    same(read_events(write(tmp_path / "bare.csv", text(header=None)), ReadSettings(columns=places))[0])
    with_header = ReadSettings(columns=places, header=True)
    same(read_events(write(tmp_path / "head.csv", text(header=["a", "b", "c", "d"])), with_header)[0])


def test_mapping_by_position_in_typed_columns(tmp_path):
    table = frame().set_axis(["a", "b", "c", "d"], axis=1)
    places = {"user_id": "0", "item_id": "1", "value": "2", "timestamp": "3"}
    same(read_events(table, ReadSettings(columns=places))[0])


def test_a_mapped_column_that_is_absent_is_an_error_even_if_optional(tmp_path):
    with pytest.raises(InputError, match=r"maps value to 'stars', but there is no such column"):
        read_events(write(tmp_path / "e.csv", text()), ReadSettings(columns={"value": "stars"}))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["user_id", "value"])
def test_a_mapped_column_that_is_absent_is_answered_with_the_columns_of_the_file(suffix, column, tmp_path):
    table = pd.DataFrame({"user": ["a"], "item": ["x"], "usage": [1.0], "rating": [1.0]})
    path = tmp_path / f"events.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    columns = {"user_id": "user", "item_id": "item"} | {column: "usr"}
    with pytest.raises(InputError) as caught:
        read_events(path, ReadSettings(columns=columns))
    assert "No column 'usr'. Did you mean 'user'" in str(caught.value)
    assert "Columns: user, item, usage, rating." in str(caught.value)


def test_mapping_names_our_columns_only():
    with pytest.raises(ValidationError, match="Did you mean 'timestamp'"):
        ReadSettings(columns={"timestmp": "when"})


def test_value_is_one_and_time_is_absent_without_their_columns(tmp_path):
    events, _ = read_events(write(tmp_path / "e.csv", "user_id,item_id\na,b\n"))
    assert events.to_dict("list") == {"user_id": ["a"], "item_id": ["b"], "value": [1.0]}


def test_event_types_are_text(tmp_path):
    events, _ = read_events(write(tmp_path / "e.csv", "user_id,item_id,event\na,b,buy\na,b,\n"))
    assert events["event"].tolist() == ["buy", ""]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_another_encoding(tmp_path, encoding):
    path = write(tmp_path / "e.csv", "user_id,item_id\nZoë,Amélie\n".encode(encoding))
    events, _ = read_events(path, ReadSettings(encoding=encoding))
    assert events.iloc[0].tolist() == ["Zoë", "Amélie", 1.0]


def test_an_encoding_that_is_none():
    for name in ("utf-9", "base64"):
        with pytest.raises(ValidationError, match="unknown text encoding"):
            ReadSettings(encoding=name)


# --- tables in memory and folders ----------------------------------------------------------------------------


class ByInterface:
    """A table of another library: all we know of it is the Arrow C interface."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("make", [frame, lambda: pa.table(frame()), lambda: ByInterface(pa.table(frame()))])
def test_tables_in_memory(make):
    events, refusals = read_events(make())
    same(events)
    assert refusals.total == 3


def test_a_frame_of_polars():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    same(read_events(polars.DataFrame(frame().to_dict("list")))[0])


def test_rows_of_a_table_in_memory_are_refused_by_number():
    table = pd.DataFrame({"user_id": ["a"] * 30 + [None], "item_id": 1})
    events, refusals = read_events(table)
    assert len(events) == 30
    assert [row[:3] for row in refusals.rows] == [("events", 31, "missing user id")]


def test_items_and_users_in_memory():
    items = pd.DataFrame({"item_id": ["x", "y"], "title": ["X", "Y"]})
    tables = read_tables(frame(), items, pa.table({"user_id": ["ann"], "age": [30]}))
    assert tables.items["title"].tolist() == ["X", "Y"]
    assert tables.users["age"].tolist() == [30]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pd.DataFrame({"user_id": [1, "a"], "item_id": [1, 2]}), "Give each column one type"),
        (pd.DataFrame({"user": [1], "item_id": [1]}), "No column 'user_id'. Did you mean 'user'"),
        (pd.DataFrame({"user_id": [1.5], "item_id": [1]}), "ids must be text or integers"),
        (pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "item_id"]), "two columns 'item_id'"),
        (pd.DataFrame({"user_id": [1], "item_id": [1], "value": [[1]]}), "'value' has type list"),
        (pd.DataFrame({"user_id": [], "item_id": []}), "no rows"),
    ],
)
def test_tables_in_memory_that_cannot_be_used(table, says):
    with pytest.raises(InputError, match=says):
        read_events(table)


def test_a_partitioned_parquet_folder(tmp_path):
    table = pa.Table.from_pandas(frame().assign(event=["view", "buy", "buy"]), preserve_index=False)
    pa.parquet.write_to_dataset(table, tmp_path / "events", partition_cols=["event"])
    (tmp_path / "events" / "_SUCCESS").touch()
    events, _ = read_events(tmp_path / "events")
    rows = {(user, item, event) for user, item, _, _, event in events.itertuples(index=False)}
    assert rows == {("ann", "film, the", "view"), ("bob", "x", "buy"), ("ann", "x", "buy")}


# --- ids -----------------------------------------------------------------------------------------------------


def ids_of(tmp_path, *users):
    path = write(tmp_path / "ids.csv", "user_id,item_id\n" + "".join(f"{user},0\n" for user in users))
    return read_events(path)[0]["user_id"]


def test_leading_zeros_keep_all_ids_text(tmp_path):
    assert ids_of(tmp_path, "007", "7").tolist() == ["007", "7"]


def test_canonical_numbers_become_int64_up_to_both_ends(tmp_path):
    far = [0, -1, 2**63 - 1, -(2**63)]
    ids = ids_of(tmp_path, *far)
    assert ids.dtype == np.int64
    assert ids.tolist() == far


@pytest.mark.parametrize("odd", ["9223372036854775808", "1e5", "-0", "+7", "7 ", "1.0", "٣"])
def test_anything_else_keeps_all_ids_text(tmp_path, odd):
    assert ids_of(tmp_path, "12", odd).tolist() == ["12", odd]


def test_pairs_equal_modulo_2_to_32_stay_apart(tmp_path):
    near, far = 7, 7 + 2**32
    assert ids_of(tmp_path, near, far).tolist() == [near, far]


def test_uuids(tmp_path):
    uuids = ["6fa459ea-ee8a-3ca4-894e-db77e160355e", "16fd2706-8baf-433b-82eb-8c7fada847da"]
    assert ids_of(tmp_path, *uuids).tolist() == uuids


def test_one_text_id_in_the_items_table_makes_all_item_ids_text(tmp_path):
    write(tmp_path / "e.csv", "user_id,item_id\n1,7\n2,8\n")
    write(tmp_path / "i.csv", "item_id,title\n7,A\n007,B\n")
    tables = read_tables(tmp_path / "e.csv", tmp_path / "i.csv")
    assert tables.events["item_id"].tolist() == ["7", "8"]
    assert tables.items["item_id"].tolist() == ["7", "007"]
    assert tables.events["user_id"].dtype == np.int64


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint16", "uint64"])
def test_typed_integers_keep_their_dtype(tmp_path, dtype):
    pd.DataFrame({"user_id": np.array([3, 5], dtype=dtype), "item_id": ["a", "b"]}).to_parquet(tmp_path / "e.parquet")
    events, _ = read_events(tmp_path / "e.parquet")
    assert events["user_id"].dtype == dtype
    assert events["user_id"].tolist() == [3, 5]


def test_integers_with_gaps_are_integers(tmp_path):
    """pandas turns integers with a gap into floats; they must come back as integers, and the gap be refused."""
    table = pd.DataFrame({"user_id": [*range(30), None], "item_id": 1})
    assert table["user_id"].dtype == np.float64
    events, refusals = read_events(table)
    assert events["user_id"].tolist() == list(range(30))
    assert refusals.counts == {"missing user id": 1}


def test_unsigned_ids_past_int64_stay_whole():
    large = [2**64 - 1, 1]
    events, _ = read_events(pd.DataFrame({"user_id": np.array(large, dtype=np.uint64), "item_id": [1, 2]}))
    assert events["user_id"].tolist() == [str(number) for number in large]


def test_json_ids_are_text_or_integers(tmp_path):
    good = [{"user_id": 3, "item_id": "a"}, {"user_id": 4.0, "item_id": "b"}]
    bad = [{"user_id": value, "item_id": "a"} for value in (1.5, True, [1], {"id": 1})]
    lines = "".join(json.dumps(record) + "\n" for record in good + bad)
    events, refusals = read_events(write(tmp_path / "e.jsonl", lines), ReadSettings(max_refused_share=0.9))
    assert events["user_id"].tolist() == [3, 4]
    assert refusals.counts == {"id is neither text nor an integer": 4}


# --- validation ----------------------------------------------------------------------------------------------

BAD = {
    ",b,1,5": "missing user id",
    "  ,b,1,5": "missing user id",
    "a,,1,5": "missing item id",
    "a,b,four,5": "unparsable value",
    "a,b,,5": "unparsable value",
    'a,b,"1,000",5': "unparsable value",
    "a,b,0x10,5": "unparsable value",
    "a,b,nan,5": "non-finite value",
    "a,b,-Infinity,5": "non-finite value",
    "a,b,1e999,5": "non-finite value",
    "a,b,1,": "impossible time",
    "a,b,1,soon": "impossible time",
    "a,b,1,-1": "impossible time",
    "a,b,1,4102444800": "impossible time",
    "a,b,1": "wrong column count",
    "a,b,1,5,6": "wrong column count",
}


@pytest.mark.parametrize("row", BAD)
def test_each_bad_row_has_its_reason_and_line(tmp_path, row):
    good = "".join(f"u{n},i,1,{n}\n" for n in range(20))
    path = write(tmp_path / "e.csv", "user_id,item_id,value,timestamp\n" + good + "\n" + row + "\n" + good)
    events, refusals = read_events(path)
    assert len(events) == 40
    assert [line[:3] for line in refusals.rows] == [(str(path), 23, BAD[row])]
    assert refusals.total == 41


def test_undecodable_bytes(tmp_path):
    data = b"user_id,item_id\n" + b"a,b\n" * 30 + "Zoë,b\n".encode("latin-1")
    events, refusals = read_events(write(tmp_path / "e.csv", data))
    assert len(events) == 30
    assert refusals.counts == {"undecodable bytes": 1}


def test_line_numbers_count_blank_lines_and_lines_inside_quotes(tmp_path):
    path = write(tmp_path / "e.csv", "user_id,item_id\r\n\r\n" + '"a\nb",c\r\n' + ",lost\r\n" + "a,b\r\n" * 40)
    events, refusals = read_events(path)
    assert events["user_id"].iloc[0] == "a\nb"
    assert refusals.rows[0][1] == 5


def test_a_quote_that_never_closes_is_an_error_not_one_long_row(tmp_path):
    path = write(tmp_path / "e.csv", "user_id,item_id\n" + "a,b\n" * 40 + 'a,"b\n' + "a,b\n" * 40)
    with pytest.raises(InputError, match=r"e\.csv, line 42: a quote is opened here and never closed"):
        read_events(path)


def test_the_text_of_a_refused_row_is_the_line_of_the_file(tmp_path):
    """A mended row can be read again, because its quotes are kept."""
    bad = [';90569B;"VINTAGE CREAM JAM JAR; LARGE";-24', ';b;"a ""big""\nname";1', 'ann;;plain;"2"', 'x;y;"z;"']
    log = "user_id;item_id;name;value\n" + "".join(f"{line}\r\n\r\n" for line in bad) + "ann;b;c;1\n"
    reading = ReadSettings(delimiter=";", max_refused_share=1.0)
    _, refusals = read_events(write(tmp_path / "events.csv", log), reading=reading)
    assert [row[3] for row in refusals.rows] == bad


def test_refused_csv_can_be_read_back(tmp_path):
    path = write(tmp_path / "e.csv", "user_id,item_id\n" + "a,b\n" * 40 + '"",x\n')
    _, refusals = read_events(path)
    refusals.write_csv(tmp_path / "refused.csv")
    table = pd.read_csv(tmp_path / "refused.csv")
    assert table.to_dict("records") == [{"file": str(path), "line": 42, "reason": "missing user id", "text": '"",x'}]


def test_refused_rows_past_the_limit_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("recsys.data.reading.read.MAX_REFUSED_ROWS", 3)
    assert MAX_REFUSED_ROWS > 3
    path = write(tmp_path / "e.csv", "user_id,item_id\n" + "a,b\n" * 40 + ",x\n" * 10)
    _, refusals = read_events(path, ReadSettings(max_refused_share=0.5))
    assert refusals.refused == 10
    refusals.write_csv(tmp_path / "refused.csv")
    assert "7 more rows were refused" in (tmp_path / "refused.csv").read_text().splitlines()[-1]


@pytest.mark.parametrize(("bad", "stops"), [(5, False), (6, True)])
def test_too_many_bad_rows_stop_the_run(tmp_path, bad, stops):
    path = write(tmp_path / "e.csv", "user_id,item_id\n" + "a,b\n" * (100 - bad) + ",b\n" * bad)
    if not stops:
        assert len(read_events(path)[0]) == 95
        return
    with pytest.raises(InputError, match=r"6 of 100 rows are bad \(missing user id: 6\)[\s\S]*line 96"):
        read_events(path)


def test_repeated_and_missing_ids_of_items_are_refused(tmp_path):
    write(tmp_path / "i.csv", "item_id,title\nx,First\nx,Second\n,None\ny,Third\n")
    items = read_items(tmp_path / "i.csv", ReadSettings(max_refused_share=0.5))
    assert items.to_dict("list") == {"item_id": ["x", "y"], "title": ["First", "Third"]}
    with pytest.raises(
        InputError,
        match=r"i\.csv: 2 of 4 rows are bad \(missing item id: 1, duplicate id: 1\).* \[data\] duplicates says which",
    ):
        read_items(tmp_path / "i.csv")


def test_items_may_use_the_mapped_name_or_ours(tmp_path):
    mapped = ReadSettings(columns={"user_id": "u", "item_id": "film"})
    for header in ("film", "item_id"):
        write(tmp_path / "i.csv", f"{header},title\nx,X\n")
        assert read_items(tmp_path / "i.csv", mapped)["item_id"].tolist() == ["x"]


# --- times ---------------------------------------------------------------------------------------------------

MOMENT = 1_577_836_800.0  # 2020-01-01


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("s", "1577836800"),
        ("ms", "1577836800000"),
        ("us", "1577836800000000"),
        ("iso", "2020-01-01"),
        ("iso", "2020-01-01T02:00:00+02:00"),
        ("iso", "2020-01-01 00:00:00Z"),
        (None, "1577836800"),
        (None, "2020-01-01T00:00:00"),
    ],
)
def test_time_units(tmp_path, unit, value):
    path = write(tmp_path / "e.csv", f"user_id,item_id,timestamp\na,b,{value}\n")
    assert read_events(path, ReadSettings(time_unit=unit))[0]["timestamp"].tolist() == [MOMENT]


def test_milliseconds_that_nobody_announced_are_an_error(tmp_path):
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp\na,b,1577836800000\n")
    with pytest.raises(InputError, match=r"set \[data\] time_unit = 'ms' or 'us'"):
        read_events(path)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_typed_times_need_no_unit(unit):
    times = pd.Series(np.array([MOMENT, MOMENT + 1]).astype("datetime64[s]").astype(f"datetime64[{unit}]"))
    for column in (times, times.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")):
        events, _ = read_events(pd.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "timestamp": column}))
        assert events["timestamp"].tolist() == [MOMENT, MOMENT + 1]


# --- MovieLens -----------------------------------------------------------------------------------------------

LATEST = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,964982703\n2,20,2.5,964982931\n",
    "movies.csv": 'movieId,title,genres\n10,"Heat, The (1995)",Action|Crime\n20,Solaris,(no genres listed)\n',
}
M1 = {
    "ratings.dat": "1::10::4::964982703\n2::20::2.5::964982931\n",
    "movies.dat": "10::Heat, The (1995)::Action|Crime\n20::Solaris::(no genres listed)\n",
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
}
FLAGS = {10: "|".join("1" if place in (1, 6) else "0" for place in range(19)), 20: "|".join("0" * 19)}
K100 = {
    "u.data": "1\t10\t4\t964982703\n2\t20\t2.5\t964982931\n",
    "u.item": f"10|Heat, The (1995)|01-Jan-1995||url|{FLAGS[10]}\n20|Solaris|||url|{FLAGS[20]}\n",
    "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n",
    "u1.base": "1\t10\t4\t964982703\n",
    "u1.test": "2\t20\t2.5\t964982931\n",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("files", [LATEST, M1, K100], ids=["latest", "1m", "100k"])
def test_movielens_layouts(tmp_path, files, packed):
    if packed:
        place = tmp_path / "ml.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"ml/{name}", content)
    else:
        place = tmp_path
        for name, content in files.items():
            write(tmp_path / name, content)
    tables = read_tables(place)
    rows = [(1, 10, 4.0, 964982703.0), (2, 20, 2.5, 964982931.0)]
    assert list(tables.events.itertuples(index=False, name=None)) == rows
    assert tables.items["item_id"].tolist() == [10, 20]
    assert tables.items["title"].tolist() == ["Heat, The (1995)", "Solaris"]
    assert tables.items["genres"].tolist() == ["Action|Crime", ""]
    assert tables.items["year"].iloc[0] == 1995
    if files is LATEST:
        assert tables.users is None
    else:
        assert tables.users["user_id"].tolist() == [1, 2]


def test_one_part_of_a_ready_made_100k_split(tmp_path):
    for name, content in K100.items():
        write(tmp_path / name, content)
    assert read_tables(tmp_path / "u1.test").events["item_id"].tolist() == [20]
    assert read_tables(tmp_path / "u1.base").items["item_id"].tolist() == [10, 20]


def test_latin_titles_of_old_layouts(tmp_path):
    for name, content in M1.items():
        (tmp_path / name).write_bytes(content.replace("Solaris", "Amélie").encode("latin-1"))
    assert read_tables(tmp_path).items["title"].tolist()[1] == "Amélie"


def test_content_beside_movies_adds_its_columns(tmp_path):
    content = "movieId,year,director,overview\n20,1972,Tarkovsky,A planet.\n"
    for name, data in (LATEST | {"content.csv": content}).items():
        write(tmp_path / name, data)
    items = read_tables(tmp_path).items
    assert items["year"].tolist() == [1995, 1972]
    assert items["director"].tolist()[1] == "Tarkovsky"


def test_damaged_archives_and_tables_are_named(tmp_path):
    write(tmp_path / "ml.zip", b"PK no")
    with pytest.raises(InputError, match=r"ml\.zip: not a complete zip archive"):
        read_tables(tmp_path / "ml.zip")
    write(tmp_path / "ratings.csv", LATEST["ratings.csv"])
    write(tmp_path / "movies.csv", "id,name\n1,2\n")
    with pytest.raises(InputError, match="latest items are damaged"):
        read_tables(tmp_path)


def test_a_movielens_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no MovieLens files"):
        read_tables(tmp_path, reading=ReadSettings(format="movielens"))


def test_the_text_of_a_refused_row_is_whole_up_to_a_limit(tmp_path):
    rows = [f"u,i,{'x' * size}" for size in (1_900, 3_000)]
    path = write(tmp_path / "e.csv", "\n".join(["user_id,item_id,value", "u,i,1", *rows]))
    _, refusals = read_events(path, ReadSettings(max_refused_share=0.9))
    refusals.write_csv(tmp_path / "refused.csv")
    texts = pd.read_csv(tmp_path / "refused.csv")["text"].tolist()
    assert texts == [rows[0], rows[1][:2_000] + " … (1,004 more characters)"]
