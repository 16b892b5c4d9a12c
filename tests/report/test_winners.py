"""Which model is best for whom, from the contents of metrics.json."""

from recsys.report.winners import RARE_ITEMS, best_models


def cell(mean, users=100):
    return {"ndcg@10": {"mean": mean, "ci95": [None, None], "users": users}}


def metrics(**segments):
    return {"about": {"primary": "ndcg@10", "segments": segments}}


def test_the_best_model_of_each_group_is_named_with_its_mean():
    history = {"0": {"popular": cell(0.1), "als": cell(0.05)}, "20+": {"popular": cell(0.2), "als": cell(0.3)}}
    tail = {"tail": {"popular": cell(0.0), "als": cell(0.01)}}
    best = best_models(metrics(history=history, popularity=tail))
    assert best == {"0": ("popular", 0.1), "20+": ("als", 0.3), RARE_ITEMS: ("als", 0.01)}


def test_a_group_of_few_users_or_without_a_mean_names_nobody():
    history = {
        "0": {"popular": cell(0.1, users=19)},
        "1-4": {"popular": cell(None)},
        "5-19": {"popular": cell(0.1, users=20)},
    }
    assert best_models(metrics(history=history)) == {"5-19": ("popular", 0.1)}


def test_the_first_of_equal_models_is_named():
    assert best_models(metrics(history={"0": {"a": cell(0.1), "b": cell(0.1)}})) == {"0": ("a", 0.1)}
