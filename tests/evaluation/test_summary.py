import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys.evaluation.groups import Grouping, gap, history_codes
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.summary import Facts, Layout, document, summarise
from recsys.evaluation.testing.significance import bootstrap_sums, holm_adjust, mean_ci
from recsys.types import Evaluation

METRICS = ["ndcg@10", "recall@10"]


def evaluation(name, values, history, users=None):
    users = np.arange(len(values)) if users is None else users
    per_user = pd.DataFrame({"user_id": users, "n_history": history})
    per_user[METRICS] = values
    return Evaluation(
        name, per_user, {"definitions": dict.fromkeys(METRICS, "…"), "counts": {"evaluated": len(values)}}
    )


@pytest.fixture
def three():
    rng = np.random.default_rng(0)
    history = rng.choice([0, 3, 7, 50], 120)
    values = {name: rng.random((120, 2)) for name in ("popular", "als", "knn")}
    values["als"][:30, 0] = np.nan
    return [evaluation(name, cells, history) for name, cells in values.items()]


def test_the_document_says_what_loops_say(three):
    judging = EvaluationSettings(metrics=tuple(METRICS), resamples=200)
    found = summarise(three, judging, seed=4)
    tables = {e.name: e.per_user for e in three}
    users = np.arange(120, dtype=np.uint64)
    history = tables["als"]["n_history"].to_numpy()
    levels = {"0": history == 0, "1-4": history == 3, "5-19": history == 7, "20+": history == 50}
    for metric in METRICS:
        base = tables["popular"][metric].to_numpy()
        for name, table in tables.items():
            values = table[metric].to_numpy()
            wanted = [(found["models"][name][metric], values, users)]
            about = found["about"]
            wanted += [(about["segments"]["history"][g][name][metric], values[i], users[i]) for g, i in levels.items()]
            if name != "popular":
                versus = about["segment_differences"]["history"]
                wanted += [(found["differences"][name][metric], values - base, users)]
                wanted += [(versus[g][name][metric], (values - base)[i], users[i]) for g, i in levels.items()]
            for cell, part, ids in wanted:
                mean, low, high = mean_ci(part, ids, resamples=200, seed=4)
                assert (cell["mean"], *cell["ci95"]) == pytest.approx((mean, low, high))
                assert cell["users"] == np.isfinite(part).sum()


def test_every_baseline_has_its_differences_in_the_primary_metric(three):
    by_name = {e.name: e for e in three}
    recent = Evaluation("recent", by_name["knn"].per_user.assign(**{"ndcg@10": 0.25}), by_name["knn"].about)
    judging = EvaluationSettings(metrics=tuple(METRICS), resamples=200)
    about = summarise([*three, recent], judging, seed=4)["about"]
    found = about["baseline_differences"]
    assert {name: list(cells["all"]) for name, cells in found.items()} == {
        "popular": ["als", "knn", "recent"],
        "recent": ["popular", "als", "knn"],
    }
    values = by_name["als"].per_user["ndcg@10"].to_numpy() - 0.25
    history = by_name["als"].per_user["n_history"].to_numpy()
    users = np.arange(120, dtype=np.uint64)
    for cell, rows in (
        (found["recent"]["all"]["als"], users >= 0),
        (found["recent"]["history"]["5-19"]["als"], history == 7),
    ):
        mean, low, high = mean_ci(values[rows], users[rows], resamples=200, seed=4)
        assert (cell["mean"], *cell["ci95"]) == pytest.approx((mean, low, high))
        assert cell["users"] == np.isfinite(values[rows]).sum()


def test_each_model_has_its_lead_over_the_next_by_quality(three):
    judging = EvaluationSettings(metrics=tuple(METRICS), resamples=200)
    tables = {e.name: e.per_user["ndcg@10"] for e in three}
    better = Evaluation("better", three[2].per_user.assign(**{"ndcg@10": tables["knn"] + 1}), three[2].about)
    nothing = Evaluation("nothing", three[2].per_user.assign(**{"ndcg@10": np.nan}), three[2].about)
    order = sorted(("popular", "als", "knn"), key=lambda name: -tables[name].mean())
    leads = summarise([nothing, *three, better], judging, seed=4)["about"]["leads"]
    assert list(leads) == ["better", *order[:2]]
    assert leads["better"]["mean"] == pytest.approx((tables["knn"] + 1 - tables[order[0]]).mean())
    values = (tables[order[0]] - tables[order[1]]).to_numpy()
    mean, low, high = mean_ci(values, np.arange(120, dtype=np.uint64), resamples=200, seed=4)
    cell = leads[order[0]]
    assert (cell["mean"], *cell["ci95"]) == pytest.approx((mean, low, high))
    assert cell["users"] == np.isfinite(values).sum()


def test_differences_carry_their_test(three):
    found = summarise(three, EvaluationSettings(metrics=tuple(METRICS), resamples=100))["differences"]
    assert list(found) == ["als", "knn"]
    cells = [cell for model in found.values() for cell in model.values()]
    np.testing.assert_allclose([c["p_holm"] for c in cells], holm_adjust(np.array([c["p"] for c in cells])))
    d = three[1].per_user["ndcg@10"] - three[0].per_user["ndcg@10"]
    assert found["als"]["ndcg@10"]["effect_size"] == pytest.approx(d.mean() / d.std())
    assert found["als"]["ndcg@10"]["detectable"] == pytest.approx(2.8015852 * d.std() / np.sqrt(90))


def test_one_correction_covers_every_model_and_every_baseline(three):
    """als and knn minus popular in each metric, and minus recent in the first one."""
    recent = Evaluation("recent", three[2].per_user.assign(**{"ndcg@10": 0.25}), three[2].about)
    found = summarise([*three, recent], EvaluationSettings(metrics=tuple(METRICS), resamples=100))
    about = found["about"]
    by_recent = {name: about["baseline_differences"]["recent"]["all"][name] for name in ("als", "knn")}
    cells = [cell for model in found["differences"].values() for cell in model.values()] + list(by_recent.values())
    assert about["tests"] == len(cells) == 3 * len(METRICS) + 2
    np.testing.assert_allclose([c["p_holm"] for c in cells], holm_adjust(np.array([c["p"] for c in cells])))
    values = three[1].per_user["ndcg@10"].dropna()
    assert by_recent["als"]["p"] == pytest.approx(stats.ttest_1samp(values, 0.25).pvalue)
    of_popular = about["baseline_differences"]["popular"]["all"]["als"]
    assert of_popular["p_holm"] == found["differences"]["als"]["ndcg@10"]["p_holm"]


def test_without_a_baseline_there_are_no_differences(three):
    found = summarise(three[1:], EvaluationSettings(metrics=tuple(METRICS), resamples=100))
    assert found["differences"] == {}
    assert found["about"]["baseline"] is None


def test_order_of_users_and_of_rows_changes_nothing(three):
    judging = EvaluationSettings(metrics=tuple(METRICS), resamples=100)
    shuffled = [Evaluation(e.name, e.per_user.sample(frac=1, random_state=i), e.about) for i, e in enumerate(three)]
    one, other = summarise(three, judging), summarise(shuffled, judging)
    cells = [
        (one[part][m][x], other[part][m][x]) for part in ("models", "differences") for m in one[part] for x in METRICS
    ]
    for ours, theirs in cells:
        assert ours["ci95"] == pytest.approx(theirs["ci95"])


def test_extras_are_averaged_and_stay_out_of_the_tests():
    rng = np.random.default_rng(1)
    layout = Layout(("popular", "als"), ("ndcg@10",), "popular", (Grouping("g", ("a", "b")),), (), ("novelty",))
    values, codes = rng.random((50, 4)), rng.integers(-1, 2, (50, 1))
    sums = layout.sums(values, codes == [0, 1], np.arange(50, dtype=np.uint64), resamples=100, seed=0)
    found = document(layout, sums, Facts("local", {"ndcg@10": "…"}, {}, {"als": {"coverage": {"value": 0.5}}}))
    assert found["about"]["beyond"]["als"]["novelty"]["mean"] == pytest.approx(values[:, 3].mean())
    assert found["about"]["beyond"]["als"]["coverage"] == {"value": 0.5}
    assert list(found["differences"]["als"]) == ["ndcg@10"]
    assert found["differences"]["als"]["ndcg@10"]["p"] == found["differences"]["als"]["ndcg@10"]["p_holm"]
    b = found["about"]["segment_differences"]["g"]["b"]["als"]["ndcg@10"]
    assert b["mean"] == pytest.approx((values[:, 2] - values[:, 0])[codes[:, 0] == 1].mean())


def test_history_codes():
    np.testing.assert_array_equal(history_codes(np.array([0, 1, 4, 5, 19, 20, 10**6, -1])), [0, 1, 1, 2, 2, 3, 3, -1])


def grouped(values, groups, resamples=400, seed=0):
    columns = np.where(groups[:, None] == np.arange(groups.max() + 1), values[:, None], np.nan)
    return bootstrap_sums(columns, np.arange(len(values), dtype=np.uint64), resamples=resamples, seed=seed)


def test_the_gap_is_between_the_best_and_the_worst_group():
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1, 2], 200)
    values = rng.normal(np.array([0.2, 0.5, 0.3])[groups], 0.1)
    found = gap(grouped(values, groups), np.arange(3), ("a", "b", "c"))
    assert (found["best"], found["worst"]) == ("b", "a")
    assert found["gap"] == pytest.approx(values[groups == 1].mean() - values[groups == 0].mean())
    # Tukey's range for three groups of equal spread: 3.31 / √2 standard errors of a difference
    assert found["ci95"][1] - found["gap"] == pytest.approx(3.31 / np.sqrt(2) * 0.1 * np.sqrt(2 / 200), rel=0.15)


def test_a_gap_needs_two_groups_of_enough_users():
    groups = np.r_[np.zeros(30, dtype=int), np.ones(19, dtype=int)]
    found = gap(grouped(np.random.default_rng(3).random(49), groups), np.arange(2), ("a", "b"))
    assert found == {"gap": None, "ci95": [None, None], "best": None, "worst": None}


def test_the_gap_of_equal_groups_excludes_zero_one_time_in_twenty():
    rng, excluded, simulations = np.random.default_rng(4), 0, 300
    groups = np.repeat(np.arange(5), 60)
    for seed in range(simulations):
        found = gap(grouped(rng.random(300), groups, resamples=200, seed=seed), np.arange(5), tuple("abcde"))
        excluded += found["ci95"][0] > 0
    assert 3 <= excluded <= 29  # 15 expected, ± 3.7
