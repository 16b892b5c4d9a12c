import io
import json

import numpy as np
import pandas as pd
import pytest
from builders import run_locally
from scipy import stats

from recsys.cli import run_verb


@pytest.fixture(scope="module")
def run(world_files, tmp_path_factory):
    place = tmp_path_factory.mktemp("ab") / "run"
    return run_locally(
        place, world_files, {"ease": {}}, judge={"relevant": 3.5}, split={"rule": "fraction", "test": 0.3}
    )


def test_plan_for_a_rate(capsys):
    assert run_verb(["ab", "plan", "--mean", "0.04", "--lift", "0.05", "--daily", "20000", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["plans"]
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert found["users_per_arm"] == int(np.ceil(2 * z**2 * 0.04 * 0.96 / 0.002**2))
    assert found["days"] == int(np.ceil(2 * found["users_per_arm"] / 20_000))


@pytest.mark.slow
def test_plan_for_what_a_run_saw(run, capsys):
    assert run_verb(["ab", "plan", "--mean", "0.04", "--run", str(run), "--json"]) == 0
    first, *_ = json.loads(capsys.readouterr().out)["plans"]
    metrics = json.loads((run / "metrics.json").read_text())
    means = {name: cells["ndcg@10"]["mean"] for name, cells in metrics["models"].items()}
    best, base = means.pop("ease"), max(means.values())
    assert first["lift"] == pytest.approx(best / base - 1)
    assert run_verb(["ab", "plan", "--mean", "0.04", "--run", str(run)]) == 0
    assert "seldom carry over" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_that_is_worse_is_no_plan(run, capsys):
    assert run_verb(["ab", "plan", "--mean", "0.04", "--run", str(run), "--model", "random"]) == 2
    assert "nothing to try on users" in capsys.readouterr().err


def test_assign_and_analyse(tmp_path, capsys):
    users = tmp_path / "users.txt"
    users.write_text("\n".join(f"u{n}" for n in range(4000)) + "\nu1\n")
    assert run_verb(["ab", "assign", str(users), "--name", "ranker-2"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert len(table) == 4000
    rng = np.random.default_rng(0)
    table["outcome"] = rng.normal(size=4000) + 0.2 * (table["arm"] == "treatment")
    table.to_csv(tmp_path / "outcomes.csv", index=False)
    assert run_verb(["ab", "analyse", str(tmp_path / "outcomes.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sample_ratio_p"] > 0.001
    assert found["arms"][0]["low"] < 0.2 < found["arms"][0]["high"]
    table[(table["arm"] == "control") | (table.index % 4 > 0)].to_csv(tmp_path / "lost.csv", index=False)
    assert run_verb(["ab", "analyse", str(tmp_path / "lost.csv")]) == 0
    assert capsys.readouterr().out.startswith("STOP: the sizes of the arms")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "--mean", "0.1"], "give either --lift, or --run"),
        (["plan", "--mean", "5", "--lift", "0.1"], "not a rate between 0 and 1"),
        (["assign", "none.txt", "--name", "x"], "none.txt: cannot be read"),
        (["analyse", "none.csv"], "none.csv: cannot be read"),
        (["analyse", "none.csv", "--arm", "half"], "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_verb(["ab", *words]) == 2
    assert message in capsys.readouterr().err


def test_assigned_users_go_to_a_file_or_it_is_said_why_not(tmp_path, capsys):
    (tmp_path / "users.txt").write_text("a\nb\n")
    words = ["ab", "assign", str(tmp_path / "users.txt"), "--name", "x"]
    assert run_verb(words) == 0
    shown = capsys.readouterr().out
    assert run_verb([*words, "--out", str(tmp_path / "arms.csv")]) == 0
    assert (tmp_path / "arms.csv").read_text(encoding="utf-8") == shown
    assert run_verb([*words, "--out", str(tmp_path / "none" / "arms.csv")]) == 2
    assert "none/arms.csv: there is no folder" in capsys.readouterr().err


def test_a_share_that_is_none(tmp_path, capsys):
    (tmp_path / "users.txt").write_text("a\nb\n")
    assert run_verb(["ab", "assign", str(tmp_path / "users.txt"), "--name", "x", "--arm", "half"]) == 2
    assert "write it as NAME=SHARE" in capsys.readouterr().err
