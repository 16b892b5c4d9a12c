"""recommend, similar and explain over a run folder."""

import io
import re

import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.data.synthetic import film_world, write


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("lists")
    files = write(film_world(users=60, items=50), place / "data")
    config = place / "run.toml"
    config.write_text(
        f"out = '{place}/run'\n[data]\nevents = '{files['events']}'\nitems = '{files['items']}'\n"
        "[models.als]\nrank = 4\niterations = 2\n[models.content]\n"
    )
    assert run_verb(["run", str(config)]) == 0
    return place / "run"


def asked(capsys, *arguments, code=0):
    assert run_verb([str(argument) for argument in arguments]) == code
    return capsys.readouterr()


def test_recommend_answers_known_users_and_strangers_under_rules(run, tmp_path, capsys):
    history = pd.read_parquet(run / "split" / "history.parquet")
    known = str(history.user_id.iloc[0])
    plain = asked(capsys, "recommend", run, "--user", known, "--user", "stranger", "-k", 5, "--model", "als")
    table = pd.read_csv(io.StringIO(plain.out), dtype=str)
    assert table.groupby("user_id").size().to_dict() == {known: 5, "stranger": 5}
    assert set(table[table.user_id == "stranger"].source) == {"popular"}
    assert not set(table[table.user_id == known].item_id) & set(history[history.user_id == known].item_id)
    assert "title" in table
    rules = tmp_path / "rules.toml"
    rules.write_text(f'deny = ["{table.item_id[0]}", "nothing"]\n')
    ruled = asked(capsys, "recommend", run, "--user", known, "-k", 4, "--model", "als", "--rules", rules)
    kept = pd.read_csv(io.StringIO(ruled.out), dtype=str).item_id.tolist()
    assert kept == [i for i in table[table.user_id == known].item_id if i != table.item_id[0]][:4]
    assert "nothing" in ruled.err


def test_every_list_of_a_run_keeps_its_rules(run, tmp_path):
    plain = pd.read_parquet(run / "topk" / "popular.parquet")
    common = plain.item_id.value_counts().index[0]
    (tmp_path / "rules.toml").write_text(f"deny = ['{common}', '<unheard-of>']\n")
    settings = [f"out={tmp_path}/run", f"recommend.rules={tmp_path}/rules.toml"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert run_verb(["run", str(run.parent / "run.toml"), *arguments]) == 0
    for name in ("popular", "als", "content"):
        ruled = pd.read_parquet(tmp_path / "run" / "topk" / f"{name}.parquet")
        assert len(ruled) == len(pd.read_parquet(run / "topk" / f"{name}.parquet"))
        assert common not in set(ruled.item_id)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "deny: ids that nobody knows (1): &lt;unheard-of&gt;." in page
    assert re.search(r"deny</t[dh]>\s*<td[^>]*>1<", page)
    assert "What each rule does by itself" not in (run / "report.html").read_text(encoding="utf-8")


def test_similar_leaves_the_item_out(run, capsys):
    item = str(pd.read_parquet(run / "split" / "items.parquet").item_id[3])
    table = pd.read_csv(io.StringIO(asked(capsys, "similar", run, item, "-k", 3).out), dtype=str)
    assert len(table) == 3
    assert item not in set(table.item_id)


@pytest.mark.parametrize("model", ["als", "content"])
def test_explain_sums_to_the_score(run, capsys, model):
    history = pd.read_parquet(run / "split" / "history.parquet")
    liked = history[history.value > 0]
    user, item = str(liked.user_id.iloc[0]), str(liked.item_id.iloc[-1])
    lines = asked(capsys, "explain", run, "--user", user, "--item", item, "-k", 3, "--model", model).out.splitlines()
    score = float(re.search(r"score (\S+)", lines[0])[1])
    parts = [float(line.split()[0]) for line in lines[1:] if "history item" in line]
    assert sum(parts) == pytest.approx(score, abs=1e-4)


def test_strange_items_models_and_nobody_are_refused(run, capsys):
    assert "no item" in asked(capsys, "similar", run, "nothing", code=2).err
    assert "no model" in asked(capsys, "similar", run, "nothing", "--model", "asl", code=2).err
    assert "nobody" in asked(capsys, "recommend", run, code=2).err
