"""Which model is meant when nobody names one; ``tests/spark/test_spark_saved.py`` opens what both engines write."""

import pytest

from recsys.saved.open_model import default_model


def metrics(primary="ndcg@10", **means):
    """Return the contents of metrics.json; recall@10 orders the models the other way round."""
    models = {
        name: {"ndcg@10": {"mean": mean}, "recall@10": {"mean": None if mean is None else 1 - mean}}
        for name, mean in means.items()
    }
    return {"about": {"primary": primary}, "models": models}


@pytest.mark.parametrize(
    ("primary", "means", "expected"),
    [
        ("ndcg@10", {"popular": 0.9, "als": 0.2, "ease": 0.3}, "ease"),  # a baseline is there to be beaten
        ("recall@10", {"popular": 0.9, "als": 0.2, "ease": 0.3}, "als"),
        ("ndcg@10", {"ease": 0.3, "als": 0.3}, "ease"),
        ("ndcg@10", {"als": None, "ease": 0.0}, "ease"),
        ("ndcg@10", {"als": None, "ease": None}, "als"),
        ("ndcg@10", {"random": 0.1, "recent": 0.5, "popular": 0.4}, "recent"),
    ],
)
def test_the_default_model_is_the_best_by_the_first_metric(primary, means, expected):
    assert default_model(metrics(primary, **means), list(means)) == expected


def test_only_a_model_that_was_kept_is_the_default():
    table = metrics(als=0.2, ease=0.3, popular=0.1)
    assert default_model(table, ["als", "popular"]) == "als"
    assert default_model(table, ["popular"]) == "popular"
