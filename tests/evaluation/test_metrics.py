"""Ranking metrics against their loop twins, with every tie policy, and the properties that a metric must have."""

import numpy as np
import pandas as pd
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recsys.errors import ConfigError, InputError
from recsys.evaluation.judging.judge import Lists, RelevantItems, judge, judge_lists
from recsys.evaluation.judging.metrics import METRICS, parse, parse_all
from recsys.types import TopK

TWINS = {
    name: vars(reference)[function.__name__]
    for name, function in METRICS.items()
    if name != "auc" and function.__name__ in vars(reference)
}
"""Metric -> the function of the same name in tests/reference.py; that of AUC takes all scores and has a test below."""
NAMES = [f"{name}{cut}" for name in TWINS for cut in ("", "@1", "@3", "@9") if not (name == "r_precision" and cut)]
NAMES += ["ndcg[gain=linear]@3", "ndcg[gain=exp]@4", "map[over=relevant]@2", "rbp[p=0.5]@3"]
POWER = 0.7
NAMES += [f"recall[ips={POWER}]@3", f"ndcg[ips={POWER}]@3", f"precision[ips={POWER}]@2", f"ndcg[gain=exp,ips={POWER}]"]


def topk_of(lists, scores=None):
    """A TopK of lists of item rows; one list a user."""
    m, k = len(lists), max([1, *map(len, lists)])
    items, values = np.full((m, k), -1, dtype=np.int32), np.full((m, k), np.nan, dtype=np.float32)
    for i, row in enumerate(lists):
        items[i, : len(row)] = row
        if scores is not None:
            values[i, : len(row)] = [scores[i][item] for item in row]
    return TopK(np.arange(m), items, values, np.full((m, k), -1, dtype=np.int8), (), np.zeros(m, dtype=np.int8))


def truth_of(truths, width):
    cells = [(i, item, value) for i, truth in enumerate(truths) for item, value in sorted(truth.items())]
    user, item, value = (np.array(part) for part in zip(*cells, strict=True)) if cells else (np.empty(0, int),) * 3
    return csr_array((value.astype(float), (user, item)), shape=(len(truths), width))


def twin(metric, listed, truth, depth, counts, ties="stable", scores=None):
    options = dict(metric.options)
    if "ips" in options:
        options["ips"] = reference.propensities(counts, options["ips"])
    if ties == "stable":
        return TWINS[metric.name](listed, truth, metric.k, depth, **options)
    return reference.over_ties(TWINS[metric.name], listed, scores, truth, metric.k, depth, ties, **options)


PARSED = [parse(name) for name in NAMES]
PLAIN = [metric for metric in PARSED if "ips" not in dict(metric.options)]


@st.composite
def cases(draw):
    """A few users: a list, a truth (often with items that are not listed), tied scores that fall along the list."""
    width = 9
    users = []
    for _ in range(draw(st.integers(1, 4))):
        listed = draw(st.lists(st.integers(0, 6), unique=True, max_size=6))
        truth = draw(st.dictionaries(st.integers(0, width - 1), st.sampled_from([0.5, 1.0, 2.0, 3.0]), max_size=5))
        falling = sorted(draw(st.lists(st.integers(0, 3), min_size=len(listed), max_size=len(listed))), reverse=True)
        users.append((listed, truth, dict(zip(listed, falling, strict=True))))
    return users


COUNTS = {item: (item * 7) % 5 for item in range(9)}
PROPENSITY = np.array([(COUNTS[item] + 1) / 5 for item in range(9)])


@pytest.mark.parametrize("ties", ["stable", "average", "pessimistic", "optimistic"])
@given(case=cases())
def test_every_metric_equals_its_loop_twin(ties, case):
    lists, truths, scores = zip(*case, strict=True)
    topk = topk_of(lists, scores)
    judged = judge(topk, truth_of(truths, 9), ties=ties, propensity=PROPENSITY)
    depth = topk.items.shape[1]
    for metric in PARSED if ties in ("stable", "average") else PLAIN:
        found = metric(judged)
        for i, (listed, truth, values) in enumerate(case):
            if not truth:
                assert np.isnan(found[i]), metric
            else:
                expected = twin(metric, listed, truth, depth, COUNTS, ties, values)
                assert found[i] == pytest.approx(expected, abs=1e-12), (str(metric), listed, truth, values)


def test_the_twins_cover_every_metric():
    assert set(METRICS) == {*TWINS, "auc"}


@given(case=cases(), rng=st.randoms(use_true_random=False))
def test_properties(case, rng):
    lists, truths, _ = zip(*case, strict=True)
    judged = judge(topk_of(lists), truth_of(truths, 9))
    base = {str(metric): metric(judged) for metric in PLAIN}
    for name, values in base.items():
        inside = values[~np.isnan(values)]
        assert ((inside >= 0) & (inside <= 1 + 1e-12)).all(), name

    order = rng.sample(range(len(case)), len(case))  # the order of users changes nothing
    shuffled = judge(topk_of([lists[i] for i in order]), truth_of([truths[i] for i in order], 9))
    new_name = rng.sample(range(9), 9)  # nor do the names of items
    renamed = judge(
        topk_of([[new_name[item] for item in listed] for listed in lists]),
        truth_of([{new_name[item]: value for item, value in truth.items()} for truth in truths], 9),
    )
    for metric in PLAIN:
        np.testing.assert_array_equal(metric(shuffled), base[str(metric)][order])
        np.testing.assert_allclose(metric(renamed), base[str(metric)], rtol=0, atol=1e-15)


@given(case=cases(), k=st.sampled_from([1, 3, 4]))
def test_items_below_the_cut_change_nothing(case, k):
    lists, truths, _ = zip(*case, strict=True)
    whole = judge(topk_of(lists), truth_of(truths, 9))
    cut = judge(topk_of([listed[:k] for listed in lists]), truth_of(truths, 9))
    for metric in (metric for metric in PLAIN if metric.k == k):
        np.testing.assert_allclose(metric(cut), metric(whole), rtol=0, atol=1e-15)


@given(data=st.data())
def test_swapping_a_hit_upward_never_lowers_ndcg(data):
    n = data.draw(st.integers(2, 8))
    truth = data.draw(st.dictionaries(st.integers(0, 9), st.floats(0.1, 4), min_size=1, max_size=5))
    listed = data.draw(st.permutations(range(n)))
    up, down = sorted(data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True)))
    if truth.get(listed[down], 0) <= truth.get(listed[up], 0):
        return
    better = list(listed)
    better[up], better[down] = better[down], better[up]
    judged = judge(topk_of([listed, better]), truth_of([truth, truth], 10))
    for name in ("ndcg[gain=linear]@4", "ndcg[gain=exp]", "ndcg[gain=linear]"):
        before, after = parse(name)(judged)
        assert after >= before - 1e-12


@pytest.mark.parametrize(
    "name", ["ndcg@5", "ndcg[gain=exp]@5", "capped_recall@5", "map@5", "mrr@5", "hit_rate@5", "ndcg"]
)
def test_truth_against_truth_is_one(name):
    rng = np.random.default_rng(0)
    truths = [
        {int(i): float(v) for i, v in enumerate(rng.integers(1, 6, size=n))} for n in rng.integers(1, 12, size=200)
    ]
    lists = [sorted(truth, key=lambda item: -truth[item]) for truth in truths]
    values = parse(name)(judge(topk_of(lists), truth_of(truths, 12)))
    np.testing.assert_allclose(values, 1.0, rtol=0, atol=1e-15)


@given(case=cases(), rng=st.randoms(use_true_random=False))
@pytest.mark.parametrize("ties", ["average", "pessimistic", "optimistic"])
def test_the_order_of_tied_items_changes_nothing(ties, case, rng):
    lists, truths, scores = zip(*case, strict=True)
    mixed = [
        sorted(rng.sample(row, len(row)), key=lambda item: -score[item])
        for row, score in zip(lists, scores, strict=True)
    ]
    one = judge(topk_of(lists, scores), truth_of(truths, 9), ties=ties)
    other = judge(topk_of(mixed, scores), truth_of(truths, 9), ties=ties)
    for metric in PLAIN:
        np.testing.assert_allclose(metric(one), metric(other), rtol=0, atol=1e-14)
    assert one.tied_places == other.tied_places


def test_all_tied_lists_of_a_thousand_places():
    """One group of g places, r relevant: closed forms, also where binomials would overflow."""
    g, r = 1000, 40
    judged = judge(
        topk_of([range(g)], [dict.fromkeys(range(g), 0.5)]), truth_of([dict.fromkeys(range(r), 1.0)], g), ties="average"
    )
    assert judged.tied_places == g
    assert parse("precision@10")(judged)[0] == pytest.approx(r / g, abs=1e-15)
    assert parse("recall@10")(judged)[0] == pytest.approx(10 / g, abs=1e-15)
    miss = np.prod([(g - r - j) / (g - j) for j in range(10)])
    assert parse("hit_rate@10")(judged)[0] == pytest.approx(1 - miss, abs=1e-14)


def test_uniform_propensities_change_nothing_and_ips_needs_them():
    truths, lists = [{0: 1.0, 3: 2.0}, {1: 1.0}], [[0, 1, 2], [2, 1]]
    judged = judge(topk_of(lists), truth_of(truths, 4), propensity=np.full(4, 0.3))
    for name in ("recall", "precision", "ndcg"):
        np.testing.assert_allclose(parse(f"{name}[ips=1]@2")(judged), parse(f"{name}@2")(judged), rtol=0, atol=1e-15)
    with pytest.raises(ConfigError, match="popularity or propensities"):
        parse("recall[ips=1]@2")(judge(topk_of(lists), truth_of(truths, 4)))


def test_ips_recovers_the_recall_that_partial_observation_distorts():
    """Relevant items are observed with known, unequal chances; the weighted mean over many users is unbiased."""
    rng = np.random.default_rng(3)
    m, n = 20_000, 8
    chance = np.array([0.9, 0.9, 0.8, 0.8, 0.2, 0.2, 0.1, 0.1])
    lists = [list(range(n))] * m  # popular items first: what is seen flatters such a list
    seen = [{int(i): 1.0 for i in np.flatnonzero(rng.random(n) < chance)} for _ in range(m)]
    judged = judge(topk_of(lists), truth_of(seen, n), propensity=chance)
    inverse = 1 / chance
    top = np.array([sum(inverse[i] for i in user if i < 4) for user in seen])
    whole = np.array([sum(inverse[i] for i in user) for user in seen])
    assert top.sum() / whole.sum() == pytest.approx(0.5, abs=0.01)  # the truth: half of what is relevant is on top
    weighted, plain = parse("recall[ips=1]@4")(judged), parse("recall@4")(judged)
    np.testing.assert_allclose(weighted[whole > 0], (top / np.maximum(whole, 1))[whole > 0] * 1.0, atol=1e-12)
    assert np.nanmean(plain) > np.nanmean(weighted) > 0.5


def test_lists_of_external_ids_judge_the_same():
    listed = np.array(["a", "b", "c", "b"], dtype=object)
    relevant, values = np.array(["b", "z", "b"], dtype=object), np.array([2.0, 1.0, 1.0])
    judged = judge_lists(
        Lists(listed, np.array([0, 3, 4, 4])), RelevantItems(relevant, np.array([0, 2, 3, 3]), values), k=5
    )
    assert judged.k == 5
    assert judged.length.tolist() == [3, 1, 0]
    np.testing.assert_array_equal(parse("mrr@5")(judged), [1 / 2, 1.0, np.nan])
    np.testing.assert_array_equal(parse("precision")(judged), [1 / 5, 1 / 5, np.nan])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ndgc@10", "Did you mean 'ndcg'"),
        ("ndcg[gian=exp]@10", "Did you mean 'gain'"),
        ("ndcg[gain=cubic]@10", "gain is 'cubic'"),
        ("ndcg@0", "at least 1"),
        ("r_precision@5", "no cut-off"),
        ("rbp[p=1.5]@5", "between 0 and 1"),
        ("map[over=all]@5", "over is 'all'"),
        ("recall[ips=high]", "not a number"),
        ("NDCG@10", "write it as"),
        ("auc", "scores of all items"),
    ],
)
def test_bad_names_are_refused_with_a_remedy(name, says):
    with pytest.raises(ConfigError, match=says):
        parse_all([name])


def test_bad_input_to_the_judge():
    with pytest.raises(ValueError, match="rows of relevant"):
        judge(topk_of([[0]]), truth_of([{}, {}], 3))
    with pytest.raises(ValueError, match="above 0"):
        judge(topk_of([[0]]), csr_array(([0.0], ([0], [0])), shape=(1, 3)))
    with pytest.raises(ValueError, match="twice in a user's list"):
        judge(topk_of([[0, 0]]), truth_of([{0: 1.0}], 3))
    with pytest.raises(InputError, match="no score"):
        judge(topk_of([[0, 1]]), truth_of([{0: 1.0}], 3), ties="average")
    with pytest.raises(InputError, match="scores rise"):
        judge(topk_of([[0, 1]], [{0: 1.0, 1: 2.0}]), truth_of([{0: 1.0}], 3), ties="average")


def test_a_cut_off_far_past_every_list_costs_nothing():
    judged = judge(topk_of([[0, 1]]), truth_of([{1: 1.0, 2: 1.0}], 3))
    assert parse("recall@1000000000")(judged)[0] == 0.5
    assert parse("ndcg@1000000000")(judged)[0] == parse("ndcg@2")(judged)[0]
    assert isinstance(parse("precision@1000000000")(judged), np.ndarray)
    assert pd.isna(parse("ndcg")(judge(topk_of([[0]]), truth_of([{}], 3)))[0])


def test_every_parametrised_metric_has_a_definition_of_its_own():
    names = ["ndcg@10", "ndcg[gain=exp]@10", "ndcg[gain=linear]@10", "recall@10", "recall[ips=0.5]@10", "map", "rbp"]
    names += ["recall[ips=0.9]@10", "map[over=relevant]", "rbp[p=0.5]"]
    definitions = [parse(name).definition for name in names]
    assert len(set(definitions)) == len(names)
    assert parse("ndcg[gain=exp]@10").definition.endswith("With gain=exp: the gain of a relevant item is 2^value − 1.")
