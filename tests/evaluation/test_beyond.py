from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import Fraction
from recsys.errors import ConfigError
from recsys.evaluation import beyond
from recsys.evaluation.beyond import Catalogue
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.summary import summarise
from recsys.evaluation.truth import Truth
from recsys.models import build
from recsys.ranking.rank import recommend
from recsys.types import Histories, IdMap, TopK

ITEMS, USERS, K = 30, 25, 5


def topk_of(rows, k=K):
    items = np.full((len(rows), k), -1, dtype=np.int32)
    for i, row in enumerate(rows):
        items[i, : len(row)] = row
    blank = np.zeros(len(rows), dtype=np.int8)
    return TopK(np.arange(len(rows)), items, np.zeros_like(items, dtype=np.float32), np.zeros_like(items), (), blank)


@pytest.fixture(params=range(8))
def world(request):
    """Random lists (short and empty ones too), truth, histories with zeros and dislikes, attributes with gaps."""
    rng = np.random.default_rng(request.param)
    rows = [rng.permutation(ITEMS)[: rng.integers(0, K + 1)].tolist() for _ in range(USERS)]
    likes = rng.integers(0, 9, ITEMS)
    relevant = (rng.random((USERS, ITEMS + 3)) < 0.1) * 1.0
    history = np.where(rng.random((USERS, ITEMS)) < 0.2, rng.choice([-1.0, 2.0, 3.0], (USERS, ITEMS)), np.nan)
    history[rng.random(USERS) < 0.2] = np.nan
    attributes = (rng.random((ITEMS, 6)) < 0.3) * 1.0
    return rows, likes, relevant, history, attributes


def stored(history):
    """Return csr that stores whatever is not NaN."""
    row, column = np.nonzero(~np.isnan(history))
    return csr_array((history[row, column], (row, column)), shape=history.shape)


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else np.nan


def catalogue_of(likes, attributes=None):
    return Catalogue.from_items(likes, 12, EvaluationSettings(), IdMap.from_ids(np.arange(ITEMS)))


def measured(world, exclude_seen=True):
    rows, likes, relevant, history, _ = world
    ids = IdMap.from_ids(np.arange(ITEMS))
    truth = Truth(
        users=IdMap.from_ids(np.arange(USERS)),
        candidates=ids,
        histories=Histories(stored(history)),
        relevant=csr_array(relevant),
        propensity=np.ones(relevant.shape[1]),
        counts={},
        settings=EvaluationSettings(metrics=("recall@5",)),
        exclude_seen=exclude_seen,
    )
    return beyond.per_user(topk_of(rows), truth, catalogue_of(likes))


def test_novelty_lift_and_tail_by_loops(world):
    rows, likes, _, history, _ = world
    found = measured(world)
    tail = {i for i in range(ITEMS) if likes[i] == 0 or 3 * likes[likes > likes[i]].sum() >= 2 * likes.sum()}
    own = [mean(likes[i] for i in range(ITEMS) if history[u, i] > 0) for u in range(USERS)]
    np.testing.assert_allclose(found["novelty"], [mean(-np.log2(max(likes[i], 1) / 12) for i in row) for row in rows])
    lift = [mean(likes[i] for i in row) / own[u] - 1 if row and own[u] else np.nan for u, row in enumerate(rows)]
    np.testing.assert_allclose(found["popularity_lift"], lift)
    np.testing.assert_allclose(found["tail_share"], [mean(float(i in tail) for i in row) for row in rows])


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_serendipity_by_a_loop(world, exclude_seen):
    rows, likes, relevant, history, _ = world
    found = measured(world, exclude_seen=exclude_seen)["serendipity"]
    for u, row in enumerate(rows):
        seen = {i for i in range(ITEMS) if not np.isnan(history[u, i])} if exclude_seen else set()
        expected = [i for i in sorted(range(ITEMS), key=lambda i: (-likes[i], i)) if i not in seen][:K]
        hits = [i for i in row if relevant[u, i] and i not in expected]
        assert found[u] == pytest.approx(len(hits) / K if relevant[u].any() else np.nan, nan_ok=True)


def test_diversity_by_visiting_every_pair(world):
    rows, _, _, _, attributes = world
    found = beyond.diversity(beyond._listed(topk_of(rows).items, ITEMS), csr_array(attributes))
    for u, row in enumerate(rows):
        described = [attributes[i] for i in row if attributes[i].any()]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(described, 2)]
        assert found[u] == pytest.approx(1 - mean(cosines), nan_ok=True)


def test_calibration_by_a_loop(world):
    rows, _, _, history, attributes = world
    liked = csr_array(np.nan_to_num(history) > 0).astype(float)
    found = beyond.calibration(beyond._listed(topk_of(rows).items, ITEMS), liked, csr_array(attributes))

    def shares(items):
        votes = sum((attributes[i] / attributes[i].sum() for i in items if attributes[i].any()), np.zeros(6))
        return votes / votes.sum() if votes.any() else None

    for u, row in enumerate(rows):
        p, q = shares(np.flatnonzero(history[u] > 0)), shares(row)
        expected = np.nan
        if p is not None and q is not None:
            expected = sum(a * np.log(a / (0.99 * b + 0.01 * a)) for a, b in zip(p, q, strict=True) if a > 0)
        assert found[u] == pytest.approx(expected, nan_ok=True)


def test_calibration_at_its_ends():
    attributes = csr_array(np.eye(3))
    one, other = csr_array(np.array([[1.0, 1, 0]])), csr_array(np.array([[0, 0, 1.0]]))
    assert beyond.calibration(one, one, attributes) == pytest.approx([0.0], abs=1e-12)
    assert beyond.calibration(one, other, attributes) == pytest.approx([-np.log(0.01)])


def test_all_lists_together_by_loops(world):
    rows = world[0]
    found = {
        name: cell["value"] for name, cell in beyond.of_all_lists(*beyond.exposure(topk_of(rows).items, ITEMS)).items()
    }
    times = np.bincount([i for row in rows for i in row], minlength=ITEMS)
    share = times[times > 0] / times.sum()
    apart = np.abs(times[:, None] - times[None, :]).sum() / (2 * ITEMS**2 * times.mean())
    full = [set(row) for row in rows if row]
    overlap = [len(a & b) / np.sqrt(len(a) * len(b)) for a, b in combinations(full, 2)]
    assert found == pytest.approx(
        {
            "coverage": np.mean(times > 0),
            "gini": apart,
            "entropy": -(share * np.log2(share)).sum(),
            "personalisation": 1 - mean(overlap),
        }
    )


def test_all_lists_at_their_ends():
    alike = beyond.of_all_lists(*beyond.exposure(topk_of([[0, 1], [1, 0], [0, 1]]).items, 4))
    assert {k: v["value"] for k, v in alike.items()} == pytest.approx(
        {"coverage": 0.5, "gini": 0.5, "entropy": 1.0, "personalisation": 0.0}
    )
    apart = beyond.of_all_lists(*beyond.exposure(topk_of([[0, 1], [2, 3]]).items, 4))
    assert {k: v["value"] for k, v in apart.items()} == pytest.approx(
        {"coverage": 1.0, "gini": 0.0, "entropy": 2.0, "personalisation": 1.0}
    )
    nothing = beyond.of_all_lists(*beyond.exposure(topk_of([[], []]).items, 4))
    assert nothing["coverage"]["value"] == 0
    assert all(np.isnan(nothing[name]["value"]) for name in ("gini", "entropy", "personalisation"))


def test_parts_of_the_users_add_up(world):
    items = topk_of(world[0]).items
    parts = [beyond.exposure(part, ITEMS) for part in np.array_split(items, 3)]
    for whole, added in zip(beyond.exposure(items, ITEMS), zip(*parts, strict=True), strict=True):
        np.testing.assert_allclose(sum(added), whole)


@pytest.fixture(scope="module")
def judged():
    rng = np.random.default_rng(5)
    pairs = pd.DataFrame({"user_id": rng.integers(0, 60, 900), "item_id": (rng.zipf(1.6, 900) - 1) % 40})
    events = pairs.drop_duplicates(ignore_index=True).assign(value=1.0)
    items = pd.DataFrame({"item_id": range(40), "genres": rng.choice(["a|b", "b", "c|a", None], 40)})
    users = pd.DataFrame({"user_id": range(60), "age": rng.choice(["young", "old"], 60)})
    parts = split(events, Fraction(test=0.3), items=items)
    judging = EvaluationSettings(metrics=("ndcg@5", "recall@5"), segments=("age", "genres"), resamples=100)
    likes = np.bincount(parts.train.item, minlength=40)
    catalogue = Catalogue.from_items(likes, len(parts.train.users), judging, parts.train.items, items)
    truth, evaluations = Truth.from_split(parts, judging), []
    for name in ("popular", "random"):
        topk = recommend(build(name, {}).fit(parts.train), truth.histories, 5)
        evaluations.append(beyond.extend(evaluate(topk, truth, name=name), topk, truth, catalogue))
    return evaluations, summarise(evaluations, judging, users=users, catalogue=catalogue), users


def test_the_popular_list_surprises_nobody_and_a_random_one_does(judged):
    found = judged[1]["about"]["beyond"]
    assert found["popular"]["serendipity"]["mean"] == 0
    assert found["random"]["serendipity"]["mean"] > 0
    assert found["random"]["novelty"]["mean"] > found["popular"]["novelty"]["mean"]
    assert found["random"]["coverage"]["value"] > found["popular"]["coverage"]["value"]
    assert list(found["popular"]) == list(beyond.DEFINITIONS)


def test_the_summary_shows_every_grouping(judged):
    evaluations, summary, users = judged
    segments, table = summary["about"]["segments"], evaluations[1].per_user
    assert list(segments) == ["history", "age", "popularity", "genres"]
    assert list(segments["genres"]) == ["a", "b", "c", "unknown"]
    young = table["user_id"].isin(users["user_id"][users["age"] == "young"])
    assert segments["age"]["young"]["random"]["recall@5"]["mean"] == pytest.approx(table["recall@5"][young].mean())
    tail = segments["popularity"]["tail"]["random"]["ndcg@5"]
    assert tail["mean"] == pytest.approx(table["ndcg@5[popularity=tail]"].mean())
    versus = summary["about"]["segment_differences"]["popularity"]["tail"]["random"]["ndcg@5"]
    base = evaluations[0].per_user["ndcg@5[popularity=tail]"]
    assert versus["mean"] == pytest.approx((table["ndcg@5[popularity=tail]"] - base).mean())
    gap = summary["about"]["gaps"]["age"]["random"]["recall@5"]
    both = [segments["age"][level]["random"]["recall@5"]["mean"] for level in ("young", "old")]
    assert gap["gap"] == pytest.approx(max(both) - min(both))
    assert list(summary["models"]["random"]) == ["ndcg@5", "recall@5"]


def test_which_column_holds_the_attributes():
    items = pd.DataFrame(
        {"item_id": [0, 1, 2], "title": list("xyz"), "genres": ["a|b", "a", "b"], "tag": ["s", "s", "t"]}
    )
    ids, likes = IdMap.from_ids(np.arange(3)), np.array([3, 2, 1])

    def attributes(**judging):
        return Catalogue.from_items(likes, 4, EvaluationSettings(**judging), ids, items).attributes

    np.testing.assert_array_equal(attributes().toarray(), [[1, 1], [1, 0], [0, 1]])
    assert attributes(attribute="tag").shape[0] == 3
    assert Catalogue.from_items(likes, 4, EvaluationSettings(), ids).attributes is None
    with pytest.raises(ConfigError, match="Did you mean 'genres'"):
        attributes(attribute="genre")
