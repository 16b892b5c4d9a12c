"""The tables of results, from the contents of metrics.json: order, bold, leads, baselines, small groups."""

import pytest

from recsys.report.parts import best_places
from recsys.report.run_reader import Run
from recsys.report.sections import results
from recsys.runfolder import RunFolder


def cell(mean, users=100):
    ends = [None, None] if mean is None else [mean - 0.1, mean + 0.1]
    return {"mean": mean, "ci95": ends, "users": users}


NDCG = {"popular": 0.2, "als": 0.3, "none": None, "ease": 0.4}
RECALL = {"popular": 0.1, "als": 0.7, "none": None, "ease": 0.5}
LEADS = {"ease": cell(0.1), "als": cell(0.11)}


@pytest.fixture
def run(tmp_path):
    groups = {"0": {"popular": 0.3, "als": 0.1, "none": None, "ease": 0.2}, "1-4": NDCG, "5-19": NDCG, "20+": NDCG}
    users = {"0": 100, "1-4": 19, "5-19": 20, "20+": 0}
    history = {
        level: {name: {"ndcg@10": cell(mean, users[level])} for name, mean in means.items()}
        for level, means in groups.items()
    }
    no_gap = {"gap": None}
    found = Run(RunFolder(tmp_path))
    found.__dict__["metrics"] = {
        "models": {name: {"ndcg@10": cell(NDCG[name]), "recall@10": cell(RECALL[name])} for name in NDCG},
        "differences": {},
        "about": {
            "engine": "local",
            "primary": "ndcg@10",
            "baseline": "popular",
            "definitions": {"ndcg@10": "gain", "recall@10": "share"},
            "baseline_differences": {"popular": {"all": {}, "history": {}}},
            "leads": LEADS,
            "segments": {"history": history},
            "segment_differences": {"history": {level: {} for level in history}},
            "gaps": {"history": {name: {"ndcg@10": no_gap} for name in NDCG}},
        },
    }
    (tmp_path / "config.toml").write_text("[data]\nevents = 'e.csv'\n")
    return found


def test_the_best_model_is_first_and_one_without_a_mean_is_last(run):
    (table,) = results.models(run).tables
    assert [row[0] for row in table.rows] == ["ease", "als", "popular", "none"]


def test_the_best_of_each_metric_is_bold_and_so_is_the_best_model(run):
    (table,) = results.models(run).tables
    bold = {(table.rows[row][0], table.heads[column]) for row, column in table.bold}
    assert bold == {("ease", "model"), ("ease", "ndcg@10"), ("als", "recall@10")}


def test_the_lead_over_the_next_model_is_beside_the_first_metric(run):
    (table,) = results.models(run).tables
    assert table.heads == ["model", "ndcg@10", "lead over the next", "recall@10"]
    assert [row[2] for row in table.rows] == ["+0.1000 [+0.0000, +0.2000]", "+0.1100 [+0.0100, +0.2100]", "–", "–"]


def test_a_run_of_an_older_version_has_no_leads(run):
    del run.metrics["about"]["leads"]
    (table,) = results.models(run).tables
    assert table.heads == ["model", "ndcg@10", "recall@10"]


def test_baselines_are_marked(run):
    (table,) = results.models(run).tables
    assert table.notes == {"popular": "baseline"}


def test_groups_of_fewer_than_twenty_users_are_folded(run):
    section = results.segments(run)
    (table,) = section.tables
    assert [row[0] for row in table.rows] == ["0", "5-19", "largest gap"]
    (fold,) = section.details
    assert fold.summary == "Groups of fewer than 20 users: 1"
    assert not fold.is_open
    assert [row[:2] for row in fold.tables[0].rows] == [["1-4", "19"]]


def test_the_best_model_of_each_group_is_bold(run):
    (table,) = results.segments(run).tables
    assert {(table.rows[row][0], table.heads[column]) for row, column in table.bold} == {
        ("0", "popular"),
        ("5-19", "ease"),
    }


def test_the_best_places_are_all_of_equal_means():
    assert best_places([0.1, None, 0.3, 0.3]) == [2, 3]
    assert best_places([None, None]) == []
