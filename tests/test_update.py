"""What an update may replace. What it computes is tested with the Spark runs that it is made for."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from builders import run_locally

from recsys.cli import run_verb
from recsys.config import parse_config
from recsys.data.weigh import interactions_from_table
from recsys.errors import InputError, RunFolderError
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.popular import Popular
from recsys.models.combining.cascade import Cascade
from recsys.ranking.rank import recommend
from recsys.runfolder import RunFolder
from recsys.saved.bundle import bundle_run, write_bundle
from recsys.saved.open_model import SavedModel, open_model
from recsys.saved.update import update


@pytest.fixture
def packed(tmp_path):
    """Return a bundle as that of an ALS run on Spark, and write ``late.csv`` beside it."""
    pairs = pd.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "y"], "value": 1.0, "timestamp": 0.0})
    history = interactions_from_table(pairs)
    als = ALS.from_factors(np.eye(2, dtype=np.float32), np.ones(2, dtype=bool))
    config = parse_config({"data": {"events": "events.csv"}})
    with RunFolder.writing(tmp_path / "run") as run:
        run.write_text("config.toml", config.to_toml())
        run.write_json("metrics.json", {"models": {"als": {}}})
        run.write_manifest(seed=0, inputs={}, hops=[], started=datetime.now(UTC))
    saved = SavedModel(
        name="als",
        model=Cascade({"als": als, "popular": Popular().fit(history)}),
        history=history,
        items=pd.DataFrame({"item_id": ["x", "y"]}),
        config=config,
        user_factors=np.ones((2, 2), dtype=np.float32),
    )
    write_bundle(saved, tmp_path / "bundle", RunFolder.open(tmp_path / "run"), sources=[])
    (tmp_path / "late.csv").write_text("user_id,item_id,value,timestamp\nc,x,1,9\n")
    return tmp_path / "bundle"


def test_an_update_may_replace_the_bundle_that_it_updates(packed):
    update(packed, packed.parent / "late.csv", packed)
    assert len(open_model(packed).history.users) == 3


def test_the_new_events_may_be_written_in_another_way(packed, capsys):
    folder = packed.parent
    (folder / "shop.txt").write_text("shopper;item_id;value;timestamp\nc;x;1;9000\n")
    words = ["update", str(packed), str(folder / "shop.txt"), str(folder / "new"), "--delimiter", ";"]
    assert run_verb([*words, "--column", "user_id=shopper", "--time-unit", "ms"]) == 0
    capsys.readouterr()
    updated = open_model(folder / "new")
    assert updated.history.time.max() == 9
    assert updated.config == open_model(packed).config
    assert run_verb(words) == 2
    assert "user_id" in capsys.readouterr().err


def test_events_that_are_not_newer_are_counted(packed, capsys):
    (packed.parent / "again.csv").write_text("user_id,item_id,value,timestamp\na,x,1,0\nc,x,1,9\n")
    assert update(packed, packed.parent / "again.csv", packed.parent / "new").events_not_newer == 1
    assert run_verb(["update", str(packed), str(packed.parent / "again.csv"), str(packed.parent / "new")]) == 0
    assert "1 events are not newer than the newest event" in capsys.readouterr().out


def test_an_update_replaces_no_run_and_nothing_else_that_it_reads(packed):
    late, run, retrained = (packed.parent / name for name in ("late.csv", "run", "retrained"))
    with pytest.raises(RunFolderError, match="this is a run, and a bundle replaces only a bundle"):
        update(packed, late, run)
    update(packed, late, retrained)
    whole = sorted(retrained.rglob("*"))
    with pytest.raises(RunFolderError, match="retrained is read from this folder"):
        update(packed, late, retrained, against=retrained)
    with pytest.raises(RunFolderError, match=r"history\.parquet is read from this folder"):
        update(packed, retrained / "split" / "history.parquet", retrained)
    assert sorted(retrained.rglob("*")) == whole
    assert len(open_model(packed).history.users) == 2


def test_lists_of_other_users_are_not_compared_and_nothing_is_written(packed):
    pairs = pd.DataFrame({"user_id": ["p", "p", "q"], "item_id": ["x", "y", "y"], "value": 1.0, "timestamp": 0.0})
    strangers = replace(open_model(packed), history=interactions_from_table(pairs))
    write_bundle(strangers, packed.parent / "strangers", RunFolder.open(packed.parent / "run"), sources=[])
    with pytest.raises(InputError, match="no user in common"):
        update(packed, packed.parent / "late.csv", packed.parent / "compared", against=packed.parent / "strangers")
    assert not (packed.parent / "compared").exists()


KINDS = {
    "als": {"rank": 4},
    "ease": {},
    "itemknn": {},
    "rp3beta": {},
    "bpr": {"rank": 4},
    "spectral": {},
    "transitions": {},
    "next_item": {},
    "popular": {},
}


@pytest.fixture(scope="module")
def local_run(world_files, tmp_path_factory):
    """Return a local run of several models, and the ids of a user and of two items of train."""
    place = tmp_path_factory.mktemp("update") / "run"
    run_locally(place, world_files, {name: params for name, params in KINDS.items() if name != "popular"})
    history = pd.read_parquet(place / "split" / "history.parquet")
    liked = history[history["value"] > 0]
    return place, str(liked["user_id"].value_counts().index[-1]), list(liked["item_id"].value_counts().index[:2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_bundle_of_every_local_model_takes_new_events(kind, local_run, tmp_path):
    run, user, items = local_run
    bundle_run(run, tmp_path / "bundle", kind)
    rows = [f"newcomer,{item},5,99999999" for item in items] + [f"{user},{items[0]},5,99999999"]
    (tmp_path / "late.csv").write_text(
        "\n".join(["user_id,item_id,value,timestamp", *rows, "newcomer,unheard,5,99999999"])
    )
    result = update(tmp_path / "bundle", tmp_path / "late.csv", tmp_path / "new")
    assert (result.events, result.users_new, result.users_changed) == (4, 1, 1)
    assert (result.items_new, result.events_left_out) == ((1, 0) if kind == "als" else (0, 1))
    assert result.retrain or kind == "als", "a quarter of the events could not be used"
    old, new = open_model(tmp_path / "bundle"), open_model(tmp_path / "new")
    n_items = 3 if kind == "als" else 2
    assert new.histories(["newcomer"]).values.nnz == n_items
    assert old.histories(["newcomer"]).values.nnz == 0
    lists = recommend(new.recommender(pd.DataFrame({"user_id": ["newcomer"]})), new.histories(["newcomer"]), 5)
    assert not set(new.history.items.ids_of(lists.items[0])) & set(items)
    assert lists.sources[lists.source[0, 0]] == kind
