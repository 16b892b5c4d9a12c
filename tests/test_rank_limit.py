"""A rank above what the matrix of train can hold: refused by a run, never tried by a search."""

import json

import pytest

from recsys.als.parameters import largest_rank
from recsys.cli import run_verb


def test_the_largest_rank_is_that_of_the_matrix_but_the_default_is_always_allowed():
    assert largest_rank(200, 47) == 64
    assert largest_rank(90, 5000) == 90


@pytest.mark.parametrize(
    "model",
    ["als={rank=1000}", "big={model='bpr', rank=100000}", "blend={parts={als={rank=900}}}", "content_als={rank=99999}"],
)
def test_a_run_refuses_a_rank_that_train_cannot_hold(model, world_files, tmp_path, capsys):
    words = ["run", str(world_files["events"]), "--set", f"out={tmp_path}/run", "--set", f"models={{{model}}}"]
    assert run_verb(words) == 2
    said = capsys.readouterr().err
    assert "but train has" in said
    assert "or less" in said
    assert not (tmp_path / "run").exists()


def test_all_such_ranks_are_said_at_once(world_files, tmp_path, capsys):
    models = "{als={rank=1000}, ease={}, mix={model='blend', parts={a={model='als', rank=900}, bpr={rank=800}}}}"
    words = ["run", str(world_files["events"]), "--set", f"out={tmp_path}/run", "--set", f"models={models}"]
    assert run_verb(words) == 2
    said = capsys.readouterr().err
    for label, rank in (("als", "1,000"), ("mix.parts.a", "900"), ("mix.parts.bpr", "800")):
        assert f"model '{label}': rank = {rank}, but train has" in said
    assert said.count("but train has") == 3


@pytest.mark.parametrize("model", ["als={rank='many'}", "blend={parts={als={rank=[1]}}}", "blend={parts={als=7}}"])
def test_a_rank_that_is_no_number_is_refused_with_the_parameters(model, world_files, tmp_path):
    words = ["run", str(world_files["events"]), "--set", f"out={tmp_path}/run", "--set", f"models={{{model}}}"]
    assert run_verb(words) == 2


@pytest.mark.slow
def test_kinds_whose_rank_is_another_matter_are_left_alone(world_files, tmp_path):
    words = ["run", str(world_files["events"]), "--set", f"out={tmp_path}/run", "--set", "models={spectral={rank=900}}"]
    assert run_verb(words) == 0


@pytest.mark.slow
def test_a_search_stays_below_the_limit(world_files, tmp_path):
    pytest.importorskip("optuna")
    words = [str(world_files["events"]), "--set", f"out={tmp_path}/run", "--set", "models={als={rank=2,iterations=1}}"]
    assert run_verb(["run", *words]) == 0
    config = str(tmp_path / "run" / "config.toml")
    settings = ["--set", "tune.trials=3", "--set", "tune.space={rank=[500,4000]}", "--set", "tune.sampler='grid'"]
    assert run_verb(["tune", config, *settings]) == 0
    result = json.loads((tmp_path / "run-tune" / "tuning.json").read_text())
    limit = largest_rank(
        *(json.loads((tmp_path / "run/split.json").read_text())["train"][k] for k in ("users", "items"))
    )
    ranks = {trial["params"].get("rank") for trial in result["trials"]}
    assert ranks <= {None, limit}
