"""Settings of reading: delimiters of any length, columns and duplicates of side tables, guests, and units of time."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.data.reading import lines
from recsys.data.reading.lines import has_open_quote, split_row
from recsys.data.reading.read import read_events, read_items, read_tables
from recsys.data.reading.read_settings import ReadSettings
from recsys.errors import InputError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


# --- delimiters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", ["::", "|||", "\x01", "¦", ", ", "aXa"])
def test_a_delimiter_of_any_length(tmp_path, delimiter):
    rows = [["user_id", "item_id", "value"], ["a:b", "x|y", "2.5"], ["", "lost", "1"], [f'"a{delimiter}c"', "y", "3"]]
    path = write(tmp_path / "e.csv", "".join(delimiter.join(row) + "\n" for row in rows))
    events, refusals = read_events(path, ReadSettings(delimiter=delimiter, max_refused_share=0.5))
    assert events.to_dict("list") == {
        "user_id": ["a:b", f"a{delimiter}c"],
        "item_id": ["x|y", "y"],
        "value": [2.5, 3.0],
    }
    assert refusals.rows == [(str(path), 3, "missing user id", f"{delimiter}lost{delimiter}1")]


CELL = st.text(st.sampled_from('a:"\n é'), max_size=5)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=8), st.integers(6, 60))
def test_rows_written_with_a_long_delimiter_come_back_whatever_the_size_of_a_block(rows, size):
    import io

    def quoted(cell):
        # A field that ends as the delimiter begins is quoted, as one with the delimiter in it.
        needs_quotes = any(character in cell for character in ':"\n') or not cell
        return '"' + cell.replace('"', '""') + '"' if needs_quotes else cell

    text = "".join("::".join(map(quoted, row)) + "\n" for row in rows)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", max(size, max(len(line.encode()) for line in text.split("\n")) * 8 + 8))
        for block in lines.read_row_blocks(io.BytesIO(text.encode()), "::", 2, [0, 1], 0):
            for row in range(len(block)):
                assert block.complete[row]
                assert block.row_fields(row) == [block.cell_text(0, row), block.cell_text(1, row)]
                found.append(block.row_fields(row))
    assert found == rows


def test_an_open_quote_is_seen_only_at_the_start_of_a_field():
    assert split_row('a::"b::""c"d::', "::") == ["a", 'b::"cd', ""]
    assert has_open_quote('a::"b', "::")
    assert has_open_quote('"', "::")
    assert not has_open_quote('a"::b"', "::")
    assert not has_open_quote('""::"a"', "::")


def test_a_file_of_an_unknown_name_with_a_delimiter_is_delimited_text(tmp_path):
    path = write(tmp_path / "ratings.dat", "a::x::2\nb::y::3\n")
    columns = {"user_id": "0", "item_id": "1", "value": "2"}
    assert read_events(path, ReadSettings(delimiter="::", columns=columns))[0]["value"].tolist() == [2.0, 3.0]
    with pytest.raises(InputError, match=r"one column only .* It looks separated by '::'"):
        read_events(path, ReadSettings(format="csv"))


@pytest.mark.parametrize("delimiter", ["", '"', "a\nb", "\r", ':":'])
def test_no_delimiter(delimiter):
    with pytest.raises(ValidationError):
        ReadSettings(delimiter=delimiter)


# --- items and users -----------------------------------------------------------------------------------------

ROWS = "item_id,title,year\nx,First,1990\ny,,2000\nx,Second,1991\nx,Second,\ny,Why,2001\n"


@pytest.mark.parametrize(
    ("rule", "titles", "years"),
    [
        ("first", ["First", ""], ["1990", "2000"]),
        ("last", ["Second", "Why"], ["", "2001"]),
        ("most frequent", ["Second", "Why"], ["1990", "2000"]),
    ],
)
def test_duplicates_are_settled_by_a_rule_and_counted(tmp_path, rule, titles, years):
    from recsys.data.card import data_card

    items = write(tmp_path / "i.csv", ROWS)
    events = write(tmp_path / "e.csv", "user_id,item_id\na,x\nb,y\n")
    tables = read_tables(events, items, reading=ReadSettings(duplicates=rule))
    assert tables.items.to_dict("list") == {"item_id": ["x", "y"], "title": titles, "year": years}
    assert (tables.refusals.refused, tables.duplicates) == (0, {"items": 3})
    assert data_card(tables)["duplicates"] == {"items": 3}


@pytest.mark.parametrize("rule", ["first", "last", "most frequent"])
def test_duplicates_of_typed_columns(rule):
    table = pd.DataFrame({"item_id": [1, 2, 1], "tags": [["a"], None, ["a"]], "price": [1.5, None, 1.5]})
    items = read_items(table, ReadSettings(duplicates=rule))
    assert items["item_id"].tolist() == [1, 2]
    assert list(items["tags"].iloc[0]) == ["a"]
    assert items["price"].iloc[0] == 1.5
    assert items["price"].isna().tolist() == [False, True]


def test_columns_of_items_and_users_can_be_mapped(tmp_path):
    events = write(tmp_path / "e.csv", "who,what\na,x\n")
    items = write(tmp_path / "i.csv", "sku,name,price\nx,Ex,3\n")
    users = write(tmp_path / "u.csv", "a|DE\n")
    reading = ReadSettings(
        columns={"user_id": "who", "item_id": "what"}, item_columns={"item_id": "sku", "title": "name"}
    )
    assert read_tables(events, items, reading=reading).items.to_dict("list") == {
        "item_id": ["x"],
        "title": ["Ex"],
        "price": ["3"],
    }
    by_position = reading.model_copy(update={"user_columns": {"user_id": "0", "country": "1"}})
    users.write_text("a,DE\n")
    assert read_tables(events, None, users, by_position).users.to_dict("list") == {"user_id": ["a"], "country": ["DE"]}
    wrong = reading.model_copy(update={"item_columns": {"item_id": "sku", "title": "nam"}})
    with pytest.raises(InputError, match=r"i\.csv: no column 'nam' to read title from"):
        read_tables(events, items, reading=wrong)


def test_positions_in_the_log_are_no_positions_in_the_items_table(tmp_path):
    events = write(tmp_path / "e.csv", "a,x\n")
    items = write(tmp_path / "i.csv", "title,item_id\nEx,x\n")
    reading = ReadSettings(columns={"user_id": "0", "item_id": "1"})
    assert read_tables(events, items, reading=reading).items["item_id"].tolist() == ["x"]


# --- guests --------------------------------------------------------------------------------------------------


def test_a_missing_user_is_the_guest_of_another_column(tmp_path):
    path = write(tmp_path / "e.csv", "user_id,item_id,InvoiceNo\n17850,x,536365\n,x,536366\n,y,536366\n,z,\n")
    reading = ReadSettings(user_fallback="InvoiceNo", max_refused_share=0.5)
    events, refusals = read_events(path, reading)
    assert events["user_id"].tolist() == ["17850", "guest:536366", "guest:536366"]
    assert list(events) == ["user_id", "item_id", "value"]
    assert refusals.counts == {"missing user id": 1}
    with pytest.raises(InputError, match="user_fallback is 'Invoice', but there is no such column"):
        read_events(path, ReadSettings(user_fallback="Invoice"))


def test_guests_of_typed_columns_and_of_json():
    table = pd.DataFrame({"user_id": [17850.0, None], "item_id": ["x", "y"], "invoice": [1, 2]})
    events, _ = read_events(table, ReadSettings(user_fallback="invoice"))
    assert events["user_id"].tolist() == ["17850", "guest:2"]
    complete = read_events(table.iloc[:1], ReadSettings(user_fallback="invoice"))[0]
    assert complete["user_id"].tolist() == [17850]


# --- times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["20180920", "20180920153000"])
def test_dates_written_as_digits_are_noticed(tmp_path, value):
    path = write(tmp_path / "e.csv", f"user_id,item_id,timestamp\na,x,{value}\nb,y,{value}\n")
    with pytest.raises(InputError, match=r"look like dates written as digits .*time_unit = 'yyyymmdd'"):
        read_events(path)
    with pytest.raises(InputError, match="look like dates written as digits"):
        read_events(pd.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [int(value)]}))
    found = read_events(path, ReadSettings(time_unit="yyyymmdd"))[0]["timestamp"].tolist()
    assert found == [1_537_401_600.0 + (15.5 * 3600 if len(value) == 14 else 0)] * 2


def test_a_few_dates_as_digits_among_iso_dates_are_read_as_iso(tmp_path):
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp\na,x,2018-09-20\na,y,2018-09-20\nb,z,20180920\n")
    with pytest.raises(InputError, match=r"1 timestamps are digits.* 2 are text: set \[data\] time_unit = 'iso'"):
        read_events(path)
    assert read_events(path, ReadSettings(time_unit="iso"))[0]["timestamp"].tolist() == [1_537_401_600.0] * 3


def test_digits_that_are_no_date_are_refused_or_seconds(tmp_path):
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp\na,x,20181320\nb,y,20180920\nc,z,2018\n")
    _, refusals = read_events(path, ReadSettings(time_unit="yyyymmdd", max_refused_share=0.9))
    assert [row[1] for row in refusals.rows] == [2, 4]
    seconds = write(tmp_path / "s.csv", "user_id,item_id,timestamp\na,x,20181320\nb,y,1537401600\n")
    assert read_events(seconds)[0]["timestamp"].tolist() == [20181320.0, 1537401600.0]


def test_nanoseconds(tmp_path):
    path = write(tmp_path / "e.csv", "user_id,item_id,timestamp\na,x,1537401600000000000\n")
    assert read_events(path, ReadSettings(time_unit="ns"))[0]["timestamp"].tolist() == [1537401600.0]
    with pytest.raises(InputError, match="'ms' or 'us' or 'ns'"):
        read_events(path)


HALF_READ = "user_id,item_id,timestamp\n" + "u1,i1,2024-01-01 03:45\n" * 200


@pytest.mark.parametrize("odd", ["u1,i1,5\n", "u1,i1,5,2024-01-02 10:00\n", "u1,i1,\n" * 3])
def test_one_number_among_dates_is_refused_alone(tmp_path, odd):
    for number, text in enumerate([HALF_READ + odd, HALF_READ.replace("\n", "\n" + odd, 1)]):
        (tmp_path / f"{number}.csv").write_text(text)
        events, refusals = read_events(tmp_path / f"{number}.csv")
        assert len(events) == 200
        assert refusals.refused == odd.count("\n")


def test_one_date_among_numbers_is_refused_alone(tmp_path):
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\nu,i,2024-01-01\n" + "u,i,1700000000\n" * 99)
    events, refusals = read_events(tmp_path / "e.csv")
    assert events["timestamp"].tolist() == [1_700_000_000.0] * 99
    assert refusals.counts == {"impossible time": 1}


@pytest.mark.parametrize("day", ["45292", "45292.15625"])
def test_days_of_a_spreadsheet_are_not_seconds(tmp_path, day):
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\n" + f"u,i,{day}\n" * 10)
    with pytest.raises(InputError, match="days of a spreadsheet"):
        read_events(tmp_path / "e.csv")
    events, _ = read_events(tmp_path / "e.csv", ReadSettings(time_unit="s"))
    assert len(events) == 10


def test_an_items_table_without_ids_is_answered_with_its_own_section(tmp_path):
    (tmp_path / "items.csv").write_text("movieId,title\n1,Heat\n")
    with pytest.raises(InputError, match=r'\[data.item_columns\], for example item_id = "movieId", or with --set'):
        read_items(tmp_path / "items.csv")


@pytest.mark.parametrize(
    ("header", "example"),
    [
        ("InvoiceNo,StockCode,CustomerID", 'user_id = "CustomerID" and item_id = "StockCode"'),
        ("InvoiceNo,item_id", 'user_id = "..."'),
        ("movieTitle,movieId,when", 'user_id = "..." and item_id = "movieId"'),
        ("Customer Name,Customer Id,item_id", 'user_id = "Customer Id"'),
    ],
)
def test_the_example_of_a_mapping_takes_columns_whose_names_fit(tmp_path, header, example):
    (tmp_path / "e.csv").write_text(f"{header}\n1,2,3\n")
    with pytest.raises(InputError) as raised:
        read_events(tmp_path / "e.csv")
    assert f"[data.columns], for example {example}, or with --column user_id=" in str(raised.value).replace("'", "")


@pytest.mark.parametrize("side", ["items", "users"])
def test_a_side_table_with_another_delimiter_than_the_log_is_told(tmp_path, side):
    (tmp_path / "e.csv").write_text("user_id;item_id\nu;i\n")
    (tmp_path / "side.csv").write_text("Code,Description\ni,x\n")
    with pytest.raises(InputError) as raised:
        read_tables(tmp_path / "e.csv", reading=ReadSettings(delimiter=";"), **{side: tmp_path / "side.csv"})
    message = str(raised.value)
    assert "one column only ('Code,Description'), when split by ';'. It looks separated by ','" in message
    assert "write this one with ';' too, or as Parquet" in message


def test_a_side_table_of_ids_alone_may_have_any_characters(tmp_path):
    (tmp_path / "items.csv").write_text("item_id\na;b\nc|d\n")
    assert read_items(tmp_path / "items.csv")["item_id"].tolist() == ["a;b", "c|d"]


def test_decimal_commas_are_answered_with_what_to_write(tmp_path):
    (tmp_path / "e.csv").write_text("user_id;item_id;value\n" + "u;i;4,5\n" * 9)
    with pytest.raises(InputError, match="decimal comma"):
        read_tables(tmp_path / "e.csv", reading=ReadSettings(delimiter=";"))


def test_two_integers_side_by_side_are_no_decimal_comma(tmp_path):
    (tmp_path / "e.csv").write_text("user_id,item_id,value\n" + "1,2,x\n" * 9)
    with pytest.raises(InputError, match="unparsable value") as error:
        read_events(tmp_path / "e.csv")
    assert "comma" not in str(error.value)


@pytest.mark.parametrize("date", ["31.12.2024 14:05", "12/31/2024", "1.2.2024"])
def test_dates_whose_order_is_unknown_are_answered_with_what_to_write(tmp_path, date):
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\n" + f"u,i,{date}\n" * 9)
    with pytest.raises(InputError, match=r"write them as 2024-12-31"):
        read_events(tmp_path / "e.csv")
