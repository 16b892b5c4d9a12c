"""Which items the lists of a run rank: those of train, those of the items table too, or the new ones alone."""

import numpy as np
import pandas as pd
import pytest

from recsys.config import parse_config
from recsys.errors import InputError
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.truth import Truth
from recsys.flow import run
from recsys.report.sections.verdict import verdict
from recsys.runfolder import RunFolder
from recsys.saved.open_model import read_min_history
from recsys.types import IdMap, Interactions, Split


def interactions(pairs, users, items):
    user, item = np.array(pairs, dtype=np.int32).T
    ones = np.ones(len(pairs), dtype=np.float32)
    return Interactions(IdMap.from_ids(users), IdMap.from_ids(items), user, item, ones, np.full(len(pairs), -1))


@pytest.fixture
def parts():
    """Of five candidates 10 … 14 train has 10, 11 and 12. The test has 12, 13, 14, and 19, which is no candidate."""
    train = interactions([(0, 0), (0, 1), (1, 2)], [1, 2], range(10, 15))
    test = interactions([(0, 0), (0, 1), (1, 2), (1, 3)], [1, 2], [12, 13, 14, 19])
    return Split(train, train, test, "time")


@pytest.mark.parametrize(
    ("candidates", "ranked", "relevant", "counts"),
    [
        ("items", None, [[12, 13], [14, 19]], {"relevant_pairs": 4, "relevant_outside_candidates": 1}),
        (
            "train",
            [True, True, True, False, False],
            [[12, 13], [14, 19]],
            {"relevant_pairs": 4, "relevant_outside_candidates": 3},
        ),
        (
            "cold",
            [False, False, False, True, True],
            [[13], [14, 19]],
            {"relevant_pairs": 3, "relevant_outside_candidates": 1, "warm_pairs_removed": 1},
        ),
    ],
)
def test_the_truth_of_each_choice(parts, candidates, ranked, relevant, counts):
    truth = Truth.from_split(parts, EvaluationSettings(candidates=candidates))
    assert (None if truth.ranked_items is None else truth.ranked_items.tolist()) == ranked
    columns = np.array([10, 11, 12, 13, 14, 19])
    rows = [
        sorted(columns[truth.relevant.indices[a:b]])
        for a, b in zip(truth.relevant.indptr, truth.relevant.indptr[1:], strict=False)
    ]
    assert rows == relevant
    assert truth.counts == counts | {"seen_pairs_removed": 0}


def test_what_a_user_had_before_is_not_counted_as_out_of_reach(parts):
    history = interactions([(0, 0), (0, 1), (0, 3), (1, 2)], [1, 2], range(10, 15))
    split = Split(parts.train, history, parts.test, "files")
    truth = Truth.from_split(split, EvaluationSettings(candidates="train"))
    # User 1 had item 13, which train does not have, so only 14 and 19 of user 2 are out of reach.
    assert truth.counts == {"relevant_pairs": 3, "seen_pairs_removed": 1, "relevant_outside_candidates": 2}


def test_the_default_follows_the_rule():
    settings = EvaluationSettings()
    assert [settings.candidates_for(rule) for rule in ("items", "time", "files")] == ["cold", "items", "items"]
    assert EvaluationSettings(candidates="items").candidates_for("items") == "items"


def run_on(tmp_path, world_files, name, **judge):
    config = {
        "out": str(tmp_path / name),
        "data": {"events": str(world_files["events"]), "items": str(world_files["items"])},
        "split": {"rule": "items", "share": 0.3},
        "models": {"popular": {}, "content": {}, "als": {"rank": 4, "iterations": 3}},
        "recommend": {"fallback": "none"},
        "judge": {"metrics": ["ndcg@5"]} | judge,
    }
    metrics = run(parse_config(config))
    folder = RunFolder.open(tmp_path / name)
    trained = set(folder.read_table("split/train.parquet")["item_id"])
    listed = {
        model: set(folder.read_table(f"topk/{model}.parquet")["item_id"]) for model in ("random", "content", "als")
    }
    return metrics, folder, trained, listed


@pytest.mark.slow
def test_new_items_are_ranked_among_new_items_by_default(tmp_path, world_files):
    metrics, folder, trained, listed = run_on(tmp_path, world_files, "cold")
    items = pd.read_csv(world_files["items"])["item_id"]
    new = set(items) - trained
    assert listed["random"] == new
    assert listed["content"] <= new
    assert listed["als"] == set(), "ALS has no factors for new items"
    assert folder.read_json("split.json")["ranked"] == {"candidates": "cold", "items": len(new)}
    assert metrics["about"]["counts"]["content"]["warm_pairs_removed"] == 0
    of_content, of_random = (metrics["models"][name]["ndcg@5"]["mean"] for name in ("content", "random"))
    assert of_content > of_random
    assert "new items compete with new items alone" in (folder.path / "report.md").read_text()
    coverage = metrics["about"]["beyond"]["random"]["coverage"]["value"]
    assert coverage == 1
    shortfall = folder.read_table("per_user.parquet").query("model == 'als'")["shortfall"]
    assert set(shortfall) <= {"filtered", "cold_no_fallback"}


@pytest.mark.slow
def test_new_items_are_compared_with_chance_alone(tmp_path, world_files):
    """To popular and recent all new items are equal, so their lists would be in the order of the ids."""
    config = {
        "out": str(tmp_path / "run"),
        "data": {"events": str(world_files["events"]), "items": str(world_files["items"])},
        "split": {"rule": "items", "share": 0.3},
        "models": {"content": {}},
        "judge": {"metrics": ["ndcg@5"], "resamples": 100},
    }
    metrics = run(parse_config(config))
    assert list(metrics["models"]) == ["random", "content"]
    assert metrics["about"]["baseline"] == "random"
    assert set(metrics["differences"]) == {"content"}
    assert "random, the best baseline" in verdict(metrics)
    # A trial on hidden likes of trained items says nothing of new items.
    assert read_min_history(RunFolder.open(tmp_path / "run"), "content") == {"min_history": 0}


@pytest.mark.slow
def test_the_other_way_by_a_key(tmp_path, world_files):
    metrics, folder, trained, listed = run_on(tmp_path, world_files, "all", candidates="items")
    assert listed["als"] <= trained
    assert listed["random"] - trained
    assert metrics["models"]["als"]["ndcg@5"]["mean"] == 0
    assert "candidates = 'cold' ranks the new items" in (folder.path / "report.md").read_text()
    _, _, trained, listed = run_on(tmp_path, world_files, "train", candidates="train")
    assert listed["random"] == trained


def test_no_new_items_to_rank_are_refused(tmp_path, world_files):
    config = {
        "out": str(tmp_path / "run"),
        "data": {"events": str(world_files["events"])},
        "split": {"rule": "items"},
        "models": {"popular": {}},
    }
    with pytest.raises(InputError, match=r"\[judge\] candidates = 'cold', the default for .* under \[data\] items"):
        run(parse_config(config))
