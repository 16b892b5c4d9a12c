"""``repeat`` inside runs: both engines make equal lists of what each user had, and judge them alike."""

import numpy as np
import pandas as pd
import pytest
from builders import ENGINES

from recsys.runfolder import RunFolder

pytestmark = pytest.mark.spark
RULES = 'deny = ["i03"]\n\n[deny_for]\nu01 = ["i01", "i05"]\n'


@pytest.fixture(scope="module")
def bought(tmp_path_factory):
    """A log of repeat purchases with times: 40 users, 14 items, some returned (below 0), some users once."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(40):
        own = rng.choice(14, size=4, replace=False)
        for _ in range(2 if user % 10 == 0 else 25):
            value = -1.0 if rng.random() < 0.1 else float(rng.integers(1, 4))
            rows.append((f"u{user:02}", f"i{rng.choice(own):02}", value, int(rng.integers(0, 100 * 86_400))))
    path = tmp_path_factory.mktemp("bought") / "events.csv"
    pd.DataFrame(rows, columns=["user_id", "item_id", "value", "timestamp"]).to_csv(path, index=False)
    return path


SECTIONS = {
    "what was seen is listed": {
        "split": {"rule": "users", "share": 0.4, "history": 0.6},
        "weigh": {"half_life_days": 30.0},
        "models": {"popular": {}},
        "recommend": {"k": 6, "exclude_seen": False, "rules": "rules.toml"},
    },
    "without times, and asked for where what was seen is left out": {
        "split": {"rule": "fraction", "test": 0.3},
        "models": {"recent": {}, "repeat": {}},
        "recommend": {"k": 6},
    },
}


@pytest.mark.parametrize("case", SECTIONS)
def test_lists_and_metrics_are_equal(spark, bought, tmp_path, case):
    sections = dict(SECTIONS[case])
    if "rules" in sections["recommend"]:
        (tmp_path / "rules.toml").write_text(RULES)
        sections["recommend"] = sections["recommend"] | {"rules": str(tmp_path / "rules.toml")}
    events = bought
    if sections["split"]["rule"] == "fraction":
        events = tmp_path / "untimed.csv"
        pd.read_csv(bought).drop(columns="timestamp").to_csv(events, index=False)
    runs = {}
    for engine, run in ENGINES.items():
        judge = {"metrics": ["ndcg@3", "recall@3"], "resamples": 100}
        run(sections | {"out": str(tmp_path / engine), "data": {"events": str(events)}, "judge": judge})
        runs[engine] = RunFolder.open(tmp_path / engine)
    metrics = {engine: run.read_json("metrics.json")["models"] for engine, run in runs.items()}
    assert list(metrics["spark"]) == list(metrics["local"])
    assert {"repeat", *sections["models"]} <= set(metrics["local"])
    for model in metrics["local"]:
        local, large = (
            run.read_table(f"topk/{model}.parquet").sort_values(["user_id", "rank"], ignore_index=True)
            for run in runs.values()
        )
        pd.testing.assert_frame_equal(local, large, rtol=1e-6)
        for metric, cell in metrics["local"][model].items():
            assert metrics["spark"][model][metric]["mean"] == pytest.approx(cell["mean"], abs=1e-9), (model, metric)
            assert metrics["spark"][model][metric]["users"] == cell["users"]
    lists = runs["spark"].read_table("topk/repeat.parquet")
    history = runs["spark"].read_table("split/history.parquet").query("value > 0")
    had = lists.merge(history, on=["user_id", "item_id"])
    # What the user had stands first, and only where lists may name it.
    assert (had["score"] > 0).all()
    assert len(had) == (lists["score"] > 0).sum()
    assert (len(had) > 0) == (sections["recommend"].get("exclude_seen") is False)
