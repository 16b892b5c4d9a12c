"""Lists made on executors against ``rank.recommend`` with the same scores."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys.ranking.business_rules import CompiledRules
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.recommender import Recommender
from recsys.types import SHORTFALL

pytestmark = pytest.mark.spark
USERS, ITEMS, RANK = 60, 30, 4


class Given(Recommender):
    """A model with given scores."""

    def __init__(self, scores):
        self.scores = scores

    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        return self.scores[users]


@pytest.fixture(scope="module")
def case(spark):
    """Factors with NaN rows for unknown items, users without factors, histories with zeros and one full history."""
    rng = np.random.default_rng(2)
    x = rng.integers(-2, 3, (USERS, RANK)).astype(np.float32)  # small whole numbers: ties, and exact in any order
    y = rng.integers(-2, 3, (ITEMS, RANK)).astype(np.float32)
    y[[3, 17]] = np.nan
    same = rng.integers(0, 5, ITEMS).astype(np.float32)
    seen = rng.random((USERS, ITEMS)) < 0.3
    seen[0], seen[1] = True, False
    user, item = np.nonzero(seen)
    value = rng.integers(0, 2, len(user)).astype(np.float32)
    cold = np.arange(USERS) % 7 == 0
    history = spark.createDataFrame(
        pd.DataFrame({"user": user.astype(np.int32), "item": item.astype(np.int32), "value": value})
    )
    factors = spark.createDataFrame(
        [(int(u), x[u].tolist()) for u in np.flatnonzero(~cold)], "user int, features array<float>"
    )
    scores = x @ y.T
    return {
        "everyone": spark.createDataFrame([(u,) for u in range(USERS)], "user int"),
        "history": history,
        "factors": factors,
        "item_factors": y,
        "same": same,
        "cold": cold,
        "seen": csr_array((np.ones(len(user), dtype=np.float32), (user, item)), shape=(USERS, ITEMS)),
        "model": np.where(cold[:, None], same, scores).astype(np.float32),
        "no_fallback": np.where(cold[:, None], np.nan, scores).astype(np.float32),
    }


def lists(case, fallback, k, **settings):
    from recsys.spark.ranking.recommend import ListSettings, collect_seen_items, top_k

    users = collect_seen_items(case["history"], case["everyone"]).join(case["factors"], "user", "left")
    return top_k(users, scorer(case, fallback), ListSettings(k, **settings)).toPandas().sort_values(["user", "rank"])


def scorer(case, fallback):
    from recsys.spark.ranking.scorers import SharedScorer, factor_scorer

    return factor_scorer("als", case["item_factors"], SharedScorer("popular", case["same"]) if fallback else None)


def in_item_blocks(spark, case, rows):
    from recsys.spark.item_blocks import FactorTable

    factors = case["item_factors"]
    table = [(item, factors[item].tolist()) for item in range(ITEMS) if not np.isnan(factors[item, 0])]
    frame = spark.createDataFrame(table, "item int, features array<float>")
    return case | {"item_factors": FactorTable(frame, ITEMS, RANK, rows)}


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("k", [5, 40])
def test_lists_equal_the_local_ones(case, fallback, exclude_seen, k):
    model = Given(case["model"] if fallback else case["no_fallback"])
    expected = recommend(model, case["seen"], k, options=RecommendOptions(exclude_seen=exclude_seen))
    found = lists(case, fallback, k, exclude_seen=exclude_seen)
    for user in range(USERS):
        own = found[found["user"] == user]
        wanted = expected.items[user][expected.items[user] >= 0]
        assert own["item"].tolist() == wanted.tolist()
        assert own["rank"].tolist() == list(range(1, len(wanted) + 1))
        assert own["score"].tolist() == expected.scores[user][: len(wanted)].tolist()
        assert set(own["source"]) <= {"popular" if case["cold"][user] else "als"}


def test_blocks_do_not_change_the_lists(case):
    whole = lists(case, True, 5)
    tiny = lists(case, True, 5, memory_mb=0)  # one user at a time
    pd.testing.assert_frame_equal(whole.reset_index(drop=True), tiny.reset_index(drop=True))


def test_blocks_of_items_do_not_change_the_lists(spark, case):
    """Scores are small whole numbers: many are equal, within a block and across its border."""
    blocked = in_item_blocks(spark, case, rows=7)
    for k, fallback, settings in [(5, True, {}), (40, False, {"exclude_seen": False}), (5, True, {"memory_mb": 0})]:
        whole = lists(case, fallback, k, **settings)
        assert whole.groupby("user")["score"].nunique().min() < k
        found = lists(blocked, fallback, k, **settings)
        pd.testing.assert_frame_equal(found.reset_index(drop=True), whole.reset_index(drop=True))


def test_item_factors_come_back_from_their_blocks(spark, case):
    for rows in (7, 100):
        table = in_item_blocks(spark, case, rows)["item_factors"]
        assert np.array_equal(table.collect(), case["item_factors"], equal_nan=True)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("fallback", [True, False])
def test_lists_under_rules_equal_the_local_ones_and_are_short_for_the_same_reason(spark, case, fallback, exclude_seen):
    from recsys.spark.ranking.business_rules import exclude_denied_items, shortfall_reasons
    from recsys.spark.ranking.recommend import ListSettings, collect_seen_items, top_k

    rng = np.random.default_rng(4)
    denied = rng.random((USERS, ITEMS)) < 0.2
    denied[::3] = False
    kinds = csr_array(rng.random((ITEMS, 4)) < 0.3, dtype=np.float32)
    rules = CompiledRules(rng.random(ITEMS) < 0.7, csr_array(denied, dtype=np.float32), [(kinds, 2)], {}, {})
    model = Given(case["model"] if fallback else case["no_fallback"])
    options = RecommendOptions(exclude_seen=exclude_seen, rules=rules)
    expected = recommend(model, case["seen"], 8, options=options)
    past = case["history"] if exclude_seen else case["history"].limit(0)
    users = collect_seen_items(past, case["everyone"])
    unruled = scorer(case if fallback else in_item_blocks(spark, case, rows=7), fallback)
    ruled = exclude_denied_items(users, rules.denied, range(USERS)).join(case["factors"], "user", "left")
    settings = ListSettings(8, quotas=tuple(rules.quotas))
    lists = top_k(ruled, unruled.restricted_to(rules.candidates), settings).toPandas().sort_values(["user", "rank"])
    own = lists.groupby("user")["item"].agg(list)
    short = shortfall_reasons(users.join(case["factors"], "user", "left"), unruled, 8)
    why = short.toPandas().set_index("user")["shortfall"]
    reasons = set()
    for user in range(USERS):
        wanted = expected.items[user][expected.items[user] >= 0].tolist()
        assert own.get(user, []) == wanted
        if len(wanted) < 8:
            assert why[user] == SHORTFALL[expected.shortfall[user]]
            reasons.add(why[user])
    assert "filtered" in reasons
    assert ("all_seen" in reasons) is (fallback and exclude_seen)
    assert ("cold_no_fallback" in reasons) is not fallback


def test_a_scorer_gets_the_times_of_a_history_in_the_order_of_its_items_if_it_asks(spark, case):
    from recsys.spark.ranking.recommend import add_histories, collect_seen_items, select_columns
    from recsys.spark.ranking.scorers import RandomScorer, SharedScorer

    class WithTimes(RandomScorer):
        @property
        def columns(self):
            return {"items": "array<int>", "values": "array<float>", "times": "array<bigint>"}

    pairs = case["history"].toPandas()
    pairs["timestamp"] = np.random.default_rng(6).permutation(len(pairs))
    history = spark.createDataFrame(pairs.sample(frac=1, random_state=1))
    users = collect_seen_items(history, case["everyone"])
    asking, ignoring = WithTimes("times", 0, ITEMS), SharedScorer("popular", np.zeros(ITEMS, np.float32))
    rows = select_columns(add_histories(users, history, asking.columns), asking).toPandas().set_index("user")
    assert len(rows) == USERS
    assert rows.loc[1, "items"].tolist() == [], "user 1 has no history"
    for user, events in pairs.sort_values("item").groupby("user"):
        for column, name in (("items", "item"), ("values", "value"), ("times", "timestamp")):
            assert rows.loc[user, column].tolist() == events[name].tolist()
    assert add_histories(users, history, ignoring.columns) is users
    assert select_columns(users, ignoring).columns == ["user", "seen"]
    untimed = add_histories(users, history.drop("timestamp"), asking.columns)
    assert untimed.where("times IS NOT NULL").isEmpty()
