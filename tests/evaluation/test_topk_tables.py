"""Tables of lists and of truth in Parquet, as pandas and others write them."""

import datetime
import decimal
import re

import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate_tables
from recsys.evaluation.topk_tables import read_topk, read_truth

LISTS = pd.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"], "rank": [1, 2, 1]})
TRUTH = pd.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "z"], "value": [1.0, 2.0]})
DATES = [datetime.date(2020, 1, 1)] * 3

ACCEPTED = {
    "user as index": LISTS.set_index("user_id"),
    "pair as index": LISTS.set_index(["user_id", "item_id"]),
    "an index without a name": LISTS[::-1][::-1].set_axis([7, 3, 5]),
    "rank as text": LISTS.assign(rank=["1", "2", "1"]),
    "rank as decimal": LISTS.assign(rank=[decimal.Decimal(number) for number in (1, 2, 1)]),
    "rank as category of text": LISTS.assign(rank=pd.Categorical(["1", "2", "1"])),
}

REFUSED = {
    "rank as list": (LISTS.assign(rank=[[1], [2], [1]]), r"column 'rank' has type list<.*>: it must hold numbers"),
    "rank as date": (LISTS.assign(rank=DATES), r"column 'rank' has type date32\[day\]: it must hold numbers"),
    "rank as bool": (LISTS.assign(rank=[True, False, True]), r"column 'rank' has type bool: it must hold numbers"),
    "rank as words": (LISTS.assign(rank=["one", "two", "one"]), r"ranks must be whole numbers from 1"),
    "score as list": (LISTS.assign(score=[[1], [2], [1]]), r"column 'score' has type list"),
    "no rows": (LISTS[:0], r"no rows"),
}

REFUSED_TRUTH = {
    "value as list": (TRUTH.assign(value=[[1], [1]]), r"column 'value' has type list"),
    "value as date": (TRUTH.assign(value=DATES[:2]), r"column 'value' has type date"),
    "values that are no numbers": (TRUTH.assign(value=["-", "?"]), r"no row of the truth has a value"),
    "values that are missing": (TRUTH.assign(value=[None, None]), r"no row of the truth has a value"),
    "no rows": (TRUTH[:0], r"no rows"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_list_in_another_form_is_the_same_list(case, tmp_path):
    ACCEPTED[case].to_parquet(tmp_path / "lists.parquet")
    read = read_topk(tmp_path / "lists.parquet")
    assert [tuple(map(str, row)) for row in read[["user_id", "item_id"]].itertuples(index=False)] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "z"),
    ]
    assert read["rank"].astype(float).tolist() == [1.0, 2.0, 1.0]


def test_a_truth_whose_pairs_are_the_index_is_read(tmp_path):
    TRUTH.set_index(["user_id", "item_id"]).to_parquet(tmp_path / "truth.parquet")
    read = read_truth(tmp_path / "truth.parquet")
    assert read["value"].tolist() == [1.0, 2.0]
    assert read["user_id"].astype(str).tolist() == ["a", "b"]


def test_values_as_text_are_numbers(tmp_path):
    TRUTH.assign(value=["1", "2e0"]).to_parquet(tmp_path / "truth.parquet")
    assert read_truth(tmp_path / "truth.parquet")["value"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("table", "case"), [("lists", case) for case in REFUSED] + [("truth", case) for case in REFUSED_TRUTH]
)
def test_what_is_no_number_is_one_sentence(table, case, tmp_path, capsys):
    frame, message = {"lists": REFUSED, "truth": REFUSED_TRUTH}[table][case]
    tables = {"lists": LISTS, "truth": TRUTH} | {table: frame}
    for name, content in tables.items():
        content.to_parquet(tmp_path / f"{name}.parquet")
    paths = [str(tmp_path / f"{name}.parquet") for name in ("lists", "truth")]
    assert run_verb(["evaluate", *paths, "-m", "ndcg@2"]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("column", ["rank", "score"])
def test_tables_in_memory_name_the_column_too(column):
    with pytest.raises(InputError, match=f"the column '{column}' does not hold numbers"):
        evaluate_tables(LISTS.assign(**{column: [[1], [2], [3]]}), TRUTH)
