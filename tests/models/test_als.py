"""The definition of ALS by calculus, then everything that claims to solve it by the definition."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import block_diag, csr_array, csr_matrix

from recsys import linalg
from recsys.als import definition, solvers
from recsys.als.definition import Objective
from recsys.errors import InputError
from recsys.models import build
from recsys.models.collaborative import als as local_als
from recsys.types import Features, Histories, IdMap, Interactions

OBJECTIVES = (
    Objective(alpha=3.0, reg=0.2, nu=1.0, beta=0.0),  # Spark
    Objective(alpha=3.0, reg=2.0, nu=0.0, beta=0.0),  # implicit
    Objective(alpha=10.0, reg=0.03, nu=1.0, beta=0.1),  # Rendle et al.
    Objective(alpha=0.5, reg=0.1, nu=0.5, beta=0.02),
)

EXACT = {"rank": 4, "iterations": 5, "alpha": 3.0, "reg": 0.2, "seed": 3, "solver": "cholesky"}


def ratings(rows=12, columns=9, seed=0, density=0.4):
    """Return csr values of -2 to 3 with explicit zeros, an empty row and an empty column."""
    rng = np.random.default_rng(seed)
    stored = rng.random((rows, columns)) < density
    stored[3] = stored[:, 4] = False
    row, column = np.nonzero(stored)
    return csr_array((rng.integers(-2, 4, len(row)).astype(np.float32), (row, column)), shape=(rows, columns))


def interactions(matrix):
    matrix = matrix.tocoo()
    ids = [IdMap.from_ids(np.arange(n)) for n in matrix.shape]
    order = np.lexsort((matrix.col, matrix.row))
    user, item = (side[order].astype(np.int32) for side in (matrix.row, matrix.col))
    return Interactions(*ids, user, item, matrix.data[order], np.full(len(user), -1))


def loss_by_loops(x, y, matrix, objective):
    """Return the loss of DESIGN's formula, pair by pair."""
    stored = {(r, c): v for r, c, v in zip(*matrix.tocoo().coords, matrix.tocoo().data, strict=True)}
    users, items = matrix.shape
    n_user, n_item = np.zeros(users), np.zeros(items)
    total = 0.0
    for u in range(users):
        for i in range(items):
            v = float(stored.get((u, i), 0.0))
            p = 1.0 if v > 0 else 0.0
            c = 1.0 + objective.alpha * abs(v) if (u, i) in stored else 1.0
            n_user[u] += p
            n_item[i] += p
            total += c * (p - sum(x[u, f] * y[i, f] for f in range(x.shape[1]))) ** 2
    for u in range(users):
        total += objective.reg * (n_user[u] + objective.beta * items) ** objective.nu * (x[u] ** 2).sum()
    for i in range(items):
        total += objective.reg * (n_item[i] + objective.beta * users) ** objective.nu * (y[i] ** 2).sum()
    return total


def slope(f, at, step=1e-5):
    """Return the gradient of f by central differences."""
    found = np.empty_like(at)
    for place in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        found[place] = (f(up) - f(down)) / (2 * step)
    return found


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_is_the_formula(objective):
    rng = np.random.default_rng(1)
    x, y, matrix = rng.normal(size=(12, 3)), rng.normal(size=(9, 3)), ratings()
    expected = loss_by_loops(x, y, matrix, objective)
    assert definition.loss(x, y, matrix, objective) == pytest.approx(expected, rel=1e-12)
    assert local_als.loss(x, y, matrix, objective) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_half_step_ends_where_the_gradient_is_zero(objective):
    y, matrix = np.random.default_rng(1).normal(size=(9, 3)), ratings()
    x = definition.half_step(matrix, y, objective)
    gradient = slope(lambda at: loss_by_loops(at, y, matrix, objective), x)
    assert np.abs(gradient).max() < 1e-6
    elsewhere = slope(lambda at: loss_by_loops(at, y, matrix, objective), x + 0.01)
    assert np.abs(elsewhere).max() > 1e-2  # the check can tell


def test_a_fit_keeps_the_loss_of_each_sweep():
    matrix = ratings(30, 20, seed=2)
    model = build("als", EXACT).fit(interactions(matrix))
    expected = [
        definition.loss(*definition.fit(matrix, 4, n, model.objective, seed=3), matrix, model.objective)
        for n in range(1, 6)
    ]
    np.testing.assert_allclose(model.losses_, expected, rtol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_never_rises(objective):
    matrix = ratings(30, 20, seed=2)
    losses = [definition.loss(*definition.fit(matrix, 4, n, objective, seed=3), matrix, objective) for n in range(1, 8)]
    assert (np.diff(losses) <= 1e-9 * losses[0]).all()
    assert losses[-1] < losses[0]


def test_negatives_and_explicit_zeros():
    """A dislike pulls the score below that of a pair never met; a stored zero has confidence 1 and changes nothing."""
    y = np.array([[1.0, 0.2], [0.9, 0.3], [0.1, 1.0]])
    objective = Objective(alpha=5.0, reg=0.1, nu=0.0)
    likes = csr_array(([1.0], [0], [0, 1]), shape=(1, 3))
    zero = csr_array(([1.0, 0.0], [0, 1], [0, 2]), shape=(1, 3))
    dislike = csr_array(([1.0, -1.0], [0, 1], [0, 2]), shape=(1, 3))
    plain, same, pulled = (definition.half_step(m, y, objective) @ y.T for m in (likes, zero, dislike))
    np.testing.assert_allclose(same, plain, rtol=1e-12)
    assert pulled[0, 1] < plain[0, 1] - 0.1


@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.sampled_from(OBJECTIVES),
)
def test_the_kernel_equals_the_definition(seed, rank, density, objective):
    """Rows shorter and longer than the rank take different ways through the kernel."""
    matrix = ratings(15, 25, seed, density)
    y = np.random.default_rng(seed).normal(size=(25, rank))
    expected = definition.half_step(matrix, y, objective)
    found = local_als.half_step(matrix, y, objective)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    known = definition.residual(found, y, matrix, objective)
    assert np.nanmax(known, initial=0) < 1e-10


def test_the_kernel_keeps_to_the_definition_when_factors_are_nearly_dependent():
    rng = np.random.default_rng(5)
    y = rng.normal(size=(25, 3)) @ rng.normal(size=(3, 20)) + 1e-6 * rng.normal(size=(25, 20))
    for objective in OBJECTIVES:
        found = local_als.half_step(ratings(15, 25), y, objective)
        assert np.nanmax(definition.residual(found, y, ratings(15, 25), objective)) < 1e-9


def test_threads_do_not_change_a_bit():
    import numba

    matrix = ratings(300, 200, density=0.1)
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=(200, 24)), rng.normal(size=(300, 24))
    threads = numba.get_num_threads()
    found = []
    for n in {1, threads}:
        numba.set_num_threads(n)
        found.append([local_als.half_step(matrix, y, OBJECTIVES[2], initial=near) for near in (None, x)])
    numba.set_num_threads(threads)
    for one, many in zip(*found, strict=True) if len(found) > 1 else ():
        assert (one == many).all()


def conjugate_gradients(a, b, x, shared, steps):
    """Return x after textbook steps, preconditioned by ``shared``."""
    left = b - a @ x
    better = np.linalg.solve(shared, left)
    toward = better
    for _ in range(steps):
        step = left @ better / (toward @ a @ toward)
        x, new = x + step * toward, left - step * (a @ toward)
        fresh = np.linalg.solve(shared, new)
        toward = fresh + new @ fresh / (left @ better) * toward
        left, better = new, fresh
    return x


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_conjugate_gradients_are_those_of_the_textbook(objective):
    """Preconditioned by YᵀY + penalty, what all rows share."""
    rng = np.random.default_rng(7)
    matrix, y, near = ratings(15, 25, seed=7), rng.normal(size=(25, 6)), rng.normal(size=(15, 6))
    found = local_als.half_step(matrix, y, objective, initial=near)
    for row, (a, b) in enumerate(definition.systems(matrix, y, objective)):
        shared = y.T @ y + objective.penalty(matrix)[row] * np.eye(6)
        expected = conjugate_gradients(a, b, near[row], shared, solvers.CG_STEPS) if b.any() else np.zeros(6)
        np.testing.assert_allclose(found[row], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_conjugate_gradients_from_the_solution_stay_there_and_from_afar_arrive(objective):
    matrix, y = ratings(15, 25, seed=7), np.random.default_rng(7).normal(size=(25, 6))
    exact = definition.half_step(matrix, y, objective)
    np.testing.assert_allclose(local_als.half_step(matrix, y, objective, initial=exact), exact, rtol=1e-9, atol=1e-11)
    near = exact + np.random.default_rng(8).normal(size=exact.shape)
    for _ in range(12):
        near = local_als.half_step(matrix, y, objective, initial=near)
    np.testing.assert_allclose(near, exact, rtol=1e-6, atol=1e-8)


def test_conjugate_gradients_leave_alone_what_rounds_to_zero():
    """The factors of a lone pair halve every sweep; what applies A in float32 sees zeros in the end."""
    a, b = np.diag([2.0, 3.0]), np.array([[1.0, 1e-46], [1.0, 2e-46]])
    x = linalg.conjugate_gradients(lambda p: a @ p.astype(np.float32).astype(np.float64), b, steps=3)
    np.testing.assert_allclose(x[:, 0], [1 / 2, 1 / 3], rtol=1e-6)
    assert np.abs(x[:, 1]).max() <= 1e-46


def log_with_isolated_pairs(seed):
    """Return the matrix of a log in which users and items of a dense core shrink the factors of isolated pairs.

    Beside the core: ten users whose only item has no other user, a user with two items of their own, an item with three
    users of its own, and a user and an item without any pair. Values in the core are all equal in every second log.
    """
    rng = np.random.default_rng(seed)
    users, items = ((60, 30), (120, 40))[seed % 2]
    core = rng.random((users, items)) < 0.3
    core = core * (rng.integers(1, 6, core.shape) if seed % 4 < 2 else 1)
    blocks = [core, np.ones((1, 2)), np.ones((3, 1)), np.zeros((1, 1)), *np.ones((10, 1, 1))]
    return csr_array(block_diag(blocks).tocsr().astype(np.float32))


@pytest.mark.parametrize(
    ("name", "seed"),
    [*(("als", n) for n in range(8)), *((name, n) for name in ("attributes", "content_als") for n in (1, 7))],
)
def test_isolated_pairs_do_not_stop_the_training(name, seed):
    """Their factors shrink in every sweep until their squares are below the smallest float32."""
    matrix = log_with_isolated_pairs(seed)
    terms = csr_array((np.random.default_rng(seed).random((matrix.shape[1], 6)) < 0.3).astype(np.float32))
    params = {"rank": 4, "iterations": 60, "alpha": (0.5, 1.0)[seed % 2], "reg": 0.01, "seed": seed}
    params |= {"beta": 0.0} if name == "content_als" else {}
    fitted = {
        solver: build(name, params | {"solver": solver}).fit(
            interactions(matrix), Features(terms, tuple(f"genre={n}" for n in range(6)))
        )
        for solver in ("cg", "cholesky")
    }
    model = fitted["cg"]
    assert np.isfinite(model.losses_).all()
    assert model.losses_[-1] < 1.01 * fitted["cholesky"].losses_[-1]
    histories = Histories(matrix)
    users = np.flatnonzero(model.can_score(histories))
    x = model.user_factors(histories)
    assert np.isfinite(model.score(histories)[np.ix_(users, model.known_)]).all()
    _assert_solves(x, model.item_factors_, matrix, model.objective)


def _assert_solves(x, y, matrix, objective, tolerance=1e-4):
    """Each row's A x = b holds to ``tolerance`` of the largest b of all rows."""
    systems = list(definition.systems(matrix, y, objective))
    errors = [np.linalg.norm(a @ row - b) for row, (a, b) in zip(x.astype(np.float64), systems, strict=True) if b.any()]
    assert max(errors) <= tolerance * max(np.linalg.norm(b) for _, b in systems)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 20), st.sampled_from(OBJECTIVES), st.floats(-44, 1))
def test_conjugate_gradients_solve_rows_of_any_size(seed, rank, objective, exponent):
    """The last five columns belong to one row each, and their factors are of the size 10 ** ``exponent``."""
    rng = np.random.default_rng(seed)
    matrix = csr_array(block_diag([ratings(15, 25, seed).toarray(), *np.ones((5, 1, 1))]).tocsr().astype(np.float32))
    y = rng.normal(size=(30, rank))
    initial = rng.normal(size=(20, rank))
    y[25:] *= 10**exponent
    initial[15:] *= 10**exponent
    y, x = (side.astype(np.float32) for side in (y, initial))
    for _ in range(15):
        x = local_als.half_step(matrix, y, objective, initial=x)
    exact = definition.half_step(matrix, y, objective)
    assert np.isfinite(x).all()
    for rows in (slice(0, 15), slice(15, 20)):
        largest = np.abs(exact[rows]).max()
        np.testing.assert_allclose(x[rows], exact[rows], rtol=0, atol=1e-3 * largest + 1e-17)


@pytest.mark.parametrize(("alpha", "reg", "beta", "behind"), [(3.0, 0.2, 0.0, 0.001), (100.0, 0.1, 0.01, 0.05)])
def test_training_by_conjugate_gradients_gets_as_low_as_exact_training(alpha, reg, beta, behind):
    """Likes at random are the hardest: with heavy weights it is some sweeps behind."""
    likes = ratings(120, 80, seed=2, density=0.1)
    likes.data[:] = 1
    params = {"rank": 12, "iterations": 15, "alpha": alpha, "reg": reg, "beta": beta}
    losses = [build("als", params | {"solver": s}).fit(interactions(likes)).losses_ for s in ("cg", "cholesky")]
    assert (np.diff(losses[0]) < 0).all()
    assert losses[0][-1] < (1 + behind) * losses[1][-1]
    assert losses[0][-1] != losses[1][-1]


def test_training_by_the_kernel_is_training_by_the_definition():
    matrix = ratings(30, 20, seed=2)
    model = build("als", EXACT).fit(interactions(matrix))
    _, y = definition.fit(matrix, 4, 5, model.objective, seed=3)
    np.testing.assert_allclose(model.item_factors_[model.known_], y[model.known_], rtol=1e-3, atol=1e-4)  # in float32


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_in_float32_is_exact_to_its_precision(objective):
    matrix = ratings(30, 40, seed=6)
    y = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float32)
    x = local_als.half_step(matrix, y, objective)
    assert x.dtype == np.float32
    assert np.nanmax(definition.residual(x, y, matrix, objective)) < 1e-4


@pytest.fixture(scope="module", params=[0, 1, 2])
def by_implicit(request):
    """Return a log, our objective, the factors of users and items that implicit trains for it, and implicit's own loss.

    It solves the users, then the items, exactly and in float32. Its confidence of a dislike is negative.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    matrix = ratings(80, 50, request.param)
    signed = csr_matrix(matrix, copy=True)
    signed.data = np.where(matrix.data > 0, 1, -1) * (1 + 3 * np.abs(matrix.data))
    shares = []
    with linalg.one_blas_thread():  # it warns of more
        library = AlternatingLeastSquares(
            factors=6, regularization=0.7, iterations=60, use_cg=False, calculate_training_loss=True, random_state=0
        )
        library.fit(signed, show_progress=False, callback=lambda sweep, seconds, loss: shares.append(loss))
    # It divides by the sum of all confidences, and adds the confidence of each dislike, which is no error.
    confidences = np.abs(signed.data)
    total = matrix.shape[0] * matrix.shape[1] - matrix.nnz + confidences.sum()
    loss = shares[-1] * total - confidences[matrix.data <= 0].sum()
    return matrix, Objective(alpha=3.0, reg=0.7, nu=0.0), library.user_factors, library.item_factors, loss


def test_item_factors_of_implicit_solve_our_equations(by_implicit):
    matrix, objective, x, y, _ = by_implicit
    by_item = matrix.T.tocsr()
    assert np.nanmax(definition.residual(y, x, by_item, objective)) < 1e-6
    assert np.nanmin(definition.residual(y, x, by_item, Objective(3.0, 0.7, nu=1.0))) > 1e-3  # the check can tell


def test_our_half_step_from_the_users_of_implicit_gives_its_items(by_implicit):
    matrix, objective, x, y, _ = by_implicit
    np.testing.assert_allclose(local_als.half_step(matrix.T.tocsr(), x, objective), y, rtol=0, atol=1e-4)


def test_our_objective_is_the_loss_of_implicit(by_implicit):
    matrix, objective, x, y, expected = by_implicit
    assert definition.loss(x.astype(np.float64), y.astype(np.float64), matrix, objective) == pytest.approx(
        expected, rel=1e-5
    )
    assert local_als.loss(x, y, matrix, objective) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_a_fit_gets_as_low_as_implicit(by_implicit, solver):
    matrix, objective, _, _, expected = by_implicit
    params = {"rank": 6, "iterations": 60, "alpha": objective.alpha, "reg": objective.reg, "nu": 0, "solver": solver}
    assert build("als", params).fit(interactions(matrix)).losses_[-1] < 1.02 * expected


def test_weights_and_targets_of_more_pairs_than_a_block(monkeypatch):
    """Each is rounded once, from float64."""
    matrix = ratings(60, 40, seed=1)
    matrix.data *= np.random.default_rng(1).random(matrix.nnz).astype(np.float32)
    monkeypatch.setattr(solvers, "PAIRS_PER_BLOCK", matrix.nnz // 2 - 1)
    equations = solvers.implicit_equations(linalg.arrays(matrix), 0.3, np.ones(60), np.float32)
    for value, weight, target in zip(matrix.data, equations.weight, equations.target, strict=True):
        assert weight == np.float32(0.3 * abs(float(value)))
        assert target == (np.float32(1 + 0.3 * abs(float(value))) if value > 0 else 0)


def test_fold_in_solves_the_newcomers_own_equations():
    train = ratings(40, 30, seed=4)
    newcomers = ratings(10, 30, seed=5)
    model = build("als", {"rank": 5, "beta": 0.05}).fit(interactions(train))
    known = csr_array(newcomers.toarray() * model.known_)  # an item without a factor adds nothing
    x = model.user_factors(Histories(known))
    assert np.nanmax(definition.residual(x, model.item_factors_, known, model.objective)) < 1e-5  # x is float32
    # A server asks for one history at a time, which has code of its own.
    alone = np.vstack([model.user_factors(Histories(known[[row]])) for row in range(10)])
    np.testing.assert_allclose(alone, x, rtol=1e-5, atol=1e-7)


def test_fold_in_of_one_history_copies_no_factors_of_other_items():
    """In a catalogue of a million items, such a copy would take longer than all scores."""
    y = np.random.default_rng(1).normal(size=(50_000, 8)).astype(np.float32)
    model = local_als.ALS.from_factors(y, np.ones(50_000, dtype=bool))
    history = Histories(
        csr_array((np.ones(3, np.float32), np.array([7, 20, 49_999]), np.array([0, 3])), shape=(1, 50_000))
    )
    model.user_factors(history)
    tracemalloc.start()
    model.user_factors(history)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < y.nbytes / 10


def test_factors_that_are_not_finite_are_refused():
    y = np.array([[1.0, np.nan], [np.inf, 0.0]])
    with pytest.raises(InputError, match="Raise `reg`"):
        local_als.ALS.from_factors(y, np.array([True, False]))
    model = local_als.ALS.from_factors(np.array([[1.0, 2.0], [np.inf, 0.0]]), np.array([True, False]))
    assert np.isfinite(model.item_factors_).all()


@pytest.mark.parametrize("kind", ["als", "attributes", "content_als"])
def test_values_that_hide_all_others_are_refused_with_the_largest(kind):
    """Milliseconds since 1970 mapped as values: one sentence, not a singular system."""
    from recsys.data.weigh import interactions_from_table
    from recsys.errors import InputError
    from recsys.features.encoding import encode_features
    from recsys.models import build

    users, items = np.divmod(np.arange(30), 6)
    table = pd.DataFrame({"user_id": users, "item_id": items, "value": 1.0, "timestamp": 0})
    table.loc[7, "value"] = 1.6e12
    train = interactions_from_table(table)
    described = pd.DataFrame({"item_id": range(6), "kind": list("aabbcc")})
    with pytest.raises(InputError, match=r"the largest value is 1\.6e\+12, .*transform = 'log1p' or cap"):
        build(kind, {"rank": 2}).fit(train, encode_features(described, "item_id", train.items))


def test_arrays_that_are_read_only_compile_no_kernel_of_their_own():
    """A task of Spark gets such arrays, and compiling a half-step again takes longer than most trainings."""
    matrix = linalg.arrays(ratings())
    fixed = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    penalty = np.full(12, 0.1)

    def solve():
        equations = solvers.implicit_equations(matrix, 3.0, penalty, np.float32)
        return solvers.implicit_rows(equations, fixed), solvers.explicit_rows(matrix, fixed, penalty)

    expected = solve()
    compiled = set(solvers.als_half_step.signatures)
    for array in matrix:
        array.flags.writeable = False
    again = solve()
    assert set(solvers.als_half_step.signatures) == compiled
    assert np.array_equal(again, expected)
