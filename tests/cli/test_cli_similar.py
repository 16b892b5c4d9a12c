"""``recsys similar --user``: who is like a user, against sets of liked items."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from builders import run_locally

from recsys.cli import run_verb

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """The events of forty users, of whom u2 and u3, u4 and u5 … have the same."""
    path = tmp_path_factory.mktemp("similar") / "events.csv"
    rng = np.random.default_rng(4)
    rows = []
    for pair in range(20):
        for time, item in enumerate(rng.choice(25, size=rng.integers(4, 12), replace=False)):
            rows += [(f"u{2 * pair + twin:02}", f"i{item:02}", 100 * time + pair) for twin in (0, 1)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    events.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(events):
    als = {"rank": 4, "iterations": 5}
    blend = {"parts": {"rp3beta": {}, "als": als, "userknn": {}}, "weights": {"userknn": 0.5}}
    models = {"als": als, "userknn": {}, "popular": {}, "rp3beta": {}, "blend": blend}
    return run_locally(events.with_name("run"), {"events": events}, models)


def similar(capsys, *words):
    capsys.readouterr()
    assert run_verb(["similar", *map(str, words)]) == 0
    return pd.read_csv(io.StringIO(capsys.readouterr().out))


def failing(capsys, *words):
    capsys.readouterr()
    assert run_verb(["similar", *map(str, words)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("user", ["u00", "u17", "u38"])
def test_users_are_ordered_by_the_cosine_of_their_likes(run, capsys, user):
    history = pd.read_parquet(run / "split" / "history.parquet")
    likes = history[history.value > 0].groupby("user_id").item_id.agg(set)
    expected = []
    for other in sorted(likes.index):
        common = len(likes[user] & likes[other])
        if other != user and common:
            expected.append((-common / math.sqrt(len(likes[user]) * len(likes[other])), other, common))
    table = similar(capsys, run, "--user", user, "--model", "userknn", "-k", 39)
    assert table.columns.tolist() == ["user_id", "rank", "score", "common"]
    assert len(table) == len(expected)
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    np.testing.assert_allclose(table.score, [-score for score, *_ in sorted(expected)], rtol=1e-5)
    of_user = {other: (-score, common) for score, other, common in expected}
    np.testing.assert_allclose(table.score, [of_user[other][0] for other in table.user_id], rtol=1e-5)
    assert table.common.tolist() == [of_user[other][1] for other in table.user_id]


@pytest.mark.parametrize("user", [4, 33])
def test_the_user_of_the_same_events_is_nearest_by_factors(run, capsys, user):
    table = similar(capsys, run, "--user", f"u{user:02}", "--model", "als", "-k", 3)
    assert table.user_id[0] == f"u{user ^ 1:02}"
    assert table.score[0] == pytest.approx(1, abs=1e-5)
    assert len(table) == 3
    assert f"u{user:02}" not in table.user_id.tolist()


def test_users_of_a_blend_are_compared_by_its_heaviest_part_with_vectors(run, capsys):
    by_blend = similar(capsys, run, "--user", "u04", "--model", "blend")
    pd.testing.assert_frame_equal(by_blend, similar(capsys, run, "--user", "u04", "--model", "als"))


def test_without_vectors_of_users_their_likes_are_compared(events, run, capsys):
    without = run_locally(events.with_name("without"), {"events": events}, {"rp3beta": {}, "popular": {}})
    by_likes = similar(capsys, without, "--user", "u17")
    pd.testing.assert_frame_equal(by_likes, similar(capsys, run, "--user", "u17", "--model", "userknn"))


def test_what_cannot_be_answered_is_said(run, capsys):
    assert "has no vectors of users to compare" in failing(capsys, run, "--user", "u01", "--model", "popular")
    assert "has no vectors of users to compare" in failing(capsys, run, "--user", "u01", "--model", "rp3beta")
    assert "no user 'U01' with a history in this run. Did you mean 'u01'?" in failing(
        capsys, run, "--user", "U01", "--model", "als"
    )
    assert "name one item, or one user" in failing(capsys, run)
    assert "name one item, or one user" in failing(capsys, run, "i01", "--user", "u01")
