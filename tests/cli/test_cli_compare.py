import json
import re
import shutil

import pytest
from builders import run_locally
from interruptions import digest

from recsys.cli import run_verb

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(world_files, tmp_path_factory):
    """Two runs, a good one and a poor one, and the folder that they are in."""
    place = tmp_path_factory.mktemp("compare")
    for name, params in (("good", {"neighbours": 100}), ("poor", {"neighbours": 1, "shrink": 500.0})):
        judge = {"metrics": ["ndcg@10", "recall@10"], "relevant": 3.5}
        split = {"rule": "fraction", "test": 0.3}
        run_locally(place / name, world_files, {"itemknn": params}, split=split, judge=judge)
    return place


def told(words, capsys, code=0):
    assert run_verb(["compare", *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_two_runs(runs, capsys):
    found = told([runs / "poor", runs / "good"], capsys)
    assert found["pick"] == "good"
    assert {row["model"] for row in found["guardrails"]} == {"poor", "good"}
    assert set(found["guardrails"][0]) >= {"coverage", "tail_share", "ms_per_user", "peak_mb"}
    assert found["agreement"][0]["users"] > 50
    assert len(found["most_changed"]) == 5
    assert told([runs / "good", runs / "poor"], capsys)["pick"] == "good"


def test_gates_fire_with_three(runs, capsys):
    words = [runs / "good", runs / "poor", "--fail-if", "ndcg@10 drops 0.01"]
    assert told(words, capsys, code=3)["fired"][0].startswith("ndcg@10 drops 0.01: poor - good = -")
    assert told([runs / "poor", runs / "good", "--fail-if", "ndcg@10 drops 0.01"], capsys)["fired"] == []
    assert told([runs / "good", runs / "poor", "--fail-if", "recall@10 within 0.001"], capsys, code=3)["fired"]


def test_all_models_of_one_run(runs, capsys):
    assert run_verb(["compare", str(runs / "good")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("pick: "), "the answer comes first, the tables after it"
    assert "Guardrails" in text
    assert "itemknn - popular" in text


def test_the_sentence_on_a_run_has_the_interval_of_its_table_and_of_its_report(runs, capsys):
    found = told([runs / "poor"], capsys)
    about = json.loads((runs / "poor" / "metrics.json").read_text())["about"]
    for row in found["differences"]:
        if row["metric"] == "ndcg@10" and row["against"] in about["baseline_differences"]:
            cell = about["baseline_differences"][row["against"]]["all"][row["model"]]
            assert [row["low"], row["high"]] == pytest.approx(cell["ci95"])
            if row["model"] == "itemknn":
                text = f"{row['difference']:+.4f} ndcg@10 [{row['low']:+.4f}, {row['high']:+.4f}]"
                is_in_the_sentence = text in found["reasons"][0]
                is_best = row["against"] in found["reasons"][0].split(":")[0]
                assert is_in_the_sentence == is_best


def test_an_older_run_is_judged_by_the_tests_of_compare_and_stays_as_it_is(runs, tmp_path, capsys):
    older = tmp_path / "older"
    shutil.copytree(runs / "good", older)
    metrics = json.loads((older / "metrics.json").read_text())
    del metrics["about"]["tests"]
    for of_baseline in metrics["about"]["baseline_differences"].values():
        for cell in of_baseline["all"].values():
            cell.pop("p_holm", None)
    (older / "metrics.json").write_text(json.dumps(metrics))
    before = digest(older)
    assert "older run" not in told([older], capsys)["reasons"][0]
    assert digest(older) == before
    assert run_verb(["report", str(older)]) == 0
    assert "by the interval alone (this older run" in capsys.readouterr().out


def test_gates_in_one_run_compare_its_models_with_its_best_baseline(runs, capsys):
    gates = ["--fail-if", "rbo drops 0.001", "--fail-if", "ndcg@10 within 0.5", "--fail-if", "ndcg@10 within 0"]
    result = told([runs / "poor", *gates], capsys, code=3)
    metrics = json.loads((runs / "poor" / "metrics.json").read_text())
    baselines = metrics["about"]["baseline_differences"]
    best = max(baselines, key=lambda name: metrics["models"][name]["ndcg@10"]["mean"])
    by_rbo, by_ndcg = result["fired"]
    # Agreement has no interval, so none is printed.
    assert re.fullmatch(rf"rbo drops 0.001: itemknn - {best} = -0\.\d+", by_rbo)
    means = {name: metrics["models"][name]["ndcg@10"]["mean"] for name in ("itemknn", best)}
    assert by_ndcg.startswith(f"ndcg@10 within 0: itemknn - {best} = {means['itemknn'] - means[best]:+.4f} [")


def test_chosen_metrics_of_runs(runs, capsys):
    result = told([runs / "poor", runs / "good", "-m", "recall@10"], capsys)
    assert {row["metric"] for row in result["differences"]} == {"recall@10"}
    assert result["pick"] == "good"
    assert "recall@10" in result["reasons"][0]
    assert run_verb(["compare", str(runs / "poor"), str(runs / "good"), "-m", "recall@20"]) == 2
    assert "no metric 'recall@20'. Did you mean 'recall@10'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["good", "poor"])
def test_the_pick_of_a_run_is_that_of_its_report_and_of_every_verb(name, runs, tmp_path, capsys):
    found = told([runs / name], capsys)
    means = found["means"]
    best = max(means, key=lambda model: means[model]["ndcg@10"])
    assert found["pick"] == best
    assert run_verb(["report", str(runs / name)]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: {found['reasons'][0]}\n")
    assert run_verb(["recommend", str(runs / name), "--user", "u1"]) == 0
    assert f"model: {best} " in capsys.readouterr().err
    assert run_verb(["bundle", str(runs / name), str(tmp_path / "bundle")]) == 0
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["model"] == best


def test_a_report_of_runs_of_one_name_shows_both_with_the_best_model_first(runs, tmp_path, monkeypatch, capsys):
    # Short paths, because the table gives a long one the room of its other columns.
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        shutil.copytree(runs / "good", tmp_path / folder / "good")
    assert run_verb(["report", "a/good", "b/good"]) == 0
    text = capsys.readouterr().out
    models = json.loads((tmp_path / "a" / "good" / "metrics.json").read_text())["models"]
    ordered = sorted(models, key=lambda name: -models[name]["ndcg@10"]["mean"])
    for run in ("a/good", "b/good"):
        assert re.findall(rf"^{run} +(\w+) +[\d.]+ +[\d.]+–", text, re.M) == ordered


def test_tables_of_other_systems(runs, capsys):
    tables = [runs / name / "topk" / "itemknn.parquet" for name in ("poor", "good")]
    truth = runs / "good" / "split" / "test.parquet"
    found = told([*tables, "--truth", truth, "--relevant", "3.5", "-m", "ndcg@10"], capsys)
    of_runs = told([runs / "poor", runs / "good"], capsys)
    ours, theirs = (next(iter(f["differences"])) for f in (found, of_runs))
    assert ours["difference"] == pytest.approx(theirs["difference"], rel=1e-9)
    assert found["pick"].endswith("itemknn.parquet"), "names alike: the whole path tells them apart"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{runs}/none"], "no such run folder"),
        (["{runs}/good/topk/itemknn.parquet", "{runs}/poor"], "a table, not a run folder"),
        (["{runs}/good", "{runs}/good"], "the same run is named twice"),
        (["{runs}/good", "{runs}/poor", "--model", "ease"], "no model 'ease'"),
        (["{runs}/good", "--model", "itemknn"], "name at least two runs"),
        (["{runs}/good", "{runs}/poor", "--fail-if", "ndcg@10 falls 1"], "Known: drops, rises, within"),
    ],
)
def test_what_is_wrong_is_said(words, message, runs, capsys):
    code = run_verb(["compare", *(word.format(runs=runs) for word in words)])
    assert code == 2
    assert message in capsys.readouterr().err
