"""`recsys evaluate` on files: the numbers of a hand-made example, and every refusal in one message."""

import json
import math
import re

import pandas as pd
import pytest

from recsys.cli import run_verb

RECS = pd.DataFrame(
    {
        "user_id": ["ann", "ann", "ann", "bob", "bob"],
        "item_id": ["007", "7", "x", "y", "x"],
        "rank": [1, 2, 3, 1, 2],
    }
)
TRUTH = pd.DataFrame({"user_id": ["ann", "ann", "bob", "cy"], "item_id": ["7", "z", "y", "x"], "value": [4, 5, 3, 5]})


@pytest.fixture(params=["csv", "tsv", "parquet"])
def files(request, tmp_path):
    paths = []
    for name, table in (("recs", RECS), ("truth", TRUTH)):
        path = tmp_path / f"{name}.{request.param}"
        if request.param == "parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, index=False, sep="\t" if request.param == "tsv" else ",")
        paths.append(str(path))
    return paths


def run(capsys, *arguments):
    code = run_verb(["evaluate", *arguments])
    return code, *capsys.readouterr()


def test_the_numbers_of_a_small_example(files, capsys):
    code, text, _ = run(capsys, *files, "-m", "ndcg@2", "-m", "recall@3", "--json")
    assert code == 0
    found = json.loads(text)["models"]["recs"]
    ann = (1 / math.log2(3)) / (1 + 1 / math.log2(3))  # the second of two places, two relevant
    assert found["ndcg@2"]["mean"] == pytest.approx((ann + 1 + 0) / 3, abs=1e-15)
    assert found["recall@3"]["mean"] == pytest.approx((1 / 2 + 1 + 0) / 3, abs=1e-15)
    assert found["recall@3"]["users"] == 3


def test_skipped_users_and_a_higher_bar_for_relevance(files, capsys):
    code, text, _ = run(capsys, *files, "-m", "recall@3", "--json", "--missing-users", "skip", "--relevant", "4")
    found = json.loads(text)
    assert code == 0
    assert found["models"]["recs"]["recall@3"] == {"mean": 0.5, "ci95": [0.5, 0.5], "users": 1}
    assert found["about"]["counts"]["recs"]["without_list"] == 1
    assert found["about"]["counts"]["recs"]["undefined"] == 1


def test_without_json_a_table_is_printed(files, capsys):
    code, text, _ = run(capsys, *files, "-m", "recall@3")
    assert code == 0
    assert "recall@3" in text
    assert "0.5000" in text


def test_metrics_are_shown_as_they_are_written(files, capsys):
    names = ["ndcg@3", "ndcg[gain=exp]@3", "recall@3", "map@3", "mrr@3"]
    words = [word for name in names for word in ("-m", name)]
    code, text, _ = run(capsys, *files, *words, "--sampled", "100")
    assert code == 0
    rows = [line.split()[0] for line in text.splitlines() if re.search(r"@3\S* +\d\.\d{4} ", line)]
    assert rows == [f"{name}[sampled=100]" for name in names]
    assert "ndcg[gain=exp]@3[sampled=100]: Discounted gain" in text


@pytest.mark.parametrize(
    ("words", "text"), [(["tune"], "its [tune]"), (["agree"], "rbo[p=0.8]"), (["evaluate"], "recall[ips=0.5]@10")]
)
def test_help_shows_brackets(words, text, capsys):
    assert run_verb([*words, "--help"]) == 0
    assert text in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_lists_and_truth_without_an_id_in_common_are_warned_of(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("user_id,item_id,rank\n1.0,a,1\n")
    (tmp_path / "t.csv").write_text("user_id,item_id\n1,a\n")
    code, _, error = run(capsys, str(tmp_path / "r.csv"), str(tmp_path / "t.csv"))
    assert code == 0
    assert "warning: no user of the lists is in the truth" in error
    assert "'1.0' in the lists and like '1' in the truth" in " ".join(error.split())


def test_truth_without_a_number_is_counted(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("user_id,item_id,rank\nu,a,1\nu,b,2\n")
    (tmp_path / "t.csv").write_text("user_id,item_id,value\nu,a,nan\nu,b,\nu,c,1\nu,d,inf\n")
    code, text, _ = run(capsys, str(tmp_path / "r.csv"), str(tmp_path / "t.csv"), "-m", "recall@2")
    assert code == 0
    assert "refused truth: 3" in text


def test_ties_conventions_popularity_and_samples_change_what_they_say(tmp_path, capsys):
    """One list a, b, c with a and b tied; b is relevant. trec_eval puts b first: the later id."""
    table = pd.DataFrame({"user_id": "u", "item_id": list("abc"), "rank": [1, 2, 3], "score": [0.5, 0.5, 0.1]})
    table.to_csv(tmp_path / "r.csv", index=False)
    table[1:2][["user_id", "item_id"]].to_csv(tmp_path / "t.csv", index=False)
    paths = [str(tmp_path / "r.csv"), str(tmp_path / "t.csv")]
    for options, expected in {
        (): 1 / 2,
        ("--ties", "average"): 3 / 4,
        ("--ties", "pessimistic"): 1 / 2,
        ("--ties", "optimistic"): 1.0,
        ("--convention", "trec"): 1.0,
    }.items():
        code, text, _ = run(capsys, *paths, "-m", "mrr", "--json", *options)
        found = json.loads(text)
        assert code == 0
        assert found["models"]["r"]["mrr"]["mean"] == expected, options
        assert found["about"]["counts"]["r"]["tied_places"] == 2
        assert found["about"]["definitions"]["mrr"].startswith("1 / rank")
    code, text, _ = run(capsys, *paths, "-m", "mrr", "--json", "--sampled", "100")
    found = json.loads(text)
    assert list(found["models"]["r"]) == ["mrr[sampled=100]"]
    assert "Caution" in found["about"]["definitions"]["mrr[sampled=100]"]
    code, _, error = run(capsys, *paths, "-m", "recall[ips=1]@2")
    assert code == 2
    assert "popularity or propensities" in error
    code, text, _ = run(capsys, *paths, "-m", "recall[ips=1]@2", "--train", paths[1], "--json")
    assert json.loads(text)["models"]["r"]["recall[ips=1.0]@2"]["mean"] == 1.0


def test_all_misspelt_metrics_are_named_at_once(files, capsys):
    code, _, error = run(capsys, *files, "-m", "ndgc@10", "-m", "recal@5", "-m", "auc")
    assert code == 2
    assert "Did you mean 'ndcg'?" in error
    assert "Did you mean 'recall'?" in error
    assert "scores of all items" in error


def test_unknown_and_missing_columns_are_named_at_once(tmp_path, capsys):
    RECS.rename(columns={"item_id": "itemid"}).assign(year="x").to_csv(tmp_path / "r.csv", index=False)
    TRUTH.to_csv(tmp_path / "t.csv", index=False)
    code, _, error = run(capsys, str(tmp_path / "r.csv"), str(tmp_path / "t.csv"))
    assert code == 2
    assert "no column 'item_id'. Did you mean 'itemid'?" in error
    assert "unknown column 'year'" in error


@pytest.mark.parametrize("damage", ["twice in a list", "twice in the truth", "a rank twice", "no user", "no number"])
def test_bad_rows_are_refused(damage, tmp_path, capsys):
    recs, truth = RECS.astype(object), TRUTH.astype(object)
    if damage == "twice in a list":
        recs.loc[2, "item_id"] = "7"
    elif damage == "a rank twice":
        recs.loc[2, "rank"] = 2
    elif damage == "no user":
        recs.loc[2, "user_id"] = ""
    elif damage == "no number":
        recs.loc[2, "rank"] = "third"
    else:
        truth.loc[1, "item_id"] = "7"
    recs.to_csv(tmp_path / "r.csv", index=False)
    truth.to_csv(tmp_path / "t.csv", index=False)
    code, _, error = run(capsys, str(tmp_path / "r.csv"), str(tmp_path / "t.csv"))
    assert code == 2
    assert error.startswith("error: ")
    assert "r.csv" in error or "topk" in error or "truth" in error


def test_no_such_file(capsys):
    code, _, error = run(capsys, "nothing.csv", "nowhere.csv")
    assert code == 2
    assert "no such file" in error


def test_errors_of_predicted_values(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("user_id,item_id,score\na,x,4\na,y,2\nb,x,3\nc,z,1\n")
    (tmp_path / "t.csv").write_text("user_id,item_id,value\na,x,5\na,y,2\nb,x,1\nb,y,nan\n")
    paths = [str(tmp_path / "p.csv"), str(tmp_path / "t.csv")]
    code, text, _ = run(capsys, *paths, "-m", "rmse", "-m", "mae", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["models"]["p"]["mae"]["mean"] == pytest.approx((0.5 + 2) / 2)
    assert found["models"]["p"]["rmse"]["mean"] == pytest.approx((math.sqrt(1 / 2) + 2) / 2)
    assert found["about"]["pooled"] == {"rmse": pytest.approx(math.sqrt(5 / 3)), "mae": 1.0}
    assert found["about"]["counts"]["p"]["refused_truth"] == 1
    code, text, _ = run(capsys, *paths, "-m", "rmse")
    assert code == 0
    assert "over all pairs: rmse 1.2910" in text
    code, _, error = run(capsys, *paths, "-m", "rmse", "-m", "ndcg@10")
    assert code == 2
    assert "ask for them apart" in error


def test_auc_of_tables_with_every_candidate(tmp_path, capsys):
    """a: the relevant item is above one of two others, ties half; b: above both."""
    rows = ["a,x,0.9", "a,y,0.5", "a,z,0.1", "b,x,0.9", "b,y,0.5", "b,z,0.1"]
    (tmp_path / "p.csv").write_text("\n".join(["user_id,item_id,score", *rows]))
    (tmp_path / "t.csv").write_text("user_id,item_id\na,y\nb,x\n")
    paths = [str(tmp_path / "p.csv"), str(tmp_path / "t.csv")]
    code, text, _ = run(capsys, *paths, "-m", "auc", "-m", "mrr", "--all-candidates", "--json")
    assert code == 0
    found = json.loads(text)["models"]["p"]
    assert found["auc"]["mean"] == pytest.approx((0.5 + 1) / 2)
    assert found["mrr"]["mean"] == pytest.approx((0.5 + 1) / 2)
    code, _, error = run(capsys, *paths, "-m", "auc")
    assert code == 2
    assert "--all-candidates" in error


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "recs.csv", "truth.csv", "--relevant"],
        ["compare", "recs.csv", "recs2.csv", "--truth", "truth.csv", "--relevant"],
        ["ab", "plan", "--mean", "0.1", "--lift"],
        ["ab", "plan", "--mean"],
        ["ab", "analyse", "outcomes.csv", "--expected"],
    ],
    ids=" ".join,
)
def test_numbers_of_options_are_finite(words, number, capsys):
    assert run_verb([*words[:-1], f"{words[-1]}={number}"]) == 2
    assert "must be a finite number" in " ".join(capsys.readouterr().err.split()).replace("│ ", "")


def test_a_delimiter_that_is_none_is_answered_with_the_option(tmp_path, capsys):
    (tmp_path / "recs.csv").write_text("user_id;item_id;rank\nann;x;1\n")
    (tmp_path / "truth.csv").write_text("user_id;item_id\nann;x\n")
    words = [str(tmp_path / "recs.csv"), str(tmp_path / "truth.csv"), "-m", "recall@1"]
    code, _, error = run(capsys, *words)
    assert code == 2
    assert "one column only" in error
    assert "--delimiter" in error
    assert run(capsys, *words, "--delimiter", ";")[0] == 0
    (tmp_path / "recs.foo").write_text("user_id;item_id;rank\nann;x;1\n")
    assert "--format" in run(capsys, words[0], str(tmp_path / "recs.foo"))[2]


def test_tables_with_names_and_delimiters_of_their_own_are_judged_and_compared(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("user_id,item_id,rank\nann,x;1,1\nbob,y,1\n")
    (tmp_path / "b.csv").write_text("uid;item_id;rank\nann;y;1\nbob;y;1\n")
    (tmp_path / "truth.csv").write_text("uid;item_id;value\nann;x;1;4\nbob;y;5\n".replace("x;1", '"x;1"'))
    lists, others, truth = (str(tmp_path / name) for name in ("a.csv", "b.csv", "truth.csv"))
    options = ["--delimiter", ";", "--column", "user_id=uid"]
    code, printed, error = run(capsys, lists, truth, "-m", "recall@1", "--json", *options)
    assert code == 0, error
    assert json.loads(printed)["models"]["a"]["recall@1"]["mean"] == 1
    words = ["compare", lists, others, "--truth", truth, "-m", "recall@1", "--json"]
    assert run_verb([*words, *options]) == 0
    means = json.loads(capsys.readouterr().out)["means"]
    assert [means[name]["recall@1"] for name in ("a", "b")] == [1, 0.5]


@pytest.mark.parametrize("option", [["--relevant", "3"], ["--delimiter", ";"], ["--column", "user_id=uid"]])
def test_options_for_tables_of_lists_are_refused_for_runs(option, tmp_path, capsys):
    assert run_verb(["compare", str(tmp_path / "run"), str(tmp_path / "other"), *option]) == 2
    assert "--truth FILE" in capsys.readouterr().err
