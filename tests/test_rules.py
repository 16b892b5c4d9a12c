"""Rules: what each removes, and lists that are right for random data, rules and models (need 3)."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.errors import ConfigError, InputError
from recsys.ranking.business_rules import Available, Quota, Rules, Where, compile_rules, load_rules
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.recommender import Recommender
from recsys.types import SHORTFALL, IdMap

USERS, ITEMS = IdMap.from_ids(["alice", "bob", "carol"]), IdMap.from_ids(["a", "b", "c", "d", "e", "f"])
TABLE = pd.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "genres": ["Drama|War", "war", "", "Comedy", None],
        "year": ["1990", "2000", "x", "2010", "1980"],
        "from": ["2015-01-01", "", "2016-01-01", "1451606400", None],
        "until": ["2016-01-01", None, "", "", "2020-01-01T00:00:00+00:00"],
    }
)


def kept(**rules):
    found = compile_rules(Rules(**rules), USERS, ITEMS, TABLE)
    return "".join(ITEMS.ids_of(np.flatnonzero(found.candidates))), found


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"allow": ["a", "b"]}, "ab"),
        ({"deny": ["a", "b"]}, "cdef"),
        ({"where": [Where(field="genres", any_of=["WAR"])]}, "ab"),
        ({"where": [Where(field="genres", none_of=["war"])]}, "cdef"),
        ({"where": [Where(field="year", at_least=1990, at_most=2000)]}, "ab"),
        ({"available": Available(from_field="from", until_field="until", at="2016-01-01")}, "bcdef"),
        ({"available": Available(from_field="from", at=1420070399)}, "bef"),
        ({"allow": ["a", "b"], "deny": ["b"]}, "a"),
        ({}, "abcdef"),
    ],
)
def test_what_is_kept(rules, expected):
    assert kept(**rules)[0] == expected


YEARS = {"a": "1994", "c": "1996", "d": "1994", "e": "1990"}
SAME = {
    "text": ["1994", "", " 1996 ", "1994", "1990"],
    "float64": [1994.0, np.nan, 1996.0, 1994.0, 1990.0],
    "float32": np.array([1994.0, np.nan, 1996.0, 1994.0, 1990.0], dtype=np.float32),
    "Int64": pd.array([1994, None, 1996, 1994, 1990], dtype="Int64"),
    "category": pd.Categorical([1994, None, 1996, 1994, 1990]),
    "list of text": [["1994"], [], ["1996"], ["1994"], ["1990"]],
    "list of floats": [np.array([1994.0]), None, np.array([1996.0]), np.array([1994.0]), np.array([1990.0])],
}
"""The same years, kept in different ways; item b has none, and f no row (so int64 becomes float64, too)."""


@pytest.mark.parametrize("kind", [*SAME, "int64"])
@pytest.mark.parametrize("year", [1994, 1994.0, "1994"])
def test_a_year_is_found_however_the_column_is_kept(kind, year):
    table = TABLE.assign(year=[1994, 2000, 1996, 1994, 1990] if kind == "int64" else SAME[kind])

    def left(**test):
        rules = Rules(where=[Where(field="year", **test)])
        return "".join(ITEMS.ids_of(np.flatnonzero(compile_rules(rules, USERS, ITEMS, table).candidates)))

    assert left(any_of=[year]) == "ad"
    assert left(none_of=[year]) == "bcef"


@pytest.mark.parametrize("kind", SAME)
def test_a_quota_counts_values_however_the_column_is_kept(kind):
    rules = Rules(quota=[Quota(field="year", at_most=1)])
    ((values, _),) = compile_rules(rules, USERS, ITEMS, TABLE.assign(year=SAME[kind])).quotas
    together = (values @ values.T).toarray() > 0
    assert together.tolist() == [[i in YEARS and YEARS[i] == YEARS.get(j) for j in "abcdef"] for i in "abcdef"]


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, "|".join])
def test_members_of_a_list_are_values(kind):
    table = TABLE.assign(genres=[kind(cell) for cell in (["Horror", "War"], ["War"], ["Drama"], ["horror"], [""])])
    where = [Where(field="genres", none_of=["horror"])]
    found = compile_rules(Rules(where=where, quota=[Quota(field="genres", at_most=1)]), USERS, ITEMS, table)
    assert found.candidates.tolist() == [False, True, True, False, True, True]
    assert found.quotas[0][0].sum(axis=1).tolist() == [2, 1, 1, 1, 0, 0]
    assert found.quotas[0][0].shape == (6, 3)


def test_truth_is_no_number(tmp_path):
    (tmp_path / "rules.toml").write_text("[[where]]\nfield = 'free'\nany_of = [true]\n")
    table = TABLE.assign(free=[True, False, True, False, None])
    found = compile_rules(load_rules(tmp_path / "rules.toml"), USERS, ITEMS, table)
    assert found.candidates.tolist() == [True, False, True, False, False, False]


def test_dates_of_every_kind():
    dates = pd.to_datetime(pd.Series(["2015-12-31", "2016-01-01", "2016-01-02", None, None]))
    seconds = [1451520000.0, 1451606400.0, 1451692800.0, np.nan, np.nan]
    for kept_as in (dates, dates.dt.tz_localize("UTC"), dates.dt.date, seconds):
        rules = Rules(available=Available(from_field="from", at="2016-01-01"))
        found = compile_rules(rules, USERS, ITEMS, TABLE.assign(**{"from": kept_as}))
        assert found.candidates.tolist() == [True, True, False, True, True, True]
    with pytest.raises(InputError, match=r"'2016\|2017' is neither"):
        compile_rules(rules, USERS, ITEMS, TABLE.assign(**{"from": [["2016", "2017"]] * 5}))


def test_removed_is_counted_and_strangers_are_reported():
    _, found = kept(
        allow=["a", "zz"], deny=["b", "c", 7], deny_for={"alice": ["d", "yy"], "nobody": ["a"]},
        where=[Where(field="genres", any_of=["war"])],
    )  # fmt: skip
    assert found.removed == {"allow": 5, "deny": 2, "where 1 (genres)": 4, "deny_for": 1}
    assert found.unknown == {"allow": ["zz"], "deny": [7], "deny_for": ["yy"], "deny_for users": ["nobody"]}


def test_integer_ids_are_found_by_number_or_text():
    found = compile_rules(Rules(deny=[1, "2"]), IdMap.from_ids([1]), IdMap.from_ids([1, 2, 3]))
    assert found.candidates.tolist() == [False, False, True]


def test_files(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text('deny = ["a"]\n[deny_for]\nalice = ["b"]\n[[quota]]\nfield = "genres"\nat_most = 1\n')
    assert load_rules(path) == Rules(deny=["a"], deny_for={"alice": ["b"]}, quota=[Quota(field="genres", at_most=1)])
    path.write_text('denny = ["a"]')
    with pytest.raises(ConfigError, match="deny"):
        load_rules(path)
    path.write_text('[[quota]]\nfield = "genres"\natmost = 1\n')
    with pytest.raises(ConfigError, match=r"quota.0.atmost: unknown key. Did you mean 'at_most'"):
        load_rules(path)
    with pytest.raises(ConfigError, match=r"nothing is known of the items .*\[data\] items"):
        compile_rules(Rules(quota=[Quota(field="genre", at_most=1)]), USERS, ITEMS, TABLE[["item_id"]])
    with pytest.raises(ConfigError, match="does not have"):
        compile_rules(Rules(quota=[Quota(field="genre", at_most=1)]), USERS, ITEMS, TABLE)
    for rule in ({"where": [Where(field="item_id", any_of=["a"])]}, {"quota": [Quota(field="item_id", at_most=1)]}):
        with pytest.raises(ConfigError, match="`allow` or `deny`"):
            kept(**rule)
    with pytest.raises(InputError, match="neither"):
        kept(available=Available(from_field="from", at="soon"))


class Given(Recommender):
    """Scores as they are given."""

    SOURCE = "given"

    def __init__(self, scores):
        self.scores = scores

    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        return self.scores[users]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.booleans())
def test_every_list_is_what_a_walk_down_the_ranking_gives(seed, k, exclude_seen):
    rng = np.random.default_rng(seed)
    m, n = 4, int(rng.integers(1, 14))
    scores = rng.integers(0, 4, (m, n)).astype(np.float32)
    scores[rng.random((m, n)) < rng.choice([0.0, 0.3, 1.0])] = np.nan
    history = rng.random((m, n)) < 0.3
    histories = csr_array(np.where(history, 1.0, 0.0).astype(np.float32))
    histories.data[::2] = 0  # an explicit zero counts as seen
    items, users = IdMap.from_ids(np.arange(n)), IdMap.from_ids(np.arange(m))
    genres = ["|".join(rng.choice(list("xyz"), rng.integers(0, 3), replace=False)) for _ in range(n)]
    rules = Rules(
        deny=rng.integers(0, n, 2).tolist(),
        deny_for={str(user): rng.integers(0, n, 2).tolist() for user in range(m)},
        where=[Where(field="genres", none_of=["y"])] if rng.random() < 0.3 else [],
        quota=[Quota(field="genres", at_most=int(rng.integers(0, 3)))] if rng.random() < 0.6 else [],
    )
    table = pd.DataFrame({"item_id": np.arange(n), "genres": genres})
    compiled = compile_rules(rules, users, items, table)
    options = RecommendOptions(exclude_seen=exclude_seen, rules=compiled)
    found = recommend(Given(scores), histories, k, options=options)
    for user in range(m):
        expected, count = [], {}
        for item in sorted(range(n), key=lambda i: (-scores[user, i] if scores[user, i] >= 0 else np.inf, i)):
            own = set(genres[item].split("|")) - {""}
            if (
                np.isnan(scores[user, item])
                or (exclude_seen and history[user, item])
                or item in rules.deny
                or item in rules.deny_for[str(user)]
                or (rules.where and "y" in own)
                or any(count.get(g, 0) >= quota.at_most for quota in rules.quota for g in own)
                or len(expected) == k
            ):
                continue
            expected.append(item)
            for g in own:
                count[g] = count.get(g, 0) + 1
        listed = found.items[user][found.items[user] >= 0].tolist()
        assert listed == expected
        np.testing.assert_array_equal(found.scores[user, : len(listed)], scores[user, listed])
        assert np.isnan(found.scores[user, len(listed) :]).all()
        why = SHORTFALL[found.shortfall[user]]
        assert (why == "none") == (len(listed) == k)
        if np.isnan(scores[user]).all():
            assert why == "cold_no_fallback"
