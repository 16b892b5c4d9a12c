"""Agreement on executors against the same tables compared locally."""

import json

import numpy as np
import pandas as pd
import pytest
from builders import run_job

from recsys.cli import run_verb
from recsys.evaluation.agreement.measures import MEASURES, agree_tables

pytestmark = pytest.mark.spark
CHOSEN = [*MEASURES, "tau_b[missing=intersection]", "rbo[p=0.7,ties=b,score=min]", "overlap@3", "tau_ap[ties=b]"]


def topk(seed, users):
    """Lists of 0 … 12 of 20 items; users without a list have no rows."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"i{item}", rank)
        for user in users
        for rank, item in enumerate(rng.permutation(20)[: rng.integers(0, 13)], start=1)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])


def test_equals_the_local_numbers(spark):
    from recsys.spark.evaluation.agreement import per_user

    a, b = topk(1, range(90)), topk(2, range(30, 120))
    renamed = {"user_id": "user", "item_id": "item"}
    frames = [spark.createDataFrame(table.rename(columns=renamed)).repartition(3) for table in (a, b)]
    found = per_user(*frames, CHOSEN).toPandas().set_index("user").sort_index()
    local = agree_tables(a, b, CHOSEN)
    expected = local.per_user.set_index("user_id").loc[found.index]
    assert len(found) == len(local.per_user)
    assert (found[["n_a", "n_b", "n_common"]] == expected[["n_a", "n_b", "n_common"]]).all(axis=None)
    for measure in CHOSEN:
        assert np.allclose(found[measure], expected[measure], rtol=0, atol=1e-12, equal_nan=True), measure
    assert local.about["counts"]["undefined rbo"] == ((expected["n_a"] == 0) | (expected["n_b"] == 0)).sum()


def test_the_job_prints_what_the_verb_prints(spark, tmp_path, capsys):
    for name, table in (("a", topk(1, range(40))), ("b", topk(2, range(10, 60)))):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    tables = [tmp_path / "a.csv", tmp_path / "b.csv"]
    measures = [word for name in ("spearman", "rbo[p=0.8]", "overlap@3") for word in ("-m", name)]
    assert run_verb(["agree", *map(str, tables), *measures, "--json"]) == 0
    local = json.loads(capsys.readouterr().out)
    assert run_job("agree", *tables, *measures, "--per-user", tmp_path / "users.parquet") == 0
    job = json.loads(capsys.readouterr().out)
    for name, cell in local["measures"].items():
        assert job["measures"][name]["users"] == cell["users"]
        assert job["measures"][name]["mean"] == pytest.approx(cell["mean"], abs=1e-12)
        assert job["measures"][name]["ci95"] == pytest.approx(cell["ci95"], abs=1e-12)
    assert job["about"] == local["about"]
    per_user = pd.read_parquet(tmp_path / "users.parquet")
    assert per_user["overlap@3"].mean() == pytest.approx(job["measures"]["overlap@3"]["mean"])


REFUSED = {
    "a rank twice": ("u,y,2", "u,y,1", "the second table: rank 1 of user 'u' is there 2 times"),
    "an item twice": ("u,y,2", "u,x,2", "the second table: item 'x' of user 'u' is there 2 times"),
    "an extra column": ("rank\nu,x,1\nu,y,2", "rank,note\nu,x,1,\nu,y,2,", "unknown column 'note'"),
    "no rank": ("rank", "place", "no column 'rank'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_lists_that_are_none_are_refused(spark, tmp_path, capsys, case):
    old, new, message = REFUSED[case]
    text = "user_id,item_id,rank\nu,x,1\nu,y,2\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_text(text.replace(old, new))
    assert run_job("agree", tmp_path / "a.csv", tmp_path / "b.csv") == 2
    assert message in capsys.readouterr().err
