"""What `recsys check` says of ids: the busiest items, items without a row, and spellings of one id."""

import json

import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.data.ids import describe_ids, find_similar, normal_spelling
from recsys.data.reading.read import read_tables

EVENTS = pd.DataFrame(
    [("ann", "2", 1), ("Ann ", "1", 1), ("bob", "2", 1), ("bob", "3.0", 1), ("cid", "3", 1), ("cid", "2", 1)],
    columns=["user_id", "item_id", "value"],
)
ITEMS = pd.DataFrame({"item_id": ["1", "2", "9"], "title": ["Heat", "Alien", "Jaws"]})


def test_ids_of_a_small_log_by_hand():
    described = describe_ids(read_tables(EVENTS).log, ITEMS)
    assert described == {
        "most_events": {"2 (Alien)": 3, "1 (Heat)": 1, "3": 1, "3.0": 1},
        "items_without_row": {"items": 2, "share_of_events": 2 / 6, "such_as": ["3", "3.0"]},
        "similar_users": {"groups": 1, "such_as": ["'Ann ' = 'ann'"]},
        "similar_items": {"groups": 1, "such_as": ["'3' = '3.0'"]},
    }


def test_without_an_items_table_no_item_lacks_a_row():
    assert "items_without_row" not in describe_ids(read_tables(EVENTS).log, None)


@pytest.mark.parametrize(
    ("one", "two", "equal"),
    [
        ("007", "7", True),
        ("7.00", "7.", True),
        ("-7", "7", False),
        ("7.5", "75", False),
        ("0", "00", True),
        ("a  B", "A b", True),
        ("film07", "film7", True),
        ("film70", "film7", False),
        # As floating-point numbers these two are equal.
        ("12345678901234567890", "12345678901234567891", False),
    ],
)
def test_spellings(one, two, equal):
    assert (normal_spelling(one) == normal_spelling(two)) is equal


def test_integers_have_one_spelling():
    assert find_similar([1, 10, 100]) == []


def test_check_prints_them(tmp_path, capsys):
    EVENTS.to_csv(tmp_path / "events.csv", index=False)
    ITEMS.to_csv(tmp_path / "items.csv", index=False)
    words = ["check", str(tmp_path / "events.csv"), "--items", str(tmp_path / "items.csv")]
    assert run_verb(words) == 0
    text = capsys.readouterr().out
    assert "most events  2 (Alien): 3, 1 (Heat): 1" in text
    assert "items without row  items: 2, share of events: 0.3333, such as: 3 … 3.0" in text
    assert run_verb([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ids"]["similar_items"]["groups"] == 1
