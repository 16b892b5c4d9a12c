"""The verb onboard: questions on stderr, a list on stdout."""

import io
import json
import shutil

import pandas as pd
import pytest

from recsys.cli import run_verb
from recsys.data.synthetic import film_world, write_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("onboard")
    files = write_world(film_world(users=60, items=50), place / "data")
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


@pytest.fixture(scope="module")
def rated(run):
    """A run of the same ratings, likes being 4 and more."""
    return rerun(run, "rated")


@pytest.fixture(scope="module")
def decayed(run):
    """The same, with values that decay: the oldest to a millionth of a millionth."""
    return rerun(run, "decayed", "weigh.half_life_days=30")


def rerun(run, name, *settings):
    place = run.parent / name
    arguments = [part for setting in ("judge.relevant=4", f"out={place}", *settings) for part in ("--set", setting)]
    assert run_verb(["run", str(run.parent / "run.toml"), *arguments]) == 0
    return place


def changed(run, place, name, change):
    """A copy of a run in which one text file reads otherwise."""
    shutil.copytree(run, place)
    (place / name).write_text(change((place / name).read_text()))
    return place


REPLIES = "y\nn\n\ny\nn\n"


def test_likes_are_what_was_said_before_it_decayed(rated, decayed, capsys, monkeypatch):
    there, here = (asked(place, capsys, monkeypatch, REPLIES, "-k", "50") for place in (rated, decayed))
    assert here == there
    values = pd.read_parquet(decayed / "split" / "history.parquet").value
    assert values.max() > 4 > values.quantile(0.9)  # as they are stored, hardly any would be a like
    unset = changed(rated, rated.parent / "unset", "config.toml", lambda text: text.replace("relevant = 4.0\n", ""))
    assert asked(unset, capsys, monkeypatch, REPLIES, "-k", "50").out != there.out  # nor is the threshold idle


def test_values_that_do_not_come_back_are_likes_above_0_and_a_line_says_so(decayed, tmp_path, capsys, monkeypatch):
    def repeated(text):
        about = json.loads(text)
        about["history"]["rows"] += 1  # some pair has two events
        return json.dumps(about)

    twice = changed(decayed, tmp_path / "twice", "split.json", repeated)
    last = changed(twice, tmp_path / "last", "config.toml", lambda text: text.replace('"sum"', '"last"'))
    unset = changed(twice, tmp_path / "unset", "config.toml", lambda text: text.replace("relevant = 4.0\n", ""))
    assert run_verb(["bundle", str(decayed), str(tmp_path / "bundle")]) == 0
    said = {
        name: asked(place, capsys, monkeypatch, REPLIES, "-k", "50")
        for name, place in {"twice": twice, "unset": unset, "last": last, "bundle": tmp_path / "bundle"}.items()
    }
    assert said["twice"].out == said["bundle"].out == said["unset"].out != said["last"].out
    assert "sums of several events cannot be restored: any value above 0" in said["twice"].err.replace("\n", " ")
    assert "does not record when the decay starts: any value above 0" in said["bundle"].err.replace("\n", " ")
    assert not any("decayed" in said[name].err for name in ("unset", "last"))


def test_what_decayed_to_nothing_is_neither_liked_nor_disliked(decayed, tmp_path, capsys, monkeypatch):
    less, none = tmp_path / "less", tmp_path / "none"
    for place in (less, none):
        shutil.copytree(decayed, place)
    path = "split/history.parquet"
    history = pd.read_parquet(decayed / path)
    old = history.timestamp < history.groupby("user_id").timestamp.transform("median")  # something is left of everyone
    history[~old].to_parquet(less / path)
    history.assign(value=history.value.mask(old, 0.0)).to_parquet(none / path)
    there, here = (asked(place, capsys, monkeypatch, REPLIES, "-k", "50") for place in (less, none))
    assert f"{old.sum()} pairs are left out: their values have decayed to nothing" in here.err
    assert here.out == there.out
