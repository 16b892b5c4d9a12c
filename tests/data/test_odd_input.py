"""Odd files that people really have: each is read right, or refused with file, place and remedy."""

import gzip
import json

import pandas as pd
import pytest

from recsys.data.reading.read import read_events, read_tables
from recsys.data.reading.read_settings import ReadSettings
from recsys.errors import InputError

HEAD = "user_id,item_id,value,timestamp\n"


def csv(text, encoding="utf-8"):
    return ("e.csv", text if isinstance(text, bytes) else text.encode(encoding))


def parquet(frame):
    return ("e.parquet", frame)


MANY = "".join(f"u{n},i{n},1,{n}\n" for n in range(100))

READ = {
    "byte order mark": (csv("\ufeff" + HEAD + "a,b,1,5\n"), {}, [("a", "b", 1.0, 5.0)]),
    "CRLF line ends": (csv((HEAD + "a,b,1,5\n").replace("\n", "\r\n")), {}, [("a", "b", 1.0, 5.0)]),
    "CR line ends": (csv((HEAD + "a,b,1,5\n").replace("\n", "\r")), {}, [("a", "b", 1.0, 5.0)]),
    "no line end at the end": (csv(HEAD + "a,b,1,5"), {}, [("a", "b", 1.0, 5.0)]),
    "blank lines": (csv("\n" + HEAD + "\n\na,b,1,5\n\n"), {}, [("a", "b", 1.0, 5.0)]),
    "quotes in ids": (csv(HEAD + '"a ""the"" b",b,1,5\n'), {}, [('a "the" b', "b", 1.0, 5.0)]),
    "delimiters in ids": (csv(HEAD + '"a,b",c,1,5\n'), {}, [("a,b", "c", 1.0, 5.0)]),
    "embedded newlines": (csv(HEAD + '"a\nb",c,1,5\n'), {}, [("a\nb", "c", 1.0, 5.0)]),
    "trailing spaces are part of an id": (
        csv(HEAD + "a ,b,1,5\na,b, 2 ,5\n"),
        {},
        [("a ", "b", 1.0, 5.0), ("a", "b", 2.0, 5.0)],
    ),
    "dates with zones": (
        csv(HEAD + "a,b,1,1970-01-01T02:00:05+02:00\na,b,1,1970-01-01T00:00:05Z\n"),
        {},
        [("a", "b", 1.0, 5.0)] * 2,
    ),
    "fractions of a second": (csv(HEAD + "a,b,1,1970-01-01 00:00:05.250\n"), {}, [("a", "b", 1.0, 5.25)]),
    "scientific-notation ids stay text": (csv(HEAD + "1e5,1E+5,1,5\n"), {}, [("1e5", "1E+5", 1.0, 5.0)]),
    "scientific-notation values": (csv(HEAD + "a,b,1.5e-1,5\n"), {}, [("a", "b", 0.15, 5.0)]),
    "0 and negative values": (csv(HEAD + "a,b,0,5\na,c,-2,5\n"), {}, [("a", "b", 0.0, 5.0), ("a", "c", -2.0, 5.0)]),
    "the word null is an id": (csv(HEAD + "null,NA,1,5\n"), {}, [("null", "NA", 1.0, 5.0)]),
    "item ids around 10^9": (
        csv(HEAD + "1,1000000000,1,5\n1,3000000000,1,5\n"),
        {},
        [(1, 1_000_000_000, 1.0, 5.0), (1, 3_000_000_000, 1.0, 5.0)],
    ),
    "the same name in another case": (
        csv(HEAD + "Ann,b,1,5\nann,b,1,5\n"),
        {},
        [("Ann", "b", 1.0, 5.0), ("ann", "b", 1.0, 5.0)],
    ),
    "two forms of one accent": (
        csv(HEAD + "Zo\u00eb,b,1,5\nZoe\u0308,b,1,5\n"),
        {},
        [("Zo\u00eb", "b", 1.0, 5.0), ("Zoe\u0308", "b", 1.0, 5.0)],
    ),
    "columns in another order, and more of them": (
        csv("x,timestamp,item_id,y,value,user_id\n9,5,b,9,1,a\n"),
        {},
        [("a", "b", 1.0, 5.0)],
    ),
    "integers with gaps in Parquet": (
        parquet(pd.DataFrame({"user_id": [7.0, 8.0], "item_id": [1, 2], "value": [1, 2], "timestamp": [5, 6]})),
        {},
        [(7, 1, 1.0, 5.0), (8, 2, 2.0, 6.0)],
    ),
    "categories in Parquet": (
        parquet(pd.DataFrame({"user_id": pd.Categorical(["a"]), "item_id": ["b"], "value": [1], "timestamp": [5]})),
        {},
        [("a", "b", 1.0, 5.0)],
    ),
    "gzip of two members": (
        ("e.csv.gz", gzip.compress((HEAD + "a,b,1,5\n").encode()) + gzip.compress(b"a,c,1,5\n")),
        {},
        [("a", "b", 1.0, 5.0), ("a", "c", 1.0, 5.0)],
    ),
    "JSON with nested extras": (
        ("e.jsonl", json.dumps({"user_id": "a", "item_id": 3, "value": 1, "timestamp": 5, "x": {"y": [1]}}).encode()),
        {},
        [("a", 3, 1.0, 5.0)],
    ),
}

REFUSED = {
    "thousands separators": (csv(HEAD + MANY + 'a,b,"1,000",5\n'), {}, {"unparsable value": 1}),
    "decimal commas": (csv(HEAD + MANY + 'a,b,"4,5",5\n'), {}, {"unparsable value": 1}),
    "explicit nulls in JSON": (
        (
            "e.jsonl",
            (json.dumps({"user_id": "a", "item_id": "b"}) + "\n").encode() * 40 + b'{"user_id":null,"item_id":"b"}\n',
        ),
        {},
        {"missing user id": 1},
    ),
    "a total at the end": (csv(HEAD + MANY + "100 rows in all\n"), {}, {"wrong column count": 1}),
    "the header once more in the middle": (csv(HEAD + MANY + HEAD + MANY), {}, {"unparsable value": 1}),
    "a day that does not exist": (
        csv(HEAD + "a,b,1,2020-02-28\n" * 40 + "a,b,1,2020-02-30\n"),
        {},
        {"impossible time": 1},
    ),
    "a JSON key of later lines alone, written with an escape: the column is there": (
        ("e.jsonl", b'{"user_id": "a", "item_id": 3}\n' + rb'{"user_id": "a", "item_id": 4, "v\/l": 2}'),
        {"columns": {"value": "v/l"}, "max_refused_share": 0.9},
        {"unparsable value": 1},
    ),
}

STOPPED = {
    "one column": (csv("user_id\na\n"), {}, ["one column only"]),
    "no header": (csv("a,b,1,5\nc,d,1,5\n"), {}, ["No column 'user_id'", "[data.columns]"]),
    "gzip cut short": (
        ("e.csv.gz", gzip.compress((HEAD + MANY).encode())[:-9]),
        {},
        ["damaged or cut short", "Fetch it again"],
    ),
    "gzip that is none": (("e.csv.gz", b"user_id,item_id\n"), {}, ["damaged or cut short"]),
    "UTF-16": (csv(HEAD + "a,b,1,5\n", "utf-16"), {}, ["this is UTF-16", "encoding = 'utf-16'"]),
    "another encoding than announced": (
        csv(HEAD + "a,b,1,5\n"),
        {"encoding": "utf-16"},
        ["not text in [data] encoding"],
    ),
    "Parquet of another schema": (
        parquet(pd.DataFrame({"uid": [1], "iid": [2]})),
        {},
        ["No column 'user_id'", "Map columns"],
    ),
    "Parquet with ids that are lists": (
        parquet(pd.DataFrame({"user_id": [[1]], "item_id": [2]})),
        {},
        ["'user_id' has type list", "text or integers"],
    ),
    "Parquet with fractional ids": (
        parquet(pd.DataFrame({"user_id": [1.5], "item_id": [2]})),
        {},
        ["text or integers"],
    ),
    "a spreadsheet": (("e.xlsx", b"PK"), {}, ["the format cannot be told from the name", "[data] format"]),
    "milliseconds": (csv(HEAD + "a,b,1,1500000000000\n"), {}, ["time_unit = 'ms' or 'us' or 'ns'"]),
    "seconds announced as milliseconds land in 1970, which the numbers show": (
        csv(HEAD + "a,b,1,-5\n"),
        {"time_unit": "ms"},
        ["impossible time: 1", "line 2"],
    ),
    "a quote that never closes": (csv(HEAD + 'a,"b,1,5\n' + MANY), {}, ["line 2", "never closed"]),
    "a column named twice": (csv("user_id,item_id,user_id\na,b,c\n"), {}, ["names user_id twice", "Rename one"]),
}


def put(folder, name, data):
    path = folder / name
    if isinstance(data, pd.DataFrame):
        data.to_parquet(path, index=False)
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", READ)
def test_read(kind, tmp_path):
    (name, data), settings, rows = READ[kind]
    events, refusals = read_events(put(tmp_path, name, data), ReadSettings(**settings))
    assert list(events.itertuples(index=False, name=None)) == rows
    assert (refusals.total, refusals.refused) == (len(rows), 0)


@pytest.mark.parametrize("kind", REFUSED)
def test_rows_refused(kind, tmp_path):
    (name, data), settings, counts = REFUSED[kind]
    path = put(tmp_path, name, data)
    events, refusals = read_events(path, ReadSettings(**settings))
    assert refusals.counts == counts
    assert len(events) + refusals.refused == refusals.total
    assert refusals.rows[0][0] == str(path)


@pytest.mark.parametrize("kind", STOPPED)
def test_stopped(kind, tmp_path):
    (name, data), settings, says = STOPPED[kind]
    with pytest.raises(InputError) as stopped:
        read_events(put(tmp_path, name, data), ReadSettings(**settings))
    for part in [name, *says]:
        assert part in str(stopped.value)


def test_a_users_table_with_ids_of_the_other_kind(tmp_path):
    """Numbers in the events, text with a leading zero in the users table: all become text, and still meet."""
    events = put(tmp_path, "e.csv", (HEAD + "7,1,1,5\n").encode())
    users = put(tmp_path, "u.csv", b"user_id,age\n7,30\n007,40\n")
    tables = read_tables(events, users=users)
    assert tables.events["user_id"].tolist() == ["7"]
    assert tables.users["user_id"].tolist() == ["7", "007"]
