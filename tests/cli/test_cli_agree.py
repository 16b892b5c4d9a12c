"""``recsys agree`` on files: forms of lists, JSON, and what is refused with exit code 2."""

import json

import pandas as pd
import pytest

from recsys.cli import run_verb


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function: (files by name, arguments) -> (exit code, stdout, stderr)."""

    def verb(files, *arguments):
        for name, text in files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        code = run_verb(["agree", *(str(tmp_path / name) for name in files), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return verb


def test_json_is_measure_to_value(run):
    code, out, _ = run(
        {"a": "x\ny\nz\n", "b": "y\r\nx\r\nz\r\n"}, "-m", "tau_b", "-m", "tau_ap", "-m", "overlap@1", "--json"
    )
    assert code == 0
    assert json.loads(out) == {"tau_b": pytest.approx(1 / 3), "tau_ap": 0.0, "overlap@1": 0.0}


def test_ties_scores_and_padding(run):
    code, out, _ = run(
        {"a": "007\ny\tz\n", "b.csv": '\ufeffscore,item_id\n3,"z"\n9,007\n1,y\n'}, "-m", "tau_a", "--json"
    )
    assert code == 0
    assert json.loads(out) == {"tau_a": pytest.approx(2 / 3)}


def test_an_id_ends_at_the_line_feed_alone_and_a_header_is_no_item(run):
    ids = "a\u2028b\nc\x85d\ne\x0cf\n"
    code, out, _ = run({"a": "item_id\n" + ids, "b.csv": "item_id\n" + ids}, "-m", "overlap@9")
    assert code == 0
    assert "3 in common" in out


def test_undefined_is_null_and_said(run):
    assert json.loads(run({"a": "x", "b": "x"}, "-m", "tau_b", "--json")[1]) == {"tau_b": None}
    code, out, _ = run({"a": "x", "b": "x"})
    assert code == 0
    assert "1 in common" in out
    assert "undefined" in out


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": "x\ny\nx", "b": "x"}, "line 3: 'x' is on line 1 already"),
        ({"a.csv": "item_id,scor\nx,1", "b": "x"}, "the columns are item_id, scor"),
        ({"a": "item,score\nx,1", "b": "x"}, "the columns are item, score"),
        ({"a.csv": "item_id,score\nx,high", "b": "x"}, "line 2: the score 'high' is not a number"),
        ({"a.csv": "item_id,score\n", "b": "x"}, "no ids: the file has nothing but a header"),
        ({"a.csv": "item_id,score\nx,1\nx,2", "b": "x"}, "line 3: 'x' is on line 2"),
        ({"a.csv": "item_id,score\nx,nan\ny,2", "b": "x"}, "score of 'x' is NaN"),
        ({"a.csv": "item_id,score\nx", "b": "x"}, "1 fields"),
        ({"a": "\n", "b": "x"}, "empty"),
    ],
)
def test_bad_lists(run, files, says):
    code, out, error = run(files, "-m", "tau_b", "--json")
    assert code == 2
    assert says in error
    assert not out


def test_missing_file_and_all_misspelt_measures_at_once(run, tmp_path):
    code, _, error = run({"a": "x", "b": "y"}, "-m", "tua_b", "-m", "rbo", "-m", "overlp@3")
    assert code == 2
    assert "Did you mean 'tau_b'" in error
    assert "Did you mean 'overlap'" in error
    assert run_verb(["agree", str(tmp_path / "a"), str(tmp_path / "nowhere")]) == 2


A = pd.DataFrame([("u", "x", 1), ("u", "y", 2), ("v", "x", 1), ("w", "x", 1)], columns=["user_id", "item_id", "rank"])
B = pd.DataFrame([("u", "y", 1), ("u", "x", 2), ("v", "x", 1), ("z", "x", 1)], columns=["user_id", "item_id", "rank"])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_two_tables_of_lists_are_compared_user_by_user(suffix, tmp_path, capsys):
    for name, table in (("a", A), ("b", B)):
        path = tmp_path / f"{name}.{suffix}"
        table.to_parquet(path) if suffix == "parquet" else table.to_csv(path, index=False)
    words = ["agree", str(tmp_path / f"a.{suffix}"), str(tmp_path / f"b.{suffix}"), "-m", "tau_b", "-m", "overlap@1"]
    assert run_verb([*words, "--json", "--out", str(tmp_path / "users.csv")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measures"]["tau_b"]["mean"] == -1.0, "u alone has two items in common"
    assert found["measures"]["tau_b"]["users"] == 1
    assert found["about"]["counts"]["without_a"] == found["about"]["counts"]["without_b"] == 1
    users = pd.read_csv(tmp_path / "users.csv").set_index("user_id")
    assert users.loc["u", "overlap@1"] == 0.0
    assert users.loc["v", "overlap@1"] == 1.0
    assert run_verb(words) == 0
    assert "4 users; without a list in the first table 1, in the second 1" in capsys.readouterr().out


def test_out_is_for_tables(run, tmp_path):
    code, _, err = run({"a": "x\ny\n", "b": "y\nx\n"}, "--out", str(tmp_path / "o.csv"))
    assert code == 2
    assert "tables of lists" in err
