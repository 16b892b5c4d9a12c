import json

import numpy as np
import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.errors import ConfigError
from recsys.evaluation.testing.compare import compare
from recsys.evaluation.testing.gates import Change, Gate
from recsys.types import Evaluation


def row(difference, low, high):
    return Change("ndcg@10", "new", "old", difference, low, high)


@pytest.mark.parametrize(
    ("difference", "low", "high", "drops", "rises", "within"),
    [
        (-0.02, -0.03, -0.01, True, False, True),
        (-0.02, -0.05, 0.01, False, False, True),  # may be noise: no proof of harm, none of harmlessness either
        (-0.005, -0.008, -0.002, False, False, False),
        (0.02, 0.01, 0.03, False, True, False),
        (0.00, -0.02, 0.02, False, False, True),
        (float("nan"), float("nan"), float("nan"), False, False, True),
    ],
)
def test_when_gates_fire(difference, low, high, drops, rises, within):
    found = row(difference, low, high)
    assert Gate.parse("ndcg@10 drops 0.01", ["ndcg@10"]).fires(found) is drops
    assert Gate.parse("ndcg@10 rises 0.01", ["ndcg@10"]).fires(found) is rises
    assert Gate.parse("ndcg@10 within .01", ["ndcg@10"]).fires(found) is within


@pytest.mark.parametrize(("text", "limit"), [("5", 5.0), ("5.", 5.0), (".5", 0.5), ("1e-3", 0.001), ("2.5E2", 250.0)])
def test_a_limit_is_any_number_that_is_not_negative(text, limit):
    assert Gate.parse(f"ndcg@10 drops {text}", ["ndcg@10"]).limit == limit


def test_within_of_a_cost_looks_upwards():
    gate = Gate.parse("ms_per_user within 5", ["ms_per_user"])
    assert not gate.fires(Change("ms_per_user", "new", "old", -90.0, -90.0, -90.0))
    assert gate.fires(Change("ms_per_user", "new", "old", 6.0, 6.0, 6.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndcg@10", "write METRIC drops LIMIT"),
        ("ndcg@10 drops 0.1 0.2", "write METRIC drops LIMIT"),
        ("ndcg@10 drops -0.1", r"'-0\.1' is not a limit: .* such as 0\.01"),
        ("ndcg@10 drops 1%", "'1%' is not a limit"),
        ("ndcg@10 drop 0.01", "Did you mean 'drops'"),
        ("ndcg@1 within 0.01", "Did you mean 'ndcg@10'"),
    ],
)
def test_a_gate_that_cannot_be_read(text, message):
    with pytest.raises(ConfigError, match=message):
        Gate.parse(text, ["ndcg@10"])


def test_all_mistakes_of_a_gate_are_named():
    with pytest.raises(ConfigError) as raised:
        Gate.parse("ndgc@10 drop 1%", ["ndcg@10", "coverage"])
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert "'ndgc@10'. Did you mean 'ndcg@10'?" in lines[0]
    assert "'drop'. Did you mean 'drops'?" in lines[1]
    assert "'1%' is not a limit" in lines[2]


@pytest.mark.slow
def test_two_thousand_pairs_of_equal_models():
    """In 40 comparisons of 50 pairs each; the pairs of one comparison stand as its metrics and share resamples."""
    rng, rejected = np.random.default_rng(0), 0
    pairs = [f"pair{i}" for i in range(50)]
    for seed in range(40):
        base = rng.random((40, 1))
        tables = [pd.DataFrame(base + rng.normal(0, 0.1, (40, 50)), columns=pairs) for _ in range(2)]
        both = [
            Evaluation(name, table.assign(user_id=np.arange(40)), {"definitions": dict.fromkeys(pairs, "…")})
            for name, table in zip(("old", "new"), tables, strict=True)
        ]
        rejected += (compare(both, resamples=999, seed=seed).differences["p"] <= 0.05).sum()
    assert 69 <= rejected <= 133


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(1)
    base = rng.random(200)
    for name, lift in (("old", 0.0), ("new", -0.05), ("same", 0.0)):
        folder = tmp_path / name
        folder.mkdir()
        tables = [
            pd.DataFrame({"model": model, "user_id": np.arange(200), "ndcg@10": values})
            for model, values in (("popular", base), ("als", base + lift + rng.normal(0, 0.05, 200)))
        ]
        pd.concat(tables).to_parquet(folder / "per_user.parquet")
        lists = pd.DataFrame({"user_id": np.repeat(np.arange(200), 3), "item_id": np.tile(np.arange(3), 200)})
        lists["rank"], lists["score"], lists["source"] = np.tile([1, 2, 3], 200), 1.0, "als"
        (folder / "topk").mkdir()
        for model in ("popular", "als"):
            lists.to_parquet(folder / "topk" / f"{model}.parquet")
        cell = {"mean": 0.5, "ci95": [0.4, 0.6], "users": 200}
        about = {
            "models": {model: {"ndcg@10": cell} for model in ("popular", "als")},
            "about": {
                "definitions": {"ndcg@10": "…"},
                "primary": "ndcg@10",
                "baseline": "popular",
                "counts": {"popular": {}, "als": {}},
                "baseline_differences": {"popular": {"all": {"als": cell}, "history": {}}},
                "beyond": {"als": {"coverage": {"value": 0.5 + 4 * lift}}},
            },
        }
        (folder / "metrics.json").write_text(json.dumps(about))
        (folder / "manifest.json").write_text(json.dumps({"hops": [], "platform": "here"}))
        (folder / "_SUCCESS").touch()
    return tmp_path


def test_the_verb_and_its_exit_codes(runs, capsys):
    old, new, same = (str(runs / name) for name in ("old", "new", "same"))
    assert run_verb(["compare", old, new, "--fail-if", "ndcg@10 drops 0.01", "--json"]) == 3
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["differences"][0]["difference"] == pytest.approx(-0.05, abs=0.02)
    assert len(found["fired"]) == 1
    assert "new - old = -0.0" in shown.err
    assert run_verb(["compare", old, same, "--fail-if", "ndcg@10 drops 0.01"]) == 0
    assert run_verb(["compare", old, same, "--fail-if", "ndcg@10 within 0.02"]) == 0
    assert run_verb(["compare", old, same, "--fail-if", "ndcg@10 within 0.001"]) == 3
    assert run_verb(["compare", old]) == 0
    assert "als" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("coverage drops 0.1", 3),
        ("coverage drops 0.3", 0),
        ("coverage within 0.3", 0),
        ("coverage rises 0.1", 0),
        ("rbo drops 0.14", 3),
        ("rbo drops 0.15", 0),
        ("overlap within 0.1", 0),
    ],
)
def test_gates_on_guardrails_and_on_agreement(runs, gate, code):
    """Coverage is 0.5 and 0.3. One list is the other in reverse, so they overlap wholly, and rbo is 0.855."""
    lists = pd.read_parquet(runs / "new" / "topk" / "als.parquet")
    lists.assign(rank=4 - lists["rank"]).to_parquet(runs / "new" / "topk" / "als.parquet")
    assert run_verb(["compare", str(runs / "old"), str(runs / "new"), "--fail-if", gate]) == code


@pytest.mark.parametrize("options", [["--model", "alz"], ["--fail-if", "ndcg drops 1"]])
def test_what_the_verb_refuses(runs, options):
    assert run_verb(["compare", str(runs / "old"), str(runs / "new"), *options]) == 2


def test_a_run_twice_and_no_run(runs):
    assert run_verb(["compare", str(runs / "old"), str(runs / "old")]) == 2
    assert run_verb(["compare", str(runs / "old"), str(runs / "none")]) == 2
