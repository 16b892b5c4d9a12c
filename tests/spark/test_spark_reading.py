"""Odd files and folders give both engines the same rows, refusals and ids."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.spark

GOOD = "".join(f"u{n},i{n % 7},{n % 5}\n" for n in range(60))
HEAD = "user_id,item_id,value\n"


def zstd(text):
    return pa.Codec("zstd").compress(text.encode(), asbytes=True)


TEXT = {
    "quotes, blanks, bytes and broken rows": {
        "e.csv": (HEAD + GOOD + '"a ""q"" b",x,1\n a , b ,1\n"a"b,x,1\nx\\,y,1\na,b\n,b,1\na,,1\na,b,nan\n').encode()
        + b"Zo\xeb,b,1\n\nz,y,+1e1\na,b,"
        + b"y" * 3_000
    },
    "two parts in two orders, one of them gzipped, and an empty one": {
        "in/b.csv": (HEAD + GOOD).encode(),
        "in/a.csv.gz": gzip.compress(b"\xef\xbb\xbf" + b"value,x,item_id,user_id\r\n" + b"3,x,i1,u1\r\n" * 9),
        "in/c.csv": b"",
    },
    "zstd": {"in/a.csv.zst": zstd(HEAD + GOOD), "in/b.csv.zst": zstd(HEAD + '"two\nlines",x,1\n')},
    "the header once more inside": {"e.csv": (HEAD + GOOD + HEAD + GOOD).encode()},
    "a name with the signs of a pattern": {"e[1]{a,b}*?.csv": (HEAD + "the,right,1\n").encode(), "e1a.csv": b"x,y\n"},
    "a name with a colon and a blank": {"2024-01-01 T00:00.csv": (HEAD + GOOD).encode()},
    "json": {
        "e.jsonl": "\n".join(
            [json.dumps({"user_id": f"u{n}", "item_id": n, "value": 1}) for n in range(60)]
            + ['{"user_id": 7.0, "item_id": "x", "value": "2"}', '{"user_id": true, "item_id": 1, "value": 1}']
            + ['{"user_id": ["a"], "item_id": 1, "value": 1}', "{'user_id': 'a', 'item_id': 1, 'value': 1}"]
            + ['{"user_id": "a", "item_id": 1, "value": 1} trailing', "[1]", "", '{"user_id": "a", "item_id": 1}']
        ).encode()
    },
}
SETTINGS = {
    "latin-1 with a long delimiter": (
        {"e.csv": "".join(f"Zoë{n}::i{n % 3}::2\n" for n in range(9)).encode("latin-1")},
        {"encoding": "latin-1", "delimiter": "::", "columns": {"user_id": "0", "item_id": "1", "value": "2"}},
    ),
    "utf-16": ({"e.csv": (HEAD + GOOD).encode("utf-16")}, {"encoding": "utf-16"}),
    "numbers as times after many dates": (
        {
            "e.csv": b"user_id,item_id,timestamp\n"
            + b"u,x,2024-01-01\n" * 1_000
            + b"".join(b"u%d,y,%d\n" % (n, 1_700_000_000 + n) for n in range(900))
        },
        {},
    ),
    "dates as times in the smaller of two files": (
        {
            "in/a.csv": b"user_id,item_id,timestamp\n" + b"u,x,2024-01-01\n" * 3,
            "in/b.csv": b"user_id,item_id,timestamp\nw,z,\n" + b"v,y,1700000000\n" * 5,
        },
        {},
    ),
    "guests": ({"e.csv": b"user_id,item_id,invoice\n1,x,7\n,y,8\n"}, {"user_fallback": "invoice"}),
}
CASES = {name: (files, {}) for name, files in TEXT.items()} | SETTINGS


def both(spark, path, tmp_path, **settings):
    from recsys.config import DataSettings
    from recsys.data.reading.read import read_tables
    from recsys.spark.data.read import read_tables as read_on_spark

    data = DataSettings(events=str(path), max_refused_share=0.9, **settings)
    return read_tables(path, reading=data.reading), read_on_spark(spark, data, tmp_path / "work")


def rows(frame):
    columns = sorted(frame.columns)
    return sorted(map(repr, frame[columns].astype(object).itertuples(index=False, name=None)))


def require_equal(local, large):
    assert large.refusals.total == local.refusals.total
    assert large.refusals.counts == local.refusals.counts
    # As they are written to refused.csv.
    refused = [
        sorted((*row[:3], ascii(row[3]).replace("\\\\", "\\")) for row in of.refusals.rows) for of in (large, local)
    ]
    assert refused[0] == refused[1]
    assert rows(large.events.toPandas()) == rows(local.events)


@pytest.mark.parametrize("case", CASES)
def test_odd_text_is_the_same_on_both_engines(spark, case, tmp_path):
    files, settings = CASES[case]
    for name, data in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    source = tmp_path / "data" / next(iter(files))
    if source.parent.name == "in":
        source = source.parent
    require_equal(*both(spark, source, tmp_path, **settings))


TIMES = np.array([1_500_000_000_123_456_789, 1_600_000_000_000_000_999], dtype="int64")
TYPED = {
    "nanoseconds": {"timestamp": pa.array(TIMES, pa.timestamp("ns"))},
    "nanoseconds with a zone": {"timestamp": pa.array(TIMES, pa.timestamp("ns", "UTC"))},
    "milliseconds": {"timestamp": pa.array(TIMES // 10**6, pa.timestamp("ms"))},
    "dates": {"timestamp": pa.array([18_000, 19_000], pa.date32())},
    "unsigned ids": {"user_id": pa.array([7, 2**63 + 1], pa.uint64()), "item_id": pa.array([7, 2**40], pa.uint64())},
    "decimal ids": {
        "user_id": pa.array([7, 10**20], pa.decimal128(38, 0)),
        "item_id": pa.array([3, 4], pa.decimal128(9, 0)),
    },
    "whole floats": {"user_id": pa.array([7.0, None]), "item_id": pa.array([3.0, 4.0], pa.float32())},
    "a boolean value": {"value": pa.array([True, False])},
    "decimal values": {"value": pa.array([1, 250], pa.decimal128(9, 2))},
    "a value that is null": {"value": pa.nulls(2, pa.float64())},
}


@pytest.mark.parametrize("case", TYPED)
def test_odd_types_are_the_same_on_both_engines(spark, case, tmp_path):
    table = {"user_id": pa.array([1, 2]), "item_id": pa.array([3, 4])} | TYPED[case]
    if case == "a value that is null":
        table = {name: pa.concat_arrays([column] * 20) for name, column in table.items()}
        table["value"] = pa.concat_arrays([pa.array([1.0] * 38), pa.nulls(2, pa.float64())])
    pq.write_table(pa.table(table), tmp_path / "e.parquet")
    local, large = both(spark, tmp_path / "e.parquet", tmp_path)
    assert large.refusals.counts == local.refusals.counts
    assert rows(large.events.toPandas()) == rows(local.events)


def test_parquet_parts_of_two_widths_and_in_partitions_are_the_same_on_both_engines(spark, tmp_path):
    for key, kind in {"007": np.int32, "7": np.int64}.items():
        folder = tmp_path / "log" / f"item_id={key}"
        folder.mkdir(parents=True)
        frame = pd.DataFrame({"user_id": np.array([np.iinfo(kind).max], dtype=kind), "value": [2.0]})
        frame.to_parquet(folder / "a.parquet", index=False)
    table = pa.Table.from_arrays(
        [pa.array([1]), pa.array([2.0]), pa.array([3]), pa.array([4])], ["user_id", "value", "x", "x"]
    )
    pq.write_table(table, tmp_path / "log" / "item_id=7" / "b.parquet")
    require_equal(*both(spark, tmp_path / "log", tmp_path))


def test_parts_whose_columns_have_other_types_are_the_same_on_both_engines(spark, tmp_path):
    (tmp_path / "log").mkdir()
    kinds = [pa.int64(), pa.float32(), pa.float64(), pa.int8(), pa.decimal128(9, 2)]
    for number, kind in enumerate(kinds):
        columns = {"user_id": [number], "item_id": [7], "value": pa.array([3], pa.int64()).cast(pa.float64())}
        columns["value"] = columns["value"].cast(kind)
        pq.write_table(pa.table(columns), tmp_path / "log" / f"{number}.parquet")
    require_equal(*both(spark, tmp_path / "log", tmp_path))


def test_fractional_ids_and_parts_without_values_are_refused_on_spark_too(spark, tmp_path):
    from recsys.errors import InputError

    pd.DataFrame({"user_id": [1.5], "item_id": [2]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(InputError, match="'user_id' has type double: ids must be text or integers"):
        read_on_spark(spark, tmp_path / "e.parquet", tmp_path)
    (tmp_path / "log").mkdir()
    pd.DataFrame({"user_id": [1], "item_id": [2]}).to_parquet(tmp_path / "log" / "a.parquet")
    pd.DataFrame({"user_id": [1], "item_id": [2], "value": [3.0]}).to_parquet(tmp_path / "log" / "b.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: no column 'value', which .*b\.parquet has"):
        read_on_spark(spark, tmp_path / "log", tmp_path)
    (tmp_path / "e.parquet").rename(tmp_path / "00:00.parquet")
    with pytest.raises(InputError, match=r"00:00\.parquet: Spark cannot read a file with a colon"):
        read_on_spark(spark, tmp_path / "00:00.parquet", tmp_path)
    (tmp_path / "d.csv").write_text("user_id,item_id,timestamp\na,x,20180920\n")
    with pytest.raises(InputError, match="look like dates written as digits"):
        read_on_spark(spark, tmp_path / "d.csv", tmp_path)


def read_on_spark(spark, path, tmp_path):
    from recsys.config import DataSettings
    from recsys.spark.data.read import read_tables

    return read_tables(spark, DataSettings(events=str(path)), tmp_path / "work")


def test_lists_in_csv_come_back_as_they_were_written(spark, tmp_path):
    from recsys.spark.table_files import read_table, write_table

    ids = ['x "q"', "x\\", " a ", "a,b", "two\nlines", '"', "é"]
    table = spark.createDataFrame(pd.DataFrame({"user_id": ids, "item_id": ids[::-1], "rank": range(1, 8)}))
    out = tmp_path / "lists.csv"
    write_table(table, str(out))
    found = read_table(spark, str(out), columns=("user_id", "item_id", "rank")).toPandas()
    assert sorted(zip(found["user_id"], found["item_id"], strict=True)) == sorted(zip(ids, ids[::-1], strict=True))
    merged = pd.concat([pd.read_csv(part, dtype=str) for part in out.glob("*.csv")])
    assert sorted(merged["user_id"]) == sorted(ids)
    odd = tmp_path / "l[1].csv"
    odd.write_text('user_id,item_id\n"x ""q""",x\\\n')
    assert read_table(spark, str(odd), columns=("user_id",)).collect()[0][:2] == ('x "q"', "x\\")


def test_spark_is_handed_a_uri_as_it_was_given():
    from recsys.spark.data.remote import make_source, spark_uri

    assert (
        spark_uri(make_source(None, "hdfs://namenode:8020/logs/2024 01.csv")) == "hdfs://namenode:8020/logs/2024 01.csv"
    )
    assert spark_uri(make_source(None, "s3a://bucket/clicks")) == "s3a://bucket/clicks"
    assert spark_uri(make_source(None, "file:///logs/clicks.csv")) == "file:///logs/clicks.csv"


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_folder_on_another_file_system_is_read_as_a_local_one(spark, mount, tmp_path, kind):
    from recsys.config import DataSettings
    from recsys.data.reading.read import read_tables
    from recsys.spark.data.read import read_tables as read_on_spark

    folder, uri = mount
    for day in ("b", "day=2024-01-01/a"):
        path = folder / "clicks" / f"{day}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        log = pd.DataFrame({"user_id": [f"{day}{n}" for n in range(9)], "item_id": range(9), "value": 2.0})
        if day == "b":
            log.loc[5, "user_id"] = " "
        if kind == "parquet":
            log.to_parquet(path)
        elif kind == "jsonl":
            log.to_json(path, orient="records", lines=True)
        else:
            log.to_csv(path, index=False)
    (folder / "clicks" / "_SUCCESS").touch()
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"{n},T{n}\n" for n in range(9)) + ",none\n")
    data = DataSettings(events=f"{uri}/clicks", items=f"{uri}/items.csv", max_refused_share=0.2)
    large = read_on_spark(spark, data, tmp_path / "work")
    local = read_tables(folder / "clicks", folder / "items.csv", reading=data.reading)
    assert rows(large.events.toPandas()) == rows(local.events)
    assert large.item_table["title"].tolist() == local.items["title"].tolist()
    places = {
        "csv": (f"{uri}/clicks/b.csv", 7),
        "csv.gz": (f"{uri}/clicks/b.csv.gz", 7),
        "jsonl": (f"{uri}/clicks/b.jsonl", 6),
        "parquet": (f"{uri}/clicks", 0),
    }
    assert large.refusals.rows[0][:3] == (*places[kind], "missing user id")
    assert large.refusals.rows[1:] == [(f"{uri}/items.csv", 11, "missing item id", ",none")]


def test_what_is_not_on_another_file_system_is_named_by_its_uri(spark, mount, tmp_path):
    from recsys.config import DataSettings
    from recsys.errors import InputError
    from recsys.spark.data.read import read_tables as read_on_spark

    folder, uri = mount
    (folder / "e.csv.zst").write_bytes(zstd(HEAD + GOOD))
    for name, message in {
        f"{uri}/none.csv": f"{uri}/none.csv: no such file or folder",
        f"{uri}/e.csv.zst": f"{uri}/e.csv.zst: Spark cannot divide this file into lines",
        "nosuch://host/e.csv": "nosuch://host/e.csv: Spark cannot read it: .*nosuch.* Check the URI",
        "hdfs://no.such.host.invalid/e.csv": "UnknownHostException: no.such.host.invalid. Check the URI",
    }.items():
        with pytest.raises(InputError, match=message):
            read_on_spark(spark, DataSettings(events=name), tmp_path / "work")
