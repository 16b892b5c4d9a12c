"""Our own ALS on Spark against the definition in als/definition.py, and the users that validate it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys import linalg
from recsys.als.definition import Objective, half_step, loss, residual

pytestmark = pytest.mark.spark

USERS, ITEMS = 70, 40


@pytest.fixture(scope="module")
def matrix():
    """Stored values with dislikes; user 0 likes nothing, item 0 is liked by nobody."""
    rng = np.random.default_rng(5)
    dense = np.where(rng.random((USERS, ITEMS)) < 0.2, rng.integers(-2, 5, (USERS, ITEMS)), 0).astype(np.float32)
    dense[0] = -np.abs(dense[0])
    dense[:, 0] = -np.abs(dense[:, 0])
    return csr_array(dense)


def pairs(spark, matrix, step=1):
    user, item = matrix.nonzero()
    rows = pd.DataFrame({"user": user.astype(np.int32), "item": item.astype(np.int32), "value": matrix.data})
    return spark.createDataFrame(rows[::step])


def fit(spark, matrix, place, **params):
    from recsys.spark.training.als import fit_als
    from recsys.spark.training.parameters import SparkALSParameters

    model = fit_als(pairs(spark, matrix), matrix.shape[1], SparkALSParameters(**params), place)
    users = model.users.toPandas()
    x = np.full((matrix.shape[0], params["rank"]), np.nan)
    x[users["user"]] = np.stack(users["features"])
    return x, model.items, model.curve


def test_many_sweeps_end_where_no_factor_can_move(spark, matrix, tmp_path):
    """With ν and β that MLlib does not know: users and items both solve their own equations."""
    objective = Objective(alpha=2.0, reg=0.02, nu=0.5, beta=0.1)
    given = {"alpha": 2.0, "reg": 0.02, "nu": 0.5, "beta": 0.1}
    x, y, curve = fit(spark, matrix, tmp_path / "als", rank=3, iterations=30, **given)
    assert np.flatnonzero(np.isnan(x).any(axis=1)).tolist() == [0]
    assert np.flatnonzero(np.isnan(y).any(axis=1)).tolist() == [0]
    x, y = np.nan_to_num(x), np.nan_to_num(y).astype(np.float64)
    assert np.nanmax(residual(x, y, matrix, objective)) < 1e-6
    assert np.nanmax(residual(y, x, csr_array(matrix.T), objective)) < 2e-2
    assert curve.losses[-1] == pytest.approx(loss(x, y, matrix, objective), rel=1e-5)
    assert (np.diff(curve.losses) < 1e-3).all()
    assert curve.validation_users == 0, "too few users to leave any out"


def test_a_sweep_gains_what_exact_half_steps_gain(spark, matrix, tmp_path):
    objective = Objective(alpha=10.0, reg=0.05)
    *_, curve = fit(spark, matrix, tmp_path / "als", rank=4, iterations=5, alpha=10.0, reg=0.05, seed=3)
    y = np.random.default_rng(3).normal(0.0, 1.5, (ITEMS, 4))  # a factor is about 3 long
    y[0] = 0
    exact = []
    x = half_step(matrix, y, objective)
    for _ in range(5):
        y = half_step(csr_array(matrix.T), x, objective)
        x = half_step(matrix, y, objective)
        exact.append(loss(x, y, matrix, objective))
    assert curve.losses == pytest.approx(exact, rel=0.001)


@pytest.mark.long
def test_explicit_values_end_where_no_factor_can_move(spark, matrix, tmp_path):
    x, y, curve = fit(spark, matrix, tmp_path / "als", rank=2, iterations=50, reg=0.1, implicit=False)
    x, y = np.nan_to_num(x), np.nan_to_num(y).astype(np.float64)
    user, item = matrix.nonzero()
    error = matrix.data - np.einsum("nr,nr->n", x[user], y[item])
    n, m = (np.bincount(row, minlength=size) for row, size in ((user, USERS), (item, ITEMS)))
    gradient = np.zeros_like(y)
    np.add.at(gradient, item, error[:, None] * x[user])
    assert np.abs(gradient - 0.1 * m[:, None] * y).max() < 0.02 * np.abs(gradient).max()
    expected = (error**2).sum() + 0.1 * (n @ (x**2).sum(axis=1) + m @ (y**2).sum(axis=1))
    assert curve.losses[-1] == pytest.approx(expected, rel=1e-5)


def test_the_same_bits_again_and_from_other_orders(spark, matrix, tmp_path):
    from recsys.spark.training.als import fit_als
    from recsys.spark.training.parameters import SparkALSParameters

    params = SparkALSParameters(rank=3, iterations=3, driver_pairs=0)
    turned = pairs(spark, matrix, step=-1)
    one, other = (
        fit_als(frame, ITEMS, params, tmp_path / name) for name, frame in (("a", pairs(spark, matrix)), ("b", turned))
    )
    assert np.array_equal(one.items, other.items, equal_nan=True)
    assert one.curve == other.curve
    rows = [sorted(map(tuple, model.users.collect())) for model in (one, other)]
    assert rows[0] == rows[1]


def jobs_of(spark, group, work):
    """Run ``work`` as a group of Spark jobs, and return their number."""
    context = spark.sparkContext
    context.setJobGroup(group, group)
    try:
        work()
        return len(context.statusTracker().getJobIdsForGroup(group))
    finally:
        for key in ("spark.jobGroup.id", "spark.job.description"):
            context.setLocalProperty(key, None)


def test_a_training_makes_few_spark_jobs(spark, matrix, tmp_path, few):
    """With validation users. A job costs a tenth of a second, where a sweep of a small log costs a thousandth.

    The driver trains with four: two count the pairs, one collects them, one writes users. On the executors a sweep is
    one for the users and three for the items, and the last step of the items and its users are one sweep more.
    """
    from recsys.spark.training.als import fit_als, fold_in
    from recsys.spark.training.parameters import SparkALSParameters

    log = pairs(spark, matrix)
    models = {}

    def train(name, **params):
        models[name] = fit_als(log, ITEMS, SparkALSParameters(**params), tmp_path / name)

    assert jobs_of(spark, "driver", lambda: train("driver")) <= 5
    assert jobs_of(spark, "executors", lambda: train("executors", iterations=2, driver_pairs=0)) <= 1 + 4 * 3 + 8
    assert all(model.curve.short_histories for model in models.values())
    items = models["driver"].items
    assert jobs_of(spark, "fold in", lambda: fold_in(log, items, SparkALSParameters()).collect()) <= 3


def assert_same_training(spark, matrix, place, params):
    """Train on the executors with all items in each task, and compare two other trainings with that.

    One has seventeen items in a block, the last block has six. The other is that of the driver, in several blocks.
    """
    from recsys.spark.training import trainer
    from recsys.spark.training.als import fit_als

    log = pairs(spark, matrix)
    distributed = replace(params, driver_pairs=0)
    whole = fit_als(log, ITEMS, distributed, place / "whole")
    blocked = fit_als(log, ITEMS, distributed, place / "blocks", 17 * params.rank * 4 / 2**20)
    assert [len(block) for block in blocked.items.blocks()] == [17, 17, 6]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "BLOCK_PAIRS", matrix.nnz // 3)
        on_driver = fit_als(log, ITEMS, params, place / "driver")
    expected = dict(whole.users.collect())
    scale = np.nanmax(np.abs(whole.items))
    assert whole.curve.validation_users > 0
    for model, factors in ((blocked, blocked.items.collect()), (on_driver, on_driver.items)):
        assert np.array_equal(np.isnan(factors), np.isnan(whole.items))
        assert np.nanmax(np.abs(factors - whole.items)) < 1e-5 * scale
        assert model.curve.losses == pytest.approx(whole.curve.losses, rel=1e-5)
        assert model.curve.validation_users == whole.curve.validation_users
        assert model.curve.quality == pytest.approx(whole.curve.quality, rel=1e-3)
        assert model.curve.short_histories == whole.curve.short_histories
        users = dict(model.users.collect())
        assert users.keys() == expected.keys()
        gap = max(np.abs(np.subtract(users[user], expected[user])).max() for user in users)
        assert gap < 1e-5 * np.abs(list(expected.values())).max()
    return log, blocked


def test_item_factors_in_blocks_are_those_of_the_other_layout(spark, matrix, tmp_path, few):
    from recsys.spark.training.als import fit_als, fold_in
    from recsys.spark.training.parameters import SparkALSParameters

    params = SparkALSParameters(rank=3, iterations=2, checkpoint_every=1, alpha=2.0, reg=0.05, nu=0.5, beta=0.1)
    log, model = assert_same_training(spark, matrix, tmp_path, params)
    users = dict(model.users.collect())
    again = fit_als(log, ITEMS, params, tmp_path / "again", 17 * 3 * 4 / 2**20)
    assert model.items.collect().tobytes() == again.items.collect().tobytes(), "the same bits again"
    assert model.curve == again.curve
    assert users == dict(again.users.collect())
    folded = dict(fold_in(log, model.items, params).where("features is not null").collect())
    assert folded.keys() == users.keys()
    assert max(np.abs(np.subtract(folded[user], users[user])).max() for user in users) < 1e-6


@pytest.mark.long
def test_explicit_values_train_in_blocks_as_in_the_other_layout(spark, matrix, tmp_path, few):
    from recsys.spark.training.parameters import SparkALSParameters

    assert_same_training(spark, matrix, tmp_path, SparkALSParameters(rank=2, iterations=2, reg=0.1, implicit=False))


def test_many_partial_sums_are_added_in_their_order(spark):
    from recsys.spark.training.block_sets import MAX_DIRECT_SUMS, sum_partitions

    rng = np.random.default_rng(2)
    numbers = (
        rng.standard_normal((MAX_DIRECT_SUMS + 9, 5)) * 10.0 ** rng.integers(-6, 7, (MAX_DIRECT_SUMS + 9, 5))
    ).astype(np.float32)
    parts = spark.sparkContext.parallelize(range(len(numbers)), len(numbers))
    found = [sum_partitions(parts.map(lambda place: (numbers[place], np.array([place]))))[0] for _ in range(3)]
    groups = [numbers[start : start + 5] for start in range(0, len(numbers), 5)]
    expected = sum((sum(group[1:], group[0]) for group in groups[1:]), sum(groups[0][1:], groups[0][0]))
    for one in found:
        assert one.tobytes() == expected.tobytes()


@pytest.mark.parametrize("pairs", [1, 7, 100, 10_000])
def test_a_block_is_divided_between_users(pairs):
    from recsys.spark.training.blocks import HistoryBlock

    rng = np.random.default_rng(4)
    cells = np.unique(rng.integers(0, 90 * 40, 700))
    user, item = (cells // 40).astype(np.int32), (cells % 40).astype(np.int32)
    whole = HistoryBlock.from_pairs(user, item, rng.random(len(cells)).astype(np.float32), 3)
    parts = whole.divide(pairs)
    assert np.concatenate([part.users for part in parts]).tolist() == whole.users.tolist()
    assert np.concatenate([part.items for part in parts]).tolist() == whole.items.tolist()
    assert np.concatenate([part.values for part in parts]).tolist() == whole.values.tolist()
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    assert lengths.tolist() == np.diff(whole.indptr).tolist()
    assert len(parts) == {1: len(whole.users), 7: len(parts), 100: round(len(cells) / 100), 10_000: 1}[pairs]
    longest = lengths.max()
    assert all(len(part.items) < 1.5 * pairs + longest for part in parts)


def test_a_block_keeps_every_pair_and_divides_users_for_good():
    from recsys.spark.training.blocks import HistoryBlock

    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 3000 * 50, 20000))
    user, item = (cells // 50).astype(np.int32), (cells % 50).astype(np.int32)
    value = rng.random(len(cells)).astype(np.float32)
    order = rng.permutation(len(cells))
    block = HistoryBlock.from_bytes(HistoryBlock.from_pairs(user[order], item[order], value[order], 7).to_bytes())
    again = np.repeat(block.users, np.diff(block.indptr))
    back = np.lexsort((block.items, again))
    for found, given in ((again, user), (block.items, item), (block.values, value)):
        assert np.array_equal(found[back], given)

    half = user < 1500
    parts = [
        HistoryBlock.from_pairs(user[side], item[side], value[side], 7).split_users(7, 10) for side in (half, ~half)
    ]
    watched, teach = block.split_users(7, 10)
    assert sorted(watched.users) == sorted([*parts[0][0].users, *parts[1][0].users])
    assert sorted([*watched.users, *teach.users]) == np.unique(user).tolist()
    assert len(watched.users) == pytest.approx(300, rel=0.25)
    assert block.split_users(7, 0)[0].users.size == 0


@pytest.fixture
def few(monkeypatch):
    """Watch one user in five, from two on."""
    from recsys.spark.training import training_curve

    monkeypatch.setattr(training_curve, "MIN_INTERVAL", 5)
    monkeypatch.setattr(training_curve, "MIN_USERS", 2)


def test_who_is_watched_teaches_nothing_until_the_sweeps_are_over(spark, matrix, tmp_path, few):
    from recsys.spark.training.blocks import HistoryBlock

    user, item = (part.astype(np.int32) for part in matrix.nonzero())
    watched, _ = HistoryBlock.from_pairs(user, item, matrix.data, 0).split_users(0, 5)
    others = matrix.toarray()
    others[watched.users] = 0
    _, y, curve = fit(spark, matrix, tmp_path / "all", rank=3, iterations=4)
    assert 0 < curve.validation_users <= len(watched.users)
    assert len(curve.quality) == 4
    assert all(0 <= value <= 1 for value in curve.quality)
    loss_of = Objective(alpha=10.0, reg=0.05)
    taught = (others > 0).sum()
    assert 0 < taught < (matrix.toarray() > 0).sum()
    assert curve.losses[0] < loss(np.zeros((USERS, 3)), np.zeros((ITEMS, 3)), csr_array(others), loss_of)
    liked_by_watched_alone = ((matrix.toarray() > 0).any(axis=0)) & ~((others > 0).any(axis=0))
    assert not np.isnan(y[liked_by_watched_alone]).any(), "the closing half step learns from everyone"


def test_nobody_is_left_out_where_nobody_can_be_watched(spark, tmp_path, few):
    """Users of one like each: none of them has a pair to hide and a pair to keep."""
    one_each = csr_array((np.ones(40, np.float32), (np.arange(40), np.arange(40) % 8)), shape=(40, 8))
    x, y, curve = fit(spark, one_each, tmp_path / "als", rank=2, iterations=2)
    assert curve.validation_users == 0
    assert not np.isnan(x).any()
    assert curve.losses[-1] == pytest.approx(loss(x, y.astype(np.float64), one_each, Objective(10.0, 0.05)), rel=1e-4)


def test_watching_is_ndcg_of_the_hidden_by_fold_in(matrix):
    """A loop over users: fold in what is seen, rank what is not, find what is hidden."""
    from recsys.spark.training.parameters import SparkALSParameters
    from recsys.spark.training.training_curve import HIDDEN_SHARE, ValidationUsers, holdout_interval

    params = SparkALSParameters(rank=3, alpha=2.0, reg=0.1)
    watched = ValidationUsers.draw([(np.arange(USERS), linalg.arrays(matrix))], ITEMS, params)
    y = np.random.default_rng(1).standard_normal((ITEMS, 3)).astype(np.float32)
    y[0] = 0
    values = []
    for seen, hidden in zip(watched.seen.toarray(), watched.hidden.toarray(), strict=True):
        assert not (seen.astype(bool) & hidden.astype(bool)).any()
        assert (hidden >= 0).all()
        x = half_step(csr_array(seen[None]), y, Objective(2.0, 0.1))[0]
        order = [i for i in np.argsort(-(y @ x), kind="stable") if seen[i] == 0 and i > 0][:10]
        gains = [hidden[i] > 0 for i in order]
        ideal = sum(1 / np.log2(place + 2) for place in range(min(10, int((hidden > 0).sum()))))
        values.append(sum(gain / np.log2(place + 2) for place, gain in enumerate(gains)) / ideal)
    assert watched.evaluate(y) == pytest.approx(np.mean(values), abs=1e-6)
    liked = (watched.seen.data > 0).sum() + watched.hidden.nnz
    assert watched.hidden.nnz / liked == pytest.approx(HIDDEN_SHARE, abs=0.08)
    assert holdout_interval(2999) == 0
    assert holdout_interval(3000) == 100
    assert holdout_interval(10**6) == 1000


def test_pairs_are_hidden_alike_however_users_are_divided(matrix):
    from recsys.spark.training.parameters import SparkALSParameters
    from recsys.spark.training.training_curve import ValidationUsers

    params = SparkALSParameters(rank=3)
    whole = ValidationUsers.draw([(np.arange(USERS), linalg.arrays(matrix))], ITEMS, params)
    users = np.random.default_rng(4).permutation(USERS)
    parts = [(part, linalg.arrays(matrix[part])) for part in np.split(users, [20, 20, 45])]
    divided = ValidationUsers.draw(parts, ITEMS, params)
    assert np.array_equal(divided.seen.toarray(), whole.seen.toarray())
    assert np.array_equal(divided.hidden.toarray(), whole.hidden.toarray())
    assert whole.hidden.nnz > 0


def test_watching_explicit_values_is_their_error(matrix):
    from recsys.spark.training.parameters import SparkALSParameters
    from recsys.spark.training.training_curve import ValidationUsers

    watched = ValidationUsers.draw(
        [(np.arange(USERS), linalg.arrays(matrix))], ITEMS, SparkALSParameters(implicit=False, reg=0.2)
    )
    y = np.random.default_rng(1).standard_normal((ITEMS, 2)).astype(np.float32)
    errors = []
    for user in range(watched.n_users):
        seen, hidden = (part[[user]].tocoo() for part in (watched.seen, watched.hidden))
        own = y[seen.coords[1]].astype(np.float64)
        x = np.linalg.solve(own.T @ own + 0.2 * len(own) * np.eye(2), own.T @ seen.data)
        errors.extend((hidden.data - y[hidden.coords[1]] @ x) ** 2)
    assert watched.evaluate(y) == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-4)
