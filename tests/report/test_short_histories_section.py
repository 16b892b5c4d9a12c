"""The section on users with short histories: a length with too few users to compare is folded."""

from types import SimpleNamespace

import pytest

from recsys.report.sections import short_histories

DIFFERENCE = {"mean": -0.1, "low": -0.2, "high": -0.05}
GROUPS = [
    {"history": "0-1", "users": 14, "difference": None},
    {"history": "2-4", "users": 41, "model": 0.1, "fallback": 0.2, "difference": DIFFERENCE},
    {"history": "20+", "users": 0, "difference": None},
]


@pytest.fixture
def section(monkeypatch):
    record = {"min_history": 5, "metric": "ndcg@10 on hidden likes", "groups": GROUPS}
    monkeypatch.setattr(short_histories, "saved_models", lambda folder: ["als"])
    monkeypatch.setattr(short_histories, "read_min_history", lambda folder, name: record)
    config = SimpleNamespace(recommend=SimpleNamespace(fallback="recent"))
    return short_histories.short_histories(SimpleNamespace(folder=None, config=config))


def test_lengths_with_a_difference_are_in_the_table(section):
    assert [table.rows for table in section.tables] == [
        [["2-4", "41", "0.1000", "0.2000", "-0.1000 [-0.2000, -0.0500]"]]
    ]


def test_a_length_with_too_few_users_is_folded_and_one_without_users_is_left_out(section):
    (fold,) = section.details
    assert [table.rows for table in fold.tables] == [[["0-1", "14", "–", "–", "–"]]]
