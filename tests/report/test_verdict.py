import pytest

from recsys.report.sections.verdict import verdict


def cell(mean, low, high, users=100, p_holm=0.001):
    return {"mean": mean, "ci95": [low, high], "users": users, "p_holm": p_holm}


def metrics(overall, counts=None, **history):
    """What metrics.json says of als against recent, the best baseline; ``history``: level -> difference."""
    levels = {"0": cell(None, None, None, 0), "1-4": cell(0.3, 0.2, 0.4, 3), **history}
    means = {"popular": 0.1, "recent": 0.2, "als": 0.25, "ease": 0.24}
    wrong = cell(9.0, 9.0, 9.0)
    return {
        "models": {name: {"ndcg@10": cell(mean, mean - 0.1, mean + 0.1)} for name, mean in means.items()},
        "about": {
            "primary": "ndcg@10",
            "baseline": "popular",
            "counts": dict.fromkeys(means, counts or {}),
            "baseline_differences": {
                "popular": {"all": {"als": wrong, "recent": wrong, "ease": wrong}, "history": {}},
                "recent": {
                    "all": {"als": overall, "popular": wrong, "ease": wrong},
                    "history": {level: {"als": found, "ease": wrong} for level, found in levels.items()},
                },
            },
        },
    }


BETTER, WORSE, EITHER = cell(0.05, 0.04, 0.06), cell(-0.05, -0.06, -0.04), cell(0.05, -0.1, 0.2)
BEATS = "als beats the best baseline, recent, by +0.0500 ndcg@10 [+0.0400, +0.0600] over 100 users."


@pytest.mark.parametrize(
    ("overall", "history", "expected"),
    [
        (BETTER, {}, BEATS),
        (
            WORSE,
            {"20+": WORSE},
            "als, the best model, is worse than the baseline recent:"
            " -0.0500 ndcg@10 [-0.0600, -0.0400] over 100 users.",
        ),
        (
            EITHER,
            {"5-19": WORSE, "20+": BETTER},
            "No difference shown between als, the best model, and recent, the best baseline:"
            " +0.0500 ndcg@10 [-0.1000, +0.2000] over 100 users."
            " By items in the user's history: better for 20+; worse for 5-19.",
        ),
        (
            BETTER,
            {"0": EITHER, "5-19": BETTER, "20+": BETTER},
            f"{BEATS} By items in the user's history: better for 5-19 and 20+; no difference shown for 0.",
        ),
    ],
)
def test_the_sentence(overall, history, expected):
    assert verdict(metrics(overall, **history)) == expected


def test_a_difference_that_the_correction_takes_away_is_not_said_to_be_shown():
    values = metrics(BETTER | {"p_holm": 0.2076})
    values["about"]["tests"] = 12
    assert verdict(values) == (
        "No difference shown between als, the best model, and recent, the best baseline, after correction for 12"
        " comparisons (p = 0.2076): +0.0500 ndcg@10 [+0.0400, +0.0600] over 100 users."
    )
    assert verdict(metrics(BETTER | {"p_holm": 0.049})) == BEATS


@pytest.mark.parametrize("shown", [BETTER, WORSE])
def test_an_older_run_says_that_the_interval_alone_decides(shown):
    older = {key: value for key, value in shown.items() if key != "p_holm"}
    addition = ", by the interval alone (this older run has no p-value corrected for all comparisons)."
    assert verdict(metrics(older)) == verdict(metrics(shown)).removesuffix(".") + addition


def test_repeats_and_items_out_of_reach_are_said_when_they_are_more_than_a_twentieth():
    few = {"relevant_pairs": 95, "seen_pairs_removed": 5, "relevant_outside_candidates": 4}
    assert verdict(metrics(BETTER, few)) == BEATS
    many = {"relevant_pairs": 90, "seen_pairs_removed": 30, "relevant_outside_candidates": 9}
    assert verdict(metrics(BETTER, many)) == (
        f"{BEATS} 25% of what the tested users chose they had chosen before: lists leave such repeats out, so they are"
        " not judged ([recommend] exclude_seen = false judges them, beside the"
        " baseline repeat). 10% of the judged choices are items that are not"
        " candidates, so no model could recommend them."
    )


def test_without_a_baseline_or_without_a_model_there_is_nothing_to_compare():
    alone = metrics(BETTER)
    alone["about"]["baseline_differences"] = {}
    assert verdict(alone) == "als reaches ndcg@10 = 0.2500 [0.1500, 0.3500]; there is no baseline to compare it with."
    baselines = metrics(BETTER)
    del baselines["models"]["als"], baselines["models"]["ease"]
    assert verdict(baselines) == (
        "recent reaches ndcg@10 = 0.2000 [0.1000, 0.3000]; the run has no model besides the baselines."
    )


@pytest.mark.parametrize(
    ("overall", "expected"),
    [
        (BETTER, None),
        (WORSE, "Repeat purchases: to list what each user had most often before is better than every model."),
        (
            EITHER,
            "Repeat purchases: no model is shown to be better than to list what each user had most often before.",
        ),
    ],
)
def test_repeat_purchases_are_named_where_no_model_beats_them(overall, expected):
    """``repeat`` in the place of ``recent``."""
    values = metrics(overall)
    values["models"]["repeat"] = values["models"].pop("recent")
    about = values["about"]
    about["counts"]["repeat"] = about["counts"].pop("recent")
    about["baseline_differences"]["repeat"] = about["baseline_differences"].pop("recent")
    sentence = verdict(values)
    assert "repeat" in sentence
    assert ("Repeat purchases" in sentence) is (expected is not None)
    assert expected is None or expected in sentence


@pytest.mark.parametrize(("newcomers", "is_said"), [(141, True), (43, True), (42, False), (0, False)])
def test_many_users_without_a_history_are_said(newcomers, is_said):
    """More than a quarter of 168 judged users are more than 42."""
    of_run = metrics(BETTER, {"evaluated": 168})
    of_run["about"]["segments"] = {"history": {"0": {"als": {"ndcg@10": cell(0.1, 0.0, 0.2, newcomers)}}}}
    sentence = f" {newcomers} of the 168 judged users ({newcomers / 168:.0%}) have no history:"
    assert (sentence in verdict(of_run)) == is_said
    assert ("a hybrid serves them itself if one of its parts needs none" in verdict(of_run)) == is_said
