"""Users with few likes are served by the fallback where a trial on train shows that it serves them better."""

import json

import numpy as np
import pandas as pd
import pytest
from builders import run_locally

from recsys.models import load
from recsys.report.outline import build_report
from recsys.runfolder import RunFolder
from recsys.saved.bundle import bundle_run
from recsys.saved.open_model import open_model

pytestmark = pytest.mark.slow

HITS = [f"h{i}" for i in range(10)]
BLOCKS = [[f"{block}{i:02d}" for i in range(40)] for block in "ab"]
EARLIER = [f"early{u:03d}" for u in range(150)]
LATER = [f"later{u:03d}" for u in range(150)]
LONG = [f"long{u:03d}" for u in range(120)]


def write_events(folder, *, short_users_like_hits):
    """Write a log of three periods; the third is the test, the second what a trial hides.

    240 fans make ten hits popular. Users with long histories like items of one block and never a hit. Users with
    short histories begin with one or two items of a block, and go on with hits, or with the same block: the earlier
    ones within train, the later ones in the test.
    """
    rng = np.random.default_rng(0)
    rows = []

    def add(user, items, period):
        rows.extend((user, item, period * 1000 + int(rng.integers(1000))) for item in items)

    for u in range(240):
        add(f"fan{u:03d}", rng.permutation(HITS)[:8], 0)
    for u, user in enumerate(LONG):
        block = rng.permutation(BLOCKS[u % 2])
        add(user, block[:26], 0)
        add(user, block[26:33], 1)
        add(user, block[33:], 2)
    for users, first in ((EARLIER, 0), (LATER, 1)):
        for u, user in enumerate(users):
            block = rng.permutation(BLOCKS[u % 2])
            start = 1 + u % 2
            later = rng.permutation(HITS)[:3] if short_users_like_hits else block[start : start + 3]
            add(user, block[:start], 0)
            add(user, later, first + 1)
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    folder.mkdir()
    events.to_csv(folder / "events.csv", index=False)
    return {"events": folder / "events.csv"}


def run_als(folder, files, **recommend):
    return run_locally(
        folder,
        files,
        {"als": {"rank": 8, "iterations": 10}},
        split={"rule": "time", "at": 2000},
        recommend={"k": 5, "min_history": "auto"} | recommend,
    )


def lists_of(run):
    return pd.read_parquet(run / "topk" / "als.parquet")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return (a run that chose by a trial, the same with min_history = 0): short users go on with hits."""
    folder = tmp_path_factory.mktemp("runs")
    files = write_events(folder / "world", short_users_like_hits=True)
    return run_als(folder / "auto", files), run_als(folder / "never", files, min_history=0)


def test_short_histories_get_the_fallback_and_long_ones_the_model(runs):
    chosen, never = (lists_of(run) for run in runs)
    card = json.loads((runs[0] / "model" / "als" / "model.json").read_text())
    assert card["min_history"] == 5
    group = card["record"]["groups"][0]
    assert group["history"] == "0-1"
    assert group["difference"]["high"] < 0
    short = chosen["user_id"].isin(LATER)
    assert set(chosen[short]["source"]) == {"popular"}
    assert set(chosen[short]["item_id"]) <= set(HITS)
    assert set(never[never["user_id"].isin(LATER)]["source"]) == {"als"}
    pd.testing.assert_frame_equal(chosen[~short], never[~short])
    assert set(chosen[~short]["source"]) == {"als"}


def test_a_saved_run_and_its_bundle_hand_over_the_same_users(runs, tmp_path):
    bundle_run(runs[0], tmp_path / "bundle", "als")
    users = pd.DataFrame({"user_id": [LATER[0], LONG[0]]})
    for folder in (runs[0], tmp_path / "bundle"):
        saved = open_model(folder, "als")
        assert saved.model.min_history == 5
        assert saved.model.record["min_history"] == 5
        histories = saved.histories(users["user_id"])
        assert saved.recommender(users).member_of(histories).tolist() == [1, 0]
    assert load(runs[1] / "model" / "als").min_history == 0


def test_a_model_that_is_better_for_everyone_scores_everyone(tmp_path):
    files = write_events(tmp_path / "world", short_users_like_hits=False)
    chosen = run_als(tmp_path / "auto", files)
    card = json.loads((chosen / "model" / "als" / "model.json").read_text())
    assert card["min_history"] == 0
    assert card["record"]["groups"][0]["difference"]["low"] > 0
    pd.testing.assert_frame_equal(lists_of(chosen), lists_of(run_als(tmp_path / "never", files, min_history=0)))


def test_a_given_number_needs_no_trial(runs, tmp_path):
    files = {"events": runs[0].parent / "world" / "events.csv"}
    run = run_als(tmp_path / "run", files, min_history=2)
    card = json.loads((run / "model" / "als" / "model.json").read_text())
    assert (card["min_history"], card["record"]) == (2, None)
    lists = lists_of(run)
    source = lists[lists["user_id"].isin(LATER)].groupby("user_id")["source"].first()
    assert source[LATER[0::2]].eq("popular").all()
    assert source[LATER[1::2]].eq("als").all()


def test_without_a_fallback_the_model_scores_all_it_can(runs, tmp_path):
    files = {"events": runs[0].parent / "world" / "events.csv"}
    run = run_als(tmp_path / "run", files, fallback="none")
    assert set(lists_of(run)["source"]) == {"als"}


def test_the_report_says_who_gets_the_fallback_and_why(runs):
    sections = [build_report(RunFolder.open(run)).sections for run in runs]
    (section,) = (section for section in sections[0] if section.title == "Short histories")
    assert section.paragraphs[0] == "als: users with fewer than 5 liked items get popular items."
    rows = {row[0]: row[1:] for row in section.tables[0].rows}
    assert float(rows["0-1"][1]) < float(rows["0-1"][2])
    assert rows["0-1"][3].startswith("-")
    assert "20+" not in rows  # nobody has so many
    assert all(section.title != "Short histories" for section in sections[1])
