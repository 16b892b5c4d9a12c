"""The search: what it reads, that it repeats, that a kill or a second process changes nothing."""

import contextlib
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys import config, flow
from recsys.cli import run_verb
from recsys.data.hashing import id_hash, pair_hash
from recsys.data.weigh import interactions_to_table
from recsys.errors import ConfigError, InputError
from recsys.tune import study, tune
from recsys.tune.folds import make_folds
from recsys.tune.learning import _findings, learning_curve
from recsys.tune.space import Range, grid_points, search_space
from recsys.tune.study_lock import StudyLock

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SPACE = {"neighbours": [2, 5, 20, 50], "shrink": {"low": 0.0, "high": 50.0}, "weighting": ["cosine", "tfidf"]}


@pytest.fixture(scope="module")
def raw(world_files, tmp_path_factory):
    """The settings of a finished run, whose model's first setting is a poor one."""
    found = {
        "out": str(tmp_path_factory.mktemp("tune") / "run"),
        "data": {"events": str(world_files["events"])},
        "models": {"itemknn": {"neighbours": 1, "shrink": 90.0}},
        "judge": {"metrics": ["ndcg@10"], "relevant": 3.5, "resamples": 100},
        "tune": {"trials": 12, "space": SPACE},
    }
    flow.run(config.parse_config(found))
    return found


def changed(raw, **tuning):
    return config.parse_config(raw | {"tune": raw["tune"] | tuning})


@pytest.fixture(scope="module")
def undisturbed(raw, tmp_path_factory):
    return tune(config.parse_config(raw), tmp_path_factory.mktemp("study") / "study.log")


def test_it_finds_better_settings_than_the_first(undisturbed):
    values = [row["value"] for row in undisturbed.trials if row["value"] is not None]
    assert undisturbed.value == max(values) > undisturbed.initial_value == values[0]
    assert undisturbed.config.models["itemknn"] == {"neighbours": 1, "shrink": 90.0} | undisturbed.best_params
    assert len(undisturbed.trials) == 12


def test_a_setting_given_up_has_fewer_folds(undisturbed):
    given_up = [row for row in undisturbed.trials if row["state"] == "pruned"]
    assert given_up, "the search never gave up: this test shows nothing"
    assert all(len(row["folds"]) < 3 for row in given_up)
    assert all(len(row["folds"]) == 3 for row in undisturbed.trials if row["state"] == "complete")


DIES = """
import json, os, sys
from recsys import config
from recsys.tune import study
judged, calls = study._judge_trial, []
def judge(*words):
    calls.append(1)
    if len(calls) == 8:
        os._exit(9)
    judged(*words)
study._judge_trial = judge
study.tune(config.parse_config(json.loads(sys.argv[1])), __import__("pathlib").Path(sys.argv[2]))
"""


def python(code, *words):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], env=environment)


@pytest.mark.subprocess
def test_killed_at_trial_7_and_resumed_it_ends_the_same(raw, undisturbed, tmp_path):
    storage = tmp_path / "study.log"
    assert python(DIES, json.dumps(raw), storage).wait(timeout=300) == 9
    halfway = changed(raw, trials=7)
    assert len(tune(halfway, storage).trials) == 7, "the trial that was killed is no result"
    assert tune(config.parse_config(raw), storage).trials == undisturbed.trials


WORKS = """
import json, pathlib, sys
from recsys import config
from recsys.tune import study, tune
tune(config.parse_config(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))
"""


@pytest.mark.subprocess
def test_two_processes_share_a_study(raw, tmp_path):
    storage = tmp_path / "study.log"
    random = raw | {"tune": raw["tune"] | {"sampler": "random", "prune": "none"}}
    other = python(WORKS, json.dumps(random), storage)
    ours = tune(config.parse_config(random), storage)
    assert other.wait(timeout=300) == 0
    ended = tune(config.parse_config(random), storage)
    alone = tune(config.parse_config(random), tmp_path / "alone.log")
    assert len(ended.trials) == 12 >= len(ours.trials)

    def settled(found):
        return sorted(json.dumps(row["params"] | {"folds": row["folds"]}) for row in found.trials)

    assert settled(ended) == settled(alone), "a random search tries the same, whoever draws"


@pytest.mark.parametrize("breaks", [1, 2])
def test_where_one_thread_fails_the_others_do_not_go_on(raw, tmp_path, monkeypatch, breaks):
    """Both threads are at a setting when one of them fails, whichever it is."""
    both, calls = threading.Barrier(2, timeout=60), []

    def judge(settings):
        calls.append(settings)
        number = len(calls)
        if number <= 2:
            both.wait()
        if number == breaks:
            raise RuntimeError("no more memory")
        return 0.5

    @contextlib.contextmanager
    def judges(*_):
        yield [judge]

    monkeypatch.setattr(study, "_fold_judges", judges)
    wanted = raw["tune"] | {"parallel": 2, "trials": 40, "sampler": "random", "space": {"rank": {"low": 2, "high": 99}}}
    with pytest.raises(RuntimeError, match="no more memory"):
        tune(
            config.parse_config(raw | {"engine": "spark", "models": {"als": {}}, "tune": wanted}),
            tmp_path / "study.log",
        )
    assert len(calls) < 40


OPENED, WATCHING = [], []
sys.addaudithook(lambda event, words: OPENED.append(str(words[0])) if WATCHING and event == "open" else None)


def test_only_the_train_part_is_read(raw, undisturbed, tmp_path):
    """Files opened by Python are seen by the audit hook; Arrow opens natively, so all others are taken away too."""
    place = tmp_path / "run"
    shutil.copytree(raw["out"], place)
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_file() and path.name not in ("_SUCCESS", "train.parquet"):
            path.unlink()
    WATCHING.append(True)
    try:
        found = tune(config.parse_config(raw | {"out": str(place)}), tmp_path / "study.log")
    finally:
        WATCHING.clear()
    assert found.trials == undisturbed.trials
    of_runs = {Path(path).name for path in OPENED if str(place) in path or str(raw["out"]) in path}
    assert of_runs <= {"train.parquet"}, of_runs
    assert "study.log" in {Path(path).name for path in OPENED if str(tmp_path) in path}, "the hook saw nothing"


def test_a_grid_tries_every_combination_once(raw, tmp_path):
    lists = {"neighbours": [3, 30], "weighting": ["cosine", "bm25"]}
    found = tune(changed(raw, sampler="grid", space=lists, prune="none", trials=99), tmp_path / "study.log")
    assert [row["params"] for row in found.trials] == [
        {},
        *({"neighbours": n, "weighting": w} for n in (3, 30) for w in ("cosine", "bm25")),
    ]


def test_another_study_is_not_mixed_in(raw, tmp_path):
    tune(changed(raw, trials=1), tmp_path / "study.log")
    with pytest.raises(ConfigError, match="a study of other settings"):
        tune(changed(raw, trials=1, folds=2), tmp_path / "study.log")


def test_what_a_killed_search_left_holds_nobody_up(raw, tmp_path, monkeypatch):
    log = tmp_path / "study.log"
    os.symlink(log, tmp_path / "study.log.lock")  # the lock file of Optuna
    pause = time.sleep

    def sleep(seconds):
        # Threads of other tests, as those of Py4J, may sleep.
        if threading.current_thread() is threading.main_thread():
            pytest.fail("it waits")
        pause(seconds)

    monkeypatch.setattr("time.sleep", sleep)
    assert len(tune(changed(raw, trials=1), log).trials) == 1


def test_one_holder_at_a_time_has_the_lock_of_a_study(tmp_path):
    log = tmp_path / "study.log"
    lock = StudyLock(log)
    for _ in range(2):
        assert lock.acquire()
        with log.open() as other:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.release()
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def pairs(n=200, timed=True):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"user_id": rng.integers(0, 30, n), "item_id": rng.integers(0, 20, n), "value": np.float32(1)})
    table["timestamp"] = rng.integers(0, 60, n) if timed else -1
    return table.drop_duplicates(["user_id", "item_id"], ignore_index=True)


def rows(interactions):
    names = (interactions.users.ids_of(interactions.user), interactions.items.ids_of(interactions.item))
    return set(zip(*(n.tolist() for n in names), strict=True))


def rows_of(table):
    return set(zip(table["user_id"], table["item_id"], strict=True))


def folds_of(table, **tuning):
    raw = {"out": "unused", "data": {"events": "unused.csv"}, "tune": tuning}
    return make_folds(table, config.parse_config(raw), "ndcg@10")


def test_windows_roll_and_never_look_ahead():
    train, last = pairs(), -1
    for fold in folds_of(train, folds=3, share=0.2):
        split = fold.split
        assert split.train.time.max() < split.test.time.min()
        assert split.test.time.min() > last
        last = split.test.time.max()
    assert last == train["timestamp"].max()


def test_folds_of_pairs_are_a_partition():
    train = pairs(timed=False)
    found = [fold.split for fold in folds_of(train, folds=4)]
    everything = set(zip(train["user_id"], train["item_id"], strict=True))
    assert sorted(pair for split in found for pair in rows(split.test)) == sorted(everything)
    assert all(rows(split.train) == everything - rows(split.test) for split in found)


def cold_raw(**tuning):
    return {
        "out": "unused",
        "data": {"events": "unused.csv"},
        "split": {"rule": "items", "share": 0.3},
        "models": {"content": {}},
        "tune": tuning,
    }


def test_folds_of_a_run_of_new_items_are_items():
    """Here train is what a split by the same hash and seed left, and there are times, which are not used."""
    table = pairs(400)
    train = table[id_hash(table["item_id"], seed=0) >= 0.3]
    items = pd.DataFrame({"item_id": sorted(set(table["item_id"]))})
    found = make_folds(train, config.parse_config(cold_raw(folds=3)), "ndcg@10", items)
    everything = rows_of(train)
    assert sorted(pair for fold in found for pair in rows(fold.split.test)) == sorted(everything)
    tested = [{item for _, item in rows(fold.split.test)} for fold in found]
    n_items = train["item_id"].nunique()
    assert sum(map(len, tested)) == n_items
    assert {len(part) for part in tested} <= {n_items // 3, n_items // 3 + 1}
    for fold in found:
        assert rows(fold.split.train) == everything - rows(fold.split.test)
        trained = {item for _, item in rows(fold.split.train)}
        assert fold.truth.ranked_items.tolist() == [item not in trained for item in items["item_id"]]


@pytest.mark.parametrize(
    ("judge", "tuning", "timed", "rule"),
    [
        ({}, {}, True, "items"),
        ({}, {"rule": "time"}, True, "time"),
        ({"candidates": "items"}, {}, True, "time"),
        ({"candidates": "items"}, {"rule": "items"}, True, "items"),
        ({"candidates": "train"}, {}, False, "pairs"),
    ],
)
def test_the_folds_of_a_split_by_items(judge, tuning, timed, rule):
    assert config.parse_config(cold_raw(**tuning) | {"judge": judge}).fold_rule(timed=timed) == rule


@pytest.mark.parametrize(("timed", "rule"), [(True, "time"), (False, "items")])
def test_the_folds_of_new_items_after_a_cut(timed, rule):
    raw = {"data": {"events": "unused.csv"}, "judge": {"candidates": "cold"}}
    assert config.parse_config(raw).fold_rule(timed=timed) == rule


@pytest.mark.parametrize(
    ("candidates", "rule", "message"),
    [("cold", "pairs", "tests on items that it also trains on"), ("train", "items", "that it does not train on")],
)
def test_folds_without_anything_relevant_are_refused(candidates, rule, message):
    settings = config.parse_config(cold_raw(rule=rule) | {"judge": {"candidates": candidates}})
    with pytest.raises(ConfigError, match=message):
        settings.fold_rule(timed=True)


def test_windows_without_new_items_are_said():
    settings = config.parse_config(cold_raw(rule="time"))
    table = pd.DataFrame({"user_id": range(40), "item_id": [0, 1] * 20, "value": np.float32(1), "timestamp": range(40)})
    with pytest.raises(InputError, match=r"no relevant test pairs on the items that lists rank .*'cold'"):
        make_folds(table, settings, "ndcg@10", pd.DataFrame({"item_id": [0, 1, 2]}))


@pytest.fixture(scope="module")
def cold_run(world_files, tmp_path_factory):
    """The settings of a finished run that ranks new items among new items."""
    found = {
        "out": str(tmp_path_factory.mktemp("cold") / "run"),
        "data": {"events": str(world_files["events"]), "items": str(world_files["items"])},
        "split": {"rule": "items", "share": 0.3},
        "models": {"content": {}, "popular": {}, "als": {"rank": 4}},
        "recommend": {"min_history": 0},
        "judge": {"metrics": ["ndcg@5"], "resamples": 100},
        "tune": {"trials": 1, "folds": 2, "model": "content", "space": {"scheme": ["tfidf"]}},
    }
    flow.run(config.parse_config(found))
    return found


def test_a_trial_is_judged_as_a_run_of_new_items_is(cold_run, tmp_path):
    """A run over the files of a fold gives the number of the trial on that fold."""
    settings = config.parse_config(cold_run)
    found = tune(settings, tmp_path / "study.log")
    train, items = study.read_train_part(settings, "content")
    for number, fold in enumerate(make_folds(train, settings, "ndcg@5", items)):
        files = {}
        for side, part in (("train", fold.split.train), ("test", fold.split.test)):
            files[side] = str(tmp_path / f"{side}{number}.parquet")
            interactions_to_table(part).to_parquet(files[side])
        data = {"items": cold_run["data"]["items"]}
        raw = cold_run | {"out": str(tmp_path / f"run{number}"), "data": data, "split": {"rule": "files"} | files}
        raw["judge"] = cold_run["judge"] | {"candidates": "cold"}
        metrics = flow.run(config.parse_config(raw))
        mean = metrics["models"]["content"]["ndcg@5"]["mean"]
        assert mean > 0
        assert found.trials[0]["folds"][number] == pytest.approx(mean, abs=1e-12)


def test_what_more_data_would_give_new_items(cold_run, tmp_path):
    settings = config.parse_config(cold_run)
    report = learning_curve(tune(settings, tmp_path / "study.log"))
    assert np.isfinite([report.train_value, report.value, *(row["value"] for row in report.curve)]).all()


def test_a_model_that_scores_no_new_items_is_not_tuned_on_them(cold_run, tmp_path):
    for engine in ("local", "spark"):
        raw = cold_run | {"engine": engine, "tune": {"model": "als"}}
        with pytest.raises(ConfigError, match="'als' scores no item without an event in train"):
            tune(config.parse_config(raw), tmp_path / "study.log")


def test_the_items_table_is_read_for_new_items_and_for_features(cold_run):
    everything = pd.read_csv(cold_run["data"]["items"])["item_id"]
    settings = config.parse_config(cold_run)
    assert set(study.read_train_part(settings, "popular")[1]["item_id"]) == set(everything)
    warm = config.parse_config(cold_run | {"judge": {"candidates": "items"}})
    assert study.read_train_part(warm, "popular")[1] is None


def test_lists_for_users_rank_all_items_also_after_a_run_of_new_ones(cold_run, capsys):
    run = Path(cold_run["out"])
    user = pd.read_parquet(run / "split" / "train.parquet")["user_id"].iloc[0]
    trained = set(pd.read_parquet(run / "split" / "train.parquet")["item_id"])
    assert run_verb(["recommend", str(run), "--model", "popular", "--user", user, "-k", "5"]) == 0
    printed = capsys.readouterr()
    assert "the run ranked new items alone ([judge] candidates = 'cold'), these lists rank all items" in " ".join(
        printed.err.split()
    )
    listed = pd.read_csv(io.StringIO(printed.out))["item_id"]
    assert len(listed) == 5
    assert set(listed) <= trained, "popular items have events"


@pytest.mark.parametrize("folds", [3, 5])
def test_folds_of_pairs_are_of_one_size_also_after_a_split_by_the_same_hash(folds):
    """Here the run has put the pairs of the lowest hashes into its test part: a fraction of them, by the same seed."""
    table = pd.DataFrame({"user_id": np.repeat(range(60), 50), "item_id": np.tile(range(50), 60), "value": 1.0})
    train = table[pair_hash(table["user_id"], table["item_id"], 0) >= 0.2].assign(timestamp=-1)
    sizes = [len(fold.split.test) for fold in folds_of(train, folds=folds)]
    assert sum(sizes) == len(train)
    # The standard deviation of a size is 22 pairs or less.
    assert sizes == pytest.approx([len(train) / folds] * folds, abs=100)


def test_a_study_of_older_folds_of_pairs_is_not_continued(raw, tmp_path, monkeypatch):
    by_pairs = changed(raw, trials=1, rule="pairs")
    tune(by_pairs, tmp_path / "study.log")
    tune(changed(raw, trials=1), tmp_path / "windows.log")
    monkeypatch.setattr(study, "PAIR_FOLDS", 1)
    with pytest.raises(ConfigError, match="a study of other settings"):
        tune(by_pairs, tmp_path / "study.log")
    tune(changed(raw, trials=1), tmp_path / "windows.log")


def test_what_cannot_be_folded_is_said():
    with pytest.raises(InputError, match="needs events with timestamps"):
        folds_of(pairs(timed=False), rule="time")
    with pytest.raises(InputError, match="no liked test pairs"):
        folds_of(pairs().assign(value=np.float32(-1)))


def test_spaces():
    assert search_space("als", {})["rank"] == Range(16, 512, log=True)
    assert search_space("itemknn", {})["shrink"] == Range(0.0, 100.0, log=False)
    assert search_space("itemknn", {})["weighting"] == ["cosine", "tfidf", "bm25"]
    assert grid_points(search_space("als", {"rank": [8, 16], "reg": [0.1]})) == [
        {"rank": 8, "reg": 0.1},
        {"rank": 16, "reg": 0.1},
    ]


@pytest.mark.parametrize(
    ("kind", "wanted", "message"),
    [
        ("als", {"rnak": [1]}, "'als' has no such parameter. Did you mean 'rank'"),
        ("als", {"rank": []}, "an empty list"),
        ("als", {"reg": {"low": 1, "high": 0.5}}, "low < high"),
        ("als", {"reg": {"low": 0, "high": 0.5, "log": True}}, "starts above 0"),
        ("als", {"reg": {"min": 0, "high": 0.5}}, "unknown key 'min'"),
        ("popular", {}, "suggests no space"),
    ],
)
def test_a_space_that_is_none(kind, wanted, message):
    with pytest.raises(ConfigError, match=message):
        search_space(kind, wanted)


def test_ranges_have_no_grid():
    with pytest.raises(ConfigError, match="reg has a range"):
        grid_points({"reg": Range(0.1, 1.0, log=True)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune": {"model": "als"}}, "'als' is not under"),
        ({"engine": "spark"}, "'itemknn' has nothing to search on Spark"),
        ({"models": {"ease": {}, "itemknn": {}}}, "which of ease, itemknn"),
    ],
)
def test_which_model_is_asked(raw, settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        tune(config.parse_config(raw | settings), tmp_path / "study.log")


def test_out_is_a_file(raw, tmp_path, capsys):
    (tmp_path / "config.toml").write_text(config.parse_config(raw).to_toml())
    assert run_verb(["tune", str(tmp_path / "config.toml"), "--out", str(tmp_path / "config.toml")]) == 2
    assert "a file is where the folder should go" in capsys.readouterr().err


def change(difference, low, high):
    return {"change": "rank 8 instead of 4", "difference": difference, "ci95": [low, high]}


def test_the_sentences():
    helps, hurts, neither = change(0.2, 0.1, 0.3), change(-0.2, -0.3, -0.1), change(0.0, -0.1, 0.1)
    assert _findings(helps, [neither]) == [
        "More data would help: the second half of the training users adds +0.2000 [+0.1000, +0.3000].",
        "Rank 8 instead of 4 shows no difference: +0.0000 [-0.1000, +0.1000].",
    ]
    assert _findings(neither, [helps])[1].startswith("Rank 8 instead of 4 helps")
    assert _findings(neither, [hurts])[-1].startswith("None of these shows a gain")


def test_the_command(raw, tmp_path, capsys):
    path = tmp_path / "config.toml"
    path.write_text(config.parse_config(raw).to_toml())
    assert run_verb(["tune", str(path), "--out", str(tmp_path / "found"), "--set", "tune.trials=4"]) == 0
    told = capsys.readouterr().out
    assert "the second half of the training users adds" in told
    found = json.loads((tmp_path / "found" / "tuning.json").read_text())
    assert len(found["trials"]) == 4
    assert [row["share"] for row in found["learning"]["curve"]] == [0.125, 0.25, 0.5, 1.0]
    assert "<svg" in (tmp_path / "found" / "report.html").read_text()
    best = config.load_config(tmp_path / "found" / "best.toml")
    assert best.models["itemknn"] == raw["models"]["itemknn"] | found["best_params"]
    assert best.out == raw["out"] + "-tuned"


def test_a_fold_reads_no_review_of_what_it_tests(tmp_path):
    """Each user writes one word of their own about every item, so a cell of the features says which review was read."""
    table = pairs(300)
    train = table[table.index % 4 > 0]
    reviews = table[["user_id", "item_id"]]
    by_nobody = pd.DataFrame({"user_id": "", "item_id": [0, 1]})
    reviews = pd.concat([reviews.astype({"user_id": str}), by_nobody])
    reviews.assign(text=[f"writer{user}x" for user in reviews["user_id"]]).to_csv(tmp_path / "reviews.csv", index=False)
    data = {"events": "unused.csv", "reviews": str(tmp_path / "reviews.csv")}
    settings = config.parse_config({"data": data, "models": {"content": {}}, "tune": {"folds": 3, "rule": "pairs"}})
    items = pd.DataFrame({"item_id": sorted(set(table["item_id"])), "review_words": "what the run read"})
    for fold in make_folds(train, settings, "ndcg@10", items):
        item, word = fold.item_features.matrix.nonzero()
        words = [name.rpartition("=")[2] for name in np.array(fold.item_features.names)[word]]
        read = set(zip(words, fold.split.train.items.ids_of(item).tolist(), strict=True))
        assert {("writerx", 0), ("writerx", 1)} <= read
        may_read = rows_of(train) - rows(fold.split.test)
        # A word of one item alone is no feature.
        users = [user for user, _ in may_read]
        assert read - {("writerx", 0), ("writerx", 1)} == {
            (f"writer{user}x", item) for user, item in may_read if users.count(user) > 1
        }
