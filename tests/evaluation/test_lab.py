"""The lab finds what is known in advance, and catches measures that were broken on purpose."""

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from recsys.evaluation.agreement.measures import parse_measure
from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.evaluation.lab import simulate, studies
from recsys.evaluation.lab.labelled import discrimination_auc
from recsys.recommender import Recommender

pytestmark = pytest.mark.slow
SMALL = studies.LabSettings(items=12, pairs=600, users=20, experiments=2000)


def test_closed_form_of_mallows_against_all_orders_of_five_items():
    def far(order):
        return sum(x > y for x, y in itertools.combinations(order, 2))

    for dispersion in (0.0, 0.3, 1.5):
        chance = {order: math.exp(-dispersion * far(order)) for order in itertools.permutations(range(5))}
        mean = sum(far(order) * p for order, p in chance.items()) / sum(chance.values())
        assert simulate.expected_mallows_distance(5, dispersion) == pytest.approx(mean, abs=1e-12)


def test_mallows_orders_have_their_chances():
    orders = simulate.sample_mallows(np.random.default_rng(1), 60_000, 3, 0.7)
    found = Counter(map(tuple, orders.tolist()))
    weight = {o: math.exp(-0.7 * sum(x > y for x, y in itertools.combinations(o, 2))) for o in found}
    assert len(found) == 6
    for order, count in found.items():
        p = weight[order] / sum(weight.values())
        assert abs(count - 60_000 * p) < 4.5 * math.sqrt(60_000 * p * (1 - p))


def test_mallows_distance_is_recovered_for_ten_dispersions():
    rows = studies.check_mallows_distances(studies.LabSettings(pairs=4000))
    assert len(rows) == 10
    assert max(abs(row["z"]) for row in rows) < 3.5  # 1 in 200 of ten normal values


def test_size_of_each_test_under_the_null():
    setting = studies.LabSettings()
    assert setting.experiments == 10_000
    for name, size in studies.independence_test_sizes(setting).items():
        assert 0.04 <= size <= 0.06, name
    scaled_measure = studies.ScaledMeasure(parse_measure("tau_b"), setting)
    values = scaled_measure.scaled(scaled_measure.mallows(0.1))
    assert 0.04 <= studies.rejection_rate(np.random.default_rng(0), values, values, setting) <= 0.06


@pytest.mark.parametrize("name", ["tau_b", "weighted_tau", "tau_ap", "rbo", "kendall_topk@4", "overlap@4"])
def test_sound_measures_pass(name):
    assert studies.study_measure(parse_measure(name), SMALL)["failed"] == []


def by_code(pairs):
    """Depends on what items are called."""
    return parse_measure("tau_b")(pairs) + 0.01 * pairs.b.items[pairs.b.offsets[pairs.rows_b]]


def upside_down(pairs):
    """Weighted tau of ranks instead of scores: the classic slip, it weighs the bottom."""

    def turned(lists):
        level = np.repeat(lists.lengths, lists.lengths) - 1 - lists.dense_ranks
        order = np.lexsort((level, np.repeat(np.arange(len(lists)), lists.lengths)))
        return Rankings(lists.items[order], level[order].astype(np.int32), lists.offsets)

    return parse_measure("weighted_tau")(Pairs(turned(pairs.a), turned(pairs.b), pairs.rows_a, pairs.rows_b))


def best_elsewhere(pairs):
    """A correction that overshoots: others agree better than a list with itself."""
    return parse_measure("spearman")(pairs) - 2 * parse_measure("overlap@4")(pairs) ** 2


def sign_lost(pairs):
    """Right for identical lists only."""
    tau = parse_measure("tau_b")(pairs)
    return np.where(tau > 0.999, 1.0, -tau)


def with_the_neighbours(pairs):
    """Each pair's value leaks into the next one's."""
    return (parse_measure("tau_b")(pairs) + np.roll(parse_measure("tau_b")(pairs), 1)) / 2


def no_noise_felt(pairs):
    """Only looks at how many items both lists have."""
    return parse_measure("overlap")(pairs) + 1e-3 * np.sin(np.arange(len(pairs)))


@pytest.mark.parametrize(
    ("broken", "caught"),
    [
        (by_code, "the value depends on what items are called"),
        (upside_down, "a swap at the bottom costs more than one at the top"),
        (best_elsewhere, "a list does not agree best with itself"),
        (sign_lost, "more noise does not mean less agreement"),
        (with_the_neighbours, "one pair's value depends on the other pairs"),
        (no_noise_felt, "one pair's value depends on the other pairs"),
    ],
)
def test_broken_measures_are_caught(broken, caught):
    assert caught in studies.study_measure(broken, SMALL)["failed"]


def test_top_weight_tells_top_heavy_measures_from_even_ones():
    found = {
        name: studies.study_measure(parse_measure(name), SMALL)["top_weight"]
        for name in ("tau_b", "tau_ap", "rbo[p=0.7]")
    }
    assert found["tau_b"] == pytest.approx(0.5, abs=0.02)
    assert found["tau_b"] < found["tau_ap"] < found["rbo[p=0.7]"]


def test_a_worse_top_is_seen_by_measures_that_look_there():
    found = {
        name: studies.study_measure(parse_measure(name), SMALL)["power"]
        for name in ("tau_ap", "rbo[p=0.7]", "overlap@6")
    }
    for name in ("tau_ap", "rbo[p=0.7]"):
        assert found[name]["top"] > 2 * found[name]["bottom"], name
    assert found["overlap@6"]["top"] < 0.1  # the same six items, in whatever order


def test_own_model_is_told_from_a_strangers():
    class Taste(Recommender):
        """Scores an item by the user's own later rating of it: the best that an own model can be."""

        def __init__(self, table):
            self.table = table

        def fit(self, train, features=None):
            self.rows = np.array([self.table[train.users.ids[u]] for u in range(len(train.users))])
            return self

        def score(self, histories, users=None):
            return self.rows[users]

    rng = np.random.default_rng(0)
    tastes = {f"u{u}": rng.random(30) for u in range(40)}
    events = pd.DataFrame(
        [(u, f"i{i:02}", taste[i]) for u, taste in tastes.items() for i in rng.permutation(30)],
        columns=["user_id", "item_id", "value"],
    )
    measures = {name: parse_measure(name) for name in ("tau_b", "kendall_topk")}
    for name, cell in discrimination_auc(events, Taste(tastes), measures)["measures"].items():
        assert cell["auc"] == 1.0, name
    blind = Taste(dict.fromkeys(tastes, rng.random(30)))
    assert discrimination_auc(events, blind, measures)["measures"]["tau_b"]["auc"] == 0.5


def test_answers_leave_out_what_failed_and_what_only_repeats():
    measures = {"tau_b": parse_measure("tau_b"), "broken": by_code, "again": parse_measure("tau_b")}
    found = studies.run_lab(measures, SMALL)
    assert {name for row in studies.best_measures(found) for name, _ in row["best"]} == {"tau_b"}
