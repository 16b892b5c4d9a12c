import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.errors import ConfigError
from recsys.evaluation.testing.compare import compare
from recsys.evaluation.testing.gates import Gate
from recsys.types import Evaluation


def row(difference, low, high):
    return SimpleNamespace(model="new", against="old", metric="ndcg@10", difference=difference, low=low, high=high)


@pytest.mark.parametrize(
    ("difference", "low", "high", "drops", "within"),
    [
        (-0.02, -0.03, -0.01, True, True),
        (-0.02, -0.05, 0.01, False, True),  # may be noise: no proof of harm, none of harmlessness either
        (-0.005, -0.008, -0.002, False, False),
        (0.02, 0.01, 0.03, False, False),
        (0.00, -0.02, 0.02, False, True),
        (float("nan"), float("nan"), float("nan"), False, True),
    ],
)
def test_when_gates_fire(difference, low, high, drops, within):
    found = row(difference, low, high)
    assert Gate.parse("ndcg@10 drops 0.01", ["ndcg@10"]).fires(found) is drops
    assert Gate.parse("ndcg@10 within .01", ["ndcg@10"]).fires(found) is within


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndcg@10", "write METRIC drops LIMIT"),
        ("ndcg@10 drops -0.1", "write METRIC drops LIMIT"),
        ("ndcg@10 drop 0.01", "Did you mean 'drops'"),
        ("ndcg@1 within 0.01", "Did you mean 'ndcg@10'"),
    ],
)
def test_a_gate_that_cannot_be_read(text, message):
    with pytest.raises(ConfigError, match=message):
        Gate.parse(text, ["ndcg@10"])


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
        about = {"models": {"popular": {}, "als": {}}, "about": {"definitions": {"ndcg@10": "…"}, "beyond": {}}}
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


@pytest.mark.parametrize("options", [["--model", "alz"], ["--fail-if", "ndcg drops 1"]])
def test_what_the_verb_refuses(runs, options):
    assert run_verb(["compare", str(runs / "old"), str(runs / "new"), *options]) == 2


def test_a_run_twice_and_no_run(runs):
    assert run_verb(["compare", str(runs / "old"), str(runs / "old")]) == 2
    assert run_verb(["compare", str(runs / "old"), str(runs / "none")]) == 2
