"""The verb onboard: questions on stderr, a list on stdout."""

import io

import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.data.synthetic import film_world, write


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("onboard")
    files = write(film_world(users=60, items=50), place / "data")
    config = place / "run.toml"
    config.write_text(
        f"out = '{place}/run'\n[data]\nevents = '{files['events']}'\nitems = '{files['items']}'\n[models.content]\n"
    )
    assert run_verb(["run", str(config)]) == 0
    return place / "run"


def asked(run, capsys, monkeypatch, typed, *options, code=0):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert run_verb(["onboard", str(run), *options]) == code
    return capsys.readouterr()


def test_asks_and_leaves_out_what_the_newcomer_knows(run, capsys, monkeypatch):
    said = asked(run, capsys, monkeypatch, "y\n\nperhaps\nn\n", "--questions", "3", "-k", "50", "--strategy", "popular")
    assert said.err.count("please answer") == 1
    train = pd.read_parquet(run / "split" / "train.parquet")
    likes = train.groupby("item_id").size()
    table = pd.read_csv(io.StringIO(said.out), dtype={"item_id": str})
    everything = set(pd.read_parquet(run / "split" / "items.parquet").item_id.astype(str))
    left_out = everything - set(table.item_id)
    assert len(left_out) == 2  # the first and the third asked; the second is not known and may well be recommended
    assert likes[list(left_out)].min() >= likes.sort_values().iloc[-4]
    assert {"item_id", "rank", "score", "source", "title"} <= set(table.columns)


@pytest.mark.parametrize(("typed", "last"), [("", 1), ("q\ny\ny\n", 1), ("y\n", 2)])
def test_the_end_of_the_answers_ends_the_questions(run, capsys, monkeypatch, typed, last):
    said = asked(run, capsys, monkeypatch, typed, "-k", "5")
    assert said.err.count("/5  ") == last
    table = pd.read_csv(io.StringIO(said.out))
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]


def test_a_bundle_asks_as_its_run_does(run, tmp_path, capsys, monkeypatch):
    assert run_verb(["bundle", str(run), str(tmp_path / "bundle")]) == 0
    there, here = (asked(place, capsys, monkeypatch, "y\nn\n") for place in (run, tmp_path / "bundle"))
    assert here.out == there.out
    assert there.err.endswith(here.err)


def test_a_misspelt_strategy_is_refused(run, capsys, monkeypatch):
    assert "best_guess" in asked(run, capsys, monkeypatch, "", "--strategy", "best_gues", code=2).err
