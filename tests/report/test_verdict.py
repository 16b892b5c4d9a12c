import pytest

from recsys.report.sections.verdict import verdict


def cell(mean, low, high, users=100):
    return {"mean": mean, "ci95": [low, high], "users": users}


def metrics(overall, **history):
    """What metrics.json says of als against popular; ``history``: level -> difference."""
    levels = {"0": cell(None, None, None, 0), "1-4": cell(0.3, 0.2, 0.4, 3), **history}
    return {
        "models": {"popular": {"ndcg@10": cell(0.2, 0.1, 0.3)}, "als": {"ndcg@10": cell(0.25, 0.2, 0.3)}},
        "differences": {"als": {"ndcg@10": overall}},
        "about": {
            "primary": "ndcg@10",
            "baseline": "popular",
            "segment_differences": {"history": {level: {"als": {"ndcg@10": found}} for level, found in levels.items()}},
        },
    }


BETTER, WORSE, EITHER = cell(0.05, 0.04, 0.06), cell(-0.05, -0.06, -0.04), cell(0.05, -0.1, 0.2)


@pytest.mark.parametrize(
    ("overall", "history", "expected"),
    [
        (BETTER, {}, "als beats popular by +0.0500 ndcg@10 [+0.0400, +0.0600] over 100 users."),
        (WORSE, {"20+": WORSE}, "als is worse than popular: -0.0500 ndcg@10 [-0.0600, -0.0400] over 100 users."),
        (
            EITHER,
            {"5-19": WORSE, "20+": BETTER},
            "No difference shown between als and popular: +0.0500 ndcg@10 [-0.1000, +0.2000] over 100 users."
            " By items in the user's history: better for 20+; worse for 5-19.",
        ),
        (
            BETTER,
            {"0": EITHER, "5-19": BETTER, "20+": BETTER},
            "als beats popular by +0.0500 ndcg@10 [+0.0400, +0.0600] over 100 users."
            " By items in the user's history: better for 5-19 and 20+; no difference shown for 0.",
        ),
    ],
)
def test_the_sentence(overall, history, expected):
    assert verdict(metrics(overall, **history)) == expected
