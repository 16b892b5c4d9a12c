"""Which to pick: by hand, and by simulation with known truth."""

import numpy as np
import pandas as pd
import pytest

from recsys.evaluation.testing.choose import broken_guardrails, choose_model, mean_agreement, most_changed_users
from recsys.evaluation.testing.compare import compare
from recsys.evaluation.testing.significance import users_needed
from recsys.types import Evaluation

PAIRS, PAIRS_AT_ONCE, USERS = 2_000, 20, 250


def judged(name, values):
    """Return an evaluation: float64[users] or, a column a pair of models, [users, pairs]."""
    values = values if values.ndim == 2 else values[:, None]
    names = [f"pair{column}" for column in range(values.shape[1])] if values.shape[1] > 1 else ["ndcg@10"]
    table = pd.DataFrame(values, columns=names)
    table.insert(0, "user_id", np.arange(len(values)))
    return Evaluation(name, table, {"definitions": dict.fromkeys(names, "")})


def p_values(shift, seed):
    """The p-value of each pair of models with many zeros, as NDCG has; the second is better by ``shift``.

    A comparison makes 100 sign assignments per test, so that the time of one grows with the square of its pairs.
    """
    rng = np.random.default_rng(seed)
    level = np.where(rng.random((USERS, PAIRS)) < 0.4, 0.0, rng.random((USERS, PAIRS)))
    one, two = (level + rng.normal(0, 0.1, level.shape) for _ in range(2))
    comparisons = [
        compare([judged("a", one[:, part]), judged("b", two[:, part] + shift)], resamples=999, seed=start)
        for start in range(0, PAIRS, PAIRS_AT_ONCE)
        for part in [slice(start, start + PAIRS_AT_ONCE)]
    ]
    p = np.concatenate([comparison.differences["p"] for comparison in comparisons])
    assert len(p) == PAIRS
    return p


@pytest.mark.slow
def test_equal_models_are_told_apart_in_five_percent():
    assert 69 <= (p_values(0.0, 0) <= 0.05).sum() <= 133


@pytest.mark.slow
def test_power_is_what_the_sample_size_formula_says():
    sd = 0.1 * np.sqrt(2)
    shift = next(size for size in np.arange(0.001, 0.1, 0.0005) if users_needed(sd, size) <= USERS)
    assert (p_values(shift, 2) <= 0.05).mean() == pytest.approx(0.8, abs=0.025)


def three(shift_b, shift_c, seed=3):
    rng = np.random.default_rng(seed)
    base = rng.random(400)
    models = [judged("old", base)]
    models += [judged(n, base + rng.normal(s, 0.1, 400)) for n, s in (("b", shift_b), ("c", shift_c))]
    return compare(models, baseline="old", seed=1)


def test_the_better_one_is_picked():
    found = choose_model(three(0.05, 0.02), "old", "ndcg@10", {})
    assert (found.pick, found.conclusive) == ("b", True)
    assert found.reasons[0].startswith("b is shown to be better than old: ndcg@10")
    assert "Also shown to be better than old: c." in found.reasons


def test_nothing_shown_keeps_the_incumbent():
    found = choose_model(three(0.002, -0.05), "old", "ndcg@10", {})
    assert (found.pick, found.conclusive) == ("old", False)
    assert "b: no difference is shown" in found.reasons[0]
    assert "with 80 % power; detecting +0.00" in found.reasons[0]
    assert "c is worse" in found.reasons[1]
    assert found.reasons[-1].startswith("Keep old")


def test_a_model_like_the_incumbent_is_no_reason_to_change():
    same = judged("old", np.arange(50.0) % 7)
    found = choose_model(compare([same, judged("b", np.arange(50.0) % 7)], baseline="old"), "old", "ndcg@10", {})
    assert found.reasons[0] == "b and the incumbent do not differ in ndcg@10."


def test_a_broken_guardrail_turns_the_choice_to_the_next():
    guards = {"old": {"coverage": 0.5, "ms_per_user": 1.0}, "b": {"coverage": 0.1}, "c": {"coverage": 0.5}}
    assert choose_model(three(0.05, 0.03), "old", "ndcg@10", guards).pick == "c"
    alone = choose_model(three(0.05, -0.03), "old", "ndcg@10", guards)
    assert (alone.pick, alone.conclusive) == ("b", False)
    assert any("coverage 0.5 -> 0.1 (0.20 times" in reason for reason in alone.reasons)


def test_guardrails_have_a_side():
    old = {"coverage": 0.5, "tail_share": 0.2, "ms_per_user": 1.0, "peak_mb": 100.0}
    assert broken_guardrails(old, {"coverage": 0.9, "tail_share": 0.9, "ms_per_user": 0.1, "peak_mb": 10.0}) == []
    worse = broken_guardrails(old, {"coverage": 0.3, "tail_share": 0.1, "ms_per_user": 3.0, "peak_mb": 300.0})
    assert [text.split()[0] for text in worse] == ["coverage", "tail_share", "ms_per_user", "peak_mb"]
    assert broken_guardrails(old, {"coverage": 0.41}) == []
    assert broken_guardrails({}, {"coverage": 0.0}) == broken_guardrails({"coverage": 0.0}, {"coverage": 0.0}) == []


def lists(rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])


def test_who_changed_most_by_hand():
    a, b = judged("a", np.array([0.5, 0.2, 0.9, 0.1])), judged("b", np.array([0.5, 0.9, 0.2, np.nan]))
    ours = lists([(u, 7, 1) for u in range(4)])
    theirs = lists([(0, 7, 1), (1, 7, 1), (2, 8, 1)])
    found = most_changed_users(a, b, "ndcg@10", {"a": ours, "b": theirs})
    assert found["user_id"].tolist() == ["2", "1", "0"], (
        "equal changes: fewer items in common first; undefined: left out"
    )
    assert found["overlap"].tolist() == [0.0, 1.0, 1.0]


def test_agreement_of_two():
    found = mean_agreement({"a": lists([(0, 7, 1), (0, 8, 2)]), "b": lists([(0, 8, 1), (0, 7, 2)])})
    assert found[["a", "b", "users", "overlap", "tau_b"]].values.tolist() == [["a", "b", 1, 1.0, -1.0]]
