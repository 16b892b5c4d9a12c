"""The truth of a run: computed once for all models, the same for every metric, with propensities everywhere."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import run_local_engine

from recsys.data.weigh import aggregate_events
from recsys.evaluation import truth as truth_module
from recsys.evaluation.cold_start import ColdStart
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.truth import Truth
from recsys.ranking.rank import recommend
from recsys.recommender import Recommender
from recsys.types import IdMap, Interactions, Split

DEBIASED, PLAIN = "recall[ips=0.5]@10", "ndcg@10"


def run_of(world_files, out, metrics, **recommending):
    raw = {
        "out": str(out),
        "data": {name: str(path) for name, path in world_files.items()},
        "models": {"ease": {}, "content": {}},
        "recommend": {"k": 10, "min_history": 0} | recommending,
        "judge": {"metrics": metrics, "resamples": 100},
    }
    run_local_engine(raw)
    return pd.read_parquet(out / "per_user.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_run_builds_histories_and_relevant_pairs_once(world_files, tmp_path, monkeypatch, exclude_seen):
    calls = Counter()

    def counted(name, function):
        def call(*arguments, **settings):
            calls[name] += 1
            return function(*arguments, **settings)

        return call

    monkeypatch.setattr(Split, "histories", counted("histories of tested users", Split.histories))
    # Once for the tested users, once for all others; models may build those of train.
    counted_histories = counted("histories of all users", Interactions.histories)
    monkeypatch.setattr(Interactions, "histories", counted_histories)
    monkeypatch.setattr(truth_module, "relevant_pairs", counted("relevant pairs", truth_module.relevant_pairs))
    per_user = run_of(world_files, tmp_path / "run", [PLAIN], everyone=True, exclude_seen=exclude_seen)
    # The baseline repeat is in runs whose lists may name what was seen.
    assert per_user["model"].nunique() == 5 + (not exclude_seen)
    assert (tmp_path / "run/coldstart.json").exists()
    assert calls == {"histories of tested users": 1, "relevant pairs": 1, "histories of all users": 2}


@pytest.mark.slow
def test_a_debiased_metric_may_come_first(world_files, tmp_path):
    first = run_of(world_files, tmp_path / "first", [DEBIASED, PLAIN])
    second = run_of(world_files, tmp_path / "second", [PLAIN, DEBIASED])
    for metric in (DEBIASED, PLAIN):
        pd.testing.assert_series_equal(first[metric], second[metric])
    curve = json.loads(Path(tmp_path, "first/coldstart.json").read_text())
    assert curve["metric"] == DEBIASED
    assert curve["curve"]


def interactions(rows, items=None):
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "value"])
    return aggregate_events(table, "max", IdMap.from_ids(table["user_id"]), items or IdMap.from_ids(table["item_id"]))


def test_what_is_relevant_and_what_is_counted_by_hand():
    # Items 0-3 are candidates. User 0 chose 0 (seen), 1, and 9 (no candidate); user 1 disliked 2 and liked 0 a little.
    train = interactions(
        [(0, 0, 1.0), (0, 3, 1.0), (1, 1, -1.0), (1, 2, 1.0), (1, 3, 1.0)], IdMap.from_ids(np.arange(4))
    )
    test = interactions([(0, 0, 5.0), (0, 1, 4.0), (0, 9, 4.0), (1, 0, 1.0), (1, 2, -2.0)])
    split = Split(train, train, test, "by hand")
    truth = Truth.from_split(split, EvaluationSettings(relevant=2))
    assert truth.relevant.toarray().tolist() == [[0, 4, 0, 0, 4], [0, 0, 0, 0, 0]]
    assert truth.histories.values.toarray().tolist() == [[1, 0, 0, 1], [0, -1, 1, 1]]
    assert truth.counts == {"relevant_pairs": 2, "seen_pairs_removed": 1, "relevant_outside_candidates": 1}
    # Likes in train: 1, 0, 1, 2, and 0 for the item that is no candidate.
    np.testing.assert_array_equal(truth.propensity, [2 / 3, 1 / 3, 2 / 3, 1, 1 / 3])
    with_seen = Truth.from_split(split, exclude_seen=False)
    assert with_seen.relevant.toarray().tolist() == [[5, 4, 0, 0, 4], [1, 0, 0, 0, 0]]
    assert with_seen.counts == {"relevant_pairs": 4, "seen_pairs_removed": 0, "relevant_outside_candidates": 1}


class LowRowsFirst(Recommender):
    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        return np.tile(-np.arange(histories.shape[1], dtype=np.float32), (len(histories), 1))


def test_lists_of_some_users_are_judged_by_their_rows():
    train = interactions([(user, 3, 1.0) for user in range(3)], IdMap.from_ids(np.arange(4)))
    test = interactions([(0, 0, 1.0), (1, 2, 1.0), (2, 1, 1.0)])
    truth = Truth.from_split(Split(train, train, test, "by hand"), EvaluationSettings(metrics=("mrr",)))
    rows = np.array([2, 1])
    judged = truth.judge(recommend(LowRowsFirst(), truth.histories[rows], 3, users=rows))
    assert judged.position.tolist() == [1, 2]


def test_the_cold_start_curve_of_a_debiased_metric_weighs_by_propensity():
    n_users, n_items, k = 25, 30, 5
    seen = [{(user * user + step) % n_items for step in range(9)} for user in range(n_users)]
    chosen = [sorted(set(range(n_items)) - own)[1 : 9 : 1 + user % 3] for user, own in enumerate(seen)]
    train = interactions([(u, i, 1.0) for u in range(n_users) for i in seen[u]], IdMap.from_ids(np.arange(n_items)))
    test = interactions([(u, i, 1.0) for u in range(n_users) for i in chosen[u]])
    split = Split(train, train, test, "by hand")
    truth = Truth.from_split(split, EvaluationSettings(metrics=("recall[ips=0.5]@5",), cold_start=(0, 4)))
    values = ColdStart(truth, k).values(LowRowsFirst())
    likes = [sum(item in own for own in seen) for item in range(n_items)]
    weight = [((1 + max(likes)) / (1 + n)) ** 0.5 for n in likes]
    expected = []
    for own, liked in zip(seen, chosen, strict=True):
        listed = sorted(set(range(n_items)) - own)[:k]
        expected.append(sum(weight[i] for i in liked if i in listed) / sum(weight[i] for i in liked))
    assert len(set(weight)) > 3
    for cut in (0, 4):
        np.testing.assert_allclose(values[cut], expected, rtol=1e-12)
