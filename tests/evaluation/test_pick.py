"""The pick of a run, by hand."""

import pytest

from recsys.evaluation.testing.pick import difference_outcome, models_by_quality, pick_model

BETTER, WORSE, EITHER = ([0.01, 0.02], [-0.02, -0.01], [-0.01, 0.01])


def metrics(means, intervals):
    """What metrics.json says; ``intervals``: (model, baseline) -> interval of the difference."""
    names = {baseline for _, baseline in intervals}
    differences = {
        baseline: {
            "all": {m: {"mean": 0.0, "ci95": ends, "users": 50} for (m, b), ends in intervals.items() if b == baseline},
            "history": {},
        }
        for baseline in names
    }
    return {
        "models": {
            name: {"ndcg@10": {"mean": mean}, "recall@10": {"mean": -(mean or 0)}} for name, mean in means.items()
        },
        "about": {"primary": "ndcg@10", "baseline": "popular", "baseline_differences": differences},
    }


@pytest.mark.parametrize(
    ("means", "ends", "expected"),
    [
        # The best baseline is not the one that the settings name.
        ({"popular": 0.043, "recent": 0.0946, "ease": 0.0941, "als": 0.09}, EITHER, ("ease", "recent", "recent")),
        ({"popular": 0.043, "recent": 0.0946, "ease": 0.0951, "als": 0.09}, EITHER, ("ease", "recent", "ease")),
        ({"popular": 0.043, "recent": 0.0946, "ease": 0.2, "als": 0.3}, BETTER, ("als", "recent", "als")),
        ({"popular": 0.3, "recent": 0.0946, "ease": 0.2, "als": 0.1}, WORSE, ("ease", "popular", "popular")),
        # At equal means the baseline is simpler.
        ({"popular": 0.3, "recent": 0.3, "ease": 0.3, "als": 0.1}, EITHER, ("ease", "popular", "popular")),
        ({"popular": None, "recent": None, "ease": None, "als": 0.1}, BETTER, ("als", None, "als")),
        ({"popular": None, "recent": None, "ease": None, "als": None}, BETTER, (None, None, None)),
    ],
)
def test_the_best_model_the_best_baseline_and_the_one_to_take(means, ends, expected):
    pairs = {(model, baseline): ends for model in ("ease", "als") for baseline in ("popular", "recent")}
    pick = pick_model(metrics(means, pairs))
    assert (pick.model, pick.baseline, pick.name) == expected
    outcomes = {0.01: "better", -0.02: "worse", -0.01: "no difference shown"}
    assert pick.outcome == (outcomes[ends[0]] if None not in expected else None)


def test_only_models_that_the_run_has_kept_are_picked():
    means = {"popular": 0.1, "recent": 0.4, "ease": 0.2, "als": 0.3}
    pairs = {(model, baseline): BETTER for model in ("ease", "als") for baseline in ("popular", "recent")}
    assert pick_model(metrics(means, pairs), ["ease", "popular"]).name == "ease"
    assert pick_model(metrics(means, pairs), ["popular", "recent"]).name == "recent"


def test_a_run_of_0_1_0_has_the_baseline_of_its_settings_alone():
    old = metrics({"popular": 0.1, "recent": 0.4, "ease": 0.2}, {})
    del old["about"]["baseline_differences"]
    old["differences"] = {name: {"ndcg@10": {"mean": 0.1, "ci95": BETTER, "users": 9}} for name in ("recent", "ease")}
    old["about"]["segment_differences"] = {"history": {"0": old["differences"]}}
    pick = pick_model(old)
    assert (pick.model, pick.baseline, pick.outcome) == ("ease", "popular", "better")
    assert pick.by_history["0"]["users"] == 9


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([0.0, 0.01], "no difference shown"),
        ([-0.01, 0.0], "no difference shown"),
        ([None, None], "no difference shown"),
        ([1e-9, 0.01], "better"),
        ([-0.01, -1e-9], "worse"),
    ],
)
def test_an_interval_that_touches_0_shows_no_difference(ends, expected):
    assert difference_outcome({"ci95": ends}) == expected


@pytest.mark.parametrize(
    ("ends", "p", "expected"),
    [
        (BETTER, 0.05, "better"),
        (BETTER, 0.0501, "no difference shown"),
        (WORSE, 0.0501, "no difference shown"),
        (EITHER, 0.01, "no difference shown"),
        (BETTER, None, "better"),
    ],
)
def test_a_difference_is_shown_by_its_interval_and_its_corrected_p_value_together(ends, p, expected):
    assert difference_outcome({"ci95": ends, "p_holm": p}) == expected


def test_models_are_ordered_by_quality_and_those_without_a_mean_are_last():
    means = {"none": None, "a": 0.1, "zero": 0.0, "b": 0.3, "also b": 0.3, "below": -0.1}
    assert models_by_quality(means) == ["b", "also b", "a", "zero", "below", "none"]
