"""What the report tells of a hybrid's choice: read from the saved model, also behind a fallback."""

from datetime import UTC, datetime

import pytest

from recsys.report.run_reader import Run
from recsys.report.sections.choice import choice
from recsys.runfolder import RunFolder

RECORD = {
    "why": "content + 0.5 als against als on other users: +0.0100 [-0.0010, +0.0210]: not shown to help",
    "weights": {"content": 1.0, "als": 0.5},
    "metric": "ndcg@100 on hidden likes",
    "parts": {
        "als": {
            "params": {"rank": 8, "alpha": 3333.3333333333335, "beta": 0.0003, "loss": "bpr"},
            "ndcg@100": 0.2,
            "tried": 3,
        },
        "content": {"params": {}, "ndcg@100": 0.3, "tried": 1},
    },
    "left_out": {"ease": "no room <for> it"},
    "by_history": {"1": {"weights": {"als": 1.0}, "why": "als is better there"}},
    "ablation": {
        "hybrid": 0.31,
        "collaborative": {"part": "als", "mean": 0.2, "hybrid_minus_it": {"mean": 0.11, "low": 0.05, "high": 0.17}},
        "content": {"part": "content", "mean": 0.3, "hybrid_minus_it": {"mean": 0.01, "low": -0.01, "high": 0.03}},
        "shuffled": {"mean": 0.25, "minus_collaborative": {"mean": 0.05, "low": 0.01, "high": 0.09}},
    },
}


def told(place, record, where):
    with RunFolder.writing(place) as folder:
        folder.write_json(
            "metrics.json",
            {
                "models": {name: {"ndcg@10": {"mean": 0.1}} for name in ("popular", "mine")},
                "about": {"primary": "ndcg@10"},
            },
        )
        (folder.path / where).parent.mkdir(parents=True)
        folder.write_json(where, {"record": record})
        folder.write_manifest(seed=0, inputs={}, hops=[], started=datetime.now(UTC))
    return choice(Run(RunFolder.open(place)))


@pytest.mark.parametrize("where", ["model/mine/model.json", "model/mine/mine/model.json"])
def test_weights_reasons_ablation_and_warnings(tmp_path, where):
    section = told(tmp_path / "run", RECORD, where)
    text = " ".join(section.paragraphs)
    assert "mine is 1 content + 0.5 als" in text
    assert "users with 2 to 4 likes: als is better there" in text
    ablation, parts = section.tables
    assert [row[0] for row in ablation.rows] == [
        "hybrid", "collaborative: als", "content: content", "hybrid, features shuffled",
    ]  # fmt: skip
    assert ablation.rows[1][2] == "+0.1100 [+0.0500, +0.1700]"
    assert [row[0] for row in parts.rows] == ["content", "als"]
    assert parts.rows[1][1] == "rank 8, alpha 3333.33, beta 0.0003, loss bpr"
    assert len(section.warnings) == 3  # no better than content, gains from shuffled features, a part left out
    assert any("no room <for> it" in warning for warning in section.warnings)


def test_a_choice_without_a_trial_has_no_tables(tmp_path):
    section = told(
        tmp_path / "run",
        {"why": "only 3 users", "weights": {"content": 1.0}, "parts": {}, "left_out": {}},
        "model/mine/model.json",
    )
    assert not section.tables
    assert "only 3 users" in section.paragraphs[0]


def test_a_run_without_a_hybrid_has_no_such_section(tmp_path):
    assert told(tmp_path / "run", None, "model/mine/model.json") is None
