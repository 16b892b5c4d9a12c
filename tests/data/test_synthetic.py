"""The film world: the same in pieces of any size, and really as it is described; the worlds with one right answer."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys.data.card import gini_coefficient
from recsys.data.reading.read import read_tables
from recsys.data.synthetic import Recipe, checkerboard, film_world, generate_world, low_rank, write_world
from recsys.data.writing import open_appenders
from recsys.errors import ConfigError, InputError

SIZES = {"users": 300, "items": 150, "events": 4000}


@pytest.fixture(scope="module")
def world():
    return film_world(**SIZES, seed=1)


@pytest.fixture(scope="module")
def large():
    return film_world(users=1500, items=400, events=40_000, seed=2)


@pytest.mark.parametrize("piece", [37, 100, 299])
def test_the_same_world_in_pieces_of_any_size(world, piece):
    recipe = Recipe(*SIZES.values(), 1, 4.0)
    users = np.arange(SIZES["users"])
    pieces = [users[at : at + piece] for at in range(0, len(users), piece)]
    pd.testing.assert_frame_equal(pd.concat(map(recipe.events, pieces), ignore_index=True), world.events)
    pd.testing.assert_frame_equal(pd.concat(map(recipe.user_table, pieces), ignore_index=True), world.users)


def test_one_user_alone_is_the_user_among_all(world):
    alone = Recipe(*SIZES.values(), 1, 4.0).events(np.array([5]))
    assert len(alone)
    pd.testing.assert_frame_equal(alone, world.events[world.events["user_id"] == "u005"].reset_index(drop=True))


def test_one_seed_one_world(world):
    again, other = film_world(**SIZES, seed=1), film_world(**SIZES, seed=2)
    for name in ("events", "items", "users"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(world, name))
        assert not getattr(other, name).equals(getattr(world, name))


def test_sizes_and_shapes(large):
    events = large.events
    assert abs(len(events) / 40_000 - 1) < 0.02
    assert (len(large.users), len(large.items)) == (1500, 400)
    assert not events.duplicated(["user_id", "item_id"]).any()
    assert set(events["value"]) <= set(np.arange(0.5, 5.5, 0.5))
    assert events["user_id"].isin(large.users["user_id"]).all()
    assert events["item_id"].isin(large.items["item_id"]).all()
    assert events["timestamp"].between(1_451_606_400, 1_451_606_400 + 4 * 366 * 86_400).all()
    by_user = events.groupby("user_id")["timestamp"]
    assert by_user.apply(lambda times: times.is_monotonic_increasing).all()


def test_the_long_tail_and_the_cold_films(large):
    counts = large.events["item_id"].value_counts().reindex(large.items["item_id"], fill_value=0)
    assert gini_coefficient(np.sort(counts.to_numpy())) > 0.5
    never = counts.index[counts == 0]
    nobody = large.truth.appeal.sum(axis=0) == 0
    assert nobody.any()
    assert set(large.items["item_id"][nobody]) <= set(never)


def test_no_film_is_met_before_it_is_out(large):
    film = large.events["item_id"].map({name: row for row, name in enumerate(large.items["item_id"])}).to_numpy()
    years = (large.events["timestamp"].to_numpy() + 1 - 1_451_606_400) / 31_557_600
    assert (years >= large.truth.release[film]).all()


def test_genres_tell_what_a_film_serves(large):
    """Films of one main taste share a genre far more often than other films do."""
    genres = [set(text.split("|")) for text in large.items["genres"]]
    main = large.truth.main
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, len(main), (2, 20_000))
    share = np.array([bool(genres[i] & genres[j]) for i, j in zip(a, b, strict=True)])
    alike = (main[a] == main[b]) & (a != b)
    assert share[alike].mean() > 2 * share[main[a] != main[b]].mean()


def test_users_watch_and_like_what_their_tastes_say(large):
    """Picks follow the recipe's preferences, not popularity alone."""
    users = np.arange(1500)
    chance = large.truth.preference(users, 0.5)
    user = large.events["user_id"].map({name: row for row, name in enumerate(large.users["user_id"])}).to_numpy()
    film = large.events["item_id"].map({name: row for row, name in enumerate(large.items["item_id"])}).to_numpy()
    own, others = chance[user, film], chance[np.roll(user, 777), film]
    assert np.mean(own > others) > 1.8 * np.mean(own < others)
    likes = large.events["value"] >= 4
    assert stats.mannwhitneyu(own[likes], own[~likes], alternative="greater").pvalue < 1e-6


def test_tastes_drift(large):
    start, end = large.truth.tastes(np.arange(1500))
    np.testing.assert_allclose(start.sum(axis=1), 1)
    drifted = np.abs(start - end).sum(axis=1) / 2
    assert 0.2 < drifted.mean() < 0.8


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_written_world_is_read_back(world, tmp_path, ending):
    paths = write_world(world, tmp_path / "world", format=ending)
    tables = read_tables(paths["events"], paths["items"], paths["users"])
    pd.testing.assert_frame_equal(tables.events, world.events)
    assert tables.items["title"].tolist() == world.items["title"].tolist()
    assert tables.refusals.refused == 0


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("step", [1000, 100, 7])
def test_the_same_files_in_pieces_of_any_size(world, tmp_path, ending, step):
    done = []
    paths = generate_world(
        world.truth, tmp_path, ending, users_at_a_time=step, progress=lambda *numbers: done.append(numbers)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.{ending}" for name in sorted(paths)]
    tables = read_tables(paths["events"], paths["items"], paths["users"])
    pd.testing.assert_frame_equal(tables.events, world.events)
    pd.testing.assert_frame_equal(tables.users, world.users)
    assert done[-1] == (300, 300)
    assert len(done) == -(-300 // step)
    if ending == "csv" and step == 7:
        whole = write_world(world, tmp_path / "whole")
        assert all(whole[name].read_bytes() == path.read_bytes() for name, path in paths.items())


def test_a_broken_off_make_leaves_nothing_that_looks_whole(world, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_world(world.truth, tmp_path, users_at_a_time=50, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="csv or parquet"):
        write_world(world, tmp_path, format="xml")


def test_the_checkerboard_withholds_the_diagonal():
    board = checkerboard(6).matrix().toarray()
    for user in range(6):
        for item in range(6):
            assert board[user, item] == (1.0 if (user + item) % 2 == 0 and user != item else 0.0)


def test_low_rank_is_of_that_rank_and_stores_what_it_says():
    interactions, x, y = low_rank(40, 30, 3, density=0.5, seed=4)
    assert np.linalg.matrix_rank(x @ y.T) == 3
    np.testing.assert_allclose(interactions.value, (x @ y.T)[interactions.user, interactions.item], rtol=1e-6)
    assert (interactions.value > 0).all()
    assert abs(len(interactions) / 1200 - 0.5) < 0.06


def test_frames_are_quoted_each_as_it_needs(tmp_path):
    frames = [pd.DataFrame({"item_id": [n], "title": [title]}) for n, title in enumerate(["plain", 'a, "b"', "plain"])]
    with open_appenders({"items": tmp_path / "items.csv"}, "csv") as append:
        for frame in frames:
            append["items"](frame)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "items.csv"), pd.concat(frames, ignore_index=True))


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_table_without_a_row_is_refused_by_its_name(tmp_path, format):
    path = tmp_path / "items"
    message = "items: cannot be written: there are no rows"
    with pytest.raises(InputError, match=message), open_appenders({"items": path}, format):
        pass
    assert not list(tmp_path.iterdir())
