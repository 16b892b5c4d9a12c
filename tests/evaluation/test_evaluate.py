"""From lists and truth to an Evaluation: what counts as relevant, who counts, all candidates, and the canary."""

import numpy as np
import pandas as pd
import pytest
import reference

from recsys.data.weigh import aggregate_events
from recsys.errors import ConfigError, InputError
from recsys.evaluation.evaluate import evaluate, evaluate_tables, item_propensities
from recsys.evaluation.judging.full_ranking import FullRanking, evaluate_scores
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.topk_tables import _factorize
from recsys.evaluation.truth import Truth
from recsys.models.collaborative.popular import Popular, Random
from recsys.ranking.rank import recommend, topk_table
from recsys.types import IdMap, Split


def events(users, items, pick):
    pairs = [(u, i) for u in range(users) for i in range(items) if pick(u, i)]
    return pd.DataFrame(pairs, columns=["user_id", "item_id"]).assign(value=1.0)


def small_world():
    """60 users, 40 items, made by arithmetic alone: item i is liked by about 1 in (2 + i / 4) users."""
    train = events(60, 40, lambda u, i: (u * u + 3 * u * i + 7 * i) % (2 + i // 4) == 0)
    test = events(60, 40, lambda u, i: (5 * u + u * i * i + 11 * i) % (3 + i // 4) == 1)
    users, items = IdMap.from_ids(np.arange(60)), IdMap.from_ids(np.arange(40))
    known = aggregate_events(train, "max", users, items)
    return Split(known, known, aggregate_events(test, "max", users, items), "arithmetic"), train, test


@pytest.fixture(scope="module")
def small():
    return small_world()


def loops(train, test, k):
    """The canary by hand: {user: (list, truth)} of popular items that are not seen, the lower id first."""
    likers = train["item_id"].value_counts()
    ranked = sorted(range(40), key=lambda item: (-likers.get(item, 0), item))
    for user in sorted(set(test["user_id"])):
        seen = set(train["item_id"][train["user_id"] == user])
        truth = {item: 1.0 for item in test["item_id"][test["user_id"] == user] if item not in seen}
        yield user, [item for item in ranked if item not in seen][:k], truth


CANARY = {
    "ndcg@10": 0.33533362492260843,
    "recall@10": 0.3457887482887483,
    "precision@10": 0.23166666666666663,
    "map@10": 0.1922546296296296,
    "mrr@10": 0.5291666666666667,
    "hit_rate@10": 0.8833333333333333,
}
"""Means of the popular list on the world above. A change of splitting, masking, ranking or judging moves them."""


def test_popularity_canary(small):
    split, train, test = small
    judging = EvaluationSettings(metrics=tuple(CANARY))
    topk = recommend(Popular().fit(split.train), split.histories(), 10)
    found = evaluate(topk, Truth.from_split(split, judging), name="popular")
    assert found.per_user[list(CANARY)].mean().to_dict() == pytest.approx(CANARY, abs=1e-12)
    hand = {"ndcg@10": reference.ndcg, "recall@10": reference.recall, "map@10": reference.average_precision}
    for row, (user, listed, truth) in zip(found.per_user.itertuples(), loops(train, test, 10), strict=True):
        assert row.user_id == user
        assert row.n_relevant == len(truth)
        for name, twin in hand.items():
            own = found.per_user[name][row.Index]
            assert own == pytest.approx(twin(listed, truth, 10, 10), abs=1e-12) if truth else np.isnan(own)
    tables = evaluate_tables(
        topk_table(topk, split.test.users, split.train.items),
        pd.DataFrame([(u, i) for u, _, truth in loops(train, test, 10) for i in truth], columns=["user_id", "item_id"]),
        judging,
    )
    assert tables.per_user[list(CANARY)].mean().to_dict() == pytest.approx(CANARY, abs=1e-12)


@pytest.mark.slow
def test_published_numbers_of_the_popularity_baseline(real_data):
    """citeulike-t, P = 10: Ferrari Dacrema et al., TOIS 2021, Table 18, TopPopular; recall over all test items."""
    train, test = (pd.read_parquet(real_data / "citeulike-t" / f"{part}_p10.parquet") for part in ("train", "test"))
    train, test = (
        table.set_axis(["user_id", "item_id", *table.columns[2:]], axis=1).assign(value=1.0) for table in (train, test)
    )
    users = IdMap.from_ids(train["user_id"], test["user_id"])
    items = IdMap.from_ids(np.arange(25_975))
    known = aggregate_events(train, "max", users, items)
    tested = IdMap.from_ids(test["user_id"])
    split = Split(known, known, aggregate_events(test, "max", tested, items), "as published")
    names = ["recall@50", "recall@100", "recall@300"]
    model, truth = Popular().fit(known), Truth.from_split(split)
    worst, mean, best = (
        evaluate_scores(model, truth, names, name="popular", ranking=FullRanking(ties=ties)).per_user[names].mean()
        for ties in ("pessimistic", "average", "optimistic")
    )  # thousands of articles are liked by two users each, and the paper does not say how it breaks such ties
    published = np.array([0.0578, 0.0862, 0.1568])
    assert (worst <= published + 5e-5).all()
    assert (published - 5e-5 <= best).all()
    np.testing.assert_allclose(mean, published, rtol=0.01)


def test_all_candidates_ranked_equals_lists_as_long_as_the_catalogue(small):
    split, _, _ = small
    model = Popular().fit(split.train)
    names = ("ndcg@5", "map", "precision@20", "mrr", "recall[ips=0.5]@10")
    truth = Truth.from_split(split, EvaluationSettings(metrics=names))
    lists = evaluate(recommend(model, truth.histories, 40), truth, name="a").per_user
    whole = evaluate_scores(model, truth, names, name="a", ranking=FullRanking(ties="stable")).per_user
    for name in names:
        np.testing.assert_allclose(whole[name], lists[name], rtol=0, atol=1e-12)


def test_auc_equals_the_count_of_pairs_in_blocks_of_any_size(small):
    split, train, test = small
    model = Popular().fit(split.train)
    all_truth, names = Truth.from_split(split), ["auc", "ndcg@10"]
    found = evaluate_scores(model, all_truth, names, name="popular")
    for row, (user, _, truth) in zip(found.per_user.itertuples(), loops(train, test, 40), strict=True):
        seen = set(train["item_id"][train["user_id"] == user])
        scores = {item: float(model.scores_[item]) for item in range(40) if item not in seen}
        assert row.auc == pytest.approx(reference.auc(scores, truth), abs=1e-12)
    assert found.about["counts"]["tied_places"] > 0
    blocks = evaluate_scores(model, all_truth, names, name="popular", ranking=FullRanking(memory_mb=1))
    pd.testing.assert_frame_equal(found.per_user, blocks.per_user)


def test_sampled_candidates_change_the_name_and_flatter(small):
    split, _, _ = small
    model = Random(seed=1).fit(split.train)
    truth = Truth.from_split(split)
    whole = evaluate_scores(model, truth, ["ndcg@5"], name="r")
    few = evaluate_scores(model, truth, ["ndcg@5"], name="r", ranking=FullRanking(sampled=3))
    assert few.metrics == ["ndcg@5[sampled=3]"]
    assert "cannot be compared" in few.about["definitions"]["ndcg@5[sampled=3]"]
    assert few.per_user["ndcg@5[sampled=3]"].mean() > whole.per_user["ndcg@5"].mean() + 0.2
    everything = evaluate_scores(model, truth, ["ndcg@5"], name="r", ranking=FullRanking(sampled=40))
    np.testing.assert_array_equal(everything.per_user["ndcg@5[sampled=40]"], whole.per_user["ndcg@5"])


def test_auc_of_lists_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="scores of all items"):
        EvaluationSettings(metrics=("ndcg@5", "auc"))


@pytest.mark.parametrize("kind", ["text", "category", "string", "integer"])
def test_ids_of_any_dtype_give_the_same_numbers_and_keep_their_kind(kind):
    dtype = {"text": object, "category": "category", "string": "string", "integer": np.int32}[kind]
    recs = pd.DataFrame({"user_id": ["3", "3", "1"], "item_id": ["7", "8", "8"], "rank": [2, 1, 1]})
    truth = pd.DataFrame({"user_id": ["1", "3", "2"], "item_id": ["8", "7", "9"]})
    for table in (recs, truth):
        for column in ("user_id", "item_id"):
            table[column] = table[column].astype(dtype)
    found = evaluate_tables(recs, truth, EvaluationSettings(metrics=("mrr",))).per_user
    assert list(map(str, found["user_id"])) == ["1", "2", "3"]
    assert found["user_id"].dtype.kind == ("i" if kind == "integer" else "O")
    assert found["mrr"].tolist() == [1.0, 0.0, 0.5]


def test_text_meets_numbers_only_where_all_text_is_numbers():
    recs = pd.DataFrame({"user_id": ["1", "1"], "item_id": ["7", "8"], "rank": [1, 2]})
    truth = pd.DataFrame({"user_id": [1], "item_id": [8]})
    judging = EvaluationSettings(metrics=("mrr",))
    assert evaluate_tables(recs, truth, judging).per_user["mrr"].tolist() == [0.5]
    recs["item_id"] = ["07", "8"]
    assert evaluate_tables(recs, truth, judging).per_user["mrr"].tolist() == [0.5]


def test_rows_may_come_in_any_order():
    rng = np.random.default_rng(0)
    recs = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(50), 6),
            "item_id": rng.permuted(np.tile(np.arange(6), (50, 1)), axis=1).ravel(),
        }
    )
    recs["rank"] = np.tile(np.arange(1, 7), 50)
    truth = pd.DataFrame({"user_id": np.arange(50), "item_id": rng.integers(0, 9, size=50)})
    judging = EvaluationSettings(metrics=("ndcg@4", "mrr"))
    one = evaluate_tables(recs, truth, judging).per_user
    other = evaluate_tables(recs.sample(frac=1, random_state=1), truth.sample(frac=1, random_state=2), judging).per_user
    pd.testing.assert_frame_equal(one, other)
    by_score = evaluate_tables(
        recs.assign(score=-recs["rank"]).drop(columns="rank").sample(frac=1, random_state=3), truth, judging
    )
    pd.testing.assert_frame_equal(one, by_score.per_user)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"item_id": ["x", "x", "z"]}, r"repeat a \(user, item\)"),
        ({"rank": [1, 1, 2]}, r"repeat a \(user, rank\)"),
        ({"rank": [0, 1, 2]}, "whole numbers from 1"),
        ({"rank": [1.5, 2, 3]}, "whole numbers from 1"),
        ({"score": [0.5, np.nan, 0.1]}, "1 rows have no score"),
        ({"user_id": ["a", None, "a"]}, "no user_id"),
        ({"item_id": [0.5, 1.5, 2.5]}, "integers or all be text"),
    ],
)
def test_tables_that_cannot_be_judged_are_refused(change, says):
    recs = pd.DataFrame({"user_id": ["a"] * 3, "item_id": ["x", "y", "z"], "rank": [1, 2, 3]}).assign(**change)
    with pytest.raises(InputError, match=says):
        evaluate_tables(recs, pd.DataFrame({"user_id": ["a"], "item_id": ["x"]}), EvaluationSettings(metrics=("mrr",)))


def test_counts_and_given_propensities():
    recs = pd.DataFrame({"user_id": list("aab"), "item_id": list("xyx"), "rank": [1, 2, 1], "score": [1.0, 1.0, 0.5]})
    truth = pd.DataFrame({"user_id": list("aacd"), "item_id": list("xzxx"), "value": [1, 1, 1, 0]})
    chance = pd.Series({"x": 0.5, "z": 0.25})
    judging = EvaluationSettings(metrics=("recall@1", "recall[ips=1.0]@1"))
    found = evaluate_tables(recs, truth, judging, propensity=chance)
    assert found.per_user["recall[ips=1.0]@1"].tolist()[:2] == [2 / (2 + 4), 0.0]
    assert found.about["counts"] == {
        "evaluated": 2, "undefined": 1, "without_list": 1, "short": 0,
        "listed_places": 2, "tied_places": 2, "listed_without_truth": 1,
        "refused_truth": 0,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"\(0, 1\]"):
        evaluate_tables(recs, truth, judging, propensity=chance * 4)
    with pytest.raises(ConfigError, match="popularity or propensities"):
        evaluate_tables(recs, truth, judging)
    assert item_propensities(truth).to_dict() == {"x": 1.0, "z": 2 / 3}
    assert item_propensities(truth, pd.Series(["z", "new"])).to_dict() == {"x": 1.0, "z": 2 / 3, "new": 1 / 3}


def test_propensities_find_their_items_whether_ids_are_text_or_numbers():
    recs = pd.DataFrame({"user_id": ["a"], "item_id": ["7"], "rank": [1]})
    truth = pd.DataFrame({"user_id": ["a", "a"], "item_id": ["7", "8"]})
    chance = pd.Series({7: 0.5, 8: 0.25})
    found = evaluate_tables(recs, truth, EvaluationSettings(metrics=("recall[ips=1]@1",)), propensity=chance)
    assert found.per_user["recall[ips=1.0]@1"].tolist() == [2 / (2 + 4)]


def test_text_ids_are_numbered_alike_whether_rows_share_their_objects_or_not():
    rng = np.random.default_rng(0)
    shared = np.array([f"id-{i}" for i in range(20)], dtype=object)[rng.integers(0, 20, 500)]
    alone = np.array(["".join(list(name)) for name in shared], dtype=object)  # equal text, an object a row
    assert len({id(name) for name in shared}) == 20
    assert len({id(name) for name in alone}) == 500
    twins = np.concatenate([shared, np.array([f"id-{i}" for i in range(20)], dtype=object)[rng.integers(0, 20, 500)]])
    assert len({id(name) for name in twins}) == 40  # two objects a text, each in many rows
    for values in (shared, alone, twins, shared[::-1], shared[:1], shared[:0]):
        found, ids = _factorize(values)
        expected, names = pd.factorize(values)
        assert found.tolist() == expected.tolist()
        assert list(ids) == list(names)


LISTED = pd.DataFrame({"user_id": "u", "item_id": ["a", "c", "b"], "rank": [1, 2, 3], "score": [3.0, 2.0, 1.0]})


def of_one_user(truth, metrics, recs=LISTED, convention=None, **settings):
    table = pd.DataFrame(list(truth.items()), columns=["item_id", "value"]).assign(user_id="u")
    return evaluate_tables(recs, table, EvaluationSettings(metrics=tuple(metrics), **settings), convention=convention)


def test_gains_that_cannot_be_added_up_are_scaled():
    """Two to the power of 1100 is no double; beside it the gain of 1.0 vanishes, so its place alone counts."""
    for value, name in ((1100.0, "ndcg[gain=exp]@10"), (1e308, "ndcg[gain=linear]@10")):
        found = of_one_user({"c": value, "b": 1.0}, [name]).per_user[name][0]
        assert found == pytest.approx(1 / np.log2(3), abs=1e-12)
    # (2^1101 - 1) / (2^1100 - 1) is 2: an ideal list has 2 + 1 / log2(3), this one 1 + 2 / log2(3).
    found = of_one_user({"a": 1100.0, "c": 1101.0}, ["ndcg[gain=exp]@10"]).per_user["ndcg[gain=exp]@10"][0]
    assert found == pytest.approx((1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)), abs=1e-12)
    tiny = of_one_user({"c": 1e-20}, ["ndcg[gain=exp]@10"]).per_user["ndcg[gain=exp]@10"][0]
    assert tiny == pytest.approx(1 / np.log2(3), abs=1e-12)


def test_truth_values_that_are_no_finite_numbers_are_refused_and_counted():
    found = of_one_user({"a": np.nan, "c": 2.0, "b": np.inf, "z": -np.inf}, ["recall@3", "mrr"])
    assert found.about["counts"]["refused_truth"] == 3
    assert found.per_user["n_relevant"].tolist() == [1]
    assert found.per_user[["recall@3", "mrr"]].values.tolist() == [[1.0, 0.5]]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 0.9, 2.2])
def test_a_value_reaches_a_threshold_of_the_same_decimals_in_either_precision(threshold):
    judging = EvaluationSettings(relevant=threshold)
    assert judging.is_relevant(np.array([threshold], dtype=np.float32)).all()
    assert of_one_user({"a": threshold}, ["recall@1"], relevant=threshold).per_user["recall@1"].tolist() == [1.0]


def test_lists_are_short_against_the_largest_cut_off():
    assert of_one_user({"a": 1.0}, ["ndcg@10", "recall@3"]).about["counts"]["short"] == 1
    assert of_one_user({"a": 1.0}, ["ndcg@3"]).about["counts"]["short"] == 0
    assert of_one_user({"a": 1.0}, ["mrr"]).about["counts"]["short"] == 0


def test_the_relevance_level_of_trec_eval_leaves_the_gains_alone():
    """trec_eval -l 2 on a 1, b 2, c 3 and the run a, c, b: its ndcg takes all three gains."""
    found = of_one_user({"a": 1.0, "b": 2.0, "c": 3.0}, ["ndcg", "recall@1"], convention="trec", relevant=2)
    ideal = 3 + 2 / np.log2(3) + 1 / np.log2(4)
    assert found.per_user["ndcg"][0] == pytest.approx((1 + 3 / np.log2(3) + 2 / np.log2(4)) / ideal, abs=1e-12)
    assert found.per_user["ndcg"][0] == pytest.approx(0.8175, abs=5e-5)
    assert found.per_user["recall@1"][0] == 0.0, "a has the level 1"


def test_tables_without_an_id_in_common_are_warned_of_with_an_example():
    truth = pd.DataFrame({"user_id": ["1", "2"], "item_id": ["a", "z"]})
    recs = LISTED.assign(user_id="1.0")
    (warning,) = evaluate_tables(recs, truth).about["warnings"]
    assert warning.startswith("no user of the lists is in the truth, so every metric is 0: user ids are like '1.0'")
    assert "like '1' in the truth" in warning
    (warning,) = evaluate_tables(LISTED.assign(user_id="1"), truth.assign(item_id=["x", "y"])).about["warnings"]
    assert warning.startswith("no item of the lists")
    assert evaluate_tables(LISTED.assign(user_id="1"), truth).about["warnings"] == []


def test_tables_of_polars_and_arrow_are_read_and_other_things_are_named():
    arrow = pytest.importorskip("pyarrow").Table.from_pandas(LISTED)
    truth = pd.DataFrame({"user_id": ["u"], "item_id": ["c"]})
    assert evaluate_tables(arrow, truth, EvaluationSettings(metrics=("mrr",))).per_user["mrr"][0] == 0.5
    with pytest.raises(InputError, match="truth: list is not a table"):
        evaluate_tables(LISTED, [("u", "c")])


def test_propensities_of_no_items_are_refused():
    with pytest.raises(InputError, match="at least one item"):
        item_propensities(pd.DataFrame({"item_id": []}))


def test_a_sample_of_no_candidates_is_refused():
    with pytest.raises(ConfigError, match="sampled must be at least 1"):
        FullRanking(sampled=0)
