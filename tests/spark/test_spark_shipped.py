"""Models that were fitted without Spark, listed on Spark: the lists are those of `recsys recommend`, item for item."""

import numpy as np
import pandas as pd
import pytest
from builders import run_job, run_locally
from scipy.sparse import csr_array

from recsys.cli import run_verb
from recsys.ranking import rank
from recsys.saved.open_model import open_model
from recsys.types import Histories

pytestmark = pytest.mark.spark

RULES = """
deny = ["{denied}", "unheard-of"]
[deny_for]
{user} = ["{denied_to_one}"]
stranger = ["{denied_to_stranger}"]
[[quota]]
field = "director"
at_most = 1
"""


@pytest.fixture(scope="module")
def run(world, world_files, tmp_path_factory):
    """A run of a blend over order, factors and content: some items have no event, one user in four no history."""
    folder = tmp_path_factory.mktemp("shipped")
    events = world.events
    cold = sorted(world.items["item_id"])[::9]
    events[~events["item_id"].isin(cold)].to_csv(folder / "events.csv", index=False)
    return run_locally(
        folder / "run",
        world_files | {"events": folder / "events.csv"},
        {
            "mix": {
                "model": "blend",
                "parts": {"transitions": {}, "content": {}, "als": {"rank": 4, "iterations": 2}},
                "weights": {"content": 0.7, "als": 0.5},
            },
        },
        tables=("events", "items"),
        split={"rule": "time", "test": 0.2},
        recommend={"k": 5, "min_history": 3},
        judge={"metrics": ["ndcg@5"], "relevant": 3.5},
    )


def lists_of_verb(run, users, out, *words):
    assert run_verb(["recommend", str(run), "--users", str(users), "--out", str(out), *map(str, words)]) == 0
    return pd.read_csv(out, dtype={"user_id": str, "item_id": str})


def lists_of_job(run, out, *words):
    assert run_job("recommend", run, "--out", out, *words) == 0
    return pd.read_parquet(out).sort_values(["user_id", "rank"], ignore_index=True)


def assert_same_lists(on_spark, local):
    names = ["user_id", "item_id", "rank", "source"]
    pd.testing.assert_frame_equal(on_spark[names], local[names], check_dtype=False)
    np.testing.assert_allclose(on_spark["score"], local["score"], rtol=1e-4, atol=1e-5)


def test_the_job_lists_what_the_verb_lists(spark, run, tmp_path, capsys):
    history = pd.read_parquet(run / "split" / "history.parquet")
    ids = sorted(history["user_id"].unique())
    users = tmp_path / "users.csv"
    pd.DataFrame({"user_id": [*ids, "stranger"]}).to_csv(users, index=False)
    local = lists_of_verb(run, users, tmp_path / "local.csv", "-k", 6, "--model", "mix")
    on_spark = lists_of_job(run, tmp_path / "lists", "-k", 6, "--users", users, "--model", "mix")
    assert_same_lists(on_spark, local)
    assert set(on_spark["source"]) == {"mix", "blend: new item", "popular"}

    # A bundle has the same model; now with rules, for all users of its history.
    user = ids[0]
    first, second = on_spark[on_spark["user_id"] == user]["item_id"][:2]
    to_stranger = on_spark[on_spark["user_id"] == "stranger"]["item_id"].iloc[0]
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES.format(denied=first, user=user, denied_to_one=second, denied_to_stranger=to_stranger))
    assert run_verb(["bundle", str(run), str(tmp_path / "bundle"), "--model", "mix"]) == 0
    everyone = tmp_path / "everyone.csv"
    pd.DataFrame({"user_id": ids}).to_csv(everyone, index=False)
    ruled_local = lists_of_verb(run, everyone, tmp_path / "ruled.csv", "-k", 40, "--rules", rules, "--model", "mix")
    capsys.readouterr()
    ruled = lists_of_job(tmp_path / "bundle", tmp_path / "ruled", "-k", 40, "--rules", rules)
    assert_same_lists(ruled, ruled_local)
    assert first not in set(ruled["item_id"])
    assert second not in set(ruled[ruled["user_id"] == user]["item_id"])
    messages = capsys.readouterr().err
    assert "short lists, filtered" in messages
    assert "rule deny: unknown ids unheard-of" in messages


def test_late_events_join_the_histories_with_their_times(spark, run, tmp_path):
    saved = open_model(run, "mix")
    items = saved.history.items.all_ids
    known = saved.history.users.all_ids[0]
    seen = saved.histories([known])
    unseen = np.setdiff1d(np.arange(len(items)), seen.values.indices)[:2]
    # The newcomer's latest like has the lowest row: by rows, the order would be another one.
    rows = [("late", items[r], 5.0, 1_500_000_000 - r) for r in (2, 5, 11, 17, 23)]
    rows += [(known, items[r], 5.0, 2_000_000_000 + r) for r in unseen]
    rows += [("late", "not an item", 5.0, 1_600_000_000)]
    late = tmp_path / "late.parquet"
    pd.DataFrame(rows, columns=["user_id", "item_id", "value", "timestamp"]).to_parquet(late)
    users = tmp_path / "users.csv"
    users.write_text(f"user_id\nlate\n{known}\n")
    on_spark = lists_of_job(run, tmp_path / "lists", "-k", 5, "--users", users, "--late", late, "--model", "mix")

    values = np.zeros((2, len(items)), dtype=np.float32)
    times = np.full((2, len(items)), -1, dtype=np.int64)
    values[1, seen.values.indices] = seen.values.data
    times[1, seen.values.indices] = seen.times
    for user, item, value, time in rows[:-1]:
        row = 0 if user == "late" else 1
        column = saved.history.items.rows([item])[0]
        values[row, column] += value
        times[row, column] = time
    matrix = csr_array(values)
    histories = Histories(matrix, times[matrix.toarray() != 0])
    expected = rank.recommend(saved.model, histories, 5)
    for row, user in enumerate(("late", known)):
        assert on_spark[on_spark["user_id"] == user]["item_id"].tolist() == items[expected.items[row]].tolist()
    by_rows = rank.recommend(saved.model, Histories(matrix, np.arange(matrix.nnz)), 5)
    assert (by_rows.items[0] != expected.items[0]).any(), "the order of the late events must matter here"


def test_a_model_that_draws_at_random_is_refused(spark, run, tmp_path, capsys):
    assert run_verb(["bundle", str(run), str(tmp_path / "bundle"), "--model", "random"]) == 0
    assert run_job("recommend", tmp_path / "bundle", "--out", tmp_path / "lists") == 2
    assert "draws at random" in capsys.readouterr().err
