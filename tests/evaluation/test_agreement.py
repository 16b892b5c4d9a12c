"""Measures of agreement against scipy, published values, and loops written from the papers' definitions."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import tests.reference_agreement as plain
from recsys.errors import ConfigError, InputError
from recsys.evaluation.agreement.measures import MEASURES, agree, kendall_tau, parse_measure, parse_measures
from recsys.evaluation.agreement.rankings import Pairs, Rankings, make_pair


def by_id(values):
    return dict(enumerate(values))


def same(found, expected, tolerance=1e-12):
    if expected is None or math.isnan(expected):
        return math.isnan(found)
    return abs(found - expected) <= tolerance


# --- Published values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ("tau_b", -0.4714045207910316),
        ("tau_c", -0.48),
        ("weighted_tau", -0.5669496815368272),
        ("weighted_tau[additive=false]", -0.6220571695),
    ],
)
def test_values_of_scipys_documentation(measure, value):
    assert agree(by_id([12, 2, 1, 12, 2]), by_id([1, 4, 7, 1, 0]), measure) == pytest.approx(value, abs=1e-10)


def test_spearman_of_scipys_documentation():
    assert agree(by_id([1, 2, 3, 4, 5]), by_id([5, 6, 7, 8, 7]), "spearman") == pytest.approx(0.8207826816681233)


@pytest.mark.parametrize(("swapped", "ap"), [([2, 1, 3, 4, 5], 0.5), ([1, 2, 3, 5, 4], 0.875)])
def test_an_adjacent_swap_costs_ap_more_at_the_top(swapped, ap):
    assert agree([1, 2, 3, 4, 5], swapped, "tau_ap") == ap
    assert kendall_tau([1, 2, 3, 4, 5], swapped) == pytest.approx(0.8)


@pytest.mark.parametrize(("p", "distance"), [(0, 25), (0.5, 35)])
def test_fagins_distance_of_disjoint_lists(p, distance):
    assert agree("abcde", "fghij", f"kendall_topk[p={p}]") == distance


X = [0.897, 0.372, 0.908, 0.898, 0.661, 0.062, 0.177, 0.384, 0.498, 0.992]
Y = [0.82, 0.406, 0.817, 0.953, 0.673, 0.073, 0.364, 0.547, 0.589, 0.988]


@pytest.mark.parametrize(
    ("measure", "x", "y", "value"),  # of Urbano's package ircor, which prints four digits
    [
        ("tau_ap", X, Y, 0.8519),
        ("tau_ap[symmetric=true]", X, Y, 0.8333),
        ("tau_ap", X, np.round(Y, 1), 0.7454),
        ("tau_ap[ties=b]", np.round(X, 1), np.round(Y, 1), 0.7321),
        ("tau_a", X, np.round(Y, 1), 0.8889),
        ("tau_b", np.round(X, 1), np.round(Y, 1), 0.9398),
    ],
)
def test_values_of_ircor(measure, x, y, value):
    assert agree(by_id(x), by_id(y), measure) == pytest.approx(value, abs=5e-5)


def test_rbo_of_equal_and_disjoint_lists():
    assert agree("abcde", "abcde", "rbo") == pytest.approx(1.0)
    assert agree("abcde", "fghij", "rbo") == 0.0
    assert agree("abcde", "abcde", "rbo[score=min,p=0.5]") == pytest.approx(
        0.5 * sum(0.5**d for d in range(5)) + 5 * sum(0.5**d / d for d in range(6, 200)), abs=1e-12
    )  # (1 − p) / p · Σ p^d X_d / d


# --- scipy, a thousand random cases each -----------------------------------------------------------------------------


def random_scores(seed, cases=1000):
    """Yield two vectors of scores: short and long, with few, some and no ties, now and then constant or empty."""
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        n, values = int(rng.integers(0, 40)), int(rng.integers(1, 60))
        yield rng.integers(0, values, n), rng.integers(0, values, n)


@pytest.mark.slow
def test_kendall_equals_scipy():
    for x, y in random_scores(1):
        for variant in "bc":
            expected = scipy.stats.kendalltau(x, y, variant=variant).statistic if len(x) > 1 else math.nan
            assert same(kendall_tau(by_id(x), by_id(y), variant=variant), expected)


@pytest.mark.slow
def test_weighted_tau_equals_scipy_on_scores_that_are_high_for_the_best():
    for x, y in random_scores(2):
        for additive in (True, False):
            expected = scipy.stats.weightedtau(x, y, additive=additive).statistic if len(x) > 1 else math.nan
            found = agree(by_id(x), by_id(y), f"weighted_tau[additive={str(additive).lower()}]")
            if len(set(x)) < 2 or len(set(y)) < 2:  # scipy divides what rounding leaves of 0
                assert math.isnan(found)
            else:
                assert same(found, expected)


def test_a_swap_at_the_top_weighs_more_than_one_at_the_bottom():
    assert agree("abcd", "bacd", "weighted_tau") == pytest.approx(
        scipy.stats.weightedtau([4, 3, 2, 1], [3, 4, 2, 1])[0]
    )
    assert agree("abcd", "bacd", "weighted_tau") < agree("abcd", "abdc", "weighted_tau")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_spearman_equals_scipy():
    for x, y in random_scores(3):
        expected = scipy.stats.spearmanr(x, y).statistic if len(x) > 1 else math.nan
        assert same(agree(by_id(x), by_id(y), "spearman"), expected)


# --- Loops written from the definitions ------------------------------------------------------------------------------


@st.composite
def ranked(draw, most=6):
    """Return a list of groups over few ids, so that lists share some and miss some."""
    ids = draw(st.lists(st.integers(0, 7), max_size=most, unique=True))
    groups = []
    for item in ids:
        if groups and draw(st.booleans()):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


TWINS = {
    "tau_a": lambda a, b: plain.kendall(a, b, "a"),
    "tau_b": lambda a, b: plain.kendall(a, b, "b"),
    "tau_c": lambda a, b: plain.kendall(a, b, "c"),
    "tau_b[missing=bottom]": lambda a, b: plain.kendall(a, b, "b", "bottom"),
    "tau_c[missing=bottom]": lambda a, b: plain.kendall(a, b, "c", "bottom"),
    "weighted_tau": plain.weighted_kendall,
    "weighted_tau[missing=bottom,additive=false]": lambda a, b: plain.weighted_kendall(a, b, False, "bottom"),
    "tau_ap": plain.ap_a,
    "tau_ap[symmetric=true]": plain.ap_a_symmetric,
    "tau_ap[ties=b]": plain.ap_b,
    "spearman": plain.rho,
    "spearman[missing=bottom]": lambda a, b: plain.rho(a, b, "bottom"),
    "footrule": plain.footrule,
    "footrule[missing=bottom]": lambda a, b: plain.footrule(a, b, "bottom"),
    "kendall_topk": lambda a, b: plain.kendall_topk(a, b, 0.5),
    "kendall_topk[p=0]@3": lambda a, b: plain.kendall_topk(plain.cut(a, 3), plain.cut(b, 3), 0),
    "footrule_topk": plain.footrule_topk,
    "footrule_topk[location=9]": lambda a, b: plain.footrule_topk(a, b, 9),
    "overlap": plain.overlap,
    "overlap@2": lambda a, b: plain.overlap(a, b, 2),
    "jaccard@3": lambda a, b: plain.jaccard(a, b, 3),
}


@pytest.mark.parametrize("measure", TWINS)
def test_equals_its_plain_twin(measure):
    parsed = parse_measure(measure)

    @given(ranked(), ranked())
    def check(a, b):
        assert same(parsed(make_pair(a, b))[0], TWINS[measure](a, b), 1e-9)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("ties", "wab")
@pytest.mark.parametrize("score", ["ext", "min", "res"])
def test_rbo_equals_its_definition_summed_over_long_lists(ties, score):
    p, depth = 0.6, 75  # 0.6 ** 75 < 1e-16
    rng = np.random.default_rng(5)
    for _ in range(40):
        a, b = ([], [])
        for groups in (a, b):
            ids = rng.permutation(9)[: rng.integers(1, 8)].tolist()
            while ids:
                size = int(rng.integers(1, 4))
                groups.append(ids[:size])
                del ids[:size]
        if score == "ext":
            expected = plain.rbo_ext(a, b, p, ties, depth)
        else:
            expected = plain.rbo_min(a, b, p, ties, depth)
            expected = expected if score == "min" else plain.rbo_max(a, b, p, ties, depth) - expected
        for x, y in ((a, b), (b, a)):
            assert agree(x, y, f"rbo[p={p},ties={ties},score={score}]") == pytest.approx(expected, abs=1e-12)


def test_rbo_a_is_the_mean_over_all_ways_to_break_ties():
    a, b = [[0, 1], [2], [3, 4, 5]], [[1], [0, 2, 7], [3, 4]]
    values = [agree(x, y, "rbo[p=0.8]") for x in plain.orders(a) for y in plain.orders(b)]
    assert agree(a, b, "rbo[p=0.8,ties=a]") == pytest.approx(np.mean(values), abs=1e-12)


def test_rbo_b_of_a_list_with_itself_is_one_where_a_is_less():
    tied = [["x", "y"], ["z"]]
    assert agree(tied, tied, "rbo[ties=b]") == pytest.approx(1.0)
    assert agree(tied, tied, "rbo[ties=w]") == pytest.approx(1.0)
    assert agree(tied, tied, "rbo[ties=a]") < 0.99


# --- Properties ------------------------------------------------------------------------------------------------------

SYMMETRIC = [name for name in MEASURES if name != "tau_ap"] + ["tau_ap[ties=b]", "tau_ap[symmetric=true]"]
EVERY = [*MEASURES, "tau_ap[ties=b]", "rbo[ties=w]", "rbo[ties=b]", "rbo[score=min]", "rbo[score=res]", "overlap@2"]
CORRELATIONS = ["tau_a", "tau_b", "tau_c", "weighted_tau", "tau_ap", "tau_ap[ties=b]", "spearman"]
RANGE = dict.fromkeys(CORRELATIONS, (-1, 1))


@given(ranked(), ranked(), st.permutations(range(8)))
def test_range_symmetry_and_names_of_ids(a, b, renamed):
    there, back = make_pair(a, b), make_pair(b, a)

    other = make_pair([[f"id{renamed[i]}" for i in g] for g in a], [[f"id{renamed[i]}" for i in g[::-1]] for g in b])
    for measure in parse_measures(EVERY):
        value = measure(there)[0]
        low, high = RANGE.get(str(measure), (0, math.inf if measure.name.endswith("topk") else 1))
        assert math.isnan(value) or low - 1e-12 <= value <= high + 1e-12, measure
        assert same(measure(other)[0], value), measure
    for measure in parse_measures(SYMMETRIC):
        assert same(measure(there)[0], measure(back)[0]), measure


@given(st.lists(st.integers(0, 50), min_size=2, max_size=20, unique=True))
def test_a_list_with_itself_and_with_its_reverse(ids):
    for name in CORRELATIONS:
        assert agree(ids, ids, name) == pytest.approx(1.0), name
        assert agree(ids, ids[::-1], name) == pytest.approx(-1.0), name
    assert agree(ids, ids, "footrule") == 1.0
    assert agree(ids, ids[::-1], "footrule") == 0.0
    for name in ("kendall_topk", "footrule_topk"):
        assert agree(ids, ids, name) == 0.0


@pytest.mark.slow
@given(st.lists(st.tuples(ranked(), ranked()), min_size=2, max_size=6), st.randoms())
def test_pairs_do_not_influence_one_another(lists, random):
    order = list(range(len(lists)))
    random.shuffle(order)
    together = [rankings(side) for side in zip(*lists, strict=True)]
    pairs = Pairs.row_by_row(*together)
    shuffled = Pairs(*together, np.array(order), np.array(order))
    for measure in parse_measures(EVERY):
        values = measure(pairs)
        alone = [measure(make_pair(*one))[0] for one in lists]
        assert np.array_equal(values, alone, equal_nan=True), measure
        assert np.array_equal(measure(shuffled), values[order], equal_nan=True), measure


def rankings(lists):
    """Return many lists of groups of int ids as one Rankings."""
    flat = [(item, place) for groups in lists for place, group in enumerate(groups) for item in group]
    items, level = np.array(flat, dtype=np.int32).reshape(-1, 2).T.copy()
    return Rankings(items, level, np.cumsum([0] + [plain.size(groups) for groups in lists]))


def test_large_lists_take_no_quadratic_time_and_stay_exact():
    rng = np.random.default_rng(0)
    n = 100_000
    x, y = rng.permutation(n), rng.integers(0, 1000, n)
    found = agree(by_id(x.tolist()), by_id(y.tolist()), "tau_b")
    assert found == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12)


# --- Edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CORRELATIONS, "footrule"])
@pytest.mark.parametrize(
    ("a", "b"), [([], []), (["x"], ["x"]), (["x", "y"], ["z", "y"]), ([["x", "y"]], ["x", "y"]), ([], ["x", "y"])]
)
def test_correlations_are_undefined_without_two_ordered_items(name, a, b):
    assert math.isnan(agree(a, b, name))


def test_what_empty_lists_give():
    assert math.isnan(agree([], ["x"], "rbo"))
    assert math.isnan(agree([], [], "overlap"))
    assert math.isnan(agree([], [], "kendall_topk"))
    assert agree([], ["x"], "jaccard@5") == 0.0
    assert agree([], ["x", "y"], "kendall_topk") == 0.5


def test_missing_items():
    a, b = ["x", "y", "z"], ["z", "x"]
    assert agree(a, b, "tau_b") == -1.0  # x and z
    assert agree(a, b, "tau_a[missing=bottom]") == pytest.approx((1 - 2) / 3)  # xy agrees, xz and yz do not


def test_what_is_refused():
    with pytest.raises(InputError, match="second list holds 'x' more than once"):
        agree(["x"], [["x", "y"], "x"], "tau_b")
    with pytest.raises(InputError, match="score of 'x' is NaN"):
        agree({"x": math.nan}, ["x"], "tau_b")
    with pytest.raises(InputError, match="list 1 holds an item more than once"):
        parse_measure("tau_b")(Pairs.row_by_row(*[Rankings.from_padded(np.array([[0, 1], [2, 2]]))] * 2))
    with pytest.raises(ConfigError, match=r"'tua_b'.*'tau_b'[^$]*'nothing'"):
        parse_measures(["tua_b", "tau_b[missing=nothing]"])
    for bad in ("rbo[p=1]", "rbo[ties=c]", "rbo[score=max]", "kendall_topk[p=2]", "tau_ap[ties=c]", "tau_b@5"):
        with pytest.raises(ConfigError):
            parse_measure(bad)
    with pytest.raises(ConfigError, match="choose a larger one"):
        agree("abc", "abd", "footrule_topk[location=3]")


def test_rankings_of_scores_and_of_tied_places():
    from scipy.sparse import csr_array

    scores = csr_array(([1.0, 3.0, 3.0, 2.0], ([0, 0, 0, 2], [4, 7, 2, 1])), shape=(3, 8))
    lists = Rankings.from_scores(scores)
    assert lists.items.tolist() == [2, 7, 4, 1]
    assert lists.dense_ranks.tolist() == [0, 0, 1, 0]
    assert lists.offsets.tolist() == [0, 3, 3, 4]
    assert lists.cut(1).items.tolist() == [2, 7, 1]
    with pytest.raises(ValueError, match="at least one item, and k is 0"):
        lists.cut(0)


def test_series_are_scores_by_id_and_other_things_are_named():
    import pandas as pd

    from recsys.errors import InputError

    a, b = pd.Series([3.0, 2.0, 1.0], index=list("xyz")), pd.Series([1, 2, 3], index=list("zyx"))
    assert agree(a, b, "tau_b") == 1.0, "the same order under other scores"
    assert agree(a, {"x": 1, "y": 2, "z": 3}, "tau_b") == -1.0
    assert agree(pd.Series(["x", "y", "z"]), a, "tau_b") == 1.0, "text is a list of ids"
    for wrong, name in ((7, "int"), (pd.DataFrame({"a": [1]}), "agree_tables")):
        with pytest.raises(InputError, match=name):
            agree(wrong, a, "tau_b")
    with pytest.raises(InputError, match="repeats 'x'"):
        agree(pd.Series([1, 2], index=["x", "x"]), a, "tau_b")
