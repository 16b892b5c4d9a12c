import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys.errors import InputError
from recsys.evaluation.testing.compare import compare
from recsys.types import Evaluation


def evaluation(name, values, users=None, metrics=("ndcg@10",)):
    values = np.asarray(values, dtype=float).reshape(len(values), -1)
    per_user = pd.DataFrame({"user_id": np.arange(len(values)) if users is None else users})
    per_user[list(metrics)] = values
    return Evaluation(name, per_user, {"definitions": dict.fromkeys(metrics, "…"), "counts": {}})


def row(comparison, model, against, metric="ndcg@10"):
    d = comparison.differences
    return d[(d["model"] == model) & (d["against"] == against) & (d["metric"] == metric)].iloc[0]


@pytest.fixture
def models():
    rng = np.random.default_rng(0)
    base = rng.random((80, 2)) / 2
    lift = rng.normal(0.1, 0.05, (80, 2))
    return {
        "popular": base,
        "same": base + rng.normal(0, 0.05, (80, 2)),
        "better": base + lift,
        "best": base + lift + np.array([0.1, 0.0]) + rng.normal(0, 0.01, (80, 2)),
    }


def test_letters_name_those_that_a_model_beats(models):
    metrics = ("ndcg@10", "recall@10")
    found = compare([evaluation(n, v, metrics=metrics) for n, v in models.items()], seed=1).table()
    assert list(found.index) == ["a popular", "b same", "c better", "d best"]
    assert [cell.split()[1:] for cell in found["ndcg@10"]] == [[], [], ["ab"], ["abc"]]
    assert [cell.split()[1:] for cell in found["recall@10"]] == [[], [], ["ab"], ["ab"]]
    assert found.loc["a popular", "ndcg@10"].startswith(f"{models['popular'][:, 0].mean():.4f}")


def test_with_a_baseline_only_it_is_compared_with(models):
    found = compare([evaluation(n, v[:, 0]) for n, v in models.items()], baseline="same")
    assert list(found.differences["model"]) == ["popular", "better", "best"]
    assert set(found.differences["against"]) == {"same"}
    assert list(found.table()["ndcg@10"].str.split().str[1:].str.join("")) == ["", "", "b", "b"]


def test_a_worse_model_gives_its_letter_to_the_other(models):
    found = compare([evaluation("good", models["better"][:, 0]), evaluation("bad", models["popular"][:, 0])])
    assert row(found, "bad", "good").difference < 0
    assert found.table()["ndcg@10"].iloc[0].endswith(" b")


def test_the_numbers_are_those_of_scipy(models):
    a, b = models["same"][:, 0], models["popular"][:, 0]
    both = compare([evaluation("popular", b), evaluation("same", a)], resamples=9999, method="bca")
    found = row(both, "same", "popular")
    theirs = stats.bootstrap((a - b,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(1))
    assert found.difference == pytest.approx((a - b).mean())
    np.testing.assert_allclose([found.low, found.high], theirs.confidence_interval, atol=1e-3)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.03)
    assert found.effect_size == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert found.p_holm == found.p


def test_users_are_paired_by_id_not_by_row(models):
    a, b = models["better"][:, 0], models["popular"][:, 0]
    order = np.random.default_rng(2).permutation(80)
    straight = compare([evaluation("b", b), evaluation("a", a)])
    mixed = compare([evaluation("b", b), evaluation("a", a[order], users=np.arange(80)[order])])
    pd.testing.assert_frame_equal(straight.differences, mixed.differences)


def test_folds_are_paired_per_fold_and_a_user_counts_once():
    # user 0 is tested in both folds: differences .2 and .4 -> .3; users 1 and 2 in one each
    one = [evaluation("x", [0.1, 0.1], users=[0, 1]), evaluation("x", [0.5, 0.5], users=[0, 2])]
    two = [evaluation("y", [0.3, 0.2], users=[0, 1]), evaluation("y", [0.9, 0.5], users=[0, 2])]
    found = row(compare([one[0], two[0], one[1], two[1]]), "y", "x")
    assert found.difference == pytest.approx((0.3 + 0.1 + 0.0) / 3)
    assert found.users == 3
    assert found.folds == pytest.approx([(0.2 + 0.1) / 2, (0.4 + 0.0) / 2])


def test_undefined_in_one_model_leaves_the_user_out_of_the_pair():
    found = compare([evaluation("x", [0.1, np.nan, 0.5]), evaluation("y", [0.3, 0.9, 0.5])])
    assert row(found, "y", "x").difference == pytest.approx(0.1)
    assert row(found, "y", "x").users == 2
    assert found.means.loc["y", "ndcg@10"] == pytest.approx(1.7 / 3)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "needs two models; it was given x"),
        ([evaluation("y", [1, 1], metrics=("map@5",))], "metrics differ"),
        ([evaluation("y", [1, 1], users=[0, 7])], "2 users were judged for one of them only"),
        ([evaluation("y", [1, 1]), evaluation("y", [1, 1])], "x has 1 folds, y has 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(others, message):
    with pytest.raises(InputError, match=message):
        compare([evaluation("x", [1, 1]), *others])


def test_a_misspelt_baseline_is_refused():
    with pytest.raises(InputError, match="Did you mean 'popular'"):
        compare([evaluation("popular", [1, 1]), evaluation("als", [1, 1])], baseline="populer")


@pytest.mark.slow
def test_a_large_family_of_tests_can_still_show_a_difference():
    rng = np.random.default_rng(0)
    base = rng.random((200, 6))
    evaluations = [
        evaluation(f"m{number}", base + number + rng.normal(0, 0.05, (200, 6)), metrics=tuple("abcdef"))
        for number in range(12)
    ]
    assert (compare(evaluations).differences["p_holm"] <= 0.01).all()


@pytest.mark.slow
def test_equal_models_seldom_get_letters():
    """200 comparisons of four equal models: a letter anywhere in at most 5 % of them (Holm), four errors allowed."""
    rng = np.random.default_rng(3)
    wrong = 0
    for seed in range(200):
        base = rng.random(60)
        found = compare([evaluation(n, base + rng.normal(0, 0.1, 60)) for n in "wxyz"], resamples=499, seed=seed)
        wrong += (found.differences["p_holm"] <= 0.05).any()
    assert wrong <= 10 + 4 * np.sqrt(200 * 0.05 * 0.95)
