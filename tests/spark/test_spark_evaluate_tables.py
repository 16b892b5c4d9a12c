"""jobs/evaluate.py refuses the tables that `recsys evaluate` refuses, and reads a file as it is now."""

import datetime
import json
import re

import pandas as pd
import pytest
from builders import run_job

from recsys.cli import run_verb
from recsys.errors import InputError
from recsys.evaluation.settings import EvaluationSettings
from recsys.spark.evaluation.evaluate import evaluate_tables
from recsys.spark.table_files import read_table

pytestmark = pytest.mark.spark

LISTS = "user_id,item_id,rank\na,x,1\na,y,2\nb,z,1\n"
TRUTH = "user_id,item_id,value\na,y,1\nb,z,1\n"
FRAME = pd.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "z"], "rank": [1, 2, 1]})

REFUSED = {
    "a pair twice": (LISTS.replace("a,y", "a,x"), TRUTH, "2 times: keep one"),
    "a rank twice": (LISTS.replace("y,2", "y,1"), TRUTH, "the lists: rank 1 of user 'a' is there 2 times"),
    "an empty rank": (LISTS.replace("y,2", "y,"), TRUTH, "ranks must be whole numbers from 1"),
    "a zero rank": (LISTS.replace("x,1", "x,0"), TRUTH, "ranks must be whole numbers from 1"),
    "a rank in words": (LISTS.replace("x,1", "x,one"), TRUTH, "rank 'one' is not of type int"),
    "an extra column": (
        LISTS.replace(",rank", ",rank,note").replace("\n", ",\n")[:-1].replace("note,", "note"),
        TRUTH,
        "unknown column 'note'",
    ),
    "an extra column of the truth": (LISTS, "user_id,item_id,weight\na,y,1\n", "unknown column 'weight'"),
    "a header only": (LISTS[:21], TRUTH, "no rows"),
    "nothing": ("", TRUTH, "no rows"),
    "a long row": (LISTS.replace("y,2", "y,2,9"), TRUTH, r"another number of fields than the header.*'a,y,2,9'"),
    "a short row": (LISTS.replace("y,2", "y"), TRUTH, "another number of fields than the header"),
    "no user": (LISTS.replace("b,", ","), TRUTH, "1 rows have no user_id"),
    "a truth twice": (LISTS, TRUTH + "b,z,1\n", "the truth: item 'z' of user 'b' is there 2 times"),
    "a truth without values": (LISTS, TRUTH.replace(",1", ","), "no row of the truth has a value"),
}

REFUSED_PARQUET = {
    "rank as list": (FRAME.assign(rank=[[1], [2], [1]]), r"column 'rank' has type array<.*>: it must hold numbers"),
    "rank as date": (FRAME.assign(rank=[datetime.date(2020, 1, 1)] * 3), "column 'rank' has type date"),
    "rank with a half": (FRAME.assign(rank=[1.5, 2.0, 1.0]), r"rank '1\.5' is not of type int"),
    "user as list": (FRAME.assign(user_id=[["a"], ["a"], ["b"]]), "column 'user_id' has type array"),
    "a missing score": (FRAME.assign(score=[1.0, None, 2.0]), "1 rows have no score"),
}


def refuse(capsys, lists, truth):
    """Evaluate on both engines, which must exit with 2; return what Spark says."""
    words = [str(lists), str(truth), "-m", "ndcg@2"]
    assert run_verb(["evaluate", *words]) == 2
    capsys.readouterr()
    assert run_job("evaluate", *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("case", REFUSED)
def test_both_engines_refuse_the_same_csv(spark, case, tmp_path, capsys):
    lists, truth, message = REFUSED[case]
    (tmp_path / "lists.csv").write_text(lists)
    (tmp_path / "truth.csv").write_text(truth)
    assert re.search(message, refuse(capsys, tmp_path / "lists.csv", tmp_path / "truth.csv"))


@pytest.mark.parametrize("case", REFUSED_PARQUET)
def test_both_engines_refuse_the_same_parquet(spark, case, tmp_path, capsys):
    frame, message = REFUSED_PARQUET[case]
    frame.to_parquet(tmp_path / "lists.parquet")
    (tmp_path / "truth.csv").write_text(TRUTH)
    assert re.search(message, refuse(capsys, tmp_path / "lists.parquet", tmp_path / "truth.csv"))


def test_a_file_that_changed_is_read_again_in_the_same_session(spark, tmp_path, capsys):
    """Of one relevant item the first list has it in place 1, the second in place 2: 1 and 1/log2(3)."""
    (tmp_path / "truth.csv").write_text("user_id,item_id\na,x\n")
    found = []
    for order in (["x", "y"], ["y", "x"]):
        frame = pd.DataFrame({"user_id": ["a", "a"], "item_id": order, "rank": [1, 2]})
        frame.set_index(["user_id", "item_id"]).to_parquet(tmp_path / "lists.parquet")
        capsys.readouterr()
        words = [tmp_path / "lists.parquet", tmp_path / "truth.csv", "-m", "ndcg@2"]
        assert run_job("evaluate", *words, "--per-user", tmp_path / f"{order[0]}.parquet") == 0
        found.append(json.loads(capsys.readouterr().out)["models"]["recs"]["ndcg@2"]["mean"])
        assert pd.read_parquet(tmp_path / f"{order[0]}.parquet")["ndcg@2"].tolist() == [found[-1]]
    assert found == pytest.approx([1.0, 0.6309], abs=1e-4)


def test_ranks_of_a_frame_of_ones_own_are_whole_numbers(spark):
    lists = spark.createDataFrame([("a", "x", 1.5), ("a", "y", 2.0)], "user_id string, item_id string, rank double")
    truth = spark.createDataFrame([("a", "y", 1.0)], "user_id string, item_id string, value double")
    with pytest.raises(InputError, match="ranks must be whole numbers from 1"):
        evaluate_tables(lists, truth, EvaluationSettings(metrics=("ndcg@2",)))


def job_and_verb(capsys, lists, truth, *words):
    """Return the JSON of jobs/evaluate.py and of `recsys evaluate` for the same tables."""
    found = []
    for call in (lambda: run_job("evaluate", lists, truth, *words), lambda: verb(lists, truth, *words)):
        capsys.readouterr()
        assert call() == 0
        found.append(json.loads(capsys.readouterr().out))
    return found


def verb(lists, truth, *words):
    return run_verb(["evaluate", str(lists), str(truth), *words, "--json"])


def cells(document):
    """Return the mean, the number of users and the interval of each metric of the only system."""
    (metrics,) = document["models"].values()
    return {name: [cell["mean"], cell["users"], *cell["ci95"]] for name, cell in metrics.items()}


def test_errors_of_predicted_values_are_those_of_the_verb(spark, tmp_path, capsys):
    """Two of four ratings have a prediction, off by 1.5 and 1; one prediction has no rating; one rating is refused."""
    (tmp_path / "p.csv").write_text("user_id,item_id,score\na,x,3\na,y,2.5\nb,z,4\n")
    (tmp_path / "t.csv").write_text("user_id,item_id,value\na,y,1\nb,z,3\nc,x,2\nd,x,nan\n")
    job, local = job_and_verb(capsys, tmp_path / "p.csv", tmp_path / "t.csv", "-m", "rmse", "-m", "mae")
    assert job["about"]["pooled"] == pytest.approx({"rmse": ((1.5**2 + 1) / 2) ** 0.5, "mae": 1.25})
    assert cells(job) == {name: pytest.approx(cell) for name, cell in cells(local).items()}
    assert job["about"]["definitions"] == local["about"]["definitions"]
    counts = {"pairs": 2, "ratings_without_prediction": 1, "predictions_without_rating": 1, "refused_truth": 1}
    assert list(job["about"]["counts"].values()) == list(local["about"]["counts"].values()) == [counts]
    assert job["about"]["segments"]["history"]["0"]["predictions"]["mae"]["users"] == 0
    assert run_job("evaluate", tmp_path / "p.csv", tmp_path / "t.csv", "-m", "rmse", "-m", "ndcg@2") == 2
    assert "ask for them apart" in capsys.readouterr().err


def test_auc_of_all_candidates_is_that_of_the_verb(spark, tmp_path, capsys):
    """User a: x and z relevant, y between them: 1 of 2 pairs in order. User b: the relevant item is last."""
    (tmp_path / "l.csv").write_text(
        "user_id,item_id,rank,score\n"
        + "".join(f"{user},{item},{rank},{4 - rank}\n" for user in "ab" for rank, item in enumerate("xyz", start=1))
    )
    (tmp_path / "t.csv").write_text("user_id,item_id\na,x\na,z\nb,z\n")
    words = [tmp_path / "l.csv", tmp_path / "t.csv", "-m", "auc"]
    job, local = job_and_verb(capsys, *words, "--all-candidates")
    assert cells(job) == {"auc": pytest.approx(cells(local)["auc"])}
    assert cells(job)["auc"][0] == 0.25
    assert run_job("evaluate", *words) == 2
    assert "auc" in capsys.readouterr().err


def test_sampled_candidates_are_named_as_by_the_verb(spark, tmp_path, capsys):
    (tmp_path / "l.csv").write_text(LISTS)
    (tmp_path / "t.csv").write_text(TRUTH)
    words = [tmp_path / "l.csv", tmp_path / "t.csv", "-m", "ndcg@2", "--sampled", "100"]
    job, local = job_and_verb(capsys, *words)
    assert cells(job) == {"ndcg@2[sampled=100]": pytest.approx(cells(local)["ndcg@2[sampled=100]"])}
    assert "Caution" in job["about"]["definitions"]["ndcg@2[sampled=100]"]
    assert job["about"]["definitions"] == local["about"]["definitions"]
    assert run_job("evaluate", *words[:-1], "0") == 2
    assert "--sampled: must be at least 1" in capsys.readouterr().err


def test_values_that_are_no_numbers_are_counted_on_both_engines(spark, tmp_path, capsys):
    (tmp_path / "l.csv").write_text(LISTS)
    (tmp_path / "t.csv").write_text("user_id,item_id,value\na,x,many\na,y,1\n")
    job, local = job_and_verb(capsys, tmp_path / "l.csv", tmp_path / "t.csv", "-m", "ndcg@2")
    assert cells(job)["ndcg@2"][0] == pytest.approx(cells(local)["ndcg@2"][0]) == pytest.approx(0.6309, abs=1e-4)
    assert [counts["refused_truth"] for counts in job["about"]["counts"].values()] == [1]


def test_a_damaged_parquet_file_of_a_job_is_named(spark, tmp_path, capsys):
    FRAME.to_parquet(tmp_path / "lists.parquet")
    data = (tmp_path / "lists.parquet").read_bytes()
    (tmp_path / "lists.parquet").write_bytes(data[:-20] + b"x" * 12 + data[-8:])
    (tmp_path / "truth.csv").write_text(TRUTH)
    assert "lists.parquet" in refuse(capsys, tmp_path / "lists.parquet", tmp_path / "truth.csv")


def test_the_file_that_was_named_is_read(spark, tmp_path):
    names = ["events[1].csv", "events1.csv", "{a}.csv", "a.csv", "*.csv", "q?.csv", "back\\slash.csv"]
    for name in names:
        (tmp_path / name).write_text(f'user_id,item_id\n"{name}",x\n')
    for name in names:
        table = read_table(spark, str(tmp_path / name), columns=("user_id", "item_id"))
        assert [row["user_id"] for row in table.collect()] == [name]


def test_a_part_without_a_byte_is_named(spark, tmp_path, capsys):
    (tmp_path / "lists").mkdir()
    FRAME.to_parquet(tmp_path / "lists" / "a.parquet")
    (tmp_path / "lists" / "b.parquet").touch()
    (tmp_path / "truth.csv").write_text(TRUTH)
    assert run_job("evaluate", tmp_path / "lists", tmp_path / "truth.csv", "-m", "ndcg@2") == 2
    assert "b.parquet: not a readable Parquet file" in capsys.readouterr().err


def test_a_threshold_that_is_no_number_is_refused(spark, tmp_path, capsys):
    for call in (lambda *words: run_job("evaluate", *words), verb):
        assert call(tmp_path / "l.csv", tmp_path / "t.csv", "--relevant", "nan") == 2
        assert "must be a finite number" in capsys.readouterr().err
