"""``sasrec``: the network against loops, the loss against its definition and finite differences, and what it learns."""

import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from contract import with_empty_row, world
from test_sequential import LARGE, chain, sequences_of

import recsys
from recsys.errors import ConfigError, InputError, MissingExtra
from recsys.models.sequential import training
from recsys.models.sequential.sasrec import HiddenLikes, LikedSequences, mean_ndcg
from recsys.models.sequential.transformer import Rows, Weights, encode, initial_weights, last_states

pytestmark = pytest.mark.slow

SMALL = {"rank": 16, "blocks": 1, "batch": 256, "learning_rate": 0.02, "iterations": 60, "dropout": 0.1}
ITEMS, PLACES, HEADS = 9, 6, 2


def random_weights(seed=0, blocks=2, rank=8):
    """Return weights that are all random, those that start as ones or zeros too."""
    rng = np.random.default_rng(seed)
    start = initial_weights({"items": ITEMS, "places": PLACES, "blocks": blocks, "rank": rank}, rng)
    return Weights(*(rng.normal(size=array.shape).astype(np.float32) * 0.5 for array in start))


def row_of(items, sequence=0):
    items = np.array([items], dtype=np.int32)
    return Rows(items, np.arange(items.shape[1], dtype=np.int32)[None], np.full_like(items, sequence))


def norm(x, scale, shift):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * scale + shift


def states_by_loops(weights, items):
    """Return the states of one sequence in float64, place by place and head by head."""
    w = Weights(*(array.astype(np.float64) for array in weights))
    x = [w.items[item] + w.positions[place] for place, item in enumerate(items)]
    size = len(x[0]) // HEADS
    for block in range(len(w.queries)):
        normed = [norm(v, w.scales[2 * block], w.shifts[2 * block]) for v in x]
        after = []
        for place in range(len(x)):
            seen = np.zeros(len(x[0]))
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                query = (normed[place] @ w.queries[block])[part]
                keys = [(normed[other] @ w.keys[block])[part] for other in range(place + 1)]
                share = np.exp([query @ key / np.sqrt(size) for key in keys])
                for other, weight in enumerate(share / share.sum()):
                    seen[part] += weight * (normed[other] @ w.values[block])[part]
            after.append(x[place] + seen @ w.mixes[block])
        x = []
        for v in after:
            normed_v = norm(v, w.scales[2 * block + 1], w.shifts[2 * block + 1])
            hidden = np.maximum(normed_v @ w.inner[block] + w.inner_bias[block], 0)
            x.append(v + hidden @ w.outer[block] + w.outer_bias[block])
    return np.array([norm(v, w.scales[-1], w.shifts[-1]) for v in x])


def test_the_network_is_what_loops_over_places_and_heads_compute():
    weights = random_weights()
    for items in ([3], [3, 1], [8, 0, 2, 2, 5, 1]):
        np.testing.assert_allclose(encode(weights, row_of(items), HEADS)[0], states_by_loops(weights, items), atol=1e-4)


def test_numpy_and_jax_compute_the_same_network():
    import jax
    import jax.numpy as jnp

    weights = random_weights(seed=1)
    rows = row_of([8, 0, 2, 4, 5, 1])
    in_jax = jax.jit(lambda w: encode(w, rows, HEADS, jnp))(weights)
    np.testing.assert_allclose(encode(weights, rows, HEADS), in_jax, rtol=1e-5, atol=1e-5)


def test_a_later_item_changes_no_earlier_state():
    weights = random_weights()
    states = encode(weights, row_of([8, 0, 2, 4, 5, 1]), HEADS)[0]
    changed = encode(weights, row_of([8, 0, 2, 7, 5, 1]), HEADS)[0]
    np.testing.assert_array_equal(states[:3], changed[:3])
    assert (np.abs(states[3:] - changed[3:]).max(axis=1) > 1e-3).all()


def test_sequences_that_share_a_row_do_not_see_each_other():
    weights = random_weights()
    items = np.array([[3, 1, 8, 0, 2, 0]], dtype=np.int32)
    packed = Rows(items, np.array([[0, 1, 0, 1, 2, 0]]), np.array([[0, 0, 2, 2, 2, -1]]))
    states = encode(weights, packed, HEADS)[0]
    np.testing.assert_allclose(states[:2], encode(weights, row_of([3, 1]), HEADS)[0], atol=1e-5)
    np.testing.assert_allclose(states[2:5], encode(weights, row_of([8, 0, 2]), HEADS)[0], atol=1e-5)


def test_the_last_state_is_that_of_the_latest_items_whatever_the_padding():
    weights = random_weights()
    sequences = [[3], [], [4, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7], [5, 2, 8, 1, 1]]
    indptr = np.cumsum([0, *(len(sequence) for sequence in sequences)])
    states = last_states(weights, indptr, np.concatenate(sequences).astype(np.int32), HEADS)
    for state, sequence in zip(states, sequences, strict=True):
        expected = np.zeros(8)
        if sequence:
            expected = encode(weights, row_of(sequence[-PLACES:]), HEADS)[0, -1]
        np.testing.assert_allclose(state, expected, atol=1e-5)


def batch_of(sequences, negatives=None):
    """Return a batch of one sequence per row: each item but the last is an input, each but the first a target."""
    length = max(len(sequence) for sequence in sequences) - 1
    shape = (len(sequences), length)
    rows = Rows(*(np.zeros(shape, dtype=np.int32) for _ in range(2)), np.full(shape, -1, dtype=np.int32))
    targets = np.full(shape, -1, dtype=np.int32)
    for row, sequence in enumerate(sequences):
        cells = (row, slice(len(sequence) - 1))
        rows.items[cells] = sequence[:-1]
        rows.places[cells] = np.arange(len(sequence) - 1)
        rows.sequence[cells] = 0
        targets[cells] = sequence[1:]
    negatives = np.arange(ITEMS) if negatives is None else np.array(negatives)
    return training.Batch(rows, targets, negatives.astype(np.int32), np.zeros(0, dtype=np.uint8))


NETWORK = training.NetworkSettings(rank=8, blocks=2, heads=HEADS, dropout=0.0, learning_rate=0.01)
SEQUENCES = [[3, 1, 4], [8, 0, 2, 2, 5, 1]]


def loss_by_loops(weights, negatives):
    """Return the mean over all places of the cross-entropy of the next item, in float64."""
    losses = []
    for sequence in SEQUENCES:
        states = states_by_loops(weights, sequence[:-1])
        for state, target in zip(states, sequence[1:], strict=True):
            logits = weights.items.astype(np.float64) @ state
            others = sum(np.exp(logits[item]) for item in negatives if item != target)
            normalizer = np.exp(logits[target]) + ITEMS / len(negatives) * others
            losses.append(np.log(normalizer) - logits[target])
    return np.mean(losses)


@pytest.mark.parametrize("negatives", [range(ITEMS), [1, 1, 5]], ids=["all items", "sampled, one twice"])
def test_the_loss_is_the_cross_entropy_of_every_next_item(negatives):
    import jax

    weights = random_weights(seed=2)
    loss = jax.jit(training.mean_loss, static_argnums=(2, 3))(weights, batch_of(SEQUENCES, negatives), ITEMS, NETWORK)
    assert float(loss) == pytest.approx(loss_by_loops(weights, negatives), rel=1e-4)


def test_the_gradient_is_that_of_finite_differences():
    import jax

    weights = random_weights(seed=2, blocks=1)
    of_loss = jax.jit(jax.grad(training.mean_loss), static_argnums=(2, 3))
    gradient = of_loss(weights, batch_of(SEQUENCES), ITEMS, replace(NETWORK, blocks=1))
    rng = np.random.default_rng(0)
    for name in Weights._fields:
        array = getattr(weights, name)
        direction = rng.normal(size=array.shape)
        step = 1e-4
        values = [
            loss_by_loops(weights._replace(**{name: array + sign * step * direction}), range(ITEMS)) for sign in (1, -1)
        ]
        slope = (values[0] - values[1]) / (2 * step)
        assert float((getattr(gradient, name) * direction).sum()) == pytest.approx(slope, rel=2e-2, abs=2e-3), name


def test_windows_cover_each_next_item_once():
    sequences = [list(range(10)), [3, 4], [7], [1, 2, 3, 4]]
    indptr = np.cumsum([0, *(len(sequence) for sequence in sequences)])
    start, items = training.cut_into_windows(indptr, np.concatenate(sequences), 4)
    windows = [items[a:b].tolist() for a, b in pairwise(start)]
    assert windows == [[6, 7, 8, 9], [3, 4, 5, 6], [0, 1, 2, 3], [3, 4], [1, 2, 3, 4]]


def test_a_sweep_trains_each_place_once():
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 12, 60)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(0, 50, indptr[-1]).astype(np.int32)
    settings = training.TrainingSettings(
        NETWORK, max_length=16, batch=64, negatives=8, iterations=1, patience=1, minutes=None, seed=0
    )
    trained = []
    for batch in training.batches(indptr, items, 50, settings, rng):
        assert batch.targets.shape == (4, 16)
        assert len(batch.negatives) == 8
        for row, column in np.argwhere(batch.targets >= 0):
            place = batch.rows.places[row, column]
            first = column - place
            assert (batch.rows.sequence[row, first : column + 1] == batch.rows.sequence[row, column]).all()
            inputs = batch.rows.items[row, first : column + 1].tolist()
            trained.append((*inputs, int(batch.targets[row, column])))
    expected = [
        tuple(items[begin : begin + end].tolist())
        for begin, length in zip(indptr[:-1], lengths, strict=True)
        for end in range(2, length + 1)
    ]
    assert sorted(trained) == sorted(expected)


def test_a_plateau_ends_the_training_and_keeps_its_first_sweep():
    rng = np.random.default_rng(0)
    settings = training.TrainingSettings(
        NETWORK, max_length=8, batch=16, negatives=4, iterations=9, patience=2, minutes=None, seed=0
    )
    after_sweeps = []

    def validate(weights):
        after_sweeps.append(weights.items.copy())
        return 0.5

    items = rng.integers(0, 10, 40).astype(np.int32)
    result = training.train_network(np.arange(0, 41, 8), items, 10, settings, validate)
    assert len(result.values) == 3
    np.testing.assert_array_equal(result.weights.items, after_sweeps[0])


def test_the_validation_value_is_the_mean_ndcg_among_unseen_items():
    weights = random_weights(seed=4)
    shown = LikedSequences(np.array([0, 2, 3, 6]), np.array([3, 1, 8, 0, 2, 4], dtype=np.int32))
    hidden = HiddenLikes(shown, np.array([0, 2]), np.array([5, 7], dtype=np.int32))
    expected = []
    for sequence, item in [([3, 1], 5), ([0, 2, 4], 7)]:
        scores = weights.items @ states_by_loops(weights, sequence)[-1]
        rank = 1 + sum(scores[other] > scores[item] for other in range(ITEMS) if other not in sequence)
        expected.append(1 / np.log2(1 + rank))
    assert mean_ndcg(weights, hidden, HEADS) == pytest.approx(np.mean(expected))


@pytest.fixture(scope="module")
def fitted():
    return recsys.build("sasrec", SMALL).fit(chain(users=120))


def test_a_cycle_is_learned(fitted):
    """Item i is followed by i + 1: the list of each user begins with the item after their last one."""
    train = chain(users=120)
    lists = recsys.recommend(fitted, train.histories(), 1)
    following = [(sequence[-1] + 1) % LARGE for sequence in sequences_of(train)]
    assert np.mean(lists.items[:, 0] == following) > 0.97
    assert fitted.record["values"][fitted.record["best"] - 1] == max(fitted.record["values"])
    assert len(fitted.losses_) == len(fitted.record["values"])
    # A report takes a record with "why" for that of a hybrid.
    assert "why" not in fitted.record


def test_the_same_seed_gives_the_same_bytes(fitted):
    again = recsys.build("sasrec", SMALL).fit(chain(users=120))
    for name in fitted.STATE:
        assert getattr(again, name).tobytes() == getattr(fitted, name).tobytes()
    other = recsys.build("sasrec", SMALL | {"seed": 1, "iterations": 1}).fit(chain(users=120))
    assert not np.array_equal(other.item_vectors_, fitted.item_vectors_)


def test_the_vectors_of_users_score(fitted):
    histories = with_empty_row(chain(users=120).histories())
    vectors = fitted.user_vectors(histories)
    assert not vectors[-1].any()
    scores = fitted.score(histories)[:-1][:, fitted.known_]
    np.testing.assert_allclose(scores, vectors[:-1] @ fitted.item_vectors_.T, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_time_that_is_over_ends_the_training_with_weights():
    model = recsys.build("sasrec", SMALL | {"minutes": 1e-9}).fit(chain())
    assert model.record["stopped"] == "1e-09 minutes"
    assert len(model.losses_) == 1
    assert np.isfinite(model.score(chain().histories())).all()


@pytest.mark.slow
def test_steps_that_are_too_large_are_named():
    with pytest.raises(ConfigError, match=r"no longer finite after sweep 1: set a smaller learning_rate than 1e\+38"):
        recsys.build("sasrec", SMALL | {"learning_rate": 1e38, "batch": 32}).fit(chain())


@pytest.mark.slow
def test_too_few_likes_to_hide_some_are_judged_by_the_loss():
    train = chain(users=30)
    positions = train.histories().positions()
    short = recsys.build("sasrec", SMALL | {"iterations": 2})
    keep = positions < 2
    columns = {name: getattr(train, name)[keep] for name in ("user", "item", "value", "time")}
    short.fit(replace(train, **columns))
    assert short.record["users"] == 0
    assert short.record["values"] == [round(-loss, 5) for loss in short.losses_.tolist()]


def test_a_log_without_a_second_like_is_refused():
    train = chain()
    first = replace(train, value=np.where(train.histories().positions() == 0, 1, -1).astype(np.float32))
    with pytest.raises(InputError, match="no user of train has two liked items"):
        recsys.build("sasrec", {}).fit(first)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"heads": 3}, "heads: .*it must divide rank = 64"),
        ({"rank": 0}, "rank"),
        ({"dropout": 1.0}, "dropout"),
        ({"minutes": 0}, "minutes"),
        ({"epochs": 3}, "unknown parameter 'epochs'"),
    ],
)
def test_settings_that_cannot_be_are_refused(params, message):
    with pytest.raises(ConfigError, match=message):
        recsys.build("sasrec", params)


@pytest.mark.parametrize("package", ["jax", "optax"])
def test_without_the_extra_a_fit_says_what_to_install_and_a_fitted_model_scores(package, fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'recsys\[deep\]'"):
        recsys.build("sasrec", {}).fit(world()[0])
    assert np.isfinite(fitted.score(chain().histories())).all()
