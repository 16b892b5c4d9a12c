"""Our numbers against other libraries', each under the convention that says what that library does."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array, csr_matrix

from recsys.errors import ConfigError
from recsys.evaluation.evaluate import evaluate_tables
from recsys.evaluation.judging.conventions import CONVENTIONS
from recsys.evaluation.judging.judge import Lists, RelevantItems, judge_lists, judge_scores
from recsys.evaluation.judging.metrics import parse
from recsys.evaluation.settings import EvaluationSettings

CASES = 1_000


def random_tables(seed, *, levels, listed=(0, 12), graded=4, tied=True):
    """Lists and truth of CASES users as (recs, truth): short and empty lists, users with nothing relevant."""
    rng = np.random.default_rng(seed)
    recs, truth = [], []
    for i in range(CASES):
        n = int(rng.integers(*listed, endpoint=True))
        scores = rng.integers(0, levels, size=n) / 4 if tied else rng.permutation(50)[:n] / 4
        items = rng.permutation(30)[:n]
        recs += [(f"u{i}", f"d{item}", score) for item, score in zip(items, scores, strict=True)]
        judged = rng.permutation(30)[: rng.integers(1, 10)]
        truth += [(f"u{i}", f"d{item}", float(rng.integers(0, graded))) for item in judged]
    frame = pd.DataFrame(recs, columns=["user_id", "item_id", "score"])
    return frame, pd.DataFrame(truth, columns=["user_id", "item_id", "value"])


def as_dicts(table, value):
    found = {}
    for user, item, number in zip(table["user_id"], table["item_id"], table[value], strict=True):
        found.setdefault(user, {})[item] = number
    return found


def per_user(recs, truth, names, convention=None, **settings):
    judging = EvaluationSettings(metrics=tuple(names), **settings)
    return evaluate_tables(recs, truth, judging, convention=convention).per_user.set_index("user_id")


def test_trec_eval():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    theirs = {"map": "map", "ndcg": "ndcg", "mrr": "recip_rank", "r_precision": "Rprec"}
    for k in (1, 3, 10, 20):
        theirs |= {f"precision@{k}": f"P_{k}", f"recall@{k}": f"recall_{k}", f"hit_rate@{k}": f"success_{k}"}
        theirs |= {f"ndcg@{k}": f"ndcg_cut_{k}", f"map@{k}": f"map_cut_{k}"}
    recs, truth = random_tables(0, levels=5)
    run, qrels = as_dicts(recs, "score"), as_dicts(truth, "value")
    run |= {user: {} for user in qrels if user not in run}
    qrels = {user: {item: int(value) for item, value in row.items()} for user, row in qrels.items()}
    wanted = {"map", "ndcg", "recip_rank", "Rprec"}
    wanted |= {f"{name}.1,3,10,20" for name in ("P", "recall", "success", "ndcg_cut", "map_cut")}
    expected = pd.DataFrame(pytrec_eval.RelevanceEvaluator(qrels, wanted).evaluate(run)).T
    found = per_user(recs, truth, theirs, "trec")
    listed = recs["user_id"].unique()
    assert len(listed) > 900
    assert found.drop(index=listed).isna().drop(columns="n_relevant").all(axis=None)  # no list: left out of the mean
    for ours, name in theirs.items():
        np.testing.assert_allclose(
            found.loc[listed, ours], expected.loc[listed, name], rtol=0, atol=1e-12, err_msg=ours
        )


def test_pytrec_eval_readme_example():
    truth = pd.DataFrame(
        [("q1", "d1", 0), ("q1", "d2", 1), ("q1", "d3", 0), ("q2", "d2", 1), ("q2", "d3", 1)],
        columns=["user_id", "item_id", "value"],
    )
    recs = pd.DataFrame(
        [
            ("q1", "d1", 1.0),
            ("q1", "d2", 0.0),
            ("q1", "d3", 1.5),
            ("q2", "d1", 1.5),
            ("q2", "d2", 0.2),
            ("q2", "d3", 0.5),
        ],
        columns=["user_id", "item_id", "score"],
    )
    found = per_user(recs, truth, ["ndcg", "map"], "trec")
    np.testing.assert_allclose(found["ndcg"], [0.5, 0.6934264036172708], rtol=0, atol=1e-15)
    np.testing.assert_allclose(found["map"], [1 / 3, (1 / 2 + 2 / 3) / 2], rtol=0, atol=1e-15)


def test_wikipedia_example_of_ndcg():
    """Six documents worth 3, 2, 3, 0, 1, 2; two more, worth 3 and 2, were not retrieved."""
    worth = {"a": 3, "b": 2, "c": 3, "e": 1, "f": 2, "g": 3, "h": 2}
    truth = np.array(list(worth), dtype=object)
    listed = np.array(list("abcdef"), dtype=object)
    values = np.array(list(worth.values()), dtype=float)
    judged = judge_lists(Lists(listed, np.array([0, 6])), RelevantItems(truth, np.array([0, 7]), values))
    assert parse("ndcg[gain=linear]@6")(judged)[0] == pytest.approx(0.785002, abs=5e-7)
    assert parse("ndcg[gain=exp]@6")(judged)[0] == pytest.approx(0.751083, abs=5e-7)
    bug = judge_lists(
        Lists(listed, np.array([0, 6])), RelevantItems(truth[:5], np.array([0, 5]), values[:5])
    )  # the ideal from what was found
    assert parse("ndcg[gain=linear]@6")(bug)[0] == pytest.approx(0.960808, abs=5e-7)


def full_lists(seed, n=12):
    """Scores of all n items for CASES users with many ties, and graded values; someone always has something."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, size=(CASES, n)) / 8
    value = np.where(rng.random((CASES, n)) < 0.4, rng.integers(1, 5, size=(CASES, n)), 0).astype(float)
    return scores, value


def as_tables(scores, value):
    m, n = scores.shape
    user, item = np.repeat(np.arange(m), n), np.tile(np.arange(n), m)
    recs = pd.DataFrame({"user_id": user, "item_id": item, "score": scores.ravel()})
    return recs, pd.DataFrame({"user_id": user, "item_id": item, "value": value.ravel()})


@pytest.mark.slow
@pytest.mark.parametrize("k", [None, 1, 4, 10])
def test_scikit_learn_ndcg_with_ties(k):
    from sklearn.metrics import ndcg_score

    scores, value = full_lists(1)
    name = f"ndcg@{k}" if k else "ndcg"
    found = per_user(*as_tables(scores, value), [name], "sklearn")[name]
    expected = [ndcg_score([v], [s], k=k) for v, s in zip(value, scores, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    ours = parse(f"ndcg[gain=linear]{f'@{k}' if k else ''}")(judge_scores(scores, csr_array(value), ties="average"))
    some = value.any(axis=1)
    np.testing.assert_allclose(ours[some], np.array(expected)[some], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_scikit_learn_roc_auc_and_average_precision():
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, value = full_lists(2)
    auc = parse("auc")(judge_scores(scores, csr_array(value), ties="average"))
    found = per_user(*as_tables(scores, value), ["map"], "sklearn")["map"].to_numpy()
    for row, own, expected in zip(value > 0, scores, range(CASES), strict=True):
        if row.any() and not row.all():
            assert auc[expected] == pytest.approx(roc_auc_score(row, own), abs=1e-12)
            assert found[expected] == pytest.approx(average_precision_score(row, own), abs=1e-12)
        else:
            assert np.isnan(auc[expected])


RANX = """
import json, sys
import ranx
qrels, run, names = json.load(sys.stdin)
run = ranx.Run(run)
ranx.evaluate(ranx.Qrels(qrels), run, names)
print(json.dumps({name: {user: float(x) for user, x in values.items()} for name, values in run.scores.items()}))
"""


@pytest.mark.subprocess
@pytest.mark.long
def test_ranx():
    """ranx 0.3: linear gain and its ``burges`` form, map over all relevant items; no ties, whose order is open."""
    if not find_spec("ranx"):
        pytest.skip("ranx is not installed")
    recs, truth = random_tables(3, levels=50, listed=(1, 12), tied=False)
    truth = truth[truth["value"] > 0]
    users = sorted(set(truth["user_id"]) & set(recs["user_id"]))
    recs, truth = (table[table["user_id"].isin(users)] for table in (recs, truth))
    theirs = {
        "precision@3": "precision@3",
        "recall@3": "recall@3",
        "hit_rate@3": "hit_rate@3",
        "mrr@3": "mrr@3",
        "map[over=relevant]@5": "map@5",
        "ndcg[gain=linear]@5": "ndcg@5",
        "ndcg[gain=exp]@5": "ndcg_burges@5",
        "r_precision": "r-precision",
    }
    question = [as_dicts(truth.astype({"value": int}), "value"), as_dicts(recs, "score"), list(theirs.values())]
    answer = subprocess.run(  # plain Python in a process of its own: compiling ranx would take a minute
        [sys.executable, "-W", "ignore", "-c", RANX],
        input=json.dumps(question),
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    scores = json.loads(answer.stdout.splitlines()[-1])
    found = per_user(recs, truth, theirs)
    for ours, name in theirs.items():
        expected = [scores[name][user] for user in users]
        np.testing.assert_allclose(found.loc[users, ours], expected, rtol=0, atol=1e-12, err_msg=ours)


class Answers:
    """What ``implicit.evaluation`` calls, with fixed answers."""

    def __init__(self, ids, items):
        self.ids, self.items = ids, items

    def recommend(self, users, user_items, N=10, **_):
        return self.ids[users, :N], np.zeros((len(users), N), dtype=np.float32)


def test_implicit():
    evaluation = pytest.importorskip("implicit.evaluation")
    rng = np.random.default_rng(4)
    m, n, k = CASES, 40, 10
    ids = np.array([rng.permutation(n)[:k] for _ in range(m)], dtype=np.int32)
    test = rng.random((m, n)) < np.linspace(0, 0.4, m)[:, None]
    none = csr_matrix((m, n), dtype=np.float32)
    expected = evaluation.ranking_metrics_at_k(
        Answers(ids, n), none, csr_matrix(test.astype(np.float32)), K=k, show_progress=False, num_threads=1
    )
    user, item = np.nonzero(test)
    recs = pd.DataFrame(
        {"user_id": np.repeat(np.arange(m), k), "item_id": ids.ravel(), "rank": np.tile(np.arange(k) + 1, m)}
    )
    found = per_user(
        recs,
        pd.DataFrame({"user_id": user, "item_id": item}),
        [f"{name}@{k}" for name in ("precision", "map", "ndcg")],
        "implicit",
    )
    for name in ("precision", "map", "ndcg"):
        assert found[f"{name}@{k}"].mean() == pytest.approx(expected[name], abs=1e-12)


@pytest.mark.spark
def test_spark(spark):
    from pyspark.ml.evaluation import RankingEvaluator

    recs, truth = random_tables(5, levels=9, listed=(0, 12), graded=2)
    users = [f"u{i}" for i in range(60)]
    recs, truth = (table[table["user_id"].isin(users)] for table in (recs, truth))
    recs = recs.assign(rank=recs.groupby("user_id").cumcount() + 1).drop(columns="score")
    lists = recs.groupby("user_id")["item_id"].agg(list)
    wanted = truth[truth["value"] > 0].groupby("user_id")["item_id"].agg(list)
    code = {f"d{i}": float(i) for i in range(30)}
    rows = [[[code[i] for i in side.get(user, [])] for side in (lists, wanted)] for user in users]
    frame = spark.createDataFrame(rows, "prediction array<double>, label array<double>").coalesce(1).cache()
    theirs = {"map": "meanAveragePrecision"}
    for k in (3, 8):
        theirs |= {f"map@{k}": "meanAveragePrecisionAtK", f"precision@{k}": "precisionAtK"}
        theirs |= {f"ndcg@{k}": "ndcgAtK", f"recall@{k}": "recallAtK"}
    found = per_user(recs, truth, theirs, "spark")
    assert len(found) == len(users)
    for ours, name in theirs.items():
        cut = int(ours.partition("@")[2] or 10)
        expected = RankingEvaluator(metricName=name, k=cut).evaluate(frame)
        assert found[ours].mean() == pytest.approx(expected, abs=1e-12), ours


def test_conventions_refuse_what_the_library_does_not_have():
    recs = pd.DataFrame({"user_id": ["a"], "item_id": ["x"], "rank": [1]})
    truth = recs[["user_id", "item_id"]]
    with pytest.raises(ConfigError, match=r"spark has no rbp(.|\n)*options"):
        per_user(recs, truth, ["rbp@3", "ndcg[gain=exp]@3"], "spark")
    with pytest.raises(ConfigError, match="Did you mean 'sklearn'"):
        per_user(recs, truth, ["ndcg@3"], "sklern")
    with pytest.raises(Exception, match="score"):
        per_user(recs, truth, ["ndcg@3"], "trec")
    assert set(CONVENTIONS) == {"trec", "sklearn", "spark", "implicit"}
